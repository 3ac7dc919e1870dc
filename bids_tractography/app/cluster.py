"""Run jobs, and the batches inside a job, on a Ray cluster.

A job is a task that fits the model and gathers batches; each batch is a task of its own, and each
reserves the CPUs that its threads use; a job that waits for batches lends them its own. The
problem to track is put into the object store once and copied to each node once. A worker or node
that dies costs the batches that it had: they are tracked again elsewhere, and since a batch is a
function of the problem and its seeds alone, the file is the same.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from bids_tractography.app.local import Outcome, run_job
from bids_tractography.app.outcome import Failure
from bids_tractography.app.progress import LogProgress, as_lines
from bids_tractography.core.seeding import SeedBatch
from bids_tractography.errors import DiedError, UnavailableError
from bids_tractography.pipeline.job import Job
from bids_tractography.tracking import ENGINES
from bids_tractography.tracking.base import (
    Engine,
    EngineKind,
    TrackedBatch,
    TrackingProblem,
    track_one,
)

logger = logging.getLogger(__name__)

_RETRIES = 10  # of a batch or a job whose worker or node died
_BATCHES_PER_WORKER = 2  # one at work, one waiting
_TRIAL_SECONDS = 60
_LOGS = "Its logs are in /tmp/ray/session_latest/logs."


def run_jobs_on_ray(
    jobs: Iterator[Job], n_procs: int, address: str | None
) -> Iterator[tuple[Job, Outcome]]:
    """Run jobs on a cluster, yielding each with its outcome when it ends.

    Parameters
    ----------
    jobs : iterator of Job
        Consumed lazily: the next job is requested when a slot is free.
    n_procs : int
        Number of jobs to run at a time, if the cluster has enough CPUs.
    address : str or None
        Address of a running cluster; None starts one on this machine.

    Raises
    ------
    UnavailableError
        If Ray is not installed, or the cluster cannot be reached.
    """
    ray = _connect(address)
    try:
        largest = max(_cpus_of_nodes())
        task = ray.remote(_run_with_batches)

        def start(job: Job) -> Any:
            n_threads = min(
                job.n_threads, largest
            )  # a task that needs more CPUs than any node has would wait forever
            options = task.options(num_cpus=n_threads, max_retries=_RETRIES)
            return options.remote(replace(job, n_threads=n_threads))

        running = {start(job): job for job in islice(jobs, n_procs)}
        while running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            job = running.pop(done)
            try:
                outcome = ray.get(done)
            except ray.exceptions.RayError as error:
                outcome = Failure(f"its worker died: {error}", DiedError.exit_code)
                logger.error("%s: %s", job.name, outcome.message)
            yield job, outcome
            running |= {start(job): job for job in islice(jobs, 1)}
    finally:
        ray.shutdown()


def check_ray() -> None:
    """Check that Ray is installed.

    Raises
    ------
    UnavailableError
        If it is not.
    """
    try:
        import ray  # noqa: F401
    except ImportError:
        raise UnavailableError(
            "--executor ray needs Ray, which is not installed.",
            "pip install 'bids-tractography[ray]'",
        ) from None


def _connect(address: str | None) -> Any:
    check_ray()
    import ray

    os.environ.setdefault(
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"
    )  # the coming default of Ray, which warns until it is set
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # disable telemetry
    try:
        ray.init(address=address, include_dashboard=False, logging_level=logging.WARNING)
    except Exception as error:  # noqa: BLE001  # Ray raises bare exceptions if a cluster does not start
        if address in (None, "local"):
            raise UnavailableError(f"Ray cannot start on this machine: {error}", _LOGS) from None
        raise UnavailableError(
            f"the Ray cluster {address} cannot be reached: {error}",
            "Check it with 'ray status'; --ray-address takes HOST:PORT or 'auto'.",
        ) from None
    return ray


def try_ray() -> None:
    """Start Ray on this machine for one task, and stop it.

    Raises
    ------
    UnavailableError
        If it is not installed, does not start, or cannot run the task.
    """
    ray = _connect("local")
    try:
        ray.get(ray.remote(_do_nothing).remote(), timeout=_TRIAL_SECONDS)
    except ray.exceptions.RayError as error:
        raise UnavailableError(
            f"Ray starts on this machine, but cannot run a task: {error}", _LOGS
        ) from None
    finally:
        ray.shutdown()


def _do_nothing() -> None:
    """Do nothing, as a task."""


def _cpus_of_nodes() -> list[int]:
    """Return the CPUs of every node that has any."""
    import ray

    cpus = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    return [count for count in cpus if count] or [1]


def _run_with_batches(job: Job) -> Outcome:
    """Run a job in a task, its batches in other tasks."""
    logging.getLogger("bids_tractography").setLevel(logging.INFO)
    lines = as_lines(logging.StreamHandler())
    logging.basicConfig(level=logging.WARNING, handlers=[lines])
    return run_job(job, LogProgress(), _track_elsewhere)


def _track_elsewhere(
    problem: TrackingProblem, kind: EngineKind, n_threads: int, batches: Iterator[SeedBatch]
) -> Iterator[TrackedBatch]:
    """Track batches in tasks, as many at a time as there are CPUs; yield them in order."""
    import ray

    shared = ray.put(problem)
    cpus = _cpus_of_nodes()
    n_threads = min(n_threads, *cpus)  # so that every node can take a batch
    track = ray.remote(_track_batch).options(num_cpus=n_threads, max_retries=_RETRIES).remote
    workers = sum(count // n_threads for count in cpus)
    pending: deque[Any] = deque()
    for seeds in islice(batches, workers * _BATCHES_PER_WORKER):
        pending.append(track(shared, shared.hex(), kind.name, n_threads, seeds))
    while pending:
        tracked: TrackedBatch = ray.get(pending.popleft())
        for seeds in islice(batches, 1):
            pending.append(track(shared, shared.hex(), kind.name, n_threads, seeds))
        yield tracked


_engines: dict[str, Engine] = {}


def _track_batch(
    problem: TrackingProblem, identity: str, kind: str, n_threads: int, seeds: SeedBatch
) -> TrackedBatch:
    """Track a batch; the worker keeps the engine for the next batch of the same problem."""
    if identity not in _engines:
        _engines.clear()
        _engines[identity] = ENGINES[kind].build(problem, n_threads)
    return track_one(_engines[identity], seeds)

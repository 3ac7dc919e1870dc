"""Ray: the same bytes as on this machine alone, whatever dies on the way."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from conftest import QUICK, Ended, run_cli, sidecar, tractograms

from bids_tractography.app import cluster
from bids_tractography.app.doctor import examine_ray
from bids_tractography.app.outcome import Failure
from bids_tractography.app.plan import plan
from bids_tractography.app.request import Request, open_study
from bids_tractography.config import Config
from bids_tractography.outputs.provenance import RECORD_KEY
from bids_tractography.pipeline.job import Job

SMALL_BATCHES = "tracking.batch_size=50"


@contextmanager
def nodes(*cpus: int) -> Iterator[str]:
    """A Ray cluster of processes of this machine."""
    from ray.cluster_utils import Cluster

    head, *others = cpus
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": head})
    try:
        for count in others:
            started.add_node(num_cpus=count)
        yield started.address
    finally:
        started.shutdown()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_without_ray_the_error_says_what_to_install(
    scanned_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    ended = run_cli(scanned_once, tmp_path / "out", "participant", "--executor", "ray")
    assert ended.returncode == 69
    assert "bids-tractography[ray]" in ended.stderr


def test_an_address_without_ray_is_refused(scanned_once: Path, tmp_path: Path) -> None:
    ended = run_cli(scanned_once, tmp_path / "out", "participant", "--ray-address", "auto")
    assert ended.returncode == 64


class BrokenRay(types.ModuleType):
    """Ray as far as `doctor` goes, failing where it is told to."""

    class exceptions:  # noqa: N801
        class RayError(Exception): ...

    def __init__(self, breaks: str) -> None:
        super().__init__("ray")
        self.__spec__ = ModuleSpec("ray", None)
        self.breaks = breaks
        self.running = False

    def init(self, **_options: object) -> None:
        if self.breaks == "init":
            raise Exception("the node timed out")  # as Ray has it
        self.running = True

    def remote(self, function: Callable[[], object]) -> types.SimpleNamespace:
        return types.SimpleNamespace(remote=function)

    def get(self, value: object, timeout: float) -> object:
        if self.breaks == "get":
            raise self.exceptions.RayError("no worker came")
        return value

    def shutdown(self) -> None:
        self.running = False


@pytest.mark.parametrize(
    ("breaks", "says"),
    [("init", "the node timed out"), ("get", "no worker came"), ("", "a task done")],
)
def test_the_doctor_tells_what_is_wrong_with_ray(
    breaks: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = BrokenRay(breaks)
    monkeypatch.setitem(sys.modules, "ray", fake)
    (finding,) = examine_ray()
    assert finding.healthy is not bool(breaks)
    assert says in finding.text
    assert not fake.running


def test_the_doctor_does_not_miss_a_ray_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert not list(examine_ray())


@pytest.mark.slow
def test_a_task_reserves_the_cpus_that_its_threads_use(
    scanned_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")

    def tell(job: Job) -> Failure:
        reserved = ray.get_runtime_context().get_assigned_resources()["CPU"]
        return Failure(f"{job.n_threads} {reserved:g}", 0)

    monkeypatch.setattr(cluster, "_run_with_batches", tell)
    request = Request(scanned_once, tmp_path / "out", tmp_path / "work", Config())
    (planned,) = plan(request, open_study(request))
    job = planned.what
    assert isinstance(job, Job)
    with nodes(2, 1) as address:
        for wanted, given in ((1, 1), (64, 2)):  # no node has more than two
            jobs = iter([replace(job, n_threads=wanted)])
            ((_, outcome),) = cluster.run_jobs_on_ray(jobs, 1, address)
            assert outcome == Failure(f"{given} {given}", 0)


def on_ray(dataset: Path, output: Path, *words: str) -> subprocess.Popen[str]:
    settings = [word for override in (*QUICK, SMALL_BATCHES) for word in ("--set", override)]
    command = [sys.executable, "-m", "bids_tractography", dataset, output, "participant"]
    options = ["--executor", "ray", "--omp-nthreads", "1", *words, *settings]
    return subprocess.Popen(
        [*map(str, command), *options], stderr=subprocess.PIPE, text=True, env={**os.environ}
    )


@pytest.mark.slow
def test_a_cluster_gives_the_same_bytes(
    finished: tuple[Path, Ended], scanned_once: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    process = on_ray(scanned_once, tmp_path / "out")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    (path,), (expected,) = tractograms(tmp_path / "out"), tractograms(finished[0])
    assert sha256(path) == sha256(expected)
    assert sidecar(path)[RECORD_KEY]["batches"] == 12


@pytest.mark.slow
def test_a_node_that_dies_costs_its_batches_only(
    finished: tuple[Path, Ended], scanned_once: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        doomed = cluster.add_node(num_cpus=1)
        cluster.add_node(num_cpus=1)
        process = on_ray(scanned_once, tmp_path / "out", "--ray-address", cluster.address)

        def kill_in_mid_run() -> None:
            ledger = tmp_path / "out" / ".work"
            while process.poll() is None:
                if any(len(p.read_text().splitlines()) > 2 for p in ledger.rglob("ledger.jsonl")):
                    cluster.remove_node(doomed, allow_graceful=False)
                    return
                time.sleep(0.02)

        killer = threading.Thread(target=kill_in_mid_run)
        killer.start()
        _, errors = process.communicate(timeout=300)
        killer.join()
        assert process.returncode == 0, errors
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        cluster.shutdown()
    (path,), (expected,) = tractograms(tmp_path / "out"), tractograms(finished[0])
    assert sha256(path) == sha256(expected)

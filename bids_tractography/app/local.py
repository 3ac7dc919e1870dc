"""Run jobs in this process, or several at a time in separate processes."""

from __future__ import annotations

import logging
import logging.handlers
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, cast

from bids_tractography.app.outcome import Failure, Places, Skipped, attempt
from bids_tractography.app.progress import logged, name_run
from bids_tractography.app.reports import report_run
from bids_tractography.core.checks import Findings
from bids_tractography.errors import CrashError, DiedError
from bids_tractography.pipeline.estimate import estimate_memory_mib
from bids_tractography.pipeline.job import Job
from bids_tractography.pipeline.process import Done, process_dwi
from bids_tractography.pipeline.progress import Progress
from bids_tractography.tracking.base import Tracker, track_here

_JOIN_SECONDS = 5
logger = logging.getLogger(__name__)

_CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGILL, signal.SIGFPE}


Outcome = Done | Failure | Skipped


def run_jobs(
    jobs: Iterator[Job],
    n_procs: int,
    report: Callable[[Progress], None],
    memory_mib: float | None = None,
) -> Iterator[tuple[Job, Outcome]]:
    """Run jobs, yielding each with its outcome when it ends.

    Parameters
    ----------
    jobs : iterator of Job
        Consumed lazily: the next job is requested when a slot is free.
    n_procs : int
        Number of jobs to run at a time. If it is more than one, each job has its own process, so
        that a crash does not affect the others. A single job has none.
    report : callable
        Called with the progress of jobs.
    memory_mib : float, optional
        Memory of all jobs together; a job waits until its estimate fits in, or nothing else runs.
    """
    sized = ((job, _memory_of(job, memory_mib)) for job in jobs)
    first = list(islice(sized, 2 if n_procs > 1 else 1))
    if len(first) < 2:
        for job, _ in chain(first, sized):
            yield job, run_job(job, report)
        return
    waiting = chain(first, sized)
    following = next(waiting, None)
    running: dict[Future[Outcome], tuple[Job, float]] = {}
    with ThreadPoolExecutor(n_procs) as pool:
        try:
            while following or running:
                used = sum(memory for _, memory in running.values())
                if following and _fits(following[1], used, len(running), n_procs, memory_mib):
                    running[pool.submit(_run_apart, following[0], report)] = following
                    following = next(waiting, None)
                    continue
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future)[0], future.result()
        finally:  # when interrupted, do not wait for them
            for child in multiprocessing.active_children():
                child.terminate()


def _fits(needed: float, used: float, n_running: int, n_procs: int, limit: float | None) -> bool:
    """Return whether another job can start; one alone always can."""
    return n_running == 0 or (n_running < n_procs and (limit is None or used + needed <= limit))


def _memory_of(job: Job, limit: float | None) -> float:
    """Estimate the memory of a job, in MiB; warn if it does not fit in the limit at all."""
    if limit is None:
        return 0.0
    needed = attempt(job.name, partial(estimate_memory_mib, job), Places())
    if isinstance(needed, Failure):  # it fails for the same reason when it runs
        return 0.0
    if needed > limit:
        logger.warning(
            "%s needs about %.0f MiB of memory, but there are %.0f MiB (--mem). It may be killed.",
            job.name, needed, limit,
        )  # fmt: skip
    return needed


def run_job(job: Job, report: Callable[[Progress], None], track: Tracker = track_here) -> Outcome:
    """Run a job in this process; failures are returned as values."""
    findings = Findings(job.name, job.config.checks, job.subject)
    report(Progress(job.label, stage="starting"))
    with logged(job.label, job.outputs.root / "logs"):
        outcome = attempt(
            job.name,
            lambda: process_dwi(job, report, track, findings),
            Places(tuple(job.outputs.links.values()), (job.outputs.root, job.work.parent)),
        )
        if isinstance(outcome, Failure):
            found = findings.all
            outcome = replace(outcome, warnings=tuple(found.warnings), checks=dict(found.figures))
            logger.error("%s", outcome.message)
        if job.report:
            report(Progress(job.label, stage="making the report"))
            report_run(job.outputs.root, job.label, outcome, job.n_threads)
    report(Progress(job.label, stage=""))
    return outcome


def _run_apart(job: Job, report: Callable[[Progress], None]) -> Outcome:
    """Run a job in a new process, which sends its log and progress; report if it dies."""
    report(Progress(job.label, stage="starting"))
    # Ctrl-C reaches all processes of a terminal. It is for the main one, which ends the others:
    # they inherit the mask. The tracker would lift it if it were started later.
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    spawn = multiprocessing.get_context("spawn")  # threads of BLAS and OpenMP do not survive a fork
    # Each has a pipe of its own: one that is killed cannot block the others.
    receiver, sender = spawn.Pipe(duplex=False)
    threading.Thread(target=_relay, args=(receiver, report), daemon=True).start()
    with ProcessPoolExecutor(
        1, mp_context=spawn, initializer=_start_worker, initargs=(sender, os.getpid())
    ) as pool:
        process = None
        try:
            pid = pool.submit(os.getpid).result()
            sender.close()  # the pipe ends with the process
            process = next((c for c in multiprocessing.active_children() if c.pid == pid), None)
            return pool.submit(_run_logging, job).result()
        except BrokenProcessPool:
            death = _death(process)
            logger.error("%s: %s", job.name, death.message)
            report(Progress(job.label, stage=""))
            if job.report:
                report_run(job.outputs.root, job.label, death, 1)
            return death


def _death(process: BaseProcess | None) -> Failure:
    """Describe how a process ended; a crash would recur, unlike a kill."""
    if process is not None:
        process.join(_JOIN_SECONDS)
    number = -(process.exitcode or 0) if process is not None else 0
    if number in _CRASHES:
        name = signal.Signals(number).name
        return Failure(
            f"its process crashed ({name}). This is a defect of the program or of a library. "
            "Please report it.",
            CrashError.exit_code,
        )
    by = f" by {signal.Signals(number).name}" if number > 0 else ""
    return Failure(f"its process was killed{by}, perhaps for memory.", DiedError.exit_code)


def _exit_with(parent: int) -> None:
    """End this process when its parent has died, which also releases its locks."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(DiedError.exit_code)


def _relay(receiver: Connection, report: Callable[[Progress], None]) -> None:
    """Pass on the log and the progress of another process until it has ended."""
    with suppress(EOFError, OSError):
        while True:
            sent = receiver.recv()
            if isinstance(sent, Progress):
                report(sent)
            elif logging.getLogger(sent.name).isEnabledFor(sent.levelno):
                logging.getLogger(sent.name).handle(sent)


class _Sender(logging.handlers.QueueHandler):
    """Sends the log and the progress of this process to its parent."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(cast(Any, connection))
        self.setFormatter(logging.Formatter("%(message)s"))
        self.addFilter(name_run)

    def enqueue(self, record: logging.LogRecord | Progress) -> None:
        """Send a record; a parent that has died receives none."""
        with suppress(OSError):
            cast(Any, self.queue).send(record)

    def report(self, progress: Progress) -> None:
        """Send progress."""
        with self.lock or nullcontext():
            self.enqueue(progress)


_sender: _Sender


def _start_worker(connection: Connection, parent: int) -> None:
    global _sender
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()
    _sender = _Sender(connection)
    logging.basicConfig(level=logging.WARNING, handlers=[_sender], force=True)
    logging.getLogger("bids_tractography").setLevel(logging.DEBUG)


def _run_logging(job: Job) -> Outcome:
    return run_job(job, _sender.report)

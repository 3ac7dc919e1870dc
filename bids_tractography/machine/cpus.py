"""Number of processors available to this process, which may be less than the machine has."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from bids_tractography.machine.cgroups import control_folders

# Processors that schedulers grant a task on this node: Slurm (with and without
# --cpus-per-task), Grid Engine, PBS, LSF.
_GRANTED = (
    *("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"),
    *("NSLOTS", "NCPUS", "LSB_DJOB_NUMPROC"),
)

THREADS_OF_RUN = 8
"""Threads of a run from which on several runs at a time are the better use of them."""


def count_cpus(environment: Mapping[str, str], root: Path = Path("/")) -> int:
    """Return the number of processors that this process may use.

    It is the minimum of the CPU affinity of the process (which also reflects cpusets), the number
    that a scheduler sets in the environment, and the quotas of the control groups of the process. A
    quota of 1.5 processors counts as 2, so that none of it is wasted.

    Parameters
    ----------
    environment : mapping
        Environment variables of the process.
    root : Path
        Folder that contains ``proc`` and ``sys``.

    Returns
    -------
    int
        At least 1.

    Notes
    -----
    Linux kernel documentation: ``admin-guide/cgroup-v2`` (``cpu.max``) and
    ``scheduler/sched-bwc`` (``cpu.cfs_quota_us``).
    """
    affinity = getattr(os, "sched_getaffinity", None)  # only on Linux
    ours = len(affinity(0)) if affinity else os.cpu_count() or 1
    quotas = [math.ceil(quota) for quota in _quotas(root)]
    return max(1, min([ours, *_granted(environment), *quotas]))


def share_cpus(total: int, per_run: int | None, n_participants: int) -> tuple[int, int]:
    """Share processors out among runs that are processed at the same time.

    Some parts of a run use one thread, so that several runs at a time finish earlier than one after
    another, but they take more memory. By default, every run gets at least `THREADS_OF_RUN`
    threads, and no more runs are processed at a time than there are participants.

    Parameters
    ----------
    total : int
        Threads of all runs together.
    per_run : int or None
        Threads of each run, at most `total`; None for the default.
    n_participants : int

    Returns
    -------
    n_runs, n_threads : int
        Number of runs at a time, and threads of each.
    """
    if per_run is not None:
        n_threads = min(per_run, total)
        return total // n_threads, n_threads
    n_runs = max(1, min(n_participants, total // THREADS_OF_RUN))
    return n_runs, total // n_runs


def _granted(environment: Mapping[str, str]) -> Iterator[int]:
    for name in _GRANTED:
        with suppress(ValueError):
            number = int(environment.get(name, ""))
            if number > 0:
                yield number


def _quotas(root: Path) -> Iterator[float]:
    """Yield the quota of each control group of this process, in processors."""
    for folder in control_folders(root, "cpu"):
        quota = _quota(folder)
        if quota is not None:
            yield quota


def _quota(folder: Path) -> float | None:
    """Read a quota in processors; None if there is no limit."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota, period = (
                (folder / name).read_text(encoding="utf-8")
                for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            )
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # missing, "max", or malformed
        return None

"""How many processors are ours: never the machine's number where less has been granted."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

# What schedulers grant a task on this node: Slurm (with and without --cpus-per-task), Grid
# Engine, PBS, LSF.
_GRANTED = (
    *("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"),
    *("NSLOTS", "NCPUS", "LSB_DJOB_NUMPROC"),
)


def count_cpus(environment: Mapping[str, str], root: Path = Path("/")) -> int:
    """Count the processors that this process may use.

    The smallest of: the affinity of the process (which cpusets narrow too), what a scheduler
    says in the environment, and the quotas of the control groups above the process. A quota of
    1.5 processors counts as 2, so that none of it is left unused.

    Parameters
    ----------
    environment : mapping
        The process's environment.
    root : Path
        Where ``proc`` and ``sys`` are.

    Returns
    -------
    int
        At least 1.

    Notes
    -----
    Linux kernel documentation: ``admin-guide/cgroup-v2`` (``cpu.max``) and
    ``scheduler/sched-bwc`` (``cpu.cfs_quota_us``).
    """
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it
    ours = len(affinity(0)) if affinity else os.cpu_count() or 1
    quotas = [math.ceil(quota) for quota in _quotas(root)]
    return max(1, min([ours, *_granted(environment), *quotas]))


def _granted(environment: Mapping[str, str]) -> Iterator[int]:
    for name in _GRANTED:
        with suppress(ValueError):
            number = int(environment.get(name, ""))
            if number > 0:
                yield number


def _quotas(root: Path) -> Iterator[float]:
    """Yield the processors that each control group above this process leaves to it."""
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        mounts = (root / "proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "cpu" in controllers.split(","):
            for folder in _folders(root, mounts, controllers, PurePosixPath(path)):
                quota = _quota(folder)
                if quota is not None:
                    yield quota


def _folders(
    root: Path, mounts: list[str], controllers: str, group: PurePosixPath
) -> Iterator[Path]:
    """Yield the folders of a control group and of those above it, as far as they can be seen."""
    for line in mounts:
        # id, parent, device, root of the mount, mount point, options ... - type, source, options
        place, _, kind = line.partition(" - ")
        fields, (type_, *_, options) = place.split(), kind.split()
        if type_ != ("cgroup" if controllers else "cgroup2"):
            continue
        if controllers and "cpu" not in options.split(","):
            continue
        top, mounted_at = PurePosixPath(fields[3]), root / fields[4].lstrip("/")
        # In a namespace of its own, a group's path says nothing of the mount.
        below = group.relative_to(top) if group.is_relative_to(top) else PurePosixPath()
        yield from (mounted_at / part for part in (below, *below.parents))


def _quota(folder: Path) -> float | None:
    """Read a quota in processors; None for no limit."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota, period = (
                (folder / name).read_text(encoding="utf-8")
                for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            )
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # not there, "max", or nonsense
        return None

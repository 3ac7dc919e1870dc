"""Number of processors available to this process, which may be less than the machine has."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

# Processors that schedulers grant a task on this node: Slurm (with and without
# --cpus-per-task), Grid Engine, PBS, LSF.
_GRANTED = (
    *("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"),
    *("NSLOTS", "NCPUS", "LSB_DJOB_NUMPROC"),
)


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


def _granted(environment: Mapping[str, str]) -> Iterator[int]:
    for name in _GRANTED:
        with suppress(ValueError):
            number = int(environment.get(name, ""))
            if number > 0:
                yield number


def _quotas(root: Path) -> Iterator[float]:
    """Yield the quota of each control group of this process, in processors."""
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
    """Yield the folders of a control group and its parents, as far as they are visible."""
    for line in mounts:
        # id, parent, device, root of the mount, mount point, options ... - type, source, options
        mount, _, kind = line.partition(" - ")
        fields, (type_, *_, options) = mount.split(), kind.split()
        if type_ != ("cgroup" if controllers else "cgroup2"):
            continue
        if controllers and "cpu" not in options.split(","):
            continue
        top, mounted_at = PurePosixPath(fields[3]), root / fields[4].lstrip("/")
        # In a separate cgroup namespace, the path of a group is unrelated to the mount.
        below = group.relative_to(top) if group.is_relative_to(top) else PurePosixPath()
        yield from (mounted_at / part for part in (below, *below.parents))


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

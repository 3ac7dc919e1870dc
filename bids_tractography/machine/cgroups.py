"""Control groups of this process: where Linux keeps the limits of containers and schedulers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def control_folders(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of the control groups of this process, with their parents.

    Parameters
    ----------
    root : Path
        Folder that contains ``proc`` and ``sys``.
    controller : str
        ``cpu`` or ``memory``.

    Notes
    -----
    Linux kernel documentation: ``admin-guide/cgroup-v1`` and ``cgroup-v2``.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        mounts = (root / "proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers == "" or controller in controllers.split(","):
            yield from _visible(
                root, mounts, controller if controllers else "", PurePosixPath(path)
            )


def _visible(
    root: Path, mounts: list[str], controller: str, group: PurePosixPath
) -> Iterator[Path]:
    """Yield the folders of a control group and its parents, as far as they are visible."""
    for line in mounts:
        # id, parent, device, root of the mount, mount point, options ... - type, source, options
        mount, _, kind = line.partition(" - ")
        fields, (type_, *_, options) = mount.split(), kind.split()
        if type_ != ("cgroup" if controller else "cgroup2"):
            continue
        if controller and controller not in options.split(","):
            continue
        top, mounted_at = PurePosixPath(fields[3]), root / fields[4].lstrip("/")
        # In a separate cgroup namespace, the path of a group is unrelated to the mount.
        below = group.relative_to(top) if group.is_relative_to(top) else PurePosixPath()
        yield from (mounted_at / part for part in (below, *below.parents))

"""Locks on runs of an output folder and on batch stores."""

from __future__ import annotations

import fcntl
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bids_tractography.errors import BusyError, OutputError
from bids_tractography.outputs.files import make_folder
from bids_tractography.outputs.names import WORK

logger = logging.getLogger(__name__)


@contextmanager
def exclusive(root: Path, name: str, *, wait: bool = False) -> Iterator[None]:
    """Lock a run of an output folder for this process.

    Parameters
    ----------
    root : Path
        The output folder.
    name : str
        Name of the run.
    wait : bool
        Whether to wait if another process holds the lock.

    Raises
    ------
    BusyError
        If another process holds the lock and `wait` is false.
    OutputError
        If the lock file cannot be written.
    """
    with locked(root / WORK / f"{name}.lock", wait=wait):
        yield


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Lock a file for this process.

    The kernel releases the lock when the process ends for any reason. The holder removes the file;
    a file left behind by a killed process is locked again by the next one.

    Parameters
    ----------
    path : Path
        The lock file; its folder is created and kept.
    wait : bool
        Whether to wait if another process holds the lock.

    Raises
    ------
    BusyError
        If another process holds the lock and `wait` is false.
    OutputError
        If the lock file cannot be written, or is not a regular file.
    """
    make_folder(path.parent)
    descriptor = _acquire(path, wait=wait)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _acquire(path: Path, *, wait: bool) -> int:
    while True:  # repeats if a holder has removed the file in the meantime
        descriptor, held = _open_lock(path), False
        try:
            held = _is_locked(path, descriptor, wait=wait)
        finally:
            if not held:
                os.close(descriptor)
        if held:
            return descriptor


def _open_lock(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        raise OutputError(f"{path} cannot be opened as a lock ({error.strerror}).") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OutputError(f"{path} is not a regular file.", "Remove it.")
    return descriptor


def _is_locked(path: Path, descriptor: int, *, wait: bool) -> bool:
    """Lock an open file; return False if it is no longer the file at the path."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise BusyError(
            f"another process is working on {path.stem}.", "Wait for it to finish, or stop it."
        ) from None
    except OSError as error:
        logger.warning("Cannot lock %s (%s): run only one process at a time.", path, error.strerror)
        return True
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    return False

"""Outcomes of participants and runs; `attempt` turns exceptions into values."""

from __future__ import annotations

import errno
import logging
import math
import os
import re
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from bids_tractography.errors import (
    CrashError,
    DiedError,
    NoInputError,
    OutputError,
    TractographyError,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_EXHAUSTED = {errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE}
_DISCONNECTED = {errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ETIMEDOUT}


@dataclass(frozen=True)
class Failure:
    """Why a run or a participant failed.

    Parameters
    ----------
    message : str
    exit_code : int
    warnings : tuple of str
        Warnings that preceded the failure.
    checks : mapping
        Figures that had been measured by then, by name, JSON values.
    """

    message: str
    exit_code: int
    warnings: tuple[str, ...] = ()
    checks: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, error: TractographyError) -> Failure:
        """Return the failure that an error describes."""
        return cls(str(error), error.exit_code)


@dataclass(frozen=True)
class Skipped:
    """Why a run or a participant is skipped, which is not a failure.

    Parameters
    ----------
    error : TractographyError
        The error to report if nothing else is left to do.
    """

    error: TractographyError


@dataclass(frozen=True)
class Places:
    """Directories that a piece of work reads from and writes to.

    Parameters
    ----------
    read, written : tuple of Path
        The output directory is the first that is written; its ``logs`` receives tracebacks.
    """

    read: tuple[Path, ...] = ()
    written: tuple[Path, ...] = ()


def attempt(name: str, work: Callable[[], T], places: Places) -> T | Failure:
    """Call a function; return its result, or the reason why it failed.

    This is the only place that catches every exception. An exception that is neither one of our
    errors, nor caused by the system or a lack of memory, is a defect: its exit code is 70, and
    its traceback is written to a file that the message names.

    Parameters
    ----------
    name : str
        Name of the run or the participant, e.g. ``sub-01_dir-AP``.
    work : callable
    places : Places
    """
    try:
        return work()
    except BrokenPipeError:  # the reader of the output has ended
        raise
    except TractographyError as error:
        fault: TractographyError = error
    except MemoryError as error:
        fault = _memory_fault(error) or _defect(name, error, places)
    except OSError as error:
        fault = _system_fault(error, places) or _defect(name, error, places)
    except Exception as error:  # noqa: BLE001  # one participant must not stop the others
        fault = _defect(name, error, places)
    return Failure.of(fault)


def _memory_fault(error: MemoryError) -> TractographyError | None:
    """Return the error of a lack of memory, which another try may overcome.

    An array that is larger than the memory of the machine never fits: requesting one is a defect,
    and a scheduler should not try again.
    """
    shape, dtype = getattr(error, "shape", ()), getattr(error, "dtype", None)
    n_bytes = math.prod(shape) * dtype.itemsize if dtype is not None else 0
    if n_bytes > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
        return None
    return DiedError(
        "out of memory.",
        "Provide more, or limit it with --mem, so that fewer runs are processed at a time.",
    )


def _system_fault(error: OSError, places: Places) -> TractographyError | None:
    """Return the error of a file system or a lack of resources; None for anything else."""
    reason = error.strerror or str(error)
    path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None
    where = f"{path}: " if path else ""
    if error.errno in _FULL:
        return OutputError(f"{where}{reason}.", "Free space or choose another output directory.")
    if error.errno in _EXHAUSTED:
        return DiedError(
            f"{where}{reason}.",
            "Process fewer runs at a time: raise --omp-nthreads, or limit --mem.",
        )
    if error.errno in _DISCONNECTED:
        return DiedError(f"{where}{reason}.", "Check the disk or the network file system.")
    if path is not None and _is_below(path, places.written):
        return OutputError(
            f"{path} cannot be used ({reason}).",
            "Check that the output and work directories still exist and can be written.",
        )
    if path is not None and _is_below(path, places.read):
        return NoInputError(
            f"{path} cannot be read ({reason}).", "Check that the dataset is still there."
        )
    return None


def _is_below(path: Path, folders: tuple[Path, ...]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _defect(name: str, error: Exception, places: Places) -> CrashError:
    """Write the traceback of a defect to a file; return the error that names it."""
    logger.debug("%s: unexpected error", name, exc_info=error)
    text = "".join(traceback.format_exception(error))
    path = _keep(name, text, places)
    kept = f"Its traceback is in {path}: please report" if path else "Please report"
    line = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".: ")
    return CrashError(
        f"unexpected {line}.",
        f"This is a defect of the program. {kept} it.",
    )


def _keep(name: str, text: str, places: Places) -> Path | None:
    """Write a traceback to the first directory that accepts it."""
    started = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    safe = re.sub(r"[^0-9A-Za-z_.+-]", "_", name)[:100]
    for folder in _log_folders(places):
        path = folder / f"{started}_{os.getpid()}_{safe}_traceback.txt"
        with suppress(OSError):
            folder.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
            return path
    return None


def _log_folders(places: Places) -> Iterator[Path]:
    if places.written:
        yield places.written[0] / "logs"
    yield from places.written[1:]
    with suppress(OSError):
        yield Path(tempfile.gettempdir())

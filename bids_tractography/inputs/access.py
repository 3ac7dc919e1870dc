"""Whether the files that a run needs can be read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from bids_tractography.errors import NoInputError

# git-annex leaves such a text in place of the content of an unlocked file.
_ANNEX_POINTER = b"/annex/objects/"
_FETCH = "Run 'datalad get' on it, and make the folder that it links to available (bind mount)."


def check_file(path: Path, key: str = "") -> Path:
    """Check that a file is there, is a regular file once links are resolved, and can be read.

    Parameters
    ----------
    path : Path
    key : str
        Key of the configuration that names it; part of the message.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    NoInputError
        If the file cannot be used, with the remedy.
    """
    shown = f"{key}: {printable(path)}" if key else printable(path)
    if not is_utf8(path):
        raise NoInputError(f"{shown}: its name is not valid UTF-8.", "Rename it.")
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # opening a named pipe would block
            raise NoInputError(f"{shown} is not a regular file.")
        with path.open("rb") as file:
            start = file.read(len(_ANNEX_POINTER))
    except FileNotFoundError:
        if path.is_symlink():
            raise NoInputError(f"{shown} is a link to content that is not there.", _FETCH) from None
        raise NoInputError(f"{shown} does not exist.") from None
    except PermissionError:
        raise NoInputError(
            f"{shown} cannot be read (permission denied).",
            "Grant read permission to the user who runs the app.",
        ) from None
    except OSError as error:
        raise NoInputError(f"{shown} cannot be read ({error.strerror}).") from None
    if start == _ANNEX_POINTER:
        raise NoInputError(f"{shown} is a git-annex pointer without its content.", _FETCH)
    return path


def is_utf8(path: Path | str) -> bool:
    """Tell whether a path can be written as UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(path: Path | str) -> str:
    """Return a path as text that can be printed, whatever its bytes are."""
    return os.fsencode(path).decode(errors="replace")

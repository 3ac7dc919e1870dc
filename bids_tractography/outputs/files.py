"""Atomic writing of files: complete or not at all."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from bids_tractography.errors import OutputError, TractographyError
from bids_tractography.machine.files import read_json_file

TEMPORARY = ".tmp-"


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty if there is no readable object."""
    try:
        content = read_json_file(path)
    except (TractographyError, OSError):
        return {}
    return content if isinstance(content, dict) else {}


def leftovers(folder: Path) -> list[tuple[Path, str]]:
    """Find the temporary files in a folder, with the names that they were to receive."""
    with suppress(OSError):
        names = [path.name for path in folder.iterdir() if path.name.startswith(TEMPORARY)]
        return [(folder / n, n.removeprefix(TEMPORARY).partition(".")[2]) for n in names]
    return []


def write_atomically(path: Path, writer: Callable[[Path], None], *, new: bool = False) -> None:
    """Write a file under a temporary name in the same folder, sync it to disk, and rename it.

    Parameters
    ----------
    path : Path
        File to write.
    writer : callable
        Writes the content to the temporary path that it is given.
    new : bool
        Whether an existing file is an error, rather than replaced.

    Raises
    ------
    OutputError
        If the folder cannot be written, the disk is full, or the file exists and must not.
    """
    if new:
        refuse_existing(path)
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if new:
            _publish(temporary, path)
        else:
            temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror or error}).") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def refuse_existing(path: Path) -> None:
    """Check that there is nothing of a name.

    Raises
    ------
    OutputError
        If there is.
    """
    if os.path.lexists(path):
        raise OutputError(f"{path} exists already.", "Choose another name, or remove it.")


def _publish(temporary: Path, path: Path) -> None:
    """Give a file its name unless there is a file of that name, which renaming would replace."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        refuse_existing(path)
    except OSError:  # the file system has no hard links
        refuse_existing(path)
        temporary.replace(path)


def make_folder(path: Path) -> None:
    """Create a folder and its parents.

    Raises
    ------
    OutputError
        If a folder cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be created ({error.strerror}).") from None


def write_text(path: Path, text: str, *, new: bool = False) -> None:
    """Write a text file, which must not exist if it has to be new."""
    write_atomically(path, lambda p: _write_text(p, text), new=new)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write an indented JSON file; values that JSON does not support are an error."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")

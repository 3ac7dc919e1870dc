"""Opening files that were written by others.

Only regular files are opened, so that a named pipe or a device cannot block the program. Sizes
are limited by what the file can hold, and a file that a run has hashed must not change while the
run reads it.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn

from bids_tractography.errors import ChangedError, DataError, NoInputError, TractographyError

TEXT_BYTES = 1 << 24
"""Size limit of text files: gradients, sidecars, tables."""

# git-annex writes this text in place of the content of an unlocked file.
_ANNEX_POINTER = b"/annex/objects/"
_FETCH = "Run 'datalad get' on it, and make the directory that it links to available (bind mount)."
# A deflate stream expands by at most this factor (zlib's technical details).
_MAX_EXPANSION = 1032
_CHUNK_BYTES = 1 << 20
_MAX_DEPTH = 100

# Device, inode, size and modification time in ns.
_State = tuple[int, int, int, int]
_WATCHED: ContextVar[dict[Path, _State | None] | None] = ContextVar("watched", default=None)


@contextmanager
def open_input(path: Path, key: str = "") -> Iterator[io.BufferedReader]:
    """Open a file for reading in binary mode; symbolic links are followed.

    Parameters
    ----------
    path : Path
    key : str
        Configuration key that names the file, for messages.

    Raises
    ------
    NoInputError
        If the path is not a regular file that can be read.
    ChangedError
        If the file changes while it is open, or, inside `unchanged`, has changed since it was
        opened first.
    """
    with _open(path, key) as file:
        state = _state_of(os.fstat(file.fileno()))
        _compare(path, state)
        yield file
        if _state_of(os.fstat(file.fileno())) != state:
            raise _changed(path)


@contextmanager
def open_plain(path: Path) -> Iterator[io.BufferedIOBase]:
    """Open a file as `open_input` does, through gzip if its name ends in ``.gz``.

    The checksum of a gzip member is compared when its end is read, see `read_to_end`. A file may
    have several members, as pigz and bgzip write, and zeros after the last.
    """
    with open_input(path) as file:
        if path.suffix == ".gz":
            with gzip.GzipFile(fileobj=file, mode="rb") as stream:
                yield stream
        else:
            yield file


def max_plain_bytes(path: Path) -> int:
    """Return the largest size that the content of a file can have, decompressed."""
    size = path.stat().st_size
    return size * _MAX_EXPANSION if path.suffix == ".gz" else size


def read_to_end(stream: io.BufferedIOBase) -> int:
    """Read the rest of a stream, so that gzip compares its checksum; return its length."""
    n_bytes = 0
    while content := stream.read(_CHUNK_BYTES):
        n_bytes += len(content)
    return n_bytes


def read_exactly(stream: io.BufferedIOBase, n_bytes: int) -> bytes | None:
    """Read a number of bytes, or return None if the stream ends before.

    Memory is allocated as the content arrives, so that a damaged length cannot exhaust it.
    """
    if n_bytes <= _CHUNK_BYTES:
        content = stream.read(n_bytes)
        return content if len(content) == n_bytes else None
    buffer = io.BytesIO()
    while (left := n_bytes - buffer.tell()) and (part := stream.read(min(left, _CHUNK_BYTES))):
        buffer.write(part)
    return buffer.getvalue() if buffer.tell() == n_bytes else None


def check_file(path: Path, key: str = "") -> Path:
    """Check that a path is a regular file that can be read.

    Parameters
    ----------
    path : Path
    key : str
        Configuration key that names the file, for messages.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    NoInputError
        If the file cannot be used, with the remedy.
    """
    with _open(path, key):
        return path


def read_text(
    path: Path, fault: type[TractographyError] = DataError, max_bytes: int = TEXT_BYTES
) -> str:
    r"""Read a UTF-8 text file; line ends become ``\n``.

    Parameters
    ----------
    path : Path
    fault : type
        Raised for a file that is not text, or too large.
    max_bytes : int

    Raises
    ------
    NoInputError
        If the file cannot be read.
    """
    with open_input(path) as file:
        try:
            content = file.read(max_bytes + 1)
        except OSError as error:
            raise NoInputError(f"{printable(path)} cannot be read ({error.strerror}).") from None
    if len(content) > max_bytes:
        raise fault(
            f"{printable(path)} is larger than {max_bytes / 2**20:g} MiB.", "Give another file."
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise fault(f"{printable(path)} is not a text file (UTF-8).") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json_file(
    path: Path,
    fault: type[TractographyError] = DataError,
    *,
    remedy: str = "",
    strict: bool = False,
) -> Any:
    """Read a JSON file.

    Parameters
    ----------
    path : Path
    fault : type
        Raised for a file that is not JSON.
    remedy : str
    strict : bool
        Also refuse NaN, infinity and lone surrogates, which cannot be written again.

    Raises
    ------
    NoInputError
        If the file cannot be read.
    """
    text = read_text(path, fault)
    try:
        return parse_json(text, strict=strict)
    except ValueError as error:
        raise fault(f"{printable(path)} is not valid JSON: {error}.", remedy) from None


def parse_json(
    text: str,
    *,
    strict: bool = True,
    pairs: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """Parse JSON; whatever is wrong is a ValueError.

    Parameters
    ----------
    text : str
    strict : bool
        Refuse NaN, infinity and lone surrogates.
    pairs : callable, optional
        Makes the dict of an object from its items.
    """
    constant = _refuse_constant if strict else None
    try:
        content = json.loads(text, parse_constant=constant, object_pairs_hook=pairs)
        check_depth(content)
        if strict:
            json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("it has half of a surrogate pair, which is not a character") from None
    return content


def check_depth(content: Any) -> None:
    """Raise a ValueError if lists and mappings are nested more deeply than anyone writes."""
    level, depth = [content], 0
    while level:
        containers = [part for part in level if isinstance(part, dict | list | tuple)]
        if containers and (depth := depth + 1) > _MAX_DEPTH:
            raise ValueError("it is nested too deeply")
        level = [
            item
            for part in containers
            for item in (part.values() if isinstance(part, dict) else part)
        ]


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


@contextmanager
def unchanged(paths: Iterable[Path]) -> Iterator[None]:
    """Require, within the block, that files stay what they were when they were opened first.

    Parameters
    ----------
    paths : iterable of Path
        The files; those opened under another path are not compared.
    """
    token = _WATCHED.set(dict.fromkeys(paths))
    try:
        yield
    finally:
        _WATCHED.reset(token)


def check_unchanged() -> None:
    """Check the files of the block of `unchanged` that have been opened so far.

    Raises
    ------
    ChangedError
        If one of them was changed, replaced or removed.
    """
    for path, state in (_WATCHED.get() or {}).items():
        if state is None:
            continue
        try:
            now = _state_of(path.stat())
        except OSError:
            raise _changed(path) from None
        if now != state:
            raise _changed(path)


def exists(path: Path) -> bool:
    """Tell whether there is something at a path; False where that cannot be found out."""
    try:
        return path.exists()
    except OSError:
        return False


def resolve(path: Path) -> Path:
    """Return an absolute path without links, as far as it can be followed."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links, or a path that cannot be
        return path.absolute()


def is_utf8(path: Path | str) -> bool:
    """Tell whether a path can be written as UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(path: Path | str) -> str:
    """Return a path as text that can be printed, whatever its bytes are."""
    text = os.fsencode(path).decode(errors="replace")
    return text if len(text) <= 1024 else f"{text[:500]}...{text[-500:]}"


def _open(path: Path, key: str) -> io.BufferedReader:
    shown = f"{key}: {printable(path)}" if key else printable(path)
    if not is_utf8(path):
        raise NoInputError(f"{shown}: its name is not valid UTF-8.", "Rename it.")
    try:
        # Opening a device may already have an effect, so the type is checked before and after.
        regular = stat.S_ISREG(path.stat().st_mode)
        file = _open_regular(path) if regular else None
        start = file.peek(len(_ANNEX_POINTER)) if file else b""
    except FileNotFoundError:
        if path.is_symlink():
            raise NoInputError(f"{shown} is a link to content that is not there.", _FETCH) from None
        raise NoInputError(f"{shown} does not exist.") from None
    except PermissionError:
        raise NoInputError(
            f"{shown} cannot be read (permission denied).",
            "Grant read permission to the user who runs the app.",
        ) from None
    except (OSError, ValueError) as error:  # a ValueError for a NUL character
        reason = getattr(error, "strerror", None) or error
        raise NoInputError(f"{shown} cannot be read ({reason}).") from None
    if file is None:
        raise NoInputError(f"{shown} is not a regular file.")
    if start.startswith(_ANNEX_POINTER):
        file.close()
        raise NoInputError(f"{shown} is a git-annex pointer without its content.", _FETCH)
    return file


def _open_regular(path: Path) -> io.BufferedReader | None:
    """Open a file without waiting for the other end of a pipe; None if it is not a regular one."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return os.fdopen(descriptor, "rb")


def _state_of(found: os.stat_result) -> _State:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _compare(path: Path, state: _State) -> None:
    """Compare with the first opening inside `unchanged`, or record this as the first."""
    watched = _WATCHED.get()
    if watched is None or path not in watched:
        return
    before = watched[path]
    if before is None:
        watched[path] = state
    elif before != state:
        raise _changed(path)


def _changed(path: Path) -> ChangedError:
    return ChangedError(
        f"{printable(path)} was changed or replaced while the run was using it.",
        "Run the same command again when nothing writes to the input.",
    )

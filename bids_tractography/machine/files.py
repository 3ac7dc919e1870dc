"""Safe opening of input files.

Only regular files are opened, so that a named pipe or a device cannot block the program. Declared
sizes are limited by what the file can hold. A file that a run has hashed must not change while the
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
"""Maximum size of text files: gradients, sidecars, tables."""

# git-annex replaces the content of an unlocked file by this text if the content is not present.
_ANNEX_POINTER = b"/annex/objects/"
_FETCH = "Run 'datalad get' on it, and bind-mount the directory that it links to."
# Maximum expansion of a deflate stream (zlib's technical details).
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
        File to open.
    key : str
        Configuration key that names the file, for messages.

    Raises
    ------
    NoInputError
        If the path is not a readable regular file.
    ChangedError
        If the file changes while it is open or, inside `unchanged`, has changed since it was first
        opened.
    """
    with _open(path, key) as file:
        state = _state_of(os.fstat(file.fileno()))
        _compare(path, state)
        yield file
        if _state_of(os.fstat(file.fileno())) != state:
            raise _changed(path)


@contextmanager
def open_plain(path: Path) -> Iterator[io.BufferedIOBase]:
    """Open a file like `open_input`, and decompress it if its name ends in ``.gz``.

    The checksum of a gzip member is verified when its end is read, see `read_to_end`. A file may
    have several members, as written by pigz and bgzip, and zeros after the last one.
    """
    with open_input(path) as file:
        if path.suffix == ".gz":
            with gzip.GzipFile(fileobj=file, mode="rb") as stream:
                yield stream
        else:
            yield file


def max_plain_bytes(path: Path) -> int:
    """Return the maximum size of the content of a file after decompression."""
    size = path.stat().st_size
    return size * _MAX_EXPANSION if path.suffix == ".gz" else size


def read_to_end(stream: io.BufferedIOBase) -> int:
    """Read the rest of a stream, which makes gzip verify its checksum; return its length."""
    n_bytes = 0
    while content := stream.read(_CHUNK_BYTES):
        n_bytes += len(content)
    return n_bytes


def read_exactly(stream: io.BufferedIOBase, n_bytes: int) -> bytes | None:
    """Read a number of bytes, or return None if the stream is shorter.

    Memory is allocated as the content arrives, so that a corrupt length cannot exhaust it.
    """
    if n_bytes <= _CHUNK_BYTES:
        content = stream.read(n_bytes)
        return content if len(content) == n_bytes else None
    buffer = io.BytesIO()
    while (left := n_bytes - buffer.tell()) and (part := stream.read(min(left, _CHUNK_BYTES))):
        buffer.write(part)
    return buffer.getvalue() if buffer.tell() == n_bytes else None


def check_file(path: Path, key: str = "") -> Path:
    """Check that a path is a readable regular file.

    Parameters
    ----------
    path : Path
        Path to check.
    key : str
        Configuration key that names the file, for messages.

    Returns
    -------
    Path
        `path`, unchanged.

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
    r"""Read a UTF-8 text file, converting line ends to ``\n``.

    Parameters
    ----------
    path : Path
        Text file.
    fault : type
        Exception to raise if the file is not text or is too large.
    max_bytes : int
        Maximum size of the file.

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
            f"{printable(path)} is larger than {max_bytes / 2**20:g} MiB.", "Provide another file."
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
        JSON file.
    fault : type
        Exception to raise if the file is not JSON.
    remedy : str
        Remedy of that exception.
    strict : bool
        Whether to refuse NaN, infinity and lone surrogates, which cannot be written as JSON.

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
    """Parse JSON, raising ValueError for any fault.

    Parameters
    ----------
    text : str
        JSON text.
    strict : bool
        Whether to refuse NaN, infinity and lone surrogates.
    pairs : callable, optional
        Creates the dict of an object from its items.
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
        raise ValueError("it contains a lone surrogate, which is not a character") from None
    return content


def check_depth(content: Any) -> None:
    """Raise ValueError if lists and mappings are nested implausibly deeply."""
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
    """Watch files within the block: they must not change after they are first opened.

    Parameters
    ----------
    paths : iterable of Path
        Files to watch; files opened under another path are not compared.
    """
    token = _WATCHED.set(dict.fromkeys(paths))
    try:
        yield
    finally:
        _WATCHED.reset(token)


def check_unchanged() -> None:
    """Check the files watched by `unchanged` that have been opened so far.

    Raises
    ------
    ChangedError
        If a file was changed, replaced or removed.
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
    """Return whether a path exists; False if that cannot be determined."""
    try:
        return path.exists()
    except OSError:
        return False


def resolve(path: Path) -> Path:
    """Return an absolute path without symbolic links, as far as they can be followed."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links, or an invalid path
        return path.absolute()


def is_utf8(path: Path | str) -> bool:
    """Return whether a path can be encoded as UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(path: Path | str) -> str:
    """Return a path as printable text, whatever its bytes."""
    text = os.fsencode(path).decode(errors="replace")
    return text if len(text) <= 1024 else f"{text[:500]}...{text[-500:]}"


def _open(path: Path, key: str) -> io.BufferedReader:
    shown = f"{key}: {printable(path)}" if key else printable(path)
    if not is_utf8(path):
        raise NoInputError(f"{shown}: its name is not valid UTF-8.", "Rename it.")
    try:
        # Opening a device may have an effect, so the type is checked before and after opening.
        regular = stat.S_ISREG(path.stat().st_mode)
        file = _open_regular(path) if regular else None
        start = file.peek(len(_ANNEX_POINTER)) if file else b""
    except FileNotFoundError:
        if path.is_symlink():
            raise NoInputError(f"{shown} is a link to missing content.", _FETCH) from None
        raise NoInputError(f"{shown} does not exist.") from None
    except PermissionError:
        raise NoInputError(
            f"{shown} cannot be read (permission denied).",
            "Grant read permission to the user who runs the app.",
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character
        reason = getattr(error, "strerror", None) or error
        raise NoInputError(f"{shown} cannot be read ({reason}).") from None
    if file is None:
        raise NoInputError(f"{shown} is not a regular file.")
    if start.startswith(_ANNEX_POINTER):
        file.close()
        raise NoInputError(f"{shown} is a git-annex pointer without its content.", _FETCH)
    return file


def _open_regular(path: Path) -> io.BufferedReader | None:
    """Open a file without waiting for the other end of a pipe; None if it is not regular."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return os.fdopen(descriptor, "rb")


def _state_of(found: os.stat_result) -> _State:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _compare(path: Path, state: _State) -> None:
    """Compare a file with its first opening inside `unchanged`, or record this as the first."""
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
        "Rerun the same command when no other process writes to the input.",
    )

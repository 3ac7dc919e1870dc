"""Compile functions with numba, and cache the result even in read-only installations.

numba caches compiled code only where it can write. In a container image, or in a package that an
administrator has installed, it cannot: code that was compiled beforehand is then read from
``__pycache__``, and the rest is compiled again in every process.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba import njit
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile

Function = Callable[..., Any]

PLAIN = bool(numba.config.DISABLE_JIT)
"""Whether kernels run as plain Python (``NUMBA_DISABLE_JIT=1``), for a debugger."""

_SWITCH = "BIDS_TRACTOGRAPHY_KERNELS"
_KINDS = ("vector", "scalar")


def _kind_of_kernels() -> str:
    kind = os.environ.get(_SWITCH, _KINDS[0])
    if kind not in _KINDS:
        raise ValueError(f"{_SWITCH} must be one of {', '.join(_KINDS)}, not {kind!r}.")
    # Vector instructions exist in compiled code only.
    return "scalar" if PLAIN else kind


SCALAR = _kind_of_kernels() == "scalar"
"""Whether plain loops take the place of explicit vector instructions; the results are equal.

Set the environment variable ``BIDS_TRACTOGRAPHY_KERNELS`` to ``scalar`` to get them.
"""


def kernel_with(**options: Any) -> Callable[[Function], Function]:
    """Return a decorator that compiles a function on its first call.

    Compiled code is cached on disk where that is possible. The interpreter's lock is released
    while it runs.

    Parameters
    ----------
    options
        Of ``numba.njit``.
    """

    def compile_lazily(function: Function) -> Function:
        if PLAIN:
            return function
        compiled: Any = njit(nogil=True, **options)(function)
        with suppress(RuntimeError):  # there is no place
            compiled._cache = _Cache(function)
        return compiled  # type: ignore[no-any-return]

    return compile_lazily


class _BesideSource:
    """Compiled code in ``__pycache__``, which may be somebody else's.

    Parameters
    ----------
    function : callable
    source : str
        File that it is in.
    """

    def __init__(self, function: Callable[..., Any], source: str) -> None:
        self._source = Path(source)
        self._line = function.__code__.co_firstlineno

    @classmethod
    def from_function(cls, function: Callable[..., Any], source: str) -> _BesideSource | None:
        """Return the place if it can be written, or has been."""
        place = cls(function, source)
        folder = Path(place.get_cache_path())
        with suppress(OSError):
            folder.mkdir(exist_ok=True)
        written = any(folder.glob(f"{Path(source).stem}.*.nbi"))
        writable = folder.is_dir() and os.access(folder, os.W_OK)
        return place if written or writable else None

    def get_cache_path(self) -> str:
        return str(self._source.parent / "__pycache__")

    def get_source_stamp(self) -> bytes:
        """Return what changes with the source."""
        return _stamp(str(self._source))

    def get_disambiguator(self) -> str:
        return str(self._line)

    def ensure_cache_path(self) -> None:
        """Do nothing: it is there."""


def _stamped(locator: type) -> type:
    """Return the same place with our stamp."""
    return type(
        locator.__name__,
        (locator,),
        {"get_source_stamp": lambda self: _stamp(getattr(self, "_py_file", __file__))},
    )


@cache
def _stamp(source: str) -> bytes:
    """Return what changes with the text of a file, or of anything that is compiled into a kernel.

    Kernels inline kernels and constants of other modules, whose changes numba does not see; and
    image layers round modification times.
    """
    package = Path(__file__).parents[1]
    files = [path for pattern in _COMPILED_IN for path in sorted(package.glob(pattern))]
    content = b"".join(path.read_bytes() for path in [*files, Path(__file__), Path(source)])
    return hashlib.sha256(f"scalar={SCALAR} ".encode() + content).digest()


# Kernels, and the enums whose members they know by number.
_COMPILED_IN = ("**/kernels/*.py", "core/streamlines.py")


class _Places(CompileResultCacheImpl):  # type: ignore[misc]
    # After the user's own (NUMBA_CACHE_DIR).
    _locator_classes = (
        _stamped(CompileResultCacheImpl._locator_classes[0]),
        _BesideSource,
        *map(_stamped, CompileResultCacheImpl._locator_classes[1:]),
    )


class _CheckedFiles(IndexDataCacheFile):  # type: ignore[misc]
    """numba's files, each followed by the SHA-256 of its content.

    numba would fail on a truncated file, and execute whatever is in a damaged one.
    """

    def _load_index(self) -> dict[Any, str]:
        try:
            content = _checked(Path(self._index_path))
        except OSError:
            return {}
        stamp, overloads = pickle.loads(content)
        return overloads if stamp == self._source_stamp else {}

    def _save_index(self, overloads: dict[Any, str]) -> None:
        self._write(self._index_path, (self._source_stamp, overloads))

    def _load_data(self, name: str) -> Any:
        return pickle.loads(_checked(Path(self._data_path(name))))

    def _save_data(self, name: str, data: Any) -> None:
        self._write(self._data_path(name), data)

    def _write(self, path: str, content: Any) -> None:
        packed = self._dump(content)
        with self._open_for_write(path) as file:
            file.write(packed + _checksum(packed))


def _checked(path: Path) -> bytes:
    """Return the content of a file without its checksum.

    Raises
    ------
    OSError
        If it is damaged, or of another version of numba, which then compiles again.
    """
    size = len(_checksum(b""))
    content = path.read_bytes()
    packed, checksum = content[:-size], content[-size:]
    if _checksum(packed) != checksum:
        raise OSError(f"{path} is damaged")
    return packed


def _checksum(content: bytes) -> bytes:
    """Return the SHA-256 of a content of this version of numba: others cannot be unpickled."""
    return hashlib.sha256(numba.__version__.encode() + content).digest()


class _Cache(FunctionCache):  # type: ignore[misc]
    _impl_class = _Places

    def __init__(self, function: Function) -> None:
        super().__init__(function)
        stamp = self._impl.locator.get_source_stamp()
        # The stamp alone would keep the two kinds apart, but each would replace the other's files.
        name = self._impl.filename_base + (".scalar" if SCALAR else "")
        self._cache_file: IndexDataCacheFile = _CheckedFiles(self._cache_path, name, stamp)

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(OSError):
            super().save_overload(sig, data)


kernel = kernel_with(error_model="numpy")
"""Compile a function on its first call; a division by zero is a number, as in NumPy."""

summing_kernel = kernel_with(error_model="numpy", fastmath={"contract", "reassoc", "nsz"})
"""The same, with sums split among the lanes of a vector: in the same way on one machine."""

inlined_kernel = kernel_with(error_model="numpy", forceinline=True)
"""The same, made part of the code that calls it: for what is small and called at every step."""

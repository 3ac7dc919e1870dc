"""Arrays by address, as kernels see them.

Kernels release the interpreter's lock, so that Python's threads run them side by side, and they
keep no state. Arrays reach them as addresses: numba counts references to an array each time it is
taken out of a tuple, which costs more than reading a few numbers from it. Whoever calls a kernel
keeps the arrays alive; see `tracking.cpu.layout`.
"""

from __future__ import annotations

import weakref
from bisect import bisect_right
from threading import Lock
from typing import Any

import numpy as np
from numba import carray, types
from numba.extending import intrinsic
from numpy.typing import DTypeLike, NDArray

from bids_tractography.machine.compiled import PLAIN, inlined_kernel, kernel


def address_of(array: NDArray[np.generic]) -> int:
    """Return the address of an array in C order, for a kernel."""
    if not array.flags.c_contiguous:
        raise ValueError("kernels read arrays in C order")
    if PLAIN:
        _ARRAYS.add(array)
    return int(array.ctypes.data)


if PLAIN:

    class _Arrays:
        """Arrays that kernels run as plain Python may read, found by any address within them.

        They are not kept alive: reading an array that is gone fails, as does reading beyond the
        end of one. Compiled code would do either without a word.
        """

        def __init__(self) -> None:
            self._lock = Lock()
            self._starts: list[int] = []
            self._arrays: list[weakref.ref[NDArray[np.generic]]] = []

        def add(self, array: NDArray[np.generic]) -> None:
            with self._lock:
                here = int(array.ctypes.data)
                known = zip(self._starts, self._arrays, strict=True)
                alive = [(at, ref) for at, ref in known if ref() is not None and at != here]
                alive.append((here, weakref.ref(array)))
                alive.sort(key=lambda pair: pair[0])
                self._starts = [start for start, _ in alive]
                self._arrays = [ref for _, ref in alive]

        def view(self, address: int, kind: DTypeLike) -> NDArray[np.generic]:
            """Return the array from an address to its end, as numbers of another kind."""
            with self._lock:
                place = bisect_right(self._starts, address) - 1
                array = self._arrays[place]() if place >= 0 else None
                skipped = address - self._starts[place]
            if array is None or skipped >= array.nbytes:
                raise IndexError(f"no array that a kernel may read is at {address:#x}")
            size = np.dtype(kind).itemsize
            end = skipped + (array.nbytes - skipped) // size * size
            return array.reshape(-1).view(np.uint8)[skipped:end].view(kind)

    _ARRAYS = _Arrays()
    _array_at: Any = _ARRAYS.view

else:
    # The length of an array is not known from its address. numba uses it to wrap negative
    # indices only, and none is negative.
    _UNBOUNDED = 2**40

    @intrinsic
    def _pointer(_context, address):
        """Turn an address into a pointer."""

        def generate(_context, builder, signature, arguments):
            pointer = _context.get_value_type(signature.return_type)
            return builder.inttoptr(arguments[0], pointer)

        return types.voidptr(types.int64), generate

    @inlined_kernel
    def _unbounded_array_at(address, kind):
        return carray(_pointer(address), _UNBOUNDED, kind)

    _array_at = _unbounded_array_at


@inlined_kernel
def doubles(address):
    """Return the float64 array at an address."""
    return _array_at(address, np.float64)


@inlined_kernel
def floats(address):
    """Return the float32 array at an address."""
    return _array_at(address, np.float32)


@inlined_kernel
def longs(address):
    """Return the int64 array at an address."""
    return _array_at(address, np.int64)


@inlined_kernel
def ints(address):
    """Return the int32 array at an address."""
    return _array_at(address, np.int32)


@inlined_kernel
def words_at(address):
    """Return the uint32 array at an address."""
    return _array_at(address, np.uint32)


@inlined_kernel
def shorts(address):
    """Return the uint16 array at an address."""
    return _array_at(address, np.uint16)


@inlined_kernel
def truths(address):
    """Return the array of bool at an address."""
    return _array_at(address, np.bool_)


@inlined_kernel
def bytes_at(address):
    """Return the uint8 array at an address."""
    return _array_at(address, np.uint8)


@kernel
def enlarge(points, n_used, n_rows):
    """Copy the points used to an array with more rows.

    Parameters
    ----------
    points : ndarray of float32, shape (N, 3)
    n_used : int
        Rows that are copied.
    n_rows : int

    Returns
    -------
    ndarray of float32, shape (n_rows, 3)
    """
    larger = np.empty((n_rows, 3), np.float32)
    for n in range(n_used):
        for axis in range(3):
            larger[n, axis] = points[n, axis]
    return larger


@kernel
def put_streamlines(points, lengths, places, out):
    """Copy streamlines that lie one after another to other places.

    Parameters
    ----------
    points : ndarray of float32, shape (N, 3)
    lengths, places : ndarray of int64, shape (T,)
        Points of each streamline, and the row of ``out`` for the first of them.
    out : ndarray of float32, shape (M, 3)
        Written.
    """
    first = 0
    for t in range(len(lengths)):
        out[places[t] : places[t] + lengths[t]] = points[first : first + lengths[t]]
        first += lengths[t]

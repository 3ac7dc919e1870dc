"""Compiled parts that the families of algorithms share: random numbers, fODF, stopping rules.

Only these modules know numba. Kernels release the interpreter's lock, so Python's threads run
them side by side; they hold no state, so neither can a result. They are handed addresses: numba
counts references to an array each time it is taken out of a tuple, which costs more than the
reading. Whoever calls a kernel keeps the arrays alive.
"""

from __future__ import annotations

import numpy as np
from numba import carray, types
from numba.extending import intrinsic

from bids_tractography.machine.compiled import inlined_kernel, kernel

_ANY = 2**40  # length of an array of which only the address is known


@intrinsic
def _pointer(_context, address):
    """Turn an address into a pointer."""

    def generate(_context, builder, signature, arguments):
        pointer = _context.get_value_type(signature.return_type)
        return builder.inttoptr(arguments[0], pointer)

    return types.voidptr(types.int64), generate


@inlined_kernel
def doubles(address):
    """Return the float64 array at an address."""
    return carray(_pointer(address), _ANY, np.float64)


@inlined_kernel
def floats(address):
    """Return the float32 array at an address."""
    return carray(_pointer(address), _ANY, np.float32)


@inlined_kernel
def longs(address):
    """Return the int64 array at an address."""
    return carray(_pointer(address), _ANY, np.int64)


@inlined_kernel
def ints(address):
    """Return the int32 array at an address."""
    return carray(_pointer(address), _ANY, np.int32)


@inlined_kernel
def words_at(address):
    """Return the uint32 array at an address."""
    return carray(_pointer(address), _ANY, np.uint32)


@inlined_kernel
def shorts(address):
    """Return the uint16 array at an address."""
    return carray(_pointer(address), _ANY, np.uint16)


@inlined_kernel
def truths(address):
    """Return the array of bool at an address."""
    return carray(_pointer(address), _ANY, np.bool_)


@kernel
def enlarge(points, n_used, n_rows):
    """Copy the points used to an array with more rows."""
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
    points : ndarray, shape (N, 3)
    lengths, places : ndarray of int64, shape (T,)
    out : ndarray, shape (M, 3)
        Written.
    """
    first = 0
    for t in range(len(lengths)):
        out[places[t] : places[t] + lengths[t]] = points[first : first + lengths[t]]
        first += lengths[t]

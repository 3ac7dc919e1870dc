"""Compiled parts that the families of algorithms share: random numbers, fODF, stopping rules.

Only these modules know numba. Kernels release the interpreter's lock, so Python's threads run
them side by side; they hold no state, so neither can a result. They are handed addresses: numba
counts references to an array each time it is taken out of a tuple, which costs more than the
reading. Whoever calls a kernel keeps the arrays alive.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import carray, types
from numba.extending import intrinsic

from bids_tractography.compiled import inlined_kernel, kernel
from bids_tractography.tracking.kernels_vectors import (
    BLOCK,
    MAXIMUM_STEP,
    UNIT,
    find_largest,
    interpolate_blocks,
    look_at_cells,
    which_blocks,
)

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


# Stopping rules, and why an end is where it is: places in the list of streamlines.Stop.
THRESHOLD, BINARY, ACT, CMC = range(4)
GO_ON = -1
STOPPING_RULE, GREY_MATTER, FLUID, IMAGE_BORDER, ANGLE, NO_DIRECTION, MAX_LENGTH = range(7)

# What a block of random numbers is for: the highest word of its counter, beside the half.
DIRECTION, STOPPING, PARTICLE, CURVE = range(4)
_PURPOSE, _HALF, _PARTICLE = 28, 27, 16
LAST_ATTEMPT = 0xFFFF

ROUNDING = 1e-6  # of interpolated fractions

DRAWS, ATTEMPTS = 8, 4  # of directions, for which random words are made at once
_W = DRAWS * ATTEMPTS  # from a word of a block to its next

LARGEST = 65535  # amplitude of a row's maximum


class Field(NamedTuple):
    """An image as kernels see it; arrays are addresses.

    Vertices of the sphere are numbered 2 x axis + sign, so that ``v ^ 1`` is opposite to ``v``.

    Parameters
    ----------
    nx, ny, nz : int
        Voxels along each axis.
    cells : float32 or int32, shape (nx + 2, ny + 2, nz + 2, 4)
        Of each voxel: the line of the cache, among those of ``rows``, with which its row of
        amplitudes begins (an int32; 0 where it has none), the amplitude of the unit of its row,
        first and second map of the stopping rule. There is one more at either side, which
        repeats the outermost, so that interpolation needs no clipping.
    n_axes : int
    axes : float64, shape (n_axes, 3)
        Unit vectors, RAS+. Sixteen with numbers that follow one another, a block, are neighbours.
    width : int
        Numbers in a row.
    rows : uint16, shape (R, width)
        Amplitudes along the axes in units of 1 / 65535 of the row's largest, zero in the rest of
        the last block. Row 0 is zero.
    maxima : int
        Where in a row the largest amplitudes of blocks begin: bytes, in units of 257, rounded up.
    cone_start : int32, shape (n_axes + 1,)
    cone : uint16
        Vertices no further than the largest angle from vertex ``2 a`` are
        ``cone[cone_start[a]:cone_start[a + 1]]``.
    members : uint16, shape (2 n_axes + 1, 32)
        Which axes of each block are in the cone of an axis, a bit for each; in the whole sphere;
        and which point away from an axis.
    steps : float64, shape (2 n_axes, 3)
        A step along each vertex, in voxels.
    least_cosine : float
        Of the largest angle.
    pmf_threshold : float
    rule : int
    rule_threshold : float
        Of the threshold rule.
    rule_power : float
        Of the CMC rule.
    """

    nx: int
    ny: int
    nz: int
    cells: int
    n_axes: int
    axes: int
    width: int
    rows: int
    maxima: int
    cone_start: int
    cone: int
    members: int
    steps: int
    least_cosine: float
    pmf_threshold: float
    rule: int
    rule_threshold: float
    rule_power: float


class Corners(NamedTuple):
    """The eight cells around a point, as `look` writes them; arrays are addresses.

    Parameters
    ----------
    start : int64, shape (8,)
        Where each one's row starts.
    share : float32, shape (16,)
        Interpolation weight of the unit of each row: ``sum(share[:8] * rows)`` is the fODF. Then
        their cumulative sums.
    values : int32, shape (width,)
        Room for the fODF along axes.
    sums : int32, shape (16,)
        Room for sums over blocks.
    words : uint32, shape (4, 8, 4)
        Room for random words; see `fill_words`.
    peaks : int64, shape (n_axes,)
        Room for peaks of the fODF.
    """

    start: int
    share: int
    values: int
    sums: int
    words: int
    peaks: int


class Stream(NamedTuple):
    """The random numbers of one half of one streamline: key, and what their counters share."""

    key0: np.uint64
    key1: np.uint64
    seed: np.uint64
    direction: np.uint64
    half: np.uint64


_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_MASK, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)


@inlined_kernel
def philox(c0, c1, c2, c3, k0, k1):
    """Philox4x32-10 (Salmon 2011): four words of counter and two of key give four words."""
    for _ in range(10):
        one, other = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (
            (other >> _32) ^ c1 ^ k0,
            other & _MASK,
            (one >> _32) ^ c3 ^ k1,
            one & _MASK,
        )
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1, c2, c3


@inlined_kernel
def make_stream(rng_seed, seed, direction, half):
    """Return the stream of a half (0 or 1) of a streamline from a seed."""
    key, index = np.uint64(rng_seed), np.uint64(seed)
    return Stream(
        key & _MASK,
        key >> _32,
        index & _MASK,
        ((index >> _32) << np.uint64(8)) | np.uint64(direction),
        np.uint64(half) << np.uint64(_HALF),
    )


@inlined_kernel
def make_counter(stream, purpose, turn, particle, attempt):
    """Return four words that are those of no other stream, purpose, turn, particle and attempt.

    A turn may have 32 bits, a particle 11 and an attempt 16.
    """
    last = (
        (np.uint64(purpose) << np.uint64(_PURPOSE))
        | stream.half
        | (np.uint64(particle) << np.uint64(_PARTICLE))
        | np.uint64(attempt)
    )
    return stream.seed, stream.direction, np.uint64(turn), last


@inlined_kernel
def random_words(stream, purpose, turn, particle, attempt):
    """Return four random words (32 bits each)."""
    c0, c1, c2, c3 = make_counter(stream, purpose, turn, particle, attempt)
    return philox(c0, c1, c2, c3, stream.key0, stream.key1)


@inlined_kernel
def fill_words(stream, turn, more_turns, particle, more_particles, words):
    """Make what `random_words` gives for the first attempts of eight draws of directions.

    All at once they take a fifth of the time: they fill the lanes of a vector.

    Parameters
    ----------
    turn, particle : int
        Of the first draw.
    more_turns, more_particles : int
        From a draw to the next.
    words : address of uint32, shape (4, 8, 4)
        Written: each of the four words of each draw and attempt.
    """
    words = words_at(words)
    c0, c1, c2, c3 = make_counter(stream, DIRECTION, turn, particle, 0)
    turns, particles = np.uint64(more_turns), np.uint64(more_particles) << np.uint64(_PARTICLE)
    for n in range(_W):
        draw, attempt = np.uint64(n // ATTEMPTS), np.uint64(n % ATTEMPTS)
        w0, w1, w2, w3 = philox(
            c0, c1, c2 + turns * draw, c3 + particles * draw + attempt, stream.key0, stream.key1
        )
        words[n], words[n + _W], words[n + 2 * _W], words[n + 3 * _W] = w0, w1, w2, w3


@inlined_kernel
def words_of(words, draw, attempt):
    """Return the four words of a draw and attempt that `fill_words` has made."""
    words, n = words_at(words), np.uint64(ATTEMPTS * draw + attempt)
    w0, w1 = np.uint64(words[n]), np.uint64(words[n + np.uint64(_W)])
    w2, w3 = np.uint64(words[n + np.uint64(2 * _W)]), np.uint64(words[n + np.uint64(3 * _W)])
    return w0, w1, w2, w3


@inlined_kernel
def uniform(high, low):
    """Turn two words into a number in [0, 1) of 53 bits."""
    return np.float64(((high << _32) | low) >> np.uint64(11)) * 2.0**-53


@inlined_kernel
def is_inside(field, x, y, z):
    """Tell whether a point, in voxels, lies in the image."""
    return -0.5 <= x < field.nx - 0.5 and -0.5 <= y < field.ny - 0.5 and -0.5 <= z < field.nz - 0.5


@inlined_kernel
def look(field, x, y, z, corners):
    """Look up the eight cells around a point in the image; return the stopping rule's maps."""
    fx, fy, fz = np.floor(x), np.floor(y), np.floor(z)
    dx, dy, dz = np.float32(x - fx), np.float32(y - fy), np.float32(z - fz)
    step_y = field.nz + 2
    step_x = (field.ny + 2) * step_y
    cell = (np.int64(fx) + 1) * step_x + (np.int64(fy) + 1) * step_y + np.int64(fz) + 1
    first, second = look_at_cells(
        field.cells, cell, step_y, step_x, dx, dy, dz, corners.start, corners.share
    )
    if field.rule == BINARY:
        nearest = cell + (dx >= 0.5) * step_x + (dy >= 0.5) * step_y + (dz >= 0.5)
        first = floats(field.cells)[np.uint64(4 * nearest + 2)]
    return first, second


@inlined_kernel
def amplitude(field, corners, axis):
    """Interpolate the fODF along an axis."""
    rows, start, share = shorts(field.rows), longs(corners.start), floats(corners.share)
    value = np.float32(0)
    for corner in range(8):
        value += share[corner] * np.float32(rows[np.uint64(start[corner] + axis)])
    return value


@inlined_kernel
def ask_rule(field, first, second, stream, turn, particle):
    """Ask the stopping rule, given its maps at a point."""
    if field.rule == THRESHOLD:
        return GO_ON if first > field.rule_threshold else STOPPING_RULE
    if field.rule == BINARY:
        return GO_ON if first > 0.5 else STOPPING_RULE
    if field.rule == ACT:
        if first > 0.5:
            return GREY_MATTER
        return FLUID if second > 0.5 else GO_ON
    tissue = np.float64(first) + np.float64(second)
    if tissue <= 0:
        return GO_ON
    w0, w1, w2, w3 = random_words(stream, STOPPING, turn, particle, 0)
    # A root of what rounding leaves of nothing is far from nothing.
    if tissue < 1 - ROUNDING and uniform(w0, w1) < (1 - tissue) ** field.rule_power:
        return GO_ON
    return GREY_MATTER if uniform(w2, w3) * tissue < first else FLUID


@inlined_kernel
def _scale(corners):
    """Return by what interpolated amplitudes are multiplied, lest `UNIT` be exceeded."""
    total = floats(corners.share)[15]
    return np.float32(UNIT) / (np.float32(LARGEST) * total) if total > 0 else np.float32(0)


@inlined_kernel
def members_of(field, cone):
    """Return the address of a row of ``members``; see `Field`."""
    return field.members + 64 * cone


@kernel
def fill_cone(field, corners, cone):
    """Interpolate the fODF along the axes of a cone, in units of which `UNIT` is no less.

    Parameters
    ----------
    cone : int
        An axis; ``n_axes`` for the whole sphere.

    Returns
    -------
    largest : int32
    which : int32
        Bits of the blocks that have axes in the cone. Of these, all axes are written to
        ``corners.values``, 0 outside the cone.
    """
    members = members_of(field, cone)
    which = which_blocks(members)
    largest = interpolate_blocks(
        field.rows, corners.start, corners.share, _scale(corners), members, which, corners.values
    )
    return largest, which


@kernel
def find_above(field, corners, above, any_of_them):
    """Find the largest amplitude, in the units of `fill_cone`, if it is above something.

    It reads far less than all, for the maxima of blocks tell where it can be.

    Parameters
    ----------
    above : int32
    any_of_them : bool
        Whether anything above will do.

    Returns
    -------
    largest, axis : int64
        Of equal ones the first axis; -1 if there is none.
    """
    return find_largest(
        field.rows, corners.start, corners.share, _scale(corners), np.int64(field.maxima), above,
        any_of_them,
    )  # fmt: skip


@kernel
def fill_amplitudes(field, corners):
    """Interpolate the fODF along every axis, into ``corners.values``; return the largest."""
    return fill_cone(field, corners, field.n_axes)[0]


@kernel
def why_no_direction(field, corners):
    """Tell a point where all directions are outside the cone from one without any."""
    return ANGLE if fill_amplitudes(field, corners) > 0 else NO_DIRECTION


@kernel
def fill_rows(coefficients, basis, voxels, maxima, rows, unit):
    """Evaluate spherical harmonics (N, C) at some voxels along axes, as rows of integers.

    Parameters
    ----------
    coefficients : ndarray of float32, shape (N, C)
    basis : ndarray, shape (C, V)
    voxels : ndarray of int, shape (n,)
    maxima : int
    rows : ndarray of uint16, shape (n, width)
        Zero, written to; negative amplitudes are 0. See `Field`.
    unit : ndarray of float32, shape (n,)
        Written: the amplitude of 1 in each row.
    """
    n_axes = basis.shape[1]
    values = np.empty(n_axes)
    for n in range(len(voxels)):
        for axis in range(n_axes):
            values[axis] = 0
        for degree in range(basis.shape[0]):
            coefficient = np.float64(coefficients[voxels[n], degree])
            for axis in range(n_axes):
                values[axis] += coefficient * basis[degree, axis]
        largest = values.max()
        if largest <= 0:
            unit[n] = 0  # and rows are zero to begin with
            continue
        unit[n] = largest / LARGEST
        for axis in range(n_axes):
            rows[n, axis] = np.uint16(max(values[axis], 0.0) * (LARGEST / largest) + 0.5)
        for block in range(-(-n_axes // BLOCK)):
            most = np.int64(0)
            for axis in range(block * BLOCK, min(block * BLOCK + BLOCK, n_axes)):
                most = max(most, np.int64(rows[n, axis]))
            steps = (most + MAXIMUM_STEP - 1) // MAXIMUM_STEP
            rows[n, maxima + block // 2] |= np.uint16(steps << (8 * (block % 2)))


class Peaks(NamedTuple):
    """What a peak is; arrays are addresses.

    Parameters
    ----------
    neighbours : int32, shape (n_axes, n_neighbours)
    n_neighbours : int
    near : bool, shape (n_axes, n_axes)
        Pairs of which only the larger may be a peak.
    relative : float
        Least share of the largest.
    """

    neighbours: int
    n_neighbours: int
    near: int
    relative: float


@kernel
def find_peaks(criteria, n_axes, values, relative, peaks, most):
    """Find the largest peaks of a function on axes.

    Parameters
    ----------
    criteria : Peaks
    n_axes : int
    values : address of int32, shape (n_axes,)
    relative : float
        Least share of the largest.
    peaks : address of int64, shape (n_axes,)
        Written: axes of the peaks, the largest first; of equal ones the first.
    most : int

    Returns
    -------
    int
        How many there are, at most ``most``.
    """
    values, peaks = ints(values), longs(peaks)
    neighbours, near = ints(criteria.neighbours), truths(criteria.near)
    largest = np.int32(0)
    for axis in range(n_axes):
        largest = max(largest, values[axis])
    if largest <= 0:
        return 0
    left = 0  # maxima that may yet be peaks stand behind those that are
    for axis in range(n_axes):
        if values[axis] < relative * largest or values[axis] <= 0:
            continue
        is_maximum = True
        for k in range(criteria.n_neighbours):
            if (
                values[axis]
                < values[np.uint64(neighbours[np.uint64(axis * criteria.n_neighbours + k)])]
            ):
                is_maximum = False
                break
        if is_maximum:
            peaks[left] = axis
            left += 1
    found = 0
    while found < most and found < left:
        best = found
        for n in range(found + 1, left):
            if values[peaks[n]] > values[peaks[best]]:
                best = n
        axis = peaks[best]
        for n in range(best, found, -1):
            peaks[n] = peaks[n - 1]
        peaks[found] = axis
        found += 1
        kept = found
        for n in range(found, left):
            if not near[axis * n_axes + peaks[n]]:
                peaks[kept] = peaks[n]
                kept += 1
        left = kept
    return found


@kernel
def find_first_axes(field, criteria, corners, most):
    """Find the axes to set out along, at most so many; write them to ``corners.peaks``."""
    if most == 1:  # the largest amplitude is the largest peak
        axis = find_above(field, corners, np.int32(0), False)[1]
        longs(corners.peaks)[0] = axis
        return 1 if axis >= 0 else 0
    fill_amplitudes(field, corners)
    return find_peaks(
        criteria, field.n_axes, corners.values, criteria.relative, corners.peaks, most
    )


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

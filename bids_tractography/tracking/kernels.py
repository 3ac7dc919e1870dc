"""Compiled parts that the families of algorithms share: random numbers, fODF, stopping rules.

Kernels release the interpreter's lock, so Python's threads run
them side by side; they hold no state, so neither can a result.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bids_tractography.compiled import kernel

# Stopping rules, and why an end is where it is: places in the list of streamlines.Stop.
THRESHOLD, BINARY, ACT, CMC = range(4)
GO_ON = -1
STOPPING_RULE, GREY_MATTER, FLUID, IMAGE_BORDER, ANGLE, NO_DIRECTION, MAX_LENGTH = range(7)

# What a block of random numbers is for: the highest word of its counter, beside the half.
DIRECTION, STOPPING, PARTICLE, CURVE = range(4)
_PURPOSE, _HALF, _PARTICLE = 28, 27, 16
LAST_ATTEMPT = 0xFFFF

LARGEST = 65535  # amplitude of a row's maximum


class Field(NamedTuple):
    """An image as kernels see it.

    Vertices of the sphere are numbered 2 x axis + sign, so that ``v ^ 1`` is opposite to ``v``.

    Parameters
    ----------
    shape : tuple of int
        Voxels along each axis. The cells have one more at either side, which repeat the
        outermost, so that interpolation needs no clipping.
    row : ndarray of int32, shape (N, 4)
        Of each cell: its row of amplitudes (0 where it has none); the rest is ``value``.
    value : ndarray of float32, shape (N, 4)
        The same memory. Of each cell: -, amplitude of the unit of its row, first and second
        map of the stopping rule.
    rows : ndarray of uint16, shape (R, V)
        Amplitudes along the axes in units of 1 / 65535 of the row's largest. Row 0 is zero.
    cone_start : ndarray of int32, shape (V + 1,)
    cone : ndarray of int16
        Vertices no further than the largest angle from vertex ``2 a`` are
        ``cone[cone_start[a]:cone_start[a + 1]]``.
    steps : ndarray, shape (2 V, 3)
        A step along each vertex, in voxels.
    pmf_threshold : float
    rule : int
    rule_threshold : float
        Of the threshold rule.
    rule_power : float
        Of the CMC rule.
    """

    shape: tuple[int, int, int]
    row: NDArray[np.int32]
    value: NDArray[np.float32]
    rows: NDArray[np.uint16]
    cone_start: NDArray[np.int32]
    cone: NDArray[np.int16]
    steps: NDArray[np.float64]
    pmf_threshold: float
    rule: int
    rule_threshold: float
    rule_power: float


class Stream(NamedTuple):
    """The random numbers of one half of one streamline: key, and what their counters share."""

    key0: int
    key1: int
    seed: int
    direction: int
    half: int


class Corners(NamedTuple):
    """The eight cells around a point, as `look` writes them.

    Parameters
    ----------
    start : ndarray of int64, shape (8,)
        Where each one's row starts.
    share : ndarray of float32, shape (8,)
        Interpolation weight of the unit of each row: ``sum(share * rows)`` is the fODF.
    values : ndarray of float32, shape (V,)
        Room for the fODF along every axis.
    """

    start: NDArray[np.int64]
    share: NDArray[np.float32]
    values: NDArray[np.float32]


@kernel
def make_corners(field):  # type: ignore[no-untyped-def]
    """Make room for what `look` writes."""
    n_axes = field.rows.shape[1]
    return Corners(
        np.empty(8, np.int64), np.empty(8, np.float32), np.empty(n_axes, np.float32)
    )


_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_MASK, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)


@kernel
def philox(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    """Philox4x32-10 (Salmon 2011): four words of counter and two of key give four words."""
    for _ in range(10):
        one, other = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (other >> _32) ^ c1 ^ k0, other & _MASK, (one >> _32) ^ c3 ^ k1, one & _MASK
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1, c2, c3


@kernel
def make_stream(rng_seed, seed, direction, half):  # type: ignore[no-untyped-def]
    """Return the stream of a half (0 or 1) of a streamline from a seed."""
    key, index = np.uint64(rng_seed), np.uint64(seed)
    return Stream(
        key & _MASK,
        key >> _32,
        index & _MASK,
        ((index >> _32) << np.uint64(8)) | np.uint64(direction),
        np.uint64(half) << np.uint64(_HALF),
    )


@kernel
def random_words(stream, purpose, turn, particle, attempt):  # type: ignore[no-untyped-def]
    """Return four words that no other purpose, turn (32 bits), particle (11) or attempt (16)
    of any stream has.
    """
    last = (
        (np.uint64(purpose) << np.uint64(_PURPOSE))
        | stream.half
        | (np.uint64(particle) << np.uint64(_PARTICLE))
        | np.uint64(attempt)
    )
    return philox(
        stream.seed, stream.direction, np.uint64(turn), last, stream.key0, stream.key1
    )


@kernel
def uniform(high, low):  # type: ignore[no-untyped-def]
    """Turn two words into a number in [0, 1) of 53 bits."""
    return np.float64(((high << _32) | low) >> np.uint64(11)) * 2.0**-53


@kernel
def is_inside(field, x, y, z):  # type: ignore[no-untyped-def]
    """Tell whether a point, in voxels, lies in the image."""
    nx, ny, nz = field.shape
    return -0.5 <= x < nx - 0.5 and -0.5 <= y < ny - 0.5 and -0.5 <= z < nz - 0.5


@kernel
def look(field, x, y, z, corners):  # type: ignore[no-untyped-def]
    """Look up the eight cells around a point in the image.

    Returns the sum of the shares and both maps of the stopping rule.
    """
    _, ny, nz = field.shape
    fx, fy, fz = np.floor(x), np.floor(y), np.floor(z)
    dx, dy, dz = np.float32(x - fx), np.float32(y - fy), np.float32(z - fz)
    step_y = nz + 2
    step_x = (ny + 2) * step_y
    cell = (np.int64(fx) + 1) * step_x + (np.int64(fy) + 1) * step_y + np.int64(fz) + 1
    one = np.float32(1)
    n_axes = field.rows.shape[1]
    total, first, second = np.float32(0), np.float32(0), np.float32(0)
    corner = 0
    for i in range(2):
        wx = dx if i else one - dx
        for j in range(2):
            wxy = wx * (dy if j else one - dy)
            for k in range(2):
                weight = wxy * (dz if k else one - dz)
                here = np.uint64(cell + i * step_x + j * step_y + k)
                corners.start[corner] = np.int64(field.row[here, 0]) * n_axes
                part = weight * field.value[here, 1]
                corners.share[corner] = part
                total += part
                first += weight * field.value[here, 2]
                second += weight * field.value[here, 3]
                corner += 1
    if field.rule == BINARY:
        nearest = cell + (dx >= 0.5) * step_x + (dy >= 0.5) * step_y + (dz >= 0.5)
        first = field.value[nearest, 2]
    return total, first, second


@kernel
def amplitude(field, corners, axis):  # type: ignore[no-untyped-def]
    """Interpolate the fODF along an axis."""
    rows = field.rows.ravel()
    value = np.float32(0)
    for corner in range(8):
        value += corners.share[corner] * np.float32(rows[np.uint64(corners.start[corner] + axis)])
    return value


@kernel
def ask_rule(field, first, second, stream, turn, particle):  # type: ignore[no-untyped-def]
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
    if tissue < 1 and uniform(w0, w1) < (1 - tissue) ** field.rule_power:
        return GO_ON
    return GREY_MATTER if uniform(w2, w3) * tissue < first else FLUID


@kernel
def fill_amplitudes(field, corners):  # type: ignore[no-untyped-def]
    """Interpolate the fODF along every axis, into ``corners.values``; return the largest."""
    rows, values = field.rows.ravel(), corners.values
    values[:] = 0
    for corner in range(8):
        share = corners.share[corner]
        if share > 0:
            first = np.uint64(corners.start[corner])
            for axis in range(len(values)):
                values[axis] += share * np.float32(rows[first + np.uint64(axis)])
    largest = np.float32(0)
    for axis in range(len(values)):
        if values[axis] > largest:
            largest = values[axis]
    return largest


@kernel
def why_no_direction(field, corners):  # type: ignore[no-untyped-def]
    """Tell a point where all directions are outside the cone from one without any."""
    return ANGLE if fill_amplitudes(field, corners) > 0 else NO_DIRECTION


@kernel
def fill_rows(coefficients, basis, voxels, rows, unit):  # type: ignore[no-untyped-def]
    """Evaluate spherical harmonics (N, C) at some voxels along axes, as rows of integers.

    Parameters
    ----------
    coefficients : ndarray of float32, shape (N, C)
    basis : ndarray, shape (C, V)
    voxels : ndarray of int, shape (n,)
    rows : ndarray of uint16, shape (n, V)
        Written; negative amplitudes are 0.
    unit : ndarray of float32, shape (n,)
        Written: the amplitude of 1 in each row.
    """
    n_axes = basis.shape[1]
    values = np.empty(n_axes)
    for n in range(len(voxels)):
        values[:] = 0
        for degree in range(basis.shape[0]):
            coefficient = np.float64(coefficients[voxels[n], degree])
            for axis in range(n_axes):
                values[axis] += coefficient * basis[degree, axis]
        largest = values.max()
        if largest <= 0:
            rows[n, :] = 0
            unit[n] = 0
            continue
        unit[n] = largest / LARGEST
        for axis in range(n_axes):
            rows[n, axis] = np.uint16(max(values[axis], 0.0) * (LARGEST / largest) + 0.5)


@kernel
def find_peaks(values, neighbours, near, relative, peaks):  # type: ignore[no-untyped-def]
    """Find the largest peaks of a function on axes, largest first.

    Parameters
    ----------
    values : ndarray, shape (V,)
    neighbours : ndarray of int, shape (V, k)
    near : ndarray of bool, shape (V, V)
        Pairs of which only the larger may be a peak.
    relative : float
        Least share of the largest.
    peaks : ndarray of int, shape (n,)
        Written.

    Returns
    -------
    int
        How many were written.
    """
    largest = values.max()
    if largest <= 0:
        return 0
    found = 0
    least = relative * largest
    candidates = np.empty(len(values), np.int32)
    n_candidates = 0
    for axis in range(len(values)):
        if values[axis] < least or values[axis] <= 0:
            continue
        is_peak = True
        for k in range(neighbours.shape[1]):
            if values[axis] < values[neighbours[axis, k]]:
                is_peak = False
                break
        if is_peak:
            candidates[n_candidates] = axis
            n_candidates += 1
    while found < len(peaks):
        best = -1
        for n in range(n_candidates):
            axis = candidates[n]
            if axis >= 0 and (best < 0 or values[axis] > values[best]):
                best = axis
        if best < 0:
            break
        peaks[found] = best
        found += 1
        for n in range(n_candidates):
            if candidates[n] >= 0 and near[best, candidates[n]]:
                candidates[n] = -1
    return found


@kernel
def put_streamlines(points, lengths, places, out):  # type: ignore[no-untyped-def]
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

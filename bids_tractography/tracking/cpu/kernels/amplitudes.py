"""Amplitudes of the fODF around a point: their largest, those of a cone, and their peaks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bids_tractography.machine.compiled import inlined_kernel, kernel
from bids_tractography.tracking.cpu.kernels.arithmetic import (
    blocks_reaching,
    find_largest,
    interpolate_blocks,
    which_blocks,
)
from bids_tractography.tracking.cpu.kernels.blocks import (
    BLOCK,
    MAX_BLOCKS,
    MAXIMUM_STEP,
    UNIT,
)
from bids_tractography.tracking.cpu.kernels.field import (
    ANGLE,
    LARGEST,
    NO_DATA,
    NO_DIRECTION,
    has_data,
)
from bids_tractography.tracking.cpu.kernels.memory import floats, ints, longs, truths


@inlined_kernel
def _scale(corners):
    """Return the factor from interpolated amplitudes to integers of at most `UNIT`."""
    # The last cumulative share times the largest number in any row bounds the fODF here.
    total = floats(corners.share)[15]
    return np.float32(UNIT) / (np.float32(LARGEST) * total) if total > 0 else np.float32(0)


@inlined_kernel
def members_of(field, cone):
    """Return the address of a row of ``members``; see `Field`."""
    return field.members + 2 * MAX_BLOCKS * cone


@kernel
def fill_cone(field, corners, cone):
    """Interpolate the fODF along the axes of a cone, as integers of at most `UNIT`.

    Parameters
    ----------
    field : Field
    corners : Corners
        ``values`` is written.
    cone : int
        An axis; ``n_axes`` for the whole sphere.

    Returns
    -------
    largest : int32
    which : int32
        Bits of the blocks that have axes in the cone. All axes of these blocks are written to
        ``corners.values``, those outside the cone as 0.
    """
    members = members_of(field, cone)
    which = which_blocks(members)
    largest = interpolate_blocks(
        field.rows, corners.start, corners.share, _scale(corners), members, which, corners.values
    )
    return largest, which


@kernel
def find_above(field, corners, above, any_of_them):
    """Find the largest amplitude, in the units of `fill_cone`, if it is above a value.

    Blocks whose interpolated maximum shows that they cannot contain it are not read.

    Parameters
    ----------
    field : Field
    corners : Corners
    above : int32
    any_of_them : bool
        Whether any amplitude above the value will do.

    Returns
    -------
    largest, axis : int64
        Of equal ones the first axis; -1 if none is above.
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
def why_no_direction(field, corners, x, y, z):
    """Return why a half has no direction at its last point.

    NO_DATA in a voxel without data; ANGLE if all directions are outside the cone; NO_DIRECTION if
    there are none.
    """
    if not has_data(corners, x, y, z):
        return NO_DATA
    return ANGLE if fill_amplitudes(field, corners) > 0 else NO_DIRECTION


@kernel
def fill_rows(coefficients, basis, voxels, maxima, rows, unit):
    """Evaluate the fODF of some voxels along axes, as rows of integers.

    The sum over coefficients is a loop in a fixed order, because BLAS adds in an order that
    depends on how many voxels there are.

    Parameters
    ----------
    coefficients : ndarray of float32, shape (N, C)
    basis : ndarray, shape (C, V)
        Spherical harmonics along the axes.
    voxels : ndarray of int, shape (n,)
        Rows of ``coefficients`` that are evaluated.
    maxima : int
        Column at which the maxima of blocks begin.
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
            maximum = np.int64(0)
            for axis in range(block * BLOCK, min(block * BLOCK + BLOCK, n_axes)):
                maximum = max(maximum, np.int64(rows[n, axis]))
            # Rounded up, because it serves as an upper bound.
            steps = (maximum + MAXIMUM_STEP - 1) // MAXIMUM_STEP
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
        Share of the largest amplitude that a peak has to reach.
    """

    neighbours: int
    n_neighbours: int
    near: int
    relative: float


@kernel
def find_peaks(criteria, n_axes, values, which, smallest, peaks, limit):
    """Find the largest peaks of a function on axes.

    Parameters
    ----------
    criteria : Peaks
    n_axes : int
    values : address of int32, shape (n_axes,)
    which : int32
        Bits of the blocks that have values; those of the others do not reach `smallest`.
    smallest : float
        What a peak has to reach; positive.
    peaks : address of int64, shape (n_axes,)
        Written: axes of the peaks, the largest first; of equal ones the first.
    limit : int

    Returns
    -------
    int
        Number of peaks, at most ``limit``.
    """
    values, peaks = ints(values), longs(peaks)
    neighbours, near = ints(criteria.neighbours), truths(criteria.near)
    which = np.int64(which)
    # Candidates, of which ``peaks`` holds those found first, then those left: each time the
    # largest one left is moved to the front, and its neighbours within the separation angle go.
    left = 0
    for block in range(MAX_BLOCKS):
        if not (which >> block) & 1:
            continue
        for axis in range(BLOCK * block, min(BLOCK * block + BLOCK, n_axes)):
            value = values[np.uint64(axis)]
            if value < smallest:
                continue
            is_maximum = True
            for k in range(criteria.n_neighbours):
                neighbour = np.int64(neighbours[np.uint64(axis * criteria.n_neighbours + k)])
                if (which >> (neighbour // BLOCK)) & 1 and value < values[np.uint64(neighbour)]:
                    is_maximum = False
                    break
            if is_maximum:
                peaks[left] = axis
                left += 1
    found = 0
    while found < limit and found < left:
        best = found
        for n in range(found + 1, left):
            if values[peaks[n]] > values[peaks[best]]:
                best = n
        # Moved by one each, not swapped, so that those left stay in the order of their axes.
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
def find_peaks_here(field, criteria, corners, relative, limit):
    """Find the largest peaks of the interpolated fODF.

    Only blocks that may have a peak are interpolated: where others have a neighbour of an axis that
    reaches the share, it is lower.

    Parameters
    ----------
    field : Field
    criteria : Peaks
    corners : Corners
        ``values`` and ``peaks`` are written.
    relative : float
        Share of the largest amplitude that a peak has to reach; positive.
    limit : int

    Returns
    -------
    int
        Number of peaks, at most ``limit``.
    """
    largest, axis = find_above(field, corners, np.int32(0), False)
    if axis < 0:
        return 0
    smallest, scale = relative * np.float64(largest), _scale(corners)
    which = blocks_reaching(
        field.rows, corners.start, corners.share, scale, np.int64(field.maxima),
        np.int32(np.ceil(smallest)),
    )  # fmt: skip
    interpolate_blocks(
        field.rows, corners.start, corners.share, scale, members_of(field, field.n_axes), which,
        corners.values,
    )  # fmt: skip
    return find_peaks(criteria, field.n_axes, corners.values, which, smallest, corners.peaks, limit)


@kernel
def find_first_axes(field, criteria, corners, limit):
    """Find the axes along which streamlines from a seed set out.

    Parameters
    ----------
    field : Field
    criteria : Peaks
    corners : Corners
        ``peaks`` is written.
    limit : int

    Returns
    -------
    int
        Number of axes, at most ``limit``.
    """
    if limit == 1:  # the largest amplitude is the largest peak, and faster to find
        axis = find_above(field, corners, np.int32(0), False)[1]
        longs(corners.peaks)[0] = axis
        return 1 if axis >= 0 else 0
    return find_peaks_here(field, criteria, corners, criteria.relative, limit)

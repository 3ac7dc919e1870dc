"""Amplitudes of the fODF around a point: their largest, those of a cone, and their peaks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bids_tractography.machine.compiled import inlined_kernel, kernel
from bids_tractography.tracking.cpu.kernels.field import ANGLE, LARGEST, NO_DIRECTION
from bids_tractography.tracking.cpu.kernels.memory import floats, ints, longs, truths
from bids_tractography.tracking.cpu.kernels.vectors import (
    BLOCK,
    MAXIMUM_STEP,
    UNIT,
    find_largest,
    interpolate_blocks,
    which_blocks,
)


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

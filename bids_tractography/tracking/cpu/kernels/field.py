"""The fODF and the maps of the stopping rule, as kernels see them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bids_tractography.machine.compiled import inlined_kernel
from bids_tractography.tracking.cpu.kernels.memory import floats, longs, shorts
from bids_tractography.tracking.cpu.kernels.random import STOPPING, random_words, uniform
from bids_tractography.tracking.cpu.kernels.vectors import look_at_cells

# Stopping rules, and why an end is where it is: places in the list of streamlines.Stop.
THRESHOLD, BINARY, ACT, CMC = range(4)
GO_ON = -1
STOPPING_RULE, GREY_MATTER, FLUID, IMAGE_BORDER, ANGLE, NO_DIRECTION, MAX_LENGTH = range(7)

ROUNDING = 1e-6  # of interpolated fractions

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

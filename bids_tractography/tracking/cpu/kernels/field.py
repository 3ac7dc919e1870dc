"""The fODF and the maps of the stopping rule, as kernels see them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from bids_tractography.core.stopping import (
    ActRule,
    BinaryRule,
    CmcRule,
    FodRule,
    StoppingRule,
    ThresholdRule,
)
from bids_tractography.core.streamlines import Stop
from bids_tractography.machine.compiled import inlined_kernel
from bids_tractography.tracking.cpu.kernels.arithmetic import gather_cells
from bids_tractography.tracking.cpu.kernels.memory import floats, longs, shorts
from bids_tractography.tracking.cpu.kernels.random import STOPPING, random_words, uniform

THRESHOLD, BINARY, ACT, CMC, FOD = range(5)
RULES: Mapping[type[StoppingRule], int] = {
    ThresholdRule: THRESHOLD,
    BinaryRule: BINARY,
    ActRule: ACT,
    CmcRule: CMC,
    FodRule: FOD,  # alone: `Field.lowest_peak` is all there is to it
}

# Why an end is where it is. numba compiles integers in, so each is taken out of the enum by name.
STOPPING_RULE = Stop.STOPPING_RULE.code
GREY_MATTER = Stop.GREY_MATTER.code
CSF = Stop.CSF.code
IMAGE_BORDER = Stop.IMAGE_BORDER.code
ANGLE = Stop.ANGLE.code
NO_DIRECTION = Stop.NO_DIRECTION.code
MAX_LENGTH = Stop.MAX_LENGTH.code
NO_DATA = Stop.NO_DATA.code
GO_ON = -1  # no end

ROUNDING = 1e-6
"""Error of a float32 interpolated between fractions: closer to 0 or 1 than this is 0 or 1."""

LARGEST = 65535
"""Amplitude of a row's maximum."""


class Field(NamedTuple):
    """An image as kernels see it; arrays are addresses.

    Vertices of the sphere are numbered 2 x axis + sign, so that ``v ^ 1`` is opposite to ``v``.

    Parameters
    ----------
    nx, ny, nz : int
        Voxels along each axis.
    cells : float32 or int32, shape (nx + 2, ny + 2, nz + 2, 4)
        Of each voxel: the cache line of ``rows`` on which its row of amplitudes begins (an int32;
        0 where there are no data), the amplitude of the unit of its row, and the first and second
        map of the stopping rule. What is needed of a voxel at each step thus lies in 16 bytes, and
        two neighbours along z in one load. There is one more voxel at either side, which repeats
        the outermost, so that interpolation needs no clipping.
    n_axes : int
    axes : float64, shape (n_axes, 3)
        Unit vectors, RAS+. Sixteen in a row, a block, are neighbours on the sphere.
    width : int
        Numbers in a row, with padding.
    rows : uint16, shape (R, width)
        Amplitudes along the axes in units of 1 / 65535 of the row's largest, zero in the rest of
        the last block. Rows 0 and 1 are zero, for voxels without data and without an fODF.
    maxima : int
        Column at which the maxima of blocks begin: bytes, in units of 257, rounded up.
    cone_start : int32, shape (n_axes + 1,)
    cone : uint16
        Vertices no further than the maximum angle from vertex ``2 a`` are
        ``cone[cone_start[a]:cone_start[a + 1]]``.
    members : uint16, shape (2 n_axes + 1, 32)
        A bit for each axis of each block. Row ``a`` has those in the cone around axis ``a``, row
        ``n_axes`` all of them, row ``n_axes + 1 + a`` those at an obtuse angle with axis ``a``.
    steps : float64, shape (2 n_axes, 3)
        A step along each vertex, in voxels.
    min_cosine : float
        Cosine of the maximum angle.
    pmf_threshold : float
        Share of the largest amplitude below which directions are not taken.
    rule : int
        One of the values of `RULES`.
    rule_threshold : float
        Of the threshold rule.
    rule_power : float
        Of the CMC rule: step size over mean voxel size.
    keeps_entry : bool
        Whether a step into grey matter belongs to the streamline.
    lowest_peak : float32
        Interpolated maximum of the fODF, in units of `LARGEST`, at and below which streamlines
        end; -1 if they do not.
    low_peak : int
        Why they end there.
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
    min_cosine: float
    pmf_threshold: float
    rule: int
    rule_threshold: float
    rule_power: float
    keeps_entry: bool
    lowest_peak: np.float32
    low_peak: int


class Corners(NamedTuple):
    """The eight cells around a point, and scratch memory; arrays are addresses.

    `gather_corners` writes ``start`` and ``share``.

    Parameters
    ----------
    start : int64, shape (8,)
        Place in ``rows`` at which each one's row begins.
    share : float32, shape (16,)
        Interpolation weight of the unit of each row: ``sum(share[:8] * rows)`` is the fODF. Then
        their cumulative sums.
    values : int32, shape (width,)
        The fODF along axes.
    sums : int32, shape (16,)
        Sums over blocks.
    words : uint32, shape (4, 8, 4)
        Random words; see `fill_words`.
    peaks : int64, shape (n_axes,)
        Peaks of the fODF.
    heading : float64, shape (3,)
        Direction of the first step of a half, which a curve writes.
    """

    start: int
    share: int
    values: int
    sums: int
    words: int
    peaks: int
    heading: int


@inlined_kernel
def is_inside(field, x, y, z):
    """Return whether a point lies in the image, half a voxel beyond the outermost centres.

    Parameters
    ----------
    field : Field
    x, y, z : float
        Voxels.
    """
    return -0.5 <= x < field.nx - 0.5 and -0.5 <= y < field.ny - 0.5 and -0.5 <= z < field.nz - 0.5


@inlined_kernel
def gather_corners(field, x, y, z, corners):
    """Gather the eight cells around a point of the image.

    Parameters
    ----------
    field : Field
    x, y, z : float
        Voxels.
    corners : Corners
        Written.

    Returns
    -------
    first, second : float32
        The maps of the stopping rule at the point.
    """
    fx, fy, fz = np.floor(x), np.floor(y), np.floor(z)
    dx, dy, dz = np.float32(x - fx), np.float32(y - fy), np.float32(z - fz)
    step_y = field.nz + 2
    step_x = (field.ny + 2) * step_y
    cell = (np.int64(fx) + 1) * step_x + (np.int64(fy) + 1) * step_y + np.int64(fz) + 1
    first, second = gather_cells(
        field.cells, cell, step_y, step_x, dx, dy, dz, corners.start, corners.share
    )
    if field.rule == BINARY:
        nearest = cell + (dx >= 0.5) * step_x + (dy >= 0.5) * step_y + (dz >= 0.5)
        first = floats(field.cells)[np.uint64(4 * nearest + 2)]
    return first, second


@inlined_kernel
def has_data(corners, x, y, z):
    """Return whether the voxel nearest to a point of the image has data.

    Parameters
    ----------
    corners : Corners
        Of the point, as `gather_corners` writes them.
    x, y, z : float
        Voxels.
    """
    corner = np.int64(0)
    for place in (x, y, z):
        corner = 2 * corner + (place - np.floor(place) >= 0.5)
    return longs(corners.start)[corner] != 0


@inlined_kernel
def amplitude(field, corners, axis):
    """Interpolate the fODF along an axis.

    Parameters
    ----------
    field : Field
    corners : Corners
        Of the point, as `gather_corners` writes them.
    axis : int

    Returns
    -------
    float32
        In the unit of the fODF.
    """
    rows, start, share = shorts(field.rows), longs(corners.start), floats(corners.share)
    value = np.float32(0)
    for corner in range(8):
        value += share[corner] * np.float32(rows[np.uint64(start[corner] + axis)])
    return value


@inlined_kernel
def ask_rule(field, corners, first, second, stream, turn, particle):
    """Ask the stopping rule about a point.

    Parameters
    ----------
    field : Field
    corners : Corners
        Of the point, as `gather_corners` writes them.
    first, second : float
        The rule's maps at the point.
    stream : Stream
    turn, particle : int
        What the random numbers of a rule that draws are for.

    Returns
    -------
    int
        GO_ON, or why not.
    """
    stop = _ask_maps(field, first, second, stream, turn, particle)
    # The last cumulative share is the interpolated maximum of the fODF.
    if stop == GO_ON and floats(corners.share)[15] <= field.lowest_peak:
        return field.low_peak
    return stop


@inlined_kernel
def is_entry(field, stop):
    """Return whether a step that ends a half belongs to it: one that has entered grey matter."""
    return field.keeps_entry and stop == GREY_MATTER


@inlined_kernel
def _ask_maps(field, first, second, stream, turn, particle):
    """Ask the part of the stopping rule that reads maps; see `ask_rule`."""
    if field.rule == FOD:
        return GO_ON
    first, second = np.float64(first), np.float64(second)
    if field.rule == THRESHOLD:
        return GO_ON if first > field.rule_threshold else STOPPING_RULE
    if field.rule == BINARY:
        return GO_ON if first > 0.5 else STOPPING_RULE
    if field.rule == ACT:
        if first > 0.5:
            return GREY_MATTER
        return CSF if second > 0.5 else GO_ON
    tissue = first + second
    if tissue <= 0:
        return GO_ON
    w0, w1, w2, w3 = random_words(stream, STOPPING, turn, particle, 0)
    # Where rounding leaves 1e-7 of nothing, a small power would make a fair chance of it: with
    # steps of a tenth of a voxel, 1e-7 ** 0.1 is 0.2.
    if tissue < 1 - ROUNDING and uniform(w0, w1) < (1 - tissue) ** field.rule_power:
        return GO_ON
    return GREY_MATTER if uniform(w2, w3) * tissue < first else CSF

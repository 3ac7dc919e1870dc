"""Ways to choose the next vertex of the sphere: drawn, the largest, or the closest peak."""

from __future__ import annotations

import numpy as np

from bids_tractography.machine.compiled import inlined_kernel, kernel
from bids_tractography.tracking.cpu.kernels.amplitudes import (
    fill_cone,
    find_above,
    find_peaks_here,
    members_of,
)
from bids_tractography.tracking.cpu.kernels.arithmetic import count_reached
from bids_tractography.tracking.cpu.kernels.blocks import BLOCK, MAX_BLOCKS, UNIT
from bids_tractography.tracking.cpu.kernels.field import LARGEST, amplitude
from bids_tractography.tracking.cpu.kernels.memory import doubles, floats, ints, longs, shorts
from bids_tractography.tracking.cpu.kernels.random import (
    ATTEMPTS,
    DIRECTION,
    LAST_ATTEMPT,
    random_words,
    uniform,
    words_of,
)

# The smallest normal float32: amplitudes are far larger or zero, so at a threshold of zero this
# is what tells a direction from none.
_NOTHING = 2.0**-126


@inlined_kernel
def _cosine(field, axis, other):
    """Return the cosine of the angle between two axes."""
    axes = doubles(field.axes)
    a, b = np.uint64(3 * axis), np.uint64(3 * other)
    one, two = np.uint64(1), np.uint64(2)
    return axes[a] * axes[b] + axes[a + one] * axes[b + one] + axes[a + two] * axes[b + two]


@inlined_kernel
def _vertex_near(field, axis, last):
    """Return the one of an axis's two vertices that is nearer to a vertex."""
    turned = shorts(members_of(field, np.int64(field.n_axes + 1 + (last >> 1))))
    away = np.int64(turned[np.uint64(axis // BLOCK)]) >> (axis % BLOCK)
    return 2 * axis + ((away ^ last) & 1)


@inlined_kernel
def is_below(field, corners, value):
    """Return whether an amplitude is below the threshold.

    Parameters
    ----------
    field : Field
    corners : Corners
        Of the point.
    value : float
        In the units of `fill_cone`.
    """
    value = np.float64(value)
    # The largest along any axis is at most UNIT: often that settles it without reading an axis.
    if value >= field.pmf_threshold * UNIT:
        return False
    above = np.int32(value / field.pmf_threshold)
    return find_above(field, corners, above, True)[1] >= 0


@kernel
def _find_amplitude(values, which, wanted):
    """Return the first axis that has the amplitude wanted, -1 if there is none.

    Parameters
    ----------
    values : address of int32, shape (width,)
    which : int32
        Bits of the blocks of axes that are searched.
    wanted : int32
    """
    values = ints(values)
    for block in range(MAX_BLOCKS):
        if (which >> block) & 1:
            for axis in range(BLOCK * block, BLOCK * block + BLOCK):
                if values[np.uint64(axis)] == wanted:
                    return np.int64(axis)
    return np.int64(-1)


@kernel
def _sum_lanes(values, which, smallest, sums):
    """Sum amplitudes at each place in a block, then over the places before it.

    A number below the last sum then finds its place among the sums first, and after that its axis
    among those at that place: some 16 + 23 comparisons where running sums over all axes would take
    362 additions.

    Parameters
    ----------
    values : address of int32, shape (width,)
    which : int32
        Bits of the blocks of axes that are summed.
    smallest : int32
        Smaller amplitudes count as zero.
    sums : address of int32, shape (16,)
        Written: sums over all blocks of the places up to and including each.
    """
    values, sums = ints(values), ints(sums)
    for lane in range(BLOCK):
        sums[lane] = 0
    for block in range(MAX_BLOCKS):
        if (which >> block) & 1:
            for lane in range(BLOCK):
                value = values[np.uint64(BLOCK * block + lane)]
                # Not a branch, which would be mispredicted often.
                sums[lane] += value if value >= smallest else np.int32(0)
    for lane in range(1, BLOCK):
        sums[lane] += sums[lane - 1]


@kernel
def _draw_axis(field, corners, which, smallest, share):
    """Draw an axis of a cone with a probability in proportion to its amplitude.

    Parameters
    ----------
    field : Field
    corners : Corners
        ``values`` as `fill_cone` writes them.
    which : int32
        Bits of the blocks of the cone.
    smallest : float
        Smaller amplitudes are not drawn.
    share : float
        Uniform in [0, 1).

    Returns
    -------
    int
        -1 if there is nothing to draw.
    """
    values, sums = ints(corners.values), ints(corners.sums)
    # The inverse of the cumulative distribution, in integers: without rounding, an axis of
    # amplitude zero has an interval of length zero and is never drawn.
    smallest = np.int32(np.ceil(smallest))
    _sum_lanes(corners.values, which, smallest, corners.sums)
    left = np.int32(share * sums[BLOCK - 1])
    lane = 0
    for n in range(BLOCK - 1):
        lane += sums[n] <= left
    if lane > 0:
        left -= sums[lane - 1]
    for axis in range(lane, field.n_axes, BLOCK):
        value = values[np.uint64(axis)]
        if which & 1 and value >= smallest:
            left -= value
            if left < 0:
                return axis
        which >>= 1
    return -1


@inlined_kernel
def _propose(rows, start, share, limits, cone, first, size, scale, high, low):
    """Draw a corner and a vertex of the cone by 24 bits each; 16 are left for accepting them.

    Parameters
    ----------
    rows, start, share : ndarray
        Of `Field` and `Corners`.
    limits : address of float32, shape (8,)
        Cumulative sums of ``share``.
    cone : ndarray of uint16
    first, size : int
        Which vertices of ``cone`` are in this one.
    scale : float32
        From 24 bits to the sum of ``share``.
    high, low : uint64
        Two words of 32 bits.

    Returns
    -------
    vertex, value : int
        The vertex and its amplitude in the corner's row.
    part : float
        What that contributes to the interpolated amplitude.
    """
    where = np.float32(high >> np.uint64(8)) * scale
    corner = min(count_reached(limits, where), np.int64(7))
    bits = ((high & np.uint64(0xFF)) << np.uint64(16)) | (low >> np.uint64(16))
    chosen = (np.int64(bits) * size) >> 24
    vertex = np.int64(cone[np.uint64(first + chosen)])
    value = np.int64(rows[np.uint64(start[corner] + (vertex >> 1))])
    return vertex, value, share[corner] * np.float32(value)


@inlined_kernel
def draw_vertex(field, corners, last, stream, turn, particle, draw):
    """Draw a vertex of the cone with a probability in proportion to its interpolated amplitude.

    By rejection: a corner is proposed in proportion to its share, which is its weight times its
    maximum, and a vertex uniformly; the pair is accepted with the probability of the corner's
    amplitude over its maximum. The envelope of each corner is thus its own maximum, and summed
    over corners a vertex is accepted in proportion to its interpolated amplitude, although only
    one number has been loaded instead of eight for every axis of the cone. After a few failures
    the cone is summed: where its amplitudes are low, the loop would take long.

    Amplitudes under the threshold are drawn, then rejected. The threshold is a share of the
    largest amplitude along any axis, which is at most the interpolated maximum: only what is
    below that share of the maximum has to be compared with the largest itself.

    Parameters
    ----------
    field : Field
    corners : Corners
    last : int
        Vertex that led here: the middle of the cone.
    stream : Stream
    turn, particle : int
        What the random numbers are for.
    draw : int
        Which of the words in ``corners.words`` are those of this turn and particle.

    Returns
    -------
    int
        -1 if no direction in the cone reaches the threshold.
    """
    rows, start, share = shorts(field.rows), longs(corners.start), floats(corners.share)
    total = share[15]
    if total <= 0:
        return -1
    cone, cone_start = shorts(field.cone), ints(field.cone_start)
    axis, flip = last >> 1, last & 1
    first = np.int64(cone_start[axis])
    size = np.int64(cone_start[axis + 1]) - first
    scale, limits = total * np.float32(2.0**-24), corners.share + 32
    # Cumulative sums are rounded, so that a corner without weight may be proposed: its part is 0,
    # which is why even without a threshold something has to be reached.
    enough = max(np.float64(np.float32(field.pmf_threshold)) * LARGEST * total, _NOTHING)
    unit = np.float32(LARGEST) * total / np.float32(UNIT)
    for attempt in range(ATTEMPTS):
        w0, w1, w2, w3 = words_of(corners.words, draw, attempt)
        # Four words make two candidates. Both are loaded before either is used, so that the two
        # waits for memory overlap.
        one, one_value, one_part = _propose(
            rows, start, share, limits, cone, first, size, scale, w0, w1
        )
        other, other_value, other_part = _propose(
            rows, start, share, limits, cone, first, size, scale, w2, w3
        )
        for second in range(2):
            vertex, value, word = (other, other_value, w3) if second else (one, one_value, w1)
            if np.int64(word & np.uint64(0xFFFF)) < value:
                # One corner's part may be enough already, and often is.
                if (other_part if second else one_part) >= enough:
                    return vertex ^ flip
                interpolated = amplitude(field, corners, vertex >> 1)
                if interpolated >= enough:
                    return vertex ^ flip
                if interpolated >= _NOTHING and not is_below(field, corners, interpolated / unit):
                    return vertex ^ flip
    return draw_from_sum(field, corners, last, stream, turn, particle)


@kernel
def draw_from_sum(field, corners, last, stream, turn, particle):
    """Draw a vertex as `draw_vertex` does, but by summing over the cone, which cannot fail.

    Parameters and the result are those of `draw_vertex`.
    """
    largest, which = fill_cone(field, corners, last >> 1)
    if largest <= 0:
        return -1
    w0, w1, w2, w3 = random_words(stream, DIRECTION, turn, particle, LAST_ATTEMPT)
    # The largest amplitude of all axes is at least the largest of the cone. Drawing from what
    # reaches the threshold of the cone's own largest and then rejecting is drawing from what
    # reaches the threshold, if a second draw replaces what was rejected; and mostly the other
    # axes need not be read at all.
    axis = _draw_axis(field, corners, which, field.pmf_threshold * largest, uniform(w0, w1))
    value = ints(corners.values)[axis]
    if is_below(field, corners, value):
        smallest = field.pmf_threshold * find_above(field, corners, np.int32(0), False)[0]
        axis = _draw_axis(field, corners, which, smallest, uniform(w2, w3))
    return _vertex_near(field, axis, last) if axis >= 0 else -1


@inlined_kernel
def largest_vertex(field, corners, last):
    """Return the vertex of the cone with the largest interpolated amplitude, or -1.

    Parameters
    ----------
    field : Field
    corners : Corners
    last : int
        Vertex that led here: the middle of the cone.
    """
    largest, which = fill_cone(field, corners, last >> 1)
    if largest <= 0 or is_below(field, corners, largest):
        return -1
    return _vertex_near(field, _find_amplitude(corners.values, which, largest), last)


@kernel
def closest_peak(field, corners, criteria, last):
    """Return the peak of the interpolated fODF closest to a vertex, -1 if none is in the cone.

    Parameters
    ----------
    field : Field
    corners : Corners
    criteria : Peaks
    last : int
        Vertex that led here: the middle of the cone.
    """
    peaks = longs(corners.peaks)
    relative = max(criteria.relative, field.pmf_threshold)
    found = find_peaks_here(field, criteria, corners, relative, field.n_axes)
    best, nearest = -1, field.min_cosine
    for p in range(found):
        cosine = abs(_cosine(field, peaks[p], last >> 1))
        if cosine > nearest:
            best, nearest = peaks[p], cosine
    return _vertex_near(field, best, last) if best >= 0 else -1

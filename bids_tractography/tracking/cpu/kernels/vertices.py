"""Compiled ways to choose the next vertex of the sphere: drawn, or the largest."""

from __future__ import annotations

import numpy as np

from bids_tractography.machine.compiled import inlined_kernel, kernel
from bids_tractography.tracking.cpu.kernels.amplitudes import (
    fill_amplitudes,
    fill_cone,
    find_above,
    find_peaks,
    members_of,
)
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
from bids_tractography.tracking.cpu.kernels.vectors import (
    BLOCK,
    UNIT,
    count_reached,
    find_amplitude,
    sum_lanes,
)

_NOTHING = 2.0**-126  # no amplitude is as small


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
    """Tell whether an amplitude, in the units of `fill_cone`, is below the threshold."""
    # Nothing is above UNIT.
    if value >= field.pmf_threshold * UNIT:
        return False
    above = np.int32(value / field.pmf_threshold)
    return find_above(field, corners, above, True)[1] >= 0


@kernel
def _draw_axis(field, corners, which, least, share):
    """Draw an axis of a cone by its amplitude, or -1; ``share`` is uniform in [0, 1)."""
    values, sums = ints(corners.values), ints(corners.sums)
    # Zeros are never drawn: they widen no interval.
    least = np.int32(np.ceil(least))
    sum_lanes(corners.values, which, least, corners.sums)
    left = np.int32(share * sums[BLOCK - 1])
    lane = 0
    for n in range(BLOCK - 1):
        lane += sums[n] <= left
    if lane > 0:
        left -= sums[lane - 1]
    for axis in range(lane, field.n_axes, BLOCK):
        value = values[np.uint64(axis)]
        if which & 1 and value >= least:
            left -= value
            if left < 0:
                return axis
        which >>= 1
    return -1


@inlined_kernel
def _propose(rows, start, share, limits, cone, first, size, scale, high, low):
    """Draw a corner and a vertex of the cone by 24 bits each; 16 are left for accepting them.

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
    """Draw a vertex of the cone with the probability of its interpolated amplitude, or -1.

    A corner is proposed by its weight times its maximum, a vertex uniformly, and the pair
    accepted by the corner's amplitude over its maximum: summed over corners that is the
    interpolated amplitude, at the price of one number loaded. After enough failures the cone is
    summed. Amplitudes under the threshold are drawn and rejected. It is a share of the largest
    along any axis, which is no more than the interpolated maximum: only what is below that
    share has to be looked at.

    ``draw`` tells which of the words in ``corners.words`` are those of this turn and particle.
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
    # The cumulative sums of weights are rounded, and may propose a corner that has none.
    enough = max(np.float32(field.pmf_threshold) * LARGEST * total, _NOTHING)
    unit = np.float32(LARGEST) * total / np.float32(UNIT)
    for attempt in range(ATTEMPTS):
        w0, w1, w2, w3 = words_of(corners.words, draw, attempt)
        # Both candidates are loaded before either is asked for, so that one wait does for two.
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
    """Do the same by summing the cone."""
    largest, which = fill_cone(field, corners, last >> 1)
    if largest <= 0:
        return -1
    w0, w1, w2, w3 = random_words(stream, DIRECTION, turn, particle, LAST_ATTEMPT)
    # The largest along any axis is no less than the largest in the cone and no more than UNIT:
    # what may be above the threshold is drawn from, and all axes are asked only if what was
    # drawn may be below it.
    axis = _draw_axis(field, corners, which, field.pmf_threshold * largest, uniform(w0, w1))
    value = ints(corners.values)[axis]
    if is_below(field, corners, value):
        least = field.pmf_threshold * find_above(field, corners, np.int32(0), False)[0]
        axis = _draw_axis(field, corners, which, least, uniform(w2, w3))
    return _vertex_near(field, axis, last) if axis >= 0 else -1


@inlined_kernel
def largest_vertex(field, corners, last):
    """Return the vertex of the cone with the largest interpolated amplitude, or -1."""
    largest, which = fill_cone(field, corners, last >> 1)
    if largest <= 0 or is_below(field, corners, largest):
        return -1
    return _vertex_near(field, find_amplitude(corners.values, which, largest), last)


@kernel
def closest_peak(field, corners, criteria, last):
    """Return the peak of the interpolated fODF closest to a vertex, -1 if outside the cone."""
    if fill_amplitudes(field, corners) <= 0:
        return -1
    peaks = longs(corners.peaks)
    relative = max(criteria.relative, field.pmf_threshold)
    found = find_peaks(
        criteria, field.n_axes, corners.values, relative, corners.peaks, field.n_axes
    )
    best, nearest = -1, field.least_cosine
    for p in range(found):
        cosine = abs(_cosine(field, peaks[p], last >> 1))
        if cosine > nearest:
            best, nearest = peaks[p], cosine
    return _vertex_near(field, best, last) if best >= 0 else -1

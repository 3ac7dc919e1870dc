"""Compiled ways to choose the next vertex of the sphere: drawn, or the largest."""

from __future__ import annotations

import numpy as np

from bids_tractography.compiled import kernel
from bids_tractography.tracking.kernels import (
    DIRECTION,
    LARGEST,
    LAST_ATTEMPT,
    amplitude,
    fill_amplitudes,
    find_peaks,
    floats,
    ints,
    longs,
    random_words,
    shorts,
    uniform,
)

_ATTEMPTS = 8  # blocks of random numbers, two draws each, before the whole cone is summed


@kernel
def _propose(rows, start, share, cone, first, size, scale, high, low):
    """Draw a corner and a vertex of the cone by 24 bits each; 16 are left for accepting them.

    Returns
    -------
    vertex, value : int
        The vertex and its amplitude in the corner's row.
    part : float
        What that contributes to the interpolated amplitude.
    """
    where = np.float32(high >> np.uint64(8)) * scale
    corner = np.int64(0)
    for c in range(8, 15):
        corner += where >= share[c]
    bits = ((high & np.uint64(0xFF)) << np.uint64(16)) | (low >> np.uint64(16))
    chosen = (np.int64(bits) * size) >> 24
    vertex = np.int64(cone[np.uint64(first + chosen)])
    value = np.int64(rows[np.uint64(start[corner] + (vertex >> 1))])
    return vertex, value, share[corner] * np.float32(value)


@kernel
def draw_vertex(field, corners, total, last, stream, turn, particle):
    """Draw a vertex of the cone with the probability of its interpolated amplitude, or -1.

    A corner is proposed by its weight times its maximum, a vertex uniformly, and the pair
    accepted by the corner's amplitude over its maximum: summed over corners that is the
    interpolated amplitude, at the price of one number loaded. Amplitudes under the threshold
    are drawn and rejected. After enough failures the cone is summed.
    """
    if total <= 0:
        return -1
    rows, start, share = shorts(field.rows), longs(corners.start), floats(corners.share)
    cone, cone_start = shorts(field.cone), ints(field.cone_start)
    flip = last & 1
    first = np.int64(cone_start[last >> 1])
    size = np.int64(cone_start[(last >> 1) + 1]) - first
    scale = total * np.float32(2.0**-24)
    # The interpolated maximum is no less than the maximum of what is interpolated: above its
    # share an amplitude counts for sure, and only below it the other has to be known.
    threshold = np.float32(field.pmf_threshold)
    enough, least = threshold * LARGEST * total, np.float32(-1)
    # Nor is it less than what the corner with the largest share has.
    greatest = np.float32(0)
    for c in range(8):
        greatest = max(greatest, share[c])
    too_little = threshold * LARGEST * greatest
    for attempt in range(_ATTEMPTS):
        w0, w1, w2, w3 = random_words(stream, DIRECTION, turn, particle, attempt)
        # Both candidates are loaded before either is asked for, so that one wait does for two.
        one, one_value, one_part = _propose(rows, start, share, cone, first, size, scale, w0, w1)
        other, other_value, other_part = _propose(
            rows, start, share, cone, first, size, scale, w2, w3
        )
        for second in range(2):
            vertex, value, word = (other, other_value, w3) if second else (one, one_value, w1)
            if np.int64(word & np.uint64(0xFFFF)) < value:
                vertex ^= flip
                # One corner's part may be enough already, and often is.
                if (other_part if second else one_part) >= enough:
                    return vertex
                interpolated = amplitude(field, corners, vertex >> 1)
                if interpolated >= enough:
                    return vertex
                if interpolated < too_little:
                    continue
                if least < 0:
                    least = threshold * fill_amplitudes(field, corners)
                if interpolated >= least:
                    return vertex
    return draw_from_sum(field, corners, last, stream, turn, particle)


@kernel
def draw_from_sum(field, corners, last, stream, turn, particle):
    """Do the same by summing the cone."""
    cone, cone_start, values = shorts(field.cone), ints(field.cone_start), floats(corners.values)
    flip = last & 1
    first, stop = cone_start[last >> 1], cone_start[(last >> 1) + 1]
    least = np.float32(field.pmf_threshold) * fill_amplitudes(field, corners)
    total = 0.0
    for n in range(first, stop):
        value = values[cone[n] >> 1]
        if value >= least:
            total += value
    w0, w1, _, _ = random_words(stream, DIRECTION, turn, particle, LAST_ATTEMPT)
    left = uniform(w0, w1) * total
    vertex = -1
    for n in range(first, stop):
        value = values[cone[n] >> 1]
        if value >= least and value > 0:
            vertex = np.int64(cone[n]) ^ flip
            left -= value
            if left < 0:
                break
    return vertex


@kernel
def largest_vertex(field, corners, total, last):
    """Return the vertex of the cone with the largest interpolated amplitude, or -1."""
    cone, cone_start = shorts(field.cone), ints(field.cone_start)
    flip = last & 1
    best, largest = -1, np.float32(0)
    for n in range(cone_start[last >> 1], cone_start[(last >> 1) + 1]):
        vertex = np.int64(cone[n])
        value = amplitude(field, corners, vertex >> 1)
        if value > largest:
            best, largest = vertex ^ flip, value
    threshold = np.float32(field.pmf_threshold)
    if largest < threshold * LARGEST * total and (
        largest < threshold * fill_amplitudes(field, corners)
    ):
        return -1
    return best


@kernel
def closest_peak(field, corners, criteria, last):
    """Return the peak of the interpolated fODF closest to a vertex, -1 if outside the cone."""
    if fill_amplitudes(field, corners) <= 0:
        return -1
    peaks, cone, cone_start = longs(corners.peaks), shorts(field.cone), ints(field.cone_start)
    relative = max(criteria.relative, field.pmf_threshold)
    found = find_peaks(
        criteria, field.n_axes, corners.values, relative, corners.peaks, field.n_axes
    )
    # Vertices of a cone are sorted by their distance from its axis.
    for n in range(cone_start[last >> 1], cone_start[(last >> 1) + 1]):
        for p in range(found):
            if peaks[p] == cone[n] >> 1:
                return np.int64(cone[n]) ^ (last & 1)
    return -1

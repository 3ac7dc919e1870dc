"""Compiled trackers whose directions are vertices of the sphere: prob, det, closest_peak."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bids_tractography.compiled import kernel
from bids_tractography.tracking.kernels import (
    DIRECTION,
    GO_ON,
    IMAGE_BORDER,
    LARGEST,
    LAST_ATTEMPT,
    MAX_LENGTH,
    amplitude,
    ask_rule,
    doubles,
    enlarge,
    fill_amplitudes,
    find_peaks,
    floats,
    ints,
    is_inside,
    longs,
    look,
    make_stream,
    random_words,
    shorts,
    truths,
    uniform,
    why_no_direction,
)

PROB, DET, CLOSEST_PEAK = range(3)
_ATTEMPTS = 8  # blocks of random numbers, two draws each, before the whole cone is summed

# Rejections: places in the list of streamlines.Rejection.
TOO_LONG, DEAD_END, TOO_SHORT = range(3)


class Plan(NamedTuple):
    """What is asked of streamlines; arrays are addresses.

    Parameters
    ----------
    algorithm : int
    rng_seed : int
    max_directions : int
    min_points, max_points : int
        Of streamlines that are kept.
    is_dead : bool, shape (7,)
        Ends for which a streamline is rejected.
    to_mm : float64, shape (3, 4)
        Voxels to RAS+ mm.
    """

    algorithm: int
    rng_seed: int
    max_directions: int
    min_points: int
    max_points: int
    is_dead: int
    to_mm: int


class Peaks(NamedTuple):
    """What a peak is.

    Parameters
    ----------
    neighbours : ndarray of int32, shape (V, k)
    near : ndarray of bool, shape (V, V)
        Pairs of axes too close to be two peaks.
    relative : float
        Least share of the largest peak.
    """

    neighbours: NDArray[np.int32]
    near: NDArray[np.bool_]
    relative: float


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
    for attempt in range(_ATTEMPTS):
        w0, w1, w2, w3 = random_words(stream, DIRECTION, turn, particle, attempt)
        for second in range(2):
            high, low = (w2, w3) if second else (w0, w1)
            where = np.float32(high >> np.uint64(8)) * scale
            part = np.float32(0)
            corner = 0
            for c in range(7):
                part += share[c]
                corner += where >= part
            bits = ((high & np.uint64(0xFF)) << np.uint64(16)) | (low >> np.uint64(16))
            chosen = (np.int64(bits) * size) >> 24
            vertex = np.int64(cone[np.uint64(first + chosen)]) ^ flip
            value = np.int64(rows[np.uint64(start[corner] + (vertex >> 1))])
            if np.int64(low & np.uint64(0xFFFF)) < value:
                value = amplitude(field, corners, vertex >> 1)
                if value >= enough:
                    return vertex
                if least < 0:
                    least = threshold * fill_amplitudes(field, corners)
                if value >= least:
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
def track_half(field, plan, corners, seed, vertex, stream, n_before, points):
    """Track one half of a streamline.

    Parameters
    ----------
    field : Field
    plan : Plan
    corners : Corners
    seed : tuple of float
        Voxels.
    vertex : int
        Direction to set out from.
    stream : Stream
    n_before : int
        Points that the streamline has so far.
    points : address of float64, shape (n, 3)
        Written: the points after the seed, in voxels.

    Returns
    -------
    n, stop, vertex : int
        Points, why it ended, and the vertex of its first step (the one given if there is none).
    """
    steps, points = doubles(field.steps), doubles(points)
    x, y, z = seed
    total, _, _ = look(field, x, y, z, corners)
    n, first, last = np.int64(0), vertex, vertex  # an int64, not a constant, to be compiled once
    alone = np.int64(0)
    while True:
        if plan.algorithm == PROB:
            vertex = draw_vertex(field, corners, total, last, stream, n, alone)
        else:
            vertex = largest_vertex(field, corners, total, last)
        if vertex < 0:
            return n, why_no_direction(field, corners), first
        x += steps[np.uint64(3 * vertex + 0)]
        y += steps[np.uint64(3 * vertex + 1)]
        z += steps[np.uint64(3 * vertex + 2)]
        if not is_inside(field, x, y, z):
            return n, IMAGE_BORDER, first
        total, one, other = look(field, x, y, z, corners)
        stop = ask_rule(field, one, other, stream, n, alone)
        if stop != GO_ON:
            return n, stop, first
        if n == 0:
            first = vertex
        if n_before + n == plan.max_points:
            return n, MAX_LENGTH, first
        here = np.uint64(3 * n)
        points[here], points[here + np.uint64(1)], points[here + np.uint64(2)] = x, y, z
        n += 1
        last = vertex


@kernel
def write_points(plan, points, first, n, step, out):
    """Write points ``first, first + step, …`` (n of them, in voxels) in RAS+ mm."""
    points, to_mm = doubles(points), doubles(plan.to_mm)
    for p in range(n):
        here = np.uint64(3 * (first + p * step))
        x, y, z = points[here], points[here + np.uint64(1)], points[here + np.uint64(2)]
        for axis in range(3):
            row = 4 * axis
            out[p, axis] = x * to_mm[row] + y * to_mm[row + 1] + z * to_mm[row + 2] + to_mm[row + 3]


@kernel
def track_seeds(field, plan, criteria, corners, room, positions, indices):
    """Track from every seed.

    Parameters
    ----------
    field : Field
    plan : Plan
    criteria : Peaks
        Of the directions to set out in.
    corners : Corners
    room : ndarray, shape (2, max_points, 3)
        For the two halves of a streamline.
    positions : ndarray, shape (S, 3)
        Voxels.
    indices : ndarray of int64, shape (S,)
        Of the seeds in the whole list.

    Returns
    -------
    points : ndarray of float32, shape (N, 3)
        Of the streamlines kept, RAS+ mm, one streamline after another.
    lengths : ndarray of int64, shape (T,)
    owner : ndarray of int64, shape (T,)
        Which of these seeds each streamline is of.
    stops : ndarray of uint8, shape (T, 2)
    tally : ndarray of int64, shape (12,)
        Ends by reason (7), rejected by reason (3), seeds without direction, generated.
    """
    values, is_dead = floats(corners.values)[: field.n_axes], truths(plan.is_dead)
    peaks = np.empty(plan.max_directions, np.int64)
    ahead, behind = room[0].ctypes.data, room[1].ctypes.data
    points = np.empty((64 * len(positions) + plan.max_points, 3), np.float32)
    most = plan.max_directions * len(positions)
    lengths, owner = np.empty(most, np.int64), np.empty(most, np.int64)
    stops = np.empty((most, 2), np.uint8)
    tally = np.zeros(12, np.int64)
    n_points, n_kept, one = np.int64(0), 0, np.int64(1)
    for s in range(len(positions)):
        seed = positions[s, 0], positions[s, 1], positions[s, 2]
        n_peaks = 0
        if is_inside(field, *seed):
            look(field, *seed, corners)
            fill_amplitudes(field, corners)
            n_peaks = find_peaks(
                values, criteria.neighbours, criteria.near, criteria.relative, peaks
            )
        if n_peaks == 0:
            tally[10] += 1
        for direction in range(n_peaks):
            tally[11] += 1
            vertex = 2 * peaks[direction]
            stream = make_stream(plan.rng_seed, indices[s], direction, one - one)
            n_ahead, stop_ahead, vertex = track_half(
                field, plan, corners, seed, vertex, stream, one, ahead
            )
            stop_behind, n_behind = MAX_LENGTH, 0
            if stop_ahead != MAX_LENGTH:
                stream = make_stream(plan.rng_seed, indices[s], direction, one)
                n_behind, stop_behind, _ = track_half(
                    field, plan, corners, seed, vertex ^ 1, stream, 1 + n_ahead, behind
                )
            if stop_ahead == MAX_LENGTH or stop_behind == MAX_LENGTH:
                tally[MAX_LENGTH] += 2
                tally[7 + TOO_LONG] += 1
                continue
            tally[stop_ahead] += 1
            tally[stop_behind] += 1
            n = n_ahead + 1 + n_behind
            if is_dead[stop_ahead] or is_dead[stop_behind]:
                tally[7 + DEAD_END] += 1
                continue
            if n < plan.min_points:
                tally[7 + TOO_SHORT] += 1
                continue
            if n_points + n > len(points):
                points = enlarge(points, n_points, 2 * len(points) + n)
            write_points(plan, behind, n_behind - 1, n_behind, -one, points[n_points:])
            n_points += n_behind
            write_points(plan, positions.ctypes.data, s, one, one, points[n_points:])
            n_points += 1
            write_points(plan, ahead, one - one, n_ahead, one, points[n_points:])
            n_points += n_ahead
            lengths[n_kept], owner[n_kept] = n, s
            stops[n_kept, 0], stops[n_kept, 1] = stop_behind, stop_ahead
            n_kept += 1
    return points[:n_points], lengths[:n_kept], owner[:n_kept], stops[:n_kept], tally

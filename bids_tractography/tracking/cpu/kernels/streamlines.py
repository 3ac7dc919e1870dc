"""Compiled loops that make streamlines, whatever the algorithm."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bids_tractography.machine.compiled import kernel
from bids_tractography.tracking.cpu.kernels.amplitudes import find_first_axes, why_no_direction
from bids_tractography.tracking.cpu.kernels.curves import track_curve
from bids_tractography.tracking.cpu.kernels.field import (
    FLUID,
    GO_ON,
    IMAGE_BORDER,
    MAX_LENGTH,
    ask_rule,
    is_inside,
    look,
)
from bids_tractography.tracking.cpu.kernels.memory import doubles, enlarge, longs, truths
from bids_tractography.tracking.cpu.kernels.particles import run_particles
from bids_tractography.tracking.cpu.kernels.random import DRAWS, fill_words, make_stream
from bids_tractography.tracking.cpu.kernels.vertices import (
    closest_peak,
    draw_vertex,
    largest_vertex,
)

PROB, DET, CLOSEST_PEAK = range(3)

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


class Half(NamedTuple):
    """Room for one half of a streamline; arrays are addresses.

    Parameters
    ----------
    points : float64, shape (max_points, 3)
        Those after the seed, in voxels.
    vertices : int64, shape (max_points,)
        Of the steps that led to them.
    """

    points: int
    vertices: int


@kernel
def track_half(field, plan, criteria, particles, corners, seed, vertex, stream, n_before, half):
    """Track one half of a streamline.

    Parameters
    ----------
    field : Field
    plan : Plan
    criteria : Peaks
    particles : Particles or None
    corners : Corners
    seed : tuple of float
        Voxels.
    vertex : int
        Direction to set out from.
    stream : Stream
    n_before : int
        Points that the streamline has so far.
    half : Half
        Written.

    Returns
    -------
    n, stop : int
        Points written, and why it ended.
    """
    steps, points, vertices = doubles(field.steps), doubles(half.points), longs(half.vertices)
    x, y, z = seed
    look(field, x, y, z, corners)
    # Not constants but numbers, so that one version of each function is compiled.
    n, alone, turn, trials = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    last, first_vertex, words_from = vertex, vertex, np.int64(-DRAWS)
    while True:
        stop = np.int64(GO_ON)
        if plan.algorithm == DET:
            vertex = largest_vertex(field, corners, last)
        elif plan.algorithm == CLOSEST_PEAK:
            vertex = closest_peak(field, corners, criteria, last)
        else:
            if not words_from <= turn < words_from + DRAWS:
                words_from = turn
                fill_words(stream, turn, 1, alone, 0, corners.words)
            vertex = draw_vertex(field, corners, last, stream, turn, alone, turn - words_from)
        if vertex < 0:
            stop = why_no_direction(field, corners)
        else:
            x += steps[np.uint64(3 * vertex)]
            y += steps[np.uint64(3 * vertex + 1)]
            z += steps[np.uint64(3 * vertex + 2)]
            if not is_inside(field, x, y, z):
                return n, np.int64(IMAGE_BORDER)
            one, other = look(field, x, y, z, corners)
            stop = ask_rule(field, one, other, stream, turn, alone)
        turn += 1
        if stop == GO_ON:
            if n_before + n == plan.max_points:
                return n, np.int64(MAX_LENGTH)
            here = np.uint64(3 * n)
            points[here], points[here + np.uint64(1)], points[here + np.uint64(2)] = x, y, z
            vertices[np.uint64(n)] = vertex
            n += 1
            last = vertex
            continue
        if particles is not None:  # noqa: SIM102 -- alone, it decides what is compiled
            # ANGLE, NO_DIRECTION and FLUID are ends that particles may avoid.
            if (stop == FLUID or vertex < 0) and trials < particles.trials:
                trials += 1
                ended = n if vertex < 0 else n + 1
                out = max(ended - particles.back, 0)
                n_steps = ended - out + particles.front
                place, last = seed, first_vertex
                if out > 0:
                    place = points[3 * out - 3], points[3 * out - 2], points[3 * out - 1]
                    last = vertices[out - 1]
                node, end = run_particles(
                    field, particles, corners, place, last, n_steps, stream, turn
                )
                turn += n_steps
                words_from = np.int64(-DRAWS)
                if node >= 0:
                    n = follow(particles, node, out, n_before, plan.max_points, half)
                    if n < 0:
                        return np.int64(0), np.int64(MAX_LENGTH)
                    if end != GO_ON:
                        return n, end
                    if n > 0:
                        x, y, z = points[3 * n - 3], points[3 * n - 2], points[3 * n - 1]
                        last = vertices[n - 1]
                    else:
                        x, y, z = seed
                        last = first_vertex
                    look(field, x, y, z, corners)
                    continue
        return n, stop


@kernel
def follow(particles, node, out, n_before, max_points, half):
    """Write the nodes up to one after the first ``out`` points of a half.

    Returns
    -------
    int
        Points of the half, or -1 if the streamline would have more than it may.
    """
    before, vertex, point = (
        longs(particles.before), longs(particles.vertex), doubles(particles.point)
    )  # fmt: skip
    points, vertices = doubles(half.points), longs(half.vertices)
    n, link = out, node
    while link > 0:
        n += 1
        link = before[link]
    if n_before + n > max_points:
        return np.int64(-1)
    at, link = n - 1, node
    while link > 0:
        for axis in range(3):
            points[3 * at + axis] = point[3 * link + axis]
        vertices[at] = vertex[link]
        at -= 1
        link = before[link]
    return n


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
def track_seeds(field, plan, criteria, particles, curves, corners, halves, positions, indices):
    """Track from every seed.

    Parameters
    ----------
    field : Field
    plan : Plan
    criteria : Peaks
        Of the directions to set out in.
    particles : Particles or None
    curves : Curves or None
        What is None is not compiled.
    corners : Corners
    halves : tuple of Half
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
    is_dead, peaks = truths(plan.is_dead), np.empty(plan.max_directions, np.int64)
    ahead, behind = halves
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
            n_peaks = find_first_axes(field, criteria, corners, plan.max_directions)
        for direction in range(n_peaks):
            peaks[direction] = longs(corners.peaks)[direction]
        if n_peaks == 0:
            tally[10] += 1
        for direction in range(n_peaks):
            tally[11] += 1
            vertex = 2 * peaks[direction]
            stream = make_stream(plan.rng_seed, indices[s], direction, one - one)
            stop_behind, n_behind = np.int64(MAX_LENGTH), one - one
            other = make_stream(plan.rng_seed, indices[s], direction, one)
            if curves is None:
                n_ahead, stop_ahead = track_half(
                    field, plan, criteria, particles, corners, seed, vertex, stream, one, ahead
                )
                if n_ahead > 0:
                    vertex = longs(ahead.vertices)[0]
                if stop_ahead != MAX_LENGTH:
                    n_behind, stop_behind = track_half(
                        field, plan, criteria, particles, corners, seed, vertex ^ 1, other,
                        one + n_ahead, behind,
                    )  # fmt: skip
            else:
                axes, first = doubles(field.axes), doubles(curves.first)
                axis = 3 * (vertex >> 1)
                n_ahead, stop_ahead = track_curve(
                    field, plan, curves, corners, seed,
                    (axes[axis], axes[axis + 1], axes[axis + 2]), stream, one, ahead,
                )  # fmt: skip
                if stop_ahead != MAX_LENGTH:
                    n_behind, stop_behind = track_curve(
                        field, plan, curves, corners, seed, (-first[0], -first[1], -first[2]),
                        other, one + n_ahead, behind,
                    )  # fmt: skip
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
            write_points(plan, behind.points, n_behind - 1, n_behind, -one, points[n_points:])
            n_points += n_behind
            write_points(plan, np.int64(positions.ctypes.data), s, one, one, points[n_points:])
            n_points += 1
            write_points(plan, ahead.points, one - one, n_ahead, one, points[n_points:])
            n_points += n_ahead
            lengths[n_kept], owner[n_kept] = n, s
            stops[n_kept, 0], stops[n_kept, 1] = stop_behind, stop_ahead
            n_kept += 1
    return points[:n_points], lengths[:n_kept], owner[:n_kept], stops[:n_kept], tally

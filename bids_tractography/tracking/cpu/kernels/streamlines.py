"""Loops that make streamlines, whatever the algorithm.

``particles`` and ``curves`` are arguments of their own, not members of a tuple: numba leaves out
the branches for an argument that is None, so that prob and det are compiled without either.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bids_tractography.core.streamlines import Rejection, Stop
from bids_tractography.machine.compiled import inlined_kernel, kernel
from bids_tractography.tracking.cpu.kernels.amplitudes import (
    Peaks,
    find_first_axes,
    why_no_direction,
)
from bids_tractography.tracking.cpu.kernels.curves import track_curve
from bids_tractography.tracking.cpu.kernels.field import (
    ANGLE,
    CSF,
    GO_ON,
    IMAGE_BORDER,
    MAX_LENGTH,
    NO_DIRECTION,
    Corners,
    Field,
    ask_rule,
    gather_corners,
    is_entry,
    is_inside,
)
from bids_tractography.tracking.cpu.kernels.memory import doubles, enlarge, longs, truths
from bids_tractography.tracking.cpu.kernels.particles import run_particles
from bids_tractography.tracking.cpu.kernels.random import (
    DRAWS,
    Stream,
    fill_words,
    make_stream,
)
from bids_tractography.tracking.cpu.kernels.vertices import (
    closest_peak,
    draw_vertex,
    largest_vertex,
)

PROB, DET, CLOSEST_PEAK = range(3)

TOO_LONG = Rejection.TOO_LONG.code
DEAD_END = Rejection.DEAD_END.code
TOO_SHORT = Rejection.TOO_SHORT.code

_N_STOPS, _N_REJECTIONS = len(Stop), len(Rejection)
_POINTS_PER_SEED = 64  # of which there is room at first; it grows


class Plan(NamedTuple):
    """What is asked of streamlines; arrays are addresses.

    Parameters
    ----------
    algorithm : int
    rng_seed : int
    max_directions : int
    min_points, max_points : int
        Of streamlines that are kept.
    is_dead : bool, shape (8,)
        Ends for which a streamline is rejected, by the code of a `Stop`.
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
    """Memory for one half of a streamline; arrays are addresses.

    Parameters
    ----------
    points : float64, shape (max_points, 3)
        Those after the seed, in voxels.
    vertices : int64, shape (max_points,)
        Of the steps that led to them.
    """

    points: int
    vertices: int


class Start(NamedTuple):
    """Where a half of a streamline sets out, and where it is written.

    Parameters
    ----------
    seed : tuple of float
        Voxels.
    vertex : int
        Vertex to set out along: the middle of the first cone.
    stream : Stream
    n_before : int
        Points that the streamline has so far.
    half : Half
        Written.
    """

    seed: tuple[float, float, float]
    vertex: int
    stream: Stream
    n_before: np.int64
    half: Half


class Problem(NamedTuple):
    """What streamlines are made from."""

    field: Field
    plan: Plan
    criteria: Peaks


class Room(NamedTuple):
    """Memory that streamlines are made in, one at a time."""

    corners: Corners
    ahead: Half
    behind: Half


class Tally(NamedTuple):
    """What became of seeds.

    Parameters
    ----------
    stops : ndarray of int64, shape (8,)
        Ends by the code of their `Stop`.
    rejected : ndarray of int64, shape (5,)
        Streamlines by the code of their `Rejection`.
    without_direction, generated : int
        Seeds, and streamlines.
    """

    stops: NDArray[np.int64]
    rejected: NDArray[np.int64]
    without_direction: int
    generated: int


class Made(NamedTuple):
    """Streamlines from some seeds.

    Parameters
    ----------
    points_mm : ndarray of float32, shape (N, 3)
        Of the streamlines kept, RAS+, one streamline after another.
    lengths : ndarray of int64, shape (T,)
        Points of each.
    owner : ndarray of int64, shape (T,)
        Which of the seeds each one starts from.
    stops : ndarray of uint8, shape (T, 2)
        Codes of the `Stop` of its first and last point.
    tally : Tally
    """

    points_mm: NDArray[np.float32]
    lengths: NDArray[np.int64]
    owner: NDArray[np.int64]
    stops: NDArray[np.uint8]
    tally: Tally


@kernel
def track_half(problem, particles, corners, start):
    """Track one half of a streamline.

    Parameters
    ----------
    problem : Problem
    particles : Particles or None
    corners : Corners
    start : Start

    Returns
    -------
    n, stop : int
        Points written, and why it ended.
    """
    n, turn, trials = np.int64(0), np.int64(0), np.int64(0)
    while True:
        n, turn, stop = _walk(problem, corners, start, n, turn)
        if particles is None:
            return n, stop
        if trials == particles.trials or not _may_be_avoided(stop):
            return n, stop
        trials += 1
        n, turn, stop = _rescue(problem, particles, corners, start, n, turn, stop)
        if stop != GO_ON:
            return n, stop


@inlined_kernel
def _may_be_avoided(stop):
    """Return whether particles may find a way around an end."""
    return stop in (CSF, ANGLE, NO_DIRECTION)


@inlined_kernel
def _end_of(start, n):
    """Return the last point of a half of n points and the vertex that led to it."""
    points, vertices = doubles(start.half.points), longs(start.half.vertices)
    if n == 0:
        x, y, z = start.seed
        return x, y, z, np.int64(start.vertex)
    return points[3 * n - 3], points[3 * n - 2], points[3 * n - 1], vertices[n - 1]


@kernel
def _walk(problem, corners, start, n, turn):
    """Go on with a half, step by step, until it ends.

    Parameters
    ----------
    problem, corners, start
        See `track_half`.
    n, turn : int
        Points and draws of this half so far.

    Returns
    -------
    n, turn, stop : int
    """
    field, plan, criteria = problem
    stream, n_before, half = start.stream, start.n_before, start.half
    steps, points, vertices = doubles(field.steps), doubles(half.points), longs(half.vertices)
    x, y, z, last = _end_of(start, n)
    gather_corners(field, x, y, z, corners)
    # Not a constant but a number: one version of each function is compiled, not two.
    alone = np.int64(0)
    words_from = turn - DRAWS
    while True:
        if plan.algorithm == DET:
            vertex = largest_vertex(field, corners, last)
        elif plan.algorithm == CLOSEST_PEAK:
            vertex = closest_peak(field, corners, criteria, last)
        else:
            if turn == words_from + DRAWS:
                words_from = turn
                fill_words(stream, turn, 1, alone, 0, corners.words)
            vertex = draw_vertex(field, corners, last, stream, turn, alone, turn - words_from)
        turn += 1
        if vertex < 0:
            return n, turn, np.int64(why_no_direction(field, corners, x, y, z))
        # Unsigned indices: numba would compile a test for negative ones into every access.
        x += steps[np.uint64(3 * vertex)]
        y += steps[np.uint64(3 * vertex + 1)]
        z += steps[np.uint64(3 * vertex + 2)]
        if not is_inside(field, x, y, z):
            return n, turn, np.int64(IMAGE_BORDER)
        one, other = gather_corners(field, x, y, z, corners)
        stop = ask_rule(field, corners, one, other, stream, turn - 1, alone)
        if stop != GO_ON and not is_entry(field, stop):
            return n, turn, np.int64(stop)
        if n_before + n == plan.max_points:
            return n, turn, np.int64(MAX_LENGTH)
        here = np.uint64(3 * n)
        points[here], points[here + np.uint64(1)], points[here + np.uint64(2)] = x, y, z
        vertices[np.uint64(n)] = vertex
        n += 1
        if stop != GO_ON:
            return n, turn, np.int64(stop)
        last = vertex


@kernel
def _rescue(problem, particles, corners, start, n, turn, stop):
    """Run particles from some way back, and put the path of one in the place of a half's end.

    Parameters
    ----------
    problem, particles, corners, start
        See `track_half`.
    n, turn, stop : int
        Points and draws of the half so far, and why it ended.

    Returns
    -------
    n, turn, stop : int
        The same afterwards; GO_ON if the half goes on from its new end.
    """
    # A half that has entered fluid ends a step beyond its last point.
    ended = n + 1 if stop == CSF else n
    out = max(ended - particles.back, 0)
    n_steps = ended - out + particles.front
    x, y, z, last = _end_of(start, out)
    node, end = run_particles(
        problem.field, particles, corners, (x, y, z), last, n_steps, start.stream, turn
    )
    turn += n_steps
    if node < 0:
        return n, turn, stop
    n = follow(particles, node, out, start.n_before, problem.plan.max_points, start.half)
    if n < 0:
        return np.int64(0), turn, np.int64(MAX_LENGTH)
    return n, turn, end


@kernel
def follow(particles, node, out, n_before, max_points, half):
    """Write the nodes up to one after the first ``out`` points of a half.

    Parameters
    ----------
    particles : Particles
    node : int
        The last node that is written.
    out : int
    n_before, max_points : int
        Points that the streamline has before this half, and those that it may have.
    half : Half
        Written.

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


@inlined_kernel
def _write_in_mm(plan, x, y, z, out):
    """Write a point, in voxels, in RAS+ mm."""
    to_mm = doubles(plan.to_mm)
    for axis in range(3):
        row = 4 * axis
        out[axis] = x * to_mm[row] + y * to_mm[row + 1] + z * to_mm[row + 2] + to_mm[row + 3]


@kernel
def _write_points(plan, behind, n_behind, seed, ahead, n_ahead, out):
    """Write a streamline from the end of one half through its seed to that of the other.

    Parameters
    ----------
    plan : Plan
    behind, ahead : Half
    n_behind, n_ahead : int
        Points of either half.
    seed : tuple of float
        Voxels.
    out : ndarray of float32, shape (>= n_behind + 1 + n_ahead, 3)
        Written, RAS+ mm.
    """
    one, two = np.uint64(1), np.uint64(2)
    points = doubles(behind.points)
    for p in range(n_behind):
        here = np.uint64(3 * (n_behind - 1 - p))
        _write_in_mm(plan, points[here], points[here + one], points[here + two], out[p])
    x, y, z = seed
    _write_in_mm(plan, x, y, z, out[n_behind])
    points = doubles(ahead.points)
    for p in range(n_ahead):
        here = np.uint64(3 * p)
        x, y, z = points[here], points[here + one], points[here + two]
        _write_in_mm(plan, x, y, z, out[n_behind + 1 + p])


@kernel
def _track_both(problem, particles, curves, room, seed, axis, index, direction):
    """Track both halves of a streamline.

    The second half sets out opposite to the first step of the first one, so that the two join
    without an angle; and it is not made if the first is too long already.

    Parameters
    ----------
    problem : Problem
    particles : Particles or None
    curves : Curves or None
    room : Room
        Written.
    seed : tuple of float
        Voxels.
    axis : int
        Axis to set out along.
    index, direction : int
        Of the seed in the whole list, and of the initial direction.

    Returns
    -------
    n_ahead, stop_ahead, n_behind, stop_behind : int
        Points of each half without the seed, and why it ended.
    """
    field, plan = problem.field, problem.plan
    corners, ahead, behind = room
    zero, one = np.int64(0), np.int64(1)
    stream = make_stream(plan.rng_seed, index, direction, zero)
    other = make_stream(plan.rng_seed, index, direction, one)
    n_behind, stop_behind = zero, np.int64(MAX_LENGTH)
    if curves is None:
        vertex = 2 * axis
        start = Start(seed, vertex, stream, one, ahead)
        n_ahead, stop_ahead = track_half(problem, particles, corners, start)
        if n_ahead > 0:
            vertex = longs(ahead.vertices)[0]
        if stop_ahead != MAX_LENGTH:
            start = Start(seed, vertex ^ 1, other, one + n_ahead, behind)
            n_behind, stop_behind = track_half(problem, particles, corners, start)
    else:
        axes, heading = doubles(field.axes), doubles(corners.heading)
        towards = axes[3 * axis], axes[3 * axis + 1], axes[3 * axis + 2]
        n_ahead, stop_ahead = track_curve(
            field, plan, curves, corners, seed, towards, stream, one, ahead
        )
        if stop_ahead != MAX_LENGTH:
            towards = -heading[0], -heading[1], -heading[2]
            n_behind, stop_behind = track_curve(
                field, plan, curves, corners, seed, towards, other, one + n_ahead, behind
            )
    return n_ahead, stop_ahead, n_behind, stop_behind


@kernel
def _why_rejected(plan, n_ahead, stop_ahead, n_behind, stop_behind):
    """Return the code of the first rejection that applies to a streamline, -1 if it is kept."""
    is_dead = truths(plan.is_dead)
    if stop_ahead == MAX_LENGTH or stop_behind == MAX_LENGTH:
        return TOO_LONG
    if is_dead[stop_ahead] or is_dead[stop_behind]:
        return DEAD_END
    return TOO_SHORT if n_ahead + 1 + n_behind < plan.min_points else -1


@kernel
def track_seeds(problem, particles, curves, room, positions, indices):
    """Track from every seed.

    Parameters
    ----------
    problem : Problem
    particles : Particles or None
        For pft.
    curves : Curves or None
        For eudx and ptt.
    room : Room
        Scratch memory: what is in it before changes nothing.
    positions : ndarray of float64, shape (S, 3)
        Voxels.
    indices : ndarray of int64, shape (S,)
        Of the seeds in the whole list.

    Returns
    -------
    Made
    """
    field, plan, criteria = problem
    corners, ahead, behind = room
    points = np.empty((_POINTS_PER_SEED * len(positions) + plan.max_points, 3), np.float32)
    capacity = plan.max_directions * len(positions)
    lengths, owner = np.empty(capacity, np.int64), np.empty(capacity, np.int64)
    stops = np.empty((capacity, 2), np.uint8)
    ends, rejected = np.zeros(_N_STOPS, np.int64), np.zeros(_N_REJECTIONS, np.int64)
    without_direction, generated, n_points, n_kept = 0, 0, np.int64(0), 0
    peaks = np.empty(plan.max_directions, np.int64)
    for s in range(len(positions)):
        seed = positions[s, 0], positions[s, 1], positions[s, 2]
        n_peaks = 0
        if is_inside(field, seed[0], seed[1], seed[2]):
            gather_corners(field, seed[0], seed[1], seed[2], corners)
            n_peaks = find_first_axes(field, criteria, corners, plan.max_directions)
        # Tracking overwrites those in the room.
        for direction in range(n_peaks):
            peaks[direction] = longs(corners.peaks)[direction]
        if n_peaks == 0:
            without_direction += 1
        for direction in range(n_peaks):
            generated += 1
            n_ahead, stop_ahead, n_behind, stop_behind = _track_both(
                problem, particles, curves, room, seed, peaks[direction], indices[s], direction
            )
            reason = _why_rejected(plan, n_ahead, stop_ahead, n_behind, stop_behind)
            if reason == TOO_LONG:
                # The other half is not known to its end; both count as too long.
                ends[MAX_LENGTH] += 2
            else:
                ends[stop_ahead] += 1
                ends[stop_behind] += 1
            if reason >= 0:
                rejected[reason] += 1
                continue
            n = n_ahead + 1 + n_behind
            if n_points + n > len(points):
                points = enlarge(points, n_points, 2 * len(points) + n)
            _write_points(plan, behind, n_behind, seed, ahead, n_ahead, points[n_points:])
            n_points += n
            lengths[n_kept], owner[n_kept] = n, s
            stops[n_kept, 0], stops[n_kept, 1] = stop_behind, stop_ahead
            n_kept += 1
    return Made(
        points[:n_points],
        lengths[:n_kept],
        owner[:n_kept],
        stops[:n_kept],
        Tally(ends, rejected, without_direction, generated),
    )

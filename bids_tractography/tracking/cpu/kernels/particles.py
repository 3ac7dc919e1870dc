"""Compiled particle filter: a way on from where a streamline came to a bad end (Girard 2014)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bids_tractography.machine.compiled import kernel
from bids_tractography.tracking.cpu.kernels.field import (
    FLUID,
    GO_ON,
    IMAGE_BORDER,
    NO_DIRECTION,
    ROUNDING,
    Corners,
    ask_rule,
    is_inside,
    look,
)
from bids_tractography.tracking.cpu.kernels.memory import doubles, longs
from bids_tractography.tracking.cpu.kernels.random import (
    DRAWS,
    PARTICLE,
    fill_words,
    random_words,
    uniform,
)
from bids_tractography.tracking.cpu.kernels.vertices import draw_vertex

_UNEVEN = 0.1  # share of particles that must count at least, lest they be drawn anew


class Particles(NamedTuple):
    """Particles of one attempt, and room for them; arrays are addresses.

    What a particle has passed is a chain of nodes, each of which knows the one before, so that
    particles drawn anew share their past. Node 0 is where all set out.

    Parameters
    ----------
    number : int
    back, front : int
        Steps from the end of the streamline to where particles set out, and beyond it.
    trials : int
        Attempts for each half of a streamline.
    point : float64, shape (1 + most steps * number, 3)
    vertex, before : int64, shape (1 + most steps * number,)
        Of each node: the step that led to it, and the node before.
    node, stop : int64, shape (2, number)
        Of each particle: its last node, and why it went no further. The second half of these
        is for drawing anew.
    weight : float64, shape (number,)
    start : int64, shape (2, number, 8)
    share : float32, shape (2, number, 16)
        Corners of each particle, before and after a step.
    corner : int64, shape (2, number)
        Which of the corners before the step are a particle's.
    """

    number: int
    back: int
    front: int
    trials: int
    point: int
    vertex: int
    before: int
    node: int
    stop: int
    weight: int
    start: int
    share: int
    corner: int


@kernel
def _corners_of(particles, corners, side, particle):
    place = side * particles.number + particle
    return Corners(
        particles.start + 64 * place,
        particles.share + 64 * place,
        corners.values,
        corners.sums,
        corners.words,
        corners.peaks,
    )


@kernel
def _move(field, particles, corners, stream, turn, p, side, new):
    """Move one particle by a step, to a new node unless it ends."""
    point, vertices, before = (
        doubles(particles.point), longs(particles.vertex), longs(particles.before)
    )  # fmt: skip
    node, stop, corner = longs(particles.node), longs(particles.stop), longs(particles.corner)
    weight = doubles(particles.weight)
    here = node[p]
    vertex = draw_vertex(
        field, _corners_of(particles, corners, side, corner[p]),
        vertices[here], stream, turn, p + 1, p % DRAWS,
    )  # fmt: skip
    if vertex < 0:
        stop[p], weight[p] = NO_DIRECTION, 0.0
        return
    steps = doubles(field.steps)
    x = point[3 * here] + steps[3 * vertex]
    y = point[3 * here + 1] + steps[3 * vertex + 1]
    z = point[3 * here + 2] + steps[3 * vertex + 2]
    if not is_inside(field, x, y, z):
        stop[p] = IMAGE_BORDER
        return
    there = 1 - side
    include, exclude = look(field, x, y, z, _corners_of(particles, corners, there, p))
    weight[p] *= 1.0 - exclude if exclude < 1.0 - ROUNDING else 0.0
    verdict = ask_rule(field, include, exclude, stream, turn, p + 1)
    if verdict == FLUID and weight[p] > 0:
        verdict = GO_ON  # its weight tells already how bad that was
    if verdict != GO_ON:
        stop[p] = verdict
        return
    point[3 * new], point[3 * new + 1], point[3 * new + 2] = x, y, z
    vertices[new], before[new] = vertex, here
    node[p], corner[p] = new, p


@kernel
def _choose(particles, stream, turn, particle, attempt):
    """Draw a particle by its weight; weights sum to 1."""
    weight = doubles(particles.weight)
    w0, w1, _, _ = random_words(stream, PARTICLE, turn, particle, attempt)
    left = uniform(w0, w1)
    chosen = 0
    for p in range(particles.number):
        if weight[p] > 0:
            chosen = p
            left -= weight[p]
            if left < 0:
                break
    return chosen


@kernel
def _draw_anew(particles, stream, turn):
    """Replace particles by copies of others, as many as their weights say."""
    node, stop, corner = longs(particles.node), longs(particles.stop), longs(particles.corner)
    weight = doubles(particles.weight)
    count = particles.number
    for p in range(count):
        source = _choose(particles, stream, turn, p, np.int64(1))
        node[count + p], stop[count + p] = node[source], stop[source]
        corner[count + p] = corner[source]
    for p in range(count):
        node[p], stop[p], corner[p] = node[count + p], stop[count + p], corner[count + p]
        weight[p] = 1.0 / count


@kernel
def run_particles(field, particles, corners, place, vertex, n_steps, stream, turn):
    """Run particles for some steps and choose one.

    Parameters
    ----------
    place : tuple of float
        Where they set out, in voxels.
    vertex : int
        Their first direction.
    n_steps : int
    turn : int
        That of the first step; each takes one.

    Returns
    -------
    node, stop : int
        Last node of the particle chosen, -1 if none came through, and why it went no further.
    """
    point, vertices = doubles(particles.point), longs(particles.vertex)
    node, stop, corner = longs(particles.node), longs(particles.stop), longs(particles.corner)
    weight = doubles(particles.weight)
    count = particles.number
    point[0], point[1], point[2] = place
    vertices[0] = vertex
    look(field, point[0], point[1], point[2], _corners_of(particles, corners, 0, 0))
    for p in range(count):
        node[p], stop[p], corner[p], weight[p] = 0, GO_ON, 0, 1.0 / count
    for step in range(n_steps):
        for p in range(count):
            if p % DRAWS == 0:
                fill_words(stream, turn + step, 0, p + 1, 1, corners.words)
            if stop[p] == GO_ON:
                new = 1 + step * count + p
                _move(field, particles, corners, stream, turn + step, p, step & 1, new)
        sum_, squares = 0.0, 0.0
        for p in range(count):
            sum_ += weight[p]
        if sum_ <= 0:
            return np.int64(-1), np.int64(NO_DIRECTION)
        for p in range(count):
            weight[p] /= sum_
            squares += weight[p] ** 2
        if _UNEVEN * count * squares > 1:
            _draw_anew(particles, stream, turn + step)
    chosen = _choose(particles, stream, turn, np.int64(0), np.int64(0))
    return node[chosen], stop[chosen]

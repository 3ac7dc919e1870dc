"""Particle filter: a way on from where a streamline came to a bad end (Girard 2014)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bids_tractography.machine.compiled import kernel
from bids_tractography.tracking.cpu.kernels.field import (
    CSF,
    GO_ON,
    IMAGE_BORDER,
    NO_DATA,
    NO_DIRECTION,
    ROUNDING,
    Corners,
    ask_rule,
    gather_corners,
    has_data,
    is_entry,
    is_inside,
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

# Particles are resampled when their effective number, 1 / sum of squared weights, falls below this
# share of them: resampling at every step would lose diversity for no gain.
_MIN_EFFECTIVE = 0.1


class Particles(NamedTuple):
    """Particles of one attempt, and memory for them; arrays are addresses.

    The path of a particle is a linked list of nodes, each of which knows the one before, so that
    resampling copies no paths. Node 0 is where all set out.

    Parameters
    ----------
    number : int
    back, front : int
        Steps from the end of the streamline to where particles set out, and beyond it.
    trials : int
        Attempts for each half of a streamline.
    point : float64, shape (1 + (back + front) * number, 3)
    vertex, before : int64, shape (1 + (back + front) * number,)
        Of each node: the step that led to it, and the node before.
    node, stop : int64, shape (2, number)
        Of each particle: its last node, and why it went no further. The second row is scratch
        memory for resampling.
    weight : float64, shape (number,)
    start : int64, shape (2, number, 8)
    share : float32, shape (2, number, 16)
        Corners of each particle; the two sides are those before and after a step, in turn.
    corner : int64, shape (2, number)
        Which of the corners before the step are those of a particle: after resampling, several
        share them.
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
    """Return the corners of a particle, with the scratch memory of others."""
    place = side * particles.number + particle
    return Corners(
        particles.start + 64 * place,
        particles.share + 64 * place,
        corners.values,
        corners.sums,
        corners.words,
        corners.peaks,
        corners.heading,
    )


@kernel
def _move(field, particles, corners, stream, turn, p, side, new):
    """Move one particle by a step.

    Parameters
    ----------
    field : Field
    particles : Particles
    corners : Corners
    stream : Stream
    turn : int
        What the random numbers are for, with the particle.
    p : int
        Which particle.
    side : int
        Where its corners are: 0 or 1. Those after the step go to the other one.
    new : int
        Node that is written unless the particle ends.
    """
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
    x, y, z = point[3 * here], point[3 * here + 1], point[3 * here + 2]
    if vertex < 0:
        if has_data(_corners_of(particles, corners, side, corner[p]), x, y, z):
            stop[p], weight[p] = NO_DIRECTION, 0.0
        else:
            stop[p] = NO_DATA
        return
    steps = doubles(field.steps)
    x += steps[3 * vertex]
    y += steps[3 * vertex + 1]
    z += steps[3 * vertex + 2]
    if not is_inside(field, x, y, z):
        stop[p] = IMAGE_BORDER
        return
    there = 1 - side
    around = _corners_of(particles, corners, there, p)
    include, exclude = gather_corners(field, x, y, z, around)
    fluid = np.float64(exclude)
    weight[p] *= 1.0 - fluid if fluid < 1.0 - ROUNDING else 0.0
    verdict = ask_rule(field, around, include, exclude, stream, turn, p + 1)
    if verdict == CSF and weight[p] > 0:
        verdict = GO_ON  # its weight has been reduced for that
    if verdict == NO_DIRECTION:
        weight[p] = 0.0
    stop[p] = verdict
    if verdict != GO_ON and not is_entry(field, verdict):
        return
    point[3 * new], point[3 * new + 1], point[3 * new + 2] = x, y, z
    vertices[new], before[new] = vertex, here
    node[p], corner[p] = new, p


@kernel
def _choose(particles, stream, turn, particle, attempt):
    """Draw a particle with a probability of its weight; weights sum to 1.

    Parameters
    ----------
    particles : Particles
    stream : Stream
    turn, particle, attempt : int
        What the random number is for.
    """
    weight = doubles(particles.weight)
    w0, w1, _, _ = random_words(stream, PARTICLE, turn, particle, attempt)
    left = uniform(w0, w1)
    # If rounding keeps the weights from adding up to 1, the last one with any weight is chosen.
    chosen = 0
    for p in range(particles.number):
        if weight[p] > 0:
            chosen = p
            left -= weight[p]
            if left < 0:
                break
    return chosen


@kernel
def _resample(particles, stream, turn):
    """Replace particles by copies of particles drawn by their weights."""
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
    field : Field
    particles : Particles
    corners : Corners
    place : tuple of float
        Where they set out, in voxels.
    vertex : int
        Vertex that led there: the middle of their first cone.
    n_steps : int
    stream : Stream
    turn : int
        Turn of the first step; each takes one.

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
    gather_corners(field, point[0], point[1], point[2], _corners_of(particles, corners, 0, 0))
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
            squares += weight[p] * weight[p]
        if _MIN_EFFECTIVE * count * squares > 1:
            _resample(particles, stream, turn + step)
    chosen = _choose(particles, stream, turn, np.int64(0), np.int64(0))
    return node[chosen], stop[chosen]

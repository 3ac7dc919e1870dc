"""Where streamlines that a GPU has tracked beyond their ends are cut."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bids_tractography.machine.compiled import inlined_kernel, kernel
from bids_tractography.tracking.cpu.kernels.field import (
    ANGLE,
    IMAGE_BORDER,
    MAX_LENGTH,
    NO_DIRECTION,
    STOPPING_RULE,
)


class Image(NamedTuple):
    """The image that streamlines run in, and its stopping rule.

    Parameters
    ----------
    scale, origin : ndarray, shape (3,)
        Nodes of the lattice to voxels: ``point * scale + origin``.
    shape : tuple of int
    values : ndarray, shape (X, Y, Z)
        Map of the stopping rule: go on where it is above the threshold.
    nearest : bool
        Whether the nearest voxel decides, or the map is interpolated.
    threshold : float
    """

    scale: NDArray[np.float64]
    origin: NDArray[np.float64]
    shape: tuple[int, int, int]
    values: NDArray[np.generic]
    nearest: bool
    threshold: float


class Cone(NamedTuple):
    """Which directions the walk could go on in.

    Parameters
    ----------
    vertices : ndarray of float32, shape (V, 3)
    cos_angle : float
        Cosine of the maximum angle. Above 1 if the walk is let through to beyond every end, so
        that nothing but the want of a direction stops it.
    pmf_threshold : float
    """

    vertices: NDArray[np.float32]
    cos_angle: float
    pmf_threshold: float


class Walk(NamedTuple):
    """What streamlines were made on, and how.

    Parameters
    ----------
    volume : ndarray of float32, shape (X', Y', Z', V)
        Amplitudes at the nodes of the lattice, none negative.
    shift : float
        Of the points relative to the nodes of the volume.
    cap : int
        Points of a half that may not have come to its end.
    cone : Cone
    """

    volume: NDArray[np.float32]
    shift: float
    cap: int
    cone: Cone


@kernel
def map_at(values, nearest, x, y, z):
    """Return a map at a point of the image.

    The operations are those of the CPU engine's interpolation, in float32, so that both engines
    stop at the same point of the same streamline.

    Parameters
    ----------
    values : ndarray, shape (X, Y, Z)
    nearest : bool
        Take the nearest voxel, and do not interpolate.
    x, y, z : float
        Voxels. Up to half a voxel beyond the outermost centres, where the outermost voxel holds.
    """
    if nearest:
        i, j, k = int(np.floor(x + 0.5)), int(np.floor(y + 0.5)), int(np.floor(z + 0.5))
        return np.float32(values[i, j, k])
    fx, fy, fz = np.floor(x), np.floor(y), np.floor(z)
    dx, dy, dz = np.float32(x - fx), np.float32(y - fy), np.float32(z - fz)
    one = np.float32(1)
    total = np.float32(0)
    for i in range(2):
        a = min(max(int(fx) + i, 0), values.shape[0] - 1)
        wx = dx if i else one - dx
        for j in range(2):
            b = min(max(int(fy) + j, 0), values.shape[1] - 1)
            wxy = wx * (dy if j else one - dy)
            for k in range(2):
                c = min(max(int(fz) + k, 0), values.shape[2] - 1)
                total += wxy * (dz if k else one - dz) * np.float32(values[a, b, c])
    return total


@inlined_kernel
def _corner(point, corner):
    """Return the interpolation weight of one of the eight corners around a point, and its place."""
    weight, place = 1.0, np.empty(3, np.int64)
    for axis in range(3):
        low = np.floor(point[axis])
        is_far = (corner >> axis) & 1
        part = point[axis] - low
        weight *= part if is_far else 1 - part
        place[axis] = int(low) + is_far
    return weight, place


@kernel
def any_direction(volume, point):
    """Return whether any amplitude is positive at a point.

    Parameters
    ----------
    volume : ndarray, shape (X, Y, Z, V)
        None negative; zero beyond its nodes.
    point : ndarray, shape (3,)
        Nodes.
    """
    for corner in range(8):
        weight, place = _corner(point, corner)
        inside = True
        for axis in range(3):
            inside = inside and 0 <= place[axis] < volume.shape[axis]
        if weight > 0 and inside and (volume[place[0], place[1], place[2]] > 0).any():
            return True
    return False


@kernel
def goes_on(volume, cone, point, heading):
    """Return whether the cone around a heading holds a direction at a point.

    Parameters
    ----------
    volume : ndarray, shape (X, Y, Z, V)
        The outermost nodes hold beyond them.
    cone : Cone
    point : ndarray, shape (3,)
        Nodes.
    heading : ndarray, shape (3,)
        Of any length.
    """
    values = np.zeros(volume.shape[3])
    for corner in range(8):
        weight, place = _corner(point, corner)
        for axis in range(3):
            place[axis] = min(max(place[axis], 0), volume.shape[axis] - 1)
        if weight > 0:
            row = volume[place[0], place[1], place[2]]
            for v in range(len(values)):
                values[v] += weight * row[v]
    smallest = cone.pmf_threshold * values.max()
    length = np.sqrt(heading[0] ** 2 + heading[1] ** 2 + heading[2] ** 2)
    for v in range(len(values)):
        if values[v] > 0 and values[v] >= smallest:
            cosine = 0.0
            for axis in range(3):
                cosine += cone.vertices[v, axis] * heading[axis]
            # A heading is a vertex but for the rounding of two float32 points, and so is the
            # border of its cone.
            if abs(cosine) >= (cone.cos_angle - 1e-6) * length:
                return True
    return False


@kernel
def _find_seed(points, first, stop, seed):
    """Return which of the points ``first`` to ``stop`` is a seed."""
    for p in range(first, stop):
        if points[p, 0] == seed[0] and points[p, 1] == seed[1] and points[p, 2] == seed[2]:
            return p
    raise ValueError("a streamline does not pass through its seed")


@kernel
def _why_not(image, point):
    """Return why a streamline may not go to a point, -1 if it may."""
    x = point[0] * image.scale[0] + image.origin[0]
    y = point[1] * image.scale[1] + image.origin[1]
    z = point[2] * image.scale[2] + image.origin[2]
    if not (
        -0.5 <= x < image.shape[0] - 0.5
        and -0.5 <= y < image.shape[1] - 0.5
        and -0.5 <= z < image.shape[2] - 0.5
    ):
        return IMAGE_BORDER
    return -1 if map_at(image.values, image.nearest, x, y, z) > image.threshold else STOPPING_RULE


@kernel
def _why_not_further(walk, points, p, before, n_points):
    """Return why a walk made no further point, although it might have.

    Parameters
    ----------
    walk : Walk
    points : ndarray of float32, shape (N, 3)
    p, before : int
        The last point of a half, and the one before; the same if the half has no other.
    n_points : int
        Of the half.
    """
    if n_points >= walk.cap:
        return MAX_LENGTH
    here = points[p] - walk.shift
    if not any_direction(walk.volume, here):
        return NO_DIRECTION
    # Where it had a direction left and did not take it, the map on its lattice stopped it.
    heading = points[p] - points[before]
    if walk.cone.cos_angle <= 1 and (p == before or goes_on(walk.volume, walk.cone, here, heading)):
        return STOPPING_RULE
    return ANGLE


@kernel
def cut(points, offsets, seeds, image, walk):
    """Cut both halves of streamlines before their first point where they may not be.

    Parameters
    ----------
    points : ndarray of float32, shape (N, 3)
        Nodes of the lattice.
    offsets : ndarray of int64, shape (T + 1,)
    seeds : ndarray of float32, shape (T, 3)
        Where each one set out: one of its points, to the bit.
    image : Image
    walk : Walk

    Returns
    -------
    first, stop : ndarray of int64, shape (T,)
        Points that are left of each one.
    ends : ndarray of uint8, shape (T, 2)
        Codes of the `Stop` of its first and last point.
    """
    n = len(offsets) - 1
    first, stop = np.empty(n, np.int64), np.empty(n, np.int64)
    ends = np.empty((n, 2), np.uint8)
    for t in range(n):
        seed = _find_seed(points, offsets[t], offsets[t + 1], seeds[t])
        for half in range(2):
            step, last = (1, offsets[t + 1] - 1) if half else (-1, offsets[t])
            p, reason = seed, -1
            while p != last:
                reason = _why_not(image, points[p + step])
                if reason >= 0:
                    break
                p += step
            if reason < 0:
                before = p if p == seed else p - step
                reason = _why_not_further(walk, points, p, before, abs(p - seed) + 1)
            ends[t, half] = reason
            if half:
                stop[t] = p + 1
            else:
                first[t] = p
    return first, stop, ends

"""Compiled parts of the CUDA adapter: where streamlines made beyond their ends are cut."""

from __future__ import annotations

import numpy as np

from bids_tractography.machine.compiled import kernel
from bids_tractography.tracking.cpu.kernels.field import (
    ANGLE,
    IMAGE_BORDER,
    MAX_LENGTH,
    NO_DIRECTION,
    STOPPING_RULE,
)


@kernel
def map_at(values, nearest, x, y, z):
    """Return a map (X, Y, Z) at a point of the image, in voxels.

    Interpolated linearly, the outermost voxels holding up to the border; or of the nearest voxel.
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


@kernel
def any_direction(volume, point):
    """Tell whether a volume of amplitudes (X, Y, Z, V), none negative, is positive at a point."""
    low = np.floor(point)
    for corner in range(8):
        weight, inside = 1.0, True
        index = np.zeros(3, np.int64)
        for axis in range(3):
            far = (corner >> axis) & 1
            part = point[axis] - low[axis]
            weight *= part if far else 1 - part
            index[axis] = int(low[axis]) + far
            inside = inside and 0 <= index[axis] < volume.shape[axis]
        if weight > 0 and inside and (volume[index[0], index[1], index[2]] > 0).any():
            return True
    return False


@kernel
def goes_on(volume, vertices, point, heading, cos_angle, pmf_threshold):
    """Tell whether the cone around a heading (3,), of any length, holds a direction."""
    values = np.zeros(volume.shape[3])
    low = np.floor(point)
    for corner in range(8):
        weight = 1.0
        index = np.zeros(3, np.int64)
        for axis in range(3):
            far = (corner >> axis) & 1
            part = point[axis] - low[axis]
            weight *= part if far else 1 - part
            index[axis] = min(max(int(low[axis]) + far, 0), volume.shape[axis] - 1)
        if weight > 0:
            row = volume[index[0], index[1], index[2]]
            for v in range(len(values)):
                values[v] += weight * row[v]
    least = pmf_threshold * values.max()
    length = np.sqrt(heading[0] ** 2 + heading[1] ** 2 + heading[2] ** 2)
    for v in range(len(values)):
        if values[v] > 0 and values[v] >= least:
            cosine = 0.0
            for axis in range(3):
                cosine += vertices[v, axis] * heading[axis]
            if abs(cosine) >= (cos_angle - 1e-6) * length:
                return True
    return False


@kernel
def cut(
    points,
    offsets,
    seeds,
    scale,
    origin,
    shape,
    values,
    nearest,
    threshold,
    volume,
    shift,
    cap,
    vertices,
    cos_angle,
    pmf_threshold,
):
    """Cut both halves of streamlines before their first point that is no place to go on.

    Parameters
    ----------
    points : ndarray of float32, shape (N, 3)
        Nodes of the lattice.
    offsets : ndarray of int64, shape (T + 1,)
    seeds : ndarray of float32, shape (T, 3)
        Where each one set out: one of its points, to the bit.
    scale, origin : ndarray, shape (3,)
        Nodes to voxels: ``point * scale + origin``.
    shape : tuple of int
        Of the image.
    values : ndarray, shape (X, Y, Z)
        Map of the stopping rule: go on where it is above the threshold.
    nearest : bool
        Whether the nearest voxel decides, or the map is interpolated.
    threshold : float
    volume : ndarray of float32, shape (X', Y', Z', V)
        Amplitudes at the nodes.
    shift : float
        Of the points beside the nodes of the volume.
    cap : int
        Points of a half that may not have come to its end.
    vertices : ndarray of float32, shape (V, 3)
    cos_angle, pmf_threshold : float
        Of the walk: where it had a direction left and did not go on, it was stopped. A cosine
        above 1 if the walk is let through to beyond every end.

    Returns
    -------
    first, stop : ndarray of int64, shape (T,)
        What is left of each one.
    ends : ndarray of uint8, shape (T, 2)
        Why.
    """
    n = len(offsets) - 1
    first, stop = np.empty(n, np.int64), np.empty(n, np.int64)
    ends = np.empty((n, 2), np.uint8)
    for t in range(n):
        seed = offsets[t]
        while (
            points[seed, 0] != seeds[t, 0]
            or points[seed, 1] != seeds[t, 1]
            or points[seed, 2] != seeds[t, 2]
        ):
            seed += 1
            if seed == offsets[t + 1]:
                raise ValueError("a streamline does not pass through its seed")
        for half in range(2):
            step, last = (1, offsets[t + 1] - 1) if half else (-1, offsets[t])
            p, reason = seed, -1
            while p != last:
                x = points[p + step, 0] * scale[0] + origin[0]
                y = points[p + step, 1] * scale[1] + origin[1]
                z = points[p + step, 2] * scale[2] + origin[2]
                if not (
                    -0.5 <= x < shape[0] - 0.5
                    and -0.5 <= y < shape[1] - 0.5
                    and -0.5 <= z < shape[2] - 0.5
                ):
                    reason = IMAGE_BORDER
                    break
                if not map_at(values, nearest, x, y, z) > threshold:
                    reason = STOPPING_RULE
                    break
                p += step
            if reason < 0:
                if abs(p - seed) + 1 >= cap:
                    reason = MAX_LENGTH
                elif any_direction(volume, points[p] - shift):
                    reason = ANGLE
                else:
                    reason = NO_DIRECTION
                straight = cos_angle <= 1
                if (straight and reason == ANGLE) and (
                    p == seed
                    or goes_on(
                        volume,
                        vertices,
                        points[p] - shift,
                        points[p] - points[p - step],
                        cos_angle,
                        pmf_threshold,
                    )
                ):
                    reason = STOPPING_RULE
            ends[t, half] = reason
            if half:
                stop[t] = p + 1
            else:
                first[t] = p
    return first, stop, ends

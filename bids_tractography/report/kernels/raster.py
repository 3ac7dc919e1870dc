"""Compiled drawing with a depth buffer: streamlines as lit tubes, and meshes of triangles.

A pixel of streamlines is one number, with its depth in the upper half and its colour in the
lower: the nearest is the maximum, in any order.
"""

from __future__ import annotations

import math

import numpy as np

from bids_tractography.machine.compiled import kernel

DEPTH_UNITS = 4096.0
"""Depth is counted in this share of a millimetre, from ``DEPTH_MM`` behind the centre."""
DEPTH_MM = 512.0


@kernel
def draw_streamlines(points, lengths, axis, scale, width, front, back):
    """Draw streamlines as seen along one axis, from both of its ends.

    Parameters
    ----------
    points : ndarray of float32, shape (n, 3)
        Relative to the centre of the picture, at most ``DEPTH_MM`` from it, RAS+.
    lengths : ndarray, shape (t,)
        Points of each streamline.
    axis : int
        0, 1, 2: seen along x, y, z.
    scale : float
        Pixels per unit of the points.
    width : int
        Pixels on either side of the middle of a line.
    front, back : ndarray of uint64, shape (size, size)
        As seen from the axis' positive and negative end, neither of them mirrored: written where
        the streamline is nearer than what is there.
    """
    size = front.shape[0]
    right = 1 if axis == 0 else 0
    up = 1 if axis == 2 else 2
    tangent, ahead = np.empty(3), np.empty(3)
    p = np.int64(0)
    for t in range(len(lengths)):
        first, last = p, p + np.int64(lengths[t]) - 1
        p = last + 1
        for i in range(first, last):
            _direction(points, max(i - 1, first), i + 1, tangent)
            _direction(points, i, min(i + 2, last), ahead)
            u, v, w = points[i, right], points[i, up], points[i, axis]
            du, dv, dw = points[i + 1, right] - u, points[i + 1, up] - v, points[i + 1, axis] - w
            along = math.sqrt(du * du + dv * dv)
            across_u, across_v = (-dv / along, du / along) if along > 1e-6 else (1.0, 0.0)
            n = np.int64(along * scale) + 1
            for k in range(n):
                share = k / n
                x0 = (u + share * du) * scale + 0.5 * size
                y0 = (v + share * dv) * scale + 0.5 * size
                colour, facing = _colour(tangent, ahead, share, axis)
                for j in range(-width, width + 1):
                    x = math.floor(x0 + across_u * j)
                    y = math.floor(y0 + across_v * j)
                    if not (0 <= x < size and 0 <= y < size):
                        continue
                    rim = abs(j) / (width + 1.0)
                    light = np.uint64(255 * (1 - 0.65 * rim * rim) * facing)
                    depth, behind = w + share * dw, 0.12 * rim
                    below = (light << np.uint64(24)) | colour
                    near = np.uint64(max(depth - behind + DEPTH_MM, 0.0) * DEPTH_UNITS)
                    far = np.uint64(max(-depth - behind + DEPTH_MM, 0.0) * DEPTH_UNITS)
                    row = size - 1 - y
                    front[row, x] = max(front[row, x], (near << np.uint64(32)) | below)
                    back[row, x] = max(back[row, x], (far << np.uint64(32)) | below)


@kernel
def _direction(points, before, after, direction):
    """Write the direction from one point to another, of length 1."""
    square = 0.0
    for c in range(3):
        direction[c] = points[after, c] - points[before, c]
        square += direction[c] * direction[c]
    for c in range(3):
        direction[c] /= math.sqrt(square) if square > 0 else 1.0


@kernel
def _colour(tangent, ahead, share, axis):
    """Return the colour of a direction between two, and how much of it faces the viewer."""
    x = abs(tangent[0] + share * (ahead[0] - tangent[0]))
    y = abs(tangent[1] + share * (ahead[1] - tangent[1]))
    z = abs(tangent[2] + share * (ahead[2] - tangent[2]))
    norm = max(math.sqrt(x * x + y * y + z * z), 1e-6)
    depth = (x if axis == 0 else y if axis == 1 else z) / norm
    colour = (
        (np.uint64(255 * x / norm) << np.uint64(16))
        | (np.uint64(255 * y / norm) << np.uint64(8))
        | np.uint64(255 * z / norm)
    )
    return colour, 0.62 + 0.38 * math.sqrt(max(1 - depth * depth, 0.0))


@kernel
def draw_triangles(corners, colours, triangles, image, depths):
    """Draw a mesh of triangles; of two surfaces the one with the larger depth is seen.

    Parameters
    ----------
    corners : ndarray, shape (n, 3)
        Column and row of the picture in pixels, and depth.
    colours : ndarray, shape (n, 3)
    triangles : ndarray of int, shape (m, 3)
        Their corners.
    image : ndarray of float32, shape (H, W, 3)
        Written.
    depths : ndarray of float32, shape (H, W)
        Written; of what is there already.
    """
    height, width = depths.shape
    for f in range(len(triangles)):
        a, b, c = triangles[f]
        xa, ya, xb, yb = corners[a, 0], corners[a, 1], corners[b, 0], corners[b, 1]
        xc, yc = corners[c, 0], corners[c, 1]
        area = (yb - yc) * (xa - xc) + (xc - xb) * (ya - yc)
        if abs(area) < 1e-9:
            continue
        left = max(0, math.floor(min(xa, xb, xc)))
        right = min(width - 1, math.ceil(max(xa, xb, xc)))
        top = max(0, math.floor(min(ya, yb, yc)))
        bottom = min(height - 1, math.ceil(max(ya, yb, yc)))
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                la = ((yb - yc) * (x - xc) + (xc - xb) * (y - yc)) / area
                lb = ((yc - ya) * (x - xc) + (xa - xc) * (y - yc)) / area
                lc = 1 - la - lb
                if la < -1e-6 or lb < -1e-6 or lc < -1e-6:
                    continue
                depth = la * corners[a, 2] + lb * corners[b, 2] + lc * corners[c, 2]
                if depth > depths[y, x]:
                    depths[y, x] = depth
                    for k in range(3):
                        image[y, x, k] = (
                            la * colours[a, k] + lb * colours[b, k] + lc * colours[c, k]
                        )


@kernel
def light_surface(corners, triangles, towards, ambient, light):
    """Light a closed surface by the mean normals of its corners.

    Parameters
    ----------
    corners : ndarray, shape (n, 3)
    triangles : ndarray of int, shape (m, 3)
        Counterclockwise as seen from outside.
    towards : ndarray, shape (3,)
        Direction of the light, of length 1.
    ambient : float
        Light on the side that lies in the shade.
    light : ndarray, shape (n,)
        Written, ``ambient`` to 1.
    """
    normals = np.zeros_like(corners)
    for f in range(len(triangles)):
        a, b, c = triangles[f]
        ux, uy, uz = corners[b] - corners[a]
        vx, vy, vz = corners[c] - corners[a]
        for corner in (a, b, c):
            normals[corner, 0] += uy * vz - uz * vy
            normals[corner, 1] += uz * vx - ux * vz
            normals[corner, 2] += ux * vy - uy * vx
    for i in range(len(corners)):
        n = normals[i]
        norm = math.sqrt(n[0] * n[0] + n[1] * n[1] + n[2] * n[2]) + 1e-9
        facing = (n[0] * towards[0] + n[1] * towards[1] + n[2] * towards[2]) / norm
        light[i] = ambient + (1 - ambient) * min(max(facing, 0.0), 1.0)

"""Compiled pass over streamlines: how much of them runs through each voxel, by direction."""

from __future__ import annotations

import math

import numpy as np

from bids_tractography.machine.compiled import kernel

UNITS_PER_EDGE = 256.0
"""Lengths are added up as whole numbers of this share of a voxel edge: the order of streamlines
changes no bit, and voxels do not saturate below 16 million edges."""


@kernel
def add_directions(points, lengths, origin, edge_mm, density):
    """Add the extent of streamlines along x, y and z to the voxels that they run through.

    Parameters
    ----------
    points : ndarray, shape (n, 3)
        RAS+ mm.
    lengths : ndarray, shape (t,)
        Points of each streamline.
    origin : ndarray, shape (3,)
        Corner of the first voxel, mm.
    edge_mm : float
        Edge of the voxels.
    density : ndarray of uint32, shape (X, Y, Z, 3)
        Added to, in units of ``edge_mm / UNITS_PER_EDGE``.
    """
    nx, ny, nz = density.shape[:3]
    p = np.int64(0)
    for t in range(len(lengths)):
        for i in range(p, p + np.int64(lengths[t]) - 1):
            dx = (np.float64(points[i + 1, 0]) - points[i, 0]) / edge_mm
            dy = (np.float64(points[i + 1, 1]) - points[i, 1]) / edge_mm
            dz = (np.float64(points[i + 1, 2]) - points[i, 2]) / edge_mm
            x = (np.float64(points[i, 0]) - origin[0]) / edge_mm
            y = (np.float64(points[i, 1]) - origin[1]) / edge_mm
            z = (np.float64(points[i, 2]) - origin[2]) / edge_mm
            length = math.sqrt(dx * dx + dy * dy + dz * dz)
            if not length < 1e6:  # nor finite
                continue
            # Each piece is shorter than a voxel.
            n = np.int64(length) + 1
            for k in range(n):
                share = (k + 0.5) / n
                a = math.floor(x + share * dx)
                b = math.floor(y + share * dy)
                c = math.floor(z + share * dz)
                if 0 <= a < nx and 0 <= b < ny and 0 <= c < nz:
                    density[a, b, c, 0] += np.uint32(abs(dx) / n * UNITS_PER_EDGE + 0.5)
                    density[a, b, c, 1] += np.uint32(abs(dy) / n * UNITS_PER_EDGE + 0.5)
                    density[a, b, c, 2] += np.uint32(abs(dz) / n * UNITS_PER_EDGE + 0.5)
        p += np.int64(lengths[t])

"""Compiled pass over the points of a tractogram."""

from __future__ import annotations

import numpy as np

from bids_tractography.machine.compiled import kernel


@kernel
def count_visits(points, lengths, first, to_voxels, shape, last, visits):
    """Count the streamlines through each voxel, each once.

    Parameters
    ----------
    points : ndarray, shape (n, 3)
        RAS+ mm.
    lengths : ndarray, shape (t,)
        Points of each streamline.
    first : int
        Number of the first streamline, 0 or more; no two have the same.
    to_voxels : ndarray, shape (4, 4)
    shape : tuple of int
    last : ndarray of int64, shape (X * Y * Z,)
        Written: the number of the streamline that was in each voxel last, -1 before.
    visits : ndarray of int32, shape (X * Y * Z,)
        Added to.
    """
    m = to_voxels
    nx, ny, nz = shape
    p = 0
    for t in range(len(lengths)):
        before = -1
        for _ in range(lengths[t]):
            x, y, z = np.float64(points[p, 0]), np.float64(points[p, 1]), np.float64(points[p, 2])
            i = np.rint(x * m[0, 0] + y * m[0, 1] + z * m[0, 2] + m[0, 3])
            j = np.rint(x * m[1, 0] + y * m[1, 1] + z * m[1, 2] + m[1, 3])
            k = np.rint(x * m[2, 0] + y * m[2, 1] + z * m[2, 2] + m[2, 3])
            p += 1
            if 0 <= i < nx and 0 <= j < ny and 0 <= k < nz:
                voxel = (np.int64(i) * ny + np.int64(j)) * nz + np.int64(k)
                # Most points are in the voxel of the one before.
                if voxel != before and last[voxel] != first + t:
                    last[voxel] = first + t
                    visits[voxel] += 1
                before = voxel

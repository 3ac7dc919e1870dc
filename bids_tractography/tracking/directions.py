"""fODF amplitudes at points, and the directions in which streamlines start."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Peaks below this share of the largest, or nearer than this to a larger one, start no
# streamline; the values are DIPY's defaults, but the share is of the amplitude itself.
RELATIVE_PEAK = 0.5
SEPARATION_DEG = 25.0


def interpolate(
    volume: NDArray[np.floating], voxels: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Interpolate linearly between voxel centres.

    Parameters
    ----------
    volume : ndarray, shape (X, Y, Z, C)
    voxels : ndarray, shape (n, 3)
        Voxel coordinates.

    Returns
    -------
    values : ndarray, shape (n, C)
        Between the outermost centres and the image border the outermost voxel holds.
    inside : ndarray of bool, shape (n,)
        Whether the point lies in the image; values elsewhere are zero.
    """
    shape = np.array(volume.shape[:3])
    inside = ((voxels >= -0.5) & (voxels < shape - 0.5)).all(axis=1)
    low = np.floor(voxels).astype(np.int64)
    fraction = voxels - low
    values = np.zeros((len(voxels), volume.shape[3]))
    for corner in np.ndindex(2, 2, 2):
        weight = np.where(corner, fraction, 1 - fraction).prod(axis=1) * inside
        index = np.clip(low + corner, 0, shape - 1)
        values += volume[tuple(index.T)] * weight[:, None]
    return values, np.asarray(inside)


def amplitudes(
    coefficients: NDArray[np.float64], basis: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Evaluate spherical harmonics: (n, C) and (V, C) give (n, V)."""
    # Not a matrix product: BLAS rounds a row differently with the number of rows and its place
    # among them, and a seed must not depend on its batch.
    return np.asarray(np.einsum("nc,vc->nv", coefficients, basis))


def initial_directions(
    values: NDArray[np.float64],
    vertices: NDArray[np.float64],
    neighbours: NDArray[np.intp],
    max_directions: int,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Find the largest peaks of functions on a half sphere.

    Parameters
    ----------
    values : ndarray, shape (n, V)
    vertices : ndarray, shape (V, 3)
        One of each antipodal pair.
    neighbours : ndarray of int, shape (V, k)
        Vertices next to each one, itself where there are fewer than k.
    max_directions : int

    Returns
    -------
    row, vertex : ndarray of int, shape (m,)
        Sorted by row, the largest peak first. Rows without a positive value have none.
    """
    left = values.copy()
    left[values < RELATIVE_PEAK * values.max(axis=1, keepdims=True)] = -np.inf
    for column in neighbours.T:
        left[values < values[:, column]] = -np.inf
    near = np.abs(vertices @ vertices.T) > np.cos(np.deg2rad(SEPARATION_DEG))
    rows, peaks = [], []
    for _ in range(max_directions):
        best = left.argmax(axis=1)
        found = np.flatnonzero(left[np.arange(len(left)), best] > 0)
        if found.size == 0:
            break
        rows.append(found)
        peaks.append(best[found])
        left[near[best]] = -np.inf
    if not rows:
        return np.empty(0, np.intp), np.empty(0, np.intp)
    row, vertex = np.concatenate(rows), np.concatenate(peaks)
    order = np.argsort(row, kind="stable")
    return row[order], vertex[order]


def neighbour_table(edges: NDArray[np.integer], n_vertices: int) -> NDArray[np.intp]:
    """Turn the edges (E, 2) of a sphere into a table (V, k) of neighbours."""
    near: list[list[int]] = [[] for _ in range(n_vertices)]
    for one, other in np.asarray(edges, int):
        near[one].append(other)
        near[other].append(one)
    most = max(len(row) for row in near)
    table = [row + [vertex] * (most - len(row)) for vertex, row in enumerate(near)]
    return np.array(table, np.intp)

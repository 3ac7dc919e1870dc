"""The axes along which the CPU engine stores amplitudes, in blocks of neighbours, and cones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from dipy.data import default_sphere
from numpy.typing import NDArray

from bids_tractography.tracking.cpu.kernels.blocks import BLOCK, MAX_BLOCKS

N_AXES = len(default_sphere.vertices)
_ABOUT_DEG = 25  # of the angles tried, leads to the fewest blocks in a cone of 30 degrees
_NEAREST = 128  # cells along an edge of the cube on which nearest axes are tabulated


@dataclass(frozen=True, eq=False)
class Sphere:
    """Axes of a sphere in blocks of neighbours.

    Parameters
    ----------
    axes : ndarray, shape (V, 3)
        Unit vectors, one of each antipodal pair.
    edges : ndarray of int, shape (E, 2)
        Pairs of neighbours.
    cosine : ndarray, shape (V, V)
        Cosines of the angles between axes.
    """

    axes: NDArray[np.float64]
    edges: NDArray[np.intp]
    cosine: NDArray[np.float64]


def order_sphere() -> Sphere:
    """Order DIPY's sphere so that a cone has its axes in few blocks.

    Greedily: each block is the axis that has the fewest unassigned axes around it, with the
    nearest of these. Starting at the sparsest place leaves no axes behind that are far apart.
    """
    axes = np.asarray(default_sphere.vertices)
    cosine = np.einsum("ai,bi->ab", axes, axes)
    # The sphere is symmetric, so that many cosines are equal but for rounding, which differs
    # between processors: rounded, ties are broken by the number of the axis everywhere.
    closeness = np.abs(cosine).round(9)
    near = closeness >= np.cos(np.deg2rad(_ABOUT_DEG))
    left, order = np.ones(len(axes), bool), np.empty(0, np.intp)
    while left.any():
        alone = np.where(left, (near & left).sum(axis=1), len(axes) + 1).argmin()
        block = np.where(left, -closeness[alone], 2).argsort(kind="stable")
        block = block[: min(BLOCK, left.sum())]
        order, left[block] = np.append(order, block), False
    return Sphere(
        axes=np.ascontiguousarray(axes[order]),
        edges=order.argsort()[default_sphere.edges],
        cosine=cosine[np.ix_(order, order)],
    )


def cones(sphere: Sphere, min_cosine: float) -> tuple[NDArray[np.int32], NDArray[np.uint16]]:
    """List for each axis the vertices (2 x axis + sign) within an angle of it."""
    from_axis, to_axis = np.nonzero(np.abs(sphere.cosine) >= min_cosine)
    start = np.searchsorted(from_axis, np.arange(len(sphere.axes) + 1))
    vertices = 2 * to_axis + (sphere.cosine[from_axis, to_axis] < 0)
    return start.astype(np.int32), vertices.astype(np.uint16)


def members_of_cones(sphere: Sphere, min_cosine: float) -> NDArray[np.uint16]:
    """Return which axes of each block are in cones, and which are turned away; see `Field`."""
    n_axes = len(sphere.axes)
    near = np.abs(sphere.cosine) >= min_cosine
    one = np.vstack([near, np.ones(n_axes, bool), sphere.cosine < 0])
    one = np.pad(one, ((0, 0), (0, MAX_BLOCKS * BLOCK - n_axes)))
    bits = np.packbits(one, axis=1, bitorder="little")
    return bits.view("<u2").astype(np.uint16)


def nearest_axes(axes: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Tabulate the nearest axis over half a cube, shape (3, n, n); see `curves`."""
    ratio = (np.arange(_NEAREST) + 0.5) / _NEAREST * 2 - 1
    one, u, v = np.broadcast_arrays(1.0, ratio[:, None], ratio[None, :])
    table = np.empty((3, _NEAREST, _NEAREST), np.uint16)
    for side, towards in enumerate(((one, u, v), (v, one, u), (u, v, one))):
        cosine = np.einsum("ai,ijk->jka", axes, np.stack(towards))
        table[side] = np.abs(cosine).argmax(axis=-1)
    return table

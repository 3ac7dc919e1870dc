"""The axes along which our engine holds amplitudes: in blocks of neighbours, and their cones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from dipy.data import default_sphere
from numpy.typing import NDArray

from bids_tractography.tracking.cpu.kernels.vectors import BLOCK, MOST_BLOCKS

N_AXES = len(default_sphere.vertices)
_ABOUT_DEG = 25  # about an axis: makes for the fewest blocks in a cone of 30 degrees
_NEAREST = 128  # cells along the side of a cube over which the nearest axis is tabulated


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
        Of the angles between axes.
    """

    axes: NDArray[np.float64]
    edges: NDArray[np.intp]
    cosine: NDArray[np.float64]


def order_sphere() -> Sphere:
    """Put DIPY's sphere into an order in which a cone has axes in few blocks.

    A block is the axis that has the fewest axes left about it, and the nearest of these.
    """
    axes = np.asarray(default_sphere.vertices)
    cosine = np.einsum("ai,bi->ab", axes, axes)
    # Rounded, because the sphere is symmetric: ties are to be the same everywhere.
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


def cones(sphere: Sphere, least_cosine: float) -> tuple[NDArray[np.int32], NDArray[np.uint16]]:
    """List for each axis the vertices (2 x axis + sign) within an angle of it."""
    from_axis, to_axis = np.nonzero(np.abs(sphere.cosine) >= least_cosine)
    start = np.searchsorted(from_axis, np.arange(len(sphere.axes) + 1))
    vertices = 2 * to_axis + (sphere.cosine[from_axis, to_axis] < 0)
    return start.astype(np.int32), vertices.astype(np.uint16)


def members_of_cones(sphere: Sphere, least_cosine: float) -> NDArray[np.uint16]:
    """Tell which axes of each block are in cones, and which turned; see `kernels.Field`."""
    n_axes = len(sphere.axes)
    near = np.abs(sphere.cosine) >= least_cosine
    one = np.vstack([near, np.ones(n_axes, bool), sphere.cosine < 0])
    one = np.pad(one, ((0, 0), (0, MOST_BLOCKS * BLOCK - n_axes)))
    bits = np.packbits(one, axis=1, bitorder="little")
    return bits.view("<u2").astype(np.uint16)


def nearest_axes(axes: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Tabulate the nearest axis over half a cube, shape (3, n, n); see `kernels_curves`."""
    ratio = (np.arange(_NEAREST) + 0.5) / _NEAREST * 2 - 1
    one, u, v = np.broadcast_arrays(1.0, ratio[:, None], ratio[None, :])
    table = np.empty((3, _NEAREST, _NEAREST), np.uint16)
    for side, towards in enumerate(((one, u, v), (v, one, u), (u, v, one))):
        cosine = np.einsum("ai,ijk->jka", axes, np.stack(towards))
        table[side] = np.abs(cosine).argmax(axis=-1)
    return table

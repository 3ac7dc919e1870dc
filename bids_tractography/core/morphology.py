"""Depth in masks and closing of masks, with distances in mm."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_tractography.core.images import Grid


def depth_mm(mask: NDArray[np.bool_], grid: Grid) -> NDArray[np.float64]:
    """Return the distance of each voxel of a mask to the nearest voxel outside it.

    What lies beyond the image counts as outside: a mask that the image border cuts has its edge
    there.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        Mask.
    grid : Grid
        Grid of the mask.

    Returns
    -------
    ndarray, shape (X, Y, Z)
        Distance between voxel centres in mm; 0 outside the mask.
    """
    depth = ndimage.distance_transform_edt(np.pad(mask, 1), grid.voxel_size_mm)
    return np.asarray(depth[1:-1, 1:-1, 1:-1])


def close_mask(mask: NDArray[np.bool_], radius_mm: float, grid: Grid) -> NDArray[np.bool_]:
    """Close gaps narrower than twice a radius, with a spherical structuring element.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        Mask.
    radius_mm : float
        Radius of the structuring element.
    grid : Grid
        Grid of the mask.

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)
        The mask and what was closed.
    """
    width = [int(np.ceil(radius_mm / size)) + 1 for size in grid.voxel_size_mm]
    padded = np.pad(mask, [(w, w) for w in width])
    grown = ndimage.distance_transform_edt(~padded, grid.voxel_size_mm) <= radius_mm
    closed = ndimage.distance_transform_edt(grown, grid.voxel_size_mm) > radius_mm
    inner = tuple(slice(w, -w) for w in width)
    return np.asarray(closed[inner] | mask)

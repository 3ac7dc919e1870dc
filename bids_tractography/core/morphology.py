"""Operations on masks, with distances in mm."""

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


def within_mm(mask: NDArray[np.bool_], distance_mm: float, grid: Grid) -> NDArray[np.bool_]:
    """Return the voxels within a distance of a mask; none if the mask is empty."""
    if not mask.any():
        return np.zeros_like(mask)
    return np.asarray(ndimage.distance_transform_edt(~mask, grid.voxel_size_mm) <= distance_mm)


def open_core(mask: NDArray[np.bool_], radius_mm: float, grid: Grid) -> NDArray[np.bool_]:
    """Erode a mask by a radius; unlike in `depth_mm`, the border of the image is not an edge."""
    padded = np.pad(mask, 1, mode="edge")
    depth = ndimage.distance_transform_edt(padded, grid.voxel_size_mm)[1:-1, 1:-1, 1:-1]
    return np.asarray(depth > radius_mm)


def largest_parts(mask: NDArray[np.bool_], min_share: float = 1.0) -> NDArray[np.bool_]:
    """Keep connected components with at least a share of the largest one's voxels."""
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray((sizes >= min_share * sizes.max())[labels] & mask)


def fill_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill holes, also those that the border of the image cuts: holes of a face of the image."""
    padded = np.pad(mask, 1)
    for axis in range(3):
        for end in (0, -1):
            face: list[slice | int] = [slice(1, -1)] * 3
            face[axis] = end
            padded[tuple(face)] = ndimage.binary_fill_holes(np.take(mask, end, axis))
    return np.asarray(ndimage.binary_fill_holes(padded)[1:-1, 1:-1, 1:-1], bool)


def local_mean(
    values: NDArray[np.float32], mask: NDArray[np.bool_], sigma_mm: float, grid: Grid
) -> NDArray[np.float32]:
    """Return the mean of the values in a mask around each voxel, with Gaussian weights.

    Parameters
    ----------
    values : ndarray, shape (X, Y, Z)
    mask : ndarray of bool, shape (X, Y, Z)
        Voxels that count.
    sigma_mm : float
        Standard deviation of the weights.
    grid : Grid
        Grid of the values.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        The mean; 0 far from the mask.
    """
    sigma = sigma_mm / grid.voxel_size_mm
    weight = ndimage.gaussian_filter(mask.astype(np.float32), sigma)
    total = ndimage.gaussian_filter(np.where(mask, values, np.float32(0)), sigma)
    return np.asarray(total / np.maximum(weight, np.float32(1e-4)), np.float32)

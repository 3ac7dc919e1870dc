"""Images on other grids."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_tractography.images import Grid, Image

# More samples along an edge of a voxel change an average by less than the data's noise.
_MOST_SAMPLES = 4


def resample(
    image: Image,
    grid: Grid,
    *,
    nearest: bool,
    to_image_mm: NDArray[np.float64] | None = None,
) -> NDArray[np.float32]:
    """Return an image's values on another grid.

    Linear values are averages over the voxel where the image is finer than the grid: single
    points of it would depend on where they happen to lie.

    Parameters
    ----------
    image : Image
    grid : Grid
    nearest : bool
        Take the nearest voxel's value, for labels; otherwise interpolate linearly.
    to_image_mm : ndarray, shape (4, 4), optional
        RAS+ mm of the grid to RAS+ mm of the image, where they are not the same.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        Zero outside the image. The image's own values where the grids are the same.
    """
    if to_image_mm is None and image.grid.matches(grid):
        return image.data
    moved = np.eye(4) if to_image_mm is None else to_image_mm
    to_voxels = np.linalg.inv(image.grid.affine) @ moved @ grid.affine
    samples = [1, 1, 1] if nearest else _samples(to_voxels)
    total = np.zeros(grid.shape)
    for offset in _offsets(samples):
        total += _values(image, grid.shape, to_voxels, offset, order=0 if nearest else 1)
    return (total / np.prod(samples)).astype(np.float32)


def _samples(to_voxels: NDArray[np.float64]) -> list[int]:
    """Count the image's voxels along each edge of the grid's."""
    extent = np.sqrt((to_voxels[:3, :3] ** 2).sum(axis=0))
    return [int(n) for n in np.clip(np.ceil(extent - 0.01), 1, _MOST_SAMPLES)]


def _offsets(samples: list[int]) -> Iterator[NDArray[np.float64]]:
    """Spread points evenly over a voxel."""
    for place in np.ndindex(*samples):
        yield (np.array(place) + 0.5) / samples - 0.5


def _values(
    image: Image,
    shape: tuple[int, int, int],
    to_voxels: NDArray[np.float64],
    offset: NDArray[np.float64],
    order: int,
) -> NDArray[np.float64]:
    """Interpolate at one place of every voxel; zero outside the image's voxels."""
    start = to_voxels[:3, :3] @ offset + to_voxels[:3, 3]
    values: NDArray[np.float64] = ndimage.affine_transform(
        image.data,
        to_voxels[:3, :3],
        start,
        output_shape=shape,
        output=np.float64,
        order=order,
        mode="nearest",
    )
    outside = np.zeros(shape, bool)
    axes = np.ogrid[tuple(slice(n) for n in shape)]
    for axis, size in enumerate(image.grid.shape):
        place = start[axis] + sum(to_voxels[axis, i] * axes[i] for i in range(3))
        outside |= (place < -0.5) | (place >= size - 0.5)
    values[outside] = 0
    return values

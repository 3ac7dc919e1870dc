"""Resampling of images onto other grids."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_tractography.core.images import Grid, Image, read_image

_MOST_SAMPLES_PER_AXIS = 4


def read_on_grid(
    path: Path, grid: Grid, brain: NDArray[np.bool_], *, nearest: bool
) -> NDArray[np.float32]:
    """Read an image and resample it onto a grid.

    Parameters
    ----------
    path : Path
        NIfTI image.
    grid : Grid
        Target grid.
    brain : ndarray of bool, shape of `grid`
        Voxels in which all values must be finite.
    nearest : bool
        Whether to take the nearest voxel, see `resample`.

    Raises
    ------
    DataError
        If the image is unusable, or a value in the brain is NaN or infinite.
    """
    return on_grid(read_image(path, ndim=3), path, grid, brain, nearest=nearest)


def on_grid(
    image: Image, path: Path, grid: Grid, brain: NDArray[np.bool_], *, nearest: bool
) -> NDArray[np.float32]:
    """Resample an image that has been read onto a grid, see `read_on_grid`.

    Parameters
    ----------
    image : Image
        The image.
    path : Path
        File of the image, for messages.
    grid : Grid
        Target grid.
    brain : ndarray of bool, shape of `grid`
        Voxels in which all values must be finite.
    nearest : bool
        Whether to take the nearest voxel, see `resample`.

    Raises
    ------
    DataError
        If a value in the brain is NaN or infinite.
    """
    if image.missing is not None:
        marks = Image(image.missing.astype(np.float32), image.grid)
        missing = resample(marks, grid, nearest=True) > 0
        Image(image.data, image.grid, missing).require_finite(brain, path)
    return resample(image, grid, nearest=nearest)


def resample(
    image: Image,
    grid: Grid,
    *,
    nearest: bool,
    to_world: NDArray[np.float64] | None = None,
) -> NDArray[np.float32]:
    """Resample an image onto a grid.

    Up to half a voxel beyond the outermost voxel centres, their values are extended; further out
    the result is 0.

    Parameters
    ----------
    image : Image
        Source, shape (X, Y, Z) or (X, Y, Z, V).
    grid : Grid
        Target.
    nearest : bool
        Whether to take the nearest voxel, as labels require. Otherwise values are interpolated
        linearly, and averaged over the voxel if voxels of `grid` are larger than those of `image`,
        because a single point would sample only a part of the voxel.
    to_world : ndarray, shape (4, 4), optional
        RAS+ mm of the image to RAS+ mm of `grid`; identity by default.

    Returns
    -------
    ndarray of float32, shape of `grid` (and V)
        The array of `image` itself if the grids match.
    """
    if to_world is None and image.grid.matches(grid):
        return image.data
    moved = image.grid.affine if to_world is None else to_world @ image.grid.affine
    to_voxels = np.linalg.inv(moved) @ grid.affine
    volumes = image.data.reshape(*image.grid.shape, -1)
    total = np.zeros((*grid.shape, volumes.shape[3]), np.float64)
    offsets = [np.zeros(3)] if nearest else _offsets(to_voxels)
    for offset in offsets:
        coordinates, inside = _coordinates(to_voxels, offset, grid.shape, image.grid.shape)
        if nearest:
            last = np.array(image.grid.shape)[:, None] - 1
            index = np.clip(np.floor(coordinates + 0.5).astype(np.intp), 0, last)
            total[inside] = volumes[tuple(index)]
            continue
        for volume in range(volumes.shape[3]):
            total[inside, volume] += ndimage.map_coordinates(
                volumes[..., volume], coordinates, np.float64, order=1, mode="nearest"
            )
    shape = (*grid.shape, *image.data.shape[3:])
    return np.asarray((total / len(offsets)).astype(np.float32).reshape(shape))


def _offsets(to_voxels: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return offsets of points spread evenly over a voxel, about as dense as the source voxels."""
    ratios = np.sqrt((to_voxels[:3, :3] ** 2).sum(axis=0))
    counts = np.clip(np.ceil(ratios - 1e-3), 1, _MOST_SAMPLES_PER_AXIS).astype(int)
    along = [(np.arange(count) + 0.5) / count - 0.5 for count in counts]
    return [np.array(point) for point in product(*along)]


def _coordinates(
    to_voxels: NDArray[np.float64],
    offset: NDArray[np.float64],
    shape: tuple[int, int, int],
    source_shape: tuple[int, int, int],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return source coordinates (3, N) of the target voxels inside the source, and their mask."""
    i, j, k = np.ogrid[tuple(slice(size) for size in shape)]
    i, j, k = i + offset[0], j + offset[1], k + offset[2]
    rows = [row[0] * i + row[1] * j + row[2] * k + row[3] for row in to_voxels[:3]]
    inside = np.ones(shape, bool)
    for row, size in zip(rows, source_shape, strict=True):
        # Rounding must not move a point on the border outside.
        inside &= (row >= -0.5 - 1e-6) & (row <= size - 0.5 + 1e-6)
    return np.stack([row[inside] for row in rows]), inside

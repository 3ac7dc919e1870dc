"""Values of an image on another grid."""

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
    """Read an image and take its values on another grid.

    Parameters
    ----------
    path : Path
    grid : Grid
    brain : ndarray of bool, shape of `grid`
        Voxels in which every value has to be finite.
    nearest : bool
        See `resample`.

    Raises
    ------
    DataError
        If the image is unusable, or a value in the brain is NaN or infinite.
    """
    return on_grid(read_image(path, ndim=3), path, grid, brain, nearest=nearest)


def on_grid(
    image: Image, path: Path, grid: Grid, brain: NDArray[np.bool_], *, nearest: bool
) -> NDArray[np.float32]:
    """Take the values of an image that was read on another grid, see `read_on_grid`."""
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
    """Take the values of an image on another grid.

    Half a voxel beyond the outermost centres the outermost values hold; beyond that all is 0.

    Parameters
    ----------
    image : Image
        Of shape (X, Y, Z) or (X, Y, Z, V).
    grid : Grid
    nearest : bool
        Take the nearest voxel, as labels need. Otherwise values are interpolated linearly, and
        averaged over the voxel where the voxels of `grid` are larger than those of the image:
        a single point would see only a part of what lies in it.
    to_world : ndarray, shape (4, 4), optional
        From the image's RAS+ mm to those of `grid`; the same if missing.

    Returns
    -------
    ndarray of float32, shape of `grid` (and V)
        The image's own array where the two grids match.
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
    """Spread points evenly inside a voxel, about as dense as the voxels of the source."""
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
    """Return source voxel coordinates (3, N) of the target voxels inside, and which they are."""
    i, j, k = np.ogrid[tuple(slice(size) for size in shape)]
    i, j, k = i + offset[0], j + offset[1], k + offset[2]
    rows = [row[0] * i + row[1] * j + row[2] * k + row[3] for row in to_voxels[:3]]
    inside = np.ones(shape, bool)
    for row, size in zip(rows, source_shape, strict=True):
        # rounding must not put a point on the border outside
        inside &= (row >= -0.5 - 1e-6) & (row <= size - 0.5 + 1e-6)
    return np.stack([row[inside] for row in rows]), inside

"""Pictures of maps: slices of three planes side by side, with outlines of masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures
from scipy import ndimage

_COLUMNS = 7
_CELL_PIXELS = 190
_FIRST, _LAST = 0.06, 0.94  # shares of the volume between which slices are taken
_MARGIN = 2
_OUTLINE_PIXELS = 3  # drawn at as many times the size


@dataclass(frozen=True, eq=False)
class Contour:
    """A mask that is outlined.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
    colour : tuple of float
        Red, green, blue, 0 to 1.
    """

    mask: NDArray[np.bool_]
    colour: tuple[float, float, float]


def plane(volume: NDArray[np.generic], axis: int, place: int) -> NDArray[np.generic]:
    """Cut a slice as it is shown: superior, or anterior in axial slices, is up.

    The patient's left is on the left; in sagittal slices anterior is.

    Parameters
    ----------
    volume : ndarray, shape (X, Y, Z, ...)
        RAS+ order.
    axis : int
    place : int
        Index along the axis.
    """
    rows = np.swapaxes(np.take(volume, place, axis=axis), 0, 1)[::-1]
    return np.asarray(rows[:, ::-1] if axis == 0 else rows)


def mosaic(
    volume: NDArray[np.generic],
    where: NDArray[np.bool_],
    voxel_mm: NDArray[np.floating],
    contours: Sequence[Contour] = (),
    *,
    nearest: bool = False,
) -> NDArray[np.float32]:
    """Show axial, coronal and sagittal slices, a row each.

    Parameters
    ----------
    volume : ndarray, shape (X, Y, Z) or (X, Y, Z, 3)
        0 to 1, or uint8.
    where : ndarray of bool, shape (X, Y, Z)
        What is to be seen: slices are spread over its volume.
    voxel_mm : ndarray, shape (3,)
    contours : sequence of Contour
    nearest : bool
        Show voxels as they are instead of interpolating.

    Returns
    -------
    ndarray of float32, shape (H, W, 3)
    """
    found = np.argwhere(where) if where.any() else np.argwhere(np.ones_like(where))
    low = np.maximum(found.min(axis=0) - _MARGIN, 0)
    high = np.minimum(found.max(axis=0) + 1 + _MARGIN, where.shape)
    inside = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    volume, where = volume[inside], where[inside]
    contours = [Contour(contour.mask[inside], contour.colour) for contour in contours]
    pixels_per_mm = _CELL_PIXELS / float((np.array(where.shape) * voxel_mm).max())
    rows = []
    for axis in (2, 1, 0):
        across, up = ((0, 1), (0, 2), (1, 2))[2 - axis]
        size = [max(2, round(where.shape[a] * voxel_mm[a] * pixels_per_mm)) for a in (up, across)]
        cells = []
        for place in _places(where, axis):
            cell = _resized(plane(volume, axis, place), size[0], size[1], nearest=nearest)
            cell = cell / np.float32(255) if volume.dtype == np.uint8 else cell
            cell = np.clip(cell if cell.ndim == 3 else np.repeat(cell[..., None], 3, axis=2), 0, 1)
            for contour in contours:
                edge = _outline(plane(contour.mask, axis, place), size[0], size[1])[..., None]
                cell = cell * (1 - edge) + np.array(contour.colour, np.float32) * edge
            cells.append(_centred(cell))
        rows.append(np.concatenate(cells, axis=1))
    return np.concatenate(rows, axis=0)


def _places(where: NDArray[np.bool_], axis: int) -> NDArray[np.intp]:
    """Spread slices over a volume: between each two is about as much of it."""
    others = tuple(a for a in range(3) if a != axis)
    profile = np.cumsum(where.sum(axis=others)) / max(where.sum(), 1)
    return np.minimum(
        np.searchsorted(profile, np.linspace(_FIRST, _LAST, _COLUMNS)), len(profile) - 1
    )


def _centred(cell: NDArray[np.float32]) -> NDArray[np.float32]:
    left = max(0, _CELL_PIXELS - cell.shape[1]) // 2
    right = max(0, _CELL_PIXELS - cell.shape[1]) - left
    return np.pad(cell, ((0, 0), (left, right), (0, 0)))


def _resized(
    image: NDArray[np.generic], height: int, width: int, *, nearest: bool = False
) -> NDArray[np.float32]:
    if image.ndim == 3:
        channels = (image[..., c] for c in range(image.shape[2]))
        return np.stack([_resized(c, height, width, nearest=nearest) for c in channels], axis=-1)
    how = Pictures.Resampling.NEAREST if nearest else Pictures.Resampling.BICUBIC
    picture = Pictures.fromarray(np.ascontiguousarray(image, np.float32))
    return np.asarray(picture.resize((width, height), how), np.float32)


def _outline(mask: NDArray[np.generic], height: int, width: int) -> NDArray[np.float32]:
    """Return how much of each pixel the outline of a mask covers."""
    n = _OUTLINE_PIXELS
    large = _resized(mask, n * height, n * width) > 0.5
    edge = large ^ ndimage.binary_erosion(large, iterations=n - 1)
    covered = edge.astype(np.float32).reshape(height, n, width, n).mean(axis=(1, 3))
    return np.asarray(0.95 * covered, np.float32)

"""The mask of the brain: read, or made from the DWI."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from dipy.segment.mask import median_otsu
from numpy.typing import NDArray
from scipy import ndimage

from bids_tractography.dwi import Dwi
from bids_tractography.errors import GridError
from bids_tractography.images import Grid, read_image
from bids_tractography.masks import Mask, not_empty

_MEDIAN_RADIUS_MM = 4.0
_CLOSING_RADIUS_MM = 10.0
_LEAST_COMPONENT = (
    0.05  # of the largest: phantoms, and brains cut by the field of view, have several
)


def brain_mask(dwi: Dwi, path: Path | None) -> Mask:
    """Read the brain mask, or make one from the b=0 volumes.

    Raises
    ------
    EmptyMaskError
        If no voxel is left.
    """
    if path is not None:
        data = _read_mask(path, dwi.grid)
        mask = Mask(data, f"Brain mask {path.name}.", {"method": "file"})
    else:
        mask = Mask(
            _otsu_mask(dwi),
            "Brain mask by median filter and Otsu's threshold (DIPY median_otsu) of the mean b=0 "
            "and of the mean diffusion-weighted image, united; small components dropped, gaps "
            "closed, holes filled.",
            {
                "method": "median_otsu",
                "median_radius_mm": _MEDIAN_RADIUS_MM,
                "closing_radius_mm": _CLOSING_RADIUS_MM,
                "least_component": _LEAST_COMPONENT,
            },
        )
    return not_empty(mask, "the brain mask")


def _otsu_mask(dwi: Dwi) -> NDArray[np.bool_]:
    """Mask the brain of a raw image.

    Coils at the head's surface leave its depth dark, so that a threshold of the b=0 image alone
    cuts out the middle of the brain; there the diffusion-weighted images are brightest.
    """
    radius_voxels = max(1, round(_MEDIAN_RADIUS_MM / float(dwi.grid.voxel_size_mm.mean())))
    mask = np.zeros(dwi.grid.shape, bool)
    for mean in (dwi.mean_b0, dwi.mean_weighted):
        mask |= median_otsu(mean, median_radius=radius_voxels, numpass=1)[1]
    labels, n_components = ndimage.label(mask)
    sizes = np.bincount(labels.ravel(), minlength=n_components + 1)
    sizes[0] = 0
    mask = (sizes >= _LEAST_COMPONENT * sizes.max())[labels] & mask
    closed = _close(mask, _CLOSING_RADIUS_MM, dwi.grid)
    return np.asarray(ndimage.binary_fill_holes(closed), bool)


def _close(mask: NDArray[np.bool_], radius_mm: float, grid: Grid) -> NDArray[np.bool_]:
    """Close gaps narrower than twice the radius, with a ball in mm."""
    width = [int(np.ceil(radius_mm / size)) + 1 for size in grid.voxel_size_mm]
    padded = np.pad(mask, [(w, w) for w in width])
    grown = ndimage.distance_transform_edt(~padded, grid.voxel_size_mm) <= radius_mm
    closed = ndimage.distance_transform_edt(grown, grid.voxel_size_mm) > radius_mm
    inner = tuple(slice(w, -w) for w in width)
    return np.asarray(closed[inner] | mask)


def _read_mask(path: Path, grid: Grid) -> NDArray[np.bool_]:
    """Read an image as a mask: voxels above zero, on the grid of the DWI.

    Raises
    ------
    GridError
        If it is on another grid.
    """
    image = read_image(path, ndim=3)
    if not image.grid.matches(grid):
        raise GridError(
            f"{path} is on another grid than the DWI: {image.grid.describe()}; the DWI has "
            f"{grid.describe()}.",
            "Resample the mask onto the DWI's grid (nearest neighbour).",
        )
    return np.asarray(image.data > 0)

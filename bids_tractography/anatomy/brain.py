"""Brain masks, read from a file or computed from the DWI."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from dipy.segment.mask import median_otsu
from numpy.typing import NDArray
from scipy import ndimage

from bids_tractography.anatomy.masks import Mask, not_empty, two_valued
from bids_tractography.core.dwi import Dwi
from bids_tractography.core.images import Grid, read_image
from bids_tractography.core.morphology import close_mask
from bids_tractography.errors import GridError

_GROWTH = 1.1  # exceeds the noise of two means
# Radii for the field of view of a human head; smaller fields of view have smaller radii.
_MEDIAN_RADIUS_MM = 4.0
_CLOSING_RADIUS_MM = 10.0
_HEAD_MM = 150.0
_MAX_MEDIAN_RADIUS_VOXELS = 6  # the time that the filter takes grows with its cube
# Relative to the largest component: phantoms, and brains cut by the field of view, have several.
_MIN_COMPONENT = 0.05


def brain_mask(dwi: Dwi, path: Path | None) -> Mask:
    """Read the brain mask, or compute one from the DWI.

    Parameters
    ----------
    dwi : Dwi
        The diffusion-weighted image.
    path : Path or None
        Brain mask on its grid; None to compute a mask by DIPY's ``median_otsu``.


    Raises
    ------
    EmptyMaskError
        If the mask is empty.
    """
    if path is not None:
        mask = _read_mask(path, dwi.grid)
    else:
        computed = _otsu_mask(dwi)
        missing = np.zeros_like(computed) if dwi.missing is None else computed & dwi.missing
        mask = Mask(
            computed & ~missing,
            "Brain mask by median filter and Otsu's threshold (DIPY median_otsu) of the mean b=0 "
            "and of the mean diffusion-weighted image, combined; small components removed, gaps "
            "closed, holes filled.",
            {
                "method": "median_otsu",
                "median_radius_mm": round(_scale(dwi.grid) * _MEDIAN_RADIUS_MM, 3),
                "closing_radius_mm": round(_scale(dwi.grid) * _CLOSING_RADIUS_MM, 3),
                "min_component": _MIN_COMPONENT,
            },
            warnings=_without_values(int(np.count_nonzero(missing))),
        )
    return not_empty(mask, "the brain mask")


def brain_figures(dwi: Dwi, brain: NDArray[np.bool_]) -> dict[str, float]:
    """Compute measurements of the signal in the brain, which are checked for plausibility.

    Parameters
    ----------
    dwi : Dwi
        The diffusion-weighted image.
    brain : ndarray of bool, shape (X, Y, Z)
        Brain mask.

    Returns
    -------
    dict of str to float
        Values by the name of the quantity, see `checks.QUANTITIES`.
    """
    values = dwi.data[brain]
    return {
        "volume_ratio": _volume_ratio(dwi, values),
        "brain_volume_ml": float(brain.sum() * dwi.grid.voxel_size_mm.prod() / 1000),
        "negative_share": float(np.mean(values < 0)),
        "zero_share": float(np.mean(values == 0)),
        "growing_share": float(np.mean(dwi.mean_weighted[brain] > _GROWTH * dwi.mean_b0[brain])),
    }


def _volume_ratio(dwi: Dwi, values: NDArray[np.float32]) -> float:
    """Return the largest ratio of a volume's median to the median of volumes of similar b-value.

    Parameters
    ----------
    dwi : Dwi
    values : ndarray, shape (N, V)
        Signal in the brain.

    Returns
    -------
    float
        Ratio of the larger median to the smaller, at least 1; infinite if only one is positive.
    """
    medians, bvals = np.median(values, axis=0).astype(np.float64), dwi.gradients.bvals
    largest = 1.0
    for median, b in zip(medians, bvals, strict=True):
        alike = medians[np.abs(bvals - b) <= max(dwi.gradients.b0_threshold_s_mm2, 0.1 * b)]
        typical = float(np.median(alike))
        if len(alike) > 2 and typical > 0:
            ratio = max(median / typical, typical / median) if median > 0 else np.inf
            largest = max(largest, float(ratio))
    return largest


def is_cut(brain: NDArray[np.bool_]) -> bool:
    """Return whether the brain reaches the border of the image, so that a part may be missing."""
    faces = [np.take(brain, end, axis) for axis in range(3) for end in (0, -1)]
    return any(face.any() for face in faces)


def _scale(grid: Grid) -> float:
    """Return the size of the field of view relative to that of a human head, at most 1."""
    largest_mm = float((np.array(grid.shape) * grid.voxel_size_mm).max())
    return min(1.0, largest_mm / _HEAD_MM)


def _otsu_mask(dwi: Dwi) -> NDArray[np.bool_]:
    """Compute a brain mask of an image that has not been skull-stripped.

    The coils' sensitivity leaves the centre of the head dark, so that a threshold of the b=0 image
    alone would remove the middle of the brain, where diffusion-weighted images are brightest.
    """
    scale = _scale(dwi.grid)
    radius_voxels = round(scale * _MEDIAN_RADIUS_MM / float(dwi.grid.voxel_size_mm.mean()))
    radius_voxels = min(max(1, radius_voxels), _MAX_MEDIAN_RADIUS_VOXELS)
    mask = np.zeros(dwi.grid.shape, bool)
    for mean in (dwi.mean_b0, dwi.mean_weighted):
        mask |= median_otsu(mean, median_radius=radius_voxels, numpass=1)[1]
    labels, n_components = ndimage.label(mask)
    sizes = np.bincount(labels.ravel(), minlength=n_components + 1)
    sizes[0] = 0
    mask = (sizes >= _MIN_COMPONENT * sizes.max())[labels] & mask
    closed = close_mask(mask, scale * _CLOSING_RADIUS_MM, dwi.grid)
    return np.asarray(ndimage.binary_fill_holes(closed), bool)


def _without_values(n_voxels: int) -> tuple[str, ...]:
    if not n_voxels:
        return ()
    return (f"{n_voxels} voxels are excluded from the brain: the DWI is NaN or infinite there.",)


def _read_mask(path: Path, grid: Grid) -> Mask:
    """Read a mask on the grid of the DWI: voxels above half the maximum of the image.

    Raises
    ------
    GridError
        If the image is on another grid.
    """
    image = read_image(path, ndim=3)
    check_grid(path, image.grid, grid)
    data, warnings = two_valued(image.data, path.name)
    return Mask(data, f"Brain mask {path.name}.", {"method": "file"}, warnings=warnings)


def check_grid(path: Path, found: Grid, grid: Grid) -> None:
    """Check that a brain mask is on the grid of the DWI.

    Parameters
    ----------
    path : Path
        File of the mask, for the message.
    found : Grid
        Grid of the mask.
    grid : Grid
        Grid of the DWI.

    Raises
    ------
    GridError
        If the mask is on another grid.
    """
    if not found.matches(grid):
        raise GridError(
            f"{path} is not on the grid of the DWI: it has {found.describe()}, but the DWI "
            f"has {grid.describe()}.",
            "Resample the mask to the grid of the DWI by nearest neighbour.",
        )

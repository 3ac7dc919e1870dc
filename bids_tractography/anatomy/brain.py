"""Brain masks, read from a file or computed from the DWI; voxels whose signal is noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from dipy.segment.threshold import otsu
from numpy.typing import NDArray
from scipy import ndimage

from bids_tractography.anatomy.masks import Mask, not_empty, two_valued
from bids_tractography.core.dwi import Dwi
from bids_tractography.core.images import Grid, read_image
from bids_tractography.core.morphology import (
    close_mask,
    fill_holes,
    largest_parts,
    local_mean,
    open_core,
    within_mm,
)
from bids_tractography.errors import GridError

_GROWTH = 1.1  # exceeds the noise of two means
# Lengths for a human head; those of smaller heads are smaller in proportion.
_NEIGHBOURHOOD_MM = 20.0
_OPENING_MM = 4.1
_REGROWTH_MM = 6.1
_CLOSING_MM = 10.0
_SMOOTHING_MM = 3.0
_HEAD_ML = 1500.0
# Relative to the mean of the neighbourhood, which includes scalp and skull at first.
_DARKEST_FIRST, _DARKEST = 0.4, 0.5
# Relative to the largest component: phantoms, and brains cut by the field of view, have several.
_MIN_COMPONENT = 0.1
_NOT_ATTENUATED, _MIN_AIR, _ABOVE_NOISE = 0.9, 0.01, 2.0
_AIR_PERCENTILE = 90  # scanners set some of the air to zero or nearly so


def brain_mask(dwi: Dwi, path: Path | None) -> Mask:
    """Read the brain mask, or compute one from the DWI.

    Parameters
    ----------
    dwi : Dwi
        The diffusion-weighted image.
    path : Path or None
        Brain mask on its grid; None to compute a mask from the DWI, see
        `find_brain_mask`.

    Raises
    ------
    EmptyMaskError
        If the mask is empty.
    """
    if path is not None:
        mask = _read_mask(path, dwi.grid)
    else:
        computed, scale = find_brain_mask(dwi)
        missing = np.zeros_like(computed) if dwi.missing is None else computed & dwi.missing
        mask = Mask(
            computed & ~missing,
            "Brain mask from the mean diffusion-weighted image: voxels brighter than half the mean "
            "of the brain around them, opened to separate scalp, eyes and neck; sulci that are "
            "bright in the mean b=0 image closed, holes filled, outline smoothed.",
            {
                "method": "local_threshold",
                "scale": round(scale, 3),
                "opening_radius_mm": round(scale * _OPENING_MM, 3),
                "closing_radius_mm": round(scale * _CLOSING_MM, 3),
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


def find_brain_mask(dwi: Dwi) -> tuple[NDArray[np.bool_], float]:
    """Find the brain in an image that has not been skull-stripped.

    The brain is what is bright in the mean diffusion-weighted image, where CSF and bone are dark
    and separate it from the scalp. Bright is relative to the surroundings: the coils' sensitivity
    leaves the centre of a head darker than the scalp, so that one threshold for the whole image
    (``median_otsu``, Garyfallidis 2014) cuts holes in the thalamus and keeps scalp. An opening
    removes what is connected by thin bridges only, such as scalp, eyes and optic nerves; regrowth
    and closing restore gyri and sulci (Shattuck 2001).

    Parameters
    ----------
    dwi : Dwi
        The diffusion-weighted image.

    Returns
    -------
    brain : ndarray of bool, shape (X, Y, Z)
        Brain mask.
    scale : float
        Factor of all lengths: diameter of the head relative to that of a human, at most 1.

    References
    ----------
    Garyfallidis E. et al., Dipy, a library for the analysis of diffusion MRI data. Front.
    Neuroinform. 8, 2014. Shattuck D. W. et al., Magnetic resonance image tissue classification
    using a partial volume model. NeuroImage 13, 2001 (Brain Surface Extractor).
    """
    grid = dwi.grid
    weighted, b0 = (ndimage.median_filter(mean, 3) for mean in (dwi.mean_weighted, dwi.mean_b0))
    head = _head(weighted)
    head_ml = float(head.sum() * grid.voxel_size_mm.prod() / 1000)
    scale = min(1.0, (head_ml / _HEAD_ML) ** (1 / 3))
    core = head
    for darkest in (_DARKEST_FIRST, _DARKEST):
        around = local_mean(weighted, core, scale * _NEIGHBOURHOOD_MM, grid)
        tissue = head & (weighted > darkest * around)
        core = largest_parts(open_core(tissue, scale * _OPENING_MM, grid), _MIN_COMPONENT)
    grown = within_mm(core, scale * _REGROWTH_MM, grid) & tissue
    # CSF is dark in the weighted image, air and bone in both.
    wet = b0 > _DARKEST * local_mean(b0, core, scale * _NEIGHBOURHOOD_MM, grid)
    closed = grown | (close_mask(grown, scale * _CLOSING_MM, grid) & wet)
    sigma = scale * _SMOOTHING_MM / grid.voxel_size_mm
    filled = fill_holes(closed).astype(np.float32)
    smooth = ndimage.gaussian_filter(filled, sigma, mode="nearest") > 0.5
    return largest_parts(smooth, _MIN_COMPONENT), scale


def _head(weighted: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return the voxels above the air, by Otsu's threshold of the logarithm."""
    positive = weighted[weighted > 0]
    if not positive.size:
        return np.zeros(weighted.shape, bool)
    unit = float(np.median(positive)) / 100
    return np.asarray(weighted > unit * np.expm1(otsu(np.log1p(positive / unit))))


def above_noise(dwi: Dwi) -> NDArray[np.bool_]:
    """Return the voxels where the b=0 signal is above the noise, so that a fit has a meaning.

    The level of the noise is measured in the air, which is dark and, unlike tissue, no darker in
    the diffusion-weighted images. In an image without air it is unknown, and no voxel is excluded.

    Parameters
    ----------
    dwi : Dwi
        The diffusion-weighted image.

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)
    """
    weighted, b0 = (ndimage.median_filter(mean, 3) for mean in (dwi.mean_weighted, dwi.mean_b0))
    positive = weighted > 0
    air = positive & ~_head(weighted) & (weighted > _NOT_ATTENUATED * b0)
    if np.count_nonzero(air) <= _MIN_AIR * np.count_nonzero(positive):
        return np.ones(b0.shape, bool)
    level = _ABOVE_NOISE * np.percentile(weighted[air], _AIR_PERCENTILE)
    # The neighbourhood, because noise is high in some voxels; the voxel, at the surface of a head.
    return np.asarray(np.minimum(b0, dwi.mean_b0) > level)


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

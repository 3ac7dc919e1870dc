"""Tissue fractions of a T1-weighted image: brain extraction, registration and segmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from dipy.segment.threshold import otsu
from numpy.typing import NDArray
from scipy import ndimage
from threadpoolctl import threadpool_limits

from bids_tractography.anatomy.atlas import ATLAS_FILE
from bids_tractography.anatomy.registration import (
    atlas_priors,
    attenuation,
    centre_mm,
    coarser,
    masked,
    rigid,
)
from bids_tractography.anatomy.segmentation import flattened, segment
from bids_tractography.core.dwi import Dwi
from bids_tractography.core.images import Grid, Image, read_image
from bids_tractography.core.morphology import close_mask, depth_mm, largest_parts, within_mm
from bids_tractography.core.resample import resample
from bids_tractography.errors import DataError, GridError

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]

# The coils' sensitivity makes the surface of the head several times brighter than its centre, so
# intensities are compared with their neighbourhood. Relative to it, bone and CSF are darker and
# fat is brighter than the brain.
_HEAD_MM = 170.0  # below the top of the head, as in FSL's robustfov; what is lower is neck
_NEIGHBOURHOOD_MM = 20.0
_BRAIN_RANGE = (0.5, 1.6)
_EROSION_MM = 4.1  # nerves, vessels and the eyes connect the brain to the rest of the head
_REGROWTH_MM = 6.1
_CLOSING_MM = 10.0
_WORKING_EDGE_MM = 1.5  # of thinner cortex the DWI shows nothing
_USUAL_BRIGHTNESS, _BRIGHTEST_PERCENTILE = 1000.0, 98
# Neck and face, which are left on some T1w brains, are far from the DWI's brain. The first margin
# allows for the displacement that they cause.
_FIRST_MARGIN_MM, _MARGIN_MM = 12.0, 2.0
_FIRST_EDGE_MM, _EDGE_MM = 6.0, 3.0  # voxels of the registrations
_HUMAN_BRAIN_ML = (500.0, 2500.0)  # also of a part that the DWI's field of view cuts
_MIN_LIKENESS = 0.5
# With smaller voxels, the filters of 10 to 20 mm would require too much memory.
_MIN_EDGE_MM = 0.05
_DISTORTION = (
    "Susceptibility distortion of the DWI is not corrected: the registration to the T1w is rigid."
)
_NO_ATLAS = (
    "The T1w brain does not resemble the atlas of adult human brains: tissue is segmented by "
    "brightness alone, and deep grey matter may be white matter."
)


def fractions_of_t1w(
    paths: tuple[Path, ...], dwi: Dwi, brain: Mask, min_overlap: float
) -> tuple[dict[str, Volume], dict[str, Any], tuple[str, ...]]:
    """Register a T1-weighted image to the DWI, cut it to the DWI's brain, and segment it.

    Parameters
    ----------
    paths : tuple of Path
        The T1w image and, optionally, its brain mask.
    dwi : Dwi
        The diffusion-weighted image.
    brain : ndarray of bool, shape (X, Y, Z)
        Brain mask of the DWI.
    min_overlap : float
        Minimum Dice overlap of the brain masks in the field of view of the DWI.

    Returns
    -------
    fractions : dict of str to ndarray of float32, shape (X, Y, Z)
        ``wm``, ``gm`` and ``csf`` on the grid of the DWI.
    record : dict
        Brain mask, transform and overlap, JSON values.
    warnings : tuple of str
        Limitations of the method.

    Raises
    ------
    DataError
        If no brain is found.
    GridError
        If the overlap is less than `min_overlap`, or the voxels are too small for a head.
    """
    image = read_image(paths[0], ndim=3)
    if (edge_mm := float(image.grid.voxel_size_mm.min())) < _MIN_EDGE_MM:
        raise GridError(
            f"{paths[0]}: voxels of {edge_mm:.3g} mm are too small for a head.",
            "The unit of length in its header may be wrong; otherwise resample it.",
        )
    t1w = _in_usual_units(coarser(image, _WORKING_EDGE_MM))
    given = read_image(paths[1], ndim=3) if len(paths) > 1 else None
    with threadpool_limits(1):
        even = _without_neck(_even(t1w), t1w.grid)
        mask = (
            _brain(even, t1w.grid) if given is None else resample(given, t1w.grid, nearest=True) > 0
        )
        if not mask.any():
            raise DataError(f"{paths[0]}: no brain was found.", "Add a brain mask next to it.")
        to_dwi, mask, overlap = align(Image(even, t1w.grid), mask, dwi, brain, cut=given is None)
        fixed = masked(Image(attenuation(dwi), dwi.grid), brain)
        agreement_found = agreement(Image(even, t1w.grid), mask, fixed, to_dwi)
        if overlap < min_overlap:
            raise GridError(
                f"{paths[0].name} cannot be aligned with the DWI: the brain masks overlap by "
                f"{overlap:.2f} (Dice), less than tissue.min_overlap {min_overlap:g}.",
                "Inspect both images; provide tissue fractions from other software, or lower the "
                "threshold.",
            )
        priors, likeness = _priors(t1w, mask)
        posteriors = segment(t1w.data, mask, priors)
    fractions = {
        tissue: resample(Image(part, t1w.grid), dwi.grid, nearest=False, to_world=to_dwi)
        for tissue, part in posteriors.items()
    }
    record = {
        "brain": "found" if given is None else "file",
        "t1w_to_dwi_mm": to_dwi.round(6).tolist(),
        "dice": round(overlap, 4),
        "agreement": round(agreement_found, 4),
        "atlas": "none" if priors is None else ATLAS_FILE.name.removesuffix(".nii.gz"),
        "likeness": None if likeness is None else round(likeness, 4),
    }
    return fractions, record, (_DISTORTION,) if priors is not None else (_DISTORTION, _NO_ATLAS)


def _priors(t1w: Image, mask: Mask) -> tuple[Volume | None, float | None]:
    """Return the atlas in the T1w image, and the likeness; None if it is not a human brain."""
    low, high = _HUMAN_BRAIN_ML
    if not low < float(mask.sum() * t1w.grid.voxel_size_mm.prod() / 1000) < high:
        return None, None
    priors, likeness = atlas_priors(Image(flattened(t1w.data, mask), t1w.grid), mask)
    return (priors if likeness >= _MIN_LIKENESS else None), likeness


def _in_usual_units(t1w: Image) -> Image:
    """Scale intensities to a common range, so that constants below do not depend on the unit."""
    positive = t1w.data[t1w.data > 0]
    if not positive.size:
        return t1w
    unit = np.percentile(positive, _BRIGHTEST_PERCENTILE) / _USUAL_BRIGHTNESS
    return Image(np.asarray(t1w.data / unit, np.float32), t1w.grid)


def _even(t1w: Image) -> Volume:
    """Divide intensities by the mean around each voxel; 0 in the air."""
    data, sigma = np.maximum(t1w.data, 0), _NEIGHBOURHOOD_MM / t1w.grid.voxel_size_mm
    positive = data[data > 0]
    if not positive.size:
        return data
    head = data > np.expm1(otsu(np.log1p(positive)))
    weight = ndimage.gaussian_filter(head.astype(np.float32), sigma)
    around = ndimage.gaussian_filter(np.where(head, data, 0), sigma) / np.maximum(weight, 1e-3)
    return np.asarray(np.where(head, data / np.maximum(around, 1e-6), 0), np.float32)


def _without_neck(even: Volume, grid: Grid) -> Volume:
    """Remove what is far below the top of the head."""
    up_mm = grid.affine[2, 3] + sum(
        along * step
        for along, step in zip(
            np.ogrid[tuple(map(slice, grid.shape))], grid.affine[2], strict=False
        )
    )
    top_mm = np.percentile(np.broadcast_to(up_mm, grid.shape)[even > 0], 99.9) if even.any() else 0
    return np.where(up_mm > top_mm - _HEAD_MM, even, np.float32(0))


def _brain(even: Volume, grid: Grid) -> Mask:
    """Find the largest connected region with the brightness of brain tissue."""
    low, high = _BRAIN_RANGE
    tissue = (even > low) & (even < high)
    core = depth_mm(tissue, grid) > _EROSION_MM
    if not core.any():
        return np.asarray(core)
    grown = within_mm(largest_parts(core), _REGROWTH_MM, grid) & tissue
    return np.asarray(ndimage.binary_fill_holes(close_mask(grown, _CLOSING_MM, grid)))


def align(
    t1w: Image, mask: Mask, dwi: Dwi, brain: Mask, *, cut: bool
) -> tuple[NDArray[np.float64], Mask, float]:
    """Find the rigid transform from RAS+ mm of a T1w image to RAS+ mm of the DWI.

    The DWI's side is its attenuation. There are two starts, the scanner coordinates and the
    alignment of the centres of mass; after a coarse registration, the one that agrees better
    is refined with a mask from which neck and face have been cut.

    Parameters
    ----------
    t1w : Image
        The T1-weighted image, with even brightness.
    mask : ndarray of bool
        Its brain mask.
    dwi : Dwi
        The diffusion-weighted image.
    brain : ndarray of bool, shape (X, Y, Z)
        Its brain mask.
    cut : bool
        Whether to cut the mask to the brain of the DWI and a margin.

    Returns
    -------
    to_dwi : ndarray, shape (4, 4)
        The transform.
    mask : ndarray of bool
        The mask, cut.
    overlap : float
        Dice overlap of the brain masks in the field of view of the DWI, without neck and face.
    """
    fixed = masked(Image(attenuation(dwi), dwi.grid), brain)
    centred = np.eye(4)
    centred[:3, 3] = centre_mm(mask, t1w.grid) - centre_mm(brain, dwi.grid)
    found = [
        rigid(fixed, masked(t1w, mask), start, _FIRST_EDGE_MM) for start in (np.eye(4), centred)
    ]
    to_dwi = max(found, key=lambda each: agreement(t1w, mask, fixed, each))
    if cut:
        mask = _near(mask, t1w.grid, brain, dwi.grid, to_dwi, _FIRST_MARGIN_MM)
    to_dwi = rigid(fixed, masked(t1w, mask), np.asarray(np.linalg.inv(to_dwi)), _EDGE_MM)
    overlap = dice(t1w.grid, mask, dwi.grid, brain, to_dwi)
    if cut:
        mask = _near(mask, t1w.grid, brain, dwi.grid, to_dwi, _MARGIN_MM)
    return to_dwi, mask, overlap


def agreement(t1w: Image, mask: Mask, fixed: Image, to_dwi: NDArray[np.float64]) -> float:
    """Return how far T1w and attenuation agree: CSF is dark in one and bright in the other.

    Parameters
    ----------
    t1w : Image
        The T1-weighted image, with even brightness.
    mask : ndarray of bool
        Its brain mask.
    fixed : Image
        Attenuation in the brain of the DWI, 0 outside.
    to_dwi : ndarray, shape (4, 4)
        RAS+ mm of the T1w image to RAS+ mm of the DWI.

    Returns
    -------
    float
        Correlation with opposite sign times the share of the brain that is compared, -1 to 1.
    """
    moved = resample(masked(t1w, mask), fixed.grid, nearest=False, to_world=to_dwi)
    there, both = fixed.data > 0, (fixed.data > 0) & (moved > 0)
    if np.count_nonzero(both) < 2:
        return -1.0
    correlation = np.corrcoef(moved[both], fixed.data[both])[0, 1]
    share = np.count_nonzero(both) / np.count_nonzero(there)
    return -float(np.nan_to_num(correlation) * share)


def _near(
    mask: Mask,
    grid: Grid,
    brain: Mask,
    dwi_grid: Grid,
    to_dwi: NDArray[np.float64],
    margin_mm: float,
) -> Mask:
    """Cut a mask to the brain of the DWI and a margin, if they meet."""
    around = Image(within_mm(brain, margin_mm, dwi_grid).astype(np.float32), dwi_grid)
    near = mask & (
        resample(around, grid, nearest=True, to_world=np.asarray(np.linalg.inv(to_dwi))) > 0
    )
    return near if near.any() else mask


def dice(t1w_grid: Grid, mask: Mask, grid: Grid, brain: Mask, to_dwi: NDArray[np.float64]) -> float:
    """Return the Dice overlap of two brain masks on the grid of the second.

    Parameters
    ----------
    t1w_grid, grid : Grid
        Grids of the masks.
    mask, brain : ndarray of bool
        The masks.
    to_dwi : ndarray, shape (4, 4)
        RAS+ mm of the first grid to RAS+ mm of the second.
    """
    moved = (
        resample(Image(mask.astype(np.float32), t1w_grid), grid, nearest=False, to_world=to_dwi)
        > 0.5
    )
    return float(2 * (moved & brain).sum() / max(moved.sum() + brain.sum(), 1))

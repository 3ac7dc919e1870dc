"""Tissue from a T1-weighted image: aligned with the DWI, skull-stripped and segmented."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from dipy.align.imaffine import AffineRegistration, MutualInformationMetric, transform_centers_of_mass
from dipy.align.transforms import RigidTransform3D, TranslationTransform3D
from dipy.segment.tissue import TissueClassifierHMRF
from numpy.typing import NDArray
from scipy import ndimage

from bids_tractography.dwi import Dwi
from bids_tractography.errors import GridError
from bids_tractography.images import Grid, Image, read_image
from bids_tractography.resample import resample

logger = logging.getLogger(__name__)

_LEAST_OVERLAP = 0.8
_MEDIAN_MM = 4.0
_NECK_MM = 5.0  # erosion that parts brain and scalp
_MARGIN_MM = 2.0
_CLOSING_MM = 6.0  # sulci
_N_CLASSES, _SMOOTHNESS = 3, 0.1
_BINS = 32
_DISTORTION = "the DWI's distortion is not corrected: tissue is off where it is strong"


def segment_t1w(
    path: Path, dwi: Dwi, brain: NDArray[np.bool_], least_overlap: float | None
) -> tuple[dict[str, NDArray[np.float32]], dict[str, Any]]:
    """Align a T1w image rigidly with the DWI and segment it by a hidden Markov random field.

    The alignment maximises mutual information with the mean b=0 image. It is judged by two
    masks that know nothing of each other: the DWI's brain, and the brain that erosion cuts out
    of the T1w image alone.

    Parameters
    ----------
    path : Path
    dwi : Dwi
    brain : ndarray of bool, shape (X, Y, Z)
    least_overlap : float or None
        Dice overlap below which the alignment is refused; None for the usual.

    Returns
    -------
    maps : dict of str to ndarray of float32, shape (X, Y, Z)
        ``wm``, ``gm`` and ``csf``.
    record : dict

    Raises
    ------
    GridError
        If the overlap is too small.
    """
    image = read_image(path, ndim=3)
    own_brain = strip_skull(image)
    stripped = Image(np.where(own_brain, image.data, 0), image.grid)
    to_t1w = align(stripped, dwi, brain)
    aligned = resample(
        Image(own_brain.astype(np.float32), image.grid), dwi.grid, nearest=True, to_image_mm=to_t1w
    )
    overlap = _dice(aligned > 0, brain)
    least = _LEAST_OVERLAP if least_overlap is None else least_overlap
    logger.info("%s is aligned with the DWI: brains overlap by %.2f (Dice).", path.name, overlap)
    if overlap < least:
        raise GridError(
            f"{path} could not be aligned with the DWI: the brains overlap by {overlap:.2f} (Dice "
            f"coefficient), {least:.2f} is needed.",
            "Look at both; preprocess them, or lower tissue.least_overlap.",
        )
    fractions = classify(image, _dwi_brain_on(image.grid, dwi.grid, brain, to_t1w) | own_brain)
    maps = {
        tissue: resample(Image(data, image.grid), dwi.grid, nearest=False, to_image_mm=to_t1w)
        for tissue, data in fractions.items()
    }
    inside = {tissue: np.where(brain, data, 0) for tissue, data in maps.items()}
    record = {
        "overlap_dice": round(overlap, 4),
        "dwi_to_t1w_mm": [[round(float(v), 6) for v in row] for row in to_t1w],
        "warnings": [_DISTORTION],
    }
    return inside, record


def strip_skull(image: Image) -> NDArray[np.bool_]:
    """Cut the brain out of a T1w image: what erosion parts from the scalp, grown back.

    Parameters
    ----------
    image : Image

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)
    """
    size = image.grid.voxel_size_mm
    smooth = ndimage.median_filter(image.data, [2 * round(_MEDIAN_MM / s / 2) + 1 for s in size])
    bright = smooth > _otsu(smooth)
    depth_mm = _depth_mm(bright, size)
    core = _largest_part(depth_mm > _NECK_MM)
    grown = ndimage.distance_transform_edt(~core, size) <= _NECK_MM + _MARGIN_MM
    closed = ndimage.distance_transform_edt(grown & (bright | core), size) > 0
    wide = ndimage.distance_transform_edt(~closed, size) <= _CLOSING_MM
    return np.asarray(
        ndimage.binary_fill_holes(_depth_mm(wide, size) > _CLOSING_MM) & grown
    )


def _depth_mm(mask: NDArray[np.bool_], size_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance to the nearest voxel outside; the image's border is outside."""
    return np.asarray(ndimage.distance_transform_edt(np.pad(mask, 1), size_mm)[1:-1, 1:-1, 1:-1])


def align(t1w: Image, dwi: Dwi, brain: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Find the rigid motion from RAS+ mm of the DWI to RAS+ mm of a skull-stripped T1w image."""
    fixed = np.where(brain, dwi.mean_b0, 0).astype(np.float64)
    fixed_to_mm, moving_to_mm = dwi.grid.affine, t1w.grid.affine
    moving = t1w.data.astype(np.float64)
    start = transform_centers_of_mass(fixed, fixed_to_mm, moving, moving_to_mm)
    registration = AffineRegistration(
        metric=MutualInformationMetric(nbins=_BINS),  # of all voxels: nothing is drawn
        level_iters=[200, 100, 50],
        sigmas=[3.0, 1.0, 0.0],
        factors=[4, 2, 1],
        verbosity=0,
    )
    motion = start.affine
    for transform in (TranslationTransform3D(), RigidTransform3D()):
        motion = registration.optimize(
            fixed, moving, transform, None,
            static_grid2world=fixed_to_mm, moving_grid2world=moving_to_mm, starting_affine=motion,
        ).affine
    return np.asarray(motion, np.float64)


def classify(image: Image, mask: NDArray[np.bool_]) -> dict[str, NDArray[np.float32]]:
    """Segment a T1w image inside a mask; the classes are known by their brightness."""
    inside = np.where(mask, image.data, 0).astype(np.float64)
    top = np.percentile(inside[mask], 99.9)
    classifier = TissueClassifierHMRF()
    _, _, fractions = classifier.classify(np.clip(inside, 0, top), _N_CLASSES, _SMOOTHNESS)
    means = [float((inside * share).sum() / max(share.sum(), 1e-9))
             for share in np.moveaxis(fractions, -1, 0)]
    order = np.argsort(means)
    return {
        tissue: (fractions[..., place] * mask).astype(np.float32)
        for tissue, place in zip(("csf", "gm", "wm"), order, strict=True)
    }


def _dwi_brain_on(
    grid: Grid, dwi_grid: Grid, brain: NDArray[np.bool_], to_t1w: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Bring the DWI's brain onto the grid of the T1w image."""
    mask = Image(brain.astype(np.float32), dwi_grid)
    return resample(mask, grid, nearest=True, to_image_mm=np.linalg.inv(to_t1w)) > 0


def _otsu(values: NDArray[np.float32]) -> float:
    counts, edges = np.histogram(values[values > 0], 256)
    centres = (edges[:-1] + edges[1:]) / 2
    below, total = np.cumsum(counts), np.cumsum(counts * centres)
    above = below[-1] - below
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (total / below - (total[-1] - total) / above) ** 2
    return float(centres[np.nanargmax(between)])


def _largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels, n_parts = ndimage.label(mask)
    if n_parts == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == sizes.argmax())


def _dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float(2 * np.count_nonzero(one & other) / (one.sum() + other.sum()))

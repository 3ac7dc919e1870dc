"""Tissue fractions of a T1-weighted image: brain extraction, registration and segmentation."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from dipy.align.imaffine import AffineRegistration, MutualInformationMetric
from dipy.align.transforms import RigidTransform3D
from dipy.segment.threshold import otsu
from numpy.typing import NDArray
from scipy import ndimage
from threadpoolctl import threadpool_limits

from bids_tractography.core.dwi import Dwi
from bids_tractography.core.images import Grid, Image, read_image
from bids_tractography.core.morphology import close_mask, depth_mm
from bids_tractography.core.resample import resample
from bids_tractography.errors import DataError, GridError

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]

# The coils' sensitivity makes the surface of the head several times brighter than its centre, so
# intensities are compared with their neighbourhood. Relative to it, bone and CSF are darker and
# fat is brighter than the brain.
_NEIGHBOURHOOD_MM = 20.0
_BRAIN_RANGE = (0.5, 1.6)
_EROSION_MM = 4.1  # nerves, vessels and the eyes connect the brain to the rest of the head
_REGROWTH_MM = 6.1
_CLOSING_MM = 10.0
_REGISTRATION = {"level_iters": [200, 100], "sigmas": [3.0, 1.0], "factors": [4, 2]}
_MAX_ATTENUATION = 5.0
_BIAS_DEGREE, _BIAS_ROUNDS, _FIT_VOXELS = 4, 3, 50_000
_DARK_PERCENTILE = 12
_FIRST_PERCENTILES = (5, 50, 88)
_BRIGHTEST_PERCENTILE = 98
_USUAL_BRIGHTNESS = 1000.0
_KMEANS_ROUNDS, _EM_ROUNDS = 20, 12
_MIN_SPREAD = 0.01  # standard deviation of a class relative to the brightest mean
_SMOOTHNESS = 0.3
# With smaller voxels, the filters of 10 to 20 mm would require too much memory.
_MIN_EDGE_MM = 0.05
_DISTORTION = (
    "Susceptibility distortion of the DWI is not corrected: the registration to the T1w is rigid."
)


def fractions_of_t1w(
    paths: tuple[Path, ...], dwi: Dwi, brain: Mask, min_overlap: float
) -> tuple[dict[str, Volume], dict[str, Any], tuple[str, ...]]:
    """Register a T1-weighted image to the DWI and segment it.

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
    t1w = _in_usual_units(read_image(paths[0], ndim=3))
    if (edge_mm := float(t1w.grid.voxel_size_mm.min())) < _MIN_EDGE_MM:
        raise GridError(
            f"{paths[0]}: voxels of {edge_mm:.3g} mm are too small for a head.",
            "The unit of length in its header may be wrong; otherwise resample it.",
        )
    with threadpool_limits(1):
        even = _even(t1w)
        if len(paths) > 1:
            mask = resample(read_image(paths[1], ndim=3), t1w.grid, nearest=True) > 0
        else:
            mask = _brain(even, t1w.grid)
        if not mask.any():
            raise DataError(f"{paths[0]}: no brain was found.", "Add a brain mask next to it.")
        to_dwi, overlap = align(Image(even, t1w.grid), mask, dwi, brain)
        if overlap < min_overlap:
            raise GridError(
                f"{paths[0].name} cannot be aligned with the DWI: the brain masks overlap by "
                f"{overlap:.2f} (Dice), less than tissue.min_overlap {min_overlap:g}.",
                "Inspect both images; provide tissue fractions from other software, or lower the "
                "threshold.",
            )
        posteriors = segment(t1w.data, mask)
    fractions = {
        tissue: resample(Image(part, t1w.grid), dwi.grid, nearest=False, to_world=to_dwi)
        for tissue, part in posteriors.items()
    }
    record = {
        "brain": "file" if len(paths) > 1 else "found",
        "t1w_to_dwi_mm": to_dwi.round(6).tolist(),
        "dice": round(overlap, 4),
    }
    return fractions, record, (_DISTORTION,)


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


def _brain(even: Volume, grid: Grid) -> Mask:
    """Find the largest connected region with the brightness of brain tissue."""
    low, high = _BRAIN_RANGE
    tissue = (even > low) & (even < high)
    core = depth_mm(tissue, grid) > _EROSION_MM
    labels, n_lumps = ndimage.label(core)
    if not n_lumps:
        return np.asarray(core)
    counts = np.bincount(labels.ravel())
    counts[0] = 0
    lump = labels == counts.argmax()
    grown = (ndimage.distance_transform_edt(~lump, grid.voxel_size_mm) <= _REGROWTH_MM) & tissue
    return np.asarray(ndimage.binary_fill_holes(close_mask(grown, _CLOSING_MM, grid)))


def align(t1w: Image, mask: Mask, dwi: Dwi, brain: Mask) -> tuple[NDArray[np.float64], float]:
    """Find the rigid transform from RAS+ mm of a T1w image to RAS+ mm of the DWI.

    It maximises the mutual information (Mattes 2003) of the T1w image and the logarithm of the
    attenuation, ln(b=0 / mean weighted), in all voxels of the two brains. There are two starts, the
    scanner coordinates and the alignment of the centres of mass; the result with more overlap is
    used.

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

    Returns
    -------
    to_dwi : ndarray, shape (4, 4)
        The transform.
    overlap : float
        Dice overlap of the brain masks in the field of view of the DWI.
    """
    # Coil sensitivity cancels in the attenuation, and CSF stands out in it as in a T1w image. In
    # the b=0 image the sensitivity dominates the tissue contrast and shifts heads by millimetres.
    attenuation = np.log(
        np.maximum(dwi.mean_b0, dwi.min_signal) / np.maximum(dwi.mean_weighted, dwi.min_signal)
    )
    static, static_affine = _cropped(np.clip(attenuation, 0, _MAX_ATTENUATION), brain, dwi.grid)
    moving, moving_affine = _cropped(t1w.data, mask, t1w.grid)
    centres = [_centre_mm(brain, dwi.grid), _centre_mm(mask, t1w.grid)]
    found = []
    for shift in (np.zeros(3), centres[1] - centres[0]):
        start = np.eye(4)
        start[:3, 3] = shift
        metric = MutualInformationMetric(nbins=32, sampling_proportion=None)
        registration = AffineRegistration(metric=metric, verbosity=0, **_REGISTRATION)
        to_t1w = registration.optimize(
            static,
            moving,
            RigidTransform3D(),
            None,
            static_grid2world=static_affine,
            moving_grid2world=moving_affine,
            starting_affine=start,
        ).affine
        to_dwi = np.linalg.inv(to_t1w)
        found.append((dice(t1w.grid, mask, dwi.grid, brain, to_dwi), to_dwi))
    overlap, to_dwi = max(found, key=lambda each: each[0])
    return to_dwi, overlap


def _cropped(
    data: Volume, mask: Mask, grid: Grid
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the data in the bounding box of a mask, 0 outside the mask, and its affine."""
    margin = 3
    where = np.argwhere(mask)
    low = np.maximum(where.min(axis=0) - margin, 0)
    high = where.max(axis=0) + margin + 1
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    affine = grid.affine.copy()
    affine[:3, 3] = grid.to_mm(low[None].astype(np.float64))[0]
    return np.where(mask, data, 0)[box].astype(np.float64), affine


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


def _centre_mm(mask: Mask, grid: Grid) -> NDArray[np.float64]:
    return np.asarray(grid.to_mm(np.argwhere(mask).mean(axis=0)[None])[0])


def segment(data: Volume, mask: Mask) -> dict[str, Volume]:
    """Segment three tissues by brightness.

    The model is a mixture of three Gaussians with one variance, whose classes prefer neighbours of
    their kind (hidden Markov random field, Zhang 2001, by mean field). The bias field is a
    polynomial, fitted first to the logarithm, then to the part that the class means do not explain
    (Van Leemput 1999); CSF has little weight in the fit.

    Parameters
    ----------
    data : ndarray of float32, shape (X, Y, Z)
        T1-weighted intensities.
    mask : ndarray of bool, shape (X, Y, Z)
        Brain mask.

    Returns
    -------
    dict of str to ndarray of float32, shape (X, Y, Z)
        Probabilities of ``wm``, ``gm`` and ``csf``, 0 outside the mask.
    """
    inside = mask & (data > 0)
    where = np.argwhere(inside)
    box = tuple(slice(a, b + 1) for a, b in zip(where.min(axis=0), where.max(axis=0), strict=True))
    log = np.log(data[inside].astype(np.float64))
    terms = _polynomial(where)
    # The coils' sensitivity outweighs the tissue contrast, so the first fit treats all smooth
    # variation as bias.
    rest, weights = log - log.mean(), (log > np.percentile(log, _DARK_PERCENTILE)).astype(float)
    for _ in range(_BIAS_ROUNDS):
        bias = _smooth_part(terms, rest, weights)
        probabilities, means = _classify(np.exp(log - bias), inside[box])
        rest, weights = log - (probabilities * np.log(means)).sum(axis=1), 1 - probabilities[:, 0]
    maps = np.zeros((3, *mask.shape), np.float32)
    maps[:, inside] = probabilities.T
    return dict(zip(("csf", "gm", "wm"), maps, strict=True))


def _polynomial(voxels: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return the monomials (N, M) of voxel indices (N, 3), scaled to [-1, 1]."""
    centred = voxels - (voxels.min(axis=0) + voxels.max(axis=0)) / 2
    x, y, z = (centred / np.maximum(np.abs(centred).max(axis=0), 1)).T.astype(np.float32)
    degrees = [d for d in product(range(_BIAS_DEGREE + 1), repeat=3) if sum(d) <= _BIAS_DEGREE]
    return np.stack([x**a * y**b * z**c for a, b, c in degrees], axis=1)


def _smooth_part(
    terms: NDArray[np.float32], values: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the weighted least-squares fit of terms (N, M) to values (N,), on a subset."""
    some = slice(None, None, max(1, len(values) // _FIT_VOXELS))
    weighted = terms[some].astype(np.float64) * weights[some, None]
    coefficients, *_ = np.linalg.lstsq(
        weighted.T @ terms[some].astype(np.float64), weighted.T @ values[some], rcond=None
    )
    return np.asarray(terms @ coefficients)


def _classify(
    values: NDArray[np.float64], inside: Mask
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return probabilities (N, 3) of three classes of values (N,), darkest first, and means (3,).

    The method is expectation maximisation, starting from k-means.
    """
    # Vessels and remaining fat are brighter than any tissue.
    values = np.minimum(values, np.percentile(values, _BRIGHTEST_PERCENTILE))
    means = np.percentile(values, _FIRST_PERCENTILES)
    for _ in range(_KMEANS_ROUNDS):
        nearest = np.abs(values[:, None] - means).argmin(axis=1)
        sums, counts = np.bincount(nearest, values, 3), np.bincount(nearest, minlength=3)
        means = np.where(counts > 0, sums / np.maximum(counts, 1), means)
    probabilities = np.eye(3)[nearest]
    field = np.zeros(inside.shape)
    min_variance = (_MIN_SPREAD * float(means.max())) ** 2
    for _ in range(_EM_ROUNDS):
        weights = np.maximum(probabilities.sum(axis=0), 1e-6)
        means = (probabilities * values[:, None]).sum(axis=0) / weights
        squares = (values[:, None] - means) ** 2
        variance = max(float((probabilities * squares).sum()) / len(values), min_variance)
        log_odds = np.log(weights / len(values)) - squares / (2 * variance)
        for tissue in range(3):
            field[inside] = probabilities[:, tissue]
            log_odds[:, tissue] += _SMOOTHNESS * _neighbours(field)[inside]
        log_odds -= log_odds.max(axis=1, keepdims=True)
        probabilities = np.exp(log_odds)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
    order = np.argsort(means)
    return probabilities[:, order], np.maximum(means[order], 1e-6)


def _neighbours(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum of the six face neighbours of every voxel."""
    return np.asarray(
        sum(ndimage.correlate1d(values, [1, 0, 1], axis, mode="constant") for axis in range(3))
    )

"""Tissues of a T1-weighted image: the brain found, aligned with the DWI, and segmented."""

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
from bids_tractography.core.resample import resample
from bids_tractography.errors import DataError, GridError

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]

# Coils make the head's surface several times as bright as its depth: intensities are compared
# with those around them. Relative to them, bone and fluid are darker, fat is brighter.
_NEIGHBOURHOOD_MM = 20.0
_BRAIN_RANGE = (0.5, 1.6)
_EROSION_MM = 4.1  # the brain hangs on the rest by nerves, vessels and the eyes
_REGROWTH_MM = 6.1
_CLOSING_MM = 10.0
_REGISTRATION = {"level_iters": [200, 100], "sigmas": [3.0, 1.0], "factors": [4, 2]}
_MOST_ATTENUATION = 5.0
_BIAS_DEGREE, _BIAS_ROUNDS, _FIT_VOXELS = 4, 3, 50_000
_DARK_PERCENTILE = 12
_FIRST_PERCENTILES = (5, 50, 88)
_BRIGHTEST_PERCENTILE = 98
_USUAL_BRIGHTNESS = 1000.0
_KMEANS_ROUNDS, _EM_ROUNDS = 20, 12
_LEAST_SPREAD = 0.01  # of a class, relative to the brightest mean
_SMOOTHNESS = 0.3
# Filters of 10 to 20 mm would need more memory with smaller voxels than a head has any use for.
_MIN_EDGE_MM = 0.05
_DISTORTION = (
    "The DWI's distortion (susceptibility) is not corrected against the T1w: alignment is rigid."
)


def fractions_of_t1w(
    paths: tuple[Path, ...], dwi: Dwi, brain: Mask, min_overlap: float
) -> tuple[dict[str, Volume], dict[str, Any], tuple[str, ...]]:
    """Align a T1-weighted image with the DWI and segment it.

    Parameters
    ----------
    paths : tuple of Path
        The T1w, and its brain mask if there is one.
    dwi : Dwi
    brain : ndarray of bool, shape (X, Y, Z)
        Brain mask of the DWI.
    min_overlap : float
        Dice overlap of the brain masks, in the DWI's field of view.

    Returns
    -------
    fractions : dict of str to ndarray of float32, shape (X, Y, Z)
        ``wm``, ``gm`` and ``csf`` on the grid of the DWI.
    record : dict
    warnings : tuple of str

    Raises
    ------
    DataError
        If no brain is found.
    GridError
        If the brains overlap by less than `min_overlap`, or voxels are too small for a head.
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
            raise DataError(f"{paths[0]}: no brain is found in it.", "Give a brain mask beside it.")
        to_dwi, overlap = align(Image(even, t1w.grid), mask, dwi, brain)
        if overlap < min_overlap:
            raise GridError(
                f"{paths[0].name} cannot be aligned with the DWI: the brain masks overlap by "
                f"{overlap:.2f} (Dice), less than tissue.min_overlap {min_overlap:g}.",
                "Look at both images; give tissue fractions made elsewhere, or lower the bound.",
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
    """Scale intensities to those of scanners, so that no later constant depends on their unit."""
    positive = t1w.data[t1w.data > 0]
    if not positive.size:
        return t1w
    unit = np.percentile(positive, _BRIGHTEST_PERCENTILE) / _USUAL_BRIGHTNESS
    return Image(np.asarray(t1w.data / unit, np.float32), t1w.grid)


def _even(t1w: Image) -> Volume:
    """Divide a head by the mean around each voxel; 0 in the air."""
    data, sigma = np.maximum(t1w.data, 0), _NEIGHBOURHOOD_MM / t1w.grid.voxel_size_mm
    positive = data[data > 0]
    if not positive.size:
        return data
    head = data > np.expm1(otsu(np.log1p(positive)))
    weight = ndimage.gaussian_filter(head.astype(np.float32), sigma)
    around = ndimage.gaussian_filter(np.where(head, data, 0), sigma) / np.maximum(weight, 1e-3)
    return np.asarray(np.where(head, data / np.maximum(around, 1e-6), 0), np.float32)


def _brain(even: Volume, grid: Grid) -> Mask:
    """Find the largest lump of tissue of the brain's brightness."""
    size = grid.voxel_size_mm
    low, high = _BRAIN_RANGE
    tissue = (even > low) & (even < high)
    core = ndimage.distance_transform_edt(np.pad(tissue, 1), size)[1:-1, 1:-1, 1:-1] > _EROSION_MM
    labels, n_lumps = ndimage.label(core)
    if not n_lumps:
        return np.asarray(core)
    counts = np.bincount(labels.ravel())
    counts[0] = 0
    lump = labels == counts.argmax()
    grown = (ndimage.distance_transform_edt(~lump, size) <= _REGROWTH_MM) & tissue
    width = [int(np.ceil(_CLOSING_MM / s)) + 1 for s in size]
    padded = np.pad(grown, [(w, w) for w in width])
    near = ndimage.distance_transform_edt(~padded, size) <= _CLOSING_MM
    closed = ndimage.distance_transform_edt(near, size) > _CLOSING_MM
    inner = tuple(slice(w, -w) for w in width)
    return np.asarray(ndimage.binary_fill_holes(closed[inner] | grown))


def align(t1w: Image, mask: Mask, dwi: Dwi, brain: Mask) -> tuple[NDArray[np.float64], float]:
    """Find the rigid motion from a T1w's RAS+ mm to the DWI's.

    Mutual information (Mattes 2003) of the T1w and the logarithm of the attenuation, ln(b=0 /
    mean weighted), of the two brains, in every voxel, from two starts: as the
    scanner says, and centre of mass on centre of mass. The one with more overlap is taken.

    Returns
    -------
    to_dwi : ndarray, shape (4, 4)
    overlap : float
        Dice overlap of the brain masks in the DWI's field of view.
    """
    # The attenuation has no coil field, and fluid stands out in it as in a T1w. (In the b=0 image
    # the field outweighs the tissues, and a head is laid millimetres too high.)
    attenuation = np.log(
        np.maximum(dwi.mean_b0, dwi.least_signal) / np.maximum(dwi.mean_weighted, dwi.least_signal)
    )
    static, static_affine = _cropped(np.clip(attenuation, 0, _MOST_ATTENUATION), brain, dwi.grid)
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
    """Return the box around a mask, 0 outside the mask, and its affine."""
    margin = 3
    where = np.argwhere(mask)
    low = np.maximum(where.min(axis=0) - margin, 0)
    high = where.max(axis=0) + margin + 1
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    affine = grid.affine.copy()
    affine[:3, 3] = grid.to_mm(low[None].astype(np.float64))[0]
    return np.where(mask, data, 0)[box].astype(np.float64), affine


def dice(t1w_grid: Grid, mask: Mask, grid: Grid, brain: Mask, to_dwi: NDArray[np.float64]) -> float:
    """Return the Dice overlap of two brain masks on the grid of the second."""
    moved = (
        resample(Image(mask.astype(np.float32), t1w_grid), grid, nearest=False, to_world=to_dwi)
        > 0.5
    )
    return float(2 * (moved & brain).sum() / max(moved.sum() + brain.sum(), 1))


def _centre_mm(mask: Mask, grid: Grid) -> NDArray[np.float64]:
    return np.asarray(grid.to_mm(np.argwhere(mask).mean(axis=0)[None])[0])


def segment(data: Volume, mask: Mask) -> dict[str, Volume]:
    """Tell three tissues apart by their brightness.

    A mixture of three Gaussians of one variance whose classes prefer neighbours of their kind (a
    hidden Markov random field, Zhang 2001, by mean field). The bias field is a polynomial,
    fitted to the logarithm at first, then to what the means of the classes leave of it (Van
    Leemput 1999); fluid has little weight in it.

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
    # Coils make more contrast than tissues do: at first all that is smooth is bias.
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
    """Return the weighted least-squares fit of terms (N, M) to values (N,)."""
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

    Expectation maximisation, from k-means.
    """
    # Vessels and what is left of fat are brighter than any tissue.
    values = np.minimum(values, np.percentile(values, _BRIGHTEST_PERCENTILE))
    means = np.percentile(values, _FIRST_PERCENTILES)
    for _ in range(_KMEANS_ROUNDS):
        nearest = np.abs(values[:, None] - means).argmin(axis=1)
        sums, counts = np.bincount(nearest, values, 3), np.bincount(nearest, minlength=3)
        means = np.where(counts > 0, sums / np.maximum(counts, 1), means)
    probabilities = np.eye(3)[nearest]
    field = np.zeros(inside.shape)
    least = (_LEAST_SPREAD * float(means.max())) ** 2
    for _ in range(_EM_ROUNDS):
        weights = np.maximum(probabilities.sum(axis=0), 1e-6)
        means = (probabilities * values[:, None]).sum(axis=0) / weights
        squares = (values[:, None] - means) ** 2
        variance = max(float((probabilities * squares).sum()) / len(values), least)
        log_odds = np.log(weights / len(values)) - squares / (2 * variance)
        for place in range(3):
            field[inside] = probabilities[:, place]
            log_odds[:, place] += _SMOOTHNESS * _neighbours(field)[inside]
        log_odds -= log_odds.max(axis=1, keepdims=True)
        probabilities = np.exp(log_odds)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
    order = np.argsort(means)
    return probabilities[:, order], np.maximum(means[order], 1e-6)


def _neighbours(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum the six face neighbours of every voxel."""
    return np.asarray(
        sum(ndimage.correlate1d(values, [1, 0, 1], axis, mode="constant") for axis in range(3))
    )

"""Segmentation of a T1-weighted brain by brightness and, for human brains, an atlas."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]

_BIAS_DEGREE, _BIAS_ROUNDS, _FIT_VOXELS = 4, 3, 50_000
_DARK_PERCENTILE = 12
_FIRST_PERCENTILES = (5, 50, 88)
_BRIGHTEST_PERCENTILE = 98
_KMEANS_ROUNDS, _EM_ROUNDS = 20, 8
_MIN_SPREAD = 0.01  # standard deviation of a class relative to the brightest mean
_SMOOTHNESS = 0.3


def segment(data: Volume, mask: Mask, priors: Volume | None = None) -> dict[str, Volume]:
    """Segment three tissues.

    The model is a mixture of Gaussians whose classes prefer neighbours of their kind (hidden Markov
    random field, Zhang 2001, by mean field) and places where the atlas has them (Ashburner 2005).
    Deep grey matter is a class of its own, because it is nearly as bright as white matter. Without
    an atlas there are three classes of one variance. The bias field is a polynomial, fitted first
    to the logarithm, then to the part that the class means do not explain (Van Leemput 1999); CSF
    has little weight in the fit.

    Parameters
    ----------
    data : ndarray of float32, shape (X, Y, Z)
        T1-weighted intensities.
    mask : ndarray of bool, shape (X, Y, Z)
        Brain mask.
    priors : ndarray of float32, shape (X, Y, Z, 4), optional
        Probabilities of CSF, grey, white and deep grey matter.

    Returns
    -------
    dict of str to ndarray of float32, shape (X, Y, Z)
        Probabilities of ``wm``, ``gm`` and ``csf``, 0 outside the mask.
    """
    inside = mask & (data > 0)
    where = np.argwhere(inside)
    box = tuple(slice(a, b + 1) for a, b in zip(where.min(axis=0), where.max(axis=0), strict=True))
    log, terms = np.log(data[inside]), _polynomial(where)
    local = None if priors is None else priors[inside]
    bias = _first_bias(log, terms)
    for _ in range(_BIAS_ROUNDS):
        values = np.exp(log - bias)
        # Vessels and remaining fat are brighter than any tissue.
        values = np.minimum(values, np.percentile(values, _BRIGHTEST_PERCENTILE))
        first = _k_means(values) if local is None else local
        probabilities, means = _classify(values, inside[box], first, local)
        unexplained = log - (probabilities * np.log(means)).sum(axis=1)
        bias = _smooth_part(terms, unexplained, 1 - probabilities[:, 0])
    maps = np.zeros((3, *mask.shape), np.float32)
    maps[:, inside] = probabilities[:, :3].T
    if local is not None:
        maps[1, inside] += probabilities[:, 3]
    return dict(zip(("csf", "gm", "wm"), maps, strict=True))


def flattened(data: Volume, mask: Mask) -> Volume:
    """Return the intensities in a mask without their smooth variation, 0 outside."""
    inside = mask & (data > 0)
    log = np.log(data[inside])
    values = np.exp(log - _first_bias(log, _polynomial(np.argwhere(inside))))
    flat = np.zeros(data.shape, np.float32)
    flat[inside] = np.minimum(values, np.percentile(values, _BRIGHTEST_PERCENTILE))
    return flat


def _first_bias(log: Volume, terms: Volume) -> Volume:
    """Fit the bias field before anything is known of the tissues.

    The coils' sensitivity outweighs the tissue contrast, so all smooth variation counts as bias.
    """
    bright = (log > np.percentile(log, _DARK_PERCENTILE)).astype(np.float32)
    return _smooth_part(terms, log - log.mean(dtype=np.float64), bright)


def _polynomial(voxels: NDArray[np.intp]) -> Volume:
    """Return the monomials (N, M) of voxel indices (N, 3), scaled to [-1, 1]."""
    centred = voxels - (voxels.min(axis=0) + voxels.max(axis=0)) / 2
    x, y, z = (centred / np.maximum(np.abs(centred).max(axis=0), 1)).T.astype(np.float32)
    degrees = [d for d in product(range(_BIAS_DEGREE + 1), repeat=3) if sum(d) <= _BIAS_DEGREE]
    return np.stack([x**a * y**b * z**c for a, b, c in degrees], axis=1)


def _smooth_part(
    terms: Volume, values: NDArray[np.floating], weights: NDArray[np.floating]
) -> Volume:
    """Return the weighted least-squares fit of terms (N, M) to values (N,), on a subset."""
    some = slice(None, None, max(1, len(values) // _FIT_VOXELS))
    sample = terms[some].astype(np.float64)
    weighted = sample * weights[some, None]
    coefficients, *_ = np.linalg.lstsq(weighted.T @ sample, weighted.T @ values[some], rcond=None)
    return np.asarray(terms @ coefficients.astype(np.float32))


def _k_means(values: Volume) -> Volume:
    """Return the classes (N, 3) of values (N,), darkest first."""
    means = np.percentile(values, _FIRST_PERCENTILES)
    for _ in range(_KMEANS_ROUNDS):
        nearest = np.searchsorted((means[1:] + means[:-1]) / 2, values)
        sums, counts = np.bincount(nearest, values, 3), np.bincount(nearest, minlength=3)
        means = np.where(counts > 0, sums / np.maximum(counts, 1), means)
    return np.eye(3, dtype=np.float32)[nearest]


def _classify(
    values: Volume, inside: Mask, first: Volume, priors: Volume | None
) -> tuple[Volume, NDArray[np.float64]]:
    """Return probabilities (N, K) of the classes of values (N,), and their means (K,).

    The method is expectation maximisation.

    Parameters
    ----------
    values : ndarray, shape (N,)
    inside : ndarray of bool, shape (X, Y, Z)
        Where the N values are.
    first : ndarray, shape (N, K)
        Probabilities to start from; CSF is the first class.
    priors : ndarray, shape (N, K), or None
        Probabilities of the atlas; None for the frequencies of the classes.
    """
    probabilities = first
    field = np.zeros(inside.shape, np.float32)
    for _ in range(_EM_ROUNDS):
        weights = np.maximum(probabilities.sum(axis=0, dtype=np.float64), 1e-6)
        means = np.einsum("nk,n->k", probabilities, values, dtype=np.float64) / weights
        squares = (values[:, None] - means.astype(np.float32)) ** 2
        variances = np.einsum("nk,nk->k", probabilities, squares, dtype=np.float64) / weights
        if priors is None:
            variances = np.full_like(variances, (variances * weights).sum() / weights.sum())
        variances = np.maximum(variances, (_MIN_SPREAD * float(means.max())) ** 2)
        odds = np.log(weights / len(values) if priors is None else priors) - squares / (
            2 * variances
        )
        odds -= np.log(variances) / 2
        for tissue in range(first.shape[1]):
            field[inside] = probabilities[:, tissue]
            odds[:, tissue] += _SMOOTHNESS * _neighbours(field)[inside]
        odds = np.exp(odds - odds.max(axis=1, keepdims=True))
        probabilities = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities, np.maximum(means, 1e-6)


def _neighbours(values: Volume) -> Volume:
    """Return the sum of the six face neighbours of every voxel."""
    return np.asarray(
        sum(ndimage.correlate1d(values, [1, 0, 1], axis, mode="constant") for axis in range(3))
    )

"""Diffusion kurtosis tensor: fit, scalar maps and orientation distribution."""

from __future__ import annotations

from collections import Counter
from math import factorial, prod

import numpy as np
from dipy.reconst.dki import axial_kurtosis, mean_kurtosis, radial_kurtosis
from numpy.typing import NDArray

from bids_tractography.config.model import KurtosisModelConfig
from bids_tractography.core.fodf import AXES, from_axes
from bids_tractography.core.gradients import Gradients, Shell, count_axes
from bids_tractography.errors import GradientError
from bids_tractography.reconst.base import FitInput, ModelFit
from bids_tractography.reconst.voxels import map_voxels

_MIN_DIRECTIONS = 15
_MIN_DIFFUSIVITY_UM2_MS = 0.01

# Independent elements of symmetric tensors of rank 2 and 4, the latter in DIPY's order.
_SECOND = ("xx", "xy", "yy", "xz", "yz", "zz")
_FOURTH = (
    "xxxx", "yyyy", "zzzz", "xxxy", "xxxz", "xyyy", "yyyz", "xzzz", "yzzz",
    "xxyy", "xxzz", "yyzz", "xxyz", "xyyz", "xyzz",
)  # fmt: skip
_MAPS = ("mk", "ak", "rk")

Array = NDArray[np.float64]


def fit_kurtosis(given: FitInput, config: KurtosisModelConfig) -> ModelFit:
    """Fit by weighted least squares (Veraart 2013) and expand the orientation distribution.

    The distribution (Henriques 2015) integrates to one. The mean, axial and radial kurtosis are
    returned as maps.

    Raises
    ------
    GradientError
        If there are fewer than two shells or fifteen directions up to ``max_b_s_mm2``, or they do
        not determine the tensors.
    """
    gradients = given.dwi.gradients
    used = [shell for shell in gradients.shells if shell.b_s_mm2 <= config.max_b_s_mm2]
    weighted = _enough(gradients, used, config)
    volumes = np.sort(np.concatenate([gradients.b0_volumes, weighted]))
    design = _design(gradients, volumes)
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise GradientError(
            "the directions of the shells do not determine the kurtosis tensor.",
            "Use another model.kind.",
        )
    to_sh = from_axes(config.sh_order)

    def fit(signals: Array) -> Array:
        eigenvalues, eigenvectors, kurtosis = _tensors(
            signals[:, volumes], design, given.dwi.min_signal
        )
        odf = _odf(eigenvalues, eigenvectors, kurtosis, config.alpha)
        flat = np.concatenate([eigenvalues, eigenvectors.reshape(-1, 9), kurtosis], axis=1)
        maps = [function(flat) for function in (mean_kurtosis, axial_kurtosis, radial_kurtosis)]
        return np.concatenate([odf @ to_sh, np.stack(maps, axis=1)], axis=1)

    values = map_voxels(fit, given.dwi.data, given.mask, given.n_threads)
    record = {
        "fit_method": "wls",
        "shells_s_mm2": [shell.b_s_mm2 for shell in used],
        "alpha": config.alpha,
    }
    split = values.shape[3] - len(_MAPS)
    maps = {name: values[..., split + index] for index, name in enumerate(_MAPS)}
    return ModelFit(np.ascontiguousarray(values[..., :split]), record, maps)


def _enough(
    gradients: Gradients, used: list[Shell], config: KurtosisModelConfig
) -> NDArray[np.intp]:
    if len(used) < 2:
        there = ", ".join(f"{shell.b_s_mm2:.0f}" for shell in gradients.shells)
        raise GradientError(
            f"the kurtosis tensor requires two shells up to b = {config.max_b_s_mm2:g} s/mm²; the "
            f"shells are at {there} s/mm².",
            "Use another model.kind, or raise model.max_b_s_mm2 if there are shells above it.",
        )
    weighted = np.concatenate([shell.volumes for shell in used])
    n_directions = count_axes(gradients.directions[weighted])
    if n_directions < _MIN_DIRECTIONS:
        raise GradientError(
            f"the kurtosis tensor requires {_MIN_DIRECTIONS} distinct directions; the shells up to "
            f"b = {config.max_b_s_mm2:g} s/mm² have {n_directions}.",
            "Use another model.kind.",
        )
    return weighted


def _monomials(vectors: Array, elements: tuple[str, ...]) -> Array:
    """Return the monomials of a tensor contraction, including multiplicities.

    The shape is (..., len(elements)) for vectors (..., 3).
    """
    columns = [
        _multiplicity(element) * prod(vectors[..., "xyz".index(axis)] for axis in element)
        for element in elements
    ]
    return np.stack(columns, axis=-1)


def _multiplicity(element: str) -> int:
    repeats = prod(factorial(count) for count in Counter(element).values())
    return factorial(len(element)) // repeats


def _design(gradients: Gradients, volumes: NDArray[np.intp]) -> Array:
    """Return the matrix from the elements of D, MD²·W and ln S0 to ln S, with b in ms/µm²."""
    weighted = gradients.bvals[volumes] > gradients.b0_threshold_s_mm2
    b = (np.where(weighted, gradients.bvals[volumes], 0) / 1000)[:, None]
    g = gradients.directions[volumes]
    return np.hstack(
        [-b * _monomials(g, _SECOND), b**2 / 6 * _monomials(g, _FOURTH), np.ones_like(b)]
    )


def _tensors(signals: Array, design: Array, min_signal: float) -> tuple[Array, Array, Array]:
    """Return eigenvalues (n, 3) in µm²/ms, eigenvectors (n, 3, 3), and kurtosis (n, 15)."""
    logs = np.log(np.maximum(signals, min_signal))
    predicted = logs @ np.linalg.pinv(design).T @ design.T
    weights = np.exp(2 * (predicted - predicted.max(axis=1, keepdims=True)))
    n_terms = design.shape[1]
    outer = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)
    normal = (weights @ outer).reshape(-1, n_terms, n_terms)
    # In voxels of mere noise, all but a few volumes may have zero weight.
    trace = np.einsum("nii->n", normal)
    normal += 1e-10 * trace[:, None, None] * np.eye(n_terms)
    solution = np.linalg.solve(normal, ((weights * logs) @ design)[..., None])[..., 0]
    elements = [[_SECOND.index("".join(sorted(i + j))) for j in "xyz"] for i in "xyz"]
    ascending, vectors = np.linalg.eigh(solution[:, :6][:, elements])
    eigenvalues = np.maximum(ascending[:, ::-1], _MIN_DIFFUSIVITY_UM2_MS)
    md = eigenvalues.mean(axis=1, keepdims=True)
    return eigenvalues, vectors[:, :, ::-1], solution[:, 6:21] / md**2


def _odf(eigenvalues: Array, eigenvectors: Array, kurtosis: Array, alpha: float) -> Array:
    """Sample the distribution on `AXES`, shape (n, N) (Jensen 2014, Henriques 2015).

    It is the moment of order `alpha` of the displacements along each axis, to first order in the
    kurtosis, and zero where that approximation is negative.
    """
    md = eigenvalues.mean(axis=1)
    scaled = np.einsum(
        "nij,nj,nkj->nik", eigenvectors, md[:, None] / eigenvalues, eigenvectors
    )  # MD times the inverse of D
    along = AXES @ scaled
    quadratic = (along * AXES).sum(axis=2)
    element = [
        [[_FOURTH.index("".join(sorted(i + j + pair))) for j in "xyz"] for i in "xyz"]
        for pair in _SECOND
    ]
    # W contracted with a symmetric matrix: six terms, the off-diagonal ones twice.
    weights = np.array([_multiplicity(pair) for pair in _SECOND])
    six = np.stack(
        [scaled[:, "xyz".index(pair[0]), "xyz".index(pair[1])] for pair in _SECOND], axis=1
    )
    contracted = np.einsum("npij,np->nij", kurtosis[:, element], six * weights)
    none = (contracted * scaled).sum(axis=(1, 2))[:, None]
    once = ((along @ contracted) * along).sum(axis=2) / quadratic
    twice = (_monomials(along, _FOURTH) @ kurtosis[:, :, None])[..., 0] / quadratic**2
    correction = 3 * none - 6 * (alpha + 1) * once + (alpha + 1) * (alpha + 3) * twice
    odf = quadratic ** (-(alpha + 1) / 2) * np.maximum(1 + correction / 24, 0)
    total = 4 * np.pi * odf.mean(axis=1, keepdims=True)
    return np.asarray(np.divide(odf, total, out=np.zeros_like(odf), where=total > 0))

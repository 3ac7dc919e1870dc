"""Robust and unbiased model-based spherical deconvolution (Canales-Rodriguez 2015)."""

from __future__ import annotations

import numpy as np
from dipy.reconst.rumba import mbessel_ratio
from numpy.typing import NDArray

from bids_tractography.config.model import AutoResponseConfig, RumbaModelConfig
from bids_tractography.core.fodf import AXES, from_axes, n_coefficients
from bids_tractography.core.gradients import Gradients
from bids_tractography.reconst.base import FitInput, ModelFit, single_fibre_peak
from bids_tractography.reconst.csd import estimate_response
from bids_tractography.reconst.shells import choose_shell
from bids_tractography.reconst.voxels import map_voxels

# Bounds and initial value of the standard deviation of the noise, relative to the b=0 signal.
_SIGMA_BOUNDS = (1 / 80, 1 / 8)
_FIRST_SIGMA = 1 / 15
_EPSILON = float(np.finfo(float).eps)

Array = NDArray[np.float64]


def fit_rumba(given: FitInput, config: RumbaModelConfig) -> ModelFit:
    """Estimate the fODF by Richardson-Lucy iterations for Rician or non-central χ noise.

    The fODF integrates to the volume fraction of white matter.

    Raises
    ------
    DataError
        If the response cannot be estimated.
    """
    gradients = given.dwi.gradients
    eigenvalues, figures = _white_matter(given, config)
    weighted = np.flatnonzero(gradients.bvals > gradients.b0_threshold_s_mm2)
    kernel = _kernel(gradients, weighted, eigenvalues, config)
    # Converts weights of axes to a density on the sphere, of which each axis has an equal share.
    to_sh = from_axes(config.sh_order) * len(AXES) / (4 * np.pi)

    def fit(signals: Array) -> Array:
        attenuation = _attenuation(signals, gradients, weighted, given.dwi.min_signal)
        shares = _deconvolve(attenuation, kernel, config)
        return shares[:, : len(AXES)] @ to_sh

    record = {
        "wm_eigenvalues_mm2_s": list(eigenvalues),
        "gm_diffusivity_mm2_s": config.gm_diffusivity_mm2_s,
        "csf_diffusivity_mm2_s": config.csf_diffusivity_mm2_s,
        "iterations": config.iterations,
        "coils": config.coils,
        "shells_s_mm2": [shell.b_s_mm2 for shell in gradients.shells],
        "single_fibre_peak": single_fibre_peak(
            _deconvolve(kernel[:, : len(AXES)].T[::10], kernel, config)[:, : len(AXES)] @ to_sh
        ),
    }
    coefficients = map_voxels(fit, given.dwi.data, given.mask, given.n_threads)
    return ModelFit(coefficients, record, figures=figures)


def _white_matter(
    given: FitInput, config: RumbaModelConfig
) -> tuple[tuple[float, float, float], dict[str, float]]:
    if config.wm_eigenvalues_mm2_s != "auto":
        return config.wm_eigenvalues_mm2_s, {}
    # The response must hold for all shells, but a tensor describes the inner shells best.
    shells = given.dwi.gradients.shells
    inner = next((s for s in shells if s.n_directions >= n_coefficients(4)), choose_shell(shells))
    response = estimate_response(given.dwi, given.mask, given.tensor, inner, AutoResponseConfig())
    return response.eigenvalues_mm2_s, response.figures


def _kernel(
    gradients: Gradients,
    weighted: NDArray[np.intp],
    eigenvalues: tuple[float, float, float],
    config: RumbaModelConfig,
) -> Array:
    """Return the signal of each compartment: axes, then grey matter and CSF if present.

    The shape is (1 + V, N), b=0 first.
    """
    bvals = gradients.bvals[weighted, None]
    axial, radial = eigenvalues[0], (eigenvalues[1] + eigenvalues[2]) / 2
    cosines = gradients.directions[weighted] @ AXES.T
    columns = [np.exp(-bvals * (radial + (axial - radial) * cosines**2))]
    columns += [
        np.exp(-bvals * diffusivity)
        for diffusivity in (config.gm_diffusivity_mm2_s, config.csf_diffusivity_mm2_s)
        if diffusivity is not None
    ]
    signals = np.hstack(columns)
    return np.vstack([np.ones((1, signals.shape[1])), signals])


def _attenuation(
    signals: Array, gradients: Gradients, weighted: NDArray[np.intp], min_signal: float
) -> Array:
    """Return signals relative to b=0, at most 1, preceded by a 1 for b=0; shape (n, 1 + V)."""
    positive = np.maximum(signals, min_signal)
    b0 = positive[:, gradients.b0_volumes].mean(axis=1, keepdims=True)
    return np.hstack([np.ones_like(b0), np.minimum(positive[:, weighted] / b0, 1)])


def _deconvolve(data: Array, kernel: Array, config: RumbaModelConfig) -> Array:
    """Return the fraction of each compartment, shape (n, N); rows sum to one."""
    order = config.coils
    # In the uniform initial value, an axis represents two antipodes.
    first = np.ones(kernel.shape[1])
    first[: len(AXES)] = 2
    shares = np.tile(first / first.sum(), (len(data), 1))
    expected = shares @ kernel.T
    variance = np.full((len(data), 1), _FIRST_SIGMA**2)
    low, high = np.square(_SIGMA_BOUNDS)
    scaled = data * expected / variance
    for _ in range(config.iterations):
        ratio = mbessel_ratio(order, scaled)
        shares *= ((data * ratio) @ kernel) / (expected @ kernel + _EPSILON)
        expected = shares @ kernel.T
        product = data * expected
        misfit = (data**2 + expected**2) / 2 - product * ratio
        scaled = product / variance
        variance = (misfit.mean(axis=1, keepdims=True) / order).clip(low, high)
    return np.asarray(shares / (shares.sum(axis=1, keepdims=True) + _EPSILON))

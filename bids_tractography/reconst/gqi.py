"""Generalised q-sampling imaging (Yeh 2010): a linear transform of the signal of all shells."""

from __future__ import annotations

import numpy as np
from dipy.reconst.gqi import squared_radial_component
from numpy.typing import NDArray

from bids_tractography.config.model import GqiModelConfig
from bids_tractography.core.fodf import AXES, from_axes, without_floor
from bids_tractography.core.gradients import Gradients
from bids_tractography.reconst.base import FitInput, ModelFit
from bids_tractography.reconst.voxels import map_voxels

# Six times the diffusivity of free water in mm²/s, so that displacements are relative to it.
_FREE_WATER_6D_MM2_S = 0.01506


def fit_gqi(given: FitInput, config: GqiModelConfig) -> ModelFit:
    """Estimate the spin distribution, in units of the signal."""
    to_sh = _q_sampling(given.dwi.gradients, config) @ from_axes(config.sh_order)

    def fit(signals: NDArray[np.float64]) -> NDArray[np.float64]:
        coefficients = signals @ to_sh
        return without_floor(coefficients) if config.isotropic_part == "drop" else coefficients

    record = {
        "method": config.method,
        "sampling_length": config.sampling_length,
        "shells_s_mm2": [shell.b_s_mm2 for shell in given.dwi.gradients.shells],
        "isotropic_part": config.isotropic_part,
    }
    return ModelFit(map_voxels(fit, given.dwi.data, given.mask, given.n_threads), record)


def _q_sampling(gradients: Gradients, config: GqiModelConfig) -> NDArray[np.float64]:
    """Return the matrix from signals to the distribution on `AXES`, shape (V, N)."""
    bvals = np.where(gradients.bvals <= gradients.b0_threshold_s_mm2, 0, gradients.bvals)
    lengths = config.sampling_length * np.sqrt(_FREE_WATER_6D_MM2_S * bvals)
    phase = (lengths[:, None] * gradients.directions) @ AXES.T
    if config.method == "standard":
        return np.asarray(np.sinc(phase / np.pi))
    return np.asarray(squared_radial_component(phase))

"""Diffusion models: each turns a DWI into an fODF in MRtrix3's basis and scanner axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from bids_tractography.config.model import CsdModel, TensorModel
from bids_tractography.dwi import Dwi
from bids_tractography.reconst.csd import fit_csd
from bids_tractography.reconst.fodf import ModelFit
from bids_tractography.reconst.tensor import TensorFit, tensor_odf

__all__ = ["MODELS", "fit_model"]

# Each takes what `fit_model` takes, with its own section of the configuration.
MODELS: Mapping[str, Callable[..., ModelFit]] = {"csd": fit_csd, "tensor": tensor_odf}


def fit_model(
    dwi: Dwi,
    mask: NDArray[np.bool_],
    tensor: TensorFit,
    config: CsdModel | TensorModel,
    n_threads: int,
) -> ModelFit:
    """Fit the configured model inside a mask.

    Parameters
    ----------
    dwi : Dwi
    mask : ndarray of bool, shape (X, Y, Z)
    tensor : TensorFit
        For models that build on it.
    config : CsdModel or TensorModel
    n_threads : int
        Changes the time, not the result.
    """
    return MODELS[config.kind](dwi, mask, tensor, config, n_threads)

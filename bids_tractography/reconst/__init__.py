"""Diffusion models, which compute an fODF in MRtrix3's basis and scanner axes from a DWI."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from bids_tractography.config.model import ModelConfig
from bids_tractography.core.dwi import Dwi
from bids_tractography.reconst.base import FitInput, ModelFit, TensorFit
from bids_tractography.reconst.csd import fit_csd
from bids_tractography.reconst.gqi import fit_gqi
from bids_tractography.reconst.kurtosis import fit_kurtosis
from bids_tractography.reconst.msmt import fit_msmt_csd, order_of_shells
from bids_tractography.reconst.precomputed import fit_precomputed, order_of_file
from bids_tractography.reconst.qball import fit_csa, fit_opdt
from bids_tractography.reconst.rumba import fit_rumba
from bids_tractography.reconst.shells import order_as_given, order_of_shell
from bids_tractography.reconst.tensor import tensor_odf

__all__ = ["MODELS", "FitInput", "ModelFit", "ModelKind", "fit_model"]


@dataclass(frozen=True)
class ModelKind:
    """A diffusion model with its description and capabilities.

    Parameters
    ----------
    fit : callable
        Function of a `FitInput` and the model's section of the configuration that returns a
        `ModelFit`.
    description : str
        Description for sidecars.
    references : tuple of str
        Keys of the bibliography.
    sh_order : callable
        Function of the model's section, the gradients and the files that the section names. It
        returns the order of the fODF, or raises the errors that the fit would raise without the
        signal.
    seconds_per_coefficient : float
        CPU time of fitting a coefficient of the fODF in a voxel, for estimates.
    """

    fit: Callable[..., ModelFit]
    description: str
    references: tuple[str, ...]
    sh_order: Callable[..., int] = order_as_given
    seconds_per_coefficient: float = 0.1e-6


MODELS: Mapping[str, ModelKind] = {
    "csd": ModelKind(
        fit_csd,
        "Constrained spherical deconvolution of one shell (Tournier 2007)",
        ("tournier2007",),
        sh_order=order_of_shell,
        seconds_per_coefficient=1.6e-6,
    ),
    "msmt_csd": ModelKind(
        fit_msmt_csd,
        "Multi-shell multi-tissue constrained spherical deconvolution (Jeurissen 2014)",
        ("jeurissen2014", "dhollander2016"),
        sh_order=order_of_shells,
        seconds_per_coefficient=14.5e-6,
    ),
    "tensor": ModelKind(
        tensor_odf,
        "Solid-angle orientation distribution of the diffusion tensor (Aganj 2010)",
        ("aganj2010",),
        seconds_per_coefficient=0.6e-6,
    ),
    "kurtosis": ModelKind(
        fit_kurtosis,
        "Orientation distribution of the diffusion kurtosis tensor (Henriques 2015)",
        ("jensen2005", "jensen2014", "henriques2015", "veraart2013"),
        seconds_per_coefficient=4.7e-6,
    ),
    "csa": ModelKind(
        fit_csa,
        "Constant-solid-angle Q-ball imaging of one shell (Aganj 2010)",
        ("aganj2010", "descoteaux2007"),
        sh_order=order_of_shell,
    ),
    "opdt": ModelKind(
        fit_opdt,
        "Orientation probability density transform of one shell (Tristan-Vega 2010)",
        ("tristanvega2010", "descoteaux2007"),
        sh_order=order_of_shell,
    ),
    "gqi": ModelKind(
        fit_gqi,
        "Generalised q-sampling imaging (Yeh 2010)",
        ("yeh2010", "garyfallidis2012"),
    ),
    "rumba": ModelKind(
        fit_rumba,
        "Robust and unbiased model-based spherical deconvolution (Canales-Rodriguez 2015)",
        ("canalesrodriguez2015",),
        seconds_per_coefficient=104e-6,
    ),
    "precomputed": ModelKind(
        fit_precomputed,
        "Orientation distributions from other software, converted to this basis and these axes",
        (),
        sh_order=order_of_file,
    ),
}

_NO_FILES: Mapping[str, Path] = MappingProxyType({})


def fit_model(
    dwi: Dwi,
    mask: NDArray[np.bool_],
    tensor: TensorFit,
    config: ModelConfig,
    n_threads: int,
    files: Mapping[str, Path] = _NO_FILES,
) -> ModelFit:
    """Fit the configured model inside a mask.

    Parameters
    ----------
    dwi : Dwi
        The diffusion-weighted image.
    mask : ndarray of bool, shape (X, Y, Z)
        Voxels to fit.
    tensor : TensorFit
        Tensor fit, which some models build on.
    config : ModelConfig
        Section ``model`` of the configuration.
    n_threads : int
        Number of threads; it does not affect the result.
    files : mapping of str to Path
        Files named in the section, see `FitInput`.

    Raises
    ------
    TractographyError
        If the gradients, files or data are not suitable for the model.
    """
    return MODELS[config.kind].fit(FitInput(dwi, mask, tensor, n_threads, files), config)

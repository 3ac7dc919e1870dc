"""Inputs and results of diffusion models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from dipy.reconst.dti import fractional_anisotropy, mean_diffusivity
from numpy.typing import NDArray

from bids_tractography.core.dwi import Dwi
from bids_tractography.core.fodf import AXES, sh_basis, sh_order_of


@dataclass(frozen=True, eq=False)
class TensorFit:
    """A diffusion tensor fit.

    Parameters
    ----------
    eigenvalues_mm2_s : ndarray, shape (X, Y, Z, 3)
        Largest first; zero outside the brain.
    eigenvectors : ndarray, shape (X, Y, Z, 3, 3)
        Eigenvectors as columns, in RAS+ scanner axes; the component of largest magnitude of each
        is positive.
    shells_s_mm2 : tuple of float
        Mean b-values of the shells that the tensor was fitted to.
    """

    eigenvalues_mm2_s: NDArray[np.float32]
    eigenvectors: NDArray[np.float32]
    shells_s_mm2: tuple[float, ...]

    @property
    def fa(self) -> NDArray[np.float32]:
        """Fractional anisotropy, 0 to 1."""
        return np.asarray(fractional_anisotropy(self.eigenvalues_mm2_s), np.float32)

    @property
    def md(self) -> NDArray[np.float32]:
        """Mean diffusivity in mm²/s."""
        return np.asarray(mean_diffusivity(self.eigenvalues_mm2_s), np.float32)

    @property
    def ad(self) -> NDArray[np.float32]:
        """Axial diffusivity in mm²/s."""
        return self.eigenvalues_mm2_s[..., 0]

    @property
    def rd(self) -> NDArray[np.float32]:
        """Radial diffusivity in mm²/s."""
        return np.asarray(self.eigenvalues_mm2_s[..., 1:].mean(axis=-1), np.float32)

    @property
    def v1(self) -> NDArray[np.float32]:
        """Principal direction: unit vectors in RAS+ scanner axes, shape (X, Y, Z, 3)."""
        return self.eigenvectors[..., 0]

    @property
    def record(self) -> dict[str, Any]:
        """Parameters of the fit for the sidecars, JSON values."""
        return {"fit_method": "wls", "shells_s_mm2": list(self.shells_s_mm2)}


@dataclass(frozen=True, eq=False)
class FitInput:
    """Inputs of every model.

    Parameters
    ----------
    dwi : Dwi
        The diffusion-weighted image.
    mask : ndarray of bool, shape (X, Y, Z)
        Voxels to fit.
    tensor : TensorFit
        Tensor fit, which some models build on.
    n_threads : int
        Number of threads; it does not affect the result.
    files : mapping of str to Path
        Files named in the model's section, by key relative to the section (``response.wm``); the
        key of the section itself is ``""``.
    """

    dwi: Dwi
    mask: NDArray[np.bool_]
    tensor: TensorFit
    n_threads: int
    files: Mapping[str, Path] = field(default_factory=dict)


PROBES: NDArray[np.float64] = AXES[::10]
"""Directions of single fibres that a model with a response is tried on, shape (n, 3)."""


def single_fibre_peak(coefficients: NDArray[np.float64]) -> float:
    """Return the peak of what a model makes of the noise-free signal of its own response.

    It is not that of a delta function of limited order, which constraints on negative amplitudes
    lower to a third.

    Parameters
    ----------
    coefficients : ndarray, shape (n, C)
        fODFs of single fibres along `PROBES`. Their peaks differ by under 1 % between directions.
    """
    basis = sh_basis(sh_order_of(coefficients.shape[1]), PROBES)
    return float(np.einsum("nc,nc->n", coefficients, basis).mean())


@dataclass(frozen=True, eq=False)
class ModelFit:
    """A fitted fODF with its provenance.

    Parameters
    ----------
    coefficients : ndarray of float32, shape (X, Y, Z, C)
        Spherical harmonics in MRtrix3's basis and RAS+ scanner axes.
    record : dict
        Resolved parameters for the sidecar, JSON values.
    maps : mapping of str to ndarray of float32, shape (X, Y, Z)
        Other scalar maps.
    figures : mapping of str to float
        Measurements to check for plausibility, see `checks.QUANTITIES`.
    warnings : tuple of str
        Doubts about the fit.
    fractions : mapping of str to ndarray of float32, shape (X, Y, Z), or None
        Volume fractions ``wm``, ``gm`` (if there are three tissues) and ``csf``, whose sum is 1;
        None if the model does not provide any.
    """

    coefficients: NDArray[np.float32]
    record: dict[str, Any]
    maps: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    fractions: Mapping[str, NDArray[np.float32]] | None = None

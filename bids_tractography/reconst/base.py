"""What a model is given and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from dipy.reconst.dti import fractional_anisotropy, mean_diffusivity
from numpy.typing import NDArray

from bids_tractography.core.dwi import Dwi


@dataclass(frozen=True, eq=False)
class TensorFit:
    """A fitted tensor.

    Parameters
    ----------
    eigenvalues_mm2_s : ndarray, shape (X, Y, Z, 3)
        Largest first; zero outside the brain.
    eigenvectors : ndarray, shape (X, Y, Z, 3, 3)
        Columns belong to the eigenvalues; RAS+ scanner axes. Of each the component of largest
        magnitude is positive.
    shells_s_mm2 : tuple of float
        Mean b-values of the shells that were used.
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
        """Principal direction, unit vectors in RAS+ scanner axes, shape (X, Y, Z, 3)."""
        return self.eigenvectors[..., 0]

    @property
    def record(self) -> dict[str, Any]:
        """What the sidecars tell about the fit."""
        return {"fit_method": "wls", "shells_s_mm2": list(self.shells_s_mm2)}


@dataclass(frozen=True, eq=False)
class FitInput:
    """What every model is fitted to.

    Parameters
    ----------
    dwi : Dwi
    mask : ndarray of bool, shape (X, Y, Z)
        Voxels to fit.
    tensor : TensorFit
        For models that build on it.
    n_threads : int
        Changes the time, not the result.
    files : mapping of str to Path
        Files that the model's section names, by key relative to the section (``response.wm``);
        the section itself is ``""``.
    """

    dwi: Dwi
    mask: NDArray[np.bool_]
    tensor: TensorFit
    n_threads: int
    files: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ModelFit:
    """A fitted fODF and what has to be told about it.

    Parameters
    ----------
    coefficients : ndarray of float32, shape (X, Y, Z, C)
        Spherical harmonics, MRtrix3's basis, RAS+ scanner axes.
    record : dict
        Resolved parameters for the sidecar, JSON values.
    maps : mapping of str to ndarray of float32, shape (X, Y, Z)
        Further scalar maps.
    figures : mapping of str to float
        Measurements to be held against what is plausible, see `checks.QUANTITIES`.
    warnings : tuple of str
        What is doubtful about the fit.
    fractions : mapping of str to ndarray of float32, shape (X, Y, Z), or None
        Volume fractions ``wm``, ``gm`` (of three tissues) and ``csf``, which sum to one; None if
        the model has none.
    """

    coefficients: NDArray[np.float32]
    record: dict[str, Any]
    maps: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    fractions: Mapping[str, NDArray[np.float32]] | None = None

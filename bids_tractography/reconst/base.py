"""What a model is given and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from bids_tractography.dwi import Dwi
    from bids_tractography.reconst.tensor import TensorFit


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

"""Closed-form orientation distributions of one shell: CSA and OPDT.

Both expand a function of the signal in spherical harmonics with Laplace-Beltrami regularisation
(Descoteaux 2007) and apply the Funk-Radon transform, which scales all harmonics of one order
equally.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import eval_legendre

from bids_tractography.config.model import CsaModelConfig, OpdtModelConfig
from bids_tractography.core.dwi import Dwi
from bids_tractography.core.fodf import orders_of, sh_basis, without_floor
from bids_tractography.reconst.base import FitInput, ModelFit
from bids_tractography.reconst.shells import choose_order, choose_shell
from bids_tractography.reconst.voxels import map_voxels

# Attenuations outside these bounds are noise, for which the double logarithm is undefined.
_ATTENUATION = (1e-3, 1 - 1e-3)

Signals = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Transforms:
    """Matrices from values on the shell to harmonics, shape (V, C).

    Parameters
    ----------
    funk_radon : ndarray
        Integral over great circles, divided by 2π.
    laplacian : ndarray
        The same integral of the Laplace-Beltrami operator.
    """

    funk_radon: NDArray[np.float64]
    laplacian: NDArray[np.float64]


def fit_csa(given: FitInput, config: CsaModelConfig) -> ModelFit:
    """Estimate the distribution in constant solid angle, which integrates to one (Aganj 2010).

    Raises
    ------
    GradientError
        If no shell is suitable.
    """

    def expand(attenuation: Signals, transforms: _Transforms) -> Signals:
        inner = np.log(-np.log(attenuation.clip(*_ATTENUATION)))
        coefficients = inner @ transforms.laplacian / (8 * np.pi)
        coefficients[:, 0] = 1 / np.sqrt(4 * np.pi)
        return np.asarray(coefficients)

    return _fit(given, config, expand)


def fit_opdt(given: FitInput, config: OpdtModelConfig) -> ModelFit:
    """Estimate the orientation probability density transform (Tristan-Vega 2010).

    Raises
    ------
    GradientError
        If no shell is suitable.
    """

    def expand(attenuation: Signals, transforms: _Transforms) -> Signals:
        decay = -np.log(attenuation)
        radial = 4 * decay * (1.5 - decay) * attenuation
        return np.asarray(radial @ transforms.funk_radon - attenuation @ transforms.laplacian)

    return _fit(given, config, expand)


def _fit(
    given: FitInput,
    config: CsaModelConfig | OpdtModelConfig,
    expand: Callable[[Signals, _Transforms], Signals],
) -> ModelFit:
    dwi = given.dwi
    shell = choose_shell(dwi.gradients.shells, config.shell_s_mm2)
    order = choose_order(shell.n_directions, config.sh_order)
    transforms = _transforms(dwi, shell.volumes, order, config.smooth)
    b0_volumes = dwi.gradients.b0_volumes

    def fit(signals: Signals) -> Signals:
        positive = np.maximum(signals, dwi.min_signal)
        attenuation = positive[:, shell.volumes] / positive[:, b0_volumes].mean(
            axis=1, keepdims=True
        )
        coefficients = expand(attenuation, transforms)
        return without_floor(coefficients) if config.isotropic_part == "drop" else coefficients

    record = {
        "shell_s_mm2": shell.b_s_mm2,
        "directions": shell.n_directions,
        "sh_order": order,
        "smooth": config.smooth,
        "isotropic_part": config.isotropic_part,
    }
    return ModelFit(map_voxels(fit, dwi.data, given.mask, given.n_threads), record)


def _transforms(dwi: Dwi, volumes: NDArray[np.intp], order: int, smooth: float) -> _Transforms:
    basis = sh_basis(order, dwi.gradients.directions[volumes])
    degrees = orders_of(order)
    laplacian = -degrees * (degrees + 1.0)
    penalty = np.diag(np.sqrt(smooth) * laplacian)
    to_sh = np.linalg.pinv(np.vstack([basis, penalty]))[:, : len(basis)].T
    funk_radon = to_sh * eval_legendre(degrees, 0)
    return _Transforms(funk_radon, funk_radon * laplacian)

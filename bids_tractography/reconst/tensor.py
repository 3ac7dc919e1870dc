"""Diffusion tensor: fit, and orientation distribution."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bids_tractography.config.model import TensorMapsConfig, TensorModelConfig
from bids_tractography.core.dwi import Dwi
from bids_tractography.core.fodf import AXES, from_axes
from bids_tractography.core.gradients import count_axes
from bids_tractography.errors import GradientError
from bids_tractography.reconst.base import FitInput, ModelFit, TensorFit
from bids_tractography.reconst.kernels.tensor import weighted_tensors
from bids_tractography.reconst.voxels import map_voxels

_MIN_DIRECTIONS = 6
_MIN_DECAY = 1e-6  # minimum of b D that differs from 0


def fit_tensor(
    dwi: Dwi, mask: NDArray[np.bool_], config: TensorMapsConfig, n_threads: int
) -> TensorFit:
    """Fit the tensor by weighted least squares (Chung 2006) to b=0 and the inner shells.

    Parameters
    ----------
    dwi : Dwi
        The diffusion-weighted image.
    mask : ndarray of bool, shape (X, Y, Z)
        Voxels to fit.
    config : TensorMapsConfig
        Maximum b-value.
    n_threads : int
        Number of threads; it does not affect the result.

    Raises
    ------
    GradientError
        If there are fewer than six directions, or they do not determine a tensor.
    """
    shells = dwi.gradients.shells
    used = [shell for shell in shells if shell.b_s_mm2 <= config.max_b_s_mm2] or [shells[0]]
    weighted = np.concatenate([shell.volumes for shell in used])
    n_directions = count_axes(dwi.gradients.directions[weighted])
    if n_directions < _MIN_DIRECTIONS:
        raise GradientError(
            f"the tensor requires {_MIN_DIRECTIONS} distinct directions, but the shells up to "
            f"b = {config.max_b_s_mm2:g} s/mm² have {n_directions}.",
            "Raise tensor.max_b_s_mm2.",
        )
    parameters = map_voxels(tensor_fitter(dwi, weighted), dwi.data, mask, n_threads)
    return TensorFit(
        eigenvalues_mm2_s=parameters[..., :3],
        eigenvectors=parameters[..., 3:].reshape(*mask.shape, 3, 3),
        shells_s_mm2=tuple(shell.b_s_mm2 for shell in used),
    )


def tensor_fitter(
    dwi: Dwi, weighted: NDArray[np.intp]
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Return a function from signals (n, V) to eigenvalues and eigenvectors (n, 12).

    Parameters
    ----------
    dwi : Dwi
        Gradients, and the lower bound of the signal.
    weighted : ndarray of int
        Diffusion-weighted volumes to fit to, in addition to b=0.

    Raises
    ------
    GradientError
        If the directions do not determine a tensor.
    """
    gradients = dwi.gradients
    volumes = np.sort(np.concatenate([gradients.b0_volumes, weighted]))
    b_s_mm2 = np.where(np.isin(volumes, weighted), gradients.bvals[volumes], 0.0)
    x, y, z = gradients.directions[volumes].T
    decays = b_s_mm2 * [x * x, 2 * x * y, y * y, 2 * x * z, 2 * y * z, z * z]
    scale = decays.max()
    design = np.concatenate([-decays / scale, np.ones((1, len(volumes)))]).T
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise GradientError(
            "the directions do not determine a tensor: they are on a cone or in a plane.",
            "Use a scheme whose directions cover the sphere.",
        )
    basis, triangle = np.linalg.qr(design)
    rows = np.ascontiguousarray(basis.T)
    to_tensor = np.ascontiguousarray(np.linalg.inv(triangle)[:6] / scale)

    def fit(signals: NDArray[np.float64]) -> NDArray[np.float64]:
        fitted: NDArray[np.float64] = weighted_tensors(
            np.ascontiguousarray(signals), volumes, rows, to_tensor, dwi.min_signal,
            _MIN_DECAY / scale,
        )  # fmt: skip
        return fitted

    return fit


def tensor_odf(given: FitInput, config: TensorModelConfig) -> ModelFit:
    """Expand the tensor's orientation distribution in spherical harmonics.

    It is the distribution in constant solid angle, ``|D|^(-1/2) (uᵀ D⁻¹ u)^(-3/2) / 4π`` (Aganj
    2010), which integrates to one.
    """
    tensor, to_sh = given.tensor, from_axes(config.sh_order)
    flat = np.concatenate(
        [tensor.eigenvalues_mm2_s, tensor.eigenvectors.reshape(*given.mask.shape, 9)], axis=-1
    )

    def expand(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        eigenvalues = np.maximum(parameters[:, :3], 1e-5)
        along = AXES @ parameters[:, 3:].reshape(-1, 3, 3)
        quadratic = ((along**2) / eigenvalues[:, None, :]).sum(axis=2)
        odf = quadratic**-1.5 / (4 * np.pi * np.sqrt(eigenvalues.prod(axis=1)))[:, None]
        return np.asarray(odf @ to_sh)

    return ModelFit(map_voxels(expand, flat, given.mask, given.n_threads), dict(tensor.record))

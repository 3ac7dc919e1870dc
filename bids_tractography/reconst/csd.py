"""Single-shell constrained spherical deconvolution (Tournier 2007) of many voxels at a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from dipy.data import small_sphere
from numpy.polynomial import legendre
from numpy.typing import NDArray

from bids_tractography.config.model import AutoResponseConfig, CsdModelConfig, GivenResponseConfig
from bids_tractography.core.dwi import Dwi
from bids_tractography.core.fodf import n_coefficients, sh_basis
from bids_tractography.core.gradients import Shell
from bids_tractography.core.morphology import depth_mm
from bids_tractography.errors import DataError
from bids_tractography.reconst.base import (
    PROBES,
    FitInput,
    ModelFit,
    TensorFit,
    single_fibre_peak,
)
from bids_tractography.reconst.kernels.csd import constrained_deconvolution, padded
from bids_tractography.reconst.shells import choose_order, choose_shell
from bids_tractography.reconst.tensor import tensor_fitter
from bids_tractography.reconst.voxels import map_voxels

_MAX_ITERATIONS = 50
_QUADRATURE_POINTS = 200
# Required by order 4; a distribution of order 2 has a single peak, as a tensor has.
_MIN_DIRECTIONS = n_coefficients(4)


@dataclass(frozen=True)
class Response:
    """Response of a single-fibre voxel as an axially symmetric tensor.

    Parameters
    ----------
    eigenvalues_mm2_s : tuple of float
        Eigenvalues in mm²/s, largest first.
    s0 : float
        Signal without diffusion weighting.
    voxels : int or None
        Number of voxels that it was estimated from.
    """

    eigenvalues_mm2_s: tuple[float, float, float]
    s0: float
    voxels: int | None

    def signals(
        self, directions: NDArray[np.float64], b_s_mm2: float, fibres: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the noise-free signals of fibres.

        Parameters
        ----------
        directions : ndarray, shape (V, 3)
            Unit vectors along which the signal is measured.
        b_s_mm2 : float
        fibres : ndarray, shape (n, 3)
            Unit vectors.

        Returns
        -------
        ndarray, shape (n, V)
        """
        first, radial, _ = self.eigenvalues_mm2_s
        cosines = np.einsum("ni,vi->nv", fibres, directions)
        return np.asarray(self.s0 * np.exp(-b_s_mm2 * (radial + (first - radial) * cosines**2)))

    @property
    def figures(self) -> dict[str, float]:
        """Measurements to check for plausibility."""
        first, radial, _ = self.eigenvalues_mm2_s
        return {"response_axial_mm2_s": first, "response_ratio": first / radial}


def fit_csd(given: FitInput, config: CsdModelConfig) -> ModelFit:
    """Estimate the response and deconvolve the signal of one shell.

    Raises
    ------
    GradientError
        If no shell is suitable.
    DataError
        If the response cannot be estimated.
    """
    dwi = given.dwi
    shell = choose_shell(dwi.gradients.shells, config.shell_s_mm2)
    order = choose_order(shell.n_directions, config.sh_order)
    response = (
        _given(config.response)
        if isinstance(config.response, GivenResponseConfig)
        else estimate_response(dwi, given.mask, given.tensor, shell, config.response)
    )
    directions = dwi.gradients.directions[shell.volumes]
    problem = _problem(directions, shell.b_s_mm2, response, order, config)

    def fit(signals: NDArray[np.float64]) -> NDArray[np.float64]:
        return deconvolve(signals[:, shell.volumes], problem)

    record: dict[str, Any] = {
        "shell_s_mm2": shell.b_s_mm2,
        "directions": shell.n_directions,
        "sh_order": order,
        "response": {
            "eigenvalues_mm2_s": list(response.eigenvalues_mm2_s),
            "s0": response.s0,
            "voxels": response.voxels,
        },
        "single_fibre_peak": single_fibre_peak(
            deconvolve(response.signals(directions, shell.b_s_mm2, PROBES), problem)
        ),
        "positivity_weight": config.positivity_weight,
        "positivity_threshold": config.positivity_threshold,
    }
    coefficients = map_voxels(fit, dwi.data, given.mask, given.n_threads)
    return ModelFit(
        coefficients, record, figures=response.figures, warnings=tuple(_doubts(shell, order))
    )


def _doubts(shell: Shell, order: int) -> list[str]:
    """Warn if the directions of the shell do not determine more than a tensor does."""
    if shell.n_directions >= _MIN_DIRECTIONS and order > 2:
        return []
    return [
        f"the shell at b = {shell.b_s_mm2:.0f} s/mm² has {shell.n_directions} directions and the "
        f"fODF is of order {order}: constrained spherical deconvolution requires "
        f"{_MIN_DIRECTIONS} directions (order 4) to resolve crossings; otherwise it is not better "
        "than model: tensor."
    ]


def _given(config: GivenResponseConfig) -> Response:
    return Response(config.eigenvalues_mm2_s, config.s0, None)


def estimate_response(
    dwi: Dwi, mask: NDArray[np.bool_], tensor: TensorFit, shell: Shell, config: AutoResponseConfig
) -> Response:
    """Average the tensors of the voxels of highest FA, excluding the edge of the brain.

    Noise and motion cause high FA at the edge of the brain; the tensor of single-fibre voxels
    inside it is close to axially symmetric. The tensor is fitted again to b=0 and the shell to be
    deconvolved, because signals at other b-values do not extrapolate to it.

    Parameters
    ----------
    dwi : Dwi
        The diffusion-weighted image.
    mask : ndarray of bool, shape (X, Y, Z)
        Brain mask.
    tensor : TensorFit
        Tensor fit, for the FA.
    shell : Shell
        Shell to be deconvolved.
    config : AutoResponseConfig
        Number of voxels and distance from the edge.

    Raises
    ------
    DataError
        If no voxel is suitable, or the response is not that of a single fibre population.
    """
    inside = depth_mm(mask, dwi.grid) > config.erode_mm
    if np.count_nonzero(inside) < config.voxels:  # a thin phantom or a small crop
        inside = mask
    signal = dwi.mean_b0
    # An FA of almost 1 is a fit at its bounds rather than a bundle.
    candidates = inside & (tensor.fa < 0.99) & (signal > 0)
    voxels = np.argwhere(candidates)
    if len(voxels) == 0:
        raise DataError(
            "no voxel is suitable for estimating the response.",
            "Check the brain mask, or set model.response.",
        )
    # A stable sort makes the choice among equal values deterministic.
    best = np.argsort(-tensor.fa[candidates], kind="stable")[: config.voxels]
    chosen = tuple(voxels[best].T)
    fitted = tensor_fitter(dwi, shell.volumes)(dwi.data[chosen].astype(np.float64))
    first, second, third = fitted[:, :3].mean(axis=0)
    radial = float(second + third) / 2
    response = Response(
        (float(first), radial, radial), float(signal[chosen].mean(dtype=np.float64)), len(best)
    )
    if not (first > radial > 0 and np.isfinite(response.s0)):
        raise DataError(
            f"the estimated response is not that of a single fibre population: its eigenvalues "
            f"are {first:.2e} and {radial:.2e} mm²/s.",
            "Check the image, its gradients and the brain mask, or set model.response.",
        )
    return response


_Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Problem:
    """Matrices of a constrained deconvolution.

    Parameters
    ----------
    forward : ndarray, shape (V, C)
        Matrix from fODF coefficients to signals.
    positivity : ndarray, shape (N, C)
        Matrix from fODF coefficients to weighted amplitudes on the constraint's sphere.
    threshold : float
        Fraction of the mean amplitude below which amplitudes are driven to zero.
    """

    forward: NDArray[np.float64]
    positivity: NDArray[np.float64]
    threshold: float

    @cached_property
    def matrices(self) -> tuple[_Matrix, _Matrix, _Matrix, _Matrix, _Matrix]:
        """Arguments of `constrained_deconvolution` between the signals and the threshold."""
        n_terms = self.forward.shape[1]
        normal = self.forward.T @ self.forward
        # Regularisation, because fewer directions than coefficients do not determine them.
        normal += 1e-5 * np.trace(normal) / n_terms * np.eye(n_terms)
        first_guess: _Matrix = np.linalg.solve(normal, self.forward.T).T.astype(np.float64)
        return (
            padded(self.forward),
            padded(normal),
            padded(first_guess),
            padded(self.positivity),
            padded(self.positivity.T),
        )


def _problem(
    directions: NDArray[np.float64],
    b_s_mm2: float,
    response: Response,
    order: int,
    config: CsdModelConfig,
) -> _Problem:
    orders = np.arange(0, order + 1, 2)
    rotational = _rotational_harmonics(b_s_mm2, response, orders)
    # Convolution with the response scales all harmonics of one order equally (Healy 1998).
    forward = sh_basis(order, directions) * np.repeat(rotational, 2 * orders + 1)
    constraint = sh_basis(order, small_sphere.vertices)
    weight = (
        config.positivity_weight
        * n_coefficients(order)
        * rotational[0]
        / np.sqrt(len(constraint) * 362.0)
    )
    return _Problem(forward, weight * constraint, config.positivity_threshold)


def _rotational_harmonics(
    b_s_mm2: float, response: Response, orders: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Expand the signal of the response along z: one coefficient per order (Funk-Hecke)."""
    cosines, weights = legendre.leggauss(_QUADRATURE_POINTS)
    first, radial, _ = response.eigenvalues_mm2_s
    signal = response.s0 * np.exp(-b_s_mm2 * (radial + (first - radial) * cosines**2))
    polynomials = legendre.legvander(cosines, int(orders[-1]))[:, orders]
    return np.asarray(2 * np.pi * (weights * signal) @ polynomials)


def deconvolve(signals: NDArray[np.float64], problem: _Problem) -> NDArray[np.float64]:
    """Solve the constrained problem for many voxels at once.

    The iteration is that of Tournier (2007) as in DIPY's ``csdeconv``: each amplitude below the
    threshold gets a row that drives it to zero, until the set of rows does not change.

    Parameters
    ----------
    signals : ndarray, shape (n, V)
        Signals of the shell.
    problem : _Problem
        Matrices of the deconvolution.

    Returns
    -------
    ndarray, shape (n, C)
        fODF coefficients.
    """
    solved: NDArray[np.float64] = constrained_deconvolution(
        np.ascontiguousarray(signals), *problem.matrices, problem.threshold, _MAX_ITERATIONS
    )
    return solved

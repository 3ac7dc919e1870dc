"""Multi-shell multi-tissue constrained spherical deconvolution (Jeurissen 2014)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_tractography.config.model import MsmtCsdModelConfig, ResponseFilesConfig
from bids_tractography.core.fodf import axes_basis, n_coefficients, orders_of, sh_basis, sh_order_of
from bids_tractography.core.gradients import Gradients, count_axes
from bids_tractography.errors import DataError, GradientError
from bids_tractography.reconst.base import PROBES, FitInput, ModelFit, single_fibre_peak
from bids_tractography.reconst.kernels.multipliers import nonnegative_multipliers
from bids_tractography.reconst.responses import TissueResponses, estimate_responses, read_responses
from bids_tractography.reconst.shells import choose_order
from bids_tractography.reconst.voxels import map_voxels

Array = NDArray[np.float64]


def fit_msmt_csd(given: FitInput, config: MsmtCsdModelConfig) -> ModelFit:
    """Deconvolve the signal of all shells into a white-matter fODF and isotropic tissues.

    The solution is the least-squares fit under hard constraints: neither the fODF, on a set of
    axes, nor the other tissues may be negative.

    Raises
    ------
    GradientError
        If the shells cannot distinguish the tissues.
    DataError
        If responses are malformed or cannot be estimated.
    """
    gradients = given.dwi.gradients
    responses = _responses(given, config)
    order = choose_order(_count_directions(gradients), config.sh_order)
    order = min(order, 2 * (responses.wm.shape[1] - 1))
    forward = _forward(gradients, responses, order)
    n_wm = n_coefficients(order)
    solve = _Solver(forward, n_wm)
    values = map_voxels(solve, given.dwi.data, given.mask, given.n_threads)
    tissues = ("wm", *responses.isotropic)
    # Where a constraint is active, rounding may leave a value just below zero.
    amounts = np.maximum(np.concatenate([values[..., :1], values[..., n_wm:]], axis=-1), 0)
    total = amounts.sum(axis=-1)
    fractions = {
        tissue: np.divide(amounts[..., i], total, out=np.zeros_like(total), where=total > 0)
        for i, tissue in enumerate(tissues)
    }
    record: dict[str, Any] = {
        "shells_s_mm2": [shell.b_s_mm2 for shell in gradients.shells],
        "sh_order": order,
        "tissues": list(tissues),
        "responses": responses.record,
        "single_fibre_peak": single_fibre_peak(
            solve(sh_basis(order, PROBES) @ forward[:, :n_wm].T)[:, :n_wm]
        ),
    }
    return ModelFit(
        np.ascontiguousarray(values[..., :n_wm]),
        record,
        figures=responses.figures([shell.b_s_mm2 for shell in gradients.shells]),
        warnings=responses.warnings,
        fractions=fractions,
    )


def order_of_shells(
    config: MsmtCsdModelConfig, gradients: Gradients, files: Mapping[str, Path]
) -> int:
    """Return the order that the directions of all shells determine, see `ModelKind.sh_order`."""
    _check_shells(config, len(gradients.shells))
    return choose_order(_count_directions(gradients), config.sh_order)


def _count_directions(gradients: Gradients) -> int:
    volumes = np.concatenate([shell.volumes for shell in gradients.shells])
    return count_axes(gradients.directions[volumes])


def _check_shells(config: MsmtCsdModelConfig, n_shells: int) -> None:
    if config.tissues == "wm_gm_csf" and n_shells < 2:
        raise GradientError(
            "three tissues require two shells in addition to b=0; there is one.",
            "Set model.tissues to wm_csf, or use model.kind=csd.",
        )


def _responses(given: FitInput, config: MsmtCsdModelConfig) -> TissueResponses:
    n_shells = len(given.dwi.gradients.shells)
    _check_shells(config, n_shells)
    if not isinstance(config.response, ResponseFilesConfig):
        three = config.tissues == "wm_gm_csf" or (config.tissues == "auto" and n_shells > 1)
        return estimate_responses(given.dwi, given.mask, given.tensor, grey_matter=three)
    names = ["wm", "csf"] if config.tissues == "wm_csf" else ["wm", "gm", "csf"]
    files = {name: given.files.get(f"response.{name}") for name in names}
    if files.get("gm") is None:
        if config.tissues == "wm_gm_csf":
            raise DataError(
                "three tissues require a grey-matter response.",
                "Set model.response.gm, or set model.tissues to wm_csf.",
            )
        files.pop("gm", None)
    if n_shells + 1 < len(files):
        raise GradientError(
            f"{len(files)} tissues require {len(files)} b-values including b=0; there are "
            f"{n_shells + 1}.",
            "Set model.tissues to wm_csf, or use model.kind=csd.",
        )
    return read_responses({k: path for k, path in files.items() if path}, n_shells)


def _forward(gradients: Gradients, responses: TissueResponses, order: int) -> Array:
    """Return the matrix from tissue coefficients to signals, shape (V, C + tissues - 1)."""
    degrees = orders_of(order)
    matrix = np.zeros((len(gradients.bvals), len(degrees) + len(responses.isotropic)))
    groups = [gradients.b0_volumes, *(shell.volumes for shell in gradients.shells)]
    # Convolution with a zonal response scales all harmonics of one order equally (Healy 1998).
    zonal_degrees = 2 * np.arange(responses.wm.shape[1])
    rotational = responses.wm * np.sqrt(4 * np.pi / (2 * zonal_degrees + 1))
    for shell, volumes in enumerate(groups):
        directions = gradients.directions[volumes]
        if shell == 0:  # b=0 does not depend on the direction
            matrix[volumes, 0] = rotational[0, 0] / np.sqrt(4 * np.pi)
        else:
            scale = rotational[shell, degrees // 2]
            matrix[volumes, : len(degrees)] = sh_basis(order, directions) * scale
        for column, amounts in enumerate(responses.isotropic.values(), start=len(degrees)):
            # An isotropic tissue has a constant harmonic only, and so has its response.
            matrix[volumes, column] = amounts[shell]
    return matrix


class _Solver:
    """Constrained least squares for blocks of voxels, solved through the dual problem.

    Parameters
    ----------
    forward : ndarray, shape (V, C)
        Matrix from coefficients to signals.
    n_wm : int
        Number of fODF coefficients; those of the isotropic tissues follow.
    """

    def __init__(self, forward: Array, n_wm: int) -> None:
        n_terms = forward.shape[1]
        amplitudes = axes_basis(sh_order_of(n_wm))
        constraints = np.zeros((len(amplitudes) + n_terms - n_wm, n_terms))
        constraints[: len(amplitudes), :n_wm] = amplitudes
        constraints[len(amplitudes) :, n_wm:] = np.eye(n_terms - n_wm)
        normal = forward.T @ forward
        # Orders that the shells do not determine are set to zero rather than left arbitrary.
        normal += 1e-12 * normal.diagonal().max() * np.eye(n_terms)
        self._target = np.linalg.solve(normal, forward.T).T
        self._constraints = constraints
        self._back = np.linalg.solve(normal, constraints.T).T
        self._gram = np.ascontiguousarray(constraints @ self._back.T)

    def __call__(self, signals: Array) -> Array:
        free = signals @ self._target
        multipliers = nonnegative_multipliers(
            self._gram, free @ self._constraints.T, self._constraints.shape[1]
        )
        return np.asarray(free + multipliers @ self._back)

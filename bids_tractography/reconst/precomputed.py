"""fODFs from other software, converted from another basis or from image axes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from dipy.core.geometry import cart2sphere
from dipy.reconst.shm import real_sh_descoteaux, real_sh_tournier
from numpy.typing import NDArray

from bids_tractography.config.model import PrecomputedModelConfig
from bids_tractography.core.fodf import AXES, from_axes, sh_order_of
from bids_tractography.core.gradients import Gradients
from bids_tractography.core.images import Grid, nearest_rotation, read_image, read_layout
from bids_tractography.errors import DataError, GridError
from bids_tractography.machine.files import read_json_file
from bids_tractography.reconst.base import FitInput, ModelFit
from bids_tractography.reconst.voxels import map_voxels

# Names in DIPY, MRtrix3, QSIRecon and the drafts of BEP016, in lower case.
_BASES = {
    "mrtrix": "tournier07",
    "mrtrix3": "tournier07",
    "tournier": "tournier07",
    "tournier07": "tournier07",
    "tournier07_legacy": "tournier07_legacy",
    "dipy": "descoteaux07_legacy",
    "descoteaux": "descoteaux07_legacy",
    "descoteaux07_legacy": "descoteaux07_legacy",
    "descoteaux07": "descoteaux07",
}
_AXES = {"xyz": "scanner", "scanner": "scanner", "ijk": "image", "image": "image"}
_BASIS_KEYS = ("sphericalharmonicbasis", "sphericalharmonicsbasis")
_AXES_KEYS = ("reference", "referenceaxes")


def fit_precomputed(given: FitInput, config: PrecomputedModelConfig) -> ModelFit:
    """Read spherical harmonics and convert them to MRtrix3's basis and scanner axes.

    The conversion is exact, because both bases and all their rotations span the same functions.

    Raises
    ------
    GridError
        If the image is not on the grid of the DWI.
    DataError
        If the number of coefficients is not that of even harmonics, or neither the configuration
        nor the sidecar states the basis.
    """
    path = given.files[""]
    image = read_image(path, ndim=4)
    if not image.grid.matches(given.dwi.grid):
        raise GridError(
            f"{path}: the fODF is not on the grid of the DWI: {image.grid.describe()}, but the DWI "
            f"{given.dwi.grid.describe()}.",
            "Provide the fODF that was computed from this DWI run.",
        )
    order = _order_of(path, image.data.shape[3])
    basis, axes = _conventions(path, config)
    convert = conversion(order, basis, axes, image.grid)
    coefficients = map_voxels(
        lambda values: values @ convert, image.data, given.mask, given.n_threads
    )
    return ModelFit(coefficients, {"basis": basis, "axes": axes, "sh_order": order})


def order_of_file(
    config: PrecomputedModelConfig, gradients: Gradients, files: Mapping[str, Path]
) -> int:
    """Return the order of the image, see `ModelKind.sh_order`."""
    return _order_of(files[""], read_layout(files[""], ndim=4)[1][3])


def _order_of(path: Path, n_coefficients: int) -> int:
    try:
        return sh_order_of(n_coefficients)
    except ValueError as error:
        raise DataError(
            f"{path}: {error} (1, 6, 15, 28, 45, ...).", "Provide even spherical harmonics."
        ) from None


def conversion(order: int, basis: str, axes: str, grid: Grid) -> NDArray[np.float64]:
    """Return the matrix that converts rows of coefficients to our basis and axes.

    Parameters
    ----------
    order : int
        Maximum order of the harmonics.
    basis : str
        ``tournier07`` or ``descoteaux07``, each optionally with ``_legacy``.
    axes : str
        ``scanner``, or ``image`` for the axes of the voxels as stored in the file.
    grid : Grid
        Grid of the file.

    Returns
    -------
    ndarray, shape (C, C)
        Multiply it by a row of coefficients from the left.
    """
    turn = nearest_rotation(grid.stored_affine) if axes == "image" else np.eye(3)
    _, theta, phi = cart2sphere(*(AXES @ turn).T)
    family = real_sh_tournier if basis.startswith("tournier") else real_sh_descoteaux
    with warnings.catch_warnings():  # DIPY warns about its own default
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        theirs, _, _ = family(order, theta, phi, legacy=basis.endswith("_legacy"))
    matrix: NDArray[np.float64] = theirs.T @ from_axes(order)
    return matrix


def _conventions(path: Path, config: PrecomputedModelConfig) -> tuple[str, str]:
    sidecar = _sidecar(path)
    basis, axes = str(config.basis), str(config.axes)
    if basis == "auto":
        written = _find(sidecar, _BASIS_KEYS)
        basis = _BASES.get(written.lower(), "")
        if not basis:
            stated = f"its sidecar states {written!r}" if written else "no sidecar states it"
            raise DataError(
                f"{path}: the basis of the spherical harmonics is unknown ({stated}).",
                "Set model.basis: tournier07 for MRtrix3, descoteaux07_legacy for DIPY.",
            )
    if axes == "auto":
        by_program = "scanner" if basis.startswith("tournier") else "image"
        axes = _AXES.get(_find(sidecar, _AXES_KEYS).lower(), by_program)
    return basis, axes


def _sidecar(path: Path) -> Any:
    sidecar = path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")
    if not sidecar.exists():
        return {}
    return read_json_file(sidecar, remedy="Correct it, or set model.basis and model.axes.")


def _find(sidecar: Any, keys: tuple[str, ...]) -> str:
    return next((str(value) for key, value in _walk(sidecar) if key.lower() in keys), "")


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key, item
            yield from _walk(item)

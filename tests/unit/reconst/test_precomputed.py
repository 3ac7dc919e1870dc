"""fODFs made elsewhere, in other bases and axes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from conftest import SHARED_DATA
from dipy.data import get_sphere
from dipy.reconst.shm import sf_to_sh
from scipy.spatial.transform import Rotation
from signals import random_directions, scheme

from bids_tractography.config.model import PrecomputedModelConfig
from bids_tractography.core.dwi import Dwi
from bids_tractography.core.fodf import sh_basis
from bids_tractography.core.images import Grid, read_image
from bids_tractography.errors import DataError, GridError, NoInputError
from bids_tractography.reconst import fit_model
from bids_tractography.reconst.base import ModelFit, TensorFit

SPHERE = get_sphere(name="repulsion724")
PHANTOM = SHARED_DATA / "peers" / "mrtrix_sift_phantom"
SHAPE = (4, 3, 5)
TURN = Rotation.from_euler("xyz", [14, -9, 22], degrees=True).as_matrix()
ORDERS = {
    "LAS, oblique": TURN * [-2, 2.5, 3],
    "RAS, oblique": TURN * [2, 2.5, 3],
    "SPR, permuted": TURN[:, [2, 1, 0]] * [3, -2.5, 2],
}


def grid_of(linear: Any, shape: tuple[int, int, int] = SHAPE) -> Grid:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = linear, (-7, 11, 3)
    return Grid(shape, affine)


def fit(path: Path, grid: Grid, threads: int = 1, **config: Any) -> ModelFit:
    gradients = scheme((1000, 6))
    dwi = Dwi(np.ones((*grid.shape, len(gradients.bvals)), np.float32), grid, gradients)
    zeros = np.zeros((*grid.shape, 3), np.float32)
    tensor = TensorFit(zeros, np.zeros((*grid.shape, 3, 3), np.float32), (1000.0,))
    model = PrecomputedModelConfig(path=path, **config)
    return fit_model(dwi, np.ones(grid.shape, bool), tensor, model, threads, {"": path})


def known() -> Any:
    """Coefficients (in RAS+ order) without any symmetry, in our basis and scanner axes."""
    return np.random.default_rng(2).normal(size=(*SHAPE, 45)).astype(np.float32)


def write(path: Path, coefficients: Any, grid: Grid, **sidecar: Any) -> Path:
    nib.save(nib.Nifti1Image(np.asarray(coefficients, np.float32), grid.stored_affine), path)
    if sidecar:
        path.with_name(path.name.split(".")[0] + ".json").write_text(json.dumps(sidecar))
    return path


def as_dipy(stored: Any, linear: Any, basis: str, axes: str, legacy: bool) -> Any:
    """Express coefficients, voxels in stored order, in DIPY's words by DIPY's own functions."""
    unit = linear / np.linalg.norm(linear, axis=0)
    in_scanner = SPHERE.vertices @ unit.T if axes == "image" else SPHERE.vertices
    amplitudes = stored @ sh_basis(8, in_scanner).T
    return sf_to_sh(amplitudes, SPHERE, sh_order_max=8, basis_type=basis, legacy=legacy)


@pytest.mark.filterwarnings("ignore:The legacy:PendingDeprecationWarning")
@pytest.mark.parametrize(
    ("order", "axes"),
    [
        ("LAS, oblique", "image"),
        ("RAS, oblique", "image"),
        ("SPR, permuted", "image"),
        ("SPR, permuted", "scanner"),
    ],
)
@pytest.mark.parametrize("basis", ["descoteaux07", "tournier07"])
@pytest.mark.parametrize("legacy", [True, False])
def test_an_fodf_written_in_another_basis_and_in_image_axes_comes_back_equal(
    tmp_path: Path, order: str, axes: str, basis: str, legacy: bool
) -> None:
    linear = ORDERS[order]
    grid = grid_of(linear)
    stored = known()
    theirs = as_dipy(stored, linear, basis, axes, legacy)
    path = write(tmp_path / "odf.nii.gz", theirs, grid)
    word = basis + ("_legacy" if legacy else "")
    fitted = fit(path, grid, basis=word, axes=axes)
    expected = grid.from_stored(stored)
    np.testing.assert_allclose(fitted.coefficients, expected, atol=2e-5)
    assert fitted.record == {"basis": word, "axes": axes, "sh_order": 8}
    assert fit(path, grid, 2, basis=word, axes=axes).coefficients.tobytes() == (
        fitted.coefficients.tobytes()
    )


@pytest.mark.parametrize(
    ("sidecar", "basis", "axes"),
    [
        ({"OrientationEncoding": {"SphericalHarmonicBasis": "MRtrix3"}}, "tournier07", "scanner"),
        (
            {"OrientationEncoding": {"SphericalHarmonicsBasis": "mrtrix3", "Reference": "ijk"}},
            "tournier07",
            "image",
        ),
        ({"SphericalHarmonicBasis": "DIPY"}, "descoteaux07_legacy", "image"),
        (
            {"sphericalHarmonicBasis": "DESCOTEAUX", "referenceAxes": "xyz"},
            "descoteaux07_legacy",
            "scanner",
        ),
        ({"Model": {"SphericalHarmonicBasis": "descoteaux07"}}, "descoteaux07", "image"),
        ({"SphericalHarmonicBasis": "tournier07_legacy"}, "tournier07_legacy", "scanner"),
    ],
)
def test_the_sidecar_tells_basis_and_axes(
    tmp_path: Path, sidecar: Any, basis: str, axes: str
) -> None:
    grid = grid_of(ORDERS["LAS, oblique"])
    path = write(tmp_path / "odf.nii.gz", known(), grid, **sidecar)
    told = fit(path, grid)
    assert (told.record["basis"], told.record["axes"]) == (basis, axes)
    given = fit(path, grid, basis=basis, axes=axes)
    np.testing.assert_array_equal(told.coefficients, given.coefficients)


def test_the_configuration_goes_before_the_sidecar(tmp_path: Path) -> None:
    grid = grid_of(ORDERS["LAS, oblique"])
    path = write(tmp_path / "odf.nii.gz", known(), grid, SphericalHarmonicBasis="dipy")
    fitted = fit(path, grid, basis="tournier07")
    np.testing.assert_allclose(fitted.coefficients, grid.from_stored(known()), atol=1e-5)


@pytest.mark.parametrize("sidecar", [{}, {"SphericalHarmonicBasis": "ours"}])
def test_an_unknown_basis_is_refused_with_what_to_set(tmp_path: Path, sidecar: Any) -> None:
    grid = grid_of(ORDERS["LAS, oblique"])
    path = write(tmp_path / "odf.nii", known(), grid, **sidecar)
    with pytest.raises(DataError, match=r"model\.basis") as caught:
        fit(path, grid)
    assert "odf.nii" in str(caught.value)
    assert sidecar.get("SphericalHarmonicBasis", "no sidecar") in str(caught.value)


def test_a_broken_sidecar_is_named(tmp_path: Path) -> None:
    grid = grid_of(ORDERS["LAS, oblique"])
    path = write(tmp_path / "odf.nii.gz", known(), grid)
    (tmp_path / "odf.json").write_text("{")
    with pytest.raises(DataError, match=r"odf\.json"):
        fit(path, grid)


def test_other_grids_counts_and_files_are_refused(tmp_path: Path) -> None:
    grid = grid_of(ORDERS["LAS, oblique"])
    path = write(tmp_path / "odf.nii.gz", known(), grid_of(ORDERS["RAS, oblique"]))
    with pytest.raises(GridError, match="grid of the DWI"):
        fit(path, grid, basis="tournier07")
    path = write(tmp_path / "odf.nii.gz", known()[..., :44], grid)
    with pytest.raises(DataError, match="44"):
        fit(path, grid, basis="tournier07")
    with pytest.raises(NoInputError):
        fit(tmp_path / "none.nii.gz", grid, basis="tournier07")


def test_mrtrix3s_fodfs_have_their_peaks_along_the_streamlines_tracked_on_them() -> None:
    path = PHANTOM / "fods.nii.gz"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    grid = read_image(path, ndim=4).grid
    coefficients = fit(path, grid, basis="tournier07").coefficients
    lines = nib.streamlines.load(PHANTOM / "tracks.tck").streamlines[::50]
    points = np.concatenate([line[1:-1] for line in lines])
    tangents = np.concatenate([line[2:] - line[:-2] for line in lines])
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    voxels = np.rint(grid.to_voxels(points)).astype(int)
    fine = random_directions((3000,), seed=1)
    found = coefficients[tuple(voxels.T)]
    along = np.einsum("nc,nc->n", found, sh_basis(8, tangents))
    top = (found @ sh_basis(8, fine).T).max(axis=1)
    peaks = fine[(found @ sh_basis(8, fine).T).argmax(axis=1)]
    cosines = np.abs((peaks * tangents).sum(axis=1))
    mirrored = np.abs((peaks * [-1, 1, 1] * tangents).sum(axis=1))
    assert np.mean(cosines) > 0.95
    assert np.mean(along / top) > 0.6
    assert np.mean(mirrored) < np.mean(cosines)

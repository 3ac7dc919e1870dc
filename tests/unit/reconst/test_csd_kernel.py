"""The compiled deconvolution against DIPY's, and where nothing can be compiled to disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from conftest import SHARED_DATA
from dipy.core.gradients import gradient_table
from dipy.core.sphere import Sphere
from dipy.reconst.csdeconv import AxSymShResponse, ConstrainedSphericalDeconvModel, csdeconv
from dipy.reconst.shm import sh_to_sf
from numpy.polynomial.legendre import leggauss
from scipy.special import eval_legendre
from threadpoolctl import threadpool_limits

import bids_tractography
from bids_tractography.config.model import CsdModel, GradientsConfig
from bids_tractography.core.dwi import read_dwi
from bids_tractography.core.fodf import n_coefficients, sh_basis
from bids_tractography.core.gradients import GradientFiles
from bids_tractography.reconst.csd import Response, _problem, deconvolve

AXIAL, RADIAL = 1.7e-3, 0.3e-3


def spread(count: int) -> Any:
    z = 1 - (np.arange(count) + 0.5) / count
    angle = np.arange(count) * np.pi * (3 - np.sqrt(5))
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1)


def problem(order: int, n_directions: int, b_s_mm2: float = 2000) -> Any:
    response = Response((AXIAL, RADIAL, RADIAL), 1000.0, None)
    return _problem(spread(n_directions), b_s_mm2, response, order, CsdModel())


def noisy_mixtures(n_directions: int, count: int, b_s_mm2: float = 2000, noise: float = 60) -> Any:
    """Signals (count, V) of one to three bundles beside isotropic tissue, with Rician noise."""
    rng = np.random.default_rng(5)
    g = spread(n_directions)
    bundles = rng.normal(size=(count, 3, 3))
    bundles /= np.linalg.norm(bundles, axis=2, keepdims=True)
    shares = rng.dirichlet([0.7] * 4, count)
    each = np.exp(-b_s_mm2 * (RADIAL + (AXIAL - RADIAL) * (bundles @ g.T) ** 2))
    clean = 1000 * ((shares[:, :3, None] * each).sum(1) + shares[:, 3:] * np.exp(-b_s_mm2 * 8e-4))
    real, imaginary = rng.normal(0, noise, (2, *clean.shape))
    return np.hypot(clean + real, imaginary)


def by_dipy(signals: Any, given: Any) -> tuple[Any, Any]:
    """Coefficients (n, C) of the same problem by DIPY, and iterations (n,)."""
    normal = given.forward.T @ given.forward
    normal += 1e-5 * np.trace(normal) / len(normal) * np.eye(len(normal))
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.filterwarnings("ignore", "maximum number of iterations")
        found = [
            csdeconv(signal, given.forward, given.positivity, tau=given.threshold, P=normal)
            for signal in signals
        ]
    return np.array([one for one, _ in found]), np.array([count for _, count in found])


@pytest.mark.parametrize(
    ("order", "n_directions"), [(2, 8), (4, 15), (4, 40), (6, 32), (8, 45), (8, 30), (12, 60)]
)
def test_coefficients_are_those_of_dipy_on_the_same_problem(order: int, n_directions: int) -> None:
    given = problem(order, n_directions)
    signals = noisy_mixtures(n_directions, 150)
    theirs, iterations = by_dipy(signals, given)
    ours = deconvolve(signals, given)
    assert ours.shape == (150, n_coefficients(order))
    assert np.median(iterations) >= 2
    apart = np.abs(ours - theirs).max(axis=1) / np.abs(theirs).max(axis=1)
    assert apart.max() < 1e-8


def test_a_voxel_that_goes_round_in_circles_has_the_coefficients_of_the_last_iteration() -> None:
    given = problem(8, 45)
    signals = np.random.default_rng(0).normal(0, 200, (200, 45))
    theirs, iterations = by_dipy(signals, given)
    circling = iterations == 50
    assert circling.sum() > 5
    ours = deconvolve(signals, given)
    apart = np.abs(ours - theirs).max(axis=1) / np.abs(theirs).max(axis=1)
    assert apart.max() < 1e-8


def test_a_voxel_depends_on_no_other_to_the_last_bit() -> None:
    given = problem(8, 60)
    signals = noisy_mixtures(60, 300)
    together = deconvolve(signals, given)
    order = np.random.default_rng(0).permutation(300)
    assert deconvolve(signals[order], given).tobytes() == together[order].tobytes()
    alone = np.concatenate([deconvolve(signals[i : i + 1], given) for i in range(300)])
    assert alone.tobytes() == together.tobytes()
    strided = np.asfortranarray(np.repeat(signals, 2, axis=0))[::2]
    assert deconvolve(strided, given).tobytes() == together.tobytes()


def test_no_voxels_have_no_coefficients() -> None:
    assert deconvolve(np.empty((0, 60)), problem(8, 60)).shape == (0, 45)


def test_signals_that_are_not_numbers_spoil_their_own_voxel_alone() -> None:
    given = problem(6, 40)
    signals = noisy_mixtures(40, 3)
    expected = deconvolve(signals, given)
    signals[1, 7] = np.nan
    found = deconvolve(signals, given)
    assert np.isnan(found[1]).all()
    assert found[[0, 2]].tobytes() == expected[[0, 2]].tobytes()


def zonal_coefficients(response: Response, b_s_mm2: float, order: int) -> Any:
    x, weights = leggauss(60)
    first, radial, _ = response.eigenvalues_mm2_s
    values = response.s0 * np.exp(-b_s_mm2 * (radial + (first - radial) * x**2))
    even = np.arange(0, order + 1, 2)
    norms = np.sqrt((2 * even + 1) / (4 * np.pi))
    return 2 * np.pi * norms * [(weights * values * eval_legendre(n, x)).sum() for n in even]


@pytest.mark.filterwarnings("ignore:The legacy descoteaux07")  # DIPY's own default basis
def test_fodfs_of_a_head_are_those_of_dipys_model() -> None:
    stem = SHARED_DATA / "icbm/sub-icbm/dwi/sub-icbm_space-ACPC_desc-preproc_dwi"
    image = stem.with_name(stem.name + ".nii.gz")
    if not image.exists():
        pytest.skip("the icbm data are not there")
    bval, bvec = (image.with_name(stem.name + end) for end in (".bval", ".bvec"))
    dwi = read_dwi(image, GradientFiles(bval, bvec), GradientsConfig())
    shell = dwi.gradients.shells[-1]
    anatomy = image.parents[1] / "anat" / "sub-icbm_space-ACPC_label-WM_probseg.nii.gz"
    white = dwi.grid.from_stored(np.asarray(nib.load(anatomy).dataobj)) > 0.8
    inside = dwi.data[white][:, shell.volumes].astype(float)
    signals = inside[np.random.default_rng(0).permutation(len(inside))[:300]]
    response = Response((1.66e-3, 0.16e-3, 0.16e-3), 1428.0, None)
    directions = dwi.gradients.directions[shell.volumes]
    given = _problem(directions, shell.b_s_mm2, response, 8, CsdModel())
    ours = deconvolve(signals, given)
    table = gradient_table(np.full(len(directions), shell.b_s_mm2), bvecs=directions)
    model = ConstrainedSphericalDeconvModel(
        table, AxSymShResponse(1428.0, zonal_coefficients(response, shell.b_s_mm2, 8))
    )
    with threadpool_limits(1):
        theirs = np.array([model.fit(signal).shm_coeff for signal in signals])
    fine = spread(8000)[:4000]  # half a sphere
    one = ours @ sh_basis(8, fine).T
    other = sh_to_sf(
        theirs, Sphere(xyz=fine), sh_order_max=8, basis_type="descoteaux07", legacy=True
    )
    apart = np.abs(one - other).max(axis=1) / other.max(axis=1)
    # 48 directions hardly determine 45 coefficients: where no bundle is, the two programs'
    # safeguards against that decide, which differ.
    sharp = other.max(axis=1) > 4 * other.mean(axis=1)
    assert np.count_nonzero(sharp) > 100
    assert np.median(apart[sharp]) < 1e-3
    correlation = [np.corrcoef(*pair)[0, 1] for pair in zip(one[sharp], other[sharp], strict=True)]
    assert np.median(correlation) > 0.99999
    cosine = (fine[one.argmax(axis=1)] * fine[other.argmax(axis=1)]).sum(axis=1)[sharp]
    angle = np.rad2deg(np.arccos(np.minimum(np.abs(cosine), 1)))
    assert np.mean(angle < 1) > 0.95
    assert angle.max() < 5


PROGRAM = """
import numpy as np, bids_tractography
from bids_tractography.reconst.kernels import csd as kernels
matrix = np.eye(3, 16) * 4
total = np.zeros(16)
kernels._combine(np.array([1.0, 2.0, 3.0]), matrix, total)
print(bids_tractography.__file__, kernels._combine.stats.cache_hits, *total[:4])
"""


def test_kernels_run_where_no_folder_can_be_written(tmp_path: Path) -> None:
    package = Path(bids_tractography.__file__).parent
    copy = tmp_path / "site" / "bids_tractography"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "reconst" / "kernels" / "__pycache__").write_text(
        "a file, so that no folder can be made"
    )
    (tmp_path / "blocked").write_text("likewise")
    nowhere = str(tmp_path / "blocked" / "folder")
    environment = {
        **os.environ, "PYTHONPATH": str(copy.parent), "PYTHONDONTWRITEBYTECODE": "1",
        "NUMBA_CACHE_DIR": nowhere, "HOME": nowhere, "XDG_CACHE_HOME": nowhere,
    }  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    place, hits, *total = ended.stdout.split()
    assert Path(place).parent == copy
    assert hits == "Counter()"
    assert total == ["4.0", "8.0", "12.0", "0.0"]

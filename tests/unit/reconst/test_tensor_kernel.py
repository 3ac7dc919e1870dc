"""The compiled tensor fit against DIPY's and closed forms, also of signals that make no sense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import DATA
from dipy.reconst.dti import TensorModel, fractional_anisotropy
from hypothesis import given, settings
from hypothesis import strategies as st
from signals import (
    crossing,
    degrees,
    dwi_of,
    random_directions,
    rician,
    scheme,
    signal,
    tensor,
    tensor_fit,
)
from threadpoolctl import threadpool_limits

from bids_tractography.config.model import GradientsConfig, TensorMapsConfig
from bids_tractography.core.dwi import Dwi, read_dwi
from bids_tractography.core.gradients import GradientFiles, Gradients
from bids_tractography.errors import GradientError
from bids_tractography.reconst.tensor import fit_tensor, tensor_fitter

LEAST = 1e-6  # times 1 / b


def fitted(gradients: Gradients, signals: Any) -> Any:
    """Eigenvalues and eigenvectors (n, 12) by us."""
    dwi = dwi_of(np.full((1, 1, 1, len(gradients.bvals)), 1000), gradients)
    return tensor_fitter(dwi, np.flatnonzero(gradients.bvals))(np.asarray(signals, float))


def by_dipy(gradients: Gradients, volumes: Any, signals: Any, least_signal: float = 1e-4) -> Any:
    model = TensorModel(gradients.table(volumes), fit_method="WLS", min_signal=least_signal)
    with threadpool_limits(1):
        return model.fit(np.asarray(signals, float)[:, volumes]).model_params


def assert_alike(ours: Any, theirs: Any) -> None:
    scale = theirs[:, :1]
    assert np.abs((ours[:, :3] - theirs[:, :3]) / scale).max() < 1e-5
    fa = fractional_anisotropy(theirs[:, :3])
    np.testing.assert_allclose(fractional_anisotropy(ours[:, :3]), fa, atol=1e-5)
    cosine = (ours[:, 3::3] * theirs[:, 3::3]).sum(axis=1)
    unique = (fa > 0.1) & (theirs[:, 0] - theirs[:, 1] > 1e-3 * theirs[:, 0])
    assert np.count_nonzero(unique) > 0.5 * np.count_nonzero(fa > 0.1) > 0
    assert degrees(cosine[unique]).max() < 0.1


def scanned(dwi: Dwi, inside: Any, count: int) -> None:
    """Compare a sample of an image's voxels."""
    shell = dwi.gradients.shells[0]
    volumes = np.sort(np.concatenate([dwi.gradients.b0_volumes, shell.volumes]))
    signals = dwi.data[inside]
    chosen = signals[np.random.default_rng(0).permutation(len(signals))[:count]].astype(float)
    theirs = by_dipy(dwi.gradients, volumes, chosen, dwi.min_signal)
    assert_alike(tensor_fitter(dwi, shell.volumes)(chosen), theirs)


@pytest.mark.parametrize(
    "stem", ["prisma/sub-prisma/dwi/sub-prisma_acq-ortho_dwi",
             "icbm/sub-icbm/dwi/sub-icbm_space-ACPC_desc-preproc_dwi"],
)  # fmt: skip
def test_tensors_of_a_head_are_those_of_dipy(stem: str) -> None:
    image, *gradients = [DATA / f"{stem}.{extension}" for extension in ("nii.gz", "bval", "bvec")]
    dwi = read_dwi(image, GradientFiles(*gradients), GradientsConfig())
    scanned(dwi, dwi.mean_b0 > 0.15 * np.percentile(dwi.mean_b0[dwi.mean_b0 > 0], 99), 3000)


def test_tensors_of_the_phantom_are_those_of_dipy(scanned_once: Path) -> None:
    stem = scanned_once / "sub-01" / "dwi" / "sub-01_dwi"
    image, *gradients = [stem.with_name(f"{stem.name}.{end}") for end in ("nii.gz", "bval", "bvec")]
    dwi = read_dwi(image, GradientFiles(*gradients), GradientsConfig())
    scanned(dwi, dwi.mean_b0 > 0, 3000)


@pytest.mark.parametrize("shells", [[(1000, 6)], [(1000, 30)], [(700, 12), (1500, 64)]])
@pytest.mark.parametrize("noise", [5, 100, 400])
def test_tensors_of_noisy_crossings_are_those_of_dipy(shells: Any, noise: float) -> None:
    gradients = scheme(*shells)
    signals = rician(crossing(gradients, 60, 500)[0][:, 0, 0], noise)
    volumes = np.arange(len(gradients.bvals))
    assert_alike(fitted(gradients, signals), by_dipy(gradients, volumes, signals))


def test_six_signals_and_one_without_weighting_are_met_exactly() -> None:
    gradients = scheme((1000, 6), n_b0=1)
    signals = 1000 * np.exp(-np.random.default_rng(0).uniform(0.7, 1.3, (40, 7)))
    signals[:, 0] = 1000
    found = fitted(gradients, signals)
    values, vectors = found[:, :3], found[:, 3:].reshape(-1, 3, 3)
    definite = values[:, 2] > LEAST  # the others were clipped
    assert definite.sum() > 10
    along = vectors.transpose(0, 2, 1) @ gradients.directions[1:].T
    decay = (values[:, :, None] * along**2).sum(axis=1)
    expected = -np.log(signals[:, 1:] / 1000) / 1000
    np.testing.assert_allclose(decay[definite], expected[definite], rtol=1e-10)


@pytest.mark.parametrize("weight", [1e-3, 1, 1e6])
def test_the_tensor_does_not_depend_on_the_scale_of_the_signal(weight: float) -> None:
    gradients = scheme((1000, 30))
    clean = signal(gradients, tensor(random_directions((50,))))
    signals = np.maximum(rician(clean, 50), 1)
    expected = fitted(gradients, signals)
    found = fitted(gradients, weight * signals)
    np.testing.assert_allclose(found[:, :3], expected[:, :3], rtol=1e-8, atol=1e-13)
    np.testing.assert_allclose(found[:, 3:], expected[:, 3:], atol=1e-6)


def test_isotropic_diffusion_has_three_equal_eigenvalues_and_three_axes() -> None:
    gradients = scheme((1000, 30))
    found = fitted(gradients, [1000 * np.exp(-gradients.bvals * 0.7e-3)])[0]
    np.testing.assert_allclose(found[:3], 0.7e-3, rtol=1e-10)
    axes = found[3:].reshape(3, 3)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-12)


@pytest.mark.parametrize("value", [0.0, 1000.0, -5.0, 1e-30, 1e30])
def test_a_signal_that_no_gradient_weakens_has_the_least_diffusivity(value: float) -> None:
    gradients = scheme((1000, 30))
    found = fitted(gradients, np.full((1, 32), value))[0]
    np.testing.assert_allclose(found[:3], LEAST / 1000, rtol=0.2)  # largest element of b gᵢ gⱼ
    axes = found[3:].reshape(3, 3)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-12)


def test_a_signal_that_only_b0_has_decays_as_far_as_signals_go() -> None:
    gradients = scheme((1000, 30))
    found = fitted(gradients, [np.where(gradients.bvals == 0, 1000.0, 0.0)])[0]
    np.testing.assert_allclose(found[:3], np.log(1000 / 1e-4) / 1000, rtol=1e-8)


def test_a_growing_signal_has_the_least_diffusivity() -> None:
    gradients = scheme((1000, 30))
    found = fitted(gradients, [np.exp(gradients.bvals * 1e-3)])[0]
    assert 0 < found[2] == found[0] <= 2 * LEAST / 1000


def test_single_volumes_without_signal_are_met_as_by_dipy() -> None:
    gradients = scheme((1000, 30))
    signals = rician(signal(gradients, tensor(random_directions((60,)))), 20)
    signals[np.arange(60), 2 + np.arange(60) % 30] = np.resize([0, -3], 60)
    theirs = by_dipy(gradients, np.arange(32), signals)
    assert_alike(fitted(gradients, signals), theirs)


@settings(deadline=None, max_examples=60)
@given(st.data(), st.sampled_from([6, 7, 15]))
def test_whatever_the_signal_the_result_is_a_tensor(data: st.DataObject, count: int) -> None:
    gradients = scheme((1000, count), n_b0=1)
    numbers = st.one_of(st.floats(-1e30, 1e30), st.floats(0, 1000), st.just(0.0), st.integers(0, 9))
    row = data.draw(st.lists(numbers, min_size=count + 1, max_size=count + 1))
    found = fitted(gradients, [row])[0]
    values, axes = found[:3], found[3:].reshape(3, 3)
    assert np.isfinite(found).all()
    assert (np.diff(values) <= 0).all()
    assert values[2] > 0
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-10)
    widest = np.abs(axes).argmax(axis=0)
    assert (axes[widest, [0, 1, 2]] > 0).all()


def test_a_signal_that_is_not_a_number_spoils_its_own_voxel_alone() -> None:
    gradients = scheme((1000, 12))
    signals = signal(gradients, tensor(random_directions((3,))))
    expected = fitted(gradients, signals)
    signals[1, 5] = np.nan
    found = fitted(gradients, signals)
    assert np.isnan(found[1, :3]).all()
    assert found[[0, 2]].tobytes() == expected[[0, 2]].tobytes()


def test_a_voxel_depends_on_no_other_to_the_last_bit() -> None:
    gradients = scheme((1000, 33))
    signals = rician(crossing(gradients, 60, 300)[0][:, 0, 0], 50)
    together = fitted(gradients, signals)
    order = np.random.default_rng(0).permutation(300)
    assert fitted(gradients, signals[order]).tobytes() == together[order].tobytes()
    alone = np.concatenate([fitted(gradients, signals[i : i + 1]) for i in range(300)])
    assert alone.tobytes() == together.tobytes()
    strided = np.asfortranarray(np.repeat(signals, 2, axis=0))[::2]
    assert fitted(gradients, strided).tobytes() == together.tobytes()
    dwi = dwi_of(signals[:, None, None], gradients)
    one, two = (fit_tensor(dwi, dwi.mean_b0 > 0, TensorMapsConfig(), n) for n in (1, 2))
    assert one.eigenvalues_mm2_s.tobytes() == two.eigenvalues_mm2_s.tobytes()
    assert one.eigenvectors.tobytes() == two.eigenvectors.tobytes()


def test_no_voxels_have_no_tensors() -> None:
    assert fitted(scheme((1000, 12)), np.empty((0, 14))).shape == (0, 12)


@pytest.mark.parametrize("height", [0.0, 0.4])
def test_directions_on_a_cone_or_in_a_plane_make_no_tensor(height: float) -> None:
    angle = np.linspace(0, 2 * np.pi, 13, endpoint=False)
    radius = np.sqrt(1 - height**2)
    ring = np.stack([radius * np.cos(angle), radius * np.sin(angle), 0 * angle + height], axis=1)
    gradients = Gradients(
        np.append(0, np.full(13, 1000.0)), np.concatenate([np.zeros((1, 3)), ring]), 50, 100
    )
    with pytest.raises(GradientError, match="cone"):
        tensor_fit(dwi_of(np.ones((2, 1, 1, 14)), gradients))

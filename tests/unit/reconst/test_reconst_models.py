"""The models beside CSD and the tensor, against closed forms and DIPY."""

from __future__ import annotations

import typing
from typing import Any

import numpy as np
import pytest
from dipy.core.gradients import gradient_table
from dipy.data import get_sphere
from dipy.reconst.dki import DiffusionKurtosisModel
from dipy.reconst.gqi import GeneralizedQSamplingModel
from dipy.reconst.rumba import RumbaSDModel
from dipy.reconst.shm import CsaOdfModel
from dipy.reconst.shm import OpdtModel as DipyOpdtModel
from scipy.integrate import quad
from scipy.spatial.transform import Rotation
from signals import (
    AXIAL,
    RADIAL,
    crossing,
    degrees,
    dwi_of,
    random_directions,
    rician,
    scheme,
    signal,
    tensor,
    tensor_fit,
    whole,
)

from bids_tractography.config import model as model_config
from bids_tractography.config.model import (
    CsaModelConfig,
    GqiModelConfig,
    KurtosisModelConfig,
    OpdtModelConfig,
    RumbaModelConfig,
)
from bids_tractography.core.dwi import Dwi
from bids_tractography.core.fodf import sh_basis, sh_order_of
from bids_tractography.core.gradients import Gradients
from bids_tractography.errors import GradientError
from bids_tractography.reconst import MODELS, fit_model
from bids_tractography.reconst.base import ModelFit
from bids_tractography.report.references import REFERENCES

FINE = random_directions((20_000,), seed=5)
SPHERE = get_sphere(name="repulsion724")
DENSE = SPHERE.vertices
TWO_SHELLS = scheme((1000, 45), (2500, 60))
RUMBA = {"wm_eigenvalues_mm2_s": (AXIAL, RADIAL, RADIAL), "iterations": 80}
KINDS = [
    CsaModelConfig(),
    OpdtModelConfig(),
    GqiModelConfig(),
    GqiModelConfig(method="standard"),
    KurtosisModelConfig(),
    RumbaModelConfig(**RUMBA),
]


def name(model: Any) -> str:
    return str(model.kind) + getattr(model, "method", "")


def fit(dwi: Dwi, model: Any, threads: int = 1) -> ModelFit:
    return fit_model(dwi, whole(dwi), tensor_fit(dwi), model, threads)


def amplitudes(fitted: ModelFit, directions: Any = DENSE) -> Any:
    coefficients = fitted.coefficients.reshape(-1, fitted.coefficients.shape[-1])
    return coefficients @ sh_basis(sh_order_of(coefficients.shape[1]), directions).T


def table(gradients: Gradients) -> Any:
    return gradient_table(gradients.bvals, bvecs=gradients.directions, b0_threshold=50)


def test_every_model_of_the_configuration_has_a_fit_and_references_that_exist() -> None:
    union = typing.get_args(model_config.ModelConfig)[0]
    kinds = {section.model_fields["kind"].default for section in typing.get_args(union)}
    assert set(MODELS) == kinds
    cited = {key for kind in MODELS.values() for key in kind.references}
    assert cited <= set(REFERENCES)


@pytest.mark.parametrize("model", KINDS, ids=name)
def test_a_crossing_at_right_angles_has_its_peaks_along_both_bundles(model: Any) -> None:
    signals, one, other = crossing(TWO_SHELLS, 90, 12)
    values = amplitudes(fit(dwi_of(signals, TWO_SHELLS), model), FINE)
    tolerance = {"kurtosis": 12, "gqi": 7}.get(model.kind, 5)  # blunter ones are drawn together
    for row, first, second in zip(values, one, other, strict=True):
        for direction, far in ((first, second), (second, first)):
            near = degrees(FINE @ direction) < degrees(FINE @ far)
            assert degrees(FINE[near][row[near].argmax()] @ direction) < tolerance
        between = np.cross(first, second)
        across = row[degrees(FINE @ between) < 5].mean()
        assert across < 0.5 * row.max()


@pytest.mark.parametrize("model", KINDS, ids=name)
def test_fits_do_not_depend_on_threads(model: Any) -> None:
    signals, _, _ = crossing(TWO_SHELLS, 60, 300)
    dwi = dwi_of(rician(signals, 20), TWO_SHELLS)
    if model.kind == "rumba":
        model = RumbaModelConfig(**{**RUMBA, "iterations": 10})
    one, three = (fit(dwi, model, threads) for threads in (1, 3))
    assert one.coefficients.tobytes() == three.coefficients.tobytes()
    assert one.record == three.record
    for key, values in one.maps.items():
        assert values.tobytes() == three.maps[key].tobytes()


@pytest.mark.parametrize("model", KINDS, ids=name)
def test_voxels_of_noise_or_nothing_have_finite_results(model: Any) -> None:
    signals = np.zeros((6, 1, 1, len(TWO_SHELLS.bvals)))
    signals[1] = signal(TWO_SHELLS, tensor([0.6, 0, 0.8]))
    signals[2, ..., ::3] = 500
    signals[3] = np.random.default_rng(0).rayleigh(10, signals[3].shape)
    signals[4, ..., 2:] = 300  # nothing at b=0
    signals[5] = -5
    fitted = fit(dwi_of(signals, TWO_SHELLS), model)
    assert np.isfinite(fitted.coefficients).all()
    for values in fitted.maps.values():
        assert np.isfinite(values).all()


@pytest.mark.parametrize(
    "model",
    [CsaModelConfig(), OpdtModelConfig(), GqiModelConfig(), GqiModelConfig(method="standard")],
)
def test_dropping_the_isotropic_part_takes_the_floor_away_and_nothing_else(model: Any) -> None:
    signals, _, _ = crossing(TWO_SHELLS, 60, 10)
    dwi = dwi_of(signals, TWO_SHELLS)
    kept = fit(dwi, model.model_copy(update={"isotropic_part": "keep"}))
    dropped = fit(dwi, model)
    np.testing.assert_array_equal(kept.coefficients[..., 1:], dropped.coefficients[..., 1:])
    before, after = amplitudes(kept), amplitudes(dropped)
    floor = before.min(axis=1, keepdims=True).clip(0)
    np.testing.assert_allclose(after, before - floor, atol=0.01 * before.max())
    if model.kind == "csa" or name(model) == "gqistandard":
        assert floor.min() > 0.05 * before.max()
    else:  # these have negative lobes, and no floor
        assert before.min() < 0
        np.testing.assert_array_equal(kept.coefficients, dropped.coefficients)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(CsaModelConfig, CsaOdfModel), (OpdtModelConfig, DipyOpdtModel)]
)
@pytest.mark.filterwarnings("ignore:The legacy descoteaux07")
def test_csa_and_opdt_are_those_of_dipy(ours: Any, theirs: Any) -> None:
    gradients = scheme((2000, 60))
    signals, _, _ = crossing(gradients, 70, 20)
    signals = rician(signals, 15).astype(np.float32)
    values = amplitudes(fit(dwi_of(signals, gradients), ours(isotropic_part="keep")))
    expected = theirs(table(gradients), 8, smooth=0.006).fit(signals[:, 0, 0]).odf(SPHERE)
    np.testing.assert_allclose(values, expected, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize("method", ["gqi2", "standard"])
def test_gqi_is_that_of_dipy(method: str) -> None:
    signals, _, _ = crossing(TWO_SHELLS, 70, 20)
    model = GqiModelConfig(method=method, sh_order=12, isotropic_part="keep", sampling_length=1.1)
    values = amplitudes(fit(dwi_of(signals, TWO_SHELLS), model))
    theirs = GeneralizedQSamplingModel(table(TWO_SHELLS), method=method, sampling_length=1.1)
    expected = theirs.fit(signals[:, 0, 0].astype(np.float32)).odf(SPHERE)
    np.testing.assert_allclose(values, expected, atol=2e-3 * np.abs(expected).max())


def test_rumba_is_that_of_dipy() -> None:
    signals, _, _ = crossing(TWO_SHELLS, 60, 2)
    signals = rician(signals, 30)
    model = RumbaModelConfig(**RUMBA, coils=4)
    fitted = fit(dwi_of(signals, TWO_SHELLS), model)
    theirs = RumbaSDModel(
        table(TWO_SHELLS),
        wm_response=np.array([AXIAL, RADIAL, RADIAL]),
        n_iter=80,
        recon_type="sos",
        n_coils=4,
        sphere=SPHERE,
    ).fit(signals[:, 0, 0].astype(np.float32))
    weights = theirs.odf(sphere=SPHERE) * len(DENSE) / (4 * np.pi)
    basis = sh_basis(8, DENSE)
    expected = weights @ np.linalg.pinv(basis).T
    ours = fitted.coefficients[:, 0, 0]
    np.testing.assert_allclose(ours, expected, atol=2e-3 * np.abs(expected).max())


def test_rumba_tells_tissues_apart_and_integrates_to_the_fraction_of_white_matter() -> None:
    bundle = signal(TWO_SHELLS, tensor([0.0, 0.6, 0.8]))
    fluid = signal(TWO_SHELLS, 3e-3 * np.eye(3))
    shares = np.array([1.0, 0.7, 0.4, 0.0])
    signals = shares[:, None] * bundle + (1 - shares[:, None]) * fluid
    model = RumbaModelConfig(**{**RUMBA, "iterations": 300})
    fitted = fit(dwi_of(signals[:, None, None], TWO_SHELLS), model)
    integral = fitted.coefficients[:, 0, 0, 0] * np.sqrt(4 * np.pi)
    np.testing.assert_allclose(integral, shares, atol=0.06)


def test_rumba_takes_its_response_from_the_data() -> None:
    directions = random_directions((6, 5, 4), seed=3)
    dwi = dwi_of(signal(TWO_SHELLS, tensor(directions)), TWO_SHELLS)
    record = fit(dwi, RumbaModelConfig(iterations=1)).record
    np.testing.assert_allclose(record["wm_eigenvalues_mm2_s"], (AXIAL, RADIAL, RADIAL), rtol=0.01)


def kurtosis_signals(gradients: Gradients, count: int) -> tuple[Any, Any, Any]:
    """Signals of exact tensors D (µm²/ms) and W, without higher terms."""
    rng = np.random.default_rng(8)
    turn = Rotation.random(count, random_state=rng).as_matrix()
    diffusion = (turn * [1.5, 0.6, 0.4]) @ turn.transpose(0, 2, 1)
    sticks = random_directions((count, 3), seed=6)
    kurtosis = np.einsum("nsi,nsj,nsk,nsl->nijkl", sticks, sticks, sticks, sticks) * 0.8
    kurtosis += 0.5 * np.einsum("ij,kl->ijkl", np.eye(3), np.eye(3))
    axes = ["ijkl", "ikjl", "iljk"]
    kurtosis = sum(np.einsum(f"nijkl->n{a}", kurtosis) for a in axes) / 3
    g, b = gradients.directions, gradients.bvals / 1000
    adc = np.einsum("vi,nij,vj->nv", g, diffusion, g)
    apparent = np.einsum("vi,vj,vk,vl,nijkl->nv", g, g, g, g, kurtosis)
    md = np.trace(diffusion, axis1=1, axis2=2)[:, None] / 3
    signals = 1000 * np.exp(-b * adc + b**2 * md**2 / 6 * apparent)
    return signals[:, None, None], diffusion, kurtosis


def test_kurtosis_maps_are_those_of_dipy() -> None:
    signals, _, _ = kurtosis_signals(TWO_SHELLS, 20)
    signals = rician(signals, 10).astype(np.float32)
    maps = fit(dwi_of(signals, TWO_SHELLS), KurtosisModelConfig()).maps
    theirs = DiffusionKurtosisModel(table(TWO_SHELLS), fit_method="WLS").fit(signals[:, 0, 0])
    for key, expected in (("mk", theirs.mk()), ("ak", theirs.ak()), ("rk", theirs.rk())):
        np.testing.assert_allclose(maps[key][:, 0, 0], expected, rtol=1e-3, atol=1e-4)
        assert expected.min() > 0.1


@pytest.mark.parametrize("alpha", [1.0, 4.0])
def test_the_kurtosis_odf_is_the_radial_moment_of_the_displacements(alpha: float) -> None:
    signals, diffusion, kurtosis = kurtosis_signals(TWO_SHELLS, 3)
    fitted = fit(dwi_of(signals, TWO_SHELLS), KurtosisModelConfig(alpha=alpha, sh_order=14))
    values = amplitudes(fitted)
    for row, d, w in zip(values, diffusion, kurtosis, strict=True):
        inverse, md = np.linalg.inv(d), np.trace(d) / 3

        # exp(-q'Dq + MD²/6 Wqqqq), to first order in W, turned into displacements: the fourth
        # derivatives of a Gaussian of covariance 2D.
        def moment(direction: Any, inverse: Any = inverse, md: float = md, w: Any = w) -> float:
            def density(length: float) -> float:
                y = inverse @ direction * length / 2
                hermite = np.einsum("ijkl,i,j,k,l", w, y, y, y, y)
                hermite -= 3 * np.einsum("ijkl,i,j,kl", w, y, y, inverse)
                hermite += 0.75 * np.einsum("ijkl,ij,kl", w, inverse, inverse)
                gaussian = np.exp(-(length**2) * direction @ inverse @ direction / 4)
                return float(length**alpha * gaussian * (1 + md**2 / 6 * hermite))

            return float(quad(density, 0, 40, limit=200)[0])

        some = slice(0, 724, 60)
        expected = np.array([moment(direction) for direction in DENSE[some]])
        scale = (row[some] @ expected) / (expected @ expected)
        np.testing.assert_allclose(row[some], scale * expected, atol=0.01 * row.max())
        assert expected.max() > 2 * expected.min()
        assert row.mean() * 4 * np.pi == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("gradients", "words"),
    [
        (scheme((1000, 60)), "two shells"),
        (scheme((1000, 60), (4000, 60)), "two shells"),
        (scheme((1000, 6), (2000, 6)), "15 distinct"),
    ],
)
def test_schemes_that_do_not_determine_the_kurtosis_are_refused(
    gradients: Gradients, words: str
) -> None:
    dwi = dwi_of(np.ones((2, 2, 2, len(gradients.bvals))), gradients)
    with pytest.raises(GradientError, match=words):
        fit(dwi, KurtosisModelConfig())


@pytest.mark.parametrize("section", [CsaModelConfig, OpdtModelConfig])
def test_shells_are_chosen_as_for_csd(section: Any) -> None:
    signals, _, _ = crossing(TWO_SHELLS, 60, 3)
    dwi = dwi_of(signals, TWO_SHELLS)
    assert fit(dwi, section()).record["shell_s_mm2"] == 2500
    inner = fit(dwi, section(shell_s_mm2=1000, sh_order=4))
    assert inner.record["shell_s_mm2"] == 1000
    assert inner.coefficients.shape[-1] == 15
    with pytest.raises(GradientError, match="1000, 2500"):
        fit(dwi, section(shell_s_mm2=700))

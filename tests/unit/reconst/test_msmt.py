"""Multi-tissue deconvolution against known mixtures, another solver and MRtrix3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SHARED_DATA
from numpy.polynomial.legendre import leggauss
from scipy.optimize import nnls
from scipy.special import eval_legendre
from signals import (
    crossing,
    degrees,
    dwi_of,
    random_directions,
    rician,
    scheme,
    signal,
    spread,
    tensor,
    tensor_fit,
    whole,
)

from bids_tractography.config.model import (
    CsdModelConfig,
    GradientsConfig,
    MsmtCsdModelConfig,
    TensorMapsConfig,
)
from bids_tractography.core.checks import QUANTITIES
from bids_tractography.core.dwi import Dwi, read_dwi
from bids_tractography.core.fodf import peak_amplitudes, sh_basis
from bids_tractography.core.gradients import GradientFiles
from bids_tractography.core.images import read_image
from bids_tractography.errors import DataError, GradientError
from bids_tractography.reconst import fit_model
from bids_tractography.reconst.base import ModelFit
from bids_tractography.reconst.kernels.multipliers import nonnegative_multipliers
from bids_tractography.reconst.tensor import fit_tensor

PEER = SHARED_DATA / "peers" / "mrtrix_msmt"
TWO_SHELLS = scheme((1000, 45), (2500, 60))
AXIAL, RADIAL = 1.7e-3, 0.3e-3
GREY, FLUID = 0.8e-3, 3e-3
S0 = {"wm": 500.0, "gm": 800.0, "csf": 1500.0}


def write_responses(folder: Path, bvals: Any = (0, 1000, 2500), comment: bool = True) -> Any:
    """Write the responses of tensors as MRtrix3 does: harmonics of the signal along z."""
    x, weights = leggauss(60)
    rows = []
    for b in bvals:
        values = S0["wm"] * np.exp(-b * (RADIAL + (AXIAL - RADIAL) * x**2))
        rows.append(
            [
                2
                * np.pi
                * np.sqrt((2 * n + 1) / (4 * np.pi))
                * (weights * values)
                @ eval_legendre(n, x)
                for n in range(0, 9, 2)
            ]
        )
    head = "Shells: " + ",".join(map(str, bvals)) if comment else ""
    np.savetxt(folder / "wm.txt", rows, header=head)
    for name, diffusivity in (("gm", GREY), ("csf", FLUID)):
        values = S0[name] * np.exp(-np.array(bvals) * diffusivity) * np.sqrt(4 * np.pi)
        np.savetxt(folder / f"{name}.txt", values, header=head)
    return {f"response.{name}": folder / f"{name}.txt" for name in ("wm", "gm", "csf")}


def from_files(files: Any, **config: Any) -> MsmtCsdModelConfig:
    response = {key.split(".")[1]: path for key, path in files.items()}
    return MsmtCsdModelConfig(response={"kind": "files", **response}, **config)


def fit(dwi: Dwi, model: MsmtCsdModelConfig, files: Any = None, threads: int = 1) -> ModelFit:
    return fit_model(dwi, whole(dwi), tensor_fit(dwi), model, threads, files or {})


def mixture(shares: Any, directions: Any, spread_like: int = 0) -> Any:
    """Signals of shares (n, 3) of bundles, grey matter and fluid.

    Bundles lie along directions (n, 3), or are spread about them like a power of the cosine.
    """
    if spread_like:
        every = spread(1500)
        weights = (directions @ every.T) ** spread_like
        weights /= weights.sum(axis=1, keepdims=True)
        bundle = weights @ signal(TWO_SHELLS, tensor(every), S0["wm"])
    else:
        bundle = signal(TWO_SHELLS, tensor(directions), S0["wm"])
    grey, fluid = (
        signal(TWO_SHELLS, d * np.eye(3), S0[t]) for d, t in ((GREY, "gm"), (FLUID, "csf"))
    )
    return shares[:, :1] * bundle + shares[:, 1:2] * grey + shares[:, 2:] * fluid


def test_shares_of_the_tissues_and_the_direction_of_the_bundle_are_recovered(
    tmp_path: Path,
) -> None:
    shares = np.random.default_rng(0).dirichlet([1, 1, 1], 40)
    shares[:4] = [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0.5, 0.5, 0]]
    directions = random_directions((40,), seed=4)
    # The eighth power of the cosine is nowhere negative and has no harmonics above order 8, so
    # that nothing keeps the solution from being exact.
    dwi = dwi_of(mixture(shares, directions, 8)[:, None, None], TWO_SHELLS)
    files = write_responses(tmp_path)
    fitted = fit(dwi, from_files(files), files)
    assert fitted.fractions is not None
    for place, tissue in enumerate(("wm", "gm", "csf")):
        np.testing.assert_allclose(fitted.fractions[tissue][:, 0, 0], shares[:, place], atol=0.01)
    # As MRtrix3 scales it, a voxel of one tissue has a first coefficient of 1/√(4π).
    first = fitted.coefficients[:, 0, 0, 0] * np.sqrt(4 * np.pi)
    np.testing.assert_allclose(first, shares[:, 0], atol=0.01)
    fine = random_directions((20_000,), seed=5)
    some = shares[:, 0] > 0.1
    values = fitted.coefficients[some, 0, 0] @ sh_basis(8, fine).T
    peaks = fine[values.argmax(axis=1)]
    assert degrees((peaks * directions[some]).sum(axis=1)).max() < 2
    cosines = fine @ directions[some].T
    np.testing.assert_allclose(
        values, shares[some, :1] * (9 / (4 * np.pi)) * cosines.T**8, atol=0.02
    )
    assert fitted.record["tissues"] == ["wm", "gm", "csf"]


def test_amplitudes_and_fractions_are_not_negative_however_noisy_the_data(tmp_path: Path) -> None:
    signals, _, _ = crossing(TWO_SHELLS, 60, 60)
    dwi = dwi_of(rician(signals * 0.5, 60), TWO_SHELLS)
    files = write_responses(tmp_path)
    fitted = fit(dwi, from_files(files), files)
    axes = sh_basis(8, random_directions((2000,)))
    amplitudes = fitted.coefficients[:, 0, 0] @ axes.T
    assert amplitudes.min() > -0.04 * amplitudes.max()  # between the constraint's directions
    assert fitted.fractions is not None
    assert all(values.min() >= 0 for values in fitted.fractions.values())
    np.testing.assert_allclose(sum(fitted.fractions.values()), 1, atol=1e-5)


def test_the_multipliers_are_those_of_another_solver() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(60, 12))
    free = rng.normal(size=(30, 12))
    multipliers = nonnegative_multipliers(rows @ rows.T, free @ rows.T, 12)
    for point, found in zip(free, multipliers, strict=True):
        # The dual of the projection on {x: rows x >= 0}.
        expected, _ = nnls(rows.T, -point)
        np.testing.assert_allclose(point + found @ rows, point + expected @ rows, atol=1e-9)
        assert (found >= 0).all()
        assert ((point + found @ rows) @ rows.T).min() > -1e-8


def test_fits_do_not_depend_on_threads_or_on_other_voxels(tmp_path: Path) -> None:
    signals, _, _ = crossing(TWO_SHELLS, 60, 300)
    dwi = dwi_of(rician(signals, 20), TWO_SHELLS)
    files = write_responses(tmp_path)
    one, three = (fit(dwi, from_files(files), files, threads) for threads in (1, 3))
    assert one.coefficients.tobytes() == three.coefficients.tobytes()
    alone = dwi_of(dwi.data[270:271], TWO_SHELLS)
    np.testing.assert_allclose(
        fit(alone, from_files(files), files).coefficients[0], one.coefficients[270], atol=1e-5
    )


def test_voxels_of_nothing_are_zero_and_finite(tmp_path: Path) -> None:
    signals = np.zeros((3, 1, 1, len(TWO_SHELLS.bvals)))
    signals[1, ..., ::3] = 500
    signals[2] = -5
    files = write_responses(tmp_path)
    fitted = fit(dwi_of(signals, TWO_SHELLS), from_files(files), files)
    assert np.isfinite(fitted.coefficients).all()
    assert (fitted.coefficients[0] == 0).all()
    assert fitted.fractions is not None
    assert all(np.isfinite(values).all() for values in fitted.fractions.values())


def brain(noise: float) -> Dwi:
    """White matter with grey matter round it and fluid in its middle."""
    shape = (14, 14, 14)
    shares = np.zeros((*shape, 3))
    shares[..., 1] = 1
    shares[3:11, 3:11, 3:11] = [1, 0, 0]
    shares[6:9, 6:9, 6:9] = [0, 0, 1]
    directions = np.broadcast_to([0.8, 0.6, 0.0], (*shape, 3))
    signals = mixture(shares.reshape(-1, 3), directions.reshape(-1, 3)).reshape(*shape, -1)
    return dwi_of(rician(signals, noise), TWO_SHELLS)


@pytest.mark.parametrize("noise", [0.001, 10])
def test_responses_of_a_phantom_are_recovered(tmp_path: Path, noise: float) -> None:
    files = write_responses(tmp_path)
    fitted = fit(brain(noise), MsmtCsdModelConfig(sh_order=4))
    record = fitted.record["responses"]
    for tissue in ("wm", "gm", "csf"):
        expected = np.loadtxt(files[f"response.{tissue}"])
        np.testing.assert_allclose(
            np.array(record[tissue]), expected, atol=0.03 * np.abs(expected).max()
        )
        assert record["voxels"][tissue] >= 3
    assert fitted.warnings == ()
    for name in ("response_axial_mm2_s", "response_ratio", "response_csf_mm2_s"):
        low, high = QUANTITIES[name].range_of("adult").usual
        assert low < fitted.figures[name] < high
    assert fitted.fractions is not None
    assert fitted.fractions["csf"][7, 7, 7] > 0.95
    assert fitted.fractions["wm"][4, 4, 4] > 0.95
    assert fitted.fractions["gm"][1, 7, 7] > 0.9


def test_one_shell_has_two_tissues(tmp_path: Path) -> None:
    volumes = TWO_SHELLS.bvals < 1500
    both = brain(5)
    one = scheme((1000, 45))
    dwi = dwi_of(both.data[..., volumes], one)
    fitted = fit(dwi, MsmtCsdModelConfig(sh_order=4))
    assert fitted.record["tissues"] == ["wm", "csf"]
    assert fitted.fractions is not None
    assert set(fitted.fractions) == {"wm", "csf"}
    assert fitted.fractions["csf"][7, 7, 7] > 0.95
    assert fitted.fractions["wm"][4, 4, 4] > 0.9
    with pytest.raises(GradientError, match="two shells"):
        fit(dwi, MsmtCsdModelConfig(tissues="wm_gm_csf"))
    files = write_responses(tmp_path, (0, 1000))
    with pytest.raises(GradientError, match="wm_csf"):
        fit(dwi, from_files(files), files)
    del files["response.gm"]
    fitted = fit(dwi, from_files(files, tissues="wm_csf", sh_order=4), files)
    assert fitted.record["tissues"] == ["wm", "csf"]


def test_the_order_is_no_higher_than_the_response(tmp_path: Path) -> None:
    files = write_responses(tmp_path)
    path = files["response.wm"]
    np.savetxt(path, np.loadtxt(path)[:, :3])
    signals, _, _ = crossing(TWO_SHELLS, 60, 3)
    fitted = fit(dwi_of(signals, TWO_SHELLS), from_files(files), files)
    assert fitted.record["sh_order"] == 4
    assert fitted.coefficients.shape[-1] == 15


@pytest.mark.parametrize(
    ("tissue", "text", "words"),
    [
        ("wm", "1 2 3\n1 2 3\n", "3 are required"),
        ("wm", "1\n1\n1\n", "zonal"),
        ("gm", "3 2\n2 1\n1 1\n", "isotropic"),
        ("gm", "3\n2\nx\n", "gm.txt"),
        ("csf", "3\n2\n-1\n", "must be positive"),
        ("csf", "3\n2 1\n1\n", "csf.txt"),
    ],
)
def test_response_files_that_do_not_fit_are_refused(
    tmp_path: Path, tissue: str, text: str, words: str
) -> None:
    files = write_responses(tmp_path)
    files[f"response.{tissue}"].write_text(text)
    signals, _, _ = crossing(TWO_SHELLS, 60, 2)
    with pytest.raises(DataError, match=words):
        fit(dwi_of(signals, TWO_SHELLS), from_files(files), files)


def test_three_tissues_need_a_file_of_grey_matter(tmp_path: Path) -> None:
    files = write_responses(tmp_path, comment=False)
    del files["response.gm"]
    signals, _, _ = crossing(TWO_SHELLS, 60, 2)
    dwi = dwi_of(signals, TWO_SHELLS)
    with pytest.raises(DataError, match=r"model\.response\.gm"):
        fit(dwi, from_files(files, tissues="wm_gm_csf"), files)
    assert fit(dwi, from_files(files), files).record["tissues"] == ["wm", "csf"]


def test_it_is_that_of_mrtrix3_on_a_real_crop() -> None:
    if not PEER.is_dir():
        pytest.skip(f"{PEER} is not here")
    dwi = read_dwi(
        PEER / "dwi.nii.gz", GradientFiles(PEER / "dwi.bval", PEER / "dwi.bvec"), GradientsConfig()
    )
    mask = read_image(PEER / "mask.nii.gz", ndim=3).data > 0
    mask[:, :, ::2] = False
    files = {f"response.{name}": PEER / f"{name}.txt" for name in ("wm", "gm", "csf")}
    tensor_maps = fit_tensor(dwi, mask, TensorMapsConfig(), 1)
    fitted = fit_model(dwi, mask, tensor_maps, from_files(files), 1, files)
    theirs = {
        name: read_image(PEER / f"{name}.nii.gz", ndim=4).data[mask] for name in ("wm", "gm", "csf")
    }
    ours = fitted.coefficients[mask]
    assert np.corrcoef(ours.ravel(), theirs["wm"].ravel())[0, 1] > 0.998
    np.testing.assert_allclose(ours[:, 0], theirs["wm"][:, 0], atol=0.002)
    amounts = {name: values[:, 0] for name, values in theirs.items()}
    total = sum(amounts.values())
    assert fitted.fractions is not None
    for name, amount in amounts.items():
        np.testing.assert_allclose(fitted.fractions[name][mask], amount / total, atol=0.006)
    fine = random_directions((2000,), seed=5)
    basis = sh_basis(8, fine)
    single = tensor_maps.fa[mask] > 0.4  # where one peak leads
    one, other = (
        fine[(values[single] @ basis.T).argmax(axis=1)] for values in (ours, theirs["wm"])
    )
    apart = degrees((one * other).sum(axis=1))
    assert single.sum() > 50
    assert np.median(apart) < 2
    assert np.percentile(apart, 95) < 6


@pytest.mark.parametrize("factor", [0.01, 1.0, 300.0])
def test_the_peak_of_a_fibre_is_a_share_of_the_single_fibre_peak_for_csd_and_msmt_csd_alike(
    tmp_path: Path, factor: float
) -> None:
    shares = np.array([1.0, 0.5, 0.25])
    directions = random_directions((30,), seed=8)
    bundle = signal(TWO_SHELLS, tensor(directions), S0["wm"])
    fluid = signal(TWO_SHELLS, FLUID * np.eye(3), S0["csf"])
    files = write_responses(tmp_path)
    response = {"kind": "given", "eigenvalues_mm2_s": (AXIAL, RADIAL, RADIAL)}
    for share in shares:
        dwi = dwi_of((share * bundle + (1 - share) * fluid)[:, None, None], TWO_SHELLS)
        scaled = dwi_of(factor * (share * bundle)[:, None, None], TWO_SHELLS)
        models = {
            "msmt_csd": fit(dwi, from_files(files), files),
            "csd": fit_model(
                scaled, whole(scaled), tensor_fit(scaled),
                CsdModelConfig(response={**response, "s0": factor * S0["wm"]}), 1,
            ),
        }  # fmt: skip
        for name, fitted in models.items():
            peaks = peak_amplitudes(fitted.coefficients) / fitted.record["single_fibre_peak"]
            # The axis nearest to a fibre is up to 8 degrees away, which lowers the peak.
            np.testing.assert_allclose(peaks, share, rtol=0.1, err_msg=name)
            fine = fitted.coefficients[:, 0, 0] @ sh_basis(8, directions).T
            along = np.diagonal(fine) / fitted.record["single_fibre_peak"]
            np.testing.assert_allclose(along, share, rtol=0.03, err_msg=name)

"""What a run is given, checked against what can be: the command as users run it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from conftest import QUICK, Ended, run_cli, sidecar, tractograms
from numpy.typing import NDArray

from bids_tractography.core.gradients import permutation_matrix
from bids_tractography.outputs.provenance import RECORD_KEY
from bids_tractography.reconst.coherence import PERMUTATIONS

STEM = "sub-01/dwi/sub-01_dwi"


def changed(root: Path, change: Callable[[NDArray[np.float32]], NDArray[Any]]) -> None:
    """Rewrite the DWI as float32."""
    path = root / f"{STEM}.nii.gz"
    image = nib.load(path)
    data = change(np.asarray(image.dataobj, np.float32)).astype(np.float32)
    nib.save(nib.Nifti1Image(data, image.affine), path)


def brain_of(output: Path) -> nib.Nifti1Image:
    return nib.load(output / "sub-01/dwi/sub-01_desc-brain_mask.nii.gz")


def with_mask(root: Path, output: Path, data: NDArray[Any] | None = None) -> NDArray[np.bool_]:
    """Give the dataset the brain mask of an output, or values like it; return the mask."""
    image = brain_of(output)
    brain = np.asarray(image.dataobj) > 0
    values = brain if data is None else data
    dtype = np.uint8 if data is None else np.float32
    name = root / "sub-01/dwi/sub-01_desc-brain_mask.nii.gz"
    nib.save(nib.Nifti1Image(values.astype(dtype), image.affine), name)
    return brain


def run(root: Path, output: Path, *settings: str) -> Ended:
    return run_cli(root, output, "participant", overrides=(*QUICK, *settings))


def record(output: Path) -> dict[str, Any]:
    (path,) = tractograms(output)
    content: dict[str, Any] = sidecar(path)[RECORD_KEY]
    return content


def of_run(output: Path) -> dict[str, Any]:
    (path,) = (output / "logs").glob("*_participant.json")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


@pytest.mark.parametrize("factor", [1e-7, 1e7])
def test_the_scale_of_the_intensities_changes_nothing(
    dataset: Path, finished: tuple[Path, Ended], tmp_path: Path, factor: float
) -> None:
    changed(dataset, lambda data: data * factor)
    ended = run(dataset, tmp_path / "output")
    assert ended.returncode == 0, ended.stderr
    expected, found = record(finished[0]), record(tmp_path / "output")
    # Scaling rounds the last bit, which may send a few streamlines another way.
    for count in ("streamlines_kept", "seeds_without_direction", "points"):
        assert found[count] == pytest.approx(expected[count], rel=0.02, abs=3)
    response = found["model"]["response"]
    assert response["s0"] == pytest.approx(factor * expected["model"]["response"]["s0"], rel=1e-4)
    assert response["eigenvalues_mm2_s"] == pytest.approx(
        expected["model"]["response"]["eigenvalues_mm2_s"], rel=1e-4
    )


def test_nan_outside_the_brain_mask_changes_nothing(
    dataset: Path, finished: tuple[Path, Ended], tmp_path: Path
) -> None:
    brain = with_mask(dataset, finished[0])
    assert run(dataset, tmp_path / "clean").returncode == 0
    changed(dataset, lambda data: np.where(brain[..., None], data, np.nan))
    ended = run(dataset, tmp_path / "nan")
    assert ended.returncode == 0, ended.stderr
    assert (
        record(tmp_path / "nan")["content_sha256"] == record(tmp_path / "clean")["content_sha256"]
    )
    inside = tuple(np.argwhere(brain)[len(np.argwhere(brain)) // 2])

    def spoil(data: NDArray[np.float32]) -> NDArray[np.float32]:
        data[(*inside, 2)] = np.inf
        return data

    changed(dataset, spoil)
    ended = run(dataset, tmp_path / "inside")
    assert ended.returncode == 65
    assert "1 voxels of the brain" in ended.stderr
    (dataset / "sub-01/dwi/sub-01_desc-brain_mask.nii.gz").unlink()
    ended = run(dataset, tmp_path / "made")
    assert ended.returncode == 0, ended.stderr
    assert not np.asarray(brain_of(tmp_path / "made").dataobj)[inside]
    assert any("1 voxels are excluded" in text for text in record(tmp_path / "made")["warnings"])


@pytest.mark.parametrize("outside", [1e-7, 1e-3, -0.02])
def test_a_mask_that_was_interpolated_is_cut_at_half_its_maximum(
    dataset: Path, finished: tuple[Path, Ended], tmp_path: Path, outside: float
) -> None:
    brain = with_mask(dataset, finished[0])
    with_mask(dataset, finished[0], np.where(brain, 0.97, outside))
    ended = run(dataset, tmp_path / "output")
    assert ended.returncode == 0, ended.stderr
    used = np.asarray(brain_of(tmp_path / "output").dataobj) > 0
    assert np.array_equal(used, brain)
    assert any("not binary" in text for text in record(tmp_path / "output")["warnings"])


@pytest.mark.parametrize("names", [PERMUTATIONS[1], PERMUTATIONS[6], PERMUTATIONS[23]])
def test_a_wrong_gradient_table_is_refused_with_the_line_that_mends_it(
    dataset: Path, finished: tuple[Path, Ended], tmp_path: Path, names: tuple[str, str, str]
) -> None:
    bvec = dataset / f"{STEM}.bvec"
    right = np.loadtxt(bvec)
    np.savetxt(bvec, permutation_matrix(names) @ right, fmt="%.8f")
    ended = run(dataset, tmp_path / "wrong")
    assert ended.returncode == 65
    assert not tractograms(tmp_path / "wrong")
    (line,) = set(re.findall(r"gradients\.permute=\[[xyz, -]+\]", ended.stderr))
    mended = run(dataset, tmp_path / "mended", line)
    assert mended.returncode == 0, mended.stderr
    assert record(tmp_path / "mended")["gradients"]["permute"]
    expected = record(finished[0])["streamlines_kept"]
    assert record(tmp_path / "mended")["streamlines_kept"] == pytest.approx(expected, rel=0.02)


def test_a_warning_reaches_the_log_the_table_the_record_and_the_sidecar_once(
    dataset: Path, tmp_path: Path
) -> None:
    bvec = dataset / f"{STEM}.bvec"
    np.savetxt(bvec, np.loadtxt(bvec)[[1, 0, 2]], fmt="%.8f")
    ended = run(dataset, tmp_path / "output", "gradients.check=warn")
    assert ended.returncode == 0, ended.stderr
    (text,) = [w for w in record(tmp_path / "output")["warnings"] if "gradients.permute" in w]
    assert ended.stderr.count(text) == 1
    assert f"sub-01: {text}" in ended.stderr
    assert of_run(tmp_path / "output")["warnings"]["sub-01"].count(text) == 1
    n_warnings = len(record(tmp_path / "output")["warnings"])
    assert f" {n_warnings} " in next(
        line for line in ended.stdout.splitlines() if line.startswith("sub-01")
    )
    again = run(dataset, tmp_path / "output", "gradients.check=warn")
    assert "up to date" in again.stdout
    assert f" {n_warnings} " in next(
        line for line in again.stdout.splitlines() if line.startswith("sub-01")
    )


def test_raw_data_are_warned_of_once(finished: tuple[Path, Ended]) -> None:
    output, ended = finished
    (text,) = [w for w in record(output)["warnings"] if "raw" in w]
    assert "motion" in text
    assert ended.stderr.count(text) == 1


def test_every_run_says_where_its_gradients_are_from(finished: tuple[Path, Ended]) -> None:
    output, ended = finished
    gradients = record(output)["gradients"]
    assert gradients["frame"] == "fsl"
    assert gradients["frame_reason"] in ended.stderr
    assert record(output)["checks"]["gradient_table"]["verdict"] == "agrees"
    assert record(output)["checks"]["response_axial_mm2_s"]["verdict"] == "usual"


def test_what_is_no_failure_is_skipped_with_its_reason(dataset: Path, tmp_path: Path) -> None:
    image = nib.load(dataset / f"{STEM}.nii.gz")
    folder = dataset / "sub-01/dwi"
    b0 = nib.Nifti1Image(np.asarray(image.dataobj)[..., :1], image.affine)
    for name in ("sub-01_dir-PA_dwi", "sub-01_part-phase_dwi"):
        nib.save(b0, folder / f"{name}.nii.gz")
        (folder / f"{name}.bval").write_text("0\n")
        (folder / f"{name}.bvec").write_text("0\n0\n0\n")
    other = dataset / "sub-02/anat"
    other.mkdir(parents=True)
    ended = run(dataset, tmp_path / "output")
    assert ended.returncode == 0, ended.stderr
    skipped = of_run(tmp_path / "output")["skipped"]
    assert set(skipped) == {"sub-01_dir-PA_dwi", "sub-01_part-phase_dwi", "sub-02"}
    assert "b=0" in skipped["sub-01_dir-PA_dwi"]
    assert "magnitude" in skipped["sub-01_part-phase_dwi"]
    for name in skipped:
        assert any(
            line.startswith(name) and "skipped" in line for line in ended.stdout.splitlines()
        )
    dry = run_cli(dataset, tmp_path / "output", "participant", "--dry-run")
    assert dry.returncode == 0
    for name in ("sub-01.nii", "sub-01_dwi"):
        for path in folder.glob(f"{name}*"):
            path.unlink()
    ended = run(dataset, tmp_path / "nothing")
    assert ended.returncode == 65
    assert "b=0" in ended.stderr
    dry = run_cli(dataset, tmp_path / "nothing", "participant", "--dry-run")
    assert dry.returncode == ended.returncode


@pytest.mark.parametrize("edge_mm", [0.1, 10.0])
def test_voxels_of_any_size_run_or_do_not_suit(
    dataset: Path, tmp_path: Path, edge_mm: float
) -> None:
    path = dataset / f"{STEM}.nii.gz"
    image = nib.load(path)
    affine = image.affine.copy()
    affine[:3] *= edge_mm / 3
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), path)
    ended = run(dataset, tmp_path / "strict")
    assert ended.returncode == 65
    assert "checks.subject" in ended.stderr
    lengths = (f"tracking.min_length_mm={2 * edge_mm}", f"tracking.max_length_mm={90 * edge_mm}")
    step = f"tracking.algorithm.step_size_mm={edge_mm / 3}"
    ended = run(dataset, tmp_path / "any", "checks.subject=any", step, *lengths)
    assert ended.returncode == 0, ended.stderr
    assert record(tmp_path / "any")["streamlines_kept"] > 300


def test_intensities_that_wrapped_around_are_refused(dataset: Path, tmp_path: Path) -> None:
    def wrap(data: NDArray[np.float32]) -> NDArray[np.float32]:
        scaled = (data / data.max() * 90_000).astype(np.int64)
        return np.asarray(scaled.astype(np.int16).astype(np.float32))

    changed(dataset, wrap)
    ended = run(dataset, tmp_path / "output", "gradients.check=off")
    assert ended.returncode == 65
    assert "usual range" in ended.stderr


def test_a_stricter_configuration_judges_again_what_is_there(dataset: Path, tmp_path: Path) -> None:
    bvec = dataset / f"{STEM}.bvec"
    right = bvec.read_text()
    np.savetxt(bvec, np.loadtxt(bvec)[[1, 0, 2]], fmt="%.8f")
    output = tmp_path / "output"
    for first in ("off", "warn"):
        assert run(dataset, output, f"gradients.check={first}").returncode == 0
        strict = run(dataset, output)
        assert strict.returncode == 65
        assert "gradients.permute" in strict.stderr
    bvec.write_text(right)
    path = dataset / f"{STEM}.nii.gz"
    image = nib.load(path)
    giant = image.affine * [[4], [4], [4], [1]]
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), giant), path)
    assert run(dataset, output, "checks.plausibility=off").returncode == 0
    strict = run(dataset, output)
    assert strict.returncode == 65
    assert "volume of the brain mask" in strict.stderr


@pytest.mark.parametrize(
    ("factor", "code"), [(0.0, 65), (3.0, 0)], ids=["without signal", "scaled"]
)
def test_a_volume_unlike_the_others_of_its_b_value_is_noticed(
    dataset: Path, tmp_path: Path, factor: float, code: int
) -> None:
    def spoil(data: NDArray[np.float32]) -> NDArray[np.float32]:
        data[..., 7] *= factor
        return data

    changed(dataset, spoil)
    ended = run(dataset, tmp_path / "output", "gradients.check=off")
    assert ended.returncode == code, ended.stderr
    assert "volume's median" in ended.stderr


def test_a_failure_is_not_hidden_by_a_run_of_the_same_name_that_is_skipped(
    dataset: Path, tmp_path: Path
) -> None:
    (dataset / ".bidsignore").write_text("sub-01_dwi.nii.gz\n")
    folder = dataset / "sub-01/dwi"
    for path in list(folder.iterdir()):
        shutil.copy(path, folder / path.name.replace("sub-01_", "sub-01_desc-preproc_"))
    (folder / "sub-01_desc-preproc_dwi.bval").write_text("0 1000\n")
    ended = run(dataset, tmp_path / "output")
    assert ended.returncode == 65
    assert set(of_run(tmp_path / "output")["failed"]) == {"sub-01"}
    assert set(of_run(tmp_path / "output")["skipped"]) == {"sub-01_dwi"}


def test_a_single_volume_that_would_inherit_the_gradients_of_another_image_is_skipped(
    dataset: Path, tmp_path: Path
) -> None:
    image = nib.load(dataset / f"{STEM}.nii.gz")
    b0 = nib.Nifti1Image(np.asarray(image.dataobj)[..., 0], image.affine)
    nib.save(b0, dataset / "sub-01/dwi/sub-01_acq-b0_dwi.nii.gz")
    ended = run(dataset, tmp_path / "output")
    assert ended.returncode == 0, ended.stderr
    assert set(of_run(tmp_path / "output")["skipped"]) == {"sub-01_acq-b0_dwi"}


def test_a_resumed_run_reports_what_an_undisturbed_one_reports(
    dataset: Path, tmp_path: Path
) -> None:
    # Too coarse for the check of the gradients to decide.
    changed(dataset, lambda data: data[::2, ::2, ::2])
    settings = ("tracking.min_length_mm=5", "checks.plausibility=warn")  # half a head
    assert run(dataset, tmp_path / "output", *settings).returncode == 0
    expected = record(tmp_path / "output")
    (path,) = tractograms(tmp_path / "output")
    path.unlink()
    assert run(dataset, tmp_path / "output", *settings).returncode == 0
    found = record(tmp_path / "output")
    assert len(found["warnings"]) > 2
    assert found["warnings"] == expected["warnings"]
    assert list(found["checks"]) == list(expected["checks"])

"""The dry run says what the run does, and ends with its exit code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import QUICK, Ended, run_cli, sidecar, tractograms, write_description

TRACTOGRAM = "sub-01/dwi/sub-01_tract-wholebrain_track-prob_tractogram"


def planned(*words: object, overrides: tuple[str, ...] = QUICK) -> tuple[dict[str, Any], Ended]:
    """The one document on standard output, and how the command ended."""
    ended = run_cli(*words, "--dry-run", "--json", overrides=overrides)
    content: dict[str, Any] = json.loads(ended.stdout)
    return content, ended


def snapshot(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


# Exit codes


def nothing(dataset: Path, output: Path) -> None:
    """Leave everything as it is."""


def another_dataset(dataset: Path, output: Path) -> None:
    write_description(output, GeneratedBy=[{"Name": "another program"}])


def readme_is_a_folder(dataset: Path, output: Path) -> None:
    (output / "README").mkdir(parents=True)


def participant_is_a_file(dataset: Path, output: Path) -> None:
    output.mkdir()
    (output / "sub-01").write_text("in the way")


def tractogram_is_a_folder(dataset: Path, output: Path) -> None:
    (output / f"{TRACTOGRAM}.trx").mkdir(parents=True)


def bvals_too_few(dataset: Path, output: Path) -> None:
    (dataset / "sub-01" / "dwi" / "sub-01_dwi.bval").write_text("0 1000\n")


def a_second_is_faulty(dataset: Path, output: Path) -> None:
    for path in (dataset / "sub-01" / "dwi").iterdir():
        copy = dataset / "sub-02" / "dwi" / path.name.replace("sub-01", "sub-02")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    (dataset / "sub-02" / "dwi" / "sub-02_dwi.bval").write_text("0 1000\n")


def nobody_has_dwi(dataset: Path, output: Path) -> None:
    shutil.rmtree(dataset / "sub-01" / "dwi")
    (dataset / "sub-01" / "anat").mkdir()


def broken_tractogram(dataset: Path, output: Path) -> None:
    (dataset.parent / "broken.tck").write_text("mrtrix tracks\n")


@pytest.mark.parametrize(
    ("prepare", "words", "overrides", "code"),
    [
        (nothing, (), QUICK, 0),
        (nothing, ("--participant-label", "99"), QUICK, 18),
        (nothing, ("--session-label", "99"), QUICK, 18),
        (nobody_has_dwi, (), QUICK, 66),
        (another_dataset, (), QUICK, 73),
        (readme_is_a_folder, (), QUICK, 73),
        (participant_is_a_file, (), QUICK, 73),
        (tractogram_is_a_folder, (), QUICK, 73),
        (bvals_too_few, (), QUICK, 65),
        (a_second_is_faulty, (), QUICK, 65),
        (broken_tractogram, (), ("import_tract=broken.tck",), 65),
        (nothing, (), ("import_tract=none.tck",), 66),
        (nothing, (), ("tracking.engine=cuda", *QUICK), 69),
        (nothing, (), ("model=msmt_cs",), 78),
    ],
)
def test_the_exit_code_is_that_of_the_run(
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    prepare: Callable[[Path, Path], None],
    words: tuple[str, ...],
    overrides: tuple[str, ...],
    code: int,
) -> None:
    output = tmp_path / "output"
    prepare(dataset, output)
    monkeypatch.chdir(tmp_path)
    before = snapshot(tmp_path)
    command = (dataset, output, "participant", *words)
    dry = run_cli(*command, "--dry-run", overrides=overrides)
    assert dry.returncode == code, dry.stdout + dry.stderr
    as_json = run_cli(*command, "--dry-run", "--json", overrides=overrides)
    assert as_json.returncode == code
    if code != 78:  # which concerns the command itself
        assert json.loads(as_json.stdout)["exit_code"] == code
    assert snapshot(tmp_path) == before
    assert run_cli(*command, overrides=overrides).returncode == code


def test_json_is_for_the_dry_run_only(scanned_once: Path, tmp_path: Path) -> None:
    ended = run_cli(scanned_once, tmp_path / "out", "participant", "--json")
    assert ended.returncode == 64
    assert "--json goes with --dry-run" in ended.stderr
    assert not (tmp_path / "out").exists()


# Figures


def test_totals_are_sums_over_runs(dataset: Path, tmp_path: Path) -> None:
    a_second_is_faulty(dataset, tmp_path)
    shutil.copyfile(
        dataset / "sub-01" / "dwi" / "sub-01_dwi.bval",
        dataset / "sub-02" / "dwi" / "sub-02_dwi.bval",
    )
    plan, ended = planned(dataset, tmp_path / "out", "participant")
    assert ended.returncode == 0, ended.stderr
    estimates = [run["estimate"] for run in plan["runs"]]
    assert [run["name"] for run in plan["runs"]] == ["sub-01", "sub-02"]
    assert plan["totals"]["seeds"] == 1200
    for key in ("streamlines", "cpu_seconds", "disk_mib"):
        assert plan["totals"][key] == pytest.approx(sum(one[key] for one in estimates)), key
        assert plan["totals"][key] > 0
    text = run_cli(dataset, tmp_path / "out", "participant", "--dry-run").stdout
    assert "# In all: about 1,200 seeds" in text


def test_without_results_the_number_of_streamlines_is_a_guess_with_bounds(
    scanned_once: Path, tmp_path: Path, finished: tuple[Path, Ended]
) -> None:
    plan, _ = planned(scanned_once, tmp_path / "out", "participant")
    (run,) = plan["runs"]
    low, high = run["estimate"]["streamlines_range"]
    (path,) = tractograms(finished[0])
    assert low < sidecar(path)["BidsTractography"]["streamlines_kept"] < high
    assert run["estimate"]["basis"].startswith("a guess")


@pytest.mark.parametrize(
    "changes",
    [
        ("seeding.rng_seed=12",),
        ("tracking.min_length_mm=40",),
        ("stopping.threshold=0.35", "seeding.seeds={kind: random, per_voxel: 1}"),
    ],
)
def test_with_an_fodf_a_trial_foresees_the_streamlines(
    scanned_once: Path, tmp_path: Path, finished: tuple[Path, Ended], changes: tuple[str, ...]
) -> None:
    output = Path(shutil.copytree(finished[0], tmp_path / "out"))
    before = snapshot(output)
    overrides = (*QUICK, *changes)
    run = ("participant", "--name", "another")
    plan, ended = planned(scanned_once, output, *run, overrides=overrides)
    assert ended.returncode == 0, ended.stderr
    (foreseen,) = plan["runs"]
    assert snapshot(output) == before
    assert "in a trial" in foreseen["estimate"]["basis"]
    assert run_cli(scanned_once, output, *run, overrides=overrides).returncode == 0
    (path,) = output.rglob("*_desc-another_tractogram.trx")
    assert str(path) in foreseen["writes"]
    record = sidecar(path)["BidsTractography"]
    assert foreseen["estimate"]["seeds"] == record["seeds"]
    low, high = foreseen["estimate"]["streamlines_range"]
    slack = 0.03 * record["seeds"]  # an interval of 95 %
    assert low - slack <= record["streamlines_kept"] <= high + slack
    assert high - low < 0.15 * record["seeds"]


def test_a_changed_image_is_not_tried(
    dataset: Path, tmp_path: Path, finished: tuple[Path, Ended]
) -> None:
    output = Path(shutil.copytree(finished[0], tmp_path / "out"))
    bvals = dataset / "sub-01" / "dwi" / "sub-01_dwi.bval"
    bvals.write_text(" ".join(str(float(b)) for b in np.loadtxt(bvals)) + "\n")
    plan, _ = planned(dataset, output, "participant")
    assert plan["runs"][0]["estimate"]["basis"].startswith("a guess")


def test_what_is_there_is_told(
    scanned_once: Path, tmp_path: Path, finished: tuple[Path, Ended]
) -> None:
    output = Path(shutil.copytree(finished[0], tmp_path / "out"))
    for overrides, status, words in (
        (QUICK, "up to date", "nothing to compute"),
        ((*QUICK, "output.formats=[trx,tck]"), "convert", "converted from the tractogram"),
        ((*QUICK, "model=csa", "output.name=csa"), "run", "streamlines  about"),
        ((*QUICK, "tracking.min_length_mm=40"), "fails", "--overwrite"),
    ):
        plan, _ = planned(scanned_once, output, "participant", overrides=overrides)
        assert [run["status"] for run in plan["runs"]] == [status]
        assert (plan["totals"]["seeds"] > 0) == (status == "run")
        command = (scanned_once, output, "participant", "--dry-run")
        assert words in run_cli(*command, overrides=overrides).stdout
    fresh, _ = planned(scanned_once, output, "participant", "--fresh")
    assert fresh["runs"][0]["status"] == "run"


def test_failures_and_skipped_runs_are_in_the_document(dataset: Path, tmp_path: Path) -> None:
    a_second_is_faulty(dataset, tmp_path)
    (dataset / "sub-03" / "anat").mkdir(parents=True)
    plan, ended = planned(dataset, tmp_path / "out", "participant")
    assert ended.returncode == plan["exit_code"] == 65
    assert [run["status"] for run in plan["runs"]] == ["run", "fails", "skipped"]
    assert plan["runs"][1]["exit_code"] == 65
    assert plan["runs"][2]["message"]
    assert plan["error"] is None

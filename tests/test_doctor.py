"""The doctor tracks the phantom on every engine, and the dry run foresees what a run takes."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import QUICK, run_cli, sidecar, tractograms

from bids_tractography.config.tracking import Tracking
from bids_tractography.provenance import RECORD_KEY
from bids_tractography.tracking import ENGINES


@pytest.mark.slow
def test_the_doctor_tracks_on_every_engine() -> None:
    ended = run_cli("doctor", overrides=())
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = ended.stdout.splitlines()
    for name, kind in ENGINES.items():
        if kind.unavailable(Tracking()):
            continue
        (trial,) = [line for line in lines if line.startswith(f"trial of {name} ")]
        kept = re.search(r"ok +(\d+) streamlines of 500 seeds", trial)
        assert kept, trial
        assert int(kept[1]) > 100
    assert any(line.startswith("trial of") and "2 processes" in line for line in lines)
    trials = [line for line in lines if line.startswith("trial of ray ")]
    assert [" ok " in line for line in trials] == ([True] if find_spec("ray") else [])


def foreseen(text: str, what: str) -> float:
    return float(re.search(rf"^  {what} +about (\d+)", text, re.MULTILINE)[1])


@pytest.mark.parametrize(
    "setting", ["seeding.seeds.per_voxel=2", "seeding.mask={map: fa, above: 0.4}"]
)
def test_the_dry_run_foresees_seeds_streamlines_and_disk(
    scanned_once: Path, tmp_path: Path, setting: str
) -> None:
    settings = (*(s for s in QUICK if "count" not in s), setting)
    dry = run_cli(scanned_once, tmp_path / "dry", "participant", "--dry-run", overrides=settings)
    assert dry.returncode == 0, dry.stderr
    assert not (tmp_path / "dry").exists()
    output = tmp_path / "output"
    assert run_cli(scanned_once, output, "participant", overrides=settings).returncode == 0
    (path,) = tractograms(output)
    record = sidecar(path)[RECORD_KEY]
    assert 0.5 < foreseen(dry.stdout, "seeds") / record["seeds"] < 2
    assert 0.5 < foreseen(dry.stdout, "streamlines") / record["streamlines_kept"] < 2
    for line in re.findall(r"^  writes +(\S+)", dry.stdout, re.MULTILINE):
        assert (output / Path(line).relative_to(tmp_path / "dry")).exists()


def test_the_dry_run_tells_what_cannot_be_done(dataset: Path, tmp_path: Path) -> None:
    (dataset / "sub-01" / "dwi" / "sub-01_dwi.bval").write_text("0 1000\n")
    dry = run_cli(dataset, tmp_path / "out", "participant", "--dry-run")
    assert dry.returncode == 65
    assert "cannot be done" in dry.stdout

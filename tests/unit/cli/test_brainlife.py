"""The app of brainlife.io, with the sample of its configuration on the phantom."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import ROOT

from bids_tractography.cli import brainlife


@pytest.mark.slow
def test_the_sample_becomes_a_track_and_a_product(scanned_once: Path, tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "dataset").symlink_to(scanned_once)
    config = json.loads((ROOT / "config.json.sample").read_text())
    config |= {"n_seeds": 300, "step_size_mm": 1, "mask": "not/there.nii.gz"}
    config["settings"] = "tracking.min_length_mm=30\ntracking.max_length_mm=100"
    (tmp_path / "config.json").write_text(json.dumps(config))
    shutil.copy(ROOT / "main", tmp_path / "main")
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    ended = subprocess.run(
        ["./main"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    track = nib.streamlines.load(tmp_path / "track" / "track.tck")
    product = json.loads((tmp_path / "product.json").read_text())
    assert len(track.streamlines) == int(track.header["count"]) == product["meta"]["streamlines"]
    steps = np.array([len(line) - 1 for line in track.streamlines])
    assert steps.min() >= 30
    assert steps.max() <= 100
    kinds = [item["type"] for item in product["brainlife"]]
    assert kinds[0] == "success"
    assert kinds.count("plotly") == 3
    picture = next(item for item in product["brainlife"] if item["type"] == "image/png")
    assert base64.b64decode(picture["base64"]).startswith(b"\x89PNG")


def test_a_failure_is_told_in_the_product(scanned_once: Path, tmp_path: Path) -> None:
    folder = scanned_once / "sub-01" / "dwi"
    config = {
        "dwi": str(folder / "sub-01_dwi.nii.gz"),
        "bvals": str(folder / "sub-01_dwi.bval"),
        "bvecs": "missing.bvecs",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    code = brainlife.main(tmp_path / "config.json", tmp_path)
    assert code == 66
    (message,) = json.loads((tmp_path / "product.json").read_text())["brainlife"]
    assert message["type"] == "error"
    assert ".bvec" in message["msg"]


def test_participant_and_session_have_the_labels_of_the_platform(tmp_path: Path) -> None:
    (tmp_path / "dwi.nii.gz").touch()
    asked = {
        "dwi": "dwi.nii.gz",
        "_inputs": [{"id": "dwi", "meta": {"subject": "HCP_100-1", "session": "1"}}],
    }
    raw, _ = brainlife._make_dataset(asked, tmp_path)
    linked = raw / "sub-HCP1001" / "ses-1" / "dwi" / "sub-HCP1001_ses-1_dwi.nii.gz"
    assert linked.resolve() == tmp_path / "dwi.nii.gz"


@pytest.mark.parametrize("shape", [(3, 5), (7, 2)])
def test_pictures_are_what_an_independent_decoder_reads(shape: tuple[int, int]) -> None:
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    import io

    grey = np.arange(shape[0] * shape[1], dtype=np.uint8).reshape(shape)
    np.testing.assert_array_equal(np.asarray(image.open(io.BytesIO(brainlife._png(grey)))), grey)


def test_presets_and_numbers_of_streamlines_reach_the_command_line(
    scanned_once: Path, tmp_path: Path
) -> None:
    folder = scanned_once / "sub-01" / "dwi"
    config = {
        "bvals": str(folder / "sub-01_dwi.bval"),
        "dwi": str(folder / "sub-01_dwi.nii.gz"),
        "bvecs": str(folder / "sub-01_dwi.bvec"),
        "preset": "det_csd",
        "n_streamlines": "0.1k",
        "step_size_mm": 1,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert brainlife.main(tmp_path / "config.json", tmp_path) == 0
    track = nib.streamlines.load(tmp_path / "track" / "track.tck")
    assert len(track.streamlines) == 100
    (made,) = tmp_path.glob("output/sub-01/dwi/*_tractogram.tck")
    assert "track-det" in made.name

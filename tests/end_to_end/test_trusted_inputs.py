"""Whole runs on inputs that are damaged, or change while they are used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Ended, run_cli, tractograms
from hostile import GRID

from bids_tractography.core.dwi import Dwi, read_dwi
from bids_tractography.core.images import write_image
from bids_tractography.pipeline import process
from bids_tractography.pipeline.job import Job
from bids_tractography.pipeline.results import write_tractogram

DWI = "sub-01/dwi/sub-01_dwi.nii.gz"


def records(output: Path) -> list[Path]:
    return [path for path in output.glob("sub-*/**/*.json") if path.stat().st_size]


def touch(path: Path) -> None:
    """Change the time of modification, as any program that writes does."""
    before = path.stat()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_flipped_bit_of_the_dwi_fails_the_run_and_names_the_file(
    dataset: Path, tmp_path: Path, share: float
) -> None:
    content = bytearray((dataset / DWI).read_bytes())
    content[int(share * len(content))] ^= 4
    (dataset / DWI).write_bytes(content)
    ended = run_cli(dataset, tmp_path / "output", "participant")
    assert ended.returncode == 65
    assert "sub-01_dwi.nii.gz cannot be read" in ended.stdout + ended.stderr
    assert records(tmp_path / "output") == []


@pytest.mark.parametrize("role", [DWI, DWI.replace(".nii.gz", ".bvec")])
def test_an_input_that_changes_after_hashing_fails_the_run_and_nothing_is_recorded(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    hash_inputs = Job.hash_inputs

    def and_touch(job: Job) -> dict[str, str]:
        hashes = hash_inputs(job)
        touch(dataset / role)
        return hashes

    monkeypatch.setattr(Job, "hash_inputs", and_touch)
    ended = run_cli(dataset, tmp_path / "output", "participant")
    assert ended.returncode == 75
    assert f"{Path(role).name} was changed or replaced" in ended.stdout + ended.stderr
    assert records(tmp_path / "output") == []


def test_an_input_that_is_restored_after_reading_another_is_noticed(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, aside, other = dataset / DWI, tmp_path / "aside", tmp_path / "other"
    other.write_bytes(path.read_bytes())

    def read_other(*args: Any) -> Dwi:
        path.rename(aside)
        other.rename(path)
        try:
            return read_dwi(*args)
        finally:
            path.rename(other)
            aside.rename(path)

    monkeypatch.setattr(process, "read_dwi", read_other)
    ended = run_cli(dataset, tmp_path / "output", "participant")
    assert ended.returncode == 75
    assert records(tmp_path / "output") == []


def test_an_input_that_changes_while_tracking_leaves_no_tractogram_recorded(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touch_and_write(*args: Any) -> None:
        touch(dataset / DWI)
        write_tractogram(*args)

    monkeypatch.setattr(process, "write_tractogram", touch_and_write)
    assert run_cli(dataset, tmp_path / "output", "participant").returncode == 75
    assert list(tmp_path.glob("output/sub-01/dwi/*_tractogram.json")) == []
    monkeypatch.undo()
    assert run_cli(dataset, tmp_path / "output", "participant").returncode == 0
    assert list(tmp_path.glob("output/sub-01/dwi/*_tractogram.json"))


def test_an_input_that_goes_after_planning_is_no_input(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hash_inputs = Job.hash_inputs

    def broken(job: Job) -> dict[str, str]:
        (dataset / DWI).unlink()
        (dataset / DWI).symlink_to("gone")
        return hash_inputs(job)

    monkeypatch.setattr(Job, "hash_inputs", broken)
    ended = run_cli(dataset, tmp_path / "output", "participant")
    assert ended.returncode == 66
    assert "datalad get" in ended.stdout + ended.stderr


@pytest.mark.parametrize("content", ['{"a": NaN}', '{"a": "\\ud800"}', "{" * 5, '{"a":' * 2000])
def test_an_imported_sidecar_that_cannot_be_recorded_is_named(
    dataset: Path, finished: tuple[Path, Ended], tmp_path: Path, content: str
) -> None:
    (tractogram,) = tractograms(finished[0])
    source = tmp_path / "given.trx"
    source.write_bytes(tractogram.read_bytes())
    (tmp_path / "given.json").write_text(content)
    ended = run_cli(
        dataset, tmp_path / "output", "participant", overrides=(f"import_tract={source}",)
    )
    assert ended.returncode == 65
    assert "given.json is not valid JSON" in ended.stdout + ended.stderr


def test_a_mask_with_a_flipped_bit_is_refused(dataset: Path, tmp_path: Path) -> None:
    path = tmp_path / "seeds.nii.gz"
    write_image(path, np.ones(GRID.shape, np.uint8), GRID)
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # in the checksum
    path.write_bytes(content)
    ended = run_cli(
        dataset,
        tmp_path / "output",
        "participant",
        overrides=(f"seeding.mask={{kind: file, path: {path}}}",),
    )
    assert ended.returncode == 65
    assert "seeds.nii.gz cannot be read: CRC check failed" in ended.stdout + ended.stderr

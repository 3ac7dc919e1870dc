"""Recorded inputs are found by their content only, and linked where they were."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from bids_tractography.app.staging import Located, Search, stage
from bids_tractography.errors import OutputError
from bids_tractography.outputs.provenance import InputFile

CONTENT = b"recorded"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
URI = "bids:ds:sub-01/dwi/sub-01_dwi.bval"


def recorded(uri: str = URI, role: str = "dwi", content: bytes = CONTENT) -> InputFile:
    return InputFile(role=role, uri=uri, sha256=hashlib.sha256(content).hexdigest())


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "place",
    [
        "sub-01/dwi/sub-01_dwi.bval",
        "ds/sub-01/dwi/sub-01_dwi.bval",
        "old/sub-01_dwi.bval",
        "old/renamed.bval",
    ],
)
def test_search_finds_a_file_at_its_place_by_its_name_or_by_its_content(
    tmp_path: Path, place: str
) -> None:
    put(tmp_path / "sub-02" / "sub-01_dwi.bval", b"of the same name")
    put(tmp_path / "other.bval", b"of the same extension")
    path = put(tmp_path / place)
    assert Search([tmp_path], {}).locate(recorded()) == Located(recorded(), path, sha256=SHA256)


def test_search_takes_a_linked_dataset_if_the_given_directory_has_another_content(
    tmp_path: Path,
) -> None:
    put(tmp_path / "given" / "sub-01/dwi/sub-01_dwi.bval", b"changed")
    path = put(tmp_path / "linked" / "sub-01/dwi/sub-01_dwi.bval")
    found = Search([tmp_path / "given"], {"ds": tmp_path / "linked"}).locate(recorded())
    assert found.path == path


def test_search_reports_what_is_in_the_place_of_a_changed_file(tmp_path: Path) -> None:
    path = put(tmp_path / "sub-01/dwi/sub-01_dwi.bval", b"changed")
    found = Search([tmp_path], {}).locate(recorded())
    changed = hashlib.sha256(b"changed").hexdigest()
    assert found == Located(recorded(), None, path, changed)


def test_search_reads_nothing_but_the_named_file_of_a_linked_dataset(tmp_path: Path) -> None:
    put(tmp_path / "linked" / "renamed.bval")
    assert Search([], {"ds": tmp_path / "linked"}).locate(recorded()) == Located(recorded())


def test_search_does_not_wait_for_a_named_pipe(tmp_path: Path) -> None:
    (tmp_path / "sub-01/dwi").mkdir(parents=True)
    os.mkfifo(tmp_path / "sub-01/dwi/sub-01_dwi.bval")
    assert Search([tmp_path], {}).locate(recorded()).path is None


def test_stage_links_files_to_their_recorded_paths(tmp_path: Path) -> None:
    dwi = Located(recorded(), put(tmp_path / "x.bval"))
    mask = Located(recorded("file:///rois/a%20b.nii.gz", "tracking.include.0"), put(tmp_path / "y"))
    tissue = Located(recorded("bids:../../t:sub-01/anat/c.nii.gz", "tissue.0"), put(tmp_path / "z"))
    staged = stage(tmp_path / "stage", [dwi, mask, tissue])
    assert staged.main == tmp_path / "stage" / "ds"
    assert staged.paths["dwi"] == staged.main / "sub-01/dwi/sub-01_dwi.bval"
    (other,) = staged.others
    assert staged.paths["tissue.0"] == other / "sub-01/anat/c.nii.gz"
    assert staged.paths["tracking.include.0"] == tmp_path / "stage" / "outside" / "rois/a b.nii.gz"
    for role, path in staged.paths.items():
        assert path.is_relative_to(tmp_path / "stage"), role
        assert path.read_bytes() == CONTENT


def test_stage_again_replaces_links_to_files_that_were_moved_only(tmp_path: Path) -> None:
    dwi = Located(recorded(), put(tmp_path / "x"))
    bval, moved = put(tmp_path / "y"), put(tmp_path / "z")
    uri = "bids:ds:sub-01/dwi/a.bval"
    paths = stage(tmp_path / "stage", [dwi, Located(recorded(uri, "bval"), bval)]).paths
    before = paths["dwi"].lstat().st_ino
    again = stage(tmp_path / "stage", [dwi, Located(recorded(uri, "bval"), moved)])
    assert again.paths == paths
    assert paths["bval"].readlink() == moved
    assert paths["dwi"].lstat().st_ino == before
    assert bval.read_bytes() == CONTENT


def test_stage_describes_a_dataset_as_the_one_that_the_file_is_in(tmp_path: Path) -> None:
    original = tmp_path / "original"
    path = put(original / "sub-01/dwi/sub-01_dwi.bval")
    description = {"Name": None, "GeneratedBy": [{"Name": "QSIPrep"}]}
    (original / "dataset_description.json").write_text(json.dumps(description))
    staged = stage(tmp_path / "stage", [Located(recorded(), path)])
    copied = json.loads((staged.main / "dataset_description.json").read_text())
    assert copied["GeneratedBy"] == [{"Name": "QSIPrep"}]
    assert copied["Name"] == "ds"
    assert copied["BIDSVersion"]


def test_stage_refuses_a_file_inside_a_file(tmp_path: Path) -> None:
    one = Located(recorded(), put(tmp_path / "x"))
    inside = Located(recorded(f"{URI}/y.bvec", "bvec"), put(tmp_path / "y"))
    with pytest.raises(OutputError, match=r"y\.bvec cannot be linked"):
        stage(tmp_path / "stage", [one, inside])
    assert list(tmp_path.glob("[xy]*")) == [tmp_path / "x", tmp_path / "y"]


def test_stage_does_not_write_through_a_link_in_the_place_of_the_description(
    tmp_path: Path,
) -> None:
    one = Located(recorded(), put(tmp_path / "x"))
    uri = "bids:ds:dataset_description.json"
    hostile = Located(recorded(uri, "bvec"), put(tmp_path / "precious"))
    with pytest.raises(OutputError):
        stage(tmp_path / "stage", [one, hostile])
    assert (tmp_path / "precious").read_bytes() == CONTENT

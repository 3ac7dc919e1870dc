"""What the entities of a file name tell."""

from __future__ import annotations

from pathlib import Path

import pytest
from bidsschematools.schema import load_schema

from bids_tractography.app.plan import plan
from bids_tractography.app.request import Request, open_study
from bids_tractography.config.load import load_config
from bids_tractography.inputs.entities import is_native, is_template, parse_name
from bids_tractography.pipeline.job import Job

OWN = ["T1w", "T2w", "ACPC", "individual", "orig", "scanner", "native", "boldref", "dwi", None]


def test_spaces_of_the_specification_are_templates_and_those_of_participants_are_not() -> None:
    enums = load_schema()["objects"]["enums"]
    known = enums["_StandardTemplateCoordSys"]["enum"] + [
        *enums["_StandardTemplateDeprecatedCoordSys"]["enum"], "mni152nlin6asym", "dhcpAsym", "WHS",
    ]  # fmt: skip
    assert len(known) > 30
    assert [space for space in known if not is_template(space)] == []
    assert [space for space in known if is_native(space)] == []
    assert [space for space in OWN if is_template(space)] == []


@pytest.mark.parametrize("space", ["T1w", "T2w", "anat", "individual", "native", "scanner", None])
def test_spaces_of_the_participants_anatomy_are_native(space: str | None) -> None:
    assert is_native(space)
    assert not is_native("ACPC")


def test_space_orig_is_the_space_of_acquisition() -> None:
    assert parse_name("sub-1_space-orig_dwi.nii.gz").space is None
    assert parse_name("sub-1_space-T1w_dwi.nii.gz").space == "T1w"


@pytest.mark.parametrize(
    ("name", "referred"),
    [
        ("sub-1_space-T1w_desc-preproc_dwi", True),
        ("sub-1_space-fsaverage5_desc-preproc_dwi", True),  # the specification dropped it
        ("sub-1_space-MNI152NLin6Asym_desc-preproc_dwi", True),
        ("sub-1_desc-preproc_dwi", False),
    ],
)
def test_what_names_a_space_says_what_that_refers_to(
    tmp_path: Path, name: str, referred: bool
) -> None:
    dataset = tmp_path / "in"
    folder = dataset / "sub-1" / "dwi"
    folder.mkdir(parents=True)
    for extension in ("nii.gz", "bval", "bvec"):
        (folder / f"{name}.{extension}").touch()
    (dataset / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    request = Request(dataset, tmp_path / "out", tmp_path / "work", load_config(None, []))
    [planned] = plan(request, open_study(request))
    found = planned.what
    assert isinstance(found, Job)
    expected = f"bids:in:sub-1/dwi/{name}.nii.gz" if referred else None
    assert found.outputs.common.get("SpatialReference") == expected

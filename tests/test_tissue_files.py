from __future__ import annotations

from pathlib import Path

import pytest
from bids_tractography.tissue_files import find_tissue

SHORT = {"ses": "session", "dir": "direction", "acq": "acquisition"}


def files(*paths):
    """What pybids would say of these paths."""
    found = []
    for path in map(Path, paths):
        *pairs, suffix = path.name.split(".")[0].split("_")
        entities = {SHORT.get(k, k): v for k, v in (pair.split("-", 1) for pair in pairs)}
        entities |= {"suffix": suffix, "datatype": path.parent.name, "extension": ".nii.gz"}
        found.append(("main", Path("/data") / path, entities))

    def get(**wanted):
        return [
            file
            for file in found
            if all(file[2].get(k) in (v if isinstance(v, list) else [v]) for k, v in wanted.items())
        ]

    return get


def three(stem):
    return [f"{stem}_label-{label}_probseg.nii.gz" for label in ("WM", "GM", "CSF")]


DWI = {"subject": "1", "session": "a", "suffix": "dwi", "space": "T1w", "desc": "preproc"}


def test_all_three_fractions_are_needed():
    assert find_tissue(files(*three("anat/sub-1")[:2]), DWI).probseg is None
    found = find_tissue(files(*three("anat/sub-1")), DWI).probseg
    assert {k: p.name for k, p in found.items()} == {
        k: f"sub-1_label-{k.upper()}_probseg.nii.gz" for k in ("wm", "gm", "csf")
    }


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("anat/sub-1_space-T1w", "anat/sub-1"),
        ("anat/sub-1_ses-a", "anat/sub-1"),
        ("anat/sub-1", "dwi/sub-1"),
        ("anat/sub-1", "anat/sub-1_space-ACPC"),
        ("anat/sub-1_space-ACPC", "anat/sub-1_space-MNI152NLin2009cAsym"),
    ],
)
def test_the_closest_set_is_taken(better, worse):
    for order in ((better, worse), (worse, better)):
        found = find_tissue(files(*(name for stem in order for name in three(stem))), DWI)
        assert found.probseg["wm"].name.startswith(Path(better).name + "_label")


@pytest.mark.parametrize(
    "stem",
    ["anat/sub-1_space-MNI152NLin6Asym", "anat/sub-1_ses-b", "dwi/sub-1_dir-PA", "func/sub-1"],
)
def test_what_is_of_another_space_session_or_run_never_matches(stem):
    assert find_tissue(files(*three(stem)), {**DWI, "direction": "AP"}).probseg is None


def test_several_of_the_best_rank_are_a_fault_of_their_kind_alone():
    names = ["anat/sub-1_run-1_T1w.nii.gz", "anat/sub-1_run-2_T1w.nii.gz"]
    found = find_tissue(files(*names, "anat/sub-1_dseg.nii.gz"), DWI)
    assert list(found.by_kind) == ["dseg", "t1w"]
    assert found.dseg is not None
    error = found.faults["t1w"]
    assert all(name.removeprefix("anat/") in str(error) for name in names)
    assert "tissue.image" in error.remedy


def test_preprocessed_t1w_with_its_own_mask():
    found = find_tissue(
        files(
            "anat/sub-1_T1w.nii.gz",
            "anat/sub-1_desc-preproc_T1w.nii.gz",
            "anat/sub-1_desc-brain_mask.nii.gz",
            "anat/sub-1_space-MNI152Lin_desc-brain_mask.nii.gz",
        ),
        DWI,
    )
    assert found.t1w.name == "sub-1_desc-preproc_T1w.nii.gz"
    assert found.t1w_mask.name == "sub-1_desc-brain_mask.nii.gz"
    assert list(found.by_kind) == ["t1w"]


def test_aseg_goes_before_three_tissues_and_parcellations_never_match():
    found = find_tissue(
        files(
            "anat/sub-1_dseg.nii.gz",
            "anat/sub-1_desc-aseg_dseg.nii.gz",
            "anat/sub-1_atlas-x_dseg.nii.gz",
            "anat/sub-1_desc-5tt_probseg.nii.gz",
        ),
        DWI,
    )
    assert found.dseg.name == "sub-1_desc-aseg_dseg.nii.gz"
    assert found.fivett.name == "sub-1_desc-5tt_probseg.nii.gz"
    assert list(found.by_kind) == ["dseg", "5tt"]

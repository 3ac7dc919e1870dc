"""Which tissue files belong to a DWI, and in which spaces they are taken to be aligned."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_tractography.config.tissue import AutoTissueConfig, DsegTissueConfig, ProbsegTissueConfig
from bids_tractography.errors import NoInputError, NoMatchError
from bids_tractography.inputs.index import BidsFile
from bids_tractography.inputs.tissue import TissueFiles, find_tissue
from bids_tractography.inputs.tissue_source import choose_source

OTHER_GRID = "on a different grid than the DWI"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


def files(root: Path, *paths: str, dataset: str = "main") -> list[BidsFile]:
    """Make empty files of a participant."""
    made = []
    for path in paths:
        full = root / "sub-1" / path
        full.parent.mkdir(parents=True, exist_ok=True)
        full.touch()
        made.append(BidsFile(dataset, root, full))
    return made


def three(stem: str) -> list[str]:
    return [f"{stem}_label-{label}_probseg.nii.gz" for label in ("WM", "GM", "CSF")]


def dwi_of(root: Path, entities: str = "ses-a_space-T1w_desc-preproc") -> BidsFile:
    folder = root / "sub-1"
    folder = folder / "ses-a" / "dwi" if "ses-a" in entities else folder / "dwi"
    middle = f"_{entities}" if entities else ""
    return BidsFile("main", root, folder / f"sub-1{middle}_dwi.nii.gz")


def find(
    root: Path,
    *paths: str,
    dwi: str = "ses-a_space-T1w_desc-preproc",
    same_grid: bool = False,
    dataset: str = "main",
    any_space: bool = False,
) -> TissueFiles:
    grid = None if same_grid else OTHER_GRID
    found = files(root, *paths, dataset=dataset)
    return find_tissue(found, dwi_of(root, dwi), lambda _: grid, any_space=any_space)


def test_all_three_fractions_are_needed(root: Path) -> None:
    found = find(root, *three("anat/sub-1")[:2])
    assert found.probseg is None
    assert "label-CSF is missing" in found.passed_over["probseg"]
    found = find(root, *three("anat/sub-1"))
    assert found.probseg is not None
    assert {k: p.name for k, p in found.probseg.items()} == {
        k: f"sub-1_label-{k.upper()}_probseg.nii.gz" for k in ("wm", "gm", "csf")
    }


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("anat/sub-1_space-T1w", "anat/sub-1"),
        ("ses-a/anat/sub-1_ses-a", "anat/sub-1"),
        ("anat/sub-1", "dwi/sub-1"),
        ("anat/sub-1", "anat/sub-1_space-ACPC"),
        ("anat/sub-1_space-T1w", "anat/sub-1_space-T1w_res-2"),
        ("anat/sub-1", "anat/sub-1_space-MNI152NLin2009cAsym"),
        ("anat/sub-1_desc-aseg", "anat/sub-1"),
    ],
)
def test_the_closest_set_is_taken(root: Path, better: str, worse: str) -> None:
    for order in ((better, worse), (worse, better)):
        found = find(root, *(name for stem in order for name in three(stem)))
        assert found.probseg is not None
        assert found.probseg["wm"].name.startswith(Path(better).name + "_label")


@pytest.mark.parametrize(
    "stem",
    [
        "anat/sub-1_space-MNI152NLin6Asym",
        "ses-b/anat/sub-1_ses-b",
        "dwi/sub-1_dir-PA",
        "dwi/sub-1_foo-1",
        "func/sub-1",
    ],
)
def test_what_is_of_a_template_another_session_or_run_never_matches(root: Path, stem: str) -> None:
    dwi = "ses-a_dir-AP_space-T1w_desc-preproc"
    assert find(root, *three(stem), dwi=dwi, same_grid=True, any_space=True).probseg is None


def test_several_of_the_best_rank_are_a_fault_of_their_kind_alone(root: Path) -> None:
    names = ["anat/sub-1_run-1_T1w.nii.gz", "anat/sub-1_run-2_T1w.nii.gz"]
    found = find(root, *names, "anat/sub-1_dseg.nii.gz")
    assert list(found.by_kind) == ["dseg", "t1w"]
    assert found.dseg is not None
    error = found.faults["t1w"]
    assert all(name.removeprefix("anat/") in str(error) for name in names)
    assert "tissue.image" in error.remedy


def test_files_of_the_dwis_own_dataset_go_before_equal_ones_of_others(root: Path) -> None:
    names = ["anat/sub-1_space-T1w_dseg.nii.gz"]
    own, other = files(root / "a", *names), files(root / "b", *names, dataset="other")
    dwi = dwi_of(root / "a")
    assert find_tissue([*other, *own], dwi, lambda _: None).dseg == own[0].path
    third = files(root / "c", *names, dataset="third")
    assert "dseg" in find_tissue([*other, *third], dwi, lambda _: None).faults


def test_preprocessed_t1w_with_its_own_mask(root: Path) -> None:
    found = find(
        root,
        "anat/sub-1_T1w.nii.gz",
        "anat/sub-1_desc-preproc_T1w.nii.gz",
        "anat/sub-1_desc-brain_mask.nii.gz",
        "anat/sub-1_space-MNI152Lin_desc-brain_mask.nii.gz",
    )
    assert found.t1w is not None
    assert found.t1w_mask is not None
    assert found.t1w.name == "sub-1_desc-preproc_T1w.nii.gz"
    assert found.t1w_mask.name == "sub-1_desc-brain_mask.nii.gz"
    assert list(found.by_kind) == ["t1w"]


def test_aseg_goes_before_three_tissues_and_parcellations_never_match(root: Path) -> None:
    found = find(
        root,
        "anat/sub-1_dseg.nii.gz",
        "anat/sub-1_desc-aseg_dseg.nii.gz",
        "anat/sub-1_atlas-x_dseg.nii.gz",
        "anat/sub-1_desc-5tt_probseg.nii.gz",
    )
    assert found.dseg is not None
    assert found.fivett is not None
    assert found.dseg.name == "sub-1_desc-aseg_dseg.nii.gz"
    assert found.fivett.name == "sub-1_desc-5tt_probseg.nii.gz"
    assert list(found.by_kind) == ["dseg", "5tt"]


# Spaces

KINDS = {
    "probseg": lambda space: three(f"anat/sub-1{space}"),
    "dseg": lambda space: [f"anat/sub-1{space}_dseg.nii.gz"],
    "5tt": lambda space: [f"anat/sub-1{space}_desc-5tt_probseg.nii.gz"],
}
TAKEN, ASSUMED, REFUSED, ABSENT = "taken", "assumed", "refused", "absent"


def outcome(found: TissueFiles, kind: str) -> str:
    paths = found.by_kind.get(kind)
    if paths:
        return ASSUMED if paths[0] in found.assumed else TAKEN
    return REFUSED if kind in found.refused else ABSENT


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("dwi", "space", "dataset", "same_grid", "expected", "expected_any"),
    [
        # QSIPrep's DWI with fMRIPrep's anatomy: another head position.
        ("space-ACPC", "", "other", False, REFUSED, ASSUMED),
        ("space-ACPC", "_space-T1w", "other", False, REFUSED, ASSUMED),
        ("space-T1w", "", "other", False, REFUSED, ASSUMED),
        ("space-ACPC", "", "main", False, REFUSED, ASSUMED),
        ("space-ACPC", "_space-orig", "main", False, REFUSED, ASSUMED),
        ("space-T1w", "_space-ACPC", "main", False, REFUSED, REFUSED),
        ("", "_space-ACPC", "other", False, REFUSED, REFUSED),
        ("", "_space-xyz", "other", True, REFUSED, REFUSED),
        # Aligned beyond doubt.
        ("space-ACPC", "_space-ACPC", "other", False, TAKEN, TAKEN),
        ("space-ACPC", "", "other", True, TAKEN, TAKEN),
        ("space-T1w", "", "main", False, TAKEN, TAKEN),
        ("", "", "other", True, TAKEN, TAKEN),
        ("", "_space-dwi", "other", False, TAKEN, TAKEN),
        # Scanner space and native anatomy.
        ("", "", "other", False, ASSUMED, ASSUMED),
        ("desc-preproc", "_space-T1w", "main", True, ASSUMED, ASSUMED),
        ("space-orig", "_space-individual", "main", False, ASSUMED, ASSUMED),
        # Templates.
        ("", "_space-MNI152NLin6Asym", "main", True, ABSENT, ABSENT),
        ("space-MNI152NLin6Asym", "_space-MNI152NLin6Asym", "main", True, ABSENT, ABSENT),
    ],
)
def test_spaces_decide_what_is_aligned(
    root: Path,
    kind: str,
    dwi: str,
    space: str,
    dataset: str,
    same_grid: bool,
    expected: str,
    expected_any: str,
) -> None:
    for any_space, wanted in ((False, expected), (True, expected_any)):
        found = find(
            root,
            *KINDS[kind](space),
            dwi=dwi,
            same_grid=same_grid,
            dataset=dataset,
            any_space=any_space,
        )
        assert outcome(found, kind) == wanted
        if wanted == REFUSED:
            error = found.refused[kind]
            assert "space" in error.message
            assert "tissue.space" in error.remedy


@settings(max_examples=50, deadline=None)
@given(
    space=st.sampled_from(["", "_space-T1w", "_space-ACPC", "_space-x", "_space-individual"]),
    dwi=st.sampled_from(["", "space-ACPC", "space-T1w"]),
)
def test_t1w_may_be_in_any_space_of_the_participant(
    tmp_path_factory: pytest.TempPathFactory, space: str, dwi: str
) -> None:
    root = tmp_path_factory.mktemp("t1w")
    found = find(root, f"anat/sub-1{space}_desc-preproc_T1w.nii.gz", dwi=dwi, dataset="other")
    assert outcome(found, "t1w") == TAKEN
    template = "anat/sub-1_space-MNIPediatricAsym_desc-preproc_T1w.nii.gz"
    assert find(root / "x", template, dwi=dwi).t1w is None


def test_auto_passes_over_what_is_refused_and_raises_if_nothing_else_is_there(root: Path) -> None:
    probsegs = three("anat/sub-1")
    aligned = "anat/sub-1_space-ACPC_dseg.nii.gz"
    found = find(root, *probsegs, aligned, dwi="space-ACPC", dataset="other")
    assert choose_source(AutoTissueConfig(), found, {}, from_model=False).kind == "dseg"
    (warning,) = found.skipped
    assert "no probseg was used for tissue" in warning
    assert "sub-1_label-WM_probseg.nii.gz (no space in its name" in warning
    with pytest.raises(NoMatchError, match="no probseg is known to be aligned"):
        choose_source(ProbsegTissueConfig(), found, {}, from_model=False)
    found = find(root, *probsegs, dwi="space-ACPC", dataset="other")
    with pytest.raises(NoMatchError, match="no probseg is known to be aligned"):
        choose_source(AutoTissueConfig(), found, {}, from_model=False)
    with pytest.raises(NoMatchError):  # fitting it instead would be another method
        choose_source(AutoTissueConfig(), found, {}, from_model=True)


def test_a_kind_of_which_only_templates_are_there_names_them(root: Path) -> None:
    found = find(root, "anat/sub-1_space-MNI152NLin6Asym_dseg.nii.gz")
    with pytest.raises(NoInputError, match="is a template space"):
        choose_source(DsegTissueConfig(), found, {}, from_model=False)


def test_a_file_without_content_is_a_fault_of_its_kind_alone(root: Path) -> None:
    names = ["anat/sub-1_dseg.nii.gz", *three("anat/sub-1")]
    found = files(root, *names)
    found[0].path.unlink()
    found[0].path.symlink_to("nowhere")
    tissue = find_tissue(found, dwi_of(root, ""), lambda _: None)
    assert "datalad get" in str(tissue.faults["dseg"])
    assert choose_source(AutoTissueConfig(), tissue, {}, from_model=False).kind == "probseg"
    with pytest.raises(NoInputError, match="datalad get"):
        choose_source(DsegTissueConfig(), tissue, {}, from_model=False)


def test_a_folder_that_cannot_be_read_is_named_where_tissue_is_missing() -> None:
    files = TissueFiles(unsearched=(Path("/data/sub-1/anat"),))
    for config in (AutoTissueConfig(), DsegTissueConfig()):
        with pytest.raises(NoInputError, match=r"/data/sub-1/anat \(cannot be read\)"):
            choose_source(config, files, {}, from_model=False)

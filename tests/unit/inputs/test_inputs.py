"""BIDS datasets in: every case on a tiny tree of real files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_tractography.config.load import load_config
from bids_tractography.errors import (
    InvalidBidsError,
    NoInputError,
    NoMatchError,
    TractographyError,
    UsageError,
)
from bids_tractography.inputs import (
    Dataset,
    DwiRun,
    FailedRun,
    ParticipantFiles,
    Selection,
    find_participants,
    read_dataset,
    read_filters,
)
from bids_tractography.inputs import layout as layouts
from bids_tractography.inputs.index import Index
from bids_tractography.inputs.weighting import only_b0

DESCRIPTION = {"Name": "A dataset", "BIDSVersion": "1.10.0"}
DERIVED = {**DESCRIPTION, "DatasetType": "derivative", "GeneratedBy": [{"Name": "qsiprep"}]}


def make(root: Path, *names: str, derived: bool = False) -> Path:
    """Make a dataset of empty files; ``NAME_dwi`` makes the image with its gradients."""
    root.mkdir(parents=True, exist_ok=True)
    description = DERIVED if derived else DESCRIPTION
    (root / "dataset_description.json").write_text(json.dumps(description))
    for name in names:
        extensions = (".nii.gz", ".bval", ".bvec") if name.endswith("_dwi") else ("",)
        for extension in extensions:
            path = root / (name + extension)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return root


def runs_of(
    *roots: Path,
    subject: str = "01",
    sessions: tuple[str, ...] = (),
    filters: Mapping[str, Mapping[str, Any]] | None = None,
    database: Path | None = None,
    overrides: Iterable[str] = (),
) -> list[DwiRun]:
    datasets = [read_dataset(f"set{n}", root) for n, root in enumerate(roots)]
    selection = Selection(sessions, filters, database)
    found = ParticipantFiles(datasets, subject, selection).dwi_runs(load_config(None, overrides))
    for run in found:
        if isinstance(run, FailedRun):
            raise run.error
    return [run for run in found if isinstance(run, DwiRun)]


def filters_in(folder: Path, content: Any) -> dict[str, dict[str, Any]]:
    path = folder / "filters.json"
    path.write_text(json.dumps(content))
    return read_filters(path)


def names(runs: Iterable[DwiRun]) -> list[str]:
    return [run.image.name.removesuffix("_dwi.nii.gz") for run in runs]


def refused(error: type[TractographyError], *roots: Path, **options: Any) -> str:
    with pytest.raises(error) as caught:
        runs_of(*roots, **options)
    assert caught.value.exit_code == error.exit_code
    return str(caught.value)


# The dataset


def test_a_dataset_is_opened_with_its_description(tmp_path: Path) -> None:
    make(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    dataset = read_dataset("raw", tmp_path / "link")
    assert dataset == Dataset("raw", (tmp_path / "real").resolve(), DESCRIPTION)


def test_a_description_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    text = json.dumps(DESCRIPTION)
    (tmp_path / "dataset_description.json").write_text(text, encoding="utf-8-sig")
    assert read_dataset("raw", tmp_path).description == DESCRIPTION


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no readable dataset_description.json"),
        ("{", "not valid JSON"),
        ("[]", "lacks Name and BIDSVersion"),
        ('{"Name": "x"}', "lacks BIDSVersion"),
        ('{"Name": "", "BIDSVersion": "1.0.0"}', "lacks Name"),
    ],
)
def test_folders_that_are_no_dataset_are_told(
    tmp_path: Path, content: str | None, says: str
) -> None:
    if content is not None:
        (tmp_path / "dataset_description.json").write_text(content)
    with pytest.raises(InvalidBidsError, match=says) as error:
        read_dataset("raw", tmp_path)
    assert error.value.exit_code == 16
    assert str(tmp_path) in str(error.value)


def test_a_dataset_that_is_not_there_is_no_input(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(NoInputError, match=path.name) as error:
            read_dataset("raw", path)
        assert error.value.exit_code == 66


# Participants


def test_participants_are_folders(tmp_path: Path) -> None:
    root = make(tmp_path, "sub-02/dwi/x", "sub-10/dwi/x", "sub-1/dwi/x", "sub-file", "other/x")
    assert find_participants(root, []) == ["02", "1", "10"]


def test_participants_are_asked_for_with_and_without_prefix(tmp_path: Path) -> None:
    root = make(tmp_path, "sub-01/x", "sub-02/x", "sub-03/x")
    assert find_participants(root, ["sub-03", "01", "sub-01"]) == ["01", "03"]


def test_participants_that_are_not_there_are_told_with_those_that_are(tmp_path: Path) -> None:
    root = make(tmp_path, "sub-01/x", "sub-02/x")
    with pytest.raises(NoMatchError) as error:
        find_participants(root, ["01", "3", "sub-4"])
    assert error.value.exit_code == 18
    assert error.value.message.startswith("no participant 3, 4 in")
    assert "01, 02" in error.value.remedy


def test_a_long_list_of_participants_is_cut(tmp_path: Path) -> None:
    root = make(tmp_path, *(f"sub-{n:03d}/x" for n in range(30)))
    with pytest.raises(NoMatchError, match=r"018, 019 and 10 more"):
        find_participants(root, ["x"])


def test_a_dataset_without_participants_is_told(tmp_path: Path) -> None:
    with pytest.raises(NoMatchError, match=r"sub-\*"):
        find_participants(make(tmp_path), [])


@pytest.mark.parametrize("subject", ["1", "10", "01"])
def test_labels_that_begin_alike_are_kept_apart(tmp_path: Path, subject: str) -> None:
    labels = ("1", "10", "100", "01", "1001")
    root = make(tmp_path, *(f"sub-{n}/ses-1/dwi/sub-{n}_ses-1_dwi" for n in labels))
    runs = runs_of(root, subject=subject)
    assert names(runs) == [f"sub-{subject}_ses-1"]
    assert runs[0].subject == subject
    assert {path.parents[2].name for path in runs[0].files.values()} == {f"sub-{subject}"}


@settings(max_examples=4, deadline=None)
@given(st.sets(st.text("aB1+", min_size=1, max_size=3), min_size=1, max_size=6), st.data())
def test_participants_with_any_label_are_found(
    tmp_path_factory: pytest.TempPathFactory, labels: set[str], data: st.DataObject
) -> None:
    root = make(tmp_path_factory.mktemp("ds"), *(f"sub-{n}/dwi/sub-{n}_dwi" for n in labels))
    assert set(find_participants(root, [])) == labels
    label = data.draw(st.sampled_from(sorted(labels)))
    assert names(runs_of(root, subject=label)) == [f"sub-{label}"]


# Runs


def test_a_run_has_its_files(tmp_path: Path) -> None:
    root = make(tmp_path, "sub-01/dwi/sub-01_dwi")
    stem = root / "sub-01/dwi/sub-01_dwi"
    assert runs_of(root) == [
        DwiRun(
            dataset="set0",
            subject="01",
            session=None,
            image=stem.with_suffix(".nii.gz"),
            bval=stem.with_suffix(".bval"),
            bvec=stem.with_suffix(".bvec"),
        )
    ]
    assert set(runs_of(root)[0].files) == {"dwi", "bval", "bvec"}


def test_uncompressed_images_are_found(tmp_path: Path) -> None:
    root = make(tmp_path, *(f"sub-01/dwi/sub-01_dwi.{e}" for e in ("nii", "bval", "bvec")))
    assert runs_of(root)[0].image == root / "sub-01/dwi/sub-01_dwi.nii"


RUNS = ("acq-a", "acq-b", "acq-b_dir-AP", "dir-PA_run-1", "dir-PA_run-2", "run-01", "run-11")


def name_of(path: Path | None) -> str | None:
    return path.name if path else None


def test_every_run_of_every_session_has_its_own_gradients(tmp_path: Path) -> None:
    stems = [f"sub-01_ses-{session}_{run}" for session in ("a", "b") for run in RUNS]
    root = make(tmp_path, *(f"sub-01/{stem[7:12]}/dwi/{stem}_dwi" for stem in stems))
    runs = runs_of(root)
    assert sorted(names(runs)) == sorted(stems)
    for run in runs:
        assert run.session == run.image.name[11]
        assert run.bval
        assert run.bvec
        assert run.bval.name == run.image.name.replace(".nii.gz", ".bval")
        assert run.bvec.name == run.image.name.replace(".nii.gz", ".bvec")


def test_a_plain_run_beside_ones_with_more_entities_has_its_own_gradients(tmp_path: Path) -> None:
    others = ("acq-hires", "dir-AP", "run-2", "part-mag", "acq-hires_dir-AP")
    stems = ["sub-01", *(f"sub-01_{other}" for other in others)]
    root = make(tmp_path, *(f"sub-01/dwi/{stem}_dwi" for stem in stems))
    gradients = {run.image.name: (name_of(run.bval), name_of(run.bvec)) for run in runs_of(root)}
    assert gradients == {
        f"{stem}_dwi.nii.gz": (f"{stem}_dwi.bval", f"{stem}_dwi.bvec") for stem in stems
    }


@pytest.mark.parametrize(
    ("own", "other", "extension"),
    [
        ("sub-01_run-1", "sub-01_run-2", "bvec"),
        ("sub-01_acq-a_dir-AP", "sub-01_acq-a_dir-PA", "bval"),
        ("sub-01", "sub-01_acq-hires", "bvec"),
        ("sub-01", "sub-01_run-1", "bval"),
        ("sub-01_dir-AP", "sub-01_acq-x_dir-AP", "bvec"),
        ("sub-01_acq-x", "sub-01_acq-xy", "bvec"),
    ],
)
def test_gradients_are_never_taken_from_another_run(
    tmp_path: Path, own: str, other: str, extension: str
) -> None:
    root = make(tmp_path, f"sub-01/dwi/{own}_dwi", f"sub-01/dwi/{other}_dwi")
    (root / f"sub-01/dwi/{own}_dwi.{extension}").unlink()
    message = refused(NoInputError, root)
    assert f"{own}_dwi.nii.gz has no .{extension} file" in message


def test_gradients_are_never_taken_from_another_session(tmp_path: Path) -> None:
    root = make(tmp_path, "sub-01/ses-1/dwi/sub-01_ses-1_dwi", "sub-01/ses-2/dwi/sub-01_ses-2_dwi")
    (root / "sub-01/ses-2/dwi/sub-01_ses-2_dwi.bvec").unlink()
    assert "sub-01_ses-2_dwi.nii.gz" in refused(NoInputError, root)


def test_a_preprocessed_run_does_not_take_gradients_of_another_space(tmp_path: Path) -> None:
    stem = "sub-01/dwi/sub-01"
    root = make(tmp_path, f"{stem}_desc-preproc_dwi", f"{stem}_space-T1w_desc-preproc_dwi")
    (root / f"{stem}_desc-preproc_dwi.bvec").unlink()
    assert "sub-01_desc-preproc_dwi.nii.gz has no .bvec" in refused(NoInputError, root)


def test_both_missing_gradients_are_named(tmp_path: Path) -> None:
    root = make(tmp_path, "sub-01/dwi/sub-01_dwi.nii.gz")
    message = refused(NoInputError, root)
    assert "no .bval and no .bvec" in message
    assert NoInputError.exit_code == 66


@pytest.mark.parametrize(
    "above",
    ["dwi", "sub-01/sub-01_dwi", "sub-01/ses-1/sub-01_ses-1_dwi", "acq-x_dwi"],
)
def test_gradients_are_inherited_from_above(tmp_path: Path, above: str) -> None:
    image = "sub-01/ses-1/dwi/sub-01_ses-1_acq-x_dwi.nii.gz"
    root = make(tmp_path, image, f"{above}.bval", f"{above}.bvec")
    (run,) = runs_of(root)
    assert (run.bval, run.bvec) == (root / f"{above}.bval", root / f"{above}.bvec")


def test_the_nearest_gradients_win(tmp_path: Path) -> None:
    root = make(
        tmp_path,
        *(f"sub-01/dwi/sub-01_run-{n}_dwi.nii.gz" for n in (1, 2)),
        *("dwi.bval", "dwi.bvec", "sub-01/sub-01_dwi.bvec", "sub-01/dwi/sub-01_run-2_dwi.bvec"),
    )
    one, two = runs_of(root)
    assert one.bval == two.bval == root / "dwi.bval"
    assert one.bvec == root / "sub-01/sub-01_dwi.bvec"
    assert two.bvec == root / "sub-01/dwi/sub-01_run-2_dwi.bvec"


def test_gradients_of_another_acquisition_at_the_root_are_not_inherited(tmp_path: Path) -> None:
    root = make(tmp_path, "sub-01/dwi/sub-01_acq-x_dwi.nii.gz", "acq-y_dwi.bval", "acq-y_dwi.bvec")
    assert "no .bval and no .bvec" in refused(NoInputError, root)


def test_other_files_of_the_participant_are_no_runs(tmp_path: Path) -> None:
    root = make(
        tmp_path,
        "sub-01/dwi/sub-01_dwi",
        "sub-01/dwi/sub-01_sbref.nii.gz",
        "sub-01/dwi/sub-01_dwi.json",
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/fmap/sub-01_acq-dwi_epi.nii.gz",
        "sub-01/func/sub-01_task-rest_bold.nii.gz",
        "sub-01/figures/sub-01_acq-fig_dwi.nii.gz",
        "sub-01/dwi/.hidden/sub-01_acq-hidden_dwi.nii.gz",
    )
    assert names(runs_of(root)) == ["sub-01"]


def test_a_participant_without_dwi_is_no_input(tmp_path: Path) -> None:
    root = make(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz", "sub-02/dwi/sub-02_dwi")
    message = refused(NoInputError, root)
    assert message.startswith("sub-01 has no DWI")
    assert NoInputError.exit_code == 66


# Preprocessed runs


def test_preprocessed_runs_are_preferred_in_each_session(tmp_path: Path) -> None:
    raw = make(
        tmp_path / "raw",
        *(f"sub-01/ses-{s}/dwi/sub-01_ses-{s}_{r}_dwi" for s in "12" for r in ("run-1", "run-2")),
    )
    derived = make(
        tmp_path / "qsiprep",
        "sub-01/ses-2/dwi/sub-01_ses-2_space-T1w_desc-preproc_dwi",
        derived=True,
    )
    runs = runs_of(raw, derived)
    assert sorted(names(runs)) == [
        "sub-01_ses-1_run-1",
        "sub-01_ses-1_run-2",
        "sub-01_ses-2_space-T1w_desc-preproc",
    ]
    assert {run.session: run.dataset for run in runs} == {"1": "set0", "2": "set1"}
    for run in runs:
        assert run.bvec
        assert run.bval
        assert run.bvec.parent == run.bval.parent == run.image.parent


def test_a_derivative_dataset_alone_is_read(tmp_path: Path) -> None:
    stem = "sub-01/dwi/sub-01_space-T1w_desc-preproc_dwi"
    root = make(tmp_path, stem, derived=True)
    assert names(runs_of(root)) == ["sub-01_space-T1w_desc-preproc"]


def test_preprocessed_runs_need_gradients_of_their_own_dataset(tmp_path: Path) -> None:
    raw = make(tmp_path / "raw", "sub-01/dwi/sub-01_dwi")
    derived = make(tmp_path / "d", "sub-01/dwi/sub-01_desc-preproc_dwi.nii.gz", derived=True)
    assert "sub-01_desc-preproc_dwi.nii.gz" in refused(NoInputError, raw, derived)


def test_a_participant_in_one_of_two_datasets_is_found(tmp_path: Path) -> None:
    raw = make(tmp_path / "raw", "sub-01/dwi/sub-01_dwi")
    derived = make(tmp_path / "d", "sub-02/dwi/sub-02_desc-preproc_dwi", derived=True)
    assert names(runs_of(raw, derived)) == ["sub-01"]


def test_nested_derivatives_are_not_searched(tmp_path: Path) -> None:
    root = make(tmp_path, "sub-01/dwi/sub-01_dwi")
    stem = "sub-01/dwi/sub-01_desc-preproc_dwi"
    for folder in ("derivatives/qsiprep", "sourcedata/raw", "derivatives", "code"):
        make(root / folder, stem)
    assert names(runs_of(root)) == ["sub-01"]
    assert names(runs_of(root, root / "derivatives/qsiprep")) == ["sub-01_desc-preproc"]


@pytest.mark.parametrize(
    "parents",
    [
        "derivatives/qsiprep",
        ".hidden/sub-data/ds",
        "sourcedata/code/ds",
        "pet/logs",
        "study_ses-9/ds",
        "x_run-7_acq-old_dir-LR/ds",
        "x_space-MNI/hires-study/ds",
        "desc-preproc/ds",
        "my data (1)/d.s",
    ],
)
def test_what_the_dataset_lies_in_does_not_matter(tmp_path: Path, parents: str) -> None:
    root = make(
        tmp_path / parents,
        *(f"sub-01/ses-{s}/dwi/sub-01_ses-{s}_run-{r}_dwi" for s in "12" for r in "12"),
        "sub-01/ses-2/dwi/sub-01_ses-2_run-1_desc-preproc_dwi",
        "sub-01/ses-2/dwi/sub-01_ses-2_run-1_desc-brain_mask.nii.gz",
        "sub-01/ses-1/dwi/sub-01_ses-1_run-2_desc-brain_mask.nii.gz",
    )
    found = {
        run.image.name: (run.session, name_of(run.bvec), name_of(run.brain_mask))
        for run in runs_of(root)
    }
    one, two = "sub-01_ses-1_run-1", "sub-01_ses-1_run-2"
    preprocessed = "sub-01_ses-2_run-1_desc-preproc"
    assert found == {
        f"{one}_dwi.nii.gz": ("1", f"{one}_dwi.bvec", None),
        f"{two}_dwi.nii.gz": ("1", f"{two}_dwi.bvec", f"{two}_desc-brain_mask.nii.gz"),
        f"{preprocessed}_dwi.nii.gz": (
            "2",
            f"{preprocessed}_dwi.bvec",
            "sub-01_ses-2_run-1_desc-brain_mask.nii.gz",
        ),
    }


# Brain masks


def mask_of(*roots: Path, **options: Any) -> str | None:
    (run,) = runs_of(*roots, **options)
    return str(run.brain_mask.relative_to(roots[-1])) if run.brain_mask else None


def test_the_mask_of_the_right_run_and_space_is_chosen(tmp_path: Path) -> None:
    stems = [
        f"sub-01/dwi/sub-01_{run}{space}"
        for run in ("run-1", "run-2")
        for space in ("", "_space-A")
    ]
    root = make(
        tmp_path,
        *(f"{stem}_desc-preproc_dwi" for stem in stems),
        *(f"{stem}_desc-brain_mask.nii.gz" for stem in stems),
        derived=True,
    )
    masks = {run.image.name: run.brain_mask and run.brain_mask.name for run in runs_of(root)}
    assert len(masks) == 4
    for image, mask in masks.items():
        assert mask == image.replace("_desc-preproc_dwi", "_desc-brain_mask")


def test_masks_of_something_else_are_not_taken(tmp_path: Path) -> None:
    root = make(
        tmp_path,
        "sub-01/ses-1/dwi/sub-01_ses-1_acq-a_dwi",
        "sub-01/ses-1/dwi/sub-01_ses-1_acq-b_desc-brain_mask.nii.gz",
        "sub-01/ses-1/dwi/sub-01_ses-1_acq-a_run-1_desc-brain_mask.nii.gz",
        "sub-01/ses-1/dwi/sub-01_ses-1_acq-a_space-T1w_desc-brain_mask.nii.gz",
        "sub-01/ses-1/dwi/sub-01_ses-1_acq-a_desc-wm_mask.nii.gz",
        "sub-01/ses-1/dwi/sub-01_ses-1_acq-a_desc-brain_dseg.nii.gz",
        "sub-01/ses-1/dwi/sub-01_ses-1_acq-a_desc-brain_mask.json",
        "sub-01/ses-1/anat/sub-01_ses-1_acq-a_desc-brain_mask.nii.gz",
        "sub-01/ses-2/dwi/sub-01_ses-2_acq-a_desc-brain_mask.nii.gz",
    )
    assert mask_of(root) is None


def test_the_mask_that_shares_more_entities_wins(tmp_path: Path) -> None:
    general = "sub-01/ses-1/dwi/sub-01_ses-1_desc-brain_mask.nii.gz"
    special = "sub-01/ses-1/dwi/sub-01_ses-1_acq-a_desc-brain_mask.nii.gz"
    root = make(tmp_path, "sub-01/ses-1/dwi/sub-01_ses-1_acq-a_dwi", general)
    assert mask_of(root) == general
    make(root, special)
    assert mask_of(root) == special


def test_masks_of_another_dataset_are_found(tmp_path: Path) -> None:
    raw = make(tmp_path / "raw", "sub-01/dwi/sub-01_dwi")
    mask = "sub-01/dwi/sub-01_desc-brain_mask.nii.gz"
    derived = make(tmp_path / "d", mask, derived=True)
    assert mask_of(raw, derived) == mask


def test_two_equally_good_masks_are_told_both(tmp_path: Path) -> None:
    mask = "sub-01/dwi/sub-01_desc-brain_mask.nii.gz"
    raw = make(tmp_path / "raw", "sub-01/dwi/sub-01_dwi")
    one = make(tmp_path / "one", mask, derived=True)
    two = make(tmp_path / "two", mask, derived=True)
    message = refused(NoMatchError, raw, one, two)
    assert str(one / mask) in message
    assert str(two / mask) in message
    assert "--bids-filter-file" in message


def test_filters_choose_between_masks(tmp_path: Path) -> None:
    root = make(
        tmp_path,
        "sub-01/dwi/sub-01_dwi",
        "sub-01/dwi/sub-01_desc-brain_mask.nii.gz",
        "sub-01/dwi/sub-01_desc-manual_mask.nii.gz",
        "sub-01/anat/sub-01_desc-brain_mask.nii.gz",
    )

    def chosen(**filters: str) -> str | None:
        return mask_of(root, filters={"brain_mask": filters})

    assert chosen() == "sub-01/dwi/sub-01_desc-brain_mask.nii.gz"
    assert chosen(desc="manual") == "sub-01/dwi/sub-01_desc-manual_mask.nii.gz"
    assert chosen(datatype="anat") == "sub-01/anat/sub-01_desc-brain_mask.nii.gz"
    message = refused(NoMatchError, root, filters={"brain_mask": {"desc": "none"}})
    assert "sub-01_dwi.nii.gz" in message


# Filters and sessions


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sessions, each with a plain run, one of two acquisitions, and two numbered ones."""
    runs = ("", "_acq-a", "_acq-b", "_acq-b_run-1", "_acq-b_run-02")
    return make(
        tmp_path_factory.mktemp("several") / "ds",
        *(f"sub-01/ses-{s}/dwi/sub-01_ses-{s}{run}_dwi" for s in ("x", "y") for run in runs),
    )


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"acquisition": "a"}, ["_acq-a"]),
        ({"acquisition": None}, [""]),
        ({"acquisition": "*"}, ["_acq-a", "_acq-b", "_acq-b_run-02", "_acq-b_run-1"]),
        ({"acquisition": ["a", None]}, ["", "_acq-a"]),
        ({"acquisition": "b", "run": None}, ["_acq-b"]),
        ({"acquisition": "b", "run": 2}, ["_acq-b_run-02"]),
        ({"run": ["1"]}, ["_acq-b_run-1"]),
    ],
)
def test_filters_choose_runs(
    several: Path, tmp_path: Path, filters: dict[str, Any], expected: list[str]
) -> None:
    runs = runs_of(several, database=several.parent, filters=filters_in(tmp_path, {"dwi": filters}))
    assert sorted(names(runs)) == [f"sub-01_ses-{s}{name}" for s in "xy" for name in expected]


def test_a_filter_on_the_session_chooses_it(several: Path, tmp_path: Path) -> None:
    filters = filters_in(tmp_path, {"dwi": {"session": "y", "acquisition": None}})
    assert names(runs_of(several, database=several.parent, filters=filters)) == ["sub-01_ses-y"]


def test_filters_for_raw_runs_pass_over_preprocessed_ones(tmp_path: Path) -> None:
    raw = make(tmp_path / "raw", "sub-01/dwi/sub-01_dwi")
    derived = make(tmp_path / "d", "sub-01/dwi/sub-01_desc-preproc_dwi", derived=True)
    filters = filters_in(tmp_path, {"dwi": {"desc": None}})
    assert names(runs_of(raw, derived, filters=filters)) == ["sub-01"]


def test_session_labels_choose_sessions(several: Path) -> None:
    assert {run.session for run in runs_of(several, database=several.parent, sessions=("y",))} == {
        "y"
    }
    assert {
        run.session for run in runs_of(several, database=several.parent, sessions=("y", "x"))
    } == {"x", "y"}


def test_labels_and_filters_that_match_nothing_are_told_with_what_there_is(
    several: Path,
) -> None:
    for options in ({"sessions": ("z",)}, {"filters": {"dwi": {"acquisition": "z"}}}):
        message = refused(NoMatchError, several, database=several.parent, **options)
        assert "match no DWI" in message
        assert "sub-01_ses-x_acq-a_dwi.nii.gz" in message
    assert NoMatchError.exit_code == 18


@pytest.mark.parametrize("query", ["dwi", "brain_mask"])
def test_unknown_entities_are_told(several: Path, query: str) -> None:
    message = refused(
        NoMatchError, several, database=several.parent, filters={query: {"acquisitoin": "a"}}
    )
    assert "acquisitoin" in message
    assert "acquisition" in message.replace("acquisitoin", "")


def test_filters_for_the_other_queries_of_fmriprep_and_qsiprep_are_not_used(tmp_path: Path) -> None:
    content = {"t1w": {"acquisition": "x"}, "bold": {"no_entity": 1}, "dwi": {"run": 1}}
    assert filters_in(tmp_path, content) == {"dwi": {"run": 1}}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"dwi_mask": {"desc": "brain"}}, "dwi_mask"),
        ({"dwi": "acq-a"}, "map queries to their filters"),
        ([], "map queries to their filters"),
        ({"dwi": {"acquisition": {"a": 1}}}, "acquisition"),
    ],
)
def test_filter_files_of_another_shape_are_told(tmp_path: Path, content: Any, says: str) -> None:
    with pytest.raises(UsageError) as error:
        filters_in(tmp_path, content)
    assert error.value.exit_code == 64
    assert "filters.json" in str(error.value)
    assert says in str(error.value)


def test_filter_files_that_are_no_json_or_not_there_are_told(tmp_path: Path) -> None:
    (tmp_path / "filters.json").write_text("{dwi: {}}")
    with pytest.raises(UsageError, match="not valid JSON"):
        read_filters(tmp_path / "filters.json")
    with pytest.raises(NoInputError, match="absent"):
        read_filters(tmp_path / "absent.json")


# Masks of the configuration

WM = "seeding.mask={kind: file, filters: {suffix: mask, label: WM}}"


def seed_mask(root: Path, *roots: Path, session: str | None = None) -> Path | None:
    (run,) = [r for r in runs_of(root, *roots, overrides=[WM]) if r.session == session]
    return run.named.get("seeding.mask")


def test_seed_masks_are_found_by_filters_in_their_session(tmp_path: Path) -> None:
    root = make(
        tmp_path,
        *(f"sub-01/ses-{s}/dwi/sub-01_ses-{s}_dwi" for s in "12"),
        *(f"sub-01/ses-{s}/anat/sub-01_ses-{s}_label-WM_mask.nii.gz" for s in "12"),
        "sub-01/ses-1/anat/sub-01_ses-1_label-GM_mask.nii.gz",
        "sub-02/ses-1/anat/sub-02_ses-1_label-WM_mask.nii.gz",
    )
    for run in runs_of(root, overrides=[WM]):
        expected = f"sub-01/ses-{run.session}/anat/sub-01_ses-{run.session}_label-WM_mask.nii.gz"
        assert run.named.get("seeding.mask") == root / expected
        assert run.named.get("stopping.mask") is None
        assert run.files["seeding.mask"] == run.named.get("seeding.mask")


def test_masks_above_the_sessions_serve_sessions_without_one(tmp_path: Path) -> None:
    above = "sub-01/anat/sub-01_label-WM_mask.nii.gz"
    own = "sub-01/ses-2/anat/sub-01_ses-2_label-WM_mask.nii.gz"
    root = make(
        tmp_path / "raw", *(f"sub-01/ses-{s}/dwi/sub-01_ses-{s}_dwi" for s in "12"), above, own
    )
    assert seed_mask(root, session="1") == root / above
    assert seed_mask(root, session="2") == root / own


def test_masks_of_sessions_do_not_serve_runs_without_session(tmp_path: Path) -> None:
    root = make(
        tmp_path, "sub-01/dwi/sub-01_dwi", "sub-01/ses-1/anat/sub-01_ses-1_label-WM_mask.nii.gz"
    )
    message = refused(NoMatchError, root, overrides=[WM])
    assert "seeding.mask.filters" in message
    assert "label" in message


def test_stopping_masks_are_found_by_filters(tmp_path: Path) -> None:
    root = make(
        tmp_path,
        "sub-01/dwi/sub-01_dwi",
        "sub-01/anat/sub-01_label-WM_probseg.nii.gz",
        "sub-01/anat/sub-01_label-GM_mask.nii.gz",
    )
    stop = "{kind: binary, mask: {kind: file, filters: {suffix: probseg, label: '*', space: null}}}"
    (run,) = runs_of(root, overrides=[f"stopping={stop}"])
    assert run.named.get("stopping.mask") == root / "sub-01/anat/sub-01_label-WM_probseg.nii.gz"
    assert run.named.get("seeding.mask") is None


def test_masks_of_derivatives_are_found_by_filters(tmp_path: Path) -> None:
    raw = make(tmp_path / "raw", "sub-01/dwi/sub-01_dwi")
    mask = "sub-01/anat/sub-01_label-WM_mask.nii.gz"
    derived = make(tmp_path / "smriprep", mask, derived=True)
    assert seed_mask(raw, derived) == derived / mask


def test_filters_that_match_no_mask_or_several_are_told(tmp_path: Path) -> None:
    mask = "sub-01/anat/sub-01_label-WM_mask.nii.gz"
    raw = make(tmp_path / "raw", "sub-01/dwi/sub-01_dwi")
    message = refused(NoMatchError, raw, overrides=[WM])
    assert "seeding.mask.filters match no file of sub-01" in message
    other = "sub-01/anat/sub-01_space-T2w_label-WM_mask.nii.gz"
    make(raw, mask, other)
    message = refused(NoMatchError, raw, overrides=[WM])
    assert str(raw / mask) in message
    assert str(raw / other) in message


def test_unknown_entities_of_mask_filters_are_told(tmp_path: Path) -> None:
    raw = make(tmp_path / "raw", "sub-01/dwi/sub-01_dwi")
    override = "seeding.mask={kind: file, filters: {suffix: mask, tissue: WM}}"
    assert "tissue" in refused(NoMatchError, raw, overrides=[override])


def test_entities_of_tractography_are_known_to_filters(tmp_path: Path) -> None:
    image = "sub-01/dwi/sub-01_model-csd_param-fod_dwimap.nii.gz"
    root = make(tmp_path, "sub-01/dwi/sub-01_dwi", image)
    override = "seeding.mask={kind: file, filters: {param: fod, bundle: null, tract: null}}"
    assert runs_of(root, overrides=[override])[0].named["seeding.mask"] == root / image


def test_mask_paths_serve_every_run(tmp_path: Path) -> None:
    root = make(tmp_path / "raw", "sub-01/dwi/sub-01_run-1_dwi", "sub-01/dwi/sub-01_run-2_dwi")
    (tmp_path / "wm.nii.gz").touch()
    override = f"seeding.mask={{kind: file, path: {tmp_path}/wm.nii.gz}}"
    masks = {run.named.get("seeding.mask") for run in runs_of(root, overrides=[override])}
    assert masks == {tmp_path / "wm.nii.gz"}


def test_mask_paths_that_are_not_there_are_no_input(tmp_path: Path) -> None:
    root = make(tmp_path / "raw", "sub-01/dwi/sub-01_dwi")
    override = f"seeding.mask={{kind: file, path: {tmp_path}/absent.nii.gz}}"
    message = refused(NoInputError, root, overrides=[override])
    assert "seeding.mask.path" in message
    assert "absent.nii.gz" in message


def test_no_mask_is_asked_for_by_default(tmp_path: Path) -> None:
    root = make(tmp_path, "sub-01/dwi/sub-01_dwi", "sub-01/anat/sub-01_label-WM_mask.nii.gz")
    (run,) = runs_of(root)
    assert (run.named.get("seeding.mask"), run.named.get("stopping.mask"), run.brain_mask) == (
        None,
        None,
        None,
    )


# Speed, and the database


def indexed(root: Path) -> list[str]:
    return sorted(str(file.path) for file in Index(read_dataset("x", root), "0001", None).files)


def test_the_number_of_participants_does_not_change_what_is_indexed(tmp_path: Path) -> None:
    few = make(tmp_path / "few", *(f"sub-{n:04d}/dwi/sub-{n:04d}_dwi" for n in range(10)))
    many = make(tmp_path / "many", "dwi.json")
    for n in range(2000):
        folder = many / f"sub-{n:04d}" / "dwi"
        folder.mkdir(parents=True)
        (folder / f"sub-{n:04d}_dwi.nii.gz").touch()
    make(many, "sub-0001/dwi/sub-0001_dwi", "sub-0001/func/sub-0001_task-rest_bold.nii.gz")
    assert len(indexed(few)) == 4  # the description, the image and its gradients
    own = [str(path.relative_to(few)) for path in map(Path, indexed(few))]
    there = [str(path.relative_to(many)) for path in map(Path, indexed(many))]
    assert there == sorted([*own, "dwi.json"])


def test_a_database_is_kept_and_used(tmp_path: Path) -> None:
    root = make(tmp_path / "ds", "sub-01/dwi/sub-01_dwi", "sub-02/dwi/sub-02_dwi")
    database = tmp_path / "db"
    first = runs_of(root, database=database)
    assert names(first) == ["sub-01"]
    kept = sorted(database.rglob("*.sqlite"))
    times = [path.stat().st_mtime_ns for path in kept]
    assert len(kept) == 1
    assert runs_of(root, database=database) == first
    assert sorted(database.rglob("*.sqlite")) == kept
    assert [path.stat().st_mtime_ns for path in kept] == times
    assert names(runs_of(root, subject="02", database=database)) == ["sub-02"]


def test_files_that_come_and_go_are_seen_through_a_database(tmp_path: Path) -> None:
    root, database = make(tmp_path / "ds", "sub-01/dwi/sub-01_run-1_dwi"), tmp_path / "db"
    assert names(runs_of(root, database=database)) == ["sub-01_run-1"]
    make(root, "sub-01/dwi/sub-01_run-2_dwi")
    assert names(runs_of(root, database=database)) == ["sub-01_run-1", "sub-01_run-2"]
    make(root, "sub-01/ses-1/dwi/sub-01_ses-1_dwi")
    for path in (root / "sub-01/dwi").glob("sub-01_run-1_dwi.*"):
        path.unlink()
    (root / "sub-01/dwi/sub-01_run-2_dwi.bvec").rename(root / "dwi.bvec")
    runs = runs_of(root, database=database)
    assert names(runs) == ["sub-01_run-2", "sub-01_ses-1"]
    assert runs[0].bvec == root / "dwi.bvec"


def test_a_dataset_that_moved_is_not_confused(tmp_path: Path) -> None:
    root, database = make(tmp_path / "old", "sub-01/dwi/sub-01_dwi"), tmp_path / "db"
    runs_of(root, database=database)
    root.rename(tmp_path / "new")
    (run,) = runs_of(tmp_path / "new", database=database)
    assert run.image == tmp_path / "new/sub-01/dwi/sub-01_dwi.nii.gz"
    assert run.bvec
    assert run.bvec.is_file()
    make(tmp_path / "old", "sub-01/dwi/sub-01_acq-b_dwi")
    assert names(runs_of(tmp_path / "old", database=database)) == ["sub-01_acq-b"]


def test_interrupted_indexing_leaves_no_database_that_looks_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, database = make(tmp_path / "ds", "sub-01/dwi/sub-01_dwi"), tmp_path / "db"

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(layouts._Indexer, "_index_dir", interrupt)
        with pytest.raises(KeyboardInterrupt):
            runs_of(root, database=database)
    assert names(runs_of(root, database=database)) == ["sub-01"]


def test_links_of_a_datalad_dataset_are_followed(tmp_path: Path) -> None:
    root = make(tmp_path / "ds", "sub-01/dwi/sub-01_dwi")
    image = root / "sub-01/dwi/sub-01_dwi.nii.gz"
    image.rename(tmp_path / "key")
    image.symlink_to(os.path.relpath(tmp_path / "key", image.parent))
    assert runs_of(root)[0].image == image


# Other files that the configuration names


def test_tractograms_are_found_by_their_extensions_and_those_of_the_run_come_first(
    tmp_path: Path,
) -> None:
    root = make(tmp_path / "raw", *(f"sub-01/dwi/sub-01_run-{n}_dwi" for n in "12"))
    tracts = [f"sub-01/dwi/sub-01_run-{n}_tract-wholebrain_tractogram.tck" for n in "12"]
    make(root, *tracts, "sub-01/dwi/sub-01_run-1_tract-wholebrain_tractogram.json")
    override = "import_tract={filters: {suffix: tractogram}}"
    found = [run.named["import_tract"] for run in runs_of(root, overrides=[override])]
    assert found == [root / tract for tract in tracts]


def test_a_scope_is_one_dataset(tmp_path: Path) -> None:
    mask = "sub-01/anat/sub-01_label-WM_mask.nii.gz"
    raw = make(tmp_path / "raw", "sub-01/dwi/sub-01_dwi", mask)
    derived = make(tmp_path / "smriprep", mask, derived=True)
    assert "several" in refused(NoMatchError, raw, derived, overrides=[WM])
    for scope, root in (("raw", raw), ("set1", derived)):
        (run,) = runs_of(raw, derived, overrides=[WM, f"seeding.mask.scope={scope}"])
        assert run.named["seeding.mask"] == root / mask


def test_what_there_is_instead_is_listed(tmp_path: Path) -> None:
    root = make(tmp_path, "sub-01/dwi/sub-01_dwi", "sub-01/anat/sub-01_label-GM_mask.nii.gz")
    assert "sub-01_label-GM_mask.nii.gz" in refused(NoMatchError, root, overrides=[WM])


def test_the_file_of_another_run_is_never_taken(tmp_path: Path) -> None:
    root = make(tmp_path, *(f"sub-01/dwi/sub-01_dir-{d}_dwi" for d in ("AP", "PA")))
    make(root, "sub-01/dwi/sub-01_dir-AP_tractogram.tck")
    override = "import_tract={filters: {suffix: tractogram}}"
    assert "only match files of other runs" in refused(NoMatchError, root, overrides=[override])


def test_an_import_needs_no_gradients(tmp_path: Path) -> None:
    root = make(tmp_path, "sub-01/dwi/sub-01_dwi", "sub-01/dwi/sub-01_tractogram.tck")
    (root / "sub-01/dwi/sub-01_dwi.bval").unlink()
    override = "import_tract={filters: {suffix: tractogram}}"
    (run,) = runs_of(root, overrides=[override])
    assert "bval" not in run.files


def test_a_damaged_database_is_rebuilt(tmp_path: Path) -> None:
    root = make(tmp_path / "data", "sub-01/dwi/sub-01_dwi")
    expected = names(runs_of(root, database=tmp_path / "db"))
    for path in (tmp_path / "db").rglob("*"):
        if path.is_file():
            path.write_bytes(b"garbage")
    assert names(runs_of(root, database=tmp_path / "db")) == expected
    assert names(runs_of(root, database=tmp_path / "db")) == expected


def test_a_table_with_its_columns_in_another_order_is_no_b0_run(tmp_path: Path) -> None:
    path = tmp_path / "dwi.b"
    rows = np.c_[[0.0] + [1000.0] * 6, np.zeros((7, 1)), np.zeros((7, 1)), np.ones((7, 1))]
    np.savetxt(path, rows)
    assert not only_b0(None, None, path, 50)

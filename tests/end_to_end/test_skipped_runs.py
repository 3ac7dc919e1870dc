"""What is no failure is skipped; what cannot be read fails for its run alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bids_tractography.config.load import load_config
from bids_tractography.errors import (
    FilteredOutError,
    GradientError,
    NoDwiError,
    NoInputError,
    TractographyError,
)
from bids_tractography.inputs import (
    Dataset,
    DwiRun,
    FailedRun,
    FoundRun,
    ParticipantFiles,
    Selection,
    SkippedRun,
    check_file,
    find_participants,
    read_dataset,
)
from bids_tractography.inputs.bidsignore import read_bidsignore
from bids_tractography.inputs.entities import parse_name
from bids_tractography.inputs.tree import list_tree
from bids_tractography.inputs.weighting import only_b0

LABELS = st.text("abAB19", min_size=1, max_size=3)


def description(root: Path, **fields: Any) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    content = {"Name": "A dataset", "BIDSVersion": "1.10.0", **fields}
    (root / "dataset_description.json").write_text(json.dumps(content))
    return root


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def axes(n: int) -> np.ndarray:
    z = (np.arange(n) + 0.5) / n
    phi = np.pi * (1 + 5**0.5) * np.arange(n)
    return np.stack([np.sqrt(1 - z**2) * np.cos(phi), np.sqrt(1 - z**2) * np.sin(phi), z])


def write_scheme(
    stem: Path, bvals: Sequence[float] | np.ndarray, bvecs: np.ndarray | None = None
) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    if bvecs is None:
        bvecs = axes(len(bvals)) * (np.array(bvals) > 0)
    np.savetxt(f"{stem}.bval", np.atleast_2d(bvals), fmt="%g")
    np.savetxt(f"{stem}.bvec", bvecs, fmt="%.6f")


def write_run(
    root: Path, name: str, bvals: Sequence[float] | None = (0, *[1000] * 8), volumes: int = 9
) -> None:
    folder = root / name.partition("_")[0] / "dwi"
    folder.mkdir(parents=True, exist_ok=True)
    shape = (2, 2, 2) if volumes == 1 else (2, 2, 2, volumes)
    nib.save(nib.Nifti1Image(np.zeros(shape, np.uint8), np.eye(4)), folder / f"{name}_dwi.nii.gz")
    if bvals is not None:
        write_scheme(folder / f"{name}_dwi", bvals)


def found_in(*roots: Path, subject: str = "01", **selection: Any) -> list[FoundRun]:
    datasets = [read_dataset(f"set{n}", root) for n, root in enumerate(roots)]
    files = ParticipantFiles(datasets, subject, Selection(**selection))
    return files.dwi_runs(load_config(None, ()))


def tracked(found: Sequence[FoundRun]) -> list[str]:
    return [run.name for run in found if isinstance(run, DwiRun)]


def skipped(found: Sequence[FoundRun]) -> dict[str, str]:
    return {run.name: run.reason for run in found if isinstance(run, SkippedRun)}


def failed(found: Sequence[FoundRun]) -> dict[str, TractographyError]:
    return {run.name: run.error for run in found if isinstance(run, FailedRun)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A dataset with one sound run."""
    made = description(tmp_path / "ds")
    write_run(made, "sub-01")
    return made


# Without diffusion weighting


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.sampled_from([0.0, 5.0, 10.0, 49.0]), min_size=1, max_size=5),
    vectors=st.sampled_from(["zero", "unit", "one", "nan"]),
)
def test_only_b0_volumes_of_a_scanner_are_b0_whatever_their_vectors(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], vectors: str
) -> None:
    stem = tmp_path_factory.mktemp("b0") / "x"
    n = len(values)
    choices = {
        "zero": np.zeros((3, n)),
        "unit": axes(n),
        "one": np.tile([[1.0], [0], [0]], n),
        "nan": np.full((3, n), np.nan),
    }
    write_scheme(stem, values, choices[vectors])
    assert only_b0(Path(f"{stem}.bval"), Path(f"{stem}.bvec"), None, 50)


@settings(max_examples=40, deadline=None)
@given(
    shells=st.lists(st.sampled_from([0.7, 1.0, 2.0, 3.0, 10.0]), min_size=1, max_size=3),
    n_b0=st.integers(0, 3),
    n=st.integers(6, 20),
)
def test_schemes_in_other_units_are_not_taken_for_b0(
    tmp_path_factory: pytest.TempPathFactory, shells: list[float], n_b0: int, n: int
) -> None:
    folder = tmp_path_factory.mktemp("units")
    bvals = [*[0.0] * n_b0, *(shells[i % len(shells)] for i in range(n))]
    bvecs = np.c_[np.zeros((3, n_b0)), axes(n)]
    for factor in (1, 1e6, 1e9):
        write_scheme(folder / "x", np.array(bvals) * factor, bvecs)
        assert not only_b0(folder / "x.bval", folder / "x.bvec", None, 50)
    np.savetxt(folder / "x.b", np.c_[bvecs.T, bvals])
    assert not only_b0(None, None, folder / "x.b", 50)


def test_only_b0_malformed_or_without_vectors_is_left_to_the_reader(tmp_path: Path) -> None:
    bval = tmp_path / "x.bval"
    for text in ("", "0 x", "nan 0", "-5 0", "0 1 2"):
        bval.write_text(text)
        assert not only_b0(bval, None, None, 50)
    bval.write_text("0 0 0")
    assert only_b0(bval, None, None, 50)


@pytest.mark.parametrize(
    ("bvals", "volumes", "reason"),
    [
        ((0, 5, 0), 3, "all volumes are b=0"),
        ((0,), 1, "all volumes are b=0"),
        (None, 1, "a single volume without gradient files"),
    ],
)
def test_runs_without_weighting_are_skipped_beside_a_real_one(
    root: Path, bvals: tuple[float, ...] | None, volumes: int, reason: str
) -> None:
    write_run(root, "sub-01_dir-PA", bvals, volumes)
    if bvals is None:  # or those of sub-01 would be inherited
        for path in (root / "sub-01/dwi").glob("sub-01_dwi.*"):
            path.rename(path.with_name(path.name.replace("_dwi", "_dir-AP_dwi")))
    found = found_in(root)
    assert len(tracked(found)) == 1
    assert skipped(found) == {"sub-01_dir-PA": reason}
    assert failed(found) == {}


def test_a_single_volume_does_not_take_the_inherited_gradients_of_others(root: Path) -> None:
    for end in ("bval", "bvec"):
        (root / f"sub-01/dwi/sub-01_dwi.{end}").rename(root / f"dwi.{end}")
    write_run(root, "sub-01_dir-PA", None, 1)
    found = found_in(root)
    assert tracked(found) == ["sub-01"]
    assert "inherited" in skipped(found)["sub-01_dir-PA"]


def test_nothing_but_b0_is_a_gradient_error(tmp_path: Path) -> None:
    root = description(tmp_path)
    write_run(root, "sub-01_dir-PA", (0, 0), 2)
    with pytest.raises(GradientError, match=r"sub-01_dir-PA: all volumes are b=0"):
        found_in(root)


def test_wrong_units_are_a_run_for_the_reader_to_refuse(tmp_path: Path) -> None:
    root = description(tmp_path)
    write_run(root, "sub-01", (0, 0, *[1] * 4, *[2] * 4), 10)
    assert tracked(found_in(root)) == ["sub-01"]


# Parts of the complex signal


@pytest.mark.parametrize("part", ["phase", "real", "imag"])
def test_only_magnitude_images_are_tracked(root: Path, part: str) -> None:
    write_run(root, f"sub-01_part-{part}")
    write_run(root, "sub-01_part-mag")
    found = found_in(root)
    assert set(tracked(found)) == {"sub-01", "sub-01_part-mag"}
    assert "only magnitude images" in skipped(found)[f"sub-01_part-{part}"]
    write_run(root, f"sub-02_part-{part}")
    with pytest.raises(NoDwiError, match="only magnitude images"):
        found_in(root, subject="02")
    with pytest.raises(FilteredOutError):
        found_in(root, filters={"dwi": {"acquisition": "x"}})


# .bidsignore


@settings(max_examples=50, deadline=None)
@given(
    folder=st.sampled_from(["sub-01/dwi", "sub-01/ses-1/dwi"]),
    acquisition=LABELS,
    derivative=st.booleans(),
    data=st.data(),
)
def test_bidsignore_hides_what_gitignore_would(
    tmp_path_factory: pytest.TempPathFactory,
    folder: str,
    acquisition: str,
    derivative: bool,
    data: st.DataObject,
) -> None:
    root = tmp_path_factory.mktemp("ignore")
    name = f"sub-01_acq-{acquisition}_dwi.nii.gz"
    relative = f"{folder}/{name}"
    pattern = data.draw(
        st.sampled_from(
            [
                name, relative, f"/{relative}", f"**/{name}", f"*_acq-{acquisition}_*", "dwi/",
                "sub-01", "/sub-*/**/*dwi*", f"{folder}/", "**/dwi/**", "*",
            ]
        )
    )  # fmt: skip
    comment = data.draw(st.sampled_from(["", "# scans that failed\n", "!\n", "\ufeff"]))
    newline = data.draw(st.sampled_from(["\n", "\r\n"]))
    (root / ".bidsignore").write_bytes(f"{comment}{pattern}{newline}".encode())
    ignored = read_bidsignore(root)
    assert ignored.hides(relative, parse_name(name), derivative=derivative)
    # What no validator accepts is listed for that reason alone.
    for shown in ("tractogram.trx", "model-csd_param-fod_dwimap.nii.gz", "dwi.b", "xfm.h5"):
        other = f"sub-01_acq-{acquisition}_{shown}"
        assert not ignored.hides(f"{folder}/{other}", parse_name(other), derivative=derivative)
    mask, bval = (f"sub-01_acq-{acquisition}_{end}" for end in ("desc-brain_mask.nii", "dwi.bval"))
    (root / ".bidsignore").write_text("*")
    everything = read_bidsignore(root)
    hidden = [
        everything.hides(f"{folder}/{n}", parse_name(n), derivative=derivative)
        for n in (mask, bval)
    ]
    assert hidden == [derivative, not derivative]
    (root / ".bidsignore").write_text(f"*\n!{name}\n")
    assert not read_bidsignore(root).hides(relative, parse_name(name), derivative=derivative)


def test_ignored_runs_are_skipped_and_ignored_companions_not_taken(root: Path) -> None:
    write_run(root, "sub-01_acq-bad")
    (root / ".bidsignore").write_text("# bad\n*_acq-bad_*\n")
    found = found_in(root)
    assert tracked(found) == ["sub-01"]
    assert ".bidsignore" in skipped(found)["sub-01_acq-bad"]
    (root / ".bidsignore").write_text("*_dwi.*\n")
    with pytest.raises(NoDwiError, match="bidsignore"):
        found_in(root)
    (root / ".bidsignore").write_text("sub-01_dwi.bval\n")
    error = failed(found_in(root))["sub-01"]
    assert "no .bval file" in str(error)
    assert ".bidsignore" in str(error)


def test_an_ignored_mask_is_named(root: Path) -> None:
    description(root, DatasetType="derivative")
    touch(root, "sub-01/dwi/sub-01_desc-brain_mask.nii.gz")
    (root / ".bidsignore").write_text("*_mask.*\n")
    (run,) = found_in(root)
    assert isinstance(run, DwiRun)
    assert run.brain_mask is None
    (warning,) = run.warnings
    assert "sub-01_desc-brain_mask.nii.gz (listed in" in warning


def test_a_bidsignore_that_cannot_be_read_is_a_warning(root: Path) -> None:
    (root / ".bidsignore").symlink_to("nowhere")
    (run,) = found_in(root)
    assert isinstance(run, DwiRun)
    assert ".bidsignore is a link to missing content" in run.warnings[0]


# Only the tree of BIDS


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["derivatives_old", "backup", "old", "sub-01", "ses-1", "sub-01_old", "sub-01.bak",
             "sub-01 copy", "ses-1_x", "dwi", "anat", "qsiprep", ".git", "SUB-01"]
        ),
        min_size=1,
        max_size=5,
    )
)  # fmt: skip
@example(["sub-01", "sub-01.bak"])
def test_files_count_in_the_tree_of_bids_only(
    tmp_path_factory: pytest.TempPathFactory, folders: list[str]
) -> None:
    root = tmp_path_factory.mktemp("tree")
    touch(root, "sub-01/dwi/sub-01_dwi.nii.gz", "/".join([*folders, "sub-01_x_dwi.nii.gz"]))
    inside = folders in (
        ["sub-01"],
        ["sub-01", "ses-1"],
        *(["sub-01", *session, kind] for session in ([], ["ses-1"]) for kind in ("dwi", "anat")),
    )
    assert len(list_tree(root, "01").files) == 1 + inside
    assert find_participants(root, []) == ["01"]


def test_stray_copies_change_no_run(root: Path) -> None:
    stem = "sub-01_space-ACPC_desc-preproc_dwi"
    for folder in ("derivatives_old/q/sub-01/dwi", "sub-01/backup/sub-01/dwi", "sub-01/dwi/old"):
        touch(root, *(f"{folder}/{stem}.{end}" for end in ("nii.gz", "bval", "bvec")))
        touch(root, f"{folder}/sub-01_desc-brain_mask.nii.gz")
    (run,) = found_in(root)
    assert isinstance(run, DwiRun)
    assert (run.name, run.brain_mask, run.warnings) == ("sub-01", None, ())


def test_an_image_of_another_participant_in_the_folder_is_skipped(root: Path) -> None:
    write_run(root, "sub-02")
    (root / "sub-02/dwi/sub-02_dwi.nii.gz").rename(root / "sub-01/dwi/sub-02_dwi.nii.gz")
    found = found_in(root)
    assert tracked(found) == ["sub-01"]
    assert "contradicts the folder sub-01" in skipped(found)["sub-02"]


# What cannot be read

STRANGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "dangling": (lambda path: path.symlink_to(".git/annex/objects/x"), "datalad get"),
    "pointer": (lambda path: path.write_text("/annex/objects/MD5E-s1--0.nii.gz\n"), "datalad get"),
    "loop": (lambda path: path.symlink_to(path.name), "cannot be read"),
    "folder": (lambda path: path.mkdir(), "not a regular file"),
    "pipe": (os.mkfifo, "not a regular file"),
}


@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.parametrize(
    "end", ["dwi.nii.gz", "dwi.bval", "dwi.bvec", "dwi.b", "desc-brain_mask.nii"]
)
def test_every_file_of_a_run_is_checked_and_fails_that_run_alone(
    root: Path, kind: str, end: str
) -> None:
    make, says = STRANGE[kind]
    write_run(root, "sub-01_dir-PA")
    path = root / "sub-01/dwi" / f"sub-01_dir-PA_{end}"
    path.unlink(missing_ok=True)
    make(path)
    found = found_in(root)
    assert tracked(found) == ["sub-01"]
    error = failed(found)["sub-01_dir-PA"]
    assert isinstance(error, NoInputError)
    assert error.exit_code == 66
    assert path.name in str(error)
    assert says in str(error)


@pytest.mark.parametrize("kind", STRANGE)
def test_strange_files_that_no_run_needs_change_nothing(root: Path, kind: str) -> None:
    expected = found_in(root)
    make, _ = STRANGE[kind]
    for name in ("x", "sub-01/x.nii.gz", "sub-01/dwi/notes.txt", "participants.tsv", "sub-09"):
        make(root / name)
    (root / "sub-01/anat").mkdir()
    make(root / "sub-01/anat/sub-01_T1w.nii.gz")
    (root / "layout_config.json").write_text("{")
    (root / "sub-01/dwi/layout_config.json").write_text("{")
    (root / "sub-01/dwi/loop").symlink_to(".", target_is_directory=True)
    (root / "sub-01/ses-1").symlink_to("..", target_is_directory=True)
    (root / os.fsdecode(b"\xff.json")).write_text("{")
    (root / "sub-01/dwi" / os.fsdecode(b"sub-01_acq-\xff_dwi.json")).write_text("{")
    assert found_in(root) == expected


def test_a_sidecar_that_cannot_be_used_is_a_warning(root: Path) -> None:
    (root / "sub-01/dwi/sub-01_dwi.json").symlink_to("nowhere")
    (run,) = found_in(root)
    assert isinstance(run, DwiRun)
    assert run.sidecar is None
    assert "sub-01_dwi.json is a link to missing content" in run.warnings[0]


def test_an_image_whose_name_is_not_utf8_fails_alone(root: Path) -> None:
    (root / "sub-01/dwi" / os.fsdecode(b"sub-01_acq-\xe9_dwi.nii.gz")).touch()
    found = found_in(root)
    assert tracked(found) == ["sub-01"]
    ((name, error),) = failed(found).items()
    assert name == "sub-01_acq-\ufffd"
    assert error.exit_code == 66
    str(error).encode()
    assert "UTF-8" in str(error)


def test_a_dataset_below_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    root = description(tmp_path / os.fsdecode(b"\xff"))
    with pytest.raises(NoInputError, match="UTF-8"):
        read_dataset("x", root)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("closed", ["sub-01/anat", "sub-02", "lost+found"])
def test_closed_folders_that_no_run_needs_change_nothing(root: Path, closed: str) -> None:
    (root / closed).mkdir(parents=True)
    (root / closed).chmod(0)
    try:
        assert tracked(found_in(root)) == ["sub-01"]
    finally:
        (root / closed).chmod(0o755)


def test_folders_that_cannot_be_listed_fail_where_they_may_hold_runs(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(root, "sub-01/ses-1/dwi/x", "sub-01/ses-2/x", "sub-01/anat/x", "sub-02/x")
    closed = {"sub-01/ses-1/dwi", "sub-01/ses-2", "sub-01/anat", "sub-02"}
    access = os.access
    monkeypatch.setattr(
        os,
        "access",
        lambda path, mode: str(path).removeprefix(f"{root}/") not in closed and access(path, mode),
    )
    found = found_in(root)
    assert tracked(found) == ["sub-01"]
    assert set(failed(found)) == {"sub-01_ses-1", "sub-01_ses-2"}
    assert set(failed(found_in(root, sessions=("2",)))) == {"sub-01_ses-2"}
    with pytest.raises(NoInputError, match=r"sub-02 cannot be read"):
        found_in(root, subject="02")


def test_check_file_names_the_key_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match=r"^tissue\.wm\.path: .*absent does not exist"):
        check_file(tmp_path / "absent", "tissue.wm.path")
    (tmp_path / "there").touch()
    assert check_file(tmp_path / "there") == tmp_path / "there"


# Gradient tables, sidecars and descriptions


def test_a_gradient_table_alone_suffices(root: Path) -> None:
    for end in ("bval", "bvec"):
        (root / f"sub-01/dwi/sub-01_dwi.{end}").unlink()
    np.savetxt(root / "sub-01/dwi/sub-01_dwi.b", np.c_[axes(9).T, [0, *[1000] * 8]])
    (root / "dwi.json").write_text("{}")
    (run,) = found_in(root)
    assert isinstance(run, DwiRun)
    assert run.files.keys() == {"dwi", "b"}
    assert run.gradient_table == run.files["b"] == root / "sub-01/dwi/sub-01_dwi.b"
    assert run.sidecar == root / "dwi.json"


def test_a_table_that_was_not_taken_is_named_unless_it_is_another_runs(root: Path) -> None:
    write_run(root, "sub-01_dir-PA")
    touch(root, "sub-01/dwi/sub-01_dir-PA_dwi.b", "sub-01/dwi/sub-01_acq-x_dwi.b")
    (root / "sub-01/dwi/sub-01_dir-PA_dwi.b").write_text("0 0 1 1000\n0 0 0 0\n")
    runs = {run.name: run for run in found_in(root) if isinstance(run, DwiRun)}
    assert runs["sub-01_dir-PA"].warnings == ()
    (warning,) = runs["sub-01"].warnings
    assert "sub-01_acq-x_dwi.b (acq-x: the DWI has no acq)" in warning
    assert "dir-PA" not in warning


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["Name", "Version"]), inner, max_size=2)
    ),
    max_leaves=5,
)


@settings(max_examples=50, deadline=None)
@given(generated=JSON, pipeline=JSON, kind=JSON)
def test_any_description_states_names_or_none(generated: Any, pipeline: Any, kind: Any) -> None:
    content = {"GeneratedBy": generated, "PipelineDescription": pipeline, "DatasetType": kind}
    dataset = Dataset("x", Path("/data"), content)
    assert all(isinstance(name, str) and name for name in dataset.generated_by)
    assert isinstance(dataset.is_derivative, bool)


@pytest.mark.parametrize(
    ("fields", "names", "derivative"),
    [
        ({}, (), False),
        ({"DatasetType": "raw", "GeneratedBy": [{"Name": "dcm2bids"}]}, ("dcm2bids",), False),
        ({"GeneratedBy": [{"Name": "QSIPrep"}, {"Name": "x"}]}, ("QSIPrep", "x"), True),
        ({"GeneratedBy": {"Name": "QSIPrep"}}, ("QSIPrep",), True),
        ({"GeneratedBy": "QSIPrep"}, ("QSIPrep",), True),
        ({"PipelineDescription": {"Name": "qsiprep"}}, ("qsiprep",), True),
        ({"DatasetType": "derivative", "GeneratedBy": 1}, (), True),
    ],
)
def test_runs_know_who_generated_their_dataset(
    root: Path, fields: dict[str, Any], names: tuple[str, ...], derivative: bool
) -> None:
    description(root, **fields)
    (run,) = found_in(root)
    assert isinstance(run, DwiRun)
    assert run.generated_by == names
    assert run.is_raw is not derivative


def test_the_first_dataset_with_a_row_describes_the_participant(root: Path, tmp_path: Path) -> None:
    derived = description(tmp_path / "derived", DatasetType="derivative")
    for folder, age in ((root, None), (derived, "7")):
        rows = f"sub-01\tmacaca mulatta\t{age}\tn/a\n" if age else "sub-02\tx\t1\t2\n"
        text = "\ufeffparticipant_id\tspecies\tage\tsex\n" + rows
        (folder / "participants.tsv").write_text(text)
    (run,) = found_in(root, derived)
    assert isinstance(run, DwiRun)
    expected = {"participant_id": "sub-01", "species": "macaca mulatta", "age": "7"}
    assert run.participant == expected


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_table_of_participants_is_a_row_or_none(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("tsv")
    (folder / "participants.tsv").write_bytes(content)
    assert not Dataset("x", folder, {}).participant("01")

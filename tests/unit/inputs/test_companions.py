"""Companions of a DWI by name: rules restated on random names and layouts."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bids_tractography.errors import NoInputError, NoMatchError
from bids_tractography.inputs.companions import brain_mask, grid_comparison, inherited
from bids_tractography.inputs.entities import parse_name, why_not_of_run
from bids_tractography.inputs.index import BidsFile

ROOT = Path("/data")
VALUES = st.text("abAB19+", min_size=1, max_size=3)
# Known to BIDS, and not.
RUN_KEYS = ("acq", "ce", "dir", "run", "echo", "part", "tracksys", "foo", "zz")
ENTITIES = st.dictionaries(st.sampled_from(RUN_KEYS), VALUES, max_size=4)


def file_name(entities: dict[str, str], suffix: str = "dwi.nii.gz") -> str:
    return "_".join([*(f"{key}-{value}" for key, value in entities.items()), suffix])


def bids_file(relative: str, *, dataset: str = "main", root: Path = ROOT) -> BidsFile:
    return BidsFile(dataset, root, root / relative)


def in_dwi(
    entities: dict[str, str], suffix: str = "dwi.nii.gz", *, dataset: str = "main"
) -> BidsFile:
    name = file_name({"sub": "01", **entities}, suffix)
    return bids_file(f"sub-01/dwi/{name}", dataset=dataset)


def shuffled(entities: dict[str, str]) -> st.SearchStrategy[dict[str, str]]:
    return st.permutations(list(entities.items())).map(dict)


def no_header(path: Path) -> str | None:
    raise AssertionError(f"{path} was opened")


# Names


@settings(max_examples=50, deadline=None)
@given(ENTITIES, st.sampled_from(["dwi.nii.gz", "mask.nii", "dwi.b", "dwi.b_table.txt"]))
def test_parse_name_any_entities_returns_them_all(entities: dict[str, str], end: str) -> None:
    name = parse_name(file_name({"sub": "01", **entities}, end))
    suffix, _, extension = end.partition(".")
    assert (name.suffix, name.extension) == (suffix, f".{extension}")
    assert list(name.entities) == ["sub", *entities]
    for key, value in entities.items():
        number = key in ("run", "echo") and value.isdecimal()
        assert name.entities[key] == (str(int(value)) if number else value)


def test_parse_name_without_suffix_or_with_odd_parts_keeps_every_part() -> None:
    assert parse_name("sub-01_run-1.bval").suffix == ""
    assert parse_name("sub-01_old_dwi.nii.gz").entities == {"sub": "01", "old": ""}
    assert parse_name("dwi.json").entities == {}


@settings(max_examples=50, deadline=None)
@given(ENTITIES, st.data())
def test_why_not_of_run_subset_in_any_order_belongs(
    entities: dict[str, str], data: st.DataObject
) -> None:
    keys = data.draw(st.sets(st.sampled_from(sorted(entities)))) if entities else set()
    other = data.draw(shuffled({k: v for k, v in entities.items() if k in keys}))
    assert why_not_of_run(entities, other) is None


@settings(max_examples=50, deadline=None)
@given(ENTITIES, st.sampled_from(RUN_KEYS), VALUES)
def test_why_not_of_run_one_entity_more_or_different_names_it(
    entities: dict[str, str], key: str, value: str
) -> None:
    assume(entities.get(key) != value)
    reason = why_not_of_run(entities, {**entities, key: value})
    assert reason is not None
    assert reason.startswith(f"{key}-{value}: the DWI ")
    assert (f"has no {key}" in reason) == (key not in entities)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(["run", "echo"]), st.integers(0, 99), st.integers(0, 3), st.integers(0, 3))
def test_index_entities_compare_as_numbers(key: str, value: int, one: int, two: int) -> None:
    dwi = in_dwi({key: "0" * one + str(value)})
    mask = in_dwi({key: "0" * two + str(value)}, "desc-brain_mask.nii.gz")
    assert brain_mask(dwi, [mask], no_header).file == mask


# Gradient files and sidecars: the inheritance principle

LEVELS = ("", "sub-01/", "sub-01/ses-1/", "sub-01/ses-1/dwi/")


@settings(max_examples=50, deadline=None)
@given(ENTITIES, st.data())
def test_inherited_takes_the_nearest_and_then_the_most_specific(
    entities: dict[str, str], data: st.DataObject
) -> None:
    own = {"sub": "01", "ses": "1", **entities}
    dwi = bids_file(f"{LEVELS[-1]}{file_name(own)}")
    sizes = range(len(own) + 1)
    subsets = [dict(c) for n in sizes for c in itertools.combinations(own.items(), n)]
    there = data.draw(
        st.lists(st.tuples(st.sampled_from(range(4)), st.sampled_from(subsets)), max_size=5)
    )
    foreign_keys = st.sampled_from(RUN_KEYS).filter(lambda key: key not in own)
    extra = data.draw(st.lists(foreign_keys, max_size=2, unique=True))
    good = {(level, tuple(subset.items())) for level, subset in there}
    foreign = [bids_file(LEVELS[3] + file_name({**own, key: "x"}, "dwi.bval")) for key in extra]
    files = [bids_file(LEVELS[i] + file_name(dict(items), "dwi.bval")) for i, items in good]
    ranks = sorted(((level, len(items)) for level, items in good), reverse=True)
    if len(ranks) > 1 and ranks[0] == ranks[1]:
        with pytest.raises(NoMatchError, match=r"several \.bval files"):
            inherited(dwi, [*foreign, *files], ".bval")
        return
    match = inherited(dwi, [*foreign, *files], ".bval")
    if not ranks:
        assert match.file is None
    else:
        assert match.file is not None
        level, size = ranks[0]
        assert str(match.file.path.parent.relative_to(ROOT)) == (LEVELS[level].rstrip("/") or ".")
        assert len(match.file.name.entities) == size
    assert {file for file, _ in match.passed_over} == set(foreign)


def test_inherited_never_looks_outside_the_folders_above() -> None:
    dwi = bids_file("sub-01/ses-1/dwi/sub-01_ses-1_dwi.nii.gz")
    elsewhere = ["sub-01/dwi/sub-01_dwi.bval", "sub-01/anat/dwi.bval", "sub-01/ses-2/dwi.bval"]
    match = inherited(dwi, [bids_file(path) for path in elsewhere], ".bval")
    assert (match.file, match.passed_over) == (None, ())


def test_inherited_misspelled_extension_is_named_with_the_right_one() -> None:
    match = inherited(in_dwi({}), [in_dwi({}, "dwi.bvals")], ".bval")
    assert match.file is None
    assert "in BIDS, the extension is .bval" in match.reasons()


# Brain masks


@settings(max_examples=50, deadline=None)
@given(ENTITIES, st.sampled_from(["res", "den", "space", "cohort"]), VALUES, VALUES)
def test_brain_mask_grid_entities_tell_masks_apart(
    entities: dict[str, str], key: str, one: str, two: str
) -> None:
    assume(one != two)
    assume("orig" not in (one.lower(), two.lower()))
    both = [in_dwi({**entities, key: v}, "desc-brain_mask.nii.gz") for v in (one, two)]
    for value, mask in zip((one, two), both, strict=True):
        dwi = in_dwi({**entities, key: value}, "desc-preproc_dwi.nii.gz")
        assert brain_mask(dwi, both, no_header).file == mask


@settings(max_examples=50, deadline=None)
@given(ENTITIES, st.data())
def test_brain_mask_most_entities_win_and_none_is_taken_from_another_run(
    entities: dict[str, str], data: st.DataObject
) -> None:
    sizes = data.draw(st.sets(st.integers(0, len(entities))))
    items = data.draw(st.permutations(list(entities.items())))
    masks = [in_dwi(dict(items[:n]), "desc-brain_mask.nii.gz") for n in sizes]
    key = data.draw(st.sampled_from(RUN_KEYS))
    foreign = in_dwi({**entities, key: entities.get(key, "") + "x"}, "desc-brain_mask.nii.gz")
    match = brain_mask(in_dwi(entities), [foreign, *masks], no_header)
    expected = max(masks, key=lambda mask: len(mask.name.entities), default=None)
    assert match.file == expected
    if expected is None:
        assert f"{key}-" in match.reasons()
        assert foreign.path.name in match.reasons()


@pytest.mark.parametrize(
    ("name", "brain"),
    [
        ("desc-brain_mask", True),
        ("label-brain_mask", True),
        ("label-Brain_mask", True),
        ("label-BRAIN_desc-bet_mask", True),
        ("label-brain_desc-brain_mask", True),
        ("label-WM_desc-brain_mask", False),
        ("desc-wm_mask", False),
        ("mask", False),
        ("desc-brain_brainmask", False),
    ],
)
def test_brain_mask_is_told_by_desc_or_label(name: str, brain: bool) -> None:
    match = brain_mask(in_dwi({}), [in_dwi({}, f"{name}.nii.gz")], no_header)
    assert (match.file is not None) == brain
    assert brain or f"sub-01_{name}.nii.gz (" in match.reasons()


def test_brain_mask_own_dataset_goes_before_others_whatever_their_entities() -> None:
    dwi = in_dwi({"dir": "AP"})
    own = in_dwi({}, "desc-brain_mask.nii.gz")
    others = [in_dwi({"dir": "AP"}, "desc-brain_mask.nii.gz", dataset=d) for d in "ab"]
    assert brain_mask(dwi, [*others, own], no_header).file == own
    assert brain_mask(dwi, others[:1], no_header).file == others[0]
    with pytest.raises(NoMatchError, match="several brain masks"):
        brain_mask(dwi, others, no_header)


def test_brain_mask_of_the_session_goes_before_that_of_the_participant() -> None:
    dwi = bids_file("sub-01/ses-1/dwi/sub-01_ses-1_run-2_dwi.nii.gz")
    above = bids_file("sub-01/dwi/sub-01_run-2_desc-brain_mask.nii.gz")
    near = bids_file("sub-01/ses-1/dwi/sub-01_ses-1_desc-brain_mask.nii.gz")
    other = bids_file("sub-01/ses-2/dwi/sub-01_desc-brain_mask.nii.gz")  # by its folder
    assert brain_mask(dwi, [above, near, other], no_header).file == near
    assert brain_mask(dwi, [above, other], no_header).file == above
    assert brain_mask(dwi, [other], no_header).passed_over == ()


def image(path: Path, shape: tuple[int, ...] = (3, 4, 5), shift: float = 0.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[0, 3] = shift
    nib.save(nib.Nifti1Image(np.zeros(shape, np.uint8), affine), path)
    return path


@pytest.mark.parametrize("dwi_space", ["", "_space-orig", "_space-ACPC"])
@pytest.mark.parametrize("mask_space", ["", "_space-orig", "_space-ACPC", "_space-T1w"])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_brain_mask_without_space_counts_on_the_very_same_grid_only(
    tmp_path: Path, dwi_space: str, mask_space: str, shift: float
) -> None:
    stem = tmp_path / "sub-01" / "dwi" / "sub-01"
    dwi = image(Path(f"{stem}{dwi_space}_desc-preproc_dwi.nii.gz"), (3, 4, 5, 2))
    mask = image(Path(f"{stem}{mask_space}_desc-brain_mask.nii.gz"), shift=shift)
    match = brain_mask(
        BidsFile("main", tmp_path, dwi), [BidsFile("main", tmp_path, mask)], grid_comparison(dwi)
    )
    same_label = dwi_space == mask_space
    comparable = mask_space in ("", "_space-orig")
    assert (match.file is not None) == (same_label or (comparable and shift == 0))
    if match.file is None:
        assert ("a different grid" if comparable else "is not the DWI's space") in match.reasons()


def test_brain_mask_with_the_label_goes_before_one_on_the_same_grid(tmp_path: Path) -> None:
    folder = tmp_path / "sub-01" / "dwi"
    dwi = image(folder / "sub-01_space-ACPC_dwi.nii.gz", (3, 4, 5, 2))
    masks = [
        BidsFile("main", tmp_path, image(folder / f"sub-01_{space}desc-brain_mask.nii.gz"))
        for space in ("", "space-ACPC_")
    ]
    assert brain_mask(BidsFile("main", tmp_path, dwi), masks, no_header).file == masks[1]


def test_brain_mask_to_compare_without_content_is_no_input(tmp_path: Path) -> None:
    folder = tmp_path / "sub-01" / "dwi"
    dwi = image(folder / "sub-01_space-ACPC_dwi.nii.gz", (3, 4, 5, 2))
    link = folder / "sub-01_desc-brain_mask.nii.gz"
    link.symlink_to("nowhere")
    with pytest.raises(NoInputError, match="datalad get"):
        brain_mask(
            BidsFile("main", tmp_path, dwi),
            [BidsFile("main", tmp_path, link)],
            grid_comparison(dwi),
        )
    link.unlink()
    link.write_bytes(b"no image")
    match = brain_mask(
        BidsFile("main", tmp_path, dwi), [BidsFile("main", tmp_path, link)], grid_comparison(dwi)
    )
    assert "header cannot be read" in match.reasons()

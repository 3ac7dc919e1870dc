"""Masks as the configuration defines them, on grids and values that can be counted by hand."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import TypeAdapter

from bids_tractography.anatomy.masks import Mask, Sources, check_files, interface, make_mask
from bids_tractography.config.masks import MaskConfig as Definition
from bids_tractography.config.model import PrecomputedModelConfig
from bids_tractography.config.section import Section
from bids_tractography.config.tissue import FiveTissueTypesConfig, T1wTissueConfig
from bids_tractography.core.images import Grid, write_image
from bids_tractography.errors import DataError, EmptyMaskError

SHAPE = (6, 5, 4)
GRID = Grid(SHAPE, np.diag([2.0, 2.0, 2.0, 1.0]))
RNG = np.random.default_rng(5)
BRAIN = np.zeros(SHAPE, bool)
BRAIN[1:5, 1:4, 1:3] = True
FA = np.where(BRAIN, RNG.uniform(0.01, 1, SHAPE), 0).astype(np.float32)
WM = np.zeros(SHAPE, np.float32)
WM[2:4] = 0.8
GM = np.zeros(SHAPE, np.float32)
GM[4:] = 0.9
MAPS: dict[str, np.ndarray] = {
    "fa": FA,
    "md": 1 - FA,
    "gfa": FA / 2,
    "wm": WM,
    "gm": GM,
    "csf": 1 - WM - GM,
}
LABELS = np.zeros(SHAPE, np.float32)
LABELS[0], LABELS[1], LABELS[2] = 3, 4, 1007

READ = TypeAdapter(Definition)


def made(
    definition: object, files: dict[str, Path] | None = None, **maps: NDArray[np.float32]
) -> Mask:
    sources = Sources(GRID, {**MAPS, **maps}, BRAIN, files or {})
    return make_mask(READ.validate_python(definition), sources, "m")


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    write_image(tmp_path / "labels.nii.gz", LABELS.astype(np.int16), GRID)
    return tmp_path / "labels.nii.gz"


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        ("full", np.ones(SHAPE, bool)),
        ("brain", BRAIN),
        ("threshold", FA > 0.2),
        ({"above": 0.6}, FA > 0.6),
        ({"map": "md", "below": 0.5}, (1 - FA < 0.5) & BRAIN),
        ({"above": 0.3, "below": 0.7}, (FA > 0.3) & (FA < 0.7)),
        ({"map": "gfa", "above": 0.3}, FA / 2 > 0.3),
        ("tissue", WM > 0.5),
        ({"kind": "tissue", "tissue": "gm", "above": 0.85}, GM > 0.85),
        ({"kind": "not", "of": "brain"}, ~BRAIN),
        ({"kind": "any", "of": ["brain", "tissue"]}, BRAIN | (WM > 0.5)),
        ({"kind": "all", "of": ["brain", {"kind": "not", "of": "tissue"}]}, BRAIN & (WM <= 0.5)),
    ],
)
def test_a_definition_gives_the_voxels_that_it_says(
    definition: object, expected: NDArray[np.bool_]
) -> None:
    mask = made(definition)
    np.testing.assert_array_equal(mask.data, expected)
    assert mask.n_voxels == expected.sum()


def test_a_voxel_at_the_threshold_is_not_above_it() -> None:
    two_values = np.where(BRAIN, np.float32(0.5), 0).astype(np.float32)
    two_values[2, 2, 1] = 1
    assert made({"map": "fa", "above": 0.5}, fa=two_values).n_voxels == 1


@given(st.floats(0, 99))
def test_a_percentile_counts_the_brain_s_non_zero_voxels_only(percentile: float) -> None:
    mask = made({"above": percentile, "percentile": True})
    inside = FA[BRAIN]
    value = np.percentile(inside.astype(float), percentile)
    assert mask.record["above"] == pytest.approx(value)
    assert mask.record["above_percentile"] == percentile
    assert mask.n_voxels == np.count_nonzero(inside > value)


def test_the_interface_is_white_matter_that_touches_or_holds_grey_matter() -> None:
    expected = np.zeros(SHAPE, bool)
    expected[3] = True  # white matter is in planes 2 and 3, grey matter from 4 on
    np.testing.assert_array_equal(made("interface").data, expected)
    both = interface(np.full(SHAPE, 0.6, np.float32), np.full(SHAPE, 0.6, np.float32), 0.5)
    assert both.all()


@pytest.mark.parametrize(
    ("include", "exclude", "planes"),
    [((3, 1007), (), (0, 2)), ((), (4,), (0, 2)), ((3, 4), (1007,), (0, 1))],
)
def test_labels_are_included_and_excluded_by_number(
    labels: Path, include: tuple[int, ...], exclude: tuple[int, ...], planes: tuple[int, ...]
) -> None:
    definition = {"kind": "labels", "path": labels, "include": include, "exclude": exclude}
    mask = made(definition, {"m": labels})
    expected = np.zeros(SHAPE, bool)
    expected[list(planes)] = True
    np.testing.assert_array_equal(mask.data, expected)


def test_labels_are_never_mixed_by_resampling(tmp_path: Path) -> None:
    """Between the labels 2 and 4 there is no label 3, on whatever grid they are stored."""
    fine = Grid((24, 20, 16), np.diag([0.5, 0.5, 0.5, 1.0]))
    data = np.full(fine.shape, 2, np.int16)
    data[::2] = 4
    write_image(tmp_path / "fine.nii.gz", data, fine)
    files = {"m": tmp_path / "fine.nii.gz"}
    definition = {"kind": "labels", "path": files["m"], "include": [3]}
    with pytest.raises(EmptyMaskError, match="m is empty"):
        made(definition, files)


def test_regions_of_several_files_are_united(tmp_path: Path) -> None:
    files = {}
    for place, plane in enumerate((0, 5)):
        data = np.zeros(SHAPE, np.uint8)
        data[plane] = 1
        files[f"m.files.{place}"] = tmp_path / f"{plane}.nii.gz"
        write_image(files[f"m.files.{place}"], data, GRID)
    mask = made({"kind": "roi", "files": [str(path) for path in files.values()]}, files)
    assert sorted(set(np.nonzero(mask.data)[0])) == [0, 5]
    assert mask.parents == tuple(files)


def test_a_map_on_another_grid_is_interpolated_not_rounded(tmp_path: Path) -> None:
    """A ramp in mm is the same ramp on any grid."""
    other = Grid(
        (9, 9, 9), np.array([[0, 0, 1.6, -1], [0, -1.6, 0, 11], [1.6, 0, 0, -2], [0, 0, 0, 1]])
    )
    x_mm = other.to_mm(np.argwhere(np.ones(other.shape)))[:, 0].reshape(other.shape)
    write_image(tmp_path / "ramp.nii.gz", x_mm.astype(np.float32), other)
    files = {"m.map": tmp_path / "ramp.nii.gz"}
    mask = made({"map": str(files["m.map"]), "above": 3.0}, files)
    inner = mask.data[1:5, 1:4, 1:3]
    assert inner[1:].all()  # x = 4 mm and beyond
    assert not inner[0].any()  # x = 2 mm


def test_a_description_names_what_was_used(labels: Path) -> None:
    definition = {
        "kind": "all",
        "of": [
            {"above": 0.25},
            {"kind": "not", "of": {"kind": "labels", "path": labels, "include": [4]}},
        ],
    }
    mask = made(definition, {"m.of.1.of": labels})
    assert mask.description == (
        "(voxels of the brain where FA > 0.25) and (all but (labels [4] of labels.nii.gz))"
    )
    assert mask.parents == ("fa", "brain", "m.of.1.of")
    assert mask.record["of"][0] == {"kind": "threshold", "map": "FA", "above": 0.25}


def test_an_empty_mask_is_an_error_that_says_what_it_was() -> None:
    with pytest.raises(EmptyMaskError, match=r"m is empty.*FA > 2"):
        made({"above": 2})


def test_a_label_that_the_image_does_not_have_is_told_beforehand(labels: Path) -> None:
    definition = READ.validate_python({"kind": "labels", "path": labels, "include": [3, 99]})
    with pytest.raises(DataError, match=r"no label 99.*Its labels: 0, 3, 4, 1007"):
        check_files(definition, {"": labels})


def test_a_file_that_is_no_image_is_told_beforehand(tmp_path: Path) -> None:
    (tmp_path / "mask.nii.gz").write_text("not an image")
    definition = READ.validate_python({"kind": "file", "path": tmp_path / "mask.nii.gz"})
    with pytest.raises(DataError, match="cannot be read"):
        check_files(definition, {"": tmp_path / "mask.nii.gz"})


@pytest.mark.parametrize(
    ("definition", "key", "name", "n_dimensions"),
    [
        (FiveTissueTypesConfig(image="a"), "image", "tissues.nii.gz", 4),
        (T1wTissueConfig(image="a"), "image", "5tt_of_head.nii.gz", 3),
        (PrecomputedModelConfig(path="a"), "", "fod.nii.gz", 4),
    ],
)
def test_the_kind_of_a_file_tells_its_dimensions_not_its_name(
    definition: Section, key: str, name: str, n_dimensions: int, tmp_path: Path
) -> None:
    path = tmp_path / name
    for n in (3, 4):
        nib.save(nib.Nifti1Image(np.zeros((3, 3, 3, 2)[:n], np.float32), np.eye(4)), path)
        if n == n_dimensions:
            check_files(definition, {key: path})
        else:
            with pytest.raises(DataError, match=f"{n} dimensions .*; {n_dimensions} are required"):
                check_files(definition, {key: path})

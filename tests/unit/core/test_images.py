"""Images and grids: one head gives one array however it is stored, and goes back as it came."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bids_tractography.core.images import Grid, header_warnings, read_image, write_image
from bids_tractography.errors import DataError, GridError, NoInputError, TractographyError

SHAPE = (4, 5, 6)
ORDERS = list(itertools.permutations(range(3)))
FLIPS = list(itertools.product([False, True], [False, True], [False, True]))


def turned(degrees: tuple[float, float, float]) -> NDArray[np.float64]:
    """Rotate about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def affine_of(
    zooms: tuple[float, float, float] = (2.0, 2.5, 3.0),
    degrees: tuple[float, float, float] = (12, -8, 15),
    origin: tuple[float, float, float] = (-30, -40, -20),
) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3] = turned(degrees) * zooms
    affine[:3, 3] = origin
    return affine.astype(np.float32).astype(np.float64)  # as NIfTI keeps it


def stored(
    data: NDArray[Any],
    affine: NDArray[np.float64],
    order: tuple[int, int, int],
    flips: tuple[bool, bool, bool],
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Store a head otherwise: axis k of the result is axis order[k], run backwards if flipped."""
    moved = data.transpose(*order, *range(3, data.ndim))
    moved = np.flip(moved, tuple(k for k in range(3) if flips[k]))
    columns, origin = [], affine[:3, 3].copy()
    for k, flipped in zip(order, flips, strict=True):
        columns.append(-affine[:3, k] if flipped else affine[:3, k])
        if flipped:
            origin += (data.shape[k] - 1) * affine[:3, k]
    moved_affine = np.eye(4)
    moved_affine[:3] = np.column_stack([*columns, origin])
    return moved, moved_affine


def save(
    path: Path, data: NDArray[Any], affine: NDArray[np.float64], dtype: Any = np.float32
) -> Path:
    nib.save(nib.Nifti1Image(np.asarray(data, dtype), affine, dtype=dtype), path)
    return path


def head(*trailing: int) -> NDArray[np.float32]:
    shape = (*SHAPE, *trailing)
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def grid_of(affine: NDArray[np.float64], shape: tuple[int, int, int] = SHAPE) -> Grid:
    return Grid(shape, affine)


# One head, one array


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("trailing", [(), (3,)])
def test_one_head_gives_one_array_from_all_storages(
    tmp_path: Path, order: tuple[int, int, int], trailing: tuple[int, ...]
) -> None:
    data, affine = head(*trailing), affine_of()
    for flips in FLIPS:
        image = read_image(
            save(tmp_path / "head.nii", *stored(data, affine, order, flips)),
            ndim=3 + len(trailing),
        )
        assert np.array_equal(image.data, data)
        assert image.data.dtype == np.float32
        assert image.data.flags.c_contiguous
        assert image.grid.shape == SHAPE
        assert np.allclose(image.grid.affine, affine, atol=1e-5)
        assert np.allclose(image.grid.voxel_size_mm, [2, 2.5, 3], atol=1e-6)
        assert np.allclose(image.grid.axes, turned((12, -8, 15)), atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    order=st.sampled_from(ORDERS),
    flips=st.sampled_from(FLIPS),
    degrees=st.tuples(*[st.floats(-40, 40)] * 3),
    zooms=st.tuples(*[st.floats(0.5, 5)] * 3),
    voxel=st.tuples(*[st.integers(0, n - 1) for n in SHAPE]),
)
def test_every_voxel_stays_where_it_is_in_mm(
    order: tuple[int, int, int],
    flips: tuple[bool, bool, bool],
    degrees: tuple[float, float, float],
    zooms: tuple[float, float, float],
    voxel: tuple[int, int, int],
) -> None:
    place = np.zeros(SHAPE, np.float32)
    place[voxel] = 1
    affine = affine_of(zooms, degrees)
    on_file, file_affine = stored(place, affine, order, flips)
    grid = Grid(on_file.shape, file_affine)
    seen = grid.from_stored(on_file)
    assert seen.shape == grid.shape
    found = np.argwhere(seen)
    assert len(found) == 1
    assert np.allclose(grid.to_mm(found), affine[:3, :3] @ voxel + affine[:3, 3], atol=1e-4)
    assert np.array_equal(grid.to_stored(seen), on_file)


@pytest.mark.parametrize("order", ORDERS)
def test_what_was_read_is_written_back_bit_for_bit(
    tmp_path: Path, order: tuple[int, int, int]
) -> None:
    for flips in FLIPS:
        on_file, file_affine = stored(head(2), affine_of(), order, flips)
        path = save(tmp_path / "head.nii.gz", on_file, file_affine)
        image = read_image(path, ndim=4)
        write_image(tmp_path / "again.nii.gz", image.data, image.grid)
        before, after = nib.load(path), nib.load(tmp_path / "again.nii.gz")
        assert np.array_equal(np.asarray(after.dataobj), on_file)
        assert after.affine.tobytes() == before.affine.tobytes()
        assert after.get_data_dtype() == np.float32


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.float32])
def test_written_images_keep_type_units_and_both_affines(tmp_path: Path, dtype: Any) -> None:
    affine = affine_of()
    write_image(tmp_path / "map.nii.gz", np.ones(SHAPE, dtype), grid_of(affine))
    image = nib.load(tmp_path / "map.nii.gz")
    assert image.get_data_dtype() == dtype
    assert image.header.get_xyzt_units()[0] == "mm"
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
    assert np.allclose(image.get_sform(), affine, atol=1e-6)
    assert np.allclose(image.get_qform(), affine, atol=1e-4)
    assert np.all(np.asarray(image.dataobj) == 1)


def test_written_bytes_are_the_same_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, data = grid_of(affine_of()), head()
    write_image(tmp_path / "one.nii.gz", data, grid)
    monkeypatch.setattr("time.time", lambda: 2e9)
    write_image(tmp_path / "another_name.nii.gz", np.asfortranarray(data), grid)
    one = (tmp_path / "one.nii.gz").read_bytes()
    assert one == (tmp_path / "another_name.nii.gz").read_bytes()
    write_image(tmp_path / "two.nii.gz", data + 1, grid)
    assert one != (tmp_path / "two.nii.gz").read_bytes()


# Coordinates


@settings(max_examples=60, deadline=None)
@given(
    degrees=st.tuples(*[st.floats(-180, 180)] * 3),
    zooms=st.tuples(*[st.floats(0.3, 6)] * 3),
    points=st.lists(st.tuples(*[st.floats(-300, 300)] * 3), min_size=1, max_size=5),
)
def test_mm_and_voxels_are_inverse(
    degrees: tuple[float, float, float],
    zooms: tuple[float, float, float],
    points: list[tuple[float, float, float]],
) -> None:
    grid = grid_of(affine_of(zooms, degrees))
    there = np.array(points)
    assert np.allclose(grid.to_mm(grid.to_voxels(there)), there, atol=1e-6)
    assert np.allclose(grid.to_voxels(grid.to_mm(there)), there, atol=1e-6)


def test_voxel_centres_are_integers() -> None:
    affine = np.diag([-2.0, 2.0, 3.0, 1.0])  # LAS: the first voxel is the rightmost
    affine[:3, 3] = [10, 20, 30]
    grid = grid_of(affine, (4, 5, 6))
    assert np.array_equal(grid.to_mm(np.zeros((1, 3))), [[4, 20, 30]])
    assert np.array_equal(grid.to_mm(np.array([[3, 0.5, -1]])), [[10, 21, 27]])
    assert np.array_equal(grid.to_voxels(np.array([[10.0, 28, 45]])), [[3, 4, 5]])


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 200), row=st.integers(0, 199), single=st.booleans())
def test_a_point_does_not_depend_on_those_beside_it(n: int, row: int, single: bool) -> None:
    grid = grid_of(affine_of((1.7, 2.3, 2.9), (11, -23, 31)))
    points = np.random.default_rng(n).normal(scale=50, size=(n, 3))
    if single:
        points = points.astype(np.float32)
    row %= n
    for turn in (grid.to_mm, grid.to_voxels):
        assert turn(points)[row].tobytes() == turn(points[row : row + 1])[0].tobytes()
        assert turn(np.asfortranarray(points))[row].tobytes() == turn(points)[row].tobytes()


# Grids


@pytest.mark.parametrize("order", ORDERS)
def test_one_grid_matches_itself_in_every_storage(order: tuple[int, int, int]) -> None:
    affine = affine_of()
    for flips in FLIPS:
        on_file, file_affine = stored(np.zeros(SHAPE), affine, order, flips)
        assert grid_of(affine).matches(Grid(on_file.shape, file_affine))
        assert Grid(on_file.shape, file_affine).matches(grid_of(affine))


def test_las_and_ras_of_one_grid_match_but_not_one_affine_read_both_ways() -> None:
    ras = np.diag([2.0, 2.0, 2.0, 1.0])
    las = np.diag([-2.0, 2.0, 2.0, 1.0])
    assert not grid_of(ras).matches(grid_of(las))
    las[0, 3] = 2 * (SHAPE[0] - 1)
    assert grid_of(ras).matches(grid_of(las))


def shifted(affine: NDArray[np.float64], *mm: float) -> NDArray[np.float64]:
    moved = affine.copy()
    moved[:3, 3] += mm
    return moved


@pytest.mark.parametrize("axis", range(3))
def test_grids_half_a_voxel_apart_do_not_match(axis: int) -> None:
    affine = affine_of()
    assert not grid_of(affine).matches(grid_of(shifted(affine, *(affine[:3, axis] / 2))))


@pytest.mark.parametrize("degrees", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 180)])
def test_grids_turned_about_their_centre_do_not_match(degrees: tuple[float, float, float]) -> None:
    affine = affine_of(degrees=(0, 0, 0), zooms=(2, 2, 2))
    centre = affine @ [1.5, 2, 2.5, 1]
    turn = np.eye(4)
    turn[:3, :3] = turned(degrees)
    turn[:3, 3] = centre[:3] - turn[:3, :3] @ centre[:3]
    matches = grid_of(affine).matches(grid_of(turn @ affine))
    assert matches == (degrees == (0, 0, 180))  # half a turn gives the same voxels, renumbered


def test_grids_turned_about_their_diagonal_do_not_match() -> None:
    affine = np.diag([2.0, 2, 2, 1])  # the first and the farthest voxel stay where they are
    x, y, z = np.array(SHAPE) / np.linalg.norm(SHAPE)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn = np.eye(4)
    turn[:3, :3] += np.sin(0.1) * cross + (1 - np.cos(0.1)) * cross @ cross  # Rodrigues
    assert not grid_of(affine).matches(grid_of(turn @ affine))


def test_grids_of_other_shape_or_voxel_size_do_not_match() -> None:
    affine = affine_of()
    assert not grid_of(affine).matches(grid_of(affine, (4, 5, 7)))
    assert not grid_of(affine).matches(grid_of(affine_of((2, 2.5, 3.05))))
    assert not grid_of(affine, (4, 4, 6)).matches(grid_of(affine, (4, 6, 4)))


def test_grids_as_other_programs_round_them_match() -> None:
    affine = affine_of()
    assert grid_of(affine).matches(grid_of(np.round(affine, 4)))


def test_a_grid_describes_itself() -> None:
    affine = np.diag([-2.0, 2.0, 3.0, 1.0])
    assert grid_of(affine).describe().startswith("4x5x6 voxels stored LAS, 2x2x3 mm")


# Values


def test_scaled_integers_are_unscaled(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(120, dtype=np.int16).reshape(SHAPE), affine_of())
    image.header.set_slope_inter(0.25, -3)
    image.to_filename(tmp_path / "raw.nii")
    bytes_on_disk = bytearray((tmp_path / "raw.nii").read_bytes())
    raw = np.arange(120, dtype="<i2").reshape(SHAPE)
    bytes_on_disk[352:] = raw.tobytes(order="F")
    bytes_on_disk[112:120] = np.array([0.25, -3], "<f4").tobytes()  # scl_slope, scl_inter
    (tmp_path / "raw.nii").write_bytes(bytes_on_disk)
    read = read_image(tmp_path / "raw.nii", ndim=3)
    assert np.array_equal(read.data, np.arange(120).reshape(SHAPE) * 0.25 - 3)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float64, ">f4"])
def test_all_real_types_are_read(tmp_path: Path, dtype: Any) -> None:
    data = np.arange(120).reshape(SHAPE)
    affine = affine_of()
    image = read_image(save(tmp_path / "a.nii.gz", data, affine, np.dtype(dtype)), ndim=3)
    assert np.array_equal(image.data, data)


@pytest.mark.parametrize("shape", [(*SHAPE, 1), (*SHAPE, 1, 1)])
def test_trailing_dimensions_of_one_do_not_count(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = save(tmp_path / "a.nii", head().reshape(shape), affine_of())
    assert np.array_equal(read_image(path, ndim=3).data, head())


def test_a_dwi_of_one_slice_is_four_dimensional(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", head(3)[:, :, :1], np.diag([2.0, 2, 2, 1]))
    image = read_image(path, ndim=4)
    assert image.data.shape == (4, 5, 1, 3)
    assert image.grid.shape == (4, 5, 1)


# What is refused


def refused(path: Path, ndim: int = 3, error: type[TractographyError] = DataError) -> str:
    with pytest.raises(error) as caught:
        read_image(path, ndim=ndim)
    assert type(caught.value) is error
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("shape", "ndim"), [(SHAPE, 4), ((*SHAPE, 2), 3), ((*SHAPE, 1, 2), 4)])
def test_other_dimensions_are_refused(tmp_path: Path, shape: tuple[int, ...], ndim: int) -> None:
    message = refused(save(tmp_path / "a.nii", np.zeros(shape), affine_of()), ndim)
    assert f"{ndim} are required" in message


@pytest.mark.parametrize("share", [0, 0.001, 0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii"])
def test_truncated_files_are_told(tmp_path: Path, name: str, share: float) -> None:
    whole = save(tmp_path / name, head(8), affine_of()).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
    refused(tmp_path / name, 4)
    assert DataError.exit_code == 65


@pytest.mark.parametrize("start", [10, 200, 1000])
def test_damaged_files_are_told(tmp_path: Path, start: int) -> None:
    path = save(tmp_path / "a.nii.gz", head(8), affine_of())
    content = bytearray(path.read_bytes())
    content[start : start + 64] = b"\xff" * 64
    path.write_bytes(content)
    refused(path, 4)


@pytest.mark.parametrize("datatype", [2304, 1, 9999])
def test_damaged_headers_are_told(tmp_path: Path, datatype: int) -> None:
    path = save(tmp_path / "a.nii", head(), affine_of())
    content = bytearray(path.read_bytes())
    content[70:72] = np.array(datatype, "<u2").tobytes()
    path.write_bytes(content)
    refused(path)


def test_colours_are_no_map(tmp_path: Path) -> None:
    rgb = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(rgb, affine_of()), tmp_path / "rgb.nii.gz")
    refused(tmp_path / "rgb.nii.gz")


def test_complex_values_are_no_map(tmp_path: Path) -> None:
    data = np.full(SHAPE, 1 + 2j, np.complex64)
    nib.save(nib.Nifti1Image(data, affine_of()), tmp_path / "complex.nii.gz")
    refused(tmp_path / "complex.nii.gz")


@pytest.mark.parametrize("content", [b"", b"hello", gzip.compress(b"hello", mtime=0)])
def test_files_that_are_no_image_are_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.nii.gz").write_bytes(content)
    refused(tmp_path / "a.nii.gz")


def test_folders_are_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").mkdir()
    with pytest.raises(TractographyError, match=r"a\.nii\.gz"):
        read_image(tmp_path / "a.nii.gz", ndim=3)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("trailing", [(), (3,)])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_matter_where_they_are_needed(
    tmp_path: Path, order: tuple[int, int, int], trailing: tuple[int, ...], value: float
) -> None:
    data, affine = head(*trailing), affine_of()
    data[(1, 2, 3, *(0 for _ in trailing))] = value
    data[0, 0, 0] = value
    path = save(tmp_path / "a.nii.gz", *stored(data, affine, order, (True, False, True)))
    image = read_image(path, ndim=3 + len(trailing))
    assert image.missing is not None
    assert np.argwhere(image.missing).tolist() == [[0, 0, 0], [1, 2, 3]]
    assert np.array_equal(image.data, np.where(np.isfinite(data), data, 0))
    brain = np.ones(SHAPE, bool)
    with pytest.raises(DataError, match="2 voxels of the brain"):
        image.require_finite(brain, path)
    image.require_finite(brain & ~image.missing, path)


def test_an_image_without_a_finite_value_is_refused(tmp_path: Path) -> None:
    data = np.full(SHAPE, np.nan)
    assert "no finite value" in refused(save(tmp_path / "a.nii.gz", data, affine_of()))


def test_values_too_large_for_float32_are_not_finite(tmp_path: Path) -> None:
    data = np.zeros(SHAPE)
    data[0, 0, 0] = 1e200
    path = save(tmp_path / "a.nii.gz", data, affine_of(), np.float64)
    with np.errstate(over="ignore"):
        image = read_image(path, ndim=3)
    assert image.missing is not None
    assert image.missing.sum() == 1


# Units, sform and qform


def header_of(path: Path, **fields: Any) -> Path:
    """Rewrite fields of a header byte by byte: nibabel would refuse some."""
    places = {"xyzt_units": (123, "u1"), "srow": (280, "<f4"), "sform_code": (254, "<i2")}
    content = bytearray(path.read_bytes())
    for name, value in fields.items():
        start, dtype = places[name]
        raw = np.asarray(value).astype(dtype).tobytes()
        content[start : start + len(raw)] = raw
    path.write_bytes(content)
    return path


@settings(max_examples=40, deadline=None)
@given(
    unit=st.sampled_from([(0, 1.0), (1, 1e-3), (2, 1.0), (3, 1e3)]),
    time=st.sampled_from([0, 8, 16, 24]),
    size=st.floats(0.2, 6),
    degrees=st.floats(-40, 40),
)
def test_the_unit_of_the_header_changes_nothing_in_mm(
    tmp_path_factory: pytest.TempPathFactory,
    unit: tuple[int, float],
    time: int,
    size: float,
    degrees: float,
) -> None:
    code, factor = unit
    affine = np.eye(4)
    affine[:3, :3] = turned((degrees, 5, -3)) * size
    affine[:3, 3] = [10, -20, 30]
    scaled = affine.copy()
    scaled[:3] *= factor
    folder = tmp_path_factory.getbasetemp()
    path = header_of(save(folder / "unit.nii", head(), scaled), xyzt_units=code + time)
    image = read_image(path, ndim=3)
    assert np.allclose(image.grid.stored_affine, affine, rtol=1e-5, atol=1e-4)
    said = " ".join(header_warnings(path))
    assert ("converted to mm" in said) == (factor != 1)


@pytest.mark.parametrize(("code", "size"), [(1, 2.5), (3, 2.5e-4), (2, 2.5e-4), (2, 2500.0)])
def test_voxels_of_an_impossible_size_name_the_unit(tmp_path: Path, code: int, size: float) -> None:
    path = save(tmp_path / "a.nii", head(), np.diag([size, size, size, 1]))
    message = refused(header_of(path, xyzt_units=code), error=GridError)
    assert "unit" in message
    assert ("metres" in message) == (code != 0)


def test_an_unknown_unit_counts_as_mm_and_is_reported(tmp_path: Path) -> None:
    path = header_of(save(tmp_path / "a.nii", head(), affine_of()), xyzt_units=5)
    assert np.allclose(read_image(path, ndim=3).grid.affine, affine_of(), atol=1e-5)
    assert "unknown unit" in header_warnings(path)[0]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_forms_that_disagree_in_handedness_are_reported(tmp_path: Path, axis: int) -> None:
    mirrored = affine_of()
    mirrored[axis] *= -1
    image = nib.Nifti1Image(head(), affine_of())
    image.set_qform(affine_of(), code=1)
    image.set_sform(mirrored, code=2)
    nib.save(image, tmp_path / "a.nii")
    (warning,) = header_warnings(tmp_path / "a.nii")
    assert "sform and qform" in warning
    assert np.allclose(read_image(tmp_path / "a.nii", ndim=3).grid.stored_affine, mirrored)
    image.set_sform(affine_of(), code=2)
    nib.save(image, tmp_path / "a.nii")
    assert header_warnings(tmp_path / "a.nii") == []


@pytest.mark.parametrize("rows", [np.zeros((3, 4)), np.full((3, 4), np.nan), np.ones((3, 4))])
def test_a_singular_sform_leaves_a_sound_qform(tmp_path: Path, rows: NDArray[np.float64]) -> None:
    image = nib.Nifti1Image(head(), affine_of())
    image.set_qform(affine_of(), code=1)
    nib.save(image, tmp_path / "a.nii")
    path = header_of(tmp_path / "a.nii", srow=rows, sform_code=1)
    assert np.allclose(read_image(path, ndim=3).grid.affine, affine_of(), atol=1e-4)
    (warning,) = header_warnings(path)
    assert "the qform is used" in warning


def with_sform(path: Path, affine: NDArray[np.float64]) -> Path:
    """Write an affine into the header byte by byte: nibabel would refuse some."""
    content = bytearray(save(path, head(), np.eye(4)).read_bytes())
    content[280:328] = affine[:3].astype("<f4").tobytes()
    content[254:256] = np.array(1, "<i2").tobytes()
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "affine",
    [
        np.zeros((4, 4)),
        np.diag([2.0, 2.0, 0.0, 1.0]),
        np.array([[2.0, 2, 0, 0], [0, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]),
        np.diag([np.nan, 2, 2, 1]),
        np.array([[2.0, 0, 0, np.inf], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]),
    ],
)
def test_singular_affines_are_refused(tmp_path: Path, affine: NDArray[np.float64]) -> None:
    message = refused(with_sform(tmp_path / "a.nii", affine), error=GridError)
    assert "singular" in message
    assert GridError.exit_code == 65


def test_sheared_affines_are_refused_and_rounded_ones_are_not(tmp_path: Path) -> None:
    sheared = np.diag([2.0, 2, 2, 1])
    sheared[0, 1] = 0.2
    assert "shear" in refused(with_sform(tmp_path / "a.nii", sheared), error=GridError)
    sheared[0, 1] = 0.002
    assert read_image(with_sform(tmp_path / "b.nii", sheared), ndim=3).grid.shape == SHAPE


def test_missing_files_are_no_input(tmp_path: Path) -> None:
    message = refused(tmp_path / "absent.nii.gz", error=NoInputError)
    assert "does not exist" in message
    assert "datalad" not in message
    assert NoInputError.exit_code == 66


def test_dangling_links_are_no_input_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").symlink_to(".git/annex/objects/gone")
    assert "datalad get" in refused(tmp_path / "a.nii.gz", error=NoInputError)

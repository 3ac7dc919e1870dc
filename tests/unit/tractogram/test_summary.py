"""TRX files and summaries against trx-python, numpy and naive loops."""

from __future__ import annotations

import hashlib
import itertools
import json
import struct
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tractograms import oblique_las_grid, random_streamlines, stored
from trx.trx_file_memmap import load

from bids_tractography.core.images import Grid
from bids_tractography.tractogram.formats.trx import write_trx
from bids_tractography.tractogram.summary import content_hash, density, length_quantiles_mm

DTYPES: list[Literal["float32", "float16"]] = ["float32", "float16"]


def read_with_trx_python(path: Path) -> tuple[list[Any], Any, list[int]]:
    trx = load(str(path))
    streamlines = [np.array(line) for line in trx.streamlines]
    affine = np.array(trx.header["VOXEL_TO_RASMM"])
    dimensions = [int(n) for n in trx.header["DIMENSIONS"]]
    trx.close()
    return streamlines, affine, dimensions


@pytest.mark.parametrize("dtype", DTYPES)
def test_trx_python_reads_the_same_streamlines_affine_and_dimensions(
    tmp_path: Path, dtype: Literal["float32", "float16"]
) -> None:
    streamlines = random_streamlines(200)
    write_trx(tmp_path / "a.trx", stored(tmp_path / "s", streamlines), oblique_las_grid(), dtype)
    read, affine, dimensions = read_with_trx_python(tmp_path / "a.trx")
    assert len(read) == 200
    for one, other in zip(streamlines, read, strict=True):
        assert other.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(other, one.astype(np.float32).astype(dtype))
    assert dimensions == [9, 11, 7]
    np.testing.assert_allclose(affine, oblique_las_grid().stored_affine, rtol=1e-6)


def test_float16_positions_err_by_less_than_the_documented_sixteenth_of_a_mm(
    tmp_path: Path,
) -> None:
    points = np.random.default_rng(0).uniform(-255, 255, (5000, 3))
    write_trx(tmp_path / "a.trx", stored(tmp_path / "s", [points]), oblique_las_grid(), "float16")
    (read,), _, _ = read_with_trx_python(tmp_path / "a.trx")
    apart = np.abs(read.astype(float) - points)
    assert 0.05 < apart.max() < 0.0626
    assert apart[np.abs(points) < 128].max() < 0.0313


@pytest.mark.parametrize("dtype", DTYPES)
def test_trx_bytes_depend_on_neither_batches_nor_folder_nor_time(
    tmp_path: Path, dtype: Literal["float32", "float16"], monkeypatch: pytest.MonkeyPatch
) -> None:
    streamlines = random_streamlines(100)
    seen = set()
    for size, piece in [(100, 1 << 22), (100, 600), (1, 24), (13, 48)]:
        monkeypatch.setattr("bids_tractography.tractogram.base._READ_BYTES", piece)
        monkeypatch.setattr("bids_tractography.tractogram.base.PIECE_STREAMLINES", piece)
        monkeypatch.setattr("time.localtime", lambda *_, s=size: (2000 + s, 1, 2, 3, 4, 5, 0, 0, 0))
        store = stored(tmp_path / f"{size}-{piece}", streamlines, size)
        write_trx(tmp_path / "a.trx", store, oblique_las_grid(), dtype)
        seen.add((tmp_path / "a.trx").read_bytes())
    assert len(seen) == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_members_of_the_zip_are_stored_and_can_be_mapped_into_memory(
    tmp_path: Path, dtype: Literal["float32", "float16"]
) -> None:
    streamlines = random_streamlines(50)
    path = tmp_path / "a.trx"
    write_trx(path, stored(tmp_path / "s", streamlines), oblique_las_grid(), dtype)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["header.json", f"positions.3.{dtype}", "offsets.uint64"]
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        info = archive.getinfo("offsets.uint64")
        header = json.loads(archive.read("header.json"))
    name_bytes, extra_bytes = struct.unpack("<HH", content[info.header_offset + 26 :][:4])
    start = info.header_offset + 30 + name_bytes + extra_bytes
    offsets = np.frombuffer(content[start : start + info.file_size], "<u8")
    assert offsets.tolist() == [0, *itertools.accumulate(map(len, streamlines))]
    assert header["NB_STREAMLINES"] == 50 == len(offsets) - 1
    assert header["NB_VERTICES"] == sum(map(len, streamlines)) == offsets[-1]


@pytest.mark.parametrize("dtype", DTYPES)
def test_content_hash_is_that_of_the_streamlines_in_the_file(
    tmp_path: Path, dtype: Literal["float32", "float16"]
) -> None:
    store = stored(tmp_path / "s", random_streamlines(300), 37)
    write_trx(tmp_path / "a.trx", store, oblique_las_grid(), dtype)
    read, _, _ = read_with_trx_python(tmp_path / "a.trx")
    positions = np.concatenate(read).astype("<f4").tobytes()
    offsets = np.array([0, *itertools.accumulate(map(len, read))], "<u8").tobytes()
    assert content_hash(store, dtype) == hashlib.sha256(positions + offsets).hexdigest()


def test_content_hash_tells_streamlines_from_the_same_points_cut_otherwise(tmp_path: Path) -> None:
    points = np.arange(30.0).reshape(10, 3)
    one = stored(tmp_path / "one", [points[:4], points[4:]])
    other = stored(tmp_path / "other", [points[:5], points[5:]])
    assert content_hash(one, "float32") != content_hash(other, "float32")


@pytest.mark.parametrize(
    ("points", "median", "largest"),
    [([5], 2.0, 2.0), ([1, 3, 5], 1.0, 2.0), ([9, 2, 2, 2], 0.5, 4.0), ([1], 0.0, 0.0)],
)
def test_length_quantiles_of_a_few_streamlines_are_these(
    tmp_path: Path, points: list[int], median: float, largest: float
) -> None:
    store = stored(tmp_path / "s", [np.zeros((n, 3)) for n in points])
    quantiles = length_quantiles_mm(store, 0.5)
    assert (quantiles["0.5"], quantiles["1"]) == (median, largest)


@settings(max_examples=60, deadline=None)
@given(points=st.lists(st.integers(1, 40), min_size=1, max_size=80), step=st.floats(0.1, 2))
def test_length_quantiles_are_those_of_numpy_by_the_nearest_streamline(
    tmp_path_factory: pytest.TempPathFactory, points: list[int], step: float
) -> None:
    store = stored(tmp_path_factory.mktemp("s") / "s", [np.zeros((n, 3)) for n in points])
    quantiles = length_quantiles_mm(store, step)
    lengths = (np.array(points) - 1) * step
    shares = [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1]
    expected = np.quantile(lengths, shares, method="nearest")
    np.testing.assert_allclose(list(quantiles.values()), expected, atol=1e-6)
    assert [float(key) for key in quantiles] == shares


def test_length_quantiles_are_the_lengths_along_the_points(tmp_path: Path) -> None:
    line = np.linspace([0, 0, 0], [12, 16, 0], 41)  # 20 mm in steps of 0.5 mm
    quantiles = length_quantiles_mm(stored(tmp_path / "s", [line]), 0.5)
    assert set(quantiles.values()) == {20.0}


def naive_density(streamlines: list[Any], grid: Grid) -> Any:
    """Count visits in the order of the file, by the stored affine alone."""
    counts = np.zeros(grid.stored_shape, int)
    to_voxels = np.linalg.inv(grid.stored_affine)
    for line in streamlines:
        visited = set()
        for point in line.astype(np.float32):
            voxel = to_voxels[:3, :3] @ point + to_voxels[:3, 3]
            index = tuple(int(np.floor(v + 0.5)) for v in voxel)
            if all(0 <= i < n for i, n in zip(index, grid.stored_shape, strict=True)):
                visited.add(index)
        for index in visited:
            counts[index] += 1
    return counts


@pytest.mark.parametrize("size", [300, 29])
def test_density_is_that_of_a_naive_loop_on_an_anisotropic_oblique_las_grid(
    tmp_path: Path, size: int
) -> None:
    grid, streamlines = oblique_las_grid(), random_streamlines(300)
    expected = naive_density(streamlines, grid)
    result = density(stored(tmp_path / "s", streamlines, size), grid)
    np.testing.assert_array_equal(grid.to_stored(result), expected)
    assert 0 < (expected > 1).sum() < expected.size
    assert any((np.abs(line) > 25).any() for line in streamlines)  # some leave the image


def test_density_of_more_streamlines_than_a_piece_holds_is_right_at_the_seams(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(8)
    grid = Grid((4, 3, 2), np.eye(4))
    streamlines = list(rng.uniform(-1, 4, (9000, 2, 3)))
    result = density(stored(tmp_path / "s", streamlines, 2500), grid)
    np.testing.assert_array_equal(result, naive_density(streamlines, grid))


def test_a_streamline_counts_once_in_a_voxel_that_it_visits_twice(tmp_path: Path) -> None:
    there_and_back = np.array([[0.1, 0, 0], [0.2, 0, 0], [1, 0, 0], [0, 0, 0]])
    result = density(stored(tmp_path / "s", [there_and_back] * 3), Grid((2, 2, 2), np.eye(4)))
    assert result[:, 0, 0].tolist() == [3, 3]
    assert result.sum() == 6


def test_streamlines_outside_the_image_count_nowhere(tmp_path: Path) -> None:
    outside = np.array([[-0.6, 0, 0], [2.6, 0, 0], [0, 0, 1e6]])
    result = density(stored(tmp_path / "s", [outside]), Grid((3, 3, 3), np.eye(4)))
    assert result.sum() == 0

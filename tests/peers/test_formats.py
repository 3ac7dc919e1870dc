"""The three formats against nibabel, trx-python and MRtrix3, on grids that are not simple."""

from __future__ import annotations

import hashlib
import itertools
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError
from tractograms import (
    WITHIN_MM,
    Endless,
    assert_same,
    oblique_las_grid,
    random_streamlines,
    read,
    stored,
)
from trx.trx_file_memmap import load as load_trx

from bids_tractography.config.tracking import OutputConfig
from bids_tractography.core.images import Grid
from bids_tractography.core.streamlines import Stop
from bids_tractography.tractogram.base import blocks
from bids_tractography.tractogram.formats.table import (
    READERS,
    WRITERS,
    extension_of,
    payload,
    writers,
)
from bids_tractography.tractogram.summary import ContentHash, content_hash

FORMATS = tuple(WRITERS)

needs_mrtrix = pytest.mark.skipif(shutil.which("tckinfo") is None, reason="MRtrix3 is not here")


def far_psr_grid() -> Grid:
    """Axes in another order, anisotropic, turned a little, far from the origin."""
    affine = np.eye(4)
    affine[:3, :3] = [[0.1, -0.05, 1.4], [-2.2, 0.1, 0.1], [0.12, -3.1, 0.05]]
    affine[:3, 3] = [-110.0, 140.0, 95.0]
    return Grid((110, 60, 140), affine)


GRIDS: dict[str, Callable[[], Grid]] = {
    "oblique LAS": oblique_las_grid,
    "PIR, far away": far_psr_grid,
    "RAS": lambda: Grid((5, 6, 7), np.diag([2.0, 2.0, 2.0, 1.0])),
}


def in_image(grid: Grid, n: int = 60) -> list[Any]:
    rng = np.random.default_rng(6)
    return [
        grid.to_mm(rng.uniform(-0.5, np.array(grid.shape) - 0.5, (length, 3)))
        for length in rng.integers(1, 20, n)
    ]


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_points_in_mm_back(
    tmp_path: Path, name: str, grid: Callable[[], Grid]
) -> None:
    streamlines, path = in_image(grid()), tmp_path / f"a.{name}"
    WRITERS[name](path, stored(tmp_path / "s", streamlines, 17), grid())
    assert_same(read(path), streamlines, WITHIN_MM[name])


ALONE = {
    "trx": OutputConfig(per_streamline=("seed", "ends")),
    "trx, float16": OutputConfig(dtype="float16", per_streamline=("ends",)),
    "tck": OutputConfig(formats=("tck",)),
    "trk": OutputConfig(formats=("trk",)),
}


@pytest.mark.parametrize("piece", [4096, 7], ids="pieces of {}".format)
@pytest.mark.parametrize("limit", [zipfile.ZIP64_LIMIT, 3000], ids=["32 bits", "64 bits"])
@pytest.mark.parametrize("output", ALONE.values(), ids=ALONE)
def test_a_file_that_points_are_moved_into_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: OutputConfig, limit: int, piece: int
) -> None:
    monkeypatch.setattr("zipfile.ZIP64_LIMIT", limit)
    monkeypatch.setattr("bids_tractography.tractogram.base.PIECE_STREAMLINES", piece)
    monkeypatch.setattr("bids_tractography.tractogram.store._MOVE_POINTS", 50)
    grid = oblique_las_grid()
    store = stored(tmp_path / "s", in_image(grid), 17)
    values = [store.per_streamline(name) for name in output.per_streamline]
    (write,) = writers(output, values).values()
    write(tmp_path / "a", store, grid)
    expected, hashed = (tmp_path / "a").read_bytes(), content_hash(store, output.dtype)
    content = ContentHash(output.dtype)
    into = payload(output, store, grid, values)
    assert into is not None
    assert store.move_points(tmp_path / "b", into, content.add).read_bytes() == expected
    assert content.finish(store.lengths()) == hashed


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("extension", READERS)
def test_our_readers_give_the_points_of_every_format_back_packed_or_not(
    tmp_path: Path, extension: str, grid: Callable[[], Grid]
) -> None:
    streamlines, name = in_image(grid()), extension.split(".")[1]
    path = tmp_path / f"a.{name}"
    WRITERS[name](path, stored(tmp_path / "s", streamlines, 17), grid())
    if extension.endswith(".gz"):
        subprocess.run(["gzip", path], check=True)
    reader = READERS[extension](tmp_path / f"a{extension}")
    points, lengths = (np.concatenate(part) for part in zip(*reader.streamlines(), strict=True))
    assert lengths.tolist() == [len(line) for line in streamlines]
    assert_same(np.split(points, np.cumsum(lengths)[:-1]), streamlines, WITHIN_MM[name])
    if name != "tck":
        assert reader.grid is not None
        assert reader.grid.matches(grid())


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("lengths", [[1], [2], [1, 1], [3, 1, 4]], ids=str)
def test_few_streamlines_of_few_points_survive(
    tmp_path: Path, name: str, lengths: list[int]
) -> None:
    streamlines = [np.arange(3.0 * n).reshape(n, 3) for n in lengths]
    path = tmp_path / f"a.{name}"
    WRITERS[name](path, stored(tmp_path / "s", streamlines), oblique_las_grid())
    assert_same(read(path), streamlines, WITHIN_MM[name])


@pytest.mark.parametrize("name", FORMATS)
def test_bytes_depend_on_neither_batches_nor_pieces_nor_folder_nor_time(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamlines, seen = random_streamlines(100), set()
    for size, piece in [(100, 4096), (1, 7), (13, 1)]:
        monkeypatch.setattr("bids_tractography.tractogram.base.PIECE_STREAMLINES", piece)
        monkeypatch.setattr("time.time", lambda s=size: 1e9 + s)
        store = stored(tmp_path / str(size), streamlines, size)
        path = tmp_path / f"{size}.{name}"
        WRITERS[name](path, store, oblique_las_grid())
        seen.add(path.read_bytes())
    assert len(seen) == 1


@pytest.mark.parametrize("name", FORMATS)
def test_memory_is_that_of_a_piece_whatever_the_size_of_the_file(tmp_path: Path, name: str) -> None:
    import tracemalloc

    peaks = []
    for n_pieces in (5, 100):
        tracemalloc.start()
        WRITERS[name](tmp_path / f"a.{name}", Endless(n_pieces), oblique_las_grid())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (tmp_path / f"a.{name}").stat().st_size > 100 * 5000 * 12
    assert peaks[1] < 1.2 * peaks[0] < 2**20


def test_the_header_of_a_trk_is_that_of_the_stored_grid(tmp_path: Path) -> None:
    grid, path = oblique_las_grid(), tmp_path / "a.trk"
    WRITERS["trk"](path, stored(tmp_path / "s", random_streamlines(7)), grid)
    header = nib.streamlines.load(path, lazy_load=True).header
    assert header["version"] == 2
    assert header["nb_streamlines"] == 7
    assert header["voxel_order"] == b"LAS"
    assert header["dimensions"].tolist() == [9, 11, 7]
    np.testing.assert_allclose(header["voxel_sizes"], [2, 3, 4], rtol=1e-6)
    np.testing.assert_allclose(header["voxel_to_rasmm"], grid.stored_affine, rtol=1e-6)


def test_points_of_a_trk_are_voxel_mm_from_the_corner_of_the_first_stored_voxel(
    tmp_path: Path,
) -> None:
    grid, path = oblique_las_grid(), tmp_path / "a.trk"
    centre = grid.stored_affine @ [3, 5, 1, 1]
    WRITERS["trk"](path, stored(tmp_path / "s", [centre[None, :3]]), grid)
    record = path.read_bytes()[1000:]
    assert np.frombuffer(record[:4], "<i4").tolist() == [1]
    voxel_mm = np.frombuffer(record[4:], "<f4")
    np.testing.assert_allclose(voxel_mm, [3.5 * 2, 5.5 * 3, 1.5 * 4], atol=1e-5)


@needs_mrtrix
def test_mrtrix_counts_and_reads_our_tck(tmp_path: Path) -> None:
    streamlines, path = random_streamlines(200), tmp_path / "a.tck"
    WRITERS["tck"](path, stored(tmp_path / "s", streamlines, 33), oblique_las_grid())
    command: list[str | Path] = ["tckinfo", "-count", path]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.search(r"\bcount: +0*200\n", said)
    assert re.search(r"total_count: +0*200\n", said)
    assert re.search(r"actual count in file: 200\n", said)
    back = subprocess.run(
        ["tckconvert", "-quiet", path, tmp_path / "[].txt"], capture_output=True, check=True
    )
    assert back.returncode == 0
    theirs = [np.loadtxt(file, ndmin=2) for file in sorted(tmp_path.glob("*.txt"))]
    assert len(theirs) == 200
    assert [len(line) for line in theirs] == [len(line) for line in streamlines]
    apart = np.abs(np.concatenate(theirs) - np.concatenate(streamlines))
    assert apart.max() < 1e-4  # it writes text


def with_values(folder: Path, path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Write a TRX file with values of each streamline; return what they were."""
    ends = np.random.default_rng(2).integers(0, len(Stop), (40, 2)).astype(np.uint8)
    store = stored(folder, random_streamlines(40), ends=ends)
    values = [store.per_streamline("seed"), store.per_streamline("ends")]
    write = writers(OutputConfig(per_streamline=("seed", "ends")), values)["trx"]
    write(path, store, oblique_las_grid())
    return np.arange(40), ends


def test_values_of_each_streamline_are_read_by_trx_python(tmp_path: Path) -> None:
    seeds, ends = with_values(tmp_path / "s", tmp_path / "a.trx")
    trx = load_trx(str(tmp_path / "a.trx"))
    try:
        values = {name: np.array(data) for name, data in trx.data_per_streamline.items()}
        assert len(trx.streamlines) == 40
    finally:
        trx.close()
    assert {name: data.dtype.name for name, data in values.items()} == {
        "seed_index": "int64",
        "ends": "uint8",
    }
    assert values["seed_index"].ravel().tolist() == seeds.tolist()
    assert values["ends"].tolist() == ends.tolist()


def test_values_of_each_streamline_are_no_part_of_the_content(tmp_path: Path) -> None:
    with_values(tmp_path / "s", tmp_path / "a.trx")
    lines = read(tmp_path / "a.trx")
    content = np.concatenate(lines).astype("<f4").tobytes()
    offsets = np.array([0, *itertools.accumulate(map(len, lines))], "<u8").tobytes()
    store = stored(tmp_path / "other", random_streamlines(40))
    assert content_hash(store) == hashlib.sha256(content + offsets).hexdigest()


def test_writers_are_those_of_the_formats_asked_for(tmp_path: Path) -> None:
    assert list(writers(OutputConfig(formats=("trk", "trx")))) == ["trk", "trx"]
    store = stored(tmp_path / "s", random_streamlines(3))
    writers(OutputConfig(dtype="float16"))["trx"](tmp_path / "a.trx", store, oblique_las_grid())
    assert {line.dtype.name for line in read(tmp_path / "a.trx")} == {"float16"}


def test_there_is_a_writer_for_every_format_of_the_configuration() -> None:
    formats = get_args(get_args(OutputConfig.model_fields["formats"].annotation)[0])
    assert set(WRITERS) == set(formats)


@pytest.mark.parametrize(
    "fault",
    [
        {"formats": ("tck", "trk"), "per_streamline": ("seed",)},
        {"per_streamline": ("seed", "seed")},
        {"per_streamline": ("colour",)},
    ],
    ids=str,
)
def test_values_that_no_file_would_hold_are_faults(fault: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OutputConfig(**fault)


@pytest.mark.parametrize(
    ("name", "extension"),
    [("a.trx", ".trx"), ("x.y.tck.gz", ".tck.gz"), ("a.trk", ".trk"), ("a.trk.gz", ".trk.gz"),
     ("a.tck", ".tck"), ("a.trx.gz", None), ("a.vtk", None), ("trx", None)],
)  # fmt: skip
def test_extensions_are_read_from_the_whole_name(name: str, extension: str | None) -> None:
    assert extension_of(Path("/b") / name) == extension


def test_blocks_hold_whole_streamlines_and_all_of_them() -> None:
    lengths = np.array([5, 1, 0, 9, 30, 2, 2, 0], np.uint32)
    cut = list(blocks(lengths, 10))
    assert [lengths[some].tolist() for some, _ in cut] == [[5, 1, 0], [9], [30], [2, 2, 0]]
    assert [(where.start, where.stop) for _, where in cut] == [(0, 6), (6, 15), (15, 45), (45, 49)]

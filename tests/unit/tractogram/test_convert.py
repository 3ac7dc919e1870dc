"""Conversion between file formats."""

from __future__ import annotations

import itertools
import logging
import tracemalloc
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
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

from bids_tractography.cli.main import main
from bids_tractography.core.images import Grid, write_image
from bids_tractography.errors import DataError, GridError, OutputError, UsageError
from bids_tractography.tractogram.base import StreamlineValues
from bids_tractography.tractogram.convert import convert
from bids_tractography.tractogram.formats.table import WRITERS
from bids_tractography.tractogram.formats.trk import TrkReader, write_trk
from bids_tractography.tractogram.formats.trx import write_trx

FORMATS = tuple(WRITERS)


def lines_inside(count: int = 300) -> list[Any]:
    rng, grid = np.random.default_rng(6), oblique_las_grid()
    return [
        grid.to_mm(rng.uniform(-0.5, np.array(grid.shape) - 0.5, (length, 3)))
        for length in rng.integers(1, 30, count)
    ]


def made(folder: Path, name: str, streamlines: list[Any] | None = None) -> Path:
    path = folder / f"in.{name}"
    lines = lines_inside() if streamlines is None else streamlines
    store = stored(folder / "store", lines, 70)
    WRITERS[name](path, store, oblique_las_grid())
    store.discard()
    return path


def reference_for(source: str, target: str) -> Grid | None:
    """A grid where one is needed."""
    return oblique_las_grid() if (source, target != "tck") == ("tck", True) else None


@pytest.mark.parametrize(("source", "target"), [*itertools.product(FORMATS, FORMATS)])
def test_points_survive_every_conversion(tmp_path: Path, source: str, target: str) -> None:
    streamlines = lines_inside()
    path, out = made(tmp_path, source, streamlines), tmp_path / "new" / f"out.{target}"
    converted = convert(path, out, reference=reference_for(source, target))
    assert converted.n_streamlines == len(streamlines)
    assert_same(read(out), streamlines, WITHIN_MM[source] + WITHIN_MM[target])
    assert [out] == list(out.parent.iterdir())


@pytest.mark.parametrize(("source", "target"), [*itertools.permutations(("trx", "tck"))])
def test_trx_and_tck_are_the_same_bytes_as_if_written_at_once(
    tmp_path: Path, source: str, target: str
) -> None:
    path, out = made(tmp_path, source), tmp_path / f"out.{target}"
    convert(path, out, reference=reference_for(source, target))
    assert out.read_bytes() == made(tmp_path, target).read_bytes()


def test_trx_to_trk_is_the_same_bytes_as_if_written_at_once(tmp_path: Path) -> None:
    convert(made(tmp_path, "trx"), tmp_path / "out.trk")
    assert (tmp_path / "out.trk").read_bytes() == made(tmp_path, "trk").read_bytes()


def test_float16_stays_float16_in_trx_and_is_exact_in_tck(tmp_path: Path) -> None:
    store = stored(tmp_path / "store", random_streamlines(50))
    write_trx(tmp_path / "half.trx", store, oblique_las_grid(), "float16")
    convert(tmp_path / "half.trx", tmp_path / "again.trx")
    assert (tmp_path / "again.trx").read_bytes() == (tmp_path / "half.trx").read_bytes()
    convert(tmp_path / "half.trx", tmp_path / "out.tck")
    halves = [np.asarray(line, np.float32) for line in read(tmp_path / "half.trx")]
    assert_same(read(tmp_path / "out.tck"), halves, 0)


# Values of each streamline


def values(name: str, array: NDArray[Any]) -> StreamlineValues:
    columns = 1 if array.ndim == 1 else array.shape[1]
    return StreamlineValues(name, array.dtype, columns, lambda: iter(np.array_split(array, 3)))


def with_values(path: Path, **arrays: NDArray[Any]) -> None:
    write = write_trx if path.suffix == ".trx" else write_trk
    store = stored(path.parent / "store", random_streamlines(100), 30)
    some = [values(name, array) for name, array in arrays.items()]
    write(path, store, oblique_las_grid(), per_streamline=some)


def test_values_of_streamlines_go_from_trx_to_trk_and_back(tmp_path: Path) -> None:
    ends = np.arange(200, dtype=np.uint8).reshape(100, 2)
    weights = np.linspace(0, 1, 100, dtype=np.float32)
    with_values(tmp_path / "a.trx", ends=ends, weights=weights)
    convert(tmp_path / "a.trx", tmp_path / "b.trk")
    held = nib.streamlines.load(tmp_path / "b.trk").tractogram.data_per_streamline
    assert np.array_equal(held["ends"], ends)
    assert np.array_equal(held["weights"][:, 0], weights)
    assert_same(read(tmp_path / "b.trk"), read(tmp_path / "a.trx"), WITHIN_MM["trk"])
    convert(tmp_path / "b.trk", tmp_path / "c.trx")
    trx = load_trx(str(tmp_path / "c.trx"))
    assert np.array_equal(trx.data_per_streamline["ends"], ends)
    assert np.array_equal(trx.data_per_streamline["weights"][:, 0], weights)
    trx.close()


def test_values_of_a_trk_by_nibabel_are_read(tmp_path: Path) -> None:
    lines = [np.asarray(line, np.float32) for line in random_streamlines(40)]
    table = np.random.default_rng(0).random((40, 3)).astype(np.float32)
    per_point = {"fa": [np.ones((len(line), 1), np.float32) for line in lines]}
    tractogram = nib.streamlines.Tractogram(
        lines, {"rgb": table, "weight": table[:, 0]}, per_point, affine_to_rasmm=np.eye(4)
    )
    nib.streamlines.save(tractogram, str(tmp_path / "a.trk"))
    reader = TrkReader(tmp_path / "a.trk")
    read_back = {some.name: np.concatenate(list(some.read())) for some in reader.per_streamline()}
    assert np.array_equal(read_back["rgb"], table)
    assert np.array_equal(read_back["weight"][:, 0], table[:, 0])
    assert reader.others == ("1 scalar(s) of each point",)


def test_what_is_lost_or_rounded_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seeds = np.arange(2**24, 2**24 + 100, dtype=np.int64)
    with_values(tmp_path / "a.trx", seed_index=seeds, a_name_beyond_sixteen=seeds.astype("u1"))
    with caplog.at_level(logging.WARNING):
        convert(tmp_path / "a.trx", tmp_path / "b.trk")
    assert "a_name_beyond_sixteen" in caplog.text
    assert "Values seed_index are rounded" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        convert(tmp_path / "a.trx", tmp_path / "b.tck")
    assert "tck cannot hold them: values of each streamline (seed_index)" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        convert(tmp_path / "a.trx", tmp_path / "b.trx")
    assert not caplog.text
    assert (tmp_path / "b.trx").read_bytes() == (tmp_path / "a.trx").read_bytes()


# Faults


def test_an_existing_file_is_kept_unless_it_may_be_replaced(tmp_path: Path) -> None:
    path, out = made(tmp_path, "trx"), tmp_path / "out.tck"
    out.write_text("precious")
    with pytest.raises(OutputError, match="exists already"):
        convert(path, out)
    assert out.read_text() == "precious"
    convert(path, out, overwrite=True)
    assert len(read(out)) == 300


def test_a_tractogram_is_not_converted_onto_itself(tmp_path: Path) -> None:
    path = made(tmp_path, "trx")
    (tmp_path / "link.trx").symlink_to(path)
    with pytest.raises(OutputError, match="itself"):
        convert(path, tmp_path / "link.trx", overwrite=True)


def test_a_damaged_file_leaves_nothing_behind(tmp_path: Path) -> None:
    path = made(tmp_path, "tck")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="cannot be read"):
        convert(path, tmp_path / "new" / "out.trx", reference=oblique_las_grid())
    assert not (tmp_path / "new").exists()


def test_points_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = made(tmp_path, "trx", [np.array([[0, 0, 0], [np.nan] * 3, [1, 1, 1]])])
    with pytest.raises(DataError, match="NaN"):
        convert(path, tmp_path / "out.tck")


def test_a_grid_is_needed_where_the_source_has_none_and_nowhere_else(tmp_path: Path) -> None:
    grid = oblique_las_grid()
    tck, trx = made(tmp_path, "tck"), made(tmp_path, "trx")
    for target in ("out.trx", "out.trk"):
        with pytest.raises(UsageError, match="--reference"):
            convert(tck, tmp_path / target)
        with pytest.raises(UsageError, match="grid of its own"):
            convert(trx, tmp_path / target, reference=grid)
    with pytest.raises(UsageError, match="no effect"):
        convert(trx, tmp_path / "out.tck", reference=grid)
    far = Grid(grid.stored_shape, np.eye(4) + 500 * np.eye(4, k=3))
    with pytest.raises(GridError, match="only 0 of its"):
        convert(tck, tmp_path / "out.trk", reference=far)


@pytest.mark.parametrize("name", ["out", "out.nii.gz", "out.vtk", "out.tck.gz"])
def test_other_formats_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="not a tractogram by its name"):
        convert(made(tmp_path, "trx"), tmp_path / name)


# Memory


@pytest.mark.parametrize(("source", "target"), [*itertools.permutations(FORMATS, 2)])
def test_memory_is_that_of_a_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, target: str
) -> None:
    for name in ("trk.PIECE_POINTS", "trx.PIECE_POINTS", "tck._READ_ROWS"):
        monkeypatch.setattr(f"bids_tractography.tractogram.formats.{name}", 1 << 14)
    peaks = []
    for n_pieces in (15, 60):
        WRITERS[source](tmp_path / f"in.{source}", Endless(n_pieces), oblique_las_grid())
        tracemalloc.start()
        convert(
            tmp_path / f"in.{source}",
            tmp_path / f"out.{target}",
            reference=reference_for(source, target),
            overwrite=True,
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] < (tmp_path / f"out.{target}").stat().st_size


# The command


def test_the_command_converts_and_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = oblique_las_grid()
    path, image = made(tmp_path, "tck"), tmp_path / "density.nii.gz"
    write_image(image, np.zeros(grid.shape, np.uint8), grid)
    out = tmp_path / "out.trx"
    assert main(["convert", str(path), str(out), "--reference", str(image)]) == 0
    assert capsys.readouterr().out == f"{out}: 300 streamlines\n"
    assert_same(read(out), lines_inside(), 0)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("none.trx", "out.tck"), 66),
        (("in.trx", "out.xyz"), 64),
        (("in.trx", "in.trx"), 73),
        (("in.trx", "out.tck", "--reference", "none.nii.gz"), 66),
        (("in.nii", "out.tck"), 65),
    ],
)
def test_faults_have_the_exit_codes_of_their_kinds(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    code: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    made(tmp_path, "trx")
    assert main(["convert", *words]) == code
    assert capsys.readouterr().err
    assert not Path("out.tck").exists()

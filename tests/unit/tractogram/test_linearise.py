"""Linearised streamlines against straight lines, arcs, and a naive loop."""

from __future__ import annotations

import itertools
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tractograms import WITHIN_MM, Endless, assert_same, oblique_las_grid, read, stored

from bids_tractography.errors import OutputError
from bids_tractography.tractogram.formats.table import WRITERS
from bids_tractography.tractogram.linearise import Linearised, kept_points, linearise
from bids_tractography.tractogram.store import BatchStore
from bids_tractography.tractogram.summary import content_hash


def kept(line: Any, max_error_mm: float) -> list[int]:
    """Return the indices of the points of one streamline that are kept."""
    points = np.asarray(line, np.float32)
    chosen, _ = kept_points(points, np.array([len(points)], np.uint32), max_error_mm)
    return np.flatnonzero(chosen).tolist()


def distance_to_segment(point: Any, a: Any, b: Any) -> float:
    along = b - a
    square = along @ along
    share = 0.0 if square == 0 else min(max((point - a) @ along / square, 0.0), 1.0)
    return float(np.linalg.norm(point - (a + share * along)))


def naive(line: NDArray[np.float64], max_error_mm: float) -> list[int]:
    """Split at the furthest point, and each half again."""

    def split(first: int, last: int) -> list[int]:
        inner = range(first + 1, last)
        far = [distance_to_segment(line[i], line[first], line[last]) for i in inner]
        if not far or max(far) <= max_error_mm:
            return []
        middle = first + 1 + int(np.argmax(far))
        return [*split(first, middle), middle, *split(middle, last)]

    return sorted({0, *split(0, len(line) - 1), len(line) - 1})


def walks(count: int, turn: float, longest: int = 80) -> list[NDArray[np.float64]]:
    """Streamlines of 0.5 mm steps that turn a little at each."""
    rng = np.random.default_rng(5)
    lines = []
    for n in rng.integers(1, longest, count):
        directions = rng.normal(size=3) + np.cumsum(rng.normal(0, turn, (n, 3)), axis=0)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        lines.append(rng.uniform(-60, 60, 3) + np.cumsum(0.5 * directions, axis=0))
    return [line.astype(np.float32).astype(np.float64) for line in lines]


def linearised(
    folder: Path, lines: list[Any], max_error_mm: float, size: int = 10**6
) -> Linearised:
    return linearise(stored(folder, lines, size), max_error_mm, folder)


def lines_of(tractogram: Linearised) -> list[Any]:
    return [
        line
        for points, lengths in tractogram.streamlines()
        for line in np.split(points, np.cumsum(lengths)[:-1])
    ]


@pytest.mark.parametrize("n", [2, 3, 100])
def test_a_straight_line_keeps_its_ends(n: int) -> None:
    assert kept(np.linspace([0, 0, 0], [8, -4, 2], n), 1e-3) == [0, n - 1]


def test_a_single_point_and_two_points_stay() -> None:
    assert kept([[1, 2, 3]], 1) == [0]
    assert kept([[1, 2, 3], [1, 2, 3]], 1) == [0, 1]


def test_a_corner_stays_where_it_is() -> None:
    there = np.linspace([0, 0, 0], [10, 0, 0], 21)
    on = np.linspace([10, 0, 0], [10, 5, 0], 11)[1:]
    assert kept([*there, *on], 0.1) == [0, 20, 30]


def test_a_closed_loop_is_measured_from_where_it_closes() -> None:
    angle = np.linspace(0, 2 * np.pi, 101)
    ring = np.stack([10 * np.cos(angle), 10 * np.sin(angle), 0 * angle], axis=1)
    ring[-1] = ring[0]
    chosen = kept(ring, 0.5)
    assert 50 in chosen
    assert {0, 100} < set(chosen)
    assert len(chosen) >= 10


def test_a_point_beyond_the_end_is_as_far_as_the_end() -> None:
    # On the line through both ends, and 3 mm past one of them.
    assert kept([[0, 0, 0], [13, 0, 0], [10, 0, 0]], 2.9) == [0, 1, 2]
    assert kept([[0, 0, 0], [13, 0, 0], [10, 0, 0]], 3.1) == [0, 2]


@pytest.mark.parametrize("max_error_mm", [0.01, 0.1, 1])
def test_an_arc_is_cut_into_about_as_many_pieces_as_its_sagitta_asks_for(
    max_error_mm: float,
) -> None:
    radius, angle = 40.0, np.linspace(0, np.pi / 2, 2000)
    arc = radius * np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    # A chord over the angle w is radius (1 - cos(w / 2)) from its arc.
    widest = 2 * np.arccos(1 - max_error_mm / radius)
    fewest = int(np.ceil(np.pi / 2 / widest))
    assert fewest <= len(kept(arc, max_error_mm)) - 1 <= 2 * fewest


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(
        st.lists(st.tuples(*[st.integers(-9, 9)] * 3), min_size=1, max_size=20), max_size=6
    ),
    max_error_mm=st.floats(0.05, 8),
)
def test_every_dropped_point_is_as_near_to_what_is_left_as_said(
    lines: list[Any], max_error_mm: float
) -> None:
    lengths = np.array([len(line) for line in lines], np.uint32)
    points = np.array([point for line in lines for point in line], np.float32).reshape(-1, 3)
    chosen, error_mm = kept_points(points, lengths, max_error_mm)
    begins = np.cumsum(lengths) - lengths
    for begin, line in zip(begins, lines, strict=True):
        whole = np.array(line, float)
        here = np.flatnonzero(chosen[begin : begin + len(line)])
        errors = error_mm[begin : begin + len(line)]
        assert {0, len(line) - 1} <= set(here)
        assert (errors <= max_error_mm + 1e-12).all()
        for a, b in itertools.pairwise(here):
            for i in range(a + 1, b):
                far = distance_to_segment(whole[i], whole[a], whole[b])
                assert errors[i] == pytest.approx(far, abs=1e-9)


@pytest.mark.parametrize("turn", [0.03, 0.2])
@pytest.mark.parametrize("max_error_mm", [0.05, 0.3])
def test_walks_are_linearised_as_by_the_naive_loop(
    tmp_path: Path, turn: float, max_error_mm: float
) -> None:
    lines = walks(120, turn)
    result = linearised(tmp_path / "s", lines, max_error_mm)
    expected = [naive(line, max_error_mm) for line in lines]
    for line, points, indices in zip(lines, lines_of(result), expected, strict=True):
        np.testing.assert_array_equal(points, line[indices])
    errors = [
        distance_to_segment(line[i], line[a], line[b])
        for line, indices in zip(lines, expected, strict=True)
        for a, b in itertools.pairwise(indices)
        for i in range(a + 1, b)
    ]
    assert result.n_streamlines == 120
    assert result.n_points == sum(map(len, expected))
    assert result.n_points_before == sum(map(len, lines))
    assert result.share_kept == result.n_points / result.n_points_before < 0.8
    assert result.max_error_mm <= max_error_mm + 1e-12
    assert result.max_error_mm == pytest.approx(max(errors), abs=1e-9)
    assert result.mean_error_mm == pytest.approx(np.mean(errors), abs=1e-9)


def test_nothing_dropped_has_no_error(tmp_path: Path) -> None:
    result = linearised(tmp_path / "s", [np.eye(3) * 9, np.ones((1, 3))], 0.1)
    assert (result.share_kept, result.max_error_mm, result.mean_error_mm) == (1, 0, 0)


def test_the_outcome_depends_on_neither_batches_nor_pieces_nor_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines, seen = walks(60, 0.1), set()
    for size, piece, block in [(60, 4096, 16384), (7, 1, 100), (13, 9, 1)]:
        monkeypatch.setattr("bids_tractography.tractogram.base.PIECE_STREAMLINES", piece)
        monkeypatch.setattr("bids_tractography.tractogram.linearise._BLOCK_POINTS", block)
        result = linearised(tmp_path / str(size), lines, 0.1, size)
        seen.add((content_hash(result), result.max_error_mm, round(result.mean_error_mm, 12)))
    assert len(seen) == 1


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_is_written_of_linearised_streamlines(tmp_path: Path, name: str) -> None:
    result = linearised(tmp_path / "s", walks(30, 0.1), 0.1)
    WRITERS[name](tmp_path / f"a.{name}", result, oblique_las_grid())
    assert_same(read(tmp_path / f"a.{name}"), lines_of(result), WITHIN_MM[name])


def test_the_files_go_with_those_of_the_store_and_replace_older_ones(tmp_path: Path) -> None:
    lines = walks(30, 0.1)
    linearised(tmp_path / "s", lines, 0.001)
    store = BatchStore.open(tmp_path / "s", {"inputs": "a"}, 1)
    result = linearise(store, 0.3, tmp_path / "s")
    assert content_hash(result) == content_hash(linearised(tmp_path / "t", lines, 0.3))
    store.discard()
    assert not (tmp_path / "s").exists()


def test_memory_is_that_of_a_piece(tmp_path: Path) -> None:
    peaks = []
    for n_pieces in (3, 30):
        tracemalloc.start()
        linearise(Endless(n_pieces), 0.1, tmp_path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        linearise(Endless(1), 0.1, tmp_path / "file")

from __future__ import annotations

import base64
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tractograms import oblique_las_grid, random_streamlines, stored

from bids_tractography.report.sample import Sample, box_of, chosen, survey
from bids_tractography.tractogram.formats.table import WRITERS
from bids_tractography.tractogram.formats.trx import TrxReader, write_trx

BOX = np.array([[-80.0, -80.0, -80.0], [80.0, 80.0, 80.0]])


def smooth_streamlines(count: int) -> list[NDArray[np.float64]]:
    """Random arcs of 20 to 200 points, half a millimetre apart."""
    rng = np.random.default_rng(2)
    made = []
    for n in rng.integers(20, 200, count):
        angle = np.arange(n) * rng.normal(0, 0.02)
        steps = 0.5 * np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
        made.append(rng.uniform(-30, 30, 3) + np.cumsum(steps, axis=0))
    return made


def written(folder: Path, streamlines: list[NDArray[np.float64]], extension: str = "trx") -> Path:
    path = folder / f"tracts.{extension}"
    WRITERS[extension](path, stored(folder / "store", streamlines), oblique_las_grid())
    return path


def unpacked(sample: Sample) -> list[NDArray[np.float64]]:
    """Decode the text of the page as the viewer does."""
    content = zlib.decompress(base64.b64decode(sample.packed()))
    n, total = len(sample), len(sample.points)
    counts = np.frombuffer(content, "<u4", n)
    at = 4 * n + 2 * n
    heads = np.frombuffer(content, "<i2", 3 * n, at).reshape(3, n)
    low = np.frombuffer(content, np.uint8, 3 * (total - n), at + 6 * n).reshape(3, -1)
    high = np.frombuffer(content, np.uint8, 3 * (total - n), at + 6 * n + low.size).reshape(3, -1)
    folded = low.astype(int) | high.astype(int) << 8
    steps = (folded >> 1) ^ -(folded & 1)
    points, k = [], 0
    for s, count in enumerate(counts):
        moves = np.concatenate([heads[:, s : s + 1], steps[:, k : k + count - 1]], axis=1)
        points.append(np.cumsum(moves, axis=1).T * sample.unit_mm + sample.origin_mm)
        k += int(count) - 1
    return points


def distance_to_line(point: NDArray[np.float64], line: NDArray[np.float64]) -> float:
    a, b = line[:-1], line[1:]
    along = b - a
    share = ((point - a) * along).sum(axis=1) / np.maximum((along**2).sum(axis=1), 1e-12)
    nearest = a + np.clip(share, 0, 1)[:, None] * along
    return float(np.sqrt(((point - nearest) ** 2).sum(axis=1).min()))


@pytest.mark.parametrize("count", [0, 1, 17, 1000, 5000])
def test_chosen_any_count_is_the_beginning_of_every_larger_one(count: int) -> None:
    whole = chosen(5000, 5000)
    assert np.array_equal(np.sort(whole), np.arange(5000))
    assert np.array_equal(chosen(5000, count), whole[:count])


def test_chosen_across_blocks_has_no_place_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = chosen(5000, 700)
    monkeypatch.setattr("bids_tractography.report.sample._BLOCK", 64)
    assert np.array_equal(chosen(5000, 700), at_once)
    assert len(set(at_once.tolist())) == 700


def test_chosen_more_streamlines_in_the_file_keep_those_that_were_chosen() -> None:
    before, after = set(chosen(1000, 500).tolist()), set(chosen(1100, 500).tolist())
    assert {place for place in after if place < 1000} <= before


def test_chosen_sample_is_fair() -> None:
    assert abs(chosen(100_000, 2000).mean() - 50_000) < 4 * 100_000 / np.sqrt(12 * 2000)


@pytest.mark.parametrize("extension", ["trx", "tck", "trk"])
def test_survey_packed_streamlines_are_within_the_stated_error(
    tmp_path: Path, extension: str
) -> None:
    streamlines = smooth_streamlines(60)
    path = written(tmp_path, streamlines, extension)
    found = survey(path, 60, BOX, max_shown=25)
    decoded = unpacked(found.sample)
    error = found.sample.max_error_mm
    assert error <= 0.25 + 0.05 * np.sqrt(3) + 1e-6
    worst = 0.0
    for place, line in zip(chosen(60, 25), decoded, strict=True):
        worst = max(worst, *(distance_to_line(point, line) for point in streamlines[place]))
    assert worst <= error + 1e-4  # of float32, and of the affine of a trk
    assert worst > 0.05  # and the error is not stated for nothing


def test_survey_measures_lengths_along_the_points(tmp_path: Path) -> None:
    streamlines = random_streamlines(40)
    path = written(tmp_path, streamlines)
    expected = [np.linalg.norm(np.diff(s, axis=0), axis=1).sum() for s in streamlines]
    found = survey(path, 40, BOX)
    assert np.allclose(found.lengths_mm, expected, atol=1e-3)
    in_order = np.array(expected)[chosen(40, 40)]
    assert np.allclose(found.sample.lengths_mm, in_order, atol=1e-3)


def test_survey_density_is_where_streamlines_run_and_has_their_direction(tmp_path: Path) -> None:
    line = np.stack([np.arange(-20, 20, 0.5), np.full(80, 3.0), np.full(80, -7.0)], axis=1)
    found = survey(written(tmp_path, [line]), 1, BOX)
    voxels = np.argwhere(found.density.any(axis=-1))
    place = BOX[0] + (voxels + 0.5) * found.density_edge_mm
    assert np.abs(place[:, 1:] - [3, -7]).max() <= found.density_edge_mm / 2
    assert (found.density[..., 1:] == 0).all()
    assert (found.density[tuple(voxels.T)][:, 0] > 0).all()


def test_survey_of_part_reads_the_same_streamlines_as_of_all(tmp_path: Path) -> None:
    path = written(tmp_path, smooth_streamlines(80))
    part, whole = survey(path, 80, BOX, max_surveyed=30), survey(path, 80, BOX)
    assert np.array_equal(part.sample.points, whole.sample.first(30).points)
    assert part.n_surveyed == 30


def test_survey_per_streamline_values_stay_with_their_streamline(tmp_path: Path) -> None:
    store = stored(tmp_path / "store", smooth_streamlines(50))
    path = tmp_path / "tracts.trx"
    write_trx(path, store, oblique_las_grid(), per_streamline=[store.per_streamline("seed")])
    found = survey(path, 50, BOX)
    (values,) = found.sample.values.values()
    seeds = values.low + values.scaled / 255 * (values.high - values.low)
    assert np.abs(seeds - chosen(50, 50)).max() < 0.5


def test_survey_another_number_of_streamlines_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path, smooth_streamlines(5))
    with pytest.raises(ValueError, match="does not have the 6 streamlines"):
        survey(path, 6, BOX)


def test_survey_points_that_are_not_finite_do_not_reach_the_page(tmp_path: Path) -> None:
    streamlines = smooth_streamlines(3)
    streamlines[1][4] = np.nan
    found = survey(written(tmp_path, streamlines), 3, BOX)
    decoded = unpacked(found.sample)
    assert [len(line) for line in decoded].count(1) == 1
    assert np.isfinite(np.concatenate(decoded)).all()
    assert np.isfinite(found.lengths_mm).all()
    assert len(found.lengths_mm) == 2


def test_sample_too_large_for_the_page_is_a_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, smooth_streamlines(60))
    whole = survey(path, 60, BOX).sample
    monkeypatch.setattr("bids_tractography.report.sample.MAX_PAYLOAD", 2000)
    small = survey(path, 60, BOX)
    assert len(small.packed) <= 2000
    assert 0 < len(small.sample) < 60
    assert np.array_equal(small.sample.points, whole.first(len(small.sample)).points)


@pytest.mark.parametrize("numbers", [[0, 1, 2], [5], [0, 3, 4, 5, 38, 39], [], list(range(40))])
def test_trx_reader_some_are_those_of_the_whole(tmp_path: Path, numbers: list[int]) -> None:
    path = written(tmp_path, random_streamlines(40))
    reader = TrxReader(path)
    points, lengths = (np.concatenate(part) for part in zip(*reader.streamlines(), strict=True))
    wanted = np.isin(np.repeat(np.arange(40), lengths), numbers)
    some = list(reader.some(np.array(numbers, np.int64)))
    read = np.concatenate([p for p, _ in some]) if some else np.empty((0, 3))
    assert np.array_equal(read, points[wanted])
    assert [n for _, part in some for n in part] == lengths[numbers].tolist()


def test_box_of_a_mask_holds_its_voxels() -> None:
    grid = oblique_las_grid()
    image = np.zeros(grid.shape, np.float32)
    image[2:5, 3:6, 1:4] = 1
    low, high = box_of(image, grid)
    inside = grid.to_mm(np.argwhere(image > 0).astype(float))
    assert (inside > low).all()
    assert (inside < high).all()

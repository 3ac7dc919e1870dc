"""The scores of the benchmarks, on tractograms whose score is known."""

from __future__ import annotations

import importlib
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from conftest import ROOT, SHARED_DATA
from nibabel.affines import apply_affine, from_matvec
from nibabel.eulerangles import euler2mat

BENCHMARKS = ROOT / "benchmarks"
FIBERCUP = SHARED_DATA / "fibercup" / "truth"
GRID = (20, 12, 6)
VOXEL_MM = 2.0


@pytest.fixture(scope="module")
def scoring() -> Iterator[Any]:
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("scoring")
    sys.path.remove(str(BENCHMARKS))


def affine() -> np.ndarray:
    """Oblique, mirrored voxels, so that no axis can be mistaken for another."""
    turn = euler2mat(0.2, -0.3, 0.4)
    return np.asarray(from_matvec(turn @ np.diag([-VOXEL_MM, VOXEL_MM, 3.0]), [5, -7, 11]))


def line(scoring: Any, *voxels: tuple[float, float, float]) -> np.ndarray:
    """A streamline through voxel coordinates, in mm."""
    return np.asarray(apply_affine(affine(), np.array(voxels, float)))


def volume(scoring: Any, data: np.ndarray) -> Any:
    return scoring.Volume(data, affine())


def regions(scoring: Any) -> Any:
    """Four regions at the ends of two bars."""
    labels = np.zeros(GRID, np.uint8)
    for label, (x, y) in enumerate([(0, 2), (18, 2), (0, 9), (18, 9)], start=1):
        labels[x : x + 2, y - 1 : y + 2] = label
    return volume(scoring, labels)


def bars(scoring: Any) -> Any:
    masks = np.zeros((*GRID, 2), np.uint8)
    masks[:, 2, 3, 0] = 1
    masks[:, 9, 3, 1] = 1
    return volume(scoring, masks)


PAIRS = {0: (1, 2), 1: (4, 3)}


def test_lengths_and_ends(scoring: Any) -> None:
    lines = scoring.lines_of([np.array([[0, 0, 0], [3, 4, 0], [3, 4, 2]]), np.array([[1, 1, 1.0]])])
    np.testing.assert_allclose(lines.lengths_mm, [7, 0])
    np.testing.assert_allclose(lines.ends, [[[0, 0, 0], [3, 4, 2]], [[1, 1, 1], [1, 1, 1]]])
    assert len(lines.take(np.array([1]))) == 1


def test_a_straight_piece_visits_every_voxel_on_its_way(scoring: Any) -> None:
    lines = scoring.lines_of(
        [
            line(scoring, (2, 5, 3), (14, 5, 3)),
            line(scoring, (2, 5, 3), (2, 9, 3), (4, 9, 3)),
            line(scoring, (-4, 5, 3), (1, 5, 3)),
        ]
    )
    visited = scoring.visits(lines, volume(scoring, np.zeros(GRID))).toarray()
    visited = visited.reshape(3, *GRID)
    expected = np.zeros((3, *GRID), bool)
    expected[0, 2:15, 5, 3] = True
    expected[1, 2, 5:10, 3] = expected[1, 2:5, 9, 3] = True
    expected[2, :2, 5, 3] = True  # what is outside the image is not counted
    np.testing.assert_array_equal(visited, expected)


def test_regions_reach_as_far_as_the_tolerance(scoring: Any) -> None:
    labels = np.zeros(GRID, int)
    labels[10, 6, 3] = 7
    points = line(scoring, (10, 6, 3), (11, 6, 3), (12, 6, 3), (10, 6, 4))
    for tolerance_mm, expected in ((0, [7, 0, 0, 0]), (2, [7, 7, 0, 0]), (3, [7, 7, 0, 7])):
        found = scoring.regions_at(points, volume(scoring, labels), tolerance_mm)
        np.testing.assert_array_equal(found, expected)


def test_every_streamline_is_valid_invalid_or_connects_nothing(scoring: Any) -> None:
    lines = scoring.lines_of(
        [
            line(scoring, (0, 2, 3), (19, 2, 3)),  # bundle 0
            line(scoring, (19, 2, 3), (0, 2, 3)),  # the same, the other way
            line(scoring, (0, 2, 3), (19, 9, 3)),  # across
            line(scoring, (19, 9, 3), (0, 2, 3)),
            line(scoring, (0, 2, 3), (0, 9, 3)),  # two regions at one side
            line(scoring, (0, 2, 3), (10, 2, 3)),  # half way
            line(scoring, (0, 2, 3), (10, 5, 3), (0, 2, 3)),  # back where it came from
            line(scoring, (10, 5, 3), (10, 6, 3)),  # nowhere
        ]
    )
    score = scoring.score_connections(lines, regions(scoring), bars(scoring), PAIRS, 0)
    assert score.count == 8
    assert score.valid == 2 / 8
    assert score.invalid == 3 / 8
    assert score.none == 3 / 8
    assert score.bundles_found == 1
    assert score.invalid_bundles == 2
    assert score.coverage == (1 + 0) / 2
    assert score.overreach == 0


def test_coverage_and_overreach_count_voxels_of_valid_streamlines(scoring: Any) -> None:
    detour = line(scoring, (0, 2, 3), (4, 2, 3), (4, 4, 3), (15, 4, 3), (15, 2, 3), (19, 2, 3))
    other = line(scoring, (0, 9, 3), (19, 9, 3))
    lines = scoring.lines_of([detour, other])
    score = scoring.score_connections(lines, regions(scoring), bars(scoring), PAIRS, 0)
    assert score.bundles_found == 2
    assert score.coverage == pytest.approx((10 / 20 + 1) / 2)
    # Down at x = 4, across at y = 4, and up at x = 15.
    assert score.overreach == pytest.approx(((12 + 2) / 20 + 0) / 2)


def test_no_streamlines_score_nothing(scoring: Any) -> None:
    score = scoring.score_connections(
        scoring.lines_of([]), regions(scoring), bars(scoring), PAIRS, 0
    )
    assert (score.count, score.valid, score.bundles_found, score.coverage) == (0, 0, 0, 0)


def test_ends_in_grey_matter(scoring: Any) -> None:
    x = np.broadcast_to(np.arange(GRID[0])[:, None, None], GRID)
    fractions = {
        "gm": volume(scoring, np.where(x < 5, 0.6, 0.1)),
        "wm": volume(scoring, np.where((x >= 5) & (x < 15), 0.8, 0.3)),
        "csf": volume(scoring, np.where(x >= 15, 0.6, 0.0)),
    }
    lines = scoring.lines_of(
        [
            line(scoring, (2, 5, 3), (4, 5, 3)),  # both
            line(scoring, (2, 5, 3), (10, 5, 3)),  # one, and white matter
            line(scoring, (10, 5, 3), (17, 5, 3)),  # white matter, fluid
            line(scoring, (2, 5, 3), (-9, 5, 3)),  # one, and outside the image
        ]
    )
    assert scoring.share_in_grey_matter(lines, fractions) == (1 / 4, 4 / 8)


def test_bundles_are_covered_by_their_own_streamlines(scoring: Any) -> None:
    grid = volume(scoring, np.zeros(GRID))
    first = [line(scoring, (2, 2, z), (17, 2, z)) for z in (2, 3)]
    second = [line(scoring, (2, 9, 3), (17, 9, 3)), line(scoring, (17, 8, 3), (2, 8, 3))]
    lines = scoring.lines_of(first + second)
    names = ("first", "second")
    truth = scoring.true_bundles(lines, np.array([0, 0, 1, 1]), names, grid, 3.0)
    through = scoring.visits(lines, grid)
    np.testing.assert_array_equal(scoring.belongs(through, truth), [[1, 0], [1, 0], [0, 1], [0, 1]])
    np.testing.assert_array_equal(scoring.bundle_coverage(through, truth), [1, 1])
    np.testing.assert_allclose(scoring.bundle_coverage(through[:1], truth), [0.5, 0])


def test_what_does_not_follow_a_bundle_does_not_cover_it(scoring: Any) -> None:
    grid = volume(scoring, np.zeros(GRID))
    bundle = scoring.lines_of([line(scoring, (2, 2, 3), (17, 2, 3))])
    truth = scoring.true_bundles(bundle, np.array([0]), ("bundle",), grid, 3.0)
    lines = scoring.lines_of(
        [
            line(scoring, (2, 2, 3), (10, 2, 3)),  # half of it
            line(scoring, (2, 2, 3), (2, 9, 3), (17, 9, 3), (17, 2, 3)),  # another way
            line(scoring, (2, 4, 3), (17, 4, 3)),  # beside it
            line(scoring, (0, 2, 3), (19, 2, 3)),  # on, beyond its ends
        ]
    )
    through = scoring.visits(lines, grid)
    np.testing.assert_array_equal(scoring.belongs(through, truth).ravel(), [0, 0, 0, 1])
    assert scoring.bundle_coverage(through[:3], truth) == [0]
    assert scoring.bundle_coverage(through, truth) == [1]


@pytest.mark.skipif(not FIBERCUP.exists(), reason="needs shared/data/fibercup")
def test_the_true_centre_lines_of_fibercup_score_full_marks(scoring: Any) -> None:
    fibercup = importlib.import_module("fibercup")
    truth = fibercup.read_truth(FIBERCUP)
    assert sorted(truth.pairs) == list(range(7))
    lines = scoring.read_lines(FIBERCUP / "centrelines.tck")
    score = fibercup.score(lines, truth)
    assert (score.count, score.valid, score.bundles_found) == (7, 1, 7)
    assert score.overreach == 0
    # One line in each: as wide as a voxel in bundles of about four by three.
    assert 1 / 15 < score.coverage < 1 / 6
    halves = [lines.points[start:stop][: (stop - start) // 2] for start, stop in _spans(lines)]
    assert fibercup.score(scoring.lines_of(halves), truth).valid == 0


def _spans(lines: Any) -> list[tuple[int, int]]:
    return list(zip(lines.offsets[:-1].tolist(), lines.offsets[1:].tolist(), strict=True))


@pytest.mark.parametrize("suffix", [".tck", ".trk", ".trx"])
def test_files_are_read_in_mm(scoring: Any, tmp_path: Path, suffix: str) -> None:
    parts = [np.array([[1, 2, 3], [4, 5, 6.5]]), np.array([[-7, 8, 9], [1, 0, 0], [2, 2, 2.0]])]
    path = tmp_path / f"lines{suffix}"
    if suffix == ".trx":
        write_trx(path, parts)
    else:
        tractogram = nib.streamlines.Tractogram(parts, affine_to_rasmm=np.eye(4))
        nib.streamlines.save(tractogram, str(path))
    lines = scoring.read_lines(path)
    np.testing.assert_array_equal(lines.offsets, [0, 2, 5])
    np.testing.assert_allclose(lines.points, np.concatenate(parts), atol=1e-5)


def write_trx(path: Path, parts: list[np.ndarray]) -> None:
    points = np.concatenate(parts).astype("<f4")
    offsets = np.cumsum([0, *map(len, parts)]).astype("<u8")
    header = {
        "VOXEL_TO_RASMM": np.eye(4).tolist(),
        "DIMENSIONS": [9, 9, 9],
        "NB_STREAMLINES": len(parts),
        "NB_VERTICES": len(points),
    }
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.json", json.dumps(header))
        archive.writestr("positions.3.float32", points.tobytes())
        archive.writestr("offsets.uint64", offsets.tobytes())

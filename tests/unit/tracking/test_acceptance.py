"""What is kept: by length, by ends, by include and exclude masks; and the count of the others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_tractography.config.tracking import TrackingConfig
from bids_tractography.core.images import Grid
from bids_tractography.core.streamlines import Counts, Rejection, Stop, StreamlineBatch
from bids_tractography.tracking.acceptance import (
    Regions,
    codes,
    count,
    judge,
    max_points,
    min_points,
)

GRID = Grid((4, 4, 4), np.diag([2.0, 2.0, 2.0, 1.0]))


def batch_of(*streamlines: list[tuple[float, float, float]]) -> StreamlineBatch:
    """Streamlines by the voxels of their points."""
    lengths = [len(points) for points in streamlines]
    voxels = np.array([point for points in streamlines for point in points], float).reshape(-1, 3)
    n = len(streamlines)
    counts = Counts(seeds=n, generated=n, kept=n)
    counts.stops[Stop.STOPPING_RULE] = 2 * n
    return StreamlineBatch(
        GRID.to_mm(voxels).astype(np.float32),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.arange(n, dtype=np.int64),
        counts,
        np.zeros((n, 2), np.uint8),
    )


def mask(*voxels: tuple[int, int, int]) -> np.ndarray:
    data = np.zeros(GRID.shape, bool)
    for voxel in voxels:
        data[voxel] = True
    return data


BATCH = batch_of(
    [(0, 0, 0), (1, 0, 0), (2, 0, 0)],
    [(0, 1, 0), (1, 1, 0)],
    [(3, 3, 3)],
    [(1, 0, 0), (1, 1, 0), (1, 2, 0)],
)


def test_without_regions_nothing_changes() -> None:
    assert Regions(GRID).accept(BATCH) is BATCH


def test_every_include_mask_has_to_be_passed() -> None:
    regions = Regions(GRID, include=(mask((1, 0, 0)), mask((1, 1, 0), (2, 0, 0))))
    accepted = regions.accept(BATCH)
    assert accepted.seed_index.tolist() == [0, 3]
    assert accepted.counts.rejected[Rejection.NOT_INCLUDED] == 2
    assert accepted.counts.kept == 2
    np.testing.assert_array_equal(accepted.points_mm[:3], BATCH.points_mm[:3])
    assert accepted.offsets.tolist() == [0, 3, 6]
    assert len(accepted.stops) == 2


def test_no_exclude_mask_may_be_entered_and_exclusion_counts_first() -> None:
    regions = Regions(GRID, include=(mask((0, 1, 0)),), exclude=(mask((2, 0, 0)),))
    accepted = regions.accept(BATCH)
    assert accepted.seed_index.tolist() == [1]
    assert accepted.counts.rejected[Rejection.EXCLUDED] == 1
    assert accepted.counts.rejected[Rejection.NOT_INCLUDED] == 2


@given(st.lists(st.integers(1, 6), min_size=1, max_size=8), st.integers(0, 2**32 - 1))
def test_counts_always_add_up(lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    batch = batch_of(*[[tuple(rng.integers(0, 4, 3)) for _ in range(n)] for n in lengths])
    regions = Regions(
        GRID, include=(rng.random(GRID.shape) > 0.3,), exclude=(rng.random(GRID.shape) > 0.9,)
    )
    accepted = regions.accept(batch)
    accepted.counts.check()
    assert accepted.counts.kept == len(accepted)
    assert len(accepted.points_mm) == accepted.offsets[-1]


@pytest.mark.parametrize(
    ("step_mm", "shortest_mm", "longest_mm", "points"),
    [(0.5, 10, 20, (21, 41)), (0.1, 0.3, 0.7, (4, 8)), (0.3, 1, 2, (5, 7)), (1, 0, 5, (1, 6))],
)
def test_bounds_of_length_are_inclusive_whatever_is_rounded(
    step_mm: float, shortest_mm: float, longest_mm: float, points: tuple[int, int]
) -> None:
    tracking = TrackingConfig(
        algorithm={"kind": "det", "step_size_mm": step_mm},
        min_length_mm=shortest_mm,
        max_length_mm=longest_mm,
    )
    assert (min_points(tracking), max_points(tracking)) == points


@pytest.mark.parametrize("dead_ends", ["drop", "keep"])
def test_the_first_reason_that_applies_is_the_one_that_counts(dead_ends: str) -> None:
    tracking = TrackingConfig(
        algorithm={"kind": "det", "step_size_mm": 1}, min_length_mm=3, max_length_mm=5,
        dead_ends=dead_ends,
    )  # fmt: skip
    rule, fluid, endless = Stop.STOPPING_RULE, Stop.CSF, Stop.MAX_LENGTH
    cases = [
        (4, (rule, rule), "", (rule, rule)),
        (3, (rule, rule), Rejection.TOO_SHORT, (rule, rule)),
        (6, (rule, rule), "", (rule, rule)),
        (7, (rule, fluid), Rejection.TOO_LONG, (endless, endless)),
        (5, (endless, fluid), Rejection.TOO_LONG, (endless, endless)),
        (3, (fluid, rule), Rejection.DEAD_END if dead_ends == "drop" else Rejection.TOO_SHORT,
         (fluid, rule)),
        (5, (rule, fluid), Rejection.DEAD_END if dead_ends == "drop" else "", (rule, fluid)),
    ]  # fmt: skip
    n_points, ends, reasons, expected = zip(*cases, strict=True)
    stops, rejected = judge(np.array(n_points), np.array(ends), tracking)
    assert rejected.tolist() == list(reasons)
    assert stops.tolist() == [list(pair) for pair in expected]
    assert codes(stops).tolist() == [[one.code, other.code] for one, other in expected]
    counts = count(9, 7, stops, rejected)
    counts.check()
    assert counts.kept == reasons.count("")
    assert counts.seeds_without_direction == 2

"""Include and exclude masks: what is kept is what passes, and every rejection is counted."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bids_tractography.core.images import Grid
from bids_tractography.core.streamlines import Counts, Rejection, Stop, StreamlineBatch
from bids_tractography.tracking.acceptance import Regions

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

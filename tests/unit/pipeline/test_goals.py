"""When there are enough streamlines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fields import cube
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_tractography.config.tracking import ConvergeSeedsConfig, SelectSeedsConfig
from bids_tractography.core.seeding import SeedBatch
from bids_tractography.core.streamlines import Counts, Rejection, Stop, StreamlineBatch
from bids_tractography.pipeline.goals import Convergence, Selection, _correlation
from bids_tractography.tractogram.store import BatchStore

GRID = cube(8, 2.0)


def batch_of(first: int, kept: list[int], points: int = 3) -> StreamlineBatch:
    """Streamlines of some points each; `kept` has how many each seed gave."""
    n, seeds = sum(kept), np.repeat(np.arange(first, first + len(kept)), kept)
    rng = np.random.default_rng([first, len(kept)])
    generated = sum(max(k, 1) for k in kept)
    rejected: dict[str, int] = {**dict.fromkeys(Rejection, 0), Rejection.TOO_SHORT: generated - n}
    return StreamlineBatch(
        points_mm=rng.uniform(0, 14, (n * points, 3)).astype(np.float32),
        offsets=np.arange(n + 1, dtype=np.int64) * points,
        seed_index=seeds,
        counts=Counts(
            len(kept), 0, generated, n, rejected,
            {**dict.fromkeys(Stop, 0), Stop.STOPPING_RULE: 2 * generated},
        ),
        stops=np.zeros((n, 2), np.uint8),
    )  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 30))
def test_a_selection_is_cut_after_the_seed_that_fills_it(kept: list[int], count: int) -> None:
    goal = Selection(SelectSeedsConfig(count=count), 0)
    batch = batch_of(0, kept)
    cut = goal.cut(batch)
    totals = np.cumsum(kept)
    if totals[-1] < count:
        assert cut is None
        assert not goal.is_reached
        return
    assert cut == int(np.searchsorted(totals, count)) + 1
    once_more = batch_of(0, kept[:cut])
    taken = goal.take(once_more, cut)
    assert len(taken) == count == taken.counts.kept
    taken.counts.check()
    assert goal.is_reached
    assert taken.counts.rejected[Rejection.SURPLUS] == totals[cut - 1] - count
    assert np.array_equal(taken.points_mm, once_more.points_mm[: 3 * count])


def test_a_selection_that_is_not_filled_says_so() -> None:
    goal = Selection(SelectSeedsConfig(count=1000, max_seeds=50), 0)
    goal.take(batch_of(0, [1] * 20), 20)
    assert goal.warning is not None
    assert "50 seeds gave 20 of the 1,000" in goal.warning
    assert goal.record == {"kind": "select", "count": 1000, "max_seeds": 50, "reached": False}


@given(st.integers(0, 2**31 - 1))
def test_the_correlation_is_pearson_s_where_either_map_is_not_zero(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = rng.poisson(1.5, (2, 4, 4, 4)).astype(np.int32)
    some = (one + other) > 0
    expected = np.corrcoef(one[some], other[some])[0, 1]
    assert _correlation(one, other) == pytest.approx(expected, nan_ok=True, abs=1e-12)


def test_maps_without_streamlines_have_no_correlation() -> None:
    nothing = np.zeros((2, 2, 2), np.int32)
    assert _correlation(nothing, nothing) == 0


@pytest.mark.parametrize("size", [700, 4999, 10_000])
def test_convergence_does_not_depend_on_batches_or_restarts(tmp_path: Path, size: int) -> None:
    config = ConvergeSeedsConfig(correlation=0.999, max_seeds=30_000)
    whole, resumed = Convergence(config, GRID), None
    streamlines = batch_of(0, [1] * 30_000)
    first = 0
    with BatchStore.open(tmp_path / "store", {"run": "a"}, 1) as store:
        while first < 30_000:
            stop = min(first + size, whole.end_of_batch(first) or 30_000, 30_000)
            part = streamlines.select((np.arange(30_000) >= first) & (np.arange(30_000) < stop))
            n = stop - first
            counts = Counts(
                n, 0, n, n, dict.fromkeys(Rejection, 0),
                {**dict.fromkeys(Stop, 0), Stop.STOPPING_RULE: 2 * n},
            )  # fmt: skip
            part = StreamlineBatch(
                part.points_mm, part.offsets, part.seed_index, counts, part.stops
            )
            store.append(
                SeedBatch(first, np.zeros((n, 3))), whole.take(part, stop), seconds=0, cpu_seconds=0
            )
            first = stop
            if first > 15_000 and resumed is None:
                resumed = Convergence.of(config, GRID, store)
                assert resumed.record == whole.record
        assert Convergence.of(config, GRID, store).record == whole.record
    curve = whole.record["curve"]
    assert [look["seeds"] for look in curve] == [10_000, 14_142, 20_000, 28_284]
    assert [look["streamlines"] for look in curve] == [10_000, 14_142, 20_000, 28_284]
    even, odd = (
        np.histogramdd(
            np.rint(streamlines.points_mm.reshape(-1, 3, 3)[half:10_000:2] / 2).reshape(-1, 3),
            bins=[np.arange(-0.5, 8)] * 3,
        )[0]
        for half in (0, 1)
    )
    # Nearly: a streamline counts once in a voxel.
    assert curve[0]["correlation"] == pytest.approx(
        np.corrcoef(even.flat, odd.flat)[0, 1], abs=0.05
    )

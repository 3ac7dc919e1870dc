"""When there are enough streamlines, where the configuration does not say how many seeds.

What is decided depends on the seeds and their streamlines alone, never on the size of batches, so
that threads, workers and restarts do not change the tractogram.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bids_tractography.config.tracking import (
    ConvergeSeedsConfig,
    SeedsConfig,
    SelectSeedsConfig,
)
from bids_tractography.core.images import Grid
from bids_tractography.core.streamlines import Rejection, StreamlineBatch
from bids_tractography.tractogram.store import BatchStore
from bids_tractography.tractogram.summary import DensityCounter

SEEDS_TO_CONVERGE = 500_000
"""Rough number of seeds after which density maps of a head are stable, for estimates."""

_FIRST_LOOK, _GROWTH = 10_000, math.sqrt(2)


class Goal(Protocol):
    """Says where tracking ends."""

    @property
    def is_reached(self) -> bool:
        """Whether tracking can end."""
        ...

    @property
    def record(self) -> dict[str, Any] | None:
        """What the sidecar says of it, JSON values."""
        ...

    @property
    def warning(self) -> str | None:
        """Warning if tracking has ended before the goal was reached."""
        ...

    def end_of_batch(self, first: int) -> int | None:
        """Return where a batch must end that begins with a seed; None if anywhere."""
        ...

    def cut(self, batch: StreamlineBatch) -> int | None:
        """Return the seed after the last one that is needed of the next batch; None for all."""
        ...

    def take(self, batch: StreamlineBatch, stop: int) -> StreamlineBatch:
        """Account for the next batch, whose seeds end before `stop`; return what is kept."""
        ...


class AllSeeds:
    """Tracking ends with the last seed."""

    is_reached = False
    record: dict[str, Any] | None = None
    warning: str | None = None

    def end_of_batch(self, first: int) -> int | None:
        """Return None: batches may end anywhere."""
        return None

    def cut(self, batch: StreamlineBatch) -> int | None:
        """Return None: all seeds are needed."""
        return None

    def take(self, batch: StreamlineBatch, stop: int) -> StreamlineBatch:
        """Return the batch as it is."""
        return batch


class Selection(AllSeeds):
    """Tracking ends when a number of streamlines is kept.

    Parameters
    ----------
    config : SelectSeedsConfig
    n_streamlines : int
        Streamlines that are there already.
    """

    def __init__(self, config: SelectSeedsConfig, n_streamlines: int) -> None:
        self._config = config
        self._kept = n_streamlines

    @property
    def is_reached(self) -> bool:  # type: ignore[override]
        """Whether there are as many as wanted."""
        return self._kept >= self._config.count

    @property
    def record(self) -> dict[str, Any]:  # type: ignore[override]
        """Number that was wanted, largest number of seeds, and whether it was enough."""
        return {
            "kind": "select",
            "count": self._config.count,
            "max_seeds": self._config.limit,
            "reached": self.is_reached,
        }

    @property
    def warning(self) -> str | None:  # type: ignore[override]
        """Warning about too few streamlines."""
        if self.is_reached:
            return None
        return (
            f"{self._config.limit:,} seeds gave {self._kept:,} of the {self._config.count:,} "
            "streamlines to select (seeding.seeds.max_seeds)."
        )

    def cut(self, batch: StreamlineBatch) -> int | None:
        """Return the seed after that of the last streamline that is needed."""
        needed = self._config.count - self._kept
        return int(batch.seed_index[needed - 1]) + 1 if len(batch) >= needed else None

    def take(self, batch: StreamlineBatch, stop: int) -> StreamlineBatch:
        """Reject streamlines of the last seed beyond the number that is needed."""
        surplus = self._kept + len(batch) - self._config.count
        self._kept += len(batch)
        if surplus <= 0:
            return batch
        self._kept -= surplus
        counts = batch.counts
        rejected = {**counts.rejected, Rejection.SURPLUS.value: surplus}
        kept = np.arange(len(batch)) < len(batch) - surplus
        counts = replace(counts, kept=counts.kept - surplus, rejected=rejected)
        return replace(batch.select(kept), counts=counts)


class Convergence(AllSeeds):
    """Tracking ends when the density maps of two halves of the seeds are alike.

    Parameters
    ----------
    config : ConvergeSeedsConfig
    grid : Grid
        Of the maps.
    """

    def __init__(self, config: ConvergeSeedsConfig, grid: Grid) -> None:
        self._config = config
        self._halves = DensityCounter(grid), DensityCounter(grid)
        self._streamlines = 0
        self._next_look = _FIRST_LOOK
        self._curve: list[dict[str, Any]] = []

    @classmethod
    def of(cls, config: ConvergeSeedsConfig, grid: Grid, store: BatchStore) -> Convergence:
        """Account for the streamlines that are in a store already."""
        goal = cls(config, grid)
        seeds = np.concatenate([np.empty(0, np.int64), *store.per_streamline("seed").read()])
        done = 0
        for points, lengths in store.streamlines():
            here = seeds[done : done + len(lengths)]
            done += len(lengths)
            while len(here) and goal._next_look <= here[-1]:
                n = int(np.searchsorted(here, goal._next_look))
                n_points = int(lengths[:n].sum(dtype=np.int64))
                goal._add(points[:n_points], lengths[:n], here[:n])
                goal._look(goal._next_look)
                points, lengths, here = points[n_points:], lengths[n:], here[n:]
            goal._add(points, lengths, here)
        while goal._next_look <= store.next_seed:
            goal._look(goal._next_look)
        return goal

    @property
    def is_reached(self) -> bool:  # type: ignore[override]
        """Whether the correlation is as large as wanted."""
        return bool(self._curve) and self._curve[-1]["correlation"] >= self._config.correlation

    @property
    def record(self) -> dict[str, Any]:  # type: ignore[override]
        """Correlation that was wanted, and how it grew with the seeds."""
        return {
            "kind": "converge",
            "correlation": self._config.correlation,
            "max_seeds": self._config.limit,
            "reached": self.is_reached,
            "curve": self._curve,
        }

    @property
    def warning(self) -> str | None:  # type: ignore[override]
        """Warning about maps that differ still."""
        if self.is_reached:
            return None
        found = f"{self._curve[-1]['correlation']:.3f}" if self._curve else "not known"
        return (
            f"after {self._config.limit:,} seeds, the correlation of the density maps of two "
            f"halves is {found}, less than {self._config.correlation:g} "
            "(seeding.seeds.max_seeds)."
        )

    def end_of_batch(self, first: int) -> int | None:
        """Return the number of seeds after which the maps are compared next."""
        look = self._next_look
        while look <= first:
            look = _later(look)
        return look

    def take(self, batch: StreamlineBatch, stop: int) -> StreamlineBatch:
        """Count the streamlines of each half, and compare the maps if it is time."""
        self._add(batch.points_mm, np.diff(batch.offsets), batch.seed_index)
        while self._next_look <= stop:
            self._look(self._next_look)
        return batch

    def _add(
        self,
        points: NDArray[np.float32],
        lengths: NDArray[np.integer],
        seeds: NDArray[np.int64],
    ) -> None:
        for parity, half in enumerate(self._halves):
            mine = seeds % 2 == parity
            half.add(points[np.repeat(mine, lengths)], lengths[mine])
        self._streamlines += len(seeds)

    def _look(self, n_seeds: int) -> None:
        """Compare the maps after a number of seeds."""
        correlation = _correlation(*(half.density for half in self._halves))
        self._curve.append(
            {
                "seeds": n_seeds,
                "streamlines": self._streamlines,
                "correlation": round(correlation, 6),
            }
        )
        self._next_look = _later(n_seeds)


def _later(n_seeds: int) -> int:
    """Return the number of seeds at the next comparison."""
    steps = round(math.log(n_seeds / _FIRST_LOOK, _GROWTH)) + 1
    return round(_FIRST_LOOK * _GROWTH**steps)


def _correlation(one: NDArray[np.int32], other: NDArray[np.int32]) -> float:
    """Return Pearson's correlation in the voxels where either map is not zero, 0 without any.

    The sums are exact, so that their order does not matter.
    """
    some = (one > 0) | (other > 0)
    a, b = one[some].astype(np.int64), other[some].astype(np.int64)
    n, sum_a, sum_b = len(a), int(a.sum()), int(b.sum())
    square_a, square_b, product = int((a * a).sum()), int((b * b).sum()), int((a * b).sum())
    spread = (n * square_a - sum_a**2) * (n * square_b - sum_b**2)
    return (n * product - sum_a * sum_b) / math.sqrt(spread) if spread > 0 else 0.0


def goal_of(config: SeedsConfig, grid: Grid, store: BatchStore) -> Goal:
    """Return the goal of a configuration, with what is in the store already."""
    if isinstance(config, SelectSeedsConfig):
        return Selection(config, store.n_streamlines)
    if isinstance(config, ConvergeSeedsConfig):
        return Convergence.of(config, grid, store)
    return AllSeeds()

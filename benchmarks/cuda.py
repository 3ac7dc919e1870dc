"""Tracking on GPUs: points a second beside the other engines and raw cuslines, and parity.

Run as ``python benchmarks/cuda.py FOD MAP`` with a ``param-fod_dwimap`` and a
``param-fa_dwimap`` that a run has made. ``--backend numba`` does the same through cuslines'
back end without a GPU. Random seeds in all voxels above the threshold, prob, defaults.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bids_tractography.config.tracking import TrackingConfig
from bids_tractography.core.fodf import Fodf
from bids_tractography.core.images import Grid, read_image
from bids_tractography.core.seeding import SeedBatch
from bids_tractography.core.stopping import ThresholdRule
from bids_tractography.core.streamlines import StreamlineBatch
from bids_tractography.tracking.base import TrackingProblem
from bids_tractography.tracking.cpu.engine import CpuEngine
from bids_tractography.tracking.cuda.cuslines import CudaSession, NumbaSession
from bids_tractography.tracking.cuda.engine import UNIT, Request, Session, UnitEngine
from bids_tractography.tracking.dipy import DipyEngine


class Clock:
    """Time what goes through a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.seconds = function, 0.0

    def __call__(self, *arguments: Any) -> Any:
        """Call it."""
        begin = time.perf_counter()
        made = self.function(*arguments)
        self.seconds += time.perf_counter() - begin
        return made


def timed(
    track: Callable[[SeedBatch], StreamlineBatch], seeds: np.ndarray, size: int
) -> tuple[float, list[StreamlineBatch]]:
    begin = time.perf_counter()
    made = [track(SeedBatch(i, seeds[i : i + size])) for i in range(0, len(seeds), size)]
    return time.perf_counter() - begin, made


def row(name: str, seconds: float, n_seeds: int, made: list[StreamlineBatch]) -> None:
    points = sum(len(batch.points_mm) for batch in made)
    kept, generated = (sum(getattr(b.counts, n) for b in made) for n in ("kept", "generated"))
    print(f"| {name} | {seconds:.1f} | {n_seeds / seconds:.0f} | {generated} | {kept} | "
          f"{points / seconds / 1e3:.0f} |", flush=True)  # fmt: skip


def density(made: list[StreamlineBatch], grid: Grid) -> np.ndarray:
    total = np.zeros(grid.shape)
    for batch in made:
        np.add.at(total, tuple(np.rint(grid.to_voxels(batch.points_mm)).astype(int).T), 1)
    return total.ravel()


def likeness(one: list[StreamlineBatch], other: list[StreamlineBatch], grid: Grid) -> str:
    correlation = np.corrcoef(density(one, grid), density(other, grid))[0, 1]
    quantiles = [
        np.quantile(np.concatenate([np.diff(b.offsets) for b in made]), [0.1, 0.5, 0.9])
        for made in (one, other)
    ]
    return f"density r {correlation:.4f}, points at 10/50/90 % {quantiles[0]} and {quantiles[1]}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fod", type=Path)
    parser.add_argument("map", type=Path)
    parser.add_argument("--below", type=float, default=0.2)
    parser.add_argument("--seeds", type=int, default=1_000_000)
    parser.add_argument("--dipy-seeds", type=int, default=20_000)
    parser.add_argument("--backend", choices=("cuda", "numba"), default="cuda")
    parser.add_argument("--ngpus", type=int, default=1)
    chosen = parser.parse_args()

    fod, scalar = read_image(chosen.fod, ndim=4), read_image(chosen.map, ndim=3)
    rule = ThresholdRule(scalar.data, chosen.below)
    tracking = TrackingConfig(engine="cuda", ngpus=chosen.ngpus, algorithm="prob")
    problem = TrackingProblem(Fodf(fod.data, fod.grid), rule, tracking, 1)
    voxels = np.argwhere(scalar.data > chosen.below)
    rng = np.random.default_rng(0)
    places = voxels[rng.integers(len(voxels), size=chosen.seeds)]
    seeds = fod.grid.to_mm(places + rng.uniform(-0.5, 0.5, places.shape))
    threads = len(os.sched_getaffinity(0))
    print(f"{fod.grid.describe()}; {chosen.seeds} seeds; {threads} threads")
    print("| engine | s | seeds/s | generated | kept | 1000 points kept/s |")
    print("|---|---|---|---|---|---|")

    sessions: dict[str, Callable[[Request], Session]] = {
        "cuda": CudaSession,
        "numba": NumbaSession,
    }
    begin = time.perf_counter()
    unit = min(UNIT, chosen.seeds)
    engine: Any = UnitEngine(problem, threads, sessions[chosen.backend], chosen.ngpus, unit)
    session = engine._session
    propagator = getattr(session, "_propagator", None) or session.tracker.seed_propagator
    engine.track(SeedBatch(0, seeds[:unit]))  # compiles everything
    ready = time.perf_counter() - begin
    raw = propagator.propagate = Clock(propagator.propagate)
    run = session.run = Clock(session.run)
    cut = Clock(engine._cut)
    walked = np.zeros(2, int)

    def counted(points: Any, lengths: Any, starts: Any) -> Any:
        first, stop, stops = cut(points, lengths, starts)
        walked[:] += lengths.sum(), (stop - first).sum()
        return first, stop, stops

    engine._cut = counted
    seconds, ours = timed(engine.track, seeds, 4 * UNIT)
    row(f"cuda ({chosen.backend})", seconds, len(seeds), ours)
    cpu = CpuEngine(problem, threads)
    cpu.track(SeedBatch(0, seeds[:1000]))
    cpu_seconds, theirs = timed(cpu.track, seeds, 50_000)
    row("cpu", cpu_seconds, len(seeds), theirs)
    some = seeds[: chosen.dipy_seeds]
    dipy_seconds, dipys = timed(DipyEngine(problem, threads).track, some, 10_000)
    row("dipy", dipy_seconds, len(some), dipys)

    print(f"\nraw cuslines {raw.seconds:.2f} s; the adapter adds {seconds - raw.seconds:.2f} s "
          f"({(seconds / raw.seconds - 1):.2%}): taking over {run.seconds - raw.seconds:.2f}, "
          f"cutting {cut.seconds:.2f}. Start with compilation: {ready:.1f} s. "
          f"{1 - walked[1] / walked[0]:.1%} of the points lay beyond the ends.")  # fmt: skip
    print(f"like the cpu engine: {likeness(ours, theirs, fod.grid)}")
    _, again = timed(CpuEngine(replace(problem, rng_seed=2), threads).track, seeds, 50_000)
    print(f"cpu engine like itself with another rng_seed: {likeness(again, theirs, fod.grid)}")


if __name__ == "__main__":
    main()

"""Whether our engine makes the distribution of streamlines that DIPY makes.

    python benchmarks/parity.py [OUTPUT_RUN] [--algorithm prob|det] [--seeds N] [--below FA]

``OUTPUT_RUN`` is as in ``benchmarks/tracking.py``; without one it is the phantom. Every tracker
gets the same fODF, seeds, initial directions, stop map, step, angle and cut-off, and tracks twice
with other random numbers; streamlines of any end up to the maximal length are kept. ``dipy``
interpolates harmonics, as the engine of that name; ``dipy, sampled`` interpolates amplitudes
sampled beforehand, negative ones zero, as ours does. ``cuslines`` is its numba back end below our
CUDA engine.

Densities count the streamlines with a point in each voxel; r is Pearson's over the voxels with
any streamline, the mean of the pairs of runs.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from itertools import combinations, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from dipy.direction.pmf import SimplePmfGen
from tracking import ANGLE_DEG, CUTOFF, MAX_MM, STEP_MM, STOP_BELOW, read_problem, write_problem

from bids_tractography.config.tracking import TrackingConfig
from bids_tractography.core.fodf import Fodf
from bids_tractography.core.images import Grid
from bids_tractography.core.seeding import SeedBatch
from bids_tractography.core.stopping import ThresholdRule
from bids_tractography.tracking.base import TrackingProblem
from bids_tractography.tracking.cpu.engine import CpuEngine
from bids_tractography.tracking.cuda.cuslines import NumbaSession
from bids_tractography.tracking.cuda.engine import UnitEngine
from bids_tractography.tracking.dipy import DipyEngine

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
REFERENCE = "dipy"
RUNS = 2
_BATCH = 10_000


@dataclass(frozen=True, eq=False)
class Made:
    """Streamlines of one run.

    Parameters
    ----------
    density : ndarray, shape (X * Y * Z,)
    lengths_mm : ndarray, shape (T,)
    """

    density: np.ndarray
    lengths_mm: np.ndarray


Lines = Iterator[tuple[np.ndarray, np.ndarray]]  # points in mm, offsets


def measure(lines: Lines, grid: Grid) -> Made:
    """Count streamlines in voxels, and measure them."""
    density, lengths = np.zeros(grid.shape), []
    for points, offsets in lines:
        n_points = np.diff(offsets)
        voxels = np.rint(grid.to_voxels(points)).astype(int)
        flat = np.ravel_multi_index(tuple(voxels.T), grid.shape, mode="clip")
        visits = np.repeat(np.arange(len(n_points)), n_points) * density.size + flat
        np.add.at(density.reshape(-1), np.unique(visits) % density.size, 1)
        lengths.append((n_points - 1) * STEP_MM)
    return Made(density.ravel(), np.concatenate(lengths))


def in_batches(engine: Any, seeds: np.ndarray) -> Lines:
    """Track with an engine of ours."""
    for first in range(0, len(seeds), _BATCH):
        batch = engine.track(SeedBatch(first, seeds[first : first + _BATCH]))
        batch.counts.check()
        yield batch.points_mm, batch.offsets


def sampled(engine: DipyEngine) -> DipyEngine:
    """Give DIPY amplitudes instead of harmonics."""
    dense = np.maximum(engine._sh @ engine._basis.T, 0)
    engine._pmf = SimplePmfGen(dense, SimpleNamespace(vertices=engine._vertices))
    return engine


def trackers(algorithm: str) -> dict[str, Callable[[TrackingProblem, np.ndarray, int], Lines]]:
    """Name what can track here."""
    found: dict[str, Any] = {"ours": lambda p, s, n: in_batches(CpuEngine(p, n), s)}
    found["dipy"] = lambda p, s, n: in_batches(DipyEngine(p, n), s)
    found["dipy, sampled"] = lambda p, s, n: in_batches(sampled(DipyEngine(p, n)), s)
    if algorithm == "prob" and find_spec("cuslines"):
        found["cuslines"] = lambda p, s, n: in_batches(UnitEngine(p, n, NumbaSession, 1), s)
    return found


def correlation(one: list[Made], other: list[Made]) -> str:
    """Mean over the pairs of runs."""
    pairs = combinations(one, 2) if one is other else product(one, other)
    found = []
    for here, there in pairs:
        visited = (here.density > 0) | (there.density > 0)
        found.append(np.corrcoef(here.density[visited], there.density[visited])[0, 1])
    return f"{np.mean(found):.3f}"


def mean_and_quantiles(made: list[Made]) -> list[float]:
    """Summarise the lengths of all runs, in mm."""
    lengths = np.concatenate([run.lengths_mm for run in made])
    return [float(lengths.mean()), *map(float, np.quantile(lengths, QUANTILES))]


def row(name: str, made: list[Made], all_made: dict[str, list[Made]]) -> str:
    """Compare the runs of one tracker with the others."""
    cells = [name, " / ".join(str(len(run.lengths_mm)) for run in made)]
    cells += [f"{length:.1f}" for length in mean_and_quantiles(made)]
    cells += [correlation(made, all_made[other]) for other in all_made]
    return f"| {' | '.join(cells)} |"


def differences(name: str, one: list[Made], other: list[Made]) -> str:
    """Length quantiles of one beside another, in %."""
    pairs = zip(mean_and_quantiles(one), mean_and_quantiles(other), strict=True)
    cells = [f"{here / there - 1:+.1%}" if there else "" for here, there in pairs]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?")
    parser.add_argument("--algorithm", choices=("prob", "det"), default="prob")
    parser.add_argument("--seeds", type=int, default=20_000)
    parser.add_argument("--below", type=float, default=STOP_BELOW)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        what = write_problem(given.run, Path(name), given.seeds, given.below)
        fod, stop, seeds, grid = read_problem(Path(name))
    rule = ThresholdRule(stop, given.below)
    tracking = TrackingConfig(
        algorithm={"kind": given.algorithm, "step_size_mm": STEP_MM, "max_angle_deg": ANGLE_DEG,
                   "pmf_threshold": CUTOFF},
        min_length_mm=0, max_length_mm=MAX_MM, dead_ends="keep",
    )  # fmt: skip
    threads = len(os.sched_getaffinity(0))
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("dipy", "numba"))
    print(
        f"{what}; {given.algorithm}, {given.seeds} seeds, step {STEP_MM} mm, {ANGLE_DEG} degrees, "
        f"stop below {given.below}; Python {platform.python_version()}, {versions}.\n"
    )
    made: dict[str, list[Made]] = {}
    for place, (name, track) in enumerate(trackers(given.algorithm).items()):
        begin = time.perf_counter()
        made[name] = []
        for rng_seed in range(1 + RUNS * place, 1 + RUNS * (place + 1)):
            problem = TrackingProblem(Fodf(fod, grid), rule, tracking, rng_seed)
            made[name].append(measure(track(problem, seeds, threads), grid))
        print(f"{name}: {time.perf_counter() - begin:.0f} s", flush=True)
    marks = " | ".join(f"{quantile:.0%}" for quantile in QUANTILES)
    names = " | ".join(f"r with {name}" for name in made)
    print(f"\n| | kept | mean (mm) | {marks} | {names} |\n|{'---|' * (8 + len(made))}")
    for name, runs in made.items():
        print(row(name, runs, made))
    print(f"\n| length | mean | {marks} |\n|{'---|' * 7}")
    for name, runs in made.items():
        print(differences(f"{name}, its second run", runs[1:], runs[:1]))
        if name != REFERENCE:
            print(differences(f"{name} beside {REFERENCE}", runs, made[REFERENCE]))


if __name__ == "__main__":
    main()

"""Time of our own kernels from one state of the code to the next.

    make bench

Every run is kept in ``.benchmarks`` and shown beside the one before it. One thread, on the phantom
(2.5 mm, two shells). Speed beside other programs is `tracking.py`'s and `csd_beside_peers.py`'s.
"""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bids_tractography.config.model import (
    CsdModelConfig,
    ModelConfig,
    MsmtCsdModelConfig,
    TensorMapsConfig,
)
from bids_tractography.config.tracking import RandomSeedsConfig, TrackingConfig
from bids_tractography.core.dwi import Dwi
from bids_tractography.core.fodf import Fodf
from bids_tractography.core.gradients import Gradients
from bids_tractography.core.images import Grid
from bids_tractography.core.seeding import SeedBatch, SeedList
from bids_tractography.core.stopping import ActRule, StoppingRule, ThresholdRule
from bids_tractography.core.streamlines import StreamlineBatch
from bids_tractography.phantom import ScanGrid, make_phantom, voxelise
from bids_tractography.phantom.scan import TWO_SHELLS, simulate_dwi
from bids_tractography.reconst import fit_model
from bids_tractography.reconst.tensor import fit_tensor
from bids_tractography.tracking.base import Engine, TrackingProblem
from bids_tractography.tracking.cpu.engine import CPU

MODELS: dict[str, ModelConfig] = {"csd": CsdModelConfig(), "msmt_csd": MsmtCsdModelConfig()}
SEEDS = 4000
FEWER = {"ptt": 100}
ROUNDS = 7


@cache
def scan() -> tuple[Dwi, np.ndarray, np.ndarray]:
    """Return a noisy DWI, its brain mask, and fractions (X, Y, Z, 3) of WM, GM and CSF."""
    grid = ScanGrid()
    voxels = voxelise(make_phantom(), grid)
    clean = simulate_dwi(voxels, TWO_SHELLS)
    real, imaginary = np.random.default_rng(0).normal(0, 20, (2, *clean.shape))
    signals = np.hypot(clean + real, imaginary)
    gradients = Gradients(TWO_SHELLS.bvals_s_mm2, TWO_SHELLS.directions, 50, "auto")
    data = signals.reshape(*grid.shape, -1).astype(np.float32)
    tissue = voxels.tissue.reshape(*grid.shape, 3).astype(np.float32)
    brain = np.asarray(tissue.any(axis=3))
    return Dwi(data, Grid(grid.shape, grid.affine), gradients), brain, tissue


@cache
def fodf() -> Fodf:
    """Return what is tracked on."""
    dwi, mask, _ = scan()
    tensor = fit_tensor(dwi, mask, TensorMapsConfig(), 1)
    return Fodf(fit_model(dwi, mask, tensor, CsdModelConfig(), 1).coefficients, dwi.grid)


def seeds(count: int) -> SeedBatch:
    """Return seeds in white matter."""
    dwi, _, tissue = scan()
    return SeedList(RandomSeedsConfig(per_voxel=1), tissue[..., 0] > 0.5, dwi.grid, 1).batch(
        0, count
    )


def test_fit_tensor(benchmark: BenchmarkFixture) -> None:
    dwi, mask, _ = scan()
    benchmark.pedantic(
        fit_tensor, (dwi, mask, TensorMapsConfig(), 1), rounds=ROUNDS, warmup_rounds=1
    )


@pytest.mark.parametrize("name", MODELS)
def test_fit_model(benchmark: BenchmarkFixture, name: str) -> None:
    dwi, mask, _ = scan()
    fit = partial(
        fit_model, dwi, mask, fit_tensor(dwi, mask, TensorMapsConfig(), 1), MODELS[name], 1
    )
    benchmark.pedantic(fit, rounds=3, warmup_rounds=1)


def test_place_seeds(benchmark: BenchmarkFixture) -> None:
    dwi, mask, _ = scan()
    place = SeedList(RandomSeedsConfig(per_voxel=20), mask, dwi.grid, 1)
    benchmark.pedantic(place.batch, (0, len(place)), rounds=ROUNDS, warmup_rounds=1)


def make_engine(kind: str) -> Engine:
    tissue = scan()[2]
    rule: StoppingRule = ThresholdRule(tissue[..., 0], 0.3)
    if kind == "pft":
        rule = ActRule(tissue[..., 1], tissue[..., 2])
    return CPU.build(TrackingProblem(fodf(), rule, TrackingConfig(algorithm=kind), 1), 1)


@pytest.mark.parametrize("kind", sorted(CPU.algorithms))
def test_track(benchmark: BenchmarkFixture, kind: str) -> None:
    engine, from_seeds = make_engine(kind), seeds(FEWER.get(kind, SEEDS))
    batch: StreamlineBatch = benchmark.pedantic(
        engine.track, (from_seeds,), rounds=ROUNDS, warmup_rounds=1
    )
    benchmark.extra_info["points"] = len(batch.points_mm)


def test_build_engine(benchmark: BenchmarkFixture) -> None:
    fodf()
    benchmark.pedantic(make_engine, ("prob",), rounds=ROUNDS, warmup_rounds=1)

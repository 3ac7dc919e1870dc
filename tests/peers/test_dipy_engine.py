"""The DIPY engine against DIPY used directly where both mean the same."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from dipy.core.interpolation import trilinear_interpolate4d
from dipy.data import default_sphere
from dipy.direction.peaks import peak_directions
from dipy.tracking.stopping_criterion import BinaryStoppingCriterion, ThresholdStoppingCriterion
from dipy.tracking.tracker import deterministic_tracking, probabilistic_tracking
from fields import (
    VERTICES,
    X,
    cube,
    isotropic,
    lobes,
    make_engine,
    nonzero,
    ragged,
    random_map,
    streamlines,
    track,
)

from bids_tractography.core.fodf import sh_basis
from bids_tractography.core.images import Grid
from bids_tractography.core.stopping import BinaryRule, StoppingRule, ThresholdRule
from bids_tractography.tracking.dipy import DIPY, _dipy_seed

build = partial(make_engine, DIPY)


def dipy_peaks(coefficients: Any, voxels: Any) -> tuple[Any, Any]:
    """Return for each seed with a peak its row and largest peak, as DIPY finds it."""
    basis = sh_basis(8, VERTICES)
    rows, directions = [], []
    for row, point in enumerate(voxels):
        values = basis @ trilinear_interpolate4d(coefficients, point)
        if values.max() <= 0:
            continue
        rows.append(row)
        directions.append(peak_directions(values, default_sphere)[0][0])
    return np.array(rows), np.array(directions)


RULES: dict[str, Callable[[Any], tuple[StoppingRule, Any]]] = {
    "threshold": lambda where: (
        ThresholdRule(where.astype(np.float32), 0.37),
        ThresholdStoppingCriterion(where.astype(np.float64), 0.37),
    ),
    "binary": lambda where: (BinaryRule(where > 0.3), BinaryStoppingCriterion(where > 0.3)),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("max_angle", "pmf_threshold", "size"),
    [(30, 0.1, (2, 2, 2)), (45, 0.0, (2, 2, 2)), (20, 0.3, (1, 2, 4))],
)
@pytest.mark.parametrize("kind", ["prob", "det"])
def test_streamlines_kept_are_those_that_dipy_calls_valid(
    kind: str, rule: str, max_angle: float, pmf_threshold: float, size: Any
) -> None:
    grid = Grid((12, 12, 12), np.diag([*size, 1.0]))  # exact in binary, as DIPY's keys are
    coefficients = np.ascontiguousarray(ragged(grid), np.float32).astype(float)
    ours, criterion = RULES[rule](random_map(grid))
    voxels = np.random.default_rng(1).uniform(-0.5, 11.5, (130, 3))
    algorithm = {"kind": kind, "max_angle_deg": max_angle, "pmf_threshold": pmf_threshold}
    rows, directions = dipy_peaks(coefficients, voxels)
    reference: dict[bool, list[Any]] = {}
    for everything in (False, True):
        made = {"prob": probabilistic_tracking, "det": deterministic_tracking}[kind](
            voxels[rows] * size,
            criterion,
            grid.stored_affine,
            seed_directions=directions,
            sh=coefficients,
            basis_type="tournier07",
            legacy=False,
            min_len=0,
            max_len=2000,
            step_size=0.5,
            max_angle=max_angle,
            pmf_threshold=pmf_threshold,
            random_seed=_dipy_seed(1, grid.shape),
            return_all=everything,
            nbr_threads=1,
        )
        reference[everything] = list(made)
    for dead_ends, everything in (("drop", False), ("keep", True)):
        engine = build(grid, coefficients, ours, algorithm=algorithm, dead_ends=dead_ends)
        batch = track(engine, voxels * size)
        assert batch.counts.generated == len(rows)
        assert batch.counts.seeds_without_direction == 130 - len(rows)
        assert len(batch) == len(reference[everything])
        for one, other in zip(streamlines(batch), reference[everything], strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=2e-6)
    dead = len(reference[True]) - len(reference[False])
    assert dead > 8
    assert len(reference[False]) > 8
    assert len(rows) < 130


@pytest.mark.parametrize("rule", RULES)
def test_cropping_to_the_stop_mask_changes_no_streamline(rule: str) -> None:
    grid = cube(14, 2.0)
    coefficients = np.ascontiguousarray(ragged(grid), np.float32).astype(float)
    where = random_map(grid) * 0
    where[3:11, 4:11, 5:12] = random_map(grid)[3:11, 4:11, 5:12]
    ours, criterion = RULES[rule](where)
    voxels = np.random.default_rng(1).uniform([3, 4, 5], [10, 10, 11], (200, 3))
    rows, directions = dipy_peaks(coefficients, voxels)
    expected = list(
        deterministic_tracking(
            voxels[rows] * 2.0, criterion, grid.stored_affine, seed_directions=directions,
            sh=coefficients, basis_type="tournier07", legacy=False, min_len=0, max_len=2000,
            step_size=0.5, max_angle=30, pmf_threshold=0.1, random_seed=1, return_all=False,
        )
    )  # fmt: skip
    batch = track(build(grid, coefficients, ours), voxels * 2.0)
    assert len(batch) == len(expected) > 30
    for one, other in zip(streamlines(batch), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def test_streamlines_beyond_the_buffer_of_dipy_are_counted_and_leave_the_others_in_place() -> None:
    grid = cube(20)
    centres = np.indices(grid.shape).reshape(3, -1).T - [9.5, 9.5, 9.5]
    tangents = np.stack([-centres[:, 1], centres[:, 0], 0 * centres[:, 2]], axis=1)
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    coefficients = lobes(tangents).reshape(*grid.shape, 45)
    coefficients[:, :, 12:] = lobes(X)
    seeds = [[15.5, 9.5, 5.0], [9, 9, 16.0], [4.0, 9.5, 5.0], [15.5, 9.5, 5.0], [9, 8, 16.0]]
    batch = track(build(grid, coefficients, max_length_mm=25), seeds, first=100)
    assert batch.seed_index.tolist() == [101, 104]
    assert nonzero(batch.counts.rejected) == {"too_long": 3}
    assert nonzero(batch.counts.stops) == {"max_length": 6, "image_border": 4}


def distinct_ways(lines: list[Any], seeds: Any) -> int:
    """Count distinct sequences of the first steps from the seeds."""
    ways = set()
    for line, seed in zip(lines, seeds, strict=True):
        start = int(np.linalg.norm(line - seed, axis=1).argmin())
        steps = np.diff(line[start : start + 7], axis=0)
        assert len(steps) == 6
        ways.add(tuple(np.rint(steps.ravel() * 100)))
    return len(ways)


def test_2000_jittered_seeds_at_rng_seed_1_have_distinct_streams_unlike_in_dipy_alone() -> None:
    grid = cube(40)
    seeds = np.random.default_rng(7).uniform(18, 22, (2000, 3))
    box = np.zeros(grid.shape, bool)
    box[4:37, 4:37, 4:37] = True
    algorithm = {"kind": "prob", "max_angle_deg": 60, "step_size_mm": 2}
    engine = build(
        grid, isotropic(grid), BinaryRule(box), algorithm=algorithm, dead_ends="keep", threads=2
    )
    keys = (seeds - 3) @ [2.0, 3.0, 5.0]  # the engine crops to the box
    states = {int(key * _dipy_seed(1, (35, 35, 35))) for key in keys}
    assert max(states) < 2**32  # beyond, processors differ
    assert len(states) > 1990
    assert len({int(key) for key in keys}) < 100  # DIPY's own states at seed 1
    batch = track(engine, seeds)
    assert batch.seed_index.tolist() == list(range(2000))
    assert distinct_ways(streamlines(batch), seeds) > 1990
    alone = probabilistic_tracking(
        seeds, BinaryStoppingCriterion(box), np.eye(4),
        seed_directions=np.tile(VERTICES[:1], (2000, 1)), sh=isotropic(grid),
        basis_type="tournier07", legacy=False, min_len=0, max_len=1000, step_size=2,
        max_angle=60, random_seed=1, return_all=True, nbr_threads=2,
    )  # fmt: skip
    assert distinct_ways(list(alone), seeds) < 100


def test_rng_seeds_are_spread_over_those_that_dipy_can_use() -> None:
    rng_seeds = [*range(2000), 2**31 - 1, 2**31, 2**32, 2**53 - 1]
    mapped = [_dipy_seed(seed, (145, 174, 145)) for seed in rng_seeds]
    assert all(10**6 <= seed < 2**31 for seed in mapped)
    assert max(mapped) * (2 * 145 + 3 * 174 + 5 * 145) <= 2**32
    assert len(set(mapped)) > len(mapped) - 5
    assert np.corrcoef(mapped[:1999], mapped[1:2000])[0, 1] == pytest.approx(0, abs=0.1)

"""What every engine promises, against closed forms."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
from fields import (
    CENTRE,
    GEOMETRIES,
    X,
    affine_of,
    along_x,
    bits,
    cube,
    curved,
    everywhere,
    in_file_order,
    isotropic,
    lobes,
    make_engine,
    nonzero,
    ragged,
    random_map,
    slab,
    stored_as,
    streamlines,
    track,
    vertex_near,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bids_tractography.config.tracking import TrackingConfig
from bids_tractography.core.fodf import peak_amplitudes
from bids_tractography.core.images import Grid
from bids_tractography.core.stopping import BinaryRule, FodRule, StoppingRule, ThresholdRule
from bids_tractography.core.streamlines import Counts, Rejection, Stop, StreamlineBatch
from bids_tractography.tracking import ENGINES
from bids_tractography.tracking.base import Engine

Build = Callable[..., Engine]


BUILDS = {name: partial(make_engine, kind) for name, kind in ENGINES.items()}


@pytest.fixture(params=ENGINES)
def build(request: pytest.FixtureRequest) -> Build:
    missing = ENGINES[request.param].unavailable(TrackingConfig())
    if missing:
        pytest.skip(f"{request.param}: {missing}")
    return BUILDS[request.param]


@pytest.mark.parametrize("codes", ["RAS", "LAS", "PIR"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_det_streamlines_run_along_a_known_oblique_direction_in_mm(
    build: Build, geometry: str, codes: str
) -> None:
    shape, size, turn = GEOMETRIES[geometry]
    grid = stored_as(codes, shape, affine_of(size, turn, shape))
    direction = vertex_near([0.48, -0.6, 0.64])
    coefficients = in_file_order(grid, lambda mm: np.broadcast_to(direction, mm.shape))
    engine = build(grid, coefficients, algorithm={"kind": "det", "step_size_mm": 0.4})
    batch = track(engine, np.random.default_rng(0).uniform([0, -5, 2], [6, 1, 8], (20, 3)))
    assert len(batch) == 20
    for line in streamlines(batch):
        steps = np.diff(line, axis=0)
        assert len(steps) > 30
        sign = np.sign(steps[0] @ direction)
        np.testing.assert_allclose(steps, np.broadcast_to(sign * 0.4 * direction, steps.shape),
                                   atol=2e-5)  # fmt: skip
    assert nonzero(batch.counts.stops) == {"image_border": 40}


@pytest.mark.parametrize("codes", ["RAS", "PIL"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_prob_streamlines_run_along_the_bundle_on_average_with_steps_of_the_size_asked_for(
    build: Build, geometry: str, codes: str
) -> None:
    shape, size, turn = GEOMETRIES[geometry]
    grid = stored_as(codes, shape, affine_of(size, turn, shape))
    direction = vertex_near([-0.7, 0.2, 0.69])
    coefficients = in_file_order(grid, lambda mm: np.broadcast_to(direction, mm.shape))
    engine = build(
        grid, coefficients, algorithm={"kind": "prob", "step_size_mm": 0.5, "max_angle_deg": 20}
    )
    batch = track(engine, np.random.default_rng(0).uniform([0, -5, 2], [6, 1, 8], (100, 3)))
    assert len(batch) > 90
    ends = []
    for line in streamlines(batch):
        steps = np.diff(line, axis=0)
        np.testing.assert_allclose(np.linalg.norm(steps, axis=1), 0.5, atol=2e-5)
        way = line[-1] - line[0]
        ends.append(way * np.sign(way @ direction))
    mean = np.sum(ends, axis=0)
    assert mean @ direction / np.linalg.norm(mean) > np.cos(np.deg2rad(3))


@pytest.mark.parametrize("codes", ["LAS", "PIR"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_det_streamlines_of_a_head_do_not_depend_on_how_it_is_stored(
    build: Build, geometry: str, codes: str
) -> None:
    shape, size, turn = GEOMETRIES[geometry]
    affine = affine_of(size, turn, shape)
    positions = np.random.default_rng(0).uniform([-8, -10, -4], [14, 6, 14], (40, 3))
    here, there = (
        track(build(grid, in_file_order(grid, curved), max_directions=2), positions)
        for grid in (stored_as("RAS", shape, affine), stored_as(codes, shape, affine))
    )
    assert len(here) > 20
    assert here.counts == there.counts
    np.testing.assert_array_equal(here.offsets, there.offsets)
    np.testing.assert_allclose(here.points_mm, there.points_mm, rtol=0, atol=1e-3)


def ragged_engine(build: Build, threads: int = 1, rng_seed: int = 1) -> Engine:
    shape = (12, 12, 12)
    grid = stored_as("LPS", shape, affine_of([1.8, 2.0, 2.6], [8, -12, 20], shape))
    return build(
        grid,
        ragged(grid),
        ThresholdRule(random_map(grid), 0.37),
        algorithm="prob",
        max_directions=2,
        dead_ends="keep",
        threads=threads,
        rng_seed=rng_seed,
    )


RAGGED_SEEDS = np.random.default_rng(3).uniform(-14, 16, (400, 3))


def test_the_number_of_threads_changes_no_bit(build: Build) -> None:
    one, two, three = (track(ragged_engine(build, threads), RAGGED_SEEDS) for threads in (1, 2, 3))
    assert len(one) > 200
    assert bits(one) == bits(two) == bits(three)


def test_what_was_tracked_before_changes_no_bit(build: Build) -> None:
    engine = ragged_engine(build, 2)
    first = track(engine, RAGGED_SEEDS)
    track(engine, RAGGED_SEEDS[::-3] + 0.1)
    assert bits(track(engine, RAGGED_SEEDS)) == bits(first)


@cache
def whole(build: Build) -> tuple[Engine, StreamlineBatch]:
    engine = ragged_engine(build, 2)
    return engine, track(engine, RAGGED_SEEDS)


@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(size=st.integers(20, 400))
def test_any_slicing_into_batches_changes_no_bit(build: Build, size: int) -> None:
    engine, expected = whole(build)
    parts = [
        track(engine, RAGGED_SEEDS[first : first + size], first) for first in range(0, 400, size)
    ]
    counts = Counts()
    for part in parts:
        counts = counts + part.counts
    assert counts == expected.counts
    for name in ("points_mm", "seed_index", "stops"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        assert joined.tobytes() == getattr(expected, name).tobytes()
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    assert lengths.tolist() == np.diff(expected.offsets).tolist()


def test_every_streamline_passes_through_the_seed_that_it_names(build: Build) -> None:
    batch = track(ragged_engine(build, 2), RAGGED_SEEDS, first=5000)
    assert batch.seed_index.min() >= 5000
    assert (np.diff(batch.seed_index) >= 0).all()
    assert (np.diff(batch.seed_index) == 0).any()  # some seeds have two directions
    for line, seed in zip(streamlines(batch), batch.seed_index, strict=True):
        gaps = np.linalg.norm(line - RAGGED_SEEDS[seed - 5000], axis=1)
        assert gaps.min() < 1e-4


def test_a_bundle_that_leaves_the_image_ends_at_the_image_border_and_is_kept(build: Build) -> None:
    grid, coefficients = along_x()
    batch = track(build(grid, coefficients), CENTRE)
    assert nonzero(batch.counts.stops) == {"image_border": 2}
    assert len(batch) == 1
    x = batch.points_mm[:, 0]
    assert min(x) < 0.01
    assert max(x) > 18.99


def test_a_bundle_that_leaves_the_stop_mask_ends_by_the_stopping_rule_and_is_kept(
    build: Build,
) -> None:
    grid, coefficients = along_x()
    batch = track(build(grid, coefficients, slab(grid, 5, 14)), CENTRE)
    assert nonzero(batch.counts.stops) == {"stopping_rule": 2}
    assert len(batch) == 1
    x = batch.points_mm[:, 0]
    assert 4.5 <= min(x) < 5.01
    assert 13.99 < max(x) <= 14.5


def test_a_threshold_rule_ends_streamlines_where_the_interpolated_map_crosses_it(
    build: Build,
) -> None:
    grid, coefficients = along_x()
    ramp = np.broadcast_to(np.arange(20.0)[:, None, None] / 20, grid.shape)
    rule = ThresholdRule(ramp.astype(np.float32), 0.2625)  # crossed at x = 5.25
    batch = track(build(grid, coefficients, rule), CENTRE)
    assert nonzero(batch.counts.stops) == {"stopping_rule": 1, "image_border": 1}
    assert 5.25 < batch.points_mm[:, 0].min() <= 5.25 + 0.5 * abs(X[0])


@pytest.mark.parametrize("dead_ends", ["drop", "keep"])
def test_a_bundle_that_fades_inside_the_stop_mask_is_a_dead_end(
    build: Build, dead_ends: str
) -> None:
    grid, coefficients = along_x()
    coefficients[13:] = 0
    batch = track(build(grid, coefficients, dead_ends=dead_ends), CENTRE)
    assert nonzero(batch.counts.stops) == {"image_border": 1, "no_direction": 1}
    dropped = dead_ends == "drop"
    assert nonzero(batch.counts.rejected) == ({"dead_end": 1} if dropped else {})
    assert len(batch) == (0 if dropped else 1)
    if not dropped:
        assert 13 <= batch.points_mm[:, 0].max() < 13.5


def test_a_bundle_that_bends_more_than_the_cone_allows_is_a_dead_end(build: Build) -> None:
    grid, coefficients = along_x()
    coefficients[10:] = lobes(vertex_near([0, 1, 0]))
    batch = track(build(grid, coefficients, algorithm={"kind": "det", "max_angle_deg": 15},
                              dead_ends="keep"), [4.2, 9.6, 9.8])  # fmt: skip
    assert nonzero(batch.counts.stops) == {"image_border": 1, "angle": 1}
    assert 9 < batch.points_mm[:, 0].max() < 10.6


def test_a_bundle_that_runs_in_a_circle_is_too_long(build: Build) -> None:
    grid = cube(20)
    centres = np.indices(grid.shape).reshape(3, -1).T - [9.5, 9.5, 9.5]
    tangents = np.stack([-centres[:, 1], centres[:, 0], 0 * centres[:, 2]], axis=1)
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    coefficients = lobes(tangents).reshape(*grid.shape, 45)
    engine = build(grid, coefficients, max_length_mm=60)
    batch = track(engine, [[15.5, 9.5, 9.0], [9.5, 4.0, 9.0]])
    assert nonzero(batch.counts.rejected) == {"too_long": 2}
    assert nonzero(batch.counts.stops) == {"max_length": 4}
    assert len(batch) == 0


def length_without_bounds(
    build: Build, rule: StoppingRule, grid: Grid, coefficients: Any, step: float
) -> int:
    algorithm = {"kind": "det", "step_size_mm": step}
    batch = track(build(grid, coefficients, rule, algorithm=algorithm), CENTRE)
    return len(batch.points_mm)


@pytest.mark.parametrize("step", [0.5, 0.1, 0.7, 0.45, 0.55])  # 21 x 0.45 / 0.45 < 21
def test_bounds_of_the_length_are_inclusive(build: Build, step: float) -> None:
    grid, coefficients = along_x()
    rule = slab(grid, 5, 14)
    n_points = length_without_bounds(build, rule, grid, coefficients, step)
    length_mm = (n_points - 1) * step
    assert 9.5 - 2 * step < length_mm < 10.5

    def rejected(**bounds: float) -> dict[str, int]:
        algorithm = {"kind": "det", "step_size_mm": step}
        engine = build(grid, coefficients, rule, algorithm=algorithm, **bounds)
        return nonzero(track(engine, CENTRE).counts.rejected)

    decimal = round(length_mm, 6)
    assert rejected(min_length_mm=decimal) == {}
    assert rejected(max_length_mm=decimal) == {}
    assert rejected(min_length_mm=decimal, max_length_mm=decimal) == {}
    assert rejected(min_length_mm=decimal + 0.001) == {"too_short": 1}
    assert rejected(max_length_mm=decimal - 0.001) == {"too_long": 1}


def test_a_short_dead_end_counts_as_a_dead_end_and_a_long_one_as_too_long(build: Build) -> None:
    grid, coefficients = along_x()
    coefficients[13:] = 0
    short = build(grid, coefficients, min_length_mm=100)
    assert nonzero(track(short, CENTRE).counts.rejected) == {"dead_end": 1}
    long = build(grid, coefficients, max_length_mm=5)
    assert nonzero(track(long, CENTRE).counts.rejected) == {"too_long": 1}


def test_two_directions_at_a_crossing_give_two_streamlines_a_seed(build: Build) -> None:
    grid = cube(20)
    y = vertex_near([0, 1, 0.1])
    coefficients = everywhere(grid, X) + 0.8 * everywhere(grid, y)
    seeds = [[9, 9, 9], [8, 10, 9.5], [11, 7, 10.5]]
    batch = track(build(grid, coefficients, max_directions=2), seeds)
    assert batch.seed_index.tolist() == [0, 0, 1, 1, 2, 2]
    assert (batch.counts.seeds, batch.counts.generated) == (3, 6)
    for index, line in enumerate(streamlines(batch)):
        way = line[-1] - line[0]
        assert abs(way @ (y if index % 2 else X)) / np.linalg.norm(way) > 0.9999
    assert len(track(build(grid, coefficients, max_directions=1), seeds)) == 3


def test_seeds_outside_the_image_or_without_a_peak_are_seeds_without_direction(
    build: Build,
) -> None:
    grid, coefficients = along_x()
    coefficients[:, :, 15:] = 0
    coefficients[:, :5] = -isotropic(grid)[:, :5]
    seeds = [[-0.6, 9, 9], CENTRE, [9, 9, 19.6], [500, 0, 0], [9, 9, 17], [9, 2, 9]]
    batch = track(build(grid, coefficients), seeds, first=10)
    assert batch.counts.seeds == 6
    assert batch.counts.seeds_without_direction == 5
    assert batch.counts.generated == 1
    assert batch.seed_index.tolist() == [11]


def test_a_seed_away_from_the_stop_mask_is_too_short_rather_than_without_direction(
    build: Build,
) -> None:
    grid, coefficients = along_x()
    engine = build(grid, coefficients, slab(grid, 5, 14), min_length_mm=5)
    counts = track(engine, [[2.0, 9, 9], CENTRE]).counts
    assert counts.seeds_without_direction == 0
    assert nonzero(counts.rejected) == {"too_short": 1}


def test_no_seeds_and_seeds_that_lead_nowhere_give_an_empty_batch(build: Build) -> None:
    grid, coefficients = along_x()
    engine = build(grid, coefficients * 0)
    assert track(engine, [CENTRE, CENTRE]).counts == Counts(seeds=2, seeds_without_direction=2)
    assert track(engine, np.empty((0, 3))).counts == Counts()


def test_a_stopping_rule_that_lets_nothing_through_is_refused(build: Build) -> None:
    grid, coefficients = along_x()
    with pytest.raises(ValueError, match="no voxel"):
        build(grid, coefficients, BinaryRule(np.zeros(grid.shape, bool)))


def test_rng_seed_0_is_reproducible_although_0_means_the_clock_to_dipy(build: Build) -> None:
    zero, again = (track(ragged_engine(build, rng_seed=0), RAGGED_SEEDS) for _ in range(2))
    assert bits(zero) == bits(again)
    assert zero.points_mm.tobytes() != whole(build)[1].points_mm.tobytes()


def test_no_count_is_lost_over_all_reasons(build: Build) -> None:
    counts = whole(build)[1].counts
    assert counts.seeds == 400
    assert counts.generated == counts.kept + sum(counts.rejected.values())
    assert 2 * counts.generated == sum(counts.stops.values())
    reached = {Stop.STOPPING_RULE, Stop.IMAGE_BORDER, Stop.ANGLE, Stop.NO_DIRECTION}
    assert {reason for reason, n in counts.stops.items() if n} == reached
    assert set(counts.rejected) == set(Rejection)


def peaks(coefficients: Any) -> Any:
    return peak_amplitudes(np.ascontiguousarray(coefficients, np.float32))


def test_a_stop_by_the_fodf_ends_streamlines_where_its_interpolated_peak_falls_below_a_share(
    build: Build,
) -> None:
    grid, coefficients = along_x()
    coefficients *= np.clip(np.arange(20.0) / 20, 0, 1)[:, None, None, None]
    peak = peaks(coefficients)
    rule = FodRule(peak, 0.2625 * 20 / 19 * float(peak[19, 0, 0]))  # crossed at x = 5.25
    batch = track(build(grid, coefficients, rule), CENTRE)
    assert nonzero(batch.counts.stops) == {"stopping_rule": 1, "image_border": 1}
    assert 5.25 < batch.points_mm[:, 0].min() <= 5.25 + 0.5 * abs(X[0])


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_a_stop_by_the_fodf_does_not_depend_on_the_scale_of_the_data(
    build: Build, scale: float
) -> None:
    grid = cube(12, 2.0)
    coefficients = ragged(grid)
    made = []
    for factor in (1.0, scale):
        peak = peaks(factor * coefficients)
        rule = FodRule(peak, 0.5 * float(peak.max()))
        made.append(track(build(grid, factor * coefficients, rule, dead_ends="keep"), INSIDE))
    assert sum(made[0].counts.stops.values()) > made[0].counts.stops[Stop.STOPPING_RULE] > 50
    assert made[0].counts == made[1].counts
    np.testing.assert_array_equal(made[0].offsets, made[1].offsets)


INSIDE = np.random.default_rng(5).uniform(4, 18, (60, 3))


@pytest.mark.parametrize("dead_ends", ["drop", "keep"])
def test_a_bundle_that_leaves_the_data_ends_for_want_of_data_and_is_kept(
    build: Build, dead_ends: str
) -> None:
    grid, coefficients = along_x()
    coefficients[13:] = 0
    data = np.ones(grid.shape, bool)
    data[13:] = False
    batch = track(build(grid, coefficients, dead_ends=dead_ends, data=data), CENTRE)
    assert nonzero(batch.counts.stops) == {"image_border": 1, "no_data": 1}
    assert len(batch) == 1
    assert 13 <= batch.points_mm[:, 0].max() < 13.5

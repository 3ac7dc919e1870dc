"""The DIPY engine against closed forms, and against DIPY used directly where both mean the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from dipy.core.interpolation import trilinear_interpolate4d
from dipy.data import default_sphere
from dipy.direction.peaks import peak_directions
from dipy.tracking.stopping_criterion import BinaryStoppingCriterion, ThresholdStoppingCriterion
from dipy.tracking.tracker import deterministic_tracking, probabilistic_tracking
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform
from scipy.spatial.transform import Rotation

from bids_tractography.config.tracking import Tracking
from bids_tractography.images import Grid
from bids_tractography.reconst.fodf import Fodf, sh_basis
from bids_tractography.seeding import SeedBatch
from bids_tractography.stopping import BinaryRule, StoppingRule, ThresholdRule
from bids_tractography.streamlines import Counts, Rejection, Stop, StreamlineBatch
from bids_tractography.tracking.base import TrackingProblem
from bids_tractography.tracking.dipy import DipyEngine, _dipy_seed

VERTICES = default_sphere.vertices
DEGREES = np.repeat([0, 2, 4, 6, 8], [1, 5, 9, 13, 17])
# A heat kernel on the sphere: largest along its axis, and hardly negative at order 8.
BLUR = np.exp(-DEGREES * (DEGREES + 1) / 40)
WIDE: dict[str, Any] = {"min_length_mm": 0, "max_length_mm": 1000}


def vertex_near(direction: Any) -> Any:
    return VERTICES[np.abs(VERTICES @ direction).argmax()]


def lobes(directions: Any) -> Any:
    """Coefficients (..., 45) of a bundle along each direction (..., 3), by the addition theorem."""
    directions = np.asarray(directions, float)
    flat = directions.reshape(-1, 3)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    basis = sh_basis(8, flat / np.maximum(length, 1e-9))
    return (BLUR * basis * (length > 0)).reshape(*directions.shape[:-1], 45)


def cube(n: int = 20, size_mm: float = 1.0) -> Grid:
    return Grid((n, n, n), np.diag([size_mm, size_mm, size_mm, 1.0]))


def everywhere(grid: Grid, direction: Any) -> Any:
    return np.broadcast_to(lobes(direction), (*grid.shape, 45))


def make_engine(
    grid: Grid,
    coefficients: Any,
    stopping: StoppingRule | None = None,
    *,
    rng_seed: int = 1,
    threads: int = 1,
    **tracking: Any,
) -> DipyEngine:
    rule = BinaryRule(np.ones(grid.shape, bool)) if stopping is None else stopping
    fodf = Fodf(np.ascontiguousarray(coefficients, np.float32), grid)
    config = Tracking(**{**WIDE, "algorithm": "det", **tracking})
    return DipyEngine(TrackingProblem(fodf, rule, config, rng_seed), threads)


def track(engine: DipyEngine, positions_mm: Any, first: int = 0) -> StreamlineBatch:
    batch = engine.track(SeedBatch(first, np.atleast_2d(np.asarray(positions_mm, float))))
    batch.counts.check()
    assert batch.counts.kept == len(batch) == len(batch.seed_index)
    assert batch.offsets[0] == 0
    assert batch.offsets[-1] == len(batch.points_mm)
    return batch


def streamlines(batch: StreamlineBatch) -> list[Any]:
    return np.split(batch.points_mm.astype(float), batch.offsets[1:-1]) if len(batch) else []


def nonzero(counts: dict[str, int]) -> dict[str, int]:
    return {str(reason): n for reason, n in counts.items() if n}


def stored_as(codes: str, shape: Any, affine: Any) -> Grid:
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    stored = np.empty(3, int)
    stored[turn[:, 0].astype(int)] = shape
    return Grid(tuple(int(n) for n in stored), affine @ inv_ornt_aff(turn, shape))


def affine_of(size_mm: Any, turn_deg: Any, shape: Any) -> Any:
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", turn_deg, degrees=True).as_matrix()
    affine[:3, :3] = turn * size_mm
    affine[:3, 3] = [3.0, -2.0, 5.0] - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def in_file_order(grid: Grid, field: Callable[[Any], Any]) -> Any:
    """Evaluate a field of directions at the voxels as the file orders them, then read it."""
    voxels = np.indices(grid.stored_shape).reshape(3, -1).T
    directions = field(apply_affine(grid.stored_affine, voxels))
    return grid.from_stored(lobes(directions).reshape(*grid.stored_shape, 45))


GEOMETRIES = {
    "isotropic": ((16, 15, 14), [2, 2, 2], [0, 0, 0]),
    "anisotropic": ((20, 15, 10), [1.5, 2.0, 3.2], [0, 0, 0]),
    "oblique": ((16, 15, 14), [2, 2, 2], [12, -8, 25]),
    "oblique and anisotropic": ((20, 15, 10), [1.5, 2.0, 3.2], [-10, 7, 14]),
}


@pytest.mark.parametrize("codes", ["RAS", "LAS", "PIR"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_det_streamlines_run_along_a_known_oblique_direction_in_mm(
    geometry: str, codes: str
) -> None:
    shape, size, turn = GEOMETRIES[geometry]
    grid = stored_as(codes, shape, affine_of(size, turn, shape))
    direction = vertex_near([0.48, -0.6, 0.64])
    coefficients = in_file_order(grid, lambda mm: np.broadcast_to(direction, mm.shape))
    engine = make_engine(grid, coefficients, algorithm={"kind": "det", "step_size_mm": 0.4})
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
    geometry: str, codes: str
) -> None:
    shape, size, turn = GEOMETRIES[geometry]
    grid = stored_as(codes, shape, affine_of(size, turn, shape))
    direction = vertex_near([-0.7, 0.2, 0.69])
    coefficients = in_file_order(grid, lambda mm: np.broadcast_to(direction, mm.shape))
    engine = make_engine(
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


def curved(mm: Any) -> Any:
    """Return directions that turn smoothly from place to place."""
    x, y, z = np.asarray(mm).T / 15
    directions = np.stack([1 + 0.1 * x, 0.8 * np.sin(x + 0.5 * z), 0.6 * np.cos(y - x)], axis=-1)
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


@pytest.mark.parametrize("codes", ["LAS", "PIR"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_det_streamlines_of_a_head_do_not_depend_on_how_it_is_stored(
    geometry: str, codes: str
) -> None:
    shape, size, turn = GEOMETRIES[geometry]
    affine = affine_of(size, turn, shape)
    positions = np.random.default_rng(0).uniform([-8, -10, -4], [14, 6, 14], (40, 3))
    here, there = (
        track(make_engine(grid, in_file_order(grid, curved), max_directions=2), positions)
        for grid in (stored_as("RAS", shape, affine), stored_as(codes, shape, affine))
    )
    assert len(here) > 20
    assert here.counts == there.counts
    np.testing.assert_array_equal(here.offsets, there.offsets)
    np.testing.assert_allclose(here.points_mm, there.points_mm, rtol=0, atol=1e-3)


def ragged(grid: Grid, seed: int = 0) -> Any:
    """Make fODFs that differ from voxel to voxel, many of them crossings, some zero."""
    rng = np.random.default_rng(seed)
    directions = rng.normal([1.0, 0.3, 0], 0.45, (*grid.shape, 3))
    other = rng.normal(size=(*grid.shape, 3))
    coefficients = lobes(directions) + lobes(other) * rng.uniform(0, 1, (*grid.shape, 1))
    for x, y, z in ([2, 3, 7], [7, 6, 1], [5, 8, 6], [8, 2, 4]):
        coefficients[x : x + 3, y : y + 3, z : z + 3] = 0
    return coefficients


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


def random_map(grid: Grid) -> Any:
    """Map with holes, 0 to 1, and large near the border so that nothing is cropped."""
    return np.random.default_rng(9).random(grid.shape).astype(np.float32) ** 0.3


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
        engine = make_engine(grid, coefficients, ours, algorithm=algorithm, dead_ends=dead_ends)
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
    batch = track(make_engine(grid, coefficients, ours), voxels * 2.0)
    assert len(batch) == len(expected) > 30
    for one, other in zip(streamlines(batch), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def ragged_engine(threads: int = 1, rng_seed: int = 1) -> DipyEngine:
    shape = (12, 12, 12)
    grid = stored_as("LPS", shape, affine_of([1.8, 2.0, 2.6], [8, -12, 20], shape))
    return make_engine(
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


def bits(batch: StreamlineBatch) -> tuple[bytes, bytes, bytes, Counts]:
    return (
        batch.points_mm.tobytes(),
        batch.offsets.tobytes(),
        batch.seed_index.tobytes(),
        batch.counts,
    )


def test_the_number_of_threads_changes_no_bit() -> None:
    one, two, three = (track(ragged_engine(threads), RAGGED_SEEDS) for threads in (1, 2, 3))
    assert len(one) > 200
    assert bits(one) == bits(two) == bits(three)


def test_what_was_tracked_before_changes_no_bit() -> None:
    engine = ragged_engine(2)
    first = track(engine, RAGGED_SEEDS)
    track(engine, RAGGED_SEEDS[::-3] + 0.1)
    assert bits(track(engine, RAGGED_SEEDS)) == bits(first)


SLICED_ENGINE = ragged_engine(2)
WHOLE = track(SLICED_ENGINE, RAGGED_SEEDS)


@settings(max_examples=5, deadline=None)
@given(size=st.integers(20, 400))
def test_any_slicing_into_batches_changes_no_bit(size: int) -> None:
    parts = [
        track(SLICED_ENGINE, RAGGED_SEEDS[first : first + size], first)
        for first in range(0, 400, size)
    ]
    counts = Counts()
    for part in parts:
        counts = counts + part.counts
    assert counts == WHOLE.counts
    joined = [np.concatenate([getattr(p, name) for p in parts])
              for name in ("points_mm", "seed_index")]  # fmt: skip
    assert joined[0].tobytes() == WHOLE.points_mm.tobytes()
    assert joined[1].tobytes() == WHOLE.seed_index.tobytes()
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    assert lengths.tolist() == np.diff(WHOLE.offsets).tolist()


def test_every_streamline_passes_through_the_seed_that_it_names() -> None:
    batch = track(ragged_engine(2), RAGGED_SEEDS, first=5000)
    assert batch.seed_index.min() >= 5000
    assert (np.diff(batch.seed_index) >= 0).all()
    assert (np.diff(batch.seed_index) == 0).any()  # some seeds have two directions
    for line, seed in zip(streamlines(batch), batch.seed_index, strict=True):
        gaps = np.linalg.norm(line - RAGGED_SEEDS[seed - 5000], axis=1)
        assert gaps.min() < 1e-4


X = vertex_near([1, 0, 0])


def along_x(n_voxels: int = 20) -> tuple[Grid, Any]:
    grid = cube(n_voxels)
    return grid, everywhere(grid, X).copy()


def slab(grid: Grid, low: int, high: int) -> BinaryRule:
    mask = np.zeros(grid.shape, bool)
    mask[low : high + 1] = True
    return BinaryRule(mask)


CENTRE = [9.3, 9.6, 9.8]


def test_a_bundle_that_leaves_the_image_ends_at_the_image_border_and_is_kept() -> None:
    grid, coefficients = along_x()
    batch = track(make_engine(grid, coefficients), CENTRE)
    assert nonzero(batch.counts.stops) == {"image_border": 2}
    assert len(batch) == 1
    x = batch.points_mm[:, 0]
    assert min(x) < 0.01
    assert max(x) > 18.99


def test_a_bundle_that_leaves_the_stop_mask_ends_by_the_stopping_rule_and_is_kept() -> None:
    grid, coefficients = along_x()
    batch = track(make_engine(grid, coefficients, slab(grid, 5, 14)), CENTRE)
    assert nonzero(batch.counts.stops) == {"stopping_rule": 2}
    assert len(batch) == 1
    x = batch.points_mm[:, 0]
    assert 4.5 <= min(x) < 5.01
    assert 13.99 < max(x) <= 14.5


def test_a_threshold_rule_ends_streamlines_where_the_interpolated_map_crosses_it() -> None:
    grid, coefficients = along_x()
    ramp = np.broadcast_to(np.arange(20.0)[:, None, None] / 20, grid.shape)
    rule = ThresholdRule(ramp.astype(np.float32), 0.2625)  # crossed at x = 5.25
    batch = track(make_engine(grid, coefficients, rule), CENTRE)
    assert nonzero(batch.counts.stops) == {"stopping_rule": 1, "image_border": 1}
    assert 5.25 < batch.points_mm[:, 0].min() <= 5.25 + 0.5 * abs(X[0])


@pytest.mark.parametrize("dead_ends", ["drop", "keep"])
def test_a_bundle_that_fades_inside_the_stop_mask_is_a_dead_end(dead_ends: str) -> None:
    grid, coefficients = along_x()
    coefficients[13:] = 0
    batch = track(make_engine(grid, coefficients, dead_ends=dead_ends), CENTRE)
    assert nonzero(batch.counts.stops) == {"image_border": 1, "no_direction": 1}
    dropped = dead_ends == "drop"
    assert nonzero(batch.counts.rejected) == ({"dead_end": 1} if dropped else {})
    assert len(batch) == (0 if dropped else 1)
    if not dropped:
        assert 13 <= batch.points_mm[:, 0].max() < 13.5


def test_a_bundle_that_bends_more_than_the_cone_allows_is_a_dead_end() -> None:
    grid, coefficients = along_x()
    coefficients[10:] = lobes(vertex_near([0, 1, 0]))
    batch = track(make_engine(grid, coefficients, algorithm={"kind": "det", "max_angle_deg": 15},
                              dead_ends="keep"), [4.2, 9.6, 9.8])  # fmt: skip
    assert nonzero(batch.counts.stops) == {"image_border": 1, "no_direction": 1}
    assert 9 < batch.points_mm[:, 0].max() < 10.6


def test_a_bundle_that_runs_in_a_circle_is_too_long() -> None:
    grid = cube(20)
    centres = np.indices(grid.shape).reshape(3, -1).T - [9.5, 9.5, 9.5]
    tangents = np.stack([-centres[:, 1], centres[:, 0], 0 * centres[:, 2]], axis=1)
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    coefficients = lobes(tangents).reshape(*grid.shape, 45)
    engine = make_engine(grid, coefficients, max_length_mm=60)
    batch = track(engine, [[15.5, 9.5, 9.0], [9.5, 4.0, 9.0]])
    assert nonzero(batch.counts.rejected) == {"too_long": 2}
    assert nonzero(batch.counts.stops) == {"max_length": 4}
    assert len(batch) == 0


def test_streamlines_beyond_the_buffer_of_dipy_are_counted_and_leave_the_others_in_place() -> None:
    grid = cube(20)
    centres = np.indices(grid.shape).reshape(3, -1).T - [9.5, 9.5, 9.5]
    tangents = np.stack([-centres[:, 1], centres[:, 0], 0 * centres[:, 2]], axis=1)
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    coefficients = lobes(tangents).reshape(*grid.shape, 45)
    coefficients[:, :, 12:] = lobes(X)
    seeds = [[15.5, 9.5, 5.0], [9, 9, 16.0], [4.0, 9.5, 5.0], [15.5, 9.5, 5.0], [9, 8, 16.0]]
    batch = track(make_engine(grid, coefficients, max_length_mm=25), seeds, first=100)
    assert batch.seed_index.tolist() == [101, 104]
    assert nonzero(batch.counts.rejected) == {"too_long": 3}
    assert nonzero(batch.counts.stops) == {"max_length": 6, "image_border": 4}


def length_without_bounds(rule: StoppingRule, grid: Grid, coefficients: Any, step: float) -> int:
    algorithm = {"kind": "det", "step_size_mm": step}
    batch = track(make_engine(grid, coefficients, rule, algorithm=algorithm), CENTRE)
    return len(batch.points_mm)


@pytest.mark.parametrize("step", [0.5, 0.1, 0.7, 0.45, 0.55])  # 21 x 0.45 / 0.45 < 21
def test_bounds_of_the_length_are_inclusive(step: float) -> None:
    grid, coefficients = along_x()
    rule = slab(grid, 5, 14)
    n_points = length_without_bounds(rule, grid, coefficients, step)
    length_mm = (n_points - 1) * step
    assert 9.5 - 2 * step < length_mm < 10.5

    def rejected(**bounds: float) -> dict[str, int]:
        algorithm = {"kind": "det", "step_size_mm": step}
        engine = make_engine(grid, coefficients, rule, algorithm=algorithm, **bounds)
        return nonzero(track(engine, CENTRE).counts.rejected)

    decimal = round(length_mm, 6)
    assert rejected(min_length_mm=decimal) == {}
    assert rejected(max_length_mm=decimal) == {}
    assert rejected(min_length_mm=decimal, max_length_mm=decimal) == {}
    assert rejected(min_length_mm=decimal + 0.001) == {"too_short": 1}
    assert rejected(max_length_mm=decimal - 0.001) == {"too_long": 1}


def test_a_short_dead_end_counts_as_a_dead_end_and_a_long_one_as_too_long() -> None:
    grid, coefficients = along_x()
    coefficients[13:] = 0
    short = make_engine(grid, coefficients, min_length_mm=100)
    assert nonzero(track(short, CENTRE).counts.rejected) == {"dead_end": 1}
    long = make_engine(grid, coefficients, max_length_mm=5)
    assert nonzero(track(long, CENTRE).counts.rejected) == {"too_long": 1}


def test_two_directions_at_a_crossing_give_two_streamlines_a_seed() -> None:
    grid = cube(20)
    y = vertex_near([0, 1, 0.1])
    coefficients = everywhere(grid, X) + 0.8 * everywhere(grid, y)
    seeds = [[9, 9, 9], [8, 10, 9.5], [11, 7, 10.5]]
    batch = track(make_engine(grid, coefficients, max_directions=2), seeds)
    assert batch.seed_index.tolist() == [0, 0, 1, 1, 2, 2]
    assert (batch.counts.seeds, batch.counts.generated) == (3, 6)
    for index, line in enumerate(streamlines(batch)):
        way = line[-1] - line[0]
        assert abs(way @ (y if index % 2 else X)) / np.linalg.norm(way) > 0.9999
    assert len(track(make_engine(grid, coefficients, max_directions=1), seeds)) == 3


def test_seeds_outside_the_image_or_without_a_peak_are_seeds_without_direction() -> None:
    grid, coefficients = along_x()
    coefficients[:, :, 15:] = 0
    coefficients[:, :5] = -isotropic(grid)[:, :5]
    seeds = [[-0.6, 9, 9], CENTRE, [9, 9, 19.6], [500, 0, 0], [9, 9, 17], [9, 2, 9]]
    batch = track(make_engine(grid, coefficients), seeds, first=10)
    assert batch.counts.seeds == 6
    assert batch.counts.seeds_without_direction == 5
    assert batch.counts.generated == 1
    assert batch.seed_index.tolist() == [11]


def test_a_seed_away_from_the_stop_mask_is_too_short_rather_than_without_direction() -> None:
    grid, coefficients = along_x()
    engine = make_engine(grid, coefficients, slab(grid, 5, 14), min_length_mm=5)
    counts = track(engine, [[2.0, 9, 9], CENTRE]).counts
    assert counts.seeds_without_direction == 0
    assert nonzero(counts.rejected) == {"too_short": 1}


def test_no_seeds_and_seeds_that_lead_nowhere_give_an_empty_batch() -> None:
    grid, coefficients = along_x()
    engine = make_engine(grid, coefficients * 0)
    assert track(engine, [CENTRE, CENTRE]).counts == Counts(seeds=2, seeds_without_direction=2)
    assert track(engine, np.empty((0, 3))).counts == Counts()


def test_a_stopping_rule_that_lets_nothing_through_is_refused() -> None:
    grid, coefficients = along_x()
    with pytest.raises(ValueError, match="no voxel"):
        make_engine(grid, coefficients, BinaryRule(np.zeros(grid.shape, bool)))


def isotropic(grid: Grid) -> Any:
    coefficients = np.zeros((*grid.shape, 45))
    coefficients[..., 0] = 1
    return coefficients


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
    engine = make_engine(
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


def test_rng_seed_0_is_reproducible_although_0_means_the_clock_to_dipy() -> None:
    zero, again = (track(ragged_engine(rng_seed=0), RAGGED_SEEDS) for _ in range(2))
    assert bits(zero) == bits(again)
    assert zero.points_mm.tobytes() != WHOLE.points_mm.tobytes()


def test_rng_seeds_are_spread_over_those_that_dipy_can_use() -> None:
    rng_seeds = [*range(2000), 2**31 - 1, 2**31, 2**32, 2**53 - 1]
    mapped = [_dipy_seed(seed, (145, 174, 145)) for seed in rng_seeds]
    assert all(10**6 <= seed < 2**31 for seed in mapped)
    assert max(mapped) * (2 * 145 + 3 * 174 + 5 * 145) <= 2**32
    assert len(set(mapped)) > len(mapped) - 5
    assert np.corrcoef(mapped[:1999], mapped[1:2000])[0, 1] == pytest.approx(0, abs=0.1)


def test_no_count_is_lost_over_all_reasons() -> None:
    counts = WHOLE.counts
    assert counts.seeds == 400
    assert counts.generated == counts.kept + sum(counts.rejected.values())
    assert 2 * counts.generated == sum(counts.stops.values())
    assert all(counts.stops[reason] > 0 for reason in Stop if reason != Stop.MAX_LENGTH)
    assert set(counts.rejected) == set(Rejection)

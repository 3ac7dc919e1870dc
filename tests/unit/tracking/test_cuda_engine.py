"""The CUDA engine: its own part on pretended devices, then cuslines, without and with a GPU."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from fields import LOOSE, X, affine_of, cube, lobes, nonzero, slab, streamlines, track, vertex_near
from hypothesis import given, settings
from hypothesis import strategies as st
from pretend_cuda import PretendSession, pretend_cuda

from bids_tractography.config import Config
from bids_tractography.config.tracking import TrackingConfig
from bids_tractography.core.fodf import Fodf
from bids_tractography.core.images import Grid
from bids_tractography.core.stopping import BinaryRule, StoppingRule, ThresholdRule
from bids_tractography.core.streamlines import Counts, Stop, StreamlineBatch
from bids_tractography.errors import ConfigError, DeviceError, DeviceLostError
from bids_tractography.tracking import ENGINES, choose_engine
from bids_tractography.tracking.base import TrackingProblem
from bids_tractography.tracking.cpu.engine import CpuEngine
from bids_tractography.tracking.cuda import cuslines as cuda
from bids_tractography.tracking.cuda.cuslines import NumbaSession
from bids_tractography.tracking.cuda.engine import UNIT as UNIT_OF_SEEDS
from bids_tractography.tracking.cuda.engine import Request, UnitEngine, unit_mark
from bids_tractography.tracking.cuda.lattice import make_lattice

needs_cuslines = pytest.mark.skipif(
    find_spec("cuslines") is None, reason="cuslines is not installed"
)

# Only the largest direction counts, so that a random tracker has one way to go.
SURE: dict[str, Any] = {"kind": "prob", "pmf_threshold": 0.9999, "step_size_mm": 0.5}
UNIT = 8


def along(grid: Grid, direction: Any) -> Any:
    return np.broadcast_to(lobes(direction), (*grid.shape, 45)).copy()


def make_problem(
    grid: Grid, coefficients: Any, stopping: StoppingRule | None = None, **tracking: Any
) -> TrackingProblem:
    rule = BinaryRule(np.ones(grid.shape, bool)) if stopping is None else stopping
    rng_seed = tracking.pop("rng_seed", 1)
    said = {"min_length_mm": 0, "max_length_mm": 250, "algorithm": SURE, "engine": "cuda",
            "ngpus": 1, **tracking}  # fmt: skip
    fodf = Fodf(np.ascontiguousarray(coefficients, np.float32), grid)
    return TrackingProblem(fodf, rule, TrackingConfig(**said), rng_seed)


def make_engine(*arguments: Any, start: Any = PretendSession, **tracking: Any) -> UnitEngine:
    problem = make_problem(*arguments, **tracking)
    assert problem.tracking.ngpus is not None
    return UnitEngine(problem, 1, start, problem.tracking.ngpus, UNIT)


GEOMETRIES: dict[str, tuple[Any, Any, Any]] = {
    "isotropic": ((12, 11, 10), [2, 2, 2], [0, 0, 0]),
    "anisotropic": ((16, 11, 8), [1.5, 2.0, 3.2], [0, 0, 0]),
    "oblique": ((12, 11, 10), [2, 2, 2], [12, -8, 25]),
    "oblique and anisotropic": ((16, 11, 8), [1.5, 2.0, 3.2], [-10, 7, 14]),
}


@pytest.mark.parametrize("sign", [(1, 1, 1), (-1, 1, 1)])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_steps_are_mm_in_every_geometry(geometry: str, sign: Any) -> None:
    shape, size, turn = GEOMETRIES[geometry]
    grid = Grid(shape, affine_of(np.multiply(size, sign), turn, shape))
    direction = vertex_near([0.48, -0.6, 0.64])
    engine = make_engine(grid, along(grid, direction), algorithm={**SURE, "step_size_mm": 0.4})
    batch = track(engine, np.random.default_rng(0).uniform([0, -5, 2], [6, 1, 8], (6, 3)))
    assert len(batch) == 6
    for line in streamlines(batch):
        steps = np.diff(line, axis=0)
        assert len(steps) > 25
        expected = 0.4 * direction * np.sign(steps[0] @ direction)
        np.testing.assert_allclose(steps, np.broadcast_to(expected, steps.shape), atol=5e-5)
    assert nonzero(batch.counts.stops) == {"image_border": 12}


def curved(mm: Any) -> Any:
    """Return directions that turn smoothly from place to place."""
    x, y, z = np.asarray(mm).T / 15
    directions = np.stack([1 + 0.1 * x, 0.8 * np.sin(x + 0.5 * z), 0.6 * np.cos(y - x)], axis=-1)
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def field_on(grid: Grid, field: Callable[[Any], Any]) -> Any:
    voxels = np.indices(grid.shape).reshape(3, -1).T
    return lobes(field(grid.to_mm(voxels))).reshape(*grid.shape, 45)


def hills(grid: Grid) -> Any:
    """Make a map from 0 to 1 with valleys, the same in mm whatever the grid."""
    x, y, z = grid.to_mm(np.indices(grid.shape).reshape(3, -1).T).T
    values = 0.5 + 0.5 * np.sin(x / 4) * np.cos(y / 5 + 1) * np.cos(z / 6)
    return values.reshape(grid.shape).astype(np.float32)


RULES: dict[str, Callable[[Grid], StoppingRule]] = {
    "threshold": lambda grid: ThresholdRule(hills(grid), 0.37),
    "binary": lambda grid: BinaryRule(hills(grid) > 0.33),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("geometry", ["isotropic", "oblique"])
def test_streamlines_with_one_way_to_go_are_those_of_the_cpu_engine(
    geometry: str, rule: str
) -> None:
    shape, size, turn = GEOMETRIES[geometry]
    grid = Grid(shape, affine_of(size, turn, shape))
    problem = make_problem(grid, field_on(grid, curved), RULES[rule](grid))
    seeds = np.random.default_rng(0).uniform([-8, -11, -4], [14, 7, 14], (24, 3))
    here = track(UnitEngine(problem, 1, PretendSession, 1, UNIT), seeds)
    there = track(CpuEngine(problem, 1), seeds)
    assert len(there) > 12
    # Where two directions are within 1e-4 of each other the ways may part.
    assert np.isin(there.seed_index, here.seed_index).mean() > 0.9
    apart = []
    for line, seed, ends in zip(streamlines(here), here.seed_index, here.stops, strict=True):
        other = np.flatnonzero(there.seed_index == seed)
        if len(other):
            expected = streamlines(there)[other[0]]
            if np.dot(line[-1] - line[0], expected[-1] - expected[0]) < 0:
                expected = expected[::-1]
            n = len(expected)
            apart.append(len(line) != n or np.abs(line - expected).max() > 1e-3)
            assert apart[-1] or sorted(ends) == sorted(there.stops[other[0]])
    assert np.mean(apart) < 0.2
    assert here.counts.seeds_without_direction == there.counts.seeds_without_direction
    for reason in Stop:
        assert abs(here.counts.stops[reason] - there.counts.stops[reason]) <= 4


CENTRE = [7.3, 7.6, 7.8]


def test_ends_are_those_of_the_rule() -> None:
    grid = cube(16)
    bundle = along(grid, X)
    faded, bent = bundle.copy(), bundle.copy()
    faded[12:] = 0
    bent[12:] = lobes(vertex_near([0, 1, 0]))
    ramp = np.broadcast_to(np.arange(16.0)[:, None, None] / 16, grid.shape).astype(np.float32)
    cases: list[tuple[Any, StoppingRule | None, list[str], tuple[float, float]]] = [
        (bundle, None, ["image_border", "image_border"], (-0.5, 15.5)),
        (bundle, slab(grid, 4, 11), ["stopping_rule", "stopping_rule"], (3.5, 11.5)),
        (bundle, ThresholdRule(ramp, 0.265625), ["image_border", "stopping_rule"], (4.25, 15.5)),
        (faded, None, ["image_border", "no_direction"], (-0.5, 12.5)),
        (bent, None, ["angle", "image_border"], (-0.5, 12.0)),
    ]
    for coefficients, rule, ends, (low, high) in cases:
        engine = make_engine(grid, coefficients, rule, dead_ends="keep")
        batch = track(engine, CENTRE)
        names = sorted(str(list(Stop)[code]) for code in batch.stops[0])
        assert names == ends
        assert nonzero(batch.counts.stops) == {e: ends.count(e) for e in ends}
        x = batch.points_mm[:, 0]
        assert low <= x.min() <= low + 0.51
        assert high - 1.01 <= x.max() <= high
        dropped = track(make_engine(grid, coefficients, rule), CENTRE).counts
        dead = {"angle", "no_direction"} & set(ends)
        assert nonzero(dropped.rejected) == ({"dead_end": 1} if dead else {})


def test_bounds_of_the_length_are_inclusive() -> None:
    grid = cube(16)
    rule = slab(grid, 4, 11)
    length = (len(track(make_engine(grid, along(grid, X), rule), CENTRE).points_mm) - 1) * 0.5

    def rejected(**bounds: float) -> dict[str, int]:
        return nonzero(
            track(make_engine(grid, along(grid, X), rule, **bounds), CENTRE).counts.rejected
        )

    assert 7 <= length <= 8
    assert rejected(min_length_mm=length, max_length_mm=length) == {}
    assert rejected(min_length_mm=length + 0.001) == {"too_short": 1}
    assert rejected(max_length_mm=length - 0.001) == {"too_long": 1}


def test_the_outermost_half_voxel_is_part_of_the_image() -> None:
    grid = cube(10)
    coefficients = along(grid, X)
    coefficients[1:, :, :] = lobes(vertex_near([0, 1, 0]))  # what the wrong neighbour has
    batch = track(make_engine(grid, coefficients, dead_ends="keep"), [-0.4, 5, 5])
    assert batch.counts.generated == 1
    way = batch.points_mm[-1] - batch.points_mm[0]
    assert abs(way[0]) > abs(way[1])
    assert batch.points_mm[:, 0].min() >= -0.5


@pytest.mark.parametrize("rule", RULES)
def test_a_stop_map_asked_half_a_voxel_off_changes_nothing(rule: str) -> None:
    grid = cube(12, 2.0)
    coefficients = field_on(grid, curved)
    seeds = np.random.default_rng(0).uniform(0, 22, (9, 3))
    made = []
    for shift in (0.5, 0.0):
        engine = make_engine(
            grid, coefficients, RULES[rule](grid), dead_ends="keep",
            start=lambda request, shift=shift: PretendSession(request, shift),
        )  # fmt: skip
        made.append(bits(track(engine, seeds)))
    assert made[0] == made[1]


def bits(batch: StreamlineBatch) -> tuple[bytes, bytes, bytes, bytes, Counts]:
    return (
        batch.points_mm.tobytes(),
        batch.offsets.tobytes(),
        batch.seed_index.tobytes(),
        batch.stops.tobytes(),
        batch.counts,
    )


def ragged(grid: Grid) -> Any:
    """Make fODFs that differ from voxel to voxel, many of them crossings, some zero."""
    rng = np.random.default_rng(0)
    directions = rng.normal([1.0, 0.3, 0], 0.45, (*grid.shape, 3))
    other = rng.normal(size=(*grid.shape, 3))
    coefficients = lobes(directions) + lobes(other) * rng.uniform(0, 1, (*grid.shape, 1))
    coefficients[2:4, 3:5, 5:8] = 0
    return coefficients


RAGGED_GRID = Grid((9, 9, 9), affine_of([2, 2, 2], [8, -12, 20], (9, 9, 9)))
RAGGED_SEEDS = np.random.default_rng(3).uniform([-6, -11, -4], [12, 7, 14], (26, 3))


def ragged_engine(ngpus: int = 1, **tracking: Any) -> UnitEngine:
    return make_engine(
        RAGGED_GRID,
        ragged(RAGGED_GRID),
        ThresholdRule(hills(RAGGED_GRID), 0.3),
        **{"algorithm": {"kind": "prob", "step_size_mm": 1.0, **LOOSE}, "max_directions": 2,
           "dead_ends": "keep", "ngpus": ngpus, **tracking},
    )  # fmt: skip


ENGINES_OF_GPUS = {n: ragged_engine(n) for n in (1, 2, 3)}
WHOLE = track(ENGINES_OF_GPUS[1], RAGGED_SEEDS, first=5)


@settings(max_examples=3, deadline=None)
@given(size=st.integers(3, 26), ngpus=st.sampled_from([1, 2, 3]))
def test_any_slicing_into_batches_and_any_number_of_gpus_changes_no_bit(
    size: int, ngpus: int
) -> None:
    assert len(WHOLE) > 12
    parts = [
        track(ENGINES_OF_GPUS[ngpus], RAGGED_SEEDS[i : i + size], first=5 + i)
        for i in range(0, 26, size)
    ]
    counts = Counts()
    for part in parts:
        counts = counts + part.counts
    assert counts == WHOLE.counts
    for name in ("points_mm", "seed_index", "stops"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        assert joined.tobytes() == getattr(WHOLE, name).tobytes()
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    assert lengths.tolist() == np.diff(WHOLE.offsets).tolist()


def test_another_rng_seed_or_unit_has_other_random_numbers() -> None:
    other = track(ragged_engine(rng_seed=0), RAGGED_SEEDS, first=5)
    assert other.points_mm.tobytes() != WHOLE.points_mm.tobytes()
    same_place = [track(ENGINES_OF_GPUS[1], [RAGGED_SEEDS[4]] * 3, first=f) for f in (0, 8)]
    assert same_place[0].points_mm.tobytes() != same_place[1].points_mm.tobytes()
    ways = [line.tobytes() for line in streamlines(same_place[0])]
    assert len(set(ways)) == len(ways) > 2


def test_every_streamline_passes_through_the_seed_that_it_names() -> None:
    assert (np.diff(WHOLE.seed_index) >= 0).all()
    assert (np.diff(WHOLE.seed_index) == 0).any()
    for line, seed in zip(streamlines(WHOLE), WHOLE.seed_index, strict=True):
        assert np.linalg.norm(line - RAGGED_SEEDS[seed - 5], axis=1).min() < 1e-4


def test_only_the_largest_peaks_are_tracked() -> None:
    grid = cube(16)
    y, z = vertex_near([0, 1, 0.1]), vertex_near([0, 0, 1])
    crossing = along(grid, X) + 0.85 * along(grid, y) + 0.7 * along(grid, z)
    algorithm = {**SURE, "pmf_threshold": 0.45, "max_angle_deg": 12}
    for n in (1, 2, 3):
        engine = make_engine(
            grid, crossing, max_directions=n, algorithm=algorithm, dead_ends="keep"
        )
        batch = track(engine, [CENTRE, [8, 8, 8.2]])
        assert batch.seed_index.tolist() == sorted([0, 1] * n)
        for index, line in enumerate(streamlines(batch)):
            at_seed = int(np.linalg.norm(line - [CENTRE, [8, 8, 8.2]][index // n], axis=1).argmin())
            step = np.diff(line, axis=0)[max(at_seed - 1, 0)]
            cosines = np.abs([step @ axis for axis in (X, y, z)]) / np.linalg.norm(step)
            assert cosines.argmax() == index % n


def test_seeds_without_a_way_to_go_are_counted_as_on_the_cpu() -> None:
    grid = cube(16)
    coefficients = along(grid, X)
    coefficients[:, :, 12:] = 0
    rule = slab(grid, 4, 5)
    seeds = [[-0.6, 7, 7], [4.7, 7, 7], [500, 0, 0], [4, 7, 14], [15, 7, 7], [15, 7, 14], [7, 7, 7]]
    problem = make_problem(grid, coefficients, rule, min_length_mm=0.5)
    here = track(UnitEngine(problem, 1, PretendSession, 1, UNIT), seeds, first=30).counts
    there = track(CpuEngine(problem, 1), seeds, first=30).counts
    assert here == replace(there, stops=here.stops)
    assert here.seeds_without_direction == 4
    assert nonzero(here.rejected) == {"too_short": 2}


def test_no_seeds_and_no_places_to_go_on() -> None:
    grid = cube(16)
    assert track(make_engine(grid, along(grid, X)), np.empty((0, 3))).counts == Counts()
    with pytest.raises(ValueError, match="no voxel"):
        make_engine(grid, along(grid, X), BinaryRule(np.zeros(grid.shape, bool)))


def test_a_half_as_long_as_cuslines_can_make_it_is_too_long() -> None:
    grid = Grid((60, 8, 8), np.eye(4))
    algorithm = {**SURE, "step_size_mm": 0.1}
    seed = [1.0, 4, 4]
    kept = make_engine(
        grid, along(grid, X), slab(grid, 0, 50), algorithm=algorithm, max_length_mm=50
    )
    assert len(track(kept, [26.0, 4, 4])) == 0  # 51.5 mm in all
    batch = track(kept, seed)
    assert nonzero(batch.counts.rejected) == {"too_long": 1}
    assert nonzero(batch.counts.stops) == {"max_length": 2}
    shorter = make_engine(
        grid, along(grid, X), slab(grid, 0, 44), algorithm=algorithm, max_length_mm=50
    )
    assert len(track(shorter, seed)) == 1


def test_the_lattice_lies_on_the_voxels_where_they_are_cubes_and_has_room_for_unit_marks() -> None:
    grid = cube(14, 2.0)
    lattice, permitted = make_lattice(make_problem(grid, along(grid, X), slab(grid, 5, 6)))
    np.testing.assert_array_equal(lattice.scale, 1)
    np.testing.assert_array_equal(lattice.origin % 1, 0)
    assert not permitted[:2, :2, :2].any()
    reached = lattice.axis(0)[permitted.any(axis=(1, 2))]
    assert (reached.min(), reached.max()) == (3, 8)  # what half a voxel off may be asked
    uneven = Grid((14, 14, 7), np.diag([2.0, 2.0, 4.0, 1.0]))
    lattice, _ = make_lattice(make_problem(uneven, along(uneven, X)))
    np.testing.assert_allclose(lattice.scale, [1, 1, 0.5])
    assert lattice.edge_mm == 2
    assert 0 in lattice.axis(2)


@given(unit=st.integers(0, 2**40))
def test_a_unit_can_be_read_from_its_mark(unit: int) -> None:
    mark = unit_mark(unit)
    assert mark.dtype == np.float32
    assert (mark >= 0).all()
    assert (mark < 1).all()
    assert int(mark[0] * 2.0**24) + (int(mark[1] * 2.0**24) << 24) == unit


def request_of(problem: TrackingProblem) -> Request:
    seen = []

    def keep(request: Request) -> PretendSession:
        seen.append(request)
        return PretendSession(request)

    UnitEngine(problem, 1, keep, 1, UNIT)
    return seen[0]


def test_macros_say_what_the_configuration_says() -> None:
    grid = cube(8, 2.0)
    prob = request_of(make_problem(grid, along(grid, X), algorithm={"pmf_threshold": 0.25}))
    said = cuda.macros(prob)
    assert float(said["PMF_THRESHOLD_P"]) == 0.25
    assert str(prob.key) in said["RNG_SEED"]
    assert 0 <= prob.key < 2**63
    assert "MAX_CURVATURE" not in said
    ptt = request_of(
        make_problem(grid, along(grid, X), algorithm={"kind": "ptt", "max_angle_deg": 20,
                     "step_size_mm": 0.5, "probe_length_mm": 1.5, "probe_quality": 4})
    )  # fmt: skip
    assert ptt.probe is not None
    assert ptt.probe.step == pytest.approx(0.25)
    assert ptt.probe.steps == 3
    # The circle on which a step of 0.25 voxels turns by 20 degrees.
    radius = 0.25 / (2 * np.sin(np.deg2rad(10)))
    assert float(cuda.macros(ptt)["MAX_CURVATURE"]) == pytest.approx(1 / radius)


def config(**tracking: Any) -> Config:
    stopping = tracking.pop("stopping", "threshold")
    if stopping == "binary":
        stopping = {"kind": "binary", "mask": "brain"}
    return Config.model_validate({"tracking": {"engine": "cuda", **tracking}, "stopping": stopping})


@pytest.mark.parametrize(
    ("tracking", "message"),
    [
        ({"algorithm": "det"}, "cannot do det"),
        ({"algorithm": "eudx"}, "cannot do eudx"),
        ({"algorithm": "closest_peak"}, "cannot do closest_peak"),
        ({"algorithm": "pft", "stopping": "act"}, "cannot do pft"),
        ({"stopping": "act"}, "act stopping rule"),
        ({"stopping": "cmc"}, "cmc stopping rule"),
        ({"algorithm": {"kind": "ptt", "probe_radius_mm": 1, "probe_count": 4}}, "probe_radius_mm"),
        ({"algorithm": {"kind": "ptt", "data_support_exponent": 2}}, "data_support_exponent"),
    ],
)
def test_what_cuda_cannot_do_is_a_fault_of_the_configuration(
    tracking: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as told:
        choose_engine(config(**tracking))
    assert "Engines that can:" in told.value.remedy
    assert "cuda" not in told.value.remedy


def test_more_points_than_cuslines_has_are_refused() -> None:
    assert cuda.limits(config()) is None  # 250 mm in steps of 0.5 mm, the default
    with pytest.raises(ConfigError, match=r"500 steps.*is 501"):
        choose_engine(config(max_length_mm=250.5))
    with pytest.raises(ConfigError, match=r"500 steps.*is 1250"):
        choose_engine(config(algorithm={"step_size_mm": 0.2}))
    with pytest.raises(ConfigError, match="Engines that can: cpu"):
        choose_engine(config(algorithm={"step_size_mm": 0.2}))


def test_ngpus_is_for_cuda_alone() -> None:
    assert config(ngpus=2).tracking.ngpus == 2
    for engine in ("auto", "cpu", "dipy"):
        with pytest.raises(ValueError, match="ngpus requires engine cuda"):
            config(engine=engine, ngpus=2)


@pytest.fixture
def _fresh_probe() -> Any:
    cuda.probe_devices.cache_clear()
    yield
    cuda.probe_devices.cache_clear()


@pytest.mark.usefixtures("_fresh_probe")
def test_without_a_device_cuda_is_refused_and_auto_takes_the_cpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(
        DeviceError, match="cannot be used on this machine: CUDA for Python"
    ) as told:
        choose_engine(config())
    assert told.value.exit_code == 69
    caplog.set_level("INFO")
    with_auto = config(engine="auto", min_length_mm=21)
    assert choose_engine(with_auto).name == "cpu"
    choose_engine(with_auto)
    said = [r.message for r in caplog.records if "auto takes cpu" in r.message]
    assert len(said) <= 1  # once in a process


@needs_cuslines
@pytest.mark.usefixtures("_fresh_probe")
def test_with_a_device_it_is_taken_where_it_is_asked_for_and_not_by_auto() -> None:
    with pretend_cuda(n_devices=2):
        assert cuda.unavailable(config().tracking) is None
        assert cuda.probe_devices().names == ("Pretended", "Pretended")
        assert cuda.probe_devices().driver == "12.9"
        for algorithm in ("prob", "ptt"):
            assert choose_engine(config(algorithm=algorithm)).name == "cuda"
            assert choose_engine(config(engine="auto", algorithm=algorithm)).name == "cpu"
        with pytest.raises(DeviceError, match="ngpus is 3, and there are 2"):
            choose_engine(config(ngpus=3))


@needs_cuslines
@pytest.mark.usefixtures("_fresh_probe")
@pytest.mark.parametrize("ngpus", [1, 2])
def test_on_cuslines_own_host_code_streamlines_are_the_same(ngpus: int) -> None:
    with pretend_cuda(n_devices=2) as machine:
        engine = ragged_engine(ngpus, start=cuda.CudaSession)
        parts = [track(engine, RAGGED_SEEDS[i : i + 20], first=5 + i) for i in (0, 20)]
        said = machine.programs[0]
        assert len(machine.programs) == 1  # nothing is compiled again for another unit
        assert said["SPHERE_SYMM"] == "1"
        assert float(said["PMF_THRESHOLD_P"]) == 0.1
        points = np.concatenate([part.points_mm for part in parts])
        assert points.tobytes() == WHOLE.points_mm.tobytes()
        del engine


@needs_cuslines
@pytest.mark.usefixtures("_fresh_probe")
def test_host_buffers_are_those_of_the_call() -> None:
    grid = cube(16)
    coefficients = along(grid, X)
    coefficients[:, :, 12:] = 0
    few = [[7.0, 7, 14]] * 7 + [CENTRE]  # one streamline, then more than twice as many
    with pretend_cuda():
        engine = make_engine(grid, coefficients, start=cuda.CudaSession)
        assert len(track(engine, few)) == 1
        assert len(track(engine, [CENTRE] * 8, first=8)) == 8
        assert isinstance(engine._session, cuda.CudaSession)
        propagator = engine._session._propagator
        assert np.shares_memory(propagator.nSlines_old, propagator.nSlines)  # the defect
        del engine, propagator


@needs_cuslines
@pytest.mark.usefixtures("_fresh_probe")
def test_a_device_lost_on_the_way_is_told_with_what_to_do() -> None:
    grid = cube(16)
    with pretend_cuda() as machine:
        engine = make_engine(grid, along(grid, X), start=cuda.CudaSession)
        track(engine, CENTRE)
        machine.fail_at_launch = len(machine.launches) + 2
        with pytest.raises(DeviceLostError, match=r"failed in mid-run.*LAUNCH_FAILED") as told:
            track(engine, CENTRE, first=8)
        assert told.value.exit_code == 75
        assert told.value.remedy == "Run again: finished batches are kept."
        del engine


@needs_cuslines
@pytest.mark.usefixtures("_fresh_probe")
def test_too_little_memory_is_told_with_the_estimate() -> None:
    grid = cube(16)
    problem = make_problem(grid, along(grid, X))
    needed = cuda.memory_needed(request_of(problem))
    assert 0.2 * 2**30 < needed < 0.5 * 2**30  # the unit's streamlines, above all
    with pretend_cuda(free=needed - 1), pytest.raises(DeviceError, match="GiB are needed"):
        make_engine(grid, along(grid, X), start=cuda.CudaSession)


def test_importing_the_package_imports_neither_cuslines_nor_cuda() -> None:
    code = (
        "import sys, bids_tractography.tracking.cuda; "
        "sys.exit('cuslines' in sys.modules or 'cuda.bindings' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_sidecar_says_where_it_departs() -> None:
    told = " ".join(ENGINES["cuda"].differences)
    for word in ("batch size", "number of GPUs", str(UNIT_OF_SEEDS), "ptt"):
        assert word in told


def compare(here: StreamlineBatch, there: StreamlineBatch, grid: Grid) -> tuple[float, float]:
    """Return the correlation of densities, and how far quantiles of the length are apart."""

    def density(batch: StreamlineBatch) -> Any:
        voxels = np.rint(grid.to_voxels(batch.points_mm)).astype(int)
        total = np.zeros(grid.shape)
        np.add.at(total, tuple(voxels.T), 1)
        return total.ravel() / len(batch.points_mm)

    quantiles = [
        np.quantile(np.diff(b.offsets), [0.1, 0.25, 0.5, 0.75, 0.9]) for b in (here, there)
    ]
    ratio = np.abs(quantiles[0] / quantiles[1] - 1).max()
    return float(np.corrcoef(density(here), density(there))[0, 1]), float(ratio)


def assert_parity(geometry: str, start: Any, **tracking: Any) -> StreamlineBatch:
    """Track 2,000 seeds here and, with two seeds of the random numbers, on the CPU.

    The CPU engine differs from itself by chance; this one may not differ from it by more.
    """
    shape, size, turn = GEOMETRIES[geometry]
    grid = Grid(shape, affine_of(size, turn, shape))
    said = {"algorithm": "prob", "min_length_mm": 3, "dead_ends": "keep", **tracking}
    problem = make_problem(grid, field_on(grid, curved), RULES["threshold"](grid), **said)
    seeds = np.random.default_rng(0).uniform([-8, -11, -4], [14, 7, 14], (2000, 3))
    here = track(UnitEngine(problem, 1, start, 1), seeds)
    there = track(CpuEngine(problem, 1), seeds)
    chance, _ = compare(track(CpuEngine(replace(problem, rng_seed=2), 1), seeds), there, grid)
    correlation, ratio = compare(here, there, grid)
    assert correlation > chance - 0.01 > 0.9
    assert ratio < 0.08
    assert here.counts.seeds_without_direction == there.counts.seeds_without_direction
    assert here.counts.generated == there.counts.generated
    for reason in Stop:
        share = [b.counts.stops[reason] / (2 * b.counts.generated) for b in (here, there)]
        assert share[0] == pytest.approx(share[1], abs=0.03)
    return here


@needs_cuslines
@pytest.mark.slow
def test_parity_with_the_cpu_engine_on_cuslines_numba_backend() -> None:
    here = assert_parity("oblique and anisotropic", NumbaSession)
    steps = [np.linalg.norm(np.diff(line, axis=0), axis=1) for line in streamlines(here)[:200]]
    np.testing.assert_allclose(np.concatenate(steps), 0.5, atol=1e-4)


def compile_kernels(said: dict[str, str], algorithm: str) -> str:
    """Compile cuslines' kernels as it does, without a device; return the assembler."""
    from cuda.bindings import nvrtc
    from cuda.cccl import get_include_paths
    from cuda.pathfinder import find_nvidia_header_directory

    source = files("cuslines").joinpath("cuda_c")
    base = {"__NVRTC__": "1", "DIMX": "90", "DIMY": "80", "DIMZ": "70", "DIMT": "362",
            "N32DIMT": "384", "STEP_SIZE": "0.25", "MAX_ANGLE": "0.5", "TC_THRESHOLD": "0.01",
            "RELATIVE_PEAK_THRESH": "1.0", "MIN_SEPARATION_ANGLE": "0.4", "SAMPLM_NR": "362",
            "NUM_EDGES": "1080", "SPHERE_SYMM": "1", "EXCESS_ALLOC_FACT": "2", "REAL_SIZE": "4",
            "MAX_SLINES_PER_SEED": "10", "MAX_SLINE_LEN": "501", "THR_X_BL": "64",
            "THR_X_SL": "32", "LOG2_X": "3", "LOG2_Y": "3", "WIDTH_MASK": "7",
            "HEIGHT_MASK": "7", "PROBE_STEP_SIZE": "0.25", "PROBE_QUALITY": "3.0",
            "STEP_FRAC": "1", "MAX_CURVATURE": "1.0", **said}  # fmt: skip
    folders = [str(source), find_nvidia_header_directory("cudart"),
               find_nvidia_header_directory("curand"), get_include_paths().libcudacxx]  # fmt: skip
    options = ["--std=c++17", "--use_fast_math", "--gpu-architecture=sm_80",
               *(f"-D{name}={value}" for name, value in base.items()),
               *(f"-I{folder}" for folder in folders)]  # fmt: skip
    data = (
        "const float *__restrict__"
        if algorithm == "prob"
        else "const cudaTextureObject_t *__restrict__"
    )
    kernel = f"genStreamlinesMergeProb_k<32,2,{algorithm.upper()},{data},float,float3>"
    text = source.joinpath("generate_streamlines_cuda.cu").read_bytes()
    _, program = nvrtc.nvrtcCreateProgram(text, b"k.cu", 0, [], [])
    nvrtc.nvrtcAddNameExpression(program, kernel.encode())
    nvrtc.nvrtcAddNameExpression(
        program, f"getNumStreamlines{algorithm.title()}_k<32,2,float,float3>".encode()
    )
    (code,) = nvrtc.nvrtcCompileProgram(program, len(options), [o.encode() for o in options])
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    log = b" " * size
    nvrtc.nvrtcGetProgramLog(program, log)
    assert int(code) == 0, log.decode()
    _, size = nvrtc.nvrtcGetPTXSize(program)
    assembler: bytes = b" " * size
    nvrtc.nvrtcGetPTX(program, assembler)
    return assembler.decode()


def importable(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


needs_nvrtc = pytest.mark.skipif(
    find_spec("nvidia") is None
    or find_spec("nvidia.cuda_nvrtc") is None
    or find_spec("cuslines") is None,
    reason="NVIDIA's compiler (extra cu12) is not installed",
)


@needs_nvrtc
@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["prob", "ptt"])
def test_kernels_compile_with_a_key_for_every_unit(algorithm: str) -> None:
    grid = cube(8)
    request = request_of(make_problem(grid, along(grid, X), algorithm=algorithm))
    assembler = compile_kernels(cuda.macros(request), algorithm)
    kernel = assembler[assembler.index(".entry _Z25genStreamlinesMergeProb_k") :]
    assert f"{request.key:d}" in kernel or f"{request.key:#x}" in kernel


@needs_nvrtc
@pytest.mark.slow
def test_kernels_do_not_read_the_random_offset() -> None:
    assembler = compile_kernels({"RNG_SEED": "7", "PMF_THRESHOLD_P": "0.05"}, "prob")
    name = assembler.partition(".entry _Z25genStreamlinesMergeProb_k")[2].partition("(")[0]
    parameter = f"genStreamlinesMergeProb_k{name}_param_"
    loads = [line for line in assembler.splitlines() if "ld.param" in line and parameter in line]
    read = {line.rpartition("_param_")[2].strip(" ];") for line in loads}
    assert "1" in read  # the number of seeds
    assert "0" not in read  # the offset of the random numbers


needs_gpu = pytest.mark.skipif(
    cuda.unavailable(TrackingConfig(engine="cuda")) is not None,
    reason=f"no GPU: {cuda.unavailable(TrackingConfig(engine='cuda'))}",
)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("algorithm", ["prob", "ptt"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_parity_with_the_cpu_engine_on_a_gpu(geometry: str, algorithm: str) -> None:
    if algorithm not in ENGINES["cpu"].algorithms:
        pytest.skip("the CPU engine has no ptt to compare with")
    assert_parity(geometry, cuda.CudaSession, algorithm=algorithm)


@pytest.mark.gpu
@needs_gpu
def test_batch_size_and_repetition_change_no_bit_on_a_gpu() -> None:
    shape, size, turn = GEOMETRIES["oblique"]
    grid = Grid(shape, affine_of(size, turn, shape))
    problem = make_problem(
        grid, field_on(grid, curved), RULES["threshold"](grid), algorithm="prob", dead_ends="keep"
    )
    seeds = np.random.default_rng(0).uniform([-8, -11, -4], [14, 7, 14], (40_000, 3))
    whole = track(cuda.make_cuda_engine(problem, 2), seeds)
    engine = cuda.make_cuda_engine(problem, 1)
    parts = [track(engine, seeds[i : i + 9973], first=i) for i in range(0, 40_000, 9973)]
    assert np.concatenate([p.points_mm for p in parts]).tobytes() == whole.points_mm.tobytes()
    first, second = (track(engine, seeds[:1000], first=f) for f in (0, UNIT_OF_SEEDS))
    assert first.points_mm.tobytes() != second.points_mm.tobytes()


@pytest.mark.gpu
@needs_gpu
def test_raw_cuslines_repeats_its_random_numbers_with_every_call_on_a_gpu() -> None:
    from cuslines.cuda_python import GPUTracker, ProbDirectionGetter

    request = request_of(make_problem(RAGGED_GRID, ragged(RAGGED_GRID), algorithm="prob"))
    seeds = np.full((500, 3), np.array(request.stop_map.shape) / 2, np.float32)
    with GPUTracker(ProbDirectionGetter(), rng_seed=7, **cuda.arguments(request)) as tracker:
        made = []
        for _ in range(2):  # as generate_trx does for two chunks
            tracker.seed_propagator.propagate(seeds)
            made.append(np.concatenate(list(tracker.seed_propagator.as_generator())))
    np.testing.assert_array_equal(made[0], made[1])


@pytest.mark.gpu
@needs_gpu
def test_ptt_is_moved_by_half_a_voxel() -> None:
    """A bundle one voxel thick: streamlines lie around its middle, not beside it."""
    grid = cube(24, 2.0)
    coefficients = along(grid, X)
    coefficients[:, :10] = coefficients[:, 13:] = 0
    coefficients[:, :, :10] = coefficients[:, :, 13:] = 0
    mask = coefficients.any(axis=-1)
    seeds = np.random.default_rng(0).uniform([20, 21, 21], [26, 23, 23], (2000, 3))
    engine = cuda.make_cuda_engine(
        make_problem(grid, coefficients, BinaryRule(mask), algorithm="ptt", dead_ends="keep"), 1
    )
    batch = track(engine, seeds)
    assert len(batch) > 1500
    np.testing.assert_allclose(batch.points_mm[:, 1:].mean(axis=0), 22, atol=0.2)

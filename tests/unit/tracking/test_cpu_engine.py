"""Our engine: its random numbers, its sampling, its stopping rules, and DIPY beside it."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np
import pytest
from dipy.tracking.stopping_criterion import ActStoppingCriterion, CmcStoppingCriterion
from dipy.tracking.tracker import pft_tracking
from fields import (
    CENTRE,
    X,
    along_x,
    bits,
    cube,
    everywhere,
    lobes,
    make_engine,
    nonzero,
    ragged,
    random_map,
    slab,
    streamlines,
    track,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from scipy.stats import chi2

from bids_tractography.core.fodf import peak_amplitudes, sh_basis
from bids_tractography.core.images import Grid
from bids_tractography.core.stopping import ActRule, CmcRule, FodRule, ThresholdRule
from bids_tractography.core.streamlines import Counts, Stop, StreamlineBatch
from bids_tractography.phantom import ScanGrid, make_phantom, voxelise
from bids_tractography.tracking.cpu import sphere
from bids_tractography.tracking.cpu.engine import CPU, CpuEngine
from bids_tractography.tracking.cpu.kernels.amplitudes import fill_amplitudes, find_above
from bids_tractography.tracking.cpu.kernels.field import amplitude, gather_corners
from bids_tractography.tracking.cpu.kernels.random import (
    ATTEMPTS,
    DIRECTION,
    DRAWS,
    fill_words,
    make_counter,
    make_stream,
    philox,
    random_words,
)
from bids_tractography.tracking.cpu.kernels.vertices import draw_from_sum, draw_vertex, is_below
from bids_tractography.tracking.dipy import DIPY

build = partial(make_engine, CPU)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000",
         "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
         "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
         "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)  # fmt: skip
def test_random_words_are_those_of_philox_as_published(
    counter: str, key: str, expected: str
) -> None:
    words = [np.uint64(int(word, 16)) for word in f"{counter} {key}".split()]
    assert " ".join(f"{word:08x}" for word in philox(*words)) == expected


LABEL = st.tuples(
    st.integers(0, 2**53),  # rng_seed
    st.integers(0, 2**56 - 1),  # seed
    st.integers(0, 9),  # direction
    st.integers(0, 1),  # half
    st.integers(0, 3),  # purpose
    st.integers(0, 2**32 - 1),  # turn
    st.integers(0, 1000),  # particle
    st.integers(0, 2**16 - 1),  # attempt
)


@njit
def _counter(rng_seed, seed, direction, half, purpose, turn, particle, attempt):  # type: ignore[no-untyped-def]
    stream = make_stream(rng_seed, seed, direction, half)
    counter = make_counter(stream, purpose, turn, particle, attempt)
    return stream.key0, stream.key1, counter


def counter_of(label: Any) -> tuple[int, ...]:
    key0, key1, counter = _counter(*label)
    return (key0, key1, *counter)


@njit
def draw_many(field, corners, last, n, summed):  # type: ignore[no-untyped-def]
    """Draw a direction for each of n seeds."""
    drawn = np.empty(n, np.int64)
    for seed in range(n):
        stream = make_stream(7, seed, 0, 0)
        turn = np.int64(3)
        if summed:
            drawn[seed] = draw_from_sum(field, corners, last, stream, turn, turn)
        else:
            fill_words(stream, turn - 2, 1, turn, 0, corners.words)
            drawn[seed] = draw_vertex(field, corners, last, stream, turn, turn, np.int64(2))
    return drawn


@settings(deadline=None)  # the first call compiles
@given(one=LABEL, place=st.integers(0, 7), other=LABEL)
def test_no_two_draws_share_their_random_numbers(one: Any, place: int, other: Any) -> None:
    changed = (*one[:place], other[place], *one[place + 1 :])
    for label in (changed, other):
        assert (counter_of(label) == counter_of(one)) == (label == one)
    assert all(0 <= word < 2**32 for word in counter_of(one))


@njit
def words_both_ways(seed, turn, more_turns, particle, more_particles, out):  # type: ignore[no-untyped-def]
    """Make words of eight draws, all attempts, at once and one by one."""
    stream = make_stream(7, seed, 1, 1)
    fill_words(stream, turn, more_turns, particle, more_particles, out.ctypes.data)
    single = np.empty_like(out)
    for draw in range(DRAWS):
        for attempt in range(ATTEMPTS):
            single[:, draw, attempt] = random_words(
                stream, DIRECTION, turn + draw * more_turns,
                particle + draw * more_particles, attempt,
            )  # fmt: skip
    return single


@settings(deadline=None)
@given(
    turn=st.integers(0, 2**31), more_turns=st.integers(0, 1),
    particle=st.integers(0, 1000), more_particles=st.integers(0, 1), seed=st.integers(0, 2**56 - 1),
)  # fmt: skip
def test_random_words_made_at_once_are_those_made_one_by_one(
    turn: int, more_turns: int, particle: int, more_particles: int, seed: int
) -> None:
    out = np.empty((4, DRAWS, ATTEMPTS), np.uint32)
    single = words_both_ways(seed, turn, more_turns, particle, more_particles, out)
    assert (out == single).all()


def corners_of(engine: CpuEngine, point: Any) -> tuple[Any, Any]:
    """Gather the corners of a point in voxels; return them as kernels and as tests see them."""
    memory = engine.layout.make_room()
    corners = memory.addresses()[0].corners
    gather_corners(field_of(engine), *(float(p) for p in point), corners)
    return corners, memory.corners


def field_of(engine: CpuEngine) -> Any:
    return engine.layout.field.addresses()


@pytest.mark.parametrize("pmf_threshold", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize("point", [(0.3, 0.6, 0.45), (0.5, 0.5, 0.5), (1.0, 0.2, 0.9)])
def test_directions_are_drawn_as_the_interpolated_fodf_says(
    point: Any, summed: bool, pmf_threshold: float
) -> None:
    grid = cube(2, 2.0)
    coefficients = lobes(np.random.default_rng(5).normal([1, 0, 0], 0.35, (2, 2, 2, 3)))
    coefficients *= np.random.default_rng(6).uniform(0.3, 1, (2, 2, 2, 1))
    algorithm = {"kind": "prob", "max_angle_deg": 35, "pmf_threshold": pmf_threshold}
    engine = build(grid, coefficients, algorithm=algorithm)
    assert isinstance(engine, CpuEngine)
    axes = sphere.order_sphere().axes
    amplitudes = np.maximum(np.float32(coefficients) @ sh_basis(8, axes).T, 0)
    weights = [np.prod([p if c else 1 - p for p, c in zip(point, corner, strict=True)])
               for corner in np.ndindex(2, 2, 2)]  # fmt: skip
    fodf = np.tensordot(weights, amplitudes.reshape(8, -1), 1)
    axis = int(np.abs(axes @ X).argmax())
    cosine = axes @ axes[axis]
    usable = np.abs(cosine) >= np.cos(np.deg2rad(35))
    expected = fodf * usable * (fodf >= pmf_threshold * fodf.max())
    corners, _alive = corners_of(engine, point)
    n = 20_000
    drawn = draw_many(field_of(engine), corners, 2 * axis + 1, n, summed)
    assert ((cosine[drawn >> 1] * np.where(drawn & 1, -1, 1)) < 0).all()  # ahead of -axis
    counts = np.bincount(drawn >> 1, minlength=len(axes))
    assert (counts[expected == 0] == 0).all()
    expected = expected[expected > 0] * n / expected.sum()
    counts = counts[np.flatnonzero(fodf * usable * (fodf >= pmf_threshold * fodf.max()))]
    pooled = expected < 5
    expected = np.append(expected[~pooled], max(expected[pooled].sum(), 1e-9))
    counts = np.append(counts[~pooled], counts[pooled].sum())
    statistic = ((counts - expected) ** 2 / expected)[expected > 1].sum()
    assert chi2.sf(statistic, (expected > 1).sum() - 1) > 1e-3


@cache
def noise() -> CpuEngine:
    """Return an engine on fODFs without any shape, with empty voxels, and with equal amplitudes."""
    grid = cube(6)
    coefficients = np.random.default_rng(3).normal(0, 1, (*grid.shape, 45))
    coefficients[:, :, 2] = 0
    coefficients[:, :, 4:, 1:] = 0
    coefficients[:, :, 4:, 0] = 1  # the same along all axes
    engine = build(grid, coefficients, algorithm={"kind": "prob", "pmf_threshold": 0.3})
    assert isinstance(engine, CpuEngine)
    return engine


@settings(deadline=None)
@given(
    point=st.tuples(*[st.one_of(st.floats(-0.5, 5.49), st.integers(0, 5))] * 3),
    share=st.floats(0, 1.1),
)
def test_the_largest_amplitude_is_found_by_the_maxima_of_blocks(point: Any, share: float) -> None:
    engine = noise()
    field = field_of(engine)
    corners, memory = corners_of(engine, point)
    largest = fill_amplitudes(field, corners)
    amplitudes = memory.values[: field.n_axes]
    assert largest == amplitudes.max()
    above = np.int32(share * largest)
    found, axis = find_above(field, corners, above, False)
    if largest > above:
        assert (found, axis) == (largest, amplitudes.argmax())
        value, axis = find_above(field, corners, above, True)
        assert amplitudes[axis] == value > above
    else:
        assert axis == find_above(field, corners, above, True)[1] == -1
    least = field.pmf_threshold * largest
    for value in (np.float64(above), 0.999 * least, 1.001 * least):
        if largest > 0 and abs(value - least) > 1e-6:
            assert is_below(field, corners, value) == (value < least)


def test_a_draw_that_finds_no_direction_in_the_cone_says_so() -> None:
    grid = cube(2)
    engine = build(grid, everywhere(grid, X), algorithm={"kind": "prob", "max_angle_deg": 20})
    assert isinstance(engine, CpuEngine)
    corners, _alive = corners_of(engine, (0.5, 0.5, 0.5))
    across = int(np.abs(sphere.order_sphere().axes @ X).argmin())
    for summed in (False, True):
        drawn = draw_many(field_of(engine), corners, 2 * across, 50, summed)
        assert (drawn == -1).all()


@njit
def draw_with_words(field, corners, last):  # type: ignore[no-untyped-def]
    """Draw with the words that are there; return the vertex and its amplitude."""
    stream, none = make_stream(7, 0, 0, 0), np.int64(0)
    vertex = draw_vertex(field, corners, last, stream, none, none, none)
    return vertex, amplitude(field, corners, vertex >> 1)


def test_what_only_a_corner_without_weight_has_is_never_drawn() -> None:
    grid = cube(2)
    axes = sphere.order_sphere().axes
    across = int(np.abs(axes @ X).argmin())
    coefficients = everywhere(grid, X).copy()
    coefficients[1] = lobes(axes[across])
    coefficients[..., 0] -= 0.3  # zero but for lobes
    algorithm = {"kind": "prob", "max_angle_deg": 89, "pmf_threshold": 0}
    engine = build(grid, coefficients, algorithm=algorithm)
    assert isinstance(engine, CpuEngine)
    cone_start, cone = engine.layout.field.cone_start, engine.layout.field.cone
    last = int(np.abs(axes @ (X + axes[across])).argmax())
    among = cone[cone_start[last] : cone_start[last + 1]]
    wanted = int(np.flatnonzero(among >> 1 == across)[0])
    which = (wanted << 24) // len(among) + 2**14  # of 24 bits
    tried = 0
    for y, z in np.random.default_rng(0).uniform(0, 1, (200, 2)):
        corners, memory = corners_of(engine, (0, y, z))
        share, words = memory.share, memory.words.reshape(4, -1)
        limits, total = share[8:], share[15]
        assert (share[4:8] == 0).all()
        # Corners 4 to 6, where rounding has them begin before 3 ends.
        bits = np.int64(2.0**24 * float(limits[4:7].min()) / float(total)) + np.arange(-2, 3)
        where = bits.astype(np.float32) * (total * np.float32(2.0**-24))
        for proposed in bits[(limits[4:7].min() <= where) & (where < limits[3]) & (where < total)]:
            words[[0, 2]] = proposed << 8 | which >> 16
            words[[1, 3]] = (which & 0xFFFF) << 16
            vertex, amplitude = draw_with_words(field_of(engine), corners, np.int64(2 * last))
            assert vertex >> 1 != across
            assert amplitude > 0
            tried += 1
    assert tried > 5


@pytest.mark.parametrize("kind", ["prob", "det"])
@pytest.mark.parametrize("dead_ends", ["drop", "keep"])
def test_act_ends_well_in_grey_matter_and_badly_in_fluid(kind: str, dead_ends: str) -> None:
    grid, coefficients = along_x()
    include, exclude = np.zeros((2, *grid.shape), np.float32)
    include[14:], exclude[:4] = 1, 1  # one half is crossed at x = 13.5 and at x = 3.5
    exclude[:, :5], include[:5, :5] = 0, 1
    algorithm = {"kind": kind, "max_angle_deg": 15}
    engine = build(
        grid, coefficients, ActRule(include, exclude), algorithm=algorithm, dead_ends=dead_ends
    )
    batch = track(engine, [[9.3, 12.6, 9.8], [9.3, 1.5, 9.8]])
    assert nonzero(batch.counts.stops) == {"grey_matter": 3, "csf": 1}
    assert nonzero(batch.counts.rejected) == ({"dead_end": 1} if dead_ends == "drop" else {})
    assert batch.seed_index.tolist() == ([1] if dead_ends == "drop" else [0, 1])
    ends = {frozenset(list(Stop)[stop] for stop in row) for row in batch.stops}
    assert frozenset({Stop.GREY_MATTER}) in ends
    for line, row in zip(streamlines(batch), batch.stops, strict=True):
        assert 13 < line[:, 0].max() <= 13.5
        low = 3.5 if Stop.CSF in [list(Stop)[stop] for stop in row] else 4.5
        assert low <= line[:, 0].min() < low + 0.5


def along_a_corridor(n_voxels: int, size_mm: float = 1.0) -> tuple[Grid, Any]:
    """Return a long image whose first axis runs along a bundle, its seed in the middle (mm)."""
    turn, _ = np.linalg.qr(np.column_stack([X, np.eye(3)[1:].T]))
    turn[:, 0] = X
    turn[:, 2] *= np.linalg.det(turn)
    affine = np.eye(4)
    affine[:3, :3] = turn * size_mm
    return Grid((n_voxels, 5, 5), affine), affine[:3, :3] @ [n_voxels / 2, 2, 2]


@pytest.mark.parametrize(("grey", "fluid"), [(0.05, 0.0), (0.03, 0.02)])
@pytest.mark.parametrize("size_mm", [1.0, 2.0])
def test_cmc_in_five_percent_of_tissue_goes_on_for_tens_of_mm(
    size_mm: float, grey: float, fluid: float
) -> None:
    grid, middle = along_a_corridor(400, size_mm)
    ones = np.ones(grid.shape, np.float32)
    rule = CmcRule(np.float32(grey) * ones, np.float32(fluid) * ones)
    engine = build(grid, everywhere(grid, X), rule, dead_ends="keep")
    batch = track(engine, np.tile(middle, (3000, 1)))
    # A step goes on with the probability p: halves have p / (1 - p) steps on average.
    p = 0.95 ** (0.5 / size_mm)
    steps = np.diff(batch.offsets) - 1
    mean, deviation = 2 * p / (1 - p), np.sqrt(2 * p) / (1 - p)
    assert steps.mean() == pytest.approx(mean, abs=4 * deviation / np.sqrt(3000))
    assert mean * 0.5 > 30
    ends = batch.counts.stops
    assert ends[Stop.GREY_MATTER] + ends[Stop.CSF] + ends[Stop.IMAGE_BORDER] == 6000
    assert ends[Stop.IMAGE_BORDER] < 12
    assert ends[Stop.GREY_MATTER] / 6000 == pytest.approx(grey / 0.05, abs=0.03)


@pytest.mark.parametrize("grey", [1.0, 0.7])
def test_cmc_goes_no_step_where_all_is_tissue_to_end_in(grey: float) -> None:
    grid = cube(12, 2.0)
    include, exclude = np.full((2, *grid.shape), np.float32(grey))
    exclude[:] = 1 - include
    include[0, 0, 0] = exclude[0, 0, 0] = 0
    algorithm = {"kind": "prob", "step_size_mm": 0.1}
    engine = build(grid, everywhere(grid, X), CmcRule(include, exclude), algorithm=algorithm,
                   dead_ends="keep")  # fmt: skip
    batch = track(engine, np.random.default_rng(0).uniform(6, 16, (500, 3)))
    assert len(batch) == len(batch.points_mm) == 500


def test_ends_of_kept_streamlines_are_those_that_are_counted() -> None:
    for kind in (CPU, DIPY):
        grid = cube(12, 2.0)
        rule = ThresholdRule(random_map(grid), 0.37)
        engine = make_engine(kind, grid, ragged(grid), rule, algorithm="prob", dead_ends="keep")
        batch = track(engine, np.random.default_rng(0).uniform(0, 22, (300, 3)))
        counted = np.bincount(batch.stops.ravel(), minlength=len(Stop))
        assert dict(zip(Stop, counted.tolist(), strict=True)) == batch.counts.stops


def test_a_seed_tracked_alone_is_tracked_the_same() -> None:
    grid = cube(12, 2.0)
    rule = ThresholdRule(random_map(grid), 0.37)
    seeds = np.random.default_rng(0).uniform(0, 22, (600, 3))
    engine = build(grid, ragged(grid), rule, algorithm="prob", threads=2, max_directions=3,
                   dead_ends="keep")  # fmt: skip
    whole = track(engine, seeds, first=2**33)
    lines = streamlines(whole)
    for seed in range(0, 600, 23):
        alone = track(engine, seeds[seed], first=2**33 + seed)
        chosen = np.flatnonzero(whole.seed_index == 2**33 + seed)
        assert len(alone) == len(chosen)
        for one, other in zip(streamlines(alone), chosen, strict=True):
            np.testing.assert_array_equal(one, lines[other])


def test_det_makes_the_streamlines_of_dipy_where_both_mean_the_same() -> None:
    grid = cube(12, 2.0)
    directions = np.random.default_rng(2).normal([1.0, 0.3, 0], 0.25, (*grid.shape, 3))
    coefficients = lobes(directions)
    coefficients[..., 0] += 0.05  # no amplitude is negative
    rule = ThresholdRule(random_map(grid), 0.37)
    seeds = np.random.default_rng(0).uniform(0, 22, (500, 3))
    ours, theirs = (
        track(make_engine(kind, grid, coefficients, rule, dead_ends="keep"), seeds)
        for kind in (CPU, DIPY)
    )
    assert ours.seed_index.tolist() == theirs.seed_index.tolist()
    assert len(ours) > 200
    same = [
        len(one) == len(other) and np.abs(one - other).max() < 1e-3
        for one, other in zip(streamlines(ours), streamlines(theirs), strict=True)
    ]
    assert np.mean(same) > 0.985


@cache
def phantom() -> tuple[Grid, Any, Any]:
    """Return the grid of the phantom, its fODFs and the fractions of its tissues."""
    scan = ScanGrid(voxel_size_mm=(3.0, 3.0, 3.0))
    voxels = voxelise(make_phantom(), scan)
    grid = Grid((scan.shape[0], scan.shape[1], scan.shape[2]), scan.affine)
    coefficients = np.zeros((len(voxels.tissue), 45))
    np.add.at(
        coefficients,
        voxels.fibre_voxel,
        voxels.fibre_fraction[:, None] * lobes(voxels.fibre_direction),
    )
    return grid, coefficients.reshape(*grid.shape, 45), voxels.tissue.reshape(*grid.shape, 3)


@cache
def seeds_of_phantom(count: int) -> Any:
    grid, _, tissue = phantom()
    rng = np.random.default_rng(8)
    voxels = np.argwhere(tissue[..., 0] > 0.5)
    voxels = voxels[rng.integers(len(voxels), size=count)]
    return grid.to_mm(voxels + rng.uniform(-0.5, 0.5, voxels.shape))


def density(batch: StreamlineBatch, grid: Grid) -> Any:
    """Count the streamlines with a point in each voxel."""
    voxels = np.rint(grid.to_voxels(batch.points_mm)).astype(int)
    line = np.repeat(np.arange(len(batch)), np.diff(batch.offsets))
    found = np.unique(np.column_stack([line, voxels]), axis=0)
    counts = np.zeros(grid.shape)
    np.add.at(counts, tuple(found[:, 1:].T), 1)
    return counts.ravel()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["prob", "det"])
def test_the_phantom_is_tracked_as_dipy_tracks_it(kind: str) -> None:
    grid, coefficients, _ = phantom()
    seeds = seeds_of_phantom(1500)
    batches = [
        track(
            make_engine(engine, grid, coefficients, white_matter(), rng_seed=rng_seed, threads=2,
                        algorithm={"kind": kind, "step_size_mm": 1}, min_length_mm=10), seeds
        )
        for engine, rng_seed in ((CPU, 1), (DIPY, 1), (DIPY, 2))
    ]  # fmt: skip
    ours, theirs, again = (density(batch, grid) for batch in batches)
    assert np.corrcoef(ours, theirs)[0, 1] > np.corrcoef(theirs, again)[0, 1] - 0.005
    lengths = [np.quantile(np.diff(batch.offsets), [0.1, 0.5, 0.9]) for batch in batches]
    np.testing.assert_allclose(lengths[0], lengths[1], rtol=0.08)
    assert len(batches[0]) == pytest.approx(len(batches[1]), rel=0.03)


def fluid_across(grid: Grid, fraction: float, thickness: int = 1) -> ActRule:
    """Return a rule with grey matter at both ends of x and a sheet of fluid from x = 12 on."""
    include, exclude = np.zeros((2, *grid.shape), np.float32)
    include[:3], include[17:] = 1, 1
    exclude[12 : 12 + thickness] = fraction
    return ActRule(include, exclude)


@pytest.mark.parametrize(
    ("kind", "fraction", "thickness"), [("prob", 0.6, 1), ("pft", 0.6, 1), ("pft", 1.0, 3)]
)
def test_particles_find_a_way_through_partial_fluid_and_none_through_pure_fluid(
    kind: str, fraction: float, thickness: int
) -> None:
    grid, coefficients = along_x()
    rule = fluid_across(grid, fraction, thickness)
    engine = build(grid, coefficients, rule, dead_ends="keep",
                   algorithm={"kind": kind, "max_angle_deg": 20, "step_size_mm": 0.25})  # fmt: skip
    batch = track(engine, np.random.default_rng(0).uniform([6, 8, 8], [9, 11, 11], (40, 3)))
    ahead = np.array([line[:, 0].max() for line in streamlines(batch)])
    if kind == "pft" and fraction < 1:
        assert nonzero(batch.counts.stops) == {"grey_matter": 80}
        assert (ahead > 16.2).all()
    else:
        assert nonzero(batch.counts.stops) == {"grey_matter": 40, "csf": 40}
        assert (ahead < 12).all()
    for line in streamlines(batch):
        steps = np.diff(line, axis=0)
        np.testing.assert_allclose(np.linalg.norm(steps, axis=1), 0.25, atol=2e-5)
        cosine = np.einsum("ij,ij->i", steps[1:], steps[:-1]) / 0.25**2
        assert cosine.min() > np.cos(np.deg2rad(20.01))


def test_particles_pass_round_fluid_that_blocks_a_part_of_the_way() -> None:
    grid, coefficients = along_x()
    rule = fluid_across(grid, 0)
    rule.exclude[12, :10] = 1
    kept = {}
    for kind in ("prob", "pft"):
        algorithm = {"kind": kind} | ({"back_mm": 4} if kind == "pft" else {})
        seeds = np.random.default_rng(0).uniform([6, 8, 8], [9, 10, 11], (200, 3))
        batch = track(build(grid, coefficients, rule, algorithm=algorithm), seeds)
        kept[kind] = len(batch)
        assert (batch.stops == list(Stop).index(Stop.GREY_MATTER)).all()
    assert kept["pft"] > 1.2 * kept["prob"] > 0


def tissue_rule(kind: str) -> ActRule | CmcRule:
    _, _, tissue = phantom()
    exclude = tissue[..., 2].astype(np.float32)
    include = (1 - tissue[..., 0] - tissue[..., 2]).astype(np.float32)
    rules: dict[str, type[ActRule | CmcRule]] = {"act": ActRule, "cmc": CmcRule}
    return rules[kind](include, exclude)


def white_matter() -> ThresholdRule:
    return ThresholdRule(phantom()[2][..., 0].astype(np.float32), 0.3)


@pytest.mark.parametrize("kind", ["prob", "pft", "det"])
@pytest.mark.parametrize("stopping", ["act", "cmc"])
def test_threads_batches_and_history_change_no_bit(kind: str, stopping: str) -> None:
    grid, coefficients, _ = phantom()
    seeds = seeds_of_phantom(1500)[:600]

    def engine(threads: int) -> CpuEngine:
        made = build(grid, coefficients, tissue_rule(stopping), algorithm=kind, threads=threads,
                     max_directions=2)  # fmt: skip
        assert isinstance(made, CpuEngine)
        return made

    one, two = engine(1), engine(2)
    whole = track(one, seeds)
    assert len(whole) > 200
    assert bits(track(two, seeds)) == bits(track(engine(3), seeds)) == bits(whole)
    parts = [track(two, seeds[first : first + 97], first) for first in range(0, 600, 97)]
    for name in ("points_mm", "seed_index", "stops"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        assert joined.tobytes() == getattr(whole, name).tobytes()
    counts = Counts()
    for part in parts:
        counts = counts + part.counts
    assert counts == whole.counts


@pytest.mark.parametrize("kind", ["prob", "det", "pft", "closest_peak", "eudx"])
def test_neither_size_nor_order_of_batches_nor_threads_change_a_bit(kind: str) -> None:
    grid, coefficients, _ = phantom()
    seeds = seeds_of_phantom(12_000).copy()
    seeds[::50] += 1000  # outside the image
    rule = tissue_rule("act") if kind in ("prob", "pft") else white_matter()
    algorithm = {"kind": kind, "step_size_mm": 2}
    one, two = (
        build(grid, coefficients, rule, algorithm=algorithm, threads=threads, min_length_mm=20,
              max_length_mm=100) for threads in (1, 2)
    )  # fmt: skip
    whole = track(two, seeds)
    # One direction a seed: each seed has a streamline, kept or rejected, or is counted without.
    assert whole.counts.seeds == len(seeds) == 12_000
    assert whole.counts.seeds_without_direction >= 240
    assert whole.counts.generated + whole.counts.seeds_without_direction == 12_000
    assert 3000 < whole.counts.kept < whole.counts.generated
    assert bits(track(one, seeds)) == bits(whole)
    for engine, size in ((two, 1000), (one, 10_007)):
        firsts = range(0, 12_000, size)
        parts = [track(engine, seeds[first : first + size], first) for first in firsts[::-1]][::-1]
        for name in ("points_mm", "seed_index", "stops"):
            joined = np.concatenate([getattr(part, name) for part in parts])
            assert joined.tobytes() == getattr(whole, name).tobytes()
        lengths = np.concatenate([np.diff(part.offsets) for part in parts])
        assert lengths.tolist() == np.diff(whole.offsets).tolist()
        assert sum((part.counts for part in parts), Counts()) == whole.counts


@pytest.mark.parametrize("stopping", ["act", "cmc"])
def test_particles_end_where_those_of_dipy_do(stopping: str) -> None:
    grid, coefficients, _ = phantom()
    rule = tissue_rule(stopping)
    seeds = seeds_of_phantom(1500)[:250]
    batch = track(build(grid, coefficients, rule, rng_seed=3, min_length_mm=5,
                        algorithm={"kind": "pft", "step_size_mm": 1}), seeds)  # fmt: skip
    maps = rule.include.astype(float), rule.exclude.astype(float)
    criterion = (
        ActStoppingCriterion(*maps)
        if stopping == "act"
        else CmcStoppingCriterion(*maps, step_size=1.0, average_voxel_size=3.0)
    )
    theirs = list(
        pft_tracking(
            seeds, criterion, grid.affine, sh=coefficients, basis_type="tournier07", legacy=False,
            max_cross=1, min_len=8, max_len=250, step_size=1, max_angle=30, pmf_threshold=0.1,
            random_seed=5, return_all=False,
        )
    )  # fmt: skip
    assert len(batch) == pytest.approx(len(theirs), rel=0.08)
    lengths = np.diff(batch.offsets)
    # DIPY keeps the point at which the rule has stopped a half.
    reference = np.array([len(line) for line in theirs]) - 2
    np.testing.assert_allclose(
        np.quantile(lengths, [0.25, 0.5, 0.75]), np.quantile(reference, [0.25, 0.5, 0.75]),
        rtol=0.12,
    )  # fmt: skip
    density_theirs = np.zeros(grid.shape)
    for line in theirs:
        voxels = np.unique(np.rint(grid.to_voxels(line)).astype(int), axis=0)
        density_theirs[tuple(voxels.T)] += 1
    assert np.corrcoef(density(batch, grid), density_theirs.ravel())[0, 1] > 0.8


@pytest.mark.parametrize("kind", ["prob", "det", "pft", "ptt", "eudx", "closest_peak"])
def test_the_step_into_grey_matter_is_kept_if_asked_for_and_changes_nothing_else(kind: str) -> None:
    grid, coefficients = along_x()
    include, exclude = np.zeros((2, *grid.shape), np.float32)
    include[14:], include[:4] = 1, 1
    algorithm = {"kind": kind, "max_angle_deg": 15}
    seeds = np.random.default_rng(0).uniform([6, 8, 8], [11, 11, 11], (40, 3))
    without, kept = (
        track(
            build(grid, coefficients, ActRule(include, exclude, keep_entry), algorithm=algorithm,
                  dead_ends="keep"), seeds
        )
        for keep_entry in (False, True)
    )  # fmt: skip
    assert without.counts == kept.counts
    assert kept.counts.stops[Stop.GREY_MATTER] > 60
    for shorter, longer, stops in zip(
        streamlines(without), streamlines(kept), kept.stops, strict=True
    ):
        ends = [list(Stop)[stop] is Stop.GREY_MATTER for stop in stops]
        inner = longer[int(ends[0]) : len(longer) - int(ends[1])]
        np.testing.assert_array_equal(inner, shorter)
        for is_in_grey_matter, end in zip(ends, longer[[0, -1]], strict=True):
            assert not is_in_grey_matter or not 3.5 <= end[0] <= 13.5


def test_a_kept_step_counts_towards_the_maximal_length() -> None:
    grid, coefficients = along_x()
    include, exclude = np.zeros((2, *grid.shape), np.float32)
    include[14:], include[:4] = 1, 1
    for keep_entry in (False, True):
        rule = ActRule(include, exclude, keep_entry)
        length = 0.5 * (len(track(build(grid, coefficients, rule), CENTRE).points_mm) - 1)
        for bound, n_kept in ((length, 1), (length - 0.5, 0)):
            batch = track(build(grid, coefficients, rule, max_length_mm=bound), CENTRE)
            assert len(batch) == n_kept


@pytest.mark.parametrize("kind", ["prob", "det", "pft", "ptt", "eudx", "closest_peak"])
def test_low_fodf_ends_well_without_tissue_and_badly_in_white_matter(kind: str) -> None:
    grid, coefficients = along_x()
    coefficients[13:] *= 0.1
    peak = peak_amplitudes(np.ascontiguousarray(coefficients, np.float32))
    include, exclude = np.zeros((2, *grid.shape), np.float32)
    include[:4] = 1
    tissue, floor = ActRule(include, exclude), 0.25 * float(peak.max())
    alone = [None] if kind == "pft" else [None, slab(grid, 4, 19)]
    # Of the fODF's peak, 0.25 is crossed where 1 - 0.9 (x - 12) = 0.25.
    last = 12 + 0.75 / 0.9
    for within in [tissue, *alone]:
        if kind == "pft" and within is None:
            continue
        batch = track(
            build(grid, coefficients, FodRule(peak, floor, within), dead_ends="keep",
                  algorithm={"kind": kind, "max_angle_deg": 15}), CENTRE
        )  # fmt: skip
        reason = "no_direction" if within is tissue else "stopping_rule"
        assert batch.counts.stops[reason] >= 1
        assert last - 0.5 < batch.points_mm[:, 0].max() <= last + 1e-4


@pytest.mark.parametrize("kind", ["prob", "det", "pft", "ptt", "eudx", "closest_peak"])
def test_leaving_the_data_is_an_end_of_its_own_for_every_algorithm(kind: str) -> None:
    grid, coefficients = along_x()
    data = np.ones(grid.shape, bool)
    data[13:] = False
    include, exclude = np.zeros((2, *grid.shape), np.float32)
    include[:4] = 1
    batch = track(
        build(grid, coefficients, ActRule(include, exclude), data=data,
              algorithm={"kind": kind, "max_angle_deg": 15}), CENTRE
    )  # fmt: skip
    assert nonzero(batch.counts.stops) == {"grey_matter": 1, "no_data": 1}
    assert len(batch) == 1
    # eudx stops where half of the weight is without data.
    assert 12 < batch.points_mm[:, 0].max() < 13.5

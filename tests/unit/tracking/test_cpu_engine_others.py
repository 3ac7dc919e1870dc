"""closest_peak, eudx and ptt of our engine: closed forms, and DIPY's beside them."""

from __future__ import annotations

from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from dipy.data import default_sphere
from dipy.direction.peaks import peak_directions
from dipy.tracking.stopping_criterion import ThresholdStoppingCriterion
from dipy.tracking.tracker import closestpeak_tracking, eudx_tracking, ptt_tracking
from fields import (
    VERTICES,
    X,
    affine_of,
    bits,
    cube,
    curved,
    everywhere,
    in_file_order,
    lobes,
    make_engine,
    nonzero,
    random_map,
    stored_as,
    streamlines,
    track,
    vertex_near,
)
from scipy.spatial.transform import Rotation

from bids_tractography.core.fodf import sh_basis
from bids_tractography.core.stopping import ThresholdRule
from bids_tractography.core.streamlines import Counts, Stop
from bids_tractography.tracking.cpu.engine import CPU
from bids_tractography.tracking.cpu.sphere import nearest_axes
from bids_tractography.tracking.directions import initial_directions, interpolate, neighbour_table

build = partial(make_engine, CPU)
OTHERS = ["closest_peak", "eudx", "ptt"]


@pytest.mark.parametrize("kind", OTHERS)
def test_streamlines_run_along_a_known_oblique_direction_in_mm(kind: str) -> None:
    shape = (20, 15, 10)
    grid = stored_as("LAS", shape, affine_of([1.5, 2.0, 3.2], [-10, 7, 14], shape))
    direction = vertex_near([0.48, -0.6, 0.64])
    coefficients = in_file_order(grid, lambda mm: np.broadcast_to(direction, mm.shape))
    algorithm = {"kind": kind, "step_size_mm": 0.4}
    engine = build(grid, coefficients, algorithm=algorithm, dead_ends="keep")
    batch = track(engine, np.random.default_rng(0).uniform([0, -5, 2], [6, 1, 8], (20, 3)))
    assert len(batch) == 20
    cosines = []
    for line in streamlines(batch):
        steps = np.diff(line, axis=0)
        assert len(steps) > 25
        way = line[-1] - line[0]
        cosines.append(abs(way @ direction) / np.linalg.norm(way))
        # The points of ptt lie on arcs of the length of a step.
        shortest = 0.4 * np.sinc(7.5 / 180) if kind == "ptt" else 0.4
        lengths = np.linalg.norm(steps, axis=1)
        assert ((lengths > shortest - 2e-5) & (lengths < 0.4 + 2e-5)).all()
    if kind == "ptt":  # drawn, with little room to turn
        assert np.median(cosines) > np.cos(np.deg2rad(8))
        assert batch.counts.stops[Stop.IMAGE_BORDER] > 32
    else:
        assert min(cosines) > 1 - 1e-6
        assert nonzero(batch.counts.stops) == {"image_border": 40}


@pytest.mark.parametrize("kind", OTHERS)
def test_threads_and_batches_change_no_bit(kind: str) -> None:
    shape = (12, 12, 12)
    grid = stored_as("LPS", shape, affine_of([1.8, 2.0, 2.6], [8, -12, 20], shape))
    coefficients = in_file_order(grid, curved)
    rule = ThresholdRule(random_map(grid), 0.37)
    seeds = np.random.default_rng(3).uniform(-8, 10, (120, 3))
    one, two = (build(grid, coefficients, rule, algorithm=kind, threads=threads, max_directions=2,
                      dead_ends="keep") for threads in (1, 2))  # fmt: skip
    whole = track(one, seeds)
    assert len(whole) > 60
    assert bits(track(two, seeds)) == bits(whole)
    parts = [track(two, seeds[first : first + 37], first) for first in range(0, 120, 37)]
    joined = np.concatenate([part.points_mm for part in parts])
    assert joined.tobytes() == whole.points_mm.tobytes()
    assert sum((part.counts for part in parts), Counts()) == whole.counts


def test_eudx_averages_the_peaks_of_the_voxels_around() -> None:
    grid = cube(12)
    turn = Rotation.from_rotvec(np.deg2rad(40) * np.cross(X, vertex_near([0, 1, 0])))
    one, other = X, vertex_near(turn.apply(X))
    coefficients = everywhere(grid, one).copy()
    coefficients[:, 6:] = lobes(other)
    engine = build(grid, coefficients, algorithm="eudx")
    line = streamlines(track(engine, [[5.5, 5.25, 5.5]]))[0]
    start = int(np.abs(line - [5.5, 5.25, 5.5]).sum(axis=1).argmin())
    steps = line[start + 1] - line[start], line[start - 1] - line[start]
    forward = steps[0] if steps[0] @ one > 0 else steps[1]
    expected = 0.75 * one + 0.25 * other * np.sign(other @ one)
    assert forward @ expected / np.linalg.norm(expected) / 0.5 > 1 - 1e-5


def test_eudx_ends_where_too_few_voxels_have_a_suitable_peak() -> None:
    grid = cube(12)
    coefficients = everywhere(grid, X).copy()
    coefficients[8:] = 0
    for weight, border in ((0.5, 7.5), (0.25, 7.75)):
        algorithm = {"kind": "eudx", "min_weight": weight, "step_size_mm": 0.1}
        batch = track(build(grid, coefficients, algorithm=algorithm, dead_ends="keep"), [[3, 6, 6]])
        assert nonzero(batch.counts.stops) == {"image_border": 1, "angle": 1}
        assert border - 0.01 < batch.points_mm[:, 0].max() < border + 0.11


def test_the_nearest_axis_is_found_to_within_half_a_degree() -> None:
    table = nearest_axes(VERTICES)
    directions = np.random.default_rng(0).normal(size=(5000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    side = np.abs(directions).argmax(axis=1)
    ratio = np.take_along_axis(directions, (side[:, None] + [0, 1, 2]) % 3, axis=1)
    ratio = ratio / ratio[:, :1]
    u, v = np.where((side == 2)[:, None], ratio[:, 1:], ratio[:, 1:]).T
    cell = np.minimum(((np.stack([u, v]) + 1) / 2 * table.shape[1]).astype(int), table.shape[1] - 1)
    found = np.abs(np.einsum("ni,ni->n", VERTICES[table[side, *cell]], directions))
    best = np.abs(directions @ VERTICES.T).max(axis=1)
    assert np.rad2deg(np.arccos(found.clip(max=1)) - np.arccos(best.clip(max=1))).max() < 0.8
    assert (found > best - 1e-9).mean() > 0.85


@cache
def gently_varying() -> tuple[Any, Any, Any, Any]:
    """Return voxels of 1 mm, for DIPY's ptt mixes mm and voxels in others."""
    grid = cube(24, 1.0)
    centres = np.indices(grid.shape).reshape(3, -1).T * 1.0
    noise = np.random.default_rng(2).normal(0, 0.12, centres.shape)
    coefficients = lobes(curved(centres) + noise).reshape(*grid.shape, 45)
    coefficients[..., 0] += 0.02
    where = np.zeros(grid.shape, np.float32)
    where[2:22, 2:22, 2:22] = 1
    seeds = np.random.default_rng(0).uniform(6, 17, (300, 3))
    return grid, np.ascontiguousarray(coefficients, np.float32), where, seeds


def largest_peaks(coefficients: Any, seeds: Any) -> Any:
    values, _ = interpolate(coefficients, seeds)
    values = np.maximum(np.einsum("nc,vc->nv", values, sh_basis(8, VERTICES)), 0)
    neighbours = neighbour_table(default_sphere.edges, len(VERTICES))
    _, vertex = initial_directions(values, VERTICES, neighbours, 1)
    return VERTICES[vertex]


def visits(lines: list[Any], shape: Any) -> Any:
    counts = np.zeros(shape)
    for line in lines:
        counts[tuple(np.unique(np.rint(line).astype(int), axis=0).T)] += 1
    return counts.ravel()


@pytest.mark.parametrize("kind", OTHERS)
def test_streamlines_are_those_of_dipy(kind: str) -> None:
    grid, coefficients, where, seeds = gently_varying()
    rule = ThresholdRule(where, 0.5)
    ours = streamlines(
        track(build(grid, coefficients, rule, algorithm=kind, dead_ends="keep"), seeds)
    )
    criterion = ThresholdStoppingCriterion(where.astype(float), 0.5)
    shared: dict[str, Any] = {
        "seed_directions": largest_peaks(coefficients, seeds), "min_len": 0, "max_len": 1000,
        "step_size": 0.5, "return_all": True, "random_seed": 12345678,
    }  # fmt: skip
    harmonics: dict[str, Any] = {
        "sh": coefficients.astype(float), "basis_type": "tournier07", "legacy": False,
    }  # fmt: skip
    if kind == "closest_peak":
        shared["seed_directions"] = shared["seed_directions"][:, None]
        made = closestpeak_tracking(
            seeds, criterion, np.eye(4), max_angle=30, pmf_threshold=0.1, **shared, **harmonics
        )
    elif kind == "ptt":
        made = ptt_tracking(
            seeds, criterion, np.eye(4), max_angle=15, pmf_threshold=0.1, probe_length=1.5,
            probe_radius=0, probe_quality=7, probe_count=1, **shared, **harmonics,
        )  # fmt: skip
    else:
        amplitudes = np.maximum(coefficients.reshape(-1, 45) @ sh_basis(8, VERTICES).T, 0)
        values, indices = np.zeros((len(amplitudes), 5)), -np.ones((len(amplitudes), 5), int)
        for row, amplitude in enumerate(amplitudes):
            _, peaks, found = peak_directions(amplitude, default_sphere)
            values[row, : len(found[:5])], indices[row, : len(found[:5])] = peaks[:5], found[:5]
        pam = SimpleNamespace(
            peak_values=values.reshape(*grid.shape, 5), sphere=default_sphere,
            peak_indices=indices.reshape(*grid.shape, 5),
            peak_dirs=VERTICES[indices].reshape(*grid.shape, 5, 3),
        )  # fmt: skip
        made = eudx_tracking(
            seeds, criterion, np.eye(4), pam=pam, max_angle=60,
            pmf_threshold=0.1 * values.max(), **shared,
        )  # fmt: skip
    theirs = [np.asarray(line) for line in made]
    if kind == "ptt":
        lengths = [np.median([len(line) for line in lines]) for lines in (ours, theirs)]
        assert lengths[0] == pytest.approx(lengths[1], rel=0.06)
        # Two runs of DIPY with other random numbers: 0.78.
        assert np.corrcoef(visits(ours, grid.shape), visits(theirs, grid.shape))[0, 1] > 0.73
        return
    assert len(ours) == len(theirs) == len(seeds)
    same = [len(one) == len(other) and np.abs(one - other).max() < 0.01
            for one, other in zip(ours, theirs, strict=True)]  # fmt: skip
    assert np.mean(same) > 0.9

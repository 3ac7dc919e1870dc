"""Interpolation and initial directions against scipy, DIPY and planted peaks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dipy.core.interpolation import trilinear_interpolate4d
from dipy.data import default_sphere
from dipy.direction.peaks import peak_directions
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from bids_tractography.core.fodf import sh_basis
from bids_tractography.tracking.directions import (
    amplitudes,
    initial_directions,
    interpolate,
    neighbour_table,
)

SHAPE = (4, 5, 3)
VERTICES = default_sphere.vertices
NEIGHBOURS = neighbour_table(default_sphere.edges, len(VERTICES))


def volume(n_channels: int = 3) -> Any:
    return np.random.default_rng(1).normal(size=(*SHAPE, n_channels))


def directions_of(values: Any, max_directions: int = 5) -> tuple[Any, Any]:
    return initial_directions(np.atleast_2d(values), VERTICES, NEIGHBOURS, max_directions)


def angle_deg(one: Any, other: Any) -> float:
    return float(np.rad2deg(np.arccos(min(abs(float(np.dot(one, other))), 1.0))))


def lobe(direction: Any, sharpness: float = 40) -> Any:
    """Amplitudes of a bundle: 1 along its direction, near 0 elsewhere."""
    return np.exp(sharpness * ((VERTICES @ direction) ** 2 - 1))


def test_interpolation_is_that_of_scipy_inside_the_image_and_up_to_its_border() -> None:
    data = volume()
    points = np.random.default_rng(2).uniform(-0.5, np.array(SHAPE) - 0.5, (3000, 3))
    values, inside = interpolate(data, points)
    expected = [map_coordinates(data[..., c], points.T, order=1, mode="nearest") for c in range(3)]
    assert inside.all()
    np.testing.assert_allclose(values, np.transpose(expected), rtol=0, atol=1e-12)


def test_interpolation_is_zero_outside_the_image() -> None:
    points = np.random.default_rng(3).uniform(-4, 9, (3000, 3))
    outside = ((points < -0.5) | (points >= np.array(SHAPE) - 0.5)).any(axis=1)
    values, inside = interpolate(volume() + 10, points)
    np.testing.assert_array_equal(inside, ~outside)
    assert (values[outside] == 0).all()
    assert (values[~outside] > 0).all()
    assert 50 < (~outside).sum() < 2900


def test_interpolation_at_voxel_centres_is_the_voxel() -> None:
    data = volume()
    centres = np.argwhere(np.ones(SHAPE, bool)).astype(float)
    np.testing.assert_array_equal(interpolate(data, centres)[0], data.reshape(-1, 3))


coordinate = st.one_of(
    st.floats(-2, 7),
    st.sampled_from([-0.5, np.nextafter(-0.5, -1), -0.0, 0.0, 2.5, np.nextafter(2.5, 0), 3.5, 4.5]),
)


@settings(max_examples=300, deadline=None)
@given(point=st.tuples(coordinate, coordinate, coordinate))
def test_interpolation_and_the_border_rule_are_those_of_dipy(
    point: tuple[float, float, float],
) -> None:
    data = volume()
    values, inside = interpolate(data, np.array([point]))
    try:
        expected = trilinear_interpolate4d(data, np.array(point))
    except IndexError:
        assert not inside[0]
        assert values.tolist() == [[0, 0, 0]]
    else:
        assert inside[0]
        np.testing.assert_allclose(values[0], expected, rtol=0, atol=1e-12)


BASIS = sh_basis(8, VERTICES)
COEFFICIENTS = np.random.default_rng(4).normal(size=(5000, 45))
AMPLITUDES = amplitudes(COEFFICIENTS, BASIS)


@settings(max_examples=100, deadline=None)
@given(start=st.integers(0, 4999), count=st.integers(0, 600))
@example(start=4372, count=256)
@example(start=2687, count=2313)
@example(start=0, count=1)
def test_amplitudes_of_a_row_do_not_depend_on_the_rows_beside_it(start: int, count: int) -> None:
    part = amplitudes(COEFFICIENTS[start : start + count], BASIS)
    assert part.shape == (min(count, 5000 - start), 362)
    assert np.array_equal(part, AMPLITUDES[start : start + count])


def test_amplitudes_are_sums_of_coefficients_times_the_basis() -> None:
    basis = sh_basis(4, VERTICES)
    coefficients = np.random.default_rng(5).normal(size=(3, 15))
    expected = [[sum(c * b for c, b in zip(row, at, strict=True)) for at in basis]
                for row in coefficients]  # fmt: skip
    np.testing.assert_allclose(amplitudes(coefficients, basis), expected, atol=1e-13)


def planted(angles_deg: list[float], weights: list[float], seed: int) -> tuple[Any, Any]:
    """Put lobes on vertices as near as can be to given angles from the first; return both."""
    turn = Rotation.random(random_state=np.random.default_rng(seed)).as_matrix()
    flat = [[np.cos(np.deg2rad(a)), np.sin(np.deg2rad(a)), 0] for a in angles_deg]
    chosen = [VERTICES[np.abs(VERTICES @ turn @ f).argmax()] for f in flat]
    values = sum(w * lobe(v, 80) for w, v in zip(weights, chosen, strict=True))
    return values, chosen


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    ("angles", "weights"),
    [
        ([0], [0.3]),
        ([0, 90], [1.0, 0.7]),
        ([0, 60], [1.0, 0.9]),
        ([0, 60, 120], [1.0, 0.8, 0.6]),
    ],
)
def test_planted_bundles_are_found_the_largest_first(
    angles: list[float], weights: list[float], seed: int
) -> None:
    values, chosen = planted(angles, weights, seed)
    row, vertex = directions_of(values)
    assert row.tolist() == [0] * len(angles)
    for found, direction in zip(vertex, chosen, strict=True):
        assert angle_deg(VERTICES[found], direction) < 1e-5


@pytest.mark.parametrize("wanted", [1, 2, 3])
def test_the_largest_peaks_are_taken_where_fewer_are_wanted(wanted: int) -> None:
    values, chosen = planted([0, 60, 120], [0.8, 0.6, 1.0], 3)
    _, vertex = directions_of(values, wanted)
    for found, direction in zip(vertex, [chosen[2], chosen[0], chosen[1]][:wanted], strict=True):
        assert angle_deg(VERTICES[found], direction) < 1e-5


@pytest.mark.parametrize(("share", "n_found"), [(0.45, 1), (0.55, 2)])
def test_peaks_below_half_the_largest_start_no_streamline(share: float, n_found: int) -> None:
    assert len(directions_of(planted([0, 90], [1.0, share], 1)[0])[1]) == n_found


def test_peaks_nearer_than_25_degrees_to_a_larger_one_start_no_streamline() -> None:
    cosines = np.abs(VERTICES @ VERTICES.T)
    seen = set()
    for limit, n_found in [(22, 1), (28, 2)]:
        gaps = np.abs(np.rad2deg(np.arccos(np.minimum(cosines, 1))) - limit)
        one, other = np.unravel_index(gaps.argmin(), gaps.shape)
        values = lobe(VERTICES[one], 400) + 0.9 * lobe(VERTICES[other], 400)
        _, vertex = directions_of(values)
        assert vertex[0] == one
        assert len(vertex) == n_found
        seen.add(len(vertex))
    assert seen == {1, 2}


@pytest.mark.parametrize("values", [np.zeros(362), -np.ones(362), -lobe([0, 0, 1]) - 1e-6])
def test_no_direction_where_the_function_is_nowhere_positive(values: Any) -> None:
    row, vertex = directions_of(values)
    assert row.size == vertex.size == 0


def test_rows_are_independent_and_in_order() -> None:
    functions = [lobe(VERTICES[7]), np.zeros(362), planted([0, 90], [1.0, 0.7], 2)[0]]
    row, vertex = directions_of(np.array(functions))
    assert row.tolist() == [0, 2, 2]
    for index, function in enumerate(functions):
        np.testing.assert_array_equal(vertex[row == index], directions_of(function)[1])


def test_no_rows_have_no_directions() -> None:
    row, vertex = directions_of(np.empty((0, 362)))
    assert row.size == vertex.size == 0


def random_fodfs(count: int) -> Any:
    """Make three lobes of random directions and sizes, band-limited as CSD gives them."""
    rng = np.random.default_rng(6)
    basis = sh_basis(8, VERTICES)
    axes = rng.normal(size=(count, 3, 3))
    axes /= np.linalg.norm(axes, axis=2, keepdims=True)
    weights = rng.uniform(0, 1, (count, 3, 1))
    values = (weights * np.exp(12 * ((axes @ VERTICES.T) ** 2 - 1))).sum(axis=1)
    values += rng.normal(0, 0.01, values.shape) - 0.02  # CSD has some negative amplitudes
    return values @ np.linalg.pinv(basis).T @ basis.T


def test_peaks_are_those_of_dipy_on_random_fodfs() -> None:
    functions = random_fodfs(400)
    assert (functions.min(axis=1) < 0).all()  # elsewhere DIPY's threshold is above the minimum
    row, vertex = directions_of(functions)
    same, several = 0, 0
    for index, function in enumerate(functions):
        directions, _, indices = peak_directions(
            function, default_sphere, relative_peak_threshold=0.5, min_separation_angle=25
        )
        ours = vertex[row == index]
        assert ours[0] == indices[0]
        same += list(ours) == list(indices[:5])
        several += len(directions) > 1
    assert several > 100
    assert same >= 0.99 * len(functions)


@settings(max_examples=100, deadline=None)
@given(arrays(float, 362, elements=st.floats(-1, 1, width=16)))
def test_every_direction_is_a_positive_maximum_large_enough_and_apart_from_the_others(
    values: Any,
) -> None:
    _, vertex = directions_of(values)
    assert (vertex.size > 0) == (values.max() > 0)
    if vertex.size:
        assert values[vertex[0]] == values.max()
    assert (values[vertex] > 0).all()
    assert (values[vertex] >= 0.5 * values.max()).all()
    assert (np.diff(values[vertex]) <= 0).all()
    for index, one in enumerate(vertex):
        around = {int(b if a == one else a) for a, b in default_sphere.edges if one in (a, b)}
        assert all(values[one] >= values[other] for other in around)
        assert all(angle_deg(VERTICES[one], VERTICES[v]) >= 25 for v in vertex[:index])


def test_neighbours_are_the_nearest_axes_across_the_rim_of_the_half_sphere_too() -> None:
    cosines = np.abs(VERTICES @ VERTICES.T) - 2 * np.eye(362)
    nearest = np.argsort(-cosines, axis=1)[:, :4]
    for index, row in enumerate(NEIGHBOURS):
        beside = set(row.tolist()) - {index}
        assert set(nearest[index].tolist()) <= beside
        assert 5 <= len(beside) <= 8
        assert all(angle_deg(VERTICES[index], VERTICES[v]) < 16 for v in beside)

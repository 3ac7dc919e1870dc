from __future__ import annotations

import numpy as np
import pytest

from bids_tractography.core.fodf import sh_basis
from bids_tractography.report.glyphs import glyphs, sphere
from bids_tractography.report.kernels.raster import (
    DEPTH_MM,
    DEPTH_UNITS,
    draw_streamlines,
    draw_triangles,
)
from bids_tractography.report.raster import six_views

RNG = np.random.default_rng(8)
LENGTHS = RNG.integers(2, 12, 40).astype(np.uint32)
POINTS = np.cumsum(RNG.normal(0, 2, (int(LENGTHS.sum()), 3)), axis=0).astype(np.float32)
POINTS -= POINTS.mean(axis=0)


def test_six_views_are_the_same_bytes_on_any_number_of_threads() -> None:
    one, two, three = (
        [(name, image.tobytes()) for name, _, image in six_views(POINTS, LENGTHS, 60, n)]
        for n in (1, 2, 3)
    )
    assert one == two == three
    assert {name for name, _ in one} == set("RLAPSI")


def test_six_views_do_not_depend_on_the_order_of_streamlines() -> None:
    pieces = np.split(POINTS, np.cumsum(LENGTHS)[:-1])
    backwards = np.concatenate(pieces[::-1])
    first = [image for *_, image in six_views(POINTS, LENGTHS, 60, 1)]
    second = [image for *_, image in six_views(backwards, LENGTHS[::-1].copy(), 60, 1)]
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_draw_streamlines_one_line_is_where_a_naive_loop_puts_it(axis: int) -> None:
    size, scale = 80, 2.0
    line = np.array([[-8, -5, 3], [7, 9, -6]], np.float32)
    front, back = np.zeros((2, size, size), np.uint64)
    draw_streamlines(line, np.array([2], np.uint32), axis, scale, 0, front, back)
    right, up = ((1, 2), (0, 2), (0, 1))[axis]
    expected = np.zeros((size, size), bool)
    for share in np.linspace(0, 1, 2000, endpoint=False):
        point = line[0] + share * (line[1] - line[0])
        x, y = (int(np.floor(point[a] * scale + size / 2)) for a in (right, up))
        expected[size - 1 - y, x] = True
    drawn = front > 0
    assert not (drawn & ~expected).any()
    assert drawn.sum() > 0.6 * expected.sum()
    assert np.array_equal(drawn, back > 0)


def test_draw_streamlines_nearer_one_hides_the_other_from_its_side() -> None:
    lines = np.array([[-9, 0, 5], [9, 0, 5], [0, -9, -5], [0, 9, -5]], np.float32)
    lengths = np.array([2, 2], np.uint32)
    front, back = np.zeros((2, 60, 60), np.uint64)
    draw_streamlines(lines, lengths, 2, 2.0, 0, front, back)
    middle = (29, 30)
    depth = float(front[middle] >> np.uint64(32)) / DEPTH_UNITS - DEPTH_MM
    assert depth == pytest.approx(5, abs=1e-3)
    assert (int(front[middle]) >> 16 & 255, int(front[middle]) & 0xFFFF) == (255, 0)  # along x
    assert int(back[middle]) >> 8 & 0xFFFF & 255 == 255  # along y


def test_six_views_left_is_where_the_patient_is() -> None:
    # A line at the patient's left (x = -20) and front (y = 30), along z.
    line = np.array([[-20, 30, -10], [-20, 30, 10], [20, -30, 0], [20, -29, 0]], np.float32)
    views = {name: image for name, _, image in six_views(line, np.array([2, 2], "u4"), 100, 1)}
    blue = {name: image[..., 2] > 0.15 for name, image in views.items()}
    columns = {n: float(np.average(np.arange(100), weights=b.sum(axis=0))) for n, b in blue.items()}
    assert columns["A"] > 60  # face to face, the patient's left is on the right
    assert columns["P"] < 40
    assert columns["L"] < 40  # the front is on the left
    assert columns["R"] > 60


def test_draw_triangles_covers_a_triangle_once_and_keeps_the_nearer() -> None:
    image, depths = np.zeros((20, 20, 3), np.float32), np.full((20, 20), -np.inf, np.float32)
    corners = np.array(
        [[2, 2, 0], [17, 2, 0], [2, 17, 0], [2, 2, 5], [17, 2, 5], [2, 17, 5]], float
    )
    colours = np.repeat([[1.0, 0, 0], [0, 1, 0]], 3, axis=0)
    draw_triangles(corners, colours, np.array([[3, 4, 5], [0, 1, 2]]), image, depths)
    rows, columns = np.indices((20, 20))
    inside = (rows >= 2) & (columns >= 2) & (rows + columns <= 19)
    assert np.array_equal(image[..., 1] > 0.5, inside)
    assert not image[..., 0].any()


def test_sphere_is_closed_and_faces_outwards() -> None:
    corners, triangles = sphere()
    assert len(corners) == 642
    assert np.allclose(np.linalg.norm(corners, axis=1), 1)
    a, b, c = (corners[triangles[:, k]] for k in range(3))
    assert (np.einsum("ij,ij->i", np.cross(b - a, c - a), a + b + c) > 0).all()
    edges = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()


@pytest.mark.parametrize(
    ("axis", "direction", "slanted"),
    [
        (2, (1, 0, 0), 0), (2, (1, 1, 0), 1), (2, (1, -1, 0), -1),
        (1, (1, 0, 1), 1), (1, (1, 0, -1), -1), (0, (0, 1, 1), -1), (0, (0, 1, -1), 1),
    ],
)  # fmt: skip
def test_glyphs_lie_along_the_fibre_as_slices_are_shown(
    axis: int, direction: tuple[int, int, int], slanted: int
) -> None:
    """In sagittal slices anterior is on the left, so what rises to the front falls to the right."""
    fibre = np.array(direction) / np.linalg.norm(direction)
    corners, _ = sphere()
    sharp = np.abs(corners @ fibre) ** 20
    coefficients = np.linalg.lstsq(sh_basis(8, corners), sharp, rcond=None)[0]
    image = glyphs(coefficients[None, None], np.zeros((1, 1)), axis, 1.0, 60)
    rows, columns = np.indices((60, 60))
    weights = image.sum(axis=2)
    y = (weights * (29.5 - rows) * (columns - 29.5)).sum() / weights.sum()
    spread = (weights * (columns - 29.5) ** 2).sum() / weights.sum()
    assert round(y / spread) == slanted

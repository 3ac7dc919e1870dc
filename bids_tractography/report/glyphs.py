"""fODF glyphs over a slice: one surface a voxel, as far from its centre as the amplitude."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from bids_tractography.core.fodf import sh_basis, sh_order_of
from bids_tractography.report.kernels.raster import draw_triangles, light_surface

SMALLEST = 0.08
"""Glyphs whose largest amplitude is a smaller share of the scale are not drawn."""

_OVERSAMPLING = 2
_SCALE_PERCENTILE = 90.0
_LIGHT, _AMBIENT = np.array([-0.3, 0.4, 0.866]), 0.35
# What RAS axis points right, up and to the viewer, by the axis that the slice is across.
_TO_VIEW = {
    2: np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]),
    1: np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    0: np.array([[0.0, -1, 0], [0, 0, 1], [-1, 0, 0]]),
}


@cache
def sphere(divisions: int = 3) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the corners and triangles of a sphere made from an icosahedron."""
    golden = (1 + np.sqrt(5)) / 2
    corners = [
        np.roll([0.0, a, b * golden], shift) for shift in range(3) for a in (-1, 1) for b in (-1, 1)
    ]
    points = np.array(corners) / np.sqrt(1 + golden**2)
    near = np.linalg.norm(points[:, None] - points[None], axis=2) < 1.2
    triangles = np.array(
        [
            (a, b, c) if np.linalg.det(points[[a, b, c]]) > 0 else (a, c, b)
            for a in range(12)
            for b in range(a + 1, 12)
            for c in range(b + 1, 12)
            if near[a, b] and near[b, c] and near[a, c]
        ]
    )
    for _ in range(divisions):
        edges = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
        unique, number = np.unique(edges, axis=0, return_inverse=True)
        middles = points[unique].sum(axis=1)
        middles /= np.linalg.norm(middles, axis=1, keepdims=True)
        ab, bc, ca = (number.reshape(-1, 3) + len(points)).T
        a, b, c = triangles.T
        points = np.concatenate([points, middles])
        triangles = np.concatenate(
            [np.stack(t, axis=1) for t in ((a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca))]
        )
    return points, triangles


def scale_of(coefficients: NDArray[np.floating]) -> float:
    """Return the amplitude that glyphs of fODFs (n, C) are drawn in proportion to."""
    corners, _ = sphere()
    basis = sh_basis(sh_order_of(coefficients.shape[1]), corners)
    peaks = np.einsum("nc,vc->nv", coefficients, basis).max(axis=1, initial=0)
    return float(np.percentile(peaks[peaks > 0], _SCALE_PERCENTILE)) if (peaks > 0).any() else 1.0


def glyphs(
    coefficients: NDArray[np.floating],
    background: NDArray[np.floating],
    axis: int,
    scale: float,
    pixels: int,
) -> NDArray[np.float32]:
    """Draw the fODFs of a slice.

    Parameters
    ----------
    coefficients : ndarray, shape (U, V, C)
        Of the voxels of the slice as `maps.plane` shows it: rows from the top, columns from the
        left. Real harmonics in MRtrix3's basis.
    background : ndarray, shape (U, V)
        0 to 1.
    axis : int
        That the slice is across.
    scale : float
        Amplitude that reaches the edge of its voxel; larger ones end there, too.
    pixels : int
        Edge of a voxel in the picture.

    Returns
    -------
    ndarray of float32, shape (U * pixels, V * pixels, 3)
    """
    corners, triangles = sphere()
    n_rows, n_columns, n_coefficients = coefficients.shape
    basis = sh_basis(sh_order_of(n_coefficients), corners)
    size = pixels * _OVERSAMPLING
    image = np.repeat(np.repeat(background * 0.5, size, axis=0), size, axis=1)
    image = np.repeat(image[..., None], 3, axis=2).astype(np.float32)
    depths = np.full(image.shape[:2], -np.inf, np.float32)
    seen = corners @ _TO_VIEW[axis].T
    colours, light = np.abs(corners), np.empty(len(corners))
    for row, column in np.ndindex(n_rows, n_columns):
        amplitudes = np.maximum(basis @ coefficients[row, column], 0)
        peak = amplitudes.max()
        if not peak > SMALLEST * scale:  # nor finite
            continue
        surface = seen * (amplitudes / max(scale, peak) * 0.62 * size)[:, None]
        light_surface(surface, triangles, _LIGHT, _AMBIENT, light)
        placed = np.stack(
            [
                (column + 0.5) * size + surface[:, 0],
                (row + 0.5) * size - surface[:, 1],
                surface[:, 2],
            ],
            axis=1,
        )
        draw_triangles(placed, colours * light[:, None], triangles, image, depths)
    n = _OVERSAMPLING
    shape = (n_rows * pixels, n, n_columns * pixels, n, 3)
    return np.asarray(np.clip(image.reshape(shape).mean(axis=(1, 3)), 0, 1) ** 0.9, np.float32)

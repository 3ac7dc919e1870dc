"""Anatomy of the phantom: one head with five known bundles.

The anatomy is analytic and in RAS+ mm, independent of any voxel grid. From outside to inside::

    head          an ellipsoid of 80 x 96 x 64 mm; its outermost 2.5 mm are CSF
    cortex        the next 4.5 mm, GM; every bundle runs from cortex to cortex
    inside        isotropic tissue like GM, a ventricle of CSF, and five bundles of WM:

    association   straight, back to front and downwards, on the left
    commissural   straight, left to right, in front; crosses association at 90 degrees
    projection    straight, bottom to top, in front; crosses commissural at 60 degrees
    arcuate       a C open to the right, low in the head; radius of curvature 17 mm
    radiation     a fan, narrow at the bottom, rising through the C, wide at the top

The layout is not equal to any of its mirror images, so a flipped axis anywhere between the
scanner and the streamlines disconnects bundles.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

Vector = tuple[float, float, float]
Floats = NDArray[np.float64]
Integers = NDArray[np.intp]

TISSUES = ("WM", "GM", "CSF")
CENTRELINE_STEP_MM = 0.1
# A streamline may end about one voxel to the side of the end of its bundle, or two voxels before.
END_MARGIN_MM, END_DEPTH_MM = 3.0, 4.0


@dataclass(frozen=True)
class Ellipsoid:
    """A solid ellipsoid along the scanner axes, in RAS+ mm."""

    centre_mm: Vector
    semi_axes_mm: Vector

    def contains(self, points_mm: Floats) -> NDArray[np.bool_]:
        """Return which of the points (N, 3) are inside, shape (N,)."""
        scaled = (points_mm - np.array(self.centre_mm)) / np.array(self.semi_axes_mm)
        return np.asarray((scaled**2).sum(axis=1) <= 1)

    def shrunk(self, by_mm: float) -> Ellipsoid:
        """Return the ellipsoid with its semi-axes reduced."""
        x, y, z = self.semi_axes_mm
        return Ellipsoid(self.centre_mm, (x - by_mm, y - by_mm, z - by_mm))


@dataclass(frozen=True, eq=False)
class Bundle:
    """A tube of fibres around a smooth curve; the fibres diverge where its radius increases.

    Parameters
    ----------
    name, shape : str
        Name of the bundle, and its shape in words.
    centreline_mm : ndarray, shape (P, 3)
        Points from pial surface to pial surface, `CENTRELINE_STEP_MM` apart, in RAS+ mm.
    radii_mm : ndarray, shape (P,)
        Radius of the tube at each point.
    """

    name: str
    shape: str
    centreline_mm: Floats
    radii_mm: Floats

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self.centreline_mm)

    def near(self, points_mm: Floats, margin_mm: float = 0) -> tuple[Integers, Integers]:
        """Find the points inside the tube, widened by a margin.

        Parameters
        ----------
        points_mm : ndarray, shape (N, 3)
            RAS+ mm.
        margin_mm : float
            Added to the radius.

        Returns
        -------
        rows, nearest : ndarray, shape (K,)
            Indices of the points inside, and of the centreline point nearest to each.
        """
        reach_mm = self.radii_mm.max() + margin_mm
        low, high = self.centreline_mm.min(axis=0), self.centreline_mm.max(axis=0)
        boxed = (points_mm >= low - reach_mm) & (points_mm <= high + reach_mm)
        rows = np.flatnonzero(boxed.all(axis=1))
        distances, nearest = self._tree.query(points_mm[rows], distance_upper_bound=reach_mm)
        found = np.isfinite(distances)
        rows, distances, nearest = rows[found], distances[found], nearest[found]
        inside = distances <= self.radii_mm[nearest] + margin_mm
        return rows[inside], nearest[inside]

    def directions(self, points_mm: Floats, nearest: Integers) -> Floats:
        """Return unit fibre directions (K, 3) at points (K, 3) found by `near`.

        They follow the centreline and, where the tube widens, point outwards. In a straight cone
        this is exact: its fibres are the straight lines through its apex.
        """
        forwards = np.gradient(self.centreline_mm, axis=0)[nearest]
        growth = (np.gradient(self.radii_mm) / self.radii_mm)[nearest, None]
        return unit_vectors(forwards + growth * (points_mm - self.centreline_mm[nearest]))


class Composition(NamedTuple):
    """Composition at N points of a head with B bundles.

    Parameters
    ----------
    tissue : ndarray, shape (N, 3)
        Fractions of `TISSUES`, either 0 or 1; all 0 outside the head.
    fractions : ndarray, shape (N, B)
        Volume fraction of each bundle. Bundles that cross have equal fractions.
    directions : ndarray, shape (N, B, 3)
        Unit vectors along the fibres, RAS+; zero outside the bundle.
    """

    tissue: Floats
    fractions: Floats
    directions: Floats


@dataclass(frozen=True, eq=False)
class Phantom:
    """The head: nested ellipsoids, a ventricle and bundles."""

    head: Ellipsoid
    pial_surface: Ellipsoid
    white_surface: Ellipsoid
    ventricle: Ellipsoid
    bundles: tuple[Bundle, ...]

    def composition(self, points_mm: Floats) -> Composition:
        """Return the composition at points (N, 3)."""
        directions = np.zeros((len(points_mm), len(self.bundles), 3))
        present = np.zeros((len(points_mm), len(self.bundles)), dtype=bool)
        below_cortex = np.flatnonzero(self.white_surface.contains(points_mm))
        for column, bundle in enumerate(self.bundles):
            found, nearest = bundle.near(points_mm[below_cortex])
            rows = below_cortex[found]
            directions[rows, column] = bundle.directions(points_mm[rows], nearest)
            present[rows, column] = True
        white = present.any(axis=1)
        wet = ~self.pial_surface.contains(points_mm) | self.ventricle.contains(points_mm)
        csf = wet & ~white & self.head.contains(points_mm)
        return Composition(
            tissue=np.stack([white, ~white & ~wet, csf], axis=1).astype(np.float64),
            fractions=present / np.maximum(present.sum(axis=1, keepdims=True), 1),
            directions=directions,
        )

    def end_regions(self, points_mm: Floats) -> Integers:
        """Return the end region of each point (N, 3): 2 i starts bundle i, 2 i + 1 ends it.

        End regions are the outer thirds of the tube, widened by `END_MARGIN_MM`, in the cortex and
        up to about `END_DEPTH_MM` below it. Elsewhere the value is -1.
        """
        regions = np.full(len(points_mm), -1)
        shallow = ~self.white_surface.shrunk(END_DEPTH_MM).contains(points_mm)
        for index, bundle in enumerate(self.bundles):
            rows, nearest = bundle.near(points_mm, END_MARGIN_MM)
            third = 3 * nearest // len(bundle.centreline_mm)
            at_end = shallow[rows] & (third != 1)
            regions[rows[at_end]] = 2 * index + (third[at_end] == 2)
        return regions


@lru_cache(maxsize=1)
def make_phantom() -> Phantom:
    """Create the head described in the docstring of this module."""
    head = Ellipsoid((0, 0, 0), (40, 48, 32))
    pial = head.shrunk(2.5)
    right = unit_vectors(np.array([0.96, 0.15, 0.15]))
    front = unit_vectors(np.array([-0.1, 0.96, -0.32]))
    up = np.sqrt(0.75) * unit_vectors(np.cross(right, [0, 0.95, 0.3])) - right / 2
    left_crossing = np.array([-14, 11, 6])
    right_crossing = left_crossing + 22 * right
    bundles = (
        _tube("association", "straight", _line(left_crossing, front), (6, 6), pial),
        _tube("commissural", "straight", _line(left_crossing, right), (6, 6), pial),
        _tube("projection", "straight", _line(right_crossing, up), (6, 6), pial),
        _tube("arcuate", "bending", _c_shape((0, -13, -11), radius_mm=17), (6, 6), pial),
        _tube("radiation", "fanning", _line((9.5, -15, 0), (0.35, -0.1, 1)), (4.5, 12), pial),
    )
    return Phantom(head, pial, pial.shrunk(4.5), Ellipsoid((-16, 14, -10), (6, 10, 6)), bundles)


def unit_vectors(vectors: Floats) -> Floats:
    """Scale vectors (..., 3) to length 1."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def _line(through_mm: ArrayLike, direction: ArrayLike) -> Floats:
    """Return a straight line (P, 3), longer than the head."""
    along_mm = np.arange(-100, 100, CENTRELINE_STEP_MM)[:, None]
    unit = unit_vectors(np.array(direction, dtype=np.float64))
    return np.asarray(through_mm, dtype=np.float64) + along_mm * unit


def _c_shape(centre_mm: ArrayLike, radius_mm: float) -> Floats:
    """Return a half circle between two legs to the right (P, 3), its front 10 degrees down."""
    right, front = np.array([1, 0, 0]), np.array([0, np.cos(np.pi / 18), -np.sin(np.pi / 18)])
    angles = np.linspace(0, np.pi, round(np.pi * radius_mm / CENTRELINE_STEP_MM))[:, None]
    arc = radius_mm * (np.cos(angles) * front - np.sin(angles) * right)
    leg = np.arange(CENTRELINE_STEP_MM, 100, CENTRELINE_STEP_MM)[:, None] * right
    curve = np.concatenate([arc[0] + leg[::-1], arc, arc[-1] + leg])
    return curve + np.asarray(centre_mm, dtype=np.float64)


def _tube(
    name: str, shape: str, curve_mm: Floats, radii_mm: tuple[float, float], within: Ellipsoid
) -> Bundle:
    """Return a bundle along the part of a curve (P, 3) inside an ellipsoid."""
    centreline_mm = curve_mm[within.contains(curve_mm)]
    return Bundle(name, shape, centreline_mm, np.linspace(*radii_mm, len(centreline_mm)))


def connected_bundles(phantom: Phantom, points_mm: ArrayLike, offsets: ArrayLike) -> dict[str, int]:
    """Count the streamlines that connect the two ends of each bundle.

    Parameters
    ----------
    phantom : Phantom
    points_mm : array-like, shape (N, 3)
        Points of all streamlines, RAS+ mm.
    offsets : array-like, shape (T + 1,)
        Index of the first point of each streamline, then N. No streamline is empty.

    Returns
    -------
    dict of str to int
        A count for each bundle, for "invalid" (ends of two different bundles) and for "none" (all
        others). They add up to T.
    """
    points, starts = np.asarray(points_mm, dtype=np.float64), np.asarray(offsets, dtype=np.intp)
    first = phantom.end_regions(points[starts[:-1]])
    last = phantom.end_regions(points[starts[1:] - 1])
    connects = (first >= 0) & (last >= 0) & (first != last)
    same = first // 2 == last // 2
    counts = {
        bundle.name: int(np.sum(connects & same & (first // 2 == index)))
        for index, bundle in enumerate(phantom.bundles)
    }
    counts["invalid"] = int(np.sum(connects & ~same))
    return counts | {"none": len(first) - sum(counts.values())}

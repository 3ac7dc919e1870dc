"""A phantom of many crossing bundles, made from a random seed, and scores of tractograms of it.

The head is that of ``bids_tractography.phantom``: an ellipsoid with CSF, cortex and isotropic
tissue like grey matter inside. Bundles are tubes along smooth curves that leave the cortex at a
right angle; their ends are apart from each other, so that every end region belongs to one bundle.

Scores are Tractometer's (Cote 2013): streamlines that connect the two ends of a bundle, two
others, or no two; voxels of the bundles visited by valid streamlines, and others visited by them.
The connectome has a node for each end region. Its valid part is that of the connections that
bundles make; r is the correlation over all pairs of regions of the number of streamlines with the
cross-section of the bundle, zero where there is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scoring import Lines, Volume, visits

from bids_tractography.phantom.anatomy import (
    CENTRELINE_STEP_MM,
    Bundle,
    Ellipsoid,
    Phantom,
    unit_vectors,
)
from bids_tractography.phantom.scan import (
    B0_SIGNAL,
    GradientScheme,
    ScanGrid,
    simulate_dwi,
    voxelise,
)

N_BUNDLES = 27
_APART_MM = 13.0  # between ends: about twice the mean radius with its margin
_RADII_MM = (2.5, 4.0)
_MIN_CURVATURE_RADIUS_MM = 9.0
_LENGTHS_MM = (35.0, 130.0)


@lru_cache(maxsize=4)
def make_tubes(rng_seed: int = 0, n_bundles: int = N_BUNDLES) -> Phantom:
    """Return a head with bundles between random places of its surface."""
    rng = np.random.default_rng(rng_seed)
    pial = Ellipsoid((0, 0, 0), (40, 48, 32)).shrunk(2.5)
    while True:
        ends = _spread(pial, 2 * n_bundles, rng)
        bundles = _join(ends, pial, rng)
        if bundles is not None:
            break
    ventricle = Ellipsoid((-16, 14, -10), (5, 8, 5))
    return Phantom(
        Ellipsoid((0, 0, 0), (40, 48, 32)), pial, pial.shrunk(4.5), ventricle, tuple(bundles)
    )


def _spread(surface: Ellipsoid, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return places on a surface that are apart from each other, shape (count, 3)."""
    places: list[NDArray[np.float64]] = []
    tries = 0
    while len(places) < count:
        tries += 1
        if tries > 20_000:
            places, tries = [], 0
        place = unit_vectors(rng.normal(size=3)) * np.array(surface.semi_axes_mm)
        if all(np.linalg.norm(place - other) > _APART_MM for other in places):
            places.append(place)
    return np.array(places)


def _join(
    ends: NDArray[np.float64], surface: Ellipsoid, rng: np.random.Generator
) -> list[Bundle] | None:
    """Join places two by two by curves that do not bend too much; None if that fails."""
    left = list(rng.permutation(len(ends)))
    bundles: list[Bundle] = []
    while left:
        first = left.pop()
        order = rng.permutation(left)
        for second in order:
            curve = _curve(ends[first], ends[second], surface, rng)
            if curve is not None:
                left.remove(second)
                thin, thick = rng.uniform(*_RADII_MM, 2)
                name = f"tube{len(bundles)}"
                bundles.append(Bundle(name, "curve", curve, np.linspace(thin, thick, len(curve))))
                break
        else:
            return None
    return bundles


def _curve(
    start: NDArray[np.float64],
    stop: NDArray[np.float64],
    surface: Ellipsoid,
    rng: np.random.Generator,
) -> NDArray[np.float64] | None:
    """Return a curve between two places that sets out at a right angle to the surface."""
    axes = np.array(surface.semi_axes_mm)
    inwards = [-unit_vectors(place / axes**2) for place in (start, stop)]
    distance = np.linalg.norm(stop - start)
    reach = rng.uniform(0.9, 1.6) * distance
    t = np.linspace(0, 1, 4000)[:, None]
    curve = (
        (2 * t**3 - 3 * t**2 + 1) * start
        + (t**3 - 2 * t**2 + t) * reach * inwards[0]
        + (3 * t**2 - 2 * t**3) * stop
        - (t**3 - t**2) * reach * inwards[1]
    )
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    if not _LENGTHS_MM[0] < along[-1] < _LENGTHS_MM[1]:
        return None
    even = np.arange(0, along[-1], CENTRELINE_STEP_MM)
    curve = np.stack([np.interp(even, along, part) for part in curve.T], axis=1)
    tangent = unit_vectors(np.gradient(curve, axis=0))[5:-5]
    bend = np.linalg.norm(np.gradient(tangent, axis=0), axis=1)[5:-5] / CENTRELINE_STEP_MM
    if bend.max() > 1 / _MIN_CURVATURE_RADIUS_MM:
        return None
    inner = surface.shrunk(1.0).contains(curve)[30:-30]
    return curve if inner.all() else None


def simulate(
    phantom: Phantom, grid: ScanGrid, scheme: GradientScheme, snr: float, rng_seed: int
) -> NDArray[np.float32]:
    """Return the signal with Rician noise, shape (X, Y, Z, G)."""
    signal = simulate_dwi(voxelise(phantom, grid), scheme)
    rng = np.random.default_rng(rng_seed)
    real, imaginary = B0_SIGNAL[0] / snr * rng.standard_normal((2, *signal.shape))
    noisy = np.sqrt((signal + real) ** 2 + imaginary**2)
    return np.asarray(noisy.reshape(*grid.shape, -1), np.float32)


@dataclass(frozen=True)
class TubeScore:
    """How streamlines connect the ends of bundles; shares, see the docstring of this module."""

    count: int
    valid: float
    invalid: float
    none: float
    found: int
    overlap: float
    overreach: float
    connectome_valid: float
    r: float


@lru_cache(maxsize=4)
def _masks(phantom: Phantom, grid: ScanGrid) -> NDArray[np.bool_]:
    """Return the voxels whose centre is in each bundle, shape (X·Y·Z, B)."""
    return phantom.composition(grid.centres_mm()).fractions > 0


def score_tubes(lines: Lines, phantom: Phantom, grid: ScanGrid) -> TubeScore:
    """Score streamlines in mm."""
    n = len(phantom.bundles)
    regions = phantom.end_regions(lines.ends.reshape(-1, 3).astype(np.float64)).reshape(-1, 2)
    connects = (regions >= 0).all(axis=1) & (regions[:, 0] != regions[:, 1])
    bundle = np.where(connects & (regions[:, 0] // 2 == regions[:, 1] // 2), regions[:, 0] // 2, -1)
    masks = _masks(phantom, grid)
    through = visits(lines, Volume(np.zeros(grid.shape), grid.affine))
    overlap, overreach = np.zeros(n), np.zeros(n)
    for place in range(n):
        visited = np.zeros(len(masks), bool)
        visited[np.unique(through[np.flatnonzero(bundle == place)].indices)] = True
        size = masks[:, place].sum()
        overlap[place] = (visited & masks[:, place]).sum() / size
        overreach[place] = (visited & ~masks[:, place]).sum() / size
    matrix, truth = np.zeros((2, 2 * n, 2 * n))
    low, high = np.sort(regions[connects], axis=1).T
    np.add.at(matrix, (low, high), 1)
    for place, one in enumerate(phantom.bundles):
        truth[2 * place, 2 * place + 1] = (one.radii_mm**2).mean()
    pairs = np.triu_indices(2 * n, 1)
    r = np.corrcoef(matrix[pairs], truth[pairs])[0, 1] if matrix.any() else 0.0
    count = max(len(lines), 1)
    return TubeScore(
        count=len(lines),
        valid=float((bundle >= 0).sum() / count),
        invalid=float((connects & (bundle < 0)).sum() / count),
        none=float((~connects).sum() / count),
        found=len(np.unique(bundle[bundle >= 0])),
        overlap=float(overlap.mean()),
        overreach=float(overreach.mean()),
        connectome_valid=float((bundle >= 0).sum() / max(connects.sum(), 1)),
        r=float(r),
    )

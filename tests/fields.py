"""Fields of fODFs with a known answer, and what tests of engines share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from dipy.data import default_sphere
from nibabel.affines import apply_affine
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform
from scipy.spatial.transform import Rotation

from bids_tractography.config.tracking import TrackingConfig
from bids_tractography.core.fodf import Fodf, sh_basis
from bids_tractography.core.images import Grid
from bids_tractography.core.seeding import SeedBatch
from bids_tractography.core.stopping import BinaryRule, StoppingRule
from bids_tractography.core.streamlines import Counts, StreamlineBatch
from bids_tractography.tracking.base import Engine, EngineKind, TrackingProblem

VERTICES = default_sphere.vertices
DEGREES = np.repeat([0, 2, 4, 6, 8], [1, 5, 9, 13, 17])
# A heat kernel on the sphere: largest along its axis, and hardly negative at order 8.
BLUR = np.exp(-DEGREES * (DEGREES + 1) / 40)
WIDE: dict[str, Any] = {"min_length_mm": 0, "max_length_mm": 1000}
# What the tests are made for, whatever the defaults are.
LOOSE: dict[str, Any] = {"max_angle_deg": 30, "pmf_threshold": 0.1}


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
    kind: EngineKind,
    grid: Grid,
    coefficients: Any,
    stopping: StoppingRule | None = None,
    *,
    rng_seed: int = 1,
    threads: int = 1,
    data: Any = None,
    **tracking: Any,
) -> Engine:
    rule = BinaryRule(np.ones(grid.shape, bool)) if stopping is None else stopping
    fodf = Fodf(np.ascontiguousarray(coefficients, np.float32), grid)
    algorithm = tracking.get("algorithm", "det")
    algorithm = {"kind": algorithm} if isinstance(algorithm, str) else algorithm
    if algorithm["kind"] not in ("eudx", "ptt"):
        algorithm = {**LOOSE, **algorithm}
    config = TrackingConfig(**{**WIDE, **tracking, "algorithm": algorithm})
    return kind.build(TrackingProblem(fodf, rule, config, rng_seed, data), threads)


def track(engine: Engine, positions_mm: Any, first: int = 0) -> StreamlineBatch:
    batch = engine.track(SeedBatch(first, np.atleast_2d(np.asarray(positions_mm, float))))
    batch.counts.check()
    assert batch.counts.kept == len(batch) == len(batch.seed_index) == len(batch.stops)
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
    x, y, z = stored.tolist()
    return Grid((x, y, z), affine @ inv_ornt_aff(turn, shape))


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


def curved(mm: Any) -> Any:
    """Return directions that turn smoothly from place to place."""
    x, y, z = np.asarray(mm).T / 15
    directions = np.stack([1 + 0.1 * x, 0.8 * np.sin(x + 0.5 * z), 0.6 * np.cos(y - x)], axis=-1)
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def ragged(grid: Grid, seed: int = 0) -> Any:
    """Make fODFs that differ from voxel to voxel, many of them crossings, some zero."""
    rng = np.random.default_rng(seed)
    directions = rng.normal([1.0, 0.3, 0], 0.45, (*grid.shape, 3))
    other = rng.normal(size=(*grid.shape, 3))
    coefficients = lobes(directions) + lobes(other) * rng.uniform(0, 1, (*grid.shape, 1))
    for x, y, z in ([2, 3, 7], [7, 6, 1], [5, 8, 6], [8, 2, 4]):
        coefficients[x : x + 3, y : y + 3, z : z + 3] = 0
    return coefficients


def random_map(grid: Grid) -> Any:
    """Map with holes, 0 to 1, and large near the border so that nothing is cropped."""
    return np.random.default_rng(9).random(grid.shape).astype(np.float32) ** 0.3


def bits(batch: StreamlineBatch) -> tuple[bytes, bytes, bytes, Counts]:
    return (
        batch.points_mm.tobytes(),
        batch.offsets.tobytes(),
        batch.seed_index.tobytes(),
        batch.counts,
    )


X = vertex_near([1, 0, 0])


def along_x(n_voxels: int = 20) -> tuple[Grid, Any]:
    grid = cube(n_voxels)
    return grid, everywhere(grid, X).copy()


def slab(grid: Grid, low: int, high: int) -> BinaryRule:
    mask = np.zeros(grid.shape, bool)
    mask[low : high + 1] = True
    return BinaryRule(mask)


CENTRE = [9.3, 9.6, 9.8]


def isotropic(grid: Grid) -> Any:
    coefficients = np.zeros((*grid.shape, 45))
    coefficients[..., 0] = 1
    return coefficients

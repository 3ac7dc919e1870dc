"""DIPY's local trackers, ``prob`` and ``det``: the reference engine.

DIPY is run in voxel coordinates, with a sphere whose vertices are turned into image axes while
the fODF is evaluated in scanner axes: so nothing has to be rotated, and the set of directions is
the same however the image lies. Every streamline is asked for, whatever its end, and accepted
here: DIPY returns neither counts nor reasons, so the reason of an end is found by asking again
what DIPY asked at its last point.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from dipy.core.geometry import cart2sphere
from dipy.data import default_sphere
from dipy.direction.pmf import SHCoeffPmfGen
from dipy.tracking.stopping_criterion import (
    BinaryStoppingCriterion,
    StoppingCriterion,
    ThresholdStoppingCriterion,
)
from dipy.tracking.tracker_parameters import generate_tracking_parameters
from dipy.tracking.tractogen import generate_tractogram
from numpy.typing import NDArray

from bids_tractography.config.algorithm import DeterministicConfig, ProbabilisticConfig
from bids_tractography.core.fodf import sh_basis
from bids_tractography.core.seeding import SeedBatch
from bids_tractography.core.stopping import (
    BinaryRule,
    StoppingRule,
    ThresholdRule,
    as_map_rule,
    extent,
)
from bids_tractography.core.streamlines import Rejection, Stop, StreamlineBatch
from bids_tractography.tracking.acceptance import codes, count, judge, max_points, without_data
from bids_tractography.tracking.base import EngineKind, TrackingProblem
from bids_tractography.tracking.directions import (
    amplitudes,
    initial_directions,
    interpolate,
    neighbour_table,
)

_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class _TurnedSphere:
    """Vertices in image axes, polar angles in scanner axes; what DIPY's `PmfGen` reads."""

    vertices: NDArray[np.float64]
    theta: NDArray[np.float64]
    phi: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Tracks:
    """Streamlines as DIPY made them.

    Parameters
    ----------
    points : ndarray, shape (N, 3)
        Voxel coordinates of the cropped image.
    offsets : ndarray, shape (T + 1,)
    pair : ndarray, shape (T,)
        Which pair of seed and direction each one is of; pairs without one were too long.
    """

    points: NDArray[np.float64]
    offsets: NDArray[np.int64]
    pair: NDArray[np.intp]


class DipyEngine:
    """One of DIPY's local trackers on one image.

    Parameters
    ----------
    problem : TrackingProblem
    n_threads : int
        Changes the time, not the result.
    """

    def __init__(self, problem: TrackingProblem, n_threads: int) -> None:
        algorithm = problem.tracking.algorithm
        if not isinstance(algorithm, ProbabilisticConfig | DeterministicConfig):
            raise TypeError(f"{algorithm.kind} is none of {sorted(DIPY.algorithms)}")
        self._pmf_threshold = algorithm.pmf_threshold
        self._max_angle_deg = algorithm.max_angle_deg
        grid = problem.fodf.grid
        self._problem = problem
        self._n_threads = n_threads
        self._origin, crop = _bounding_box(extent(problem.stopping))
        self._sh = np.ascontiguousarray(problem.fodf.coefficients[crop], np.float64)
        self._criterion = _criterion(as_map_rule(problem.stopping), crop)
        directions = default_sphere.vertices
        self._basis = sh_basis(problem.fodf.sh_order, directions)
        self._vertices = np.ascontiguousarray(directions @ grid.axes)
        self._neighbours = neighbour_table(default_sphere.edges, len(directions))
        _, theta, phi = cart2sphere(*directions.T)
        sphere = _TurnedSphere(self._vertices, theta, phi)
        self._pmf = SHCoeffPmfGen(self._sh, sphere, "tournier07", legacy=False)
        step_mm = algorithm.step_size_mm
        # DIPY's buffer holds each side of the seed and bounds the sum of both; twice the
        # longest that is kept lets all of those through.
        self._parameters = generate_tracking_parameters(
            algorithm.kind,
            min_len=0,
            max_len=int(np.ceil((2 * max_points(problem.tracking) + 2) * step_mm)),
            step_size=step_mm,
            voxel_size=grid.voxel_size_mm,
            max_angle=algorithm.max_angle_deg,
            pmf_threshold=algorithm.pmf_threshold,
            random_seed=_dipy_seed(problem.rng_seed, self._sh.shape),
            return_all=True,
        )

    def track(self, seeds: SeedBatch) -> StreamlineBatch:
        """Track from every seed of a batch."""
        starts = self._problem.fodf.grid.to_voxels(seeds.positions_mm) - self._origin
        row, vertex = initial_directions(
            self._amplitudes(starts),
            self._vertices,
            self._neighbours,
            self._problem.tracking.max_directions,
        )
        tracks = self._run(starts[row], self._vertices[vertex])
        n_points = np.diff(tracks.offsets)
        stops, rejected = judge(
            n_points, self._stops(tracks, starts[row], vertex), self._problem.tracking
        )
        beyond = len(row) - len(tracks.pair)  # longer than DIPY's buffer, hence not returned
        counts = count(
            len(seeds),
            len(np.unique(row)),
            np.concatenate([stops, np.full((beyond, 2), Stop.MAX_LENGTH)]),
            np.concatenate([rejected, np.full(beyond, Rejection.TOO_LONG)]),
        )
        kept = np.flatnonzero(rejected == "")
        points = tracks.points[_ranges(tracks.offsets[kept], n_points[kept])]
        return StreamlineBatch(
            points_mm=self._problem.fodf.grid.to_mm(points + self._origin).astype(np.float32),
            offsets=np.concatenate([[0], np.cumsum(n_points[kept])]).astype(np.int64),
            seed_index=seeds.first + row[tracks.pair[kept]].astype(np.int64),
            counts=counts,
            stops=codes(stops[kept]),
        )

    def _amplitudes(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Evaluate the fODF, not only in the box that DIPY has: (n, 3) gives (n, V)."""
        coefficients, _ = interpolate(self._problem.fodf.coefficients, points + self._origin)
        return amplitudes(coefficients, self._basis)

    def _run(self, starts: NDArray[np.float64], directions: NDArray[np.float64]) -> _Tracks:
        if len(starts) == 0:
            return _Tracks(np.empty((0, 3)), np.zeros(1, np.int64), np.empty(0, np.intp))
        # The identity keeps DIPY from multiplying seeds by an affine with BLAS, whose rounding
        # may change with their number, and with it the random numbers.
        made = generate_tractogram(
            np.ascontiguousarray(starts),
            np.ascontiguousarray(directions),
            self._criterion,
            self._parameters,
            self._pmf,
            np.eye(4),
            nbr_threads=self._n_threads,
            save_seeds=True,
        )
        tracks, pairs, pair = [], [], 0
        for points, seed in made:
            while not np.array_equal(seed, starts[pair]):  # not returned: beyond the buffer
                pair += 1
            tracks.append(points)
            pairs.append(pair)
            pair += 1
        offsets = np.cumsum([0, *map(len, tracks)], dtype=np.int64)
        points = np.concatenate(tracks) if tracks else np.empty((0, 3))
        return _Tracks(points, offsets, np.array(pairs, np.intp))

    def _stops(
        self, tracks: _Tracks, starts: NDArray[np.float64], vertex: NDArray[np.intp]
    ) -> NDArray[np.str_]:
        """Return why both ends of each streamline are where they are, shape (T, 2)."""
        first, last = tracks.offsets[:-1], tracks.offsets[1:] - 1
        ends = tracks.points[np.stack([first, last], axis=1)]
        heading = self._heading(tracks, starts[tracks.pair], self._vertices[vertex[tracks.pair]])
        grid = self._problem.fodf.grid
        step_voxels = self._problem.tracking.algorithm.step_size_mm / grid.voxel_size_mm
        beyond = ends + self._origin + heading * step_voxels
        outside = ((beyond < -0.5) | (beyond >= np.array(grid.shape) - 0.5)).any(axis=2)
        ahead, anywhere = self._directions(ends.reshape(-1, 3), heading.reshape(-1, 3))
        stops = np.where(outside, Stop.IMAGE_BORDER, Stop.STOPPING_RULE)
        stops = np.where(ahead.reshape(-1, 2), stops, Stop.ANGLE)
        stops = np.where(anywhere.reshape(-1, 2), stops, Stop.NO_DIRECTION)
        return without_data(stops, ends + self._origin, self._problem.data)

    def _heading(
        self, tracks: _Tracks, starts: NDArray[np.float64], initial: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the outward direction at both ends in image axes, mm, shape (T, 2, 3).

        A side without a step has the direction that DIPY would have set out with: the initial
        one forwards, the reverse of the first forward step backwards.
        """
        first, last = tracks.offsets[:-1], tracks.offsets[1:] - 1
        track_of_point = np.repeat(np.arange(len(first)), np.diff(tracks.offsets))
        at_seed = (tracks.points == starts[track_of_point]).all(axis=1)
        seed_point = np.full(len(first), -1)
        found = np.flatnonzero(at_seed)[::-1]
        seed_point[track_of_point[found]] = found
        voxel_size = self._problem.fodf.grid.voxel_size_mm
        points = tracks.points
        after, before = np.minimum(first + 1, last), np.maximum(last - 1, first)
        backward = (points[first] - points[after]) * voxel_size
        forward = (points[last] - points[before]) * voxel_size
        forward = np.where((seed_point == last)[:, None], initial, forward)
        # DIPY turns the first step round in voxel units, which bends it where voxels are not
        # cubes.
        turned = points[first] - points[after]
        turned = np.where((first == last)[:, None], -initial, turned)
        backward = np.where((seed_point == first)[:, None], turned, backward)
        heading = np.stack([backward, forward], axis=1)
        return np.asarray(heading / np.linalg.norm(heading, axis=2, keepdims=True))

    def _directions(
        self, points: NDArray[np.float64], heading: NDArray[np.float64]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Ask at points (n, 3) for directions in the cone around a heading (n, 3), and at all."""
        ahead, anywhere = np.zeros(len(points), bool), np.zeros(len(points), bool)
        for start in range(0, len(points), 8192):
            block = slice(start, start + 8192)
            values = self._amplitudes(points[block])
            enough = values >= self._pmf_threshold * values.max(axis=1, keepdims=True)
            cosine = np.abs(np.einsum("ni,vi->nv", heading[block], self._vertices))
            # A heading is itself a vertex but for rounding; so are the borders of its cone.
            in_cone = cosine >= np.cos(np.deg2rad(self._max_angle_deg)) - _ROUNDING
            usable = enough & (values > 0)
            ahead[block] = (usable & in_cone).any(axis=1)
            anywhere[block] = usable.any(axis=1)
        return ahead, anywhere


def _bounding_box(
    voxels: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], tuple[slice, slice, slice]]:
    """Box around the places to go on, one voxel wider: streamlines end inside it."""
    if not voxels.any():
        raise ValueError("the stopping rule lets no voxel through")
    box = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        taken = np.flatnonzero(voxels.any(axis=others))
        box.append(slice(max(int(taken[0]) - 1, 0), min(int(taken[-1]) + 2, voxels.shape[axis])))
    return np.array([float(part.start) for part in box]), (box[0], box[1], box[2])


def _criterion(rule: StoppingRule, crop: tuple[slice, slice, slice]) -> StoppingCriterion:
    match rule:
        case BinaryRule():
            return BinaryStoppingCriterion(rule.mask[crop])
        case ThresholdRule():
            return ThresholdStoppingCriterion(
                np.ascontiguousarray(rule.map[crop], np.float64), rule.threshold
            )
    raise TypeError(f"{type(rule).__name__} is none of {sorted(DIPY.stopping)}")


def _dipy_seed(rng_seed: int, shape: tuple[int, ...]) -> int:
    """Spread our seeds over those that DIPY can use well.

    DIPY keys the random numbers of a streamline by the 32-bit integer ``(2x + 3y + 5z) * seed``
    of its seed point in voxels: a small seed makes streamlines share them, one that is too large
    leaves the range of the integer, where processors differ, and 0 means the clock.
    """
    largest = 2**32 // (2 * shape[0] + 3 * shape[1] + 5 * shape[2])
    word = int(np.random.Philox(key=rng_seed).random_raw())
    return largest - word % (largest // 2)


def _ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Concatenate ``arange(start, start + length)``."""
    ends = np.cumsum(lengths)
    shift = np.repeat(starts - np.concatenate([[0], ends[:-1]]), lengths) if len(ends) else ends
    return np.arange(ends[-1] if len(ends) else 0) + shift


DIPY = EngineKind(
    name="dipy",
    library="dipy",
    algorithms=frozenset({"prob", "det"}),
    stopping=frozenset({"threshold", "binary", "fod"}),
    batch_size=10_000,
    differences=(
        "With stopping.fod_below, the threshold and the share of the fODF are combined in each "
        "voxel, before interpolation.",
        "The random numbers of a streamline are keyed by the position of its seed: streamlines of "
        "one seed share theirs, and so do those of seeds whose 2x + 3y + 5z (in voxels) coincides "
        "to about 1e-6, which is rare for random seeds and common for a regular grid.",
        "The stopping rule is not asked at the seed itself.",
        "The reverse of the first step, where the second half of a streamline sets out, is taken "
        "in voxel units: the first cone of that half is bent where voxels are not cubes.",
        "An end one step from the image border counts as image_border if the last direction "
        "leads out of the image. Both ends of a streamline beyond the maximal length count as "
        "max_length.",
    ),
    build=DipyEngine,
    points_per_second=lambda algorithm: 5e4,
    memory_bytes=lambda size: 8.0 * size.voxels * (size.coefficients + 1),  # float64, and a map
)

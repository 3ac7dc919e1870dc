"""Tracking in fixed units of work, by something that only walks on a lattice.

It is let through to beyond the ends of streamlines; they are cut and accepted here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol

import numpy as np
from dipy.data import default_sphere
from numpy.typing import NDArray

from bids_tractography.config.algorithm import ParallelTransportConfig, ProbabilisticConfig
from bids_tractography.core.fodf import sh_basis
from bids_tractography.core.seeding import SeedBatch
from bids_tractography.core.stopping import (
    BinaryRule,
    StoppingRule,
    ThresholdRule,
    as_map_rule,
    extent,
)
from bids_tractography.core.streamlines import Stop, StreamlineBatch
from bids_tractography.tracking.acceptance import codes, count, judge, without_data
from bids_tractography.tracking.base import TrackingProblem
from bids_tractography.tracking.cuda.kernels.cuts import Cone, Image, Walk, cut
from bids_tractography.tracking.cuda.lattice import amplitude_volume, make_lattice, stop_map
from bids_tractography.tracking.directions import (
    RELATIVE_PEAK,
    SEPARATION_DEG,
    amplitudes,
    initial_directions,
    interpolate,
    neighbour_table,
)

UNIT = 16_384
"""Seeds that one device is given at a time: part of the result, hence the same for every card."""

MOST_POINTS_OF_A_HALF = 501  # cuslines' MAX_SLINE_LEN
_PIECE = 2048


@dataclass(frozen=True)
class Probe:
    """Parallel transport as cuslines wants it, lengths in nodes."""

    step: float
    steps: int


@dataclass(frozen=True, eq=False)
class Request:
    """What a session walks through.

    Parameters
    ----------
    volume : ndarray of float32, shape (X, Y, Z, V)
        Amplitudes at the nodes, none negative; zero where walking is not permitted.
    stop_map : ndarray of float32, shape (X, Y, Z)
    stop_threshold : float
        Walking is permitted where the map exceeds it.
    vertices : ndarray of float32, shape (V, 3)
        Half sphere, image axes.
    edges : ndarray of int32, shape (E, 2)
    step : float
        In nodes.
    max_angle_rad, relative_peak, separation_rad, pmf_threshold : float
    key : int
        Of the random numbers, 63 bits.
    n_devices : int
    probe : Probe or None
        For ptt.
    """

    volume: NDArray[np.float32]
    stop_map: NDArray[np.float32]
    stop_threshold: float
    vertices: NDArray[np.float32]
    edges: NDArray[np.int32]
    step: float
    max_angle_rad: float
    relative_peak: float
    separation_rad: float
    pmf_threshold: float
    key: int
    n_devices: int
    probe: Probe | None


@dataclass(frozen=True, eq=False)
class Walks:
    """Streamlines of one unit as they were made, in the order of their seeds.

    Parameters
    ----------
    points : ndarray of float32, shape (N, 3)
        Nodes.
    lengths : ndarray of int64, shape (T,)
    starts : ndarray of int64, shape (S + 1,)
        Those of seed ``s`` are ``starts[s]`` to ``starts[s + 1]``, the largest peak's first.
    """

    points: NDArray[np.float32]
    lengths: NDArray[np.int64]
    starts: NDArray[np.int64]


class Session(Protocol):
    """Something that walks from seeds.

    Parameters
    ----------
    n_devices : int
        Units that it takes at a time.
    shift : float
        Added to nodes, of seeds and of walks.
    """

    n_devices: int
    shift: float

    def run(self, seeds: NDArray[np.float32]) -> list[Walks]:
        """Walk from the seeds of a unit on each device, shape (n_devices, S, 3)."""
        ...


class UnitEngine:
    """A walker on one image.

    Parameters
    ----------
    problem : TrackingProblem
    n_threads : int
        For what is done on the host; changes the time, not the result.
    start : callable
        Takes the `Request`, gives the `Session`.
    n_devices : int
    unit : int, optional
    """

    def __init__(
        self,
        problem: TrackingProblem,
        n_threads: int,
        start: Callable[[Request], Session],
        n_devices: int,
        unit: int = UNIT,
    ) -> None:
        if not extent(problem.stopping).any():
            raise ValueError("the stopping rule lets no voxel through")
        problem = replace(problem, stopping=as_map_rule(problem.stopping))
        self._problem = problem
        self._n_threads = n_threads
        self._unit = unit
        self._lattice, self._permitted = make_lattice(problem)
        self._basis = sh_basis(problem.fodf.sh_order, default_sphere.vertices)
        self._vertices = default_sphere.vertices @ problem.fodf.grid.axes
        self._neighbours = neighbour_table(default_sphere.edges, len(self._vertices))
        self._map, self._nearest, self._threshold = _rule(problem.stopping)
        self._request = self._make_request(n_devices)
        # A curve of ptt may end where a straight step would not: its walk is let through to
        # beyond every end, and nothing but the want of a direction stops it before.
        straight = self._request.probe is None
        self._cos_angle = math.cos(self._request.max_angle_rad) if straight else 2.0
        self._session = start(self._request)

    def _make_request(self, n_devices: int) -> Request:
        tracking, edge_mm = self._problem.tracking, self._lattice.edge_mm
        algorithm = tracking.algorithm
        if not isinstance(algorithm, ProbabilisticConfig | ParallelTransportConfig):
            raise ValueError(f"no {algorithm.kind} in units")
        probe = None
        if isinstance(algorithm, ParallelTransportConfig):
            # Samples of the configuration are the ends of the steps, the start among them.
            steps = algorithm.probe_quality - 1
            probe = Probe(algorithm.probe_length_mm / steps / edge_mm, steps)
        places, threshold = stop_map(
            self._problem.stopping, self._lattice, self._permitted, exact=probe is None
        )
        return Request(
            volume=amplitude_volume(
                self._problem.fodf, self._lattice, self._permitted, self._basis, self._n_threads
            ),
            stop_map=places,
            stop_threshold=threshold,
            vertices=np.ascontiguousarray(self._vertices, np.float32),
            edges=np.ascontiguousarray(default_sphere.edges, np.int32),
            step=algorithm.step_size_mm / edge_mm,
            max_angle_rad=math.radians(algorithm.max_angle_deg),
            # With the largest peak only there is nothing to sort out afterwards.
            relative_peak=1.0 if tracking.max_directions == 1 else RELATIVE_PEAK,
            separation_rad=math.radians(SEPARATION_DEG),
            pmf_threshold=algorithm.pmf_threshold,
            key=int(np.random.Philox(key=self._problem.rng_seed).random_raw()) >> 1,
            n_devices=n_devices,
            probe=probe,
        )

    def track(self, seeds: SeedBatch) -> StreamlineBatch:
        """Track from every seed of a batch."""
        grid = self._problem.fodf.grid
        voxels = grid.to_voxels(seeds.positions_mm)
        nodes = self._lattice.nodes_of(voxels)
        in_image = np.all((voxels >= -0.5) & (voxels < np.array(grid.shape) - 0.5), axis=1)
        within = self._within_reach(nodes)
        starts = (nodes + self._session.shift).astype(np.float32)
        # The others lead nowhere but may have directions.
        away = self._directions_at(np.flatnonzero(in_image & ~within), voxels)
        made = [
            *self._walk(seeds, starts, in_image & within),
            (starts[away], np.ones_like(away), away),
        ]
        points, lengths, owner = (np.concatenate(parts) for parts in zip(*made, strict=True))
        first, stop, stops = self._cut(points, lengths, starts[owner])
        stops[len(stops) - len(away) :] = Stop.STOPPING_RULE
        return self._accept(seeds, points, owner, first, stop, stops)

    def _within_reach(self, nodes: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell whether one step can lead to a place to go on: all nodes around are permitted."""
        low = np.floor(nodes).astype(np.int64)
        within = np.all((low >= 0) & (low < np.array(self._lattice.shape) - 1), axis=1)
        low[~within] = 0
        for corner in np.ndindex(2, 2, 2):
            within &= self._permitted[tuple((low + corner).T)]
        return np.asarray(within)

    def _accept(
        self,
        seeds: SeedBatch,
        points: NDArray[np.float32],
        owner: NDArray[np.intp],
        first: NDArray[np.int64],
        stop: NDArray[np.int64],
        stops: NDArray[np.str_],
    ) -> StreamlineBatch:
        """Apply the rules of acceptance to ``points[first:stop]`` of each streamline."""
        tracking, grid = self._problem.tracking, self._problem.fodf.grid
        n_points = stop - first
        stops = without_data(
            stops, self._voxels_of(points[np.stack([first, stop - 1], axis=1)]), self._problem.data
        )
        stops, rejected = judge(n_points, stops, tracking)
        kept = np.flatnonzero(rejected == "")
        kept = kept[np.argsort(owner[kept], kind="stable")]
        offsets = np.concatenate([[0], np.cumsum(n_points[kept])]).astype(np.int64)
        index = np.arange(offsets[-1]) + np.repeat(first[kept] - offsets[:-1], n_points[kept])
        return StreamlineBatch(
            points_mm=grid.to_mm(self._voxels_of(points[index])).astype(np.float32),
            offsets=offsets,
            seed_index=seeds.first + owner[kept].astype(np.int64),
            counts=count(len(seeds), len(np.unique(owner)), stops, rejected),
            stops=codes(stops[kept]),
        )

    def _voxels_of(self, points: NDArray[np.float32]) -> NDArray[np.float64]:
        """Turn nodes into voxels, both of shape (..., 3)."""
        nodes = points.astype(np.float64) - self._session.shift
        return np.asarray(nodes * self._lattice.scale + self._lattice.origin)

    def _walk(
        self, seeds: SeedBatch, starts: NDArray[np.float32], usable: NDArray[np.bool_]
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]]:
        """Yield points, lengths and owners of all that starts in each unit."""
        units = iter(range(seeds.first // self._unit, -(-(seeds.first + len(seeds)) // self._unit)))
        while group := list(islice(units, self._session.n_devices)):
            filled = [self._seeds_of(unit, seeds.first, starts, usable) for unit in group]
            idle = self._session.n_devices - len(group)
            walks = self._session.run(np.stack([*filled, *[filled[-1]] * idle]))
            for unit, walk in zip(group, walks, strict=False):
                yield self._owned(walk, unit * self._unit - seeds.first)

    def _seeds_of(
        self, unit: int, first: int, starts: NDArray[np.float32], usable: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Put the seeds of a unit in their places; what is not there leads nowhere."""
        places = np.empty((self._unit + 1, 3), np.float32)
        places[:] = unit_mark(unit)
        index = np.flatnonzero(usable)
        place = index + first - unit * self._unit
        here = (place >= 0) & (place < self._unit)
        places[place[here]] = starts[index[here]]
        return places

    def _owned(
        self, walks: Walks, first: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
        """Take the walks of the largest peaks, each with the place of its seed in the batch."""
        per_seed = np.diff(walks.starts)
        place = np.repeat(np.arange(len(per_seed)), per_seed)
        rank = np.arange(len(place)) - walks.starts[place]
        taken = (rank < self._problem.tracking.max_directions) & (place < self._unit)
        points = walks.points[np.repeat(taken, walks.lengths)]
        return points, walks.lengths[taken], (place + first)[taken]

    def _directions_at(
        self, seeds: NDArray[np.intp], voxels: NDArray[np.float64]
    ) -> NDArray[np.intp]:
        """Repeat some seeds for each direction in which a streamline would start there."""
        coefficients, _ = interpolate(self._problem.fodf.coefficients, voxels[seeds])
        row, _ = initial_directions(
            amplitudes(coefficients, self._basis),
            self._vertices,
            self._neighbours,
            self._problem.tracking.max_directions,
        )
        return np.asarray(seeds[row])

    def _cut(
        self, points: NDArray[np.float32], lengths: NDArray[np.int64], seeds: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.str_]]:
        """Cut streamlines at their ends: what is left of each, and why; see `cuts.cut`."""
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        shift = self._session.shift
        image = Image(
            scale=self._lattice.scale,
            origin=self._lattice.origin - shift * self._lattice.scale,
            shape=self._problem.fodf.grid.shape,
            values=self._map,
            nearest=self._nearest,
            threshold=self._threshold,
        )
        walk = Walk(
            volume=self._request.volume,
            shift=shift,
            cap=MOST_POINTS_OF_A_HALF,
            cone=Cone(self._request.vertices, self._cos_angle, self._request.pmf_threshold),
        )

        def piece(first: int) -> tuple[Any, Any, Any]:
            some = offsets[first : first + _PIECE + 1]
            cuts, stops, ends = cut(
                points[some[0] : some[-1]],
                some - some[0],
                np.ascontiguousarray(seeds[first : first + _PIECE]),
                image,
                walk,
            )
            return cuts + some[0], stops + some[0], ends

        with ThreadPoolExecutor(self._n_threads) as pool:
            pieces = list(pool.map(piece, range(0, max(len(lengths), 1), _PIECE)))
        first, stop, ends = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
        return first, stop, np.array(list(Stop))[ends]


def unit_mark(unit: int) -> NDArray[np.float32]:
    """Return a place in the empty corner of the lattice that carries the number of a unit.

    It is the last seed of every unit, and the key to its random numbers.
    """
    return np.array([unit % 2**24 * 2.0**-24, unit // 2**24 * 2.0**-24, 0], np.float32)


def _rule(rule: StoppingRule) -> tuple[NDArray[np.generic], bool, float]:
    match rule:
        case ThresholdRule():
            return np.ascontiguousarray(rule.map), False, rule.threshold
        case BinaryRule():
            return np.ascontiguousarray(rule.mask), True, 0.5
        case _:
            raise ValueError(f"no units with {type(rule).__name__}")

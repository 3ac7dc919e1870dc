"""Tracking on GPUs: cuslines 2.2 behind the protocol of the other engines.

cuslines has `prob` and `ptt`, one map and one threshold to stop by, steps in voxels, and random
numbers that begin anew with every call. What is asked of it here is therefore less than it
offers: to walk, on a lattice of cubes, through everything within reach of the places to go on,
from seeds that it is given in fixed units of work. Where a streamline ends and whether it is
kept is settled here, by the same rules as on the CPU.

What is worked round, with the tests (``tests/test_cuda_engine.py``) that say so:

- Every call uses the same random numbers; the offset that its kernels are given is not read
  (`test_kernels_do_not_read_the_random_offset`). The last seed of a unit is no seed: its
  coordinates carry the number of the unit, which the kernels add to the key
  (`test_kernels_compile_with_a_key_for_every_unit`). A seed has the same place in its unit
  whatever the batch (`test_any_slicing_into_batches_and_any_number_of_gpus_changes_no_bit`).
- The map to stop by is a texture, which has its values at the centres of its texels, and is
  asked half a voxel off; it is interpolated where a mask should be asked at the nearest voxel.
  So the map lets streamlines through to beyond their end, and they are cut here
  (`test_a_stop_map_asked_half_a_voxel_off_changes_nothing`). The fODF of ptt is a texture too:
  for ptt everything is moved by half a voxel (`test_ptt_is_moved_by_half_a_voxel`).
- Between the outermost voxel and the image border it interpolates with the wrong neighbour. The
  lattice is wider than the image (`test_the_outermost_half_voxel_is_part_of_the_image`).
- A step is one number in voxels. Where voxels are not cubes the fODF is interpolated on cubes of
  the smallest edge (`test_steps_are_mm_in_every_geometry`).
- The host's buffers are not enlarged after the first call, and a later one may write beyond them.
  They are dropped before each (`test_host_buffers_are_those_of_the_call`).
- Amplitudes count above a fixed 5 % of the largest, and ptt has a curvature for steps of a
  quarter of a voxel: both are set (`test_macros_say_what_the_configuration_says`).
- A half has 501 points at most, and nothing tells if it was cut off
  (`test_more_points_than_cuslines_has_are_refused`,
  `test_a_half_as_long_as_cuslines_can_make_it_is_too_long`).
- All peaks start streamlines, antipodes too on a full sphere; a half sphere is given, and the
  largest peaks are taken (`test_only_the_largest_peaks_are_tracked`).
- Dead ends and streamlines of any length come back (`test_ends_are_those_of_the_rule`).
- Back ends are probed when it is imported, so it is imported when an engine is made
  (`test_importing_the_package_imports_neither_cuslines_nor_cuda`).

Not worked round: it leaves a context on every GPU behind for each engine made in a process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any, Protocol

import numpy as np
from dipy.data import default_sphere
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from bids_tractography.config import Config
from bids_tractography.config.algorithm import ParallelTransport, Probabilistic
from bids_tractography.config.tracking import Tracking
from bids_tractography.errors import DeviceError, DeviceLostError
from bids_tractography.reconst.fodf import Fodf, sh_basis
from bids_tractography.seeding import SeedBatch
from bids_tractography.stopping import BinaryRule, StoppingRule, ThresholdRule, extent
from bids_tractography.streamlines import Rejection, Stop, StreamlineBatch
from bids_tractography.tracking.base import EngineKind, TrackingProblem
from bids_tractography.tracking.directions import (
    RELATIVE_PEAK,
    SEPARATION_DEG,
    amplitudes,
    initial_directions,
    interpolate,
    neighbour_table,
)
from bids_tractography.tracking.ends import codes, count, most_points, rejections
from bids_tractography.tracking.kernels_cuts import cut

UNIT = 16_384
"""Seeds that one GPU is given at a time: part of the result, hence the same for every card."""

MOST_POINTS_OF_A_HALF = 501  # cuslines' MAX_SLINE_LEN
_SLOT_BYTES = 2 * MOST_POINTS_OF_A_HALF * 3 * 4
_PERMITTED = 0.01  # of a map of ones and zeros: at least one of the corners around is a one
_CUBE_TOLERANCE = 1e-4  # 0.025 mm over the longest streamline
_BLOCK = 4096
_PIECE = 2048
_REMEDY = "Use engine: cpu, which tracks with the same meaning."


@dataclass(frozen=True, eq=False)
class Lattice:
    """Cubes that cuslines takes for voxels; its nodes may lie beyond the image.

    Parameters
    ----------
    shape : tuple of int
    origin : ndarray, shape (3,)
        The first node, in voxels of the image.
    scale : ndarray, shape (3,)
        From node to node, in voxels.
    edge_mm : float
    """

    shape: tuple[int, int, int]
    origin: NDArray[np.float64]
    scale: NDArray[np.float64]
    edge_mm: float

    def nodes_of(self, voxels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn voxel coordinates (n, 3) into nodes."""
        return np.asarray((voxels - self.origin) / self.scale)

    def axis(self, n: int) -> NDArray[np.float64]:
        """Voxel coordinates of the nodes along an axis."""
        return np.asarray(np.arange(self.shape[n]) * self.scale[n] + self.origin[n])


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
    permitted : ndarray of float32, shape (X, Y, Z)
        Ones and zeros.
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
    permitted: NDArray[np.float32]
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

    @property
    def arguments(self) -> dict[str, Any]:
        """What all of cuslines' trackers take."""
        return {
            "dataf": self.volume,
            "stop_map": self.permitted,
            "stop_threshold": _PERMITTED,
            "sphere_vertices": self.vertices,
            "sphere_edges": self.edges,
            "sphere_symm": True,
            "max_angle": self.max_angle_rad,
            "step_size": self.step,
            "relative_peak_thresh": self.relative_peak,
            "min_separation_angle": self.separation_rad,
            "ngpus": self.n_devices,
        }


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


class CudaEngine:
    """cuslines on one image.

    Parameters
    ----------
    problem : TrackingProblem
    n_threads : int
        For what is done on the host; changes the time, not the result.
    start : callable, optional
        Takes the `Request`, gives the `Session`.
    unit : int, optional

    Raises
    ------
    DeviceError
        If there is no device, or not enough memory on it.
    """

    def __init__(
        self,
        problem: TrackingProblem,
        n_threads: int,
        start: Callable[[Request], Session] | None = None,
        unit: int = UNIT,
    ) -> None:
        if not extent(problem.stopping).any():
            raise ValueError("the stopping rule lets no voxel through")
        self._problem = problem
        self._n_threads = n_threads
        self._unit = unit
        self._lattice, self._permitted = make_lattice(problem)
        self._basis = sh_basis(problem.fodf.sh_order, default_sphere.vertices)
        self._vertices = default_sphere.vertices @ problem.fodf.grid.axes
        self._neighbours = neighbour_table(default_sphere.edges, len(self._vertices))
        self._map, self._nearest, self._threshold = _rule(problem.stopping)
        request = self._request(self._permitted)
        self._volume = request.volume
        self._session = (start or CudaSession)(request)

    def _request(self, permitted: NDArray[np.bool_]) -> Request:
        tracking, edge_mm = self._problem.tracking, self._lattice.edge_mm
        algorithm = tracking.algorithm
        if not isinstance(algorithm, Probabilistic | ParallelTransport):
            raise ValueError(f"cuslines has no {algorithm.kind}")
        probe = None
        if isinstance(algorithm, ParallelTransport):
            # Samples of the configuration are the ends of the steps, the start among them.
            steps = algorithm.probe_quality - 1
            probe = Probe(algorithm.probe_length_mm / steps / edge_mm, steps)
        return Request(
            volume=_volume(
                self._problem.fodf, self._lattice, permitted, self._basis, self._n_threads
            ),
            permitted=permitted.astype(np.float32),
            vertices=np.ascontiguousarray(self._vertices, np.float32),
            edges=np.ascontiguousarray(default_sphere.edges, np.int32),
            step=algorithm.step_size_mm / edge_mm,
            max_angle_rad=math.radians(algorithm.max_angle_deg),
            # With the largest peak only there is nothing to sort out afterwards.
            relative_peak=1.0 if tracking.max_directions == 1 else RELATIVE_PEAK,
            separation_rad=math.radians(SEPARATION_DEG),
            pmf_threshold=algorithm.pmf_threshold,
            key=int(np.random.Philox(key=self._problem.rng_seed).random_raw()) >> 1,
            n_devices=tracking.ngpus or n_devices(),
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
        endless = (stops == Stop.MAX_LENGTH).any(axis=1) | (n_points > most_points(tracking))
        stops = np.where(endless[:, None], Stop.MAX_LENGTH, stops)
        rejected = np.where(endless, Rejection.TOO_LONG, rejections(n_points, stops, tracking))
        kept = np.flatnonzero(rejected == "")
        kept = kept[np.argsort(owner[kept], kind="stable")]
        offsets = np.concatenate([[0], np.cumsum(n_points[kept])]).astype(np.int64)
        index = np.arange(offsets[-1]) + np.repeat(first[kept] - offsets[:-1], n_points[kept])
        nodes = points[index].astype(np.float64) - self._session.shift
        voxels = nodes * self._lattice.scale + self._lattice.origin
        return StreamlineBatch(
            points_mm=grid.to_mm(voxels).astype(np.float32),
            offsets=offsets,
            seed_index=seeds.first + owner[kept].astype(np.int64),
            counts=count(len(seeds), len(np.unique(owner)), stops, rejected),
            stops=codes(stops[kept]),
        )

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
        """Cut streamlines at their ends: what is left of each, and why; see `kernels_cuts.cut`."""
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        shift = self._session.shift
        origin = self._lattice.origin - shift * self._lattice.scale

        def piece(first: int) -> tuple[Any, Any, Any]:
            some = offsets[first : first + _PIECE + 1]
            cuts, stops, ends = cut(  # type: ignore[no-untyped-call]
                points[some[0] : some[-1]],
                some - some[0],
                np.ascontiguousarray(seeds[first : first + _PIECE]),
                self._lattice.scale,
                origin,
                self._problem.fodf.grid.shape,
                self._map,
                self._nearest,
                self._threshold,
                self._volume,
                shift,
                MOST_POINTS_OF_A_HALF,
            )
            return cuts + some[0], stops + some[0], ends

        with ThreadPoolExecutor(self._n_threads) as pool:
            pieces = list(pool.map(piece, range(0, max(len(lengths), 1), _PIECE)))
        first, stop, ends = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
        return first, stop, np.array(list(Stop))[ends]


def make_lattice(problem: TrackingProblem) -> tuple[Lattice, NDArray[np.bool_]]:
    """Lay cubes over all that can be reached from the places to go on, with room around.

    Returns
    -------
    lattice : Lattice
        The voxels themselves where they are cubes.
    permitted : ndarray of bool
        The nodes near any point that lies a step or less from a place to go on, however the map
        is read there: with its values at the nodes or half a node further. All others can be
        told from places to go on.
    """
    grid, algorithm = problem.fodf.grid, problem.tracking.algorithm
    places = extent(problem.stopping)
    edge_mm = float(grid.voxel_size_mm.min())
    scale = edge_mm / grid.voxel_size_mm
    if np.abs(scale - 1).max() < _CUBE_TOLERANCE:
        scale = np.ones(3)
    ahead = algorithm.step_size_mm
    if isinstance(algorithm, ParallelTransport):
        ahead = max(ahead, algorithm.probe_length_mm)
    # The place itself reaches a voxel far; the nearest node is half a node away, as is the shift.
    reach = 1 / scale + ahead / edge_mm + 1
    room = np.ceil(reach) + 3  # two rows of nodes without anything, where unit_mark lies
    box = [np.flatnonzero(places.any(axis=tuple(a for a in range(3) if a != n))) for n in range(3)]
    low = np.array([float(taken[0]) for taken in box]) - room * scale
    high = np.array([float(taken[-1]) for taken in box]) + room * scale
    n = np.ceil((high - low) / scale - _CUBE_TOLERANCE).astype(int) + 1
    lattice = Lattice((int(n[0]), int(n[1]), int(n[2])), low, scale, edge_mm)
    near = places.astype(np.float32)
    for axis in range(3):
        node, voxel = lattice.axis(axis), np.arange(places.shape[axis])
        apart = np.abs(node[:, None] - voxel) / scale[axis]
        near = np.moveaxis(
            np.tensordot((apart < reach[axis]).astype(np.float32), near, (1, axis)), 0, axis
        )
        near = (near > 0).astype(np.float32)
    return lattice, near > 0


def unit_mark(unit: int) -> NDArray[np.float32]:
    """Return a place in the empty corner of the lattice that carries the number of a unit.

    The kernels read it back from the last seed: see `_RNG_SEED`.
    """
    return np.array([unit % 2**24 * 2.0**-24, unit // 2**24 * 2.0**-24, 0], np.float32)


_RNG_SEED = (
    "({key}ull + (unsigned long long)(seeds[nseed - 1].x * 16777216.0f)"
    " + ((unsigned long long)(seeds[nseed - 1].y * 16777216.0f) << 24))"
)


def macros(request: Request) -> dict[str, str]:
    """Return what has to be said to the compiler in other words than cuslines would."""
    said = {
        "RNG_SEED": _RNG_SEED.format(key=request.key),
        "PMF_THRESHOLD_P": str(float(request.pmf_threshold)),
    }
    if request.probe is not None:
        curvature = 2 * math.sin(request.max_angle_rad / 2) / request.step
        said["MAX_CURVATURE"] = str(curvature)
    return said


def _volume(
    fodf: Fodf,
    lattice: Lattice,
    permitted: NDArray[np.bool_],
    basis: NDArray[np.float64],
    n_threads: int,
) -> NDArray[np.float32]:
    """Evaluate the fODF at the permitted nodes; the outermost voxel holds beyond the image."""
    volume = np.zeros((*lattice.shape, len(basis)), np.float32)
    rows = volume.reshape(-1, len(basis))
    axes = [np.clip(lattice.axis(n), 0, fodf.grid.shape[n] - 1) for n in range(3)]
    index = np.flatnonzero(permitted)

    def fill(first: int) -> None:
        some = index[first : first + _BLOCK]
        places = np.unravel_index(some, lattice.shape)
        voxels = np.stack([axes[n][places[n]] for n in range(3)], axis=1)
        coefficients, _ = interpolate(fodf.coefficients, voxels)
        rows[some] = np.maximum(coefficients @ basis.T, 0)

    with threadpool_limits(1), ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(fill, range(0, len(index), _BLOCK)))
    return volume


def _rule(rule: StoppingRule) -> tuple[NDArray[np.generic], bool, float]:
    match rule:
        case ThresholdRule():
            return np.ascontiguousarray(rule.map), False, rule.threshold
        case BinaryRule():
            return np.ascontiguousarray(rule.mask), True, 0.5
        case _:
            raise ValueError(f"cuslines cannot stop by {type(rule).__name__}")


class CudaSession:
    """cuslines on NVIDIA GPUs.

    Parameters
    ----------
    request : Request

    Raises
    ------
    DeviceError
        If a device is missing, too small, or its kernels cannot be compiled.
    """

    def __init__(self, request: Request) -> None:
        _check_memory(request)
        self.n_devices = request.n_devices
        self.shift = 0.5 if request.probe else 0.0
        self._starts: list[NDArray[np.int32]] = [np.empty(0, np.int32)] * self.n_devices
        with _told(DeviceError, "cuslines cannot be started", _REMEDY):
            from cuslines.cuda_python import GPUTracker

            directions = _make_directions(request, self._starts)
            self._tracker = GPUTracker(dg=directions, rng_seed=0, **request.arguments)
            self._tracker.__enter__()
        self._propagator = self._tracker.seed_propagator

    def run(self, seeds: NDArray[np.float32]) -> list[Walks]:
        """Walk from the seeds of a unit on each device."""
        self._propagator.slines = [None] * self.n_devices
        self._propagator.sline_lens = [None] * self.n_devices
        with _told(
            DeviceLostError, "the GPU failed in mid-run", "Run again: finished batches are kept."
        ):
            self._propagator.propagate(seeds.reshape(-1, 3))
        lines = self._propagator.as_generator()
        return [
            _collect(islice(lines, int(starts[-1])), starts, seeds.shape[1])
            for starts in self._starts
        ]

    def __del__(self) -> None:
        if hasattr(self, "_propagator"):
            self._tracker.__exit__(None, None, None)


def _make_directions(request: Request, starts: list[NDArray[np.int32]]) -> Any:
    """Make cuslines' direction getter, told of our macros, telling us of its streamlines."""
    from cuda.bindings import runtime
    from cuslines.cuda_python import ProbDirectionGetter, PttDirectionGetter
    from cuslines.cuda_python.cutils import checkCudaErrors

    base = ProbDirectionGetter if request.probe is None else PttDirectionGetter

    class Directions(base):  # type: ignore[misc, valid-type]
        def set_macros(self, tracker: Any) -> None:
            super().set_macros(tracker)
            self.macros.update(macros(request))

        def generateStreamlines(  # noqa: N802
            self, n: int, nseeds_gpu: int, block: Any, grid: Any, sp: Any
        ) -> None:
            offsets = np.empty(nseeds_gpu + 1, np.int32)
            kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
            checkCudaErrors(
                runtime.cudaMemcpy(offsets.ctypes.data, sp.slinesOffs_d[n], offsets.nbytes, kind)
            )
            starts[n] = offsets
            super().generateStreamlines(n, nseeds_gpu, block, grid, sp)

    if request.probe is None:
        return Directions()
    return Directions(
        probe_length=request.probe.step,
        probe_quality=request.probe.steps,
        target_short_step=request.step,  # one curve is drawn for a step, as on the CPU
    )


class NumbaSession:
    """cuslines' back end without a GPU, for tests and comparisons.

    It has prob only, and no seed for its random numbers.

    Parameters
    ----------
    request : Request
    """

    def __init__(self, request: Request) -> None:
        from cuslines.numba import CPUProbDirectionGetter, CPUTracker

        self.n_devices, self.shift = 1, 0.0
        self._pmf_threshold = request.pmf_threshold
        self._starts = np.zeros(1, np.int32)
        self.tracker = CPUTracker(dg=CPUProbDirectionGetter(), **request.arguments)
        propagator = self.tracker.seed_propagator
        find = propagator._get_num_streamlines

        def find_and_tell(seeds: Any) -> Any:
            directions, self._starts = find(seeds)
            return directions, self._starts

        propagator._get_num_streamlines = find_and_tell

    def run(self, seeds: NDArray[np.float32]) -> list[Walks]:
        """Walk from the seeds of a unit."""
        from cuslines.numba_njit import generate_streamlines_numba, num_streamlines_numba

        for module in (generate_streamlines_numba, num_streamlines_numba):
            module.PMF_THRESHOLD_P = self._pmf_threshold  # read when they are compiled
        propagator = self.tracker.seed_propagator
        propagator.propagate(seeds.reshape(-1, 3))
        return [_collect(propagator.as_generator(), self._starts, seeds.shape[1])]


def _collect(
    lines: Iterator[NDArray[np.float32]], starts: NDArray[np.integer], n_seeds: int
) -> Walks:
    made = list(lines)
    if len(made) != starts[-1] or len(starts) != n_seeds + 1:
        raise ArithmeticError(f"cuslines made {len(made)} streamlines and announced {starts[-1]}")
    points = np.concatenate([np.empty((0, 3), np.float32), *made])
    return Walks(points, np.array([len(line) for line in made], np.int64), starts.astype(np.int64))


@contextmanager
def _told(error_class: type[DeviceError], what: str, remedy: str) -> Iterator[None]:
    """Say what a driver or compiler says as an error of ours."""
    try:
        yield
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        raise error_class(f"tracking.engine cuda: {what}: {error}.", remedy) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "cuda":
            raise
        raise error_class(f"tracking.engine cuda: {what}: {error}.", remedy) from error


def memory_needed(request: Request) -> int:
    """Estimate the bytes that each device needs."""
    n_vertices = request.volume.shape[3]
    if request.probe is not None:  # the texture has room for a power of two
        n_vertices = 1 << math.ceil(math.log2(n_vertices))
    volume = request.permitted.size * 4 * (n_vertices + 1)
    streamlines = 1 if request.relative_peak == 1 else 4
    places = UNIT + 1
    return volume + places * (streamlines * _SLOT_BYTES + 12 * request.volume.shape[3] + 20)


def _check_memory(request: Request) -> None:
    from cuda.bindings import runtime

    needed = memory_needed(request)
    for n in range(request.n_devices):
        with _told(DeviceError, f"GPU {n} cannot be used", _REMEDY):
            _call(runtime.cudaSetDevice(n))
            free, _ = _call(runtime.cudaMemGetInfo())
        if free < needed:
            raise DeviceError(
                f"tracking.engine cuda: GPU {n} has {free / 2**30:.1f} GiB of memory free, and "
                f"about {needed / 2**30:.1f} GiB are needed.",
                f"Free some of it, or take a card with more. {_REMEDY}",
            )


def _call(answer: tuple[Any, ...]) -> Any:
    """Return what a function of the CUDA runtime gives beside its error code."""
    code, *values = answer
    if int(code) != 0:
        raise RuntimeError(getattr(code, "name", str(code)))
    return values[0] if len(values) == 1 else values


@dataclass(frozen=True)
class Devices:
    """GPUs of this machine.

    Parameters
    ----------
    names : tuple of str
    driver : str
        CUDA version that the driver supports.
    problem : str or None
        Why none can be used.
    """

    names: tuple[str, ...]
    driver: str
    problem: str | None


@cache
def probe_devices() -> Devices:
    """Look for GPUs, without starting anything on them."""
    try:
        from cuda.bindings import runtime
    except (ImportError, OSError) as error:
        return Devices((), "", f"CUDA for Python cannot be imported ({error})")
    try:
        version = _call(runtime.cudaDriverGetVersion())
        driver = f"{version // 1000}.{version % 1000 // 10}"
        n = _call(runtime.cudaGetDeviceCount())
        names = tuple(
            _call(runtime.cudaGetDeviceProperties(i)).name.decode().strip("\0") for i in range(n)
        )
    except RuntimeError as error:
        return Devices((), "", f"no usable GPU or driver ({error})")
    return Devices(names, driver, None if names else "there is no GPU")


def n_devices() -> int:
    """Count the GPUs."""
    return len(probe_devices().names) or 1


def unavailable(tracking: Tracking) -> str | None:
    """Tell why no GPU can be used here, if so; cheap, and asked once."""
    found = probe_devices()
    if found.problem:
        return found.problem
    try:
        import cuslines
    except (ImportError, OSError) as error:
        return f"cuslines cannot be imported ({error})"
    if cuslines.BACKEND != "cuda":
        return f"cuslines finds no GPU (its back end is {cuslines.BACKEND or 'numba'})"
    if tracking.ngpus is not None and tracking.ngpus > len(found.names):
        return f"tracking.ngpus is {tracking.ngpus}, and there are {len(found.names)} GPUs"
    return None


def limits(config: Config) -> str | None:
    """Tell what of a configuration cuslines cannot do, if anything."""
    tracking = config.tracking
    algorithm = tracking.algorithm
    steps = tracking.max_length_mm / algorithm.step_size_mm
    if most_points(tracking) > MOST_POINTS_OF_A_HALF:
        return (
            f"{MOST_POINTS_OF_A_HALF - 1} steps from a seed at most, and max_length_mm / "
            f"step_size_mm is {steps:g}"
        )
    if isinstance(algorithm, ParallelTransport):
        if algorithm.probe_radius_mm != 0 or algorithm.probe_count != 1:
            return "probes without a radius only (probe_radius_mm 0, probe_count 1)"
        if algorithm.data_support_exponent != 1:
            return "data_support_exponent 1 only"
    return None


CUDA = EngineKind(
    name="cuda",
    library="cuslines",
    algorithms=frozenset({"prob", "ptt"}),
    stopping=frozenset({"threshold", "binary"}),
    batch_size=4 * UNIT,
    differences=(
        f"The random numbers of a streamline are keyed by rng_seed, by the index of its seed over "
        f"{UNIT} and by the remainder; streamlines of one seed share a stream, one after another. "
        "They do not depend on the batch size, the number of GPUs or the card, but the rounding "
        "of single-precision arithmetic may differ between generations of cards.",
        "The fODF is evaluated along the directions of the sphere in every voxel and interpolated "
        "in single precision; where voxels are not cubes it is first interpolated linearly on "
        "cubes of the smallest edge.",
        "Both halves of a streamline set out from the peak at the seed, not the second from the "
        "reverse of the first step.",
        "With more than one direction a seed, the share of the largest peak is of what exceeds "
        "the fODF's minimum there, and peaks below pmf_threshold start no streamline.",
        "A half that alone has as many points as cuslines can hold counts as too long.",
        "ptt: amplitudes are relative to the largest of each voxel, and so is pmf_threshold; "
        "peaks are found in the same.",
    ),
    build=CudaEngine,
    unavailable=unavailable,
    limits=limits,
)

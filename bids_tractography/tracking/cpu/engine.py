"""Our own engine: compiled trackers on the cores of this machine.

The fODF is evaluated once, along the axes of a sphere, in every voxel that has one; a tracker
then interpolates amplitudes, not harmonics. Seeds are tracked in the order of a space-filling
curve, so that what one streamline has read is still in the cache for the next, and put back in
their own order.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_tractography.config.algorithm import (
    AlgorithmConfig,
    EuDxConfig,
    ParallelTransportConfig,
    ParticleFilteringConfig,
)
from bids_tractography.core.fodf import Fodf, sh_basis
from bids_tractography.core.images import Grid
from bids_tractography.core.seeding import SeedBatch
from bids_tractography.core.stopping import (
    ActRule,
    BinaryRule,
    CmcRule,
    StoppingRule,
    ThresholdRule,
    extent,
)
from bids_tractography.core.streamlines import DEAD, Counts, Rejection, Stop, StreamlineBatch
from bids_tractography.tracking.base import EngineKind, ProblemSize, TrackingProblem
from bids_tractography.tracking.cpu.kernels.amplitudes import Peaks, fill_rows
from bids_tractography.tracking.cpu.kernels.curves import EUDX, PEAKS, PTT, Curves, fill_peaks
from bids_tractography.tracking.cpu.kernels.field import (
    ACT,
    BINARY,
    CMC,
    LARGEST,
    THRESHOLD,
    Corners,
    Field,
)
from bids_tractography.tracking.cpu.kernels.memory import put_streamlines
from bids_tractography.tracking.cpu.kernels.particles import Particles
from bids_tractography.tracking.cpu.kernels.random import ATTEMPTS, DRAWS
from bids_tractography.tracking.cpu.kernels.streamlines import (
    CLOSEST_PEAK,
    DET,
    PROB,
    Half,
    Plan,
    track_seeds,
)
from bids_tractography.tracking.cpu.kernels.vectors import BLOCK, LINE, MOST_BLOCKS
from bids_tractography.tracking.cpu.sphere import (
    N_AXES,
    Sphere,
    cones,
    members_of_cones,
    nearest_axes,
    order_sphere,
)
from bids_tractography.tracking.directions import RELATIVE_PEAK, SEPARATION_DEG, neighbour_table

_CHUNK = 256  # seeds that a thread takes at a time
_ROWS = 4096  # rows that a thread makes at a time
_TOLERANCE = 1e-9
_CELL_BYTES = 4 * 4
_ALGORITHMS = {
    "prob": PROB,
    "pft": PROB,
    "det": DET,
    "closest_peak": CLOSEST_PEAK,
    "eudx": DET,  # curves have no part in the choice of vertices
    "ptt": DET,
}


@dataclass(frozen=True, eq=False)
class _Chunk:
    """Streamlines of some seeds; see `track_seeds`."""

    points_mm: NDArray[np.float32]
    lengths: NDArray[np.int64]
    owner: NDArray[np.int64]
    stops: NDArray[np.uint8]
    tally: NDArray[np.int64]


class CpuEngine:
    """Our trackers on one image.

    Parameters
    ----------
    problem : TrackingProblem
    n_threads : int
        Changes the time, not the result.
    """

    def __init__(self, problem: TrackingProblem, n_threads: int) -> None:
        if not extent(problem.stopping).any():
            raise ValueError("the stopping rule lets no voxel through")
        self._algorithm = problem.tracking.algorithm
        self._grid = problem.fodf.grid
        self._n_threads = n_threads
        sphere = order_sphere()
        rows = _make_rows(problem.fodf, sphere.axes, n_threads)
        self._field, self._alive = _make_field(problem, rows, sphere)
        self._plan, alive = _make_plan(problem)
        self._alive += alive
        self._peaks, alive = _make_peaks(sphere)
        self._alive += alive
        self._curves, alive = _make_curves(problem, rows, sphere.axes, self._peaks)
        self._alive += alive

    def track(self, seeds: SeedBatch) -> StreamlineBatch:
        """Track from every seed of a batch."""
        positions = self._grid.to_voxels(seeds.positions_mm)
        order = np.argsort(_along_curve(positions, self._grid.shape), kind="stable")
        pieces = [order[i : i + _CHUNK] for i in range(0, len(order), _CHUNK)]

        def run(piece: NDArray[np.intp]) -> _Chunk:
            room = _make_room(self._field, self._plan, self._algorithm, self._curves)
            points, lengths, owner, stops, tally = track_seeds(
                self._field,
                self._plan,
                self._peaks,
                room.particles,
                room.curves,
                room.corners,
                room.halves,
                positions[piece],
                seeds.first + piece,
            )
            return _Chunk(points, lengths, piece[owner], stops, tally)

        with ThreadPoolExecutor(self._n_threads) as pool:
            chunks = list(pool.map(run, pieces))
            return _join(seeds, chunks, pool)


def _join(seeds: SeedBatch, chunks: list[_Chunk], pool: ThreadPoolExecutor) -> StreamlineBatch:
    """Bring the streamlines of all chunks into the order of their seeds."""
    if not chunks:
        chunks = [
            _Chunk(
                np.empty((0, 3), np.float32),
                np.empty(0, np.int64),
                np.empty(0, np.int64),
                np.empty((0, 2), np.uint8),
                np.zeros(12, np.int64),
            )
        ]
    owner = np.concatenate([chunk.owner for chunk in chunks])
    lengths = np.concatenate([chunk.lengths for chunk in chunks])
    # Stable: streamlines of one seed keep the order of their directions.
    order = np.argsort(owner, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(lengths[order])]).astype(np.int64)
    place = np.empty(len(order), np.int64)
    place[order] = offsets[:-1]
    points = np.empty((int(offsets[-1]), 3), np.float32)
    firsts = np.cumsum([0, *(len(chunk.owner) for chunk in chunks)])

    def put(n: int) -> None:
        put_streamlines(
            chunks[n].points_mm, chunks[n].lengths, place[firsts[n] : firsts[n + 1]], points
        )

    list(pool.map(put, range(len(chunks))))
    return StreamlineBatch(
        points_mm=points,
        offsets=offsets,
        seed_index=seeds.first + owner[order],
        counts=_count(len(seeds), len(order), np.sum([chunk.tally for chunk in chunks], axis=0)),
        stops=np.concatenate([chunk.stops for chunk in chunks])[order],
    )


def _count(n_seeds: int, n_kept: int, tally: NDArray[np.int64]) -> Counts:
    ends = tally[:7]
    rejected: dict[str, int] = dict.fromkeys(Rejection, 0)
    for reason, n in zip(
        (Rejection.TOO_LONG, Rejection.DEAD_END, Rejection.TOO_SHORT), tally[7:10], strict=True
    ):
        rejected[reason] = int(n)
    return Counts(
        seeds=n_seeds,
        seeds_without_direction=int(tally[10]),
        generated=int(tally[11]),
        kept=n_kept,
        rejected=rejected,
        stops={reason: int(n) for reason, n in zip(Stop, ends, strict=True)},
    )


def _address(array: NDArray[np.generic]) -> int:
    if not array.flags.c_contiguous:
        raise ValueError("kernels read arrays in C order")
    return int(array.ctypes.data)


@dataclass(frozen=True, eq=False)
class _Room:
    """Memory that a kernel works in, by addresses, and what owns it."""

    particles: Particles | None
    curves: Curves | None
    corners: Corners
    halves: tuple[Half, Half]
    owners: list[NDArray[np.generic]]


def _make_room(
    field: Field,
    plan: Plan,
    algorithm: AlgorithmConfig,
    curves: Curves | None,
) -> _Room:
    owners: list[NDArray[np.generic]] = []

    def make(dtype: type[np.generic], *shape: int) -> int:
        owners.append(np.empty(shape, dtype))
        return _address(owners[-1])

    particles = None
    if isinstance(algorithm, ParticleFilteringConfig):
        back, front = (
            int(np.ceil(mm / algorithm.step_size_mm - _TOLERANCE))
            for mm in (algorithm.back_mm, algorithm.front_mm)
        )
        count = algorithm.particles
        nodes = 1 + (back + front) * count
        particles = Particles(
            number=count,
            back=back,
            front=front,
            trials=algorithm.max_trials,
            point=make(np.float64, nodes, 3),
            vertex=make(np.int64, nodes),
            before=make(np.int64, nodes),
            node=make(np.int64, 2, count),
            stop=make(np.int64, 2, count),
            weight=make(np.float64, count),
            start=make(np.int64, 2, count, 8),
            share=make(np.float32, 2, count, 16),
            corner=make(np.int64, 2, count),
        )
    if curves is not None:
        curves = curves._replace(first=make(np.float64, 3))
    corners = Corners(
        start=make(np.int64, 8),
        share=make(np.float32, 16),
        values=make(np.int32, field.width),
        sums=make(np.int32, BLOCK),
        words=make(np.uint32, 4, DRAWS, ATTEMPTS),
        peaks=make(np.int64, field.n_axes),
    )
    one, other = (
        Half(make(np.float64, plan.max_points, 3), make(np.int64, plan.max_points))
        for _ in range(2)
    )
    return _Room(particles, curves, corners, (one, other), owners)


def _make_plan(
    problem: TrackingProblem,
) -> tuple[Plan, list[NDArray[np.generic]]]:
    tracking = problem.tracking
    step_mm = tracking.algorithm.step_size_mm
    dead = DEAD if tracking.dead_ends == "drop" else ()
    is_dead = np.array([reason in dead for reason in Stop])
    to_mm = np.ascontiguousarray(problem.fodf.grid.affine[:3], np.float64)
    plan = Plan(
        algorithm=_ALGORITHMS[tracking.algorithm.kind],
        rng_seed=problem.rng_seed,
        max_directions=tracking.max_directions,
        min_points=1 + int(np.ceil(tracking.min_length_mm / step_mm - _TOLERANCE)),
        max_points=1 + int(tracking.max_length_mm / step_mm + _TOLERANCE),
        is_dead=_address(is_dead),
        to_mm=_address(to_mm),
    )
    return plan, [is_dead, to_mm]


def _make_peaks(sphere: Sphere) -> tuple[Peaks, list[NDArray[np.generic]]]:
    neighbours = neighbour_table(sphere.edges, len(sphere.axes)).astype(np.int32)
    near = np.abs(sphere.cosine) > np.cos(np.deg2rad(SEPARATION_DEG))
    peaks = Peaks(
        neighbours=_address(neighbours),
        n_neighbours=neighbours.shape[1],
        near=_address(near),
        relative=RELATIVE_PEAK,
    )
    return peaks, [neighbours, near]


def _make_curves(
    problem: TrackingProblem, rows: _Rows, axes: NDArray[np.float64], criteria: Peaks
) -> tuple[Curves | None, list[NDArray[np.generic]]]:
    algorithm = problem.tracking.algorithm
    to_voxels = np.ascontiguousarray(np.linalg.inv(problem.fodf.grid.affine[:3, :3]))
    nothing = np.zeros(1, np.uint16)
    curves = Curves(
        kind=EUDX,
        to_voxels=_address(to_voxels),
        step_mm=algorithm.step_size_mm,
        first=0,
        peaks=_address(nothing),
        least_cosine=float(np.cos(np.deg2rad(algorithm.max_angle_deg))),
        least_weight=0.0,
        # An arc of a step's length turns by the largest angle.
        curvature=2 * np.sin(np.deg2rad(algorithm.max_angle_deg) / 2) / algorithm.step_size_mm,
        probe_step_mm=0.0,
        probe_radius_mm=0.0,
        exponent=1.0,
        probe_quality=1,
        probe_count=1,
        nearest=_address(nothing),
        n_nearest=1,
    )
    match algorithm:
        case EuDxConfig():
            peaks = _peaks_of_rows(rows, len(axes), criteria, algorithm.peak_threshold)
            curves = curves._replace(peaks=_address(peaks), least_weight=algorithm.min_weight)
            return curves, [to_voxels, nothing, peaks]
        case ParallelTransportConfig():
            nearest = nearest_axes(axes)
            curves = curves._replace(
                kind=PTT,
                probe_step_mm=algorithm.probe_length_mm / (algorithm.probe_quality - 1),
                probe_radius_mm=algorithm.probe_radius_mm,
                exponent=algorithm.data_support_exponent,
                probe_quality=algorithm.probe_quality,
                probe_count=algorithm.probe_count if algorithm.probe_radius_mm > 0 else 1,
                nearest=_address(nearest),
                n_nearest=nearest.shape[1],
            )
            return curves, [to_voxels, nothing, nearest]
    return None, []


def _peaks_of_rows(
    rows: _Rows, n_axes: int, criteria: Peaks, threshold: float
) -> NDArray[np.uint16]:
    """Find the peaks of each voxel that are above a share of the largest of all."""
    peaks = np.empty((len(rows.values), PEAKS), np.uint16)
    values, scratch = np.empty(n_axes, np.int32), np.empty(n_axes, np.int64)
    largest = float(rows.unit.max()) * LARGEST
    fill_peaks(
        rows.values[:, :n_axes], rows.unit, criteria, threshold * largest, _address(values),
        _address(scratch), peaks,
    )  # fmt: skip
    return peaks


def _make_field(
    problem: TrackingProblem, rows: _Rows, sphere: Sphere
) -> tuple[Field, list[NDArray[np.generic]]]:
    algorithm, grid, axes = problem.tracking.algorithm, problem.fodf.grid, sphere.axes
    first, second = _rule_maps(problem.stopping)
    cells = np.empty((*(n + 2 for n in grid.shape), 4), np.float32)
    lines = rows.values.shape[1] // LINE
    cells.view(np.int32)[..., 0] = np.pad(rows.of_voxel * lines, 1, mode="edge")
    for place, volume in ((1, rows.unit[rows.of_voxel]), (2, first), (3, second)):
        cells[..., place] = np.pad(volume, 1, mode="edge")
    least_cosine = float(np.cos(np.deg2rad(algorithm.max_angle_deg))) - _TOLERANCE
    cone_start, cone = cones(sphere, least_cosine)
    members = members_of_cones(sphere, least_cosine)
    steps = _steps(axes, grid, algorithm.step_size_mm)
    nx, ny, nz = grid.shape
    field = Field(
        nx=nx,
        ny=ny,
        nz=nz,
        cells=_address(cells),
        n_axes=len(axes),
        axes=_address(axes),
        width=rows.values.shape[1],
        rows=_address(rows.values),
        maxima=_maxima(len(axes)),
        cone_start=_address(cone_start),
        cone=_address(cone),
        members=_address(members),
        steps=_address(steps),
        least_cosine=least_cosine,
        pmf_threshold=getattr(algorithm, "pmf_threshold", 0.0),
        rule=_RULES[type(problem.stopping)],
        rule_threshold=getattr(problem.stopping, "threshold", 0.0),
        rule_power=algorithm.step_size_mm / float(grid.voxel_size_mm.mean()),
    )
    return field, [cells, axes, rows.values, cone_start, cone, members, steps]


@dataclass(frozen=True, eq=False)
class _Rows:
    """Amplitudes of voxels.

    Parameters
    ----------
    of_voxel : ndarray of int32, shape (X, Y, Z)
        Row of each voxel, 0 where it has none.
    unit : ndarray of float32, shape (R,)
        Amplitude of 1 in each row.
    values : ndarray of uint16, shape (R, width)
        Each row begins with a line of the cache; see `Field`.
    """

    of_voxel: NDArray[np.int32]
    unit: NDArray[np.float32]
    values: NDArray[np.uint16]


def _make_rows(fodf: Fodf, axes: NDArray[np.float64], n_threads: int) -> _Rows:
    """Evaluate the fODF along axes in every voxel that has one."""
    shape = fodf.grid.shape
    coefficients = np.ascontiguousarray(fodf.coefficients).reshape(-1, fodf.coefficients.shape[3])
    voxels = np.flatnonzero(coefficients.any(axis=1))
    maxima = _maxima(len(axes))
    values = _zeros_in_lines(len(voxels) + 1, _row_width(len(axes)))
    unit = np.zeros(len(voxels) + 1, np.float32)
    basis = np.ascontiguousarray(sh_basis(fodf.sh_order, axes).T)

    def fill(first: int) -> None:
        part = slice(first, first + _ROWS)
        fill_rows(coefficients, basis, voxels[part], maxima, values[1:][part], unit[1:][part])

    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(fill, range(0, len(voxels), _ROWS)))
    of_voxel = np.zeros(len(coefficients), np.int32)
    of_voxel[voxels] = np.arange(1, len(values))
    return _Rows(of_voxel.reshape(shape), unit, values)


def _maxima(n_axes: int) -> int:
    """Return where in a row the maxima of blocks begin: behind whole blocks."""
    return -(-n_axes // BLOCK) * BLOCK


def _row_width(n_axes: int) -> int:
    """Return the columns of a row: amplitudes and maxima, in whole lines of the cache."""
    n_columns = _maxima(n_axes) + MOST_BLOCKS // 2
    return -(-n_columns // LINE) * LINE


def _memory_bytes(size: ProblemSize) -> float:
    """Return the memory that rows and cells take."""
    row_bytes = _row_width(N_AXES) * np.dtype(np.uint16).itemsize
    return float(size.fitted * row_bytes + size.voxels * _CELL_BYTES)


def _zeros_in_lines(n_rows: int, width: int) -> NDArray[np.uint16]:
    """Make an array whose rows begin with a line of the cache."""
    line = LINE
    memory = np.zeros(n_rows * width + line, np.uint16)
    first = -memory.ctypes.data // 2 % line
    return memory[first : first + n_rows * width].reshape(n_rows, width)


def _steps(axes: NDArray[np.float64], grid: Grid, step_mm: float) -> NDArray[np.float64]:
    """Return a step along each vertex in voxels, shape (2 V, 3)."""
    ahead = step_mm * np.einsum("ai,ji->aj", axes, np.linalg.inv(grid.affine[:3, :3]))
    return np.ascontiguousarray(np.stack([ahead, -ahead], axis=1).reshape(-1, 3))


_RULES: dict[type[StoppingRule], int] = {
    ThresholdRule: THRESHOLD,
    BinaryRule: BINARY,
    ActRule: ACT,
    CmcRule: CMC,
}


def _rule_maps(rule: StoppingRule) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    match rule:
        case ThresholdRule():
            return rule.map, np.zeros_like(rule.map)
        case BinaryRule():
            mask = rule.mask.astype(np.float32)
            return mask, np.zeros_like(mask)
        case _:
            return rule.include, rule.exclude


def _along_curve(positions: NDArray[np.float64], shape: tuple[int, int, int]) -> NDArray[np.int64]:
    """Return the place of each point's voxel on a Morton curve."""
    voxels = np.clip(np.rint(positions), 0, np.array(shape) - 1).astype(np.int64)
    code = np.zeros(len(voxels), np.int64)
    for bit in range(max(shape).bit_length()):
        for axis in range(3):
            code |= ((voxels[:, axis] >> bit) & 1) << (3 * bit + axis)
    return code


# Of one thread, measured with benchmarks/tracking.py.
_POINTS_PER_SECOND = {"prob": 3.1e6, "det": 2.2e6, "pft": 1.0e6}

CPU = EngineKind(
    name="cpu",
    library="numba",
    algorithms=frozenset(_ALGORITHMS),
    stopping=frozenset({"threshold", "binary", "act", "cmc"}),
    batch_size=50_000,
    differences=(
        "Amplitudes are rounded to 1/65535 of the largest in their voxel, and negative ones are 0 "
        "in each voxel, before interpolation.",
        "The stopping rule is not asked at the seed itself.",
        "ptt: amplitudes are those of the axis nearest to a direction, to within 0.8 degrees; the "
        "threshold is a share of the interpolated maxima of the eight voxels around a point.",
        "Both ends of a streamline beyond the maximal length count as max_length.",
    ),
    build=CpuEngine,
    points_per_second=lambda algorithm: _POINTS_PER_SECOND.get(algorithm, 1e5),
    memory_bytes=_memory_bytes,
)

"""What kernels read and write by address, as named arrays that stay alive as long as the layout.

Each class here has the fields of the NamedTuple that kernels take in its place, where they are
documented: arrays for addresses, and numbers as they are. A kernel may run on what `addresses`
returns for as long as somebody holds the object it came from.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from bids_tractography.config.algorithm import (
    EuDxConfig,
    ParallelTransportConfig,
    ParticleFilteringConfig,
)
from bids_tractography.core.fodf import Fodf, sh_basis
from bids_tractography.core.images import Grid
from bids_tractography.core.stopping import (
    BinaryRule,
    FodRule,
    StoppingRule,
    ThresholdRule,
    TissueRule,
)
from bids_tractography.core.streamlines import DEAD, Stop
from bids_tractography.tracking.acceptance import max_points, min_points
from bids_tractography.tracking.base import TrackingProblem
from bids_tractography.tracking.cpu.kernels.amplitudes import Peaks, fill_rows
from bids_tractography.tracking.cpu.kernels.blocks import BLOCK, LINE, MAX_BLOCKS
from bids_tractography.tracking.cpu.kernels.curves import EUDX, PEAKS, PTT, Curves, fill_peaks
from bids_tractography.tracking.cpu.kernels.field import LARGEST, RULES, Corners, Field
from bids_tractography.tracking.cpu.kernels.memory import address_of
from bids_tractography.tracking.cpu.kernels.particles import Particles
from bids_tractography.tracking.cpu.kernels.random import ATTEMPTS, DRAWS
from bids_tractography.tracking.cpu.kernels.streamlines import (
    CLOSEST_PEAK,
    DET,
    PROB,
    Half,
    Plan,
    Problem,
    Room,
)
from bids_tractography.tracking.cpu.sphere import (
    Sphere,
    cones,
    members_of_cones,
    nearest_axes,
    order_sphere,
)
from bids_tractography.tracking.directions import RELATIVE_PEAK, SEPARATION_DEG, neighbour_table

ALGORITHMS = {
    "prob": PROB,
    "pft": PROB,  # with particles where it ends badly
    "det": DET,
    "closest_peak": CLOSEST_PEAK,
    "eudx": DET,  # curves choose no vertices
    "ptt": DET,
}

_ROWS = 4096  # rows that a thread makes at a time
_NO_ROWS = 2  # rows that are zero, for voxels without data and without an fODF
_TOLERANCE = 1e-9  # of a cosine, and of a number of steps

T = TypeVar("T")


class _Arrays(Generic[T]):
    _kind: Any  # the NamedTuple that kernels take

    def addresses(self) -> T:
        """Return what kernels take: arrays by their address, and numbers as they are."""
        values = {name: getattr(self, name) for name in self._kind._fields}
        made = self._kind(
            **{
                name: address_of(value) if isinstance(value, np.ndarray) else value
                for name, value in values.items()
            }
        )
        return cast("T", made)


@dataclass(frozen=True, eq=False)
class Rows:
    """Amplitudes of voxels.

    Parameters
    ----------
    of_voxel : ndarray of int32, shape (X, Y, Z)
        Row of each voxel; 0 without data, 1 without an fODF, both of which are zero.
    unit : ndarray of float32, shape (R,)
        Amplitude of 1 in each row.
    values : ndarray of uint16, shape (R, width)
        Each row begins on a cache line; see `Field`.
    """

    of_voxel: NDArray[np.int32]
    unit: NDArray[np.float32]
    values: NDArray[np.uint16]


@dataclass(frozen=True, eq=False)
class FieldArrays(_Arrays[Field]):
    """See `Field`."""

    _kind = Field

    cells: NDArray[np.float32]
    axes: NDArray[np.float64]
    rows: NDArray[np.uint16]
    maxima: int
    cone_start: NDArray[np.int32]
    cone: NDArray[np.uint16]
    members: NDArray[np.uint16]
    steps: NDArray[np.float64]
    min_cosine: float
    pmf_threshold: float
    rule: int
    rule_threshold: float
    rule_power: float
    keeps_entry: bool
    lowest_peak: np.float32
    low_peak: int

    @property
    def nx(self) -> int:
        """Voxels along the first axis."""
        return int(self.cells.shape[0]) - 2

    @property
    def ny(self) -> int:
        """Voxels along the second axis."""
        return int(self.cells.shape[1]) - 2

    @property
    def nz(self) -> int:
        """Voxels along the third axis."""
        return int(self.cells.shape[2]) - 2

    @property
    def n_axes(self) -> int:
        """Axes of the sphere."""
        return len(self.axes)

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return int(self.rows.shape[1])


@dataclass(frozen=True, eq=False)
class PlanArrays(_Arrays[Plan]):
    """See `Plan`."""

    _kind = Plan

    algorithm: int
    rng_seed: int
    max_directions: int
    min_points: int
    max_points: int
    is_dead: NDArray[np.bool_]
    to_mm: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PeakArrays(_Arrays[Peaks]):
    """See `Peaks`."""

    _kind = Peaks

    neighbours: NDArray[np.int32]
    near: NDArray[np.bool_]
    relative: float

    @property
    def n_neighbours(self) -> int:
        """Columns of the table of neighbours."""
        return int(self.neighbours.shape[1])


@dataclass(frozen=True, eq=False)
class CurveArrays(_Arrays[Curves]):
    """See `Curves`; what an algorithm does not need has a default."""

    _kind = Curves

    kind: int
    to_voxels: NDArray[np.float64]
    step_mm: float
    min_cosine: float
    curvature: float
    peaks: NDArray[np.uint16] = field(default_factory=lambda: np.zeros((1, PEAKS), np.uint16))
    min_weight: float = 0.0
    probe_step_mm: float = 0.0
    probe_radius_mm: float = 0.0
    exponent: float = 1.0
    probe_quality: int = 1
    probe_count: int = 1
    nearest: NDArray[np.uint16] = field(default_factory=lambda: np.zeros((3, 1, 1), np.uint16))

    @property
    def n_nearest(self) -> int:
        """Cells along an edge of the table of nearest axes."""
        return int(self.nearest.shape[1])


@dataclass(frozen=True, eq=False)
class ParticleArrays(_Arrays[Particles]):
    """See `Particles`."""

    _kind = Particles

    number: int
    back: int
    front: int
    trials: int
    point: NDArray[np.float64]
    vertex: NDArray[np.int64]
    before: NDArray[np.int64]
    node: NDArray[np.int64]
    stop: NDArray[np.int64]
    weight: NDArray[np.float64]
    start: NDArray[np.int64]
    share: NDArray[np.float32]
    corner: NDArray[np.int64]

    @classmethod
    def make(cls, algorithm: ParticleFilteringConfig) -> ParticleArrays:
        """Allocate memory for the particles of one attempt."""
        back, front = (
            math.ceil(mm / algorithm.step_size_mm - _TOLERANCE)
            for mm in (algorithm.back_mm, algorithm.front_mm)
        )
        count = algorithm.particles
        nodes = 1 + (back + front) * count
        return cls(
            number=count,
            back=back,
            front=front,
            trials=algorithm.max_trials,
            point=np.empty((nodes, 3)),
            vertex=np.empty(nodes, np.int64),
            before=np.empty(nodes, np.int64),
            node=np.empty((2, count), np.int64),
            stop=np.empty((2, count), np.int64),
            weight=np.empty(count),
            start=np.empty((2, count, 8), np.int64),
            share=np.empty((2, count, 16), np.float32),
            corner=np.empty((2, count), np.int64),
        )


@dataclass(frozen=True, eq=False)
class CornerArrays(_Arrays[Corners]):
    """See `Corners`."""

    _kind = Corners

    start: NDArray[np.int64]
    share: NDArray[np.float32]
    values: NDArray[np.int32]
    sums: NDArray[np.int32]
    words: NDArray[np.uint32]
    peaks: NDArray[np.int64]
    heading: NDArray[np.float64]

    @classmethod
    def make(cls, width: int, n_axes: int) -> CornerArrays:
        """Allocate memory for rows of so many numbers, and for peaks among so many axes."""
        return cls(
            start=np.empty(8, np.int64),
            share=np.empty(16, np.float32),
            values=np.empty(width, np.int32),
            sums=np.empty(BLOCK, np.int32),
            words=np.empty((4, DRAWS, ATTEMPTS), np.uint32),
            peaks=np.empty(n_axes, np.int64),
            heading=np.empty(3),
        )


@dataclass(frozen=True, eq=False)
class HalfArrays(_Arrays[Half]):
    """See `Half`."""

    _kind = Half

    points: NDArray[np.float64]
    vertices: NDArray[np.int64]

    @classmethod
    def make(cls, n_points: int) -> HalfArrays:
        """Allocate memory for so many points."""
        return cls(np.empty((n_points, 3)), np.empty(n_points, np.int64))


@dataclass(frozen=True, eq=False)
class RoomArrays:
    """Memory that one thread makes streamlines in; see `Room`."""

    corners: CornerArrays
    ahead: HalfArrays
    behind: HalfArrays
    particles: ParticleArrays | None

    def addresses(self) -> tuple[Room, Particles | None]:
        """Return what kernels take: the room, and the particles where there are any."""
        room = Room(self.corners.addresses(), self.ahead.addresses(), self.behind.addresses())
        return room, None if self.particles is None else self.particles.addresses()


@dataclass(frozen=True, eq=False)
class Layout:
    """All that kernels read of a problem, in whatever thread.

    Parameters
    ----------
    field : FieldArrays
    plan : PlanArrays
    criteria : PeakArrays
    curves : CurveArrays or None
        For eudx and ptt.
    particles : ParticleFiltering or None
        For pft.
    """

    field: FieldArrays
    plan: PlanArrays
    criteria: PeakArrays
    curves: CurveArrays | None
    particles: ParticleFilteringConfig | None

    def addresses(self) -> tuple[Problem, Curves | None]:
        """Return what kernels take: the problem, and the curves where there are any."""
        problem = Problem(self.field.addresses(), self.plan.addresses(), self.criteria.addresses())
        return problem, None if self.curves is None else self.curves.addresses()

    def make_room(self) -> RoomArrays:
        """Allocate the memory that one call of a kernel needs."""
        return RoomArrays(
            corners=CornerArrays.make(self.field.width, self.field.n_axes),
            ahead=HalfArrays.make(self.plan.max_points),
            behind=HalfArrays.make(self.plan.max_points),
            particles=None if self.particles is None else ParticleArrays.make(self.particles),
        )


def make_layout(problem: TrackingProblem, n_threads: int) -> Layout:
    """Lay out a problem for kernels.

    Parameters
    ----------
    problem : TrackingProblem
    n_threads : int
        Changes the time, not the result.
    """
    sphere = order_sphere()
    rows = make_rows(problem.fodf, sphere.axes, n_threads, problem.data)
    criteria = _make_peaks(sphere)
    algorithm = problem.tracking.algorithm
    return Layout(
        field=_make_field(problem, rows, sphere),
        plan=_make_plan(problem),
        criteria=criteria,
        curves=_make_curves(problem, rows, sphere.axes, criteria),
        particles=algorithm if isinstance(algorithm, ParticleFilteringConfig) else None,
    )


def make_rows(
    fodf: Fodf,
    axes: NDArray[np.float64],
    n_threads: int,
    data: NDArray[np.bool_] | None = None,
) -> Rows:
    """Evaluate an fODF along axes in every voxel that has one.

    Parameters
    ----------
    fodf : Fodf
    axes : ndarray, shape (V, 3)
        Unit vectors, RAS+.
    n_threads : int
        Changes the time, not the result.
    data : ndarray of bool, shape (X, Y, Z), optional
        Voxels with data; all of them by default.
    """
    shape = fodf.grid.shape
    coefficients = np.ascontiguousarray(fodf.coefficients).reshape(-1, fodf.coefficients.shape[3])
    voxels = np.flatnonzero(coefficients.any(axis=1))
    maxima = _maxima(len(axes))
    values = _zeros_in_lines(len(voxels) + _NO_ROWS, row_width(len(axes)))
    unit = np.zeros(len(voxels) + _NO_ROWS, np.float32)
    basis = np.ascontiguousarray(sh_basis(fodf.sh_order, axes).T)

    def fill(first: int) -> None:
        part = slice(first, first + _ROWS)
        fill_rows(
            coefficients, basis, voxels[part], maxima,
            values[_NO_ROWS:][part], unit[_NO_ROWS:][part],
        )  # fmt: skip

    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(fill, range(0, len(voxels), _ROWS)))
    of_voxel = np.ones(len(coefficients), np.int32)
    of_voxel[voxels] = np.arange(_NO_ROWS, len(values))
    if data is not None:
        of_voxel[~data.ravel()] = 0
    return Rows(of_voxel.reshape(shape), unit, values)


def _maxima(n_axes: int) -> int:
    """Return the column of a row at which the maxima of blocks begin: after whole blocks."""
    return -(-n_axes // BLOCK) * BLOCK


def row_width(n_axes: int) -> int:
    """Return the columns of a row: amplitudes and maxima, in whole cache lines."""
    n_columns = _maxima(n_axes) + MAX_BLOCKS // 2
    return -(-n_columns // LINE) * LINE


def _zeros_in_lines(n_rows: int, width: int) -> NDArray[np.uint16]:
    """Make an array whose rows begin on a cache line."""
    memory = np.zeros(n_rows * width + LINE, np.uint16)
    first = -memory.ctypes.data // 2 % LINE
    return memory[first : first + n_rows * width].reshape(n_rows, width)


def _make_field(problem: TrackingProblem, rows: Rows, sphere: Sphere) -> FieldArrays:
    algorithm, grid = problem.tracking.algorithm, problem.fodf.grid
    floor, rule = _split(problem.stopping)
    # A vertex exactly at the maximum angle is in the cone, whichever way its cosine is rounded.
    min_cosine = float(np.cos(np.deg2rad(algorithm.max_angle_deg))) - _TOLERANCE
    cone_start, cone = cones(sphere, min_cosine)
    return FieldArrays(
        cells=_make_cells(rule, grid, rows),
        axes=sphere.axes,
        rows=rows.values,
        maxima=_maxima(len(sphere.axes)),
        cone_start=cone_start,
        cone=cone,
        members=members_of_cones(sphere, min_cosine),
        steps=_steps(sphere.axes, grid, algorithm.step_size_mm),
        min_cosine=min_cosine,
        pmf_threshold=getattr(algorithm, "pmf_threshold", 0.0),
        rule=RULES[type(rule)],
        rule_threshold=getattr(rule, "threshold", 0.0),
        rule_power=algorithm.step_size_mm / float(grid.voxel_size_mm.mean()),
        keeps_entry=getattr(rule, "keep_entry", False),
        lowest_peak=np.float32(-1 if floor is None else floor / LARGEST),
        # Where there is tissue, an end in white matter is none that the anatomy explains.
        low_peak=(Stop.NO_DIRECTION if isinstance(rule, TissueRule) else Stop.STOPPING_RULE).code,
    )


def _split(rule: StoppingRule) -> tuple[float | None, StoppingRule]:
    """Return the amplitude of the fODF to end at, if there is one, and the rule that has maps."""
    if isinstance(rule, FodRule):
        return rule.amplitude, rule.within or rule
    return None, rule


def _make_cells(rule: StoppingRule, grid: Grid, rows: Rows) -> NDArray[np.float32]:
    first, second = _rule_maps(rule)
    cells = np.empty((*(n + 2 for n in grid.shape), 4), np.float32)
    lines_of_row = rows.values.shape[1] // LINE
    cells.view(np.int32)[..., 0] = np.pad(rows.of_voxel * lines_of_row, 1, mode="edge")
    for place, volume in ((1, rows.unit[rows.of_voxel]), (2, first), (3, second)):
        cells[..., place] = np.pad(volume, 1, mode="edge")
    return cells


def _rule_maps(rule: StoppingRule) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    match rule:
        case FodRule():
            return np.zeros_like(rule.peak), np.zeros_like(rule.peak)
        case ThresholdRule():
            return rule.map, np.zeros_like(rule.map)
        case BinaryRule():
            mask = rule.mask.astype(np.float32)
            return mask, np.zeros_like(mask)
        case _:
            return rule.include, rule.exclude


def _steps(axes: NDArray[np.float64], grid: Grid, step_mm: float) -> NDArray[np.float64]:
    """Return a step along each vertex in voxels, shape (2 V, 3)."""
    ahead = step_mm * np.einsum("ai,ji->aj", axes, np.linalg.inv(grid.affine[:3, :3]))
    return np.ascontiguousarray(np.stack([ahead, -ahead], axis=1).reshape(-1, 3))


def _make_plan(problem: TrackingProblem) -> PlanArrays:
    tracking = problem.tracking
    dead = DEAD if tracking.dead_ends == "drop" else ()
    return PlanArrays(
        algorithm=ALGORITHMS[tracking.algorithm.kind],
        rng_seed=problem.rng_seed,
        max_directions=tracking.max_directions,
        min_points=min_points(tracking),
        max_points=max_points(tracking),
        is_dead=np.array([stop in dead for stop in Stop]),
        to_mm=np.ascontiguousarray(problem.fodf.grid.affine[:3], np.float64),
    )


def _make_peaks(sphere: Sphere) -> PeakArrays:
    return PeakArrays(
        neighbours=neighbour_table(sphere.edges, len(sphere.axes)).astype(np.int32),
        near=np.abs(sphere.cosine) > np.cos(np.deg2rad(SEPARATION_DEG)),
        relative=RELATIVE_PEAK,
    )


def _make_curves(
    problem: TrackingProblem, rows: Rows, axes: NDArray[np.float64], criteria: PeakArrays
) -> CurveArrays | None:
    algorithm = problem.tracking.algorithm
    max_angle = float(np.deg2rad(algorithm.max_angle_deg))
    shared: dict[str, Any] = {
        "to_voxels": np.ascontiguousarray(np.linalg.inv(problem.fodf.grid.affine[:3, :3])),
        "step_mm": algorithm.step_size_mm,
        "min_cosine": float(np.cos(max_angle)),
        # Of a circle on which a chord of the length of a step turns by the maximum angle.
        "curvature": float(2 * np.sin(max_angle / 2) / algorithm.step_size_mm),
    }
    match algorithm:
        case EuDxConfig():
            return CurveArrays(
                kind=EUDX,
                peaks=_peaks_of_rows(rows, len(axes), criteria, algorithm.peak_threshold),
                min_weight=algorithm.min_weight,
                **shared,
            )
        case ParallelTransportConfig():
            return CurveArrays(
                kind=PTT,
                probe_step_mm=algorithm.probe_length_mm / (algorithm.probe_quality - 1),
                probe_radius_mm=algorithm.probe_radius_mm,
                exponent=algorithm.data_support_exponent,
                probe_quality=algorithm.probe_quality,
                probe_count=algorithm.probe_count if algorithm.probe_radius_mm > 0 else 1,
                nearest=nearest_axes(axes),
                **shared,
            )
    return None


def _peaks_of_rows(
    rows: Rows, n_axes: int, criteria: PeakArrays, threshold: float
) -> NDArray[np.uint16]:
    """Find the peaks of each voxel that are above a share of the largest of the image."""
    peaks = np.empty((len(rows.values), PEAKS), np.uint16)
    values, scratch = np.empty(n_axes, np.int32), np.empty(n_axes, np.int64)
    largest = float(rows.unit.max()) * LARGEST
    fill_peaks(
        rows.values[:, :n_axes],
        rows.unit,
        criteria.addresses(),
        threshold * largest,
        address_of(values),
        address_of(scratch),
        peaks,
    )
    return peaks

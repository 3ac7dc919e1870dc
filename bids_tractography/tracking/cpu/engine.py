"""The CPU engine: compiled trackers on the cores of this machine.

The fODF is evaluated once, along the axes of a sphere, in every voxel that has one; a tracker
then interpolates amplitudes, not harmonics. Seeds are tracked in the order of a space-filling
curve, so that what one streamline has read is still in the cache for the next, and put back in
their own order.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from bids_tractography.core.seeding import SeedBatch
from bids_tractography.core.stopping import extent
from bids_tractography.core.streamlines import Counts, Rejection, Stop, StreamlineBatch
from bids_tractography.tracking.base import EngineKind, ProblemSize, TrackingProblem
from bids_tractography.tracking.cpu.kernels.field import RULES
from bids_tractography.tracking.cpu.kernels.memory import put_streamlines
from bids_tractography.tracking.cpu.kernels.streamlines import Made, Tally, track_seeds
from bids_tractography.tracking.cpu.layout import ALGORITHMS, make_layout, row_width
from bids_tractography.tracking.cpu.sphere import N_AXES

_CHUNK = 256  # seeds that a thread takes at a time
_CELL_BYTES = 4 * 4


class CpuEngine:
    """Our trackers on one image.

    Parameters
    ----------
    problem : TrackingProblem
    n_threads : int
        Changes the time, not the result.

    Attributes
    ----------
    layout : Layout
        What the kernels read.
    """

    def __init__(self, problem: TrackingProblem, n_threads: int) -> None:
        if not extent(problem.stopping).any():
            raise ValueError("the stopping rule lets no voxel through")
        self._grid = problem.fodf.grid
        self._n_threads = n_threads
        self.layout = make_layout(problem, n_threads)

    def track(self, seeds: SeedBatch) -> StreamlineBatch:
        """Track from every seed of a batch."""
        positions = self._grid.to_voxels(seeds.positions_mm)
        order = np.argsort(_along_curve(positions, self._grid.shape), kind="stable")
        pieces = [order[i : i + _CHUNK] for i in range(0, len(order), _CHUNK)]
        problem, curves = self.layout.addresses()

        def run(piece: NDArray[np.intp]) -> Made:
            memory = self.layout.make_room()  # alive until the kernel has returned
            room, particles = memory.addresses()
            made: Made = track_seeds(
                problem, particles, curves, room, positions[piece], seeds.first + piece
            )
            return made._replace(owner=piece[made.owner])

        with ThreadPoolExecutor(self._n_threads) as pool:
            chunks = list(pool.map(run, pieces))
            return _join(seeds, chunks, pool)


def _join(seeds: SeedBatch, chunks: list[Made], pool: ThreadPoolExecutor) -> StreamlineBatch:
    """Put the streamlines of all chunks into the order of their seeds."""
    chunks = chunks or [_nothing()]
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
        chunk = chunks[n]
        put_streamlines(chunk.points_mm, chunk.lengths, place[firsts[n] : firsts[n + 1]], points)

    list(pool.map(put, range(len(chunks))))
    return StreamlineBatch(
        points_mm=points,
        offsets=offsets,
        seed_index=seeds.first + owner[order],
        counts=_count(len(seeds), len(order), [chunk.tally for chunk in chunks]),
        stops=np.concatenate([chunk.stops for chunk in chunks])[order],
    )


def _nothing() -> Made:
    return Made(
        points_mm=np.empty((0, 3), np.float32),
        lengths=np.empty(0, np.int64),
        owner=np.empty(0, np.int64),
        stops=np.empty((0, 2), np.uint8),
        tally=Tally(np.zeros(len(Stop), np.int64), np.zeros(len(Rejection), np.int64), 0, 0),
    )


def _count(n_seeds: int, n_kept: int, tallies: list[Tally]) -> Counts:
    stops = np.sum([tally.stops for tally in tallies], axis=0)
    rejected = np.sum([tally.rejected for tally in tallies], axis=0)
    return Counts(
        seeds=n_seeds,
        seeds_without_direction=sum(int(tally.without_direction) for tally in tallies),
        generated=sum(int(tally.generated) for tally in tallies),
        kept=n_kept,
        rejected={reason: int(rejected[reason.code]) for reason in Rejection},
        stops={reason: int(stops[reason.code]) for reason in Stop},
    )


def _memory_bytes(size: ProblemSize) -> float:
    """Return the memory that rows and cells take."""
    row_bytes = row_width(N_AXES) * np.dtype(np.uint16).itemsize
    return float(size.fitted * row_bytes + size.voxels * _CELL_BYTES)


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
    algorithms=frozenset(ALGORITHMS),
    stopping=frozenset(rule.kind for rule in RULES),
    combines_stops=True,
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

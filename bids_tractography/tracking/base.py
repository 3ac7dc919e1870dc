"""What an engine is given, and what it gives back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bids_tractography.config import Config
from bids_tractography.config.tracking import TrackingConfig
from bids_tractography.core.fodf import Fodf
from bids_tractography.core.seeding import SeedBatch
from bids_tractography.core.stopping import StoppingRule
from bids_tractography.core.streamlines import StreamlineBatch


@dataclass(frozen=True, eq=False)
class TrackingProblem:
    """All that streamlines depend on, but for their seeds.

    Parameters
    ----------
    fodf : Fodf
    stopping : StoppingRule
    tracking : Tracking
    rng_seed : int
    data : ndarray of bool, shape (X, Y, Z), optional
        Voxels that the fODF was fitted to; all of them by default.
    """

    fodf: Fodf
    stopping: StoppingRule
    tracking: TrackingConfig
    rng_seed: int
    data: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class TrackedBatch:
    """What came of a batch of seeds, and what it took.

    Parameters
    ----------
    seeds : SeedBatch
    streamlines : StreamlineBatch
    seconds, cpu_seconds : float
    """

    seeds: SeedBatch
    streamlines: StreamlineBatch
    seconds: float
    cpu_seconds: float


class Engine(Protocol):
    """Tracks batches of seeds.

    A batch is a pure function of the problem and its seeds: neither the number of threads nor
    what was tracked before may change a bit of it.
    """

    def track(self, seeds: SeedBatch) -> StreamlineBatch:
        """Track from every seed; return what is kept, and count the rest."""
        ...


@dataclass(frozen=True)
class ProblemSize:
    """The size of a problem, known before there is one.

    Parameters
    ----------
    voxels : int
        Voxels of the image.
    fitted : int
        Voxels that have an fODF.
    coefficients : int
        Spherical-harmonic coefficients of each.
    """

    voxels: int
    fitted: int
    coefficients: int


@dataclass(frozen=True)
class EngineKind:
    """An engine and what it can do.

    Parameters
    ----------
    name : str
    library : str
        Distribution whose version decides what comes out.
    algorithms : frozenset of str
    stopping : frozenset of str
        Kinds of stopping rules.
    combines_stops : bool
        Whether ``stopping.fod_below`` can be combined with them.
    batch_size : int
        Seeds in a batch where the configuration says ``auto``.
    differences : tuple of str
        Where it departs from the documented meaning of the configuration; for the sidecar.
    build : callable
        Takes the problem and a number of threads.
    unavailable : callable
        Why it cannot run on this machine, if so.
    limits : callable
        What of a configuration it cannot do, beside algorithm and stopping rule, if anything.
    points_per_second : callable
        Points of kept streamlines that one thread tracks in a second, for estimates; takes the
        kind of algorithm.
    memory_bytes : callable
        Main memory that the engine takes for a problem, besides the problem itself.
    """

    name: str
    library: str
    algorithms: frozenset[str]
    stopping: frozenset[str]
    batch_size: int
    differences: tuple[str, ...]
    build: Callable[[TrackingProblem, int], Engine]
    combines_stops: bool = False
    unavailable: Callable[[TrackingConfig], str | None] = lambda tracking: None
    limits: Callable[[Config], str | None] = lambda config: None
    points_per_second: Callable[[str], float] = lambda algorithm: 1e5
    memory_bytes: Callable[[ProblemSize], float] = lambda size: 0.0


class Tracker(Protocol):
    """Tracks batches one after another, or many at a time; they come back in order."""

    def __call__(
        self,
        problem: TrackingProblem,
        kind: EngineKind,
        n_threads: int,
        batches: Iterator[SeedBatch],
    ) -> Iterator[TrackedBatch]:
        """Track every batch."""
        ...


def track_one(engine: Engine, seeds: SeedBatch) -> TrackedBatch:
    """Track a batch and take the time."""
    wall, cpu = time.perf_counter(), time.process_time()
    streamlines = engine.track(seeds)
    return TrackedBatch(seeds, streamlines, time.perf_counter() - wall, time.process_time() - cpu)


def track_here(
    problem: TrackingProblem, kind: EngineKind, n_threads: int, batches: Iterator[SeedBatch]
) -> Iterator[TrackedBatch]:
    """Track in this process, one batch after another."""
    engine = kind.build(problem, n_threads)
    for seeds in batches:
        yield track_one(engine, seeds)

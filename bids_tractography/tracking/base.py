"""What an engine is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from bids_tractography.config import Config
from bids_tractography.config.tracking import Tracking
from bids_tractography.reconst.fodf import Fodf
from bids_tractography.seeding import SeedBatch
from bids_tractography.stopping import StoppingRule
from bids_tractography.streamlines import StreamlineBatch


@dataclass(frozen=True, eq=False)
class TrackingProblem:
    """All that streamlines depend on, but for their seeds.

    Parameters
    ----------
    fodf : Fodf
    stopping : StoppingRule
    tracking : Tracking
    rng_seed : int
    """

    fodf: Fodf
    stopping: StoppingRule
    tracking: Tracking
    rng_seed: int


class Engine(Protocol):
    """Tracks batches of seeds.

    A batch is a pure function of the problem and its seeds: neither the number of threads nor
    what was tracked before may change a bit of it.
    """

    def track(self, seeds: SeedBatch) -> StreamlineBatch:
        """Track from every seed; return what is kept, and count the rest."""
        ...


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
    """

    name: str
    library: str
    algorithms: frozenset[str]
    stopping: frozenset[str]
    batch_size: int
    differences: tuple[str, ...]
    build: Callable[[TrackingProblem, int], Engine]
    unavailable: Callable[[Tracking], str | None] = lambda tracking: None
    limits: Callable[[Config], str | None] = lambda config: None

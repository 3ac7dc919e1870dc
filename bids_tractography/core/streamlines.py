"""Streamlines in memory: one batch, with what became of every seed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class _Reason(StrEnum):
    @property
    def code(self) -> int:
        """Place among all reasons of its kind: what arrays and compiled code hold in its place."""
        return list(type(self)).index(self)


class Stop(_Reason):
    """Why an end of a streamline is where it is."""

    STOPPING_RULE = "stopping_rule"  # a threshold or a mask
    GREY_MATTER = "grey_matter"  # act and cmc: where a streamline may end
    FLUID = "fluid"  # act and cmc: where it may not
    IMAGE_BORDER = "image_border"
    ANGLE = "angle"  # there are directions, but none in the cone
    NO_DIRECTION = "no_direction"  # the fODF is zero
    MAX_LENGTH = "max_length"


# Ends that the anatomy does not explain: of dead-end streamlines.
DEAD = (Stop.FLUID, Stop.ANGLE, Stop.NO_DIRECTION)


class Rejection(_Reason):
    """Why a streamline is not kept; the first that applies, in this order."""

    TOO_LONG = "too_long"
    DEAD_END = "dead_end"
    TOO_SHORT = "too_short"
    EXCLUDED = "excluded"  # a point in an exclude mask
    NOT_INCLUDED = "not_included"  # no point in one of the include masks


@dataclass(frozen=True)
class Counts:
    """What became of seeds; sums of batches are counts too.

    Parameters
    ----------
    seeds : int
        Seeds placed.
    seeds_without_direction : int
        Seeds where the fODF has no peak, or outside the image.
    generated : int
        Streamlines started, one for every initial direction.
    kept : int
    rejected : dict of Rejection to int
    stops : dict of Stop to int
        Of both ends of every generated streamline.
    """

    seeds: int = 0
    seeds_without_direction: int = 0
    generated: int = 0
    kept: int = 0
    rejected: dict[str, int] = field(default_factory=lambda: dict.fromkeys(Rejection, 0))
    stops: dict[str, int] = field(default_factory=lambda: dict.fromkeys(Stop, 0))

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.seeds + other.seeds,
            self.seeds_without_direction + other.seeds_without_direction,
            self.generated + other.generated,
            self.kept + other.kept,
            {reason: self.rejected[reason] + other.rejected[reason] for reason in Rejection},
            {reason: self.stops[reason] + other.stops[reason] for reason in Stop},
        )

    def check(self) -> None:
        """Raise ArithmeticError unless every seed and every end is accounted for."""
        if self.generated != self.kept + sum(self.rejected.values()):
            raise ArithmeticError(f"streamlines kept and rejected do not add up: {self}")
        if 2 * self.generated != sum(self.stops.values()):
            raise ArithmeticError(f"ends of streamlines do not add up: {self}")
        if not self.seeds - self.seeds_without_direction <= self.generated:
            raise ArithmeticError(f"seeds do not add up: {self}")


@dataclass(frozen=True, eq=False)
class StreamlineBatch:
    """The streamlines kept of a batch of seeds, in the order of their seeds.

    Parameters
    ----------
    points_mm : ndarray of float32, shape (N, 3)
        RAS+ mm.
    offsets : ndarray of int64, shape (T + 1,)
        Streamline ``t`` has the points ``offsets[t]`` to ``offsets[t + 1]``.
    seed_index : ndarray of int64, shape (T,)
        Index of its seed in the whole list.
    counts : Counts
    stops : ndarray of uint8, shape (T, 2)
        Why its first and its last point are its ends: the ``code`` of a `Stop`.
    """

    points_mm: NDArray[np.float32]
    offsets: NDArray[np.int64]
    seed_index: NDArray[np.int64]
    counts: Counts
    stops: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def select(self, kept: NDArray[np.bool_]) -> StreamlineBatch:
        """Keep some of the streamlines, a mask of shape (T,); the counts stay as they are."""
        lengths = np.diff(self.offsets)
        offsets = np.concatenate([[0], np.cumsum(lengths[kept])]).astype(np.int64)
        return replace(
            self,
            points_mm=self.points_mm[np.repeat(kept, lengths)],
            offsets=offsets,
            seed_index=self.seed_index[kept],
            stops=self.stops[kept],
        )

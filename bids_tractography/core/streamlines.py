"""Batches of streamlines, and counts of why streamlines ended or were rejected."""

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
    """Reason why a streamline ended."""

    STOPPING_RULE = "stopping_rule"  # a threshold or a mask
    GREY_MATTER = "grey_matter"  # act and cmc: a valid end
    CSF = "csf"  # act and cmc: an invalid end
    IMAGE_BORDER = "image_border"
    ANGLE = "angle"  # no direction within the cone
    NO_DIRECTION = "no_direction"  # the fODF is zero, or too low where act or cmc continue
    MAX_LENGTH = "max_length"
    NO_DATA = "no_data"  # no direction, in a voxel without data


# Ends that the anatomy does not explain; they make a streamline a dead end.
DEAD = (Stop.CSF, Stop.ANGLE, Stop.NO_DIRECTION)


class Rejection(_Reason):
    """Reason why a streamline was rejected: the first that applies, in this order."""

    TOO_LONG = "too_long"
    DEAD_END = "dead_end"
    TOO_SHORT = "too_short"
    EXCLUDED = "excluded"  # a point in an exclude mask
    NOT_INCLUDED = "not_included"  # no point in one of the include masks
    SURPLUS = "surplus"  # of the last seed, when as many as wanted were selected


@dataclass(frozen=True)
class Counts:
    """Counts of seeds and streamlines; the counts of batches can be added.

    Parameters
    ----------
    seeds : int
        Number of seeds.
    seeds_without_direction : int
        Number of seeds where the fODF has no peak, or outside the image.
    generated : int
        Number of streamlines started, one for each initial direction.
    kept : int
        Number of streamlines kept.
    rejected : dict of Rejection to int
        Number of streamlines rejected for each reason.
    stops : dict of Stop to int
        Number of ends for each reason; every generated streamline has two.
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
        """Raise ArithmeticError unless all seeds and all ends are accounted for."""
        if self.generated != self.kept + sum(self.rejected.values()):
            raise ArithmeticError(f"streamlines kept and rejected do not add up: {self}")
        if 2 * self.generated != sum(self.stops.values()):
            raise ArithmeticError(f"ends of streamlines do not add up: {self}")
        if not self.seeds - self.seeds_without_direction <= self.generated:
            raise ArithmeticError(f"seeds do not add up: {self}")


@dataclass(frozen=True, eq=False)
class StreamlineBatch:
    """Streamlines kept from a batch of seeds, in the order of their seeds.

    Parameters
    ----------
    points_mm : ndarray of float32, shape (N, 3)
        Points in RAS+ mm.
    offsets : ndarray of int64, shape (T + 1,)
        Streamline ``t`` consists of the points ``offsets[t]`` to ``offsets[t + 1] - 1``.
    seed_index : ndarray of int64, shape (T,)
        Index of each streamline's seed in the whole list.
    counts : Counts
        Counts of all seeds and streamlines of the batch.
    stops : ndarray of uint8, shape (T, 2)
        Why the first and the last point are ends: the ``code`` of a `Stop`.
    """

    points_mm: NDArray[np.float32]
    offsets: NDArray[np.int64]
    seed_index: NDArray[np.int64]
    counts: Counts
    stops: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def select(self, kept: NDArray[np.bool_]) -> StreamlineBatch:
        """Select streamlines by a mask of shape (T,), leaving the counts unchanged."""
        lengths = np.diff(self.offsets)
        offsets = np.concatenate([[0], np.cumsum(lengths[kept])]).astype(np.int64)
        return replace(
            self,
            points_mm=self.points_mm[np.repeat(kept, lengths)],
            offsets=offsets,
            seed_index=self.seed_index[kept],
            stops=self.stops[kept],
        )

"""Which streamlines are kept, and the tally of what became of the others.

By their length and their ends, for engines that decide on the host; and by the masks that they
pass, for every engine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bids_tractography.config.tracking import TrackingConfig
from bids_tractography.core.images import Grid
from bids_tractography.core.streamlines import DEAD, Counts, Rejection, Stop, StreamlineBatch

# Share of a step by which rounding may put a length on the wrong side of a bound: 0.3 / 0.1 is
# less than 3.
_TOLERANCE = 1e-9


def min_points(tracking: TrackingConfig) -> int:
    """Return the number of points of the shortest streamline that is kept."""
    steps = tracking.min_length_mm / tracking.algorithm.step_size_mm
    return 1 + int(np.ceil(steps - _TOLERANCE))


def max_points(tracking: TrackingConfig) -> int:
    """Return the number of points of the longest streamline that is kept."""
    return 1 + int(tracking.max_length_mm / tracking.algorithm.step_size_mm + _TOLERANCE)


def without_data(
    stops: NDArray[np.str_],
    ends: NDArray[np.float64],
    data: NDArray[np.bool_] | None,
) -> NDArray[np.str_]:
    """Replace ends without a direction by NO_DATA in voxels without data.

    Parameters
    ----------
    stops : ndarray of Stop, shape (T, 2)
    ends : ndarray, shape (T, 2, 3)
        First and last points in voxels.
    data : ndarray of bool, shape (X, Y, Z), or None
        Voxels with data; all of them if None.
    """
    if data is None:
        return stops
    nearest = np.clip(np.floor(ends + 0.5).astype(np.int64), 0, np.array(data.shape) - 1)
    has_data = data[tuple(np.moveaxis(nearest, 2, 0))]
    lost = np.isin(stops, (Stop.ANGLE, Stop.NO_DIRECTION)) & ~has_data
    return np.where(lost, Stop.NO_DATA, stops)


def judge(
    n_points: NDArray[np.int64], stops: NDArray[np.str_], tracking: TrackingConfig
) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """Decide which streamlines are kept by their length and their ends.

    Parameters
    ----------
    n_points : ndarray, shape (T,)
    stops : ndarray of Stop, shape (T, 2)
        MAX_LENGTH where an engine has cut a half that went on.
    tracking : Tracking

    Returns
    -------
    stops : ndarray of Stop, shape (T, 2)
        Both ends of a streamline that is too long are MAX_LENGTH.
    rejected : ndarray of Rejection, shape (T,)
        Empty where a streamline is kept.
    """
    is_too_long = (n_points > max_points(tracking)) | (stops == Stop.MAX_LENGTH).any(axis=1)
    stops = np.where(is_too_long[:, None], Stop.MAX_LENGTH, stops)
    # The first reason in the order of `Rejection` comes last, and replaces the others.
    rejected = np.where(n_points < min_points(tracking), Rejection.TOO_SHORT, "")
    if tracking.dead_ends == "drop":
        rejected = np.where(np.isin(stops, DEAD).any(axis=1), Rejection.DEAD_END, rejected)
    return stops, np.where(is_too_long, Rejection.TOO_LONG, rejected)


def count(
    n_seeds: int,
    n_with_direction: int,
    stops: NDArray[np.str_],
    rejected: NDArray[np.str_],
) -> Counts:
    """Count what became of seeds.

    Parameters
    ----------
    n_seeds, n_with_direction : int
    stops : ndarray of Stop, shape (T, 2)
        Of every streamline that was started.
    rejected : ndarray of Rejection, shape (T,)
        Empty where a streamline is kept.
    """
    return Counts(
        seeds=n_seeds,
        seeds_without_direction=n_seeds - n_with_direction,
        generated=len(rejected),
        kept=int((rejected == "").sum()),
        rejected={reason.value: int((rejected == reason).sum()) for reason in Rejection},
        stops={reason.value: int((stops == reason).sum()) for reason in Stop},
    )


def codes(stops: NDArray[np.str_]) -> NDArray[np.uint8]:
    """Return the codes of an array of `Stop`."""
    return np.asarray((stops[..., None] == np.array(list(Stop))).argmax(axis=-1), np.uint8)


@dataclass(frozen=True, eq=False)
class Regions:
    """Masks that streamlines have to pass, and masks that they must not enter.

    Parameters
    ----------
    grid : Grid
    include, exclude : tuple of ndarray of bool, each of shape (X, Y, Z)
    """

    grid: Grid
    include: tuple[NDArray[np.bool_], ...] = ()
    exclude: tuple[NDArray[np.bool_], ...] = ()

    def accept(self, batch: StreamlineBatch) -> StreamlineBatch:
        """Reject streamlines by the voxels that hold their points, and count them."""
        if not (self.include or self.exclude) or len(batch) == 0:
            return batch
        voxels = np.rint(self.grid.to_voxels(batch.points_mm)).astype(np.int64)
        voxels = np.clip(voxels, 0, np.array(self.grid.shape) - 1)  # rounding at the border
        first = batch.offsets[:-1]

        def enters(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
            return np.asarray(np.logical_or.reduceat(mask[tuple(voxels.T)], first))

        none = np.zeros(len(batch), bool)
        excluded = np.any([none, *map(enters, self.exclude)], axis=0)
        missing = ~excluded & ~np.all([~none, *map(enters, self.include)], axis=0)
        rejected = dict(batch.counts.rejected)
        rejected[Rejection.EXCLUDED] += int(excluded.sum())
        rejected[Rejection.NOT_INCLUDED] += int(missing.sum())
        kept = ~(excluded | missing)
        counts = replace(batch.counts, kept=int(kept.sum()), rejected=rejected)
        return replace(batch.select(kept), counts=counts)

"""Which streamlines are kept, and the tally: the same for engines that accept on the host."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bids_tractography.config.tracking import TrackingConfig
from bids_tractography.core.streamlines import DEAD, Counts, Rejection, Stop

LENGTH_TOLERANCE = 1e-9


def most_points(tracking: TrackingConfig) -> int:
    """Return the number of points of the longest streamline that is kept."""
    return 1 + int(tracking.max_length_mm / tracking.algorithm.step_size_mm + LENGTH_TOLERANCE)


def rejections(
    n_points: NDArray[np.int64], stops: NDArray[np.str_], tracking: TrackingConfig
) -> NDArray[np.str_]:
    """Return why each streamline is rejected, empty if it is kept, shape (T,).

    Parameters
    ----------
    n_points : ndarray, shape (T,)
    stops : ndarray of Stop, shape (T, 2)
    tracking : Tracking
    """
    length_mm = (n_points - 1) * tracking.algorithm.step_size_mm
    reasons = np.where(
        length_mm < tracking.min_length_mm - LENGTH_TOLERANCE, Rejection.TOO_SHORT, ""
    )
    if tracking.dead_ends == "drop":
        reasons = np.where(np.isin(stops, DEAD).any(axis=1), Rejection.DEAD_END, reasons)
    return np.where(n_points > most_points(tracking), Rejection.TOO_LONG, reasons)


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
    rejected : ndarray of str, shape (T,)
        As `rejections` has it.
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
    """Return reasons as places in ``list(Stop)``."""
    return np.asarray((stops[..., None] == np.array(list(Stop))).argmax(axis=-1), np.uint8)

"""Which runs of a study lie apart: a rule that a few bad runs cannot move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MIN_RUNS = 8
N_SIGMAS = 5.0
MAD_TO_SIGMA = 1.4826  # of a normal distribution
RELATIVE_FLOOR = 0.02
SHARE_FLOOR = 0.005
"""Least sigma of the shares of ends, most of which are close to nothing."""

RULE = (
    f"A run is an outlier in a quantity if it differs from the median of the runs by more than "
    f"{N_SIGMAS:g}σ, where σ is {MAD_TO_SIGMA} times the median absolute deviation from it, "
    f"but at least {100 * RELATIVE_FLOOR:g} % of the median and, for the ends of streamlines, at "
    f"least {100 * SHARE_FLOOR:g} percentage points. Quantities that fewer than {MIN_RUNS} runs "
    "have are not compared. The runs of a configuration are compared with each other, regardless "
    "of acquisition. An outlier is a reason to look, not a reason to exclude."
)


@dataclass(frozen=True)
class Limits:
    """What a quantity is compared with.

    Parameters
    ----------
    median : float
    sigma : float
        Robust estimate of the standard deviation, or its floor.
    """

    median: float
    sigma: float

    @property
    def low(self) -> float:
        """The lowest value that is not an outlier."""
        return self.median - N_SIGMAS * self.sigma

    @property
    def high(self) -> float:
        """The highest value that is not an outlier."""
        return self.median + N_SIGMAS * self.sigma

    def exclude(self, value: float) -> bool:
        """Tell whether a value is an outlier; one that is not finite is none."""
        return bool(value < self.low or value > self.high)


def limits(values: Sequence[float], floor: float = 0.0) -> Limits | None:
    """Return what the values are compared with; None if there are too few.

    Parameters
    ----------
    values : sequence of float
        Of all runs; those that are not finite are ignored.
    floor : float
        Sigma is at least this.
    """
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    if len(finite) < MIN_RUNS:
        return None
    median = float(np.median(finite))
    sigma = MAD_TO_SIGMA * float(np.median(np.abs(finite - median)))
    return Limits(median, max(sigma, RELATIVE_FLOOR * abs(median), floor))

"""Stopping rules as values: what an engine has to ask at every point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ThresholdRule:
    """Go on while a map, interpolated linearly, is above a threshold.

    Parameters
    ----------
    map : ndarray of float32, shape (X, Y, Z)
    threshold : float
    """

    map: NDArray[np.float32]
    threshold: float


@dataclass(frozen=True, eq=False)
class BinaryRule:
    """Go on while the nearest voxel is in a mask.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
    """

    mask: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ActRule:
    """End well where one map is above one half, badly where another is; go on elsewhere.

    Both maps are interpolated linearly. Smith 2012 as DIPY has it.

    Parameters
    ----------
    include, exclude : ndarray of float32, shape (X, Y, Z)
        Grey matter or outside the head; and fluid. Fractions from 0 to 1.
    """

    include: NDArray[np.float32]
    exclude: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class CmcRule:
    """Go on with a probability that falls with the fractions of tissue to end in (Girard 2014).

    With i and e the two maps, interpolated linearly, a step goes on with the probability
    ``((1 - i - e) / max(1, i + e)) ** (step_mm / mean voxel size in mm)`` and otherwise ends
    well with i / (i + e), badly with e / (i + e).

    Parameters
    ----------
    include, exclude : ndarray of float32, shape (X, Y, Z)
        Grey matter or outside the head; and fluid. Fractions from 0 to 1.
    """

    include: NDArray[np.float32]
    exclude: NDArray[np.float32]


StoppingRule = ThresholdRule | BinaryRule | ActRule | CmcRule


def extent(rule: StoppingRule) -> NDArray[np.bool_]:
    """Return the voxels whose centre is a place to go on, shape (X, Y, Z)."""
    match rule:
        case BinaryRule():
            return rule.mask
        case ThresholdRule():
            return np.asarray(rule.map > rule.threshold)
        case ActRule():
            return np.asarray((rule.include <= 0.5) & (rule.exclude <= 0.5))
        case CmcRule():
            return np.asarray(rule.include + rule.exclude < 1)

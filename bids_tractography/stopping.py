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


StoppingRule = ThresholdRule | BinaryRule


def extent(rule: StoppingRule) -> NDArray[np.bool_]:
    """Return the voxels whose centre is a place to go on, shape (X, Y, Z)."""
    if isinstance(rule, BinaryRule):
        return rule.mask
    return np.asarray(rule.map > rule.threshold)

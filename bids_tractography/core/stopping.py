"""Stopping criteria as values, which engines evaluate at every point.

Each has the ``kind`` of the section of the configuration that it is made of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ThresholdRule:
    """Continue while a map, interpolated linearly, is above a threshold.

    Parameters
    ----------
    map : ndarray of float32, shape (X, Y, Z)
    threshold : float
        In the unit of the map.
    """

    kind: ClassVar[str] = "threshold"

    map: NDArray[np.float32]
    threshold: float


@dataclass(frozen=True, eq=False)
class BinaryRule:
    """Continue while the nearest voxel is in a mask.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
    """

    kind: ClassVar[str] = "binary"

    mask: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ActRule:
    """End validly where one map exceeds one half, invalidly where another one does (Smith 2012).

    Both maps are interpolated linearly, as in DIPY.

    Parameters
    ----------
    include, exclude : ndarray of float32, shape (X, Y, Z)
        Fraction of grey matter or background, where streamlines may end; fraction of CSF, where
        they may not.
    keep_entry : bool
        Whether the step that ends a streamline validly belongs to it.
    """

    kind: ClassVar[str] = "act"

    include: NDArray[np.float32]
    exclude: NDArray[np.float32]
    keep_entry: bool = False


@dataclass(frozen=True, eq=False)
class CmcRule:
    """Continue with a probability that decreases with the fractions of grey matter and CSF.

    This is the continuous map criterion (Girard 2014). With the interpolated maps i and e, a step
    continues with the probability
    ``((1 - i - e) / max(1, i + e)) ** (step_mm / mean voxel size in mm)``.
    Otherwise the end is valid with the probability i / (i + e) and invalid with e / (i + e).

    Parameters
    ----------
    include, exclude : ndarray of float32, shape (X, Y, Z)
        Fraction of grey matter or background, where streamlines may end; fraction of CSF, where
        they may not.
    keep_entry : bool
        Whether the step that ends a streamline validly belongs to it.
    """

    kind: ClassVar[str] = "cmc"

    include: NDArray[np.float32]
    exclude: NDArray[np.float32]
    keep_entry: bool = False


TissueRule = ActRule | CmcRule
MapRule = ThresholdRule | BinaryRule | TissueRule


@dataclass(frozen=True, eq=False)
class FodRule:
    """Continue while the peak of the fODF, interpolated linearly, is above an amplitude.

    Parameters
    ----------
    peak : ndarray of float32, shape (X, Y, Z)
        Largest amplitude of the fODF in each voxel, see `core.fodf.peak_amplitudes`.
    amplitude : float
        In the unit of the fODF.
    within : MapRule, optional
        Another rule, which must let a streamline continue as well.
    """

    kind: ClassVar[str] = "fod"

    peak: NDArray[np.float32]
    amplitude: float
    within: MapRule | None = None


StoppingRule = MapRule | FodRule


def as_map_rule(rule: StoppingRule) -> StoppingRule:
    """Return a rule by the fODF, alone or with a threshold of a map, as a threshold of one map.

    The two are combined in each voxel, before interpolation. Any other rule is returned as it is.
    """
    if not isinstance(rule, FodRule):
        return rule
    if rule.within is None:
        return ThresholdRule(rule.peak, rule.amplitude)
    if isinstance(rule.within, ThresholdRule) and min(rule.within.threshold, rule.amplitude) > 0:
        shares = rule.within.map / rule.within.threshold, rule.peak / rule.amplitude
        return ThresholdRule(np.minimum(*shares).astype(np.float32), 1.0)
    return rule


def extent(rule: StoppingRule) -> NDArray[np.bool_]:
    """Return the mask of voxels at whose centre a streamline would continue, shape (X, Y, Z)."""
    match rule:
        case FodRule():
            above = np.asarray(rule.peak > rule.amplitude)
            return above if rule.within is None else above & extent(rule.within)
        case BinaryRule():
            return rule.mask
        case ThresholdRule():
            return np.asarray(rule.map > rule.threshold)
        case ActRule():
            return np.asarray((rule.include <= 0.5) & (rule.exclude <= 0.5))
        case CmcRule():
            return np.asarray(rule.include + rule.exclude < 1)

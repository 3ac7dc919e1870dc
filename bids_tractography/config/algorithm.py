"""Tracking algorithms and their parameters."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from bids_tractography.config.numbers import Count
from bids_tractography.config.section import ByKind, Section


class _SteppingConfig(Section):
    kind: str
    step_size_mm: Annotated[float, Field(ge=1e-3, le=10)] = 0.5
    """Distance between successive points."""
    max_angle_deg: Annotated[float, Field(gt=0, lt=90)] = 15
    """Maximum angle between successive steps."""
    pmf_threshold: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """Amplitudes below this fraction of the largest fODF amplitude at the point are set to zero."""


class _DrawingConfig(_SteppingConfig):
    # What is drawn in proportion needs more protection from noise than the largest amplitude, and
    # a wider cone than it, from which it does not jump to a crossing bundle.
    max_angle_deg: Annotated[float, Field(gt=0, lt=90)] = 20
    """Maximum angle between successive steps."""
    pmf_threshold: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Amplitudes below this fraction of the largest fODF amplitude at the point are set to zero."""


class ProbabilisticConfig(_DrawingConfig):
    """Draw each direction from the fODF within a cone around the previous direction."""

    method: ClassVar[str] = "probabilistic"
    about: ClassVar[str] = (
        "Each direction is drawn from the fODF within a cone around the previous direction."
    )
    reference: ClassVar[str] = "tournier2012"

    kind: Literal["prob"] = "prob"


class DeterministicConfig(_SteppingConfig):
    """Follow the largest fODF amplitude within a cone around the previous direction."""

    method: ClassVar[str] = "deterministic"
    about: ClassVar[str] = (
        "Each direction is the largest fODF amplitude within a cone around the previous direction."
    )
    reference: ClassVar[str] = "tournier2012"

    kind: Literal["det"] = "det"


class ParticleFilteringConfig(_DrawingConfig):
    """Probabilistic tracking with particle filtering (Girard 2014).

    Where a streamline ends in a place that the anatomy does not allow, particles start from a
    little further back and look for another way. Requires ``stopping.kind`` ``act`` or ``cmc``.
    """

    method: ClassVar[str] = "probabilistic particle-filtering"
    about: ClassVar[str] = (
        "Each direction is drawn from the fODF within a cone around the previous direction; "
        "where a streamline ends in a place that the anatomy does not allow, particles look for "
        "another way."
    )
    reference: ClassVar[str] = "girard2014"

    kind: Literal["pft"] = "pft"
    back_mm: Annotated[float, Field(ge=1e-3, le=20)] = 2
    """Distance to step back before particles start."""
    front_mm: Annotated[float, Field(ge=0, le=20)] = 1
    """Distance that particles travel beyond the point where the streamline ended."""
    particles: Annotated[int, Count(2, 1000)] = 15
    """Number of particles in each attempt."""
    max_trials: Annotated[int, Count(1, 1000)] = 20
    """Maximum number of attempts for each half of a streamline."""


class ParallelTransportConfig(Section):
    """Parallel transport tractography: smooth curves, probed ahead (Aydogan 2021)."""

    method: ClassVar[str] = "parallel-transport"
    about: ClassVar[str] = (
        "Each step follows a smooth curve, drawn according to how well the fODF ahead supports it."
    )
    reference: ClassVar[str] = "aydogan2021"

    kind: Literal["ptt"] = "ptt"
    step_size_mm: Annotated[float, Field(ge=1e-3, le=10)] = 0.5
    """Distance between successive points."""
    max_angle_deg: Annotated[float, Field(gt=0, lt=90)] = 15
    """Maximum turn in one step; together with the step size it bounds the curvature."""
    pmf_threshold: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Amplitudes below this fraction of the largest fODF amplitude at the point are set to zero."""
    probe_length_mm: Annotated[float, Field(ge=1e-3, le=20)] = 1.5
    """Length of the candidate curve that is probed."""
    probe_radius_mm: Annotated[float, Field(ge=0, le=5)] = 0
    """Radius of the probe's cross-section; 0 samples its centre line only."""
    probe_quality: Annotated[int, Count(2, 20)] = 7
    """Number of samples along the probe."""
    probe_count: Annotated[int, Count(1, 20)] = 1
    """Number of samples around the probe if its radius is not 0."""
    data_support_exponent: Annotated[float, Field(gt=0, le=10)] = 1
    """Exponent of the data support in the probability of a candidate."""


class EuDxConfig(Section):
    """Euler steps along interpolated peaks of the eight surrounding voxels (Garyfallidis 2012)."""

    method: ClassVar[str] = "deterministic EuDX"
    about: ClassVar[str] = "Euler steps along interpolated peaks of the eight surrounding voxels."
    reference: ClassVar[str] = "garyfallidis2012"

    kind: Literal["eudx"] = "eudx"
    step_size_mm: Annotated[float, Field(ge=1e-3, le=10)] = 0.5
    """Distance between successive points."""
    max_angle_deg: Annotated[float, Field(gt=0, lt=90)] = 60
    """Peaks at a larger angle from the previous direction are ignored."""
    peak_threshold: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Peaks below this fraction of the largest peak in the image are ignored."""
    min_weight: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Minimum interpolation weight of the voxels with a suitable peak; tracking stops below it."""


class ClosestPeakConfig(_SteppingConfig):
    """Follow the peak of the interpolated fODF closest to the previous direction."""

    method: ClassVar[str] = "deterministic closest-peak"
    about: ClassVar[str] = "Each direction is the fODF peak closest to the previous direction."
    reference: ClassVar[str] = "garyfallidis2014"

    kind: Literal["closest_peak"] = "closest_peak"
    max_angle_deg: Annotated[float, Field(gt=0, lt=90)] = 30
    """Maximum angle between successive steps."""


AlgorithmConfig = Annotated[
    ProbabilisticConfig
    | DeterministicConfig
    | ParticleFilteringConfig
    | ParallelTransportConfig
    | EuDxConfig
    | ClosestPeakConfig,
    ByKind("prob"),
]

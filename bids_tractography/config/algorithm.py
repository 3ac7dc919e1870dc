"""Tracking algorithms, each with its own parameters only."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from bids_tractography.config.section import Section, default_kind


class _SteppingConfig(Section):
    kind: str
    step_size_mm: Annotated[float, Field(ge=1e-3, le=10)] = 0.5
    """Distance between points."""
    max_angle_deg: Annotated[float, Field(gt=0, lt=90)] = 30
    """Largest angle between successive steps."""
    pmf_threshold: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Amplitudes below this share of the fODF's largest at the point count as zero."""


class ProbabilisticConfig(_SteppingConfig):
    """Each direction is drawn from the fODF within the cone around the last one."""

    method: ClassVar[str] = "probabilistic"
    about: ClassVar[str] = "Each direction is drawn from the fODF in the cone around the last one."
    reference: ClassVar[str] = "tournier2012"

    kind: Literal["prob"] = "prob"


class DeterministicConfig(_SteppingConfig):
    """Each direction is the largest of the fODF within the cone around the last one."""

    method: ClassVar[str] = "deterministic"
    about: ClassVar[str] = (
        "Each direction is the largest of the fODF in the cone around the last one."
    )
    reference: ClassVar[str] = "tournier2012"

    kind: Literal["det"] = "det"


class ParticleFilteringConfig(_SteppingConfig):
    """Probabilistic with particles that look for a way past bad ends (Girard 2014).

    Where anatomy allows no end, they set out from a little further back. Needs tissue: stopping
    act or cmc.
    """

    method: ClassVar[str] = "probabilistic particle-filtering"
    about: ClassVar[str] = (
        "Each direction is drawn from the fODF in the cone around the last one; "
        "particles look for a way past ends that anatomy does not allow."
    )
    reference: ClassVar[str] = "girard2014"

    kind: Literal["pft"] = "pft"
    back_mm: Annotated[float, Field(ge=1e-3, le=20)] = 2
    """How far to go back."""
    front_mm: Annotated[float, Field(ge=0, le=20)] = 1
    """How far particles go beyond the point where the streamline ended."""
    particles: Annotated[int, Field(ge=2, le=1000)] = 15
    """Particles in each attempt."""
    max_trials: Annotated[int, Field(ge=1, le=1000)] = 20
    """Attempts for each half of a streamline."""


class ParallelTransportConfig(Section):
    """Parallel transport tractography: smooth curves probed ahead (Aydogan 2021)."""

    method: ClassVar[str] = "parallel-transport"
    about: ClassVar[str] = (
        "Each step follows a smooth curve, drawn by how well the fODF supports it ahead."
    )
    reference: ClassVar[str] = "aydogan2021"

    kind: Literal["ptt"] = "ptt"
    step_size_mm: Annotated[float, Field(ge=1e-3, le=10)] = 0.5
    """Distance between points."""
    max_angle_deg: Annotated[float, Field(gt=0, lt=90)] = 15
    """Largest turn in one step; with the step it bounds the curvature."""
    pmf_threshold: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Amplitudes below this share of the fODF's largest at the point count as zero."""
    probe_length_mm: Annotated[float, Field(ge=1e-3, le=20)] = 1.5
    """How far ahead a candidate curve is probed."""
    probe_radius_mm: Annotated[float, Field(ge=0, le=5)] = 0
    """Radius of the probe's cross-section; with 0 only its centre line is sampled."""
    probe_quality: Annotated[int, Field(ge=2, le=20)] = 7
    """Samples along the probe."""
    probe_count: Annotated[int, Field(ge=1, le=20)] = 1
    """Samples around the probe where it has a radius."""
    data_support_exponent: Annotated[float, Field(gt=0, le=10)] = 1
    """Power of the data support by which candidates are drawn."""


class EuDxConfig(Section):
    """Euler steps along the interpolated peaks of the eight voxels around (Garyfallidis 2012)."""

    method: ClassVar[str] = "deterministic EuDX"
    about: ClassVar[str] = "Euler steps along the interpolated peaks of the voxels around."
    reference: ClassVar[str] = "garyfallidis2012"

    kind: Literal["eudx"] = "eudx"
    step_size_mm: Annotated[float, Field(ge=1e-3, le=10)] = 0.5
    """Distance between points."""
    max_angle_deg: Annotated[float, Field(gt=0, lt=90)] = 60
    """Peaks further than this from the last direction do not count."""
    peak_threshold: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Peaks below this share of the largest peak in the image do not count."""
    min_weight: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Interpolation weight of the voxels with a suitable peak below which tracking ends."""


class ClosestPeakConfig(_SteppingConfig):
    """Each direction is the peak of the interpolated fODF nearest to the last one."""

    method: ClassVar[str] = "deterministic closest-peak"
    about: ClassVar[str] = "Each direction is the peak of the fODF nearest to the last one."
    reference: ClassVar[str] = "garyfallidis2014"

    kind: Literal["closest_peak"] = "closest_peak"


AlgorithmConfig = Annotated[
    Annotated[
        ProbabilisticConfig
        | DeterministicConfig
        | ParticleFilteringConfig
        | ParallelTransportConfig
        | EuDxConfig
        | ClosestPeakConfig,
        Field(discriminator="kind"),
    ],
    BeforeValidator(default_kind("prob")),
]

"""Diffusion models: what turns the signal into maps and fODFs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from bids_tractography.config.section import Section, default_kind

ShOrder = Annotated[int, Field(ge=2, le=16, multiple_of=2)]


class Gradients(Section):
    """How b-values are read."""

    b0_threshold_s_mm2: Annotated[float, Field(ge=0)] = 50
    """Volumes at or below this b-value count as b=0 (scanners write 1.25 or 5)."""
    shell_gap_s_mm2: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """Sorted b-values further apart than this belong to different shells; ``auto``: 100, or a
    tenth of the b-value where that is more."""


class TensorMaps(Section):
    """The tensor fit behind the FA and MD maps (weighted least squares)."""

    max_b_s_mm2: Annotated[float, Field(gt=0)] = 1500
    """Shells above this are left out, unless there is no other shell."""
    v1: bool = False
    """Also write the principal direction (RAS+ scanner axes)."""


class AutoResponse(Section):
    """Single-fibre response from the voxels of highest FA, well inside the brain."""

    kind: Literal["auto"] = "auto"
    voxels: Annotated[int, Field(ge=1)] = 300
    """How many voxels to average."""
    erode_mm: Annotated[float, Field(ge=0)] = 7.5
    """Voxels nearer than this to the edge of the brain mask are not considered."""


class GivenResponse(Section):
    """Single-fibre response given as an axially symmetric tensor."""

    kind: Literal["given"] = "given"
    eigenvalues_mm2_s: tuple[float, float, float]
    """Largest first, in mm²/s, e.g. ``[1.7e-3, 3e-4, 3e-4]``."""
    s0: Annotated[float, Field(gt=0)]
    """Signal without diffusion weighting, in the units of the image."""

    @field_validator("eigenvalues_mm2_s")
    @classmethod
    def _prolate(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        first, second, third = value
        if not 1e-5 < first < 1e-2:
            raise ValueError("the first eigenvalue should be near 1.7e-3 (mm²/s)")
        if not first > second >= third > 0:
            raise ValueError("eigenvalues should be positive, largest first")
        return value


class CsdModel(Section):
    """Single-shell constrained spherical deconvolution (Tournier 2007)."""

    kind: Literal["csd"] = "csd"
    shell_s_mm2: Annotated[float, Field(gt=0)] | Literal["outermost"] = "outermost"
    """b-value of the shell, or the outermost one that has enough directions."""
    sh_order: ShOrder | Literal["auto"] = "auto"
    """Maximal spherical-harmonic order; ``auto``: as many coefficients as the shell has
    directions, at most order 8."""
    response: Annotated[
        Annotated[AutoResponse | GivenResponse, Field(discriminator="kind")],
        BeforeValidator(default_kind("auto")),
    ] = AutoResponse()
    positivity_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of the positivity constraint (λ)."""
    positivity_threshold: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Amplitudes below this share of the mean amplitude are driven to zero (τ)."""


class TensorModel(Section):
    """Orientation distribution of the diffusion tensor (Aganj 2010, solid angle)."""

    kind: Literal["tensor"] = "tensor"
    sh_order: ShOrder = 8
    """Maximal spherical-harmonic order of the stored distribution."""


Model = Annotated[
    Annotated[CsdModel | TensorModel, Field(discriminator="kind")],
    BeforeValidator(default_kind("csd")),
]

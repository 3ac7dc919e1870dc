"""Diffusion models: what turns the signal into maps and fODFs."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from bids_tractography.config.files import FileConfig
from bids_tractography.config.section import OnFinding, Section, default_kind

ShBasis = Literal["auto", "tournier07", "tournier07_legacy", "descoteaux07", "descoteaux07_legacy"]
BValue = Annotated[float, Field(gt=0, le=1e5)]
Diffusivity = Annotated[float, Field(gt=0, lt=1e-2)]
ShOrder = Annotated[int, Field(ge=2, le=16, multiple_of=2)]


FrameName = Literal["fsl", "image", "scanner"]
Axis = Literal["x", "y", "z", "-x", "-y", "-z"]


class GradientsConfig(Section):
    """How b-values and b-vectors are read and checked."""

    frame: FrameName | Literal["auto"] = "auto"
    """Axes of the b-vectors: ``fsl`` (along the image axes, x negated where the determinant of
    the affine is positive), ``image`` (along the image axes as they are), ``scanner`` (RAS+).
    ``auto``: a ``.b`` table next to the image is in scanner axes and decides; else ``image`` for
    datasets that QSIPrep generated, ``fsl`` for all others."""
    permute: tuple[Axis, Axis, Axis] | None = None
    """For each component of the right vectors, the component of the file's vectors with its sign,
    e.g. ``[-x, y, z]``; null leaves them as they are."""
    check: OnFinding = "error"
    """What to do if the principal directions of neighbouring voxels fit another permutation of
    the b-vectors better beyond doubt."""
    b0_threshold_s_mm2: Annotated[float, Field(ge=0, le=1000)] = 50
    """Volumes at or below this b-value count as b=0 (scanners write 1.25 or 5)."""
    shell_gap_s_mm2: BValue | Literal["auto"] = "auto"
    """Sorted b-values further apart than this belong to different shells; ``auto``: 100, or a
    tenth of the b-value where that is more."""

    @field_validator("permute")
    @classmethod
    def _each_axis_once(cls, value: tuple[Axis, Axis, Axis] | None) -> Any:
        if value is not None and {name[-1] for name in value} != {"x", "y", "z"}:
            raise ValueError("name each of x, y and z once, with its sign, e.g. [-x, y, z]")
        return value


class TensorMapsConfig(Section):
    """The tensor fit behind the FA and MD maps (weighted least squares)."""

    max_b_s_mm2: BValue = 1500
    """Shells above this are left out, unless there is no other shell."""
    v1: bool = False
    """Also write the principal direction (RAS+ scanner axes)."""


class AutoResponseConfig(Section):
    """Single-fibre response from the voxels of highest FA, well inside the brain."""

    kind: Literal["auto"] = "auto"
    voxels: Annotated[int, Field(ge=1, le=1_000_000)] = 300
    """How many voxels to average."""
    erode_mm: Annotated[float, Field(ge=0, le=100)] = 7.5
    """Voxels nearer than this to the edge of the brain mask are not considered."""


class GivenResponseConfig(Section):
    """Single-fibre response given as an axially symmetric tensor."""

    kind: Literal["given"] = "given"
    eigenvalues_mm2_s: tuple[Diffusivity, Diffusivity, Diffusivity]
    """Largest first, in mm²/s, e.g. ``[1.7e-3, 3e-4, 3e-4]``."""
    s0: Annotated[float, Field(gt=0, le=1e15)]
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


class CsdModelConfig(Section):
    """Single-shell constrained spherical deconvolution (Tournier 2007)."""

    kind: Literal["csd"] = "csd"
    shell_s_mm2: BValue | Literal["outermost"] = "outermost"
    """b-value of the shell, or the outermost one that has enough directions."""
    sh_order: ShOrder | Literal["auto"] = "auto"
    """Maximal spherical-harmonic order; ``auto``: as many coefficients as the shell has
    directions, at most order 8."""
    response: Annotated[
        Annotated[AutoResponseConfig | GivenResponseConfig, Field(discriminator="kind")],
        BeforeValidator(default_kind("auto")),
    ] = AutoResponseConfig()
    positivity_weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Weight of the positivity constraint (λ)."""
    positivity_threshold: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Amplitudes below this share of the mean amplitude are driven to zero (τ)."""


class TensorModelConfig(Section):
    """Orientation distribution of the diffusion tensor (Aganj 2010, solid angle)."""

    kind: Literal["tensor"] = "tensor"
    sh_order: ShOrder = 8
    """Maximal spherical-harmonic order of the stored distribution."""


class KurtosisModelConfig(Section):
    """Orientation distribution of the diffusion kurtosis tensor (Henriques 2015); two shells."""

    kind: Literal["kurtosis"] = "kurtosis"
    sh_order: ShOrder = 8
    """Maximal spherical-harmonic order of the stored distribution."""
    max_b_s_mm2: BValue = 3000
    """Shells above this are left out: the expansion in b does not hold there."""
    alpha: Annotated[float, Field(ge=1e-3, le=10)] = 4
    """Radial weighting power of the distribution."""


class AutoResponsesConfig(Section):
    """Responses of white matter, grey matter and fluid from the data (Dhollander 2016)."""

    kind: Literal["auto"] = "auto"


class ResponseFileConfig(FileConfig):
    """A response in MRtrix3's text format."""

    extensions: ClassVar[tuple[str, ...]] = (".txt",)


class ResponseFilesConfig(Section):
    """Responses in MRtrix3's text files: a line for each shell, b=0 first."""

    kind: Literal["files"] = "files"
    wm: ResponseFileConfig
    """White matter: zonal harmonics of even order."""
    gm: ResponseFileConfig | None = None
    """Grey matter: one number for each shell."""
    csf: ResponseFileConfig
    """Cerebrospinal fluid: one number for each shell."""


class MsmtCsdModelConfig(Section):
    """Multi-shell multi-tissue constrained spherical deconvolution (Jeurissen 2014)."""

    kind: Literal["msmt_csd"] = "msmt_csd"
    sh_order: ShOrder | Literal["auto"] = "auto"
    """Maximal order of the white-matter fODF; ``auto``: 8, or what the directions allow."""
    tissues: Literal["auto", "wm_csf", "wm_gm_csf"] = "auto"
    """Tissues; ``auto``: three with two shells or more, white matter and fluid with one."""
    response: Annotated[
        Annotated[AutoResponsesConfig | ResponseFilesConfig, Field(discriminator="kind")],
        BeforeValidator(default_kind("auto")),
    ] = AutoResponsesConfig()

    @model_validator(mode="after")
    def _response_of_each_tissue(self) -> MsmtCsdModelConfig:
        grey = isinstance(self.response, ResponseFilesConfig) and self.response.gm is not None
        if grey and self.tissues == "wm_csf":
            raise ValueError("response.gm is of no use with tissues wm_csf")
        return self


class _OdfConfig(Section):
    kind: str
    isotropic_part: Literal["drop", "keep"] = "drop"
    """An orientation distribution has a floor in every direction, which would be followed;
    ``drop`` subtracts its minimum over the sphere."""


class CsaModelConfig(_OdfConfig):
    """Constant-solid-angle Q-ball imaging (Aganj 2010)."""

    kind: Literal["csa"] = "csa"
    shell_s_mm2: BValue | Literal["outermost"] = "outermost"
    """b-value of the shell, or the outermost one that has enough directions."""
    sh_order: ShOrder | Literal["auto"] = "auto"
    """Maximal spherical-harmonic order; ``auto``: as the directions allow, at most 8."""
    smooth: Annotated[float, Field(ge=0, le=100)] = 0.006
    """Laplace-Beltrami regularisation."""


class OpdtModelConfig(_OdfConfig):
    """Orientation probability density transform (Tristan-Vega 2010)."""

    kind: Literal["opdt"] = "opdt"
    shell_s_mm2: BValue | Literal["outermost"] = "outermost"
    """b-value of the shell, or the outermost one that has enough directions."""
    sh_order: ShOrder | Literal["auto"] = "auto"
    """Maximal spherical-harmonic order; ``auto``: as the directions allow, at most 8."""
    smooth: Annotated[float, Field(ge=0, le=100)] = 0.006
    """Laplace-Beltrami regularisation."""


class GqiModelConfig(_OdfConfig):
    """Generalised q-sampling imaging (Yeh 2010), all shells."""

    kind: Literal["gqi"] = "gqi"
    sampling_length: Annotated[float, Field(ge=1e-3, le=5)] = 1.2
    """Diffusion sampling length ratio."""
    method: Literal["gqi2", "standard"] = "gqi2"
    """With the squared distance (``gqi2``) or as first published (``standard``)."""
    sh_order: ShOrder = 8
    """Maximal spherical-harmonic order of the stored distribution."""


class RumbaModelConfig(Section):
    """Robust and unbiased model-based spherical deconvolution (Canales-Rodriguez 2015)."""

    kind: Literal["rumba"] = "rumba"
    wm_eigenvalues_mm2_s: tuple[Diffusivity, Diffusivity, Diffusivity] | Literal["auto"] = "auto"
    """White-matter response, largest first; ``auto``: that of the data."""
    gm_diffusivity_mm2_s: Diffusivity | None = 0.8e-3
    """Diffusivity of the grey-matter compartment; null leaves it out."""
    csf_diffusivity_mm2_s: Diffusivity | None = 3e-3
    """Diffusivity of the fluid compartment; null leaves it out."""
    iterations: Annotated[int, Field(ge=1, le=10_000)] = 600
    """Richardson-Lucy iterations."""
    coils: Annotated[int, Field(ge=1, le=1024)] = 1
    """Receiver coils combined as a sum of squares; 1 for SENSE."""
    sh_order: ShOrder = 8
    """Maximal spherical-harmonic order of the stored distribution."""


class PrecomputedModelConfig(FileConfig):
    """fODFs made elsewhere: spherical harmonics in a NIfTI image on the DWI grid."""

    n_dimensions: ClassVar[int] = 4

    kind: Literal["precomputed"] = "precomputed"
    basis: ShBasis = "auto"
    """Basis of the harmonics; ``auto``: as its sidecar says, and an error if it does not.
    MRtrix3 writes ``tournier07``; DIPY by default ``descoteaux07_legacy``."""
    axes: Literal["auto", "scanner", "image"] = "auto"
    """Whether directions are along the scanner's axes (MRtrix3, ours) or the image's (DIPY);
    ``auto``: as the sidecar says, or as the basis' program does."""


ModelConfig = Annotated[
    Annotated[
        CsdModelConfig
        | MsmtCsdModelConfig
        | TensorModelConfig
        | KurtosisModelConfig
        | CsaModelConfig
        | OpdtModelConfig
        | GqiModelConfig
        | RumbaModelConfig
        | PrecomputedModelConfig,
        Field(discriminator="kind"),
    ],
    BeforeValidator(default_kind("csd")),
]

"""Diffusion models and the fits that precede them."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StrictBool, field_validator, model_validator

from bids_tractography.config.files import FileConfig
from bids_tractography.config.numbers import Count
from bids_tractography.config.section import ByKind, OnFinding, Section

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
    """Component of the file's vectors, with its sign, that each component of the correct vectors
    is taken from, e.g. ``[-x, y, z]``; null leaves the vectors as they are."""
    check: OnFinding = "error"
    """What to do if the principal directions of neighbouring voxels clearly fit another
    permutation of the b-vectors better."""
    b0_threshold_s_mm2: Annotated[float, Field(ge=0, le=1000)] = 50
    """Volumes with this b-value or less count as b=0 (some scanners write 1.25 or 5)."""
    shell_gap_s_mm2: BValue | Literal["auto"] = "auto"
    """Minimum gap between sorted b-values of different shells; ``auto``: 100, or a tenth of the
    b-value if that is greater."""

    @field_validator("permute")
    @classmethod
    def _each_axis_once(cls, value: tuple[Axis, Axis, Axis] | None) -> Any:
        if value is not None and {name[-1] for name in value} != {"x", "y", "z"}:
            raise ValueError("x, y and z are each required once, with a sign, e.g. [-x, y, z]")
        return value


class TensorMapsConfig(Section):
    """Diffusion tensor for the FA and MD maps (weighted least squares)."""

    max_b_s_mm2: BValue = 1500
    """Shells with a greater b-value are ignored, unless there are no others."""
    v1: StrictBool = False
    """Whether to also write the principal direction (RAS+ scanner axes)."""


class AutoResponseConfig(Section):
    """Single-fibre response estimated from the voxels of highest FA, well inside the brain."""

    kind: Literal["auto"] = "auto"
    voxels: Annotated[int, Count(1, 1_000_000)] = 300
    """Number of voxels to average."""
    erode_mm: Annotated[float, Field(ge=0, le=100)] = 7.5
    """Minimum distance of these voxels from the edge of the brain mask."""


class GivenResponseConfig(Section):
    """Single-fibre response given as an axially symmetric tensor."""

    kind: Literal["given"] = "given"
    eigenvalues_mm2_s: tuple[Diffusivity, Diffusivity, Diffusivity]
    """Eigenvalues in mm²/s, largest first, e.g. ``[1.7e-3, 3e-4, 3e-4]``."""
    s0: Annotated[float, Field(gt=0, le=1e15)]
    """Signal without diffusion weighting, in the units of the image."""

    @field_validator("eigenvalues_mm2_s")
    @classmethod
    def _prolate(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        first, second, third = value
        if not 1e-5 < first < 1e-2:
            raise ValueError("the first eigenvalue must be between 1e-5 and 1e-2 mm²/s")
        if not first > second >= third > 0:
            raise ValueError("eigenvalues must be positive, largest first")
        return value


class CsdModelConfig(Section):
    """Single-shell constrained spherical deconvolution (Tournier 2007)."""

    kind: Literal["csd"] = "csd"
    shell_s_mm2: BValue | Literal["outermost"] = "outermost"
    """b-value of the shell, or ``outermost``: the outermost shell with enough directions."""
    sh_order: ShOrder | Literal["auto"] = "auto"
    """Maximum spherical-harmonic order; ``auto``: the largest with no more coefficients than the
    shell has directions, up to 8."""
    response: Annotated[
        AutoResponseConfig | GivenResponseConfig,
        ByKind("auto"),
    ] = AutoResponseConfig()
    positivity_weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Weight of the positivity constraint (λ)."""
    positivity_threshold: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Amplitudes below this fraction of the mean amplitude are driven to zero (τ)."""


class TensorModelConfig(Section):
    """Orientation distribution of the diffusion tensor in constant solid angle (Aganj 2010)."""

    kind: Literal["tensor"] = "tensor"
    sh_order: ShOrder = 8
    """Maximum spherical-harmonic order of the stored distribution."""


class KurtosisModelConfig(Section):
    """Orientation distribution of the diffusion kurtosis tensor (Henriques 2015); two shells."""

    kind: Literal["kurtosis"] = "kurtosis"
    sh_order: ShOrder = 8
    """Maximum spherical-harmonic order of the stored distribution."""
    max_b_s_mm2: BValue = 3000
    """Shells with a greater b-value are ignored, because the expansion in b does not hold there."""
    alpha: Annotated[float, Field(ge=1e-3, le=10)] = 4
    """Exponent of the radial weighting of the distribution."""


class AutoResponsesConfig(Section):
    """White-matter, grey-matter and CSF responses estimated from the data (Dhollander 2016)."""

    kind: Literal["auto"] = "auto"


class ResponseFileConfig(FileConfig):
    """Response in MRtrix3's text format."""

    extensions: ClassVar[tuple[str, ...]] = (".txt",)


class ResponseFilesConfig(Section):
    """Responses in MRtrix3's text format: one line per shell, b=0 first."""

    kind: Literal["files"] = "files"
    wm: ResponseFileConfig
    """White matter: zonal harmonics of even order."""
    gm: ResponseFileConfig | None = None
    """Grey matter: one number per shell."""
    csf: ResponseFileConfig
    """CSF: one number per shell."""


class MsmtCsdModelConfig(Section):
    """Multi-shell multi-tissue constrained spherical deconvolution (Jeurissen 2014)."""

    kind: Literal["msmt_csd"] = "msmt_csd"
    sh_order: ShOrder | Literal["auto"] = "auto"
    """Maximum order of the white-matter fODF; ``auto``: 8, or less if directions are too few."""
    tissues: Literal["auto", "wm_csf", "wm_gm_csf"] = "auto"
    """Tissues; ``auto``: three with two shells or more, white matter and CSF with one shell."""
    response: Annotated[
        AutoResponsesConfig | ResponseFilesConfig,
        ByKind("auto"),
    ] = AutoResponsesConfig()

    @model_validator(mode="after")
    def _response_of_each_tissue(self) -> MsmtCsdModelConfig:
        grey = isinstance(self.response, ResponseFilesConfig) and self.response.gm is not None
        if grey and self.tissues == "wm_csf":
            raise ValueError("response.gm is not accepted with tissues wm_csf")
        return self


class _OdfConfig(Section):
    kind: str
    isotropic_part: Literal["drop", "keep"] = "drop"
    """Whether to keep the isotropic part of the distribution, which would let streamlines follow
    any direction; ``drop`` subtracts the minimum over the sphere."""


class CsaModelConfig(_OdfConfig):
    """Constant-solid-angle Q-ball imaging (Aganj 2010)."""

    kind: Literal["csa"] = "csa"
    shell_s_mm2: BValue | Literal["outermost"] = "outermost"
    """b-value of the shell, or ``outermost``: the outermost shell with enough directions."""
    sh_order: ShOrder | Literal["auto"] = "auto"
    """Maximum spherical-harmonic order; ``auto``: as the directions allow, up to 8."""
    smooth: Annotated[float, Field(ge=0, le=100)] = 0.006
    """Weight of the Laplace-Beltrami regularisation."""


class OpdtModelConfig(_OdfConfig):
    """Orientation probability density transform (Tristan-Vega 2010)."""

    kind: Literal["opdt"] = "opdt"
    shell_s_mm2: BValue | Literal["outermost"] = "outermost"
    """b-value of the shell, or ``outermost``: the outermost shell with enough directions."""
    sh_order: ShOrder | Literal["auto"] = "auto"
    """Maximum spherical-harmonic order; ``auto``: as the directions allow, up to 8."""
    smooth: Annotated[float, Field(ge=0, le=100)] = 0.006
    """Weight of the Laplace-Beltrami regularisation."""


class GqiModelConfig(_OdfConfig):
    """Generalised q-sampling imaging of all shells (Yeh 2010)."""

    kind: Literal["gqi"] = "gqi"
    sampling_length: Annotated[float, Field(ge=1e-3, le=5)] = 1.2
    """Ratio of the diffusion sampling length."""
    method: Literal["gqi2", "standard"] = "gqi2"
    """Weighting by the squared distance (``gqi2``), or as first published (``standard``)."""
    sh_order: ShOrder = 8
    """Maximum spherical-harmonic order of the stored distribution."""


class RumbaModelConfig(Section):
    """Robust and unbiased model-based spherical deconvolution (Canales-Rodriguez 2015)."""

    kind: Literal["rumba"] = "rumba"
    wm_eigenvalues_mm2_s: tuple[Diffusivity, Diffusivity, Diffusivity] | Literal["auto"] = "auto"
    """White-matter response, largest eigenvalue first; ``auto``: estimated from the data."""
    gm_diffusivity_mm2_s: Diffusivity | None = 0.8e-3
    """Diffusivity of the grey-matter compartment; null omits the compartment."""
    csf_diffusivity_mm2_s: Diffusivity | None = 3e-3
    """Diffusivity of the CSF compartment; null omits the compartment."""
    iterations: Annotated[int, Count(1, 10_000)] = 600
    """Number of Richardson-Lucy iterations."""
    coils: Annotated[int, Count(1, 1024)] = 1
    """Number of receiver coils combined by the sum of squares; 1 for SENSE."""
    sh_order: ShOrder = 8
    """Maximum spherical-harmonic order of the stored distribution."""


class PrecomputedModelConfig(FileConfig):
    """fODFs created by other software: spherical harmonics in a NIfTI image on the DWI grid."""

    n_dimensions: ClassVar[int] = 4

    kind: Literal["precomputed"] = "precomputed"
    basis: ShBasis = "auto"
    """Spherical-harmonic basis; ``auto``: as stated in the sidecar, which must state it.
    MRtrix3 writes ``tournier07``; DIPY writes ``descoteaux07_legacy`` by default."""
    axes: Literal["auto", "scanner", "image"] = "auto"
    """Axes of the directions: those of the scanner (MRtrix3, this program) or of the image (DIPY);
    ``auto``: as the sidecar states, otherwise as the program that uses the basis writes them."""


ModelConfig = Annotated[
    CsdModelConfig
    | MsmtCsdModelConfig
    | TensorModelConfig
    | KurtosisModelConfig
    | CsaModelConfig
    | OpdtModelConfig
    | GqiModelConfig
    | RumbaModelConfig
    | PrecomputedModelConfig,
    ByKind("csd"),
]

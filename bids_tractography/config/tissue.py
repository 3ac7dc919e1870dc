"""Where white matter, grey matter and cerebrospinal fluid are."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from bids_tractography.config.files import FileConfig
from bids_tractography.config.section import Section, default_kind

Space = Literal["auto", "any"]


def _check_space(file: FileConfig | None, space: Space) -> None:
    if file is not None and space != "auto":
        raise ValueError("space is for files that are found by name; a named file is always taken")


class AutoTissueConfig(Section):
    """The first source there is: probseg, dseg, 5tt, t1w, dwi."""

    kind: Literal["auto"] = "auto"
    space: Space = "auto"
    """Spaces that are taken to be aligned with the DWI, see `probseg`. Files in other spaces are an
    error, unless there are others of the DWI's own space."""


class ProbsegTissueConfig(Section):
    """Fractions of the datasets: ``label-WM``, ``label-GM``, ``label-CSF`` ``_probseg``."""

    kind: Literal["probseg"] = "probseg"
    space: Space = "auto"
    """Spaces that are taken to be aligned with the DWI. ``auto``: that of the DWI, and for a DWI
    without ``space-`` native anatomy. ``any``: native anatomy (no ``space-``, ``space-T1w``, ...)
    for every DWI. Templates are never taken."""


class DsegTissueConfig(Section):
    """A segmentation of the datasets: FreeSurfer's ``desc-aseg_dseg``, or BIDS' ``_dseg``."""

    kind: Literal["dseg"] = "dseg"
    segmentation: FileConfig | None = None
    """The file; found by its name when null."""
    space: Space = "auto"
    """Spaces that are taken to be aligned with the DWI, see `probseg`; only for a file that
    is found by its name."""

    @model_validator(mode="after")
    def _space_of_found_files(self) -> DsegTissueConfig:
        _check_space(self.segmentation, self.space)
        return self


class FiveTissueFileConfig(FileConfig):
    """A 5TT image: fractions of five tissues along its last dimension."""

    n_dimensions: ClassVar[int] = 4


class FiveTissueTypesConfig(Section):
    """A 5TT image of the datasets, as MRtrix3 makes it."""

    kind: Literal["5tt"] = "5tt"
    image: FiveTissueFileConfig | None = None
    """The file; found by its name when null."""
    space: Space = "auto"
    """Spaces that are taken to be aligned with the DWI, see `probseg`; only for a file that
    is found by its name."""

    @model_validator(mode="after")
    def _space_of_found_files(self) -> FiveTissueTypesConfig:
        _check_space(self.image, self.space)
        return self


class T1wTissueConfig(Section):
    """A T1-weighted image of the participant: aligned with the DWI and segmented."""

    kind: Literal["t1w"] = "t1w"
    image: FileConfig | None = None
    """The file; found by its name when null."""
    min_overlap: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Dice overlap of the two brain masks, aligned, below which the alignment is refused."""


class DwiTissueConfig(Section):
    """The DWI itself: volume fractions of multi-tissue deconvolution (several shells)."""

    kind: Literal["dwi"] = "dwi"


class GivenTissueConfig(Section):
    """Three files."""

    kind: Literal["files"] = "files"
    wm: FileConfig
    """White-matter fraction."""
    gm: FileConfig
    """Grey-matter fraction."""
    csf: FileConfig
    """Fraction of cerebrospinal fluid."""


TissueConfig = Annotated[
    Annotated[
        AutoTissueConfig
        | ProbsegTissueConfig
        | DsegTissueConfig
        | FiveTissueTypesConfig
        | T1wTissueConfig
        | DwiTissueConfig
        | GivenTissueConfig,
        Field(discriminator="kind"),
    ],
    BeforeValidator(default_kind("auto")),
]

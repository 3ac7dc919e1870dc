"""Sources of white-matter, grey-matter and CSF fractions."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from bids_tractography.config.files import FileConfig
from bids_tractography.config.section import ByKind, Section

Space = Literal["auto", "any"]


def _check_space(file: FileConfig | None, space: Space) -> None:
    if file is not None and space != "auto":
        raise ValueError("space applies only to files found by name, not to a file that is given")


class AutoTissueConfig(Section):
    """The first source available of probseg, dseg, 5tt, t1w and dwi."""

    kind: Literal["auto"] = "auto"
    space: Space = "auto"
    """Spaces assumed to be aligned with the DWI, see `probseg`. It is an error if files exist in
    other spaces only."""


class ProbsegTissueConfig(Section):
    """Tissue probability maps of the datasets: ``label-WM``, ``-GM`` and ``-CSF`` ``_probseg``."""

    kind: Literal["probseg"] = "probseg"
    space: Space = "auto"
    """Spaces assumed to be aligned with the DWI. ``auto``: the space of the DWI and, for a DWI
    without ``space-``, native anatomical space. ``any``: native anatomical space (no ``space-``,
    ``space-T1w``, ...) for every DWI. Template spaces are never used."""


class DsegTissueConfig(Section):
    """A segmentation of the datasets: FreeSurfer's ``desc-aseg_dseg`` or a BIDS ``_dseg``."""

    kind: Literal["dseg"] = "dseg"
    segmentation: FileConfig | None = None
    """The segmentation; null finds it by name."""
    space: Space = "auto"
    """Spaces assumed to be aligned with the DWI, see `probseg`; only for files found by name."""

    @model_validator(mode="after")
    def _space_of_found_files(self) -> DsegTissueConfig:
        _check_space(self.segmentation, self.space)
        return self


class FiveTissueFileConfig(FileConfig):
    """5TT image: fractions of five tissues along its last dimension."""

    n_dimensions: ClassVar[int] = 4


class FiveTissueTypesConfig(Section):
    """A 5TT image of the datasets, as created by MRtrix3's ``5ttgen``."""

    kind: Literal["5tt"] = "5tt"
    image: FiveTissueFileConfig | None = None
    """The 5TT image; null finds it by name."""
    space: Space = "auto"
    """Spaces assumed to be aligned with the DWI, see `probseg`; only for files found by name."""

    @model_validator(mode="after")
    def _space_of_found_files(self) -> FiveTissueTypesConfig:
        _check_space(self.image, self.space)
        return self


class T1wTissueConfig(Section):
    """A T1-weighted image of the participant, registered to the DWI and segmented."""

    kind: Literal["t1w"] = "t1w"
    image: FileConfig | None = None
    """The T1-weighted image; null finds it by name."""
    min_overlap: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Minimum Dice overlap of the two brain masks after registration; less is an error."""


class DwiTissueConfig(Section):
    """Volume fractions of multi-tissue deconvolution of the DWI (several shells)."""

    kind: Literal["dwi"] = "dwi"


class GivenTissueConfig(Section):
    """Tissue fractions in three files."""

    kind: Literal["files"] = "files"
    wm: FileConfig
    """White-matter fraction."""
    gm: FileConfig
    """Grey-matter fraction."""
    csf: FileConfig
    """CSF fraction."""


TissueConfig = Annotated[
    AutoTissueConfig
    | ProbsegTissueConfig
    | DsegTissueConfig
    | FiveTissueTypesConfig
    | T1wTissueConfig
    | DwiTissueConfig
    | GivenTissueConfig,
    ByKind("auto"),
]

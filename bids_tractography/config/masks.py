"""Definitions of masks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, model_validator

from bids_tractography.config.files import FileConfig
from bids_tractography.config.section import ByKind, NotEmpty, Section

TensorScalar = Literal["fa", "md", "ad", "rd"]
ScalarMap = Literal[TensorScalar, "gfa"]
SCALAR_UNITS = {"fa": "", "gfa": "", "md": " mm²/s", "ad": " mm²/s", "rd": " mm²/s"}
"""What follows a value of each map in a text."""
Label = Annotated[int, Field(ge=-(2**31), lt=2**31)]
# In the unit of the map, which can be any image: the bounds only exclude absurd values.
Threshold = Annotated[float, Field(ge=-1e15, le=1e15)]
TissueName = Literal["wm", "gm", "csf"]


class FullMaskConfig(Section):
    """All voxels of the image."""

    kind: Literal["full"] = "full"


class BrainMaskConfig(Section):
    """The brain mask of the dataset or, if there is none, a mask computed from the DWI."""

    kind: Literal["brain"] = "brain"


class FileMaskConfig(FileConfig):
    """Voxels above zero in an image; images on other grids are resampled by nearest neighbour."""

    kind: Literal["file"] = "file"


class RoiMaskConfig(Section):
    """Union of regions: voxels above zero in any of several images."""

    kind: Literal["roi"] = "roi"
    files: Annotated[tuple[FileConfig, ...], NotEmpty]
    """Images; those on other grids are resampled by nearest neighbour."""


class LabelsMaskConfig(FileConfig):
    """Labels of a segmentation."""

    kind: Literal["labels"] = "labels"
    include: tuple[Label, ...] = ()
    """Labels in the mask; if empty, all labels above zero."""
    exclude: tuple[Label, ...] = ()
    """Labels to leave out of the mask."""

    @model_validator(mode="after")
    def _require_labels(self) -> LabelsMaskConfig:
        if not self.include and not self.exclude:
            raise ValueError("labels to include or exclude are required")
        both = sorted(set(self.include) & set(self.exclude))
        if both:
            raise ValueError(f"labels {both} are both included and excluded")
        return self


class ThresholdMaskConfig(Section):
    """Voxels where a map is above a value, below a value, or both."""

    kind: Literal["threshold"] = "threshold"
    map: ScalarMap | FileConfig = "fa"
    """A map of the fit (``fa``, ``md``, ``ad``, ``rd`` of the tensor, diffusivities in mm²/s;
    ``gfa`` of the fODF), or a file, interpolated linearly if it is on another grid."""
    above: Threshold | None = None
    """Lower bound: the mask has voxels where ``map > above``; 0.2 for FA if no bound is given."""
    below: Threshold | None = None
    """Upper bound: the mask has voxels where ``map < below``."""
    percentile: StrictBool = False
    """Whether the bounds are percentiles of the map's non-zero voxels in the brain."""

    @model_validator(mode="before")
    @classmethod
    def _default_threshold(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("map", "fa") == "fa":
            unsaid = "above" not in data and "below" not in data and not data.get("percentile")
            return {**data, "above": 0.2} if unsaid else data
        return data

    @model_validator(mode="after")
    def _threshold_of_its_map(self) -> ThresholdMaskConfig:
        values = [value for value in (self.above, self.below) if value is not None]
        if not values:
            raise ValueError("above or below is required")
        if len(values) == 2 and values[0] >= values[1]:
            raise ValueError("above must be less than below")
        if self.percentile and not all(0 <= value <= 100 for value in values):
            raise ValueError("percentiles must be between 0 and 100")
        return self


class TissueMaskConfig(Section):
    """Voxels in which the fraction of a tissue exceeds a threshold."""

    kind: Literal["tissue"] = "tissue"
    tissue: TissueName = "wm"
    """White matter, grey matter or cerebrospinal fluid."""
    above: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """The mask has voxels where the fraction is greater than this."""


class InterfaceMaskConfig(Section):
    """Interface of white and grey matter: white-matter voxels that contain or touch grey matter."""

    kind: Literal["interface"] = "interface"
    above: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Threshold for the fraction of white matter in the voxel, and of grey matter in the voxel
    or one of its six neighbours."""


class AnyMaskConfig(Section):
    """Union: voxels in at least one of several masks."""

    kind: Literal["any"] = "any"
    of: Annotated[tuple[MaskConfig, ...], NotEmpty]
    """Masks to combine."""


class AllMaskConfig(Section):
    """Intersection: voxels in all of several masks."""

    kind: Literal["all"] = "all"
    of: Annotated[tuple[MaskConfig, ...], NotEmpty]
    """Masks to combine."""


class NotMaskConfig(Section):
    """Complement: voxels that are not in a mask."""

    kind: Literal["not"] = "not"
    of: MaskConfig
    """Mask to invert."""


MaskConfig = Annotated[
    FullMaskConfig
    | BrainMaskConfig
    | FileMaskConfig
    | RoiMaskConfig
    | LabelsMaskConfig
    | ThresholdMaskConfig
    | TissueMaskConfig
    | InterfaceMaskConfig
    | AnyMaskConfig
    | AllMaskConfig
    | NotMaskConfig,
    ByKind("threshold"),
]

for _section in (AnyMaskConfig, AllMaskConfig, NotMaskConfig):  # they refer to MaskConfig
    _section.model_rebuild()

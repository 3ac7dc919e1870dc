"""Definitions of masks: where a yes or no for every voxel comes from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from bids_tractography.config.files import FileConfig
from bids_tractography.config.section import NotEmpty, Section, default_kind

TensorScalar = Literal["fa", "md", "ad", "rd"]
ScalarMap = Literal[TensorScalar, "gfa"]
Label = Annotated[int, Field(ge=-(2**31), lt=2**31)]
# The unit is that of the map, which may be any image that can be computed with.
Threshold = Annotated[float, Field(ge=-1e15, le=1e15)]
TissueName = Literal["wm", "gm", "csf"]


class FullMaskConfig(Section):
    """Every voxel of the image."""

    kind: Literal["full"] = "full"


class BrainMaskConfig(Section):
    """The brain: the mask of the dataset, or one made from the DWI."""

    kind: Literal["brain"] = "brain"


class FileMaskConfig(FileConfig):
    """An image; voxels above zero are in the mask. Other grids: the nearest voxel."""

    kind: Literal["file"] = "file"


class RoiMaskConfig(Section):
    """Regions, united: voxels above zero in any of several images."""

    kind: Literal["roi"] = "roi"
    files: Annotated[tuple[FileConfig, ...], NotEmpty]
    """Images; on another grid, the nearest voxel is taken."""


class LabelsMaskConfig(FileConfig):
    """Regions of a segmentation, by their numbers."""

    kind: Literal["labels"] = "labels"
    include: tuple[Label, ...] = ()
    """Labels in the mask; empty for every label above zero."""
    exclude: tuple[Label, ...] = ()
    """Labels that are not."""

    @model_validator(mode="after")
    def _some_label(self) -> LabelsMaskConfig:
        if not self.include and not self.exclude:
            raise ValueError("give labels to include, to exclude, or both")
        both = sorted(set(self.include) & set(self.exclude))
        if both:
            raise ValueError(f"{both} cannot be included and excluded")
        return self


class ThresholdMaskConfig(Section):
    """Voxels where a map is above a value, below one, or both."""

    kind: Literal["threshold"] = "threshold"
    map: ScalarMap | FileConfig = "fa"
    """A map of the fit (``fa``, ``md``, ``ad``, ``rd`` of the tensor in mm²/s, ``gfa`` of the
    fODF), or a file; on another grid it is interpolated linearly."""
    above: Threshold | None = None
    """Voxels are in the mask where ``map > above``; 0.2 for FA if nothing is said."""
    below: Threshold | None = None
    """Voxels are in the mask where ``map < below``."""
    percentile: bool = False
    """The values are percentiles of the map's non-zero voxels in the brain."""

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
            raise ValueError("a percentile is from 0 to 100")
        return self


class TissueMaskConfig(Section):
    """Voxels with more than a fraction of a tissue."""

    kind: Literal["tissue"] = "tissue"
    tissue: TissueName = "wm"
    """White matter, grey matter or cerebrospinal fluid."""
    above: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Voxels are in the mask where the fraction is above this."""


class InterfaceMaskConfig(Section):
    """The rim of white matter: voxels of it that touch grey matter, or hold some."""

    kind: Literal["interface"] = "interface"
    above: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """White matter in the voxel, and grey matter in it or in one of its six neighbours, are
    above this fraction."""


class AnyMaskConfig(Section):
    """Voxels of at least one mask."""

    kind: Literal["any"] = "any"
    of: Annotated[tuple[MaskConfig, ...], NotEmpty]
    """The masks to unite."""


class AllMaskConfig(Section):
    """Voxels of every mask."""

    kind: Literal["all"] = "all"
    of: Annotated[tuple[MaskConfig, ...], NotEmpty]
    """The masks to intersect."""


class NotMaskConfig(Section):
    """Voxels that are not in a mask."""

    kind: Literal["not"] = "not"
    of: MaskConfig
    """The mask to invert."""


MaskConfig = Annotated[
    Annotated[
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
        Field(discriminator="kind"),
    ],
    BeforeValidator(default_kind("threshold")),
]

for _section in (AnyMaskConfig, AllMaskConfig, NotMaskConfig):  # they contain each other
    _section.model_rebuild()

"""Definitions of masks: where a yes or no for every voxel comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from bids_tractography.config.section import Section, default_kind

ScalarMap = Literal["fa", "md"]
# null: the entity is absent; "*": it has any value.
FilterValue = str | int | None


class ThresholdMask(Section):
    """Voxels where a scalar map is above a value."""

    kind: Literal["threshold"] = "threshold"
    map: ScalarMap = "fa"
    """Map of the tensor fit: fractional anisotropy or mean diffusivity (mm²/s)."""
    above: float = 0.2
    """Voxels are in the mask where ``map > above``; has to be given for other maps than FA."""

    @model_validator(mode="after")
    def _threshold_of_its_map(self) -> ThresholdMask:
        if self.map != "fa" and "above" not in self.model_fields_set:
            raise ValueError(f"say above which value: the default is for FA, not {self.map}")
        return self


class FileMask(Section):
    """An image on the DWI grid; voxels above zero are in the mask."""

    kind: Literal["file"] = "file"
    path: Path | None = None
    """Path of the image, the same for every DWI run."""
    filters: dict[str, FilterValue | list[FilterValue]] | None = Field(default=None, min_length=1)
    """BIDS entities (pybids names) of the image; participant and session are added."""

    @model_validator(mode="after")
    def _one_source(self) -> FileMask:
        if (self.path is None) == (self.filters is None):
            raise ValueError("give either path or filters")
        return self


Mask = Annotated[
    Annotated[ThresholdMask | FileMask, Field(discriminator="kind")],
    BeforeValidator(default_kind("threshold")),
]

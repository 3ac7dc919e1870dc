"""Files that a configuration names: by path, or by BIDS filters for each participant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from bids_tractography.config.section import Section

# null: the entity is absent; "*": it has any value.
FilterValue = str | Annotated[int, Field(ge=-(2**31), lt=2**31)] | None


class FileConfig(Section):
    """A file: one path for every DWI run, or BIDS filters that each participant resolves."""

    extensions: ClassVar[tuple[str, ...]] = (".nii.gz", ".nii")
    n_dimensions: ClassVar[int] = 3

    path: Path | None = None
    """Path of the file, the same for every DWI run."""
    filters: dict[str, FilterValue | list[FilterValue]] | None = Field(default=None, min_length=1)
    """BIDS entities (pybids names) of the file; participant and session are added."""
    scope: str | None = None
    """Dataset to search with filters: ``raw`` or a name given with ``--derivatives``; all of
    them when null."""

    @model_validator(mode="before")
    @classmethod
    def _bare_path(cls, data: Any) -> Any:
        return {"path": data} if isinstance(data, str | Path) else data

    @model_validator(mode="after")
    def _one_source(self) -> FileConfig:
        if (self.path is None) == (self.filters is None):
            raise ValueError("give either path or filters")
        if self.scope is not None and self.filters is None:
            raise ValueError("scope goes with filters")
        return self

    @property
    def name(self) -> str:
        """How messages and descriptions call it."""
        return self.path.name if self.path else f"the file of {self.filters}"

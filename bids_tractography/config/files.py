"""Files named in the configuration, by path or by BIDS filters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from bids_tractography.config.section import Section

# As in pybids: null requires the entity to be absent, "*" accepts any value.
FilterValue = str | Annotated[int, Field(ge=-(2**31), lt=2**31, strict=True)] | None


class FileConfig(Section):
    """A file: a path shared by all DWI runs, or BIDS filters resolved for each participant."""

    extensions: ClassVar[tuple[str, ...]] = (".nii.gz", ".nii")
    n_dimensions: ClassVar[int] = 3

    path: Path | None = None
    """Path of the file, the same for all DWI runs."""
    filters: dict[str, FilterValue | list[FilterValue]] | None = Field(default=None, min_length=1)
    """BIDS entities of the file, by their pybids names; participant and session are added."""
    scope: str | None = None
    """Dataset in which to search: ``raw``, or a name given with ``--derivatives``; null searches
    all of them."""

    @model_validator(mode="before")
    @classmethod
    def _bare_path(cls, data: Any) -> Any:
        return {"path": data} if isinstance(data, str | Path) else data

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Accept a bare path, except where a text is the kind of a section."""
        described = handler.resolve_ref_schema(handler(schema))
        return (
            described if "kind" in cls.model_fields else {**described, "type": ["string", "object"]}
        )

    @model_validator(mode="after")
    def _one_source(self) -> FileConfig:
        if (self.path is None) == (self.filters is None):
            raise ValueError("give either path or filters")
        if self.scope is not None and self.filters is None:
            raise ValueError("scope requires filters")
        return self

    @property
    def name(self) -> str:
        """Name of the file in messages and descriptions."""
        return self.path.name if self.path else f"the file of {self.filters}"

"""Files that a configuration names: by path, or by BIDS filters for each participant."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, model_validator

from bids_tractography.config.section import Section

# null: the entity is absent; "*": it has any value.
FilterValue = str | int | None


class File(Section):
    """A file: one path for every DWI run, or BIDS filters that each participant resolves."""

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
    def _one_source(self) -> File:
        if (self.path is None) == (self.filters is None):
            raise ValueError("give either path or filters")
        if self.scope is not None and self.filters is None:
            raise ValueError("scope goes with filters")
        return self

    @property
    def name(self) -> str:
        """How messages and descriptions call it."""
        return self.path.name if self.path else f"the file of {self.filters}"


def files_in(section: BaseModel, key: str = "") -> Iterator[tuple[str, File]]:
    """Yield every file that a configuration names, with the dotted path of its key."""
    if isinstance(section, File):
        yield key, section
        return
    for name in type(section).model_fields:
        yield from _files_of(getattr(section, name), f"{key}.{name}" if key else name)


def _files_of(value: Any, key: str) -> Iterator[tuple[str, File]]:
    if isinstance(value, BaseModel):
        yield from files_in(value, key)
    elif isinstance(value, tuple):
        for place, item in enumerate(value):
            yield from _files_of(item, f"{key}.{place}")

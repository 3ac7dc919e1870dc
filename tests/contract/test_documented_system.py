"""The table of the documented system names files and keys that there are."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from conftest import ROOT
from pydantic import BaseModel

from bids_tractography.config import Config
from bids_tractography.config.section import Section

PAGE = ROOT / "docs" / "documented_system.md"
ROWS = [
    line
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| documented"))
]


def is_key(key: str) -> bool:
    """Follow a dotted key through every kind of the sections on its way."""
    sections: list[type[BaseModel]] = [Config]
    for name in key.split("."):
        fields = [part.model_fields[name] for part in sections if name in part.model_fields]
        if not fields:
            return False
        sections = [part for field in fields for part in parts_of(field)]
    return True


def parts_of(annotation: object) -> Iterator[type[BaseModel]]:
    """The sections in a type."""
    annotation = getattr(annotation, "annotation", annotation)  # of a field
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from parts_of(argument)


def test_every_row_names_its_files_and_they_are_there() -> None:
    missing = []
    for row in ROWS:
        named = re.findall(r"`([\w/]+\.py)`", row)
        tests = [name for name in named if name.startswith("tests/")]
        assert tests, row
        assert len(named) > len(tests), row
        folders = {name: ROOT if name in tests else ROOT / "bids_tractography" for name in named}
        missing += [name for name, folder in folders.items() if not (folder / name).is_file()]
    assert not missing


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_every_key_that_is_named_is_one(row: str) -> None:
    column = row.split("|")[3]
    for key in re.findall(r"`([a-z_.]+)`", column):
        assert is_key(key), f"{key} in: {row}"

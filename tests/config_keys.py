"""All keys of the configuration, for tests that give each of them a value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from bids_tractography.config import Config
from bids_tractography.config.section import kind_of, members

# Names of keys on the way to a key, each with the kind of the section that it is in.
Way = tuple[tuple[str, str | None], ...]


def ways(
    section: type[BaseModel] = Config, seen: tuple[type[BaseModel], ...] = ()
) -> Iterator[Way]:
    """Yield the way to every key."""
    for name, field in section.model_fields.items():
        here = (name, kind_of(section))
        yield (here,)
        for member in members(field.annotation):
            if member not in seen and not (name == "of" and len(seen) > 1):
                for way in ways(member, (*seen, member)):
                    yield (here, *way)


def content(way: Way, value: Any) -> Any:
    """Return a configuration with a value at the end of the way."""
    if not way:
        return value
    (name, kind), *rest = way
    inner = content(tuple(rest), value)
    is_list = name in ("include", "exclude", "files") or (name == "of" and kind != "not")
    if rest and is_list:
        inner = [inner]
    return {name: inner} if kind is None or name == "kind" else {"kind": kind, name: inner}


WAYS = list(ways())

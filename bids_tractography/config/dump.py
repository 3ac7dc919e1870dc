"""Configurations as YAML: whole, with comments, or only what differs from the defaults."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from bids_tractography.config import Config
from bids_tractography.config.section import Section, kind_of, members

_WIDTH = 97  # of a comment, without its mark


def as_yaml(config: Config) -> str:
    """Return a configuration with all its keys."""
    return _yaml(config.model_dump(mode="json"))


def changes_as_yaml(config: Config) -> str:
    """Return the keys of a configuration that differ from the defaults.

    What is returned is a configuration that is equal to the given one.
    """
    changed = _changes(config, Config())
    return _yaml(changed) if changed else ""


def commented_yaml(config: Config) -> str:
    """Return a configuration with all its keys, each below its description as a comment."""
    return "\n".join(_commented(config, "")) + "\n"


def _yaml(content: Any) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _changes(section: Section, usual: Any) -> dict[str, Any]:
    """Return the keys of a section that differ from the usual section, or from its defaults."""
    fields = type(section).model_fields
    alike = type(section) is type(usual)
    changed: dict[str, Any] = {}
    if not alike and "kind" in fields:
        changed["kind"] = section.model_dump()["kind"]
    for name, field in fields.items():
        value = getattr(section, name)
        before = getattr(usual, name) if alike else field.default
        if value != before:
            nested = isinstance(value, Section)
            plain = section.model_dump(mode="json", include={name})[name]
            changed[name] = _changes(value, before) if nested else plain
    try:
        complete = type(section).model_validate(changed) == section
    except ValidationError:
        complete = False
    # Some defaults depend on other keys: then all keys have to be given.
    return changed if complete else section.model_dump(mode="json")


def _commented(section: Section, indent: str) -> Iterator[str]:
    """Yield the lines of a section, every key with its description above it."""
    values = section.model_dump(mode="json")
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if not indent:
            yield ""
        about = textwrap.wrap(
            _about(field, value),
            _WIDTH - len(indent),
            break_on_hyphens=False,
            break_long_words=False,
        )
        yield from (f"{indent}# {line}" for line in about)
        if isinstance(value, Section):
            yield f"{indent}{name}:"
            yield from _commented(value, indent + "  ")
        else:
            yield from textwrap.indent(_yaml({name: values[name]}).rstrip(), indent).split("\n")


def _about(field: FieldInfo, value: Any) -> str:
    """Return the description of a key in one line, with the kinds of section that it may have."""
    about = field.description or (isinstance(value, Section) and type(value).__doc__) or ""
    kinds = [kind for section in members(field.annotation) if (kind := kind_of(section))]
    choices = f" Kinds: {', '.join(kinds)}." if len(kinds) > 1 else ""
    return " ".join(about.partition("\n\n")[0].replace("``", "`").split()) + choices

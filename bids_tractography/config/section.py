"""Base class and validators shared by all sections of the configuration."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, model_validator


class Section(BaseModel):
    """Frozen section of the configuration; unknown keys are errors."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _keep_booleans_as_words(cls, data: Any) -> Any:
        """Turn booleans given for other types into words; pydantic would coerce them to 1 and 0."""
        if not isinstance(data, dict):
            return data
        meant = {name for name, field in cls.model_fields.items() if field.annotation is bool}
        return {
            key: str(value).lower() if isinstance(value, bool) and key not in meant else value
            for key, value in data.items()
        }


def _not_empty(value: tuple[Any, ...]) -> tuple[Any, ...]:
    if not value:
        raise ValueError("at least one is required")
    return value


NotEmpty = AfterValidator(_not_empty)


def _off(value: Any) -> Any:
    """Read ``off``, which YAML parses as false, as the word that was written."""
    return "off" if value in (False, "false") else value


OnFinding = Annotated[Literal["error", "warn", "off"], BeforeValidator(_off)]
"""Action to take if a check fails."""


def default_kind(kind: str) -> Callable[[Any], Any]:
    """Create a validator that expands a bare name, or a mapping without ``kind``.

    ``csd`` becomes ``{kind: csd}``, and ``{step_size_mm: 0.25}`` becomes a mapping of the default
    kind.
    """

    def complete(value: Any) -> Any:
        if isinstance(value, str):
            return {"kind": value}
        if isinstance(value, dict) and "kind" not in value:
            return {"kind": kind, **value}
        return value

    return complete


def sections_in(value: Any, key: str = "") -> Iterator[tuple[str, Section]]:
    """Yield a section and all sections nested in it, each with the dotted path of its key."""
    if isinstance(value, Section):
        yield key, value
        for name in type(value).model_fields:
            yield from sections_in(getattr(value, name), f"{key}.{name}" if key else name)
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from sections_in(item, f"{key}.{index}")


def members(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the sections inside a type annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType):
        for argument in get_args(annotation):
            yield from members(argument)
    elif get_origin(annotation) not in (Literal, None):
        yield from members(get_args(annotation)[0])


def kind_of(section: type[BaseModel]) -> str | None:
    """Return the kind of a section, None if it has none."""
    field = section.model_fields.get("kind")
    return str(field.default) if field else None

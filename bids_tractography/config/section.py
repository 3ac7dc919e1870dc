"""What all parts of a configuration have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, model_validator


class Section(BaseModel):
    """A frozen part of the configuration that refuses keys it does not know."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _yes_is_no_number(cls, data: Any) -> Any:
        """Make words of yes and no where they are not meant: Python takes them for 1 and 0."""
        if not isinstance(data, dict):
            return data
        meant = {name for name, field in cls.model_fields.items() if field.annotation is bool}
        return {
            key: str(value).lower() if isinstance(value, bool) and key not in meant else value
            for key, value in data.items()
        }


def _not_empty(value: tuple[Any, ...]) -> tuple[Any, ...]:
    if not value:
        raise ValueError("give at least one")
    return value


NotEmpty = AfterValidator(_not_empty)


def _off(value: Any) -> Any:
    """Read YAML's ``off``, which is false there, as the word that was written."""
    return "off" if value in (False, "false") else value


OnFinding = Annotated[Literal["error", "warn", "off"], BeforeValidator(_off)]
"""What to do with what a check finds."""


def default_kind(kind: str) -> Callable[[Any], Any]:
    """Make a validator that completes a mapping without ``kind``, or a bare name.

    ``{step_size_mm: 0.25}`` then means the default kind with another step, and ``csd``
    means ``{kind: csd}``.
    """

    def complete(value: Any) -> Any:
        if isinstance(value, str):
            return {"kind": value}
        if isinstance(value, dict) and "kind" not in value:
            return {"kind": kind, **value}
        return value

    return complete


def sections_in(value: Any, key: str = "") -> Iterator[tuple[str, Section]]:
    """Yield a section and all sections inside it, each with the dotted path of its key."""
    if isinstance(value, Section):
        yield key, value
        for name in type(value).model_fields:
            yield from sections_in(getattr(value, name), f"{key}.{name}" if key else name)
    elif isinstance(value, tuple):
        for place, item in enumerate(value):
            yield from sections_in(item, f"{key}.{place}")

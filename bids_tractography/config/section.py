"""Base class and validators shared by all sections of the configuration."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_before_validator_function


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
        numeric = {
            name for name, field in cls.model_fields.items() if _is_numeric(field.annotation)
        }
        return {
            key: _without_booleans(value) if key in numeric else value
            for key, value in data.items()
        }


def _is_numeric(annotation: Any) -> bool:
    return annotation in (int, float) or any(map(_is_numeric, get_args(annotation)))


def _without_booleans(value: Any) -> Any:
    """Turn booleans, also those in a list, into words."""
    if isinstance(value, list | tuple):
        return [_without_booleans(item) for item in value]
    return str(value).lower() if isinstance(value, bool) else value


def _not_empty(value: tuple[Any, ...]) -> tuple[Any, ...]:
    if not value:
        raise ValueError("at least one is required")
    return value


NotEmpty = AfterValidator(_not_empty)


def _off(value: Any) -> Any:
    """Read ``off``, which YAML parses as false, as the word that was written."""
    return "off" if value in (False, "false") else value


OnFinding = Annotated[
    Literal["error", "warn", "off"],
    BeforeValidator(_off),
    WithJsonSchema({"enum": ["error", "warn", "off", False]}),
]
"""Action to take if a check fails."""


@dataclass(frozen=True)
class ByKind:
    """Annotation of a union of sections that differ in ``kind``, with what may be written shorter.

    ``csd`` is short for ``{kind: csd}``, and ``{step_size_mm: 0.25}`` for a mapping of the default
    kind, in the configuration and in its JSON Schema.

    Parameters
    ----------
    default : str
        Kind of a mapping that does not state one.
    """

    default: str

    def complete(self, value: Any) -> Any:
        """Return the mapping that a value is short for."""
        if isinstance(value, str):
            return {"kind": value}
        if isinstance(value, dict) and "kind" not in value:
            return {"kind": self.default, **value}
        return value

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        union = handler.generate_schema(Annotated[source, Field(discriminator="kind")])
        sections = tuple(members(source))
        return no_info_before_validator_function(
            self.complete, union, metadata={"sections": sections}
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        union = handler(schema)
        references: dict[str, str] = union["discriminator"]["mapping"]
        bare = [kind_of(one) for one in schema["metadata"]["sections"] if _has_defaults(one)]
        whole = [
            {"$ref": reference, **({} if kind == self.default else {"required": ["kind"]})}
            for kind, reference in references.items()
        ]
        return {"anyOf": [{"type": "string", "enum": bare}, *whole]}


def _has_defaults(section: type[BaseModel]) -> bool:
    """Return whether all keys of a section may be omitted, so that its bare name is enough."""
    try:
        section.model_validate({"kind": kind_of(section)})
    except ValidationError:
        return False
    return True


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

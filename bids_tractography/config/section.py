"""What all parts of a configuration have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


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

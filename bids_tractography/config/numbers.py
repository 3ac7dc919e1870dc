"""Whole numbers as people write them: ``10M``, ``1e6``, ``1_000_000`` or ``250k``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from pydantic_core.core_schema import int_schema, no_info_before_validator_function

_MULTIPLES = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_DIGITS = r"[0-9](_?[0-9])*"
_PATTERN = (
    rf"^({_DIGITS}([eE]\+?[0-9]{{1,2}}|[kKMGT])?"
    rf"|{_DIGITS}\.[0-9]+([eE]\+?[0-9]{{1,2}}|[kKMGT]))$"
)
_MAX_CHARACTERS = 40
_EXACT = 2**53  # beyond it, floats skip whole numbers


def whole_number(value: Any) -> Any:
    """Return the integer that a text or a float stands for; other values as they are.

    The result is exact: texts are never converted to floats.

    Raises
    ------
    ValueError
        If the text is not a whole number in one of the spellings, or if the float is not one.
    """
    if isinstance(value, str):
        text = value.strip()
        if len(text) <= _MAX_CHARACTERS and re.fullmatch(_PATTERN, text):
            number = text.rstrip("kKMGT")
            exact = Fraction(number) * _MULTIPLES[text[len(number) :]]
            if exact.denominator == 1:
                return exact.numerator
    elif not isinstance(value, float):
        return value
    elif value.is_integer() and abs(value) <= _EXACT:
        return int(value)
    raise ValueError("a whole number is required, e.g. 1000000, 1_000_000, 1e6, 250k or 10M")


@dataclass(frozen=True)
class Count:
    """Annotation of an integer that counts things, which may be written as people do.

    ``Annotated[int, Count(1, 100)]`` is an integer from 1 to 100, in the configuration and in its
    JSON Schema in any of the spellings of `whole_number`.

    Parameters
    ----------
    low, high : int
        Bounds, inclusive.
    """

    low: int
    high: int

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        integer = int_schema(ge=self.low, le=self.high, strict=True)
        return no_info_before_validator_function(whole_number, integer)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [handler(schema), {"type": "string", "pattern": _PATTERN}]}

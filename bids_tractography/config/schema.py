"""JSON Schema of the configuration, which accepts all that the loader accepts."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from bids_tractography.config import Config

SCHEMA_ID = (
    "https://github.com/bids-tractography/bids-tractography/raw/main/"
    "bids_tractography/config/schema.json"
)
"""Where the schema is published, for ``$schema`` and for editors."""
NUMBER_AS_TEXT = {"type": "string", "pattern": "^[-+0-9._eE ]+$"}
"""YAML 1.1 parses numbers such as ``3e-4``, without a dot, as text."""


class _Generator(GenerateJsonSchema):
    def int_schema(self, schema: core_schema.IntSchema) -> JsonSchemaValue:
        number = super().int_schema(schema)
        return number if schema.get("strict") else {"anyOf": [number, NUMBER_AS_TEXT]}

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        return {"anyOf": [super().float_schema(schema), NUMBER_AS_TEXT]}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a configuration, with everything that may be written shorter."""
    schema = Config.model_json_schema(schema_generator=_Generator)
    properties = {"$schema": {"type": "string", "description": "Schema, for editors."}}
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        "$id": SCHEMA_ID,
        **schema,
        "properties": {**properties, **schema["properties"]},
    }

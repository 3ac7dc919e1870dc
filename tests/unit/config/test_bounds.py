"""Every number of the configuration has bounds, and every bound is a fault of its key."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from bids_tractography.config.load import load_config
from bids_tractography.config.schema import json_schema
from bids_tractography.errors import ConfigError


def numeric_fields(schema: Any, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every part of a JSON schema that accepts a number."""
    if isinstance(schema, list):
        for place, part in enumerate(schema):
            yield from numeric_fields(part, f"{where}/{place}")
    elif isinstance(schema, dict):
        if schema.get("type") in ("number", "integer") and not {"const", "enum"} & schema.keys():
            yield where, schema
        for key, part in schema.items():
            if key not in ("default", "examples"):
                yield from numeric_fields(part, f"{where}/{key}")


def test_every_number_in_the_schema_has_finite_bounds() -> None:
    fields = dict(numeric_fields(json_schema()))
    assert len(fields) > 40
    for where, field in fields.items():
        low = field.get("minimum", field.get("exclusiveMinimum", -math.inf))
        high = field.get("maximum", field.get("exclusiveMaximum", math.inf))
        assert math.isfinite(low), where
        assert math.isfinite(high), where
        assert low < high, where


@pytest.mark.parametrize(
    "override",
    [
        "tracking.max_length_mm=1e9",
        "tracking.max_length_mm=1e300",
        "tracking.algorithm.step_size_mm=1e-9",
        "tracking.algorithm.step_size_mm=1e-300",
        "tracking.batch_size=9223372036854775808",
        "seeding.seeds={kind: total, count: 9223372036854775808}",
        "seeding.seeds={kind: random, per_voxel: 1000000000}",
        "seeding.rng_seed=18446744073709551616",
        "model={kind: csa, smooth: 1e9}",
        "model.shell_s_mm2=1e9",
        "seeding.mask={kind: threshold, map: md, above: 1e30}",
        "gradients.b0_threshold_s_mm2=1e6",
    ],
)
def test_a_number_beyond_sense_is_a_fault_of_the_configuration(override: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(None, [override])
    assert error.value.exit_code == 78
    assert override.partition("=")[0].rpartition(".")[0] in str(error.value)


def test_too_many_steps_for_the_largest_length_are_refused() -> None:
    with pytest.raises(ConfigError, match="1000000 steps"):
        load_config(None, ["tracking.max_length_mm=5000", "tracking.algorithm.step_size_mm=0.002"])

"""Whole numbers as people write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from bids_tractography.config.load import load_config
from bids_tractography.config.numbers import whole_number
from bids_tractography.config.schema import json_schema
from bids_tractography.errors import ConfigError

MULTIPLES = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
SPELLINGS = {
    "10M": 10_000_000,
    "10000000": 10_000_000,
    "10_000_000": 10_000_000,
    "1e7": 10_000_000,
    "1E+7": 10_000_000,
    "1.0e+7": 10_000_000,  # a float for YAML
    "250k": 250_000,
    "250K": 250_000,
    "1.5M": 1_500_000,
    "0.1e6": 100_000,
    "2.50k": 2500,
    "999_999_999_999": 999_999_999_999,
    "1T": 10**12,
}
REFUSED = (
    *("1.5", "1e-3", "1000e-3", "10X", "10m", "inf", ".inf", "nan", "-5", "-1e6", "1,000"),
    *(
        "10 000",
        "1__0",
        "_10",
        "10_",
        "1e6M",
        "1.0001k",
        "1.5e0",
        "0x10",
        "ten",
        "M",
        "",
        "1e999999999",
    ),
    "٣",
)


@pytest.mark.parametrize("text", SPELLINGS)
def test_every_spelling_is_read_through_yaml_and_set(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"seeding: {{seeds: {{kind: total, count: {text}}}}}")
    overrides = [f"seeding.seeds={{kind: total, count: {text}}}"]
    for config in (load_config(path), load_config(None, overrides)):
        count = config.seeding.seeds.model_dump()["count"]
        assert (count, type(count)) == (SPELLINGS[text], int)


@pytest.mark.parametrize("text", REFUSED)
def test_other_texts_are_refused_with_examples(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(None, ["seeding.seeds.kind=total", f"seeding.seeds.count={text!r}"])
    assert "seeding.seeds.count: a whole number is required, e.g. 1000000" in str(error.value)
    assert repr(text) in str(error.value)


@pytest.mark.parametrize("value", [1.5, 1e-3, float("inf"), float("nan"), 2.0**54])
def test_floats_that_are_not_exact_whole_numbers_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="whole number"):
        whole_number(value)


def test_numbers_out_of_bounds_are_refused_in_any_spelling() -> None:
    for text in ("0k", "2M", "2_000_000", "2e6"):
        with pytest.raises(ConfigError, match=r"per_voxel: expected a number of at"):
            load_config(None, [f"seeding.seeds.per_voxel={text}"])


@given(st.integers(0, 10**15), st.sampled_from(sorted(MULTIPLES)), st.integers(0, 12))
def test_the_number_is_exact(number: int, suffix: str, exponent: int) -> None:
    assert whole_number(f"{number:_}") == number
    assert whole_number(f"{number}{suffix}") == number * MULTIPLES[suffix]
    assert whole_number(f"{number}e{exponent}") == number * 10**exponent
    whole, rest = divmod(number, 1000)
    assert whole_number(f"{whole}.{rest:03d}k") == number  # which a float need not hold


@pytest.mark.parametrize("value", [*SPELLINGS, 10_000_000, 1e7])
def test_the_schema_accepts_every_spelling(value: Any) -> None:
    schema = Draft202012Validator(json_schema())
    assert schema.is_valid({"seeding": {"seeds": {"kind": "total", "count": value}}})


# A pattern does not do arithmetic.
@pytest.mark.parametrize("value", [*sorted(set(REFUSED) - {"1.5e0", "1.0001k"}), 1.5, 0, 10**13])
def test_the_schema_refuses_what_the_program_refuses(value: Any) -> None:
    schema = Draft202012Validator(json_schema())
    assert not schema.is_valid({"seeding": {"seeds": {"kind": "total", "count": value}}})


# Integers that do not count anything, and are written in digits only.
OTHERS = {"sh_order", "rng_seed", "include", "exclude", "filters"}


def test_every_number_of_things_takes_the_spellings() -> None:
    counts = set()
    definitions = json_schema()["$defs"]
    for section in definitions.values():
        for key, field in section.get("properties", {}).items():
            if '"integer"' in (text := str(field).replace("'", '"')):
                assert ("[kKMGT]" in text) == (key not in OTHERS), key
                counts.add(key)
    assert {"count", "per_voxel", "per_axis", "batch_size", "iterations", "voxels"} < counts

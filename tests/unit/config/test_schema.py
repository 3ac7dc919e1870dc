"""The JSON Schema accepts what the loader accepts, and both refuse misspelt keys."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from config_keys import WAYS, Way, content
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from bids_tractography.config import Config, schema
from bids_tractography.config.load import load_config, validate_config
from bids_tractography.config.presets import configuration_path, preset_names
from bids_tractography.config.schema import SCHEMA_ID, json_schema
from bids_tractography.errors import ConfigError

ROOT = Path(__file__).parents[3]
SECTIONS = frozenset(Config.model_fields)
VALIDATOR = Draft202012Validator(json_schema())


def loads(content: Any) -> bool:
    try:
        validate_config(content, "it")
    except ConfigError:
        return False
    return True


def examples() -> list[Any]:
    """Configurations in the pages, and those that the tests of the loader use."""
    found: list[Any] = []
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for block in re.findall(r"```ya?ml\n(.*?)```", path.read_text(encoding="utf-8"), re.S):
            parsed = yaml.safe_load(block)
            if isinstance(parsed, dict) and parsed.keys() <= SECTIONS:
                found.append(pytest.param(parsed, id=f"{path.name}-{len(found)}"))
    return found


def test_the_schema_is_valid_and_says_what_and_where_it_is() -> None:
    Draft202012Validator.check_schema(json_schema())
    assert json_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    repository = "github.com/bids-tractography/bids-tractography"
    assert repository in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    path = SCHEMA_ID.partition("/main/")[2]
    assert SCHEMA_ID.startswith(f"https://{repository}/")
    assert ROOT / path == Path(schema.__file__).with_name("schema.json")


@pytest.mark.parametrize("example", examples())
def test_examples_of_the_pages_are_accepted_by_both(example: Any) -> None:
    # Some are parts of a configuration: tissue alone would be unused.
    assert loads({"stopping": "act", **example} if example.keys() == {"tissue"} else example)
    VALIDATOR.validate(example)


def test_the_pages_have_examples() -> None:
    assert len(examples()) >= 3


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_accepted(name: str) -> None:
    VALIDATOR.validate(yaml.safe_load(configuration_path(name).read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "text",
    [
        "model: msmt_csd",
        "model: {kind: msmt_csd, response: {wm: a.txt, csf: b.txt, kind: files}}",
        "tracking: {algorithm: det, include: [brain, {above: 0.3}]}",
        "seeding: {mask: {kind: roi, files: [a.nii, {filters: {desc: x, run: 1}}]}}",
        "seeding: {seeds: {kind: select, count: 10M}}",
        "seeding: {seeds: {kind: total, count: 1e6}, rng_seed: 3}",
        "tracking: {algorithm: {step_size_mm: 5e-1}}",
        "gradients: {check: off}",
        "import_tract: a.tck",
        "stopping: {map: maps/a.nii.gz, threshold: 0.1}",
        "tissue: {kind: 5tt, image: a.nii}\nstopping: act",
        "{$schema: 'https://example.org/s.json', model: csd}",
    ],
)
def test_shorthand_is_accepted_by_both(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    load_config(path)
    VALIDATOR.validate(yaml.safe_load(text))


@pytest.mark.parametrize(
    "text",
    [
        "modell: csd",
        "model: csdd",
        "model: {kind: csd, sh_ordr: 8}",
        "tracking: {algorithm: {kind: prob, stepsize: 1}}",
        "tracking: {include: [{kind: any, of: [brain], off: 1}]}",
        "seeding: {seeds: total}",
        "seeding: {mask: {kind: roi, files: [{pth: a.nii}]}}",
        "gradients: {check: of}",
        "tensor: {v1: maybe}",
        "seeding: {seeds: {kind: total, count: 10 M}}",
        "tracking: {algorithm: {step_size_mm: abc}}",
        "{$schema: 5}",
    ],
)
def test_misspelt_keys_and_words_are_refused_by_both(text: str) -> None:
    parsed = yaml.safe_load(text)
    assert not loads(parsed)
    assert not VALIDATOR.is_valid(parsed)


# Values that people write, and others of every type.
VALUES = st.one_of(
    st.sampled_from(
        [
            *(
                "auto",
                "brain",
                "csd",
                "threshold",
                "fa",
                "prob",
                "act",
                "grid",
                "a.nii.gz",
                "outermost",
            ),
            *(
                "3e-1",
                "10M",
                "8",
                "error",
                "off",
                "x",
                "trx",
                "any",
                "raw",
                ["trx", "tck"],
                ["seed"],
            ),
            *(["brain", {"above": 0.2}], ["a.nii", {"filters": {"desc": None}}], {"path": "a.txt"}),
            *({"kind": "total", "count": "1_000"}, {"max_error_mm": 1}, ["x", "-y", "z"], [1, 2]),
            *([3e-3, 1e-3, "1e-3"], {"filters": {"run": [1, "2"]}, "scope": "raw"}),
        ]
    ),
    st.none() | st.booleans() | st.integers(-1, 300) | st.floats(-1, 300) | st.text(max_size=4),
    st.lists(st.integers(0, 3) | st.booleans(), max_size=3),
)


@settings(max_examples=600, deadline=None)
@given(way=st.sampled_from(WAYS), value=VALUES)
def test_what_the_loader_accepts_the_schema_accepts(way: Way, value: Any) -> None:
    if way[-1][0] == "filters":
        value = {"desc": value}
    written = content(way, value)
    if loads(written):
        VALIDATOR.validate(written)


@settings(max_examples=150, deadline=None)
@given(way=st.sampled_from(WAYS), letter=st.sampled_from("xyz_1"))
def test_a_misspelt_key_is_refused_by_both(way: Way, letter: str) -> None:
    name, kind = way[-1]
    misspelt = content((*way[:-1], (name + letter, kind)), "auto")
    assert not loads(misspelt)
    assert not VALIDATOR.is_valid(misspelt)


def test_the_schema_on_disk_is_current() -> None:
    on_disk = Path(schema.__file__).with_name("schema.json").read_text(encoding="utf-8")
    assert json.loads(on_disk) == json_schema()

"""Faults of the configuration are said in our words, with the nearest right one."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from config_keys import WAYS, Way, content
from pydantic_core._pydantic_core import list_all_errors

from bids_tractography.config.faults import _EXPECTED, _LISTS, _MAPPINGS, _SAID
from bids_tractography.config.load import load_config, validate_config
from bids_tractography.errors import ConfigError

# Pydantic's sentences without what varies, e.g. "Input should be a valid".
FRAGMENTS = {
    fragment.strip()
    for error in list_all_errors()
    for fragment in re.split(r"\{\w+\}|, ", error["message_template_python"])
    if len(fragment.split()) > 2
}

WRONG: list[Any] = [
    *("nope", "", "ACT", "-1", "2024-13-45", 5, -5, 10**400, 1.5, -1e99, math.nan, math.inf, True),
    *(None, [], {}, [1], [None], ["a", "b"], [[1]], {"kind": "nope"}, {"kind": 5}, {"x": 1}),
    *({"kind": ["csd"]}, {1: 2}, {"path": 1}, {"filters": {}}, b"bytes", {"a"}, object()),
]


def test_the_walk_reaches_every_section() -> None:
    assert len(WAYS) > 150
    kinds = {kind for way in WAYS for _, kind in way}
    assert {"csd", "given", "act", "interface", "not", "files", "select", "ptt", "5tt"} <= kinds


@pytest.mark.parametrize("way", WAYS, ids=lambda way: ".".join(name for name, _ in way))
def test_no_wrong_value_of_any_key_is_answered_in_words_of_pydantic(way: Way) -> None:
    refused = 0
    for value in WRONG:
        try:
            validate_config(content(way, value), "it")
        except ConfigError as error:
            refused += 1
            message = error.message
            said = [fragment for fragment in FRAGMENTS if fragment in message]
            assert not said, message
            assert "function-" not in message
            assert "literal[" not in message
            assert "another value" not in message, message
    assert refused > len(WRONG) / 3


def test_every_type_of_error_that_has_words_exists() -> None:
    known = {error["type"] for error in list_all_errors()}
    assert {*_EXPECTED, *_LISTS, *_MAPPINGS, *_SAID} - {"path_type"} <= known  # of pydantic itself


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("stopping=ACT", "stopping: unknown kind 'ACT'. Did you mean 'act'?"),
        (
            "tracking.algorithm=probabilistic",
            "tracking.algorithm: unknown kind 'probabilistic'. Did you mean 'prob'?",
        ),
        (
            "tracking.algorithm=iFOD2",
            "tracking.algorithm: unknown kind 'iFOD2'. Write prob (first order, as iFOD1), or ptt "
            "for smooth curves.",
        ),
        (
            "tracking.algorithm=SD_STREAM",
            "tracking.algorithm: unknown kind 'SD_STREAM'. Did you mean 'det'?",
        ),
        ("seeding.mask=wm", "seeding.mask: unknown kind 'wm'. Write {kind: tissue, tissue: wm}."),
        ("seeding.mask=fa", "seeding.mask: unknown kind 'fa'. Write {map: fa, above: 0.2}."),
        ("stopping=fa", "stopping: unknown kind 'fa'. Write {map: fa, threshold: 0.2}."),
        (
            "seeding.mask=anisotropic_power",
            "seeding.mask: unknown kind 'anisotropic_power'. Write {map: {path: FILE}, above: ...} "
            "with a map of it.",
        ),
        (
            "seeding.mask=rois/a.nii.gz",
            "seeding.mask: unknown kind 'rois/a.nii.gz'. Write {kind: file, path: rois/a.nii.gz}.",
        ),
        ("model=dti", "model: unknown kind 'dti'. Did you mean 'tensor'?"),
        (
            "tracking.engine=gpu",
            "tracking.engine: expected 'auto', 'cpu', 'dipy' or 'cuda' (given: 'gpu'). "
            "Did you mean 'cuda'?",
        ),
        ("output.formats=trk", "output.formats: expected a list, e.g. [trk] (given: 'trk')."),
        (
            "model.shell_s_mm2=-1",
            "model.shell_s_mm2: expected a number greater than 0 or 'outermost' (given: -1).",
        ),
        (
            "tracking.step_size_mm=1",
            "tracking.step_size_mm: unknown key. Did you mean 'tracking.algorithm.step_size_mm'?",
        ),
        ("tracking=5", "tracking: expected a mapping of keys (given: 5)."),
        ("import_tract=5", "import_tract: expected a path or a mapping of keys (given: 5)."),
        ("seeding.seeds=total", "seeding.seeds.count: required, but not given."),
        (
            "seeding.mask.map=[1]",
            "seeding.mask.map: expected 'fa', 'md', 'ad', 'rd' or 'gfa' or a path or a mapping of "
            "keys (given: [1]).",
        ),
    ],
)
def test_a_fault_says_what_is_expected_and_the_nearest_right_word(override: str, line: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(None, [override])
    assert error.value.message == f"the configuration has 1 error:\n  {line}\n"


def test_several_faults_are_in_the_plural() -> None:
    with pytest.raises(ConfigError, match=r"^the configuration has 2 errors:"):
        load_config(None, ["stopping=ACT", "model=dti"])

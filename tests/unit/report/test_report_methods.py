from __future__ import annotations

import re
from typing import Any

import pytest

from bids_tractography.config import Config
from bids_tractography.reconst import MODELS
from bids_tractography.report.methods import as_html, as_plain, as_tex, bibliography, methods_text
from bids_tractography.report.references import REFERENCES

TISSUE = {"kind": "act"}
CONFIGS: list[dict[str, Any]] = [
    {},
    *({"model": kind} for kind in MODELS if kind != "precomputed"),
    *({"tracking": {"algorithm": kind}} for kind in ("det", "ptt", "eudx", "closest_peak")),
    {"tracking": {"algorithm": "pft"}, "stopping": TISSUE, "seeding": {"mask": "interface"}},
    {"stopping": {"kind": "cmc"}, "seeding": {"seeds": {"kind": "grid", "per_axis": 3}}},
    {"stopping": {"kind": "binary", "mask": "brain"}, "tracking": {"dead_ends": "keep"}},
    {"seeding": {"seeds": {"kind": "total", "count": 5000}}, "tracking": {"exclude": ["brain"]}},
]


@pytest.mark.parametrize("content", CONFIGS, ids=str)
def test_methods_text_is_whole_sentences_whose_references_exist(content: dict[str, Any]) -> None:
    text = methods_text(Config.model_validate(content))
    assert all(part[0].isupper() for part in re.split(r"(?<=[a-z\])])\. ", text))
    cited = set(re.findall(r"@(\w+)", text))
    assert cited <= set(REFERENCES)
    assert set(re.findall(r"@\w+\{(\w+),", bibliography(text))) == cited
    assert "@" not in as_plain(text)
    assert not re.search(r"(?<!\\)[_%&#]", re.sub(r"\\cite\{[^}]*\}", "", as_tex(text)))
    assert all(f"doi.org/{REFERENCES[key].doi}" in as_html(text, "t") for key in cited)


def test_methods_text_states_what_the_configuration_says() -> None:
    config = Config.model_validate(
        {
            "seeding": {"seeds": {"kind": "random", "per_voxel": 4}},
            "tracking": {"min_length_mm": 31, "algorithm": {"step_size_mm": 0.25}},
            "stopping": {"threshold": 0.12},
        }
    )
    text = methods_text(config)
    for words in (
        "4 random positions in every voxel with FA > 0.2",
        "a step size of 0.25 mm",
        "shorter than 31 mm",
        "was above 0.12",
    ):
        assert words in text


def test_reference_of_many_authors_is_short_in_the_text() -> None:
    assert REFERENCES["tournier2007"].short == "Tournier et al., 2007"
    assert REFERENCES["aydogan2021"].short == "Aydogan and Shi, 2021"
    assert REFERENCES["tournier2007"].plain.startswith(
        "Tournier J-D, Calamante F, Connelly A (2007)."
    )

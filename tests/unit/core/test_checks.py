"""Measurements held against ranges, and warnings that reach people once."""

from __future__ import annotations

import json
import logging
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_tractography.config.checks import ChecksConfig, SubjectKind
from bids_tractography.core.checks import QUANTITIES, Findings, choose_subject
from bids_tractography.errors import ImplausibleError

KINDS = ("adult", "infant", "animal", "ex_vivo", "phantom", "any")
names = st.sampled_from(sorted(QUANTITIES))
kinds = st.sampled_from(KINDS)


def judged(
    name: str, value: float, subject: SubjectKind, plausibility: str = "error"
) -> tuple[str, Findings]:
    """The verdict on a figure: usual, unusual (warned of) or impossible (refused)."""
    findings = Findings("sub-01", ChecksConfig(plausibility=plausibility), subject)
    try:
        findings.measure(name, value)
    except ImplausibleError:
        return "impossible", findings
    return ("unusual" if findings.all.warnings else "usual"), findings


@given(name=names, subject=kinds)
def test_ranges_lie_inside_each_other(name: str, subject: SubjectKind) -> None:
    bounds = QUANTITIES[name].range_of(subject)
    assert bounds.possible[0] <= bounds.usual[0] < bounds.usual[1] <= bounds.possible[1] or (
        subject == "any"
    )


@given(name=names, subject=kinds, value=st.floats(1e-9, 1e9))
def test_a_figure_is_usual_unusual_or_impossible_by_its_range(
    name: str, subject: SubjectKind, value: float
) -> None:
    bounds = QUANTITIES[name].range_of(subject)
    value = float(f"{value:.4g}")  # as it is recorded
    verdict, findings = judged(name, value, subject)
    if not bounds.possible[0] <= value <= bounds.possible[1]:
        assert verdict == "impossible"
    elif bounds.usual[0] <= value <= bounds.usual[1]:
        assert verdict == "usual"
    else:
        assert verdict == "unusual"
    assert findings.all.figures[name]["verdict"] == verdict
    assert findings.all.figures[name]["value"] == pytest.approx(value, rel=1e-3)
    json.dumps(findings.all.record, allow_nan=False)


@given(name=names, value=st.floats(allow_nan=True, allow_infinity=True))
def test_nothing_is_refused_where_warnings_are_wanted(name: str, value: float) -> None:
    verdict, findings = judged(name, value, "adult", "warn")
    assert verdict in ("usual", "unusual")
    json.dumps(findings.all.record, allow_nan=False)
    verdict, findings = judged(name, value, "adult", "off")
    assert verdict == "usual"
    assert list(findings.all.figures) == [name]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("response_axial_mm2_s", 0.208),  # intensities that wrapped around
        ("response_ratio", 1.05),
        ("negative_share", 0.35),
        ("zero_share", 0.6),
        ("streamlines_kept", 1 / 20_000),  # a neck taken for a brain
        ("seeds_without_direction", 36_290 / 40_000),
        ("brain_volume_ml", 3.0),
        ("mean_diffusivity_mm2_s", 1e-9),
        ("response_axial_mm2_s", math.nan),
        ("volume_ratio", math.inf),
    ],
)
def test_what_no_adult_has_is_refused_with_the_figure_and_the_usual_range(
    name: str, value: float
) -> None:
    findings = Findings("sub-01", ChecksConfig(), "adult")
    with pytest.raises(ImplausibleError) as error:
        findings.measure(name, value)
    assert error.value.exit_code == 65
    assert "checks.subject" in error.value.remedy
    low, high = QUANTITIES[name].range_of("adult").usual
    assert f"{value:.3g}" in str(error.value)
    assert f"{low:g}" in str(error.value)
    assert f"{high:g}" in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "subject"),
    [
        ("brain_volume_ml", 0.45, "animal"),  # a mouse
        ("smallest_voxel_edge_mm", 0.1, "animal"),
        ("response_axial_mm2_s", 0.4e-3, "ex_vivo"),
        ("mean_diffusivity_mm2_s", 0.15e-3, "ex_vivo"),
        ("largest_b_s_mm2", 40_000, "ex_vivo"),
        ("brain_volume_ml", 350, "infant"),
        ("mean_diffusivity_mm2_s", 1.9e-3, "phantom"),
    ],
)
def test_what_other_subjects_have_is_usual_for_them(
    name: str, value: float, subject: SubjectKind
) -> None:
    assert judged(name, value, subject)[0] == "usual"


def test_a_part_of_a_brain_may_have_any_volume() -> None:
    findings = Findings("sub-01", ChecksConfig(), "adult")
    findings.measure("brain_volume_ml", 1.0, at_least=False)
    assert findings.all.warnings == []
    with pytest.raises(ImplausibleError):
        findings.measure("brain_volume_ml", 5000, at_least=False)


@given(st.lists(st.sampled_from(["first", "second", "third"])))
def test_a_warning_is_logged_and_kept_once_with_the_name_of_the_run(texts: list[str]) -> None:
    findings = Findings("sub-01_run-2", ChecksConfig())
    seen: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())

    handler = Keep()
    logger = logging.getLogger("bids_tractography.core.checks")
    logger.addHandler(handler)
    try:
        for text in texts:
            findings.warn(text)
    finally:
        logger.removeHandler(handler)
    assert findings.all.warnings == list(dict.fromkeys(texts))
    assert seen == [f"sub-01_run-2: {text}" for text in dict.fromkeys(texts)]


def test_a_stage_has_its_own_and_the_run_has_all() -> None:
    findings = Findings("sub-01", ChecksConfig())
    findings.warn("before")
    with findings.stage() as found:
        findings.warn("inside")
        findings.warn("before")
        findings.measure("zero_share", 0.001)
    findings.warn("after")
    assert found.warnings == ["inside", "before"]
    assert list(found.figures) == ["zero_share"]
    assert findings.all.warnings == ["before", "inside", "after"]


@given(name=names, value=st.floats(1e-6, 1e6), subject=kinds)
def test_what_is_reused_is_judged_as_what_is_new(
    name: str, value: float, subject: SubjectKind
) -> None:
    first = Findings("sub-01", ChecksConfig(plausibility="warn"), subject)
    with first.stage() as found:
        first.measure(name, value)
    again = Findings("sub-01", ChecksConfig(plausibility="warn"), subject)
    again.repeat(json.loads(json.dumps(found.record)))
    assert again.all.record == first.all.record
    strict = Findings("sub-01", ChecksConfig(), subject)
    if found.figures[name]["verdict"] == "impossible":
        with pytest.raises(ImplausibleError):
            strict.repeat(found.record)
    else:
        strict.repeat(found.record)


@pytest.mark.parametrize(
    ("participant", "about", "expected"),
    [
        ({}, ["A study", "01"], "adult"),
        ({"species": "homo sapiens", "age": "34"}, [], "adult"),
        ({"species": "n/a", "age": "n/a"}, [], "adult"),
        *(
            ({"species": text}, [], "adult")
            for text in ("Homo_sapiens", "H. sapiens", "NCBITaxon:9606", "adult human", "Unknown")
        ),
        ({"Species": "Mus musculus"}, [], "animal"),
        ({"species": "phantom"}, [], "phantom"),
        ({}, ["Phantom limb pain study"], "adult"),
        ({"age": "40 weeks"}, [], "adult"),
        ({"species": "Mus musculus"}, [], "animal"),
        ({"age": "0.1"}, [], "infant"),
        ({"age": "2"}, [], "infant"),
        ({}, ["FiberCup phantom"], "phantom"),
        ({}, ["Study", "PHANTOM01"], "phantom"),
        ({"species": "mus musculus"}, ["phantom"], "phantom"),
    ],
)
def test_the_kind_of_subject_is_found_in_the_dataset(
    participant: dict[str, str], about: list[str], expected: str
) -> None:
    assert choose_subject("auto", participant, about) == expected
    assert choose_subject("any", participant, about) == "any"

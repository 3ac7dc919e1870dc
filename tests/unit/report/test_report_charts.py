from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_tractography.report.charts import (
    Bar,
    Dots,
    Line,
    bars,
    curves,
    element,
    hemisphere,
    histogram,
    ticks,
)
from bids_tractography.report.page import number, page, render

HOSTILE = """</svg><script>alert("1")</script><img src=x onerror='alert(1)'>&amp;"""
SVG = "{http://www.w3.org/2000/svg}"


def parsed(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])))
def test_element_any_text_is_text(text: str) -> None:
    made = parsed(element("text", text, title=text))
    assert made.text in (text, None if text == "" else text)
    assert len(made) == 0


def test_charts_hostile_names_show_as_text() -> None:
    drawn = bars([Bar(HOSTILE, 1, HOSTILE)], HOSTILE)
    texts = [part.text for part in parsed(drawn).iter(f"{SVG}text")]
    assert texts == [HOSTILE, HOSTILE]
    assert HOSTILE in parsed(drawn).attrib["aria-label"]
    assert "<script" not in drawn


def test_bars_are_as_long_as_their_share() -> None:
    drawn = parsed(bars([Bar("a", 50, "50"), Bar("b", 25, "25"), Bar("c", 0, "0")], "w", total=100))
    rows = drawn.findall(f"{SVG}rect")
    tracks, shown = rows[::2], rows[1::2]
    room = float(tracks[0].attrib["width"])
    long = [float(rect.attrib["width"]) for rect in shown]
    assert long == pytest.approx([room / 2, room / 4, 0], abs=0.01)


def test_histogram_heights_are_proportional_and_lines_are_at_their_values() -> None:
    counts, edges = np.array([1, 4, 2]), np.array([0.0, 10, 20, 30])
    drawn = parsed(histogram(counts, edges, "mm", "words", [Line(15, "middle"), Line(99, "off")]))
    heights = [float(rect.attrib["height"]) for rect in drawn.findall(f"{SVG}rect")]
    assert heights[1] == pytest.approx(4 * heights[0], abs=0.02)
    assert heights[2] == pytest.approx(2 * heights[0], abs=0.02)
    (line,) = [part for part in drawn.findall(f"{SVG}line") if part.get("class") == "mark"]
    second = drawn.findall(f"{SVG}rect")[1]
    middle = float(second.attrib["x"]) + float(second.attrib["width"]) / 2
    assert float(line.attrib["x1"]) == pytest.approx(middle, abs=0.02)


@given(st.floats(-1e3, 1e3), st.floats(1, 1e6))
def test_ticks_are_few_and_inside(low: float, span: float) -> None:
    found = ticks(low, low + span)
    assert len(found) <= 9
    assert all(low - 1e-6 * span <= tick <= low + span * (1 + 1e-6) for tick in found)


def test_hemisphere_puts_an_axis_where_it_points_from_above() -> None:
    drawn = parsed(hemisphere([Dots(np.array([[-1.0, 0, 0], [0, 0, -1], [0, 1, 0]]), 0)], "w"))
    dots = [part for part in drawn.findall(f"{SVG}circle") if part.get("class") == "series0"]
    places = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in dots]
    assert places == [(18, 150), (150, 150), (150, 18)]


def test_curves_have_words() -> None:
    drawn = parsed(curves([(np.array([0.0, 1]), np.array([1.0, 0]), 0)], "a response", 1.0))
    assert drawn.attrib["aria-label"] == "a response"
    assert drawn.attrib["role"] == "img"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567, "1,234,567"),
        (0.5, "0.5"),
        (2.0, "2"),
        (1.4e-11, "1.4 × 10⁻¹¹"),
        (0.1234567, "0.1235"),
    ],
)
def test_number_is_for_people(value: float, text: str) -> None:
    assert number(value) == text


def test_render_text_is_never_markup() -> None:
    made = render("sections/problem.html.j2", reason=HOSTILE)
    assert "<script" not in made
    assert "&lt;script&gt;" in made


def test_page_policy_allows_its_own_scripts_only() -> None:
    made = page(
        "run.html.j2", scripts={"a": "let a = 1;"}, title="t", identity="i", verdict="v",
        kind="good", sections=[],
    )  # fmt: skip
    policy = made.partition('http-equiv="Content-Security-Policy" content="')[2].partition('">')[0]
    assert "default-src &#39;none&#39;" in policy
    assert "unsafe" not in policy
    assert policy.count("sha256-") == 2
    assert "<script>let a = 1;</script>" in made


def test_page_data_with_markup_is_refused() -> None:
    with pytest.raises(ValueError, match="markup"):
        page("run.html.j2", data={"x": "</script>"})

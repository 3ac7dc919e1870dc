"""The page of a study in a real browser: from a file, without network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import assert_accessible, chromium
from studies import record_of, write_run, write_study

from bids_tractography.app.group import write_group_table

pytestmark = pytest.mark.slow

N_RUNS = 130


def change(number: int, fields: dict[str, Any]) -> None:
    if number == 7:
        fields["streamlines_kept"] = 300
    if number == 8:
        fields["warnings"] = ["<b>odd</b>"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study")
    for name in write_study(root, N_RUNS, change, pictures=1):
        (root / f"{name}.html").write_text(f"<title>{name}</title>")
    write_group_table(root)
    return root / "index.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser: Any, study: Path) -> Iterator[Any]:
    """The opened page; a message of the console or a request is an error."""
    context = browser.new_context(offline=True, viewport={"width": 1200, "height": 900})
    opened = context.new_page()
    messages: list[str] = []
    opened.on("console", lambda message: messages.append(message.text))
    opened.on("pageerror", lambda error: messages.append(str(error)))
    opened.on("request", lambda request: messages.append(request.url))
    opened.goto(study.as_uri())
    yield opened
    own = [text for text in messages if not text.startswith(("data:", study.parent.as_uri()))]
    assert not own
    context.close()


def rows(page: Any) -> list[str]:
    return [text.strip() for text in page.locator("#table tbody th").all_inner_texts()]


def test_the_table_grows_when_more_is_asked_for(page: Any) -> None:
    assert len(rows(page)) == 100
    page.get_by_role("button", name="Show more").click()
    assert len(rows(page)) == N_RUNS
    assert page.get_by_role("button", name="Show more").is_hidden()


def test_a_heading_sorts_by_mouse_and_by_keyboard(page: Any) -> None:
    heading = page.locator("#table thead button", has_text="Streamlines")
    heading.click()
    assert rows(page)[0] == "sub-0007"
    assert page.locator("#table [aria-sort=ascending]").count() == 1
    page.keyboard.press("Enter")  # the heading keeps the focus
    assert page.locator("#table [aria-sort=descending]").count() == 1
    assert rows(page)[0] != "sub-0007"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("sub-0012", 1),
        ("kept<1000", 1),
        ("direction=AP", N_RUNS // 3),
        ("direction=ap kept>1000 sub-00", 33),
        ("nothing like it", 0),
    ],
)
def test_the_filter_holds_for_table_plots_and_pictures(
    page: Any, query: str, expected: int
) -> None:
    page.get_by_role("searchbox").fill(query)
    page.evaluate(
        "document.querySelector('#more').hidden || document.querySelector('#more').click()"
    )
    assert len(rows(page)) == expected
    assert page.locator("#found").inner_text() == f"{expected} of {N_RUNS} runs"
    assert page.locator(".sheet li:visible").count() == expected
    drawn = page.locator(".strip .matched").first.get_attribute("d")
    assert drawn.count("M") == expected


def test_boxes_choose_outliers_and_warnings(page: Any) -> None:
    page.get_by_label("Outliers only").check()
    assert rows(page) == ["sub-0007"]
    assert page.locator("#table td.out").count() >= 1
    page.get_by_label("Outliers only").uncheck()
    page.get_by_label("Warnings only").check()
    assert rows(page) == ["sub-0008"]


def test_other_columns_can_be_chosen(page: Any) -> None:
    page.locator("#group").select_option("counts")
    assert "Generated" in page.locator("#table thead").inner_text()
    page.locator("#group").select_option("*")
    assert page.locator("#table thead th").count() > 50


def test_a_dot_shows_its_run_in_all_plots(page: Any) -> None:
    strip = page.locator(".strip-box").first
    strip.scroll_into_view_if_needed()
    box = strip.bounding_box()
    mark = strip.locator(".beyond").bounding_box()
    page.mouse.move(mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2)
    assert "sub-0007" in page.locator("#tip").inner_text()
    n_strips = page.locator(".strip").count()
    # Rings are drawn with the next frame.
    page.locator(".strip .ringed").nth(n_strips - 1).wait_for(state="attached")
    assert page.locator(".strip .ringed").count() == n_strips
    page.mouse.click(mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2)
    page.mouse.move(box["x"], box["y"] + box["height"] + 40)
    assert page.locator("#tip a").get_attribute("href") == "sub-0007.html"
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()


def test_arrow_keys_go_through_the_dots_in_order(page: Any) -> None:
    strip = page.get_by_role("slider", name="Streamlines:")
    strip.focus()
    page.keyboard.press("Home")
    assert strip.get_attribute("aria-valuetext") == "sub-0007: 300"
    page.keyboard.press("ArrowRight")
    assert float(strip.get_attribute("aria-valuenow")) > 300
    page.keyboard.press("Enter")
    assert page.locator("#tip a").count() == 1


def test_nothing_is_wider_than_a_phone(browser: Any, study: Path) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 700}, color_scheme="dark")
    page = context.new_page()
    page.goto(study.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    context.close()


def test_markup_in_data_runs_nothing(browser: Any, tmp_path: Path) -> None:
    hostile = "<img src=x onerror=document.title='owned'></script><script>1</script>"
    record = record_of("sub-1", np.random.default_rng(0), engine=hostile)
    write_run(tmp_path, "sub-1", record)
    write_group_table(tmp_path)
    context = browser.new_context()
    page = context.new_page()
    page.goto((tmp_path / "index.html").as_uri())
    page.locator("#group").select_option("*")
    assert hostile in page.locator("#table").inner_text()
    assert "tractography" in page.title()
    assert page.locator("#table img").count() == 0
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Any, study: Path, scheme: str) -> None:
    context = browser.new_context(offline=True, color_scheme=scheme, bypass_csp=True)
    opened = context.new_page()
    opened.goto(study.as_uri())
    assert_accessible(opened)
    context.close()

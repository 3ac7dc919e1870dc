"""The page of a run in a browser: Debian's Chromium without a window, from a file, offline.

Skipped where Chromium, or the library that drives it, is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import assert_accessible, chromium
from conftest import run_cli

from bids_tractography.report.data import RunFailure
from bids_tractography.report.run import write_run_report

pytestmark = pytest.mark.slow

LIT = """() => {
  const canvas = document.querySelector("#viewer canvas"), copy = document.createElement("canvas");
  [copy.width, copy.height] = [canvas.width, canvas.height];
  const context = copy.getContext("2d");
  context.drawImage(canvas, 0, 0);
  const pixels = context.getImageData(0, 0, copy.width, copy.height).data;
  let lit = 0;
  for (let i = 0; i < pixels.length; i += 4) lit += Math.max(...pixels.slice(i, i + 3)) > 60;
  return lit;
}"""
SET = """([name, value]) => {
  const field = document.querySelector(`#viewer [name=${name}]`);
  if (field.type === "checkbox") field.checked = value; else field.value = value;
  field.dispatchEvent(new Event("input", { bubbles: true }));
}"""
PICTURE = "() => document.querySelector('#viewer canvas').toDataURL()"


@pytest.fixture(scope="module")
def page_file(scanned_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("browser") / "output"
    seeds = ("seeding.rng_seed=11", "seeding.seeds={kind: total, count: 700}")
    values = ("output.per_streamline=[seed, ends]",)
    ended = run_cli(scanned_once, output, "participant", report=True, overrides=seeds + values)
    assert ended.returncode == 0
    return output / "sub-01.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


class Opened:
    """A page, and everything that it asked for and said."""

    def __init__(self, browser: Any, file: Path, **options: Any) -> None:
        self.context = browser.new_context(offline=True, **options)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.messages: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.goto(file.as_uri())

    def ready(self) -> Opened:
        self.page.wait_for_selector("#viewer.ready", timeout=60_000)
        self.settle()
        return self

    def settle(self) -> None:
        """Wait until what was changed is drawn."""
        self.page.wait_for_timeout(400)

    def set(self, name: str, value: object) -> None:
        self.page.evaluate(SET, [name, value])
        self.settle()

    def lit(self) -> int:
        return int(self.page.evaluate(LIT))

    def picture(self) -> str:
        return str(self.page.evaluate(PICTURE))


@pytest.fixture
def opened(browser: Any, page_file: Path) -> Iterator[Opened]:
    made = Opened(browser, page_file, viewport={"width": 760, "height": 500}).ready()
    yield made
    shown = [url for url in made.requests if not url.startswith(("data:", "blob:"))]
    assert shown == [page_file.as_uri()]
    assert made.messages == []
    made.context.close()


def test_viewer_shows_streamlines_and_more_of_them_when_more_are_asked_for(opened: Opened) -> None:
    everything = opened.lit()
    opened.set("shown", 15)
    few = opened.lit()
    assert 0 < few < everything
    opened.set("shown", 40)
    assert few < opened.lit() < everything
    drawn = int(opened.page.get_attribute("#viewer", "data-drawn"))
    words = opened.page.inner_text("[data-for=shown]").replace(",", "")
    assert drawn == int(words)


def test_viewer_length_filter_leaves_fewer_and_none(opened: Opened) -> None:
    everything = opened.lit()
    opened.set("shortest", 60)
    long = opened.lit()
    assert 0 < long < everything
    opened.set("longest", 59)
    assert opened.lit() == 0


def test_viewer_slices_show_the_image_and_slabs_cut_streamlines(opened: Opened) -> None:
    everything = opened.lit()
    opened.set("showz", value=True)
    opened.set("slab", 4)
    cut = opened.lit()
    assert 0 < cut < everything
    pictures = set()
    for image in "012":
        opened.set("image", image)
        pictures.add(opened.picture())
    assert len(pictures) == 3
    opened.set("atz", float(opened.page.input_value("[name=atz]")) + 10)
    assert opened.picture() not in pictures


def test_viewer_clip_cuts_one_side_away(opened: Opened) -> None:
    opened.page.click("[data-view=S]")
    opened.set("showx", value=True)
    whole = opened.lit()
    opened.set("clip", "1")
    left, left_lit = opened.picture(), opened.lit()
    opened.set("clip", "-1")
    assert opened.picture() != left
    assert max(left_lit, opened.lit()) < whole


def test_viewer_views_differ_and_letters_are_the_buttons(opened: Opened) -> None:
    pictures = {}
    for view in "LRAPSIH":
        opened.page.click(f"[data-view={view}]")
        opened.settle()
        pictures[view] = opened.picture()
    assert len(set(pictures.values())) == 7
    opened.page.focus("#viewer canvas")
    for view in "las":
        opened.page.keyboard.press(view)
        opened.settle()
        assert opened.picture() == pictures[view.upper()]


@pytest.mark.parametrize("key", ["ArrowLeft", "ArrowUp", "+", "-"])
def test_viewer_keys_turn_and_zoom(opened: Opened, key: str) -> None:
    before = opened.picture()
    opened.page.focus("#viewer canvas")
    opened.page.keyboard.press(key)
    opened.settle()
    assert opened.picture() != before


def test_viewer_pointer_turns_and_shift_moves(opened: Opened) -> None:
    canvas = opened.page.query_selector("#viewer canvas")

    def drag() -> str:
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        opened.page.mouse.move(x, y)
        opened.page.mouse.down()
        opened.page.mouse.move(x + 60, y + 20, steps=4)
        opened.page.mouse.up()
        opened.settle()
        return opened.picture()

    first, turned = opened.picture(), drag()
    opened.page.click("[data-view=H]")
    opened.settle()
    assert opened.picture() == first
    opened.page.keyboard.down("Shift")
    moved = drag()
    opened.page.keyboard.up("Shift")
    assert len({first, turned, moved}) == 3


def test_viewer_colours_by_length_and_by_what_the_file_says(opened: Opened) -> None:
    options = opened.page.eval_on_selector_all(
        "[name=colour] option", "all => all.map(o => o.text)"
    )
    assert options == ["direction", "length", "one colour", "seed index", "ends 1", "ends 2"]
    pictures = set()
    for value in range(4):
        opened.set("colour", str(value))
        pictures.add(opened.picture())
    assert len(pictures) == 4
    opened.set("look", "clear")
    assert opened.picture() not in pictures


def test_page_without_webgl_shows_the_six_views(browser: Any, page_file: Path) -> None:
    context = browser.new_context(offline=True)
    context.add_init_script("HTMLCanvasElement.prototype.getContext = () => null;")
    page = context.new_page()
    page.goto(page_file.as_uri())
    page.wait_for_selector("#viewer.no-webgl")
    assert page.is_visible(".fallback")
    shown = "all => all.filter(i => i.complete && i.naturalWidth > 0).length"
    assert page.eval_on_selector_all(".six img", shown) == 6
    context.close()


@pytest.mark.parametrize("width", [360, 390, 800, 1400])
def test_page_fits_the_width_of_the_window(browser: Any, page_file: Path, width: int) -> None:
    made = Opened(browser, page_file, viewport={"width": width, "height": 800}).ready()
    assert made.page.evaluate("document.documentElement.scrollWidth") <= width
    made.context.close()


def test_page_prints_the_six_views(browser: Any, page_file: Path) -> None:
    made = Opened(browser, page_file).ready()
    made.page.emulate_media(media="print")
    assert not made.page.is_visible("#viewer")
    assert made.page.is_visible(".six img")
    assert made.page.pdf(print_background=True).startswith(b"%PDF")
    made.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("failed", [False, True])
def test_axe_finds_nothing_serious(
    browser: Any, page_file: Path, tmp_path: Path, scheme: str, *, failed: bool
) -> None:
    if failed:
        failure = RunFailure("It failed.", 65, ("A warning.",))
        page_file = write_run_report(tmp_path, "sub-01", failure) or page_file
    made = Opened(browser, page_file, color_scheme=scheme, bypass_csp=True)
    if not failed:
        made.ready()
    assert_accessible(made.page)
    made.context.close()

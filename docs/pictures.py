"""Pictures of the tutorial, from the reports that its commands make.

    python docs/pictures.py OUTPUT_DIR docs/images

OUTPUT_DIR is `out` of the tutorial. Needs Chromium, and the extra ``browser``.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

WIDTH = 1200
# Name of the picture, page, and the first and the last element that it shows.
PICTURES = (
    ("tutorial-summary", "sub-01.html", "header", "#summary .note"),
    ("tutorial-report", "sub-01.html", "#viewer", "#viewer"),
    ("tutorial-seeds", "sub-01.html", "#lengths", "#ends"),
    ("tutorial-model", "sub-01.html", "#model-title", ":nth-match(#model figure, 3)"),
)
_FLAGS = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


def main(output: Path, images: Path) -> None:
    """Take the pictures."""
    with sync_playwright() as driver:
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = driver.chromium.launch(executable_path=chromium, args=list(_FLAGS))
        for name, file, first, last in PICTURES:
            page = browser.new_page(viewport={"width": WIDTH, "height": 800})
            page.goto((output / file).resolve().as_uri())
            page.wait_for_timeout(4000)  # the viewer is drawn in software
            box = _box(page, first, last)
            taken = page.screenshot(full_page=True, clip=box)
            picture = Image.open(io.BytesIO(taken)).convert("RGB")
            picture.thumbnail((960, 960))
            picture.save(images / f"{name}.webp", quality=80, method=6)
            page.close()
        browser.close()


def _box(page: Any, first: str, last: str) -> dict[str, float]:
    """Return the part of the page from the top of one element to the bottom of another."""
    above, below = page.locator(first).first.bounding_box(), page.locator(last).last.bounding_box()
    height = below["y"] + below["height"] - above["y"]
    return {"x": 0, "y": above["y"], "width": WIDTH, "height": height}


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

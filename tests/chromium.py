"""Debian's Chromium without a window, for the tests of the reports.

Importing it skips the tests of a module where the browser, or what drives it, is missing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

_playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: make browser-test"
)
_axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason="axe is not installed: make browser-test"
)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
if CHROMIUM is None:
    pytest.skip("Chromium is not installed", allow_module_level=True)

# Rendering in software, as there is no GPU.
_FLAGS = [
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]


@contextmanager
def chromium() -> Iterator[Any]:
    """Start the browser."""
    with _playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        yield started
        started.close()


def assert_accessible(page: Any) -> None:
    """Fail where axe-core finds anything serious on a page."""
    found = _axe.Axe().run(page).response["violations"]
    serious = [v for v in found if v["impact"] in ("serious", "critical")]
    words = [f"{v['id']}: {n['html'][:120]}" for v in serious for n in v["nodes"][:3]]
    assert not serious, json.dumps(words, indent=1)

"""The commands of the pages run as they stand, in the folder that the tutorial makes.

A block of commands that runs has `<!-- run -->` above it, or `<!-- run, needs: PROGRAM -->` if it
is left out where a program is missing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

BLOCK = re.compile(
    r"^<!-- run(?:, needs: (?P<needs>\S+))? -->\n```\w*\n(?P<text>.*?)^```$", re.S | re.M
)
TUTORIAL, NEXT = ROOT / "docs" / "tutorial.md", ROOT / "docs" / "next.md"
PAGES = [
    page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if page not in (TUTORIAL, NEXT) and BLOCK.search(page.read_text(encoding="utf-8"))
]


def run_page(page: Path, folder: Path) -> str:
    """Run the blocks of a page as one script, and return what it prints."""
    programs = folder.parent / f"{folder.name}-bin"
    programs.mkdir()
    for name, words in {"python": "", "bids-tractography": " -m bids_tractography"}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{words} "$@"\n')
        (programs / name).chmod(0o755)
    blocks = BLOCK.finditer(page.read_text(encoding="utf-8"))
    texts = [b["text"] for b in blocks if not b["needs"] or shutil.which(b["needs"])]
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(texts)],
        cwd=folder,
        env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, f"{page.name}:\n{ran.stdout[-4000:]}"
    return ran.stdout


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder after the tutorial, and what its commands printed."""
    folder = tmp_path_factory.mktemp("pages") / "tutorial"
    folder.mkdir()
    return folder, run_page(TUTORIAL, folder)


@pytest.mark.slow
def test_the_tutorial_shows_what_it_promises(tutorial: tuple[Path, str]) -> None:
    folder, printed = tutorial
    assert "everything is up to date; nothing to compute" in printed
    assert "the new file has the same bytes" in printed
    for name in ("out/sub-01.html", "out/sub-01_desc-pft.html", "out/index.html", "sub-01.tck"):
        assert (folder / name).is_file(), name


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_run(page: Path, tutorial: tuple[Path, str], tmp_path: Path) -> None:
    folder = tmp_path / "page"
    shutil.copytree(tutorial[0], folder)
    if page.name == "README.md":
        shutil.rmtree(folder / "demo")
    run_page(page, folder)


@pytest.mark.slow
def test_steps_that_follow_find_the_bundles_of_the_phantom(
    tutorial: tuple[Path, str], tmp_path: Path
) -> None:
    folder = tmp_path / "page"
    shutil.copytree(tutorial[0], folder)
    printed = run_page(NEXT, folder)
    found = [int(n) for n in re.findall(r"^bundle \d: (\d+) streamlines", printed, re.M)]
    assert len(found) == 5
    assert min(found) > 20
    if not shutil.which("tck2connectome"):
        return
    rows = (folder / "connectome.csv").read_text().splitlines()
    weights = [[float(value) for value in row.split(",")] for row in rows]
    assert len(weights) == 10
    assert all(weights[i][i + 1] > 0 for i in range(0, 10, 2))  # the two ends of each bundle
    assert not any(sum(weights[i][j] for i in range(2)) > 5 for j in range(6, 10))

"""The pages of the documentation: links, pictures, configurations, options and navigation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from bids_tractography.config import Config
from bids_tractography.config.load import load_config

PAGES = sorted(
    path
    for folder in ("", ".github", "benchmarks", "benchmarks/results", "changes", "docs")
    for path in (ROOT / folder).glob("*.md")
)
BLOCK = re.compile(r"^(?P<fence>```+)(?P<language>\w*)\n(?P<text>.*?)^(?P=fence)$", re.S | re.M)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ +(.*)$", text, re.M)
    words = [re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in words}


def configurations() -> Iterator[object]:
    """Every block of YAML that is a configuration."""
    for page in PAGES:
        for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
            if block["language"] == "yaml":
                yield pytest.param(block["text"], id=f"{name_of(page)}:{block.start()}")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_pictures_of_a_page_lead_somewhere(page: Path) -> None:
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    broken = []
    for target in LINK.findall(text):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors_of(file)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pictures_of_a_page_have_a_description(page: Path) -> None:
    pictures = re.findall(r"!\[(.*?)\]\(", BLOCK.sub("", page.read_text(encoding="utf-8")))
    assert all(pictures)


@pytest.mark.parametrize("text", list(configurations()))
def test_configurations_of_the_pages_are_valid(text: str, tmp_path: Path) -> None:
    assert yaml.safe_load(text).keys() <= Config.model_fields.keys()
    (tmp_path / "page.yaml").write_text(text, encoding="utf-8")
    load_config(tmp_path / "page.yaml")


def test_every_section_of_the_configuration_has_an_example() -> None:
    page = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", page, flags=re.M)[1:]
    assert [text.splitlines()[0] for text in sections if "```yaml" not in text] == []


def test_every_page_is_in_the_navigation_once() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    nav = text[text.index("\nnav:") :]
    named = sorted(re.findall(r"[\w-]+\.md", nav))
    assert named == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_the_readme_fits_on_a_few_screens() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 120


@pytest.mark.parametrize("name", ["babs.yaml", "babs-qsiprep.yaml"])
def test_projects_of_babs_use_options_of_the_program(name: str) -> None:
    text = (ROOT / "docs" / "clusters" / name).read_text(encoding="utf-8")
    options = yaml.safe_load(text)["bids_app_args"]
    help_page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    words = [key for key in options if key.startswith("-")] + [options["$SUBJECT_SELECTION_FLAG"]]
    assert len(words) >= 3
    assert [word for word in words if f"{word} " not in help_page] == []


def test_every_exit_code_has_its_line_of_advice() -> None:
    listed = re.findall(r"^\| (\d+) \|", (ROOT / "docs" / "exit-codes.md").read_text(), re.M)
    advice = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    table = advice[: advice.index("## 16")]
    rows = " ".join(line.split("|")[1] for line in table.splitlines() if line.startswith("|"))
    assert {code for code in listed if int(code) > 1} == set(
        re.findall(r"\b\d{2,3}\b", re.sub(r"\(#.*?\)", "", rows))
    )

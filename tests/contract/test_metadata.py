"""The version and the metadata that files outside the package repeat."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from conftest import ROOT

from bids_tractography import __version__

# Files that list versions of past releases or of dependencies, or that only use a version.
HISTORY = ("CHANGELOG.md", "changes/", "tests/", "requirements.lock", "containers/requirements-")


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "docs")
    import metadata

    return metadata


def test_metadata_files_match_the_package(metadata: ModuleType) -> None:
    assert (ROOT / "CITATION.cff").read_text(encoding="utf-8") == metadata.citation()
    assert (ROOT / "codemeta.json").read_text(encoding="utf-8") == metadata.codemeta()
    for name in metadata.STAMPED:
        assert (ROOT / name).read_text(encoding="utf-8") == metadata.stamped(name), name


def test_metadata_another_version_changes_every_file(
    metadata: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "__version__", "12.3.4rc5")
    assert yaml.safe_load(metadata.citation())["version"] == "12.3.4rc5"
    assert json.loads(metadata.codemeta())["version"] == "12.3.4rc5"
    for name in metadata.STAMPED:
        text = metadata.stamped(name)
        assert "12.3.4rc5" in text
        assert not occurrences(text), f"{name} keeps the old version in one place"


def test_stamped_file_without_version_is_an_error(
    metadata: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "main").write_text("docker://bids-tractography:latest\n")
    monkeypatch.setattr(metadata, "ROOT", tmp_path)
    with pytest.raises(ValueError, match="main does not contain the version"):
        metadata.stamped("main")


def test_version_is_written_nowhere_else(metadata: ModuleType) -> None:
    generated = {*metadata.STAMPED, "CITATION.cff", "codemeta.json", "boutiques.json"}
    generated |= {"bids_tractography/__init__.py", "docs/images/terminal.txt"}
    others = [
        name for name in tracked_files() if name not in generated and not name.startswith(HISTORY)
    ]
    assert [name for name in others if occurrences(read(name))] == []


def test_version_script_prints_the_version() -> None:
    script = ROOT / "containers" / "version"
    printed = subprocess.run([script], capture_output=True, text=True, check=True).stdout
    assert printed == f"{__version__}\n"


def occurrences(text: str) -> list[str]:
    return re.findall(rf"(?<![\d.]){re.escape(__version__)}(?![\d.]*\d)", text)


def read(name: str) -> str:
    path = ROOT / name
    return path.read_text(encoding="utf-8", errors="ignore") if path.is_file() else ""


def tracked_files() -> list[str]:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("needs a checkout of the repository")
    command = [git, "-C", str(ROOT), "ls-files"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

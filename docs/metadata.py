"""Files outside the package that repeat what pyproject.toml and ``__version__`` state."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

from bids_tractography import __version__

ROOT = Path(__file__).parents[1]
TITLE = "bids_tractography: reproducible whole-brain tractography of BIDS datasets"

STAMPED = ("Dockerfile", "Singularity.def", "main", "docs/clusters.md")
"""Files written by hand, in which only the version is replaced."""

# A default of the Dockerfile, the tag of the image, and a label: each followed by a version.
_VERSION = re.compile(
    r"(^ARG VERSION=|\bbids-tractography:|\bimage\.version )"
    r"\d+(?:\.\d+)+(?:(?:a|b|rc|\.post|\.dev)\d+)*",
    re.MULTILINE,
)


def citation() -> str:
    """Return CITATION.cff."""
    project = _project()
    content = {
        "cff-version": "1.2.0",
        "message": "If you use this software, please cite it.",
        "title": TITLE,
        "abstract": f"{project['description']}.",
        "type": "software",
        "license": project["license"],
        "version": __version__,
        "repository-code": project["urls"]["Repository"],
        "url": project["urls"]["Documentation"],
        "keywords": project["keywords"],
        "authors": [{"name": author["name"]} for author in project["authors"]],
    }
    note = "# Created by `make generate` from pyproject.toml.\n"
    return note + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)


def codemeta() -> str:
    """Return codemeta.json, see https://codemeta.github.io."""
    project = _project()
    content = {
        "@context": "https://w3id.org/codemeta/3.0",
        "@type": "SoftwareSourceCode",
        "name": project["name"],
        "description": f"{project['description']}.",
        "version": __version__,
        "license": f"https://spdx.org/licenses/{project['license']}",
        "codeRepository": project["urls"]["Repository"],
        "issueTracker": project["urls"]["Issues"],
        "softwareHelp": project["urls"]["Documentation"],
        "releaseNotes": project["urls"]["Changelog"],
        "developmentStatus": "active",
        "applicationCategory": "Neuroimaging",
        "programmingLanguage": "Python",
        "runtimePlatform": f"Python {project['requires-python']}",
        "operatingSystem": ["Linux", "macOS"],
        "keywords": project["keywords"],
        "author": [{"@type": "Organization", "name": a["name"]} for a in project["authors"]],
        "softwareRequirements": project["dependencies"],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def stamped(name: str) -> str:
    """Return a file of `STAMPED` with the version of the package in it.

    Raises
    ------
    ValueError
        If the file no longer contains the version.
    """
    text, count = _VERSION.subn(
        lambda found: found[1] + __version__, (ROOT / name).read_text(encoding="utf-8")
    )
    if not count:
        raise ValueError(f"{name} does not contain the version: remove it from STAMPED")
    return text


def _project() -> dict[str, Any]:
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project: dict[str, Any] = content["project"]
    return project

"""Hooks of MkDocs: links out of the folder of pages, the JSON Schema, and a check of privacy."""

from __future__ import annotations

import logging
import re
import tomllib
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

logger = logging.getLogger("mkdocs.hooks")
ROOT = Path(__file__).parents[1]
_URLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
_OUTSIDE = re.compile(r"\]\(\.\./([^)\s]+)\)")
_LOADED = re.compile(r"""(?:\bsrc|<link\b[^>]*\bhref)=["']?((?:https?:)?//[^"'\s>]+)""")


def on_files(files: Files, config: Any) -> Files:
    """Add the JSON Schema of the configuration, which editors can use."""
    schema = ROOT / "bids_tractography" / "config" / "schema.json"
    files.append(File.generated(config, "schema.json", abs_src_path=str(schema)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Point links that leave the folder of the pages to the repository."""
    return _OUTSIDE.sub(rf"]({_URLS['Repository']}/blob/main/\1)", markdown)


def on_post_page(output: str, page: Any, **_: Any) -> None:
    """Warn about anything that a browser would load from another host."""
    for address in _LOADED.findall(output):
        logger.warning("%s loads %s", page.file.src_uri, address)

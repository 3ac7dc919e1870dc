"""pybids' layouts of one participant, with its known traps avoided."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from bids import BIDSLayout, BIDSLayoutIndexer

# Folders in which no input of ours can lie; walking them costs time.
_IGNORED_FOLDERS = ("func", "meg", "eeg", "ieeg", "micr", "pet", "nirs", "motion", "mrs", "beh")
# Entities of BEP016 and BEP046 that pybids does not know.
_ENTITIES = [
    {"name": name, "pattern": rf"[_/\\]+{name}-([a-zA-Z0-9+]+)"}
    for name in ("param", "tract", "track", "bundle")
]
_LAST_IN_NAME = ("suffix", "extension", "scans")


def layout_of(root: Path, subject: str, databases: Path | None) -> BIDSLayout:
    """Index the files of one participant, and those above it that it may inherit."""
    configs = _pybids_configs(root)
    database = _database_of(root, subject, databases) if databases else None
    if database and database.is_dir():
        return BIDSLayout(root, validate=False, config=configs, database_path=database)
    ignore = [
        re.compile(r"^/(derivatives|sourcedata|code)(?:/|$)"),
        re.compile(rf"/sub-(?!{re.escape(subject)}(?:/|_|$))"),
        re.compile(rf"/({'|'.join(_IGNORED_FOLDERS)})(?:/|$)"),
        re.compile(r"/(figures|log|logs|\.[^/]+)(?:/|$)"),
    ]
    indexer = BIDSLayoutIndexer(validate=False, ignore=ignore, index_metadata=False)
    layout = BIDSLayout(root, validate=False, config=configs, indexer=indexer)
    if database:
        # pybids would trust an index that was interrupted, so it is saved when it is whole.
        database.parent.mkdir(parents=True, exist_ok=True)
        temporary = database.with_name(f".{os.getpid()}.{database.name}")
        layout.save(str(temporary), replace_connection=False)
        try:
            temporary.rename(database)
        except OSError:  # another process was quicker
            shutil.rmtree(temporary)
    return layout


def _pybids_configs(root: Path) -> list[dict[str, Any]]:
    """Return pybids' entities and ours, to be looked for below the root only.

    pybids searches the absolute path: without an anchor a folder above the dataset, such as
    ``/data/ses-9``, would lend its entities to every file.
    """
    configs = []
    for name in ("bids", "derivatives"):
        content = json.loads((files("bids.layout.config") / f"{name}.json").read_text())
        configs.append({"name": name, "entities": content["entities"]})
    configs.append({"name": "tractography", "entities": _ENTITIES})
    anchor = re.escape(str(root)) + r"(?=/).*?"
    for config in configs:
        config["entities"] = [
            entity
            if entity["name"] in _LAST_IN_NAME
            else {**entity, "pattern": f"{anchor}(?:{entity['pattern']})"}
            for entity in config["entities"]
        ]
    return configs


def known_entities() -> set[str]:
    """Return the names that filters may have."""
    return {e["name"] for config in _pybids_configs(Path("/")) for e in config["entities"]}


def _database_of(root: Path, subject: str, folder: Path) -> Path:
    """Name a database by all that it depends on.

    pybids neither notices files that have come or gone nor a dataset that has moved, so the
    times at which the participant's folders changed are part of the name.
    """
    below = [root, *sorted(p for p in (root / f"sub-{subject}").rglob("*") if p.is_dir())]
    state = [version("pybids"), *(f"{p} {p.stat().st_mtime_ns}" for p in below)]
    digest = hashlib.sha256("\n".join(state).encode()).hexdigest()[:16]
    return folder / f"sub-{subject}_{digest}"

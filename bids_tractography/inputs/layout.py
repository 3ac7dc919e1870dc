"""pybids layouts of one participant, with work-arounds for pybids' pitfalls.

pybids only answers queries. It neither walks the dataset nor reads its description, because an
unreadable folder, a ``layout_config.json``, a nested copy of the dataset or an unusual
``GeneratedBy`` would raise an error or mislead it. The files are listed by `tree.list_tree`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from bids import BIDSLayout, BIDSLayoutIndexer
from bids.layout.db import ConnectionManager
from sqlalchemy.exc import SQLAlchemyError

logger = logging.getLogger(__name__)

# Entities of BEP016 and BEP046 that pybids does not know.
_ENTITIES = [
    {"name": name, "pattern": rf"[_/\\]+{name}-([a-zA-Z0-9+]+)"}
    for name in ("param", "tract", "track", "bundle")
]
_LAST_IN_NAME = ("suffix", "extension", "scans")


class _Indexer(BIDSLayoutIndexer):  # type: ignore[misc]
    """Index the given files instead of walking the dataset."""

    def __init__(self, paths: Iterable[Path]) -> None:
        super().__init__(validate=False, index_metadata=False)
        self._paths = paths

    def _index_dir(self, path: Any, config: Any, force: Any = None) -> Any:
        entities: dict[str, Any] = {}
        for one in config:
            entities.update(one.entities)
        indexed = [self._index_file(file, entities) for file in self._paths]
        return [file for file, _ in indexed], [tag for _, tags in indexed for tag in tags]


class _Layout(BIDSLayout):  # type: ignore[misc]
    """A layout that does not read the description of the dataset."""

    def __init__(self, root: Path, paths: Iterable[Path], database: Path | None) -> None:
        self._root = root
        self.description = self.sources = self.source_pipeline = None
        self.derivatives: dict[str, Any] = {}
        self.is_derivative = self.regex_search = False
        if database:
            self.connection_manager = ConnectionManager(database)
            return
        self.connection_manager = _Copy(_empty_database(root))
        _Indexer(paths)(self)


class _Copy(ConnectionManager):  # type: ignore[misc]
    """An in-memory database, copied from another one."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        super().__init__()

    def reset_database(self, init_args: Any = None, config: Any = None) -> None:
        """Fill the new database."""
        with self.engine.connect() as connection:
            connection.connection.driver_connection.deserialize(self._content)


@lru_cache(maxsize=16)
def _empty_database(root: Path) -> bytes:
    """Return a serialised empty pybids database; creating one takes longer than filling it."""
    configs = _pybids_configs(root)
    about = {"root": root, "derivatives": None, "config": configs}
    manager = ConnectionManager(None, False, configs, about)
    with manager.engine.connect() as connection:
        content: bytes = connection.connection.driver_connection.serialize()
    return content


def layout_of(root: Path, paths: Sequence[Path], databases: Path | None) -> BIDSLayout:
    """Index the files of one participant in one dataset.

    Parameters
    ----------
    root : Path
        Root of the dataset.
    paths : sequence of Path
        Files of the participant, see `tree.list_tree`.
    databases : Path or None
        Folder for the index; None keeps it in memory.
    """
    database = databases / _database_name(root, paths) if databases else None
    if database and database.is_dir():
        try:
            layout = _Layout(root, (), database)
            layout.get(suffix="dwi")  # the first query opens the database
        except (SQLAlchemyError, OSError, ValueError, TypeError) as error:
            logger.warning("%s is damaged and will be rebuilt: %s", database, error)
            shutil.rmtree(database, ignore_errors=True)
        else:
            return layout
    layout = _Layout(root, paths, None)
    if database:
        # pybids would trust an incomplete index, so it is saved under a temporary name.
        database.parent.mkdir(parents=True, exist_ok=True)
        temporary = database.with_name(f".{os.getpid()}.{database.name}")
        layout.save(str(temporary), replace_connection=False)
        try:
            temporary.rename(database)
        except OSError:  # another process has saved it first
            shutil.rmtree(temporary)
    return layout


def _pybids_configs(root: Path) -> list[dict[str, Any]]:
    """Return the entities of pybids and of this app, matched below the root only.

    pybids matches absolute paths: without an anchor, a folder above the dataset such as
    ``/data/ses-9`` would give its entities to every file.
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
    """Return the names of entities that filters may use."""
    return {e["name"] for config in _pybids_configs(Path("/")) for e in config["entities"]}


def _database_name(root: Path, paths: Iterable[Path]) -> str:
    """Return the name of a database, which depends on everything that the database depends on.

    pybids itself notices neither added or removed files nor a dataset that has moved.
    """
    state = [version("pybids"), str(root), *map(str, paths)]
    return hashlib.sha256("\n".join(state).encode()).hexdigest()[:24]

"""BIDS datasets in: which DWI runs there are, and the files that belong to each.

One pybids layout is made for each dataset and participant: the names of the others are ignored,
so a dataset of 10,000 starts as fast as one of 10.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from bids import BIDSLayout, BIDSLayoutIndexer
from bids.layout import BIDSFile, Query

from bids_tractography.config import Config
from bids_tractography.config.masks import FileMask
from bids_tractography.errors import (
    FilteredOutError,
    InvalidBidsError,
    NoDwiError,
    NoInputError,
    NoMatchError,
    TractographyError,
    UsageError,
)

logger = logging.getLogger(__name__)

_IMAGE = [".nii.gz", ".nii"]
_QUERIES = ("dwi", "brain_mask")
# Folders in which no input of ours can lie; walking them costs time.
_IGNORED_FOLDERS = ("func", "meg", "eeg", "ieeg", "micr", "pet", "nirs", "motion", "mrs", "beh")
# Entities of BEP016 and BEP046 that pybids does not know.
_ENTITIES = [
    {"name": name, "pattern": rf"[_/\\]+{name}-([a-zA-Z0-9+]+)"}
    for name in ("param", "tract", "track", "bundle")
]
_LAST_IN_NAME = ("suffix", "extension", "scans")


@dataclass(frozen=True)
class Dataset:
    """A BIDS dataset.

    Parameters
    ----------
    name : str
        Under which BIDS URIs point to it.
    root : Path
        Absolute, links resolved.
    description : mapping
        Content of its ``dataset_description.json``.
    """

    name: str
    root: Path
    description: Mapping[str, Any]


@dataclass(frozen=True)
class DwiRun:
    """A DWI run and the files that belong to it.

    Parameters
    ----------
    dataset : str
        Name of the dataset it is from.
    subject, session : str
        Labels; the session may be missing.
    image, bval, bvec : Path
    brain_mask, seed_mask, stop_mask : Path or None
    """

    dataset: str
    subject: str
    session: str | None
    image: Path
    bval: Path
    bvec: Path
    brain_mask: Path | None = None
    seed_mask: Path | None = None
    stop_mask: Path | None = None

    @property
    def files(self) -> dict[str, Path]:
        """All files that the result depends on, by role."""
        files = {"dwi": self.image, "bval": self.bval, "bvec": self.bvec}
        masks = {"brain": self.brain_mask, "seed": self.seed_mask, "stop": self.stop_mask}
        return files | {f"{role}_mask": path for role, path in masks.items() if path is not None}


@dataclass(frozen=True)
class Selection:
    """What of the datasets is wanted.

    Parameters
    ----------
    sessions : tuple of str
        Labels without ``ses-``; empty for all.
    filters : mapping
        pybids filters by query (``dwi``, ``brain_mask``).
    database : Path or None
        Folder to keep pybids' databases in.
    """

    sessions: tuple[str, ...] = ()
    filters: Mapping[str, Mapping[str, Any]] | None = None
    database: Path | None = None

    def of(self, query: str) -> dict[str, Any]:
        """Return the filters of a query."""
        return dict((self.filters or {}).get(query, {}))


def read_dataset(name: str, root: Path) -> Dataset:
    """Open a dataset.

    Raises
    ------
    NoInputError
        If the folder is not there.
    InvalidBidsError
        If it has no usable ``dataset_description.json``.
    """
    if not root.is_dir():
        raise NoInputError(f"{root} is no folder.")
    path = root / "dataset_description.json"
    try:
        description = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError:
        raise InvalidBidsError(
            f"{root} is not a BIDS dataset: it has no readable dataset_description.json.",
            "Point to the root of the dataset.",
        ) from None
    except ValueError as error:
        raise InvalidBidsError(f"{path} is not valid JSON: {error}.") from None
    missing = [
        key
        for key in ("Name", "BIDSVersion")
        if not (isinstance(description, dict) and description.get(key))
    ]
    if missing:
        raise InvalidBidsError(f"{path} lacks {' and '.join(missing)}.")
    return Dataset(name, root.resolve(), description)


def find_participants(root: Path, labels: Iterable[str]) -> list[str]:
    """List participants by their folders: all, or those asked for.

    Raises
    ------
    NoMatchError
        If one that is asked for is not there, or there is none at all.
    """
    there = sorted(path.name.removeprefix("sub-") for path in root.glob("sub-*") if path.is_dir())
    wanted = [label.removeprefix("sub-") for label in labels]
    absent = [label for label in wanted if label not in there]
    if absent:
        raise NoMatchError(
            f"no participant {', '.join(absent)} in {root}.", f"There are: {_some(there)}."
        )
    if not there:
        raise NoMatchError(f"{root} has no participant folder (sub-*).")
    return sorted(set(wanted)) if wanted else there


def _some(names: list[str], most: int = 20) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown or "none"


def read_filters(path: Path) -> dict[str, dict[str, Any]]:
    """Read a BIDS filter file in fMRIPrep's dialect.

    ``null`` means that the entity is absent, ``"*"`` that it has any value.

    Raises
    ------
    UsageError
        If it is not such a file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NoInputError(f"{path} cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise UsageError(f"{path} is not valid JSON: {error}.") from None
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise UsageError(f'{path} should hold queries with their filters: {{"dwi": {{...}}}}.')
    unknown = sorted(set(content) - set(_QUERIES))
    if unknown:
        raise UsageError(
            f"{path} has filters for {', '.join(unknown)}, which this app does not ask for.",
            f"Queries: {', '.join(_QUERIES)}.",
        )
    known = known_entities()
    for query, filters in content.items():
        for entity, value in filters.items():
            if entity not in known:
                raise UsageError(
                    f"{path}: {query}.{entity} is no entity that pybids knows.",
                    f"Entities: {', '.join(sorted(known))}.",
                )
            if any(
                isinstance(item, dict) for item in (value if isinstance(value, list) else [value])
            ):
                raise UsageError(f"{path}: {query}.{entity} should be a value or a list of values.")
    return {query: _translate(filters) for query, filters in content.items()}


def _translate(filters: Mapping[str, Any]) -> dict[str, Any]:
    special = {None: Query.NONE, "*": Query.REQUIRED}

    def one(value: Any) -> Any:
        if isinstance(value, list):
            return [one(item) for item in value]
        return special.get(value, value)

    return {key: one(value) for key, value in filters.items()}


class ParticipantFiles:
    """The files of one participant in several datasets.

    Parameters
    ----------
    datasets : sequence of Dataset
        The main one first.
    subject : str
    selection : Selection
    """

    def __init__(self, datasets: list[Dataset], subject: str, selection: Selection) -> None:
        self._subject = subject
        self._selection = selection
        self._layouts = {
            dataset.name: _layout(dataset.root, subject, selection.database)
            for dataset in datasets
            if (dataset.root / f"sub-{subject}").is_dir()
        }

    def dwi_runs(self, config: Config) -> list[DwiRun | tuple[str, TractographyError]]:
        """Find every DWI run: of each session, the preprocessed ones if there are any.

        Returns
        -------
        list
            Runs; and for each image that lacks a file, its name and what is wrong.

        Raises
        ------
        NoDwiError, FilteredOutError
            If there is none, or filters leave none.
        """
        found = self._images()
        sessions = dict.fromkeys(file.entities.get("session") for _, file in found)
        runs: list[DwiRun | tuple[str, TractographyError]] = []
        for session in sessions:
            own = [(name, f) for name, f in found if f.entities.get("session") == session]
            preprocessed = [(name, f) for name, f in own if f.entities.get("desc") == "preproc"]
            if preprocessed and len(own) > len(preprocessed):
                aside = [f.filename for _, f in own if f.entities.get("desc") != "preproc"]
                logger.info("Preprocessed runs are used; left aside: %s.", ", ".join(aside))
            for name, file in preprocessed or own:
                try:
                    runs.append(self._run(name, file, config))
                except TractographyError as error:
                    runs.append((file.filename.rpartition("_")[0], error))
        return runs

    def _images(self) -> list[tuple[str, BIDSFile]]:
        query: dict[str, Any] = {"suffix": "dwi", "extension": _IMAGE, "datatype": "dwi"}
        everything = self._get(query)
        wanted = self._get({**query, **self._selection.of("dwi")})
        if self._selection.sessions:
            wanted = [
                (name, file)
                for name, file in wanted
                if file.entities.get("session") in self._selection.sessions
            ]
        wanted = [(name, file) for name, file in wanted if _is_magnitude(file)]
        if not everything:
            raise NoDwiError(f"sub-{self._subject} has no DWI (sub-*/[ses-*/]dwi/*_dwi.nii.gz).")
        if not wanted:
            names = _some([Path(file.path).name for _, file in everything])
            raise FilteredOutError(
                f"sub-{self._subject}: filters and session labels match no DWI.",
                f"There are: {names}.",
            )
        return wanted

    def _get(self, query: Mapping[str, Any]) -> list[tuple[str, BIDSFile]]:
        found = []
        for name, layout in self._layouts.items():
            try:
                found += [(name, file) for file in layout.get(**query)]
            except ValueError as error:  # an entity that pybids does not know
                raise NoMatchError(f"BIDS filters {dict(query)}: {error}") from None
        return found

    def _run(self, name: str, file: BIDSFile, config: Config) -> DwiRun:
        image = Path(file.path)
        bval, bvec = (self._inherited(name, file, extension) for extension in (".bval", ".bvec"))
        if bval is None or bvec is None:
            missing = [".bval"] * (bval is None) + [".bvec"] * (bvec is None)
            raise NoInputError(
                f"{image.name} has no {' and no '.join(missing)} file.",
                "It should stand beside the image, or above it by inheritance.",
            )
        session = file.entities.get("session")
        stopping = getattr(config.stopping, "mask", None)
        return DwiRun(
            dataset=name,
            subject=self._subject,
            session=session,
            image=image,
            bval=bval,
            bvec=bvec,
            brain_mask=self._brain_mask(file),
            seed_mask=self._mask_file(config.seeding.mask, session, "seeding.mask"),
            stop_mask=self._mask_file(stopping, session, "stopping.mask"),
        )

    def _inherited(self, name: str, dwi: BIDSFile, extension: str) -> Path | None:
        """Find the file that belongs to an image by the inheritance principle.

        It lies beside the image or above it and has no entity that the image lacks; the nearest
        is taken, and of those the one that has most entities. (pybids' own search accepts the
        files of another run where that has one entity more.)
        """
        folders = Path(dwi.path).parents
        own = _entities(dwi).items()
        files = [
            (-folders.index(Path(file.path).parent), len(_entities(file)), Path(file.path))
            for file in self._layouts[name].get(suffix="dwi", extension=extension)
            if Path(file.path).parent in folders and _entities(file).items() <= own
        ]
        if not files:
            return None
        nearest = max(files)[:2]
        best = sorted(path for *rank, path in files if tuple(rank) == nearest)
        return _only(best, f"{extension} files for {dwi.filename}", "Keep the one that is right.")

    def _brain_mask(self, dwi: BIDSFile) -> Path | None:
        """Find the mask that agrees with the DWI in every entity it has, the closest one."""
        query: dict[str, Any] = {"suffix": "mask", "desc": "brain", "extension": _IMAGE}
        filters = self._selection.of("brain_mask")
        candidates = self._get({**query, "datatype": "dwi", **filters})
        own = _identity(dwi)
        agreeing = [
            (len(_identity(file)), Path(file.path))
            for _, file in candidates
            if _identity(file).items() <= own.items()
            and file.entities.get("space") == dwi.entities.get("space")
        ]
        if not agreeing:
            if filters:
                raise NoMatchError(
                    f"{dwi.filename}: the brain_mask filters match no mask of this run."
                )
            return None
        most = max(shared for shared, _ in agreeing)
        best = sorted({path for shared, path in agreeing if shared == most})
        return _only(best, f"brain masks of {dwi.filename}", "Choose with --bids-filter-file.")

    def _mask_file(self, mask: Any, session: str | None, key: str) -> Path | None:
        if not isinstance(mask, FileMask):
            return None
        if mask.path is not None:
            if not mask.path.exists():
                raise NoInputError(f"{key}.path: {mask.path} does not exist.")
            return mask.path.absolute()
        unknown = sorted(set(mask.filters or {}) - known_entities())
        if unknown:
            raise NoMatchError(f"{key}.filters: pybids knows no entity {', '.join(unknown)}.")
        filters = {"extension": _IMAGE, **_translate(mask.filters or {})}
        found = self._get({"session": session or Query.NONE, **filters})
        if not found and session:  # as inheritance would, fall back to the participant
            found = self._get({"session": Query.NONE, **filters})
        paths = sorted(Path(file.path) for _, file in found)
        if not paths:
            where = f"sub-{self._subject}" + (f" ses-{session}" if session else "")
            raise NoMatchError(f"{key}.filters match no image of {where}: {mask.filters}.")
        return _only(paths, f"images for {key}.filters", "Add entities to the filters.")


def _is_magnitude(file: BIDSFile) -> bool:
    return file.entities.get("part") in (None, "mag")


def _only(paths: list[Path], what: str, remedy: str) -> Path:
    if len(paths) > 1:
        listed = "\n  ".join(str(path) for path in paths)
        raise NoMatchError(f"there are several {what}:\n  {listed}\n", remedy)
    return paths[0]


def _entities(file: BIDSFile) -> dict[str, Any]:
    """Entities in the name of a file."""
    return {k: v for k, v in file.entities.items() if k not in ("extension", "datatype")}


def _identity(file: BIDSFile) -> dict[str, Any]:
    """Entities that tell runs apart."""
    described = {"suffix", "extension", "datatype", "desc", "space", "label", "res", "den", "fmap"}
    return {k: str(v) for k, v in file.entities.items() if k not in described}


def _layout(root: Path, subject: str, databases: Path | None) -> BIDSLayout:
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

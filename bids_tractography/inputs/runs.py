"""BIDS datasets in: which DWI runs there are, and the files that belong to each.

One pybids layout is made for each dataset and participant: the names of the others are ignored,
so a dataset of 10,000 starts as fast as one of 10.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bids.layout import BIDSFile, Query

from bids_tractography.config import Config
from bids_tractography.config.files import File
from bids_tractography.entities import identity
from bids_tractography.errors import (
    FilteredOutError,
    NoDwiError,
    NoInputError,
    NoMatchError,
    TractographyError,
)
from bids_tractography.inputs.datasets import Dataset, some
from bids_tractography.inputs.filters import translate
from bids_tractography.inputs.layout import known_entities, layout_of
from bids_tractography.tissue_files import TissueFiles, find_tissue

logger = logging.getLogger(__name__)

_IMAGE = [".nii.gz", ".nii"]
RAW = "raw"  # what `scope` calls the main dataset


@dataclass(frozen=True)
class DwiRun:
    """A DWI run and the files that belong to it.

    Parameters
    ----------
    dataset : str
        Name of the dataset it is from.
    subject, session : str
        Labels; the session may be missing.
    image : Path
    bval, bvec : Path or None
        None where nothing needs them.
    brain_mask : Path or None
    named : mapping of str to Path
        Files that the configuration names, by the dotted path of their key.
    tissue : TissueFiles or None
        What may tell tissue fractions; None where nothing asks for them.
    """

    dataset: str
    subject: str
    session: str | None
    image: Path
    bval: Path | None
    bvec: Path | None
    brain_mask: Path | None = None
    named: Mapping[str, Path] = field(default_factory=dict)
    tissue: TissueFiles | None = None

    @property
    def files(self) -> dict[str, Path]:
        """All files that the result depends on, by role."""
        found = {
            "dwi": self.image,
            "bval": self.bval,
            "bvec": self.bvec,
            "brain_mask": self.brain_mask,
            **self.named,
        }
        return {role: path for role, path in found.items() if path is not None}

    @property
    def gradients(self) -> tuple[Path, Path]:
        """b-values and b-vectors.

        Raises
        ------
        NoInputError
            If one is missing.
        """
        if self.bval is None or self.bvec is None:
            raise NoInputError(f"{self.image.name} has no .bval or no .bvec file.")
        return self.bval, self.bvec


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
        self._main = datasets[0].name
        self._layouts = {
            dataset.name: layout_of(dataset.root, subject, selection.database)
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
            names = some([Path(file.path).name for _, file in everything])
            raise FilteredOutError(
                f"sub-{self._subject}: filters and session labels match no DWI.",
                f"There are: {names}.",
            )
        return wanted

    def _get(
        self, query: Mapping[str, Any], scope: str | None = None
    ) -> list[tuple[str, BIDSFile]]:
        """Ask all layouts, or that of one dataset."""
        wanted = self._main if scope == RAW else scope
        found = []
        for name, layout in self._layouts.items():
            if wanted not in (None, name):
                continue
            try:
                found += [(name, file) for file in layout.get(**query)]
            except ValueError as error:  # an entity that pybids does not know
                raise NoMatchError(f"BIDS filters {dict(query)}: {error}") from None
        return found

    def _run(self, name: str, file: BIDSFile, config: Config) -> DwiRun:
        image = Path(file.path)
        bval, bvec = (self._inherited(name, file, extension) for extension in (".bval", ".bvec"))
        if (bval is None or bvec is None) and config.import_tract is None:
            missing = [".bval"] * (bval is None) + [".bvec"] * (bvec is None)
            raise NoInputError(
                f"{image.name} has no {' and no '.join(missing)} file.",
                "It should stand beside the image, or above it by inheritance.",
            )
        session = file.entities.get("session")
        named = {key: self._named(key, wanted, file) for key, wanted in config.files()}
        asked = config.needs_tissue and config.import_tract is None
        return DwiRun(
            dataset=name,
            subject=self._subject,
            session=session,
            image=image,
            bval=bval,
            bvec=bvec,
            brain_mask=self._brain_mask(file),
            named=named,
            tissue=self._tissue_files(file) if asked else None,
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
        own = identity(dwi.entities)
        agreeing = [
            (len(identity(file.entities)), Path(file.path))
            for _, file in candidates
            if identity(file.entities).items() <= own.items()
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

    def _tissue_files(self, dwi: BIDSFile) -> TissueFiles:
        def get(**query: Any) -> list[tuple[str, Path, Mapping[str, Any]]]:
            found = self._get(query)
            return [(name, Path(file.path), dict(file.entities)) for name, file in found]

        return find_tissue(get, dwi.entities)

    def _named(self, key: str, named: File, dwi: BIDSFile) -> Path:
        """Find a file that the configuration names.

        With filters, those of the DWI's session come first, then those of the participant as a
        whole, as inheritance would have it; of several, those of this run.
        """
        if named.path is not None:
            if not named.path.exists():
                raise NoInputError(f"{key}.path: {named.path} does not exist.")
            return named.path.absolute()
        unknown = sorted(set(named.filters or {}) - known_entities())
        if unknown:
            raise NoMatchError(f"{key}.filters: pybids knows no entity {', '.join(unknown)}.")
        anything = {"extension": list(named.extensions)}
        filters = {**anything, **translate(named.filters or {})}
        session = dwi.entities.get("session")
        found = self._get({"session": session or Query.NONE, **filters}, named.scope)
        if not found and session:
            found = self._get({"session": Query.NONE, **filters}, named.scope)
        if not found:
            where = f"sub-{self._subject}" + (f" ses-{session}" if session else "")
            there = sorted(file.filename for _, file in self._get(anything, named.scope))
            raise NoMatchError(
                f"{key}.filters match no file of {where}: {named.filters}.",
                f"There are: {some(there)}.",
            )
        own = identity(dwi.entities)

        def of_run(file: BIDSFile) -> bool:
            return all(
                own.get(key, value) == value for key, value in identity(file.entities).items()
            )

        # Anatomy has runs and acquisitions of its own; what lies with the DWI has the DWI's.
        paths = sorted(Path(file.path) for _, file in found if of_run(file)) or sorted(
            Path(file.path) for _, file in found if file.entities.get("datatype") != "dwi"
        )
        if not paths:
            others = some(sorted(file.filename for _, file in found))
            raise NoMatchError(f"{key}.filters match files of other runs only: {others}.")
        return _only(paths, f"files for {key}.filters", "Add entities to the filters.")


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

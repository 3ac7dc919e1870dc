"""Files and sidecars of one DWI run, and whether they are up to date."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_tractography.core.images import Grid, write_image
from bids_tractography.errors import TractographyError
from bids_tractography.machine.files import exists, read_json_file
from bids_tractography.outputs.files import leftovers, write_atomically, write_json
from bids_tractography.outputs.names import (
    DERIVED_ENTITIES,
    entities_of,
    file_name,
    file_of_sidecar,
    sidecar_path,
)
from bids_tractography.outputs.provenance import (
    RECORD_KEY,
    Fingerprint,
    Record,
    hash_of_sidecar,
    sha256_of_file,
    sha256_of_json,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sidecar:
    """BIDS metadata of a file.

    Parameters
    ----------
    description : str
        Description of the file.
    sources : list of Path
        Direct parents, written as BIDS URIs.
    keys : dict
        Other keys of the specification or its proposals, JSON values.
    """

    description: str
    sources: list[Path]
    keys: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunOutputs:
    """Paths and sidecars of the derivatives of one DWI run.

    Parameters
    ----------
    root : Path
        The derivative dataset.
    source : str
        File name of the DWI.
    links : mapping of str to Path
        Datasets that BIDS URIs may refer to, by name.
    common : mapping
        Keys of every sidecar (``SpatialReference`` if the file name has ``space-``).
    """

    root: Path
    source: str
    links: Mapping[str, Path]
    common: Mapping[str, Any] = field(default_factory=dict)

    @property
    def entities(self) -> dict[str, str]:
        """Entities of the DWI, without ``desc``."""
        return {k: v for k, v in entities_of(self.source).items() if k != "desc"}

    @property
    def name(self) -> str:
        """Common beginning of all file names."""
        return file_name(self.entities, "", "").removesuffix("_")

    @property
    def folder(self) -> Path:
        """Folder of the files."""
        entities = self.entities
        session = [f"ses-{entities['ses']}"] if "ses" in entities else []
        return self.root.joinpath(f"sub-{entities['sub']}", *session, "dwi")

    def batches(self, work: Path, dataset: Path, configuration: str | None = None) -> Path:
        """Return the folder for unfinished batches, unique to output, dataset and configuration.

        Parameters
        ----------
        work : Path
            Folder for unfinished work, which several outputs may share.
        dataset : Path
            Root of the dataset of the DWI.
        configuration : str, optional
            Name of the configuration.
        """
        digest = sha256_of_json([str(self.root), str(dataset), configuration])
        return work / f"{self.name}.{digest[:12]}.batches"

    def path(self, suffix: str, extension: str = ".nii.gz", **entities: str) -> Path:
        """Return the path of a derivative."""
        return self.folder / file_name({**self.entities, **entities}, suffix, extension)

    def uri(self, path: Path) -> str:
        """Return the BIDS URI of a file in this or a linked dataset, otherwise its file URI."""
        datasets = {"": self.root, **self.links}
        homes = [(name, root) for name, root in datasets.items() if path.is_relative_to(root)]
        if not homes:
            return path.as_uri()
        name, root = max(homes, key=lambda item: len(item[1].parts))
        return f"bids:{name}:{path.relative_to(root).as_posix()}"

    def remove_leftovers(self, keep: Path | None = None) -> None:
        """Remove temporary files of killed runs, except `keep`; requires the lock of the run."""
        for path, name in leftovers(self.folder):
            of_run = name.startswith(f"{self.name}_") and path != keep
            if of_run and entities_of(name).keys() - DERIVED_ENTITIES == self.entities.keys():
                path.unlink(missing_ok=True)

    def write_data(self, path: Path, writer: Callable[[Path], None]) -> None:
        """Write a file atomically; until its sidecar is written it counts as unfinished."""
        logger.debug("Writing %s", path.name)
        sidecar_path(path).unlink(missing_ok=True)
        write_atomically(path, writer)

    def write_sidecar(self, paths: Sequence[Path], sidecar: Sidecar, record: Record) -> None:
        """Write the common sidecar of existing files, with their hashes.

        Parameters
        ----------
        paths : sequence of Path
            The files; they must share the name of the sidecar.
        sidecar : Sidecar
            BIDS metadata.
        record : Record
            Record of this program.
        """
        hashes = {path.name: sha256_of_file(path) for path in paths}
        sizes = {path.name: path.stat().st_size for path in paths}
        here = [path for path in sidecar.sources if path.is_relative_to(self.root)]
        sources = {self.uri(path): _recorded_hash(path) for path in here if exists(path)}
        record = record.model_copy(
            update={"file_sha256": hashes, "file_bytes": sizes, "source_sha256": sources}
        )
        content = {
            "Description": sidecar.description,
            "Sources": [self.uri(source) for source in sidecar.sources],
            **self.common,
            **sidecar.keys,
            RECORD_KEY: record.model_dump(mode="json"),
        }
        content = json.loads(json.dumps(content))  # hash the content as it will be read
        content[RECORD_KEY]["sidecar_sha256"] = hash_of_sidecar(content)
        write_json(sidecar_path(paths[0]), content)

    def write_map(
        self, path: Path, data: NDArray[np.generic], grid: Grid, sidecar: Sidecar, record: Record
    ) -> None:
        """Write an image with its sidecar.

        Parameters
        ----------
        path : Path
            The ``.nii.gz``.
        data : ndarray, shape (X, Y, Z) or (X, Y, Z, V)
            Values in RAS+ order.
        grid : Grid
            Grid of the values.
        sidecar : Sidecar
            BIDS metadata.
        record : Record
            Record of this program.
        """
        self.write_data(path, lambda p: write_image(p, data, grid))
        self.write_sidecar([path], sidecar, record)


def _recorded_hash(path: Path) -> str:
    """Return the hash of a file of ours, as in its sidecar; that of the file while it has none."""
    try:
        recorded: str = read_record(path)["file_sha256"][path.name]
    except (TractographyError, OSError, ValueError, LookupError, TypeError):
        return sha256_of_file(path)
    return recorded


def why_stale(path: Path, fingerprint: Fingerprint) -> str | None:
    """Return why a file must be computed again, or None if it is up to date.

    Parameters
    ----------
    path : Path
        The file.
    fingerprint : Fingerprint
        Everything that its content depends on now.
    """
    if not path.exists():
        return "it does not exist"
    if not path.is_file():
        return "it is not a regular file"
    try:
        content = read_sidecar(path)
        record = content[RECORD_KEY]
        before = Fingerprint.model_validate(record["fingerprint"])
        as_recorded = record["sidecar_sha256"] == hash_of_sidecar(content)
        as_written = record["file_sha256"][path.name] == sha256_of_file(path)
    except (TractographyError, OSError, ValueError, LookupError, TypeError, AttributeError):
        return "it is incomplete or was not written by this program"
    if not as_recorded:
        return "its sidecar was modified or damaged"
    if not as_written:
        return "it was modified or damaged"
    parts = fingerprint.differences(before)
    return f"it was computed with {' and '.join(parts)}" if parts else None


def made_with(path: Path) -> Fingerprint | None:
    """Return the fingerprint of a finished file; None if it is unfinished or was modified.

    The content of files is not read, only their sizes.
    """
    try:
        content = read_sidecar(path)
        if why_changed(path, content) is not None:
            return None
        return Fingerprint.model_validate(content[RECORD_KEY]["fingerprint"])
    except (TractographyError, OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def why_changed(path: Path, content: Mapping[str, Any], *, read_files: bool = False) -> str | None:
    """Return how a sidecar or its files differ from what was written, or None.

    Parameters
    ----------
    path : Path
        The sidecar, or one of its files.
    content : mapping
        Content of the sidecar, see `read_sidecar`.
    read_files : bool
        Whether to compare the contents of the files in addition to their sizes.

    Raises
    ------
    OSError, ValueError, LookupError, TypeError, AttributeError
        If the sidecar does not have a valid record.
    """
    record = content[RECORD_KEY]
    if record["sidecar_sha256"] != hash_of_sidecar(content):
        return "the sidecar was modified or damaged"
    if not record["file_sha256"]:
        return "it does not name a file"
    for name, expected in record["file_sha256"].items():
        file = file_of_sidecar(path, name)
        if not file.exists():
            return f"{name} does not exist"
        if not file.is_file() or file.stat().st_size != record["file_bytes"][name]:
            return f"{name} was modified or damaged"
        if read_files and sha256_of_file(file) != expected:
            return f"{name} was modified or damaged"
    return None


def read_sidecar(path: Path) -> dict[str, Any]:
    """Read the sidecar of a file written by this program."""
    content: dict[str, Any] = read_json_file(sidecar_path(path))
    return content


def read_record(path: Path) -> dict[str, Any]:
    """Read the record in the sidecar of a file written by this program."""
    record: dict[str, Any] = read_sidecar(path)[RECORD_KEY]
    return record

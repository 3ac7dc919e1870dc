"""Names and places of what is written, and writing that leaves nothing half done.

Names follow BEP016 (``dwimap``) and BEP046 (``tractogram``), which are proposals; a
``.bidsignore`` keeps the validator from stumbling over them.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import stat
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_tractography import __version__
from bids_tractography.errors import BusyError, NoInputError, OutputError, TractographyError
from bids_tractography.files import read_json_file
from bids_tractography.images import Grid, write_image
from bids_tractography.provenance import (
    RECORD_KEY,
    Fingerprint,
    Record,
    hash_of_sidecar,
    sha256_of_file,
    sha256_of_json,
)

logger = logging.getLogger(__name__)

PIPELINE = "bids_tractography"
BIDS_VERSION = "1.11.1"
WORK = ".work"  # locks, and batches unless --work-dir names another folder
_TEMPORARY = ".tmp-"

# As the two proposals and the released schema order them.
_ENTITY_ORDER = (
    *("sub", "ses", "sample", "task", "acq", "ce", "trc", "rec", "dir", "run", "mod", "echo"),
    *("flip", "inv", "mt", "part", "proc", "hemi", "space", "tract", "track", "model", "param"),
    *("split", "recording", "chunk", "atlas", "seg", "scale", "res", "den", "label", "desc"),
)

# What names of results have beside the entities of the DWI.
_DERIVED = {"tract", "track", "model", "param", "label", "desc"}

_BIDSIGNORE = """\
*_tractogram.*
*_dwimap.*
group_*
*.html
figures
.work
"""


def entities_of(name: str) -> dict[str, str]:
    """Split a BIDS file name into its entities, in order."""
    pairs = (part.partition("-") for part in name.split("_")[:-1])
    return {key: value for key, separator, value in pairs if separator}


def file_name(entities: Mapping[str, str], suffix: str, extension: str) -> str:
    """Join entities in the order of the specification; unknown ones follow ``run``."""
    unknown = _ENTITY_ORDER.index("run") + 0.5

    def place(key: str) -> float:
        return _ENTITY_ORDER.index(key) if key in _ENTITY_ORDER else unknown

    ordered = sorted(entities.items(), key=lambda item: place(item[0]))
    return "_".join([*(f"{key}-{value}" for key, value in ordered), suffix]) + extension


@dataclass(frozen=True)
class Sidecar:
    """What BIDS wants to know of a file.

    Parameters
    ----------
    description : str
    sources : list of Path
        Direct parents; written as BIDS URIs.
    keys : dict
        Further keys of the specification or its proposals, JSON values.
    """

    description: str
    sources: list[Path]
    keys: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunOutputs:
    """Places and sidecars of what is made of one DWI run.

    Parameters
    ----------
    root : Path
        The derivative dataset.
    source : str
        File name of the DWI.
    links : mapping of str to Path
        Datasets that BIDS URIs may name.
    common : mapping
        Keys that every sidecar gets (``SpatialReference`` where there is ``space-``).
    """

    root: Path
    source: str
    links: Mapping[str, Path]
    common: Mapping[str, Any] = field(default_factory=dict)

    @property
    def entities(self) -> dict[str, str]:
        """Entities of the source, without ``desc``."""
        return {k: v for k, v in entities_of(self.source).items() if k != "desc"}

    @property
    def name(self) -> str:
        """What all names begin with."""
        return file_name(self.entities, "", "").removesuffix("_")

    @property
    def folder(self) -> Path:
        """Where the files go."""
        entities = self.entities
        session = [f"ses-{entities['ses']}"] if "ses" in entities else []
        return self.root.joinpath(f"sub-{entities['sub']}", *session, "dwi")

    def batches(self, work: Path, dataset: Path) -> Path:
        """Return the folder for unfinished batches, which no other output or dataset shares.

        Parameters
        ----------
        work : Path
            Folder for unfinished work, which several outputs may share.
        dataset : Path
            Root of the dataset that the DWI is from.
        """
        digest = sha256_of_json([str(self.root), str(dataset)])
        return work / f"{self.name}.{digest[:12]}.batches"

    def path(self, suffix: str, extension: str = ".nii.gz", **entities: str) -> Path:
        """Return the path of a derivative."""
        return self.folder / file_name({**self.entities, **entities}, suffix, extension)

    def uri(self, path: Path) -> str:
        """Return the BIDS URI of a file in this or a linked dataset, or its path elsewhere."""
        if path.is_relative_to(self.root):
            return f"bids::{path.relative_to(self.root).as_posix()}"
        homes = [(name, root) for name, root in self.links.items() if path.is_relative_to(root)]
        if not homes:
            return path.as_uri()
        name, root = max(homes, key=lambda item: len(item[1].parts))
        return f"bids:{name}:{path.relative_to(root).as_posix()}"

    def remove_leftovers(self, keep: Path | None = None) -> None:
        """Remove temporary files of a run that was killed, but one; only while holding its lock."""
        for path, name in _leftovers(self.folder):
            of_run = name.startswith(f"{self.name}_") and path != keep
            if of_run and entities_of(name).keys() - _DERIVED == self.entities.keys():
                path.unlink(missing_ok=True)

    def write_data(self, path: Path, writer: Callable[[Path], None]) -> None:
        """Write a file under a temporary name first; a file without a sidecar is unfinished."""
        logger.info("Writing %s", path.name)
        sidecar_path(path).unlink(missing_ok=True)
        write_atomically(path, writer)

    def write_sidecar(self, paths: Sequence[Path], sidecar: Sidecar, record: Record) -> None:
        """Write the one sidecar of files that are there, with their hashes."""
        hashes = {path.name: sha256_of_file(path) for path in paths}
        sizes = {path.name: path.stat().st_size for path in paths}
        record = record.model_copy(update={"file_sha256": hashes, "file_bytes": sizes})
        content = {
            "Description": sidecar.description,
            "Sources": [self.uri(source) for source in sidecar.sources],
            **self.common,
            **sidecar.keys,
            RECORD_KEY: record.model_dump(mode="json"),
        }
        content = json.loads(json.dumps(content))  # as it will be read
        content[RECORD_KEY]["sidecar_sha256"] = hash_of_sidecar(content)
        write_json(sidecar_path(paths[0]), content)

    def write_map(
        self, path: Path, data: NDArray[np.generic], grid: Grid, sidecar: Sidecar, record: Record
    ) -> None:
        """Write an image on a grid, with its sidecar."""
        self.write_data(path, lambda p: write_image(p, data, grid))
        self.write_sidecar([path], sidecar, record)


def sidecar_path(path: Path) -> Path:
    """Return the path of the JSON beside a file; of the JSON itself, its own."""
    return path.with_name(path.name.removesuffix(".gz").rpartition(".")[0] + ".json")


def why_stale(path: Path, fingerprint: Fingerprint) -> str | None:
    """Tell why a file has to be made again; None if it is up to date."""
    if not path.exists():
        return "it is not there"
    if not path.is_file():
        return "it is not a regular file"
    try:
        content = read_sidecar(path)
        record = content[RECORD_KEY]
        made_with = Fingerprint.model_validate(record["fingerprint"])
        as_recorded = record["sidecar_sha256"] == hash_of_sidecar(content)
        as_written = record["file_sha256"][path.name] == sha256_of_file(path)
    except (TractographyError, OSError, ValueError, LookupError, TypeError, AttributeError):
        return "it is unfinished, or not ours"
    if not as_recorded:
        return "its sidecar was changed or damaged"
    if not as_written:
        return "it was changed or damaged"
    parts = fingerprint.differences(made_with)
    return f"it was made with another {' and '.join(parts)}" if parts else None


def why_changed(path: Path, content: Mapping[str, Any], *, read_files: bool = False) -> str | None:
    """State how a sidecar or its files differ from what was written; None if they do not.

    Parameters
    ----------
    path : Path
        The sidecar, or one of its files.
    content : mapping
        Of the sidecar, see `read_sidecar`.
    read_files : bool
        Compare the contents of the files, too, not only their sizes.

    Raises
    ------
    OSError, ValueError, LookupError, TypeError, AttributeError
        If the sidecar is not one of ours.
    """
    record = content[RECORD_KEY]
    if record["sidecar_sha256"] != hash_of_sidecar(content):
        return "the sidecar was changed or damaged"
    if not record["file_sha256"]:
        return "it names no file"
    for name, expected in record["file_sha256"].items():
        file = file_of_sidecar(path, name)
        if not file.exists():
            return f"{name} does not exist"
        if not file.is_file() or file.stat().st_size != record["file_bytes"][name]:
            return f"{name} was changed or damaged"
        if read_files and sha256_of_file(file) != expected:
            return f"{name} was changed or damaged"
    return None


def file_of_sidecar(sidecar: Path, name: str) -> Path:
    """Return the path of a file that a sidecar names.

    Raises
    ------
    ValueError
        If the file would not lie in the directory of the sidecar under the sidecar's name.
    """
    path = sidecar.parent / name
    if Path(name).name != name or sidecar_path(path) != sidecar_path(sidecar):
        raise ValueError(f"{name!r} is not a file of {sidecar.name}")
    return path


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty if there is none that can be read."""
    try:
        content = read_json_file(path)
    except (TractographyError, OSError):
        return {}
    return content if isinstance(content, dict) else {}


def read_sidecar(path: Path) -> dict[str, Any]:
    """Read the sidecar of a file of ours, see `why_stale` and `why_changed`."""
    content: dict[str, Any] = read_json_file(sidecar_path(path))
    return content


def read_record(path: Path) -> dict[str, Any]:
    """Read our record in the sidecar of a file of ours."""
    record: dict[str, Any] = read_sidecar(path)[RECORD_KEY]
    return record


def _leftovers(folder: Path) -> list[tuple[Path, str]]:
    """Find the temporary files in a folder, with the names that they were meant to get."""
    with suppress(OSError):
        names = [path.name for path in folder.iterdir() if path.name.startswith(_TEMPORARY)]
        return [(folder / n, n.removeprefix(_TEMPORARY).partition(".")[2]) for n in names]
    return []


def write_atomically(path: Path, writer: Callable[[Path], None]) -> None:
    """Write under a temporary name in the same folder, force to disk, and rename.

    Raises
    ------
    OutputError
        If the folder cannot be written or the disk is full.
    """
    temporary = path.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror or error}).") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Make a folder and those above it.

    Raises
    ------
    OutputError
        If that cannot be done.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be made ({error.strerror}).") from None


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    write_atomically(path, lambda p: _write_text(p, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, indented; values that JSON does not have are an error."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


@contextmanager
def exclusive(root: Path, name: str, *, wait: bool = False) -> Iterator[None]:
    """Hold a run of an output folder for this process.

    Parameters
    ----------
    root : Path
        The output folder.
    name : str
        Name of the run.
    wait : bool
        Wait for another process that holds it.

    Raises
    ------
    BusyError
        If another process holds it, and this one does not wait.
    OutputError
        If the lock file cannot be written.
    """
    with locked(root / WORK / f"{name}.lock", wait=wait):
        yield


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock file for this process.

    The kernel releases the lock when the process ends, however it ends. The file is removed by its
    holder; that of a killed process is locked again by the next one.

    Parameters
    ----------
    path : Path
        The lock file; its folder is created, and stays.
    wait : bool
        Wait for another process that holds it.

    Raises
    ------
    BusyError
        If another process holds it, and this one does not wait.
    OutputError
        If the lock file cannot be written, or is not a regular file.
    """
    make_folder(path.parent)
    descriptor = _acquire(path, wait=wait)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _acquire(path: Path, *, wait: bool) -> int:
    while True:  # each further turn means that a holder has removed the file meanwhile
        descriptor, held = _open_lock(path), False
        try:
            held = _is_locked(path, descriptor, wait=wait)
        finally:
            if not held:
                os.close(descriptor)
        if held:
            return descriptor


def _open_lock(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        raise OutputError(f"{path} cannot be opened as a lock ({error.strerror}).") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OutputError(f"{path} is not a regular file.", "Remove it.")
    return descriptor


def _is_locked(path: Path, descriptor: int, *, wait: bool) -> bool:
    """Lock an open file; return False if it is not the file at the path any more."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise BusyError(
            f"another process is working on {path.stem}.", "Wait for it, or stop it."
        ) from None
    except OSError as error:
        logger.warning("Cannot lock %s (%s): run one process at a time.", path, error.strerror)
        return True
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    return False


def check_output_folder(output: Path, bids: Path, work: Path) -> None:
    """Refuse places that would damage the input or cannot be written.

    Raises
    ------
    OutputError
        If the output or work folder is the input, lies in it other than under
        ``derivatives/``, or cannot be written.
    """
    for name, folder in (("output", output), ("work", work)):
        inside = folder == bids or folder.is_relative_to(bids)
        if inside and not (folder.is_relative_to(bids / "derivatives") and folder.parent != bids):
            raise OutputError(
                f"the {name} folder {folder} lies inside the input {bids}.",
                f"Use {bids / 'derivatives' / PIPELINE} or a place outside.",
            )
        if not _is_writable(folder):
            raise OutputError(
                f"the {name} folder {folder} cannot be written.",
                "Choose another one, or check the permissions of the folders above it.",
            )


def _is_writable(folder: Path) -> bool:
    """Tell whether a folder can be written, or made in the nearest one above that exists."""
    try:
        above = (folder, *folder.parents)
        there = next(path for path in above if path.exists() or path.is_symlink())
        return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    except OSError:  # below a folder that may not be searched
        return False


@contextmanager
def dataset_files(root: Path) -> Iterator[None]:
    """Hold the files of the dataset as a whole: those in its root, ``code/`` and ``logs/``.

    Everyone who writes there holds them, so that temporary files found there are of processes
    that were killed; they are removed.
    """
    with exclusive(root, "dataset", wait=True):
        for folder in (root, root / "code", root / "logs"):
            for path, _ in _leftovers(folder):
                with suppress(OSError):
                    path.unlink()
        yield


def write_dataset_files(
    root: Path,
    links: Mapping[str, Path],
    inputs_generated_by: list[dict[str, Any]],
    container: dict[str, str] | None,
) -> None:
    """Write what makes the output folder a BIDS derivative dataset, holding `dataset_files`."""
    path = root / "dataset_description.json"
    before = _our_description(path)
    ourselves: dict[str, Any] = {
        "Name": PIPELINE,
        "Version": __version__,
        "Description": "Whole-brain tractography.",
    }
    if container:
        ourselves["Container"] = container
    # Links of earlier calls stay: sidecars that are there use them.
    targets = _links(path, before) | {n: link_target(root, p) for n, p in links.items()}
    description = {
        "Name": "Whole-brain tractography",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [ourselves, *inputs_generated_by],
        "SourceDatasets": [{"URL": target} for target in dict.fromkeys(targets.values())],
        "DatasetLinks": targets,
    }
    write_json(path, description)
    write_text(root / ".bidsignore", _BIDSIGNORE)
    write_text(root / "README", _readme())


def _our_description(path: Path) -> dict[str, Any]:
    """Read the description of an earlier call; refuse that of another pipeline."""
    if not os.path.lexists(path):
        return {}
    try:
        content: dict[str, Any] = read_json_file(path, strict=True)
        name = content["GeneratedBy"][0]["Name"]
    except NoInputError as error:
        raise OutputError(error.message) from None
    except (TractographyError, OSError, LookupError, TypeError):
        name = None
    if name != PIPELINE:
        raise OutputError(
            f"{path.parent} holds a dataset that is not ours, as {path.name} shows.",
            "Choose another output directory.",
        )
    return content


def _links(path: Path, description: Mapping[str, Any]) -> dict[str, str]:
    """Return the links of an earlier call."""
    links = description.get("DatasetLinks", {})
    if not isinstance(links, dict) or not all(isinstance(uri, str) for uri in links.values()):
        raise OutputError(
            f"{path}: DatasetLinks does not map names to URIs.", "Correct or delete the file."
        )
    return links


def link_target(root: Path, dataset: Path) -> str:
    """Return how an output dataset points to another: relative when it lies inside it."""
    if root.is_relative_to(dataset):
        return Path(os.path.relpath(dataset, root)).as_posix()
    return dataset.as_uri()


def link_name(path: Path, taken: Mapping[str, Path]) -> str:
    """Make a name for a dataset from its folder that no other has."""
    base = re.sub(r"[^0-9a-zA-Z-]+", "-", path.name).strip("-") or "dataset"
    name, number = base, 2
    while name in taken:
        name, number = f"{base}-{number}", number + 1
    return name


def _readme() -> str:
    return f"""\
Whole-brain tractography, made by {PIPELINE} {__version__}.

sub-*/[ses-*/]dwi/
  *_tractogram.trx            streamlines, RAS+ mm (TRX: trx-python, nibabel, DIPY, MI-Brain)
  *_tractogram.json           how they were made, and what became of every seed
  *_param-tdi_dwimap.nii.gz   streamlines through each voxel
  *_param-fod_dwimap.nii.gz   fODF, spherical harmonics in MRtrix3's basis, scanner axes
  *_model-tensor_*_dwimap     scalar maps of the tensor fit
  *_desc-{{brain,seed,stop}}_mask  the masks that were used
group_tractograms.tsv         one row a DWI run (made by the group level)
code/config.yaml              the resolved configuration
logs/                         records of the runs; CITATION.md: the method in words
"""

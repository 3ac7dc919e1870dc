"""Find recorded input files by their content, and arrange them as they were."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path, PurePosixPath

from bids_tractography import BIDS_VERSION
from bids_tractography.errors import OutputError, TractographyError
from bids_tractography.outputs.dataset import link_name, parse_uri
from bids_tractography.outputs.files import make_folder, read_json, write_json
from bids_tractography.outputs.provenance import InputFile, sha256_of_file

logger = logging.getLogger(__name__)

_OUTSIDE = "outside"  # directory of files that are outside of all datasets
# What decides how files of a dataset are used and described.
_DESCRIPTION = ("DatasetType", "GeneratedBy", "PipelineDescription")


@dataclass(frozen=True)
class Located:
    """Where a recorded input file is now.

    Parameters
    ----------
    file : InputFile
        As recorded.
    path : Path or None
        A file with the recorded content; None if there is none.
    in_place : Path or None
        Where none has the recorded content: the file at the recorded location.
    sha256 : str
        Hash of `path` or `in_place`; empty if there is no such file.
    """

    file: InputFile
    path: Path | None = None
    in_place: Path | None = None
    sha256: str = ""


class Search:
    """A search for files by their content.

    Parameters
    ----------
    folders : sequence of Path
        Directories to search.
    datasets : mapping of str to Path
        Datasets of BIDS URIs; only the files that URIs name are read there.
    """

    def __init__(self, folders: Sequence[Path], datasets: Mapping[str, Path]) -> None:
        self._folders = folders
        self._datasets = datasets
        self._hashes: dict[Path, str] = {}

    def locate(self, file: InputFile) -> Located:
        """Find a file with the recorded content.

        It is looked for at its recorded location, then among the files of the same name in the
        directories, then among all files with the same extension.
        """
        named = list(self._at(file.uri))
        for path in chain(named, self._elsewhere(parse_uri(file.uri)[1].name)):
            if self._hash(path) == file.sha256:
                return Located(file, path, sha256=file.sha256)
        in_place = next((path for path in named if self._hash(path)), None)
        return Located(file, None, in_place, self._hash(in_place) if in_place else "")

    def _at(self, uri: str) -> Iterator[Path]:
        """Yield the paths that a URI may stand for."""
        name, path = parse_uri(uri)
        if path.is_absolute():
            yield Path(path)
            return
        yield from (folder / path for folder in self._folders)
        if name in self._datasets:
            yield self._datasets[name] / path

    def _elsewhere(self, name: str) -> Iterator[Path]:
        """Yield files of the same name, then those with the same extension."""
        yield from (path for path in self._files if path.name == name)
        extension = _extension(name)
        others = [p for p in self._files if p.name != name and _extension(p.name) == extension]
        if others:
            logger.info("Looking for the content of %s in %d other files.", name, len(others))
        yield from others

    @cached_property
    def _files(self) -> list[Path]:
        """All files of the directories, except in hidden ones."""
        found = []
        for root in self._folders:
            for folder, inner, names in os.walk(root):
                inner[:] = sorted(name for name in inner if not name.startswith("."))
                found += [Path(folder, name) for name in sorted(names)]
        return found

    def _hash(self, path: Path) -> str:
        """Return the hash of a file; empty if it cannot be read."""
        if path not in self._hashes:
            try:
                self._hashes[path] = sha256_of_file(path)
            except (TractographyError, OSError):
                self._hashes[path] = ""
        return self._hashes[path]


def _extension(name: str) -> str:
    return name[name.find(".") :] if "." in name else ""


@dataclass(frozen=True)
class Stage:
    """Links to the input files in the structure of their datasets.

    Parameters
    ----------
    main : Path
        The dataset of the DWI.
    others : tuple of Path
        The other datasets.
    paths : mapping of str to Path
        Links by role.
    """

    main: Path
    others: tuple[Path, ...]
    paths: Mapping[str, Path]


def stage(folder: Path, located: Iterable[Located]) -> Stage:
    """Link the input files to their recorded paths, in a directory for each dataset.

    The program then finds these files and no others, whatever they are named now.

    Parameters
    ----------
    folder : Path
        Directory to create, without symbolic links in its path. Links that another process has
        made there for the same files are kept.
    located : iterable of Located
        Files with a path.

    Raises
    ------
    OutputError
        If the directory cannot be written, or the paths contradict each other.
    """
    roots: dict[tuple[str, bool], Path] = {}
    paths: dict[str, Path] = {}
    for one in located:
        name, recorded = parse_uri(one.file.uri)
        key = (name, recorded.is_absolute())
        if key not in roots:
            label = _OUTSIDE if key[1] else name or "derivatives"
            taken = {root.name: root for root in roots.values()}
            roots[key] = folder / link_name(Path(label), taken)
            _describe(roots[key], _root_of(one.path, recorded))
        paths[one.file.role] = roots[key] / recorded.relative_to(recorded.anchor)
        _link(paths[one.file.role], one.path)
    main = next(root for root in roots.values() if paths["dwi"].is_relative_to(root))
    return Stage(
        main,
        tuple(root for (_, outside), root in roots.items() if root != main and not outside),
        paths,
    )


def _root_of(path: Path | None, recorded: PurePosixPath) -> Path | None:
    """Return the dataset of a file that is still at its recorded path inside its dataset."""
    depth = len(recorded.parts)
    if path is None or path.parts[-depth:] != recorded.parts:
        return None
    return Path(*path.parts[:-depth])


def _describe(root: Path, original: Path | None) -> None:
    """Describe a dataset like the original, as far as that is known."""
    make_folder(root)
    known = read_json(original / "dataset_description.json") if original else {}
    description = {"Name": root.name, "BIDSVersion": BIDS_VERSION}
    description |= {key: known[key] for key in _DESCRIPTION if known.get(key)}
    write_json(root / "dataset_description.json", description)


def _link(link: Path, target: Path | None) -> None:
    if target is None:
        raise ValueError(f"{link.name} was not found")
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink():
            if link.readlink() == target:
                return
            link.unlink()
        link.symlink_to(target)
    except OSError as error:
        raise OutputError(f"{link} cannot be linked to {target} ({error.strerror}).") from None

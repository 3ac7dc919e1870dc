"""Index of the files of one participant in one dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bids_tractography.errors import NoMatchError
from bids_tractography.inputs.bidsignore import FILE as BIDSIGNORE
from bids_tractography.inputs.bidsignore import read_bidsignore
from bids_tractography.inputs.datasets import Dataset
from bids_tractography.inputs.entities import Name, parse_name
from bids_tractography.inputs.layout import layout_of
from bids_tractography.inputs.tree import list_tree
from bids_tractography.machine.files import printable

IMAGE = (".nii.gz", ".nii")


@dataclass(frozen=True)
class BidsFile:
    """A file of a participant.

    Parameters
    ----------
    dataset : str
        Name of the dataset.
        root : Path
            Root of the dataset.
        path : Path
            Absolute path of the file.
    ignored : bool
        Whether ``.bidsignore`` excludes the file.
    """

    dataset: str
    root: Path
    path: Path
    ignored: bool = False

    @cached_property
    def name(self) -> Name:
        """Parsed file name."""
        return parse_name(self.path.name)

    @cached_property
    def folders(self) -> tuple[str, ...]:
        """Names of the folders above the file, from the root of the dataset."""
        return self.path.relative_to(self.root).parts[:-1]

    @cached_property
    def entities(self) -> Mapping[str, str]:
        """Entities of the file name, completed with participant and session of the folders."""
        above = dict(f.split("-", 1) for f in self.folders if f.startswith(("sub-", "ses-")))
        return {**above, **self.name.entities}

    @property
    def session(self) -> str | None:
        """Session label."""
        return self.entities.get("ses")

    @property
    def data_type(self) -> str:
        """Data type, i.e. the folder of the file, e.g. ``dwi``; empty in the folders above."""
        return self.folders[-1] if len(self.folders) > 1 and "-" not in self.folders[-1] else ""

    @property
    def is_image(self) -> bool:
        """Whether the file is a NIfTI image according to its name."""
        return self.name.extension in IMAGE

    @property
    def misplaced(self) -> str | None:
        """Why the name contradicts the folders above the file, or None if it does not."""
        for folder in self.folders:
            key, _, value = folder.partition("-")
            if value and self.name.entities.get(key, value) != value:
                return f"its name contradicts the folder {folder}"
        return None


class Index:
    """The files of one participant in one dataset.

    Parameters
    ----------
    dataset : Dataset
    subject : str
        Label without ``sub-``.
    databases : Path or None
        Folder for pybids' databases; None keeps them in memory.

    Raises
    ------
    NoInputError
        If the participant's folder cannot be listed.
    """

    def __init__(self, dataset: Dataset, subject: str, databases: Path | None) -> None:
        tree = list_tree(dataset.root, subject)
        patterns = read_bidsignore(dataset.root)
        self.dataset = dataset
        self.not_utf8 = tuple(tree.not_utf8)
        self.unreadable = tuple(tree.unreadable)
        self.warnings = (patterns.warning,) if patterns.warning else ()
        self.files: tuple[BidsFile, ...] = tuple(
            BidsFile(
                dataset.name,
                dataset.root,
                path,
                patterns.hides(
                    path.relative_to(dataset.root).as_posix(),
                    parse_name(path.name),
                    derivative=dataset.is_derivative,
                ),
            )
            for path in tree.files
        )
        self._by_path = {str(file.path): file for file in self.files}
        self._layout = layout_of(dataset.root, tree.files, databases)

    def get(self, query: Mapping[str, Any]) -> list[BidsFile]:
        """Return the files that match pybids filters, including ignored files.

        Raises
        ------
        NoMatchError
            If pybids does not know an entity of the filters.
        """
        try:
            found = self._layout.get(**query)
        except ValueError as error:
            raise NoMatchError(f"BIDS filters {dict(query)}: {error}") from None
        return [self._by_path[file.path] for file in found]


def ignored_reason(file: BidsFile) -> str | None:
    """Return that ``.bidsignore`` excludes a file, or None if it does not."""
    return f"listed in {printable(file.root / BIDSIGNORE)}" if file.ignored else None

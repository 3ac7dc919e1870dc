"""Listing of the files of one participant in one dataset.

Only files in the root, in ``sub-<label>/``, in ``sub-<label>/ses-<label>/`` and in the data type
folders of these belong to the dataset. Copies in any other folder do not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bids_tractography.errors import NoInputError
from bids_tractography.machine.files import is_utf8, printable

PARTICIPANT = re.compile(r"sub-[0-9a-zA-Z+]+")
_SESSION = re.compile(r"ses-[0-9a-zA-Z+]+")
# Folders with such names are listed like files, so that using one as a file is reported.
_LIKE_A_FILE = re.compile(r"(_[0-9a-zA-Z]+|\bdataset_description|\bparticipants)\.[0-9a-zA-Z.]+$")
# BIDS data types that may contain inputs; walking the others would take time.
_TRACTOGRAPHY = "tractography"  # pyAFQ's folder of tractograms
_DATA_TYPES = frozenset({"anat", "dwi", "fmap", "perf", _TRACTOGRAPHY})


@dataclass
class Tree:
    """The files of one participant in one dataset.

    Parameters
    ----------
    root : Path
        Root of the dataset.
    files : list of Path
        Absolute paths of all files, including folders whose names look like files.
    not_utf8 : list of Path
        Files whose names are not valid UTF-8.
    unreadable : list of Path
        Folders that cannot be listed.
    """

    root: Path
    files: list[Path] = field(default_factory=list)
    not_utf8: list[Path] = field(default_factory=list)
    unreadable: list[Path] = field(default_factory=list)

    def add(self, path: Path) -> None:
        """Add a file."""
        (self.files if is_utf8(path) else self.not_utf8).append(path)


def list_tree(root: Path, subject: str) -> Tree:
    """List the files of a participant, and files in the root that it may inherit.

    Parameters
    ----------
    root : Path
        Root of the dataset.
    subject : str
        Label without ``sub-``.

    Raises
    ------
    NoInputError
        If the root or the participant's folder cannot be listed.
    """
    tree = Tree(root)
    participant = root / f"sub-{subject}"
    _entries(root, tree)
    folders = list(_entries(participant, tree))
    for folder in (root, participant):
        if folder in tree.unreadable:
            raise NoInputError(
                f"{printable(folder)} cannot be read.",
                "Grant read and search permission to the user who runs the app.",
            )
    for folder in folders:
        if _SESSION.fullmatch(folder.name):
            for inner in _entries(folder, tree):
                _add_data_type(inner, tree)
        else:
            _add_data_type(folder, tree)
    return tree


def _add_data_type(folder: Path, tree: Tree) -> None:
    if folder.name not in _DATA_TYPES:
        return
    for inner in _entries(folder, tree):
        if inner.name == _TRACTOGRAPHY:
            _entries(inner, tree)


def _entries(folder: Path, tree: Tree) -> list[Path]:
    """Add the files of a folder to the tree and return its folders (for the root: none)."""
    folders = []
    try:
        found = sorted(_scan(folder))
    except OSError:
        tree.unreadable.append(folder)
        return []
    for name, is_folder in found:
        if name.startswith("."):
            continue  # includes the ._* files of macOS
        if is_folder and folder == tree.root:
            continue  # other participants, possibly thousands, are not searched
        path = folder / name
        if is_folder and not _LIKE_A_FILE.search(name):
            if not _leads_back(path):
                folders.append(path)
        else:
            tree.add(path)
    return folders


def _scan(folder: Path) -> Iterator[tuple[str, bool]]:
    if not os.access(folder, os.X_OK):  # the names could be listed, but no file opened
        raise PermissionError
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                yield entry.name, entry.is_dir()
            except OSError:  # a link to itself
                yield entry.name, False


def _leads_back(folder: Path) -> bool:
    """Return whether a folder is a link to one of its parents."""
    if not folder.is_symlink():
        return False
    target = os.path.realpath(folder)
    return os.path.commonpath([target, os.path.realpath(folder.parent)]) == target

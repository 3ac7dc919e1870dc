"""BIDS datasets and their participants."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bids_tractography.errors import DataError, InvalidBidsError, NoInputError, NoMatchError
from bids_tractography.inputs.tree import PARTICIPANT
from bids_tractography.machine.files import is_utf8, printable, read_json_file, read_text


@dataclass(frozen=True)
class Dataset:
    """A BIDS dataset.

    Parameters
    ----------
    name : str
        Name of the dataset in BIDS URIs.
    root : Path
        Absolute path without symbolic links.
    description : mapping
        Content of ``dataset_description.json``.

    Raises
    ------
    NoInputError
        If the path of the root is not valid UTF-8.
    """

    name: str
    root: Path
    description: Mapping[str, Any]

    def __post_init__(self) -> None:
        _check_name(self.root)

    @property
    def generated_by(self) -> tuple[str, ...]:
        """Names of the pipelines that generated the dataset; empty if it does not state any."""
        keys = ("GeneratedBy", "PipelineDescription")  # the latter in older versions of BIDS
        return tuple(name for key in keys for name in _names(self.description.get(key)))

    @property
    def is_derivative(self) -> bool:
        """Whether the dataset is a derivative, by its type or, if unstated, by its generator."""
        declared = self.description.get("DatasetType")
        if isinstance(declared, str) and declared.strip():
            return declared.strip().lower() == "derivative"
        return bool(self.generated_by)

    def participant(self, label: str) -> dict[str, str] | None:
        """Return the row of a participant in ``participants.tsv``, without missing values.

        Parameters
        ----------
        label : str
            Without ``sub-``.

        Returns
        -------
        dict of str to str, or None
            None if there is no readable table or no row for the participant.
        """
        try:
            lines = read_text(self.root / "participants.tsv").split("\n")
            rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
        except (NoInputError, DataError, csv.Error):
            return None
        for row in rows:
            if str(row.get("participant_id")).strip().removeprefix("sub-") == label:
                given = {k.strip(): v.strip() for k, v in row.items() if isinstance(v, str) and k}
                return {key: value for key, value in given.items() if value not in ("", "n/a")}
        return None


def read_dataset(name: str, root: Path) -> Dataset:
    """Open a dataset.

    Parameters
    ----------
    name : str
        Name of the dataset in BIDS URIs.
    root : Path
        Root folder.

    Raises
    ------
    NoInputError
        If the folder does not exist.
    InvalidBidsError
        If it has no valid ``dataset_description.json``.
    """
    if not is_folder(root):
        raise NoInputError(f"{printable(root)} is not a directory.")
    _check_name(root)
    path = root / "dataset_description.json"
    try:
        description = read_json_file(path, InvalidBidsError, strict=True)
    except NoInputError:
        raise InvalidBidsError(
            f"{root} is not a BIDS dataset: it has no readable dataset_description.json.",
            "Point to the root of the dataset.",
        ) from None
    missing = [
        key
        for key in ("Name", "BIDSVersion")
        if not (isinstance(description, dict) and description.get(key))
    ]
    if missing:
        raise InvalidBidsError(f"{path} lacks {' and '.join(missing)}.")
    return Dataset(name, root.resolve(), description)


def find_participants(root: Path, labels: Iterable[str]) -> list[str]:
    """List the participants of a dataset: all, or those with the given labels.

    Folders whose names only begin like a participant's (``sub-01_old``) are ignored.

    Parameters
    ----------
    root : Path
        Root of the dataset.
    labels : iterable of str
        Labels without ``sub-``; empty for all participants.

    Raises
    ------
    NoMatchError
        If a label has no folder, or the dataset has no participants.
    NoInputError
        If the root cannot be listed.
    """
    try:
        there = sorted(
            path.name.removeprefix("sub-")
            for path in root.iterdir()
            if PARTICIPANT.fullmatch(path.name) and is_folder(path)
        )
    except OSError as error:
        raise NoInputError(f"{printable(root)} cannot be read ({error.strerror}).") from None
    wanted = [label.removeprefix("sub-") for label in labels]
    absent = [label for label in wanted if label not in there]
    if absent:
        raise NoMatchError(
            f"no participant {', '.join(absent)} in {root}.", f"Available: {join_names(there)}."
        )
    if not there:
        raise NoMatchError(f"{root} has no participant folders (sub-*).")
    return sorted(set(wanted)) if wanted else there


def join_names(names: list[str], max_names: int = 20) -> str:
    """Join names for a message, omitting those beyond a maximum number."""
    shown = ", ".join(names[:max_names])
    omitted = len(names) - max_names
    return f"{shown} and {omitted} more" if omitted > 0 else shown or "none"


def _names(declared: Any) -> tuple[str, ...]:
    """Return the names in a list of pipelines, one pipeline, or a bare name."""
    items = declared if isinstance(declared, list) else [declared]
    names = [
        item.get("Name", item.get("name")) if isinstance(item, dict) else item for item in items
    ]
    return tuple(name.strip() for name in names if isinstance(name, str) and name.strip())


def _check_name(root: Path) -> None:
    if not is_utf8(root):
        raise NoInputError(
            f"{printable(root)}: the path is not valid UTF-8.", "Rename the directory."
        )


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder; False if that cannot be determined."""
    try:
        return path.is_dir()
    except OSError:  # in a folder without search permission
        return False

"""BIDS datasets, and who is in them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bids_tractography.errors import InvalidBidsError, NoInputError, NoMatchError


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
            f"no participant {', '.join(absent)} in {root}.", f"There are: {some(there)}."
        )
    if not there:
        raise NoMatchError(f"{root} has no participant folder (sub-*).")
    return sorted(set(wanted)) if wanted else there


def some(names: list[str], most: int = 20) -> str:
    """List names for a message, not too many."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown or "none"

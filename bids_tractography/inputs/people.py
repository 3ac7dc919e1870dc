"""``participants.tsv`` of a dataset as a whole, with its data dictionary."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bids_tractography.errors import TractographyError
from bids_tractography.machine.files import read_json_file, read_text

_ID = "participant_id"
_MISSING = ("", "n/a")


@dataclass(frozen=True)
class People:
    """Participants of a dataset.

    Parameters
    ----------
    columns : tuple of str
        Without ``participant_id``.
    rows : mapping of str to mapping of str to str
        By ``participant_id``, with ``sub-``; without missing values.
    described : mapping of str to mapping
        Data dictionary, by column.
    """

    columns: tuple[str, ...] = ()
    rows: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    described: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def read_people(root: Path) -> People:
    """Read the participants of a dataset; nothing if there is no usable table.

    Parameters
    ----------
    root : Path
        Of the dataset.
    """
    try:
        lines = read_text(root / "participants.tsv").split("\n")
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        header, *table = [[cell.strip() for cell in line] for line in reader if line]
    except (TractographyError, OSError, ValueError, csv.Error):
        return People()
    if _ID not in header:
        return People()
    rows: dict[str, dict[str, str]] = {}
    for line in table:
        row = {key: value for key, value in zip(header, line, strict=False) if key}
        label = row.pop(_ID, "").removeprefix("sub-")
        given = {key: value for key, value in row.items() if value not in _MISSING}
        rows.setdefault(f"sub-{label}", given)
    columns = tuple(dict.fromkeys(key for key in header if key and key != _ID))
    return People(columns, rows, _described(root / "participants.json", columns))


def _described(path: Path, columns: tuple[str, ...]) -> dict[str, Mapping[str, Any]]:
    try:
        content = read_json_file(path, strict=True)
    except (TractographyError, OSError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {key: content[key] for key in columns if isinstance(content.get(key), dict)}

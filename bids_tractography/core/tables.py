"""Numeric tables in text files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bids_tractography.errors import DataError
from bids_tractography.machine.files import TEXT_BYTES, read_text


def read_table(
    path: Path, fault: type[DataError] = DataError, max_bytes: int = TEXT_BYTES
) -> NDArray[np.float64]:
    """Read a table of numbers separated by white space; ``#`` begins a comment.

    Parameters
    ----------
    path : Path
        Text file.
    fault : type
        Exception to raise if the file is not a table.
    max_bytes : int
        Maximum size of the file.

    Returns
    -------
    ndarray of float64, shape (rows, columns)

    Raises
    ------
    NoInputError
        If the file cannot be read.
    """
    lines = read_text(path, fault, max_bytes).splitlines()
    words = [line.partition("#")[0].split() for line in lines]
    try:
        rows = [[float(word) for word in row] for row in words if row]
    except ValueError as error:
        raise fault(f"{path}: {str(error)[:200]}.", "It may contain only numbers.") from None
    if not rows or any(len(row) != len(rows[0]) for row in rows):
        raise fault(f"{path} is empty or has rows of different lengths.")
    return np.array(rows)

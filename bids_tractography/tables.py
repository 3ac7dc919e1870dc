"""Tables of numbers in text files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bids_tractography.errors import DataError, NoInputError


def read_table(path: Path, fault: type[DataError] = DataError) -> NDArray[np.float64]:
    """Read rows of numbers, separated by white space; ``#`` begins a comment.

    Parameters
    ----------
    path : Path
    fault : type
        Raised for a file that is no table.

    Raises
    ------
    NoInputError
        If the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise NoInputError(f"{path} cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise fault(f"{path} is not a text file.") from None
    words = [line.partition("#")[0].split() for line in lines]
    try:
        rows = [[float(word) for word in row] for row in words if row]
    except ValueError as error:
        raise fault(f"{path}: {error}.", "Only numbers may stand in it.") from None
    if not rows or any(len(row) != len(rows[0]) for row in rows):
        raise fault(f"{path} is empty or has rows of different lengths.")
    return np.array(rows)

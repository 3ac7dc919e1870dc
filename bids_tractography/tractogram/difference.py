"""The first streamline in which two files of the same format differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import directed_hausdorff

from bids_tractography.tractogram.base import Reader
from bids_tractography.tractogram.formats.table import READERS, extension_of
from bids_tractography.tractogram.formats.trx import TrxReader

_SEED = "seed_index"  # as `store.BatchStore.per_streamline` names it


@dataclass(frozen=True)
class StreamlineDifference:
    """The first streamline that differs.

    Parameters
    ----------
    number : int
        Its place in the files, from 0.
    points : tuple of (int or None, int or None)
        Numbers of its points in the two files; None in the file that has fewer streamlines.
    distance_mm : float or None
        Hausdorff distance between its points in the two files, mm; None if only one has it.
    seed : int or None
        Index of its seed in the first file that has it, if the file stores the seeds.
    """

    number: int
    points: tuple[int | None, int | None]
    distance_mm: float | None
    seed: int | None


def first_difference(one: Path, other: Path) -> StreamlineDifference | None:
    """Compare two tractograms, streamline by streamline.

    Parameters
    ----------
    one, other : Path
        Tractograms in formats of `READERS`.

    Returns
    -------
    StreamlineDifference or None
        None if both have the same points, to the bit, in the same order.
    """
    readers = [READERS[extension_of(path) or ""](path) for path in (one, other)]
    for number, (a, b) in enumerate(zip_longest(*map(_each, readers))):
        if a is None or b is None or not np.array_equal(a, b):
            return StreamlineDifference(
                number,
                (None if a is None else len(a), None if b is None else len(b)),
                None if a is None or b is None else _distance_mm(a, b),
                _seed(readers[1 if a is None else 0], number),
            )
    return None


def _each(reader: Reader) -> Iterator[NDArray[np.float32]]:
    """Yield the points (n, 3) of one streamline after another."""
    for points, lengths in reader.streamlines():
        yield from np.split(points, np.cumsum(lengths, dtype=np.int64)[:-1])


def _distance_mm(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return max(float(directed_hausdorff(*pair)[0]) for pair in ((a, b), (b, a)))


def _seed(reader: Reader, number: int) -> int | None:
    if not isinstance(reader, TrxReader) or _SEED not in reader.values:
        return None
    return int(reader.read_values(_SEED, np.array([number]))[0, 0])

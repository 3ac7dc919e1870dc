"""Linearisation: drop points that lie on a straight line between others."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bids_tractography.errors import OutputError
from bids_tractography.tractogram.base import (
    LINEARISED,
    ArrayFile,
    Piece,
    Streamlines,
    blocks,
    read_array,
    read_streamlines,
)
from bids_tractography.tractogram.kernels.splits import split_at_furthest

# Arrays of a block fit into a processor's cache.
_BLOCK_POINTS = 16_384


@dataclass(frozen=True)
class Linearised:
    """A linearised tractogram in two files, and how far it is from the whole one.

    Parameters
    ----------
    points_file, lengths_file : ArrayFile
    n_points_before : int
        Of the whole tractogram.
    max_error_mm : float
        Largest distance of a dropped point to the segment that replaces it.
    mean_error_mm : float
        Mean distance of the dropped points; 0 if there is none.
    """

    points_file: ArrayFile
    lengths_file: ArrayFile
    n_points_before: int
    max_error_mm: float
    mean_error_mm: float

    @property
    def n_streamlines(self) -> int:
        """Number of streamlines."""
        return self.lengths_file.rows

    @property
    def n_points(self) -> int:
        """Number of points of all streamlines."""
        return self.points_file.rows

    @property
    def share_kept(self) -> float:
        """Share of the points that is left."""
        return self.n_points / max(self.n_points_before, 1)

    def streamlines(self) -> Iterator[Piece]:
        """Read whole streamlines in pieces: points (n, 3), and points of each streamline (t,)."""
        return read_streamlines(self.points_file, self.lengths_file)

    def lengths(self) -> Iterator[NDArray[np.uint32]]:
        """Read the numbers of points of the streamlines in pieces."""
        return read_array(self.lengths_file)


def linearise(tractogram: Streamlines, max_error_mm: float, folder: Path) -> Linearised:
    """Linearise a tractogram into two files, in constant memory.

    Parameters
    ----------
    tractogram : Streamlines
    max_error_mm : float
        No point is further than this from what is left.
    folder : Path
        That of the store, which removes the files with its own. Those of an earlier call are
        replaced.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    n_points, max_error, sum_errors = 0, 0.0, 0.0
    points_crc32, lengths_crc32 = 0, 0
    points_path, lengths_path = (folder / name for name in LINEARISED)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with points_path.open("wb") as points_file, lengths_path.open("wb") as lengths_file:
            for points, lengths in tractogram.streamlines():
                for some, where in blocks(lengths, _BLOCK_POINTS):
                    kept, error_mm = kept_points(points[where], lengths[some], max_error_mm)
                    streamline = np.repeat(np.arange(some.stop - some.start), lengths[some])
                    counts = np.bincount(streamline[kept], minlength=some.stop - some.start)
                    content = points[where][kept].astype("<f4").tobytes()
                    points_crc32 = zlib.crc32(content, points_crc32)
                    points_file.write(content)
                    content = counts.astype("<u4").tobytes()
                    lengths_crc32 = zlib.crc32(content, lengths_crc32)
                    lengths_file.write(content)
                    n_points += int(np.count_nonzero(kept))
                    max_error = max(max_error, float(error_mm.max(initial=0)))
                    sum_errors += float(error_mm.sum())
    except OSError as error:
        raise OutputError(f"{folder} cannot be written ({error.strerror}).") from error
    n_dropped = tractogram.n_points - n_points
    return Linearised(
        ArrayFile(points_path, "<f4", 3, n_points, points_crc32),
        ArrayFile(lengths_path, "<u4", 1, tractogram.n_streamlines, lengths_crc32),
        tractogram.n_points,
        max_error,
        sum_errors / max(n_dropped, 1),
    )


def kept_points(
    points: NDArray[np.float32], lengths: NDArray[np.uint32], max_error_mm: float
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Choose the points to keep, by splitting at the furthest point (Ramer 1972).

    Parameters
    ----------
    points : ndarray, shape (n, 3)
        RAS+ mm.
    lengths : ndarray, shape (t,)
        Points of each streamline.
    max_error_mm : float

    Returns
    -------
    kept : ndarray of bool, shape (n,)
        Both ends of every streamline are.
    error_mm : ndarray, shape (n,)
        Distance of each point to the segment that replaces it; 0 for points that are kept.
    """
    kept = np.zeros(len(points), bool)
    squares = np.zeros(len(points))
    split_at_furthest(points, lengths, max_error_mm**2, kept, squares)
    return kept, np.sqrt(squares)

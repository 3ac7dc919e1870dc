"""What stores, readers, writers and summaries share: streamlines in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bids_tractography.images import Grid

# Points (n, 3), RAS+ mm, of whole streamlines, and the number of points of each (t,).
Piece = tuple[NDArray[np.float32], NDArray[np.uint32]]

# Files of a linearised tractogram, beside those of the store that it is made from.
LINEARISED = ("linearised.float32", "linearised.uint32")

PIECE_STREAMLINES = 4096
PIECE_POINTS = 1 << 18
# Points of a streamline; a file that has longer ones is damaged.
LONGEST = 1 << 22
_READ_BYTES = 1 << 22


class Streamlines(Protocol):
    """A tractogram that is read in pieces, as often as needed, in the same order."""

    @property
    def n_streamlines(self) -> int:
        """Number of streamlines."""
        ...

    @property
    def n_points(self) -> int:
        """Number of points of all streamlines."""
        ...

    def streamlines(self) -> Iterator[Piece]:
        """Read whole streamlines in pieces."""
        ...

    def lengths(self) -> Iterator[NDArray[np.uint32]]:
        """Read the numbers of points of the streamlines."""
        ...


Writer = Callable[[Path, Streamlines, Grid], None]


@dataclass(frozen=True)
class StreamlineValues:
    """Values that go with each streamline.

    Parameters
    ----------
    name : str
    dtype : dtype
    columns : int
        Values of each streamline.
    read : callable
        Reads them in pieces, in the order of the streamlines: (t, columns), or (t,) for one
        column.
    """

    name: str
    dtype: np.dtype[Any]
    columns: int
    read: Callable[[], Iterator[NDArray[Any]]]


def offsets_of(lengths: Iterable[NDArray[np.uint32]]) -> Iterator[NDArray[np.uint64]]:
    """Turn lengths in pieces into offsets in pieces, ``n_streamlines + 1`` numbers in all."""
    end = np.uint64(0)
    yield np.array([end], "<u8")
    for piece in filter(len, lengths):
        ends = end + np.cumsum(piece, dtype="<u8")
        end = ends[-1]
        yield ends


def blocks(lengths: NDArray[np.uint32], n_points: int) -> Iterator[tuple[slice, slice]]:
    """Cut a piece into smaller ones of about as many points; a streamline stays whole.

    Yields
    ------
    streamlines, points : slice
    """
    ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    start = 0
    while start < len(lengths):
        stop = int(np.searchsorted(ends, ends[start] + n_points, side="right")) - 1
        stop = max(stop, start + 1)
        yield slice(start, stop), slice(int(ends[start]), int(ends[stop]))
        start = stop


class Reader(Protocol):
    """What reads a file of one format; see `formats.READERS`."""

    @property
    def grid(self) -> Grid | None:
        """The grid that the header names; None for formats that have none."""
        ...

    def streamlines(self) -> Iterator[Piece]:
        """Read whole streamlines in pieces."""
        ...


def grid_of_header(shape: ArrayLike, affine: ArrayLike) -> Grid:
    """Make a grid of what the header of a tractogram says.

    Raises
    ------
    ValueError
        If it is none.
    """
    sizes = np.asarray(shape, np.int64)
    matrix = np.asarray(affine, np.float64)
    if sizes.shape != (3,) or (sizes < 1).any():
        raise ValueError(f"its header names an image of {sizes.tolist()} voxels")
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < 1e-9:
        raise ValueError(f"the affine of its header is singular: {matrix.tolist()}")
    return Grid((int(sizes[0]), int(sizes[1]), int(sizes[2])), matrix)


def read_array(path: Path, dtype: str, columns: int = 1) -> Iterator[NDArray[Any]]:
    """Read a file of numbers in pieces, each (n, columns), or (n,) for one column."""
    row = np.dtype(dtype).itemsize * columns
    with path.open("rb") as file:
        while content := file.read(max(_READ_BYTES // row, 1) * row):
            numbers = np.frombuffer(content, dtype)
            yield numbers.reshape(-1, columns) if columns > 1 else numbers


def read_streamlines(points_path: Path, lengths_path: Path) -> Iterator[Piece]:
    """Read whole streamlines in pieces from a file of float32 and one of uint32."""
    with points_path.open("rb") as points, lengths_path.open("rb") as lengths:
        while content := lengths.read(4 * PIECE_STREAMLINES):
            counts = np.frombuffer(content, "<u4")
            coordinates = points.read(12 * int(counts.sum()))
            yield np.frombuffer(coordinates, "<f4").reshape(-1, 3), counts

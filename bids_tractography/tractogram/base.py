"""Types shared by stores, readers, writers and summaries: streamlines in pieces."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bids_tractography.core.images import Grid
from bids_tractography.errors import DamagedStoreError

# Points (n, 3), RAS+ mm, of whole streamlines, and the number of points of each (t,).
Piece = tuple[NDArray[np.float32], NDArray[np.uint32]]

# Files of a linearised tractogram, in the directory of the store that it is computed from.
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
class Payload:
    """The part of a file that holds the streamlines, one after another, and how to make the rest.

    Where a streamline stands follows from the numbers of points and of streamlines before it, so
    that streamlines can be written in any order.

    Parameters
    ----------
    point_bytes, streamline_bytes : int
        What each point and each streamline takes.
    encode : callable
        Turns a piece into bytes.
    reserve : callable
        Writes a file with a gap for the payload, given the CRC-32 that the payload will have;
        returns where the gap begins.
    rows : str or None
        Type of the numbers if the payload is made of rows of three, which are points, or NaN; None
        if it does not have the points as they are.
    """

    point_bytes: int
    streamline_bytes: int
    encode: Callable[[Piece], bytes]
    reserve: Callable[[Path, int], int]
    rows: str | None

    def n_bytes(self, points: int, streamlines: int) -> int:
        """Return what so many points and streamlines take."""
        return points * self.point_bytes + streamlines * self.streamline_bytes


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


class Rows:
    """Reads values of streamlines in pieces of any number of rows.

    Parameters
    ----------
    values : StreamlineValues
    """

    def __init__(self, values: StreamlineValues) -> None:
        self._pieces = values.read()
        self._columns = values.columns
        self._left = np.empty((0, values.columns), values.dtype)

    def take(self, n: int) -> NDArray[Any]:
        """Read the values of the next n streamlines, shape (n, columns)."""
        parts = [self._left]
        while n > sum(map(len, parts)):
            parts.append(next(self._pieces).reshape(-1, self._columns))
        rows = np.concatenate(parts)
        self._left = rows[n:]
        return rows[:n]


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


def selected(pieces: Iterable[Piece], numbers: NDArray[np.int64]) -> Iterator[Piece]:
    """Keep some of the streamlines of a tractogram that is read from its beginning to its end.

    Parameters
    ----------
    pieces : iterable of Piece
    numbers : ndarray of int64, shape (k,)
        Places of the streamlines, ascending.
    """
    first = 0
    for points, lengths in pieces:
        begin, end = np.searchsorted(numbers, (first, first + len(lengths)))
        kept = np.zeros(len(lengths), bool)
        kept[numbers[begin:end] - first] = True
        first += len(lengths)
        if kept.any():
            yield points[np.repeat(kept, lengths)], lengths[kept]


class Reader(Protocol):
    """What reads a file of one format; see `formats.READERS`."""

    @property
    def grid(self) -> Grid | None:
        """The grid that the header names; None for formats that have none."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the coordinates in the file."""
        ...

    @property
    def others(self) -> tuple[str, ...]:
        """What the file holds in addition to streamlines and values of each, in words."""
        ...

    def per_streamline(self) -> list[StreamlineValues]:
        """Return the values that the file has for each streamline."""
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


@dataclass(frozen=True)
class ArrayFile:
    """An array in a file, and what it must contain.

    Parameters
    ----------
    path : Path
    dtype : str
    columns : int
    rows : int
        Number of rows that the array must have.
    crc32 : int
        CRC-32 that the whole array must have.
    offset : int
        Where the array begins; where that is 0, the file contains nothing else.
    """

    path: Path
    dtype: str
    columns: int
    rows: int
    crc32: int
    offset: int = 0

    @property
    def row_bytes(self) -> int:
        """Size of a row."""
        return np.dtype(self.dtype).itemsize * self.columns


class _ArrayReader:
    """Reads an array file once, from its first row to its last."""

    def __init__(self, array: ArrayFile, file: BinaryIO) -> None:
        self.left = array.rows
        self._array = array
        self._file = file
        self._crc32 = 0

    def read(self, rows: int) -> NDArray[Any]:
        """Read the next rows, shape (rows, columns), or (rows,) for one column."""
        n_bytes = rows * self._array.row_bytes
        content = self._file.read(n_bytes)
        if len(content) < n_bytes:
            raise DamagedStoreError(f"{self._array.path} is truncated.")
        self.left -= rows
        self._crc32 = zlib.crc32(content, self._crc32)
        numbers = np.frombuffer(content, self._array.dtype)
        return numbers.reshape(-1, self._array.columns) if self._array.columns > 1 else numbers

    def finish(self) -> None:
        """Check that everything was read, and that it is what was written."""
        longer = not self._array.offset and self._file.read(1)
        if self.left or longer or self._crc32 != self._array.crc32:
            raise DamagedStoreError(f"{self._array.path} does not match its checksum.")


@contextmanager
def _opened(array: ArrayFile) -> Iterator[_ArrayReader]:
    """Open an array file; the checks are made at the end of the block."""
    try:
        with array.path.open("rb") as file:
            file.seek(array.offset)
            reader = _ArrayReader(array, file)
            yield reader
            reader.finish()
    except OSError as error:
        raise DamagedStoreError(f"{array.path} cannot be read ({error.strerror}).") from error


def read_array(array: ArrayFile) -> Iterator[NDArray[Any]]:
    """Read an array file in pieces, each (n, columns), or (n,) for one column.

    Raises
    ------
    DamagedStoreError
        If the file does not contain what was written, at the latest after the last piece.
    """
    with _opened(array) as reader:
        while reader.left:
            yield reader.read(min(reader.left, max(_READ_BYTES // array.row_bytes, 1)))


def read_streamlines(points: ArrayFile, lengths: ArrayFile) -> Iterator[Piece]:
    """Read whole streamlines in pieces from their points and their numbers of points.

    Raises
    ------
    DamagedStoreError
        If a file does not contain what was written, at the latest after the last piece.
    """
    with _opened(points) as points_reader, _opened(lengths) as lengths_reader:
        while lengths_reader.left:
            counts = lengths_reader.read(min(lengths_reader.left, PIECE_STREAMLINES))
            n_points = int(counts.sum(dtype=np.int64))
            if n_points > points_reader.left or counts.max() > LONGEST:
                raise DamagedStoreError(f"{lengths.path} does not match {points.path.name}.")
            yield points_reader.read(n_points).astype(np.float32, copy=False), counts

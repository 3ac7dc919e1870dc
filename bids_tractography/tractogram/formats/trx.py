"""TRX files: a zip of plain arrays, written in one pass and in constant memory.

https://github.com/tee-ar-ex/trx-spec
"""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import IO, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from bids_tractography.core.images import Grid
from bids_tractography.machine.files import open_input, parse_json, read_to_end
from bids_tractography.tractogram.base import (
    LONGEST,
    PIECE_POINTS,
    Payload,
    Piece,
    Streamlines,
    StreamlineValues,
    blocks,
    grid_of_header,
    offsets_of,
    selected,
)

_MAX_HEADER_BYTES = 1 << 20
# Deflate expands by at most this factor; other methods can reach it with constant data only.
_MAX_EXPANSION = 1032
# A fixed date makes the bytes depend on the content alone.
_DATE = (1980, 1, 1, 0, 0, 0)
_READ_NUMBERS = 4096
# Signature to sizes, which are not looked at; lengths of name and of extra field.
_LOCAL_HEADER = struct.Struct("<26xHH")
# Share of the streamlines from which on reading all of them is faster than each alone.
_DENSE = 0.1
_ARRAYS = ("positions", "offsets", "dps", "dpv", "groups", "dpg")


def write_trx(
    path: Path,
    tractogram: Streamlines,
    grid: Grid,
    dtype: Literal["float32", "float16"] = "float32",
    per_streamline: Iterable[StreamlineValues] = (),
) -> None:
    """Write a tractogram as an uncompressed TRX zip, which readers can map into memory.

    Parameters
    ----------
    path : Path
    tractogram : Streamlines
    grid : Grid
        Of the DWI; its stored affine and shape go into the header.
    dtype : str
        Type of the positions; offsets are uint64.
    per_streamline : iterable of StreamlineValues
        Written as ``dps/``.
    """
    little_endian = np.dtype(dtype).newbyteorder("<")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        _write_header(archive, tractogram, grid)
        n_bytes = tractogram.n_points * 3 * little_endian.itemsize
        positions = (points.astype(little_endian) for points, _ in tractogram.streamlines())
        _member(archive, f"positions.3.{dtype}", n_bytes, positions)
        _write_others(archive, tractogram, per_streamline)


def trx_payload(
    tractogram: Streamlines,
    grid: Grid,
    dtype: Literal["float32", "float16"] = "float32",
    per_streamline: Iterable[StreamlineValues] = (),
) -> Payload:
    """Return the payload of the file that `write_trx` writes: its positions."""
    little_endian = np.dtype(dtype).newbyteorder("<")
    point_bytes = 3 * little_endian.itemsize

    def encode(piece: Piece) -> bytes:
        return piece[0].astype(little_endian).tobytes()

    def reserve(path: Path, crc32: int) -> int:
        n_bytes = tractogram.n_points * point_bytes
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            _write_header(archive, tractogram, grid)
            offset = _gap(archive, f"positions.3.{dtype}", n_bytes, crc32)
            _write_others(archive, tractogram, per_streamline)
        return offset

    return Payload(point_bytes, 0, encode, reserve, rows=little_endian.str)


def _write_header(archive: zipfile.ZipFile, tractogram: Streamlines, grid: Grid) -> None:
    header = {
        "DIMENSIONS": [int(n) for n in grid.stored_shape],
        "VOXEL_TO_RASMM": grid.stored_affine.tolist(),
        "NB_VERTICES": tractogram.n_points,
        "NB_STREAMLINES": tractogram.n_streamlines,
    }
    content = json.dumps(header).encode()
    _member(archive, "header.json", len(content), iter([np.frombuffer(content, np.uint8)]))


def _write_others(
    archive: zipfile.ZipFile, tractogram: Streamlines, per_streamline: Iterable[StreamlineValues]
) -> None:
    """Write everything after the positions."""
    offsets = offsets_of(tractogram.lengths())
    _member(archive, "offsets.uint64", (tractogram.n_streamlines + 1) * 8, offsets)
    for values in per_streamline:
        columns = f".{values.columns}" if values.columns > 1 else ""
        n_bytes = tractogram.n_streamlines * values.columns * values.dtype.itemsize
        name = f"dps/{values.name}{columns}.{values.dtype.name}"
        _member(archive, name, n_bytes, values.read())


def _gap(archive: zipfile.ZipFile, name: str, n_bytes: int, crc32: int) -> int:
    """Write the header of a member and skip its content, which `zipfile` itself does not offer."""
    file = archive.fp
    assert file is not None  # it is open
    info = zipfile.ZipInfo(name, date_time=_DATE)
    info.file_size = info.compress_size = n_bytes
    info.CRC = crc32
    info.external_attr = 0o600 << 16  # as `ZipFile.open` sets it
    info.header_offset = file.tell()
    file.write(info.FileHeader(zip64=n_bytes * 1.05 > zipfile.ZIP64_LIMIT))
    offset = file.tell()
    archive.start_dir = file.seek(offset + n_bytes)
    archive.filelist.append(info)
    archive.NameToInfo[name] = info
    return offset


def _member(
    archive: zipfile.ZipFile, name: str, n_bytes: int, pieces: Iterator[NDArray[Any]]
) -> None:
    info = zipfile.ZipInfo(name, date_time=_DATE)
    info.file_size = n_bytes  # decides on the 64-bit format beforehand
    with archive.open(info, "w") as member:
        for piece in pieces:
            member.write(piece.tobytes())


@dataclass(frozen=True)
class _Array:
    """A member of the zip: ``name[.columns].dtype``."""

    member: str
    columns: int
    dtype: np.dtype[Any]
    n_bytes: int

    @property
    def n_rows(self) -> float:
        return self.n_bytes / (self.columns * self.dtype.itemsize)


@dataclass(frozen=True)
class TrxReader:
    """Reads a TRX zip, compressed or not, in constant memory.

    Parameters
    ----------
    path : Path

    Raises
    ------
    ValueError, LookupError, OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile
        If it is not whole; on construction if its header, or the size of any array, is wrong.
    """

    path: Path

    def __post_init__(self) -> None:
        with _opened(self.path) as archive:
            self._check_sizes(archive)
            self._check_sums(archive)
        _ = self.grid

    @cached_property
    def _header(self) -> dict[str, Any]:
        with _opened(self.path) as archive:
            try:
                if archive.getinfo("header.json").file_size > _MAX_HEADER_BYTES:
                    raise ValueError("too large")
                content = parse_json(archive.read("header.json").decode())
                return {
                    "dimensions": np.array(content["DIMENSIONS"], int),
                    "affine": np.array(content["VOXEL_TO_RASMM"], float).reshape(4, 4),
                    "points": _count(content["NB_VERTICES"]),
                    "streamlines": _count(content["NB_STREAMLINES"]),
                }
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                reason = str(error)[:200]
                raise ValueError(f"its header.json is missing or wrong ({reason})") from None

    @cached_property
    def grid(self) -> Grid:
        """The grid that the header names."""
        return grid_of_header(self._header["dimensions"], self._header["affine"])

    @cached_property
    def _arrays(self) -> dict[str, list[_Array]]:
        """The arrays by folder; positions and offsets by their names."""
        arrays: dict[str, list[_Array]] = {}
        with _opened(self.path) as archive:
            for info in archive.infolist():
                folder, _, name = info.filename.rpartition("/")
                key = folder.split("/")[0] or name.split(".")[0]
                if key in _ARRAYS and name and not name.endswith(".json"):
                    arrays.setdefault(key, []).append(_array(info))
        return arrays

    def _check_sizes(self, archive: zipfile.ZipFile) -> None:
        n_points, n_streamlines = self._header["points"], self._header["streamlines"]
        if n_streamlines == 0:  # it may lack the arrays
            return
        for folder, n_rows in (("dps", n_streamlines), ("dpv", n_points)):
            for array in self._arrays.get(folder, []):
                _check_rows(array, {n_rows})
        positions, offsets = self._one("positions"), self._one("offsets")
        if positions.columns != 3 or positions.dtype.kind != "f":
            raise ValueError(f"its {positions.member} are not three coordinates")
        if offsets.columns != 1 or offsets.dtype.kind not in "ui":
            raise ValueError(f"its {offsets.member} are not whole numbers")
        _check_rows(positions, {n_points})
        # Older files lack the last offset, which is the number of points.
        _check_rows(offsets, {n_streamlines + 1, n_streamlines})
        for group in self._arrays.get("groups", []):
            for indices in _numbers(archive, group):
                if (indices < 0).any() or (indices >= n_streamlines).any():
                    raise ValueError(f"its {group.member} names streamlines that it does not have")

    def _check_sums(self, archive: zipfile.ZipFile) -> None:
        """Read the members that are copied only, so that their checksums are compared."""
        for info in archive.infolist():
            if not info.filename.startswith(("positions.", "offsets.", "groups/")):
                with archive.open(info) as file:
                    read_to_end(cast(io.BufferedIOBase, file))

    def _one(self, name: str) -> _Array:
        arrays = self._arrays.get(name, [])
        if len(arrays) != 1:
            raise ValueError(f"it has {len(arrays)} arrays of {name}; there must be one")
        return arrays[0]

    def streamlines(self) -> Iterator[Piece]:
        """Read whole streamlines in pieces."""
        if self._header["streamlines"] == 0:
            return
        positions = self._one("positions")
        with _opened(self.path) as archive, archive.open(positions.member) as file:
            for some in self._lengths(archive):
                for where, _ in blocks(some, PIECE_POINTS):
                    lengths = some[where]
                    content = _read(file, 3 * positions.dtype.itemsize * int(lengths.sum()))
                    points = np.frombuffer(content, positions.dtype).reshape(-1, 3)
                    yield points.astype(np.float32), lengths
            file.read(1)  # the end is where the checksum is compared

    @property
    def n_streamlines(self) -> int:
        """Number of streamlines."""
        return int(self._header["streamlines"])

    @property
    def n_points(self) -> int:
        """Number of points of all streamlines."""
        return int(self._header["points"])

    @property
    def values(self) -> dict[str, int]:
        """Values that the file has for each streamline: numbers of columns, by name."""
        return {_name(array): array.columns for array in self._arrays.get("dps", [])}

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the coordinates in the file."""
        return self._one("positions").dtype if self.n_streamlines else np.dtype(np.float32)

    @property
    def others(self) -> tuple[str, ...]:
        """What the file holds in addition to streamlines and values of each, in words."""
        words = {"dpv": "values of each point", "groups": "groups", "dpg": "values of each group"}
        return tuple(word for folder, word in words.items() if self._arrays.get(folder))

    def per_streamline(self) -> list[StreamlineValues]:
        """Return the values that the file has for each streamline."""
        return [
            StreamlineValues(_name(a), a.dtype, a.columns, partial(self._all_values, a))
            for a in self._arrays.get("dps", [])
        ]

    def _all_values(self, array: _Array) -> Iterator[NDArray[Any]]:
        """Read the values of all streamlines in pieces (t, columns)."""
        with _opened(self.path) as archive, archive.open(array.member) as file:
            while content := file.read(_READ_NUMBERS * array.columns * array.dtype.itemsize):
                yield np.frombuffer(content, array.dtype).reshape(-1, array.columns)

    def some(self, numbers: NDArray[np.int64]) -> Iterator[Piece]:
        """Read some of the streamlines, in pieces.

        Only these are read where the points are not compressed, whose checksum is then not
        compared.

        Parameters
        ----------
        numbers : ndarray of int64, shape (k,)
            Places of the streamlines in the file, ascending.
        """
        if self.n_streamlines == 0:
            return
        positions = self._one("positions")
        with _opened(self.path) as archive:
            info = archive.getinfo(positions.member)
            if info.compress_type != zipfile.ZIP_STORED:
                yield from selected(self.streamlines(), numbers)
                return
            file = archive.fp
            assert file is not None  # it is open
            data = _data_offset(file, info)
            row = 3 * positions.dtype.itemsize
            number, point = 0, 0
            for lengths in self._lengths(archive):
                for where, rows in blocks(lengths, PIECE_POINTS):
                    first = number + where.start
                    begin, end = np.searchsorted(numbers, (first, number + where.stop))
                    if begin < end:
                        here, some = numbers[begin:end] - first, lengths[where]
                        content = _read_some(
                            file, data + (point + rows.start) * row, row, some, here
                        )
                        points = np.frombuffer(content, positions.dtype).reshape(-1, 3)
                        yield points.astype(np.float32), some[here]
                number += len(lengths)
                point += int(lengths.sum(dtype=np.int64))

    def read_values(self, name: str, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """Read values of some of the streamlines, shape (k, columns).

        Parameters
        ----------
        name : str
            One of `values`.
        numbers : ndarray of int64, shape (k,)
            Places of the streamlines in the file, ascending.
        """
        array = next(a for a in self._arrays["dps"] if _name(a) == name)
        some, first = [], 0
        for rows in self._all_values(array):
            begin, end = np.searchsorted(numbers, (first, first + len(rows)))
            some.append(rows[numbers[begin:end] - first])
            first += len(rows)
        return np.concatenate(some)

    def _lengths(self, archive: zipfile.ZipFile) -> Iterator[NDArray[np.uint32]]:
        n_points = self._header["points"]
        last: NDArray[np.int64] | None = None
        for piece in self._offsets(archive):
            offsets = piece if last is None else np.concatenate([last, piece])
            lengths = np.diff(offsets)
            if (lengths < 0).any() or (last is None and offsets[0] != 0):
                raise ValueError("its offsets do not ascend from 0")
            if (lengths > LONGEST).any():
                raise ValueError(f"a streamline of it has {lengths.max()} points")
            yield lengths.astype(np.uint32)
            last = offsets[-1:]
        if last is None or int(last[0]) != n_points:
            raise ValueError(f"its offsets do not end with its number of points, {n_points}")

    def _offsets(self, archive: zipfile.ZipFile) -> Iterator[NDArray[np.int64]]:
        offsets = self._one("offsets")
        for piece in _numbers(archive, offsets):
            yield piece.astype(np.int64)
        if offsets.n_rows == self._header["streamlines"]:
            yield np.array([self._header["points"]])


def _data_offset(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Return where the content of a member begins, behind its local header."""
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
        raise ValueError(f"its member {info.filename} has no header")
    name, extra = _LOCAL_HEADER.unpack(header)
    return int(info.header_offset + len(header) + name + extra)


def _read_some(
    file: IO[bytes],
    offset: int,
    row_bytes: int,
    lengths: NDArray[np.uint32],
    wanted: NDArray[np.int64],
) -> bytes:
    """Read some of the streamlines that follow each other from an offset."""
    ends = np.cumsum(lengths, dtype=np.int64) * row_bytes
    begins = ends - lengths.astype(np.int64) * row_bytes
    if len(wanted) > _DENSE * len(lengths):
        content = os.pread(file.fileno(), int(ends[-1]), offset)
        parts = [content[b:e] for b, e in zip(begins[wanted], ends[wanted], strict=True)]
    else:
        sizes = (ends - begins)[wanted].tolist()
        places = (begins[wanted] + offset).tolist()
        number = file.fileno()
        parts = [os.pread(number, n, at) for n, at in zip(sizes, places, strict=True)]
    content = b"".join(parts)
    if len(content) < row_bytes * int(lengths[wanted].sum(dtype=np.int64)):
        raise ValueError("its positions end too early")
    return content


def _name(array: _Array) -> str:
    """Return what an array is called, without columns and type."""
    return array.member.rpartition("/")[2].split(".")[0]


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip whose members are no larger than the file can hold."""
    with open_input(path) as file, zipfile.ZipFile(file) as archive:
        n_bytes = sum(info.compress_size for info in archive.infolist())
        if n_bytes > os.fstat(file.fileno()).st_size:
            raise ValueError(f"its members have {n_bytes} bytes, more than the file")
        for info in archive.infolist():
            if info.file_size > info.compress_size * _MAX_EXPANSION:
                raise ValueError(f"its member {info.filename} cannot have {info.file_size} bytes")
        yield archive


def _count(value: Any) -> int:
    count = int(value)
    if not 0 <= count < 2**53:
        raise ValueError(f"{count} is not a possible number of items")
    return count


def _array(info: zipfile.ZipInfo) -> _Array:
    name = info.filename.rpartition("/")[2]
    try:
        _, *columns, dtype = name.split(".")
        kind = np.dtype("uint8" if dtype == "bit" else dtype).newbyteorder("<")
        n_columns = int(columns[0]) if columns else 1
        if len(columns) > 1 or n_columns < 1 or kind.kind not in "biuf":
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(f"its member {info.filename} is not named as TRX has it") from None
    return _Array(info.filename, n_columns, kind, info.file_size)


def _check_rows(array: _Array, expected: set[int]) -> None:
    if array.n_rows not in expected:
        raise ValueError(
            f"its {array.member} has {array.n_rows:g} rows; by its header.json there must be "
            f"{max(expected)}"
        )


def _numbers(archive: zipfile.ZipFile, array: _Array) -> Iterator[NDArray[Any]]:
    with archive.open(array.member) as file:
        while content := file.read(_READ_NUMBERS * array.dtype.itemsize):
            yield np.frombuffer(content, array.dtype)


def _read(file: IO[bytes], n_bytes: int) -> bytes:
    content = file.read(n_bytes)
    if len(content) < n_bytes:
        raise ValueError("its positions end too early")
    return content

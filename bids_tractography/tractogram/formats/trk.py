"""TrackVis files, version 2: voxels times voxel size, from the corner of the first voxel.

http://trackvis.org/docs/?subsect=fileformat
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.streamlines.trk import get_affine_trackvis_to_rasmm, header_2_dtype
from numpy.typing import NDArray

from bids_tractography.core.images import Grid, apply_affine
from bids_tractography.machine.files import open_plain, read_exactly
from bids_tractography.tractogram.base import (
    LONGEST,
    PIECE_POINTS,
    PIECE_STREAMLINES,
    Payload,
    Piece,
    Rows,
    Streamlines,
    StreamlineValues,
    grid_of_header,
)

_LARGEST_COUNT = 2**31 - 1
_MAX_RECORD_BYTES = 1 << 28
# Names of properties share 20 bytes with their numbers of columns.
_MOST_PROPERTIES, _LONGEST_NAME = 10, 16


def write_trk(
    path: Path,
    tractogram: Streamlines,
    grid: Grid,
    per_streamline: Iterable[StreamlineValues] = (),
) -> None:
    """Write a tractogram as a ``.trk`` file, in one pass.

    Parameters
    ----------
    path : Path
    tractogram : Streamlines
    grid : Grid
        Of the DWI; the header has it as it is stored.
    per_streamline : iterable of StreamlineValues
        Written as properties, float32; see `fits_trk`.

    Notes
    -----
    Points are float32 and so is the affine of the header: 160 mm from the origin, points read
    back are within 3e-5 mm of those that were written.
    """
    values = tuple(per_streamline)
    header = _header(grid, tractogram.n_streamlines)
    header["nb_properties_per_streamline"] = sum(some.columns for some in values)
    header["property_name"][: len(values)] = [_property_name(some) for some in values]
    to_trackvis = _to_trackvis(header)
    rows = [Rows(some) for some in values]
    with path.open("wb") as file:
        file.write(header.tobytes())
        for points, lengths in tractogram.streamlines():
            properties = [each.take(len(lengths)).astype("<f4") for each in rows]
            file.write(_encode(to_trackvis, points, lengths, properties))


def fits_trk(values: Iterable[StreamlineValues]) -> list[StreamlineValues]:
    """Return those of the values that a ``.trk`` file can hold: ten, with short names."""
    named = [some for some in values if some.name.isascii() and len(some.name) <= _LONGEST_NAME]
    return named[:_MOST_PROPERTIES]


def _property_name(values: StreamlineValues) -> bytes:
    """Return a name with its number of columns, as nibabel has it."""
    name = values.name.encode()
    return name if values.columns == 1 else name + b"\0" + str(values.columns).encode()


def trk_payload(tractogram: Streamlines, grid: Grid) -> Payload:
    """Return the payload of the file that `write_trk` writes."""
    header = _header(grid, tractogram.n_streamlines)
    to_trackvis = _to_trackvis(header)

    def encode(piece: Piece) -> bytes:
        return _encode(to_trackvis, *piece)

    def reserve(path: Path, _crc32: int) -> int:
        return path.write_bytes(header.tobytes())

    return Payload(12, 4, encode, reserve, rows=None)


def _header(grid: Grid, n_streamlines: int) -> NDArray[Any]:
    header = np.zeros((), header_2_dtype.newbyteorder("<"))
    header["magic_number"] = b"TRACK"
    header["dimensions"] = grid.stored_shape
    header["voxel_sizes"] = voxel_sizes(grid.stored_affine)
    header["voxel_to_rasmm"] = grid.stored_affine
    header["voxel_order"] = "".join(nib.aff2axcodes(grid.stored_affine)).encode()
    # 0: not stored; readers go to the end of the file.
    header["nb_streamlines"] = n_streamlines if n_streamlines <= _LARGEST_COUNT else 0
    header["version"] = 2
    header["hdr_size"] = header_2_dtype.itemsize
    return header


def _to_trackvis(header: NDArray[Any]) -> NDArray[np.float64]:
    return np.linalg.inv(get_affine_trackvis_to_rasmm(header).astype(np.float64))


def _encode(
    to_trackvis: NDArray[np.float64],
    points: NDArray[np.float32],
    lengths: NDArray[np.uint32],
    properties: Sequence[NDArray[np.float32]] = (),
) -> bytes:
    """Put the number of points before those of each streamline, and its properties behind."""
    rows = np.concatenate([np.empty((len(lengths), 0), "<f4"), *properties], axis=1)
    sizes = 1 + 3 * lengths.astype(np.int64) + rows.shape[1]
    ends = np.cumsum(sizes)
    records = np.empty(points.size + len(lengths) + rows.size, "<i4")
    of_points = np.ones(len(records), bool)
    of_points[ends - sizes] = False
    records[ends - sizes] = lengths
    places = ends[:, None] - np.arange(rows.shape[1], 0, -1)
    of_points[places] = False
    records[places] = rows.view("<i4")
    moved = apply_affine(to_trackvis, points).astype("<f4")
    records[of_points] = moved.view("<i4").ravel()
    return records.tobytes()


@dataclass(frozen=True)
class TrkReader:
    """Reads a ``.trk`` or ``.trk.gz`` file.

    Parameters
    ----------
    path : Path

    Raises
    ------
    ValueError, OSError, EOFError, zlib.error
        If it is not whole; on construction if the header is wrong.
    """

    path: Path

    dtype: ClassVar[np.dtype[Any]] = np.dtype(np.float32)

    def __post_init__(self) -> None:
        _ = self.grid

    @cached_property
    def _header(self) -> Any:
        with open_plain(self.path) as file:
            content = file.read(header_2_dtype.itemsize)
        if len(content) < header_2_dtype.itemsize or not content.startswith(b"TRACK"):
            raise ValueError("it does not begin with the header of a TRK file")
        for order in "<>":
            header: Any = np.frombuffer(content, header_2_dtype.newbyteorder(order))[0]
            if header["hdr_size"] == header_2_dtype.itemsize:
                break
        else:
            raise ValueError(f"its header says that it is {header['hdr_size']} bytes long")
        for name in ("nb_scalars_per_point", "nb_properties_per_streamline"):
            if header[name] < 0:
                raise ValueError(f"its header has {header[name]} as {name}")
        if header["version"] < 2 or header["voxel_to_rasmm"][3, 3] == 0:
            raise ValueError("its header has no affine (vox_to_ras), so its frame is not known")
        if not (header["voxel_sizes"] > 0).all():
            raise ValueError(f"its header has voxels of {header['voxel_sizes']} mm")
        return header

    @cached_property
    def grid(self) -> Grid:
        """The grid that the header names."""
        return grid_of_header(self._header["dimensions"], self._header["voxel_to_rasmm"])

    @cached_property
    def _to_mm(self) -> NDArray[np.float64]:
        header = {name: self._header[name] for name in header_2_dtype.fields}
        header["voxel_order"] = self._header["voxel_order"] or b"LPS"  # TrackVis' default
        with np.errstate(over="raise"):  # a FloatingPointError states that the header is wrong
            return np.asarray(get_affine_trackvis_to_rasmm(header), np.float64)

    def streamlines(self) -> Iterator[Piece]:
        """Read whole streamlines in pieces."""
        to_mm = self._to_mm
        some: list[NDArray[np.float32]] = []
        size = 0
        for points, _ in self._records():
            some.append(points)
            size += 1 + len(points)
            if size >= PIECE_POINTS:
                yield _piece(to_mm, some)
                some, size = [], 0
        if some:
            yield _piece(to_mm, some)

    @property
    def others(self) -> tuple[str, ...]:
        """What the file holds in addition to streamlines and values of each, in words."""
        n = int(self._header["nb_scalars_per_point"])
        return (f"{n} scalar(s) of each point",) if n else ()

    def per_streamline(self) -> list[StreamlineValues]:
        """Return the values that the file has for each streamline: its properties."""
        return [
            StreamlineValues(name, self.dtype, columns, partial(self._properties, first, columns))
            for name, first, columns in self._property_columns()
        ]

    def _property_columns(self) -> Iterator[tuple[str, int, int]]:
        """Yield name, first column and number of columns of the properties.

        A name may be followed by a zero byte and its number of columns, as nibabel has it.
        """
        n_properties, first = int(self._header["nb_properties_per_streamline"]), 0
        for encoded in self._header["property_name"]:
            name, _, columns = bytes(encoded).partition(b"\0")
            n = int(columns) if columns.isdigit() else 1
            if name and 0 < n <= n_properties - first:
                yield re.sub(r"[^0-9A-Za-z_-]", "_", name.decode("latin-1")), first, n
                first += n
        if first < n_properties:
            yield "properties", first, n_properties - first

    def _properties(self, first: int, columns: int) -> Iterator[NDArray[np.float32]]:
        """Read columns of the properties, in pieces (t, columns)."""
        records = (properties[first : first + columns] for _, properties in self._records())
        while rows := list(islice(records, PIECE_STREAMLINES)):
            yield np.stack(rows).astype(np.float32)

    def _records(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Read points, in TrackVis' coordinates, and properties of one streamline after another."""
        header = self._header
        integer, real = header.dtype["hdr_size"], header.dtype["origin"].base
        columns = 3 + int(header["nb_scalars_per_point"])
        n_properties = int(header["nb_properties_per_streamline"])
        count, found = int(header["nb_streamlines"]), 0
        with open_plain(self.path) as file:
            file.seek(header_2_dtype.itemsize)
            while head := file.read(4):
                n = int(np.frombuffer(head, integer)[0])
                if not 0 <= n <= LONGEST:
                    raise ValueError(f"streamline {found} of it has {n} points")
                n_bytes = 4 * (n * columns + n_properties)
                if n_bytes > _MAX_RECORD_BYTES:
                    raise ValueError(f"streamline {found} of it has {n_bytes} bytes")
                content = read_exactly(file, n_bytes)
                if content is None:
                    raise ValueError(f"it ends within streamline {found}")
                found += 1
                points = np.frombuffer(content, real, n * columns).reshape(n, columns)
                properties = np.frombuffer(content, real, n_properties, 4 * n * columns)
                yield (points if columns == 3 else points[:, :3].copy()), properties
        if count not in (0, found):
            raise ValueError(f"its header counts {count} streamlines, it holds {found}")


def _piece(to_mm: NDArray[np.float64], some: list[NDArray[np.float32]]) -> Piece:
    with np.errstate(invalid="ignore", over="ignore"):  # points that are not finite stay so
        points = apply_affine(to_mm, np.concatenate(some).astype(np.float32)).astype(np.float32)
    return points, np.array([len(points) for points in some], np.uint32)

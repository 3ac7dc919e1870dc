"""MRtrix3's track files: a text header, then points in RAS+ mm, NaN between streamlines.

https://mrtrix.readthedocs.io/en/latest/getting_started/image_data.html#tracks-file-format-tck
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bids_tractography.core.images import Grid
from bids_tractography.machine.files import max_plain_bytes, open_plain, read_to_end
from bids_tractography.tractogram.base import (
    LONGEST,
    Payload,
    Piece,
    Streamlines,
    StreamlineValues,
)

_HEADER_BYTES = 128  # points are aligned, for readers that map the file into memory
_ROW_BYTES = 12
_END_MARK = np.full(3, np.inf, "<f4").tobytes()
_READ_ROWS = 1 << 18
_MAX_HEADER_BYTES = 1 << 24  # commands that made a file may be many and long
_DATATYPES = {"Float32LE": "<f4", "Float32BE": ">f4"}


def write_tck(path: Path, tractogram: Streamlines, grid: Grid) -> None:
    """Write a tractogram as a ``.tck`` file, float32, in one pass.

    Parameters
    ----------
    path : Path
    tractogram : Streamlines
    grid : Grid
        Not needed: the format has none.
    """
    with path.open("wb") as file:
        file.write(_header(tractogram.n_streamlines))
        for piece in tractogram.streamlines():
            file.write(_encode(piece))
        file.write(_END_MARK)


def tck_payload(tractogram: Streamlines) -> Payload:
    """Return the payload of the file that `write_tck` writes."""

    def reserve(path: Path, _crc32: int) -> int:
        n_rows = tractogram.n_points + tractogram.n_streamlines
        with path.open("wb") as file:
            file.write(_header(tractogram.n_streamlines))
            file.seek(n_rows * _ROW_BYTES, os.SEEK_CUR)
            file.write(_END_MARK)
        return _HEADER_BYTES

    return Payload(_ROW_BYTES, _ROW_BYTES, _encode, reserve, rows="<f4")


def _encode(piece: Piece) -> bytes:
    """Put a row of NaN after the points of each streamline."""
    points, lengths = piece
    rows = np.full((len(points) + len(lengths), 3), np.nan, "<f4")
    streamline = np.repeat(np.arange(len(lengths)), lengths)
    rows[np.arange(len(points)) + streamline] = points
    return rows.tobytes()


def _header(n_streamlines: int) -> bytes:
    text = (
        "mrtrix tracks\n"
        f"count: {n_streamlines:010d}\n"
        "datatype: Float32LE\n"
        f"total_count: {n_streamlines:010d}\n"
        f"file: . {_HEADER_BYTES}\n"
        "END\n"
    )
    return text.encode().ljust(_HEADER_BYTES, b"\0")


@dataclass(frozen=True)
class TckReader:
    """Reads a ``.tck`` or ``.tck.gz`` file.

    Parameters
    ----------
    path : Path

    Raises
    ------
    ValueError, OSError, EOFError, zlib.error
        If it is not whole; on construction if the header is wrong.
    """

    path: Path

    # The format has neither a grid nor values.
    grid: ClassVar[None] = None
    dtype: ClassVar[np.dtype[Any]] = np.dtype(np.float32)
    others: ClassVar[tuple[str, ...]] = ()

    def per_streamline(self) -> list[StreamlineValues]:
        """Return the values of each streamline: none."""
        return []

    def __post_init__(self) -> None:
        _ = self._header

    @cached_property
    def _header(self) -> dict[str, str]:
        """Keys of the header; the last value of a repeated key."""
        header: dict[str, str] = {}
        with open_plain(self.path) as file:
            if file.readline(100).strip() != b"mrtrix tracks":
                raise ValueError("it does not begin with 'mrtrix tracks'")
            line, left = "", _MAX_HEADER_BYTES
            while line != "END":
                content = file.readline(left)
                left -= len(content)
                if not content or left <= 0:
                    raise ValueError("its header does not end")
                line = content.decode().strip()
                key, _, value = line.partition(":")
                header[key.strip()] = value.strip()
        if header.get("datatype") not in _DATATYPES:
            raise ValueError(
                f"its datatype is {header.get('datatype')}; {' or '.join(_DATATYPES)} is needed"
            )
        if not re.fullmatch(r"\. [0-9]{1,18}", header.get("file", "")):
            raise ValueError(f"its header does not say where points begin ({header.get('file')})")
        return header

    def streamlines(self) -> Iterator[Piece]:
        """Read whole streamlines in pieces."""
        header = self._header
        offset = int(header["file"].split()[1])
        if offset > max_plain_bytes(self.path):
            raise ValueError(f"its header states that points begin at byte {offset}")
        found = 0
        with open_plain(self.path) as file:
            file.seek(offset)
            for rows in _streamline_rows(file, _DATATYPES[header["datatype"]]):
                ends = np.flatnonzero(np.isnan(rows).all(axis=1))
                lengths = (np.diff(ends, prepend=-1) - 1).astype(np.uint32)
                found += len(lengths)
                yield np.delete(rows, ends, axis=0), lengths
            if self.path.suffix == ".gz":
                read_to_end(file)  # where the checksum is compared
        count = int(header.get("count", found))
        if count != found:
            raise ValueError(f"its header counts {count} streamlines, it holds {found}")


def _streamline_rows(file: io.BufferedIOBase, dtype: str) -> Iterator[NDArray[np.float32]]:
    """Read the rows of whole streamlines, each with its delimiter, up to the end mark."""
    rest = np.empty((0, 3), np.float32)
    while content := file.read(_READ_ROWS * _ROW_BYTES):
        whole = len(content) // _ROW_BYTES * _ROW_BYTES
        rows = np.frombuffer(content[:whole], dtype).reshape(-1, 3).astype(np.float32)
        rows = np.concatenate([rest, rows])
        end_marks = np.flatnonzero(np.isinf(rows).all(axis=1))
        if len(end_marks):
            rows = rows[: end_marks[0]]
        ends = np.flatnonzero(np.isnan(rows).all(axis=1))
        complete = int(ends[-1]) + 1 if len(ends) else 0
        yield rows[:complete]
        rest = rows[complete:]
        if len(end_marks) and not len(rest):
            return
        if len(end_marks) or len(rest) > LONGEST:
            break
    raise ValueError("it does not end as it should, with 'inf inf inf' after a whole streamline")

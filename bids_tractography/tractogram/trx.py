"""TRX files, written in one pass and in constant memory."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bids_tractography.images import Grid
from bids_tractography.tractogram.store import BatchStore

# A fixed date makes the bytes depend on the content alone.
_DATE = (1980, 1, 1, 0, 0, 0)


def write_trx(
    path: Path, store: BatchStore, grid: Grid, dtype: Literal["float32", "float16"]
) -> None:
    """Write the streamlines of a store as an uncompressed TRX zip.

    Parameters
    ----------
    path : Path
    store : BatchStore
    grid : Grid
        Of the DWI; its stored affine and shape go into the header.
    dtype : str
        Type of the positions; offsets are uint64.

    Notes
    -----
    Stored members let readers map the file into memory:
    https://github.com/tee-ar-ex/trx-spec
    """
    header = {
        "DIMENSIONS": [int(n) for n in grid.stored_shape],
        "VOXEL_TO_RASMM": grid.stored_affine.tolist(),
        "NB_VERTICES": store.n_points,
        "NB_STREAMLINES": store.n_streamlines,
    }
    little_endian = np.dtype(dtype).newbyteorder("<")
    positions = (points.astype(little_endian) for points in store.points())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        content = json.dumps(header).encode()
        _member(archive, "header.json", len(content), iter([np.frombuffer(content, np.uint8)]))
        n_bytes = store.n_points * 3 * little_endian.itemsize
        _member(archive, f"positions.3.{dtype}", n_bytes, positions)
        _member(archive, "offsets.uint64", (store.n_streamlines + 1) * 8, store.offsets())


def _member(
    archive: zipfile.ZipFile, name: str, n_bytes: int, pieces: Iterator[NDArray[np.generic]]
) -> None:
    info = zipfile.ZipInfo(name, date_time=_DATE)
    info.file_size = n_bytes  # decides on the 64-bit format beforehand
    with archive.open(info, "w") as member:
        for piece in pieces:
            member.write(piece.tobytes())

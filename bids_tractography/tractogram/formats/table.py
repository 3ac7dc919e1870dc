"""Readers and writers by file format."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bids_tractography.config.tracking import OutputConfig
from bids_tractography.core.images import Grid
from bids_tractography.errors import DataError
from bids_tractography.machine.files import check_file
from bids_tractography.tractogram.base import (
    Payload,
    Reader,
    Streamlines,
    StreamlineValues,
    Writer,
)
from bids_tractography.tractogram.formats.tck import TckReader, tck_payload, write_tck
from bids_tractography.tractogram.formats.trk import TrkReader, trk_payload, write_trk
from bids_tractography.tractogram.formats.trx import TrxReader, trx_payload, write_trx

WRITERS: Mapping[str, Writer] = {"trx": write_trx, "tck": write_tck, "trk": write_trk}

READERS: Mapping[str, Callable[[Path], Reader]] = {
    ".trx": TrxReader,
    ".tck": TckReader,
    ".tck.gz": TckReader,
    ".trk": TrkReader,
    ".trk.gz": TrkReader,
}


def writers(
    output: OutputConfig, per_streamline: Iterable[StreamlineValues] = ()
) -> dict[str, Writer]:
    """Return the writer of each requested format.

    Parameters
    ----------
    output : OutputConfig
    per_streamline : iterable of StreamlineValues
        Written into TRX files; tck and trk have no place for them.
    """
    as_asked: dict[str, Writer] = {
        **WRITERS,
        "trx": partial(write_trx, dtype=output.dtype, per_streamline=tuple(per_streamline)),
    }
    return {name: as_asked[name] for name in output.formats}


def payload(
    output: OutputConfig,
    tractogram: Streamlines,
    grid: Grid,
    per_streamline: Iterable[StreamlineValues] = (),
) -> Payload | None:
    """Return the payload of the file, if there is only one, and if its format has a payload.

    A file without one is written by its writer.

    Parameters
    ----------
    output : OutputConfig
    tractogram : Streamlines
    grid : Grid
    per_streamline : iterable of StreamlineValues
        As for `writers`.
    """
    match output.formats:
        case ("tck",):
            return tck_payload(tractogram)
        case ("trk",):
            return trk_payload(tractogram, grid)
        case ("trx",):
            return trx_payload(tractogram, grid, output.dtype, tuple(per_streamline))
    return None


def open_reader(path: Path) -> Reader:
    """Open a tractogram; its header is read and checked.

    Raises
    ------
    NoInputError
        If it is not there.
    DataError
        If it is not a tractogram, by its name or its header.
    """
    extension = extension_of(path)
    if extension is None:
        raise DataError(
            f"{path} is not a tractogram by its name.", f"One of {', '.join(READERS)} is needed."
        )
    if path.is_dir():
        raise DataError(f"{path} is a folder.", "Zip it: a TRX file is needed.")
    check_file(path)
    with reading(path):
        return READERS[extension](path)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """State in our words why a tractogram cannot be read.

    Raises
    ------
    DataError
        For any error that readers raise for files that are not whole.
    """
    try:
        yield
    except (
        *(OSError, EOFError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError),
        *(zlib.error, lzma.LZMAError, zipfile.BadZipFile, struct.error),
    ) as error:
        raise DataError(
            f"{path} cannot be read: {str(error)[:500]}.",
            "It may be damaged or cut off; fetch or make it again.",
        ) from None


def extension_of(path: Path) -> str | None:
    """Return which of the extensions of `READERS` a file has, such as ``.tck.gz``."""
    return next((extension for extension in READERS if path.name.endswith(extension)), None)

"""Readers and writers by file format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from bids_tractography.config.tracking import OutputConfig
from bids_tractography.core.images import Grid
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


def extension_of(path: Path) -> str | None:
    """Return which of the extensions of `READERS` a file has, such as ``.tck.gz``."""
    return next((extension for extension in READERS if path.name.endswith(extension)), None)

"""The file formats of tractograms: which writer and which reader is whose."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from bids_tractography.config.tracking import OutputConfig
from bids_tractography.tractogram.base import Reader, StreamlineValues, Writer
from bids_tractography.tractogram.formats.tck import TckReader, write_tck
from bids_tractography.tractogram.formats.trk import TrkReader, write_trk
from bids_tractography.tractogram.formats.trx import TrxReader, write_trx

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
    """Return the writer of every format that is asked for.

    Parameters
    ----------
    output : Output
    per_streamline : iterable of StreamlineValues
        Written into TRX files; tck and trk have no place for them.
    """
    as_asked: dict[str, Writer] = {
        **WRITERS,
        "trx": partial(write_trx, dtype=output.dtype, per_streamline=tuple(per_streamline)),
    }
    return {name: as_asked[name] for name in output.formats}


def extension_of(path: Path) -> str | None:
    """Return which of the extensions of `READERS` a file has, such as ``.tck.gz``."""
    return next((extension for extension in READERS if path.name.endswith(extension)), None)

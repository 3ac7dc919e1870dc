"""Convert tractograms between file formats, in constant memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bids_tractography.core.images import Grid
from bids_tractography.errors import DataError, GridError, OutputError, UsageError
from bids_tractography.outputs.files import refuse_existing, write_atomically
from bids_tractography.tractogram.base import Piece, Reader, StreamlineValues, Writer
from bids_tractography.tractogram.formats.table import WRITERS, open_reader, reading
from bids_tractography.tractogram.formats.trk import fits_trk, write_trk
from bids_tractography.tractogram.formats.trx import write_trx

logger = logging.getLogger(__name__)

_MIN_INSIDE = 0.5


@dataclass(frozen=True)
class FileStreamlines:
    """The streamlines of a file, which writers can read as often as they need.

    Parameters
    ----------
    path : Path
    reader : Reader
    n_streamlines, n_points : int
    """

    path: Path
    reader: Reader
    n_streamlines: int
    n_points: int

    def streamlines(self) -> Iterator[Piece]:
        """Read whole streamlines in pieces."""
        with reading(self.path):
            yield from self.reader.streamlines()

    def lengths(self) -> Iterator[NDArray[np.uint32]]:
        """Read the numbers of points of the streamlines in pieces."""
        return (lengths for _, lengths in self.streamlines())


def convert(
    source: Path, target: Path, *, reference: Grid | None = None, overwrite: bool = False
) -> FileStreamlines:
    """Write a tractogram in another format.

    Parameters
    ----------
    source : Path
        ``.trx``, ``.tck``, ``.trk``, ``.tck.gz`` or ``.trk.gz``.
    target : Path
        ``.trx``, ``.tck`` or ``.trk``.
    reference : Grid, optional
        Grid for the header of a ``.trx`` or ``.trk``; required for a source without one.
    overwrite : bool
        Whether an existing file is replaced.

    Returns
    -------
    FileStreamlines
        The streamlines that were converted.

    Raises
    ------
    UsageError
        If the target is not in a known format, or `reference` is missing or has no effect.
    NoInputError, DataError
        If the source is missing, is not whole, or has points that are not finite.
    GridError
        If most points are outside of `reference`.
    OutputError
        If the target exists or cannot be written.

    Notes
    -----
    Points in TRX and TCK are float32, and are the same in both. TRK stores them relative to a
    corner of the grid: they differ by the rounding of float32, see `write_trk`.
    """
    extension = target.suffix[1:]
    if extension not in WRITERS:
        raise UsageError(
            f"{target} is not a tractogram by its name.", f"Formats: .{', .'.join(WRITERS)}."
        )
    if target.exists() and source.exists() and target.samefile(source):
        raise OutputError(f"{target} is the tractogram itself.", "Name another output.")
    if not overwrite:
        refuse_existing(target)  # before everything is read
    reader = open_reader(source)
    grid = _grid(source, reader, extension, reference)
    tractogram = open_streamlines(source, reference)
    with reading(source):
        values = _kept(reader, extension)
    writer = _writer(extension, reader, values)
    write_atomically(target, lambda path: writer(path, tractogram, grid), new=not overwrite)
    return tractogram


def _grid(source: Path, reader: Reader, extension: str, reference: Grid | None) -> Grid:
    """Return the grid for the header of the new file; any grid for tck, which has none."""
    if reference is not None and extension == "tck":
        raise UsageError("--reference has no effect: tck has no grid.", "Remove --reference.")
    if reference is not None and reader.grid is not None:
        raise UsageError(f"{source} has a grid of its own.", "Remove --reference.")
    grid = reader.grid or reference
    if grid is None and extension != "tck":
        raise UsageError(
            f"{extension} needs the grid of an image, which {source.name} does not have.",
            "Name an image of the same space by --reference, e.g. the density map "
            "(param-tdi_dwimap.nii.gz) next to the tractogram, or its FA map.",
        )
    return grid or Grid((1, 1, 1), np.eye(4))


def open_streamlines(source: Path, reference: Grid | None = None) -> FileStreamlines:
    """Read all streamlines of a file once, to check and count them.

    Parameters
    ----------
    source : Path
    reference : Grid, optional
        Grid that most points must be in.

    Raises
    ------
    NoInputError, DataError
        If the file is missing, is not whole, or has points that are not finite.
    GridError
        If most points are outside of `reference`.
    """
    reader = open_reader(source)
    n_streamlines = n_points = n_inside = 0
    with reading(source):
        for points, lengths in reader.streamlines():
            if not np.isfinite(points).all():
                raise DataError(
                    f"{source} has points that are NaN or infinite.",
                    "Find out where they come from, and make it again.",
                )
            n_streamlines += len(lengths)
            n_points += len(points)
            n_inside += reference.count_inside(points) if reference else 0
    if reference is not None and n_inside < _MIN_INSIDE * n_points:
        raise GridError(
            f"{source}: only {n_inside} of its {n_points} points lie in the image of --reference, "
            f"which has {reference.describe()}.",
            "Name an image that the tractogram lies in.",
        )
    return FileStreamlines(source, reader, n_streamlines, n_points)


def _kept(reader: Reader, extension: str) -> list[StreamlineValues]:
    """Return the values that the new file can hold; warn of what is lost."""
    values = reader.per_streamline()
    kept = {"trx": values, "trk": fits_trk(values), "tck": []}[extension]
    names = {some.name for some in kept}
    lost = [
        *(f"values of each streamline ({v.name})" for v in values if v.name not in names),
        *reader.others,
    ]
    if lost:
        logger.warning(
            "Not converted, because %s cannot hold them: %s.", extension, ", ".join(lost)
        )
    if reader.dtype.itemsize > 4:
        logger.warning("Points are rounded from %s to float32.", reader.dtype)
    if extension == "trk":
        for some in kept:
            if not _is_exact(some):
                logger.warning("Values %s are rounded to float32 in trk.", some.name)
    return kept


def _is_exact(values: StreamlineValues) -> bool:
    """Return whether float32 holds all values as they are."""
    with np.errstate(over="ignore", invalid="ignore"):
        return all(
            np.array_equal(rows.astype(np.float32).astype(rows.dtype), rows, equal_nan=True)
            for rows in values.read()
        )


def _writer(extension: str, reader: Reader, values: Sequence[StreamlineValues]) -> Writer:
    match extension:
        case "trx":
            dtype: Literal["float16", "float32"]
            dtype = "float16" if reader.dtype.itemsize == 2 else "float32"
            return partial(write_trx, dtype=dtype, per_streamline=values)
        case "trk":
            return partial(write_trk, per_streamline=values)
    return WRITERS[extension]

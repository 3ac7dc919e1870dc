"""Import tractograms of other software: check them, and copy or link them to the derivatives."""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bids_tractography.core.images import Grid
from bids_tractography.errors import DataError, GridError, OutputError
from bids_tractography.machine.files import open_input
from bids_tractography.outputs.files import write_atomically
from bids_tractography.tractogram.base import Piece, Reader
from bids_tractography.tractogram.formats.table import extension_of, open_reader, reading
from bids_tractography.tractogram.summary import ContentHash, measured_lengths_mm, quantiles_mm

logger = logging.getLogger(__name__)

_LEAST_INSIDE = 0.5


@dataclass(frozen=True, eq=False)
class ImportedTractogram:
    """A tractogram file that is whole and lies in the DWI.

    Parameters
    ----------
    path : Path
    extension : str
        With the dot, ``.gz`` included.
    reader : Reader
    n_streamlines, n_points : int
    length_quantiles_mm : dict
        Of lengths measured along the points.
    mean_step_mm : float
        Mean distance of a point to the next.
    share_inside : float
        Share of the points that are in a voxel of the DWI.
    content_sha256 : str
        Of points in float32 and offsets, as `summary.ContentHash` defines it.
    header_grid : Grid or None
        What the header says; it matches the DWI's. None for formats without one (tck).
    warnings : tuple of str
    """

    path: Path
    extension: str
    reader: Reader
    n_streamlines: int
    n_points: int
    length_quantiles_mm: dict[str, float]
    mean_step_mm: float
    share_inside: float
    content_sha256: str
    header_grid: Grid | None
    warnings: tuple[str, ...]

    def streamlines(self) -> Iterator[Piece]:
        """Read whole streamlines in pieces: points (n, 3), and points of each streamline (t,)."""
        with reading(self.path):
            yield from self.reader.streamlines()

    def lengths(self) -> Iterator[NDArray[np.uint32]]:
        """Read the numbers of points of the streamlines in pieces."""
        return (lengths for _, lengths in self.streamlines())


def check_tractogram(path: Path, grid: Grid) -> ImportedTractogram:
    """Read a tractogram from end to end, and see whether it belongs to a DWI.

    Parameters
    ----------
    path : Path
        ``.trx``, ``.tck``, ``.trk``, ``.tck.gz`` or ``.trk.gz``.
    grid : Grid
        Of the DWI.

    Raises
    ------
    NoInputError
        If it is not there.
    DataError
        If it cannot be read whole, has no streamlines, or has points that are not finite.
    GridError
        If its header names another grid, or most of its points lie outside of the image.

    Notes
    -----
    One pass; beside a piece of the file, eight bytes of each streamline are in memory.
    """
    reader = open_reader(path)
    with reading(path):
        check_header(path, reader.grid, grid)
        survey = _survey(reader, grid)
    _check_points(path, survey, grid)
    return ImportedTractogram(
        path=path,
        extension=extension_of(path) or "",
        reader=reader,
        n_streamlines=len(survey.lengths_mm),
        n_points=survey.n_points,
        length_quantiles_mm=quantiles_mm(survey.lengths_mm),
        mean_step_mm=survey.mean_step_mm,
        share_inside=survey.n_inside / survey.n_points,
        content_sha256=survey.content_sha256,
        header_grid=reader.grid,
        warnings=survey.warnings(grid),
    )


def check_header(path: Path, header: Grid | None, grid: Grid) -> None:
    """Check that the header of a tractogram names the grid of the DWI, if it names one.

    Raises
    ------
    GridError
        If it names another.
    """
    if header is not None and not header.matches(grid):
        raise GridError(
            f"{path} is of another image: its header says {header.describe()}; the DWI has "
            f"{grid.describe()}.",
            "Name the tractogram of this DWI. If only the header is wrong, and the points are in "
            "the scanner coordinates of the DWI, convert it to .tck, which has no grid.",
        )


@dataclass(frozen=True, eq=False)
class _Survey:
    """What one pass over a tractogram finds.

    Parameters
    ----------
    lengths_mm : ndarray, shape (T,)
    n_points, n_inside, n_infinite, n_empty : int
        Points; points in the image; points that are not finite; streamlines without a point.
    content_sha256 : str
    """

    lengths_mm: NDArray[np.float32]
    n_points: int
    n_inside: int
    n_infinite: int
    n_empty: int
    content_sha256: str

    @property
    def mean_step_mm(self) -> float:
        """Mean distance of a point to the next."""
        n_steps = self.n_points - (len(self.lengths_mm) - self.n_empty)
        return float(self.lengths_mm.sum(dtype=np.float64)) / max(n_steps, 1)

    def warnings(self, grid: Grid) -> tuple[str, ...]:
        """Tell what a user should know, and may live with."""
        warnings = []
        outside = self.n_points - self.n_inside
        if outside:
            warnings.append(
                f"{outside} of {self.n_points} points of the tractogram "
                f"({outside / self.n_points:.2%}) lie outside of the DWI."
            )
        if self.mean_step_mm > grid.voxel_size_mm.min():
            warnings.append(
                f"Points of the tractogram are {self.mean_step_mm:.3g} mm apart: its streamlines "
                "pass through voxels that hold none of their points and do not count them."
            )
        if self.n_empty:
            warnings.append(f"{self.n_empty} streamlines of the tractogram have no points.")
        return tuple(warnings)


def _survey(reader: Reader, grid: Grid) -> _Survey:
    lengths: list[NDArray[np.uint32]] = []
    lengths_mm = [np.empty(0, np.float32)]
    content = ContentHash()
    n_points = n_inside = n_infinite = 0
    for points, counts in reader.streamlines():
        finite = np.isfinite(points).all(axis=1)
        n_points += len(points)
        n_infinite += int(np.count_nonzero(~finite))
        n_inside += grid.count_inside(points[finite])
        lengths.append(counts)
        # Points that are not finite are refused later, those far outside are counted.
        with np.errstate(invalid="ignore", over="ignore"):
            lengths_mm.append(measured_lengths_mm(points, counts).astype(np.float32))
        content.add(points)
    return _Survey(
        np.concatenate(lengths_mm),
        n_points,
        n_inside,
        n_infinite,
        sum(int(np.count_nonzero(counts == 0)) for counts in lengths),
        content.finish(lengths),
    )


def _check_points(path: Path, survey: _Survey, grid: Grid) -> None:
    if survey.n_points == 0:
        raise DataError(f"{path} has no streamlines.", "Name another one, or track.")
    if survey.n_infinite:
        raise DataError(
            f"{path} has {survey.n_infinite} points that are NaN or infinite.",
            "Find out where they come from, and make it again.",
        )
    share = survey.n_inside / survey.n_points
    if share < _LEAST_INSIDE:
        raise GridError(
            f"{path}: only {share:.1%} of its {survey.n_points} points lie in the DWI, which has "
            f"{grid.describe()}.",
            "Its points must be RAS+ mm in the scanner coordinates of this DWI.",
        )


def copy_or_link(path: Path, target: Path, mode: Literal["copy", "link"]) -> None:
    """Copy a tractogram to the derivatives, or link to it; never leave an incomplete file.

    Parameters
    ----------
    path : Path
        Tractogram.
    target : Path
        New file, with the extension of `path`; it is replaced if it exists.
    mode : str
        ``copy``, or ``link`` for a relative symbolic link, which remains valid if dataset and
        derivatives are moved or mounted together.

    Raises
    ------
    OutputError
        If the target cannot be written or is the file itself.
    """
    here, there = _place(path), _place(target)
    if here == there:
        raise OutputError(f"{target} is the imported tractogram itself.", "Name another output.")
    if mode == "copy":
        write_atomically(target, lambda temporary: _copy(path, temporary))
        return
    if here.parts[1] != there.parts[1]:
        logger.warning(
            "%s links to %s in another top-level directory: if only one of the two is mounted, the "
            "link is broken; import_tract.mode=copy does not depend on mounts.",
            target,
            path,
        )
    _link(Path(os.path.relpath(here, there.parent)), target)


def _place(path: Path) -> Path:
    """Resolve the directory of a file, but not the file itself, which may be a link."""
    return path.absolute().parent.resolve() / path.name


def _copy(source: Path, target: Path) -> None:
    with open_input(source) as file, target.open("wb") as copy:
        shutil.copyfileobj(file, copy, 1 << 20)


def _link(destination: Path, link: Path) -> None:
    temporary = link.with_name(f".tmp-{uuid.uuid4().hex}.{link.name}")
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary.symlink_to(destination)
        temporary.replace(link)
    except OSError as error:
        raise OutputError(f"{link} cannot be written ({error.strerror or error}).") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)

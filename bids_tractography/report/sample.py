"""The streamlines of the report: a fair sample, and one look at very many.

Every streamline has a random number of its own, which depends on its place in the file alone.
The sample is those with the smallest numbers, in their order: each beginning of it is a fair
sample, and a larger one begins with the smaller. Memory does not grow with the tractogram.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bids_tractography.core.images import Grid
from bids_tractography.machine.files import max_plain_bytes
from bids_tractography.report.kernels.survey import UNITS_PER_EDGE, add_directions
from bids_tractography.tractogram.base import Piece, blocks, selected
from bids_tractography.tractogram.formats.table import READERS, extension_of
from bids_tractography.tractogram.formats.trx import TrxReader
from bids_tractography.tractogram.linearise import kept_points
from bids_tractography.tractogram.summary import measured_lengths_mm

MAX_SURVEYED = 100_000
"""Streamlines that are measured and counted; a fixed random sample of larger tractograms."""
MAX_SHOWN = 50_000
"""Streamlines of the viewer."""
MAX_PAYLOAD = 5_600_000
"""Characters that they may take in the page."""

_TOLERANCE_MM = 0.25
_UNIT_MM = 0.1
_LARGEST = 32_000  # of 16 bits with a sign
_BLOCK = 1 << 20
_BLOCK_POINTS = 16_384  # a block of them fits into a processor's cache
_MAX_VALUES = 6
_LEAST_BYTES = 4  # of a streamline in any format
_BRIGHT = 98.5  # percentile of the density that is as bright as can be
_FULL_DETAIL = 150_000  # streamlines
_GRID_EDGES = 170  # of the density, along its longest side


def chosen(n_streamlines: int, count: int) -> NDArray[np.int64]:
    """Choose streamlines of a tractogram at random, always the same ones.

    Parameters
    ----------
    n_streamlines : int
        Of the tractogram.
    count : int
        Streamlines to choose, or all if there are fewer.

    Returns
    -------
    ndarray of int64, shape (min(count, n_streamlines),)
        Their places in the file, in random order: each beginning is what a smaller count gives.
    """
    numbers = np.random.Philox(key=0)
    keys, places = np.empty(0, np.uint64), np.empty(0, np.int64)
    for first in range(0, n_streamlines, _BLOCK):
        n = min(_BLOCK, n_streamlines - first)
        keys = np.concatenate([keys, numbers.random_raw(n)])
        places = np.concatenate([places, np.arange(first, first + n)])
        if len(keys) > count:
            smallest = np.sort(np.argpartition(keys, count - 1)[:count]) if count else slice(0)
            keys, places = keys[smallest], places[smallest]
    return places[np.argsort(keys, kind="stable")]


@dataclass(frozen=True, eq=False)
class Values:
    """A number for each streamline, as the viewer colours by it.

    Parameters
    ----------
    low, high : float
        Of what 0 and 255 stand for.
    scaled : ndarray of uint8, shape (t,)
    """

    low: float
    high: float
    scaled: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Sample:
    """The streamlines of the viewer, linearised and rounded.

    Parameters
    ----------
    points : ndarray of int16, shape (n, 3)
        In units, relative to the origin; RAS+.
    lengths : ndarray of uint32, shape (t,)
        Points of each streamline.
    lengths_mm : ndarray of float32, shape (t,)
        Measured along all points of the tractogram's file.
    unit_mm : float
    origin_mm : ndarray, shape (3,)
    max_error_mm : float
        No point of the tractogram is further than this from what is here: the largest distance
        of a dropped point to the segment that stands for it, and the largest rounding.
    values : mapping of str to Values
    """

    points: NDArray[np.int16]
    lengths: NDArray[np.uint32]
    lengths_mm: NDArray[np.float32]
    unit_mm: float
    origin_mm: NDArray[np.float64]
    max_error_mm: float
    values: Mapping[str, Values]

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def points_mm(self) -> NDArray[np.float32]:
        """Points relative to the origin, mm."""
        return self.points.astype(np.float32) * np.float32(self.unit_mm)

    @property
    def length_unit_mm(self) -> float:
        """Unit of the lengths in the page."""
        return max(0.1, float(self.lengths_mm.max(initial=0)) / _LARGEST)

    def first(self, count: int) -> Sample:
        """Return the beginning of the sample."""
        n_points = int(self.lengths[:count].sum(dtype=np.int64))
        return replace(
            self,
            points=self.points[:n_points],
            lengths=self.lengths[:count],
            lengths_mm=self.lengths_mm[:count],
            values={k: replace(v, scaled=v.scaled[:count]) for k, v in self.values.items()},
        )

    def packed(self) -> str:
        """Return the streamlines as text for the page, see `viewer.js`.

        Numbers of points (uint32), lengths (uint16), first points (int16, one axis after the
        other), and the differences to the points before: sign in the lowest bit, low bytes of
        all, one axis after the other, then high bytes. Deflated, base64.
        """
        first = np.cumsum(self.lengths, dtype=np.int64) - self.lengths
        heads = np.zeros(len(self.points), bool)
        heads[first] = True
        steps = np.diff(self.points.astype(np.int32), axis=0, prepend=0)[~heads].astype(np.int32)
        folded = ((steps << 1) ^ (steps >> 31)).astype(np.uint32)
        lengths = np.rint(self.lengths_mm / self.length_unit_mm).astype("<u2")
        parts = (
            self.lengths.astype("<u4"),
            lengths,
            self.points[heads].astype("<i2").T,
            (folded & 255).astype(np.uint8).T,
            (folded >> 8).astype(np.uint8).T,
        )
        return pack(b"".join(part.tobytes() for part in parts))


def pack(content: bytes) -> str:
    """Return bytes as deflated base64 text."""
    return base64.b64encode(zlib.compress(content, 9)).decode()


@dataclass(frozen=True, eq=False)
class Survey:
    """What the report knows of a tractogram's file.

    Parameters
    ----------
    n_streamlines : int
        Of the file.
    n_surveyed : int
        Streamlines that were measured and counted.
    lengths_mm : ndarray of float32, shape (n_surveyed,)
        Measured along the points.
    ends_mm : ndarray of float32, shape (2 n_surveyed, 3)
        First and last points.
    density : ndarray of uint8, shape (X, Y, Z, 3)
        Mean direction of the streamlines in each voxel, as bright as their length in it: 255 is
        the 98.5th percentile, on a logarithmic scale.
    density_edge_mm : float
        Of the voxels.
    sample : Sample
    packed : str
        The sample as text for the page.
    """

    n_streamlines: int
    n_surveyed: int
    lengths_mm: NDArray[np.float32]
    ends_mm: NDArray[np.float32]
    density: NDArray[np.uint8]
    density_edge_mm: float
    sample: Sample
    packed: str


def survey(
    path: Path,
    n_streamlines: int,
    box_mm: NDArray[np.float64],
    *,
    max_surveyed: int = MAX_SURVEYED,
    max_shown: int = MAX_SHOWN,
) -> Survey:
    """Look at a tractogram once: measure it, count it, and take the sample for the viewer.

    Parameters
    ----------
    path : Path
    n_streamlines : int
        That the file should have.
    box_mm : ndarray, shape (2, 3)
        Where the streamlines are, RAS+ mm.
    max_surveyed, max_shown : int

    Raises
    ------
    ValueError, LookupError, OSError, EOFError, RuntimeError
        If the file is not a whole tractogram with so many streamlines.
    """
    reader = READERS[extension_of(path) or ""](path)
    # A number that is damaged must not be counted to.
    if n_streamlines * _LEAST_BYTES > max_plain_bytes(path):
        raise ValueError(f"{path.name} cannot hold {n_streamlines} streamlines")
    by_rank = chosen(n_streamlines, max_surveyed)
    numbers = np.sort(by_rank)
    shown = np.zeros(len(numbers), bool)
    shown[np.searchsorted(numbers, by_rank[:max_shown])] = True
    origin_mm = box_mm.mean(axis=0)
    unit_mm = max(_UNIT_MM, float(np.ptp(box_mm, axis=0).max()) / _LARGEST)
    # Fewer streamlines need larger voxels, so that most have neighbours.
    n_edges = min(1, (len(numbers) / _FULL_DETAIL) ** (1 / 3)) * _GRID_EDGES
    edge_mm = float(np.ptp(box_mm, axis=0).max()) / max(n_edges, _GRID_EDGES / 3)
    shape = np.maximum(np.ceil(np.ptp(box_mm, axis=0) / edge_mm), 1).astype(int)
    density = np.zeros((*shape, 3), np.uint32)
    lengths_mm, ends_mm = [], []
    taken = _Taken(origin_mm, unit_mm)
    done = 0
    for all_points, all_lengths in _pieces(reader, numbers):
        usable = _usable(all_points, all_lengths)
        points, lengths = all_points[np.repeat(usable, all_lengths)], all_lengths[usable]
        add_directions(points, lengths, box_mm[0], edge_mm, density)
        measured = measured_lengths_mm(points, lengths).astype(np.float32)
        lengths_mm.append(measured)
        last = np.cumsum(lengths, dtype=np.int64) - 1
        ends_mm += [points[last + 1 - lengths], points[last]]
        here = shown[done : done + len(all_lengths)]
        done += len(all_lengths)
        if here.any():
            wanted = here[usable]
            some = points[np.repeat(wanted, lengths)], lengths[wanted], measured[wanted]
            taken.add(*some, usable[here])
    other = isinstance(reader, TrxReader) and reader.n_streamlines != n_streamlines
    if done < len(numbers) or other:
        raise ValueError(f"{path.name} does not have the {n_streamlines} streamlines it should")
    sampled = np.sort(by_rank[:max_shown])
    order = np.searchsorted(sampled, by_rank[:max_shown])  # from the order of the file to ours
    sample = taken.sample(order, _values(reader, sampled, order))
    sample, packed = _small_enough(sample)
    return Survey(
        n_streamlines=n_streamlines,
        n_surveyed=len(numbers),
        lengths_mm=np.concatenate([*lengths_mm, np.empty(0, np.float32)]),
        ends_mm=np.concatenate([*ends_mm, np.empty((0, 3), np.float32)]),
        density=_directional(density),
        density_edge_mm=edge_mm,
        sample=sample,
        packed=packed,
    )


def _pieces(reader: object, numbers: NDArray[np.int64]) -> Iterator[Piece]:
    """Read some of the streamlines in pieces of a size that is worth the work."""
    pieces = (
        reader.some(numbers)
        if isinstance(reader, TrxReader)
        else selected(reader.streamlines(), numbers)  # type: ignore[attr-defined]
    )
    points: list[NDArray[np.float32]] = []
    lengths: list[NDArray[np.uint32]] = []
    size = 0
    for some_points, some_lengths in pieces:
        points.append(some_points)
        lengths.append(some_lengths)
        size += len(some_points) + len(some_lengths)
        if size > _BLOCK_POINTS * 8:
            yield np.concatenate(points), np.concatenate(lengths)
            points, lengths, size = [], [], 0
    if lengths:
        yield np.concatenate(points), np.concatenate(lengths)


def _usable(points: NDArray[np.float32], lengths: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Tell which streamlines have points, all of them finite; shape (t,)."""
    usable = lengths > 0
    with np.errstate(invalid="ignore", over="ignore"):
        suspicious = not np.isfinite(points.sum())  # much faster than to look at each
    if suspicious:
        wrong = ~np.isfinite(points).all(axis=1)
        usable[np.repeat(np.arange(len(lengths)), lengths)[wrong]] = False
    return np.asarray(usable)


class _Taken:
    """Streamlines of the sample, in the order of the file."""

    def __init__(self, origin_mm: NDArray[np.float64], unit_mm: float) -> None:
        self._origin_mm = origin_mm
        self._unit_mm = unit_mm
        self._points: list[NDArray[np.int16]] = []
        self._lengths: list[NDArray[np.uint32]] = []
        self._lengths_mm: list[NDArray[np.float32]] = []
        self._usable: list[NDArray[np.bool_]] = []
        self._dropped_mm = 0.0
        self._rounded_mm = 0.0

    def add(
        self,
        points: NDArray[np.float32],
        lengths: NDArray[np.uint32],
        lengths_mm: NDArray[np.float32],
        usable: NDArray[np.bool_],
    ) -> None:
        """Linearise and round some streamlines.

        Parameters
        ----------
        points, lengths, lengths_mm
            Of those that are usable.
        usable : ndarray of bool, shape (t,)
            Which of the next streamlines these are; the others are a point without extent.
        """
        placed = np.zeros(len(usable), np.float32)
        placed[usable] = lengths_mm
        self._lengths_mm.append(placed)
        self._usable.append(usable)
        for some, where in blocks(lengths, _BLOCK_POINTS):
            kept, error_mm = kept_points(points[where], lengths[some], _TOLERANCE_MM)
            streamline = np.repeat(np.arange(some.stop - some.start), lengths[some])
            counts = np.bincount(streamline[kept], minlength=some.stop - some.start)
            exact = (points[where][kept].astype(np.float64) - self._origin_mm) / self._unit_mm
            rounded = np.clip(np.rint(exact), -_LARGEST, _LARGEST)
            off_mm = np.sqrt(((rounded - exact) ** 2).sum(axis=1)) * self._unit_mm
            self._points.append(rounded.astype(np.int16))
            self._lengths.append(counts.astype(np.uint32))
            self._dropped_mm = max(self._dropped_mm, float(error_mm.max(initial=0)))
            self._rounded_mm = max(self._rounded_mm, float(off_mm.max(initial=0)))

    def sample(self, order: NDArray[np.int64], values: Mapping[str, Values]) -> Sample:
        """Return all that was added, in another order."""
        usable = np.concatenate([*self._usable, np.empty(0, bool)])
        lengths = np.ones(len(usable), np.uint32)
        lengths[usable] = np.concatenate([*self._lengths, np.empty(0, np.uint32)])
        points = np.zeros((int(lengths.sum(dtype=np.int64)), 3), np.int16)
        found = np.repeat(usable, lengths)
        points[found] = np.concatenate([*self._points, np.empty((0, 3), np.int16)])
        begins = np.cumsum(lengths, dtype=np.int64) - lengths
        ordered = lengths[order]
        new = np.cumsum(ordered, dtype=np.int64) - ordered
        place = np.repeat(begins[order] - new, ordered) + np.arange(len(points))
        return Sample(
            points=points[place],
            lengths=ordered,
            lengths_mm=np.concatenate([*self._lengths_mm, np.empty(0, np.float32)])[order],
            unit_mm=self._unit_mm,
            origin_mm=self._origin_mm,
            max_error_mm=self._dropped_mm + self._rounded_mm,
            values=values,
        )


def _directional(density: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Return colours by direction, bright by length; slab by slab, which saves memory."""
    length = np.stack([np.sqrt((slab.astype(np.float32) ** 2).sum(axis=-1)) for slab in density])
    length /= np.float32(UNITS_PER_EDGE)
    some = length[length > 0]
    largest = np.log1p(np.percentile(some, _BRIGHT)) if some.size else 1
    colours = np.empty(density.shape, np.uint8)
    for slab, here, to in zip(density, length, colours, strict=True):
        share = np.log1p(here) / (largest * np.maximum(here, 1e-6) * np.float32(UNITS_PER_EDGE))
        to[...] = np.rint(np.minimum(255 * slab * share[..., None], 255))
    return colours


def _values(
    reader: object, numbers: NDArray[np.int64], order: NDArray[np.int64]
) -> dict[str, Values]:
    """Read what the file has for each streamline of the sample."""
    found: dict[str, Values] = {}
    if not isinstance(reader, TrxReader) or not len(numbers):
        return found
    for name, columns in reader.values.items():
        if len(found) + columns > _MAX_VALUES:
            continue
        array = reader.read_values(name, numbers)[order].astype(np.float64)
        for column in range(columns):
            exact = np.nan_to_num(array[:, column], posinf=0, neginf=0)
            low, high = float(exact.min()), float(exact.max())
            scaled = np.rint(255 * (exact - low) / ((high - low) or 1)).astype(np.uint8)
            found[f"{name} {column + 1}" if columns > 1 else name] = Values(low, high, scaled)
    return found


def _small_enough(sample: Sample) -> tuple[Sample, str]:
    """Shorten a sample until it fits into the page; return it and its text."""
    packed = sample.packed()
    while len(packed) > MAX_PAYLOAD:
        sample = sample.first(math.floor(0.98 * len(sample) * MAX_PAYLOAD / len(packed)))
        packed = sample.packed()
    return sample, packed


def box_of(image: NDArray[np.floating], grid: Grid) -> NDArray[np.float64]:
    """Return the box around the voxels above zero, with half a voxel around, shape (2, 3), mm."""
    found = np.argwhere(image > 0)
    if not len(found):
        found = np.array([[0, 0, 0], np.array(grid.shape) - 1])
    low, high = found.min(axis=0) - 1.0, found.max(axis=0) + 1.0
    corners = np.array([[(low, high)[b >> c & 1][c] for c in range(3)] for b in range(8)])
    moved = grid.to_mm(corners)
    return np.array([moved.min(axis=0), moved.max(axis=0)])

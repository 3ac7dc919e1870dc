"""Summaries of tractograms: lengths, density, content hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bids_tractography.core.images import Grid
from bids_tractography.tractogram.base import Streamlines, offsets_of
from bids_tractography.tractogram.kernels.visits import count_visits
from bids_tractography.tractogram.store import BatchStore

_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def length_quantiles_mm(store: BatchStore, step_size_mm: float) -> dict[str, float]:
    """Return exact quantiles of the streamlines' lengths, (points - 1) x step."""
    counts = store.points_histogram()
    cumulative = np.cumsum(counts)
    last = store.n_streamlines - 1
    points = [int(np.searchsorted(cumulative, round(q * last), side="right")) for q in _QUANTILES]
    return {
        f"{q:g}": round((n - 1) * step_size_mm, 6) for q, n in zip(_QUANTILES, points, strict=True)
    }


def measured_lengths_mm(
    points: NDArray[np.float32], lengths: NDArray[np.uint32]
) -> NDArray[np.float64]:
    """Measure streamlines along their points, shape (t,), mm.

    Parameters
    ----------
    points : ndarray, shape (n, 3)
    lengths : ndarray, shape (t,)
        Points of each streamline.
    """
    streamline = np.repeat(np.arange(len(lengths)), lengths)
    steps = np.diff(points.astype(np.float64), axis=0)
    within = streamline[1:] == streamline[:-1]
    step_mm = np.sqrt(steps[:, 0] ** 2 + steps[:, 1] ** 2 + steps[:, 2] ** 2)
    sums = np.bincount(streamline[1:][within], step_mm[within], minlength=len(lengths))
    return sums.astype(np.float64)


def quantiles_mm(lengths_mm: NDArray[np.floating]) -> dict[str, float]:
    """Return quantiles of measured lengths; each is the length of a streamline."""
    values = np.quantile(lengths_mm, _QUANTILES, method="nearest")
    return {f"{q:g}": round(float(v), 3) for q, v in zip(_QUANTILES, values, strict=True)}


class ContentHash:
    """Hash of points and offsets, independent of the file format.

    SHA-256 of the positions as written, as little-endian float32 (N, 3), followed by the
    offsets as little-endian uint64 (T + 1,).

    Parameters
    ----------
    dtype : str
        Type that the positions are written in.
    """

    def __init__(self, dtype: Literal["float32", "float16"] = "float32") -> None:
        self._dtype = dtype
        self._digest = hashlib.sha256()

    def add(self, points: NDArray[np.floating]) -> None:
        """Go on with the next points."""
        self._digest.update(points.astype(self._dtype).astype("<f4").tobytes())

    def finish(self, lengths: Iterable[NDArray[np.uint32]]) -> str:
        """Return the hash, given the numbers of points of all streamlines, in pieces."""
        for offsets in offsets_of(lengths):
            self._digest.update(offsets.astype("<u8").tobytes())
        return self._digest.hexdigest()


def content_hash(tractogram: Streamlines, dtype: Literal["float32", "float16"] = "float32") -> str:
    """Hash the points, as they are written in a type, and the offsets: see `ContentHash`."""
    content = ContentHash(dtype)
    for points, _ in tractogram.streamlines():
        content.add(points)
    return content.finish(tractogram.lengths())


def density(tractogram: Streamlines, grid: Grid) -> NDArray[np.int32]:
    """Count the streamlines through each voxel, shape (X, Y, Z), in RAS+ order.

    A streamline counts once in every voxel that holds one of its points.
    """
    counter = DensityCounter(grid)
    for points, lengths in tractogram.streamlines():
        counter.add(points, lengths)
    return counter.density


class DensityCounter:
    """Counts the streamlines through each voxel, see `density`.

    Parameters
    ----------
    grid : Grid
    """

    def __init__(self, grid: Grid) -> None:
        self._shape = grid.shape
        self._to_voxels = np.linalg.inv(grid.affine)
        self._visits = np.zeros(int(np.prod(grid.shape)), np.int32)
        self._last = np.full(self._visits.shape, -1, np.int64)
        self._first = 0

    def add(self, points: NDArray[np.float32], lengths: NDArray[np.integer]) -> None:
        """Count the next streamlines: their points (n, 3), and the points of each (t,)."""
        count_visits(
            points,
            lengths.astype(np.uint32, copy=False),
            self._first,
            self._to_voxels,
            self._shape,
            self._last,
            self._visits,
        )
        self._first += len(lengths)

    @property
    def density(self) -> NDArray[np.int32]:
        """Streamlines through each voxel, shape (X, Y, Z)."""
        return self._visits.reshape(self._shape)

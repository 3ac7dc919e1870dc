"""What a reader wants to know of a tractogram: lengths, density, content hash."""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bids_tractography.images import Grid
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


def content_hash(store: BatchStore, dtype: Literal["float32", "float16"]) -> str:
    """Hash points and offsets, whatever file they are in.

    SHA-256 of the positions as written, as little-endian float32 (N, 3), followed by the
    offsets as little-endian uint64 (T + 1,).
    """
    digest = hashlib.sha256()
    for points in store.points():
        digest.update(points.astype(dtype).astype("<f4").tobytes())
    for offsets in store.offsets():
        digest.update(offsets.astype("<u8").tobytes())
    return digest.hexdigest()


def density(store: BatchStore, grid: Grid) -> NDArray[np.int32]:
    """Count the streamlines through each voxel, shape (X, Y, Z), in RAS+ order.

    A streamline counts once in every voxel that holds one of its points.
    """
    shape = np.array(grid.shape)
    total = np.zeros(int(shape.prod()), np.int32)
    for points, lengths in store.streamlines():
        voxels = np.rint(grid.to_voxels(points)).astype(np.int64)
        inside = ((voxels >= 0) & (voxels < shape)).all(axis=1)
        index = np.ravel_multi_index(tuple(voxels[inside].T), grid.shape)
        streamline = np.repeat(np.arange(len(lengths)), lengths)[inside]
        visits = np.unique(streamline * total.size + index) % total.size
        total += np.bincount(visits, minlength=total.size).astype(np.int32)
    return total.reshape(grid.shape)

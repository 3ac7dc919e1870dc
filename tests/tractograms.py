"""Tractograms for tests: random streamlines, stores and grids, and reading them back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from trx.trx_file_memmap import load as load_trx

from bids_tractography.core.images import Grid
from bids_tractography.core.seeding import SeedBatch
from bids_tractography.core.streamlines import Counts, Stop, StreamlineBatch
from bids_tractography.tractogram.base import Piece
from bids_tractography.tractogram.store import BatchStore


def oblique_las_grid() -> Grid:
    """A grid of 9 x 11 x 7 voxels of 2 x 3 x 4 mm, turned, stored from right to left."""
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", [9, -14, 21], degrees=True).as_matrix()
    affine[:3, :3] = turn * [-2.0, 3.0, 4.0]
    affine[:3, 3] = [15.0, -20.0, -11.0]
    return Grid((9, 11, 7), affine)


def random_streamlines(count: int, longest: int = 30) -> list[Any]:
    rng = np.random.default_rng(4)
    return [
        rng.uniform(-20, 20, 3) + np.cumsum(rng.normal(0, 1, (n, 3)), axis=0)
        for n in rng.integers(1, longest, count)
    ]


def stored(folder: Path, streamlines: list[Any], size: int = 10**6, ends: Any = None) -> BatchStore:
    """Store streamlines, one for every seed, in batches of a size."""
    ends = np.zeros((len(streamlines), 2), np.uint8) if ends is None else ends
    store = BatchStore.open(folder, {"inputs": "a"}, 1)
    with store, mock.patch("os.fsync"):
        for first in range(0, len(streamlines), size):
            some = streamlines[first : first + size]
            n = len(some)
            stops: dict[str, int] = {**dict.fromkeys(Stop, 0), Stop.STOPPING_RULE: 2 * n}
            batch = StreamlineBatch(
                np.concatenate(some).astype(np.float32),
                np.cumsum([0, *map(len, some)]).astype(np.int64),
                np.arange(first, first + n),
                Counts(seeds=n, generated=n, kept=n, stops=stops),
                ends[first : first + n],
            )
            store.append(SeedBatch(first, np.zeros((n, 3))), batch, seconds=0, cpu_seconds=0)
    return store


# float32 at 150 mm has steps of 1.5e-5 mm; a trk has them in points and in its affine.
WITHIN_MM = {"trx": 0, "tck": 0, "trk": 1e-4}


def read(path: Path) -> list[NDArray[Any]]:
    """Read a tractogram with the library of its format."""
    if path.suffix != ".trx":
        return [np.array(line) for line in nib.streamlines.load(path).streamlines]
    trx = load_trx(str(path))
    try:
        return [np.array(line) for line in trx.streamlines]
    finally:
        trx.close()


def assert_same(read_back: list[Any], streamlines: list[Any], within_mm: float) -> None:
    assert [len(line) for line in read_back] == [len(line) for line in streamlines]
    apart = np.concatenate(read_back) - np.concatenate(streamlines).astype(np.float32)
    assert np.abs(apart).max() <= within_mm


class Endless:
    """A tractogram that counts how many pieces of it are there at a time."""

    def __init__(self, n_pieces: int) -> None:
        self.piece = (np.ones((5000, 3), np.float32), np.full(50, 100, np.uint32))
        self.n_pieces = n_pieces
        self.n_points = 5000 * n_pieces
        self.n_streamlines = 50 * n_pieces

    def streamlines(self) -> Iterator[Piece]:
        for _ in range(self.n_pieces):
            points, lengths = self.piece
            yield points.copy(), lengths.copy()

    def lengths(self) -> Iterator[NDArray[np.uint32]]:
        return (lengths for _, lengths in self.streamlines())

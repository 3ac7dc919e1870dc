"""Seed positions: a list of which any batch can be computed independently.

The random numbers of seed ``i`` are block ``i`` of a counter-based generator (Philox-4x64, Salmon
2011) with the key ``rng_seed``. They depend on nothing else, so batches, threads and restarts do
not change them, and a larger total extends a smaller one.
"""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic
from numpy.typing import NDArray

from bids_tractography.config.tracking import (
    ConvergeSeedsConfig,
    GridSeedsConfig,
    RandomSeedsConfig,
    SeedsConfig,
    SelectSeedsConfig,
    TotalSeedsConfig,
)
from bids_tractography.core.images import Grid
from bids_tractography.core.tables import read_table
from bids_tractography.errors import DataError, EmptyMaskError
from bids_tractography.machine.files import open_input

_SEED_FILE_BYTES = 1 << 30
_WORDS_PER_SEED = 4  # one Philox block: three coordinates and a voxel


@dataclass(frozen=True, eq=False)
class SeedBatch:
    """A batch of consecutive seeds.

    Parameters
    ----------
    first : int
        Index of the first seed in the whole list.
    positions_mm : ndarray, shape (n, 3)
        Positions in RAS+ mm.
    """

    first: int
    positions_mm: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.positions_mm)


@dataclass(frozen=True, eq=False)
class SeedList:
    """All seeds of a run.

    Parameters
    ----------
    config : SeedsConfig
        Number and positions of the seeds. Where the number is only bounded, the list is as long
        as the bound.
    mask : ndarray of bool, shape (X, Y, Z)
        Seed mask; ignored for given seeds.
    grid : Grid
        Grid of the mask.
    rng_seed : int
        Key of the random number generator.
    given_mm : ndarray, shape (N, 3), optional
        Positions in RAS+ mm, for given seeds.
    """

    config: SeedsConfig
    mask: NDArray[np.bool_]
    grid: Grid
    rng_seed: int
    given_mm: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if self.given_mm is None and not self.mask.any():
            raise EmptyMaskError("the seed mask is empty.", "Check seeding.mask.")

    @cached_property
    def _voxels(self) -> NDArray[np.int32]:
        return np.argwhere(self.mask).astype(np.int32)

    def __len__(self) -> int:
        match self.config:
            case GridSeedsConfig(per_axis=n):
                return len(self._voxels) * n**3
            case RandomSeedsConfig(per_voxel=n):
                return len(self._voxels) * n
            case TotalSeedsConfig(count=n):
                return n
            case SelectSeedsConfig(limit=n) | ConvergeSeedsConfig(limit=n):
                return n
        return len(self._given)

    @property
    def _given(self) -> NDArray[np.float64]:
        if self.given_mm is None:
            raise ValueError("given seeds require coordinates")
        return self.given_mm

    def batch(self, first: int, stop: int) -> SeedBatch:
        """Return the seeds ``first <= i < stop``."""
        stop = min(stop, len(self))
        index = np.arange(first, stop)
        match self.config:
            case GridSeedsConfig(per_axis=n):
                voxels, cells = np.divmod(index, n**3)
                offsets = (np.stack(np.unravel_index(cells, (n, n, n)), axis=1) + 0.5) / n - 0.5
                positions = self._voxels[voxels] + offsets
            case RandomSeedsConfig(per_voxel=n):
                positions = self._voxels[index // n] + self._uniform(first, stop)[:, :3] - 0.5
            case TotalSeedsConfig() | SelectSeedsConfig() | ConvergeSeedsConfig():
                uniform = self._uniform(first, stop)
                voxels = (uniform[:, 3] * len(self._voxels)).astype(np.int64)
                positions = self._voxels[voxels] + uniform[:, :3] - 0.5
            case _:
                return SeedBatch(first, self._given[first:stop])
        return SeedBatch(first, self.grid.to_mm(positions))

    def batches(self, size: int, *, start: int = 0) -> Iterator[SeedBatch]:
        """Yield the seeds from ``start`` on in batches of ``size``."""
        for first in range(start, len(self), size):
            yield self.batch(first, first + size)

    def _uniform(self, first: int, stop: int) -> NDArray[np.float64]:
        """Return uniform random numbers in [0, 1) of the given seeds, shape (n, 4)."""
        generator = np.random.Philox(key=self.rng_seed, counter=first)
        words = generator.random_raw((stop - first) * _WORDS_PER_SEED)
        uniform = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return uniform.reshape(-1, _WORDS_PER_SEED)


def draw_rng_seed() -> int:
    """Draw a random seed for a run whose configuration does not set one."""
    return secrets.randbits(32)


def read_given_seeds(path: Path, grid: Grid) -> NDArray[np.float64]:
    """Read seed coordinates in RAS+ mm, shape (N, 3).

    Raises
    ------
    NoInputError
        If the file cannot be read.
    DataError
        If the file is not a list of points, or none of them lies in the image.
    """
    if path.suffix == ".npy":
        points = _load_npy(path)
    else:
        points = read_table(path, max_bytes=_SEED_FILE_BYTES)
    if points.ndim != 2 or points.shape[1] != 3 or points.dtype.kind not in "fiu":
        raise DataError(
            f"{path} has the shape {points.shape}; expected (N, 3) with x, y and z in RAS+ mm."
        )
    if len(points) == 0 or not np.isfinite(points).all():
        raise DataError(f"{path} has no points, or non-finite coordinates.")
    with np.errstate(over="ignore", invalid="ignore"):  # coordinates may be far outside
        voxels = grid.to_voxels(points)
    inside = ((voxels > -0.5) & (voxels < np.array(grid.shape) - 0.5)).all(axis=1)
    if not inside.any():
        raise DataError(
            f"none of the {len(points)} seeds of {path} lies in the image.",
            "Coordinates must be RAS+ mm in the space of this DWI.",
        )
    return points.astype(np.float64)


def _load_npy(path: Path) -> NDArray[np.floating]:
    """Read a plain array of numbers, checking its header before memory is allocated."""
    with open_input(path) as file:
        try:
            shape, dtype = _npy_header(file)
            n_bytes = prod(shape) * dtype.itemsize
            held = os.fstat(file.fileno()).st_size - file.tell()
            if n_bytes != held:
                raise ValueError(f"its header announces {n_bytes} bytes, the file holds {held}")
            file.seek(0)
            return np.asarray(np.load(file, allow_pickle=False))
        except (
            *(OSError, EOFError, ValueError, TypeError, SyntaxError, LookupError, MemoryError),
            *(ArithmeticError, RecursionError, TokenError),
        ) as error:
            raise DataError(f"{path} is not a NumPy array: {str(error)[:200]}.") from None


def _npy_header(file: io.BufferedReader) -> tuple[tuple[int, ...], np.dtype[Any]]:
    readers = {(1, 0): read_array_header_1_0, (2, 0): read_array_header_2_0}
    version = read_magic(file)
    if version not in readers:
        raise ValueError(f"version {version} of the format is only for structured arrays")
    shape, _, dtype = readers[version](file)
    if dtype.kind not in "fiu" or not all(0 <= size < 2**53 for size in shape):
        raise ValueError(f"it holds {dtype} values of shape {shape}")
    return shape, dtype

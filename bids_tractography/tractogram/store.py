"""The batch store: finished batches on disk, entered in a ledger.

A batch is appended to the data files and forced to disk; only then its line is appended to the
ledger. Whatever a killed run left behind the last whole line of the ledger is cut off when the
store is opened again, and tracking goes on with the seed after it.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from bids_tractography.errors import OutputError
from bids_tractography.seeding import SeedBatch
from bids_tractography.streamlines import Counts, StreamlineBatch
from bids_tractography.tractogram.base import (
    LINEARISED,
    Piece,
    StreamlineValues,
    read_array,
    read_streamlines,
)

logger = logging.getLogger(__name__)

_FORMAT = 2
_COPY_BYTES = 1 << 22
_MAKE_TRIES = 1000


@dataclass(frozen=True)
class _Array:
    """A data file: numbers of each point or of each streamline, without a header."""

    name: str
    dtype: str
    columns: int
    of_points: bool = False

    @property
    def row_bytes(self) -> int:
        return np.dtype(self.dtype).itemsize * self.columns

    def rows(self, streamlines: int, points: int) -> int:
        return points if self.of_points else streamlines


_POINTS = _Array("points.float32", "<f4", 3, of_points=True)
_LENGTHS = _Array("lengths.uint32", "<u4", 1)
_SEED = _Array("seed_index.int64", "<i8", 1)
_ENDS = _Array("ends.uint8", "u1", 2)
_ARRAYS = (_POINTS, _LENGTHS, _SEED, _ENDS)


@dataclass(frozen=True)
class Entry:
    """A finished batch, as the ledger has it.

    Parameters
    ----------
    first, stop : int
        Its seeds are ``first <= i < stop``.
    streamlines, points : int
        What it added to the data files.
    checksum : int
        CRC-32 of what it added: points, lengths, seed indices, ends.
    seconds, cpu_seconds : float
        What it took to track.
    counts : Counts
    """

    first: int
    stop: int
    streamlines: int
    points: int
    checksum: int
    seconds: float
    cpu_seconds: float
    counts: Counts


class BatchStore:
    """Finished batches of one tractogram; use `open` as a context.

    Parameters
    ----------
    folder : Path
    rng_seed : int
        Seed that all batches in it were made with.
    """

    def __init__(self, folder: Path, rng_seed: int) -> None:
        self.folder = folder
        self.rng_seed = rng_seed
        self.next_seed = 0
        self.n_batches = 0
        self.n_streamlines = 0
        self.n_points = 0
        self.seconds = 0.0
        self.cpu_seconds = 0.0
        self.counts = Counts()
        self._files: dict[Path, BinaryIO] = {}

    @classmethod
    def open(cls, folder: Path, fingerprint: dict[str, str], rng_seed: int) -> BatchStore:
        """Open the store in a folder, going on with what it has if that belongs to this run.

        Parameters
        ----------
        folder : Path
            Made if it is not there.
        fingerprint : dict
            Identifies inputs, configuration and software; a store with another one is emptied.
        rng_seed : int
            Used for a new store; an old one keeps the seed it began with.
        """
        head = _read_head(folder)
        if head and (head.get("format"), head.get("fingerprint")) == (_FORMAT, fingerprint):
            store = cls(folder, head["rng_seed"])
            store._recover()
            return store
        if head:
            logger.info("Unfinished batches in %s belong to another run: starting over.", folder)
        store = cls(folder, rng_seed)
        store.discard()
        try:
            _make(folder)
            for array in _ARRAYS:
                store._path(array).touch()
            head = {"format": _FORMAT, "fingerprint": fingerprint, "rng_seed": rng_seed}
            temporary = folder / "ledger.tmp"
            temporary.write_text(json.dumps(head) + "\n")
            temporary.rename(store._ledger_path)
        except OSError as error:
            raise OutputError(f"{folder} cannot be written ({error.strerror}).") from None
        return store

    def discard(self) -> None:
        """Remove the store: its own files, and the folder if nothing else is in it."""
        arrays = (array.name for array in _ARRAYS)
        for name in ("ledger.jsonl", "ledger.tmp", *arrays, *LINEARISED):
            (self.folder / name).unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()

    def _path(self, array: _Array) -> Path:
        return self.folder / array.name

    @property
    def _ledger_path(self) -> Path:
        return self.folder / "ledger.jsonl"

    def __enter__(self) -> Self:
        for path in (*map(self._path, _ARRAYS), self._ledger_path):
            self._files[path] = path.open("ab")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()

    def append(
        self, seeds: SeedBatch, batch: StreamlineBatch, *, seconds: float, cpu_seconds: float
    ) -> None:
        """Add the next batch.

        Raises
        ------
        ValueError
            If it is not the next one, or not every streamline has a seed and two stops.
        ArithmeticError
            If its counts do not add up.
        """
        if seeds.first != self.next_seed:
            raise ValueError(f"batch starts at seed {seeds.first}, not at {self.next_seed}")
        batch.counts.check()
        if (batch.counts.seeds, batch.counts.kept) != (len(seeds), len(batch)):
            raise ArithmeticError(f"counts of another batch: {batch.counts}")
        if (batch.seed_index.shape, batch.stops.shape) != ((len(batch),), (len(batch), 2)):
            raise ValueError(
                f"{len(batch)} streamlines have seeds of shape {batch.seed_index.shape} and stops "
                f"of shape {batch.stops.shape}"
            )
        values = (batch.points_mm, np.diff(batch.offsets), batch.seed_index, batch.stops)
        added = {
            array: np.ascontiguousarray(value, array.dtype).tobytes()
            for array, value in zip(_ARRAYS, values, strict=True)
        }
        checksum = 0
        for content in added.values():
            checksum = zlib.crc32(content, checksum)
        entry = Entry(
            first=seeds.first,
            stop=seeds.first + len(seeds),
            streamlines=len(batch),
            points=len(batch.points_mm),
            checksum=checksum,
            seconds=round(seconds, 3),
            cpu_seconds=round(cpu_seconds, 3),
            counts=batch.counts,
        )
        for array, content in added.items():
            self._write(self._path(array), content)
        self._write(self._ledger_path, (json.dumps(asdict(entry)) + "\n").encode())
        self._account(entry)

    def _write(self, path: Path, content: bytes) -> None:
        file = self._files[path]
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(f"{path} cannot be written ({error.strerror}).") from error

    def _account(self, entry: Entry) -> None:
        self.next_seed = entry.stop
        self.n_batches += 1
        self.n_streamlines += entry.streamlines
        self.n_points += entry.points
        self.seconds += entry.seconds
        self.cpu_seconds += entry.cpu_seconds
        self.counts = self.counts + entry.counts

    def _recover(self) -> None:
        """Count the batches that are whole, and cut off what follows them."""
        intact = len(_first_line(self._ledger_path))
        with ExitStack() as stack:
            ledger = stack.enter_context(self._ledger_path.open("rb"))
            files = []
            for array in _ARRAYS:
                self._path(array).touch()  # one that is lost is as one that was cut off
                files.append(stack.enter_context(self._path(array).open("rb")))
            ledger.seek(intact)
            for line in ledger:
                entry = _parse(line)
                if entry is None or entry.first != self.next_seed:
                    break
                if not _intact(entry, files):
                    break
                intact += len(line)
                self._account(entry)
        os.truncate(self._ledger_path, intact)
        for array in _ARRAYS:
            n_rows = array.rows(self.n_streamlines, self.n_points)
            os.truncate(self._path(array), n_rows * array.row_bytes)
        if self.n_batches:
            logger.info(
                "Going on after seed %d: %d finished batches with %d streamlines are kept.",
                self.next_seed,
                self.n_batches,
                self.n_streamlines,
            )

    def streamlines(self) -> Iterator[Piece]:
        """Read whole streamlines in pieces: points (n, 3), and points of each streamline (t,)."""
        return read_streamlines(self._path(_POINTS), self._path(_LENGTHS))

    def lengths(self) -> Iterator[NDArray[np.uint32]]:
        """Read the numbers of points of the streamlines in pieces."""
        return read_array(self._path(_LENGTHS), _LENGTHS.dtype)

    def per_streamline(self, name: str) -> StreamlineValues:
        """Read what is known of each streamline beside its points.

        Parameters
        ----------
        name : str
            ``seed``: index of its seed; ``ends``: why its first and its last point are where
            they are, as places in ``list(Stop)``.
        """
        array, title = {"seed": (_SEED, "seed_index"), "ends": (_ENDS, "ends")}[name]
        return StreamlineValues(
            title,
            np.dtype(array.dtype),
            array.columns,
            partial(read_array, self._path(array), array.dtype, array.columns),
        )

    def points_histogram(self) -> NDArray[np.int64]:
        """Count the streamlines by their number of points."""
        histogram = np.zeros(1, np.int64)
        for lengths in self.lengths():
            counts = np.bincount(lengths, minlength=len(histogram))
            counts[: len(histogram)] += histogram
            histogram = counts
        return histogram


def _make(folder: Path) -> None:
    """Make a folder in one that others remove whenever they find it empty."""
    for _ in range(_MAKE_TRIES):
        with suppress(FileNotFoundError, FileExistsError):
            folder.mkdir(parents=True, exist_ok=True)
            return
    folder.mkdir(parents=True, exist_ok=True)


def _read_head(folder: Path) -> dict[str, Any] | None:
    try:
        line = _first_line(folder / "ledger.jsonl")
        head = json.loads(line)
    except (OSError, ValueError):
        return None
    return head if isinstance(head, dict) and line.endswith(b"\n") else None


def _first_line(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.readline()


def _parse(line: bytes) -> Entry | None:
    """Read a line of the ledger; None if it is not whole."""
    if not line.endswith(b"\n"):
        return None
    try:
        content = json.loads(line)
        return Entry(**{**content, "counts": Counts(**content["counts"])})
    except (ValueError, TypeError, KeyError):
        return None


def _intact(entry: Entry, files: Sequence[BinaryIO]) -> bool:
    """Tell whether the next bytes of the data files are what the ledger says."""
    checksum = 0
    for array, file in zip(_ARRAYS, files, strict=True):
        left = array.rows(entry.streamlines, entry.points) * array.row_bytes
        while left > 0:
            content = file.read(min(left, _COPY_BYTES))
            if not content:
                return False
            checksum = zlib.crc32(content, checksum)
            left -= len(content)
    return checksum == entry.checksum

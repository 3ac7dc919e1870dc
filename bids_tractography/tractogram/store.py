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
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from bids_tractography.errors import OutputError
from bids_tractography.seeding import SeedBatch
from bids_tractography.streamlines import Counts, StreamlineBatch

logger = logging.getLogger(__name__)

_FORMAT = 1
_COPY_BYTES = 1 << 22


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
        CRC-32 of what it added, lengths after points.
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
            folder.mkdir(parents=True, exist_ok=True)
            for path in (store._points_path, store._lengths_path):
                path.touch()
            head = {"format": _FORMAT, "fingerprint": fingerprint, "rng_seed": rng_seed}
            temporary = folder / "ledger.tmp"
            temporary.write_text(json.dumps(head) + "\n")
            temporary.rename(store._ledger_path)
        except OSError as error:
            raise OutputError(f"{folder} cannot be written ({error.strerror}).") from None
        return store

    def discard(self) -> None:
        """Remove the store: its own files, and the folder if nothing else is in it."""
        for name in ("ledger.jsonl", "ledger.tmp", "points.float32", "lengths.uint32"):
            (self.folder / name).unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()

    @property
    def _points_path(self) -> Path:
        return self.folder / "points.float32"

    @property
    def _lengths_path(self) -> Path:
        return self.folder / "lengths.uint32"

    @property
    def _ledger_path(self) -> Path:
        return self.folder / "ledger.jsonl"

    def __enter__(self) -> Self:
        for path in (self._points_path, self._lengths_path, self._ledger_path):
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
            If it is not the next one.
        ArithmeticError
            If its counts do not add up.
        """
        if seeds.first != self.next_seed:
            raise ValueError(f"batch starts at seed {seeds.first}, not at {self.next_seed}")
        batch.counts.check()
        if (batch.counts.seeds, batch.counts.kept) != (len(seeds), len(batch)):
            raise ArithmeticError(f"counts of another batch: {batch.counts}")
        points = np.ascontiguousarray(batch.points_mm, "<f4").tobytes()
        lengths = np.diff(batch.offsets).astype("<u4").tobytes()
        entry = Entry(
            first=seeds.first,
            stop=seeds.first + len(seeds),
            streamlines=len(batch),
            points=len(batch.points_mm),
            checksum=zlib.crc32(lengths, zlib.crc32(points)),
            seconds=round(seconds, 3),
            cpu_seconds=round(cpu_seconds, 3),
            counts=batch.counts,
        )
        self._write(self._points_path, points)
        self._write(self._lengths_path, lengths)
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
        for path in (self._points_path, self._lengths_path):
            path.touch()  # one that is lost is as one that was cut off
        with (
            self._ledger_path.open("rb") as ledger,
            self._points_path.open("rb") as points,
            self._lengths_path.open("rb") as lengths,
        ):
            ledger.seek(intact)
            for line in ledger:
                entry = _parse(line)
                if entry is None or entry.first != self.next_seed:
                    break
                checksum = _checksum(
                    lengths, entry.streamlines * 4, _checksum(points, entry.points * 12)
                )
                if checksum != entry.checksum:
                    break
                intact += len(line)
                self._account(entry)
        os.truncate(self._ledger_path, intact)
        os.truncate(self._points_path, self.n_points * 12)
        os.truncate(self._lengths_path, self.n_streamlines * 4)
        if self.n_batches:
            logger.info(
                "Going on after seed %d: %d finished batches with %d streamlines are kept.",
                self.next_seed,
                self.n_batches,
                self.n_streamlines,
            )

    def points(self) -> Iterator[NDArray[np.float32]]:
        """Read all points in pieces, each (n, 3)."""
        with self._points_path.open("rb") as file:
            while content := file.read(_COPY_BYTES // 12 * 12):
                yield np.frombuffer(content, "<f4").reshape(-1, 3)

    def offsets(self) -> Iterator[NDArray[np.uint64]]:
        """Read the offsets of all streamlines in pieces, ``n_streamlines + 1`` numbers in all."""
        end = np.uint64(0)
        yield np.array([end], "<u8")
        for lengths in self._lengths():
            ends = end + np.cumsum(lengths, dtype="<u8")
            end = ends[-1]
            yield ends

    def _lengths(self) -> Iterator[NDArray[np.uint32]]:
        with self._lengths_path.open("rb") as file:
            while content := file.read(_COPY_BYTES):
                yield np.frombuffer(content, "<u4")

    def streamlines(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.uint32]]]:
        """Read whole streamlines in pieces: points (n, 3), and points of each streamline (t,)."""
        with self._points_path.open("rb") as points, self._lengths_path.open("rb") as lengths:
            while content := lengths.read(4 * 4096):
                counts = np.frombuffer(content, "<u4")
                coordinates = points.read(12 * int(counts.sum()))
                yield np.frombuffer(coordinates, "<f4").reshape(-1, 3), counts

    def points_histogram(self) -> NDArray[np.int64]:
        """Count the streamlines by their number of points."""
        histogram = np.zeros(1, np.int64)
        for lengths in self._lengths():
            counts = np.bincount(lengths, minlength=len(histogram))
            counts[: len(histogram)] += histogram
            histogram = counts
        return histogram


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


def _checksum(file: BinaryIO, n_bytes: int, start: int = 0) -> int:
    checksum = start
    while n_bytes > 0:
        content = file.read(min(n_bytes, _COPY_BYTES))
        if not content:
            return -1
        checksum = zlib.crc32(content, checksum)
        n_bytes -= len(content)
    return checksum

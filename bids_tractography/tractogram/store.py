"""The batch store: finished batches on disk, recorded in a ledger.

A batch is appended to the data files and forced to disk; only then is its line appended to the
ledger. The first line of the ledger, of which there is a copy, states what the store belongs to and
the seed of its random numbers, and every line carries a checksum of itself and of all lines before
it. When a store is opened again, everything from the first batch on that does not match its
checksums is removed, and tracking resumes with its first seed. What is read later is compared with
the same checksums.

In the end the points can be moved into the tractogram, from the last to the first, so that they
never take their space on disk twice. If such a run does not finish, the next one moves them back;
if the format does not keep them exactly, it tracks those that were moved again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self

import numpy as np
from numpy.typing import NDArray

from bids_tractography.core.seeding import SeedBatch
from bids_tractography.core.streamlines import Counts, StreamlineBatch
from bids_tractography.errors import DamagedStoreError, OutputError
from bids_tractography.outputs.locks import locked
from bids_tractography.tractogram.base import (
    LINEARISED,
    ArrayFile,
    Payload,
    Piece,
    StreamlineValues,
    blocks,
    read_array,
    read_streamlines,
)

logger = logging.getLogger(__name__)

Dtype = Literal["float32", "float16"]

_FORMAT = 4
_LEDGER = "ledger.jsonl"
_HEAD = "head.json"  # the first line of the ledger once more
_MOVE = "move.json"
_COPY_BYTES = 12 << 18  # whole points
_MOVE_POINTS = 1 << 20  # between two calls of fsync
_MAX_LINE_BYTES = 1 << 16
_SEAL = b', "sha256": "'


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


_POINTS = {
    "float32": _Array("points.float32", "<f4", 3, of_points=True),
    "float16": _Array("points.float16", "<f2", 3, of_points=True),
}
_LENGTHS = _Array("lengths.uint32", "<u4", 1)
_SEED = _Array("seed_index.int64", "<i8", 1)
_ENDS = _Array("ends.uint8", "u1", 2)

# Space that a point and a streamline take, for estimates.
POINT_BYTES = _POINTS["float32"].row_bytes
STREAMLINE_BYTES = _LENGTHS.row_bytes + _SEED.row_bytes + _ENDS.row_bytes


@dataclass(frozen=True)
class _Move:
    """Where points are moved to, and back from.

    Parameters
    ----------
    partial, path : str
        The file that they are moved into, and what it is renamed to.
    offset : int
        Where they begin in it; 0 if they are not there, or not exactly.
    streamline_bytes : int
        What stands there of each streamline beside its points, in rows of NaN.
    n_bytes : int
        Size of all points.
    """

    partial: str
    path: str
    offset: int
    streamline_bytes: int
    n_bytes: int


@dataclass(frozen=True)
class Entry:
    """A finished batch, as recorded in the ledger.

    Parameters
    ----------
    first, stop : int
        Its seeds are ``first <= i < stop``.
    streamlines, points : int
        Numbers of rows that it added to the data files.
    checksum : int
        CRC-32 of what it added: points, lengths, seed indices, ends.
    seconds, cpu_seconds : float
        Time that tracking took.
    counts : Counts
    batches : int
        More than one for a tractogram that was taken over.
    """

    first: int
    stop: int
    streamlines: int
    points: int
    checksum: int
    seconds: float
    cpu_seconds: float
    counts: Counts
    batches: int = 1


class BatchStore:
    """Finished batches of one tractogram; use `open` as a context, while holding `lock`.

    Parameters
    ----------
    folder : Path
    rng_seed : int
        Seed that all batches in it were made with.
    dtype : str
        Type that points are rounded to and kept in.
    """

    def __init__(self, folder: Path, rng_seed: int, dtype: Dtype = "float32") -> None:
        self.folder = folder
        self.rng_seed = rng_seed
        self.next_seed = 0
        self.n_batches = 0
        self.n_streamlines = 0
        self.n_points = 0
        self.seconds = 0.0
        self.cpu_seconds = 0.0
        self.counts = Counts()
        self._points = _POINTS[dtype]
        self._arrays = (self._points, _LENGTHS, _SEED, _ENDS)
        self._seal = ""  # of the last line of the ledger
        self._crc32 = dict.fromkeys(self._arrays, 0)  # of whole data files
        self._files: dict[Path, BinaryIO] = {}

    @staticmethod
    def lock(folder: Path) -> AbstractContextManager[None]:
        """Hold a store for this process; the lock file lies next to its folder.

        Raises
        ------
        BusyError
            If another process holds it.
        OutputError
            If the lock file cannot be written.
        """
        return locked(folder.with_name(f"{folder.name}.lock"))

    @classmethod
    def open(
        cls,
        folder: Path,
        identity: Mapping[str, str],
        rng_seed: int,
        dtype: Dtype = "float32",
    ) -> BatchStore:
        """Open the store in a folder, keeping its batches if they belong to this run.

        Parameters
        ----------
        folder : Path
            Created if it does not exist.
        identity : mapping
            Identifies output, dataset, run, inputs, configuration and software; a store with
            another identity is emptied.
        rng_seed : int
            Used for a new store; an existing one keeps its own, even if its batches are lost.
        dtype : str
            Type that points are rounded to and kept in.

        Raises
        ------
        OutputError
            If the folder cannot be written.
        """
        store = cls(folder, rng_seed, dtype)
        try:
            if store._recover(identity):
                return store
        except OSError as error:
            logger.warning("%s cannot be read (%s): starting over.", folder, error.strerror)
        store = cls(folder, store.rng_seed, dtype)
        store.discard()
        store._create(identity)
        return store

    def _create(self, identity: Mapping[str, str]) -> None:
        head = {"format": _FORMAT, "identity": dict(identity), "rng_seed": self.rng_seed}
        line, self._seal = _sealed(head, "")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for array in self._arrays:
                self._path(array).touch()
            _write_whole(self.folder / _HEAD, line)
            _write_whole(self._ledger_path, line)
        except OSError as error:
            raise OutputError(f"{self.folder} cannot be written ({error.strerror}).") from None

    def discard(self, *, keep_head: bool = False) -> None:
        """Remove the store: its own files, and the folder if nothing else is in it.

        Parameters
        ----------
        keep_head : bool
            Whether to leave the copy of the first line of the ledger, so that another try has the
            same random numbers.

        Raises
        ------
        OutputError
            If a file cannot be removed.
        """
        partial = [self.partial] if self.partial else []
        texts = [self.folder / name for name in (_LEDGER, _MOVE, *(() if keep_head else (_HEAD,)))]
        arrays = [*map(self._path, (*_POINTS.values(), *self._arrays))]
        data = [*arrays, *(self.folder / name for name in LINEARISED)]
        for path in (*partial, *texts, *map(_temporary, texts), *data):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise OutputError(
                    f"{path} cannot be removed ({error.strerror}).", "Remove it, and rerun."
                ) from None
        with suppress(OSError):
            self.folder.rmdir()

    def _path(self, array: _Array) -> Path:
        return self.folder / array.name

    @property
    def _ledger_path(self) -> Path:
        return self.folder / _LEDGER

    @property
    def _heads(self) -> tuple[Path, Path]:
        return self._ledger_path, self.folder / _HEAD

    def __enter__(self) -> Self:
        try:
            for path in (*map(self._path, self._arrays), self._ledger_path):
                self._files[path] = path.open("ab")
        except OSError as error:
            self._close()
            raise OutputError(f"{self.folder} cannot be written ({error.strerror}).") from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()
        if isinstance(error, DamagedStoreError):
            self.discard(keep_head=True)  # or every other try would fail as well

    def _close(self) -> None:
        for file in self._files.values():
            with suppress(OSError):  # everything that counts was flushed
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
            for array, value in zip(self._arrays, values, strict=True)
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
            self._crc32[array] = zlib.crc32(content, self._crc32[array])
        self._enter(entry)

    def adopt(
        self,
        pieces: Iterable[Piece],
        values: Mapping[str, Iterable[NDArray[Any]]],
        is_whole: Callable[[], bool],
        counts: Counts,
        *,
        batches: int,
        seconds: float,
        cpu_seconds: float,
    ) -> bool:
        """Take over the streamlines of a finished tractogram as the first batch of an empty store.

        Parameters
        ----------
        pieces : iterable of Piece
            Its streamlines.
        values : mapping of str to iterable of ndarray
            ``seed`` and ``ends`` of each streamline, see `per_streamline`.
        is_whole : callable
            Called when all was read: whether it is what was expected.
        counts : Counts
            Of all seeds from the first on.
        batches : int
            That it consisted of.
        seconds, cpu_seconds : float
            That tracking took.

        Returns
        -------
        bool
            Whether it was taken over.
        """
        if self.n_batches:
            raise ValueError("only an empty store can take over a tractogram")
        checksum, lengths, n_points = 0, [np.empty(0, np.uint32)], 0

        def put(array: _Array, rows: NDArray[Any]) -> None:
            nonlocal checksum
            content = np.ascontiguousarray(rows, array.dtype).tobytes()
            checksum = zlib.crc32(content, checksum)
            self._write(self._path(array), content, sync=False)
            self._crc32[array] = zlib.crc32(content, self._crc32[array])

        try:
            for points, some in pieces:
                put(self._points, points)
                lengths.append(some)
                n_points += len(points)
            all_lengths = np.concatenate(lengths)
            put(_LENGTHS, all_lengths)
            for array, name in ((_SEED, "seed"), (_ENDS, "ends")):
                for rows in values[name]:
                    put(array, rows)
            whole = is_whole() and counts.kept == len(all_lengths)
        except Exception:
            self._clear()
            raise
        if not whole:
            self._clear()
            return False
        counts.check()
        for array in self._arrays:
            self._write(self._path(array), b"")
        entry = Entry(
            first=0,
            stop=counts.seeds,
            streamlines=len(all_lengths),
            points=n_points,
            checksum=checksum,
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            counts=counts,
            batches=batches,
        )
        self._enter(entry)
        return True

    def _clear(self) -> None:
        """Remove what was written before the first batch was recorded."""
        for array in self._arrays:
            self._write(self._path(array), b"")
            os.truncate(self._path(array), 0)
        self._crc32 = dict.fromkeys(self._arrays, 0)

    def _enter(self, entry: Entry) -> None:
        """Record a batch whose data are on disk."""
        line, self._seal = _sealed(asdict(entry), self._seal)
        self._write(self._ledger_path, line)
        self._account(entry)

    def _write(self, path: Path, content: bytes, *, sync: bool = True) -> None:
        file = self._files[path]
        try:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(f"{path} cannot be written ({error.strerror}).") from error

    def _account(self, entry: Entry) -> None:
        self.next_seed = entry.stop
        self.n_batches += entry.batches
        self.n_streamlines += entry.streamlines
        self.n_points += entry.points
        self.seconds += entry.seconds
        self.cpu_seconds += entry.cpu_seconds
        self.counts = self.counts + entry.counts

    def _recover(self, identity: Mapping[str, str]) -> bool:
        """Account for the batches that are intact, and cut off what follows them.

        Returns
        -------
        usable : bool
            False if there is no store, or one that is damaged or belongs to another run.
        """
        if not any(map(os.path.lexists, self._heads)):
            return False
        self._move_back()
        head = self._find_head(identity)
        if head is None:
            return False
        paths = [*self._heads, *map(self._path, self._arrays)]
        if any(os.path.lexists(path) and not _is_ours(path) for path in paths):
            logger.warning("%s has something in place of its files: starting over.", self.folder)
            return False
        self._mend_heads(head)
        with ExitStack() as stack:
            ledger = stack.enter_context(self._ledger_path.open("rb"))
            intact = ledger.seek(len(head))
            for array in self._arrays:
                self._path(array).touch()  # a missing file is treated as a truncated one
            files = [stack.enter_context(self._path(array).open("rb")) for array in self._arrays]
            while line := ledger.readline(_MAX_LINE_BYTES):
                if not self._take(line, files):
                    logger.warning(
                        "%s: batches from seed %d on are damaged or missing; tracking them again.",
                        self.folder,
                        self.next_seed,
                    )
                    break
                intact += len(line)
        os.truncate(self._ledger_path, intact)
        for array in self._arrays:
            os.truncate(self._path(array), self._array_file(array).rows * array.row_bytes)
        if self.n_batches:
            logger.info(
                "Resuming after seed %d: %d finished batches with %d streamlines are kept.",
                self.next_seed,
                self.n_batches,
                self.n_streamlines,
            )
        return True

    def _find_head(self, identity: Mapping[str, str]) -> bytes | None:
        """Take over what the first line of the ledger states, or its copy.

        Returns
        -------
        bytes or None
            The line; None if neither is intact and of this run.
        """
        lines = [_first_line(path) for path in self._heads if _is_ours(path)]
        heads = {line: head for line in lines if (head := _unsealed(line, ""))}
        for line, (content, seal) in heads.items():
            if (content.get("format"), content.get("identity")) == (_FORMAT, dict(identity)):
                self.rng_seed, self._seal = content["rng_seed"], seal
                return line
        if heads:
            logger.info("Batches in %s belong to another run: starting over.", self.folder)
        else:
            logger.warning("%s is damaged: starting over.", self._ledger_path)
        return None

    def _mend_heads(self, line: bytes) -> None:
        """Write the first line of the ledger where it, or its copy, is not as it was written."""
        for path in self._heads:
            path.touch()
            if _first_line(path) != line:
                logger.warning(
                    "The first line of %s is damaged or missing: its copy has rng_seed %d.",
                    path,
                    self.rng_seed,
                )
                with path.open("rb+") as file:
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())

    def _take(self, line: bytes, files: Sequence[BinaryIO]) -> bool:
        """Account for the batch of a line of the ledger; return False if anything is damaged."""
        unsealed = _unsealed(line, self._seal)
        entry = _entry(unsealed[0]) if unsealed else None
        if unsealed is None or entry is None or entry.first != self.next_seed:
            return False
        checksum, crc32 = 0, self._crc32.copy()
        for array, file in zip(self._arrays, files, strict=True):
            left = array.rows(entry.streamlines, entry.points) * array.row_bytes
            while left > 0:
                content = file.read(min(left, _COPY_BYTES))
                if not content:
                    return False
                checksum = zlib.crc32(content, checksum)
                crc32[array] = zlib.crc32(content, crc32[array])
                left -= len(content)
        if checksum != entry.checksum:
            return False
        self._seal, self._crc32 = unsealed[1], crc32
        self._account(entry)
        return True

    def _array_file(self, array: _Array) -> ArrayFile:
        """Return a data file with what it must contain by the ledger."""
        rows = array.rows(self.n_streamlines, self.n_points)
        return ArrayFile(self._path(array), array.dtype, array.columns, rows, self._crc32[array])

    def move_points(
        self, path: Path, payload: Payload, look: Callable[[NDArray[np.float32]], None]
    ) -> Path:
        """Move the points into a file, from the last to the first; they cannot be read any more.

        Before that all of them are read and compared with their checksums. The file keeps a
        temporary name; the caller renames it.

        Parameters
        ----------
        path : Path
            Final name of the file.
        payload : Payload
            What points and streamlines become in the file.
        look : callable
            Called with the points from the first to the last, in pieces.

        Returns
        -------
        Path
            Temporary name of the file.

        Raises
        ------
        OutputError
            If the file or the store cannot be written.
        DamagedStoreError
            If the store, or what stands in the file in the end, is not what was written.
        """
        partial = path.with_name(f".tmp-points.{path.name}")
        crc32, points, streamlines, starts = 0, 0, 0, [(0, 0)]
        for piece in self.streamlines():
            look(piece[0])
            for some, where in blocks(piece[1], _MOVE_POINTS):
                block = piece[0][where], piece[1][some]
                crc32 = zlib.crc32(payload.encode(block), crc32)
                points, streamlines = points + len(block[0]), streamlines + len(block[1])
                starts.append((points, streamlines))
        move = _Move(
            str(partial), str(path), 0, payload.streamline_bytes, points * self._points.row_bytes
        )
        try:
            self._write_move(move)
            partial.unlink(missing_ok=True)
            offset = payload.reserve(partial, crc32)
            with partial.open("rb+") as target:
                os.fsync(target.fileno())
                if payload.rows == self._points.dtype:
                    self._write_move(replace(move, offset=offset))
                for start, stop in reversed([*pairwise(starts)]):
                    target.seek(offset + payload.n_bytes(*start))
                    target.write(payload.encode(self._block(start, stop)))
                    target.flush()
                    os.fsync(target.fileno())
                    os.truncate(self._path(self._points), start[0] * self._points.row_bytes)
        except OSError as error:
            raise OutputError(f"{path} cannot be written ({error.strerror}).") from error
        n_bytes = payload.n_bytes(points, streamlines)
        for _ in read_array(ArrayFile(partial, "u1", 1, n_bytes, crc32, offset)):
            pass  # the checksum is compared at the end
        return partial

    def _block(self, start: tuple[int, int], stop: tuple[int, int]) -> Piece:
        """Read the streamlines between two pairs of numbers of points and of streamlines."""
        points, lengths = (
            np.fromfile(
                self._path(array),
                array.dtype,
                (end - begin) * array.columns,
                offset=begin * array.row_bytes,
            )
            for array, begin, end in zip((self._points, _LENGTHS), start, stop, strict=True)
        )
        n_points = stop[0] - start[0]
        if len(points) != 3 * n_points or lengths.sum(dtype=np.int64) != n_points:
            raise DamagedStoreError(f"{self.folder} was changed while it was read.")
        return points.reshape(-1, 3).astype(np.float32, copy=False), lengths

    @property
    def partial(self) -> Path | None:
        """File that points were being moved into when a run was stopped."""
        move = self._read_move()
        return Path(move.partial) if move else None

    def _move_back(self) -> None:
        """Move points back that a run which did not finish has moved."""
        move = self._read_move()
        if move is None:
            return
        partial, path = Path(move.partial), Path(move.path)
        source = partial if partial.exists() else path  # which had just been renamed
        points, lengths = self._path(self._points), self._path(_LENGTHS)
        if move.offset and source.is_file() and _is_ours(points) and _is_ours(lengths):
            try:
                self._append_moved(move, source)
            except OSError as error:
                raise OutputError(f"{points} cannot be written ({error.strerror}).") from error
        partial.unlink(missing_ok=True)
        (self.folder / _MOVE).unlink(missing_ok=True)

    def _append_moved(self, move: _Move, source: Path) -> None:
        """Append to the points those that follow them in the file that they were moved into."""
        row_bytes, lengths = (
            self._points.row_bytes,
            np.fromfile(self._path(_LENGTHS), _LENGTHS.dtype),
        )
        with source.open("rb") as moved, self._path(self._points).open("ab") as file:
            n_points = file.tell() // row_bytes
            before = np.searchsorted(np.cumsum(lengths, dtype=np.int64), n_points, side="right")
            size = n_points * row_bytes
            file.truncate(size)
            moved.seek(move.offset + size + int(before) * move.streamline_bytes)
            while size < move.n_bytes:
                content = moved.read(min(move.n_bytes - size, _COPY_BYTES))
                if len(content) < row_bytes:
                    break
                whole = content[: len(content) // row_bytes * row_bytes]
                rows = np.frombuffer(whole, self._points.dtype).reshape(-1, 3)
                size += file.write(rows[~np.isnan(rows).all(axis=1)].tobytes())
            file.flush()
            os.fsync(file.fileno())

    def _write_move(self, move: _Move) -> None:
        _write_whole(self.folder / _MOVE, _sealed(asdict(move), "")[0])

    def _read_move(self) -> _Move | None:
        path = self.folder / _MOVE
        try:
            unsealed = _unsealed(path.read_bytes(), "") if path.is_file() else None
            return _Move(**unsealed[0]) if unsealed else None
        except (OSError, TypeError):
            return None

    def streamlines(self) -> Iterator[Piece]:
        """Read whole streamlines in pieces: points (n, 3), and points of each streamline (t,)."""
        return read_streamlines(self._array_file(self._points), self._array_file(_LENGTHS))

    def lengths(self) -> Iterator[NDArray[np.uint32]]:
        """Read the numbers of points of the streamlines in pieces."""
        return read_array(self._array_file(_LENGTHS))

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
            partial(read_array, self._array_file(array)),
        )

    def points_histogram(self) -> NDArray[np.int64]:
        """Count the streamlines by their number of points."""
        histogram = np.zeros(1, np.int64)
        for lengths in self.lengths():
            counts = np.bincount(lengths, minlength=len(histogram))
            counts[: len(histogram)] += histogram
            histogram = counts
        return histogram


def _is_ours(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _first_line(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.readline(_MAX_LINE_BYTES)


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is on disk as a whole, or as it was before."""
    with _temporary(path).open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    _temporary(path).replace(path)


def _temporary(path: Path) -> Path:
    return path.with_suffix(".tmp")


def _sealed(content: Mapping[str, Any], before: str) -> tuple[bytes, str]:
    """Turn content into a line of the ledger with a seal.

    Parameters
    ----------
    content : mapping
    before : str
        Seal of the line before, so that lines cannot be exchanged, or taken from other ledgers.

    Returns
    -------
    line : bytes
        JSON.
    seal : str
    """
    text = json.dumps(content).encode().removesuffix(b"}")
    seal = _digest(text, before)
    return text + _SEAL + seal.encode() + b'"}\n', seal


def _unsealed(line: bytes, before: str) -> tuple[dict[str, Any], str] | None:
    """Return content and seal of a line of the ledger; None if the seal does not match."""
    text, _, _ = line.rpartition(_SEAL)
    seal = _digest(text, before)
    if line != text + _SEAL + seal.encode() + b'"}\n':
        return None
    return json.loads(text + b"}"), seal


def _digest(text: bytes, before: str) -> str:
    return hashlib.sha256(before.encode() + text).hexdigest()


def _entry(content: Mapping[str, Any]) -> Entry | None:
    try:
        return Entry(**{**content, "counts": Counts(**content["counts"])})
    except (TypeError, KeyError):
        return None

"""The batch store: whatever is cut off, flipped or killed, the finished files are the same."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bids_tractography.config.tracking import OutputConfig
from bids_tractography.core.images import Grid
from bids_tractography.core.seeding import SeedBatch
from bids_tractography.core.streamlines import Counts, Rejection, Stop, StreamlineBatch
from bids_tractography.errors import BusyError, DamagedStoreError, OutputError
from bids_tractography.tractogram.base import offsets_of
from bids_tractography.tractogram.formats.table import payload, writers
from bids_tractography.tractogram.store import BatchStore, Dtype

FINGERPRINT = {"inputs": "a", "config": "b", "software": "c"}
DATA_FILES = ("points.float32", "lengths.uint32", "seed_index.int64", "ends.uint8")
HEADS = ("ledger.jsonl", "head.json")
FILES = (*DATA_FILES, *HEADS)
N_SEEDS, BATCH = 60, 7


def tracked(first: int, stop: int) -> tuple[SeedBatch, StreamlineBatch]:
    """Make a batch whose streamlines depend on their seeds alone: seed i has i % 3 of them."""
    points, lengths, index = [np.empty((0, 3))], [], []
    for seed in range(first, stop):
        rng = np.random.default_rng(seed)
        for _ in range(seed % 3):
            lengths.append(int(rng.integers(1, 9)))
            points.append(rng.normal(0, 50, (lengths[-1], 3)))
            index.append(seed)
    kept = len(lengths)
    n_rejected = stop - first
    counts = Counts(
        seeds=stop - first,
        generated=kept + n_rejected,
        kept=kept,
        rejected={**dict.fromkeys(Rejection, 0), Rejection.TOO_SHORT: n_rejected},
        stops={**dict.fromkeys(Stop, 0), Stop.STOPPING_RULE: 2 * (kept + n_rejected)},
    )
    batch = StreamlineBatch(
        np.concatenate(points).astype(np.float32),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.array(index, np.int64),
        counts,
        np.array([(seed % 7, seed % 5) for seed in index], np.uint8).reshape(-1, 2),
    )
    return SeedBatch(first, np.zeros((stop - first, 3))), batch


def fill(
    folder: Path,
    *,
    until: int = N_SEEDS,
    size: int = BATCH,
    fingerprint: dict[str, str] = FINGERPRINT,
    rng_seed: int = 5,
    dtype: Dtype = "float32",
) -> BatchStore:
    """Append the batches that are missing, as a run does."""
    store = BatchStore.open(folder, fingerprint, rng_seed, dtype)
    with store:
        while store.next_seed < until:
            seeds, batch = tracked(store.next_seed, min(store.next_seed + size, until))
            store.append(seeds, batch, seconds=0.25, cpu_seconds=0.5)
    return store


def data_of(folder: Path, dtype: Dtype = "float32") -> list[bytes]:
    names = (f"points.{dtype}", *DATA_FILES[1:])
    return [(folder / name).read_bytes() for name in names]


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("complete") / "work"
    fill(folder)
    return folder


def expected_data() -> list[bytes]:
    """Put together by hand what the data files should hold."""
    return data_until(N_SEEDS)


def data_until(seed: int, dtype: Dtype = "float32") -> list[bytes]:
    _, whole = tracked(0, seed)
    return [
        whole.points_mm.astype(dtype).tobytes(),
        np.diff(whole.offsets).astype("<u4").tobytes(),
        whole.seed_index.astype("<i8").tobytes(),
        whole.stops.tobytes(),
    ]


def test_data_files_hold_each_streamline_in_the_order_of_the_seeds(
    complete: Path,
) -> None:
    assert data_of(complete) == expected_data()


def test_a_closed_store_has_after_reopening_what_it_had(complete: Path) -> None:
    store = BatchStore.open(complete, FINGERPRINT, 99)
    _, whole = tracked(0, N_SEEDS)
    assert store.next_seed == N_SEEDS
    assert store.n_batches == 9
    assert store.n_streamlines == len(whole) == 60
    assert store.n_points == len(whole.points_mm)
    assert store.counts == whole.counts
    assert store.seconds == pytest.approx(9 * 0.25)
    assert store.cpu_seconds == pytest.approx(9 * 0.5)
    assert data_of(complete) == expected_data()


def test_the_rng_seed_of_the_first_run_is_kept_on_reopening(tmp_path: Path) -> None:
    assert fill(tmp_path / "work", until=20, rng_seed=2**53 - 1).rng_seed == 2**53 - 1
    assert BatchStore.open(tmp_path / "work", FINGERPRINT, 7).rng_seed == 2**53 - 1


def test_rng_seed_0_is_kept_too(tmp_path: Path) -> None:
    fill(tmp_path / "work", until=20, rng_seed=0)
    assert BatchStore.open(tmp_path / "work", FINGERPRINT, 7).rng_seed == 0


@pytest.mark.parametrize("key", FINGERPRINT)
def test_another_fingerprint_starts_over_with_its_own_rng_seed(tmp_path: Path, key: str) -> None:
    fill(tmp_path / "work", until=20, rng_seed=5)
    store = BatchStore.open(tmp_path / "work", {**FINGERPRINT, key: "other"}, 6)
    assert (store.next_seed, store.n_streamlines, store.rng_seed) == (0, 0, 6)
    assert data_of(tmp_path / "work") == [b""] * 4


@pytest.mark.parametrize("head", [b"", b"\n", b"{}\n", b"[1, 2]\n", b"\xff\n", b'{"format": 1}\n'])
def test_a_ledger_that_is_none_starts_over(tmp_path: Path, head: bytes) -> None:
    folder = tmp_path / "work"
    fill(folder, until=20)
    (folder / "ledger.jsonl").write_bytes(head)
    assert BatchStore.open(folder, FINGERPRINT, 6).next_seed == 0
    fill(folder)
    assert data_of(folder) == expected_data()


@pytest.mark.parametrize("missing", FILES)
def test_a_missing_file_is_made_again(tmp_path: Path, complete: Path, missing: str) -> None:
    folder = tmp_path / "work"
    shutil.copytree(complete, folder)
    (folder / missing).unlink()
    fill(folder)
    assert data_of(folder) == expected_data()


@pytest.mark.parametrize("size", [1, 5, 13, 60])
def test_batches_of_another_size_go_on_where_the_others_ended(tmp_path: Path, size: int) -> None:
    fill(tmp_path / "work", until=21, size=7)
    store = fill(tmp_path / "work", size=size)
    assert store.next_seed == N_SEEDS
    assert data_of(tmp_path / "work") == expected_data()


def cut(folder: Path, name: str, share: float) -> None:
    path = folder / name
    os.truncate(path, int(share * path.stat().st_size))


def resumed_after(complete: Path, damage: Any) -> None:
    """Damage a copy of a complete store, resume, and compare; then look for what it kept."""
    with tempfile.TemporaryDirectory() as scratch, mock.patch("os.fsync"):
        folder = Path(scratch) / "work"
        shutil.copytree(complete, folder)
        damage(folder)
        store = fill(folder, size=30)
        assert data_of(folder) == expected_data()
        assert store.counts == tracked(0, N_SEEDS)[1].counts
        again = BatchStore.open(folder, FINGERPRINT, 5)
        assert again.next_seed == N_SEEDS
        assert again.counts == store.counts


@settings(max_examples=60, deadline=None)
@given(
    shares=st.dictionaries(
        st.sampled_from(FILES),
        st.floats(0, 1, exclude_max=True),
        min_size=1,
    )
)
def test_files_cut_off_anywhere_are_completed_to_the_same_bytes(
    complete: Path, shares: dict[str, float]
) -> None:
    def damage(folder: Path) -> None:
        for name, share in shares.items():
            cut(folder, name, share)

    resumed_after(complete, damage)


def line_ends(path: Path) -> list[int]:
    return list(np.cumsum([len(line) for line in path.read_bytes().splitlines(keepends=True)]))


def test_a_ledger_cut_off_beside_any_line_end_is_completed(complete: Path) -> None:
    ends = line_ends(complete / "ledger.jsonl")
    for end in ends[1:]:
        for size in (end - 1, end, min(end + 1, ends[-1])):
            resumed_after(complete, lambda folder, n=size: os.truncate(folder / "ledger.jsonl", n))


def test_a_ledger_that_lost_the_end_of_its_first_line_can_be_reopened_when_complete(
    complete: Path,
) -> None:
    size = line_ends(complete / "ledger.jsonl")[0] - 1
    resumed_after(complete, lambda folder: os.truncate(folder / "ledger.jsonl", size))


@settings(max_examples=100, deadline=None)
@given(
    name=st.sampled_from(FILES),
    share=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
)
@example(name="points.float32", share=0.0, bit=0)
@example(name="ledger.jsonl", share=0.0, bit=0)
def test_a_flipped_bit_anywhere_is_found_and_tracked_again(
    complete: Path, name: str, share: float, bit: int
) -> None:
    def damage(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[int(share * len(content))] ^= 1 << bit
        (folder / name).write_bytes(content)

    resumed_after(complete, damage)


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        ('"rng_seed": 5', '"rng_seed": 6', 60),  # there is a copy
        ('"first": 21, "stop": 28', '"first": 21, "stop": 35', 21),
        ('"stop": 60', '"stop": 59', 56),
        ('"seeds_without_direction": 0', '"seeds_without_direction": 7', 0),
        ('"first": 7,', '"first":  7,', 7),
    ],
)
def test_an_edited_ledger_is_not_believed_from_the_edited_line_on(
    tmp_path: Path,
    complete: Path,
    caplog: pytest.LogCaptureFixture,
    before: str,
    after: str,
    kept: int,
) -> None:
    folder = Path(shutil.copytree(complete, tmp_path / "work"))
    ledger = folder / "ledger.jsonl"
    text = ledger.read_text()
    assert before in text
    ledger.write_text(text.replace(before, after, 1))
    store = BatchStore.open(folder, FINGERPRINT, 5)
    assert (store.next_seed, store.rng_seed) == (kept, 5)
    assert "damaged" in caplog.text
    fill(folder)
    assert data_of(folder) == expected_data()


def test_lines_of_another_ledger_are_not_believed(tmp_path: Path, complete: Path) -> None:
    folder = tmp_path / "work"
    fill(folder, rng_seed=6)
    head = (folder / "ledger.jsonl").read_bytes().splitlines(keepends=True)[0]
    others = (complete / "ledger.jsonl").read_bytes().splitlines(keepends=True)[1:]
    (folder / "ledger.jsonl").write_bytes(b"".join([head, *others]))
    assert BatchStore.open(folder, FINGERPRINT, 6).next_seed == 0


@pytest.mark.slow
def test_no_flipped_bit_of_the_first_line_loses_the_rng_seed_or_a_batch(
    tmp_path: Path, complete: Path
) -> None:
    folder = Path(shutil.copytree(complete, tmp_path / "work"))
    for path in (folder / name for name in HEADS):
        whole = path.read_bytes()
        for place, bit in itertools.product(range(whole.index(b"\n") + 1), range(8)):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << bit
            path.write_bytes(flipped)
            with mock.patch("os.fsync"):
                store = BatchStore.open(folder, FINGERPRINT, 6)
            assert (store.rng_seed, store.next_seed) == (5, N_SEEDS)
            assert path.read_bytes() == whole


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(HEADS),
    how=st.sampled_from(["cut", "remove", "rubbish"]),
    share=st.floats(0, 1, exclude_max=True),
)
def test_no_loss_of_the_ledger_or_its_copy_changes_the_rng_seed(
    complete: Path, name: str, how: str, share: float
) -> None:
    def damage(folder: Path) -> None:
        cut(folder, name, share)
        if how == "remove":
            (folder / name).unlink()
        elif how == "rubbish":
            (folder / name).write_bytes(b"\xff" * int(2000 * share))
        with mock.patch("os.fsync"):
            assert BatchStore.open(folder, FINGERPRINT, 6).rng_seed == 5

    resumed_after(complete, damage)


@pytest.mark.parametrize("name", HEADS)
def test_something_in_place_of_the_ledger_or_its_copy_does_not_change_the_rng_seed(
    tmp_path: Path, complete: Path, name: str
) -> None:
    folder = Path(shutil.copytree(complete, tmp_path / "work"))
    (folder / name).unlink()
    os.mkfifo(folder / name)
    store = BatchStore.open(folder, FINGERPRINT, 6)
    assert (store.rng_seed, store.next_seed) == (5, 0)


def test_without_the_first_line_and_its_copy_another_rng_seed_is_taken(
    tmp_path: Path, complete: Path
) -> None:
    folder = Path(shutil.copytree(complete, tmp_path / "work"))
    for name in HEADS:
        (folder / name).write_bytes(b"{}\n")
    store = BatchStore.open(folder, FINGERPRINT, 6)
    assert (store.rng_seed, store.next_seed) == (6, 0)


def test_damage_found_by_reading_does_not_change_the_rng_seed(
    tmp_path: Path, complete: Path
) -> None:
    folder = Path(shutil.copytree(complete, tmp_path / "work"))
    store = BatchStore.open(folder, FINGERPRINT, 6)
    cut(folder, "points.float32", 0.5)
    with pytest.raises(DamagedStoreError), store:
        read_all(store)
    store = BatchStore.open(folder, FINGERPRINT, 6)
    assert (store.rng_seed, store.next_seed) == (5, 0)
    store.discard()
    assert not folder.exists()


def read_all(store: BatchStore) -> None:
    for pieces in (
        store.streamlines(),
        store.lengths(),
        *(store.per_streamline(name).read() for name in ("seed", "ends")),
    ):
        for _ in pieces:
            pass


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(DATA_FILES),
    share=st.floats(0, 1, exclude_max=True),
    how=st.sampled_from(["flip", "high flip", "cut", "extend", "remove"]),
)
def test_damage_after_opening_is_found_by_reading(
    complete: Path, name: str, share: float, how: str
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(shutil.copytree(complete, Path(scratch) / "work"))
        store = BatchStore.open(folder, FINGERPRINT, 5)
        read_all(store)
        content = bytearray((folder / name).read_bytes())
        place = int(share * len(content))
        match how:
            case "flip" | "high flip":
                content[place] ^= 1 if how == "flip" else 128
            case "cut":
                del content[place:]
            case "extend":
                content += content[:4]
        (folder / name).write_bytes(content)
        if how == "remove":
            (folder / name).unlink()
        with pytest.raises(DamagedStoreError) as raised, store:
            read_all(store)
        assert raised.value.exit_code == 75
        assert left_in(folder) == ["head.json"], "the next try would fail as well"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["fifo", "link", "folder"])
def test_something_in_place_of_a_file_neither_hangs_nor_is_followed(
    tmp_path: Path, name: str, kind: str
) -> None:
    folder, target = tmp_path / "work", tmp_path / "mine"
    fill(folder, until=20)
    target.write_text("mine")
    (folder / name).unlink()
    if kind == "folder":
        (folder / name).mkdir()
        with pytest.raises(OutputError, match=name):
            fill(folder)
        return
    os.mkfifo(folder / name) if kind == "fifo" else (folder / name).symlink_to(target)
    fill(folder)
    assert data_of(folder) == expected_data()
    assert target.read_text() == "mine"


def test_a_store_in_use_is_busy_for_others(tmp_path: Path) -> None:
    with (
        BatchStore.lock(tmp_path / "sub-01.batches"),
        BatchStore.lock(tmp_path / "sub-02.batches"),
        pytest.raises(BusyError, match=r"working on sub-01\.batches"),
        BatchStore.lock(tmp_path / "sub-01.batches"),
    ):
        pass
    with BatchStore.lock(tmp_path / "sub-01.batches"):
        pass


@settings(max_examples=60, deadline=None)
@given(
    rubbish=st.dictionaries(
        st.sampled_from(FILES),
        st.binary(min_size=1, max_size=200) | st.sampled_from([b"\0" * 4096, b"{}\n", b"1\n"]),
        min_size=1,
    )
)
def test_rubbish_behind_the_last_whole_batch_is_cut_off(
    complete: Path, rubbish: dict[str, bytes]
) -> None:
    def damage(folder: Path) -> None:
        for name, content in rubbish.items():
            with (folder / name).open("ab") as file:
                file.write(content)

    resumed_after(complete, damage)


def test_only_whole_batches_before_the_damage_are_kept(tmp_path: Path, complete: Path) -> None:
    folder = tmp_path / "work"
    shutil.copytree(complete, folder)
    _, first_three = tracked(0, 21)
    os.truncate(folder / "points.float32", len(first_three.points_mm) * 12 + 5)
    store = BatchStore.open(folder, FINGERPRINT, 5)
    assert store.next_seed == 21
    assert store.n_streamlines == len(first_three)
    assert store.counts == first_three.counts
    assert data_of(folder) == data_until(21)


@pytest.mark.parametrize("first", [0, 6, 8, 14])
def test_a_batch_that_is_not_the_next_is_refused_and_leaves_no_trace(
    tmp_path: Path, first: int
) -> None:
    fill(tmp_path / "work", until=7)
    before = data_of(tmp_path / "work")
    with BatchStore.open(tmp_path / "work", FINGERPRINT, 5) as store:
        with pytest.raises(ValueError, match="7"):
            store.append(*tracked(first, first + 7), seconds=0, cpu_seconds=0)
        assert store.next_seed == 7
    assert data_of(tmp_path / "work") == before


@pytest.mark.parametrize(
    "change",
    [
        {"generated": 99},
        {"kept": 0},
        {"rejected": dict.fromkeys(Rejection, 3)},
        {"stops": dict.fromkeys(Stop, 1)},
        {"seeds": 10**6},
    ],
    ids=repr,
)
def test_counts_that_do_not_add_up_are_refused_and_leave_no_trace(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    seeds, batch = tracked(0, 7)
    wrong = replace(batch, counts=Counts(**{**vars(batch.counts), **change}))
    with BatchStore.open(tmp_path / "work", FINGERPRINT, 5) as store:
        with pytest.raises(ArithmeticError):
            store.append(seeds, wrong, seconds=0, cpu_seconds=0)
        assert store.next_seed == 0
    assert data_of(tmp_path / "work") == [b""] * 4


def test_a_batch_whose_counts_are_of_other_streamlines_is_refused(tmp_path: Path) -> None:
    seeds, batch = tracked(0, 7)
    _, other = tracked(7, 21)
    wrong = replace(batch, counts=other.counts)
    assert other.counts.kept != len(batch)
    with BatchStore.open(tmp_path / "work", FINGERPRINT, 5) as store:
        with pytest.raises(ArithmeticError):
            store.append(seeds, wrong, seconds=0, cpu_seconds=0)
        assert store.next_seed == 0


@pytest.mark.parametrize("name", ["stops", "seed_index"])
def test_values_of_other_streamlines_are_refused_and_leave_no_trace(
    tmp_path: Path, name: str
) -> None:
    seeds, batch = tracked(0, 7)
    wrong = replace(batch, **{name: getattr(batch, name)[1:]})
    with BatchStore.open(tmp_path / "work", FINGERPRINT, 5) as store:
        with pytest.raises(ValueError, match="stops of shape"):
            store.append(seeds, wrong, seconds=0, cpu_seconds=0)
        assert store.next_seed == 0
    assert data_of(tmp_path / "work") == [b""] * 4


def test_batches_without_a_streamline_count_as_done(tmp_path: Path) -> None:
    nothing = StreamlineBatch(
        np.empty((0, 3), np.float32),
        np.zeros(1, np.int64),
        np.empty(0, np.int64),
        Counts(seeds=4, seeds_without_direction=4),
        np.empty((0, 2), np.uint8),
    )
    with BatchStore.open(tmp_path / "work", FINGERPRINT, 5) as store:
        store.append(SeedBatch(0, np.zeros((4, 3))), nothing, seconds=0, cpu_seconds=0)
    store = BatchStore.open(tmp_path / "work", FINGERPRINT, 5)
    assert (store.next_seed, store.n_batches, store.n_streamlines) == (4, 1, 0)
    assert store.counts.seeds_without_direction == 4
    assert list(store.streamlines()) == list(store.lengths()) == []
    ledger = tmp_path / "work" / "ledger.jsonl"
    with ledger.open("ab") as file:
        file.write(ledger.read_bytes().splitlines(keepends=True)[-1])  # a line that is not next
    assert BatchStore.open(tmp_path / "work", FINGERPRINT, 5).counts.seeds == 4


def test_every_batch_is_on_disk_before_it_is_in_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real(descriptor)

    with BatchStore.open(tmp_path / "work", FINGERPRINT, 5) as store:
        monkeypatch.setattr(os, "fsync", fsync)
        store.append(*tracked(0, 7), seconds=0, cpu_seconds=0)
    assert synced == [*DATA_FILES, "ledger.jsonl"]


def test_pieces_read_back_are_the_streamlines_however_small_the_pieces(
    complete: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bids_tractography.tractogram.base._READ_BYTES", 40)
    monkeypatch.setattr("bids_tractography.tractogram.base.PIECE_STREAMLINES", 7)
    store = BatchStore.open(complete, FINGERPRINT, 5)
    _, whole = tracked(0, N_SEEDS)
    pieces = list(store.streamlines())
    assert len(pieces) == 9
    np.testing.assert_array_equal(np.concatenate([p for p, _ in pieces]), whole.points_mm)
    offsets = list(offsets_of(store.lengths()))
    assert len(offsets) > 5
    assert np.concatenate(offsets).tolist() == whole.offsets.tolist()
    seeds, ends = store.per_streamline("seed"), store.per_streamline("ends")
    assert (seeds.dtype, seeds.columns) == (np.dtype("int64"), 1)
    assert (ends.dtype, ends.columns) == (np.dtype("uint8"), 2)
    assert len(list(ends.read())) > 2
    assert np.concatenate(list(seeds.read())).tolist() == whole.seed_index.tolist()
    assert np.concatenate(list(ends.read())).tolist() == whole.stops.tolist()
    histogram = store.points_histogram()
    assert histogram.tolist() == np.bincount(np.diff(whole.offsets)).tolist()


def test_10000_streamlines_are_read_back_whole_in_several_pieces(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    lengths = rng.integers(1, 4, 10_000)
    points = rng.normal(size=(lengths.sum(), 3)).astype(np.float32)
    counts = Counts(seeds=10_000, generated=10_000, kept=10_000,
                    stops={**dict.fromkeys(Stop, 0), Stop.IMAGE_BORDER: 20_000})  # fmt: skip
    batch = StreamlineBatch(
        points,
        np.concatenate([[0], np.cumsum(lengths)]),
        np.arange(10_000),
        counts,
        np.zeros((10_000, 2), np.uint8),
    )
    with BatchStore.open(tmp_path / "work", FINGERPRINT, 5) as store:
        store.append(SeedBatch(0, np.zeros((10_000, 3))), batch, seconds=0, cpu_seconds=0)
    pieces = list(store.streamlines())
    assert len(pieces) > 1
    assert all(len(p) == n.sum() for p, n in pieces)
    np.testing.assert_array_equal(np.concatenate([p for p, _ in pieces]), points)
    np.testing.assert_array_equal(np.concatenate([n for _, n in pieces]), lengths)


class Stopped(BaseException):
    """In place of a kill."""


GRID = Grid((9, 11, 7), np.diag([-2.0, 3.0, 4.0, 1.0]))
# A single format, and the type that points are kept in before.
ALONE: dict[str, tuple[OutputConfig, Dtype]] = {
    "trx": (OutputConfig(), "float32"),
    "trx, float16": (OutputConfig(dtype="float16"), "float16"),
    "trx, float16 in the end": (OutputConfig(dtype="float16"), "float32"),
    "tck": (OutputConfig(formats=("tck",)), "float32"),
    "trk": (OutputConfig(formats=("trk",)), "float32"),
}
EXACT = ("trx", "trx, float16", "tck")


def move(store: BatchStore, path: Path, name: str = "trx") -> Path:
    into = payload(ALONE[name][0], store, GRID)
    assert into is not None
    return store.move_points(path, into, lambda _: None)


@pytest.fixture(scope="module")
def completes(complete: Path) -> dict[Dtype, Path]:
    """The folders of uninterrupted runs with points of either type."""
    folder = complete.with_name("half")
    fill(folder, dtype="float16")
    return {"float32": complete, "float16": folder}


@pytest.fixture(scope="module")
def files(complete: Path) -> dict[str, bytes]:
    """What points are to become in each format."""
    store, path = BatchStore.open(complete, FINGERPRINT, 5), complete.with_name("file")
    content = {}
    for name, (output, _) in ALONE.items():
        (write,) = writers(output).values()
        write(path, store, GRID)
        content[name] = path.read_bytes()
    return content


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(list(ALONE)),
    stop=st.integers(0, 60),
    again=st.integers(0, 20),
    renamed=st.booleans(),
)
def test_runs_stopped_while_points_are_moved_are_finished_to_the_same_bytes(
    completes: dict[Dtype, Path],
    files: dict[str, bytes],
    name: str,
    stop: int,
    again: int,
    renamed: bool,
) -> None:
    truncate, left, dtype = os.truncate, 10**6, ALONE[name][1]

    def counted(*arguments: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Stopped
        if len(arguments) == 2:  # forcing to disk takes too long here
            truncate(*arguments)

    with (
        tempfile.TemporaryDirectory() as scratch,
        mock.patch("bids_tractography.tractogram.store._MOVE_POINTS", 9),
        mock.patch("bids_tractography.tractogram.store._COPY_BYTES", 48),
        mock.patch("os.fsync", counted),
        mock.patch("os.truncate", counted),
    ):
        folder = Path(shutil.copytree(completes[dtype], Path(scratch) / "work"))
        path = Path(scratch) / "file"
        store = BatchStore.open(folder, FINGERPRINT, 5, dtype)
        left = stop
        with contextlib.suppress(Stopped):
            partial = move(store, path, name)
            if renamed:
                partial.rename(path)
        for allowed in (again, 10**6):  # the next run is stopped too
            left = allowed
            with contextlib.suppress(Stopped):
                store = BatchStore.open(folder, FINGERPRINT, 5, dtype)
        if name in EXACT:
            assert store.next_seed == N_SEEDS, "batches were lost"
        assert data_of(folder, dtype) == data_until(store.next_seed, dtype)
        assert store.partial is None
        assert not list(Path(scratch).glob(".tmp-*"))
        assert move(fill(folder, dtype=dtype), path, name).read_bytes() == files[name]


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("moment", ["before", "moving", "moved"])
@pytest.mark.parametrize("file", ["points", "lengths"])
def test_damage_is_found_before_points_are_moved_and_after(
    tmp_path: Path,
    completes: dict[Dtype, Path],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    moment: str,
    file: str,
) -> None:
    monkeypatch.setattr("bids_tractography.tractogram.store._MOVE_POINTS", 9)
    output, dtype = ALONE[name]
    folder = Path(shutil.copytree(completes[dtype], tmp_path / "work"))
    store, truncate = BatchStore.open(folder, FINGERPRINT, 5, dtype), os.truncate
    whole, (damaged,) = payload(output, store, GRID), folder.glob(f"{file}.*")
    assert whole is not None

    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(content)

    def reserve(partial: Path, crc32: int) -> int:
        if moment == "moving":
            damage(damaged)
        return whole.reserve(partial, crc32)

    def truncated(points: Path, size: int) -> None:
        truncate(points, size)
        if moment == "moved" and size == 0:
            damage(tmp_path / ".tmp-points.file")

    monkeypatch.setattr(os, "truncate", truncated)
    if moment == "before":
        damage(damaged)
    with pytest.raises(DamagedStoreError), store:
        store.move_points(tmp_path / "file", replace(whole, reserve=reserve), lambda _: None)
    assert left_in(folder) == ["head.json"], "the next try would fail as well"
    assert list(tmp_path.iterdir()) == [folder]


def long_streamlines(folder: Path, dtype: Dtype) -> BatchStore:
    """Store 600 streamlines of 1000 points; some batches have none."""
    store, points = BatchStore.open(folder, FINGERPRINT, 5, dtype), np.ones((1000, 3), np.float32)
    with store:
        for first in range(0, 1000, 20):
            n = 20 if first % 100 < 60 else 0
            stops: dict[str, int] = {**dict.fromkeys(Stop, 0), Stop.STOPPING_RULE: 2 * n}
            counts = Counts(20, 20 - n, n, n, stops=stops)
            batch = StreamlineBatch(
                np.tile(points, (n, 1)),
                np.arange(n + 1) * 1000,
                np.arange(first, first + n),
                counts,
                np.zeros((n, 2), np.uint8),
            )
            store.append(SeedBatch(first, np.zeros((20, 3))), batch, seconds=0, cpu_seconds=0)
    return store


@pytest.mark.parametrize("name", ["trx", "trx, float16", "tck", "trk"])
def test_points_that_are_moved_never_take_their_space_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("bids_tractography.tractogram.store._MOVE_POINTS", 20_000)
    taken, truncate = [], os.truncate

    def used() -> int:
        return sum(512 * p.stat().st_blocks for p in tmp_path.rglob("*") if p.is_file())

    def measured(path: Path, size: int) -> None:
        taken.append(used())
        truncate(path, size)

    with mock.patch("os.fsync"):
        store = long_streamlines(tmp_path / "work", ALONE[name][1])
        taken.append(used())
        monkeypatch.setattr(os, "truncate", measured)
        partial = move(store, tmp_path / "file", name)
    assert len(taken) > 20
    assert max(taken) < 1.1 * partial.stat().st_size


def test_a_discarded_store_takes_the_file_with_it_that_its_points_were_moved_to(
    tmp_path: Path, complete: Path
) -> None:
    folder = Path(shutil.copytree(complete, tmp_path / "work"))
    partial = move(BatchStore.open(folder, FINGERPRINT, 5), tmp_path / "a.trx")
    BatchStore(folder, 0).discard()
    assert not folder.exists()
    assert not partial.exists()


def test_the_ledger_names_each_batch_on_a_line(complete: Path) -> None:
    lines = [json.loads(line) for line in (complete / "ledger.jsonl").read_text().splitlines()]
    assert lines[0]["rng_seed"] == 5
    assert lines[0]["identity"] == FINGERPRINT
    assert [(line["first"], line["stop"]) for line in lines[1:]] == [
        (first, min(first + BATCH, N_SEEDS)) for first in range(0, N_SEEDS, BATCH)
    ]


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_store
print("ready", flush=True)
test_store.fill(Path(sys.argv[2]), until=int(sys.argv[3]), size=7)
"""


def size_of(folder: Path) -> int:
    path = folder / "points.float32"
    return path.stat().st_size if path.exists() else 0


@pytest.mark.slow
def test_runs_killed_at_random_moments_are_finished_to_the_same_bytes(tmp_path: Path) -> None:
    folder, endless = tmp_path / "work", str(10**9)
    rng = np.random.default_rng()
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(folder), endless]
    progress = []
    for _ in range(3):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            before = size_of(folder)
            while size_of(folder) <= before:  # fsync takes as long as the disk is busy
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        progress.append(size_of(folder))
    n_seeds = BatchStore.open(folder, FINGERPRINT, 5).next_seed + 50
    store = fill(folder, until=n_seeds, size=20)
    _, whole = tracked(0, n_seeds)
    assert progress == sorted(progress)
    assert 0 < progress[-1] < len(whole.points_mm) * 12
    assert store.counts == whole.counts
    assert data_of(folder) == data_until(store.next_seed)

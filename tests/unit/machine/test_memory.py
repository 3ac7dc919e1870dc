"""Amounts of memory, and the memory that this process may use."""

from __future__ import annotations

from pathlib import Path

import pytest

from bids_tractography.machine.cpus import share_cpus
from bids_tractography.machine.memory import available_memory_mib, parse_memory_mib


@pytest.mark.parametrize(
    ("text", "unit", "mib"),
    [
        ("16G", "M", 16384),
        ("16GB", "M", 16384),
        ("16 GiB", "M", 16384),
        ("1.5g", "M", 1536),
        ("16000", "M", 16000),
        ("16", "G", 16384),
        ("2T", "M", 2097152),
        ("2048K", "M", 2),
        ("1048576B", "G", 1),
    ],
)
def test_amounts_are_parsed_in_any_unit(text: str, unit: str, mib: float) -> None:
    assert parse_memory_mib(text, unit) == mib


@pytest.mark.parametrize("text", ["", "G", "-1", "1e99", "nan", "16X", "1 2"])
def test_what_is_not_an_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an amount"):
        parse_memory_mib(text)


def proc(root: Path, group: str, mount: str) -> None:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(group)
    (root / "proc/self/mountinfo").write_text(mount)


def test_the_smallest_limit_of_a_control_group_and_its_parents_counts(tmp_path: Path) -> None:
    proc(tmp_path, "0::/job/step\n", "30 1 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    step = tmp_path / "sys/fs/cgroup/job/step"
    step.mkdir(parents=True)
    (step / "memory.max").write_text("max\n")
    (step.parent / "memory.max").write_text(f"{300 * 2**20}\n")
    assert available_memory_mib({}, tmp_path) == 300
    assert available_memory_mib({"SLURM_MEM_PER_NODE": "200"}, tmp_path) == 200
    assert available_memory_mib({"SLURM_MEM_PER_NODE": "0"}, tmp_path) == 300


def test_a_limit_of_version_1_of_control_groups_counts(tmp_path: Path) -> None:
    group = "5:cpu,cpuacct:/x\n4:memory:/slurm/job\n"
    proc(tmp_path, group, "30 1 0:1 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n")
    folder = tmp_path / "sys/fs/cgroup/memory/slurm/job"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text(f"{100 * 2**20}\n")
    assert available_memory_mib({}, tmp_path) == 100


@pytest.mark.parametrize(
    ("total", "per_run", "participants", "expected"),
    [
        (16, None, 1, (1, 16)),
        (16, None, 20, (2, 8)),
        (20, None, 20, (2, 10)),
        (64, None, 3, (3, 21)),
        (4, None, 20, (1, 4)),
        (16, 4, 1, (4, 4)),
        (16, 5, 20, (3, 5)),
        (4, 8, 20, (1, 4)),
        (1, 1, 1, (1, 1)),
    ],
)
def test_threads_are_shared_out_among_runs(
    total: int, per_run: int | None, participants: int, expected: tuple[int, int]
) -> None:
    assert share_cpus(total, per_run, participants) == expected

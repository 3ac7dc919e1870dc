"""Processors granted, on imitated systems and under a real affinity."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bids_tractography.machine.cpus import count_cpus

V2 = "30 23 0:26 {top} /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 {top} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "33 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
)


@pytest.fixture(autouse=True)
def _sixty_four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)


def system(root: Path, group: str, mounts: str, files: dict[str, str]) -> Path:
    """A system with this process in a control group."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(group)
    (root / "proc/self/mountinfo").write_text(mounts)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("group", "mounts", "files", "expected"),
    [
        pytest.param("0::/\n", V2.format(top="/"), {"cpu.max": "400000 100000\n"}, 4, id="v2"),
        pytest.param("0::/\n", V2.format(top="/"), {"cpu.max": "max 100000\n"}, 64, id="v2 free"),
        pytest.param(
            "0::/slurm/job_7/step_0\n",
            V2.format(top="/"),
            {
                "slurm/job_7/step_0/cpu.max": "max 100000\n",
                "slurm/job_7/cpu.max": "800000 100000\n",
                "slurm/cpu.max": "3200000 100000\n",
            },
            8,
            id="v2, the quota is above the process",
        ),
        pytest.param(
            "0::/kubepods/pod1/c1\n",
            V2.format(top="/kubepods/pod1/c1"),
            {"cpu.max": "150000 100000\n"},
            2,
            id="v2, mounted from the group; a half counts",
        ),
        pytest.param(
            "0::/../elsewhere\n",
            V2.format(top="/here"),
            {"cpu.max": "300000 100000\n"},
            3,
            id="v2, another namespace",
        ),
        pytest.param(
            "5:cpu,cpuacct:/docker/abc\n3:cpuset:/docker/abc\n",
            V1.format(top="/docker/abc"),
            {
                "cpu,cpuacct/cpu.cfs_quota_us": "200000\n",
                "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            2,
            id="v1, a container",
        ),
        pytest.param(
            "5:cpu,cpuacct:/job\n0::/\n",
            V1.format(top="/") + V2.format(top="/").replace("/sys/fs/cgroup", "/sys/fs/cgroup/u"),
            {
                "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
                "cpu,cpuacct/job/cpu.cfs_quota_us": "20000\n",
                "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
            },
            1,
            id="v1 beside v2; a fifth of a processor is one",
        ),
        pytest.param("", "", {}, 64, id="no control groups"),
    ],
)
def test_quotas_of_control_groups(
    tmp_path: Path, group: str, mounts: str, files: dict[str, str], expected: int
) -> None:
    assert count_cpus({}, system(tmp_path, group, mounts, files)) == expected


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"SLURM_CPUS_PER_TASK": "4", "SLURM_CPUS_ON_NODE": "16"}, 4),
        ({"SLURM_CPUS_ON_NODE": "16"}, 16),
        ({"NSLOTS": "3"}, 3),
        ({"SLURM_CPUS_PER_TASK": "128"}, 64),
        ({"SLURM_CPUS_PER_TASK": "", "NCPUS": "two", "NSLOTS": "0"}, 64),
    ],
)
def test_what_schedulers_grant(tmp_path: Path, environment: dict[str, str], expected: int) -> None:
    assert count_cpus(environment, tmp_path) == expected


def test_the_smallest_grant_holds(tmp_path: Path) -> None:
    root = system(tmp_path, "0::/\n", V2.format(top="/"), {"cpu.max": "400000 100000\n"})
    assert count_cpus({"SLURM_CPUS_PER_TASK": "8"}, root) == 4
    assert count_cpus({"SLURM_CPUS_PER_TASK": "2"}, root) == 2


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_the_affinity_of_a_real_process_holds() -> None:
    program = (
        "import os; from bids_tractography.machine.cpus import count_cpus;"
        "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); print(count_cpus({}))"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert told.stdout == "1\n"

"""What people type by habit, and what they see while it happens."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import QUICK, run_cli, sidecar, tractograms

LINE = re.compile(r"\d\d:\d\d:\d\d [A-Z]+ ")


@pytest.mark.slow
def test_two_runs_at_a_time_send_their_log_and_progress_to_one_terminal(
    two_participants: Path, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    command = [sys.executable, "-m", "bids_tractography", str(two_participants), str(output)]
    words = ["participant", "--n_cpus", "2", "--omp_nthreads", "1", "--no-report", "--notrack"]
    ended = subprocess.run(
        [*command, *words, "--set", *QUICK], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    lines = ended.stderr.splitlines()
    assert all(LINE.match(line) for line in lines)
    said = [LINE.sub("", line) for line in lines]
    assert said[0] == "Ignored: --notrack: nothing is ever sent anywhere."
    assert said[1].startswith("bids-tractography ")
    (extent,) = (n for n, line in enumerate(said) if line.startswith("2 participants; "))
    assert "2 DWI runs at a time, 1 thread each" in said[extent]
    assert all(line.startswith(("sub-01: ", "sub-02: ")) for line in said[extent + 1 :])
    for name in ("sub-01", "sub-02"):
        assert any(re.match(rf"{name}: 100% of \d+ ", line) for line in said)
        log = (output / "logs" / f"{name}.log").read_text()
        assert f"DEBUG {name}: fitting took " in log
        assert f"INFO {name}: tracking " in log
        assert f"DEBUG {name}: input dwi: {two_participants / name / 'dwi'}" in log
    assert "2 done; 4 warnings" in ended.stdout
    assert "ERROR" not in ended.stderr


def test_the_first_failure_ends_the_command_if_that_is_asked_for(
    two_participants: Path, tmp_path: Path
) -> None:
    (two_participants / "sub-01" / "dwi" / "sub-01_dwi.bval").write_text("0 1000\n")
    output = tmp_path / "output"
    words = (two_participants, output, "participant", "--nprocs", 1)
    ended = run_cli(*words, "--stop-on-first-crash")
    assert ended.returncode == 65
    assert not (output / "sub-02").exists()
    assert "1 failed; 1 warning" in ended.stdout
    assert f"log of the failure: {output / 'logs' / 'sub-01.log'}" in ended.stdout
    assert "sub-01: " in ended.stderr
    assert "2 b-values" in (output / "logs" / "sub-01.log").read_text()
    (log,) = (output / "logs").glob("*_participant.json")
    assert list(json.loads(log.read_text())["failed"]) == ["sub-01"]


def test_the_random_seed_is_that_of_the_configuration(dataset: Path, tmp_path: Path) -> None:
    quick = tuple(setting for setting in QUICK if "rng_seed" not in setting)
    made = []
    for n, words in enumerate((("--random-seed", 7), ("--set", "seeding.rng_seed=7"))):
        output = tmp_path / str(n)
        assert run_cli(dataset, output, "participant", *words, overrides=quick).returncode == 0
        made.append(tractograms(output)[0].read_bytes())
        shutil.rmtree(output / ".work", ignore_errors=True)
    assert made[0] == made[1]
    assert sidecar(tractograms(tmp_path / "0")[0])["BidsTractography"]["rng_seed"] == 7


def test_a_dry_run_states_how_runs_are_shared_out(dataset: Path, tmp_path: Path) -> None:
    words = (dataset, tmp_path / "out", "participant", "--dry-run", "--json")
    ended = run_cli(*words, "--nthreads", 8, "--omp-nthreads", 3, "--mem", "2G")
    assert ended.returncode == 0
    content = json.loads(ended.stdout)
    assert (content["n_procs"], content["n_threads"]) == (2, 3)
    assert run_cli(*words, "--mem", "2G", "--executor", "ray").returncode == 64

"""Faults in whole runs; `benchmarks/crash.py` does the same for as long as one likes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import ROOT

HARNESS = ROOT / "benchmarks" / "crash.py"


@pytest.mark.slow
def test_runs_under_faults_are_finished_to_the_same_bytes() -> None:
    ended = subprocess.run(
        [sys.executable, HARNESS, "--faults", "8", "--seed", "2"],
        env=os.environ | {"PYTHONPATH": str(HARNESS.parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for fault in ("crash before an operation", "damaged file", "full disk", "one work folder"):
        assert f"{fault} |" in ended.stdout

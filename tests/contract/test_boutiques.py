"""The Boutiques descriptor, as ``bosh`` reads and runs it."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from bids_tractography.cli.parser import build_parser

DESCRIPTOR = ROOT / "boutiques.json"
BIN = Path(sys.executable).parent


@pytest.fixture(scope="session")
def bosh() -> str:
    found = shutil.which("bosh", path=f"{BIN}:{os.environ['PATH']}")
    if found is None:
        pytest.skip("boutiques is not installed")
    return found


def run(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": str(DESCRIPTOR.parent),
    }
    return subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def invocation(folder: Path, **values: object) -> Path:
    path = folder / "invocation.json"
    path.write_text(json.dumps(values))
    return path


def test_the_descriptor_is_valid(bosh: str) -> None:
    validated = run(bosh, "validate", DESCRIPTOR)
    assert validated.returncode == 0, validated.stdout + validated.stderr


def test_every_option_of_the_command_line_is_in_it() -> None:
    described = {item["id"] for item in json.loads(DESCRIPTOR.read_text())["inputs"]}
    options = {action.dest for action in build_parser()._actions} - {
        "help",
        "version",
        "print_completion",
    }
    assert described == options


def test_its_command_line_is_understood_as_it_was_meant(bosh: str, tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "bids_dir": "data",
        "output_dir": "out",
        "analysis_level": "participant",
        "participant_label": ["01", "02"],
        "derivatives": ["qsiprep", "tissue"],
        "config": "tracking.yaml",
        "set": ["seeding.rng_seed=1", "seeding.seeds={kind: total, count: 10}"],
        "fresh": True,
        "nprocs": 2,
        "work_dir": "scratch",
    }
    simulated = run(
        *(bosh, "exec", "simulate", DESCRIPTOR, "-i", invocation(tmp_path, **values)), cwd=tmp_path
    )
    assert simulated.returncode == 0, simulated.stdout + simulated.stderr
    line = next(x for x in simulated.stdout.splitlines() if x.startswith("bids-tractography "))
    parsed = build_parser().parse_args(shlex.split(line)[1:])
    expected = argparse.Namespace(**values)
    for name in ("bids_dir", "output_dir", "work_dir"):
        setattr(expected, name, Path(values[name]))
    assert {name: getattr(parsed, name) for name in values} == vars(expected)


@pytest.mark.slow
def test_a_launch_finds_its_outputs_and_explains_its_failures(
    bosh: str, scanned_once: Path, tmp_path: Path
) -> None:
    values = {
        "bids_dir": str(scanned_once),
        "output_dir": "out",
        "analysis_level": "participant",
        "set": ["seeding.seeds={kind: total, count: 50}", "tracking.algorithm.step_size_mm=1"],
    }
    command = (bosh, "exec", "launch", DESCRIPTOR)
    options = ("--no-container", "--skip-data-collection")
    done = run(*command, invocation(tmp_path, **values), *options, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "out/dataset_description.json" in done.stdout
    assert "_tractogram.trx" in done.stdout
    failed = run(
        *command,
        invocation(tmp_path, **values, participant_label=["99"]),
        *options,
        cwd=tmp_path,
    )
    assert failed.returncode == 18
    assert "Labels or filters match nothing" in failed.stdout + failed.stderr

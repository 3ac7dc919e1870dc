"""Compiled functions in places that cannot be written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MODULE = """
from bids_tractography.machine.compiled import kernel

@kernel
def reciprocal(x):
    return 1 / x
"""
CALL = """
import {module} as m
print(m.reciprocal({argument}), sum(m.reciprocal.stats.cache_hits.values()))
"""


def call(folder: Path, argument: str, *, powerless: bool) -> tuple[str, int]:
    """Call the function in a new process; return its result and how much was found compiled."""
    command = [sys.executable, "-B", "-c", CALL.format(module="module", argument=argument)]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{folder}:{Path.cwd()}"}
    if powerless and os.getuid() == 0:
        # A user that the system does not know, with no home: what a container may run as.
        if shutil.which("setpriv") is None:
            pytest.skip("setpriv is not installed")
        nobody = ("--reuid=12345", "--regid=12345", "--clear-groups", "--inh-caps=-all")
        command = ["setpriv", *nobody, *command]
        readable = [*command[: 1 + len(nobody)], sys.executable, "-c", "import bids_tractography"]
        if subprocess.run(readable, env=environment, capture_output=True, check=False).returncode:
            pytest.skip("this installation cannot be read by others")
    told = subprocess.run(
        command, cwd=Path.cwd(), env=environment, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    result, hits = told.stdout.split()
    return result, int(hits)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for above in (tmp_path, *tmp_path.parents):
        if not above.stat().st_mode & 0o005 and above.stat().st_uid == os.getuid():
            above.chmod(above.stat().st_mode | 0o055)
    (tmp_path / "module.py").write_text(MODULE)
    return tmp_path


@pytest.mark.slow
def test_what_was_compiled_is_read_where_nothing_can_be_written(folder: Path) -> None:
    assert call(folder, "4", powerless=False) == ("0.25", 0)
    assert call(folder, "4", powerless=False) == ("0.25", 1)
    os.utime(folder / "module.py", (1, 1))  # as layers of an image have it
    (folder / "__pycache__").chmod(0o555)
    folder.chmod(0o555)
    before = sorted((folder / "__pycache__").iterdir())
    assert call(folder, "4", powerless=True) == ("0.25", 1)
    assert call(folder, "0.0", powerless=True) == ("inf", 0)  # not compiled for float64 before
    assert sorted((folder / "__pycache__").iterdir()) == before
    folder.chmod(0o755)


@pytest.mark.slow
def test_a_changed_source_is_compiled_again(folder: Path) -> None:
    assert call(folder, "4", powerless=False) == ("0.25", 0)
    (folder / "module.py").write_text(MODULE.replace("1 / x", "2 / x"))
    assert call(folder, "4", powerless=False) == ("0.5", 0)


def test_a_place_that_has_nothing_and_takes_nothing_is_no_obstacle(folder: Path) -> None:
    folder.chmod(0o555)
    assert call(folder, "4", powerless=True) == ("0.25", 0)
    folder.chmod(0o755)


def damaged(content: bytes) -> dict[str, bytes]:
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 8
    return {"cut": content[: len(content) // 2], "empty": b"", "flipped": bytes(flipped)}


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "empty", "flipped"])
@pytest.mark.parametrize("extension", ["nbi", "nbc"])
def test_damaged_compiled_code_is_compiled_again(folder: Path, extension: str, damage: str) -> None:
    assert call(folder, "4", powerless=False) == ("0.25", 0)
    (path,) = (folder / "__pycache__").glob(f"*.{extension}")
    whole = path.read_bytes()
    path.write_bytes(damaged(whole)[damage])
    assert call(folder, "4", powerless=False) == ("0.25", 0)
    assert call(folder, "4", powerless=False) == ("0.25", 1)

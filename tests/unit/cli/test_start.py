"""The command line starts quickly: what takes time is imported only where it is needed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("numpy", "scipy", "numba", "dipy", "nibabel", "bids", "pydantic", "rich", "yaml", "pandas")
PROGRAM = """
import json, sys
from bids_tractography.__main__ import main
sys.argv[1:] = {words!r}
try:
    main()
except SystemExit:
    pass
import resource
print(json.dumps([m for m in {heavy!r} if m in sys.modules]), file=sys.stderr)
"""


def imported(*words: str, heavy: tuple[str, ...] = HEAVY) -> list[str]:
    program = PROGRAM.format(words=list(words), heavy=heavy)
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    modules: list[str] = json.loads(ended.stderr.splitlines()[-1])
    return modules


@pytest.mark.parametrize(
    "words",
    [
        ["--version"],
        ["version"],
        ["--help"],
        ["help"],
        ["help", "reproduce"],
        *([command, "--help"] for command in ("config", "convert", "reproduce", "phantom")),
        ["doctor", "--help"],
        ["in", "out", "participant", "--no-such-option"],
        ["in", "out", "participant", "--recon-spec", "name"],
    ],
    ids=" ".join,
)
def test_help_and_errors_of_usage_import_nothing_heavy(words: list[str]) -> None:
    assert imported(*words) == []


def test_the_package_itself_imports_nothing_heavy() -> None:
    program = f"import sys, bids_tractography; print([m for m in {HEAVY!r} if m in sys.modules])"
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"

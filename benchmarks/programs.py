"""Running our own command and MRtrix3's from the benchmarks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class UnavailableError(Exception):
    """A program refused; the text is its last word."""


@dataclass(frozen=True)
class Tracked:
    """A tractogram that was made.

    Parameters
    ----------
    path : Path
    seconds : float
        Wall time of the whole command.
    """

    path: Path
    seconds: float


def track(
    dataset: Path,
    output: Path,
    settings: Mapping[str, Any],
    derivatives: Iterable[Path] = (),
) -> Tracked:
    """Run ``bids-tractography`` with ``--set`` for each of the settings.

    Raises
    ------
    UnavailableError
        With the last line of the log, if it fails.
    """
    command = [sys.executable, "-m", "bids_tractography", str(dataset), str(output), "participant"]
    for key, value in settings.items():
        command += ["--set", f"{key}={json.dumps(value)}"]  # JSON is YAML
    for path in derivatives:
        command += ["--derivatives", str(path)]
    before = set(output.rglob("*_tractogram.trx"))
    seconds = _run(command)
    made = sorted(set(output.rglob("*_tractogram.trx")) - before)
    if len(made) != 1:
        raise UnavailableError(f"{len(made)} new tractograms in {output}")
    return Tracked(made[0], seconds)


def mrtrix(*command: object) -> float:
    """Run a command of MRtrix3 with a fixed seed; return its wall time in seconds.

    Raises
    ------
    UnavailableError
        With the last line of its messages, if it fails.
    """
    words = [str(word) for word in command]
    return _run([words[0], "-quiet", "-force", *words[1:]])


def _run(command: list[str]) -> float:
    start = time.perf_counter()
    environment = {**os.environ, "MRTRIX_RNG_SEED": "1"}
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise UnavailableError(f"{error.filename} is not installed") from None
    if done.returncode:
        said = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        errors = [line for line in said if "error" in line.lower()] or said or ["no message"]
        raise UnavailableError(errors[-1][:200])
    return time.perf_counter() - start


def print_table(rows: Iterable[Mapping[str, str]]) -> None:
    """Print rows with the same keys as a Markdown table, each as soon as it is there."""
    for place, row in enumerate(rows):
        if place == 0:
            print(f"| {' | '.join(row)} |\n|{'---|' * len(row)}")
        print(f"| {' | '.join(row.values())} |", flush=True)

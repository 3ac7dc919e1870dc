"""Running our own command and MRtrix3's from the benchmarks."""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
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
    before = _changed(output)
    seconds = _run(command)
    made = sorted(path for path, when in _changed(output).items() if before.get(path) != when)
    if len(made) != 1:
        raise UnavailableError(f"{len(made)} new tractograms in {output}")
    return Tracked(made[0], seconds)


def _changed(output: Path) -> dict[Path, int]:
    """Return the tractograms in a folder with the times at which they were written."""
    return {path: path.stat().st_mtime_ns for path in output.rglob("*_tractogram.trx")}


def mrtrix(*command: object, rng_seed: int = 1) -> float:
    """Run a command of MRtrix3 with a fixed seed; return its wall time in seconds.

    Raises
    ------
    UnavailableError
        With the last line of its messages, if it fails.
    """
    words = [str(word) for word in command]
    return _run([words[0], "-quiet", "-force", *words[1:]], rng_seed)


def _run(command: list[str], rng_seed: int = 1) -> float:
    return measure(command, environment={"MRTRIX_RNG_SEED": str(rng_seed)}).wall_s


@dataclass(frozen=True)
class Usage:
    """What a command took, with the processes that it started.

    Parameters
    ----------
    wall_s, cpu_s : float
    peak_gib : float
        Of the largest process, or of those that lived at one time.
    """

    wall_s: float
    cpu_s: float
    peak_gib: float

    def __add__(self, other: Usage) -> Usage:
        """Return that of one command after the other."""
        peak = max(self.peak_gib, other.peak_gib)
        return Usage(self.wall_s + other.wall_s, self.cpu_s + other.cpu_s, peak)


def measure(
    command: Iterable[object],
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Usage:
    """Run a command and measure it.

    Raises
    ------
    UnavailableError
        With the last line of its messages, if it fails.
    """
    start, peak_kib = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        try:
            process = subprocess.Popen(
                [str(word) for word in command],
                cwd=cwd,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
            )
        except FileNotFoundError as error:
            raise UnavailableError(f"{error.filename} is not installed") from None
        seen = start
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            time.sleep(0.01)
            if time.perf_counter() - seen > _SAMPLE_S:
                peak_kib, seen = max(peak_kib, _shared_out_kib(process.pid)), time.perf_counter()
        wall_s = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(ended[1])
        if process.returncode:
            said.seek(0)
            lines = [line.strip() for line in said if line.strip()]
            errors = [line for line in lines if "error" in line.lower()] or lines or ["no message"]
            raise UnavailableError(errors[-1][:200])
    used = ended[2]
    peak_gib = max(peak_kib, used.ru_maxrss) / 2**20
    return Usage(wall_s, used.ru_utime + used.ru_stime, peak_gib)


_SAMPLE_S = 0.5


def _shared_out_kib(process: int) -> int:
    """Sum the memory of a process and all below it; 0 where it is alone."""
    tree, total = [process], 0
    with suppress(OSError, ValueError):  # processes end
        for each in tree:
            for task in Path(f"/proc/{each}/task").iterdir():
                tree += map(int, (task / "children").read_text().split())
        for each in tree if len(tree) > 1 else ():
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def describe_machine(*packages: str) -> str:
    """Return the processor, the cores of this process and versions."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    model = (models or [platform.processor() or platform.machine()])[0]
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} cores, Python {platform.python_version()}, {versions}"


def mrtrix_version() -> str:
    """Return the version of MRtrix3 that is installed, or that there is none."""
    if shutil.which("tckgen") is None:
        return "no MRtrix3"
    told = subprocess.run(["tckgen", "-version"], capture_output=True, text=True, check=True)
    return f"MRtrix3 {told.stdout.split()[2]}"


def spread(numbers: Sequence[float], digits: int = 1) -> str:
    """Return mean and standard deviation as text."""
    mean = f"{statistics.mean(numbers):.{digits}f}"
    return f"{mean} ± {statistics.stdev(numbers):.{digits}f}" if len(numbers) > 1 else mean


def print_table(rows: Iterable[Mapping[str, str]]) -> None:
    """Print rows with the same keys as a Markdown table, each as soon as it is there."""
    for place, row in enumerate(rows):
        if place == 0:
            print(f"| {' | '.join(row)} |\n|{'---|' * len(row)}")
        print(f"| {' | '.join(row.values())} |", flush=True)

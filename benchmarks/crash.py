"""Whole runs under faults: signals, crashes before file operations, damaged files, a full disk.

    python benchmarks/crash.py [--minutes N] [--faults N] [--seed N] [--disk-seeds N] [--sidecars]

Every fault hits a run on a small phantom. The same command is then run again, as often as it ends
with exit code 75, and what it leaves is compared with what an undisturbed run leaves. A Markdown
table is printed; the exit code is 1 if any file differs, or if a run ends in a traceback, with an
unexpected exit code, or not at all. The same seed draws the same faults (signals hit whatever the
machine does at that moment).

One process imports the program and forks the runs, which spares each the import.
"""

from __future__ import annotations

import argparse
import builtins
import errno
import faulthandler
import hashlib
import io
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # threads do not survive a fork

from programs import print_table

from bids_tractography.cli.main import main as run_command_line
from bids_tractography.outputs.provenance import RECORD_KEY
from bids_tractography.phantom import ScanGrid, make_phantom, write_dwi
from bids_tractography.tractogram import store

OPTIONS = (
    *("--omp-nthreads", "1", "--set", "seeding.rng_seed=3", "--set", "model.kind=tensor"),
    *("--set", "seeding.seeds={kind: total, count: 200}", "--set", "tracking.batch_size=20"),
    *("--set", "tracking.min_length_mm=5"),
)
OUTPUTS = (
    *("output.dtype=float32", "output.dtype=float16"),
    *("output.formats=[tck]", "output.formats=[trk]"),
)
# Of which the first one, finished, is the beginning.
LARGER = "seeding.seeds={kind: total, count: 260}"
SETTINGS = (*OUTPUTS, "seeding.seeds={kind: select, count: 90}", "output.keep=[density]", LARGER)
TIMEOUT_S = 300
MAX_TRIES = 10
BUSY = 75
ENDS = {0, 73, BUSY, 130, 143, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT}
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
CREATES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# What differs between equal runs, and the hash of the sidecar that covers it.
VOLATILE = ("seconds", "cpu_seconds", "peak_memory_mib", "sidecar_sha256")


@dataclass(frozen=True)
class Command:
    """A run of one participant."""

    dataset: Path
    output: Path
    work: Path
    setting: str = OUTPUTS[0]
    options: tuple[str, ...] = OPTIONS

    @property
    def words(self) -> list[str]:
        """The words of the command line."""
        paths = map(str, (self.dataset, self.output))
        options = ("-w", str(self.work), *self.options, "--set", self.setting)
        # Reports show times, which differ from run to run.
        return [*paths, "participant", "--no-report", *options]


# Faults inside a run


Fault = Callable[[str, io.FileIO | None, bytes], None]
"""Called before a file operation: its name, and for a write the file and what is to be written."""


def install(fault: Fault, root: Path) -> None:
    """Call a fault before every operation of this process that changes files below a folder."""
    inside = os.fspath(root) + os.sep
    real_open, real_fsync = builtins.open, os.fsync

    class Watched(io.FileIO):
        def write(self, content: Any, /) -> int:
            fault("write", self, bytes(content))
            return super().write(content)

    def watched_open(
        file: Any, mode: str = "r", buffering: int = -1, *others: Any, **named: Any
    ) -> Any:
        below = isinstance(file, str | os.PathLike) and os.fspath(file).startswith(inside)
        if not below or not set(mode) & set("wax+"):
            return real_open(file, mode, buffering, *others, **named)
        raw = Watched(file, mode.replace("b", "").replace("t", ""))
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *others, **named)

    def fsync(fd: Any) -> None:
        fault("fsync", None, b"")
        real_fsync(fd)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            changes = bool(flags & CREATES)
        else:
            path = arguments[0] if arguments else None
            changes = event in {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
        if changes and isinstance(path, str) and path.startswith(inside):
            fault(event, None, b"")

    builtins.open = io.open = watched_open
    os.fsync = fsync
    sys.addaudithook(hook)


def count_operations(told: Path) -> Fault:
    """Count the operations into a file."""
    numbers = itertools.count(1)

    def count(_name: str, _file: io.FileIO | None, _content: bytes) -> None:
        told.write_text(str(next(numbers)))

    return count


def die_at(place: int, number: signal.Signals) -> Fault:
    """Send a signal to this process before an operation; a write is torn."""
    numbers = itertools.count(1)

    def die(_name: str, file: io.FileIO | None, content: bytes) -> None:
        if next(numbers) != place:
            return
        if file is not None and number == signal.SIGKILL:
            os.write(file.fileno(), content[: len(content) // 2])
        os.kill(os.getpid(), number)

    return die


def full_from(place: int) -> Fault:
    """Have no space left from an operation on; the first write of it is cut short."""
    numbers = itertools.count(1)

    def fill(name: str, file: io.FileIO | None, content: bytes) -> None:
        number = next(numbers)
        if number < place or name not in {"write", "open", "os.mkdir", "fsync"}:
            return
        if file is not None and number == place:
            os.write(file.fileno(), content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return fill


# Runs


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    code: int
    log: str
    memory_mib: float
    hung: bool = False


@dataclass
class Running:
    """A run in a process of its own."""

    pid: int
    log: Path

    def wait(self, look: Callable[[], None] = lambda: None) -> Ended:
        """Wait for its end, looking at something in the meantime."""
        deadline, hung = time.monotonic() + TIMEOUT_S, False
        while True:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline and not hung:
                os.kill(self.pid, signal.SIGABRT)  # faulthandler writes where it was
                hung = True
            look()
            time.sleep(0.005)
        log = self.log.read_text(errors="replace")
        self.log.unlink()
        return Ended(os.waitstatus_to_exitcode(status), log, usage.ru_maxrss / 1024, hung)


def start(command: Command, root: Path, fault: Fault | None = None) -> Running:
    """Fork a run, with a fault in it or not."""
    number, name = tempfile.mkstemp(dir=root, prefix="log-")
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    pid = os.fork()
    if pid == 0:
        os.dup2(number, 1)
        os.dup2(number, 2)
        faulthandler.enable()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if fault:
            install(fault, root / "runs")
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        code = 1
        try:
            code = run_command_line(command.words)
        except KeyboardInterrupt:  # before the program's own handler, as in any Python program
            code = 130
        except SystemExit as error:
            code = int(error.code or 0)
        finally:
            for stream in (sys.stdout, sys.stderr):
                with suppress(Exception):
                    stream.flush()
            if sys.exc_info()[0] is not None:
                sys.excepthook(*sys.exc_info())
            os._exit(code)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    os.close(number)
    return Running(pid, Path(name))


def results(output: Path) -> dict[str, str]:
    """Hash every file of the participants, leaving out times and memory in sidecars."""
    return {
        str(path.relative_to(output)): hashlib.sha256(_content(path)).hexdigest()
        for path in sorted(output.glob("sub-*/**/*"))
        if path.is_file()
    }


def _content(path: Path) -> bytes:
    if path.suffix != ".json":
        return path.read_bytes()
    content = json.loads(path.read_text())
    for key in VOLATILE:
        content[RECORD_KEY].pop(key, None)
    return json.dumps(content, sort_keys=True).encode()


def damage(path: Path, rng: random.Random) -> str:
    """Damage a file; return how."""
    content = bytearray(path.read_bytes())
    place, how = rng.randrange(len(content)), rng.choice(["flip", "flip", "cut", "extend"])
    if how == "flip":
        content[place] ^= 1 << rng.randrange(8)
    elif how == "cut":
        del content[place:]
    else:
        content += rng.randbytes(1 + place % 100)
    path.write_bytes(content)
    return f"{how} at {place}"


def used(output: Path, work: Path) -> int:
    """Return the bytes on disk that batches and tractograms take."""
    size = 0
    for path in (*work.rglob("*"), *output.glob("sub-*/dwi/*_tractogram.t*")):
        with suppress(FileNotFoundError):
            size += 512 * path.stat().st_blocks
    return size


# Trials


@dataclass
class Report:
    """What came of the faults of one kind."""

    runs: int = 0
    faults: int = 0
    lost: int = 0
    memory_mib: float = 0.0
    problems: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def note(self, problem: str, text: str) -> None:
        """Count a problem."""
        self.problems[problem] += 1
        self.notes.append(f"{problem}: {text}")

    def ended(self, ended: Ended, what: str) -> None:
        """Account for a run."""
        self.runs += 1
        self.memory_mib = max(self.memory_mib, ended.memory_mib)
        # Ctrl-C inside a callback that must not raise: Python reports and forgets it.
        ignored = ended.log.count("Exception ignored")
        self.lost += ignored
        if ended.hung:
            self.note("hangs", f"{what}\n{ended.log}")
        elif ended.log.count("Traceback") > ignored or ended.code == 70:
            self.note("tracebacks", f"{what}\n{ended.log}")
        elif ended.code not in ENDS:
            self.note("unexpected exit codes", f"{ended.code}: {what}\n{ended.log}")


class Trials:
    """Trials of every kind, in one folder."""

    def __init__(self, root: Path, rng: random.Random, *, sidecars: bool) -> None:
        self.root = root
        self.rng = rng
        self.sidecars = sidecars
        self.reports: dict[str, Report] = {}
        self.runs = root / "runs"
        self.runs.mkdir()
        self.datasets = [self._dataset(name) for name in "ab"]
        self.expected: dict[tuple[Path, str], dict[str, str]] = {}
        self.n_operations: dict[str, int] = {}
        told = root / "operations"
        for setting, dataset in itertools.product(SETTINGS, self.datasets):
            command = self._command(dataset, setting)
            ended = start(command, root, count_operations(told)).wait()
            if ended.code:
                sys.exit(f"an undisturbed run failed:\n{ended.log}")
            self.expected[dataset, setting] = results(command.output)
            self.n_operations[setting] = int(told.read_text())
            self._end(Report(), [command])
        self._operation = Counter[str]()

    def _dataset(self, name: str) -> Path:
        """Write a participant; the datasets differ in noise."""
        folder = self.root / name / "sub-01" / "dwi"
        folder.mkdir(parents=True)
        description = {"Name": name, "BIDSVersion": "1.10.0", "DatasetType": "raw"}
        (self.root / name / "dataset_description.json").write_text(json.dumps(description))
        seed = ord(name)
        write_dwi(
            folder / "sub-01_dwi", make_phantom(), ScanGrid("LAS", (5.0, 5.0, 5.0)), rng_seed=seed
        )
        return self.root / name

    def _command(
        self, dataset: Path, setting: str, output: str = "out", work: str | None = None
    ) -> Command:
        folder = self.runs / output
        return Command(dataset, folder, self.runs / work if work else folder / ".work", setting)

    def _drawn(self) -> tuple[Command, int]:
        """Return a run with one of the formats, and its number of operations."""
        setting = self.rng.choice(SETTINGS)
        return self._command(self.datasets[0], setting), self.n_operations[setting]

    def _finish(self, report: Report, command: Command, what: str) -> None:
        """Run a command until it is done, and compare."""
        for _ in range(MAX_TRIES):
            ended = start(command, self.root).wait()
            report.ended(ended, f"after {what}")
            if ended.code == 0:
                break
            if ended.code != BUSY:
                report.note("runs that do not recover", f"{what}: {ended.code}\n{ended.log}")
                return
        found = results(command.output)
        expected = self.expected[command.dataset, command.setting]
        differ = {name for name in found | expected if found.get(name) != expected.get(name)}
        if differ:
            report.note("runs with wrong bytes", f"{what}: {sorted(differ)}")

    def _end(self, report: Report, commands: list[Command]) -> None:
        """Look for what finished runs should not leave, and remove everything."""
        for command in commands:
            if left := [*command.output.rglob(".tmp-*"), *command.work.glob("*")]:
                report.note("runs with leftovers", str(left))
        shutil.rmtree(self.runs)
        self.runs.mkdir()

    def _faulty(self, name: str, command: Command, fault: Fault, what: str) -> None:
        """Hit a run with a fault, and finish it."""
        report, what = self._report(name), f"{what}, {command.setting}"
        report.faults += 1
        report.ended(start(command, self.root, fault).wait(), what)
        self._finish(report, command, what)
        self._end(report, [command])

    def _report(self, name: str) -> Report:
        return self.reports.setdefault(name, Report())

    def crash(self) -> None:
        """Die before an operation: each of them in turn, in a drawn order."""
        command, n_operations = self._drawn()
        stride = next(n for n in (37, 41, 43) if n_operations % n)
        place = (self._operation[command.setting] + stride) % n_operations
        self._operation[command.setting] = place
        number = self.rng.choice(SIGNALS) if place % 3 == 0 else signal.SIGKILL
        fault, what = die_at(place + 1, number), f"{number.name} {place + 1}"
        self._faulty("crash before an operation", command, fault, what)

    def extension(self) -> None:
        """Extend a finished tractogram, and die before an operation."""
        report = self._report("crash while a tractogram is extended")
        first = self._command(self.datasets[0], OUTPUTS[0])
        larger = self._command(self.datasets[0], LARGER)
        report.ended(start(first, self.root).wait(), "a first run")
        place = self.rng.randint(1, self.n_operations[LARGER])
        fault, what = die_at(place, signal.SIGKILL), f"SIGKILL {place} of an extension"
        report.faults += 1
        report.ended(start(larger, self.root, fault).wait(), what)
        self._finish(report, larger, what)
        self._end(report, [larger])

    def full_disk(self) -> None:
        """Have no space left from an operation on."""
        command, n_operations = self._drawn()
        place = self.rng.randint(1, n_operations)
        self._faulty("full disk", command, full_from(place), f"ENOSPC {place}")

    def damaged(self) -> None:
        """Stop a run somewhere, damage a file of its state or output, and finish it."""
        report, (command, n_operations) = self._report("damaged file"), self._drawn()
        place = self.rng.randint(n_operations // 4, int(1.1 * n_operations))
        report.ended(start(command, self.root, die_at(place, signal.SIGKILL)).wait(), "a kill")
        files = [
            path
            for folder in (command.work, *command.output.glob("sub-*"))
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.stat().st_size
            if self.sidecars or path.suffix != ".json" or path.is_relative_to(command.work)
        ]
        if files:
            report.faults += 1
            path = self.rng.choice(files)
            what = f"{damage(path, self.rng)} in {path.name}, after a kill at {place}"
            what = f"{what}, {command.setting}"
            self._finish(report, command, what)
        self._end(report, [command])

    def signal(self) -> None:
        """Send a signal at any moment, several times."""
        report, (command, _) = self._report("signal"), self._drawn()
        self._signal(report, [command])
        self._finish(report, command, "signals")
        self._end(report, [command])

    def shared(self, n_processes: int = 4) -> None:
        """Run two datasets with the same labels at once, with one work folder, under signals."""
        report = self._report(f"signals, {n_processes} processes, one work folder")
        setting = self.rng.choice(OUTPUTS)
        commands = [self._command(d, setting, f"out-{d.name}", "work") for d in self.datasets]
        repeated = list(itertools.islice(itertools.cycle(commands), n_processes))
        self._signal(report, repeated)
        for command in commands:
            self._finish(report, command, "signals in a shared work folder")
        self._end(report, commands)

    def twenty(self) -> None:
        """Run twenty processes at once."""
        self.shared(20)

    def _signal(self, report: Report, commands: list[Command]) -> None:
        for _ in range(self.rng.randint(1, 2)):
            running = [start(command, self.root) for command in commands]
            time.sleep(self.rng.uniform(0, 1.5) * len(commands) ** 0.5)
            for process in running:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, self.rng.choice(SIGNALS))
                    report.faults += 1
                time.sleep(self.rng.uniform(0, 0.1))
            for process in running:
                report.ended(process.wait(), "a signal")

    def disk(self, n_seeds: int, setting: str) -> float:
        """Measure the most space that batches and tractogram take, as multiples of the latter."""
        seeds = f"seeding.seeds={{kind: total, count: {n_seeds}}}"
        options = (*OPTIONS, "--set", seeds, "--set", "tracking.batch_size=1000")
        output = self.runs / "out"
        command = Command(self.datasets[0], output, output / ".work", setting, options)
        sizes = [0]
        ended = start(command, self.root).wait(
            lambda: sizes.append(max(sizes.pop(), used(output, command.work)))
        )
        report = self._report("none, disk measured")
        report.ended(ended, "a larger run")
        ratio = sizes[0] / used(output, command.work)
        self._end(report, [command])
        return ratio


def kinds(trials: Trials) -> Iterator[Callable[[], None]]:
    """Yield trials of every kind again and again, expensive ones less often."""
    while True:
        yield from (trials.crash, trials.damaged, trials.full_disk, trials.signal, trials.shared)
        yield trials.extension
        for _ in range(8):
            yield from (trials.crash, trials.damaged, trials.crash, trials.damaged)
            yield from (trials.full_disk, trials.signal, trials.extension)
        yield trials.twenty


PROBLEMS = (
    *("runs with wrong bytes", "tracebacks", "hangs", "unexpected exit codes"),
    *("runs that do not recover", "runs with leftovers"),
)


def main() -> int:
    """Print the table; return 1 if there is a problem."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--faults", type=int, help="stop after this many, whatever the time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--disk-seeds", type=int, default=0, help="also measure space on disk")
    parser.add_argument("--sidecars", action="store_true", help="damage sidecars, too")
    options = parser.parse_args()
    store._MOVE_POINTS = 1 << 10  # so that points of so short a run are moved in several steps
    end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder:
        trials = Trials(Path(folder), random.Random(options.seed), sidecars=options.sidecars)
        if options.disk_seeds:
            for setting in OUTPUTS:
                ratio = trials.disk(options.disk_seeds, setting)
                print(f"Space on disk, {setting}: {ratio:.2f} times the tractogram.\n")
        for trial in kinds(trials):
            done = sum(report.faults for report in trials.reports.values())
            if time.monotonic() > end or (options.faults and done >= options.faults):
                break
            trial()
    numbers = ", ".join(f"{n} ({setting})" for setting, n in trials.n_operations.items())
    print(f"File operations in an undisturbed run: {numbers}.\n")
    print_table(
        {
            "fault": name,
            "faults": str(report.faults),
            "runs": str(report.runs),
            **{problem: str(report.problems[problem]) for problem in PROBLEMS},
            "signals lost by Python": str(report.lost),
            "peak memory, MiB": f"{report.memory_mib:.0f}",
        }
        for name, report in trials.reports.items()
    )
    notes = [note for report in trials.reports.values() for note in report.notes]
    print(*notes, sep="\n", file=sys.stderr)
    return int(bool(notes))


if __name__ == "__main__":
    sys.exit(main())

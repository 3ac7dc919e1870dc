"""Tables on a terminal: the plan of a run, and its outcomes."""

from __future__ import annotations

import platform
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bids_tractography import __version__
from bids_tractography.app.forecast import Expected, Forecast
from bids_tractography.app.local import Outcome
from bids_tractography.app.outcome import Failure, Skipped
from bids_tractography.app.request import Request, Study
from bids_tractography.config.dump import as_yaml
from bids_tractography.machine.files import printable


def print_plan(request: Request, foreseen: Forecast) -> None:
    """Print what a run would do, and its configuration."""
    print(f"# Into {request.output_dir}; {_plural(request.n_procs, 'DWI run')} at a time, ", end="")
    print(f"{_plural(request.n_threads, 'thread')} each.")
    for name, end in foreseen.runs:
        match end:
            case Failure():
                print(f"\n{name}: would fail: {end.message}")
            case Skipped():
                print(f"\n{name}: skipped: {end.error}")
            case Expected():
                print(f"\n{name}: {_STATUS[end.status]}".rstrip())
                for what, text in _lines(end):
                    print(f"  {what:<12} {text}")
    totals = foreseen.totals
    print(
        f"\n# In all: about {totals['seeds']:,.0f} seeds, "
        f"{totals['streamlines']:,.0f} streamlines, "
        f"{totals['disk_mib']:,.0f} MiB of disk, {_hours(totals['cpu_seconds'])} of CPU time."
    )
    print("# Only headers and text files were read, and results that are there already; the run")
    print("# itself checks the signal.")
    if foreseen.fault:
        print(f"# It would fail with exit code {foreseen.exit_code}: {foreseen.fault}")
    elif foreseen.exit_code:
        print(f"# Its exit code would be {foreseen.exit_code}.")
    print("\n# configuration")
    print(as_yaml(request.config), end="")


_STATUS = {
    "run": "",
    "convert": "other formats are converted from the tractogram that is there",
    "up to date": "everything is up to date; nothing to compute",
}


def _lines(expected: Expected) -> Iterator[tuple[str, str]]:
    """Yield the inputs of a run, its costs and what it writes."""
    job, costs = expected.job, expected.estimate
    yield from ((role, str(path)) for role, path in expected.inputs.items())
    if "brain_mask" not in job.inputs:
        yield "brain_mask", "none found: computed from the DWI"
    if costs is not None:
        low, high = costs.streamlines_range
        yield "model", f"{costs.model['kind']}, order {costs.model['sh_order']}"
        yield "engine", f"{job.engine}, {_plural(job.n_threads, 'thread')}"
        yield "seeds", f"about {costs.seeds}"
        yield "streamlines", f"about {costs.streamlines}, {low} to {high} ({costs.basis})"
        yield "time", f"about {costs.seconds:.0f} s ({costs.cpu_seconds:.0f} s of CPU)"
        yield "memory", f"about {costs.memory_mib:.0f} MiB"
        yield "disk", f"about {costs.disk_mib:.0f} MiB"
        yield from (("warning", text) for text in costs.warnings)
    for path in job.targets["tractogram"].paths:
        yield "writes", str(path)
    others = len(expected.files) - len(job.targets["tractogram"].paths)
    yield "", f"and {others} maps and masks in the same folder"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds:.0f} s"


def head(request: Request) -> list[str]:
    """Return what runs, on what and where, as lines of the log."""
    container = ", ".join(map(str, (request.container or {}).values()))
    inputs = [request.bids_dir, *(path for _, path in request.derivatives)]
    return [
        f"bids-tractography {__version__}{f' in {container}' if container else ''}, "
        f"Python {platform.python_version()}, on {platform.node()}.",
        f"Input: {', '.join(map(printable, inputs))}.",
        f"Output: {printable(request.output_dir)}; unfinished work: {printable(request.work_dir)}.",
    ]


def extent(request: Request, study: Study) -> str:
    """Return how much there is to do, and with what, as a line of the log."""
    n_participants, n_procs, n_threads = len(study.participants), request.n_procs, request.n_threads
    memory = (
        "" if request.memory_mib is None else f"; {request.memory_mib / 1024:.1f} GiB of memory"
    )
    engine = "" if study.engine is None else f"; engine {study.engine}"
    return (
        f"{_plural(n_participants, 'participant')}; {_plural(n_procs, 'DWI run')} at a time, "
        f"{_plural(n_threads, 'thread')} each{memory}{engine}."
    )


def _plural(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


_ENDS = ("done", "up to date", "skipped", "failed")


def print_outcomes(request: Request, outcomes: dict[str, Outcome]) -> None:
    """Print how every DWI run ended, as a table, with totals and what to open."""
    table = Table(box=None, pad_edge=False)
    table.add_column("DWI run", overflow="fold")
    table.add_column("outcome")
    table.add_column("warnings", justify="right")
    table.add_column("", overflow="fold")
    totals: Counter[str] = Counter()
    n_warnings = 0
    for name, outcome in sorted(outcomes.items()):
        warnings: Sequence[str] = () if isinstance(outcome, Skipped) else outcome.warnings
        if isinstance(outcome, Skipped):
            word = shown = "skipped"
            text = str(outcome.error)
        elif isinstance(outcome, Failure):
            word, shown = "failed", f"failed ({outcome.exit_code})"
            text = outcome.message
        else:
            word = shown = "up to date" if outcome.reused else "done"
            result = outcome.result
            text = "" if result is None else str(result.relative_to(request.output_dir))
        count = str(len(warnings)) if warnings else ""
        table.add_row(*map(Text, (name, shown, count, text)))
        totals[word] += 1
        n_warnings += len(warnings)
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    ends = ", ".join(f"{totals[word]} {word}" for word in _ENDS if totals[word])
    print(f"\n{ends}; {_plural(n_warnings, 'warning')}")
    print(f"written to {printable(request.output_dir)}")
    for line in _next(request, outcomes):
        print(line)


def _next(request: Request, outcomes: Mapping[str, Outcome]) -> Iterator[str]:
    """Yield what to open next."""
    root = request.output_dir
    logs = [
        path
        for name, end in sorted(outcomes.items())
        if isinstance(end, Failure) and (path := root / "logs" / f"{name}.log").is_file()
    ]
    pages = [path for name in sorted(outcomes) if (path := root / f"{name}.html").is_file()]
    if logs:
        yield f"log of the failure: {_first(logs)}"
    if pages:
        yield f"report: {_first(pages)}"
    if len(pages) > 1:
        page = printable(root / "index.html")
        yield f"all runs in one page: run the group level, then open {page}"


def _first(paths: Sequence[Path]) -> str:
    """Return the first path, and how many others there are."""
    others = f" (and {len(paths) - 1} more)" if len(paths) > 1 else ""
    return f"{printable(paths[0])}{others}"

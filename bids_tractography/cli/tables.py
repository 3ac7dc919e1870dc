"""Tables on a terminal: the plan of a run, and its outcomes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bids_tractography.app.forecast import Expected, Forecast
from bids_tractography.app.local import Outcome
from bids_tractography.app.outcome import Failure, Skipped
from bids_tractography.app.request import Request
from bids_tractography.config.dump import as_yaml


def print_plan(request: Request, foreseen: Forecast) -> None:
    """Print what a run would do, and its configuration."""
    print(f"# Into {request.output_dir}; {request.n_procs} DWI run(s) at a time, ", end="")
    print(f"{request.n_threads} thread(s) each.")
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
        yield "engine", f"{job.engine}, {job.n_threads} thread(s)"
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


def print_outcomes(request: Request, outcomes: dict[str, Outcome]) -> None:
    """Print how every DWI run ended, as a table."""
    table = Table(box=None, pad_edge=False)
    table.add_column("DWI run", overflow="fold")
    table.add_column("outcome")
    table.add_column("warnings", justify="right")
    table.add_column("", overflow="fold")
    for name, outcome in sorted(outcomes.items()):
        if isinstance(outcome, Skipped):
            row = ("skipped", "", str(outcome.error))
        elif isinstance(outcome, Failure):
            row = (f"failed ({outcome.exit_code})", _count(outcome.warnings), outcome.message)
        else:
            result = outcome.result
            where = "" if result is None else str(result.relative_to(request.output_dir))
            word = "up to date" if outcome.reused else "done"
            row = (word, _count(outcome.warnings), where)
        table.add_row(*map(Text, (name, *row)))
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table)
    print(f"written to {request.output_dir}")


def _count(warnings: Sequence[str]) -> str:
    return str(len(warnings)) if warnings else ""

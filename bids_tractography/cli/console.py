"""Terminal output: the log, progress bars, the plan and the table of outcomes."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from bids_tractography.app.local import Outcome
from bids_tractography.app.outcome import Failure, Places, Skipped, attempt
from bids_tractography.app.plan import plan
from bids_tractography.app.progress import LOG_FORMAT, LOG_TIME, LogProgress
from bids_tractography.app.request import Request, Study
from bids_tractography.app.run import check_not_all_skipped, exit_code
from bids_tractography.cli.config import as_yaml
from bids_tractography.pipeline.estimate import estimate
from bids_tractography.pipeline.job import Job
from bids_tractography.pipeline.process import Progress


def set_up_logging(console: Console, verbosity: int) -> None:
    """Send the log to a terminal with colours, elsewhere as lines with time and level."""
    handler: logging.Handler
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, markup=False, highlighter=None)
        handler.setFormatter(logging.Formatter("%(message)s", datefmt=LOG_TIME))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(LOG_FORMAT, datefmt=LOG_TIME))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("bids_tractography").setLevel(logging.DEBUG if verbosity else logging.INFO)
    # Its errors are raised as well; it logs a traceback if a signal interrupts a query.
    logging.getLogger("sqlalchemy").setLevel(logging.CRITICAL)
    logging.captureWarnings(capture=True)
    # Users cannot do anything about the warnings of libraries.
    logging.getLogger("py.warnings").setLevel(logging.WARNING if verbosity else logging.ERROR)


@contextmanager
def progress_shown(console: Console) -> Iterator[Callable[[Progress], None]]:
    """Show progress as bars on a terminal, as lines in a log."""
    if not console.is_terminal:
        yield LogProgress()
        return
    bars = Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.0f} seeds/s, {task.fields[kept]} streamlines"),
        TimeRemainingColumn(),
        console=console,
    )
    tasks: dict[str, Any] = {}

    def show(progress: Progress) -> None:
        if progress.name not in tasks:
            tasks[progress.name] = bars.add_task(
                progress.name, total=progress.total, rate=0.0, kept=0
            )
        bars.update(
            tasks[progress.name],
            completed=progress.done,
            rate=progress.seeds_per_second,
            kept=progress.kept,
        )

    with bars:
        yield show


def print_plan(request: Request, study: Study) -> int:
    """Print what a run would do, and its configuration; return the exit code."""
    print(f"# Into {request.output_dir}; {request.n_procs} DWI run(s) at a time, ", end="")
    print(f"{request.n_threads} thread(s) each.")
    ends: dict[str, Outcome | Job] = {}
    for planned in plan(request, study):
        name, what = planned.name, planned.what
        ends[name] = what
        fault = _print_job(what) if isinstance(what, Job) else what
        if fault:
            ends[name] = fault
        if isinstance(fault, Failure):
            print(f"\n{name}: would fail: {fault.message}")
        elif isinstance(fault, Skipped):
            print(f"\n{name}: skipped: {fault.error}")
    print("\n# Only headers and text files were read; the run itself checks the signal.")
    print("\n# configuration")
    print(as_yaml(request.config), end="")
    check_not_all_skipped(ends)
    return exit_code({name: end for name, end in ends.items() if not isinstance(end, Job)})


def _print_job(job: Job) -> Failure | None:
    """Print the inputs of a job and its estimated costs; return why it would fail, if so."""
    lines = [(role, str(path)) for role, path in job.inputs.items()]
    if "brain_mask" not in job.inputs:
        lines.append(("brain_mask", "none found: computed from the DWI"))
    if job.config.import_tract is None:
        expected = attempt(job.name, partial(estimate, job), Places(tuple(job.inputs.values())))
        if isinstance(expected, Failure):
            return expected
        lines += [
            ("model", json.dumps(expected.model)),
            ("engine", f"{job.engine}, {job.n_threads} thread(s)"),
            ("seeds", f"about {expected.seeds}"),
            ("streamlines", f"about {expected.streamlines}"),
            ("time", f"about {expected.seconds:.0f} s ({expected.cpu_seconds:.0f} s of CPU)"),
            ("memory", f"about {expected.memory_mib:.0f} MiB"),
            ("disk", f"about {expected.disk_mib:.0f} MiB"),
            *(("warning", text) for text in expected.warnings),
        ]
    lines += [("writes", str(path)) for made in job.targets.values() for path in made.paths]
    print(f"\n{job.name}:")
    for what, text in lines:
        print(f"  {what:<12} {text}")
    return None


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
            where = outcome.tractogram.relative_to(request.output_dir)
            word = "up to date" if outcome.reused else "done"
            row = (word, _count(outcome.warnings), str(where))
        table.add_row(*map(Text, (name, *row)))
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table)
    print(f"written to {request.output_dir}")


def _count(warnings: Sequence[str]) -> str:
    return str(len(warnings)) if warnings else ""

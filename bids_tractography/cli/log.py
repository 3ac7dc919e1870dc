"""The log and the progress bars of a terminal."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from bids_tractography.app.progress import LOG_FORMAT, LOG_TIME, LogProgress
from bids_tractography.pipeline.progress import Progress


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
        TextColumn(
            "{task.fields[rate]:.0f} {task.fields[unit]}/s, {task.fields[kept]} streamlines"
        ),
        TimeRemainingColumn(),
        console=console,
    )
    tasks: dict[str, Any] = {}

    def show(progress: Progress) -> None:
        if progress.name not in tasks:
            tasks[progress.name] = bars.add_task(
                progress.name, total=progress.total, rate=0.0, kept=0, unit=progress.unit
            )
        bars.update(
            tasks[progress.name],
            completed=progress.done,
            rate=progress.per_second,
            kept=progress.kept,
        )

    with bars:
        yield show

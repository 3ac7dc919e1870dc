"""The log and the progress bars of a terminal."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from bids_tractography.app.progress import LOG_TIME, LogProgress, as_lines, name_run, time_left
from bids_tractography.pipeline.progress import Progress


def set_up_logging(console: Console, verbosity: int) -> None:
    """Send the log to a terminal with colours, elsewhere as lines with time and level.

    Parameters
    ----------
    console : Console
    verbosity : int
        0 for what users need, 1 for all messages of this program, 2 for those of libraries too.
    """
    handler: logging.Handler
    if console.is_terminal:
        handler = RichHandler(
            console=console,
            show_path=False,
            markup=False,
            highlighter=None,
            log_time_format=LOG_TIME,
        )
        handler.setFormatter(logging.Formatter("%(run)s%(message)s"))
        handler.addFilter(name_run)
    else:
        handler = as_lines(logging.StreamHandler())
    handler.setLevel(logging.DEBUG if verbosity else logging.INFO)
    level = logging.INFO if verbosity > 1 else logging.WARNING
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # All of it is written to the log of the run, whatever is shown.
    logging.getLogger("bids_tractography").setLevel(logging.DEBUG)
    # Its errors are raised as well; it logs a traceback if a signal interrupts a query.
    logging.getLogger("sqlalchemy").setLevel(logging.CRITICAL)
    logging.captureWarnings(capture=True)
    # Users cannot do anything about the warnings of libraries.
    logging.getLogger("py.warnings").setLevel(logging.WARNING if verbosity else logging.ERROR)


@contextmanager
def progress_shown(console: Console, n_participants: int) -> Iterator[Callable[[Progress], None]]:
    """Show progress as bars on a terminal, as lines in a log.

    Parameters
    ----------
    console : Console
    n_participants : int
    """
    if not console.is_terminal:
        with LogProgress() as lines:
            yield lines
        return
    bars = Bars(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[text]}", markup=False),
        TimeElapsedColumn(),
        console=console,
    )
    with bars:
        yield RunBars(bars, n_participants)


class RunBars:
    """One bar for all runs, and one for each run at work, which goes when the run has ended."""

    def __init__(self, bars: Bars, n_participants: int) -> None:
        self._bars = bars
        self._n_participants = n_participants
        self._total = bars.add_task("all runs", total=n_participants, text="looking for DWI runs")
        self._at_work: dict[str, TaskID] = {}
        self._seen: set[str] = set()
        self._lock = threading.Lock()  # runs report from threads of their own

    def __call__(self, progress: Progress) -> None:
        """Show what a run does."""
        with self._lock:
            self._seen.add(progress.name)
            if not progress.stage:
                if progress.name in self._at_work:
                    self._bars.remove_task(self._at_work.pop(progress.name))
                self._bars.advance(self._total)
            else:
                self._show(progress)
            self._count()

    def _show(self, progress: Progress) -> None:
        if progress.name not in self._at_work:
            self._at_work[progress.name] = self._bars.add_task(progress.name, total=None, text="")
        text, total = progress.stage, None
        if progress.total:
            text = (
                f"{progress.per_second:,.0f} {progress.unit}/s, {progress.kept:,} streamlines, "
                f"{time_left(progress)} left"
            )
            total = progress.total
        task = self._at_work[progress.name]
        if total is None:  # the bar pulses
            self._bars.reset(task, start=True, total=None, text=text)
        else:
            self._bars.update(task, total=total, completed=progress.done, text=text)

    def _count(self) -> None:
        """Count the runs that are known, and one for each participant that has not been reached."""
        participants = {name.split("_")[0] for name in self._seen}
        total = len(self._seen) + max(self._n_participants - len(participants), 0)
        ended = len(self._seen) - len(self._at_work)
        about = "" if len(participants) >= self._n_participants else "about "
        self._bars.update(self._total, total=total, text=f"{ended} of {about}{total} ended")

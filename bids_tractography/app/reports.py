"""Pages of runs: made when a run has ended, or again from what is there."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from bids_tractography.app.outcome import Failure, Places, Skipped, attempt
from bids_tractography.errors import BusyError, NoInputError
from bids_tractography.outputs.locks import exclusive
from bids_tractography.pipeline.process import Done
from bids_tractography.report.data import RunFailure, find_runs
from bids_tractography.report.run import write_run_report

logger = logging.getLogger(__name__)


def report_run(root: Path, name: str, outcome: Done | Failure | Skipped, n_threads: int) -> None:
    """Make the page of a run that has ended.

    A page that cannot be made is a warning: it changes nothing of how the run ended.

    Parameters
    ----------
    root : Path
        The derivative dataset.
    name : str
        Of the run.
    outcome : Done, Failure or Skipped
        How it ended; nothing is made of one that was skipped.
    n_threads : int
    """
    if isinstance(outcome, Skipped):
        return
    failure = None
    if isinstance(outcome, Failure):
        if outcome.exit_code == BusyError.exit_code and not outcome.checks:
            return  # as when another process is at work on the run, and makes its page
        failure = RunFailure(
            outcome.message, outcome.exit_code, outcome.warnings, dict(outcome.checks)
        )
    reused = isinstance(outcome, Done) and outcome.reused
    _write(root, name, failure, n_threads, only_if_changed=reused)


def remake_reports(root: Path, participants: Iterable[str], n_threads: int) -> list[Path]:
    """Make the pages of all runs again from their derivatives, computing nothing.

    Parameters
    ----------
    root : Path
        The derivative dataset.
    participants : iterable of str
        Labels, with or without ``sub-``; empty for all.
    n_threads : int

    Returns
    -------
    list of Path

    Raises
    ------
    NoInputError
        If there is no run.
    """
    wanted = {label.removeprefix("sub-") for label in participants}
    runs = find_runs(root)
    if wanted:
        runs = {n: f for n, f in runs.items() if n.split("_")[0].removeprefix("sub-") in wanted}
    if not runs:
        raise NoInputError(
            f"{root} has no run to report.", "Run the participant level without --reports-only."
        )
    made = (_write(root, name, failure, n_threads) for name, failure in runs.items())
    return [path for path in made if path is not None]


def _write(
    root: Path,
    name: str,
    failure: RunFailure | None,
    n_threads: int,
    *,
    only_if_changed: bool = False,
) -> Path | None:
    """Write a page while nobody else works on its run."""

    def write() -> Path | None:
        with exclusive(root, name):
            return write_run_report(
                root, name, failure, n_threads=n_threads, only_if_changed=only_if_changed
            )

    made = attempt(name, partial(write), Places((root,), (root,)))
    if isinstance(made, Failure):
        logger.warning("%s: there is no report: %s", name, made.message)
        return None
    return made

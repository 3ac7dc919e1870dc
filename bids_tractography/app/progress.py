"""What happens while it happens: the log of each run, and progress as lines of the log."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from bids_tractography import __version__
from bids_tractography.pipeline.progress import Progress

logger = logging.getLogger(__name__)

LOG_TIME = "%H:%M:%S"
_LOG_FORMAT = "%(asctime)s %(levelname)s %(run)s%(message)s"
_PACKAGE = "bids_tractography"

_FIRST_WAIT, _LONGEST_WAIT = 10.0, 60.0  # seconds without a line about a run

_run: ContextVar[str] = ContextVar("run", default="")


def name_run(record: logging.LogRecord) -> bool:
    """Add the name of the run to a record, as a filter of a handler.

    It is empty outside of any run, and where the message begins with it already.
    """
    if not hasattr(record, "run"):  # as it came from another process
        run = _run.get()
        record.run = f"{run}: " if run and not record.getMessage().startswith(run) else ""
    return True


def as_lines(handler: logging.Handler) -> logging.Handler:
    """Let a handler write lines with time, level and run; return it."""
    handler.setFormatter(logging.Formatter(_LOG_FORMAT, datefmt=LOG_TIME))
    handler.addFilter(name_run)
    return handler


@contextmanager
def logged(name: str, folder: Path) -> Iterator[None]:
    """Name a run in all lines of the log, and append them to a file of its own.

    The file has all messages, regardless of how many are shown. If it cannot be written, there is
    a warning.

    Parameters
    ----------
    name : str
        Name of the run, e.g. "sub-01_dir-AP".
    folder : Path
        Where the file is created.
    """
    token = _run.set(name)
    package = logging.getLogger(_PACKAGE)
    handler: logging.Handler | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handler = as_lines(logging.FileHandler(folder / f"{name}.log", encoding="utf-8"))
        package.addHandler(handler)
        now = time.strftime("%Y-%m-%d %H:%M:%S %z")
        logger.debug("bids-tractography %s begins at %s.", __version__, now)
    except OSError as error:
        logger.warning("The log of this run cannot be written: %s.", error)
    try:
        yield
    finally:
        _run.reset(token)
        if handler is not None:
            package.removeHandler(handler)
            with suppress(OSError):  # the disk may be full
                handler.close()


@dataclass
class _State:
    """What is known of a run at work."""

    stage: str
    since: float
    logged_at: float
    wait: float = _FIRST_WAIT
    tenth: int = -1


class LogProgress:
    """Progress as lines of the log: at each tenth of the seeds, and when a run is silent.

    As a context manager, it reports that runs are still at work after ten seconds of silence, then
    after twenty and so on, and at last once a minute.
    """

    def __init__(self) -> None:
        self._runs: dict[str, _State] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __call__(self, progress: Progress) -> None:
        """Note what a run does; log each tenth of the seeds."""
        now = time.monotonic()
        with self._lock:
            if not progress.stage:
                self._runs.pop(progress.name, None)
                return
            state = self._runs.get(progress.name)
            if state is None or state.stage != progress.stage:
                state = self._runs[progress.name] = _State(progress.stage, now, now)
            if progress.total == 0:
                return
            tenth = 10 * progress.done // progress.total
            if tenth > state.tenth or now - state.logged_at >= _LONGEST_WAIT:
                state.tenth, state.logged_at = tenth, now
                logger.info("%s", describe(progress))

    def __enter__(self) -> LogProgress:
        """Begin to watch for silence."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End watching."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(1):
            self.report_silence(time.monotonic())

    def report_silence(self, now: float) -> None:
        """Log what runs do that have been silent for long; `now` is in seconds."""
        with self._lock:
            for name, state in self._runs.items():
                if now - state.logged_at >= state.wait:
                    state.logged_at, state.wait = now, min(2 * state.wait, _LONGEST_WAIT)
                    logger.info("%s: %s, for %s.", name, state.stage, _clock(now - state.since))


def describe(progress: Progress) -> str:
    """Describe how much is done, how fast, and how long the rest will take."""
    share = progress.done / max(progress.total, 1)
    return (
        f"{progress.name}: {share:.0%} of {progress.total} {progress.unit}, "
        f"{progress.kept} streamlines, "
        f"{progress.per_second:.0f} {progress.unit}/s, {time_left(progress)} left"
    )


def time_left(progress: Progress) -> str:
    """Return how long the rest of the tracking will take, as minutes and seconds."""
    return _clock((progress.total - progress.done) / max(progress.per_second, 1e-9))


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"

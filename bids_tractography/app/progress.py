"""Progress of tracking as lines of the log."""

from __future__ import annotations

import logging
import time

from bids_tractography.pipeline.progress import Progress

logger = logging.getLogger(__name__)


LOG_FORMAT, LOG_TIME = "%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"
_LOG_SECONDS = 60


class LogProgress:
    """Progress as lines of the log: at each tenth of the seeds, and once a minute."""

    def __init__(self) -> None:
        self._tenth: dict[str, int] = {}
        self._logged_at = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        """Log the progress at each tenth of the seeds, and once a minute."""
        tenth = 10 * progress.done // max(progress.total, 1)
        minute = time.monotonic() - self._logged_at > _LOG_SECONDS
        if minute or tenth > self._tenth.get(progress.name, -1):
            self._tenth[progress.name] = tenth
            self._logged_at = time.monotonic()
            logger.info("%s", describe(progress))


def describe(progress: Progress) -> str:
    """Describe how much is done, how fast, and how long the rest will take."""
    share = progress.done / max(progress.total, 1)
    left = (progress.total - progress.done) / max(progress.per_second, 1e-9)
    return (
        f"{progress.name}: {share:.0%} of {progress.total} {progress.unit}, "
        f"{progress.kept} streamlines, "
        f"{progress.per_second:.0f} {progress.unit}/s, {int(left // 60)}:{int(left % 60):02d} left"
    )

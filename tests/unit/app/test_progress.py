"""What happens while it happens: names of runs in the log, a log of each run, and silence."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bids_tractography.app.progress import LogProgress, as_lines, logged
from bids_tractography.pipeline.progress import Progress

logger = logging.getLogger("bids_tractography.some.module")


class Lines(logging.Handler):
    """Keeps lines as they would be written."""

    def __init__(self) -> None:
        super().__init__()
        as_lines(self)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record).partition(" ")[2])


@pytest.fixture
def lines() -> Iterator[list[str]]:
    handler = Lines()
    package = logging.getLogger("bids_tractography")
    package.setLevel(logging.DEBUG)
    package.addHandler(handler)
    yield handler.lines
    package.removeHandler(handler)


def test_every_line_of_a_run_carries_its_name_once(lines: list[str], tmp_path: Path) -> None:
    logger.info("before")
    with logged("sub-01_run-1", tmp_path / "logs"):
        logger.info("writing %s", "x")
        logger.warning("sub-01_run-1: named already")
    logger.info("after")
    shown = [line for line in lines if "begins at" not in line]
    assert shown == [
        "INFO before",
        "INFO sub-01_run-1: writing x",
        "WARNING sub-01_run-1: named already",
        "INFO after",
    ]


def test_the_log_of_a_run_has_its_lines_and_no_others_and_grows(tmp_path: Path) -> None:
    for number in (1, 2):
        with logged("sub-01", tmp_path):
            logger.debug("detail %d", number)
        logger.warning("of another")
    content = (tmp_path / "sub-01.log").read_text()
    assert content.count("begins at") == 2
    assert "DEBUG sub-01: detail 1" in content
    assert "DEBUG sub-01: detail 2" in content
    assert "of another" not in content


def test_a_log_that_cannot_be_written_is_a_warning(lines: list[str], tmp_path: Path) -> None:
    (tmp_path / "logs").touch()
    with logged("sub-01", tmp_path / "logs"):
        logger.info("still done")
    assert any("log of this run cannot be written" in line for line in lines)
    assert "INFO sub-01: still done" in lines


def test_a_run_that_is_silent_is_reported_after_10_20_40_and_then_each_60_seconds(
    lines: list[str],
) -> None:
    progress = LogProgress()
    progress(Progress("sub-01", stage="fitting"))
    began = time.monotonic()
    reported = []
    for second in range(1, 250):
        before = len(lines)
        progress.report_silence(began + second)
        if len(lines) > before:
            reported.append(second)
    assert reported == [10, 30, 70, 130, 190]
    assert lines[0] == "INFO sub-01: fitting, for 0:10."
    progress(Progress("sub-01", stage=""))
    progress.report_silence(began + 1000)
    assert len(lines) == len(reported)


def test_each_tenth_of_the_seeds_is_a_line(lines: list[str]) -> None:
    progress = LogProgress()
    for done in range(0, 1001, 10):
        progress(Progress("sub-01", done, 1000, done // 2, 100.0))
    assert len(lines) == 11
    assert lines[5] == "INFO sub-01: 50% of 1000 seeds, 250 streamlines, 100 seeds/s, 0:05 left"

"""Runs at a time are limited by their number and by the memory that they are estimated to take."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from bids_tractography.app import local
from bids_tractography.errors import GridError


def run(
    monkeypatch: pytest.MonkeyPatch, needed: list[float], n_procs: int, limit: float | None
) -> tuple[list[int], int]:
    """Run jobs that need so much; return in which order they ended, and the most at a time."""
    at_work: set[int] = set()
    most = 0

    def apart(job: Any, _report: object = None) -> int:
        nonlocal most
        at_work.add(job.number)
        most = max(most, len(at_work))
        event.wait(0.05)
        assert limit is None or len(at_work) == 1 or sum(needed[n] for n in at_work) <= limit
        at_work.discard(job.number)
        return int(job.number)

    def estimate(job: Any) -> float:
        if needed[job.number] < 0:
            raise GridError("not an image")
        return float(needed[job.number])

    event = threading.Event()
    monkeypatch.setattr(local, "_run_apart", apart)
    monkeypatch.setattr(local, "run_job", lambda job, _report: apart(job))
    monkeypatch.setattr(local, "estimate_memory_mib", estimate)

    def jobs() -> Iterator[Any]:
        for number in range(len(needed)):
            yield SimpleNamespace(name=f"sub-{number}", number=number)

    ended = local.run_jobs(jobs(), n_procs, lambda _: None, limit)
    return [int(outcome) for _, outcome in ended], most  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("needed", "n_procs", "limit", "most"),
    [
        ([10, 10, 10, 10], 4, None, 4),
        ([10, 10, 10, 10], 4, 40, 4),
        ([10, 10, 10, 10], 4, 25, 2),
        ([10, 10, 10, 10], 4, 9, 1),
        ([10, 10, 10, 10], 1, 100, 1),
        ([10], 4, 100, 1),
        ([], 4, 100, 0),
    ],
)
def test_as_many_runs_at_a_time_as_fit(
    monkeypatch: pytest.MonkeyPatch,
    needed: list[float],
    n_procs: int,
    limit: float | None,
    most: int,
) -> None:
    ended, at_a_time = run(monkeypatch, needed, n_procs, limit)
    assert sorted(ended) == list(range(len(needed)))
    assert at_a_time == most


def test_a_run_that_does_not_fit_at_all_runs_alone_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        ended, most = run(monkeypatch, [50, 10, 10], 3, 30)
    assert sorted(ended) == [0, 1, 2]
    assert most == 2
    (record,) = caplog.records
    assert record.getMessage() == (
        "sub-0 needs about 50 MiB of memory, but there are 30 MiB (--mem). It may be killed."
    )


def test_a_run_that_cannot_be_estimated_is_left_to_fail_by_itself(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert sorted(run(monkeypatch, [-1, 10], 2, 30)[0]) == [0, 1]
    assert not caplog.records

"""Handling of SIGINT and SIGTERM; imports little, so that handlers are installed at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

INTERRUPTED, TERMINATED = 130, 143  # exit codes by convention of the shell

_NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """The process received a signal to end.

    Parameters
    ----------
    exit_code : int
        128 plus the number of the signal.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def end_at_once() -> None:
    """End the process immediately on SIGINT and SIGTERM, while there is nothing to clean up."""
    _handle(_exit)


def ignore() -> None:
    """Ignore SIGINT and SIGTERM while the interpreter exits, because the exit code is decided.

    The interpreter removes Python handlers before it ends, so a signal would still kill it.
    """
    for number in _NUMBERS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def unwinding() -> Iterator[None]:
    """Raise `Stopped` on the first SIGINT or SIGTERM; end the process on the second."""
    before = {number: signal.getsignal(number) for number in _NUMBERS}
    _handle(_raise)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _handle(handler: Callable[[int, FrameType | None], NoReturn]) -> None:
    for number in _NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup and background jobs ignore them
            signal.signal(number, handler)


def _exit(number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(128 + number)


def _raise(number: int, _frame: FrameType | None) -> NoReturn:
    end_at_once()
    raise Stopped(128 + number)

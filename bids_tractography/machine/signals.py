"""How the program ends when it is asked to; imports next to nothing, to be ready at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

INTERRUPTED, TERMINATED = 130, 143  # as shells report them

_NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """The process was asked to end.

    Parameters
    ----------
    exit_code : int
        128 and the number of the signal.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def end_at_once() -> None:
    """End the process without a word on SIGINT and SIGTERM: there is nothing to clean up."""
    _handle(_exit)


def ignore() -> None:
    """Ignore SIGINT and SIGTERM: the exit code is decided, and the interpreter is on its way out.

    It gives other handlers up before it ends, so that a signal would still kill it.
    """
    for number in _NUMBERS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def unwinding() -> Iterator[None]:
    """Raise `Stopped` on the first SIGINT or SIGTERM, and end the process on the second."""
    before = {number: signal.getsignal(number) for number in _NUMBERS}
    _handle(_raise)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _handle(handler: Callable[[int, FrameType | None], NoReturn]) -> None:
    for number in _NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and background jobs have it
            signal.signal(number, handler)


def _exit(number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(128 + number)


def _raise(number: int, _frame: FrameType | None) -> NoReturn:
    end_at_once()
    raise Stopped(128 + number)

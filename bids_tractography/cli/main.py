"""Parse the command line, and execute the command; what takes time is imported only for it."""

from __future__ import annotations

import argparse
import importlib
import io
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from bids_tractography import __version__
from bids_tractography.app.outcome import Failure, Places, attempt
from bids_tractography.cli.dialect import add_dialect, answers
from bids_tractography.cli.parser import COMMANDS, build_parser
from bids_tractography.errors import UsageError
from bids_tractography.machine import signals


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    logging.raiseExceptions = False  # a log that cannot be written must not end the program
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may be any bytes
    try:
        with signals.unwinding():
            return _run(partial(_execute, words))
    except signals.Stopped as stopped:
        return _stopped(stopped.exit_code)
    except KeyboardInterrupt:  # raised by a library that has its own handler
        return _stopped(signals.INTERRUPTED)
    except BrokenPipeError:
        return 0


def _execute(words: list[str]) -> int:
    """Execute the command that the first word names, or else the BIDS App."""
    first = words[0] if words else ""
    if first in COMMANDS:
        command = COMMANDS[first]
        return _execute_in(command.module, command.parser().parse_args(words[1:]))
    if first == "version":
        print(f"bids-tractography {__version__}")
        return 0
    if first == "help":
        return _help(words[1:])
    return _execute_in("bids_tractography.cli.levels", _parse_app(words))


def _execute_in(module: str, options: argparse.Namespace) -> int:
    exit_code: int = importlib.import_module(module).execute(options)
    return exit_code


def _help(words: list[str]) -> int:
    command = COMMANDS.get(words[0]) if words else None
    print((command.parser() if command else build_parser()).format_help(), end="")
    return 0


def _parse_app(words: list[str]) -> argparse.Namespace:
    """Parse the options of the BIDS App, and answer those of other programs."""
    parser = build_parser()
    add_dialect(parser)
    options = parser.parse_args(words)
    replaced, options.ignored = answers(vars(options).pop("foreign", None) or [])
    if replaced:
        lines = "".join(f"\n  {line}" for line in replaced)
        message = f"bids-tractography: error: options of other programs:{lines}\n"
        parser.exit(UsageError.exit_code, message)
    return options


def _run(command: Callable[[], int]) -> int:
    """Run a command; report an error that ends it."""
    ended = attempt("bids-tractography", command, Places())
    if isinstance(ended, Failure):
        print(f"bids-tractography: error: {ended.message}", file=sys.stderr)
        return ended.exit_code
    return ended


def _stopped(exit_code: int) -> int:
    if exit_code == signals.INTERRUPTED:
        with suppress(OSError):
            print(
                "bids-tractography: interrupted; rerun the same command to resume.", file=sys.stderr
            )
    return exit_code

"""``bids-tractography`` and ``python -m bids_tractography``."""

import sys

from bids_tractography.machine import signals


def main() -> int:
    """Run the command line, with a home folder even for users unknown to the system.

    Containers may run as a user without an account or ``HOME``, but libraries look for a home
    folder when they are imported.
    """
    signals.end_at_once()  # importing takes seconds
    _provide_home()
    from bids_tractography.cli.main import main as run_command_line

    exit_code = run_command_line()
    _flush()
    signals.ignore()
    return exit_code


def _provide_home() -> None:
    import os
    import pwd
    import tempfile

    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        try:
            os.environ.setdefault("HOME", tempfile.gettempdir())
        except OSError:  # no directory can be written
            os.environ.setdefault("HOME", "/")


def _flush() -> None:
    """Flush standard output; the interpreter would report an error if that is impossible."""
    import os

    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    sys.exit(main())

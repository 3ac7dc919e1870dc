"""Parse the command line, and run the command."""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from rich.console import Console

from bids_tractography.app.doctor import examine
from bids_tractography.app.forecast import Forecast, as_json, forecast
from bids_tractography.app.group import write_group_table
from bids_tractography.app.local import Outcome
from bids_tractography.app.outcome import Failure, Places, attempt
from bids_tractography.app.reports import remake_reports
from bids_tractography.app.request import Request, open_study
from bids_tractography.app.run import exit_code, run
from bids_tractography.cli.config import config_command
from bids_tractography.cli.console import print_outcomes, print_plan, progress_shown, set_up_logging
from bids_tractography.cli.convert import convert_command
from bids_tractography.cli.parser import LEVELS, STOP_AFTER, Parser, build_parser
from bids_tractography.cli.reproduce import reproduce_command
from bids_tractography.config.load import load_config
from bids_tractography.errors import TractographyError, UnknownLevelError, UsageError
from bids_tractography.inputs import read_filters
from bids_tractography.machine import signals
from bids_tractography.machine.container import describe_container
from bids_tractography.machine.cpus import count_cpus
from bids_tractography.machine.files import exists, printable, resolve
from bids_tractography.phantom import write_phantom

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    commands = {
        "config": config_command,
        "convert": convert_command,
        "phantom": _phantom_command,
        "doctor": _doctor_command,
        "reproduce": reproduce_command,
    }
    command = commands.get(words[0]) if words else None
    logging.raiseExceptions = False  # a log that cannot be written must not end the program
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may be any bytes
    try:
        with signals.unwinding():
            return _run(partial(command, words[1:]) if command else partial(_bids_app, words))
    except signals.Stopped as stopped:
        return _stopped(stopped.exit_code)
    except KeyboardInterrupt:  # raised by a library that has its own handler
        return _stopped(signals.INTERRUPTED)
    except BrokenPipeError:
        return 0


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


def _bids_app(words: list[str]) -> int:
    options = build_parser().parse_args(words)
    if options.analysis_level not in LEVELS:
        raise UnknownLevelError(
            f"unknown analysis level '{options.analysis_level}'.", f"Levels: {', '.join(LEVELS)}."
        )
    console = Console(stderr=True)
    set_up_logging(console, options.verbose)
    if options.analysis_level == "group":
        _refuse_participant_options(options)
        path, n_rows = write_group_table(
            options.output_dir.absolute(),
            read_files=options.verify_files,
            bids_dir=options.bids_dir.absolute(),
            report=not options.no_report,
        )
        print(f"{path}: {n_rows} tractograms")
        if not options.no_report:
            print(path.with_name("index.html"))
        return 0
    if options.verify_files:
        raise UsageError(
            "--verify-files is for the group level; the participant level always does."
        )
    if options.reports_only:
        n_threads = options.omp_nthreads or count_cpus(os.environ)
        pages = remake_reports(resolve(options.output_dir), options.participant_label, n_threads)
        print("\n".join(map(printable, pages)))
        return 0
    if options.json and not options.dry_run:
        raise UsageError("--json goes with --dry-run.")
    request = _request(options)
    if options.dry_run:
        return _dry_run(request, options.json)
    study = open_study(request)
    outcomes: dict[str, Outcome] = {}
    with progress_shown(console) as report:
        for name, outcome in run(request, study, report):
            outcomes[name] = outcome
            if isinstance(outcome, Failure):
                logger.error("%s: %s", name, outcome.message)
    if sys.stdout is not None:
        with suppress(OSError):  # a full or closed standard output does not undo what is done
            print_outcomes(request, outcomes)
    return exit_code(outcomes)


def _dry_run(request: Request, json_only: bool) -> int:
    """Print what a run would do; return the exit code that it would have."""
    try:
        foreseen = forecast(request, open_study(request))
    except TractographyError as error:
        if not json_only:
            raise
        foreseen = Forecast([], error, error.exit_code)
    if json_only:
        print(json.dumps(as_json(request, foreseen), indent=2))
    else:
        print_plan(request, foreseen)
    if foreseen.fault:
        raise foreseen.fault
    return foreseen.exit_code


def _refuse_participant_options(options: argparse.Namespace) -> None:
    """Refuse options that the group level would ignore."""
    unused = build_parser().parse_args(["in", "out", "group"])
    kept = ("bids_dir", "output_dir", "verify_files", "verbose", "no_report")
    given = [
        f"--{name.replace('_', '-')}"
        for name, value in vars(options).items()
        if name not in kept and value != getattr(unused, name)
    ]
    if given:
        raise UsageError(f"the group level does not accept {', '.join(given)}.")


def _request(options: argparse.Namespace) -> Request:
    output = resolve(options.output_dir)
    if options.ray_address and options.executor != "ray":
        raise UsageError("--ray-address goes with --executor ray.")
    named = [] if options.name is None else [f"output.name={json.dumps(options.name)}"]
    return Request(
        bids_dir=resolve(options.bids_dir),
        output_dir=output,
        work_dir=resolve(options.work_dir or output / ".work"),
        config=load_config(options.config, [*options.set, *named]),
        participants=tuple(options.participant_label),
        sessions=tuple(options.session_label),
        filters=read_filters(options.bids_filter_file) if options.bids_filter_file else {},
        derivatives=tuple(_named_path(text) for text in options.derivatives),
        n_procs=options.n_procs,
        n_threads=options.omp_nthreads or max(1, count_cpus(os.environ) // options.n_procs),
        check_dataset=not options.skip_bids_validation,
        database=options.bids_database_dir,
        fresh=options.fresh,
        overwrite=options.overwrite,
        last_stage=STOP_AFTER[options.stop_after],
        container=describe_container(os.environ, Path(sys.prefix)),
        executor=options.executor,
        ray_address=options.ray_address,
        report=not options.no_report,
    )


def _named_path(text: str) -> tuple[str | None, Path]:
    name, separator, path = text.partition("=")
    if separator and not exists(Path(text)):
        return name, resolve(Path(path))
    return None, resolve(Path(text))


def _doctor_command(words: list[str]) -> int:
    parser = Parser(
        prog="bids-tractography doctor",
        description="Report what this machine can do, and track a small phantom on every engine.",
        allow_abbrev=False,
    )
    parser.parse_args(words)
    marks = {True: "ok", False: "FAILED", None: ""}
    healthy = True
    for finding in examine(count_cpus(os.environ)):
        print(f"{finding.subject:<22} {marks[finding.healthy]:<7} {finding.text}", flush=True)
        healthy &= finding.healthy is not False
    return 0 if healthy else 1


def _phantom_command(words: list[str]) -> int:
    parser = Parser(
        prog="bids-tractography phantom",
        description="Write a small BIDS dataset of a head with known bundles.",
        allow_abbrev=False,
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--rng-seed", type=int, default=0, help="seed of the noise (default: 0)")
    options = parser.parse_args(words)
    print(write_phantom(options.directory, rng_seed=options.rng_seed))
    return 0

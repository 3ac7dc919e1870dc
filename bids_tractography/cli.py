"""The command line: the only place that prints, reads the environment, and sets up logging."""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import yaml
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as Bars,
)
from rich.table import Table
from rich.text import Text

from bids_tractography import __version__, signals
from bids_tractography.app import (
    Request,
    Study,
    check_not_all_skipped,
    exit_code,
    open_study,
    plan,
    run,
)
from bids_tractography.config import Config
from bids_tractography.config.load import load_config, translate_config
from bids_tractography.container import describe_container
from bids_tractography.cpus import count_cpus
from bids_tractography.doctor import examine
from bids_tractography.errors import UnknownLevelError, UsageError
from bids_tractography.estimate import estimate
from bids_tractography.executor import LOG_FORMAT, LOG_TIME, LogProgress, Outcome
from bids_tractography.files import exists, resolve
from bids_tractography.group import write_group_table
from bids_tractography.inputs import read_filters
from bids_tractography.job import Job
from bids_tractography.outcomes import Failure, Places, Skipped, attempt
from bids_tractography.phantom import write_phantom
from bids_tractography.pipeline import Progress
from bids_tractography.tracking import choose_engine

_LEVELS = ("participant", "group")

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    commands = {
        "config": _config_command,
        "phantom": _phantom_command,
        "doctor": _doctor_command,
    }
    command = commands.get(words[0]) if words else None
    logging.raiseExceptions = False  # a log that cannot be written stops nothing
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be any bytes
    try:
        with signals.unwinding():
            return _run(partial(command, words[1:]) if command else partial(_bids_app, words))
    except signals.Stopped as stopped:
        return _stopped(stopped.exit_code)
    except KeyboardInterrupt:  # from a library that has a handler of its own
        return _stopped(signals.INTERRUPTED)
    except BrokenPipeError:
        return 0


def _run(command: Callable[[], int]) -> int:
    """Run a command; report what goes wrong as a whole."""
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


class _Parser(argparse.ArgumentParser):
    """Argparse with the exit code of ``sysexits.h``."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(UsageError.exit_code, f"bids-tractography: error: {message}\n")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the BIDS App's command line."""
    parser = _Parser(
        prog="bids-tractography",
        description="Whole-brain tractography of BIDS datasets, raw or preprocessed.",
        epilog="Other commands: 'bids-tractography config show|schema|check|translate' about the "
        "configuration, 'bids-tractography phantom DIR' for a small dataset to try it on, "
        "'bids-tractography doctor' for what this machine can do.",
        allow_abbrev=False,
    )
    parser.add_argument("bids_dir", type=Path, help="BIDS dataset, raw or derivative")
    parser.add_argument("output_dir", type=Path, help="derivative dataset to write")
    parser.add_argument("analysis_level", help="participant or group")
    which = parser.add_argument_group("what to process")
    which.add_argument(
        "--participant-label",
        "--participant_label",
        nargs="+",
        default=[],
        metavar="LABEL",
        help="participants, with or without 'sub-' (default: all)",
    )
    which.add_argument(
        "--session-label",
        "--session_label",
        "--session-id",
        "--session_id",
        nargs="+",
        default=[],
        metavar="LABEL",
        help="sessions, with or without 'ses-' (default: all)",
    )
    which.add_argument(
        "--bids-filter-file",
        type=Path,
        metavar="FILE",
        help="JSON of pybids filters for the queries 'dwi' and 'brain_mask'; null means that the "
        "entity is absent, '*' that it has any value",
    )
    which.add_argument(
        "-d",
        "--derivatives",
        nargs="+",
        default=[],
        metavar="[NAME=]PATH",
        help="derivative datasets of the same participants: preprocessed DWI, masks",
    )
    how = parser.add_argument_group("how to process")
    how.add_argument(
        "--config", type=Path, metavar="FILE", help="configuration: YAML, TOML or JSON"
    )
    how.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key, e.g. tracking.algorithm.step_size_mm=0.25; may be repeated",
    )
    state = how.add_mutually_exclusive_group()
    state.add_argument(
        "--resume",
        action="store_true",
        help="keep finished work that inputs, configuration and version still match (default)",
    )
    state.add_argument("--fresh", action="store_true", help="do everything again")
    how.add_argument("--dry-run", action="store_true", help="print what would be done, and stop")
    how.add_argument(
        "--skip-bids-validation",
        "--skip_bids_validation",
        action="store_true",
        help="accept a folder without a valid dataset_description.json",
    )
    how.add_argument(
        "--bids-database-dir",
        type=Path,
        metavar="DIR",
        help="keep pybids' index of each participant here for later runs",
    )
    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "-w",
        "--work-dir",
        type=Path,
        metavar="DIR",
        help="where unfinished work is kept (default: OUTPUT_DIR/.work)",
    )
    machine.add_argument(
        "--n-procs",
        "--nprocs",
        type=_positive,
        default=1,
        metavar="N",
        help="DWI runs at a time (default: 1)",
    )
    machine.add_argument(
        "--omp-nthreads",
        type=_positive,
        metavar="N",
        help="threads of each (default: the CPUs of this process, shared out)",
    )
    machine.add_argument(
        "--executor",
        choices=("local", "ray"),
        default="local",
        help="where to run: processes of this machine, or a Ray cluster, which takes the batches "
        "inside a run too (default: local)",
    )
    machine.add_argument(
        "--ray-address",
        metavar="HOST:PORT",
        help="a running Ray cluster, or 'auto' (default: one is started on this machine)",
    )
    parser.add_argument(
        "--verify-files",
        action="store_true",
        help="group level: compare the SHA-256 of every tractogram with its sidecar, not only its "
        "size (reads all of them)",
    )
    parser.add_argument("-v", "--verbose", action="count", default=0, help="more of the log")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("a number from 1 is needed")
    return number


def _bids_app(words: list[str]) -> int:
    options = build_parser().parse_args(words)
    if options.analysis_level not in _LEVELS:
        raise UnknownLevelError(
            f"unknown analysis level '{options.analysis_level}'.", f"Levels: {', '.join(_LEVELS)}."
        )
    console = Console(stderr=True)
    _set_up_logging(console, options.verbose)
    if options.analysis_level == "group":
        _refuse_participant_options(options)
        path, n_rows = write_group_table(
            options.output_dir.absolute(), read_files=options.verify_files
        )
        print(f"{path}: {n_rows} tractograms")
        return 0
    if options.verify_files:
        raise UsageError(
            "--verify-files is for the group level; the participant level always does."
        )
    request = _request(options)
    study = open_study(request)
    if options.dry_run:
        return _print_plan(request, study)
    outcomes: dict[str, Outcome] = {}
    with _progress(console) as report:
        for name, outcome in run(request, study, report):
            outcomes[name] = outcome
            if isinstance(outcome, Failure):
                logger.error("%s: %s", name, outcome.message)
    if sys.stdout is not None:
        with suppress(OSError):  # a full or closed standard output does not undo what is done
            _print_outcomes(request, outcomes)
    return exit_code(outcomes)


def _refuse_participant_options(options: argparse.Namespace) -> None:
    """Refuse what the group level would ignore."""
    unused = build_parser().parse_args(["in", "out", "group"])
    kept = ("bids_dir", "output_dir", "verify_files", "verbose")
    given = [
        f"--{name.replace('_', '-')}"
        for name, value in vars(options).items()
        if name not in kept and value != getattr(unused, name)
    ]
    if given:
        raise UsageError(f"the group level has no use for {', '.join(given)}.")


def _request(options: argparse.Namespace) -> Request:
    output = resolve(options.output_dir)
    if options.ray_address and options.executor != "ray":
        raise UsageError("--ray-address goes with --executor ray.")
    return Request(
        bids_dir=resolve(options.bids_dir),
        output_dir=output,
        work_dir=resolve(options.work_dir or output / ".work"),
        config=load_config(options.config, options.set),
        participants=tuple(options.participant_label),
        sessions=tuple(options.session_label),
        filters=read_filters(options.bids_filter_file) if options.bids_filter_file else {},
        derivatives=tuple(_named_path(text) for text in options.derivatives),
        n_procs=options.n_procs,
        n_threads=options.omp_nthreads or max(1, count_cpus(os.environ) // options.n_procs),
        check_dataset=not options.skip_bids_validation,
        database=options.bids_database_dir,
        fresh=options.fresh,
        container=describe_container(os.environ, Path(sys.prefix)),
        executor=options.executor,
        ray_address=options.ray_address,
    )


def _named_path(text: str) -> tuple[str | None, Path]:
    name, separator, path = text.partition("=")
    if separator and not exists(Path(text)):
        return name, resolve(Path(path))
    return None, resolve(Path(text))


def _set_up_logging(console: Console, verbosity: int) -> None:
    handler: logging.Handler
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, markup=False, highlighter=None)
        handler.setFormatter(logging.Formatter("%(message)s", datefmt=LOG_TIME))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(LOG_FORMAT, datefmt=LOG_TIME))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("bids_tractography").setLevel(logging.DEBUG if verbosity else logging.INFO)
    # Its errors are raised, too; it logs a traceback when a signal interrupts a query.
    logging.getLogger("sqlalchemy").setLevel(logging.CRITICAL)
    logging.captureWarnings(capture=True)
    # Libraries warn of what users can do nothing about.
    logging.getLogger("py.warnings").setLevel(logging.WARNING if verbosity else logging.ERROR)


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[Progress], None]]:
    """Show progress as bars on a terminal, as lines in a log."""
    if not console.is_terminal:
        yield LogProgress()
        return
    bars = Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.0f} seeds/s, {task.fields[kept]} streamlines"),
        TimeRemainingColumn(),
        console=console,
    )
    tasks: dict[str, Any] = {}

    def show(progress: Progress) -> None:
        if progress.name not in tasks:
            tasks[progress.name] = bars.add_task(
                progress.name, total=progress.total, rate=0.0, kept=0
            )
        bars.update(
            tasks[progress.name],
            completed=progress.done,
            rate=progress.seeds_per_second,
            kept=progress.kept,
        )

    with bars:
        yield show


def _print_plan(request: Request, study: Study) -> int:
    print(f"# Into {request.output_dir}; {request.n_procs} DWI run(s) at a time, ", end="")
    print(f"{request.n_threads} thread(s) each.")
    ends: dict[str, Outcome | Job] = {}
    for name, planned in plan(request, study):
        ends[name] = planned
        fault = _print_job(planned) if isinstance(planned, Job) else planned
        if fault:
            ends[name] = fault
        if isinstance(fault, Failure):
            print(f"\n{name}: cannot be done: {fault.message}")
        elif isinstance(fault, Skipped):
            print(f"\n{name}: skipped: {fault.error}")
    print("\n# Only headers and text files were read: what the signal shows is checked by the run.")
    print("\n# configuration")
    print(_as_yaml(request.config), end="")
    check_not_all_skipped(ends)
    return exit_code({name: end for name, end in ends.items() if not isinstance(end, Job)})


def _print_job(job: Job) -> Failure | None:
    """Print what a job is made from and what it will take; return what is wrong with it."""
    lines = [(role, str(path)) for role, path in job.inputs.items()]
    if "brain_mask" not in job.inputs:
        lines.append(("brain_mask", "none found: made from the DWI (median_otsu)"))
    if job.config.import_tract is None:
        expected = attempt(job.name, partial(estimate, job), Places(tuple(job.inputs.values())))
        if isinstance(expected, Failure):
            return expected
        lines += [
            ("model", json.dumps(expected.model)),
            ("engine", f"{choose_engine(job.config).name}, {job.n_threads} thread(s)"),
            ("seeds", f"about {expected.seeds}"),
            ("streamlines", f"about {expected.streamlines}"),
            ("time", f"about {expected.seconds:.0f} s ({expected.cpu_seconds:.0f} s of CPU)"),
            ("memory", f"about {expected.memory_mib:.0f} MiB"),
            ("disk", f"about {expected.disk_mib:.0f} MiB"),
            *(("warning", text) for text in expected.warnings),
        ]
    lines += [("writes", str(path)) for made in job.products.values() for path in made.paths]
    print(f"\n{job.name}:")
    for what, text in lines:
        print(f"  {what:<12} {text}")
    return None


def _print_outcomes(request: Request, outcomes: dict[str, Outcome]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("DWI run", overflow="fold")
    table.add_column("outcome")
    table.add_column("warnings", justify="right")
    table.add_column("", overflow="fold")
    for name, outcome in sorted(outcomes.items()):
        if isinstance(outcome, Skipped):
            row = ("skipped", "", str(outcome.error))
        elif isinstance(outcome, Failure):
            row = (f"failed ({outcome.exit_code})", _count(outcome.warnings), outcome.message)
        else:
            where = outcome.tractogram.relative_to(request.output_dir)
            word = "up to date" if outcome.reused else "done"
            row = (word, _count(outcome.warnings), str(where))
        table.add_row(*map(Text, (name, *row)))
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table)
    print(f"written to {request.output_dir}")


def _count(warnings: Sequence[str]) -> str:
    return str(len(warnings)) if warnings else ""


def _as_yaml(config: Config) -> str:
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _config_command(words: list[str]) -> int:
    parser = _Parser(
        prog="bids-tractography config", description="About the configuration.", allow_abbrev=False
    )
    parser.add_argument(
        "action",
        choices=("show", "schema", "check", "translate"),
        help="show: every key with its effective value; schema: JSON Schema; check: faults; "
        "translate: a file in pyAFQ's terms in ours",
    )
    parser.add_argument("file", nargs="?", type=Path, help="configuration: YAML, TOML or JSON")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args(words)
    if options.action == "schema":
        print(config_schema(), end="")
        return 0
    if options.action == "translate":
        if options.file is None or options.set:
            raise UsageError("config translate takes a file, and nothing else.")
        print(_translated(options.file), end="")
        return 0
    config = load_config(options.file, options.set)
    if options.action == "show":
        print(_as_yaml(config), end="")
    else:
        print(f"{options.file or 'the configuration'}: no faults")
    return 0


def _translated(path: Path) -> str:
    """Return a configuration in pyAFQ's terms as YAML in ours, with notes as comments."""
    load_config(path)  # its faults in our terms
    translation = translate_config(path)
    notes = "".join(f"# {note}\n" for note in translation.notes)
    return notes + yaml.safe_dump(translation.config, sort_keys=False, allow_unicode=True)


def config_schema() -> str:
    """Return the JSON Schema of the configuration, as it ships."""
    return json.dumps(Config.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def _doctor_command(words: list[str]) -> int:
    parser = _Parser(
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
    parser = _Parser(
        prog="bids-tractography phantom",
        description="Write a small BIDS dataset of a head with known bundles.",
        allow_abbrev=False,
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--rng-seed", type=int, default=0, help="seed of the noise (default: 0)")
    options = parser.parse_args(words)
    print(write_phantom(options.directory, rng_seed=options.rng_seed))
    return 0

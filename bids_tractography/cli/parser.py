"""The options of the command line and of its commands; imports nothing that takes time."""

from __future__ import annotations

import argparse
import difflib
import importlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from bids_tractography import __version__
from bids_tractography.errors import NoInputError, UsageError
from bids_tractography.machine.memory import parse_memory_mib

LEVELS = ("participant", "group")
STOP_AFTER = {"maps": "tissue", "masks": "masks", "tractogram": "tracking"}
"""Stages of the pipeline by their names on the command line."""
# Listed here because importing the configuration takes longer than printing the help.
PRESETS = tuple(
    sorted(path.stem for path in (Path(__file__).parents[1] / "config/presets").glob("*.yaml"))
)
SHELLS = ("bash", "zsh", "tcsh")
_LEAST_MEMORY_MIB = 100
_SETTING = re.compile(r"[A-Za-z_][\w.]*=")


class Parser(argparse.ArgumentParser):
    """Argparse with the exit code of ``sysexits.h``, and underscores for hyphens in options."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "allow_abbrev": False})

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse words; what is not known is returned."""
        words = sys.argv[1:] if args is None else args
        return super().parse_known_args(list(_usual(words)), namespace)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parse words; what is not known is an error with the closest option."""
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            names = [
                n for a in self._actions if a.help != argparse.SUPPRESS for n in a.option_strings
            ]
            close = difflib.get_close_matches(unknown[0].partition("=")[0], names, n=1)
            meant = f" Did you mean {close[0]}?" if close else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}.{meant}")
        return options

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message, and exit."""
        self.print_usage(sys.stderr)
        self.exit(UsageError.exit_code, f"bids-tractography: error: {message}\n")


def _usual(words: Sequence[str]) -> Iterator[str]:
    """Yield words with hyphens in the names of options, and ``--set`` before every setting."""
    n_settings: int | None = None  # since --set; None if other words are between
    for number, word in enumerate(words):
        if word == "--":
            yield from words[number:]
            return
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            n_settings = len(equals) if name == "--set" else None
            yield f"{name.replace('_', '-')}{equals}{value}"
            continue
        if n_settings:
            if _SETTING.match(word):
                yield "--set"
            else:
                n_settings = None
        if n_settings is not None:
            n_settings += 1
        yield word


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the BIDS App's command line."""
    width = max(map(len, COMMANDS))
    parser = Parser(
        prog="bids-tractography",
        description="Whole-brain tractography of BIDS datasets, raw or preprocessed.",
        epilog="Other commands, each with its own --help:\n"
        + "".join(f"  {name:<{width}}  {command.about}\n" for name, command in COMMANDS.items())
        + "\nOptions may be written with underscores, and those of fMRIPrep, QSIPrep and QSIRecon\n"
        "are accepted or answered: see docs/dialect.md.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bids_dir", type=Path, help="BIDS dataset, raw or derivative")
    parser.add_argument("output_dir", type=Path, help="derivative dataset to write")
    parser.add_argument("analysis_level", help="participant or group")
    _add_selection(parser.add_argument_group("what to process"))
    _add_processing(parser.add_argument_group("how to process"))
    _add_machine(parser.add_argument_group("machine"))
    parser.add_argument(
        "--verify-files",
        action="store_true",
        help="group level: compare the SHA-256 of every tractogram with its sidecar, not only its "
        "size (reads all of them)",
    )
    _add_verbose(parser)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument(
        "--print-completion",
        choices=SHELLS,
        action=_PrintCompletion,
        help="print a script that completes the command line in this shell, and stop",
    )
    return parser


class _PrintCompletion(argparse.Action):
    """Prints the script of a shell, and ends."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Print the script, and end."""
        print(importlib.import_module("bids_tractography.cli.completion").completion(values))
        parser.exit()


def _add_selection(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--participant-label",
        nargs="+",
        default=[],
        metavar="LABEL",
        help="participants, with or without 'sub-' (default: all)",
    )
    group.add_argument(
        "--session-label",
        "--session-id",
        nargs="+",
        default=[],
        metavar="LABEL",
        help="sessions, with or without 'ses-' (default: all)",
    )
    group.add_argument(
        "--bids-filter-file",
        type=Path,
        metavar="FILE",
        help="JSON of pybids filters for the queries 'dwi' and 'brain_mask'; null means that the "
        "entity is absent, '*' that it has any value",
    )
    group.add_argument(
        "-d",
        "--derivatives",
        "--datasets",
        nargs="+",
        default=[],
        metavar="[NAME=]PATH",
        help="derivative datasets of the same participants: preprocessed DWI, masks",
    )


def _add_processing(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--config",
        metavar="CONFIG",
        help="configuration: a YAML, TOML or JSON file, or a preset, which has no extension: "
        + ", ".join(PRESETS),
    )
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override keys, e.g. tracking.algorithm.step_size_mm=0.25; may be followed by several",
    )
    group.add_argument(
        "--random-seed",
        type=int,
        metavar="N",
        help="seed of the random numbers (seeding.rng_seed)",
    )
    group.add_argument(
        "--name",
        metavar="NAME",
        help="name of the configuration (output.name), which becomes part of the file names, so "
        "that several configurations can share OUTPUT_DIR",
    )
    state = group.add_mutually_exclusive_group()
    state.add_argument(
        "--resume",
        action="store_true",
        help="keep finished work that inputs, configuration and version still match (default)",
    )
    state.add_argument("--fresh", action="store_true", help="do everything again")
    group.add_argument(
        "--stop-after",
        choices=tuple(STOP_AFTER),
        default="tractogram",
        help="compute the maps only, or maps and masks (default: tractogram)",
    )
    group.add_argument(
        "--overwrite",
        action="store_true",
        help="replace results of another configuration, and remove what was made from them; "
        "otherwise they are never replaced",
    )
    pages = group.add_mutually_exclusive_group()
    pages.add_argument(
        "--reports-only",
        action="store_true",
        help="make the reports of the runs in OUTPUT_DIR again, and compute nothing",
    )
    pages.add_argument("--no-report", "--noreport", action="store_true", help="make no reports")
    group.add_argument(
        "--dry-run",
        action="store_true",
        help="print what would be done, with the exit code that the run would have, and stop",
    )
    group.add_argument(
        "--json", action="store_true", help="with --dry-run: print one JSON document instead"
    )
    group.add_argument(
        "--stop-on-first-crash",
        action="store_true",
        help="end when a DWI run fails, instead of processing the others",
    )
    group.add_argument(
        "--skip-bids-validation",
        action="store_true",
        help="accept a folder without a valid dataset_description.json",
    )
    group.add_argument(
        "--bids-database-dir",
        type=Path,
        metavar="DIR",
        help="keep pybids' index of each participant here for later runs",
    )


def _add_machine(group: argparse._ArgumentGroup) -> None:
    _add_work(group, "OUTPUT_DIR/.work")
    group.add_argument(
        "--nprocs",
        "--n-procs",
        "--n-cpus",
        "--nthreads",
        "-nthreads",
        type=positive,
        metavar="N",
        help="threads of all DWI runs together (default: the CPUs of this process)",
    )
    group.add_argument(
        "--omp-nthreads",
        type=positive,
        metavar="N",
        help="threads of each DWI run; as many runs are processed at a time as --nprocs allows "
        "(default: at least 8 where there are as many, so that 16 threads process two participants "
        "at a time)",
    )
    group.add_argument(
        "--mem",
        "--mem-mb",
        type=memory_mib,
        metavar="AMOUNT",
        help="memory of all DWI runs together, e.g. 16G, or a number of MiB; fewer runs are "
        "processed at a time if their estimates exceed it (default: the memory of this process)",
    )
    group.add_argument(
        "--executor",
        choices=("local", "ray"),
        default="local",
        help="where to run: processes of this machine, or a Ray cluster, which takes the batches "
        "inside a run too (default: local)",
    )
    group.add_argument(
        "--ray-address",
        metavar="HOST:PORT",
        help="a running Ray cluster, or 'auto' (default: one is started on this machine)",
    )


def build_config_parser() -> argparse.ArgumentParser:
    """Build the parser of ``bids-tractography config``."""
    parser = Parser(
        prog="bids-tractography config",
        description="Show, write, check or translate configurations.",
        epilog=f"CONFIG is a YAML, TOML or JSON file, or a preset: {', '.join(PRESETS)}.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, about in (
        ("show", "print every key with its effective value"),
        ("init", "write a configuration with comments, to be edited"),
        ("check", "report all errors of a configuration"),
        ("translate", "convert a file in pyAFQ's terms"),
        ("schema", "print the JSON Schema"),
    ):
        action = actions.add_parser(name, help=about, description=f"{about.capitalize()}.")
        if name == "translate":
            action.add_argument("config", type=Path, metavar="FILE")
        elif name != "schema":
            action.add_argument(
                "config",
                nargs="?",
                metavar="CONFIG",
                help="file or preset (default: the defaults)",
            )
            action.add_argument(
                "--set", action="append", default=[], metavar="KEY=VALUE", help="override keys"
            )
        if name == "show":
            action.add_argument(
                "--changed", action="store_true", help="only keys that differ from the defaults"
            )
        if name == "init":
            action.add_argument(
                "-o",
                "--output",
                type=Path,
                metavar="FILE",
                help="a new file (default: standard output)",
            )
    return parser


def build_convert_parser() -> argparse.ArgumentParser:
    """Build the parser of ``bids-tractography convert``."""
    parser = Parser(
        prog="bids-tractography convert",
        description="Convert a tractogram to another file format.",
    )
    parser.add_argument("source", type=Path, metavar="IN", help="trx, tck, trk, tck.gz or trk.gz")
    parser.add_argument("target", type=Path, metavar="OUT", help="trx, tck or trk, by its name")
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="IMAGE",
        help="NIfTI image of the same space, for tck to trx or trk: tck has no grid",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    return parser


DIFFERS = 1
"""Exit code of ``reproduce`` if the result differs."""


def build_reproduce_parser() -> argparse.ArgumentParser:
    """Build the parser of ``bids-tractography reproduce``."""
    parser = Parser(
        prog="bids-tractography reproduce",
        description="Run a tractogram again as its sidecar records it, and report whether the "
        "result is the same or where it first differs: inputs, configuration, libraries, engine, "
        "processor, step, streamline. Exit codes: 0 if the same, "
        f"{DIFFERS} if it differs, {NoInputError.exit_code} if inputs are missing or changed, "
        "others as of a run.",
    )
    parser.add_argument("sidecar", type=Path, metavar="SIDECAR", help="JSON file of the tractogram")
    parser.add_argument(
        "bids_dirs",
        nargs="*",
        default=[],
        type=Path,
        metavar="BIDS_DIR",
        help="directories in which inputs are searched by path, name and content, before the "
        "datasets that the derivative dataset links to",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="compare inputs, configuration and software only, and run nothing",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="derivative dataset to write (default: a temporary one, which is removed)",
    )
    _add_work(parser, ".work in the output")
    parser.add_argument(
        "--omp-nthreads",
        "--nprocs",
        "--nthreads",
        type=positive,
        metavar="N",
        help="threads, which do not change the result (default: the CPUs of this process)",
    )
    parser.add_argument(
        "--no-report", action="store_true", help="make no report in the output directory"
    )
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")
    _add_verbose(parser)
    return parser


def build_phantom_parser() -> argparse.ArgumentParser:
    """Build the parser of ``bids-tractography phantom``."""
    parser = Parser(
        prog="bids-tractography phantom",
        description="Write a small BIDS dataset of a head with known bundles.",
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument(
        "--rng-seed",
        "--random-seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of the noise (default: 0)",
    )
    return parser


def build_doctor_parser() -> argparse.ArgumentParser:
    """Build the parser of ``bids-tractography doctor``."""
    return Parser(
        prog="bids-tractography doctor",
        description="Report what this machine can do, and track a small phantom on every engine.",
    )


@dataclass(frozen=True)
class Command:
    """A command other than the BIDS App.

    Parameters
    ----------
    about : str
        One line for the help.
    parser : callable
        Builds its parser.
    module : str
        Module with a function ``execute(options)``, which returns the exit code; it is imported
        only when the command is executed.
    """

    about: str
    parser: Callable[[], argparse.ArgumentParser]
    module: str


COMMANDS: Mapping[str, Command] = {
    "config": Command(
        "show, write, check or translate configurations",
        build_config_parser,
        "bids_tractography.cli.config",
    ),
    "convert": Command(
        "convert a tractogram to another file format",
        build_convert_parser,
        "bids_tractography.cli.convert",
    ),
    "reproduce": Command(
        "run a tractogram again as its sidecar records it, and compare",
        build_reproduce_parser,
        "bids_tractography.cli.reproduce",
    ),
    "phantom": Command(
        "write a small dataset to try the program on",
        build_phantom_parser,
        "bids_tractography.cli.phantom",
    ),
    "doctor": Command(
        "report what this machine can do",
        build_doctor_parser,
        "bids_tractography.cli.doctor",
    ),
}


def _add_work(parser: argparse._ActionsContainer, default: str) -> None:
    parser.add_argument(
        "-w",
        "--work-dir",
        type=Path,
        metavar="DIR",
        help=f"where unfinished work is kept (default: {default})",
    )


def _add_verbose(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-v",
        "--verbose",
        action="count",
        default=0,
        help="more of the log: which files were chosen and what took how long; -vv for debugging",
    )


def positive(text: str) -> int:
    """Parse a number from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("a number from 1 is needed")
    return number


def memory_mib(text: str) -> float:
    """Parse an amount of memory, in MiB."""
    try:
        amount = parse_memory_mib(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}: write it as 16G or 16000") from None
    if amount < _LEAST_MEMORY_MIB:
        raise argparse.ArgumentTypeError(
            f"{amount:.3g} MiB is less than the program takes; for GiB, write {text}G"
        )
    return amount

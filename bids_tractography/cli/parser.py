"""The command line's options."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from bids_tractography import __version__
from bids_tractography.config.presets import configuration_path, preset_names
from bids_tractography.errors import UsageError

LEVELS = ("participant", "group")
STOP_AFTER = {"maps": "tissue", "masks": "masks", "tractogram": "tracking"}
"""Stages of the pipeline by their names on the command line."""


class Parser(argparse.ArgumentParser):
    """Argparse with the exit code of ``sysexits.h``."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message, and exit."""
        self.print_usage(sys.stderr)
        self.exit(UsageError.exit_code, f"bids-tractography: error: {message}\n")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the BIDS App's command line."""
    parser = Parser(
        prog="bids-tractography",
        description="Whole-brain tractography of BIDS datasets, raw or preprocessed.",
        epilog="Other commands: 'bids-tractography config show|init|check|translate|schema' about "
        "the configuration, 'bids-tractography convert IN OUT' for other formats of a tractogram, "
        "'bids-tractography phantom DIR' for a small dataset to try it on, 'bids-tractography "
        "doctor' for what this machine can do, 'bids-tractography reproduce SIDECAR' to run a "
        "tractogram again and compare.",
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
        "--config",
        type=configuration_path,
        metavar="CONFIG",
        help="configuration: a YAML, TOML or JSON file, or a preset, which has no extension: "
        + ", ".join(preset_names()),
    )
    how.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key, e.g. tracking.algorithm.step_size_mm=0.25; may be repeated",
    )
    how.add_argument(
        "--name",
        metavar="NAME",
        help="name of the configuration (output.name), which becomes part of the file names, so "
        "that several configurations can share OUTPUT_DIR",
    )
    state = how.add_mutually_exclusive_group()
    state.add_argument(
        "--resume",
        action="store_true",
        help="keep finished work that inputs, configuration and version still match (default)",
    )
    state.add_argument("--fresh", action="store_true", help="do everything again")
    how.add_argument(
        "--stop-after",
        "--stop_after",
        choices=tuple(STOP_AFTER),
        default="tractogram",
        help="compute the maps only, or maps and masks (default: tractogram)",
    )
    how.add_argument(
        "--overwrite",
        action="store_true",
        help="replace results of another configuration, and remove what was made from them; "
        "otherwise they are never replaced",
    )
    pages = how.add_mutually_exclusive_group()
    pages.add_argument(
        "--reports-only",
        "--reports_only",
        action="store_true",
        help="make the reports of the runs in OUTPUT_DIR again, and compute nothing",
    )
    pages.add_argument(
        "--no-report",
        "--no_report",
        "--noreport",
        action="store_true",
        help="make no reports",
    )
    how.add_argument(
        "--dry-run",
        action="store_true",
        help="print what would be done, with the exit code that the run would have, and stop",
    )
    how.add_argument(
        "--json", action="store_true", help="with --dry-run: print one JSON document instead"
    )
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
        type=positive,
        default=1,
        metavar="N",
        help="DWI runs at a time (default: 1)",
    )
    machine.add_argument(
        "--omp-nthreads",
        type=positive,
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


def positive(text: str) -> int:
    """Parse a number from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("a number from 1 is needed")
    return number

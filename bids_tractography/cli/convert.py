"""The command ``bids-tractography convert``."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from bids_tractography.cli.console import set_up_logging
from bids_tractography.cli.parser import Parser
from bids_tractography.core.images import read_grid
from bids_tractography.tractogram.convert import convert


def build_convert_parser() -> argparse.ArgumentParser:
    """Build the parser of ``bids-tractography convert``."""
    parser = Parser(
        prog="bids-tractography convert",
        description="Convert a tractogram to another file format.",
        allow_abbrev=False,
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


def convert_command(words: list[str]) -> int:
    """Run ``bids-tractography convert``; return the exit code."""
    options = build_convert_parser().parse_args(words)
    set_up_logging(Console(stderr=True), 0)
    reference = read_grid(options.reference) if options.reference else None
    converted = convert(
        options.source, options.target, reference=reference, overwrite=options.overwrite
    )
    print(f"{options.target}: {converted.n_streamlines} streamlines")
    return 0

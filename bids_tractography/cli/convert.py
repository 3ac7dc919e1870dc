"""The command ``bids-tractography convert``."""

from __future__ import annotations

import argparse

from rich.console import Console

from bids_tractography.cli.log import set_up_logging
from bids_tractography.core.images import read_grid
from bids_tractography.tractogram.convert import convert


def execute(options: argparse.Namespace) -> int:
    """Execute ``bids-tractography convert``; return the exit code."""
    set_up_logging(Console(stderr=True), 0)
    reference = read_grid(options.reference) if options.reference else None
    converted = convert(
        options.source, options.target, reference=reference, overwrite=options.overwrite
    )
    print(f"{options.target}: {converted.n_streamlines} streamlines")
    return 0

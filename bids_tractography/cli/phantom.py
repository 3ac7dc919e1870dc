"""The command ``bids-tractography phantom``."""

from __future__ import annotations

import argparse

from bids_tractography.phantom import write_phantom


def execute(options: argparse.Namespace) -> int:
    """Execute ``bids-tractography phantom``; return the exit code."""
    print(write_phantom(options.directory, rng_seed=options.rng_seed))
    return 0

"""The command ``bids-tractography doctor``."""

from __future__ import annotations

import argparse
import os

from bids_tractography.app.doctor import examine
from bids_tractography.machine.cpus import count_cpus


def execute(_options: argparse.Namespace) -> int:
    """Execute ``bids-tractography doctor``; return the exit code."""
    marks = {True: "ok", False: "FAILED", None: ""}
    healthy = True
    for finding in examine(count_cpus(os.environ)):
        print(f"{finding.subject:<22} {marks[finding.healthy]:<7} {finding.text}", flush=True)
        healthy &= finding.healthy is not False
    return 0 if healthy else 1

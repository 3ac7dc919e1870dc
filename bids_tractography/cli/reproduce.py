"""The command ``bids-tractography reproduce``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bids_tractography.app.reproduce import Comparison, Options, Row, reproduce
from bids_tractography.cli.log import progress_shown, set_up_logging
from bids_tractography.cli.parser import DIFFERS
from bids_tractography.errors import NoInputError, UsageError
from bids_tractography.machine.container import describe_container
from bids_tractography.machine.cpus import count_cpus
from bids_tractography.machine.files import printable, resolve

_EXIT_CODES = {"same": 0, "differs": DIFFERS, "missing": NoInputError.exit_code}


def execute(options: argparse.Namespace) -> int:
    """Execute ``bids-tractography reproduce``; return the exit code."""
    if options.check and (options.output or options.work_dir):
        raise UsageError("--check does not accept --output and --work-dir: it writes nothing.")
    console = Console(stderr=True)
    set_up_logging(console, options.verbose)
    how = Options(
        folders=tuple(map(resolve, options.bids_dirs)),
        output=resolve(options.output) if options.output else None,
        work=resolve(options.work_dir) if options.work_dir else None,
        n_threads=options.omp_nthreads or count_cpus(os.environ),
        report=not options.no_report,
        only_check=options.check,
        container=describe_container(os.environ, Path(sys.prefix)),
    )
    with progress_shown(console, 1) as report:
        compared = reproduce(options.sidecar, how, report)
    if options.json:
        print(json.dumps(_as_json(compared, how), indent=2, ensure_ascii=False))
    else:
        _print(compared, how, everything=bool(options.verbose))
    return _EXIT_CODES[compared.verdict]


def _print(compared: Comparison, options: Options, *, everything: bool) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("", "", "recorded", "here"):
        table.add_column(title, overflow="fold")
    rows = [*compared.rows, *compared.files]
    for kind in dict.fromkeys(row.kind for row in rows):
        of_kind = [row for row in rows if row.kind == kind]
        differing = [row for row in of_kind if not row.same]
        for row in of_kind if everything else differing:
            table.add_row(*map(Text, (kind, row.name, row.recorded, row.here)))
        if not differing and not everything:
            table.add_row(kind, "as recorded")
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table)
    for text in _conclusion(compared, options):
        print(text)


def _conclusion(compared: Comparison, options: Options) -> list[str]:
    """Say in words how the comparison ended."""
    name = printable(compared.sidecar)
    if compared.missing:
        return [_missing(compared), f"differs: input: {name} cannot be reproduced."]
    if options.only_check:
        if compared.verdict == "same":
            return [f"{name} can be reproduced: nothing that decides the result differs."]
        return [f"differs: {_first(compared)}. The result may differ; run without --check to see."]
    if compared.verdict == "same":
        lines = [f"same: {name}: the new file has the same bytes."]
    elif compared.files[0].same:
        lines = [f"differs: the streamlines of {name} are the same, but the files are not."]
    else:
        lines = [f"differs: {_first(compared)}.", _streamline(compared)]
    return [*lines, *([f"written to {options.output}"] if options.output else [])]


def _missing(compared: Comparison) -> str:
    lines = ["Inputs without a file of the recorded content:"]
    for one in compared.missing:
        lines.append(f"  {one.file.role}: {one.file.uri}")
        lines.append(f"    recorded SHA-256 {one.file.sha256}")
        if one.in_place:
            lines.append(f"    but {one.sha256} in {printable(one.in_place)}")
    lines.append("Name the directories that contain the files, or restore the files.")
    return "\n".join(lines)


def _first(compared: Comparison) -> str:
    row = compared.first
    return f"{row.kind}: {row.name}: {row.recorded} recorded, {row.here} here" if row else ""


def _streamline(compared: Comparison) -> str:
    found = compared.streamline
    if found is None:
        return "The recorded tractogram is not there, so that no streamlines were compared."
    recorded, here = ("missing" if n is None else f"{n} points" for n in found.points)
    text = f"The first streamline that differs is number {found.number}: {recorded} recorded, "
    text += f"{here} here"
    if found.distance_mm is not None:
        text += f", {found.distance_mm:.3g} mm apart"
    if found.seed is not None:
        text += f"; its seed is number {found.seed}, in batch {compared.batch}"
    return f"{text} (counted from 0)."


def _as_json(compared: Comparison, options: Options) -> dict[str, Any]:
    first = compared.first if compared.verdict != "same" else None
    streamline = compared.streamline
    return {
        "sidecar": printable(compared.sidecar),
        "verdict": compared.verdict,
        "run": compared.tractogram is not None,
        "first_difference": _row(first) if first else None,
        "inputs": [
            {
                **one.file.model_dump(),
                "path": printable(one.path) if one.path else None,
                "in_place": printable(one.in_place) if one.in_place else None,
                "sha256_in_place": one.sha256 if one.in_place else None,
            }
            for one in compared.inputs
        ],
        "compared": [_row(row) for row in (*compared.rows, *compared.files)],
        "streamline": asdict(streamline) | {"batch": compared.batch} if streamline else None,
        "output": printable(options.output) if options.output else None,
    }


def _row(row: Row) -> dict[str, Any]:
    return asdict(row) | {"same": row.same}

"""Boutiques descriptor, generated from the definition of the command line."""

from __future__ import annotations

import argparse
import inspect
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bids_tractography import __version__, errors
from bids_tractography.cli.parser import LEVELS, build_parser, positive

# Paths that the command creates if they do not exist; all others must exist and are mounted.
_MADE = ("output_dir", "work_dir", "bids_database_dir")

_INTERRUPTED = {
    130: "Interrupted; rerun the same command to resume.",
    143: "Terminated; rerun the same command to resume.",
}


def boutiques() -> str:
    """Return the descriptor, schema 0.5."""
    parser = build_parser()
    actions = list(_described(parser))
    descriptor = {
        "name": "bids-tractography",
        "description": parser.description,
        "author": "The bids_tractography developers",
        "tool-version": __version__,
        "schema-version": "0.5",
        # Options that take several values would swallow what follows them: they come last.
        "command-line": " ".join(["bids-tractography", *(_key(a) for a in actions)]),
        "container-image": {"type": "docker", "image": f"bids-tractography:{__version__}"},
        "inputs": [_input(action) for action in actions],
        "groups": list(_groups(parser)),
        "output-files": [
            {
                "id": "dataset_description",
                "name": "Description of the derivative dataset",
                "path-template": "[OUTPUT_DIR]/dataset_description.json",
                "optional": False,
            },
            *_outputs(
                ("tractograms", "Tractograms", "sub-*/dwi/*_tractogram.*"),
                ("session_tractograms", "Tractograms", "sub-*/ses-*/dwi/*_tractogram.*"),
                ("maps", "Maps and masks", "sub-*/dwi/*.nii.gz"),
                ("session_maps", "Maps and masks", "sub-*/ses-*/dwi/*.nii.gz"),
                ("reports", "Reports of the runs", "sub-*.html"),
                ("logs", "Outcomes of the runs", "logs/*_participant.json"),
            ),
            {
                "id": "group_table",
                "name": "Table of the group level with one row per tractogram",
                "path-template": "[OUTPUT_DIR]/group_tractograms.tsv",
                "optional": True,
            },
            {
                "id": "study_page",
                "name": "Page of the study, of the group level",
                "path-template": "[OUTPUT_DIR]/index.html",
                "optional": True,
            },
        ],
        "error-codes": [
            {"code": code, "description": text} for code, text in sorted(_error_codes().items())
        ],
        "tags": {"domain": ["neuroinformatics", "mri", "dwi"], "modality": ["bids-app"]},
    }
    return json.dumps(descriptor, indent=2, ensure_ascii=False) + "\n"


def _described(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the actions of the descriptor, without those that print and exit."""
    for action in parser._actions:
        if action.dest not in ("help", "version", "print_completion"):
            yield action


def _key(action: argparse.Action) -> str:
    return f"[{action.dest.upper()}]"


def _input(action: argparse.Action) -> dict[str, Any]:
    is_path = action.type is Path or action.dest in ("derivatives", "config")
    described: dict[str, Any] = {
        "id": action.dest,
        "name": action.dest.replace("_", " "),
        "description": " ".join(str(action.help).replace("%%", "%").split()),
        "value-key": _key(action),
        "type": "File" if is_path and action.dest not in _MADE else "String",
        "optional": not action.required,
    }
    if action.option_strings:
        long = next(name for name in action.option_strings if name.startswith("--"))
        described["command-line-flag"] = long
        if action.nargs == 0:
            described["type"] = "Flag"
        if action.nargs == "+":
            described["list"] = True
        if isinstance(action, argparse._AppendAction):
            described |= {"list": True, "list-separator": f" {long} "}
    if isinstance(action.default, int) and described["type"] == "String":
        described["type"] = "Number"
    if action.type is positive:
        described |= {"type": "Number", "integer": True, "minimum": 1}
    if action.type is int:
        described |= {"type": "Number", "integer": True}
    if action.choices:
        described["value-choices"] = [str(choice) for choice in action.choices]
    if action.dest == "analysis_level":
        described["value-choices"] = list(LEVELS)
    return described


def _groups(parser: argparse.ArgumentParser) -> Iterator[dict[str, Any]]:
    for group in parser._mutually_exclusive_groups:
        members = [action.dest for action in group._group_actions]
        yield {
            "id": "_or_".join(members),
            "name": " or ".join(members),
            "members": members,
            "mutually-exclusive": True,
        }


def _outputs(*outputs: tuple[str, str, str]) -> Iterator[dict[str, Any]]:
    for identifier, name, pattern in outputs:
        yield {
            "id": identifier,
            "name": name,
            "path-template": f"[OUTPUT_DIR]/{pattern}",
            "list": True,
            "optional": True,
        }


def _error_codes() -> dict[int, str]:
    """Return all exit codes with the descriptions of the errors that have them."""
    texts: dict[int, list[str]] = defaultdict(list)
    base = errors.TractographyError
    for _, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, base) and kind is not base and "exit_code" in vars(kind):
            texts[kind.exit_code].append((inspect.getdoc(kind) or "").splitlines()[0])
    several = {base.exit_code: ["Runs failed for different reasons."]}
    return {code: " ".join(lines) for code, lines in (several | texts).items()} | _INTERRUPTED

"""Completion of the command line by shells."""

from __future__ import annotations

import argparse
from pathlib import Path

import shtab

from bids_tractography.cli.parser import COMMANDS, LEVELS, build_parser


def completion(shell: str) -> str:
    """Return the script that completes the command line in a shell.

    Parameters
    ----------
    shell : str
        One of `cli.parser.SHELLS`.
    """
    parser = build_parser()
    commands = parser.add_subparsers(metavar="COMMAND")
    for name, command in COMMANDS.items():
        made = command.parser()
        _complete_paths(made)
        commands._name_parser_map[name] = made
        commands._choices_actions.append(commands._ChoicesPseudoAction(name, [], command.about))
    _complete_paths(parser)
    # The first word is a command or a dataset: the commands come first, as in a shell.
    positionals = parser._actions
    positionals.insert(1, positionals.pop(positionals.index(commands)))
    script: str = shtab.complete(parser, shell)
    # Bash completes the names of files where nothing else fits.
    return script.replace("complete -o filenames -F", "complete -o filenames -o default -F")


def _complete_paths(parser: argparse.ArgumentParser) -> None:
    """Say what completes each option and argument."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                _complete_paths(inner)
        elif action.dest in ("bids_dir", "bids_dirs", "output_dir", "work_dir", "directory"):
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.type is Path or action.dest in ("derivatives", "config"):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.dest == "analysis_level":
            action.choices = LEVELS

"""The command ``bids-tractography config``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import yaml

from bids_tractography import __version__
from bids_tractography.app.request import check_config
from bids_tractography.cli.parser import Parser
from bids_tractography.config import Config
from bids_tractography.config.dump import as_yaml, changes_as_yaml, commented_yaml
from bids_tractography.config.load import load_config, translate_config
from bids_tractography.config.presets import configuration_path, preset_names
from bids_tractography.config.schema import SCHEMA_ID, json_schema
from bids_tractography.errors import UsageError
from bids_tractography.outputs.files import write_text


def build_config_parser() -> argparse.ArgumentParser:
    """Build the parser of ``bids-tractography config``."""
    parser = Parser(
        prog="bids-tractography config",
        description="Show, write, check or translate configurations.",
        epilog=f"CONFIG is a YAML, TOML or JSON file, or a preset: {', '.join(preset_names())}.",
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, about in (
        ("show", "print every key with its effective value"),
        ("init", "write a configuration with comments, to be edited"),
        ("check", "report all errors of a configuration"),
        ("translate", "convert a file in pyAFQ's terms"),
        ("schema", "print the JSON Schema"),
    ):
        action = actions.add_parser(
            name, help=about, description=f"{about.capitalize()}.", allow_abbrev=False
        )
        if name == "translate":
            action.add_argument("config", type=Path, metavar="FILE")
        elif name != "schema":
            action.add_argument(
                "config",
                nargs="?",
                type=configuration_path,
                metavar="CONFIG",
                help="file or preset (default: the defaults)",
            )
            action.add_argument(
                "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key"
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


def config_command(words: list[str]) -> int:
    """Run ``bids-tractography config``; return the exit code."""
    options = build_config_parser().parse_args(words)
    match options.action:
        case "schema":
            print(config_schema(), end="")
        case "translate":
            print(_translated(options.config), end="")
        case "check":
            for note in check_config(load_config(options.config, options.set)):
                print(f"note: {note}")
            print(f"{options.config or 'the configuration'}: no errors")
        case "show":
            config = load_config(options.config, options.set)
            print(changes_as_yaml(config) if options.changed else as_yaml(config), end="")
        case "init":
            _init(options.config, load_config(options.config, options.set), options.output)
    return 0


def _init(source: Path | None, config: Config, output: Path | None) -> None:
    """Write a configuration with comments to a new file, or to standard output."""
    origin = f"from {source.stem}" if source else "the defaults"
    text = (
        f"# yaml-language-server: $schema={SCHEMA_ID}\n"
        f"# Configuration of bids-tractography {__version__}, {origin}.\n"
        f"# Keys that are removed get the default value of the program.\n{commented_yaml(config)}"
    )
    if output is None:
        print(text, end="")
        return
    if output.suffix not in (".yaml", ".yml"):
        raise UsageError(f"{output} is not a YAML file by its name.", "Name it *.yaml.")
    write_text(output, text, new=True)
    print(output)


def _translated(path: Path) -> str:
    """Return a configuration in pyAFQ's terms as YAML in ours, with notes as comments."""
    load_config(path)  # reports its errors in our terms
    translation = translate_config(path)
    notes = "".join(f"# {note}\n" for note in translation.notes)
    return notes + yaml.safe_dump(translation.config, sort_keys=False, allow_unicode=True)


def config_schema() -> str:
    """Return the JSON Schema of the configuration, as it ships."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"

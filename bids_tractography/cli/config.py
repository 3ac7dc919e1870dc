"""The command ``bids-tractography config``."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from bids_tractography.cli.parser import Parser
from bids_tractography.config import Config
from bids_tractography.config.load import load_config, translate_config
from bids_tractography.errors import UsageError


def as_yaml(config: Config) -> str:
    """Return a configuration with all its keys."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def config_command(words: list[str]) -> int:
    """Run ``bids-tractography config``; return the exit code."""
    parser = Parser(
        prog="bids-tractography config",
        description="Show, check or translate configurations.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "action",
        choices=("show", "schema", "check", "translate"),
        help="show: print every key with its effective value; schema: print the JSON Schema; "
        "check: report errors; translate: convert a file in pyAFQ's terms",
    )
    parser.add_argument("file", nargs="?", type=Path, help="configuration: YAML, TOML or JSON")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args(words)
    if options.action == "schema":
        print(config_schema(), end="")
        return 0
    if options.action == "translate":
        if options.file is None or options.set:
            raise UsageError("config translate takes exactly one file and no other option.")
        print(_translated(options.file), end="")
        return 0
    config = load_config(options.file, options.set)
    if options.action == "show":
        print(as_yaml(config), end="")
    else:
        print(f"{options.file or 'the configuration'}: no errors")
    return 0


def _translated(path: Path) -> str:
    """Return a configuration in pyAFQ's terms as YAML in ours, with notes as comments."""
    load_config(path)  # reports its errors in our terms
    translation = translate_config(path)
    notes = "".join(f"# {note}\n" for note in translation.notes)
    return notes + yaml.safe_dump(translation.config, sort_keys=False, allow_unicode=True)


def config_schema() -> str:
    """Return the JSON Schema of the configuration, as it ships."""
    return json.dumps(Config.model_json_schema(), indent=2, ensure_ascii=False) + "\n"

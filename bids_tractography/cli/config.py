"""The command ``bids-tractography config``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import yaml

from bids_tractography import __version__
from bids_tractography.config import Config
from bids_tractography.config.dump import as_yaml, changes_as_yaml, commented_yaml
from bids_tractography.config.load import load_config, translate_config
from bids_tractography.config.presets import configuration_path
from bids_tractography.config.schema import SCHEMA_ID, json_schema
from bids_tractography.errors import UsageError
from bids_tractography.outputs.files import write_text


def execute(options: argparse.Namespace) -> int:
    """Execute ``bids-tractography config``; return the exit code."""
    given = getattr(options, "config", None)
    path = configuration_path(given) if isinstance(given, str) else None
    match options.action:
        case "schema":
            print(config_schema(), end="")
        case "translate":
            print(_translated(options.config), end="")
        case "check":
            from bids_tractography.app.request import check_config  # imports the engines

            for note in check_config(load_config(path, options.set)):
                print(f"note: {note}")
            print(f"{path or 'the configuration'}: no errors")
        case "show":
            config = load_config(path, options.set)
            print(changes_as_yaml(config) if options.changed else as_yaml(config), end="")
        case "init":
            _init(path, load_config(path, options.set), options.output)
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

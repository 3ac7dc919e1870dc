"""Presets: configurations that come with the program and are named without an extension."""

from __future__ import annotations

import difflib
from pathlib import Path

from bids_tractography.errors import ConfigError

_FOLDER = Path(__file__).with_name("presets")


def preset_names() -> list[str]:
    """Return the names of all presets, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def configuration_path(text: str) -> Path:
    """Return the file of a configuration that is given as a path or as the name of a preset.

    A text with neither a directory nor an extension is the name of a preset, whatever files there
    are: a file without an extension is not a configuration.

    Raises
    ------
    ConfigError
        If there is no preset of this name.
    """
    if "/" in text or Path(text).suffix:
        return Path(text)
    names = preset_names()
    if text in names:
        return _FOLDER / f"{text}.yaml"
    close = difflib.get_close_matches(text.lower().replace("-", "_"), names, n=1, cutoff=0.4)
    meant = f" Did you mean '{close[0]}'?" if close else ""
    raise ConfigError(
        f"there is no preset '{text[:100]}'.{meant}",
        f"Presets: {', '.join(names)}. A file is given with its extension, e.g. {text[:100]}.yaml.",
    )

"""Engines by name, each with what it can do as plain data."""

from __future__ import annotations

from collections.abc import Mapping

from bids_tractography.config import Config
from bids_tractography.errors import ConfigError
from bids_tractography.tracking.base import EngineKind
from bids_tractography.tracking.cpu import CPU
from bids_tractography.tracking.dipy import DIPY

__all__ = ["ENGINES", "choose_engine"]

# The first that can do what is asked is the one that "auto" takes.
ENGINES: Mapping[str, EngineKind] = {CPU.name: CPU, DIPY.name: DIPY}


def choose_engine(config: Config) -> EngineKind:
    """Return the engine asked for, or the first that can do what is asked.

    Raises
    ------
    ConfigError
        If it cannot track with this algorithm or stopping rule; with the engines that can.
    """
    algorithm, stopping = config.tracking.algorithm.kind, config.stopping.kind
    able = [
        kind
        for kind in ENGINES.values()
        if algorithm in kind.algorithms and stopping in kind.stopping
    ]
    wanted = config.tracking.engine
    if wanted == "auto" and able:
        return able[0]
    for kind in able:
        if kind.name == wanted:
            return kind
    others = ", ".join(kind.name for kind in able) or "none"
    raise ConfigError(
        f"tracking.engine: {wanted} cannot do {algorithm} with a {stopping} stopping rule.",
        f"Engines that can: {others}.",
    )

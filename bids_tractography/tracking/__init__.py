"""Engines by name, each with what it can do as plain data."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache

from bids_tractography.config import Config
from bids_tractography.errors import ConfigError, DeviceError
from bids_tractography.tracking.base import EngineKind
from bids_tractography.tracking.cpu.engine import CPU
from bids_tractography.tracking.cuda.cuslines import CUDA
from bids_tractography.tracking.dipy import DIPY

__all__ = ["ENGINES", "choose_engine"]

logger = logging.getLogger(__name__)

# The first that can do what is asked is the one that "auto" takes. CUDA is not before the CPU
# until its tests have passed on a GPU (make gpu-test).
ENGINES: Mapping[str, EngineKind] = {CPU.name: CPU, CUDA.name: CUDA, DIPY.name: DIPY}


def choose_engine(config: Config) -> EngineKind:
    """Return the engine asked for, or the first that can do what is asked on this machine.

    Raises
    ------
    ConfigError
        If it cannot do what the configuration asks; with the engines that can.
    DeviceError
        If it could, but not on this machine.
    """
    wanted, tracking = config.tracking.engine, config.tracking
    able = [kind for kind in ENGINES.values() if _refusal(kind, config) is None]
    if wanted == "auto":
        for kind in able:
            if kind.unavailable(tracking) is None:
                _say(f"tracking.engine auto takes {kind.name}{_because(config, kind.name)}.")
                return kind
    for kind in able:
        if kind.name == wanted:
            if missing := kind.unavailable(tracking):
                raise DeviceError(
                    f"tracking.engine: {wanted} cannot be used on this machine: {missing}.",
                    "Use engine auto, which takes what there is.",
                )
            return kind
    refusal = (
        _refusal(ENGINES[wanted], config)
        if wanted in ENGINES
        else f"finds none for {tracking.algorithm.kind} with a {config.stopping.kind} stopping rule"
    )
    others = ", ".join(kind.name for kind in able) or "none"
    raise ConfigError(f"tracking.engine: {wanted} {refusal}.", f"Engines that can: {others}.")


def _refusal(kind: EngineKind, config: Config) -> str | None:
    """Tell why an engine cannot do what is asked, wherever it runs."""
    algorithm, stopping = config.tracking.algorithm.kind, config.stopping.kind
    if algorithm not in kind.algorithms or stopping not in kind.stopping:
        return f"cannot do {algorithm} with a {stopping} stopping rule"
    combined = config.stopping.fod_below is not None and stopping != "threshold"
    if combined and not kind.combines_stops:
        return f"cannot do stopping.fod_below with a {stopping} stopping rule"
    limit = kind.limits(config)
    return f"can do {limit}" if limit else None


def _because(config: Config, chosen: str) -> str:
    """Tell why those before it were not taken."""
    passed = list(ENGINES)[: list(ENGINES).index(chosen)]
    reasons = [
        f"{name}: {_refusal(ENGINES[name], config) or ENGINES[name].unavailable(config.tracking)}"
        for name in passed
    ]
    return f" ({'; '.join(reasons)})" if reasons else ""


@cache
def _say(message: str) -> None:
    logger.info("%s", message)

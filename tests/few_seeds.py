"""A few seeds tracked by every algorithm of the CPU engine, for comparing kinds of kernels.

    python few_seeds.py

prints how the kernels run, and the SHA-256 of each batch.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from fields import cube, make_engine, ragged, track

from bids_tractography.core.fodf import peak_amplitudes
from bids_tractography.core.stopping import (
    ActRule,
    BinaryRule,
    CmcRule,
    FodRule,
    StoppingRule,
    ThresholdRule,
)
from bids_tractography.machine.compiled import PLAIN, SCALAR
from bids_tractography.tracking.cpu.engine import CPU

QUICK: dict[str, dict[str, Any]] = {
    "pft": {"particles": 3, "max_trials": 2, "back_mm": 1},
    "ptt": {"probe_quality": 3, "probe_radius_mm": 0.5, "probe_count": 2},
    "closest_peak": {"step_size_mm": 1},
}


def batches() -> Iterator[tuple[str, str]]:
    """Yield the name of each algorithm and the hash of what it makes."""
    grid = cube(5, 2.0)
    # Of order 2, and on few voxels: in plain Python each amplitude takes microseconds.
    coefficients = ragged(grid)[..., :6].copy()
    coefficients[0, :, 0] = 0
    peak = peak_amplitudes(np.ascontiguousarray(coefficients, np.float32))
    data = coefficients.any(axis=-1)
    rng = np.random.default_rng(0)
    include, exclude = (0.7 * rng.random((2, *grid.shape))).astype(np.float32)
    threshold = ThresholdRule(1 - exclude, 0.45)
    rules: dict[str, StoppingRule] = {
        "prob": FodRule(peak, 0.3 * float(peak.max()), CmcRule(0.1 * include, 0.1 * exclude, True)),
        "det": threshold,
        "pft": FodRule(peak, 0.2 * float(peak.max()), ActRule(include, 1.2 * exclude, True)),
        "ptt": threshold,
        "eudx": BinaryRule(exclude < 0.6),
        "closest_peak": FodRule(peak, 0.2 * float(peak.max())),
    }
    for kind, rule in rules.items():
        engine = make_engine(
            CPU,
            grid,
            coefficients,
            rule,
            algorithm={"kind": kind, **QUICK.get(kind, {})},
            max_length_mm=12,
            max_directions=1 if kind == "prob" else 2,
            dead_ends="keep",
            data=data,
        )
        batch = track(engine, rng.uniform(1, 7, (2, 3)))
        assert len(batch.points_mm) > 4, kind
        content = b"".join(
            array.tobytes()
            for array in (batch.points_mm, batch.offsets, batch.seed_index, batch.stops)
        )
        yield kind, hashlib.sha256(content + str(batch.counts).encode()).hexdigest()


if __name__ == "__main__":
    lines = [f"{'plain' if PLAIN else 'compiled'} {'scalar' if SCALAR else 'vector'}"]
    lines += [f"{kind} {sha256}" for kind, sha256 in batches()]
    sys.stdout.write("\n".join(lines) + "\n")

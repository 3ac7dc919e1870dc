"""Outputs of a run for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bids_tractography.core.images import Grid
from bids_tractography.outputs.provenance import Fingerprint, Record
from bids_tractography.outputs.run import RunOutputs, Sidecar

FINGERPRINT = Fingerprint(inputs="i", config="c", software="s")

GRID = Grid((2, 3, 4), np.diag([-2.0, 2, 2, 1]))


def outputs_of(root: Path, source: str = "sub-01_dwi.nii.gz", **links: Path) -> RunOutputs:
    return RunOutputs(root, source, links)


def written(root: Path, fingerprint: Fingerprint = FINGERPRINT) -> Path:
    """Write a map with its sidecar."""
    outputs = outputs_of(root)
    path = outputs.path("dwimap", param="fa")
    sidecar = Sidecar("A map.", [root / "sub-01/dwi/a.nii.gz"], {"Units": "1"})
    outputs.write_map(
        path, np.ones((2, 3, 4), np.float32), GRID, sidecar, Record(fingerprint=fingerprint)
    )
    return path

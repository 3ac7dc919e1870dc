"""Detection of DWI runs without diffusion weighting from their small files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bids_tractography.core.gradients import count_axes
from bids_tractography.core.images import read_shape
from bids_tractography.core.tables import read_table
from bids_tractography.errors import DataError

_UNIT_TOLERANCE = 0.1
# A tensor has six unknowns, so that a diffusion scheme in any unit has at least six axes.
_MIN_AXES = 6


def only_b0(
    bval: Path | None, bvec: Path | None, table: Path | None, b0_threshold_s_mm2: float
) -> bool:
    """Return whether all volumes are b=0.

    b-values in other units, such as 0, 1 and 2 ms/µm², are also below any threshold in s/mm². The
    directions distinguish such a scheme from a b=0 run: six or more distinct unit vectors among the
    volumes with b > 0 are a diffusion scheme, which `read_gradients` then rejects with a message
    about units. Without directions, b-values that differ from each other do not count as b=0.

    Parameters
    ----------
    bval, bvec : Path or None
        Files in FSL's format.
    table : Path or None
        MRtrix3's gradient table; takes precedence.
    b0_threshold_s_mm2 : float
        Volumes with this b-value or less count as b=0.

    Returns
    -------
    bool
        False if the files are malformed, which is reported when they are read.
    """
    try:
        bvals, vectors = _read(bval, bvec, table)
    except DataError:
        return False
    if bvals is None or not np.isfinite(bvals).all() or bvals.min() < 0:
        return False
    if bvals.max() > b0_threshold_s_mm2:
        return False
    if vectors is None:
        return bool(np.ptp(bvals) == 0)
    weighted = vectors[bvals > 0]
    norms = np.linalg.norm(weighted, axis=1)
    if table is not None and (norms > 1 + _UNIT_TOLERANCE).any():
        return False  # the columns are in a different order
    unit = np.abs(norms - 1) < _UNIT_TOLERANCE
    return count_axes(weighted[unit] / norms[unit, None]) < _MIN_AXES


def is_single_volume(image: Path) -> bool:
    """Return whether the header describes a single volume; False if the header is damaged."""
    try:
        return len(read_shape(image)) == 3
    except DataError:
        return False


def n_entries(bval: Path | None, table: Path | None) -> int | None:
    """Return the number of volumes in the gradient files; None if they cannot be read."""
    try:
        bvals, _ = _read(bval, None, table)
    except DataError:
        return None
    return None if bvals is None else bvals.size


def _read(
    bval: Path | None, bvec: Path | None, table: Path | None
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Read b-values (V,) and vectors (V, 3)."""
    if table is not None:
        rows = read_table(table)
        if rows.shape[1] == 4:
            return rows[:, 3], rows[:, :3]
    if bval is None:
        return None, None
    bvals = read_table(bval).ravel()
    if bvec is None:
        return bvals, None
    vectors = read_table(bvec)
    if vectors.shape == (3, bvals.size):
        return bvals, vectors.T
    return bvals, vectors if vectors.shape == (bvals.size, 3) else None

"""Whether a DWI run has diffusion weighting at all, judged from its small files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bids_tractography.core.gradients import count_axes
from bids_tractography.core.images import read_shape
from bids_tractography.core.tables import read_table
from bids_tractography.errors import DataError

_UNIT_TOLERANCE = 0.1
# A tensor has six unknowns: fewer axes cannot be a diffusion scheme in any unit.
_MIN_AXES = 6


def only_b0(
    bval: Path | None, bvec: Path | None, table: Path | None, b0_threshold_s_mm2: float
) -> bool:
    """Tell whether all volumes are b=0.

    b-values in other units, such as 0, 1 and 2 ms/µm², are below any threshold in s/mm², too.
    What tells a b=0 run from such a scheme are the directions: six or more distinct unit vectors
    among the volumes with b > 0 are a diffusion scheme, which the reader of gradients then
    refuses with a message about units. Without directions to judge by, b-values that differ from
    each other are not taken for b=0.

    Parameters
    ----------
    bval, bvec : Path or None
        FSL's files.
    table : Path or None
        MRtrix3's table; it is used if given.
    b0_threshold_s_mm2 : float
        Volumes at or below it count as b=0.

    Returns
    -------
    bool
        False if the files are malformed: reading them will report it.
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
        return False  # its columns are in another order
    unit = np.abs(norms - 1) < _UNIT_TOLERANCE
    return count_axes(weighted[unit] / norms[unit, None]) < _MIN_AXES


def is_single_volume(image: Path) -> bool:
    """Tell from its header whether an image has one volume; False for a damaged header."""
    try:
        return len(read_shape(image)) == 3
    except DataError:
        return False


def n_entries(bval: Path | None, table: Path | None) -> int | None:
    """Return the number of volumes that the gradient files are for; None if not readable."""
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

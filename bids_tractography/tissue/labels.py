"""Tissue from segmentations: FreeSurfer's labels, or those of BIDS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_tractography.errors import DataError
from bids_tractography.images import Grid, Image, read_image
from bids_tractography.resample import resample

# FreeSurferColorLUT.txt. Brainstem and ventral diencephalon are mostly tracts and let streamlines
# pass; hypointensities are white matter.
_ASEG = {
    "wm": (2, 41, 7, 46, 16, 28, 60, 77, 78, 79, 85, 192, *range(250, 256)),
    "gm": (
        *(3, 42, 8, 47, 17, 53),
        *(9, 10, 11, 12, 13, 18, 19, 20, 26, 27, 48, 49, 50, 51, 52, 54, 55, 56, 58, 59),
    ),
    "csf": (4, 5, 14, 15, 24, 31, 43, 44, 63, 72, 213, 221),
}
# aparc and a2009s cortex, wmparc white matter.
_RANGES = {
    "gm": ((1000, 2999), (11100, 12999)),
    "wm": ((3000, 4999), (5001, 5002), (13100, 14999)),
}
# BIDS derivatives, common image-derived labels.
_BIDS = {"gm": (1, 8, 9, 10, 11), "wm": (2,), "csf": (3,)}
_LARGEST_BIDS_LABEL = 15


def read_labels(
    path: Path, grid: Grid
) -> tuple[dict[str, NDArray[np.float32]], dict[str, Any]]:
    """Read a segmentation as fractions: the share of each voxel that has labels of a tissue.

    Returns
    -------
    maps : dict of str to ndarray of float32, shape (X, Y, Z)
    record : dict
        Which labels are of which tissue.

    Raises
    ------
    DataError
        If it has no label of one of the tissues.
    """
    image = read_image(path, ndim=3)
    there = np.unique(image.data)
    labels = {int(label) for label in there if label > 0}
    is_freesurfer = max(labels, default=0) > _LARGEST_BIDS_LABEL
    of_tissue = {
        tissue: sorted(labels & set(known) | _in_ranges(labels, tissue, is_freesurfer))
        for tissue, known in (_ASEG if is_freesurfer else _BIDS).items()
    }
    missing = [tissue for tissue, own in of_tissue.items() if not own]
    if missing:
        raise DataError(
            f"{path} has no label of {' and '.join(missing)}.",
            "FreeSurfer's numbers are known, and those of BIDS: 1 GM, 2 WM, 3 CSF.",
        )
    maps = {
        tissue: resample(
            Image(np.isin(image.data, own).astype(np.float32), image.grid), grid, nearest=False
        )
        for tissue, own in of_tissue.items()
    }
    scheme = "FreeSurfer" if is_freesurfer else "BIDS"
    return maps, {"labels": of_tissue, "scheme": scheme}


def _in_ranges(labels: set[int], tissue: str, is_freesurfer: bool) -> set[int]:
    if not is_freesurfer:
        return set()
    ranges = _RANGES.get(tissue, ())
    return {label for label in labels for low, high in ranges if low <= label <= high}

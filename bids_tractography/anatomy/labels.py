"""Conversion of segmentation labels to tissues."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bids_tractography.core.images import Image
from bids_tractography.core.tissue import TISSUES, label_table
from bids_tractography.errors import DataError

_BIDS = {1: "gm", 2: "wm", 3: "csf"}
# FreeSurfer's colour table. As in MRtrix3's 5ttgen, brain stem, ventral diencephalon and optic
# chiasm are white matter, because streamlines pass through them, and so are its hypointensities.
_FREESURFER_WM = {2, 41, 7, 46, 16, 28, 60, 77, 78, 79, 85, 192, 250, 251, 252, 253, 254, 255}
_FREESURFER_GM = {
    *(3, 42, 8, 47),  # cerebral and cerebellar cortex
    *(9, 10, 11, 12, 13, 26, 48, 49, 50, 51, 52, 58),  # deep nuclei
    *(17, 18, 53, 54, 96, 97),  # hippocampus, amygdala
    *(80, 81, 82),  # hypointensities outside white matter
}
_FREESURFER_CSF = {4, 5, 14, 15, 24, 30, 31, 43, 44, 62, 63, 72}  # incl. vessels, choroid plexus
_FREESURFER_RANGES = {
    "gm": ((1000, 2999), (11100, 12175)),  # cortical parcels (Desikan; Destrieux 2009)
    "wm": ((3000, 5002), (13100, 14175)),  # white matter below each parcel, and unsegmented
}


def tissues_of_labels(
    image: Image, path: Path
) -> tuple[dict[str, NDArray[np.bool_]], str, Path | None]:
    """Convert the labels of a segmentation to tissue masks.

    A ``.tsv`` next to the file, or a ``dseg.tsv`` in a folder above it, defines the labels if it
    names all three tissues. Otherwise labels up to 3 are those of BIDS (1 grey matter, 2 white
    matter, 3 CSF), and an image with the labels 2 and 41 has FreeSurfer's.

    Parameters
    ----------
    image : Image
        The segmentation.
    path : Path
        File of the segmentation.

    Returns
    -------
    masks : dict of str to ndarray of bool, shape (X, Y, Z)
        Masks by tissue.
    scheme : str
        ``table``, ``bids`` or ``freesurfer``.
    table : Path or None
        Table that defines the labels; None if it is not used.

    Raises
    ------
    DataError
        If values are not whole numbers, or the meaning of the labels is unknown.
    """
    if (image.data != np.rint(image.data)).any() or (image.data < 0).any():
        raise DataError(
            f"{path} contains values that are not labels (whole numbers from 0).",
            "Segmentations must be resampled by nearest neighbour.",
        )
    labels = [int(label) for label in np.unique(image.data)]
    table = label_table(path)
    if table:
        tissue_of, scheme = table[1], "table"
    elif max(labels) <= max(_BIDS):
        tissue_of, scheme = _BIDS, "bids"
    elif {2, 41} <= set(labels):
        tissue_of = {label: tissue for label in labels if (tissue := freesurfer_tissue(label))}
        scheme = "freesurfer"
    else:
        raise DataError(
            f"{path}: its labels {labels[:12]} are neither FreeSurfer's nor BIDS' three tissues.",
            f"Add a table {path.name.split('.')[0]}.tsv with columns index and name next to it.",
        )
    masks = {
        tissue: np.isin(image.data, [label for label, of in tissue_of.items() if of == tissue])
        for tissue in TISSUES
    }
    return masks, scheme, table[0] if table else None


def freesurfer_tissue(label: int) -> str | None:
    """Return the tissue of a FreeSurfer label (aseg, aparc+aseg, wmparc), or None."""
    known = {"wm": _FREESURFER_WM, "gm": _FREESURFER_GM, "csf": _FREESURFER_CSF}
    for tissue in TISSUES:
        ranges = _FREESURFER_RANGES.get(tissue, ())
        if label in known[tissue] or any(low <= label <= high for low, high in ranges):
            return tissue
    return None

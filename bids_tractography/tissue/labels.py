"""Labels of a segmentation become tissues."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bids_tractography.errors import DataError
from bids_tractography.files import read_text
from bids_tractography.images import Image

TISSUES = ("wm", "gm", "csf")
_BIDS = {1: "gm", 2: "wm", 3: "csf"}
# FreeSurfer's colour table. Brain stem, ventral diencephalon and optic chiasm are white matter as
# in MRtrix3's 5ttgen: streamlines pass through them. So are hypointensities of white matter.
_FREESURFER_WM = {2, 41, 7, 46, 16, 28, 60, 77, 78, 79, 85, 192, 250, 251, 252, 253, 254, 255}
_FREESURFER_GM = {
    *(3, 42, 8, 47),  # cerebral and cerebellar cortex
    *(9, 10, 11, 12, 13, 26, 48, 49, 50, 51, 52, 58),  # deep nuclei
    *(17, 18, 53, 54, 96, 97),  # hippocampus, amygdala
    *(80, 81, 82),  # hypointensities outside white matter
}
_FREESURFER_CSF = {4, 5, 14, 15, 24, 30, 31, 43, 44, 62, 63, 72}  # with vessels, choroid plexus
_FREESURFER_RANGES = {
    "gm": ((1000, 2999), (11100, 12175)),  # cortical parcels (Desikan; Destrieux 2009)
    "wm": ((3000, 5002), (13100, 14175)),  # white matter below each, and unsegmented
}
_INDEX = re.compile(r"[0-9]{1,9}")
# Words of tables: abbreviations whole, names in part. Tested in this order.
_WORDS = {
    "wm": re.compile(r"^wm$|white.?matter", re.IGNORECASE),
    "gm": re.compile(r"^[cs]?gm$|gr[ae]y.?matter|^bg$|basal.?ganglia", re.IGNORECASE),
    "csf": re.compile(r"^csf$|cerebro-?spinal", re.IGNORECASE),
}


def tissues_of_labels(
    image: Image, path: Path
) -> tuple[dict[str, NDArray[np.bool_]], str, Path | None]:
    """Tell the tissues of a segmentation apart.

    A ``.tsv`` beside it, or a ``dseg.tsv`` above it, decides where it names all three tissues.
    Otherwise labels up to 3 are BIDS' (1 grey matter, 2 white matter, 3 cerebrospinal fluid), and
    an image with 2 and 41 has FreeSurfer's.

    Parameters
    ----------
    image : Image
    path : Path
        Where it was read from.

    Returns
    -------
    masks : dict of str to ndarray of bool, shape (X, Y, Z)
        By tissue.
    scheme : str
        ``table``, ``bids`` or ``freesurfer``.
    table : Path or None
        The table that decided.

    Raises
    ------
    DataError
        If values are not whole numbers, or nothing says what they mean.
    """
    if (image.data != np.rint(image.data)).any() or (image.data < 0).any():
        raise DataError(
            f"{path} holds values that are no labels (whole numbers from 0).",
            "Resample segmentations with the nearest neighbour.",
        )
    labels = [int(label) for label in np.unique(image.data)]
    table = _table(path)
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
            f"Put a table {path.name.split('.')[0]}.tsv with columns index and name beside it.",
        )
    masks = {
        tissue: np.isin(image.data, [label for label, of in tissue_of.items() if of == tissue])
        for tissue in TISSUES
    }
    return masks, scheme, table[0] if table else None


def freesurfer_tissue(label: int) -> str | None:
    """Return the tissue of a label of FreeSurfer (aseg, aparc+aseg, wmparc), None if it is none."""
    known = {"wm": _FREESURFER_WM, "gm": _FREESURFER_GM, "csf": _FREESURFER_CSF}
    for tissue in TISSUES:
        ranges = _FREESURFER_RANGES.get(tissue, ())
        if label in known[tissue] or any(low <= label <= high for low, high in ranges):
            return tissue
    return None


def find_table(path: Path) -> Path | None:
    """Find the table that says what the labels of a segmentation mean."""
    found = _table(path)
    return found[0] if found else None


def _table(path: Path) -> tuple[Path, dict[int, str]] | None:
    """Return the nearest table that names all three tissues, and what it says."""
    beside = path.with_name(path.name.split(".")[0] + ".tsv")
    for candidate in (beside, *(folder / "dseg.tsv" for folder in path.parents)):
        if candidate.is_file():
            tissue_of = _read_table(candidate)
            if set(tissue_of.values()) == set(TISSUES):
                return candidate, tissue_of
        if (candidate.parent / "dataset_description.json").exists() and candidate != beside:
            break
    return None


def _read_table(path: Path) -> dict[int, str]:
    tissue_of: dict[int, str] = {}
    try:
        rows = list(csv.DictReader(read_text(path).split("\n"), delimiter="\t"))
    except csv.Error as error:
        raise DataError(f"{path} is not a table separated by tabs: {error}.") from None
    for row in rows:
        words = [row.get("abbreviation") or "", row.get("name") or ""]
        index = (row.get("index") or "").strip()
        for tissue, pattern in _WORDS.items():
            if _INDEX.fullmatch(index) and any(pattern.search(word) for word in words):
                tissue_of.setdefault(int(index), tissue)
    return tissue_of

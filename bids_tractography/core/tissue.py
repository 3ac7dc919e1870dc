"""Tissue names, sources of tissue fractions, and tables of segmentation labels."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from bids_tractography.errors import DataError
from bids_tractography.machine.files import read_text

TISSUES = ("wm", "gm", "csf")
_INDEX = re.compile(r"[0-9]{1,9}")
# Words in label tables, tested in this order: abbreviations must match whole words, names may be
# parts of words.
_WORDS = {
    "wm": re.compile(r"^wm$|white.?matter", re.IGNORECASE),
    "gm": re.compile(r"^[cs]?gm$|gr[ae]y.?matter|^bg$|basal.?ganglia", re.IGNORECASE),
    "csf": re.compile(r"^csf$|cerebro-?spinal", re.IGNORECASE),
}


@dataclass(frozen=True)
class TissueSource:
    """The source from which tissue fractions are computed.

    Parameters
    ----------
    kind : str
        ``probseg``, ``dseg``, ``5tt``, ``t1w``, ``dwi`` or ``files``.
    paths : tuple of Path
        Files of the source; none for ``dwi``, whose fractions come from the diffusion model.
    """

    kind: str
    paths: tuple[Path, ...]


def label_table(path: Path) -> tuple[Path, dict[int, str]] | None:
    """Find the nearest table of a segmentation's labels that names all three tissues.

    Parameters
    ----------
    path : Path
        The segmentation.

    Returns
    -------
    table : Path
    tissue_of : dict of int to str
        Tissue of each label.

    Raises
    ------
    DataError
        If a table is not tab-separated.
    """
    own = path.with_name(path.name.split(".")[0] + ".tsv")
    for candidate in (own, *(folder / "dseg.tsv" for folder in path.parents)):
        if candidate.is_file():
            tissue_of = _read_table(candidate)
            if set(tissue_of.values()) == set(TISSUES):
                return candidate, tissue_of
        if (candidate.parent / "dataset_description.json").exists() and candidate != own:
            break
    return None


def _read_table(path: Path) -> dict[int, str]:
    tissue_of: dict[int, str] = {}
    try:
        rows = list(csv.DictReader(read_text(path).split("\n"), delimiter="\t"))
    except csv.Error as error:
        raise DataError(f"{path} is not a tab-separated table: {error}.") from None
    for row in rows:
        words = [row.get("abbreviation") or "", row.get("name") or ""]
        index = (row.get("index") or "").strip()
        for tissue, pattern in _WORDS.items():
            if _INDEX.fullmatch(index) and any(pattern.search(word) for word in words):
                tissue_of.setdefault(int(index), tissue)
    return tissue_of

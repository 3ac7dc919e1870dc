"""BIDS file names, their entities, and matching of names with a DWI run."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

# run-1 and run-01 denote the same run.
_INDEX = frozenset({"run", "echo", "flip", "inv", "split", "chunk"})
_TEMPLATE = re.compile(
    r"MNI|ICBM|IXI|NIHPD|OASIS|UNC|Talairach|Colin|fsaverage|fsLR|onavg|dhcp|CIVET|WHS|PNC|NKI",
    re.IGNORECASE,
)
_NATIVE = frozenset({
    "anat", "individual", "native", "scanner", "subject", "t1w", "t2w", "t1", "t2", "flair",
    "pdw", "mp2rage", "unit1", "fsnative",
})  # fmt: skip

GRID_ENTITIES = frozenset({"space", "cohort", "res", "den"})
"""Entities of the coordinate system and its grid."""

PRODUCT_ENTITIES = GRID_ENTITIES | {
    "desc", "label", "seg", "atlas", "scale", "hemi", "model", "param", "stat", "tract", "track",
    "bundle", "bundles", "method", "subset", "from", "to", "mode", "fmap",
}  # fmt: skip
"""Entities that describe a derived file, not the run that it was computed from."""


@dataclass(frozen=True)
class Name:
    """A parsed BIDS file name.

    Parameters
    ----------
    entities : mapping of str to str
        Values by key (``sub``, ``ses``, ``dir``, ...) in the order of the name. Indices have no
        leading zeros.
    suffix : str
        Last part of the stem, e.g. ``dwi``.
    extension : str
        Everything from the first dot on, e.g. ``.nii.gz``.
    """

    entities: Mapping[str, str]
    suffix: str
    extension: str

    @property
    def space(self) -> str | None:
        """Label of the coordinate system.

        None for the native space, which ``space-orig`` denotes as well.
        """
        label = self.entities.get("space")
        return None if label is None or label.lower() == "orig" else label


def parse_name(file_name: str) -> Name:
    """Parse a file name, whether or not BIDS defines its entities.

    Parts without a hyphen, except the suffix, count as entities without a value.
    """
    stem, dot, extension = file_name.partition(".")
    parts = stem.split("_")
    suffix = parts.pop() if "-" not in parts[-1] else ""
    entities: dict[str, str] = {}
    for part in parts:
        key, _, value = part.partition("-")
        if key in _INDEX and value.isdecimal():
            value = str(int(value))
        entities.setdefault(key, value)
    return Name(entities, suffix, dot + extension)


def why_not_of_run(
    dwi: Mapping[str, str], other: Mapping[str, str], describing: Collection[str] = ()
) -> str | None:
    """Return why a file does not belong to a DWI according to its name, or None if it may.

    A file may belong to a DWI if none of its entities contradicts those of the DWI, and if it does
    not have an entity that the DWI lacks.

    Parameters
    ----------
    dwi, other : mapping of str to str
        Entities of the DWI and of the file.
    describing : collection of str
        Keys that describe the file itself and are not compared.
    """
    for key, value in other.items():
        if key in describing:
            continue
        if key not in dwi:
            return f"{label(key, value)}: the DWI has no {key}"
        if dwi[key] != value:
            return f"{label(key, value)}: the DWI is {label(key, dwi[key])}"
    return None


def label(key: str, value: str) -> str:
    """Format an entity as in a file name."""
    return f"{key}-{value}" if value else key


def is_template(space: object) -> bool:
    """Return whether a space is that of a template rather than the participant."""
    return _TEMPLATE.match(str(space)) is not None


def is_native(space: str | None) -> bool:
    """Return whether a label denotes a space of the participant's own anatomy.

    A missing label does.
    """
    return space is None or space.lower() in _NATIVE

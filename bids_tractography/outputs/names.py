"""File names of derivatives.

Names follow BEP016 (``dwimap``) and BEP046 (``tractogram``), which are proposals; a
``.bidsignore`` keeps the validator from stumbling over them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

PIPELINE = "bids_tractography"
BIDS_VERSION = "1.11.1"
WORK = ".work"  # locks, and batches unless --work-dir names another folder

# As the two proposals and the released schema order them.
_ENTITY_ORDER = (
    *("sub", "ses", "sample", "task", "acq", "ce", "trc", "rec", "dir", "run", "mod", "echo"),
    *("flip", "inv", "mt", "part", "proc", "hemi", "space", "tract", "track", "model", "param"),
    *("split", "recording", "chunk", "atlas", "seg", "scale", "res", "den", "label", "desc"),
)


def entities_of(name: str) -> dict[str, str]:
    """Split a BIDS file name into its entities, in order."""
    pairs = (part.partition("-") for part in name.split("_")[:-1])
    return {key: value for key, separator, value in pairs if separator}


def file_name(entities: Mapping[str, str], suffix: str, extension: str) -> str:
    """Join entities in the order of the specification; unknown ones follow ``run``."""
    unknown = _ENTITY_ORDER.index("run") + 0.5

    def place(key: str) -> float:
        return _ENTITY_ORDER.index(key) if key in _ENTITY_ORDER else unknown

    ordered = sorted(entities.items(), key=lambda item: place(item[0]))
    return "_".join([*(f"{key}-{value}" for key, value in ordered), suffix]) + extension


def sidecar_path(path: Path) -> Path:
    """Return the path of the JSON beside a file; of the JSON itself, its own."""
    return path.with_name(path.name.removesuffix(".gz").rpartition(".")[0] + ".json")


def file_of_sidecar(sidecar: Path, name: str) -> Path:
    """Return the path of a file that a sidecar names.

    Raises
    ------
    ValueError
        If the file would not lie in the directory of the sidecar under the sidecar's name.
    """
    path = sidecar.parent / name
    if Path(name).name != name or sidecar_path(path) != sidecar_path(sidecar):
        raise ValueError(f"{name!r} is not a file of {sidecar.name}")
    return path

"""File names of derivatives.

Names follow BEP016 (``dwimap``) and BEP046 (``tractogram``). As these are proposals, a
``.bidsignore`` hides the files from the validator.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

PIPELINE = "bids_tractography"
WORK = ".work"  # locks, and unfinished batches unless --work-dir is given

# In the order of the two proposals and the released schema.
_ENTITY_ORDER = (
    *("sub", "ses", "sample", "task", "acq", "ce", "trc", "rec", "dir", "run", "mod", "echo"),
    *("flip", "inv", "mt", "part", "proc", "hemi", "space", "tract", "track", "model", "param"),
    *("split", "recording", "chunk", "atlas", "seg", "scale", "res", "den", "label", "desc"),
)

DERIVED_ENTITIES = {"tract", "track", "model", "param", "label", "desc"}
"""Entities that names of results have besides those of the DWI."""


def entities_of(name: str) -> dict[str, str]:
    """Split a BIDS file name into its entities, in order."""
    pairs = (part.partition("-") for part in name.split("_")[:-1])
    return {key: value for key, separator, value in pairs if separator}


def with_configuration(entities: Mapping[str, str], name: str) -> dict[str, str]:
    """Add the name of a configuration to the entities of a derivative.

    It is the beginning of ``desc``: ``det45`` gives ``desc-det45``, and a seed mask
    ``desc-det45Seed``.
    """
    desc = entities.get("desc", "")
    return {**entities, "desc": f"{name}{desc[:1].upper()}{desc[1:]}"}


def belongs_to(desc: str, name: str) -> bool:
    """Return whether a ``desc`` is one that `with_configuration` makes with a name."""
    return desc == name or (desc.startswith(name) and desc[len(name) :][:1].isupper())


def file_name(entities: Mapping[str, str], suffix: str, extension: str) -> str:
    """Join entities in the order of the specification; unknown entities follow ``run``.

    Parameters
    ----------
    entities : mapping of str to str
        Values by key, e.g. ``{"sub": "01", "desc": "brain"}``.
    suffix : str
        Suffix, e.g. ``mask``.
    extension : str
        Extension with its dots, e.g. ``.nii.gz``.
    """
    unknown = _ENTITY_ORDER.index("run") + 0.5

    def rank(key: str) -> float:
        return _ENTITY_ORDER.index(key) if key in _ENTITY_ORDER else unknown

    ordered = sorted(entities.items(), key=lambda item: rank(item[0]))
    return "_".join([*(f"{key}-{value}" for key, value in ordered), suffix]) + extension


def sidecar_path(path: Path) -> Path:
    """Return the path of the JSON sidecar of a file; for a sidecar, its own path."""
    return path.with_name(path.name.removesuffix(".gz").rpartition(".")[0] + ".json")


def file_of_sidecar(sidecar: Path, name: str) -> Path:
    """Return the path of a file that is named in a sidecar.

    Raises
    ------
    ValueError
        If the file is not in the folder of the sidecar, or does not share its name.
    """
    path = sidecar.parent / name
    if Path(name).name != name or sidecar_path(path) != sidecar_path(sidecar):
        raise ValueError(f"{name!r} is not a file of {sidecar.name}")
    return path

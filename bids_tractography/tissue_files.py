"""Which files of the datasets say where the tissues are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bids_tractography.entities import identity, is_template
from bids_tractography.errors import NoMatchError

Found = tuple[str, Path, Mapping[str, Any]]
"""A file: its dataset's name, its path, its entities (pybids names)."""
Get = Callable[..., list[Found]]
"""Asks all datasets of a participant for files with some entities."""

_IMAGE = [".nii.gz", ".nii"]
_TISSUES = ("wm", "gm", "csf")


@dataclass(frozen=True)
class TissueFiles:
    """What there is for one DWI run.

    Parameters
    ----------
    probseg : mapping of str to Path, or None
        Fractions of ``wm``, ``gm`` and ``csf``.
    dseg : Path or None
        A segmentation.
    fivett : Path or None
        A 5TT image.
    t1w : Path or None
        A T1-weighted image.
    t1w_mask : Path or None
        The brain in it.
    faults : mapping of str to NoMatchError
        Kinds of which there are several files.
    """

    probseg: Mapping[str, Path] | None = None
    dseg: Path | None = None
    fivett: Path | None = None
    t1w: Path | None = None
    t1w_mask: Path | None = None
    faults: Mapping[str, NoMatchError] = field(default_factory=dict)

    @property
    def by_kind(self) -> dict[str, tuple[Path, ...]]:
        """Files of each kind of source that there is, in the order in which they are preferred."""
        t1w = tuple(path for path in (self.t1w, self.t1w_mask) if path)
        found = {
            "probseg": tuple((self.probseg or {}).values()),
            "dseg": (self.dseg,) if self.dseg else (),
            "5tt": (self.fivett,) if self.fivett else (),
            "t1w": t1w if self.t1w else (),
        }
        return {kind: paths for kind, paths in found.items() if paths or kind in self.faults}


def find_tissue(get: Get, dwi: Mapping[str, Any]) -> TissueFiles:
    """Find what tells the tissues of a DWI run.

    Files in a standard space never match. Those of the DWI's own space go first, then those
    that name none; then the session's before the participant's, and ``anat`` before ``dwi``.

    Parameters
    ----------
    get : callable
        ``get(**entities)`` lists the participant's files in all datasets, of all sessions.
    dwi : mapping
        Entities of the DWI, pybids names.

    Returns
    -------
    TissueFiles
        Where several files of one kind have the best rank, that is a fault of the kind: no
        other has to suffer from it.
    """
    faults: dict[str, NoMatchError] = {}

    def best(kind: str, what: str, key: str, files: Iterable[Found]) -> Found | None:
        try:
            return _one(files, dwi, what, f"Name one with {key}.")
        except NoMatchError as error:
            faults[kind] = error
            return None

    images = get(extension=_IMAGE)
    t1ws = [file for file in get(suffix="T1w", extension=_IMAGE) if _whole_head(file)]
    dsegs = [file for file in get(suffix="dseg", extension=_IMAGE) if _is_tissue_dseg(file)]
    fivetts = [file for file in images if "5tt" in file[1].name.lower()]
    t1w = best("t1w", "T1-weighted images", "tissue.image", t1ws)
    probseg = None
    try:
        probseg = _probseg(get, dwi)
    except NoMatchError as error:
        faults["probseg"] = error
    return TissueFiles(
        probseg=probseg,
        dseg=_path(best("dseg", "segmentations", "tissue.segmentation", dsegs)),
        fivett=_path(best("5tt", "5TT images", "tissue.image", fivetts)),
        t1w=_path(t1w),
        t1w_mask=_mask_of(t1w, get(suffix="mask", extension=_IMAGE)) if t1w else None,
        faults=faults,
    )


def _probseg(get: Get, dwi: Mapping[str, Any]) -> dict[str, Path] | None:
    groups: dict[Any, dict[str, Found]] = {}
    for file in get(suffix="probseg", extension=_IMAGE):
        tissue = str(file[2].get("label")).lower()
        if tissue in _TISSUES:
            without_label = {k: str(v) for k, v in file[2].items() if k != "label"}
            key = (file[0], file[1].parent, tuple(sorted(without_label.items())))
            groups.setdefault(key, {})[tissue] = file
    whole = [group for group in groups.values() if len(group) == len(_TISSUES)]
    best = _one(
        [group["wm"] for group in whole],
        dwi,
        "sets of tissue fractions",
        "Name three files with tissue.kind: files.",
    )
    group = next((group for group in whole if best and group["wm"][1] == best[1]), None)
    return {tissue: group[tissue][1] for tissue in _TISSUES} if group else None


def _whole_head(file: Found) -> bool:
    return file[2].get("desc") in (None, "preproc") and file[2].get("part") in (None, "mag")


def _is_tissue_dseg(file: Found) -> bool:
    named = {"atlas", "seg", "segmentation", "label", "tract", "bundle"} & set(file[2])
    return file[2].get("desc") in (None, "aseg", "aparcaseg") and not named


def _mask_of(t1w: Found, masks: Iterable[Found]) -> Path | None:
    """Find the brain mask that lies beside a T1w and agrees with it in all its entities."""
    own = identity(t1w[2])
    agreeing = [
        (len(identity(entities)), path)
        for _, path, entities in masks
        if path.parent == t1w[1].parent
        and entities.get("desc") == "brain"
        and entities.get("space") == t1w[2].get("space")
        and identity(entities).items() <= own.items()
    ]
    return max(agreeing)[1] if agreeing else None


def _one(files: Iterable[Found], dwi: Mapping[str, Any], what: str, remedy: str) -> Found | None:
    """Return the file of the best rank.

    Raises
    ------
    NoMatchError
        If several have it.
    """
    ranked = [(rank, file) for file in files if (rank := _rank(file, dwi)) is not None]
    if not ranked:
        return None
    least = min(rank for rank, _ in ranked)
    best = {file[1]: file for rank, file in ranked if rank == least}
    if len(best) > 1:
        listed = "\n  ".join(sorted(str(path) for path in best))
        raise NoMatchError(f"there are several {what} for the DWI:\n  {listed}\n", remedy)
    return next(iter(best.values()))


def _rank(file: Found, dwi: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Rank a file, the least first; None for one that does not belong to the DWI."""
    entities = file[2]
    space, session = entities.get("space"), entities.get("session")
    if is_template(space):
        return None
    if session is not None and session != dwi.get("session"):
        return None
    beside = entities.get("datatype") == "dwi"
    if entities.get("datatype") not in ("anat", "dwi"):
        return None
    if beside and not identity(entities).items() <= identity(dwi).items():
        return None
    spaces = [dwi.get("space"), None]
    descs = ["aseg", "aparcaseg", "preproc"]
    desc = entities.get("desc")
    return (
        spaces.index(space) if space in spaces else len(spaces),
        int(session is None and dwi.get("session") is not None),
        int(beside),
        descs.index(desc) if desc in descs else len(descs),
    )


def _path(file: Found | None) -> Path | None:
    return file and file[1]

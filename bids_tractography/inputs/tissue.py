"""Which files tell where white matter, grey matter and fluid are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bids_tractography.config import Config
from bids_tractography.config.files import File
from bids_tractography.config.section import sections_in
from bids_tractography.errors import NoInputError

# Finds the file of a DWI run by pybids entities: None if there is none, an error if several.
Find = Callable[[Mapping[str, Any]], Path | None]

_TISSUES = ("wm", "gm", "csf")
_KINDS = ("probseg", "dseg", "5tt", "t1w", "dwi")
_REMEDIES = {
    "probseg": "label-WM, label-GM and label-CSF _probseg are needed, in --derivatives.",
    "dseg": "desc-aseg_dseg or _dseg is needed, in --derivatives.",
    "5tt": "A _5tt image is needed, in --derivatives; or name it: tissue.image.",
    "t1w": "anat/*_T1w is needed; or name it: tissue.image.",
}


@dataclass(frozen=True)
class TissueFiles:
    """The source of tissue fractions that a run has.

    Parameters
    ----------
    kind : str
        ``probseg``, ``dseg``, ``5tt``, ``t1w``, ``dwi`` or ``files``.
    files : mapping of str to Path
        ``wm``, ``gm`` and ``csf``; or ``image``; or none.
    """

    kind: str
    files: Mapping[str, Path]


def find_tissue(config: Config, named: Mapping[str, Path], find: Find) -> TissueFiles:
    """Settle on the source that is asked for, or the first there is.

    Parameters
    ----------
    config : Config
    named : mapping of str to Path
        Files that the configuration names, by key.
    find : callable

    Raises
    ------
    NoInputError
        If it is not there.
    """
    wanted = config.tissue.kind
    given = {
        key.removeprefix("tissue."): named[key]
        for key, section in sections_in(config)
        if isinstance(section, File) and key.startswith("tissue.")
    }
    if wanted == "files":
        return TissueFiles(wanted, given)
    if given:
        return TissueFiles(wanted, {"image": next(iter(given.values()))})
    for kind in _KINDS if wanted == "auto" else (wanted,):
        files = _files(kind, config, find)
        if files is not None:
            return TissueFiles(kind, files)
    raise NoInputError(
        f"tissue.kind {wanted}: there is no such image of this DWI run.",
        _REMEDIES.get(
            wanted,
            "Give tissue fractions, a segmentation, a 5TT or a T1w image (--derivatives), or use "
            "model.kind=msmt_csd, which has fractions of its own.",
        ),
    )


def _files(kind: str, config: Config, find: Find) -> dict[str, Path] | None:
    """Find the files of one kind of source; None if one is missing."""
    match kind:
        case "probseg":
            found = {t: find({"suffix": "probseg", "label": t.upper()}) for t in _TISSUES}
            files = {tissue: path for tissue, path in found.items() if path is not None}
            return files if len(files) == len(_TISSUES) else None
        case "dseg":
            aseg = find({"suffix": "dseg", "desc": ["aseg", "aparcaseg"]})
            image = aseg or find({"suffix": "dseg", "desc": None})
        case "5tt":
            image = find({"suffix": "5tt"}) or find({"desc": "5tt"})
        case "t1w":
            image = find({"suffix": "T1w", "desc": "preproc"}) or find(
                {"suffix": "T1w", "desc": None}
            )
        case _:
            return {} if config.model.kind == "msmt_csd" else None
    return None if image is None else {"image": image}

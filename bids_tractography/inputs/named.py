"""Files named in the configuration, by path or by BIDS filters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from bids.layout import Query

from bids_tractography.config.files import FileConfig
from bids_tractography.errors import NoMatchError
from bids_tractography.inputs.companions import only, why_not_in_space
from bids_tractography.inputs.datasets import join_names
from bids_tractography.inputs.entities import PRODUCT_ENTITIES, why_not_of_run
from bids_tractography.inputs.filters import translate
from bids_tractography.inputs.index import BidsFile, ignored_reason
from bids_tractography.inputs.layout import known_entities
from bids_tractography.machine.files import check_file

RAW = "raw"  # the main dataset in `scope`
# pybids' names of entities that differ from those in file names.
_SHORT = {
    "subject": "sub", "session": "ses", "acquisition": "acq", "direction": "dir",
    "reconstruction": "rec", "ceagent": "ce", "tracer": "trc", "staining": "stain",
    "inversion": "inv", "segmentation": "seg", "modality": "mod",
}  # fmt: skip

Get = Callable[[Mapping[str, Any], str | None], list[BidsFile]]
"""Queries pybids filters, in all datasets of a participant or in one."""


def find_named(get: Get, key: str, named: FileConfig, dwi: BidsFile) -> Path:
    """Find a file named in the configuration.

    With filters, files of the DWI's session take precedence over those of the whole participant, as
    in the inheritance principle; if several match, those of the DWI's run are chosen.

    Parameters
    ----------
    get : callable
        Queries the datasets.
    key : str
        Dotted path of the key in the configuration.
    named : FileConfig
        Path or filters.
    dwi : BidsFile
        The DWI that the file is for.

    Raises
    ------
    NoMatchError
        If the filters match no file of this run, or several.
    NoInputError
        If the file cannot be read.
    """
    if named.path is not None:
        return check_file(named.path, f"{key}.path").absolute()
    given = named.filters or {}
    unknown = sorted(set(given) - known_entities())
    if unknown:
        raise NoMatchError(f"{key}.filters: pybids does not know {', '.join(unknown)}.")
    anything = {"extension": list(named.extensions)}
    filters = {**anything, **translate(given)}
    found = get({"session": dwi.session or Query.NONE, **filters}, named.scope)
    if not found and dwi.session:
        found = get({"session": Query.NONE, **filters}, named.scope)
    if not found:
        where = "_".join(f"{k}-{dwi.entities[k]}" for k in ("sub", "ses") if k in dwi.entities)
        there = sorted(file.path.name for file in get(anything, named.scope))
        raise NoMatchError(
            f"{key}.filters match no file of {where}: {given}.",
            f"Available: {join_names(there)}.",
        )
    best = _of_run(dwi, found, given, key)
    file = only(best, f"files for {key}.filters", "Add entities to the filters.")
    return check_file(file.path)


def _of_run(
    dwi: BidsFile, found: Iterable[BidsFile], filters: Mapping[str, object], key: str
) -> list[BidsFile]:
    """Return the files that belong best to a DWI.

    Anatomical images have runs and acquisitions of their own; files in the folder of the DWI share
    the DWI's. Entities in the filters, and entities that describe a product, are not compared.

    Raises
    ------
    NoMatchError
        If none belongs to the DWI.
    """
    described = PRODUCT_ENTITIES | {_SHORT.get(entity, entity) for entity in filters}
    ranked: list[tuple[tuple[int, ...], BidsFile]] = []
    reasons: list[str] = []
    for file in found:
        reason, rank = ignored_reason(file), (0, 0, 0)
        if "dwi" in file.folders:
            reason = reason or why_not_of_run(dwi.entities, file.entities, described)
            shared = file.entities.items() & dwi.entities.items()
            rank = (0, int(why_not_in_space(dwi, file) is not None), 2 - len(shared))
        else:
            common = {k: v for k, v in file.entities.items() if k in dwi.entities}
            other_run = why_not_of_run(dwi.entities, common, described)
            rank = (int(other_run is not None), 0, 0)
        if reason:
            reasons.append(f"{file.path.name} ({reason})")
        else:
            ranked.append((rank, file))
    if not ranked:
        raise NoMatchError(f"{key}.filters only match files of other runs: {join_names(reasons)}.")
    lowest = min(rank for rank, _ in ranked)
    return [file for rank, file in ranked if rank == lowest]

"""Which gradient files, sidecars and masks belong to a DWI, and why others do not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bids_tractography.core.images import Grid, read_grid
from bids_tractography.errors import DataError, NoMatchError
from bids_tractography.inputs.entities import GRID_ENTITIES, label, why_not_of_run
from bids_tractography.inputs.index import BidsFile, ignored_reason
from bids_tractography.machine.files import check_file

_MASK_DESCRIBING = GRID_ENTITIES | {"desc", "label"}
_MISSPELLED = {".bvals": ".bval", ".bvecs": ".bvec"}

SameGrid = Callable[[Path], str | None]
"""States why an image is not on the grid of the DWI; None if it is."""


@dataclass(frozen=True)
class Match:
    """The file that was taken, and those that were not.

    Parameters
    ----------
    file : BidsFile or None
    passed_over : tuple of (BidsFile, str)
        Files of the same kind, each with the reason.
    """

    file: BidsFile | None
    passed_over: tuple[tuple[BidsFile, str], ...] = ()

    @property
    def path(self) -> Path | None:
        """Path of the file that was taken."""
        return self.file.path if self.file else None

    def reasons(self) -> str:
        """List the files that were not taken, with the reasons."""
        return "; ".join(f"{file.path.name} ({reason})" for file, reason in self.passed_over)


def inherited(dwi: BidsFile, files: Iterable[BidsFile], extension: str) -> Match:
    """Find the file that belongs to a DWI by the inheritance principle.

    It lies in the folder of the image or in one above it, and none of its entities is missing
    from or different in the image's name; ``space-orig`` is the space of an image whose name has
    none. The nearest folder goes first, then the file with the
    most entities. (pybids' own search accepts files of another run that have one entity more.)

    Parameters
    ----------
    dwi : BidsFile
    files : iterable of BidsFile
        Files of its dataset.
    extension : str

    Raises
    ------
    NoMatchError
        If several fit equally well.
    """
    folders = list(dwi.path.parents)
    belonging: list[tuple[tuple[int, int], BidsFile]] = []
    passed_over = []
    for file in files:
        spelled = _MISSPELLED.get(file.name.extension, file.name.extension)
        if file.name.suffix != "dwi" or spelled != extension or file.path.parent not in folders:
            continue
        entities = dict(file.name.entities)
        if dwi.name.space is None and entities.get("space") == "orig":
            del entities["space"]  # the space of an image that was not transformed
        reason = ignored_reason(file) or why_not_of_run(dwi.entities, entities)
        if spelled != file.name.extension:
            reason = f"BIDS names such a file {extension}"
        if reason is None:
            distance = folders.index(file.path.parent)
            belonging.append(((distance, -len(file.name.entities)), file))
        else:
            passed_over.append((file, reason))
    best = _best(belonging)
    what = f"{extension} files for {dwi.path.name}"
    taken = only(best, what, "Keep the one that is right.") if best else None
    return Match(taken, tuple(passed_over))


def brain_mask(
    dwi: BidsFile, masks: Iterable[BidsFile], same_grid: SameGrid, *, any_kind: bool = False
) -> Match:
    """Find the brain mask of a DWI.

    A mask in the space of the DWI, by name, goes before one without ``space-`` (or with
    ``space-orig``) on the very same grid; no other is taken. Masks of the DWI's own dataset go
    first, then the nearest, then those with the most entities in common.

    Parameters
    ----------
    dwi : BidsFile
    masks : iterable of BidsFile
        Mask images of the participant.
    same_grid : callable
        Opens headers; called only where the names leave it open.
    any_kind : bool
        Whether the user chose among masks by ``desc`` or ``label``; otherwise only ``desc-brain``
        and ``label-brain`` are brain masks.

    Raises
    ------
    NoMatchError
        If several fit equally well.
    NoInputError
        If a mask that would have to be compared cannot be read.
    """
    exact, unlabelled, passed_over = [], [], []
    for mask in masks:
        if mask.session not in (None, dwi.session):
            continue
        reason = (
            ignored_reason(mask)
            or (None if any_kind else _why_no_brain_mask(mask))
            or why_not_of_run(dwi.entities, mask.entities, _MASK_DESCRIBING)
            or why_not_in_space(dwi, mask)
        )
        if reason:
            passed_over.append((mask, reason))
        elif _same_labels(dwi, mask):
            exact.append(mask)
        else:
            unlabelled.append(mask)
    for own in (True, False):
        of_dataset = [mask for mask in exact if (mask.dataset == dwi.dataset) is own]
        if not of_dataset:
            for mask in unlabelled:
                if (mask.dataset == dwi.dataset) is own:
                    if reason := same_grid(mask.path):
                        passed_over.append((mask, reason))
                    else:
                        of_dataset.append(mask)
        if of_dataset:
            best = _best((_mask_rank(dwi, mask), mask) for mask in of_dataset)
            what = f"brain masks of {dwi.path.name}"
            return Match(only(best, what, "Choose one with --bids-filter-file."))
    return Match(None, tuple(passed_over))


def why_not_in_space(dwi: BidsFile, image: BidsFile) -> str | None:
    """State by the names why an image is not in the DWI's space and resolution.

    A missing label, or ``space-orig``, leaves it open and gives None.
    """
    own, space = dwi.name.space, image.name.space
    if own is not None and space is not None and own != space:
        return f"space-{space} is not the DWI's space"
    if own is None and space is not None:
        return f"space-{space} is not the DWI's space: the DWI has no space"
    for key in GRID_ENTITIES - {"space"}:
        value = image.name.entities.get(key)
        if value is not None and value != dwi.name.entities.get(key):
            return why_not_of_run(dwi.entities, {key: value})
    return None


def grid_comparison(dwi: Path) -> SameGrid:
    """Return a function that compares the grids of images with that of the DWI.

    The function raises NoInputError for an image that cannot be read at all.
    """

    @cache
    def own() -> Grid:
        return read_grid(dwi)

    @cache
    def why_not(path: Path) -> str | None:
        check_file(path)
        try:
            same = read_grid(path).matches(own())
        except DataError:
            return "its grid cannot be compared with the DWI's: the header cannot be read"
        return None if same else "on another grid than the DWI"

    return why_not


def only(files: Sequence[BidsFile], what: str, remedy: str) -> BidsFile:
    """Return the only one of the best files, of which there is at least one.

    Raises
    ------
    NoMatchError
        If there are several; it lists them.
    """
    if len(files) > 1:
        listed = "\n  ".join(sorted(str(file.path) for file in files))
        raise NoMatchError(f"there are several {what}:\n  {listed}\n", remedy)
    return files[0]


def _best(ranked: Iterable[tuple[tuple[int, ...], BidsFile]]) -> list[BidsFile]:
    """Return all files of the lowest rank."""
    ranked = list(ranked)
    lowest = min((rank for rank, _ in ranked), default=())
    return [file for rank, file in ranked if rank == lowest]


def _why_no_brain_mask(mask: BidsFile) -> str | None:
    desc, shown = mask.name.entities.get("desc"), mask.name.entities.get("label")
    if mask.name.suffix != "mask":
        return f"its suffix is {mask.name.suffix}, not mask"
    if shown is not None and shown.lower() != "brain":
        return f"{label('label', shown)}: not a mask of the brain"
    if desc != "brain" and shown is None:
        return "it is named neither desc-brain nor label-brain"
    return None


def _same_labels(dwi: BidsFile, image: BidsFile) -> bool:
    own, other = dwi.name.entities, image.name.entities
    return all(own.get(key) == other.get(key) for key in GRID_ENTITIES)


def _mask_rank(dwi: BidsFile, mask: BidsFile) -> tuple[int, ...]:
    folder = mask.path.parent.relative_to(mask.root) == dwi.path.parent.relative_to(dwi.root)
    shared = mask.entities.items() & dwi.entities.items()
    kinds = [("brain", None), ("brain", "brain"), (None, "brain")]
    entities = mask.name.entities
    shown = entities.get("label")
    kind = (entities.get("desc"), shown and shown.lower())
    return (
        0 if folder else 1 if mask.session == dwi.session else 2,
        -len(shared),
        kinds.index(kind) if kind in kinds else len(kinds),
    )

"""Matching of gradient files, sidecars and masks with a DWI, and reasons for mismatches."""

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
"""Return why an image is not on the grid of the DWI, or None if it is."""


@dataclass(frozen=True)
class Match:
    """The matching file, and the candidates that did not match.

    Parameters
    ----------
    file : BidsFile or None
    passed_over : tuple of (BidsFile, str)
        Candidates that did not match, each with the reason.
    """

    file: BidsFile | None
    passed_over: tuple[tuple[BidsFile, str], ...] = ()

    @property
    def path(self) -> Path | None:
        """Path of the matching file."""
        return self.file.path if self.file else None

    def reasons(self) -> str:
        """List the candidates that did not match, with the reasons."""
        return "; ".join(f"{file.path.name} ({reason})" for file, reason in self.passed_over)


def inherited(dwi: BidsFile, files: Iterable[BidsFile], extension: str) -> Match:
    """Find the file that belongs to a DWI according to the inheritance principle.

    It is in the folder of the image or a folder above it, and all its entities are in the image's
    name with the same values; ``space-orig`` equals a missing space. The nearest folder takes
    precedence, then the file with the most entities. (pybids' own search also accepts files of
    another run that have one more entity.)

    Parameters
    ----------
    dwi : BidsFile
        The image.
    files : iterable of BidsFile
        Files of its dataset.
    extension : str
        Extension of the file, e.g. ``.bvec``.

    Raises
    ------
    NoMatchError
        If several files match equally well.
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
            del entities["space"]  # an image in its native space
        reason = ignored_reason(file) or why_not_of_run(dwi.entities, entities)
        if spelled != file.name.extension:
            reason = f"in BIDS, the extension is {extension}"
        if reason is None:
            distance = folders.index(file.path.parent)
            belonging.append(((distance, -len(file.name.entities)), file))
        else:
            passed_over.append((file, reason))
    best = _best(belonging)
    what = f"{extension} files for {dwi.path.name}"
    taken = only(best, what, "Keep only the correct one.") if best else None
    return Match(taken, tuple(passed_over))


def brain_mask(
    dwi: BidsFile, masks: Iterable[BidsFile], same_grid: SameGrid, *, any_kind: bool = False
) -> Match:
    """Find the brain mask of a DWI.

    A mask in the space of the DWI according to its name takes precedence over a mask without
    ``space-`` (or with ``space-orig``) on the same grid; no other mask matches. Masks of the DWI's
    own dataset take precedence, then the nearest masks, then those with the most entities in
    common.

    Parameters
    ----------
    dwi : BidsFile
        The image.
    masks : iterable of BidsFile
        Mask images of the participant.
    same_grid : callable
        Compares headers; only called if the names do not decide.
    any_kind : bool
        Whether the user selected masks by ``desc`` or ``label``; otherwise only ``desc-brain`` and
        ``label-brain`` identify a brain mask.

    Raises
    ------
    NoMatchError
        If several masks match equally well.
    NoInputError
        If a mask whose header is needed cannot be read.
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
    """Return why the names put an image in another space or resolution than the DWI.

    The result is None if the names do not decide, because a label is missing or ``space-orig``.
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

    The returned function raises NoInputError for an image that cannot be read.
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
            return "its grid cannot be compared with the DWI's, because its header cannot be read"
        return None if same else "on a different grid than the DWI"

    return why_not


def only(files: Sequence[BidsFile], what: str, remedy: str) -> BidsFile:
    """Return the only file of a non-empty sequence.

    Parameters
    ----------
    files : sequence of BidsFile
        Files that match equally well.
    what : str
        Description of the files in the plural, for the error message.
    remedy : str
        Remedy of the error.

    Raises
    ------
    NoMatchError
        If there are several; the message lists them.
    """
    if len(files) > 1:
        listed = "\n  ".join(sorted(str(file.path) for file in files))
        raise NoMatchError(f"there are several {what}:\n  {listed}\n", remedy)
    return files[0]


def _best(ranked: Iterable[tuple[tuple[int, ...], BidsFile]]) -> list[BidsFile]:
    """Return all files with the lowest rank."""
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
        return "its name has neither desc-brain nor label-brain"
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

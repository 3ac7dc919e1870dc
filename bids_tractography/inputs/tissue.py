"""Tissue files of the datasets, and whether they are aligned with the DWI."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bids_tractography.core.tissue import TISSUES
from bids_tractography.errors import NoInputError, NoMatchError, TractographyError
from bids_tractography.inputs.companions import SameGrid, only
from bids_tractography.inputs.entities import (
    GRID_ENTITIES,
    is_native,
    is_template,
    label,
    why_not_of_run,
)
from bids_tractography.inputs.index import BidsFile, ignored_reason
from bids_tractography.machine.files import check_file

KINDS = ("probseg", "dseg", "5tt", "t1w")
"""Kinds of source in order of preference."""

_DESCS = ("aseg", "aparcaseg", "preproc")
_NO_TISSUE_DSEG = frozenset({"atlas", "seg", "scale", "label", "tract", "bundle"})
_DESCRIBING = GRID_ENTITIES | {"desc", "label"}


@dataclass(frozen=True)
class TissueFiles:
    """Files with tissue fractions that match one DWI run.

    Parameters
    ----------
    probseg : mapping of str to Path, or None
        Probability maps of ``wm``, ``gm`` and ``csf``.
    dseg : Path or None
        A segmentation.
    fivett : Path or None
        A 5TT image.
    t1w : Path or None
        A T1-weighted image.
    t1w_mask : Path or None
        Brain mask of the T1-weighted image.
    faults : mapping of str to TractographyError
        Errors by kind, if several files match or a file cannot be read.
    refused : mapping of str to NoMatchError
        Errors by kind, if all files are in spaces not known to be that of the DWI.
    passed_over : mapping of str to str
        Kinds without a matching file: the candidates and why they do not match.
    assumed : mapping of Path to str
        Files that are assumed to be aligned with the DWI, each with a warning; of a set, the
        first file.
    unsearched : tuple of Path
        Folders of the participant that cannot be read.
    """

    probseg: Mapping[str, Path] | None = None
    dseg: Path | None = None
    fivett: Path | None = None
    t1w: Path | None = None
    t1w_mask: Path | None = None
    faults: Mapping[str, TractographyError] = field(default_factory=dict)
    refused: Mapping[str, NoMatchError] = field(default_factory=dict)
    passed_over: Mapping[str, str] = field(default_factory=dict)
    assumed: Mapping[Path, str] = field(default_factory=dict)
    unsearched: tuple[Path, ...] = ()

    @property
    def by_kind(self) -> dict[str, tuple[Path, ...]]:
        """Files of each available kind in order of preference.

        Kinds in `faults` are included, kinds in `refused` are not.
        """
        t1w = tuple(path for path in (self.t1w, self.t1w_mask) if path)
        found = {
            "probseg": tuple((self.probseg or {}).values()),
            "dseg": (self.dseg,) if self.dseg else (),
            "5tt": (self.fivett,) if self.fivett else (),
            "t1w": t1w if self.t1w else (),
        }
        return {kind: paths for kind, paths in found.items() if paths or kind in self.faults}

    def not_taken(self, kind: str | None = None) -> str:
        """Describe the candidates that do not match, of one kind or all, for messages."""
        kinds = [k for k in KINDS if kind in (None, k) and k in self.passed_over]
        reasons = dict.fromkeys(self.passed_over[k] for k in kinds)
        folders = [f"{folder} (cannot be read)" for folder in self.unsearched]
        listed = "; ".join([*reasons, *folders])
        return f" Ignored: {listed}." if listed else ""

    @property
    def skipped(self) -> tuple[str, ...]:
        """Warnings about candidates of kinds preferred to the first available one."""
        first = next(iter(self.by_kind), None)
        preferred = KINDS[: KINDS.index(first)] if first else KINDS
        return tuple(
            f"no {kind} was used for tissue; ignored: {self.passed_over[kind]}."
            for kind in preferred
            if kind in self.passed_over
        )


@dataclass(frozen=True)
class _Set:
    """Files that form one source together; the first one represents them in comparisons."""

    files: tuple[BidsFile, ...]
    incomplete: str = ""

    @property
    def first(self) -> BidsFile:
        return self.files[0]


def find_tissue(
    files: Iterable[BidsFile], dwi: BidsFile, same_grid: SameGrid, *, any_space: bool = False
) -> TissueFiles:
    """Find the files with tissue fractions of a DWI run.

    Files in template space never match. Files in the DWI's own space take precedence, then files
    without ``space-``; then the session's over the participant's, ``anat`` over ``dwi``, and the
    DWI's own dataset over others. A T1-weighted image may be in any space of the participant,
    because it will be registered. The other kinds must be aligned with the DWI:

    - in the same space by name, or without ``space-`` on the same grid;
    - without ``space-`` in the same dataset, if the DWI is in ``space-T1w``;
    - for a DWI without ``space-``, in native anatomical space, which is assumed to be aligned, with
      a warning;
    - with `any_space`, in native anatomical space for any DWI, with the same warning.

    Parameters
    ----------
    files : iterable of BidsFile
        Files of the participant in all datasets and sessions.
    dwi : BidsFile
        The diffusion-weighted image.
    same_grid : callable
        Compares headers; only called if the names do not decide.
    any_space : bool
        Whether the user states that native anatomical space is aligned with the DWI.

    Returns
    -------
    TissueFiles
        Errors are values by kind, so that one kind does not affect another.
    """
    of_session = [f for f in files if f.session in (None, dwi.session) and not f.misplaced]
    images = [file for file in of_session if file.is_image and file.data_type in ("anat", "dwi")]
    finder = _Finder(dwi, same_grid, any_space)
    probseg = finder.best("probseg", _probsegs(images), "three files with tissue.kind: files")
    dseg = finder.best("dseg", _single(images, _is_tissue_dseg), "it with tissue.segmentation")
    fivett = finder.best("5tt", _single(images, _is_5tt), "it with tissue.image")
    t1w = finder.best("t1w", _single(images, _is_whole_head), "it with tissue.image")
    mask = _mask_of(t1w.first, images) if t1w else None
    paths = [file.path for file in probseg.files] if probseg else []
    found = TissueFiles(
        probseg=dict(zip(TISSUES, paths, strict=True)) if paths else None,
        dseg=dseg.first.path if dseg else None,
        fivett=fivett.first.path if fivett else None,
        t1w=t1w.first.path if t1w else None,
        t1w_mask=mask,
        faults=finder.faults,
        refused=finder.refused,
        passed_over=finder.passed_over,
        assumed=finder.assumed,
    )
    for kind, of_kind in found.by_kind.items():
        try:
            for path in of_kind:
                check_file(path)
        except NoInputError as error:
            finder.faults[kind] = error
    return found


class _Finder:
    """Find the best source of each kind for one DWI, recording why others do not match."""

    def __init__(self, dwi: BidsFile, same_grid: SameGrid, any_space: bool) -> None:
        self._dwi = dwi
        self._same_grid = same_grid
        self._any_space = any_space
        self.faults: dict[str, TractographyError] = {}
        self.refused: dict[str, NoMatchError] = {}
        self.passed_over: dict[str, str] = {}
        self.assumed: dict[Path, str] = {}

    def best(self, kind: str, sets: Iterable[_Set], how: str) -> _Set | None:
        """Return the source with the best rank; if none matches, record why."""
        accepted: list[_Set] = []
        reasons: list[str] = []
        refused = False
        try:
            for one in sets:
                reason = one.incomplete or self._why_not(one.first)
                if not reason and kind != "t1w" and (reason := self._why_not_aligned(one.first)):
                    refused = True
                if reason:
                    reasons.append(f"{one.first.path.name} ({reason})")
                else:
                    accepted.append(one)
            if accepted:
                return self._first_of(kind, accepted, how)
        except (NoMatchError, NoInputError) as error:
            self.faults[kind] = error
            return None
        if reasons:
            self.passed_over[kind] = "; ".join(reasons)
        if refused:
            self.refused[kind] = NoMatchError(
                f"tissue: no {kind} is known to be aligned with {self._dwi.path.name}: "
                f"{self.passed_over[kind]}.",
                "tissue.kind t1w registers a T1-weighted image instead. If the files are aligned "
                f"with the DWI, set tissue.space to any, or name {how}.",
            )
        return None

    def _first_of(self, kind: str, sets: list[_Set], how: str) -> _Set:
        ranked = [(self._rank(one.first), one) for one in sets]
        lowest = min(rank for rank, _ in ranked)
        best = {one.first: one for rank, one in ranked if rank == lowest}
        chosen = only(list(best), f"{kind} files for {self._dwi.path.name}", f"Name {how}.")
        if kind != "t1w" and self._is_assumed(chosen):
            self.assumed[chosen.path] = (
                f"tissue of {chosen.path.name} ({_space(chosen)}) is assumed to be aligned with "
                f"the DWI ({_space(self._dwi)}); tissue.kind t1w registers a T1-weighted image "
                "instead."
            )
        return best[chosen]

    def _why_not(self, file: BidsFile) -> str | None:
        """Return why a file does not belong to the participant's anatomy or this run."""
        if reason := ignored_reason(file):
            return reason
        if is_template(file.name.space):
            return f"space-{file.name.space} is a template space"
        if file.data_type == "dwi":
            return why_not_of_run(self._dwi.entities, file.entities, _DESCRIBING)
        return None

    def _why_not_aligned(self, file: BidsFile) -> str | None:
        """Return why a file is not considered aligned with the DWI."""
        own, space = self._dwi.name.space, file.name.space
        if own == space or self._is_of_dwi(file):
            return None
        if space is None and own is not None:
            t1w = own == "T1w" and file.data_type == "anat" and file.dataset == self._dwi.dataset
            if t1w or self._any_space:
                return None
            reason = self._same_grid(file.path)
            return reason and f"no space in its name, the DWI is in space-{own}; {reason}"
        if is_native(space) and (own is None or self._any_space):
            return None
        return f"space-{space} is not the DWI's space ({_space(self._dwi)})"

    def _is_assumed(self, file: BidsFile) -> bool:
        """Return whether an accepted file is only assumed to be aligned with the DWI."""
        own, space = self._dwi.name.space, file.name.space
        if self._is_of_dwi(file) or (own == space and own is not None):
            return False
        if own == "T1w" and space is None and file.dataset == self._dwi.dataset:
            return False
        return space is not None or self._same_grid(file.path) is not None

    def _is_of_dwi(self, file: BidsFile) -> bool:
        """Return whether a file is declared to be in the native space of the DWI."""
        space = file.name.space
        return self._dwi.name.space is None and (
            (space is not None and space.lower() == "dwi")
            or (space is None and file.data_type == "dwi")
        )

    def _rank(self, file: BidsFile) -> tuple[int, ...]:
        """Return the rank of a file; lower ranks take precedence."""
        dwi, entities = self._dwi, file.name.entities
        spaces = [dwi.name.space, None]
        desc = entities.get("desc")
        return (
            spaces.index(file.name.space) if file.name.space in spaces else len(spaces),
            int(file.session is None and dwi.session is not None),
            int(file.data_type == "dwi"),
            _DESCS.index(desc) if desc in _DESCS else len(_DESCS),
            int(entities.get("res") != dwi.name.entities.get("res")),
            int(file.dataset != dwi.dataset),
        )


def _single(files: Iterable[BidsFile], wanted: Callable[[BidsFile], bool]) -> list[_Set]:
    return [_Set((file,)) for file in files if wanted(file)]


def _probsegs(files: Iterable[BidsFile]) -> list[_Set]:
    """Group the probability maps of the three tissues, which differ in the label only."""
    groups: dict[object, dict[str, BidsFile]] = {}
    for file in files:
        tissue = file.name.entities.get("label", "").lower()
        if file.name.suffix == "probseg" and tissue in TISSUES and not file.ignored:
            others = {k: v for k, v in file.name.entities.items() if k != "label"}
            key = (file.path.parent, tuple(sorted(others.items())), file.name.extension)
            groups.setdefault(key, {})[tissue] = file
    sets = []
    for group in groups.values():
        missing = [tissue.upper() for tissue in TISSUES if tissue not in group]
        there = tuple(group[tissue] for tissue in TISSUES if tissue in group)
        lacks = " and ".join(f"label-{tissue}" for tissue in missing)
        sets.append(_Set(there, f"{lacks} is missing" if missing else ""))
    return sets


def _is_whole_head(file: BidsFile) -> bool:
    entities = file.name.entities
    return (
        file.name.suffix == "T1w"
        and entities.get("desc") in (None, "preproc")
        and entities.get("part") in (None, "mag")
    )


def _is_tissue_dseg(file: BidsFile) -> bool:
    entities = file.name.entities
    return (
        file.name.suffix == "dseg"
        and entities.get("desc") in (None, "aseg", "aparcaseg")
        and not _NO_TISSUE_DSEG & entities.keys()
    )


def _is_5tt(file: BidsFile) -> bool:
    return "5tt" in file.path.name.lower()


def _mask_of(t1w: BidsFile, files: Iterable[BidsFile]) -> Path | None:
    """Find the brain mask in the folder of a T1w image that agrees with it in all entities."""
    agreeing = [
        (len(file.name.entities), file.path)
        for file in files
        if file.path.parent == t1w.path.parent
        and file.name.suffix == "mask"
        and file.name.entities.get("desc") == "brain"
        and file.name.space == t1w.name.space
        and not file.ignored
        and why_not_of_run(t1w.entities, file.entities, _DESCRIBING) is None
    ]
    return max(agreeing)[1] if agreeing else None


def _space(file: BidsFile) -> str:
    return label("space", file.name.space) if file.name.space else "no space in its name"

"""The DWI runs of a participant in several datasets, with the files that belong to each run.

A pybids layout covers one participant of one dataset. Other participants are not listed, so a
dataset of 10,000 participants starts as fast as one of 10.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bids_tractography.config import Config
from bids_tractography.config.tissue import AutoTissueConfig
from bids_tractography.errors import (
    FilteredOutError,
    GradientError,
    NoDwiError,
    NoInputError,
    NoMatchError,
    TractographyError,
)
from bids_tractography.inputs.companions import Match, brain_mask, grid_comparison, inherited
from bids_tractography.inputs.datasets import Dataset, is_folder, join_names
from bids_tractography.inputs.entities import parse_name, why_not_of_run
from bids_tractography.inputs.index import IMAGE, BidsFile, Index, ignored_reason
from bids_tractography.inputs.named import RAW, find_named
from bids_tractography.inputs.runs import DwiRun, FailedRun, FoundRun, SkippedRun, run_name
from bids_tractography.inputs.tissue import TissueFiles, find_tissue
from bids_tractography.inputs.weighting import is_single_volume, n_entries, only_b0
from bids_tractography.machine.files import check_file, printable

logger = logging.getLogger(__name__)

_GRADIENTS = {"bval": ".bval", "bvec": ".bvec", "gradient_table": ".b"}


@dataclass(frozen=True)
class Selection:
    """Sessions and files that the user selects.

    Parameters
    ----------
    sessions : tuple of str
        Labels without ``ses-``; empty for all.
    filters : mapping
        pybids filters by query (``dwi``, ``brain_mask``).
    database : Path or None
        Folder for pybids' databases; None keeps them in memory.
    """

    sessions: tuple[str, ...] = ()
    filters: Mapping[str, Mapping[str, Any]] | None = None
    database: Path | None = None

    def of(self, query: str) -> dict[str, Any]:
        """Return the filters of a query."""
        return dict((self.filters or {}).get(query, {}))


class _OnlyB0(Exception):  # noqa: N818
    """A run has no diffusion weighting; the message states the reason."""


class ParticipantFiles:
    """The files of one participant in several datasets.

    Parameters
    ----------
    datasets : sequence of Dataset
        Datasets, the main one first.
    subject : str
        Label without ``sub-``.
    selection : Selection
        Sessions and files to consider.

    Raises
    ------
    NoInputError
        If a folder of the participant cannot be listed.
    """

    def __init__(self, datasets: list[Dataset], subject: str, selection: Selection) -> None:
        self._subject = subject
        self._selection = selection
        self._main = datasets[0].name
        self._indices = {
            dataset.name: Index(dataset, subject, selection.database)
            for dataset in datasets
            if is_folder(dataset.root / f"sub-{subject}")
        }
        rows = (dataset.participant(subject) for dataset in datasets)
        self._row = next((row for row in rows if row is not None), {})

    def dwi_runs(self, config: Config) -> list[FoundRun]:
        """Find all DWI runs: of each session the preprocessed runs, or the raw runs if it has none.

        Images in ``.bidsignore``, phase, real and imaginary parts, and runs without diffusion
        weighting are skipped. A fault of one run is returned as a value and does not affect others.

        Parameters
        ----------
        config : Config
            Names files that the runs require.

        Returns
        -------
        list of DwiRun, SkippedRun and FailedRun
            At least one run is not skipped.

        Raises
        ------
        NoDwiError, FilteredOutError
            If the participant has no DWI run, or the filters exclude all.
        GradientError
            If all runs that are not skipped by name lack diffusion weighting.
        """
        failed: list[FoundRun] = self._inaccessible()
        images, skipped = self._images(failed=bool(failed))
        runs: list[FoundRun] = []
        unweighted: list[SkippedRun] = []
        for session in dict.fromkeys(file.session for file in images):
            runs += self._runs_of(
                [file for file in images if file.session == session], config, unweighted
            )
        skipped += unweighted
        if not runs and not failed:
            reasons = "; ".join(f"{run.name}: {run.reason}" for run in skipped)
            error_class = GradientError if unweighted else NoDwiError
            raise error_class(f"sub-{self._subject} has no DWI run to track: {reasons}.")
        return [*runs, *skipped, *failed]

    def _runs_of(
        self, images: list[BidsFile], config: Config, unweighted: list[SkippedRun]
    ) -> list[FoundRun]:
        """Find the runs of one session: the preprocessed runs, or all if there are none."""
        preprocessed = [f for f in images if f.name.entities.get("desc") == "preproc"]
        others = [file for file in images if file not in preprocessed]
        for files in (preprocessed, others):
            runs: list[FoundRun] = []
            for file in files:
                name = run_name(file.path)
                try:
                    runs.append(self._run(file, config))
                except _OnlyB0 as reason:
                    unweighted.append(SkippedRun(name, str(reason)))
                except TractographyError as error:
                    runs.append(FailedRun(name, error))
            if runs:
                if files is preprocessed and others:
                    names = ", ".join(file.path.name for file in others)
                    logger.info("Using preprocessed runs instead of %s.", names)
                return runs
        return []

    def _inaccessible(self) -> list[FoundRun]:
        """Return failures for possible DWI runs in unreadable folders or with invalid names."""
        failed: list[FoundRun] = []
        for index in self._indices.values():
            for folder in index.unreadable:
                session = folder.name if folder.name.startswith("ses-") else folder.parent.name
                session = session if session.startswith("ses-") else ""
                if folder.name not in ("dwi", session) or not self._is_selected(session[4:]):
                    continue
                name = "_".join(filter(None, (f"sub-{self._subject}", session)))
                remedy = "Grant read and search permission to the user who runs the app."
                failed.append(FailedRun(name, NoInputError(f"{folder} cannot be read.", remedy)))
            for path in index.not_utf8:
                parsed = parse_name(path.name)
                is_dwi = parsed.suffix == "dwi" and parsed.extension in IMAGE
                if is_dwi and path.parent.name == "dwi" and not self._selection.of("dwi"):
                    try:
                        check_file(path)
                    except NoInputError as error:
                        failed.append(FailedRun(run_name(Path(printable(path))), error))
        return failed

    def _is_selected(self, session: str | None) -> bool:
        return not self._selection.sessions or (session or None) in self._selection.sessions

    def _images(self, *, failed: bool) -> tuple[list[BidsFile], list[SkippedRun]]:
        """Return the selected DWI images, and those that are skipped because of their names."""
        query: dict[str, Any] = {"suffix": "dwi", "extension": list(IMAGE), "datatype": "dwi"}
        everything = [file for file in self._get(query) if file.data_type == "dwi"]
        wanted = [
            file
            for file in self._get({**query, **self._selection.of("dwi")})
            if file.data_type == "dwi" and self._is_selected(file.session)
        ]
        if not everything and not failed:
            raise NoDwiError(f"sub-{self._subject} has no DWI (sub-*/[ses-*/]dwi/*_dwi.nii.gz).")
        if not wanted and not failed:
            names = join_names([file.path.name for file in everything])
            raise FilteredOutError(
                f"sub-{self._subject}: filters and session labels match no DWI.",
                f"Available: {names}.",
            )
        images: list[BidsFile] = []
        skipped: list[SkippedRun] = []
        for file in wanted:
            if reason := ignored_reason(file) or file.misplaced or _why_not_magnitude(file):
                skipped.append(SkippedRun(run_name(file.path), reason))
            else:
                images.append(file)
        return images, skipped

    def _get(self, query: Mapping[str, Any], scope: str | None = None) -> list[BidsFile]:
        """Query all datasets, or one of them."""
        wanted = self._main if scope == RAW else scope
        indices = [i for name, i in self._indices.items() if wanted in (None, name)]
        return [file for index in indices for file in index.get(query)]

    def _run(self, file: BidsFile, config: Config) -> DwiRun:
        index = self._indices[file.dataset]
        importing = config.import_tract is not None
        image = check_file(file.path)
        gradients = _gradient_files(file, index)
        without_weighting = self._without_weighting(image, gradients, config)
        if without_weighting and not importing:
            raise without_weighting
        warnings = [*index.warnings]
        if not importing:
            warnings += _gradient_warnings(file, index, gradients)
        try:
            named = {k: find_named(self._get, k, wanted, file) for k, wanted in config.files()}
        except NoMatchError:
            if without_weighting:  # this run has no derivatives
                raise without_weighting from None
            raise
        mask = self._brain_mask(file)
        unexplained = [f for f, _ in mask.passed_over if f.path not in named.values()]
        if mask.file is None and unexplained:
            warnings.append(f"no brain mask matched; candidates: {mask.reasons()}.")
        tissue = None
        if config.needs_tissue and not importing:
            tissue = self._tissue_files(file, config)
            warnings += tissue.skipped if isinstance(config.tissue, AutoTissueConfig) else ()
        if tissue or named:
            warnings += [f"{f} cannot be read and was not searched." for f in self._unreadable()]
        sidecar, fault = _sidecar(file, index)
        return DwiRun(
            dataset=file.dataset,
            subject=self._subject,
            session=file.session,
            image=image,
            bval=gradients["bval"].path,
            bvec=gradients["bvec"].path,
            gradient_table=gradients["gradient_table"].path,
            sidecar=sidecar,
            brain_mask=check_file(mask.file.path) if mask.file else None,
            named=named,
            tissue=tissue,
            generated_by=index.dataset.generated_by,
            is_raw=not index.dataset.is_derivative,
            participant=self._row,
            warnings=(*warnings, *fault),
        )

    def _without_weighting(
        self, image: Path, gradients: Mapping[str, Match], config: Config
    ) -> _OnlyB0 | None:
        """Return why a run has no diffusion weighting, or None if it does, reading little.

        The header is only read if gradient files are missing or inherited.
        """
        bval, bvec, table = (gradients[role].path for role in _GRADIENTS)
        complete = table is not None or (bval is not None and bvec is not None)
        used = [path for path in ((table,) if table else (bval, bvec)) if path is not None]
        if not complete and is_single_volume(image):
            return _OnlyB0("a single volume without gradient files")
        own = run_name(image)
        inherited = any(run_name(path) != own or path.parent != image.parent for path in used)
        if inherited and n_entries(bval, table) not in (None, 1) and is_single_volume(image):
            return _OnlyB0("a single volume, which the inherited gradient files do not describe")
        if only_b0(bval, bvec, table, config.gradients.b0_threshold_s_mm2):
            return _OnlyB0("all volumes are b=0")
        return None

    def _brain_mask(self, dwi: BidsFile) -> Match:
        """Find the brain mask in the folder of the DWI, or by the user's filters."""
        filters = self._selection.of("brain_mask")
        if filters:
            query = {"suffix": "mask", "extension": list(IMAGE), "datatype": "dwi"}
            masks = self._get({**query, **filters})
        else:
            files = [file for index in self._indices.values() for file in index.files]
            masks = [f for f in files if f.is_image and "mask" in f.name.suffix.lower()]
            masks = [f for f in masks if f.data_type == "dwi"]
        chosen = {"desc", "label"} & filters.keys()
        found = brain_mask(dwi, masks, grid_comparison(dwi.path), any_kind=bool(chosen))
        if found.file is None and filters:
            reasons = f" Candidates: {found.reasons()}." if found.passed_over else ""
            raise NoMatchError(
                f"{dwi.path.name}: the brain_mask filters match no mask of this run.{reasons}"
            )
        return found

    def _tissue_files(self, dwi: BidsFile, config: Config) -> TissueFiles:
        files = [file for index in self._indices.values() for file in index.files]
        any_space = getattr(config.tissue, "space", "auto") == "any"
        found = find_tissue(files, dwi, grid_comparison(dwi.path), any_space=any_space)
        return replace(found, unsearched=tuple(self._unreadable()))

    def _unreadable(self) -> list[Path]:
        return [folder for index in self._indices.values() for folder in index.unreadable]


def _why_not_magnitude(file: BidsFile) -> str | None:
    part = file.name.entities.get("part")
    return None if part in (None, "mag") else f"part-{part}: only magnitude images are tracked"


def _gradient_files(dwi: BidsFile, index: Index) -> dict[str, Match]:
    """Find the gradient files by role, and check that they can be read."""
    found = {role: inherited(dwi, index.files, end) for role, end in _GRADIENTS.items()}
    for match in found.values():
        if match.file is not None:
            check_file(match.file.path)
    return found


def _sidecar(dwi: BidsFile, index: Index) -> tuple[Path | None, list[str]]:
    """Find the JSON sidecar; its faults are warnings, because a run does not require it."""
    try:
        file = inherited(dwi, index.files, ".json").file
        return (check_file(file.path) if file else None), []
    except (NoMatchError, NoInputError) as error:
        return None, [f"the JSON sidecar is ignored: {error.message.strip()}"]


def _gradient_warnings(dwi: BidsFile, index: Index, gradients: Mapping[str, Match]) -> list[str]:
    """Check that a run has gradients, and return warnings about files that did not match.

    Raises
    ------
    NoInputError
        If the run has neither a gradient table nor both b-values and b-vectors.
    """
    missing = [_GRADIENTS[role] for role in ("bval", "bvec") if gradients[role].file is None]
    table = gradients["gradient_table"]
    if missing and table.file is None:
        reasons = "; ".join(
            m.reasons() for m in gradients.values() if m.file is None and m.passed_over
        )
        raise NoInputError(
            f"{dwi.path.name} has no {' and no '.join(missing)} file."
            + (f" Ignored: {reasons}." if reasons else ""),
            "It must be next to the image, or above it by inheritance.",
        )
    if table.file is not None:
        return []
    others = [
        file
        for file in index.files
        if file.path.parent == dwi.path.parent and file.name.suffix == "dwi" and file.is_image
    ]
    left = tuple(
        (file, reason)
        for file, reason in table.passed_over
        if not any(why_not_of_run(o.entities, file.name.entities) is None for o in others)
    )
    return [f"no .b file matched; candidates: {Match(None, left).reasons()}."] if left else []

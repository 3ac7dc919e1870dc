"""From a request to one job for each DWI run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from bids_tractography.app.outcome import Failure, Places, Skipped, attempt
from bids_tractography.app.request import Request, Study
from bids_tractography.config import Config
from bids_tractography.config.model import MsmtCsdModelConfig
from bids_tractography.core.checks import choose_subject
from bids_tractography.core.gradients import FSL, choose_frame
from bids_tractography.errors import FilteredOutError, GradientError, NoDwiError, OutputError
from bids_tractography.inputs import (
    Dataset,
    DwiRun,
    FailedRun,
    FoundRun,
    ParticipantFiles,
    Selection,
    SkippedRun,
)
from bids_tractography.inputs.tissue_source import choose_source
from bids_tractography.outputs.files import read_json
from bids_tractography.outputs.names import entities_of
from bids_tractography.outputs.run import RunOutputs
from bids_tractography.pipeline.job import Job

Planned = tuple[str, Job | Failure | Skipped]
"""A name, and what is to be done under it, or why nothing is."""


def plan(request: Request, study: Study) -> Iterator[Planned]:
    """Find the jobs of one participant after the other, as they are consumed.

    Yields
    ------
    name : str
        Name of the run, or of the participant if there is none.
    planned : Job, Failure or Skipped
        Faults are values: the others go on.
    """
    places = places_of(request, study.datasets)
    for subject in study.participants:
        find = partial(_find_runs, request, study.datasets, subject)
        found = attempt(f"sub-{subject}", find, places)
        if isinstance(found, Failure | Skipped):
            yield f"sub-{subject}", found
        else:
            yield from _distinct([_planned(request, study.datasets, run) for run in found])


def places_of(request: Request, datasets: list[Dataset]) -> Places:
    """Return the directories that a request reads from and writes to."""
    roots = tuple(dataset.root for dataset in datasets)
    return Places(roots, (request.output_dir, request.work_dir))


def _find_runs(
    request: Request, datasets: list[Dataset], subject: str
) -> Sequence[FoundRun] | Skipped:
    """Find the DWI runs of a participant; one without any is skipped."""
    sessions = tuple(label.removeprefix("ses-") for label in request.sessions)
    selection = Selection(sessions, request.filters, request.database)
    try:
        return ParticipantFiles(datasets, subject, selection).dwi_runs(request.config)
    except (NoDwiError, FilteredOutError, GradientError) as error:
        return Skipped(error)


def _planned(request: Request, datasets: list[Dataset], run: FoundRun) -> Planned:
    if isinstance(run, SkippedRun):
        # The name of the file, which no job has: another run may have what is left of it.
        return f"{run.name}_dwi", Skipped(NoDwiError(f"{run.reason}."))
    planned = attempt(run.name, partial(_job, request, datasets, run), places_of(request, datasets))
    return planned.name if isinstance(planned, Job) else run.name, planned


def _job(request: Request, datasets: list[Dataset], run: DwiRun | FailedRun) -> Job:
    if isinstance(run, FailedRun):
        raise run.error
    links = {dataset.name: dataset.root for dataset in datasets}
    outputs = RunOutputs(request.output_dir, run.image.name, links)
    common: dict[str, Any] = {}
    if "space" in outputs.entities:  # recommended for templates, required for others
        common["SpatialReference"] = outputs.uri(run.image)
    if "res" in outputs.entities:
        common["Resolution"] = "That of the DWI"
    outputs = replace(outputs, common=common)
    tissue = None
    if run.tissue is not None:
        model = request.config.model
        fractions = isinstance(model, MsmtCsdModelConfig) and model.tissues != "wm_csf"
        tissue = choose_source(request.config.tissue, run.tissue, run.named, from_model=fractions)
    frame, subject = FSL, request.config.checks.subject
    if request.config.import_tract is None:
        frame = choose_frame(request.config.gradients.frame, run.gradients, run.generated_by)
    return Job(
        run=run,
        tissue=tissue,
        frame=frame,
        subject=choose_subject(subject, run.participant, _names(datasets, run)),
        warnings=(*run.warnings, *_doubts(request.config, run)),
        config=request.config,
        outputs=outputs,
        work=outputs.batches(request.work_dir, links[run.dataset]),
        n_threads=request.n_threads,
        fresh=request.fresh,
        container=request.container,
    )


def _names(datasets: list[Dataset], run: DwiRun) -> list[str]:
    """Return the names that may say that the subject is a phantom."""
    named = [str(d.description.get("Name")) for d in datasets if d.name == run.dataset]
    sidecar = read_json(run.sidecar) if run.sidecar else {}
    parts = [str(sidecar.get(key, "")) for key in ("BodyPart", "BodyPartExamined")]
    return [*named, run.subject, *parts]


def _doubts(config: Config, run: DwiRun) -> list[str]:
    """Warn of data that nobody has corrected."""
    preprocessed = not run.is_raw or entities_of(run.image.name).get("desc") == "preproc"
    if preprocessed or config.import_tract is not None:
        return []
    return [
        "the DWI is raw: motion, eddy currents and susceptibility distortion are not corrected. "
        "Use preprocessed data (desc-preproc, e.g. of QSIPrep) for results to publish."
    ]


def _distinct(planned: list[Planned]) -> list[Planned]:
    """Refuse runs whose results would have the same names."""
    images: dict[str, list[str]] = {}
    for name, what in planned:
        if isinstance(what, Job):
            images.setdefault(name, []).append(str(what.run.image))
    distinct: list[Planned] = []
    for name, what in planned:
        if not isinstance(what, Job):
            distinct.append((f"{name}_dwi" if name in images else name, what))
        elif len(images[name]) == 1:
            distinct.append((name, what))
    for name, several in images.items():
        if len(several) > 1:
            error = OutputError(
                f"{' and '.join(several)} would give the same file names.",
                "Choose one with --bids-filter-file.",
            )
            distinct.append((name, Failure(str(error), error.exit_code)))
    return distinct

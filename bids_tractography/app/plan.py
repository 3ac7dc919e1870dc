"""Plan one job for each DWI run of a request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bids_tractography.app.outcome import Failure, Places, Skipped, attempt
from bids_tractography.app.request import Request, Study
from bids_tractography.config import Config
from bids_tractography.config.model import MsmtCsdModelConfig
from bids_tractography.core.checks import choose_subject
from bids_tractography.core.gradients import FSL, choose_frame
from bids_tractography.core.tissue import TissueSource
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
from bids_tractography.pipeline.products import STAGES


@dataclass(frozen=True)
class Planned:
    """A planned job, or the reason why there is none.

    Parameters
    ----------
    name : str
        Name of the run, or of the participant if no run was found.
    what : Job, Failure or Skipped
        Failures are values, so that the other runs continue.
    """

    name: str
    what: Job | Failure | Skipped


def plan(request: Request, study: Study) -> Iterator[Planned]:
    """Plan the jobs of one participant after another, lazily."""
    places = places_of(request, study)
    for subject in study.participants:
        found = attempt(f"sub-{subject}", partial(_find_runs, request, study, subject), places)
        if isinstance(found, Failure | Skipped):
            yield Planned(f"sub-{subject}", found)
        else:
            yield from _distinct([_planned(request, study, run) for run in found])


def places_of(request: Request, study: Study) -> Places:
    """Return the directories that a request reads from and writes to."""
    roots = tuple(dataset.root for dataset in study.datasets)
    return Places(roots, (request.output_dir, request.work_dir))


def _find_runs(request: Request, study: Study, subject: str) -> Sequence[FoundRun] | Skipped:
    """Find the DWI runs of a participant; one without any is skipped."""
    sessions = tuple(label.removeprefix("ses-") for label in request.sessions)
    selection = Selection(sessions, request.filters, request.database)
    try:
        return ParticipantFiles(study.datasets, subject, selection).dwi_runs(request.config)
    except (NoDwiError, FilteredOutError, GradientError) as error:
        return Skipped(error)


def _planned(request: Request, study: Study, run: FoundRun) -> Planned:
    match run:
        case SkippedRun():
            # The name of the file: without its suffix, it may be the name of another run's job.
            return Planned(f"{run.name}_dwi", Skipped(NoDwiError(f"{run.reason}.")))
        case FailedRun():
            return Planned(run.name, Failure.of(run.error))
    what = attempt(run.name, partial(make_job, request, study, run), places_of(request, study))
    return Planned(what.name if isinstance(what, Job) else run.name, what)


def make_job(request: Request, study: Study, run: DwiRun) -> Job:
    """Make the job of a run, with everything that is decided before computing starts."""
    links = {dataset.name: dataset.root for dataset in study.datasets}
    outputs = _outputs(request, run, links)
    config, frame = request.config, FSL
    if config.import_tract is None:
        frame = choose_frame(config.gradients.frame, run.gradients, run.generated_by)
    names = _names(study.datasets, run)
    return Job(
        run=run,
        engine=study.engine,
        tissue=_tissue_source(config, run),
        frame=frame,
        subject=choose_subject(config.checks.subject, run.participant, names),
        warnings=(*run.warnings, *_doubts(config, run)),
        config=config,
        outputs=outputs,
        work=outputs.batches(request.work_dir, links[run.dataset], config.output.name),
        n_threads=request.n_threads,
        fresh=request.fresh,
        overwrite=request.overwrite,
        last_stage=request.last_stage,
        container=request.container,
        report=request.report and request.last_stage == STAGES[-1],
    )


def _outputs(request: Request, run: DwiRun, links: Mapping[str, Path]) -> RunOutputs:
    outputs = RunOutputs(request.output_dir, run.image.name, links)
    common: dict[str, Any] = {}
    if "space" in outputs.entities:  # recommended for templates, required for others
        common["SpatialReference"] = outputs.uri(run.image)
    if "res" in outputs.entities:
        common["Resolution"] = "That of the DWI"
    return replace(outputs, common=common)


def _tissue_source(config: Config, run: DwiRun) -> TissueSource | None:
    if run.tissue is None:
        return None
    model = config.model
    fractions = isinstance(model, MsmtCsdModelConfig) and model.tissues != "wm_csf"
    return choose_source(config.tissue, run.tissue, run.named, from_model=fractions)


def _names(datasets: list[Dataset], run: DwiRun) -> list[str]:
    """Return names that may show that the subject is a phantom."""
    named = [str(d.description.get("Name")) for d in datasets if d.name == run.dataset]
    sidecar = read_json(run.sidecar) if run.sidecar else {}
    parts = [str(sidecar.get(key, "")) for key in ("BodyPart", "BodyPartExamined")]
    return [*named, run.subject, *parts]


def _doubts(config: Config, run: DwiRun) -> list[str]:
    """Return a warning about data that have not been corrected."""
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
    for one in planned:
        if isinstance(one.what, Job):
            images.setdefault(one.name, []).append(str(one.what.run.image))
    distinct: list[Planned] = []
    for one in planned:
        if not isinstance(one.what, Job):
            name = f"{one.name}_dwi" if one.name in images else one.name
            distinct.append(Planned(name, one.what))
        elif len(images[one.name]) == 1:
            distinct.append(one)
    for name, several in images.items():
        if len(several) > 1:
            error = OutputError(
                f"{' and '.join(several)} would give the same file names.",
                "Choose one with --bids-filter-file.",
            )
            distinct.append(Planned(name, Failure.of(error)))
    return distinct

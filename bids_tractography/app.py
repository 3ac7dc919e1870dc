"""The participant level: from a request to one job a DWI run, and from jobs to a dataset."""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import yaml

from bids_tractography import __version__
from bids_tractography.checks import choose_subject
from bids_tractography.citation import bibliography, methods_text
from bids_tractography.cluster import run_jobs_on_ray
from bids_tractography.config import Config
from bids_tractography.config.model import MsmtCsdModel
from bids_tractography.errors import (
    ConfigError,
    FilteredOutError,
    GradientError,
    NoDwiError,
    NoInputError,
    OutputError,
    UsageError,
)
from bids_tractography.executor import Outcome, run_jobs
from bids_tractography.files import exists
from bids_tractography.gradients import FSL, choose_frame
from bids_tractography.inputs import (
    RAW,
    Dataset,
    DwiRun,
    FailedRun,
    FoundRun,
    ParticipantFiles,
    Selection,
    SkippedRun,
    check_file,
    find_participants,
    read_dataset,
)
from bids_tractography.job import Job
from bids_tractography.outcomes import Failure, Places, Skipped, attempt
from bids_tractography.outputs import (
    RunOutputs,
    check_output_folder,
    dataset_files,
    entities_of,
    link_name,
    make_folder,
    read_json,
    write_dataset_files,
    write_json,
    write_text,
)
from bids_tractography.pipeline import Done, Progress
from bids_tractography.tissue import choose_source
from bids_tractography.tracking import choose_engine

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What the user asks for.

    Parameters
    ----------
    bids_dir, output_dir, work_dir : Path
        Absolute.
    config : Config
    participants, sessions : tuple of str
        Labels, with or without ``sub-`` and ``ses-``; empty for all.
    filters : mapping
        pybids filters by query.
    derivatives : tuple of (str or None, Path)
        Further datasets, with the names they were given.
    n_procs, n_threads : int
        Jobs at a time, and threads of each.
    check_dataset : bool
        Insist on a valid ``dataset_description.json``.
    database : Path or None
        Folder to keep pybids' databases in.
    fresh : bool
        Do everything again.
    container : dict or None
        Image that the program runs in.
    executor : str
        ``local``, or ``ray`` for a cluster.
    ray_address : str or None
        Of a running cluster.
    """

    bids_dir: Path
    output_dir: Path
    work_dir: Path
    config: Config
    participants: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    filters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    derivatives: tuple[tuple[str | None, Path], ...] = ()
    n_procs: int = 1
    n_threads: int = 1
    check_dataset: bool = True
    database: Path | None = None
    fresh: bool = False
    container: dict[str, str] | None = None
    executor: Literal["local", "ray"] = "local"
    ray_address: str | None = None


@dataclass(frozen=True)
class Study:
    """The datasets and participants that a request is about.

    Parameters
    ----------
    datasets : list of Dataset
        The main one first.
    participants : list of str
        Labels without ``sub-``.
    """

    datasets: list[Dataset]
    participants: list[str]


def open_study(request: Request) -> Study:
    """Check all that concerns the request as a whole, before any participant is looked at.

    Raises
    ------
    TractographyError
        For a faulty configuration, dataset, label or output folder.
    """
    datasets = _datasets(request)
    _check_config(request.config, datasets)
    if request.database:
        make_folder(request.database)
    for dataset in datasets:
        check_output_folder(request.output_dir, dataset.root, request.work_dir)
    return Study(datasets, find_participants(datasets[0].root, request.participants))


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
    places = _places(request, study.datasets)
    for subject in study.participants:
        find = partial(_find_runs, request, study.datasets, subject)
        found = attempt(f"sub-{subject}", find, places)
        if isinstance(found, Failure | Skipped):
            yield f"sub-{subject}", found
        else:
            yield from _distinct([_planned(request, study.datasets, run) for run in found])


def _places(request: Request, datasets: list[Dataset]) -> Places:
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


def _check_config(config: Config, datasets: list[Dataset]) -> None:
    """Check what can be checked of the configuration before any participant is looked at."""
    if config.import_tract is None:
        choose_engine(config)
    for key, file in config.files():
        if file.path is not None:
            check_file(file.path, f"{key}.path")
        if file.path is not None and not file.path.name.endswith(file.extensions):
            raise ConfigError(
                f"{key}.path: {file.path.name} is not {' or '.join(file.extensions)} by its name."
            )
        scopes = {RAW, *(dataset.name for dataset in datasets)}
        if file.scope not in (None, *scopes):
            raise ConfigError(
                f"{key}.scope: there is no dataset named {file.scope}.",
                f"There are: {', '.join(sorted(scopes))}; --derivatives NAME=PATH adds others.",
            )


def _datasets(request: Request) -> list[Dataset]:
    """Open the main dataset and the derivatives, each under a name of its own."""
    roots: dict[str, Path] = {}
    for name, path in ((None, request.bids_dir), *request.derivatives):
        if path in roots.values():
            continue  # named twice
        if name in roots:
            raise UsageError(f"two datasets are named {name}.", "Give --derivatives other names.")
        roots[name or link_name(path, roots)] = path
    datasets = []
    for name, path in roots.items():
        if request.check_dataset or path != request.bids_dir:
            datasets.append(read_dataset(name, path))
        elif exists(path) and path.is_dir():
            description = read_json(path / "dataset_description.json")
            datasets.append(Dataset(name, path.resolve(), description))
        else:
            raise NoInputError(f"{path} is no folder.")
    return datasets


def _planned(request: Request, datasets: list[Dataset], run: FoundRun) -> Planned:
    if isinstance(run, SkippedRun):
        # The name of the file, which no job has: another run may have what is left of it.
        return f"{run.name}_dwi", Skipped(NoDwiError(f"{run.reason}."))
    planned = attempt(run.name, partial(_job, request, datasets, run), _places(request, datasets))
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
        fractions = isinstance(model, MsmtCsdModel) and model.tissues != "wm_csf"
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


def run(
    request: Request, study: Study, report: Callable[[Progress], None]
) -> Iterator[tuple[str, Outcome]]:
    """Do it: yield the outcome of every job and every participant's fault; write the dataset.

    Yields
    ------
    name : str
        Name of the run, or of the participant if there is none.
    outcome : Done, Failure or Skipped

    Raises
    ------
    TractographyError
        If nothing at all is left to do.
    """
    others: dict[str, Failure | Skipped] = {}
    jobs = _jobs(plan(request, study), others)
    first = next(jobs, None)
    if first is None:
        check_not_all_skipped(others)
    found = [] if first is None else [first]
    yield from _run_jobs(request, study, chain(found, jobs), others, report)
    yield from others.items()


def check_not_all_skipped(ends: Mapping[str, Outcome | Job]) -> None:
    """Check that something is left to do.

    Raises
    ------
    TractographyError
        If everything is skipped: what is wrong with the first.
    """
    skipped = [end.error for end in ends.values() if isinstance(end, Skipped)]
    if skipped and len(skipped) == len(ends):
        raise type(skipped[0])(f"nothing to do: {skipped[0].message}", skipped[0].remedy)


def _jobs(planned: Iterable[Planned], others: dict[str, Failure | Skipped]) -> Iterator[Job]:
    """Yield the jobs, setting everything else aside."""
    for name, what in planned:
        if isinstance(what, Job):
            yield what
            continue
        while name in others:  # of another dataset, or misplaced
            name += " (another)"
        others[name] = what
        if isinstance(what, Skipped):
            logger.info("%s: skipped: %s", name, what.error)


def _run_jobs(
    request: Request,
    study: Study,
    jobs: Iterator[Job],
    others: Mapping[str, Failure | Skipped],
    report: Callable[[Progress], None],
) -> Iterator[tuple[str, Outcome]]:
    """Run the jobs inside a dataset with a record of how they ended, however this ends."""
    started = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    _write_dataset(request, study)
    outcomes: dict[str, Outcome] = {}
    try:
        for job, outcome in _outcomes(request, jobs, report):
            outcomes[job.name] = outcome
            yield job.name, outcome
    finally:
        process = f"{platform.node()}-{os.getpid()}"  # many may start in one second
        path = request.output_dir / "logs" / f"{started}_{process}_participant.json"
        try:
            with dataset_files(request.output_dir):
                _write_log(path, request, study, {**outcomes, **others})
        except (OSError, ValueError, OutputError) as error:  # must not hide how the runs ended
            logger.warning("The record of this call is not written: %s", error)


def _outcomes(
    request: Request, jobs: Iterator[Job], report: Callable[[Progress], None]
) -> Iterator[tuple[Job, Outcome]]:
    if request.executor == "ray":
        return run_jobs_on_ray(jobs, request.n_procs, request.ray_address)
    return run_jobs(jobs, request.n_procs, report)


def _write_dataset(request: Request, study: Study) -> None:
    root, config = request.output_dir, request.config
    declared = [dataset.description.get("GeneratedBy") for dataset in study.datasets]
    resolved = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    with dataset_files(root):
        write_dataset_files(
            root,
            {dataset.name: dataset.root for dataset in study.datasets},
            [item for items in declared if isinstance(items, list) for item in items],
            request.container,
        )
        write_text(root / "code" / "config.yaml", resolved)
        write_text(root / "logs" / "CITATION.md", methods_text(config))
        write_text(root / "logs" / "CITATION.bib", bibliography(config))


def _write_log(path: Path, request: Request, study: Study, ends: Mapping[str, Outcome]) -> None:
    failed = {
        name: {"message": end.message, "exit_code": end.exit_code}
        for name, end in ends.items()
        if isinstance(end, Failure)
    }
    warnings = {n: end.warnings for n, end in ends.items() if not isinstance(end, Skipped)}
    write_json(
        path,
        {
            "version": __version__,
            "datasets": {dataset.name: str(dataset.root) for dataset in study.datasets},
            "config": json.loads(request.config.model_dump_json()),
            "finished": [name for name, end in ends.items() if isinstance(end, Done)],
            "failed": failed,
            "skipped": {n: str(end.error) for n, end in ends.items() if isinstance(end, Skipped)},
            "warnings": {name: list(several) for name, several in warnings.items() if several},
        },
    )


def exit_code(outcomes: Mapping[str, Outcome]) -> int:
    """Return 0 if all went well, the failures' code if they agree on one, 1 otherwise."""
    codes = {o.exit_code for o in outcomes.values() if isinstance(o, Failure)}
    return codes.pop() if len(codes) == 1 else min(len(codes), 1)

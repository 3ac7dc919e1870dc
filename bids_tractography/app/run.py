"""The participant level: run the jobs of a request, and write the dataset around them."""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

import yaml

from bids_tractography import __version__
from bids_tractography.app.cluster import run_jobs_on_ray
from bids_tractography.app.local import Outcome, run_jobs
from bids_tractography.app.outcome import Failure, Skipped
from bids_tractography.app.plan import Planned, plan
from bids_tractography.app.reports import report_run
from bids_tractography.app.request import Request, Study
from bids_tractography.errors import OutputError
from bids_tractography.outputs.dataset import dataset_files, write_dataset_files
from bids_tractography.outputs.files import write_json, write_text
from bids_tractography.pipeline.job import Job
from bids_tractography.pipeline.process import Done
from bids_tractography.pipeline.products import name_patterns
from bids_tractography.pipeline.progress import Progress
from bids_tractography.report import methods

logger = logging.getLogger(__name__)


def run(
    request: Request, study: Study, report: Callable[[Progress], None]
) -> Generator[tuple[str, Outcome], None, None]:
    """Run the jobs of a request, yield their outcomes, and write the dataset around them.

    Yields
    ------
    name : str
        Name of the run, or of the participant if there is none.
    outcome : Done, Failure or Skipped

    Raises
    ------
    TractographyError
        If every run is skipped.
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
    """Check that not every run is skipped.

    Raises
    ------
    TractographyError
        The error of the first run, if every run is skipped.
    """
    skipped = [end.error for end in ends.values() if isinstance(end, Skipped)]
    if skipped and len(skipped) == len(ends):
        raise type(skipped[0])(f"nothing to do: {skipped[0].message}", skipped[0].remedy)


def _jobs(planned: Iterable[Planned], others: dict[str, Failure | Skipped]) -> Iterator[Job]:
    """Yield the jobs, and collect failures and skipped runs."""
    for one in planned:
        name, what = one.name, one.what
        if isinstance(what, Job):
            yield what
            continue
        while name in others:  # of another dataset, or misplaced
            name += " (another)"
        others[name] = what
        if isinstance(what, Skipped):
            logger.info("%s: skipped: %s", name, what.error)
        else:
            logger.error("%s: %s", name, what.message)


def _run_jobs(
    request: Request,
    study: Study,
    jobs: Iterator[Job],
    others: Mapping[str, Failure | Skipped],
    report: Callable[[Progress], None],
) -> Iterator[tuple[str, Outcome]]:
    """Run the jobs, and write a record of their outcomes even if this is interrupted."""
    started = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    _write_dataset(request, study)
    outcomes: dict[str, Outcome] = {}
    try:
        for job, outcome in _outcomes(request, jobs, report):
            outcomes[job.label] = outcome
            yield job.label, outcome
        if request.report:
            for name, fault in others.items():
                report_run(request.output_dir, name, fault, request.n_threads)
    finally:
        process = f"{platform.node()}-{os.getpid()}"  # many processes may start within a second
        path = request.output_dir / "logs" / f"{started}_{process}_participant.json"
        try:
            with dataset_files(request.output_dir):
                _write_log(path, request, study, {**outcomes, **others})
        except (
            OSError,
            ValueError,
            OutputError,
        ) as error:  # must not hide the outcomes of the runs
            logger.warning("The log of this command could not be written: %s", error)


def _outcomes(
    request: Request, jobs: Iterator[Job], report: Callable[[Progress], None]
) -> Iterator[tuple[Job, Outcome]]:
    if request.executor == "ray":
        return run_jobs_on_ray(jobs, request.n_procs, request.ray_address)
    return run_jobs(jobs, request.n_procs, report, request.memory_mib)


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
            name_patterns(),
        )
        of_config = "" if config.output.name is None else f"_desc-{config.output.name}"
        write_text(root / "code" / f"config{of_config}.yaml", resolved)
        text = methods.methods_text(config)
        written = {
            "md": text,
            "html": methods.as_html(text, "Methods"),
            "tex": methods.as_tex(text),
            "bib": methods.bibliography(text),
        }
        for extension, content in written.items():
            write_text(root / "logs" / f"CITATION{of_config}.{extension}", content)


def _write_log(path: Path, request: Request, study: Study, ends: Mapping[str, Outcome]) -> None:
    failed = {
        name: {"message": end.message, "exit_code": end.exit_code, "checks": dict(end.checks)}
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

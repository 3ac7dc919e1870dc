"""The dry run: what every run of a request would do, with totals and the exit code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bids_tractography import __version__
from bids_tractography.app.cluster import check_ray
from bids_tractography.app.local import Outcome
from bids_tractography.app.outcome import Failure, Places, Skipped, attempt
from bids_tractography.app.plan import plan
from bids_tractography.app.request import Request, Study
from bids_tractography.app.run import check_not_all_skipped, exit_code
from bids_tractography.errors import OutputError, TractographyError
from bids_tractography.outputs.dataset import check_dataset, is_writable
from bids_tractography.pipeline.estimate import Estimate, check_import, estimate
from bids_tractography.pipeline.job import Job
from bids_tractography.pipeline.trial import Status, look_ahead


@dataclass(frozen=True)
class Expected:
    """What a run would do.

    Parameters
    ----------
    job : Job
    status : str
        See `look_ahead`.
    estimate : Estimate or None
        Of its costs; None if nothing is tracked.
    """

    job: Job
    status: Status
    estimate: Estimate | None

    @property
    def inputs(self) -> dict[str, Path]:
        """Files by what they are."""
        tissue = self.job.tissue
        names = ("WM", "GM", "CSF") if tissue and len(tissue.paths) == 3 else ("tissue",)
        words = {f"tissue.{n}": name for n, name in enumerate(names)}
        return {words.get(role, role): path for role, path in self.job.inputs.items()}

    @property
    def files(self) -> list[Path]:
        """Files that it would write, without their sidecars."""
        return [path for target in self.job.targets.values() for path in target.paths]


@dataclass(frozen=True)
class Forecast:
    """What a request would do.

    Parameters
    ----------
    runs : list of (str, Expected, Failure or Skipped)
        By name, in the order of planning.
    fault : TractographyError or None
        Error of the request as a whole.
    exit_code : int
        That of the run, as far as it can be known.
    """

    runs: list[tuple[str, Expected | Failure | Skipped]]
    fault: TractographyError | None
    exit_code: int

    @property
    def totals(self) -> dict[str, float]:
        """Sums over all runs that track."""
        estimates = [
            end.estimate for _, end in self.runs if isinstance(end, Expected) and end.estimate
        ]
        keys = ("seeds", "streamlines", "cpu_seconds", "disk_mib")
        return {key: sum(getattr(one, key) for one in estimates) for key in keys}


def forecast(request: Request, study: Study) -> Forecast:
    """Plan all runs of a request and estimate what they cost; nothing is written."""
    runs: list[tuple[str, Expected | Failure | Skipped]] = []
    for planned in plan(request, study):
        end: Expected | Failure | Skipped
        if isinstance(planned.what, Job):
            places = Places(tuple(planned.what.inputs.values()))
            end = attempt(planned.name, partial(_expect, planned.what), places)
        else:
            end = planned.what
        runs.append((planned.name, end))
    fault = _fault(request, runs)
    # Names may repeat, but every failure counts.
    failures: Mapping[str, Outcome] = {
        str(n): end for n, (_, end) in enumerate(runs) if isinstance(end, Failure)
    }
    return Forecast(runs, fault, fault.exit_code if fault else exit_code(failures))


def _fault(
    request: Request, runs: list[tuple[str, Expected | Failure | Skipped]]
) -> TractographyError | None:
    """Return the error that would end the run as a whole, in the order of the run."""
    ends = {
        str(n): end.job if isinstance(end, Expected) else end for n, (_, end) in enumerate(runs)
    }
    try:
        check_not_all_skipped(ends)
        check_dataset(request.output_dir)
        if request.executor == "ray" and any(isinstance(end, Job) for end in ends.values()):
            check_ray()
    except TractographyError as error:
        return error
    return None


def _expect(job: Job) -> Expected:
    """Find out what a run would do, and what it would cost."""
    for folder in (job.outputs.folder, job.work):
        if not is_writable(folder):
            raise OutputError(f"{folder} cannot be written.", "Check what is in its place.")
    for path in (path for target in job.targets.values() for path in target.paths):
        if path.is_dir():
            raise OutputError(f"{path} is a directory.", "Move it away.")
    outlook = look_ahead(job)
    job = outlook.job
    if outlook.status != "run":
        return Expected(job, outlook.status, None)
    if job.config.import_tract is not None:
        check_import(job)
        return Expected(job, "run", None)
    return Expected(job, "run", estimate(job, outlook.trial))


def as_json(request: Request, foreseen: Forecast) -> dict[str, Any]:
    """Return a forecast as JSON values."""
    return {
        "version": __version__,
        "output_dir": str(request.output_dir),
        "n_procs": request.n_procs,
        "n_threads": request.n_threads,
        "exit_code": foreseen.exit_code,
        "error": str(foreseen.fault) if foreseen.fault else None,
        "runs": [_run_as_json(name, end) for name, end in foreseen.runs],
        "totals": foreseen.totals,
        "config": request.config.model_dump(mode="json"),
    }


def _run_as_json(name: str, end: Expected | Failure | Skipped) -> dict[str, Any]:
    match end:
        case Failure():
            return {
                "name": name,
                "status": "fails",
                "message": end.message,
                "exit_code": end.exit_code,
            }
        case Skipped():
            return {"name": name, "status": "skipped", "message": str(end.error)}
    return {
        "name": name,
        "status": end.status,
        "inputs": {role: str(path) for role, path in end.inputs.items()},
        "engine": end.job.engine,
        "estimate": asdict(end.estimate) if end.estimate else None,
        "writes": [str(path) for path in end.files],
    }

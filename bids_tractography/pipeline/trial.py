"""What is there of a run already: whether it is finished, and a trial of its tracking."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bids_tractography.anatomy.masks import Sources
from bids_tractography.config.tracking import (
    ConvergeSeedsConfig,
    GivenSeedsConfig,
    SelectSeedsConfig,
)
from bids_tractography.core.checks import Findings
from bids_tractography.core.fodf import Fodf, gfa
from bids_tractography.core.images import read_grid, read_image
from bids_tractography.core.seeding import SeedList, read_given_seeds
from bids_tractography.core.streamlines import Counts
from bids_tractography.core.tissue import TISSUES
from bids_tractography.outputs.run import read_record
from bids_tractography.pipeline.fitting import Fit
from bids_tractography.pipeline.goals import SEEDS_TO_CONVERGE
from bids_tractography.pipeline.job import Job
from bids_tractography.pipeline.regions import RegionMaker
from bids_tractography.pipeline.task import Task
from bids_tractography.tracking import ENGINES
from bids_tractography.tracking.base import TrackingProblem

_SEEDS, _BLOCKS = 400, 40
_BEFORE_MASKS = ("fit", "tissue")

Status = Literal["run", "convert", "up to date"]


@dataclass(frozen=True)
class Trial:
    """What became of a few seeds, spread evenly over the list of all.

    Parameters
    ----------
    all_seeds : int
        Number of seeds of the run.
    seeds, kept, points : int
        Seeds of the trial, streamlines that were kept, and their points.
    """

    all_seeds: int
    seeds: int
    kept: int
    points: int

    @property
    def share(self) -> float:
        """Streamlines kept for each seed."""
        return self.kept / self.seeds

    @property
    def error(self) -> float:
        """Half the width of the 95 % interval of the share."""
        return float(
            1.96 * np.sqrt(max(self.share * (1 - self.share), 1 / self.seeds) / self.seeds)
        )


@dataclass(frozen=True)
class Outlook:
    """What a run would do, by what is there of it.

    Parameters
    ----------
    status : str
        ``up to date``; ``convert`` if only other formats are missing; ``run`` otherwise.
    job : Job
        With the names that its files would get.
    trial : Trial or None
        If fODF and maps of the same inputs and configuration are there.
    """

    status: Status
    job: Job
    trial: Trial | None = None


def look_ahead(job: Job) -> Outlook:
    """Find out what a run would do, and track a few seeds if its fODF is there.

    Inputs and results are read only if there are results. Nothing is written.

    Raises
    ------
    OutputError
        If results of another configuration would be replaced.
    """
    if not job.outputs.folder.exists():
        return Outlook("run", job)
    task = Task.begin(job, Findings(job.name, job.config.checks, job.subject))
    job = task.job
    if not task.stale:
        return Outlook("up to date", job)
    if not job.overwrite:
        task.protect_others()
    before = any(task.has_stage(stage) for stage in _BEFORE_MASKS)
    if before or not task.has_stage("tracking") or job.config.import_tract is not None:
        return Outlook("run", job)
    if task.beginning is not None and task.beginning.is_whole_for(job.config):
        return Outlook("convert", job)
    return Outlook("run", job, _track_some(replace(task, stale={})))


def _track_some(task: Task) -> Trial | None:
    """Track a few seeds from maps on disk; no mask is written, because none counts as stale."""
    job = task.job
    config, grid = job.config, read_grid(job.run.image)
    fodf = Fodf(read_image(job.paths["fod"], ndim=4).data, grid)
    roles = (*job.scalar_maps, *(TISSUES if job.tissue is not None else ()))
    maps = {role: read_image(job.paths[role], ndim=3).data for role in roles}
    brain = read_image(job.paths["brain"], ndim=3).data > 0
    maps["gfa"] = gfa(fodf.coefficients)
    fit = Fit(grid, brain, maps, fodf, read_record(job.paths["fod"])["details"])
    regions = RegionMaker(task, Sources(grid, maps, brain, job.run.named), fit)
    mask, rule, acceptance = regions.seed_mask(), regions.stopping_rule(), regions.acceptance()
    given, rng_seed = None, config.seeding.rng_seed or 0
    if isinstance(config.seeding.seeds, GivenSeedsConfig):
        given = read_given_seeds(job.run.named["seeding.seeds"], grid)
    voxels = brain if mask is None else mask.data
    seeds = SeedList(config.seeding.seeds, voxels, grid, rng_seed, given)
    if not len(seeds):
        return None
    engine = ENGINES[job.engine or ""].build(
        TrackingProblem(fodf, rule, config.tracking, rng_seed, brain), job.n_threads
    )
    size = _SEEDS // _BLOCKS
    firsts = np.unique(np.linspace(0, max(len(seeds) - size, 0), _BLOCKS).astype(int))
    counts, points = Counts(), 0
    for first in firsts.tolist():
        batch = acceptance.accept(engine.track(seeds.batch(first, first + size)))
        counts, points = counts + batch.counts, points + len(batch.points_mm)
    return Trial(_seeds_of_run(seeds, counts), counts.seeds, counts.kept, points)


def _seeds_of_run(seeds: SeedList, counts: Counts) -> int:
    """Return how many seeds of a list a run is likely to track."""
    match seeds.config:
        case SelectSeedsConfig(count=n, limit=most):
            return min(most, n * counts.seeds // max(counts.kept, 1) + 1)
        case ConvergeSeedsConfig(limit=most):
            return min(most, SEEDS_TO_CONVERGE)
    return len(seeds)

"""Process one DWI run: the whole method is in `process_dwi` and `_track_dwi`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bids_tractography.anatomy.masks import Mask, Sources, check_files
from bids_tractography.config.tracking import GivenSeedsConfig, SelectSeedsConfig
from bids_tractography.core.checks import Findings
from bids_tractography.core.dwi import read_dwi
from bids_tractography.core.seeding import SeedBatch, SeedList, draw_rng_seed, read_given_seeds
from bids_tractography.machine.files import unchanged
from bids_tractography.outputs.locks import exclusive
from bids_tractography.outputs.run import read_record
from bids_tractography.pipeline.extension import Beginning
from bids_tractography.pipeline.fitting import Fit, fit_or_read, tissue_or_read
from bids_tractography.pipeline.goals import Goal, goal_of
from bids_tractography.pipeline.inspection import judge_again, report_dwi, report_inputs
from bids_tractography.pipeline.job import Job
from bids_tractography.pipeline.progress import Progress
from bids_tractography.pipeline.regions import RegionMaker
from bids_tractography.pipeline.results import import_tractogram, write_tractogram
from bids_tractography.pipeline.task import Task
from bids_tractography.tracking import ENGINES
from bids_tractography.tracking.acceptance import Regions
from bids_tractography.tracking.base import Tracker, TrackingProblem, track_here
from bids_tractography.tractogram.store import BatchStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Done:
    """A finished job.

    Parameters
    ----------
    result : Path or None
        Tractogram, or its density map if it is not kept; None if nothing is tracked.
    reused : bool
        Whether everything was up to date and nothing was computed.
    warnings : tuple of str
        Warnings about the result.
    """

    result: Path | None
    reused: bool
    warnings: tuple[str, ...] = ()


def process_dwi(
    job: Job,
    report: Callable[[Progress], None],
    track: Tracker = track_here,
    findings: Findings | None = None,
) -> Done:
    """Turn a DWI run into maps, masks, a tractogram and their sidecars.

    Parameters
    ----------
    job : Job
    report : callable
        Called with the progress when a stage begins, and after each batch.
    track : Tracker
        Function that tracks the batches; it does not affect the result.
    findings : Findings, optional
        Collects measurements and warnings.

    Raises
    ------
    TractographyError
        For errors of inputs, configuration or output.
    """
    findings = findings or Findings(job.name, job.config.checks, job.subject)
    with (
        exclusive(job.outputs.root, job.name),
        BatchStore.lock(job.work),
        unchanged(job.inputs.values()),
    ):
        job.outputs.remove_leftovers(keep=BatchStore(job.work, 0).partial)
        for role, path in job.inputs.items():
            logger.debug("input %s: %s", role, path)
        task = Task.begin(job, findings, lambda stage: report(Progress(job.label, stage=stage)))
        if not task.has_stage("tracking"):
            BatchStore(
                job.work, 0
            ).discard()  # left by a run that was killed after writing the tractogram
        job = task.job
        if not task.stale:
            logger.info("%s: everything is up to date; nothing to compute.", job.name)
            _judge_what_is_there(task)
            return Done(job.result, True, tuple(findings.all.warnings))
        check_files(job.config, job.run.named)
        report_inputs(job, findings)
        task.protect_others()
        task.remove_stale_sidecars()
        if job.config.import_tract is not None:
            import_tractogram(task)
        else:
            _track_dwi(task, report, track)
    return Done(job.result, reused=False, warnings=tuple(findings.all.warnings))


def _track_dwi(task: Task, report: Callable[[Progress], None], track: Tracker) -> None:
    """Compute the stale products, from the signal to the tractogram."""
    job, watch = task.job, task.watch
    with watch.stage("reading"):
        dwi = read_dwi(job.run.image, job.run.gradients, job.config.gradients, job.frame)
        report_dwi(job, dwi, task.findings)
    with watch.stage("fitting"):
        fit = fit_or_read(task, dwi)
    with watch.stage("tissue"):
        tissue = tissue_or_read(task, dwi, fit)
    data = fit.brain & dwi.has_signal
    if not any(target.product.stage == "masks" for target in job.targets.values()):
        return
    del dwi  # the largest array, which tracking does not need
    with watch.stage("masks"):
        sources = Sources(fit.grid, {**fit.maps, **tissue}, fit.brain, job.run.named)
        regions = RegionMaker(task, sources, fit)
        seed_mask = regions.seed_mask()
        stopping = regions.stopping_rule()
        acceptance = regions.acceptance()
    if not task.has_stage("tracking"):
        return
    beginning = task.beginning
    with _batch_store(task, beginning) as store:
        if beginning is not None and not store.n_batches and beginning.into(store):
            logger.info(
                "%s: %s is continued after %d seeds.",
                job.name, beginning.path.name, store.next_seed,
            )  # fmt: skip
        seeds = _seed_list(job, fit, seed_mask, store.rng_seed)
        problem = TrackingProblem(fit.fodf, stopping, job.config.tracking, store.rng_seed, data)
        goal = goal_of(job.config.seeding.seeds, fit.grid, store)
        _track_batches(job, problem, acceptance, seeds, goal, store, report, track)
        if goal.warning is not None:
            task.findings.warn(goal.warning)
        write_tractogram(task, fit, stopping, seeds, goal, store)
        store.discard()


def _judge_what_is_there(task: Task) -> None:
    """Report the findings of reused files again; a stricter configuration may refuse them."""
    for role in ("fod", task.job.main):
        if role is not None and role in task.job.targets:
            record = read_record(task.job.paths[role])
            judge_again(record["details"] if role == "fod" else record, task.job, task.findings)


def _batch_store(task: Task, beginning: Beginning | None) -> BatchStore:
    """Open the store; its rng_seed is configured, that of the existing tractogram, or drawn."""
    job = task.job
    if job.fresh:
        BatchStore(job.work, 0).discard()
    seed = job.config.seeding.rng_seed
    if seed is None and job.main is not None and job.main not in task.stale:
        seed = read_record(job.paths[job.main])["rng_seed"]
    if seed is None and beginning is not None:
        seed = beginning.record.rng_seed
    if seed is None:
        seed = draw_rng_seed()
    output = job.config.output
    # Of points in another type than the file's, the batches would be larger than the file.
    dtype = output.dtype if output.linearise is None else "float32"
    identity = job.identity | task.fingerprints[job.main or ""].model_dump()
    return BatchStore.open(job.work, identity, seed, dtype)


def _seed_list(job: Job, fit: Fit, mask: Mask | None, rng_seed: int) -> SeedList:
    config = job.config.seeding.seeds
    given = None
    if isinstance(config, GivenSeedsConfig):
        given = read_given_seeds(job.run.named["seeding.seeds"], fit.grid)
    voxels = fit.brain if mask is None else mask.data
    return SeedList(config, voxels, fit.grid, rng_seed, given)


def _track_batches(
    job: Job,
    problem: TrackingProblem,
    acceptance: Regions,
    seeds: SeedList,
    goal: Goal,
    store: BatchStore,
    report: Callable[[Progress], None],
    track: Tracker,
) -> None:
    """Track the batches that are not in the store yet, until the goal is reached."""
    if goal.is_reached or store.next_seed >= len(seeds):
        return
    kind, batch_size = ENGINES[job.engine or ""], job.config.tracking.batch_size
    size = kind.batch_size if batch_size == "auto" else batch_size
    selected = job.config.seeding.seeds
    n_wanted = selected.count if isinstance(selected, SelectSeedsConfig) else None
    most = "" if goal.record is None else "at most "
    what = f"{most}{len(seeds)} seeds"
    logger.info("%s: tracking %s with %s.", job.name, what, kind.name)
    begin, first, before = time.perf_counter(), store.next_seed, store.n_streamlines
    report(Progress(job.label, stage="preparing to track"))
    last: list[SeedBatch] = []  # the last batch, without the seeds that are not needed

    def batches() -> Iterator[SeedBatch]:
        start = first
        while start < len(seeds) and not last:
            batch = seeds.batch(start, min(start + size, goal.end_of_batch(start) or len(seeds)))
            start += len(batch)
            yield batch
        yield from last

    for tracked in track(problem, kind, job.n_threads, batches()):
        if last and tracked.seeds is not last[0] and len(tracked.seeds) != len(last[0]):
            continue  # tracked ahead
        streamlines = acceptance.accept(tracked.streamlines)
        begins, stop = tracked.seeds.first, tracked.seeds.first + len(tracked.seeds)
        cut = goal.cut(streamlines)
        if cut is not None and cut < stop:
            # Once more, without the seeds that are not needed, for their counts.
            last.append(seeds.batch(begins, cut))
            continue
        store.append(
            tracked.seeds,
            goal.take(streamlines, stop),
            seconds=tracked.seconds,
            cpu_seconds=tracked.cpu_seconds,
        )
        seconds, kept = time.perf_counter() - begin, store.n_streamlines
        if n_wanted is None:
            total = stop if goal.is_reached else goal.end_of_batch(stop) or len(seeds)
            progress = Progress(job.label, stop, total, kept, (stop - first) / seconds)
        else:
            rate = (kept - before) / seconds
            progress = Progress(job.label, kept, n_wanted, kept, rate, "streamlines")
        report(progress)
        if goal.is_reached:
            return

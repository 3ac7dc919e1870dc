"""The whole method for one DWI run, on one screen: `process_dwi`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bids_tractography.checks import Findings
from bids_tractography.config.tracking import GivenSeeds
from bids_tractography.dwi import read_dwi
from bids_tractography.files import unchanged
from bids_tractography.fitting import Fit, fit_or_read, tissue_or_read
from bids_tractography.inspection import judge_again, report_dwi, report_inputs
from bids_tractography.job import Job
from bids_tractography.masks import Mask, Sources, check_files
from bids_tractography.outputs import exclusive, read_record, sidecar_path
from bids_tractography.provenance import Fingerprint, Stopwatch
from bids_tractography.regions import RegionMaker
from bids_tractography.results import import_tractogram, write_tractogram
from bids_tractography.seeding import SeedList, draw_rng_seed, read_given_seeds
from bids_tractography.tracking import choose_engine
from bids_tractography.tracking.acceptance import Regions
from bids_tractography.tracking.base import Tracker, TrackingProblem, track_here
from bids_tractography.tractogram.store import BatchStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Done:
    """A job that went well.

    Parameters
    ----------
    tractogram : Path
    reused : bool
        Everything was there and up to date; nothing was computed.
    warnings : tuple of str
        What is doubtful about the result.
    """

    tractogram: Path
    reused: bool
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Progress:
    """How far tracking has come.

    Parameters
    ----------
    name : str
        Of the job.
    done, total : int
        Seeds.
    kept : int
        Streamlines.
    seeds_per_second : float
        Of this process, so far.
    """

    name: str
    done: int
    total: int
    kept: int
    seeds_per_second: float


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
        Told of every finished batch.
    track : Tracker
        Who tracks the batches; it changes nothing of what comes out.
    findings : Findings, optional
        Receives figures and warnings.

    Raises
    ------
    TractographyError
        For anything wrong with inputs, configuration or output.
    """
    watch = Stopwatch()
    findings = findings or Findings(job.name, job.config.checks, job.subject)
    with (
        exclusive(job.outputs.root, job.name),
        BatchStore.lock(job.work),
        unchanged(job.inputs.values()),
    ):
        job.outputs.remove_leftovers(keep=BatchStore(job.work, 0).partial)
        with watch.stage("hashing"):
            hashes = job.hash_inputs()
        fingerprints = job.fingerprints(hashes)
        stale = job.stale(fingerprints)
        if not {"tractogram", "tdi"} & set(stale):
            BatchStore(job.work, 0).discard()  # of a run that was stopped at its very end
        if not stale:
            logger.info("%s: everything is up to date; nothing to compute.", job.name)
            _judge_what_is_there(job, findings)
            return Done(job.paths["tractogram"], True, tuple(findings.all.warnings))
        check_files(job.config, job.run.named)
        report_inputs(job, findings)
        _invalidate(job, stale)
        if job.config.import_tract is not None:
            import_tractogram(job, hashes, fingerprints, watch, findings)
            return _done(job, findings)
        with watch.stage("reading"):
            dwi = read_dwi(job.run.image, job.run.gradients, job.config.gradients, job.frame)
            report_dwi(job, dwi, findings)
        with watch.stage("fitting"):
            fit = fit_or_read(job, dwi, stale, fingerprints, findings)
        with watch.stage("tissue"):
            tissue = tissue_or_read(job, dwi, fit, stale, fingerprints, findings)
        del dwi  # the largest array of all; tracking does not need it
        with watch.stage("masks"):
            sources = Sources(fit.grid, {**fit.maps, **tissue}, fit.brain, job.run.named)
            regions = RegionMaker(job, sources, fingerprints, findings)
            seed_mask = regions.seed_mask()
            stopping = regions.stopping_rule()
            acceptance = regions.acceptance()
        if not {"tractogram", "tdi"} & set(stale):
            return _done(job, findings)
        with _batch_store(job, stale, fingerprints["tractogram"]) as store:
            seeds = _seed_list(job, fit, seed_mask, store.rng_seed)
            problem = TrackingProblem(fit.fodf, stopping, job.config.tracking, store.rng_seed)
            _track(job, problem, acceptance, seeds, store, report, track)
            fingerprint = fingerprints["tractogram"]
            write_tractogram(job, fit, seeds, store, hashes, fingerprint, watch, findings)
            store.discard()
    return _done(job, findings)


def _judge_what_is_there(job: Job, findings: Findings) -> None:
    """Report what was found when the files were made; a stricter configuration may refuse it."""
    for role in ("fod", "tractogram"):
        if role in job.products:
            record = read_record(job.paths[role])
            judge_again(record["details"] if role == "fod" else record, job, findings)


def _done(job: Job, findings: Findings) -> Done:
    warnings = tuple(findings.all.warnings)
    return Done(job.paths["tractogram"], reused=False, warnings=warnings)


def _invalidate(job: Job, stale: Mapping[str, str]) -> None:
    """Take the sidecars of what is made again away: however this run ends, none is untrue."""
    if "tractogram" in stale:  # other formats of it would stand beside a sidecar of this one
        for path in job.former_tractograms:
            path.unlink(missing_ok=True)
    for role, reason in stale.items():
        for path in job.products[role].paths:
            if path.exists():
                logger.info("%s is made again: %s.", path.name, reason)
                sidecar_path(path).unlink(missing_ok=True)


def _batch_store(job: Job, stale: Mapping[str, str], fingerprint: Fingerprint) -> BatchStore:
    """Open the store, with the seed of the configuration, of the tractogram to replace, or new."""
    if job.fresh:
        BatchStore(job.work, 0).discard()
    seed = job.config.seeding.rng_seed
    if seed is None and "tractogram" not in stale:
        seed = read_record(job.paths["tractogram"])["rng_seed"]
    if seed is None:
        seed = draw_rng_seed()
    output = job.config.output
    # Of points in another type than the file's, the batches would be larger than the file.
    dtype = output.dtype if output.linearise is None else "float32"
    return BatchStore.open(job.work, job.identity | fingerprint.model_dump(), seed, dtype)


def _seed_list(job: Job, fit: Fit, mask: Mask | None, rng_seed: int) -> SeedList:
    config = job.config.seeding.seeds
    given = None
    if isinstance(config, GivenSeeds):
        given = read_given_seeds(job.run.named["seeding.seeds"], fit.grid)
    voxels = fit.brain if mask is None else mask.data
    return SeedList(config, voxels, fit.grid, rng_seed, given)


def _track(
    job: Job,
    problem: TrackingProblem,
    acceptance: Regions,
    seeds: SeedList,
    store: BatchStore,
    report: Callable[[Progress], None],
    track: Tracker,
) -> None:
    """Track the batches that the store does not have yet."""
    if store.next_seed >= len(seeds):
        return
    kind, batch_size = choose_engine(job.config), job.config.tracking.batch_size
    size = kind.batch_size if batch_size == "auto" else batch_size
    logger.info("%s: tracking %d seeds with %s.", job.name, len(seeds), kind.name)
    begin, first = time.perf_counter(), store.next_seed
    batches = seeds.batches(size, start=first)
    for tracked in track(problem, kind, job.n_threads, batches):
        store.append(
            tracked.seeds,
            acceptance.accept(tracked.streamlines),
            seconds=tracked.seconds,
            cpu_seconds=tracked.cpu_seconds,
        )
        rate = (store.next_seed - first) / (time.perf_counter() - begin)
        report(Progress(job.name, store.next_seed, len(seeds), store.n_streamlines, rate))

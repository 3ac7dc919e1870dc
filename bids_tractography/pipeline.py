"""The whole method for one DWI run, on one screen: `process_dwi`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from bids_tractography.config.tracking import BinaryStop, GivenSeeds
from bids_tractography.dwi import read_dwi
from bids_tractography.errors import EmptyMaskError, NoStreamlinesError
from bids_tractography.fitting import Fit, fit_or_read
from bids_tractography.job import Job
from bids_tractography.masks import Mask, make_mask, read_mask
from bids_tractography.outputs import exclusive, read_record, sidecar_path
from bids_tractography.provenance import (
    Fingerprint,
    InputFile,
    Record,
    Stopwatch,
    TractogramRecord,
    config_hash,
    environment,
    peak_memory_mib,
)
from bids_tractography.seeding import SeedList, draw_rng_seed, read_given_seeds
from bids_tractography.sidecars import (
    density_sidecar,
    seed_mask_sidecar,
    stop_mask_sidecar,
    tractogram_sidecar,
)
from bids_tractography.stopping import BinaryRule, StoppingRule, ThresholdRule, extent
from bids_tractography.tracking import choose_engine
from bids_tractography.tracking.base import TrackingProblem
from bids_tractography.tractogram.store import BatchStore
from bids_tractography.tractogram.summary import content_hash, density, length_quantiles_mm
from bids_tractography.tractogram.trx import write_trx

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Done:
    """A job that went well.

    Parameters
    ----------
    tractogram : Path
    reused : bool
        Everything was there and up to date; nothing was computed.
    """

    tractogram: Path
    reused: bool


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


def process_dwi(job: Job, report: Callable[[Progress], None]) -> Done:
    """Turn a DWI run into maps, masks, a tractogram and their sidecars.

    Parameters
    ----------
    job : Job
    report : callable
        Told of every finished batch.

    Raises
    ------
    TractographyError
        For anything wrong with inputs, configuration or output.
    """
    watch = Stopwatch()
    with exclusive(job.outputs.root, job.name):
        job.outputs.remove_leftovers()
        with watch.stage("hashing"):
            hashes = job.hash_inputs()
        fingerprints = job.fingerprints(hashes)
        stale = job.stale(fingerprints)
        if not stale:
            BatchStore(job.work, 0).discard()  # of a run that was stopped at its very end
            logger.info("%s: everything is up to date; nothing to compute.", job.name)
            return Done(job.paths["tractogram"], reused=True)
        _invalidate(job, stale)
        with watch.stage("reading"):
            dwi = read_dwi(job.run.image, job.run.bval, job.run.bvec, job.config.gradients)
        with watch.stage("fitting"):
            fit = fit_or_read(job, dwi, stale, fingerprints)
        del dwi  # the largest array of all; tracking does not need it
        with watch.stage("masks"):
            seed_mask = _seed_mask(job, fit, fingerprints)
            stopping = _stopping_rule(job, fit, fingerprints["stop"])
        if not {"tractogram", "tdi"} & set(stale):
            return Done(job.paths["tractogram"], reused=False)
        with _batch_store(job, stale, fingerprints["tractogram"]) as store:
            seeds = _seed_list(job, fit, seed_mask, store.rng_seed)
            _track(job, fit, stopping, seeds, store, report)
            _write_tractogram(job, fit, seeds, store, hashes, fingerprints["tractogram"], watch)
            store.discard()
    return Done(job.paths["tractogram"], reused=False)


def _invalidate(job: Job, stale: Mapping[str, str]) -> None:
    """Take the sidecars of what is made again away: however this run ends, none is untrue."""
    for role, reason in stale.items():
        if job.paths[role].exists():
            logger.info("%s is made again: %s.", job.paths[role].name, reason)
            sidecar_path(job.paths[role]).unlink(missing_ok=True)


def _seed_mask(job: Job, fit: Fit, fingerprints: Mapping[str, Fingerprint]) -> Mask | None:
    """Make and write the mask of the voxels to seed; None where seeds are given."""
    config = job.config.seeding.mask
    if config is None:
        return None
    mask = make_mask(config, job.run.seed_mask, fit.maps, fit.brain, fit.grid, "seeding.mask")
    details = {**mask.record, "voxels": mask.n_voxels}
    record = Record(fingerprint=fingerprints["seed"], details=details)
    job.outputs.write_map(
        job.paths["seed"],
        mask.data.astype(np.uint8),
        fit.grid,
        seed_mask_sidecar(job, mask),
        record,
    )
    return mask


def _stopping_rule(job: Job, fit: Fit, fingerprint: Fingerprint) -> StoppingRule:
    """Make the stopping rule, and write the mask of the places to go on."""
    config = job.config.stopping
    rule: StoppingRule
    if isinstance(config, BinaryStop):
        if job.run.stop_mask is None:
            raise ValueError("stopping.mask: the file was not resolved")
        rule = BinaryRule(read_mask(job.run.stop_mask, fit.grid))
    else:
        rule = ThresholdRule(fit.maps[config.map], config.below)
    places = extent(rule)
    if not places.any():
        raise EmptyMaskError("stopping lets no voxel through: no streamline could take a step.")
    record = Record(
        fingerprint=fingerprint,
        details={**config.model_dump(mode="json"), "voxels": int(np.count_nonzero(places))},
    )
    job.outputs.write_map(
        job.paths["stop"], places.astype(np.uint8), fit.grid, stop_mask_sidecar(job), record
    )
    return rule


def _batch_store(job: Job, stale: Mapping[str, str], fingerprint: Fingerprint) -> BatchStore:
    """Open the store, with the seed of the configuration, of the tractogram to replace, or new."""
    if job.fresh:
        BatchStore(job.work, 0).discard()
    seed = job.config.seeding.rng_seed
    if seed is None and "tractogram" not in stale:
        seed = read_record(job.paths["tractogram"])["rng_seed"]
    return BatchStore.open(
        job.work, fingerprint.model_dump(), draw_rng_seed() if seed is None else seed
    )


def _seed_list(job: Job, fit: Fit, mask: Mask | None, rng_seed: int) -> SeedList:
    config = job.config.seeding.seeds
    given = read_given_seeds(config.path, fit.grid) if isinstance(config, GivenSeeds) else None
    voxels = fit.brain if mask is None else mask.data
    return SeedList(config, voxels, fit.grid, rng_seed, given)


def _track(
    job: Job,
    fit: Fit,
    stopping: StoppingRule,
    seeds: SeedList,
    store: BatchStore,
    report: Callable[[Progress], None],
) -> None:
    """Track the batches that the store does not have yet."""
    if store.next_seed >= len(seeds):
        return
    tracking = job.config.tracking
    kind = choose_engine(job.config)
    problem = TrackingProblem(fit.fodf, stopping, tracking, store.rng_seed)
    engine = kind.build(problem, job.n_threads)
    size = kind.batch_size if tracking.batch_size == "auto" else tracking.batch_size
    logger.info("%s: tracking %d seeds with %s.", job.name, len(seeds), kind.name)
    begin, first = time.perf_counter(), store.next_seed
    for batch in seeds.batches(size, start=first):
        wall, cpu = time.perf_counter(), time.process_time()
        streamlines = engine.track(batch)
        store.append(
            batch,
            streamlines,
            seconds=time.perf_counter() - wall,
            cpu_seconds=time.process_time() - cpu,
        )
        rate = (store.next_seed - first) / (time.perf_counter() - begin)
        report(Progress(job.name, store.next_seed, len(seeds), store.n_streamlines, rate))


def _write_tractogram(
    job: Job,
    fit: Fit,
    seeds: SeedList,
    store: BatchStore,
    hashes: Mapping[str, str],
    fingerprint: Fingerprint,
    watch: Stopwatch,
) -> None:
    """Assemble the tractogram and its density map; the tractogram's sidecar comes last."""
    if store.n_streamlines == 0:
        counts = store.counts
        store.discard()
        raise NoStreamlinesError(
            f"{job.name}: none of {counts.generated} streamlines from {counts.seeds} seeds was "
            f"kept (rejected: {_listed(counts.rejected)}; seeds without a direction: "
            f"{counts.seeds_without_direction}; ends: {_listed(counts.stops)}).",
            "Look at the fODF and the stop mask; loosen stopping or tracking.min_length_mm.",
        )
    path, dtype = job.paths["tractogram"], job.config.output.dtype
    with watch.stage("writing"):
        job.outputs.write_map(
            job.paths["tdi"],
            density(store, fit.grid),
            fit.grid,
            density_sidecar(job),
            Record(fingerprint=fingerprint),
        )
        job.outputs.write_data(path, lambda p: write_trx(p, store, fit.grid, dtype))
        content = content_hash(store, dtype)
    watch.add("tracking", store.seconds, store.cpu_seconds)
    record = TractogramRecord(
        fingerprint=fingerprint,
        **_resolved(job, hashes, fit),
        **_account(job, seeds, store),
        content_sha256=content,
        seconds=watch.seconds,
        cpu_seconds=watch.cpu_seconds,
        peak_memory_mib=peak_memory_mib(),
    )
    sidecar = tractogram_sidecar(job, store.counts.seeds, store.n_streamlines)
    job.outputs.write_sidecar(path, sidecar, record)
    logger.info("%s: %d streamlines of %d seeds.", job.name, store.n_streamlines, len(seeds))


def _resolved(job: Job, hashes: Mapping[str, str], fit: Fit) -> dict[str, Any]:
    """Say what the tractogram was made from and with."""
    kind = choose_engine(job.config)
    return {
        "config": job.config,
        "config_hash": config_hash(job.config),
        "inputs": [
            InputFile(role=role, uri=job.outputs.uri(path), sha256=hashes[role])
            for role, path in job.inputs.items()
        ],
        "model": {key: value for key, value in fit.details.items() if key != "warnings"},
        "environment": environment(job.container),
        "engine": kind.name,
        "engine_version": version(kind.library),
        "engine_differences": list(kind.differences),
        "threads": job.n_threads,
        "warnings": fit.details["warnings"],
    }


def _account(job: Job, seeds: SeedList, store: BatchStore) -> dict[str, Any]:
    """Say what became of every seed."""
    counts = store.counts
    return {
        "rng_seed": store.rng_seed,
        "batches": store.n_batches,
        "seed_voxels": int(np.count_nonzero(seeds.mask)) if seeds.given_mm is None else None,
        "seeds": counts.seeds,
        "seeds_without_direction": counts.seeds_without_direction,
        "streamlines_generated": counts.generated,
        "streamlines_kept": counts.kept,
        "streamlines_rejected": counts.rejected,
        "ends": counts.stops,
        "points": store.n_points,
        "length_quantiles_mm": length_quantiles_mm(
            store, job.config.tracking.algorithm.step_size_mm
        ),
    }


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {n}" for reason, n in counts.items())

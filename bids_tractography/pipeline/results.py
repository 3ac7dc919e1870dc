"""Write the tractogram, its density map and its sidecar."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_tractography.config import Config
from bids_tractography.config.tracking import GivenSeedsConfig, TrackingConfig
from bids_tractography.core.checks import MIN_COUNT
from bids_tractography.core.images import Grid, read_grid
from bids_tractography.core.seeding import SeedList
from bids_tractography.core.stopping import StoppingRule
from bids_tractography.core.streamlines import Counts
from bids_tractography.errors import NoStreamlinesError, OutputError
from bids_tractography.machine.files import check_unchanged, read_json_file
from bids_tractography.outputs.names import sidecar_path
from bids_tractography.outputs.provenance import (
    ImportRecord,
    InputFile,
    TractogramRecord,
    config_hash,
    environment,
    peak_memory_mib,
)
from bids_tractography.outputs.run import Sidecar
from bids_tractography.pipeline.fitting import Fit
from bids_tractography.pipeline.goals import Goal
from bids_tractography.pipeline.job import Job
from bids_tractography.pipeline.sidecars import density_sidecar, import_sidecar, tractogram_sidecar
from bids_tractography.pipeline.task import Task
from bids_tractography.tracking import ENGINES
from bids_tractography.tractogram import linearise
from bids_tractography.tractogram.base import Payload, Streamlines, Writer
from bids_tractography.tractogram.formats.table import payload, writers
from bids_tractography.tractogram.imported import check_tractogram, copy_or_link
from bids_tractography.tractogram.store import BatchStore
from bids_tractography.tractogram.summary import (
    ContentHash,
    content_hash,
    density,
    length_quantiles_mm,
)

logger = logging.getLogger(__name__)


def write_tractogram(
    task: Task, fit: Fit, stopping: StoppingRule, seeds: SeedList, goal: Goal, store: BatchStore
) -> None:
    """Assemble the tractogram, then its density map; each is finished with its sidecar.

    Parameters
    ----------
    task : Task
    fit : Fit
    stopping : StoppingRule
    seeds : SeedList
    goal : Goal
    store : BatchStore
        With all batches.

    Raises
    ------
    NoStreamlinesError
        If no streamline was kept.
    OutputError
        If a file cannot be written.
    """
    job, watch = task.job, task.watch
    if store.n_streamlines == 0:
        counts = store.counts
        store.discard()
        raise NoStreamlinesError(
            f"{job.name}: none of {counts.generated} streamlines from {counts.seeds} seeds was "
            f"kept ({_fates(counts)}).",
            "Inspect the fODF and the stop mask, or relax stopping or tracking.min_length_mm.",
        )
    for name, value in tracking_figures(job.config, store.counts).items():
        task.findings.measure(name, value, detail=_fates(store.counts))
    with watch.stage("writing"):
        visits = density(store, fit.grid) if "tdi" in job.targets else None
    if job.main in task.stale:
        _write_main(task, fit, stopping, seeds, goal, store, visits)
    if visits is not None and job.main != "tdi":
        task.write_map("tdi", visits, fit.grid, density_sidecar(job), {})
    logger.info("%s: %d streamlines of %d seeds.", job.name, store.n_streamlines, store.next_seed)


def _write_main(
    task: Task,
    fit: Fit,
    stopping: StoppingRule,
    seeds: SeedList,
    goal: Goal,
    store: BatchStore,
    visits: NDArray[np.int32] | None,
) -> None:
    """Write the tractogram, or the density map if that alone is kept, with the record."""
    job, watch = task.job, task.watch
    with watch.stage("writing"):
        if job.main == "tractogram":
            content, linearised = _write_streamlines(job, store, fit.grid)
        else:
            content, linearised = content_hash(store, job.config.output.dtype), None
    watch.add("tracking", store.seconds, store.cpu_seconds)
    record = TractogramRecord(
        **_common(task),
        **_resolved(job, fit),
        **_account(job, seeds, goal, store),
        linearised=linearised,
        content_sha256=content,
    )
    check_unchanged()
    sidecar = tractogram_sidecar(job, stopping, store.counts.seeds, store.n_streamlines)
    if job.main == "tractogram":
        job.outputs.write_sidecar(job.targets["tractogram"].paths, sidecar, record)
    elif visits is not None:
        of_map = density_sidecar(job)
        both = Sidecar(of_map.description, sidecar.sources, {**sidecar.keys, **of_map.keys})
        job.outputs.write_map(job.paths["tdi"], visits, fit.grid, both, record)


def _write_streamlines(
    job: Job, store: BatchStore, grid: Grid
) -> tuple[str, dict[str, float] | None]:
    """Write the tractogram; return its content hash, and what linearising it did."""
    paths, output = job.targets["tractogram"].paths, job.config.output
    written, linearised = _linearised(job, store)
    values = [store.per_streamline(name) for name in output.per_streamline]
    into = payload(output, store, grid, values) if linearised is None else None
    if into is not None:
        return _move(job, store, into), None
    makers = writers(output, values).values()
    for path, write in zip(paths, makers, strict=True):
        _write(job, path, write, written, grid)
    return content_hash(written, output.dtype), linearised


def import_tractogram(task: Task) -> None:
    """Check and import a tractogram, and write its density map and sidecar."""
    job, watch = task.job, task.watch
    config = job.config.import_tract
    if config is None:
        raise ValueError("nothing to import")
    source, grid = job.inputs["import_tract"], read_grid(job.run.image)
    with watch.stage("checking"):
        tractogram = check_tractogram(source, grid)
    with watch.stage("writing"):
        visits = density(tractogram, grid)
        copy_or_link(source, job.paths["tractogram"], config.mode)
    for warning in tractogram.warnings:
        task.findings.warn(f"{source.name}: {warning}")
    record = ImportRecord(
        **_common(task),
        mode=config.mode,
        format=tractogram.extension,
        streamlines=tractogram.n_streamlines,
        points=tractogram.n_points,
        points_inside=tractogram.share_inside,
        length_quantiles_mm=tractogram.length_quantiles_mm,
        content_sha256=tractogram.content_sha256,
        source_generated_by=_generated_by(source),
        source_sidecar=_source_sidecar(source),
    )
    check_unchanged()
    sidecar = import_sidecar(source, tractogram.n_streamlines)
    job.outputs.write_sidecar([job.paths["tractogram"]], sidecar, record)
    task.write_map("tdi", visits, grid, density_sidecar(job), {})
    logger.info("%s: %d streamlines imported.", job.name, tractogram.n_streamlines)


def _write(job: Job, path: Path, write: Writer, tractogram: Streamlines, grid: Grid) -> None:
    job.outputs.write_data(path, lambda temporary: write(temporary, tractogram, grid))


def _move(job: Job, store: BatchStore, into: Payload) -> str:
    """Move the points of the store into the tractogram; return its content hash."""
    path, content = job.paths["tractogram"], ContentHash(job.config.output.dtype)
    logger.info("Writing %s", path.name)
    sidecar_path(path).unlink(missing_ok=True)
    partial = store.move_points(path, into, content.add)
    content_sha256 = content.finish(
        store.lengths()
    )  # finds damage before the file gets its final name
    try:
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}).") from error
    return content_sha256


def _linearised(job: Job, store: BatchStore) -> tuple[Streamlines, dict[str, float] | None]:
    """Linearise the tractogram if requested, and measure the error."""
    config = job.config.output.linearise
    if config is None:
        return store, None
    fewer = linearise.linearise(store, config.max_error_mm, job.work)
    return fewer, {
        "share_of_points": round(fewer.share_kept, 6),
        "max_error_mm": round(fewer.max_error_mm, 6),
        "mean_error_mm": round(fewer.mean_error_mm, 6),
    }


def _source_sidecar(path: Path) -> dict[str, Any] | None:
    """Return the sidecar of an imported tractogram; None if there is none.

    Raises
    ------
    DataError
        If it is not valid JSON.
    """
    beside = sidecar_path(path)
    if not beside.exists():
        return None
    content = read_json_file(beside, remedy="Correct or remove it.", strict=True)
    return content if isinstance(content, dict) and content else None


def _generated_by(path: Path) -> list[Any]:
    """Return ``GeneratedBy`` of the dataset that a file belongs to."""
    for folder in path.parents:
        beside = folder / "dataset_description.json"
        description = read_json_file(beside, strict=True) if beside.exists() else None
        if isinstance(description, dict) and description:
            made_by = description.get("GeneratedBy", [])
            return made_by if isinstance(made_by, list) else [made_by]
    return []


def _common(task: Task) -> dict[str, Any]:
    """Return the parts of the record that imported tractograms have as well."""
    job, findings = task.job, task.findings.all
    return {
        "fingerprint": task.fingerprints[job.main or ""],
        "warnings": findings.warnings,
        "checks": findings.figures,
        "seconds": task.watch.seconds,
        "cpu_seconds": task.watch.cpu_seconds,
        "peak_memory_mib": peak_memory_mib(),
        "config": job.config,
        "config_hash": config_hash(job.config),
        "inputs": [
            InputFile(role=role, uri=job.outputs.uri(path), sha256=task.hashes[role])
            for role, path in job.inputs.items()
        ],
        "environment": environment(job.container),
    }


def _resolved(job: Job, fit: Fit) -> dict[str, Any]:
    """Return the parts of the record about model and engine."""
    kind = ENGINES[job.engine or ""]
    return {
        "model": fit.model,
        "gradients": fit.gradients,
        "engine": kind.name,
        "engine_version": version(kind.library),
        "engine_differences": list(kind.differences),
        "threads": job.n_threads,
    }


def tracking_figures(config: Config, counts: Counts) -> dict[str, float]:
    """Return figures of the outcome of the seeds, for the plausibility checks.

    Regions and length bounds chosen by the user may keep any number of streamlines, so that the
    figure is not checked with them.
    """
    figures = {}
    if counts.seeds >= MIN_COUNT:
        figures["seeds_without_direction"] = counts.seeds_without_direction / counts.seeds
    tracking = config.tracking
    chosen = (
        tracking.include or tracking.exclude or isinstance(config.seeding.seeds, GivenSeedsConfig)
    )
    strict = tracking.min_length_mm > TrackingConfig().min_length_mm
    if counts.generated >= MIN_COUNT and not chosen and not strict:
        figures["streamlines_kept"] = counts.kept / counts.generated
    return figures


def _account(job: Job, seeds: SeedList, goal: Goal, store: BatchStore) -> dict[str, Any]:
    """Return the parts of the record about seeds, streamlines and their ends."""
    counts = store.counts
    return {
        "rng_seed": store.rng_seed,
        "batches": store.n_batches,
        "seed_voxels": int(np.count_nonzero(seeds.mask)) if seeds.given_mm is None else None,
        "seeds": counts.seeds,
        "goal": goal.record,
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


def _fates(counts: Counts) -> str:
    """Summarise why seeds did not lead to streamlines."""
    return (
        f"rejected: {_listed(counts.rejected)}; seeds without a direction: "
        f"{counts.seeds_without_direction}; ends: {_listed(counts.stops)}"
    )


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {n}" for reason, n in counts.items())

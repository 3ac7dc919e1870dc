"""Estimate the costs of a job from headers and small text files, for the dry run.

The signal is not read. The size of the brain, the number of seeds in it and the length of
streamlines are those of typical heads, unless a few seeds were tracked as a trial.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bids_tractography.anatomy.brain import check_grid
from bids_tractography.anatomy.masks import check_files
from bids_tractography.config import Config
from bids_tractography.config import masks as define
from bids_tractography.config.tracking import (
    ConvergeSeedsConfig,
    GivenSeedsConfig,
    GridSeedsConfig,
    RandomSeedsConfig,
    SelectSeedsConfig,
    TotalSeedsConfig,
)
from bids_tractography.core.checks import Findings
from bids_tractography.core.dwi import header_figures
from bids_tractography.core.fodf import n_coefficients
from bids_tractography.core.gradients import read_gradients
from bids_tractography.core.images import Grid, read_grid, read_layout
from bids_tractography.core.seeding import read_given_seeds
from bids_tractography.pipeline.goals import SEEDS_TO_CONVERGE
from bids_tractography.pipeline.inspection import report_header, report_inputs
from bids_tractography.pipeline.job import Job
from bids_tractography.pipeline.trial import Trial
from bids_tractography.reconst import MODELS
from bids_tractography.tracking import ENGINES
from bids_tractography.tracking.base import EngineKind, ProblemSize
from bids_tractography.tractogram.formats.table import open_reader
from bids_tractography.tractogram.imported import check_header
from bids_tractography.tractogram.store import POINT_BYTES, STREAMLINE_BYTES

_MIB = 2.0**20

# Of heads: a field of view is that of the head, and no brain is larger than this.
_BRAIN_SHARE, _LARGEST_BRAIN_ML = 0.275, 1900.0
_TISSUE_SHARES = {"wm": 0.4, "gm": 0.45, "csf": 0.15}  # of the brain
_INTERFACE_SHARE, _OTHER_SHARE = 0.25, 0.3
# Anisotropy is above a value in a share of the brain that falls exponentially; noise adds to it,
# and raw data have more.
_FA_SHARES = {True: (1.7, 5.5), False: (0.45, 2.0)}

# Streamlines of the default bounds, where the fODF has order 4 and for each order more.
_KEPT_SHARE, _KEPT_SHARE_PER_ORDER = 0.43, 0.028
_KEPT_LENGTH_MM, _KEPT_LENGTH_MM_PER_ORDER = 73.0, 4.25
# The least and the most that was measured: tissue out of place, and a phantom without noise.
_KEPT_RANGE = (0.23, 0.9)
_REASON = (
    "a guess: 0.23 (misaligned tissue), 0.54 to 0.77 (a head) and 0.86 (the demo) of the seeds "
    "were kept so far"
)

# Of one thread; points are those that are kept.
_SECONDS_PER_VALUE = 5.2e-8  # to read the DWI and reorder it
_SECONDS_PER_COEFFICIENT = 0.85e-6  # in a voxel: tensor, checks and writing
_BYTES_PER_SECOND = 2e8
_T1W_SECONDS = 40.0
_SERIAL_SHARE = 0.25  # of fitting: maps are written by one thread

# Program and libraries; then multiples of the size of the array that is named.
_BASE_MIB = 345.0
_READING_DWI, _FITTING_FODF, _TRACKING_BATCH = 2.25, 2.3, 2.7
_MAPS_BYTES = 53  # of a voxel: maps and masks

_LINEARISED_SHARE = 0.2


@dataclass(frozen=True)
class Estimate:
    """Estimated costs of a job.

    Parameters
    ----------
    seeds, streamlines : int
        Expected numbers of seeds and of kept streamlines.
    streamlines_range : tuple of int
        Bounds of the kept streamlines.
    basis : str
        What the number of streamlines is based on.
    seconds : float
        Wall time.
    cpu_seconds : float
        CPU time of all threads.
    memory_mib : float
        Peak.
    disk_mib : float
        Peak of the finished derivatives and the batches. The points of the batches take additional
        space only if the tractogram is written in several formats, or linearised.
    model : dict
        Kind of the model and order of its fODF.
    warnings : tuple of str
    """

    seeds: int
    streamlines: int
    streamlines_range: tuple[int, int]
    basis: str
    seconds: float
    cpu_seconds: float
    memory_mib: float
    disk_mib: float
    model: dict[str, Any]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Size:
    """The sizes that all estimates are based on."""

    voxels: int
    brain: int
    volumes: int
    sh_order: int
    seeds: int
    batch: int
    streamlines: int
    points: float

    @property
    def coefficients(self) -> int:
        return n_coefficients(self.sh_order)


def estimate(job: Job, trial: Trial | None = None) -> Estimate:
    """Estimate the costs of a job from the headers of its files.

    Parameters
    ----------
    job : Job
    trial : Trial, optional
        Decides on the numbers of seeds and streamlines if there is one.

    Raises
    ------
    TractographyError
        For errors in files, grids, gradients or configuration, except those that only the
        signal shows.
    """
    config = job.config
    findings = Findings(job.name, config.checks, job.subject)
    check_files(config, job.run.named)
    report_inputs(job, findings)
    grid, shape, _ = read_layout(job.run.image, ndim=4)
    gradients = read_gradients(job.run.gradients, grid, shape[3], config.gradients, job.frame)
    report_header(job, grid, gradients, header_figures(grid, gradients), findings)
    if job.run.brain_mask is not None:
        check_grid(job.run.brain_mask, read_grid(job.run.brain_mask), grid)
    order = MODELS[config.model.kind].sh_order(config.model, gradients, job.model_files)
    size = _size(job, grid, shape[3], order)
    low, high = (int(size.seeds * share) for share in _KEPT_RANGE)
    basis = _REASON
    if trial is not None:
        size = _measured(size, trial)
        low = int(size.seeds * max(trial.share - trial.error, 0))
        high = int(size.seeds * (trial.share + trial.error))
        basis = f"{trial.share:.2f} of {trial.seeds} seeds were kept in a trial"
    if isinstance(config.seeding.seeds, SelectSeedsConfig):
        low = high = min(size.streamlines, config.seeding.seeds.count)
    cpu_seconds, seconds = _seconds(job, size)
    return Estimate(
        seeds=size.seeds,
        streamlines=size.streamlines,
        streamlines_range=(low, high),
        basis=basis,
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        memory_mib=_memory_mib(job, size),
        disk_mib=_disk_mib(job, size),
        model={"kind": config.model.kind, "sh_order": order},
        warnings=tuple(findings.all.warnings),
    )


def estimate_memory_mib(job: Job) -> float:
    """Estimate the peak of memory of a job, in MiB, from the headers of its DWI."""
    if job.config.import_tract is not None:
        return _BASE_MIB
    grid, shape, _ = read_layout(job.run.image, ndim=4)
    gradients = read_gradients(job.run.gradients, grid, shape[3], job.config.gradients, job.frame)
    order = MODELS[job.config.model.kind].sh_order(job.config.model, gradients, job.model_files)
    return _memory_mib(job, _size(job, grid, shape[3], order))


def check_import(job: Job) -> None:
    """Check the headers of a tractogram that is imported.

    Raises
    ------
    TractographyError
        If it is not one, or belongs to another image.
    """
    path = job.run.named["import_tract"]
    check_header(path, open_reader(path).grid, read_grid(job.run.image))


def _measured(size: _Size, trial: Trial) -> _Size:
    """Return the sizes with those that the trial shows."""
    factor = trial.all_seeds / trial.seeds
    return replace(
        size,
        seeds=trial.all_seeds,
        streamlines=round(trial.kept * factor),
        points=trial.points * factor,
    )


def _size(job: Job, grid: Grid, n_volumes: int, sh_order: int) -> _Size:
    config = job.config
    n_voxels = math.prod(grid.shape)
    voxel_ml = float(grid.voxel_size_mm.prod()) / 1000
    n_brain = int(min(_BRAIN_SHARE * n_voxels, _LARGEST_BRAIN_ML / voxel_ml)) + 1
    match config.seeding.seeds:
        case TotalSeedsConfig(count=n):
            seeds = n
        case SelectSeedsConfig(count=n, limit=most):
            seeds = min(most, int(n / _kept_share(sh_order)) + 1)
        case ConvergeSeedsConfig(limit=most):
            seeds = min(most, SEEDS_TO_CONVERGE)
        case GivenSeedsConfig():
            seeds = len(read_given_seeds(job.run.named["seeding.seeds"], grid))
        case GridSeedsConfig(per_axis=n):
            seeds = int(_voxels(config.seeding.mask, n_voxels, n_brain, job.run.is_raw) * n**3)
        case RandomSeedsConfig(per_voxel=n):
            seeds = int(_voxels(config.seeding.mask, n_voxels, n_brain, job.run.is_raw) * n)
    orders = np.clip(sh_order, 2, 8) - 4
    streamlines = int(seeds * _kept_share(sh_order))
    length_mm = float(_KEPT_LENGTH_MM + _KEPT_LENGTH_MM_PER_ORDER * orders)
    points = streamlines * (length_mm / config.tracking.algorithm.step_size_mm + 1)
    batch = config.tracking.batch_size
    return _Size(
        voxels=n_voxels,
        brain=n_brain,
        volumes=n_volumes,
        sh_order=sh_order,
        seeds=seeds,
        batch=_engine(job).batch_size if batch == "auto" else batch,
        streamlines=streamlines,
        points=points,
    )


def _kept_share(sh_order: int) -> float:
    """Return the share of seeds whose streamline is kept."""
    return float(_KEPT_SHARE + _KEPT_SHARE_PER_ORDER * (np.clip(sh_order, 2, 8) - 4))


def _engine(job: Job) -> EngineKind:
    return ENGINES[job.engine or ""]


def _voxels(mask: define.MaskConfig | None, n_voxels: int, n_brain: int, raw: bool) -> float:
    """Return the approximate number of voxels of a mask."""
    match mask:
        case define.FullMaskConfig():
            return n_voxels
        case define.BrainMaskConfig():
            return n_brain
        case define.ThresholdMaskConfig(percentile=True):
            low, high = mask.above or 0, 100 if mask.below is None else mask.below
            return n_brain * (high - low) / 100
        case define.ThresholdMaskConfig(map="fa"):
            low, high = mask.above or 0, 1 if mask.below is None else mask.below
            return n_brain * (_share_above(low, raw) - _share_above(high, raw))
        case define.TissueMaskConfig():
            return n_brain * _TISSUE_SHARES[mask.tissue]
        case define.InterfaceMaskConfig():
            return n_brain * _INTERFACE_SHARE
        case define.AnyMaskConfig():
            return min(n_voxels, sum(_voxels(m, n_voxels, n_brain, raw) for m in mask.of))
        case define.AllMaskConfig():
            return min(_voxels(m, n_voxels, n_brain, raw) for m in mask.of)
        case define.NotMaskConfig():
            return n_voxels - _voxels(mask.of, n_voxels, n_brain, raw)
    return n_brain * _OTHER_SHARE  # files


def _share_above(anisotropy: float, raw: bool) -> float:
    """Return the share of the brain that has a larger anisotropy."""
    factor, rate = _FA_SHARES[raw]
    return min(1.0, factor * math.exp(-rate * anisotropy)) if anisotropy < 1 else 0.0


def _seconds(job: Job, size: _Size) -> tuple[float, float]:
    """Return CPU time and wall time."""
    config = job.config
    algorithm = config.tracking.algorithm.kind
    reading = size.voxels * size.volumes * _SECONDS_PER_VALUE
    per_coefficient = _SECONDS_PER_COEFFICIENT + MODELS[config.model.kind].seconds_per_coefficient
    fitting = size.brain * size.coefficients * per_coefficient
    tracking = size.points / _engine(job).points_per_second(algorithm)
    writing = _file_bytes(config, size) / _BYTES_PER_SECOND
    if job.tissue is not None and job.tissue.kind == "t1w":
        reading += _T1W_SECONDS
    shared = fitting * (1 - _SERIAL_SHARE) + tracking
    alone = reading + fitting * _SERIAL_SHARE + writing
    return alone + shared, alone + shared / job.n_threads


def _memory_mib(job: Job, size: _Size) -> float:
    """Return the largest of what reading, fitting and tracking take."""
    dwi_bytes = 4.0 * size.voxels * size.volumes
    fodf_bytes = 4.0 * size.voxels * size.coefficients
    maps_bytes = _MAPS_BYTES * size.voxels
    problem = ProblemSize(size.voxels, size.brain, size.coefficients)
    share = min(1.0, size.batch / max(size.seeds, 1))
    peaks = (
        _READING_DWI * dwi_bytes,
        dwi_bytes + _FITTING_FODF * fodf_bytes + maps_bytes,
        fodf_bytes
        + maps_bytes
        + _engine(job).memory_bytes(problem)
        + _TRACKING_BATCH * POINT_BYTES * size.points * share,
    )
    return _BASE_MIB + max(peaks) / _MIB


def _disk_mib(job: Job, size: _Size) -> float:
    """Return the size of all files, and of the batches that are there with them.

    If there is one tractogram, with all points, those of the batches are moved into it.
    """
    config = job.config
    n_maps = sum(target.product.volumes for target in job.targets.values())
    maps_bytes = size.brain * (size.coefficients + n_maps) * 4
    store_bytes = float(size.streamlines * STREAMLINE_BYTES)
    if config.output.linearise is not None:
        store_bytes += size.points * POINT_BYTES * (1 + _LINEARISED_SHARE)
    elif len(config.output.formats) > 1:
        store_bytes += size.points * POINT_BYTES
    return (maps_bytes + store_bytes + _file_bytes(config, size)) / _MIB


def _file_bytes(config: Config, size: _Size) -> float:
    """Return the size of the tractogram in all its formats."""
    points = size.points * (1 if config.output.linearise is None else _LINEARISED_SHARE)
    width = 6 if config.output.dtype == "float16" else 12
    return len(config.output.formats) * (points * width + size.streamlines * 8)

"""What a job will take, from a quick look at its data: for the dry run.

The image is read and checked as the run itself would; the tensor and the model are fitted to a
sample of the brain, and the rest is scaled up from the time that takes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_tractography.checks import Findings
from bids_tractography.config.model import AutoResponse, CsdModel, Model
from bids_tractography.config.tracking import GivenSeeds, GridSeeds, RandomSeeds, TotalSeeds
from bids_tractography.dwi import Dwi, read_dwi
from bids_tractography.errors import EmptyMaskError
from bids_tractography.inspection import find_brain, report_dwi, report_inputs, report_model
from bids_tractography.job import TENSOR_MAPS, Job
from bids_tractography.masks import Sources, check_files, make_mask
from bids_tractography.reconst import fit_model
from bids_tractography.reconst.fodf import gfa
from bids_tractography.reconst.tensor import fit_tensor
from bids_tractography.seeding import read_given_seeds
from bids_tractography.tracking import choose_engine

_SAMPLE_VOXELS = 4096
_SAMPLE_FITS = 1024
# Of brains and the phantom, with the default bounds; the lengths of seeds' streamlines, kept or
# not, and of those that are kept.
_MEAN_LENGTH_MM, _KEPT_SHARE, _KEPT_LENGTH_MM = 38.0, 0.55, 50.0
_TISSUE_SHARE, _T1W_SECONDS = 0.3, 90.0
_BASE_MIB, _ROW_BYTES = 420.0, 362 * 4
_MIB = 2.0**20
# What the sample's fit says and the run's will not.
_OF_SAMPLE = ("response", "responses")
# Of one thread, by engine and algorithm.
_POINTS_PER_SECOND = {
    ("cpu", "prob"): 2.5e6,
    ("cpu", "det"): 1.8e6,
    ("cpu", "pft"): 0.8e6,
    ("dipy", "prob"): 4e4,
    ("dipy", "det"): 4e4,
}
_SLOW_POINTS_PER_SECOND = 1e5
_BYTES_PER_SECOND = 2e8


@dataclass(frozen=True)
class Estimate:
    """What a job will take; good to about a factor of two.

    Parameters
    ----------
    seeds, streamlines : int
        To be placed, and likely to be kept.
    seconds : float
        Wall time.
    memory_mib : float
        Peak.
    disk_mib : float
        Of the finished derivatives. Unless the only format is TRX with float32, the batches take
        the size of the streamlines once more while the job runs.
    model : dict
        Resolved parameters of the model, from the sample.
    warnings : tuple of str
    """

    seeds: int
    streamlines: int
    seconds: float
    memory_mib: float
    disk_mib: float
    model: dict[str, Any]
    warnings: tuple[str, ...]


def estimate(job: Job) -> Estimate:
    """Look at a job's data and tell what it will take.

    Raises
    ------
    TractographyError
        For anything wrong with inputs or configuration that the run itself would meet at its
        start.
    """
    findings = Findings(job.name, job.config.checks, job.subject)
    check_files(job.config, job.run.named)
    report_inputs(job, findings)
    begin = time.perf_counter()
    dwi = read_dwi(job.run.image, job.run.gradients, job.config.gradients, job.frame)
    report_dwi(job, dwi, findings)
    brain = find_brain(dwi, job.run.image, job.run.brain_mask, findings).data
    seconds = time.perf_counter() - begin
    sample = _every(brain, _SAMPLE_VOXELS)
    share = np.count_nonzero(sample) / np.count_nonzero(brain)
    begin = time.perf_counter()
    tensor = fit_tensor(dwi, sample, job.config.tensor, job.n_threads)
    seconds += (time.perf_counter() - begin) / share
    few = _every(sample, _SAMPLE_FITS)
    few_share = np.count_nonzero(few) / np.count_nonzero(brain)
    begin = time.perf_counter()
    config = _for_sample(job.config.model, few_share)
    model = fit_model(dwi, few, tensor, config, job.n_threads, job.model_files)
    seconds += (time.perf_counter() - begin) / few_share
    report_model(model, findings)
    maps = {name: getattr(tensor, name) for name in TENSOR_MAPS}
    sources = Sources(dwi.grid, {**maps, "gfa": gfa(model.coefficients)}, sample, job.run.named)
    seeds = _count_seeds(job, sources, int(np.count_nonzero(brain)), share)
    return _scaled_up(job, dwi, brain, seeds, seconds, model.record, findings)


def _for_sample(config: Model, share: float) -> Model:
    """Take the response from as large a share of the sample as of the brain."""
    if isinstance(config, CsdModel) and isinstance(config.response, AutoResponse):
        voxels = max(1, int(config.response.voxels * share))
        response = config.response.model_copy(update={"voxels": voxels})
        return config.model_copy(update={"response": response})
    return config


def _every(mask: NDArray[np.bool_], most: int) -> NDArray[np.bool_]:
    """Thin a mask out evenly."""
    voxels = np.flatnonzero(mask)
    thinned = np.zeros(mask.size, bool)
    thinned[voxels[:: max(1, -(-len(voxels) // most))]] = True
    return thinned.reshape(mask.shape)


def _count_seeds(job: Job, sources: Sources, n_brain: int, share: float) -> int:
    config = job.config.seeding
    if isinstance(config.seeds, TotalSeeds):
        return config.seeds.count
    if isinstance(config.seeds, GivenSeeds) or config.mask is None:
        return len(read_given_seeds(job.run.named["seeding.seeds"], sources.grid))
    try:
        mask = make_mask(config.mask, sources, "seeding.mask")
        sampled = set(mask.parents) & {*sources.maps, "brain"}
        inside = int(np.count_nonzero(mask.data & sources.brain))
        voxels = inside / share if sampled else float(mask.n_voxels)
    except EmptyMaskError:
        voxels = 0.0
    except KeyError:  # tissue, which is not made here
        voxels = _TISSUE_SHARE * n_brain
    match config.seeds:
        case GridSeeds(per_axis=n):
            return int(voxels * n**3)
        case RandomSeeds(per_voxel=n):
            return int(voxels * n)


def _scaled_up(
    job: Job,
    dwi: Dwi,
    brain: NDArray[np.bool_],
    seeds: int,
    seconds: float,
    model: dict[str, Any],
    findings: Findings,
) -> Estimate:
    algorithm, output = job.config.tracking.algorithm, job.config.output
    n_brain, n_voxels = int(np.count_nonzero(brain)), brain.size
    streamlines = int(seeds * _KEPT_SHARE)
    points = streamlines * (_KEPT_LENGTH_MM / algorithm.step_size_mm + 1)
    tracked = seeds * _MEAN_LENGTH_MM / algorithm.step_size_mm
    engine = choose_engine(job.config).name
    rate = _POINTS_PER_SECOND.get((engine, algorithm.kind), _SLOW_POINTS_PER_SECOND)
    seconds += tracked / (rate * job.n_threads)
    bytes_of_file = points * 12 + streamlines * 8
    written = bytes_of_file * (len(output.formats) + 2)  # batches, files, and reading them again
    seconds += written / _BYTES_PER_SECOND
    if job.tissue is not None and job.tissue[0] == "t1w":
        seconds += _T1W_SECONDS
    n_coefficients = 45
    dwi_mib = dwi.data.nbytes / _MIB
    fit_mib = dwi_mib * 1.5 + n_voxels * (n_coefficients + 40) * 4 / _MIB
    tracking_mib = (n_voxels * n_coefficients * 4 + 0.7 * n_brain * _ROW_BYTES) / _MIB
    return Estimate(
        seeds=seeds,
        streamlines=streamlines,
        seconds=seconds,
        memory_mib=_BASE_MIB + max(fit_mib, tracking_mib),
        model={key: value for key, value in model.items() if key not in _OF_SAMPLE},
        warnings=tuple(findings.all.warnings),
        disk_mib=(bytes_of_file * len(output.formats) + n_brain * n_coefficients * 4) / _MIB,
    )

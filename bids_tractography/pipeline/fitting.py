"""The signal becomes maps and an fODF: fitted and written, or read back if up to date."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from bids_tractography.anatomy.tissue import displacement_mm, make_tissue
from bids_tractography.core.checks import Findings
from bids_tractography.core.dwi import Dwi
from bids_tractography.core.fodf import Fodf, gfa
from bids_tractography.core.images import Grid, read_image
from bids_tractography.core.tissue import TISSUES
from bids_tractography.errors import DataError
from bids_tractography.outputs.provenance import Fingerprint, Record
from bids_tractography.outputs.run import Sidecar, read_record
from bids_tractography.pipeline.inspection import find_brain, guard, judge_again, report_model
from bids_tractography.pipeline.job import TENSOR_MAPS, Job
from bids_tractography.pipeline.sidecars import (
    brain_mask_sidecar,
    fodf_sidecar,
    model_map_sidecar,
    tensor_map_sidecar,
    tissue_sidecar,
)
from bids_tractography.reconst import MODELS, ModelFit, fit_model
from bids_tractography.reconst.tensor import fit_tensor

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Fit:
    """What the signal was turned into.

    Parameters
    ----------
    grid : Grid
    brain : ndarray of bool, shape (X, Y, Z)
    maps : mapping of str to ndarray of float32, shape (X, Y, Z)
        Scalar maps by name.
    fodf : Fodf
    details : dict
        Resolved parameters of the model.
    """

    grid: Grid
    brain: NDArray[np.bool_]
    maps: Mapping[str, NDArray[np.float32]]
    fodf: Fodf
    details: dict[str, Any]


def fit_or_read(
    job: Job,
    dwi: Dwi,
    stale: Mapping[str, str],
    fingerprints: Mapping[str, Fingerprint],
    findings: Findings,
) -> Fit:
    """Fit tensor and model and write what they give, or read it back.

    Parameters
    ----------
    job : Job
    dwi : Dwi
    stale : mapping
        What has to be made, see `Job.stale`.
    fingerprints : mapping
        By role, see `Job.fingerprints`.
    findings : Findings
        Receives figures and warnings.
    """
    fitted = ("brain", *TENSOR_MAPS, "v1", "fod", *MODELS[job.config.model.kind].maps)
    if any(role in stale for role in fitted):
        with threadpool_limits(1):  # sums must not depend on the number of BLAS threads
            return _fit(job, dwi, fingerprints, findings)
    logger.info("%s: maps and fODF are up to date.", job.name)

    def read(role: str, ndim: int = 3) -> NDArray[np.float32]:
        return read_image(job.paths[role], ndim=ndim).data

    fodf = Fodf(read("fod", 4), dwi.grid)
    names = (*TENSOR_MAPS, *MODELS[job.config.model.kind].maps)
    maps = {name: read(name) for name in names} | {"gfa": gfa(fodf.coefficients)}
    details = read_record(job.paths["fod"])["details"]
    judge_again(details, job, findings)
    return Fit(dwi.grid, read("brain") > 0, maps, fodf, details)


def _fit(job: Job, dwi: Dwi, fingerprints: Mapping[str, Fingerprint], findings: Findings) -> Fit:
    config = job.config
    with findings.stage() as found:
        brain = find_brain(dwi, job.run.image, job.run.brain_mask, findings)
        tensor = fit_tensor(dwi, brain.data, config.tensor, job.n_threads)
        findings.measure("mean_diffusivity_mm2_s", float(np.median(tensor.md[brain.data])))
        guard(tensor, brain.data, dwi, config.gradients, findings)
        model = fit_model(dwi, brain.data, tensor, config.model, job.n_threads, job.model_files)
        report_model(model, findings)
    fodf = Fodf(model.coefficients, dwi.grid)
    details = {
        **model.record,
        **found.record,
        "gradients": dwi.gradients.record,
        "brain_mask": brain.record,
    }

    def write(
        role: str, data: NDArray[np.generic], sidecar: Sidecar, about: dict[str, Any]
    ) -> None:
        record = Record(fingerprint=fingerprints[role], details=about)
        job.outputs.write_map(job.paths[role], data, dwi.grid, sidecar, record)

    write("brain", brain.data.astype(np.uint8), brain_mask_sidecar(job, brain), brain.record)
    maps = {name: getattr(tensor, name) for name in TENSOR_MAPS}
    for name, data in maps.items():
        write(name, data, tensor_map_sidecar(job, name), tensor.record)
    if config.tensor.v1:
        write("v1", tensor.v1, tensor_map_sidecar(job, "v1"), tensor.record)
    write("fod", fodf.coefficients, fodf_sidecar(job, details, fodf.sh_order), details)
    further = _model_maps(model, dwi.grid)
    for name in MODELS[config.model.kind].maps:
        write(name, further[name], model_map_sidecar(job, name), {})
    maps |= {**further, "gfa": gfa(fodf.coefficients)}
    return Fit(dwi.grid, brain.data, maps, fodf, details)


def _model_maps(model: ModelFit, grid: Grid) -> dict[str, NDArray[np.float32]]:
    """Return the model's further maps, with a volume fraction for every tissue."""
    if model.fractions is None:
        return dict(model.maps)
    nothing = np.zeros(grid.shape, np.float32)
    return {**model.maps, **{f"{t}vf": model.fractions.get(t, nothing) for t in TISSUES}}


def tissue_or_read(
    job: Job,
    dwi: Dwi,
    fit: Fit,
    stale: Mapping[str, str],
    fingerprints: Mapping[str, Fingerprint],
    findings: Findings,
) -> dict[str, NDArray[np.float32]]:
    """Make tissue fractions on the DWI's grid and write them, or read them back.

    Returns
    -------
    dict
        ``wm``, ``gm`` and ``csf``, each of shape (X, Y, Z); empty where nothing asks for them.
    """
    if not job.config.needs_tissue:
        return {}
    if not set(TISSUES) & set(stale):
        logger.info("%s: tissue fractions are up to date.", job.name)
        judge_again(read_record(job.paths["wm"])["details"], job, findings)
        return {name: read_image(job.paths[name], ndim=3).data for name in TISSUES}
    from_model = None
    if job.tissue is not None and job.tissue.kind == "dwi":
        from_model = {name: fit.maps[f"{name}vf"] for name in TISSUES}
        if not from_model["gm"].any():
            raise DataError(
                "tissue.kind dwi: msmt_csd told white matter from fluid only, so that there is no "
                "grey matter to end in.",
                "That takes two shells or more; give tissue from another source.",
            )
    if job.tissue is None:
        raise ValueError("tissue was not looked for")
    with findings.stage() as found:
        tissue = make_tissue(job.config.tissue, job.tissue, dwi, fit.brain, from_model)
        for warning in (*tissue.warnings, *_assumed(job)):
            findings.warn(warning)
        findings.measure_all(tissue.figures)
        if tissue.source != "dwi":
            shift_mm = displacement_mm(tissue.wm, fit.maps["fa"], fit.brain, fit.grid)
            findings.measure("tissue_shift_mm", shift_mm)
    details = {**tissue.record, **found.record}
    maps = {name: getattr(tissue, name) for name in TISSUES}
    for name, data in maps.items():
        record = Record(fingerprint=fingerprints[name], details=details)
        sidecar = tissue_sidecar(job, name, tissue)
        job.outputs.write_map(job.paths[name], data, dwi.grid, sidecar, record)
    return maps


def _assumed(job: Job) -> list[str]:
    """Warn of tissue that is only assumed to be aligned with the DWI."""
    paths = job.tissue.paths if job.tissue else ()
    assumed = job.run.tissue.assumed if job.run.tissue else {}
    return [assumed[path] for path in paths[:1] if path in assumed]

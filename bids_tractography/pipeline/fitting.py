"""The signal becomes maps and an fODF: fitted and written, or read back if up to date."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from bids_tractography.anatomy.brain import above_noise
from bids_tractography.anatomy.masks import not_empty
from bids_tractography.anatomy.tissue import Tissue, displacement_mm, make_tissue
from bids_tractography.core.dwi import Dwi
from bids_tractography.core.fodf import Fodf, gfa
from bids_tractography.core.images import Grid, read_image
from bids_tractography.core.tissue import TISSUES
from bids_tractography.errors import DataError
from bids_tractography.outputs.run import read_record
from bids_tractography.pipeline.inspection import find_brain, guard, judge_again, report_model
from bids_tractography.pipeline.job import Job
from bids_tractography.pipeline.sidecars import (
    brain_mask_sidecar,
    fodf_sidecar,
    map_sidecar,
    tissue_sidecar,
)
from bids_tractography.pipeline.task import Task
from bids_tractography.reconst import ModelFit, fit_model
from bids_tractography.reconst.tensor import fit_tensor

logger = logging.getLogger(__name__)


# Parts of the details of a fit that are about the run as a whole.
_OF_RUN = ("warnings", "checks", "gradients")


@dataclass(frozen=True, eq=False)
class Fit:
    """The maps and the fODF of a DWI.

    Parameters
    ----------
    grid : Grid
    brain : ndarray of bool, shape (X, Y, Z)
    maps : mapping of str to ndarray of float32, shape (X, Y, Z)
        Scalar maps by name.
    fodf : Fodf
    details : dict
        Resolved parameters of model, brain mask and gradients, and what checks found.
    """

    grid: Grid
    brain: NDArray[np.bool_]
    maps: Mapping[str, NDArray[np.float32]]
    fodf: Fodf
    details: dict[str, Any]

    @property
    def model(self) -> dict[str, Any]:
        """Resolved parameters of the model and the brain mask."""
        return {key: value for key, value in self.details.items() if key not in _OF_RUN}

    @property
    def gradients(self) -> dict[str, Any]:
        """File and frame of the b-vectors, and the reason for that frame."""
        gradients: dict[str, Any] = self.details["gradients"]
        return gradients


def fit_or_read(task: Task, dwi: Dwi) -> Fit:
    """Fit tensor and model and write their maps, or read them back if they are up to date."""
    if task.has_stage("fit"):
        with threadpool_limits(1):  # sums must not depend on the number of BLAS threads
            return _fit(task, dwi)
    job = task.job
    logger.info("%s: maps and fODF are up to date.", job.name)
    fodf = Fodf(read_image(job.paths["fod"], ndim=4).data, dwi.grid)
    maps = {role: read_image(job.paths[role], ndim=3).data for role in job.scalar_maps}
    details = read_record(job.paths["fod"])["details"]
    judge_again(details, job, task.findings)
    brain = read_image(job.paths["brain"], ndim=3).data > 0
    return Fit(dwi.grid, brain, maps | {"gfa": gfa(fodf.coefficients)}, fodf, details)


def _fit(task: Task, dwi: Dwi) -> Fit:
    job, config, findings = task.job, task.job.config, task.findings
    with findings.stage() as found:
        brain = find_brain(dwi, job.run.image, job.run.brain_mask, findings)
        with_signal = replace(brain, data=brain.data & above_noise(dwi))
        fitted = not_empty(with_signal, "the part of the brain mask above the noise").data
        tensor = fit_tensor(dwi, fitted, config.tensor, job.n_threads)
        findings.measure("mean_diffusivity_mm2_s", float(np.median(tensor.md[brain.data])))
        findings.measure("fractional_anisotropy", float(np.median(tensor.fa[brain.data])))
        guard(tensor, fitted, dwi, config.gradients, findings)
        model = fit_model(dwi, fitted, tensor, config.model, job.n_threads, job.model_files)
        report_model(model, findings)
    fodf = Fodf(model.coefficients, dwi.grid)
    of_model = _maps_of_model(model, dwi.grid)
    details = {
        **model.record,
        **found.record,
        "gradients": dwi.gradients.record,
        "brain_mask": brain.record,
    }
    maps: dict[str, NDArray[np.float32]] = {}
    for role, target in job.targets.items():
        if target.product.stage != "fit":
            continue
        if role == "brain":
            sidecar, data = brain_mask_sidecar(job, brain), brain.data.astype(np.uint8)
            task.write_map(role, data, dwi.grid, sidecar, brain.record)
        elif role == "fod":
            sidecar = fodf_sidecar(job, details, fodf.sh_order)
            task.write_map(role, fodf.coefficients, dwi.grid, sidecar, details)
        elif role in of_model:
            maps[role] = of_model[role]
            task.write_map(role, maps[role], dwi.grid, map_sidecar(job, role), {})
        else:
            maps[role] = getattr(tensor, role)
            task.write_map(role, maps[role], dwi.grid, map_sidecar(job, role), tensor.record)
    scalar = {role: maps[role] for role in job.scalar_maps}
    return Fit(dwi.grid, brain.data, scalar | {"gfa": gfa(fodf.coefficients)}, fodf, details)


def _maps_of_model(model: ModelFit, grid: Grid) -> dict[str, NDArray[np.float32]]:
    """Return the further maps of a model, with a volume fraction for every tissue."""
    if model.fractions is None:
        return dict(model.maps)
    nothing = np.zeros(grid.shape, np.float32)
    return {**model.maps, **{f"{t}vf": model.fractions.get(t, nothing) for t in TISSUES}}


def tissue_or_read(task: Task, dwi: Dwi, fit: Fit) -> dict[str, NDArray[np.float32]]:
    """Compute tissue fractions on the grid of the DWI and write them, or read them back.

    Returns
    -------
    dict
        ``wm``, ``gm`` and ``csf``, each of shape (X, Y, Z); empty if they are not needed.
    """
    job, findings = task.job, task.findings
    if job.tissue is None:
        return {}
    if not task.has_stage("tissue"):
        logger.info("%s: tissue fractions are up to date.", job.name)
        judge_again(read_record(job.paths["wm"])["details"], job, findings)
        return {name: read_image(job.paths[name], ndim=3).data for name in TISSUES}
    from_model = None
    if job.tissue.kind == "dwi":
        from_model = {name: fit.maps[f"{name}vf"] for name in TISSUES}
        if not from_model["gm"].any():
            raise DataError(
                "tissue.kind dwi: msmt_csd separated white matter from fluid only, so there is no "
                "grey matter for streamlines to end in.",
                "Three tissues need two shells or more; give tissue from another source.",
            )
    with findings.stage() as found:
        tissue = make_tissue(job.config.tissue, job.tissue, dwi, fit.brain, from_model)
        for warning in (*tissue.warnings, *_assumed(job)):
            findings.warn(warning)
        findings.measure_all(tissue.figures)
        if tissue.source != "dwi":
            shift_mm = displacement_mm(tissue.wm, fit.maps["fa"], fit.brain, fit.grid)
            findings.measure("tissue_shift_mm", shift_mm)
        findings.measure_all(_figures_of_tissue(tissue, fit))
    details = {**tissue.record, **found.record}
    maps = {name: getattr(tissue, name) for name in TISSUES}
    for name, data in maps.items():
        task.write_map(name, data, dwi.grid, tissue_sidecar(job, name, tissue), details)
    return maps


def _figures_of_tissue(tissue: Tissue, fit: Fit) -> dict[str, float]:
    """Measure volumes, and the maps of the tensor where white matter prevails, in the brain."""
    inside = {name: getattr(tissue, name)[fit.brain] for name in TISSUES}
    voxel_ml = float(np.prod(fit.grid.voxel_size_mm)) / 1000
    names = {"wm": "white_matter", "gm": "grey_matter", "csf": "csf"}
    figures = {
        f"{names[tissue_name]}_volume_ml": voxel_ml * float(fractions.sum(dtype=np.float64))
        for tissue_name, fractions in inside.items()
    }
    white = inside["wm"] > 0.5
    for role, name in (("fa", "white_matter_fa"), ("md", "white_matter_md_mm2_s")):
        if role in fit.maps and white.any():
            figures[name] = float(np.median(fit.maps[role][fit.brain][white]))
    return figures


def _assumed(job: Job) -> list[str]:
    """Return warnings of tissue files that are only assumed to be aligned with the DWI."""
    paths = job.tissue.paths if job.tissue else ()
    assumed = job.run.tissue.assumed if job.run.tissue else {}
    return [assumed[path] for path in paths[:1] if path in assumed]

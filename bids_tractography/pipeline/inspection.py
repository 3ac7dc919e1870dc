"""Plausibility checks of inputs, grid, gradients, brain mask and model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_tractography.anatomy.brain import brain_figures, brain_mask, is_cut
from bids_tractography.anatomy.masks import Mask
from bids_tractography.config.model import GradientsConfig
from bids_tractography.core.checks import Findings
from bids_tractography.core.dwi import Dwi
from bids_tractography.core.gradients import (
    FRAMES,
    Frame,
    Gradients,
    compose_permutations,
    permutation_matrix,
)
from bids_tractography.core.images import Grid, Image, header_warnings
from bids_tractography.errors import GradientError
from bids_tractography.pipeline.job import GRADIENT_TABLE, Job
from bids_tractography.reconst import ModelFit
from bids_tractography.reconst.base import TensorFit
from bids_tractography.reconst.coherence import GradientCheck, check_gradients

logger = logging.getLogger(__name__)


def report_inputs(job: Job, findings: Findings) -> None:
    """Report what was doubtful in planning, and what is contradictory in headers of images."""
    for warning in job.warnings:
        findings.warn(warning)
    for path in job.inputs.values():
        if path.name.endswith((".nii", ".nii.gz")):
            for warning in header_warnings(path):
                findings.warn(warning)


def report_dwi(job: Job, dwi: Dwi, findings: Findings) -> None:
    """Report the frame of the gradients, and hold grid and b-values against what is plausible."""
    report_header(job, dwi.grid, dwi.gradients, dwi.figures, findings)


def report_header(
    job: Job, grid: Grid, gradients: Gradients, figures: Mapping[str, float], findings: Findings
) -> None:
    """Do the same for what of the figures is known, see `dwi.header_figures`."""
    logger.info(
        "%s: %s is read with b-vectors in the frame '%s': %s.",
        job.name, gradients.record["file"], job.frame.kind, job.frame.reason,
    )  # fmt: skip
    findings.measure_all(figures)
    step_mm, edge_mm = job.config.tracking.algorithm.step_size_mm, grid.voxel_size_mm.min()
    if step_mm > edge_mm:
        findings.warn(
            f"tracking.algorithm.step_size_mm is {step_mm:g}, more than the smallest voxel edge of "
            f"{edge_mm:.3g} mm: streamlines step over voxels."
        )


def find_brain(dwi: Dwi, image: Path, mask: Path | None, findings: Findings) -> Mask:
    """Read or make the brain mask, and hold the signal in it against what is plausible.

    Raises
    ------
    DataError
        If the mask is unusable, or the signal in it is not that of a brain.
    """
    brain = brain_mask(dwi, mask)
    for warning in brain.warnings:
        findings.warn(warning)
    Image(dwi.data, dwi.grid, dwi.missing).require_finite(brain.data, image)
    for name, value in brain_figures(dwi, brain.data).items():
        # A part of the brain may have any volume.
        whole = name != "brain_volume_ml" or not is_cut(brain.data)
        findings.measure(name, value, at_least=whole)
    return brain


def report_model(model: ModelFit, findings: Findings) -> None:
    """Hold the figures of a fitted model against what is plausible, and report its warnings."""
    for warning in model.warnings:
        findings.warn(warning)
    findings.measure_all(model.figures)


def guard(
    tensor: TensorFit,
    brain: NDArray[np.bool_],
    dwi: Dwi,
    config: GradientsConfig,
    findings: Findings,
) -> None:
    """Check whether neighbouring principal directions fit another table of gradients better.

    Raises
    ------
    GradientError
        If another table is better beyond doubt, and the configuration does not let it pass.
    """
    if config.check == "off":
        return
    check = check_gradients(tensor, brain, dwi.grid, dwi.gradients.axes)
    record = {
        **check.record,
        "file": dwi.gradients.record["file"],
        "frame": dwi.gradients.record["frame"],
        "permute": [_permute_line(names, config) for names in check.best],
        "as_frame": _as_frame(check, dwi, config),
    }
    judge_gradients(record, config, findings)


def judge_gradients(record: Mapping[str, Any], config: GradientsConfig, findings: Findings) -> None:
    """Report what the check of the gradients found, now or when a reused file was made.

    Parameters
    ----------
    record : mapping
        What `guard` recorded.

    Raises
    ------
    GradientError
        If another table is better beyond doubt, and the configuration does not let it pass.
    """
    findings.record(GRADIENT_TABLE, record)
    if record["verdict"] == "agrees" or config.check == "off":
        return
    if record["verdict"] == "undecided":
        findings.warn(
            f"the coherence of principal directions cannot confirm the gradient table: "
            f"{record['reason']} Compare the principal directions (tensor.v1) with the anatomy."
        )
        return
    text = (
        f"the b-vectors of {record['file']} (read in the frame '{record['frame']}') do not fit "
        f"the image: with {' or '.join(record['permute'])} the principal directions of "
        "neighbouring voxels agree better beyond doubt."
    )
    if record["as_frame"]:
        text += f" This is how gradients.frame={record['as_frame']} would read them."
    if config.check == "error":
        raise GradientError(
            text,
            f"Set {record['permute'][0]}, or gradients.check=warn to use the table as it is.",
        )
    findings.warn(text)


def judge_again(record: Mapping[str, Any], job: Job, findings: Findings) -> None:
    """Report again what was found when a file that is reused was made.

    Parameters
    ----------
    record : mapping
        ``details`` of the record of a map, or the record of a tractogram.

    Raises
    ------
    TractographyError
        If it would have stopped a run with this configuration.
    """
    findings.repeat(record)  # first, so that warnings keep their order
    table = record.get("checks", {}).get(GRADIENT_TABLE)
    if table:
        judge_gradients(table, job.config.gradients, findings)


def _permute_line(names: tuple[str, str, str], config: GradientsConfig) -> str:
    """Return the line of a configuration that mends the table as it is read now."""
    if config.permute is not None:
        names = compose_permutations(config.permute, names)
    return f"gradients.permute=[{', '.join(names)}]"


def _as_frame(check: GradientCheck, dwi: Dwi, config: GradientsConfig) -> str | None:
    """Return the frame that the better table is, if it is one."""
    if config.permute is not None:
        return None
    better = dwi.gradients.axes @ permutation_matrix(check.best[0])
    for kind in FRAMES:
        axes = Frame(kind, "").axes(dwi.grid)
        if min(np.abs(better - axes).max(), np.abs(better + axes).max()) < 1e-6:
            return kind
    return None

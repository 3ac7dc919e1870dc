"""Contents of the sidecars, in the terms of BIDS, BEP016, BEP046 and an older draft."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bids_tractography.anatomy.masks import Mask
from bids_tractography.anatomy.tissue import Tissue
from bids_tractography.config import Config
from bids_tractography.config.tracking import (
    ConvergeSeedsConfig,
    GivenSeedsConfig,
    GridSeedsConfig,
    RandomSeedsConfig,
    SelectSeedsConfig,
    TotalSeedsConfig,
)
from bids_tractography.core.stopping import ActRule, CmcRule, FodRule, StoppingRule, ThresholdRule
from bids_tractography.core.tissue import TISSUES
from bids_tractography.outputs.run import Sidecar
from bids_tractography.pipeline.job import Job
from bids_tractography.reconst import MODELS

_TENSOR = {
    "Description": "Diffusion tensor (Basser 1994)",
    "Parameters": {"FitMethod": "wls"},
}


def _model(config: Config) -> str:
    return MODELS[config.model.kind].description


def brain_mask_sidecar(job: Job, mask: Mask) -> Sidecar:
    """Describe the brain mask."""
    return Sidecar(mask.description, [job.run.brain_mask or job.run.image], {"Type": "Brain"})


def map_sidecar(job: Job, role: str) -> Sidecar:
    """Describe a map of the tensor or of the model (BEP016)."""
    product = job.targets[role].product
    of_tensor = product.entities["model"] == "tensor"
    model = _TENSOR if of_tensor else {"Description": _model(job.config)}
    keys: dict[str, Any] = {"SkullStripped": True, "Units": product.unit, "Model": model}
    if role == "v1":
        keys["OrientationEncoding"] = {
            "Type": "unit3vector",
            "EncodingAxis": 3,
            "Reference": "xyz",
            "AntipodalSymmetry": True,
        }
    return Sidecar(f"{product.description}.", [job.run.image, job.paths["brain"]], keys)


def fodf_sidecar(job: Job, details: dict[str, Any], sh_order: int) -> Sidecar:
    """Describe the fODF (BEP016; both spellings that the proposal has for the basis)."""
    model = _model(job.config)
    keys: dict[str, Any] = {
        "SkullStripped": True,
        "Model": {"Description": model},
        "OrientationEncoding": {
            "Type": "sh",
            "EncodingAxis": 3,
            "Reference": "xyz",
            "AntipodalSymmetry": True,
            "SphericalHarmonicBasis": "mrtrix3",
            "SphericalHarmonicDegree": sh_order,
            "SphericalHarmonicsBasis": "mrtrix3",
            "SphericalHarmonicsDegree": sh_order,
        },
    }
    if "eigenvalues_mm2_s" in details.get("response", {}):
        keys["ResponseFunction"] = {
            "Type": "eigen",
            "Coefficients": [*details["response"]["eigenvalues_mm2_s"], details["response"]["s0"]],
        }
    description = f"{model}; spherical harmonics in MRtrix3's basis, RAS+ scanner axes."
    sources = [job.run.image, job.paths["brain"], *job.model_files.values()]
    return Sidecar(description, sources, keys)


def tissue_sidecar(job: Job, name: str, tissue: Tissue) -> Sidecar:
    """Describe a tissue fraction."""
    source = tissue.sources[0].name if tissue.sources else "the DWI's own volume fractions"
    text = f"{job.targets[name].product.description}, from {source}."
    sources = list(tissue.sources) or [job.paths[f"{name}vf"]]
    return Sidecar(text, sources, {"SkullStripped": True})


def density_sidecar(job: Job) -> Sidecar:
    """Describe the track-density image."""
    product = job.targets["tdi"].product
    return Sidecar(
        f"{product.description}.",
        [job.paths["tractogram"]] if "tractogram" in job.paths else [],
        {
            "SkullStripped": True,
            "Units": product.unit,
            "Model": {"Description": "Streamlines through each voxel (Calamante 2010)"},
        },
    )


def tractogram_sidecar(
    job: Job, stopping: StoppingRule, n_seeds: int, n_streamlines: int
) -> Sidecar:
    """Describe the tractogram with BEP046's keys, and with those of the older draft.

    Parameters
    ----------
    job : Job
    stopping : StoppingRule
        With the threshold that was resolved.
    n_seeds, n_streamlines : int
    """
    config = job.config
    algorithm = config.tracking.algorithm
    description = (
        f"Whole-brain tractogram, {algorithm.method} tracking on "
        f"{config.model.kind.upper()} fODFs, {algorithm.step_size_mm:g} mm steps, at most "
        f"{algorithm.max_angle_deg:g} degrees each."
    )
    made = ("fod", "stop", "seed", "pft_include", "pft_exclude")
    sources = [job.paths[role] for role in (*made, *_regions(job)) if role in job.paths]
    return Sidecar(
        description,
        sources,
        {**_bep046(job, stopping, n_seeds), **_older_draft(config, n_seeds, n_streamlines)},
    )


def import_sidecar(source: Path, n_streamlines: int) -> Sidecar:
    """Describe an imported tractogram."""
    text = f"Imported tractogram of other software: {source.name}."
    return Sidecar(text, [source], {"Count": n_streamlines})


def _bep046(job: Job, stopping: StoppingRule, n_seeds: int) -> dict[str, Any]:
    config, uri = job.config, job.outputs.uri
    algorithm = config.tracking.algorithm
    return {
        "StreamlineSeeding": {"Sources": [_seed_source(job)]},
        "StreamlinePropagation": {
            "Algorithm": {
                "Name": algorithm.kind,
                "Description": algorithm.about,
            },
            "Interpolation": "Linear",
            "InterpolationOrder": 1,
            "Source": uri(job.paths["fod"]),
            "AnglePerStep": algorithm.max_angle_deg,
            "StepSize": algorithm.step_size_mm,
            "IntegrationOrder": 1,
        },
        "StreamlineTermination": {
            **_termination(job, stopping),
            "AnglePerStep": algorithm.max_angle_deg,
        },
        "StreamlineAcceptanceCriteria": _acceptance(job),
        "StreamlineReconstructionDensity": {"Seeds": n_seeds},
    }


def _seed_source(job: Job) -> dict[str, Any]:
    uri = job.outputs.uri
    match job.config.seeding.seeds:
        case GridSeedsConfig(per_axis=n):
            seeds: dict[str, Any] = {"Type": "GridPerElement", "SeedsPerElement": n**3}
        case RandomSeedsConfig(per_voxel=n):
            seeds = {"Type": "RandomPerElement", "SeedsPerElement": n}
        case TotalSeedsConfig() | SelectSeedsConfig() | ConvergeSeedsConfig():
            seeds = {"Type": "Random"}
        case GivenSeedsConfig():
            # The draft has no type for given coordinates; one seed per element is the closest.
            source = uri(job.inputs["seeding.seeds"])
            return {"Type": "CountPerElement", "SeedsPerElement": 1, "Source": source}
    return {**seeds, "Source": uri(job.paths["seed"]), "Unidirectional": False}


def _termination(job: Job, stopping: StoppingRule) -> dict[str, Any]:
    config, uri = job.config.stopping, job.outputs.uri
    if isinstance(stopping, FodRule) and stopping.within is not None:
        stopping = stopping.within
    if isinstance(stopping, ActRule | CmcRule):
        return {"AnatomicalSegmentation": [uri(job.paths[name]) for name in TISSUES]}
    if isinstance(stopping, ThresholdRule) and getattr(config, "map", None) == "fa":
        limits = {"Metric": "FA", "Source": uri(job.paths["fa"]), "Threshold": stopping.threshold}
        return {"Anisotropy": [limits]}
    return {"Masks": [uri(job.paths["stop"])]}


def _acceptance(job: Job) -> dict[str, Any]:
    tracking, uri = job.config.tracking, job.outputs.uri
    regions = {
        f"{word}Regions": [uri(job.paths[role]) for role in _regions(job, name)]
        for word, name in (("Inclusion", "include"), ("Exclusion", "exclude"))
    }
    return {
        **{key: paths for key, paths in regions.items() if paths},
        "MinimumLength": tracking.min_length_mm,
        "MaximumLength": tracking.max_length_mm,
    }


def _regions(job: Job, name: str = "") -> list[str]:
    """Return the roles of the include and exclude masks."""
    return [role for role in job.paths if role.startswith(f"tracking.{name}")]


def _older_draft(config: Config, n_seeds: int, n_streamlines: int) -> dict[str, Any]:
    tracking, algorithm = config.tracking, config.tracking.algorithm
    given = isinstance(config.seeding.seeds, GivenSeedsConfig)
    source = {} if given else {"SourceType": "voxels"}
    return {
        "TractographyClass": "local",
        "TractographyMethod": algorithm.method,
        "Count": n_streamlines,
        "Seeding": {**source, "CountType": "global", "Count": n_seeds},
        "Constraints": {},
        "Parameters": {
            "Units": "mm",
            "StepSize": algorithm.step_size_mm,
            "AngleCurvature": algorithm.max_angle_deg,
            "MinimumLength": tracking.min_length_mm,
            "MaximumLength": tracking.max_length_mm,
            "IntegrationOrder": 1,
            "Unidirectional": False,
        },
    }

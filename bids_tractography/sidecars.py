"""What the sidecars say, in the words of BIDS, BEP016 and BEP046, and of the older draft."""

from __future__ import annotations

from typing import Any

from bids_tractography.config import Config
from bids_tractography.config.masks import ThresholdMask
from bids_tractography.config.model import CsdModel
from bids_tractography.config.tracking import (
    GivenSeeds,
    GridSeeds,
    RandomSeeds,
    ThresholdStop,
    TotalSeeds,
)
from bids_tractography.job import Job
from bids_tractography.masks import Mask
from bids_tractography.outputs import Sidecar

_UNITS = {"fa": "1", "md": "mm^2/s", "v1": "1"}
_NAMES = {
    "fa": "Fractional anisotropy of the diffusion tensor.",
    "md": "Mean diffusivity of the diffusion tensor.",
    "v1": "Principal direction of the diffusion tensor, unit vectors in RAS+ scanner axes.",
}
_TENSOR = {
    "Description": "Diffusion tensor (Basser 1994)",
    "Parameters": {"FitMethod": "wls"},
}
_METHODS = {"prob": "probabilistic", "det": "deterministic"}


def brain_mask_sidecar(job: Job, mask: Mask) -> Sidecar:
    """Describe the brain mask."""
    return Sidecar(mask.description, [job.run.brain_mask or job.run.image], {"Type": "Brain"})


def tensor_map_sidecar(job: Job, name: str) -> Sidecar:
    """Describe a map of the tensor fit (BEP016)."""
    keys: dict[str, Any] = {"SkullStripped": True, "Units": _UNITS[name], "Model": _TENSOR}
    if name == "v1":
        keys["OrientationEncoding"] = {
            "Type": "unit3vector",
            "EncodingAxis": 3,
            "Reference": "xyz",
            "AntipodalSymmetry": True,
        }
    return Sidecar(_NAMES[name], [job.run.image, job.paths["brain"]], keys)


def fodf_sidecar(job: Job, details: dict[str, Any], sh_order: int) -> Sidecar:
    """Describe the fODF (BEP016; both spellings that the proposal has for the basis)."""
    if isinstance(job.config.model, CsdModel):
        model = "Constrained spherical deconvolution of one shell (Tournier 2007)"
    else:
        model = "Solid-angle orientation distribution of the diffusion tensor (Aganj 2010)"
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
    if "response" in details:
        keys["ResponseFunction"] = {
            "Type": "eigen",
            "Coefficients": [*details["response"]["eigenvalues_mm2_s"], details["response"]["s0"]],
        }
    description = f"{model}; spherical harmonics in MRtrix3's basis, RAS+ scanner axes."
    return Sidecar(description, [job.run.image, job.paths["brain"]], keys)


def seed_mask_sidecar(job: Job, mask: Mask) -> Sidecar:
    """Describe the voxels that were seeded."""
    definition = job.config.seeding.mask
    if isinstance(definition, ThresholdMask):
        sources = [job.paths[definition.map], job.paths["brain"]]
    else:
        sources = [job.run.files["seed_mask"]]
    return Sidecar(f"Seed mask: {mask.description}", sources)


def stop_mask_sidecar(job: Job) -> Sidecar:
    """Describe where tracking goes on."""
    stopping = job.config.stopping
    if isinstance(stopping, ThresholdStop):
        text = f"voxels where {stopping.map.upper()} > {stopping.below:g} (interpolated on the way)"
        return Sidecar(f"Tracking goes on in this mask: {text}.", [job.paths[stopping.map]])
    return Sidecar("Tracking goes on in this mask.", [job.run.files["stop_mask"]])


def density_sidecar(job: Job) -> Sidecar:
    """Describe the track-density image."""
    return Sidecar(
        "Track density: number of streamlines with a point in the voxel.",
        [job.paths["tractogram"]],
        {
            "SkullStripped": True,
            "Units": "1",
            "Model": {"Description": "Streamlines through each voxel (Calamante 2010)"},
        },
    )


def tractogram_sidecar(job: Job, n_seeds: int, n_streamlines: int) -> Sidecar:
    """Describe the tractogram: BEP046's keys, and those of the older draft for older readers."""
    config = job.config
    algorithm = config.tracking.algorithm
    description = (
        f"Whole-brain tractogram, {_METHODS[algorithm.kind]} tracking on "
        f"{config.model.kind.upper()} fODFs, {algorithm.step_size_mm:g} mm steps, at most "
        f"{algorithm.max_angle_deg:g} degrees each."
    )
    sources = [job.paths["fod"], job.paths["stop"]]
    if "seed" in job.paths:
        sources.append(job.paths["seed"])
    return Sidecar(
        description,
        sources,
        {**_bep046(job, n_seeds), **_older_draft(config, n_seeds, n_streamlines)},
    )


def _bep046(job: Job, n_seeds: int) -> dict[str, Any]:
    config, uri = job.config, job.outputs.uri
    tracking, algorithm = config.tracking, config.tracking.algorithm
    return {
        "StreamlineSeeding": {"Sources": [_seed_source(job)]},
        "StreamlinePropagation": {
            "Algorithm": {
                "Name": algorithm.kind,
                "Description": f"{_METHODS[algorithm.kind].capitalize()} choice among the "
                "directions of a sphere in the cone around the last one.",
            },
            "Interpolation": "Linear",
            "InterpolationOrder": 1,
            "Source": uri(job.paths["fod"]),
            "AnglePerStep": algorithm.max_angle_deg,
            "StepSize": algorithm.step_size_mm,
            "IntegrationOrder": 1,
        },
        "StreamlineTermination": {
            **_termination(job),
            "AnglePerStep": algorithm.max_angle_deg,
        },
        "StreamlineAcceptanceCriteria": {
            "MinimumLength": tracking.min_length_mm,
            "MaximumLength": tracking.max_length_mm,
        },
        "StreamlineReconstructionDensity": {"Seeds": n_seeds},
    }


def _seed_source(job: Job) -> dict[str, Any]:
    uri = job.outputs.uri
    match job.config.seeding.seeds:
        case GridSeeds(per_axis=n):
            seeds: dict[str, Any] = {"Type": "GridPerElement", "SeedsPerElement": n**3}
        case RandomSeeds(per_voxel=n):
            seeds = {"Type": "RandomPerElement", "SeedsPerElement": n}
        case TotalSeeds():
            seeds = {"Type": "Random"}
        case GivenSeeds(path=path):
            # The draft has no type for given coordinates; one seed an element is nearest.
            return {"Type": "CountPerElement", "SeedsPerElement": 1, "Source": uri(path.absolute())}
    return {**seeds, "Source": uri(job.paths["seed"]), "Unidirectional": False}


def _termination(job: Job) -> dict[str, Any]:
    stopping = job.config.stopping
    if isinstance(stopping, ThresholdStop) and stopping.map == "fa":
        metric = {
            "Metric": stopping.map.upper(),
            "Source": job.outputs.uri(job.paths[stopping.map]),
            "Threshold": stopping.below,
        }
        return {"Anisotropy": [metric]}
    return {"Masks": [job.outputs.uri(job.paths["stop"])]}


def _older_draft(config: Config, n_seeds: int, n_streamlines: int) -> dict[str, Any]:
    tracking, algorithm = config.tracking, config.tracking.algorithm
    given = isinstance(config.seeding.seeds, GivenSeeds)
    source = {} if given else {"SourceType": "voxels"}
    return {
        "TractographyClass": "local",
        "TractographyMethod": _METHODS[algorithm.kind],
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

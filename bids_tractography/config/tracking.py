"""Seeds, stopping rules and trackers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from bids_tractography.config.masks import FileMask, Mask, ScalarMap
from bids_tractography.config.section import Section, default_kind


class GridSeeds(Section):
    """A regular grid of n³ seeds in every voxel of the mask."""

    kind: Literal["grid"] = "grid"
    per_axis: Annotated[int, Field(ge=1, le=100)] = 1
    """Seeds along each axis of a voxel; 1 puts one seed at its centre."""


class RandomSeeds(Section):
    """Seeds at random positions in every voxel of the mask."""

    kind: Literal["random"] = "random"
    per_voxel: Annotated[int, Field(ge=1)] = 1
    """Seeds in each voxel."""


class TotalSeeds(Section):
    """A number of seeds, uniform over the volume of the mask."""

    kind: Literal["total"] = "total"
    count: Annotated[int, Field(ge=1)]
    """Number of seeds in all; with the same rng_seed a larger number begins with the same ones."""


class GivenSeeds(Section):
    """Seeds listed in a file; there is no seed mask then."""

    kind: Literal["given"] = "given"
    path: Path
    """Text file of three columns (x y z, RAS+ mm), or a NumPy ``.npy`` array (N, 3)."""


Seeds = Annotated[
    Annotated[GridSeeds | RandomSeeds | TotalSeeds | GivenSeeds, Field(discriminator="kind")],
    BeforeValidator(default_kind("random")),
]


class Seeding(Section):
    """Where streamlines start."""

    mask: Mask | None = None
    """Voxels that are seeded: FA > 0.2 unless something else is said; null for given seeds."""
    seeds: Seeds = RandomSeeds()
    """Number and position of the seeds."""
    rng_seed: Annotated[int, Field(ge=0, lt=2**53)] | None = None
    """Seed of all random numbers; drawn and recorded when null."""

    @model_validator(mode="before")
    @classmethod
    def _default_mask(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "mask" in data:
            return data
        seeds = data.get("seeds")
        kind = seeds.get("kind") if isinstance(seeds, dict) else getattr(seeds, "kind", seeds)
        return data if kind == "given" else {**data, "mask": {"kind": "threshold"}}

    @model_validator(mode="after")
    def _mask_goes_with_seeds(self) -> Seeding:
        if isinstance(self.seeds, GivenSeeds) and self.mask is not None:
            raise ValueError("seeds that are given have no mask; leave one of the two out")
        if self.mask is None and not isinstance(self.seeds, GivenSeeds):
            raise ValueError("mask may be null for given seeds only")
        return self


class ThresholdStop(Section):
    """Stop where a map, interpolated linearly, is not above a value."""

    kind: Literal["threshold"] = "threshold"
    map: ScalarMap = "fa"
    """Map of the tensor fit."""
    below: float = 0.2
    """Tracking goes on while ``map > below``; has to be given for other maps than FA."""

    @model_validator(mode="after")
    def _threshold_of_its_map(self) -> ThresholdStop:
        if self.map != "fa" and "below" not in self.model_fields_set:
            raise ValueError(f"say below which value: the default is for FA, not {self.map}")
        return self


class BinaryStop(Section):
    """Stop outside a mask (the voxel nearest to the point decides)."""

    kind: Literal["binary"] = "binary"
    mask: FileMask
    """Tracking goes on inside this mask."""


Stopping = Annotated[
    Annotated[ThresholdStop | BinaryStop, Field(discriminator="kind")],
    BeforeValidator(default_kind("threshold")),
]


class _OnSphere(Section):
    kind: str
    step_size_mm: Annotated[float, Field(gt=0, le=10)] = 0.5
    """Distance between points."""
    max_angle_deg: Annotated[float, Field(gt=0, lt=90)] = 30
    """Largest angle between successive steps."""
    pmf_threshold: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Amplitudes below this share of the fODF's largest at the point count as zero."""


class Probabilistic(_OnSphere):
    """Each direction is drawn from the fODF within the cone around the last one."""

    kind: Literal["prob"] = "prob"


class Deterministic(_OnSphere):
    """Each direction is the largest of the fODF within the cone around the last one."""

    kind: Literal["det"] = "det"


Algorithm = Annotated[
    Annotated[Probabilistic | Deterministic, Field(discriminator="kind")],
    BeforeValidator(default_kind("prob")),
]


class Tracking(Section):
    """How streamlines are propagated, and which of them are kept."""

    algorithm: Algorithm = Probabilistic()
    """The tracker and its parameters."""
    engine: Literal["auto", "dipy"] = "auto"
    """What runs the tracker."""
    max_directions: Annotated[int, Field(ge=1, le=10)] = 1
    """Streamlines started from a seed: one along each of the largest peaks, at most this many."""
    min_length_mm: Annotated[float, Field(ge=0)] = 20
    """Shorter streamlines are rejected; a length is (points - 1) x step, bounds are inclusive."""
    max_length_mm: Annotated[float, Field(gt=0)] = 250
    """Longer streamlines are rejected."""
    dead_ends: Literal["drop", "keep"] = "drop"
    """Streamlines with an end where no direction was left, away from where the stopping
    rule would have ended them."""
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Seeds in memory at a time; it changes nothing else."""

    @model_validator(mode="after")
    def _bounds(self) -> Tracking:
        if self.max_length_mm < self.min_length_mm:
            raise ValueError("max_length_mm is smaller than min_length_mm")
        if self.max_length_mm < self.algorithm.step_size_mm:
            raise ValueError("max_length_mm is smaller than one step")
        return self


class Output(Section):
    """What the tractogram is written as."""

    formats: tuple[Literal["trx"], ...] = ("trx",)
    """Files to write, at least one."""
    dtype: Literal["float32", "float16"] = "float32"
    """Type of the positions; float16 errs by up to 0.06 mm beyond 128 mm from the origin."""

    @field_validator("formats")
    @classmethod
    def _at_least_one(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        if not formats or len(set(formats)) < len(formats):
            raise ValueError("name at least one format, and each once")
        return formats

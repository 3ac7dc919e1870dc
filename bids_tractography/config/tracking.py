"""Seeds, stopping rules and trackers."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from bids_tractography.config.algorithm import AlgorithmConfig, ProbabilisticConfig
from bids_tractography.config.files import FileConfig
from bids_tractography.config.masks import MaskConfig, ScalarMap, Threshold
from bids_tractography.config.section import Section, default_kind

_MAX_STEPS = 1_000_000  # of a streamline


class GridSeedsConfig(Section):
    """A regular grid of n³ seeds in every voxel of the mask."""

    kind: Literal["grid"] = "grid"
    per_axis: Annotated[int, Field(ge=1, le=100)] = 1
    """Seeds along each axis of a voxel; 1 puts one seed at its centre."""


class RandomSeedsConfig(Section):
    """Seeds at random positions in every voxel of the mask."""

    kind: Literal["random"] = "random"
    per_voxel: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Seeds in each voxel."""


class TotalSeedsConfig(Section):
    """A number of seeds, uniform over the volume of the mask."""

    kind: Literal["total"] = "total"
    count: Annotated[int, Field(ge=1, le=10**12)]
    """Number of seeds in all; with the same rng_seed a larger number begins with the same ones."""


class GivenSeedsConfig(FileConfig):
    """Seeds listed in a file; there is no seed mask then.

    Three columns of text (x y z, RAS+ mm), or a NumPy ``.npy`` array (N, 3).
    """

    extensions: ClassVar[tuple[str, ...]] = (".txt", ".npy")

    kind: Literal["given"] = "given"


SeedsConfig = Annotated[
    Annotated[
        GridSeedsConfig | RandomSeedsConfig | TotalSeedsConfig | GivenSeedsConfig,
        Field(discriminator="kind"),
    ],
    BeforeValidator(default_kind("random")),
]


class SeedingConfig(Section):
    """Where streamlines start."""

    mask: MaskConfig | None = None
    """Voxels that are seeded: FA > 0.2 unless something else is said; null for given seeds."""
    seeds: SeedsConfig = RandomSeedsConfig()
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
    def _mask_goes_with_seeds(self) -> SeedingConfig:
        if isinstance(self.seeds, GivenSeedsConfig) and self.mask is not None:
            raise ValueError("seeds that are given have no mask; leave one of the two out")
        if self.mask is None and not isinstance(self.seeds, GivenSeedsConfig):
            raise ValueError("mask may be null for given seeds only")
        return self


class ThresholdStopConfig(Section):
    """Stop where a map, interpolated linearly, is not above a value."""

    kind: Literal["threshold"] = "threshold"
    map: ScalarMap | FileConfig = "fa"
    """A map of the fit, or a file; on another grid it is interpolated linearly."""
    threshold: Threshold = 0.2
    """Streamlines stop where ``map <= threshold``; required unless the map is FA."""
    percentile: bool = False
    """Whether the threshold is a percentile of the map's non-zero voxels in the brain."""

    @model_validator(mode="after")
    def _threshold_of_its_map(self) -> ThresholdStopConfig:
        if (self.map != "fa" or self.percentile) and "threshold" not in self.model_fields_set:
            raise ValueError("threshold is required: its default is for FA only")
        if self.percentile and not 0 <= self.threshold <= 100:
            raise ValueError("a percentile is from 0 to 100")
        return self


class BinaryStopConfig(Section):
    """Stop outside a mask (the voxel nearest to the point decides)."""

    kind: Literal["binary"] = "binary"
    mask: MaskConfig
    """Tracking goes on inside this mask."""


class ActStopConfig(Section):
    """Anatomically constrained (Smith 2012): end well in grey matter, badly in fluid.

    Where the interpolated fraction is above one half; outside all tissue is a good end too.
    """

    kind: Literal["act"] = "act"


class CmcStopConfig(Section):
    """Continuous map criterion (Girard 2014).

    At each step a streamline goes on with a probability that falls with the fractions of grey
    matter and fluid.
    """

    kind: Literal["cmc"] = "cmc"


StoppingConfig = Annotated[
    Annotated[
        ThresholdStopConfig | BinaryStopConfig | ActStopConfig | CmcStopConfig,
        Field(discriminator="kind"),
    ],
    BeforeValidator(default_kind("threshold")),
]


class TrackingConfig(Section):
    """How streamlines are propagated, and which of them are kept."""

    algorithm: AlgorithmConfig = ProbabilisticConfig()
    """The tracker and its parameters."""
    engine: Literal["auto", "cpu", "dipy", "cuda"] = "auto"
    """What runs the tracker; ``auto``: the first that can, ``cpu`` before others."""
    ngpus: Annotated[int, Field(ge=1, le=64)] | None = None
    """GPUs that the engine cuda uses, all of them when null; it changes nothing but the time."""
    include: tuple[MaskConfig, ...] = ()
    """Streamlines are kept if they have a point in every one of these masks."""
    exclude: tuple[MaskConfig, ...] = ()
    """Streamlines are rejected if they have a point in any of these masks."""
    max_directions: Annotated[int, Field(ge=1, le=10)] = 1
    """Streamlines started from a seed: one along each of the largest peaks, at most this many."""
    min_length_mm: Annotated[float, Field(ge=0, le=10_000)] = 20
    """Shorter streamlines are rejected; a length is (points - 1) x step, bounds are inclusive."""
    max_length_mm: Annotated[float, Field(gt=0, le=10_000)] = 250
    """Longer streamlines are rejected."""
    dead_ends: Literal["drop", "keep"] = "drop"
    """Streamlines with an end that anatomy does not explain: where no direction was left, away
    from where the stopping rule would have ended them, or (act, cmc) in fluid."""
    batch_size: Annotated[int, Field(ge=1, le=10_000_000)] | Literal["auto"] = "auto"
    """Seeds in memory at a time; it changes nothing else."""

    @model_validator(mode="after")
    def _bounds(self) -> TrackingConfig:
        if self.max_length_mm < self.min_length_mm:
            raise ValueError("max_length_mm is smaller than min_length_mm")
        if self.max_length_mm < self.algorithm.step_size_mm:
            raise ValueError("max_length_mm is smaller than one step")
        if self.max_length_mm / self.algorithm.step_size_mm > _MAX_STEPS:
            raise ValueError(f"max_length_mm is more than {_MAX_STEPS} steps of step_size_mm")
        if self.ngpus is not None and self.engine != "cuda":
            raise ValueError("ngpus is for engine cuda: name that engine, or leave ngpus out")
        return self


class LineariseConfig(Section):
    """Drop points that lie on a straight line between their neighbours."""

    max_error_mm: Annotated[float, Field(gt=0, le=5)] = 0.1
    """No point of a streamline is further than this from what is written (float16 not counted)."""


class OutputConfig(Section):
    """What the tractogram is written as."""

    formats: tuple[Literal["trx", "tck", "trk"], ...] = ("trx",)
    """Files to write, at least one."""
    dtype: Literal["float32", "float16"] = "float32"
    """Type of the positions in TRX files; float16 errs by up to 0.06 mm beyond 128 mm from the
    origin."""
    linearise: LineariseConfig | None = None
    """Fewer points; all of them when null."""
    per_streamline: tuple[Literal["seed", "ends"], ...] = ()
    """What TRX files say of each streamline: the index of its seed; why its ends are where they
    are."""

    @field_validator("formats")
    @classmethod
    def _at_least_one(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        if not formats or len(set(formats)) < len(formats):
            raise ValueError("name at least one format, and each once")
        return formats

    @field_validator("per_streamline")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError("name each once")
        return names

    @model_validator(mode="after")
    def _values_of_trx(self) -> OutputConfig:
        if self.per_streamline and "trx" not in self.formats:
            raise ValueError("per_streamline is for trx; tck and trk have no place for it")
        return self

    @model_validator(mode="after")
    def _half_precision_of_trx(self) -> OutputConfig:
        if self.dtype == "float16" and set(self.formats) != {"trx"}:
            raise ValueError("dtype float16 is for trx alone; tck and trk have float32")
        return self


class ImportTractConfig(FileConfig):
    """A tractogram made elsewhere, taken instead of tracking."""

    extensions: ClassVar[tuple[str, ...]] = (".trx", ".tck", ".trk", ".tck.gz", ".trk.gz")

    mode: Literal["copy", "link"] = "copy"
    """Copy it into the derivatives, or link to it."""

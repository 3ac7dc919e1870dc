"""Seeding, stopping criteria, tracking and output."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StrictBool, field_validator, model_validator

from bids_tractography.config.algorithm import AlgorithmConfig, ProbabilisticConfig
from bids_tractography.config.files import FileConfig
from bids_tractography.config.masks import SCALAR_UNITS, MaskConfig, ScalarMap, Threshold
from bids_tractography.config.numbers import Count
from bids_tractography.config.section import ByKind, Section

_MAX_STEPS = 1_000_000  # of a streamline


class GridSeedsConfig(Section):
    """A regular grid of n³ seeds in each voxel of the mask."""

    kind: Literal["grid"] = "grid"
    per_axis: Annotated[int, Count(1, 100)] = 1
    """Number of seeds along each axis of a voxel; 1 places one seed at its centre."""


class RandomSeedsConfig(Section):
    """Seeds at random positions in each voxel of the mask."""

    kind: Literal["random"] = "random"
    per_voxel: Annotated[int, Count(1, 1_000_000)] = 1
    """Number of seeds in each voxel."""


class TotalSeedsConfig(Section):
    """A total number of seeds, distributed uniformly over the volume of the mask."""

    kind: Literal["total"] = "total"
    count: Annotated[int, Count(1, 10**12)]
    """Total number of seeds; with the same ``rng_seed``, more seeds extend the same list."""


class SelectSeedsConfig(Section):
    """Seeds until so many streamlines are kept, distributed uniformly over the volume of the mask.

    The tractogram has exactly this number of streamlines, and is the beginning of every larger
    one with the same ``rng_seed``.
    """

    kind: Literal["select"] = "select"
    count: Annotated[int, Count(1, 10**12)]
    """Number of streamlines to keep."""
    max_seeds: Annotated[int, Count(1, 10**15)] | None = None
    """Number of seeds after which tracking ends with fewer streamlines and a warning; 1000 for each
    streamline by default."""

    @property
    def limit(self) -> int:
        """Largest number of seeds."""
        return 1000 * self.count if self.max_seeds is None else self.max_seeds


class ConvergeSeedsConfig(Section):
    """Seeds until the density map is stable, distributed uniformly over the volume of the mask.

    Streamlines of seeds with even and with odd numbers give two density maps. Tracking ends when
    their correlation reaches a value; it is computed after 10,000 seeds, and whenever their number
    has grown by the factor √2.
    """

    kind: Literal["converge"] = "converge"
    correlation: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Pearson correlation of the two maps in the voxels that have streamlines."""
    max_seeds: Annotated[int, Count(1, 10**12)] = 100_000_000
    """Number of seeds after which tracking ends with a warning."""

    @property
    def limit(self) -> int:
        """Largest number of seeds."""
        return self.max_seeds


class GivenSeedsConfig(FileConfig):
    """Seeds listed in a file, used without a seed mask.

    The file has three columns of text (x y z, RAS+ mm) or is a NumPy ``.npy`` array (N, 3).
    """

    extensions: ClassVar[tuple[str, ...]] = (".txt", ".npy")

    kind: Literal["given"] = "given"


SeedsConfig = Annotated[
    GridSeedsConfig
    | RandomSeedsConfig
    | TotalSeedsConfig
    | SelectSeedsConfig
    | ConvergeSeedsConfig
    | GivenSeedsConfig,
    ByKind("random"),
]


class SeedingConfig(Section):
    """Where streamlines start."""

    mask: MaskConfig | None = None
    """Seed mask; FA > 0.2 by default, null for given seeds."""
    seeds: SeedsConfig = RandomSeedsConfig()
    """Number and position of the seeds."""
    rng_seed: Annotated[int, Field(ge=0, lt=2**53)] | None = None
    """Seed of the random number generator; if null, one is drawn and recorded."""

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
            raise ValueError("given seeds do not accept a mask; remove one of the two")
        if self.mask is None and not isinstance(self.seeds, GivenSeedsConfig):
            raise ValueError("mask can only be null for given seeds")
        return self


Share = Annotated[float, Field(gt=0, lt=1)]


class _StopConfig(Section):
    kind: str
    fod_below: Share | None = None
    """Also stop where the fODF's peak is at most this share of a single fibre's, as with ``kind:
    fod``; null: do not."""

    @property
    def fod_share(self) -> float | None:
        """Share of a single fibre's peak at which streamlines stop, if they do."""
        return self.fod_below

    @property
    def where(self) -> str:
        """Where streamlines go, in words that continue "Streamlines were propagated ..."."""
        own = self._own_words()
        return own if self.fod_below is None else f"{own}, and {_above_share(self.fod_below)}"

    def _own_words(self) -> str:
        raise NotImplementedError


def _above_share(share: float) -> str:
    return (
        f"as long as the peak of the fODF, interpolated linearly, was above {share:g} of that of "
        "a single fibre"
    )


class FodStopConfig(Section):
    """Stop where the fODF is low: its peak is at most a share of that of a single fibre.

    The peak is the largest amplitude in each voxel, interpolated linearly; that of a single fibre
    is what the model makes of its own response, so that the share does not depend on the model or
    the scale of the data. Requires a model with a response: ``csd``, ``msmt_csd`` or ``rumba``.
    """

    kind: Literal["fod"] = "fod"
    below: Share = 0.25
    """Streamlines stop where ``peak <= below * peak of a single fibre``."""

    fod_below: ClassVar[None] = None  # said by `below`

    @property
    def fod_share(self) -> float:
        """Share of a single fibre's peak at which streamlines stop."""
        return self.below

    @property
    def where(self) -> str:
        """Where streamlines go, in words that continue "Streamlines were propagated ..."."""
        return _above_share(self.below)


class ThresholdStopConfig(_StopConfig):
    """Stop where a map, interpolated linearly, is not above a threshold."""

    kind: Literal["threshold"] = "threshold"
    map: ScalarMap | FileConfig = "fa"
    """A map of the fit, or a file, interpolated linearly if it is on another grid."""
    threshold: Threshold = 0.15
    """Streamlines stop where ``map <= threshold``; required unless the map is FA."""
    percentile: StrictBool = False
    """Whether the threshold is a percentile of the map's non-zero voxels in the brain."""

    @model_validator(mode="after")
    def _threshold_of_its_map(self) -> ThresholdStopConfig:
        if (self.map != "fa" or self.percentile) and "threshold" not in self.model_fields_set:
            raise ValueError("threshold is required: its default is for FA only")
        if self.percentile and not 0 <= self.threshold <= 100:
            raise ValueError("percentiles must be between 0 and 100")
        return self

    def _own_words(self) -> str:
        if self.percentile or not isinstance(self.map, str):
            return "as long as a map, interpolated linearly, was above a threshold"
        value = f"{self.threshold:g}{SCALAR_UNITS[self.map]}"
        return f"as long as {self.map.upper()}, interpolated linearly, was above {value}"


class BinaryStopConfig(_StopConfig):
    """Stop outside a mask, sampled by nearest neighbour."""

    kind: Literal["binary"] = "binary"
    mask: MaskConfig
    """Mask in which streamlines propagate."""

    def _own_words(self) -> str:
        return "as long as they remained inside a mask"


class _TissueStopConfig(_StopConfig):
    keep_entry: StrictBool = True
    """Whether a streamline keeps the step that enters grey matter, so that its end lies there."""


class ActStopConfig(_TissueStopConfig):
    """Anatomically constrained tractography (ACT; Smith 2012).

    A streamline ends validly where the interpolated fraction of grey matter, or of no tissue at
    all, is above one half, and invalidly where that of CSF is.
    """

    kind: Literal["act"] = "act"

    def _own_words(self) -> str:
        return "until they reached grey matter, with anatomical constraints [@smith2012]"


class CmcStopConfig(_TissueStopConfig):
    """Continuous map criterion (CMC; Girard 2014).

    At each step, a streamline continues with a probability that decreases with the fractions of
    grey matter and CSF.
    """

    kind: Literal["cmc"] = "cmc"

    def _own_words(self) -> str:
        return "until they ended in grey matter by the continuous map criterion [@girard2014]"


MapStopConfig = ThresholdStopConfig | BinaryStopConfig | ActStopConfig | CmcStopConfig

StoppingConfig = Annotated[
    FodStopConfig | MapStopConfig,
    ByKind("threshold"),
]


class TrackingConfig(Section):
    """How streamlines are propagated and selected."""

    algorithm: AlgorithmConfig = ProbabilisticConfig()
    """Tracking algorithm and its parameters."""
    engine: Literal["auto", "cpu", "dipy", "cuda"] = "auto"
    """Implementation of the tracker; ``auto``: the first that supports it, ``cpu`` first."""
    ngpus: Annotated[int, Count(1, 64)] | None = None
    """Number of GPUs for engine ``cuda``, all if null; affects speed only."""
    include: tuple[MaskConfig, ...] = ()
    """Streamlines must have a point in every one of these masks."""
    exclude: tuple[MaskConfig, ...] = ()
    """Streamlines with a point in any of these masks are rejected."""
    max_directions: Annotated[int, Count(1, 10)] = 1
    """Maximum number of streamlines per seed, which start along the largest peaks of the fODF."""
    min_length_mm: Annotated[float, Field(ge=0, le=10_000)] = 20
    """Minimum length, inclusive; the length of a streamline is (points - 1) x step size."""
    max_length_mm: Annotated[float, Field(gt=0, le=10_000)] = 250
    """Maximum length, inclusive."""
    dead_ends: Literal["drop", "keep"] = "drop"
    """What to do with streamlines with an end that the anatomy does not explain: where no direction
    was left in the data although the stopping criterion allowed the point, or (act, cmc) in CSF."""
    batch_size: Annotated[int, Count(1, 10_000_000)] | Literal["auto"] = "auto"
    """Number of seeds in memory at a time; affects memory and speed only."""

    @model_validator(mode="after")
    def _bounds(self) -> TrackingConfig:
        if self.max_length_mm < self.min_length_mm:
            raise ValueError("max_length_mm is less than min_length_mm")
        if self.max_length_mm < self.algorithm.step_size_mm:
            raise ValueError("max_length_mm is less than one step")
        if self.max_length_mm / self.algorithm.step_size_mm > _MAX_STEPS:
            raise ValueError(f"max_length_mm is more than {_MAX_STEPS} steps of step_size_mm")
        if self.ngpus is not None and self.engine != "cuda":
            raise ValueError("ngpus requires engine cuda; set tracking.engine or remove ngpus")
        return self


class LineariseConfig(Section):
    """Remove points that lie on a straight line between their neighbours."""

    max_error_mm: Annotated[float, Field(gt=0, le=5)] = 0.1
    """Maximum distance of the original points from the written streamline, before rounding."""


class OutputConfig(Section):
    """Name of the configuration and formats of the tractogram."""

    name: Annotated[str, Field(pattern="^[0-9A-Za-z]{1,40}$")] | None = None
    """Name of this configuration, in letters and digits. It becomes part of the names of the
    tractogram and of all files that differ from those that are there already, so that several
    configurations can share an output folder."""
    keep: tuple[Literal["tractogram", "density"], ...] = ("tractogram", "density")
    """Results to keep, at least one. Without ``tractogram``, streamlines are tracked, summed and
    removed; their counts and the hash of their points are recorded with the density map."""
    formats: tuple[Literal["trx", "tck", "trk"], ...] = ("trx",)
    """File formats, at least one."""
    dtype: Literal["float32", "float16"] = "float32"
    """Data type of the positions in TRX files; the error of float16 reaches 0.06 mm beyond 128 mm
    from the origin."""
    linearise: LineariseConfig | None = None
    """Write fewer points; null writes all points."""
    per_streamline: tuple[Literal["seed", "ends"], ...] = ()
    """Values stored for each streamline in TRX files: the index of its seed, and the reasons why
    its two ends stopped."""

    @field_validator("formats", "keep")
    @classmethod
    def _at_least_one(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names or len(set(names)) < len(names):
            raise ValueError("at least one is required, each only once")
        return names

    @field_validator("per_streamline")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError("each value may be given only once")
        return names

    @model_validator(mode="after")
    def _values_of_trx(self) -> OutputConfig:
        if self.per_streamline and "trx" not in self.formats:
            raise ValueError("per_streamline requires trx, because tck and trk do not store it")
        return self

    @model_validator(mode="after")
    def _half_precision_of_trx(self) -> OutputConfig:
        if self.dtype == "float16" and set(self.formats) != {"trx"}:
            raise ValueError("dtype float16 requires trx only, because tck and trk store float32")
        return self


class ImportTractConfig(FileConfig):
    """A tractogram created by other software, imported instead of tracking."""

    extensions: ClassVar[tuple[str, ...]] = (".trx", ".tck", ".trk", ".tck.gz", ".trk.gz")

    mode: Literal["copy", "link"] = "copy"
    """Whether to copy the file into the derivatives or to link to it."""

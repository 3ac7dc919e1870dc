"""The products of a DWI run, one row each: file name, dependencies, description, unit, reference.

The job, the sidecars, the dry run and the dataset's README read this table. A new map is a row
here, and the code that computes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from bids_tractography.anatomy.masks import TISSUE_WORDS
from bids_tractography.config import USES_TISSUE, Config
from bids_tractography.config.masks import MaskConfig
from bids_tractography.config.section import sections_in
from bids_tractography.config.tracking import ActStopConfig, CmcStopConfig
from bids_tractography.core.tissue import TISSUES
from bids_tractography.outputs.names import file_name
from bids_tractography.outputs.provenance import config_hash

_DWI = ("dwi", "bval", "bvec", "b", "brain_mask")


@dataclass(frozen=True)
class Dependencies:
    """The inputs and settings that a product depends on.

    Parameters
    ----------
    inputs : tuple of str
        Prefixes of the roles of the input files.
    settings : tuple
        Sections and values of the configuration.
    """

    inputs: tuple[str, ...]
    settings: tuple[Any, ...]

    def and_on(self, inputs: tuple[str, ...], settings: Any) -> Dependencies:
        """Return these dependencies and further ones."""
        return Dependencies((*self.inputs, *inputs), (*self.settings, settings))


STAGES = ("fit", "tissue", "masks", "tracking")
"""Stages of the pipeline, in their order."""

# Takes the configuration and the frame of the b-vectors.
DependsOn = Callable[[Config, str], Dependencies]


def _on_dwi(config: Config, frame: str) -> Dependencies:
    # The check of the gradient table may end a run, but it does not change any file.
    gradients = config.gradients.model_dump(mode="json", exclude={"check"})
    return Dependencies(_DWI, (gradients, frame))


def _on_tensor(config: Config, frame: str) -> Dependencies:
    # Which maps are written does not change what is in them.
    tensor = config.tensor.model_dump(mode="json", exclude={"v1"})
    return _on_dwi(config, frame).and_on((), tensor)


def _on_model(config: Config, frame: str) -> Dependencies:
    return _on_tensor(config, frame).and_on(("model",), config.model)


def _on_tissue(config: Config, frame: str) -> Dependencies:
    # With msmt_csd the fractions may be those of the model.
    before = _on_model if config.model.kind == "msmt_csd" else _on_dwi
    return before(config, frame).and_on(("tissue",), config.tissue)


def _on_mask(section: Any, config: Config, frame: str) -> Dependencies:
    """Return the dependencies of a mask or stopping criterion: on the maps that it uses."""
    parts = [part for _, part in sections_in(section)]
    of_model = any(
        getattr(part, "map", None) == "gfa" or getattr(part, "fod_share", None) is not None
        for part in parts
    )
    found = _on_model(config, frame) if of_model else _on_tensor(config, frame)
    if any(isinstance(part, USES_TISSUE) for part in parts):
        tissue = _on_tissue(config, frame)
        found = Dependencies(tissue.inputs, (*found.settings, *tissue.settings))
    return found


def _on_seeding(config: Config, frame: str) -> Dependencies:
    # Where in the mask seeds are does not change the mask.
    mask = config.seeding.mask
    return _on_mask(mask, config, frame).and_on(("seeding.mask",), mask)


def _on_stopping(config: Config, frame: str) -> Dependencies:
    return _on_mask(config.stopping, config, frame).and_on(("stopping",), config.stopping)


def _on_everything(config: Config, frame: str) -> Dependencies:
    return Dependencies(("",), (config_hash(config), frame))


def _tracked(config: Config) -> bool:
    return config.import_tract is None


def _has_model(kind: str, config: Config) -> bool:
    return _tracked(config) and config.model.kind == kind


def _kept(result: str, config: Config) -> bool:
    return not _tracked(config) or result in config.output.keep


def _with_v1(config: Config) -> bool:
    return _tracked(config) and config.tensor.v1


def _with_seed_mask(config: Config) -> bool:
    return _tracked(config) and config.seeding.mask is not None


def _with_tissue(config: Config) -> bool:
    return _tracked(config) and config.needs_tissue


def _with_tissue_rule(config: Config) -> bool:
    return _tracked(config) and isinstance(config.stopping, ActStopConfig | CmcStopConfig)


@dataclass(frozen=True)
class Product:
    """A product of the pipeline: one row of the table.

    Parameters
    ----------
    role : str
        Name in code and records.
    suffix : str
        BIDS suffix.
    entities : mapping of str to str
        Entities of the file name, besides those of the DWI; ``{model}`` and ``{track}`` stand for
        the kinds of model and tractogram.
    depends_on : callable
        Function of the configuration and the frame of the b-vectors.
    description : str
    unit : str
        Unit of the values; empty if there is none.
    reference : str
        Key in the bibliography.
    volumes : int
        Volumes of 32-bit numbers that the file holds, for estimates of its size; 0 for masks,
        which compress to next to nothing, and for files whose size is estimated elsewhere.
    stage : str
        Stage of the pipeline that creates it, one of `STAGES`.
    is_made : callable
        Function of the configuration: whether the product is created.
    """

    role: str
    suffix: str
    entities: Mapping[str, str]
    depends_on: DependsOn
    description: str
    unit: str = ""
    reference: str = ""
    volumes: int = 1
    stage: str = "fit"
    is_made: Callable[[Config], bool] = _tracked

    @property
    def is_scalar_map(self) -> bool:
        """Whether it is a map of the fit with one value in a voxel."""
        return (self.stage, self.suffix, self.volumes) == ("fit", "dwimap", 1)

    def entities_for(self, config: Config) -> dict[str, str]:
        """Return the entities with the kinds of the configuration filled in."""
        kinds = {"model": _label(config.model.kind), "track": _track(config)}
        return {key: value.format(**kinds) for key, value in self.entities.items()}


def _tensor_map(name: str, description: str, unit: str, **more: Any) -> Product:
    entities = {"model": "tensor", "param": name}
    return Product(
        name, "dwimap", entities, _on_tensor, description, unit, "basser1994", **more
    )  # fmt: skip


def _model_map(name: str, description: str, reference: str, model: str) -> Product:
    entities = {"model": "{model}", "param": name}
    made = partial(_has_model, model)
    return Product(
        name, "dwimap", entities, _on_model, description, "1", reference, is_made=made
    )  # fmt: skip


def _tissue_fraction(tissue: str) -> Product:
    return Product(
        tissue, "probseg", {"label": tissue.upper()}, _on_tissue,
        f"Fraction of {TISSUE_WORDS[tissue]} on the grid of the DWI",
        stage="tissue", is_made=_with_tissue,
    )  # fmt: skip


PRODUCTS: tuple[Product, ...] = (
    Product("brain", "mask", {"desc": "brain"}, _on_dwi, "Brain mask", volumes=0),
    _tensor_map("fa", "Fractional anisotropy of the diffusion tensor", "1"),
    _tensor_map("md", "Mean diffusivity of the diffusion tensor", "mm^2/s"),
    _tensor_map("ad", "Axial diffusivity of the diffusion tensor", "mm^2/s"),
    _tensor_map("rd", "Radial diffusivity of the diffusion tensor", "mm^2/s"),
    _tensor_map(
        "v1",
        "Principal direction of the diffusion tensor, unit vectors in RAS+ scanner axes",
        "1",
        volumes=3,
        is_made=_with_v1,
    ),
    Product(
        "fod", "dwimap", {"model": "{model}", "param": "fod"}, _on_model,
        "fODF: spherical harmonics in MRtrix3's basis, RAS+ scanner axes", volumes=0,
    ),
    _model_map("mk", "Mean kurtosis", "jensen2005", "kurtosis"),
    _model_map("ak", "Axial kurtosis", "jensen2005", "kurtosis"),
    _model_map("rk", "Radial kurtosis", "jensen2005", "kurtosis"),
    _model_map("wmvf", "Volume fraction of white matter", "jeurissen2014", "msmt_csd"),
    _model_map("gmvf", "Volume fraction of grey matter", "jeurissen2014", "msmt_csd"),
    _model_map("csfvf", "Volume fraction of cerebrospinal fluid", "jeurissen2014", "msmt_csd"),
    *(_tissue_fraction(tissue) for tissue in TISSUES),
    Product(
        "seed", "mask", {"desc": "seed"}, _on_seeding, "Seed mask",
        volumes=0, stage="masks",
        is_made=_with_seed_mask,
    ),
    Product(
        "stop", "mask", {"desc": "stop"}, _on_stopping, "Mask in which tracking continues",
        volumes=0, stage="masks",
    ),
    Product(
        "pft_include", "probseg", {"desc": "pftinclude"}, _on_stopping,
        "Valid ends of streamlines: grey matter, and outside the tissue",
        reference="smith2012", stage="masks", is_made=_with_tissue_rule,
    ),
    Product(
        "pft_exclude", "probseg", {"desc": "pftexclude"}, _on_stopping,
        "Invalid ends of streamlines: cerebrospinal fluid",
        reference="smith2012", stage="masks", is_made=_with_tissue_rule,
    ),
    Product(
        "tdi", "dwimap", {"tract": "wholebrain", "track": "{track}", "param": "tdi"},
        _on_everything, "Track density: number of streamlines with a point in the voxel", "1",
        "calamante2010", stage="tracking", is_made=partial(_kept, "density"),
    ),
    Product(
        "tractogram", "tractogram", {"tract": "wholebrain", "track": "{track}"}, _on_everything,
        "Streamlines, RAS+ mm", volumes=0, stage="tracking",
        is_made=partial(_kept, "tractogram"),
    ),
)  # fmt: skip


def products_of(config: Config) -> Iterator[Product]:
    """Yield the products of a configuration, in the order in which they are created."""
    for product in PRODUCTS:
        if product.role == "tdi" and _tracked(config):
            yield from _regions(config)
        if product.is_made(config):
            yield product


def _regions(config: Config) -> Iterator[Product]:
    """Yield the include and exclude masks."""
    for name, verb in (("include", "have to pass"), ("exclude", "must not enter")):
        for number, region in enumerate(getattr(config.tracking, name)):
            key = f"tracking.{name}.{number}"
            yield Product(
                key, "mask", {"desc": f"{name}{number + 1}"}, partial(_on_region, key, region),
                f"Mask that streamlines {verb}", volumes=0, stage="masks",
            )  # fmt: skip


def name_patterns() -> Iterator[tuple[str, str]]:
    """Yield a pattern of the file name and the description of every product."""
    for product in PRODUCTS:
        entities = {k: v.format(model="*", track="*") for k, v in product.entities.items()}
        extension = ".*" if product.role == "tractogram" else ".nii.gz"
        unit = f" ({product.unit})" if product.unit not in ("", "1") else ""
        pattern = file_name({"sub": "*", **entities}, product.suffix, extension)
        yield pattern.removeprefix("sub-"), f"{product.description}{unit}"


def _on_region(key: str, region: MaskConfig, config: Config, frame: str) -> Dependencies:
    return _on_mask(region, config, frame).and_on((key,), region)


def _label(kind: str) -> str:
    return kind.replace("_", "")


def _track(config: Config) -> str:
    return _label(config.tracking.algorithm.kind) if _tracked(config) else "custom"

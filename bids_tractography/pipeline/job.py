"""One DWI run and all that is to be done with it: settled before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from bids_tractography.config import Config
from bids_tractography.config.checks import SubjectKind
from bids_tractography.config.model import PrecomputedModelConfig
from bids_tractography.config.tracking import ActStopConfig, CmcStopConfig, ImportTractConfig
from bids_tractography.core.gradients import FSL, Frame
from bids_tractography.core.tissue import TISSUES, TissueSource
from bids_tractography.errors import TractographyError
from bids_tractography.inputs import DwiRun
from bids_tractography.outputs.names import file_of_sidecar, sidecar_path
from bids_tractography.outputs.provenance import (
    Fingerprint,
    config_hash,
    sha256_of_file,
    sha256_of_json,
    software_fingerprint,
)
from bids_tractography.outputs.run import RunOutputs, read_record, why_stale
from bids_tractography.reconst import MODELS
from bids_tractography.tracking import choose_engine

TENSOR_MAPS = ("fa", "md", "ad", "rd")
GRADIENT_TABLE = "gradient_table"  # what the check of the gradients is called in records
_DWI = ("dwi", "bval", "bvec", "b", "brain_mask")


@dataclass(frozen=True)
class Product:
    """Something that is made, and what it depends on.

    Parameters
    ----------
    paths : tuple of Path
        Files with one sidecar.
    reads : tuple of str
        What the roles of the inputs that it depends on begin with.
    says : tuple
        Parts of the configuration that it depends on.
    """

    paths: tuple[Path, ...]
    reads: tuple[str, ...]
    says: tuple[Any, ...]


@dataclass(frozen=True)
class _Of:
    """What a product depends on; built up as the method goes along."""

    reads: tuple[str, ...]
    says: tuple[Any, ...]

    def and_of(self, reads: tuple[str, ...], says: Any) -> _Of:
        return _Of((*self.reads, *reads), (*self.says, says))


@dataclass(frozen=True)
class Job:
    """One DWI run, and all that is to be done with it.

    Parameters
    ----------
    run : DwiRun
    config : Config
    outputs : RunOutputs
    work : Path
        Folder for the batches; removed when the tractogram is finished.
    n_threads : int
    tissue : TissueSource or None
        Source of the tissue fractions; None where nothing needs them.
    frame : Frame
        Axes of the b-vectors.
    subject : str
        Kind of subject, whose ranges of plausible figures hold.
    warnings : tuple of str
        What was doubtful when the run was planned.
    fresh : bool
        Do everything again, whatever is there.
    container : dict or None
        Image that the program runs in.
    """

    run: DwiRun
    config: Config
    outputs: RunOutputs
    work: Path
    n_threads: int
    tissue: TissueSource | None = None
    frame: Frame = FSL
    subject: SubjectKind = "adult"
    warnings: tuple[str, ...] = ()
    fresh: bool = False
    container: dict[str, str] | None = None

    @property
    def name(self) -> str:
        """What the names of its files begin with."""
        return self.outputs.name

    @property
    def identity(self) -> dict[str, str]:
        """What tells this run from those of other outputs and datasets."""
        dataset = self.outputs.links[self.run.dataset]
        return {"output": str(self.outputs.root), "dataset": str(dataset), "run": self.name}

    @cached_property
    def inputs(self) -> dict[str, Path]:
        """All files that the result depends on, by role."""
        tissue = self.tissue.paths if self.tissue else ()
        found = {**self.run.files, **{f"tissue.{n}": path for n, path in enumerate(tissue)}}
        if isinstance(self.config.model, PrecomputedModelConfig):
            beside = sidecar_path(self.run.named["model"])
            found |= {"model.sidecar": beside} if beside.exists() else {}
        return found

    @cached_property
    def products(self) -> dict[str, Product]:
        """All that is made, by what it is, in the order of making."""
        config, path = self.config, self.outputs.path
        # The check of the gradients stops a run or lets it pass; it changes no file.
        gradients = config.gradients.model_dump(mode="json", exclude={"check"})
        brain = _Of(_DWI, (gradients, self.frame.kind))
        maps = brain.and_of((), config.tensor.max_b_s_mm2)
        fod = maps.and_of(("model",), config.model)
        tissue = (fod if config.model.kind == "msmt_csd" else brain).and_of(
            ("tissue",), config.tissue
        )
        masks = _Of(tissue.reads, (*fod.says, *tissue.says)) if config.needs_tissue else fod
        made: dict[str, Product] = {}

        def make(role: str, of: _Of, suffix: str = "dwimap", **entities: str) -> None:
            made[role] = Product((path(suffix, **entities),), of.reads, of.says)

        if config.import_tract is None:
            make("brain", brain, "mask", desc="brain")
            for name in TENSOR_MAPS + (("v1",) if config.tensor.v1 else ()):
                make(name, maps, model="tensor", param=name)
            make("fod", fod, model=config.model.kind.replace("_", ""), param="fod")
            for name in MODELS[config.model.kind].maps:
                make(name, fod, model=config.model.kind.replace("_", ""), param=name)
            if config.needs_tissue:
                for name in TISSUES:
                    make(name, tissue, "probseg", label=name.upper())
            if config.seeding.mask is not None:
                of = masks.and_of(("seeding.mask",), config.seeding.mask)
                make("seed", of, "mask", desc="seed")
            stop = masks.and_of(("stopping",), config.stopping)
            make("stop", stop, "mask", desc="stop")
            if isinstance(config.stopping, ActStopConfig | CmcStopConfig):
                for name in ("include", "exclude"):
                    make(f"pft_{name}", stop, "probseg", desc=f"pft{name}")
            for name in ("include", "exclude"):
                for place, region in enumerate(getattr(config.tracking, name)):
                    key = f"tracking.{name}.{place}"
                    of = masks.and_of((key,), region)
                    make(key, of, "mask", desc=f"{name}{place + 1}")
        everything = _Of(("",), (config_hash(config), self.frame.kind))
        made["tdi"] = Product(
            (path("dwimap", **self._tract, param="tdi"),), everything.reads, everything.says
        )
        made["tractogram"] = Product(self._tractograms, everything.reads, everything.says)
        return made

    @property
    def _tract(self) -> dict[str, str]:
        imported = self.config.import_tract is not None
        track = "custom" if imported else self.config.tracking.algorithm.kind.replace("_", "")
        return {"tract": "wholebrain", "track": track}

    @property
    def _tractograms(self) -> tuple[Path, ...]:
        """Files of the tractogram: one for each format."""
        if self.config.import_tract is None:
            extensions = [f".{name}" for name in self.config.output.formats]
        else:
            name = self.run.named["import_tract"].name
            extensions = [e for e in ImportTractConfig.extensions if name.endswith(e)][-1:]
        return tuple(self.outputs.path("tractogram", e, **self._tract) for e in extensions)

    @property
    def former_tractograms(self) -> list[Path]:
        """Files that the sidecar there is about, and this run will not write."""
        path, *others = self.products["tractogram"].paths
        try:
            named = [file_of_sidecar(path, name) for name in read_record(path)["file_sha256"]]
        except (TractographyError, OSError, ValueError, LookupError, TypeError):
            return []
        wanted = {path.name, *(other.name for other in others)}
        return [file for file in named if file.name not in wanted and file.suffix != ".json"]

    @cached_property
    def paths(self) -> dict[str, Path]:
        """Where everything goes, by what it is; of several formats the first."""
        return {role: product.paths[0] for role, product in self.products.items()}

    @property
    def model_files(self) -> dict[str, Path]:
        """Files that the model's section names, by key inside the section."""
        named = self.run.named.items()
        inside = {key.removeprefix("model"): path for key, path in named if key.startswith("model")}
        return {key.removeprefix("."): path for key, path in inside.items()}

    def hash_inputs(self) -> dict[str, str]:
        """Return the SHA-256 of every input file, by role."""
        return {role: sha256_of_file(path) for role, path in self.inputs.items()}

    def fingerprints(self, hashes: Mapping[str, str]) -> dict[str, Fingerprint]:
        """Return what each product is a function of, by what it is.

        Parameters
        ----------
        hashes : mapping
            SHA-256 of every input file, by role.
        """
        software = software_fingerprint()
        imported = self.config.import_tract is not None
        kind = None if imported else choose_engine(self.config)
        engine = f"{kind.name} {version(kind.library)}" if kind else "none"
        tracker = f"{software}, engine {engine}"
        return {
            role: Fingerprint(
                inputs=sha256_of_json(
                    {r: h for r, h in hashes.items() if r.startswith(product.reads)}
                ),
                config=sha256_of_json(to_jsonable_python(product.says)),
                software=tracker if role in ("tdi", "tractogram") else software,
            )
            for role, product in self.products.items()
        }

    def stale(self, fingerprints: Mapping[str, Fingerprint]) -> dict[str, str]:
        """Tell what has to be made, by what it is, and why."""
        if self.fresh:
            return dict.fromkeys(self.products, "--fresh asks for it")
        reasons = {
            role: next(filter(None, (why_stale(p, fingerprints[role]) for p in product.paths)), "")
            for role, product in self.products.items()
        }
        stale = {role: reason for role, reason in reasons.items() if reason}
        if "fod" in self.products and "fod" not in stale and self._is_unchecked():
            stale["fod"] = "its gradient table was not checked"
        return stale

    def _is_unchecked(self) -> bool:
        """Tell whether the fit that is there was made without the check that is wanted."""
        checks = read_record(self.paths["fod"])["details"]["checks"]
        return self.config.gradients.check != "off" and GRADIENT_TABLE not in checks

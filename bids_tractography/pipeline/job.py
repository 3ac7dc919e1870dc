"""A job: one DWI run, with everything that is decided before computing starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

from pydantic_core import to_jsonable_python

from bids_tractography.config import Config
from bids_tractography.config.checks import SubjectKind
from bids_tractography.config.model import PrecomputedModelConfig
from bids_tractography.config.tracking import ImportTractConfig
from bids_tractography.core.gradients import FSL, Frame
from bids_tractography.core.tissue import TissueSource
from bids_tractography.errors import TractographyError
from bids_tractography.inputs import DwiRun
from bids_tractography.outputs.names import file_of_sidecar, sidecar_path, with_configuration
from bids_tractography.outputs.provenance import (
    Fingerprint,
    sha256_of_file,
    sha256_of_json,
    software_fingerprint,
)
from bids_tractography.outputs.run import RunOutputs, read_record, why_stale
from bids_tractography.pipeline.products import STAGES, Dependencies, Product, products_of
from bids_tractography.tracking import ENGINES

GRADIENT_TABLE = "gradient_table"  # what the check of the gradients is called in records


@dataclass(frozen=True)
class Target:
    """A product of a job with its paths and dependencies.

    Parameters
    ----------
    product : Product
        Its row in the table of products.
    paths : tuple of Path
        Files that share a sidecar.
    depends_on : Dependencies
    """

    product: Product
    paths: tuple[Path, ...]
    depends_on: Dependencies


@dataclass(frozen=True)
class Job:
    """One DWI run, with everything that is decided before computing starts.

    Parameters
    ----------
    run : DwiRun
    config : Config
    outputs : RunOutputs
    work : Path
        Directory of the batch store; removed when the tractogram is finished.
    n_threads : int
    engine : str or None
        Name of the engine; None where nothing is tracked.
    tissue : TissueSource or None
        Source of the tissue fractions; None if they are not needed.
    frame : Frame
        Axes of the b-vectors.
    subject : str
        Kind of subject, which selects the ranges of plausible values.
    warnings : tuple of str
        Warnings from planning.
    fresh : bool
        Recompute everything, whatever exists.
    overwrite : bool
        Replace results of other configurations.
    last_stage : str
        Stage after which to stop, one of `STAGES`.
    named : frozenset of str
        Roles of the products whose file names contain the name of the configuration, in addition
        to those of tracking; see `sharing.settle`.
    container : dict or None
        Image that the program runs in.
    report : bool
        Make a page of the run when it has ended.
    """

    run: DwiRun
    config: Config
    outputs: RunOutputs
    work: Path
    n_threads: int
    engine: str | None = None
    tissue: TissueSource | None = None
    frame: Frame = FSL
    subject: SubjectKind = "adult"
    warnings: tuple[str, ...] = ()
    fresh: bool = False
    overwrite: bool = False
    last_stage: str = STAGES[-1]
    named: frozenset[str] = frozenset()
    container: dict[str, str] | None = None
    report: bool = True

    @property
    def name(self) -> str:
        """Common beginning of its file names."""
        return self.outputs.name

    @property
    def label(self) -> str:
        """Name of the run, with that of the configuration if it has one."""
        name = self.config.output.name
        return self.name if name is None else f"{self.name}_desc-{name}"

    @property
    def identity(self) -> dict[str, str]:
        """Output, dataset and run, which together identify the job."""
        dataset = self.outputs.links[self.run.dataset]
        return {"output": str(self.outputs.root), "dataset": str(dataset), "run": self.name}

    @cached_property
    def inputs(self) -> dict[str, Path]:
        """All files that the products depend on, by role."""
        tissue = self.tissue.paths if self.tissue else ()
        found = {**self.run.files, **{f"tissue.{n}": path for n, path in enumerate(tissue)}}
        if isinstance(self.config.model, PrecomputedModelConfig):
            beside = sidecar_path(self.run.named["model"])
            found |= {"model.sidecar": beside} if beside.exists() else {}
        return found

    @cached_property
    def targets(self) -> dict[str, Target]:
        """Products by role, in the order in which they are created."""
        return {
            product.role: self._target(product)
            for product in products_of(self.config)
            if STAGES.index(product.stage) <= STAGES.index(self.last_stage)
        }

    @property
    def result(self) -> Path | None:
        """Path of the main product."""
        return None if self.main is None else self.paths[self.main]

    @property
    def main(self) -> str | None:
        """Role of the product with the record of the streamlines; None if nothing is tracked."""
        return next((role for role in ("tractogram", "tdi") if role in self.targets), None)

    def _target(self, product: Product) -> Target:
        entities, name = product.entities_for(self.config), self.config.output.name
        if name is not None and (product.role in self.named or product.stage == "tracking"):
            entities = with_configuration(entities, name)
        extensions = self._formats if product.role == "tractogram" else [".nii.gz"]
        paths = (self.outputs.path(product.suffix, e, **entities) for e in extensions)
        return Target(product, tuple(paths), product.depends_on(self.config, self.frame.kind))

    @property
    def _formats(self) -> list[str]:
        """Extensions of the tractogram's files."""
        if self.config.import_tract is None:
            return [f".{name}" for name in self.config.output.formats]
        name = self.run.named["import_tract"].name
        return [e for e in ImportTractConfig.extensions if name.endswith(e)][-1:]

    @property
    def former_tractograms(self) -> list[Path]:
        """Files of the existing sidecar that this job will not replace."""
        path, *others = self.targets["tractogram"].paths
        try:
            named = [file_of_sidecar(path, name) for name in read_record(path)["file_sha256"]]
        except (TractographyError, OSError, ValueError, LookupError, TypeError):
            return []
        wanted = {path.name, *(other.name for other in others)}
        return [file for file in named if file.name not in wanted and file.suffix != ".json"]

    @cached_property
    def paths(self) -> dict[str, Path]:
        """Paths of the products by role; of several formats the first."""
        return {role: target.paths[0] for role, target in self.targets.items()}

    @property
    def scalar_maps(self) -> list[str]:
        """Roles of the maps of tensor and model that have one value in a voxel."""
        fitted = (target.product for target in self.targets.values())
        return [product.role for product in fitted if product.is_scalar_map]

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
        """Return the fingerprint of each product by role.

        Parameters
        ----------
        hashes : mapping
            SHA-256 of every input file, by role.
        """
        software = software_fingerprint()
        engine = f"{self.engine} {version(ENGINES[self.engine].library)}" if self.engine else "none"
        tracker = f"{software}, engine {engine}"
        return {
            role: Fingerprint(
                inputs=sha256_of_json(
                    {r: h for r, h in hashes.items() if r.startswith(target.depends_on.inputs)}
                ),
                config=sha256_of_json(to_jsonable_python(target.depends_on.settings)),
                software=tracker if target.product.stage == "tracking" else software,
            )
            for role, target in self.targets.items()
        }

    def stale(self, fingerprints: Mapping[str, Fingerprint]) -> dict[str, str]:
        """Return the roles of the products that have to be created, with the reasons."""
        if self.fresh:
            return dict.fromkeys(self.targets, "--fresh was given")
        reasons = {
            role: next(filter(None, (why_stale(p, fingerprints[role]) for p in target.paths)), "")
            for role, target in self.targets.items()
        }
        stale = {role: reason for role, reason in reasons.items() if reason}
        if "fod" in self.targets and "fod" not in stale and self._is_unchecked():
            stale["fod"] = "its gradient table was not checked"
        return stale

    def _is_unchecked(self) -> bool:
        """Return whether the existing fit lacks the configured check of the gradient table."""
        checks = read_record(self.paths["fod"])["details"]["checks"]
        return self.config.gradients.check != "off" and GRADIENT_TABLE not in checks

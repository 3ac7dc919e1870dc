"""One DWI run and all that is to be done with it: settled before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from bids_tractography.config import Config
from bids_tractography.config.tracking import GivenSeeds
from bids_tractography.inputs import DwiRun
from bids_tractography.outputs import RunOutputs, why_stale
from bids_tractography.provenance import (
    Fingerprint,
    config_hash,
    sha256_of_file,
    sha256_of_json,
    software_fingerprint,
)
from bids_tractography.tracking import choose_engine

# What the fit makes; the rest depends on seeds and tracking too.
FITTED = ("brain", "fa", "md", "v1", "fod")


@dataclass(frozen=True)
class Job:
    """One DWI run, and all that is to be done with it.

    Parameters
    ----------
    run : DwiRun
    config : Config
    outputs : RunOutputs
    work : Path
        Folder for the batches; removed when the tractogram stands.
    n_threads : int
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
    fresh: bool = False
    container: dict[str, str] | None = None

    @property
    def name(self) -> str:
        """What the names of its files begin with."""
        return self.outputs.name

    @cached_property
    def inputs(self) -> dict[str, Path]:
        """All files that the result depends on, by role."""
        seeds = self.config.seeding.seeds
        given = {"seeds": seeds.path.absolute()} if isinstance(seeds, GivenSeeds) else {}
        return {**self.run.files, **given}

    @cached_property
    def paths(self) -> dict[str, Path]:
        """Where everything goes, by what it is."""
        path, config = self.outputs.path, self.config
        tract = {"tract": "wholebrain", "track": config.tracking.algorithm.kind}
        maps = {
            "brain": path("mask", desc="brain"),
            "fa": path("dwimap", model="tensor", param="fa"),
            "md": path("dwimap", model="tensor", param="md"),
            "v1": path("dwimap", model="tensor", param="v1"),
            "fod": path("dwimap", model=config.model.kind, param="fod"),
            "seed": path("mask", desc="seed"),
            "stop": path("mask", desc="stop"),
            "tdi": path("dwimap", **tract, param="tdi"),
            "tractogram": path("tractogram", ".trx", **tract),
        }
        if not config.tensor.v1:
            del maps["v1"]
        if config.seeding.mask is None:
            del maps["seed"]
        return maps

    def hash_inputs(self) -> dict[str, str]:
        """Return the SHA-256 of every input file, by role."""
        return {role: sha256_of_file(path) for role, path in self.inputs.items()}

    def fingerprints(self, hashes: Mapping[str, str]) -> dict[str, Fingerprint]:
        """Return what each file is a function of, by what it is.

        Parameters
        ----------
        hashes : mapping
            SHA-256 of every input file, by role.
        """
        config = self.config
        software = software_fingerprint()
        of = {
            "brain": ("dwi", "bval", "bvec", "brain_mask"),
            "seed": ("dwi", "bval", "bvec", "brain_mask", "seed_mask"),
            "stop": ("dwi", "bval", "bvec", "brain_mask", "stop_mask"),
        }
        read = {role: of.get(role, of["brain"]) for role in (*FITTED, "seed", "stop")}
        maps = (config.gradients, config.tensor.max_b_s_mm2)
        said: dict[str, tuple[Any, ...]] = {
            "brain": (config.gradients,),
            "fod": (*maps, config.model),
            "seed": (*maps, config.seeding.mask),
            "stop": (*maps, config.stopping),
        }
        tracking = Fingerprint(
            inputs=sha256_of_json(dict(hashes)),
            config=config_hash(config),
            software=f"{software}, engine {choose_engine(config).name}",
        )
        return {
            role: Fingerprint(
                inputs=sha256_of_json({r: h for r, h in hashes.items() if r in read[role]}),
                config=sha256_of_json(to_jsonable_python(said.get(role, maps))),
                software=software,
            )
            if role in read
            else tracking
            for role in self.paths
        }

    def stale(self, fingerprints: Mapping[str, Fingerprint]) -> dict[str, str]:
        """Tell what has to be made, by what it is, and why."""
        if self.fresh:
            return dict.fromkeys(self.paths, "--fresh asks for it")
        reasons = {r: why_stale(path, fingerprints[r]) for r, path in self.paths.items()}
        return {role: reason for role, reason in reasons.items() if reason}

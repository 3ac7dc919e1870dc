"""The state of a job while it runs: hashes, stale products and findings."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_tractography.core.checks import Findings
from bids_tractography.core.images import Grid
from bids_tractography.outputs.names import sidecar_path
from bids_tractography.outputs.provenance import Fingerprint, Record, Stopwatch
from bids_tractography.outputs.run import Sidecar
from bids_tractography.pipeline.extension import Beginning, beginning_of
from bids_tractography.pipeline.job import Job
from bids_tractography.pipeline.sharing import protect_others, settle

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """The state of a job while it runs, shared by all steps of the pipeline.

    Parameters
    ----------
    job : Job
    hashes : mapping of str to str
        SHA-256 of the input files, by role.
    fingerprints : mapping of str to Fingerprint
        Fingerprints of the products, by role.
    stale : mapping of str to str
        Roles of the products that have to be created, with the reasons.
    findings : Findings
        Collects measurements and warnings.
    watch : Stopwatch
    beginning : Beginning or None
        Finished tractogram that this job continues.
    """

    job: Job
    hashes: Mapping[str, str]
    fingerprints: Mapping[str, Fingerprint]
    stale: Mapping[str, str]
    findings: Findings
    watch: Stopwatch
    beginning: Beginning | None = None

    @classmethod
    def begin(
        cls, job: Job, findings: Findings, entered: Callable[[str], None] = lambda _: None
    ) -> Task:
        """Hash the inputs of a job, and determine which products are stale.

        `entered` is called with the name of each stage that begins.
        """
        watch = Stopwatch(entered=entered)
        with watch.stage("hashing"):
            hashes = job.hash_inputs()
        fingerprints = job.fingerprints(hashes)
        job = settle(job, fingerprints)
        stale, beginning = job.stale(fingerprints), None
        tracks = any(job.targets[role].product.stage == "tracking" for role in stale)
        if tracks and "tractogram" in job.targets and job.engine is not None and not job.fresh:
            path = job.paths["tractogram"]
            beginning = beginning_of(path, fingerprints["tractogram"], job.config)
        if beginning is not None:
            job = replace(job, config=beginning.formats_for(job.config))
        return cls(job, hashes, fingerprints, stale, findings, watch, beginning)

    def has_stage(self, stage: str) -> bool:
        """Return whether a product of a stage is stale; see `Product.stage`."""
        return any(self.job.targets[role].product.stage == stage for role in self.stale)

    def protect_others(self) -> None:
        """Refuse to replace what other configurations have finished; see `protect_others`."""
        protect_others(self.job, self.fingerprints, self.stale)

    def remove_stale_sidecars(self) -> None:
        """Remove the sidecars of stale products, so that none is untrue if the run fails."""
        kept = {"tractogram"} if self.beginning else set()  # until its successor is written
        if "tractogram" in self.stale.keys() - kept:
            for path in self.job.former_tractograms:
                path.unlink(missing_ok=True)
        for role, reason in self.stale.items():
            if role in kept:
                continue
            for path in self.job.targets[role].paths:
                if path.exists():
                    logger.info("%s is recomputed: %s.", path.name, reason)
                    sidecar_path(path).unlink(missing_ok=True)

    def write_map(
        self,
        role: str,
        data: NDArray[np.generic],
        grid: Grid,
        sidecar: Sidecar,
        details: Mapping[str, Any],
    ) -> None:
        """Write the image of a product with its sidecar, unless it is up to date.

        Parameters
        ----------
        role : str
        data : ndarray, shape (X, Y, Z) or (X, Y, Z, N)
        grid : Grid
        sidecar : Sidecar
        details : mapping
            Details for the record, JSON values.
        """
        if role not in self.stale:
            return
        record = Record(fingerprint=self.fingerprints[role], details=dict(details))
        self.job.outputs.write_map(self.job.paths[role], data, grid, sidecar, record)

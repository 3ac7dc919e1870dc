"""Where streamlines start, go on, have to pass and must not: made, and written as they are used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_tractography.anatomy.masks import Mask, Sources, make_mask, resolve
from bids_tractography.anatomy.tissue import include_exclude
from bids_tractography.config.tracking import (
    ActStopConfig,
    BinaryStopConfig,
    CmcStopConfig,
    ThresholdStopConfig,
)
from bids_tractography.core.stopping import (
    ActRule,
    BinaryRule,
    CmcRule,
    StoppingRule,
    ThresholdRule,
    extent,
)
from bids_tractography.core.tissue import TISSUES
from bids_tractography.errors import EmptyMaskError
from bids_tractography.outputs.run import Sidecar
from bids_tractography.pipeline.task import Task
from bids_tractography.tracking.acceptance import Regions


class RegionMaker:
    """Makes and writes the masks of one job.

    Parameters
    ----------
    task : Task
    sources : Sources
    """

    def __init__(self, task: Task, sources: Sources) -> None:
        self._task = task
        self._job = task.job
        self._sources = sources

    def seed_mask(self) -> Mask | None:
        """Make the mask of the voxels to seed; None where seeds are given."""
        config = self._job.config.seeding.mask
        if config is None:
            return None
        mask = make_mask(config, self._sources, "seeding.mask")
        self._write("seed", mask)
        return mask

    def acceptance(self) -> Regions:
        """Make the masks that streamlines have to pass, and those they must not enter."""
        tracking = self._job.config.tracking
        made: dict[str, list[NDArray[np.bool_]]] = {}
        for name in ("include", "exclude"):
            made[name] = []
            for place, config in enumerate(getattr(tracking, name)):
                key = f"tracking.{name}.{place}"
                mask = make_mask(config, self._sources, key)
                self._write(key, mask)
                made[name].append(mask.data)
        return Regions(self._sources.grid, tuple(made["include"]), tuple(made["exclude"]))

    def stopping_rule(self) -> StoppingRule:
        """Make the stopping rule, and write the voxels where it lets streamlines go on."""
        config = self._job.config.stopping
        rule: StoppingRule
        if isinstance(config, BinaryStopConfig):
            mask = make_mask(config.mask, self._sources, "stopping.mask")
            rule = BinaryRule(mask.data)
        elif isinstance(config, ThresholdStopConfig):
            rule, mask = self._threshold(config)
        else:
            rule, mask = self._tissue(config)
        if mask.n_voxels == 0:
            raise EmptyMaskError("stopping lets no voxel through: no streamline could take a step.")
        self._write("stop", mask)
        return rule

    def _threshold(self, config: ThresholdStopConfig) -> tuple[ThresholdRule, Mask]:
        values, name, parent = self._sources.map(config.map, "stopping.map")
        brain = self._sources.brain
        threshold = resolve(config.threshold, config.percentile, values, brain, "stopping")
        rule = ThresholdRule(values, threshold)
        record: dict[str, Any] = {"kind": "threshold", "map": name, "threshold": threshold}
        if config.percentile:
            record["threshold_percentile"] = config.threshold
        text = f"voxels where {name} > {threshold:g} (interpolated on the way)"
        return rule, Mask(extent(rule), text, record, (parent,))

    def _tissue(self, config: ActStopConfig | CmcStopConfig) -> tuple[ActRule | CmcRule, Mask]:
        maps = self._sources.maps
        include, exclude = include_exclude(maps["wm"], maps["gm"], maps["csf"])
        for role, data in (("pft_include", include), ("pft_exclude", exclude)):
            text = f"{self._job.targets[role].product.description}."
            origins = [self._job.paths[tissue] for tissue in TISSUES]
            sidecar = Sidecar(text, origins, {"SkullStripped": True})
            self._write_map(role, data, sidecar, {"kind": config.kind})
        rule = ActRule(include, exclude) if config.kind == "act" else CmcRule(include, exclude)
        text = (
            "voxels with at most one half of grey matter and of fluid (interpolated on the way)"
            if config.kind == "act"
            else "voxels with some chance to go on: less grey matter and fluid than all"
        )
        parents = ("pft_include", "pft_exclude")
        return rule, Mask(extent(rule), text, {"kind": config.kind}, parents)

    def _write(self, role: str, mask: Mask) -> None:
        for warning in mask.warnings:
            self._task.findings.warn(warning)
        text = f"{self._job.targets[role].product.description}: {mask.description}."
        sidecar = Sidecar(text, self._paths(mask.parents))
        details = {**mask.record, "voxels": mask.n_voxels}
        self._write_map(role, mask.data.astype(np.uint8), sidecar, details)

    def _write_map(
        self, role: str, data: NDArray[np.generic], sidecar: Sidecar, details: dict[str, Any]
    ) -> None:
        if role in self._task.stale:
            self._task.write_map(role, data, self._sources.grid, sidecar, details)

    def _paths(self, parents: tuple[str, ...]) -> list[Path]:
        job = self._job
        # The GFA is computed from the fODF whenever it is asked for.
        return [{**job.inputs, **job.paths}["fod" if name == "gfa" else name] for name in parents]

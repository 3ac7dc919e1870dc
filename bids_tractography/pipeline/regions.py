"""Seed mask, stopping rule, and include and exclude masks of a run."""

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
    FodStopConfig,
    MapStopConfig,
    ThresholdStopConfig,
)
from bids_tractography.core.fodf import peak_amplitudes
from bids_tractography.core.stopping import (
    ActRule,
    BinaryRule,
    CmcRule,
    FodRule,
    MapRule,
    StoppingRule,
    ThresholdRule,
    extent,
)
from bids_tractography.core.tissue import TISSUES
from bids_tractography.errors import EmptyMaskError
from bids_tractography.outputs.run import Sidecar
from bids_tractography.pipeline.fitting import Fit
from bids_tractography.pipeline.task import Task
from bids_tractography.tracking.acceptance import Regions


class RegionMaker:
    """Computes and writes the masks of one job.

    Parameters
    ----------
    task : Task
    sources : Sources
    fit : Fit
    """

    def __init__(self, task: Task, sources: Sources, fit: Fit) -> None:
        self._task = task
        self._job = task.job
        self._sources = sources
        self._fit = fit

    def seed_mask(self) -> Mask | None:
        """Compute the seed mask; None if seeds are given."""
        config = self._job.config.seeding.mask
        if config is None:
            return None
        mask = make_mask(config, self._sources, "seeding.mask")
        self._write("seed", mask)
        return mask

    def acceptance(self) -> Regions:
        """Compute the include and exclude masks."""
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
        """Create the stopping rule, and write the mask of the voxels where tracking continues."""
        config = self._job.config.stopping
        rule: StoppingRule
        if isinstance(config, FodStopConfig):
            rule, mask = self._fod(config.below)
        else:
            rule, mask = self._map(config)
            if config.fod_below is not None:
                rule, mask = self._fod(config.fod_below, rule, mask)
        if mask.n_voxels == 0:
            raise EmptyMaskError(
                "the stopping rule excludes every voxel, so that no streamline could take a step."
            )
        self._write("stop", mask)
        return rule

    def _map(self, config: MapStopConfig) -> tuple[MapRule, Mask]:
        match config:
            case BinaryStopConfig():
                mask = make_mask(config.mask, self._sources, "stopping.mask")
                return BinaryRule(mask.data), mask
            case ThresholdStopConfig():
                return self._threshold(config)
        return self._tissue(config)

    def _fod(
        self, share: float, within: MapRule | None = None, mask: Mask | None = None
    ) -> tuple[FodRule, Mask]:
        single = float(self._fit.details["single_fibre_peak"])
        peaks = peak_amplitudes(self._fit.fodf.coefficients)
        rule = FodRule(peaks, share * single, within)
        record = {"kind": "fod", "below": share, "amplitude": rule.amplitude}
        text = f"voxels where the peak of the fODF > {share:g} of a single fibre's"
        if mask is None:
            return rule, Mask(extent(rule), f"{text} (interpolated at each step)", record, ("fod",))
        parents = tuple(dict.fromkeys((*mask.parents, "fod")))
        record = {"kind": "all", "of": [mask.record, record]}
        return rule, Mask(extent(rule), f"{mask.description}; {text}", record, parents)

    def _threshold(self, config: ThresholdStopConfig) -> tuple[ThresholdRule, Mask]:
        values, name, parent = self._sources.map(config.map, "stopping.map")
        brain = self._sources.brain
        threshold = resolve(config.threshold, config.percentile, values, brain, "stopping")
        rule = ThresholdRule(values, threshold)
        record: dict[str, Any] = {"kind": "threshold", "map": name, "threshold": threshold}
        if config.percentile:
            record["threshold_percentile"] = config.threshold
        text = f"voxels where {name} > {threshold:g} (interpolated at each step)"
        return rule, Mask(extent(rule), text, record, (parent,))

    def _tissue(self, config: ActStopConfig | CmcStopConfig) -> tuple[ActRule | CmcRule, Mask]:
        maps = self._sources.maps
        include, exclude = include_exclude(maps["wm"], maps["gm"], maps["csf"])
        for role, data in (("pft_include", include), ("pft_exclude", exclude)):
            text = f"{self._job.targets[role].product.description}."
            origins = [self._job.paths[tissue] for tissue in TISSUES]
            sidecar = Sidecar(text, origins, {"SkullStripped": True})
            self._task.write_map(role, data, self._sources.grid, sidecar, {"kind": config.kind})
        kind = ActRule if config.kind == "act" else CmcRule
        rule = kind(include, exclude, config.keep_entry)
        text = (
            "voxels with at most half grey matter and half fluid (interpolated at each step)"
            if config.kind == "act"
            else "voxels that are not entirely grey matter and fluid"
        )
        parents = ("pft_include", "pft_exclude")
        return rule, Mask(extent(rule), text, {"kind": config.kind}, parents)

    def _write(self, role: str, mask: Mask) -> None:
        for warning in mask.warnings:
            self._task.findings.warn(warning)
        text = f"{self._job.targets[role].product.description}: {mask.description}."
        sidecar = Sidecar(text, self._paths(mask.parents))
        details = {**mask.record, "voxels": mask.n_voxels}
        data = mask.data.astype(np.uint8)
        self._task.write_map(role, data, self._sources.grid, sidecar, details)

    def _paths(self, parents: tuple[str, ...]) -> list[Path]:
        job = self._job
        # The GFA is not a file: it is computed from the fODF when it is needed.
        return [{**job.inputs, **job.paths}["fod" if name == "gfa" else name] for name in parents]

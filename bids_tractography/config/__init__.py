"""The tracking configuration: frozen models, one for each section."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import model_validator

from bids_tractography.config.algorithm import ParticleFilteringConfig
from bids_tractography.config.checks import ChecksConfig
from bids_tractography.config.files import FileConfig
from bids_tractography.config.masks import InterfaceMaskConfig, TissueMaskConfig
from bids_tractography.config.model import (
    CsdModelConfig,
    GradientsConfig,
    ModelConfig,
    MsmtCsdModelConfig,
    TensorMapsConfig,
)
from bids_tractography.config.section import Section, sections_in
from bids_tractography.config.tissue import AutoTissueConfig, DwiTissueConfig, TissueConfig
from bids_tractography.config.tracking import (
    ActStopConfig,
    CmcStopConfig,
    ImportTractConfig,
    OutputConfig,
    SeedingConfig,
    StoppingConfig,
    ThresholdStopConfig,
    TrackingConfig,
)

__all__ = ["USES_TISSUE", "Config"]

USES_TISSUE = (ActStopConfig, CmcStopConfig, TissueMaskConfig, InterfaceMaskConfig)
"""Sections that use tissue fractions."""

WITH_RESPONSE = ("csd", "msmt_csd", "rumba")
"""Models that know what a single fibre looks like."""


class Config(Section):
    """Whole-brain tractography of one DWI run."""

    gradients: GradientsConfig = GradientsConfig()
    """How b-values and b-vectors are read and checked."""
    checks: ChecksConfig = ChecksConfig()
    """Checks of the data against plausible ranges."""
    tensor: TensorMapsConfig = TensorMapsConfig()
    """Diffusion tensor fit and its scalar maps."""
    tissue: TissueConfig = AutoTissueConfig()
    """Source of the tissue fractions that masks and stopping criteria use."""
    model: ModelConfig = CsdModelConfig()
    """Diffusion model, which yields the fODF that streamlines follow."""
    seeding: SeedingConfig = SeedingConfig()
    """Where streamlines start."""
    stopping: StoppingConfig = ThresholdStopConfig(threshold=0.1, fod_below=0.25)
    """Where streamlines end; FA > 0.15 by default for models without a response."""
    tracking: TrackingConfig = TrackingConfig()
    """How streamlines are propagated and selected."""
    import_tract: ImportTractConfig | None = None
    """Import a tractogram created by other software, given by path or BIDS filters, instead of
    tracking."""
    output: OutputConfig = OutputConfig()
    """Name of the configuration and formats of the tractogram."""

    @model_validator(mode="before")
    @classmethod
    def _default_stop(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "stopping" in data or "model" not in data:
            return data
        model = data["model"]
        kind = model.get("kind") if isinstance(model, dict) else getattr(model, "kind", model)
        has_response = kind is None or kind in WITH_RESPONSE
        return data if has_response else {**data, "stopping": {"kind": "threshold"}}

    @model_validator(mode="after")
    def _parts_go_together(self) -> Config:
        if isinstance(self.tracking.algorithm, ParticleFilteringConfig) and not isinstance(
            self.stopping, ActStopConfig | CmcStopConfig
        ):
            raise ValueError("tracking.algorithm pft needs tissue: set stopping.kind to act or cmc")
        by_fod = self.stopping.fod_share is not None and self.import_tract is None
        if by_fod and self.model.kind not in WITH_RESPONSE:
            raise ValueError(
                f"stopping by the fODF needs a model with a response ({', '.join(WITH_RESPONSE)}), "
                f"which {self.model.kind} lacks; use stopping.kind threshold"
            )
        if isinstance(self.tissue, DwiTissueConfig):
            if not isinstance(self.model, MsmtCsdModelConfig):
                raise ValueError("tissue.kind dwi requires model.kind msmt_csd")
            if self.model.tissues == "wm_csf":
                raise ValueError("tissue.kind dwi requires grey matter, which tissues wm_csf lacks")
        if self.import_tract is not None:
            unused = [
                name
                for name, field in type(self).model_fields.items()
                if name != "import_tract" and getattr(self, name) != field.default
            ]
            if unused:
                raise ValueError(f"{', '.join(unused)}: not accepted together with import_tract")
        elif self.tissue != AutoTissueConfig() and not self.needs_tissue:
            raise ValueError(
                "tissue: not used; it requires stopping.kind act or cmc, or a tissue mask"
            )
        return self

    @property
    def needs_tissue(self) -> bool:
        """Whether any mask or stopping criterion uses tissue fractions."""
        return any(isinstance(section, USES_TISSUE) for _, section in sections_in(self))

    def files(self) -> Iterator[tuple[str, FileConfig]]:
        """Yield every file that the configuration names, with the dotted path of its key."""
        return ((key, part) for key, part in sections_in(self) if isinstance(part, FileConfig))

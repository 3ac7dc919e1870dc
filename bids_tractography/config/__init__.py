"""The tracking configuration: parsed once, frozen, handed down in sections."""

from __future__ import annotations

from collections.abc import Iterator

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

__all__ = ["Config"]


class Config(Section):
    """Whole-brain tractography of one DWI run."""

    gradients: GradientsConfig = GradientsConfig()
    """How b-values and b-vectors are read and checked."""
    checks: ChecksConfig = ChecksConfig()
    """Checks of the data against what is possible."""
    tensor: TensorMapsConfig = TensorMapsConfig()
    """Scalar maps."""
    tissue: TissueConfig = AutoTissueConfig()
    """Tissue fractions, where masks or stopping ask for them."""
    model: ModelConfig = CsdModelConfig()
    """The fODF that streamlines follow."""
    seeding: SeedingConfig = SeedingConfig()
    """Where streamlines start."""
    stopping: StoppingConfig = ThresholdStopConfig()
    """Where streamlines end."""
    tracking: TrackingConfig = TrackingConfig()
    """The tracker."""
    import_tract: ImportTractConfig | None = None
    """A tractogram made elsewhere: a path, or BIDS filters; nothing is tracked then."""
    output: OutputConfig = OutputConfig()
    """The tractogram file."""

    @model_validator(mode="after")
    def _parts_go_together(self) -> Config:
        if isinstance(self.tracking.algorithm, ParticleFilteringConfig) and not isinstance(
            self.stopping, ActStopConfig | CmcStopConfig
        ):
            raise ValueError("tracking.algorithm pft needs tissue: set stopping.kind to act or cmc")
        if isinstance(self.tissue, DwiTissueConfig):
            if not isinstance(self.model, MsmtCsdModelConfig):
                raise ValueError("tissue.kind dwi needs model.kind msmt_csd, which has fractions")
            if self.model.tissues == "wm_csf":
                raise ValueError("tissue.kind dwi needs grey matter: tissues wm_csf has none")
        if self.import_tract is not None:
            unused = [
                name
                for name, field in type(self).model_fields.items()
                if name != "import_tract" and getattr(self, name) != field.default
            ]
            if unused:
                raise ValueError(f"{', '.join(unused)}: of no use, as import_tract is given")
        elif self.tissue != AutoTissueConfig() and not self.needs_tissue:
            raise ValueError("tissue: nothing asks for it; masks and stopping act or cmc would")
        return self

    @property
    def needs_tissue(self) -> bool:
        """Whether tissue fractions are asked for anywhere."""
        of_tissue = ActStopConfig | CmcStopConfig | TissueMaskConfig | InterfaceMaskConfig
        return any(isinstance(section, of_tissue) for _, section in sections_in(self))

    def files(self) -> Iterator[tuple[str, FileConfig]]:
        """Yield every file that is named, with the dotted path of its key."""
        return ((key, part) for key, part in sections_in(self) if isinstance(part, FileConfig))

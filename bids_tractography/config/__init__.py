"""The tracking configuration: parsed once, frozen, handed down in sections."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import model_validator

from bids_tractography.config.algorithm import ParticleFiltering
from bids_tractography.config.checks import ChecksConfig
from bids_tractography.config.files import File
from bids_tractography.config.masks import InterfaceMask, TissueMask
from bids_tractography.config.model import (
    CsdModel,
    GradientsConfig,
    Model,
    MsmtCsdModel,
    TensorMaps,
)
from bids_tractography.config.section import Section, sections_in
from bids_tractography.config.tissue import AutoTissue, DwiTissue, Tissue
from bids_tractography.config.tracking import (
    ActStop,
    CmcStop,
    ImportTract,
    Output,
    Seeding,
    Stopping,
    ThresholdStop,
    Tracking,
)

__all__ = ["Config"]


class Config(Section):
    """Whole-brain tractography of one DWI run."""

    gradients: GradientsConfig = GradientsConfig()
    """How b-values and b-vectors are read and checked."""
    checks: ChecksConfig = ChecksConfig()
    """Checks of the data against what is possible."""
    tensor: TensorMaps = TensorMaps()
    """Scalar maps."""
    tissue: Tissue = AutoTissue()
    """Tissue fractions, where masks or stopping ask for them."""
    model: Model = CsdModel()
    """The fODF that streamlines follow."""
    seeding: Seeding = Seeding()
    """Where streamlines start."""
    stopping: Stopping = ThresholdStop()
    """Where streamlines end."""
    tracking: Tracking = Tracking()
    """The tracker."""
    import_tract: ImportTract | None = None
    """A tractogram made elsewhere: a path, or BIDS filters; nothing is tracked then."""
    output: Output = Output()
    """The tractogram file."""

    @model_validator(mode="after")
    def _parts_go_together(self) -> Config:
        if isinstance(self.tracking.algorithm, ParticleFiltering) and not isinstance(
            self.stopping, ActStop | CmcStop
        ):
            raise ValueError("tracking.algorithm pft needs tissue: set stopping.kind to act or cmc")
        if isinstance(self.tissue, DwiTissue):
            if not isinstance(self.model, MsmtCsdModel):
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
        elif self.tissue != AutoTissue() and not self.needs_tissue:
            raise ValueError("tissue: nothing asks for it; masks and stopping act or cmc would")
        return self

    @property
    def needs_tissue(self) -> bool:
        """Whether tissue fractions are asked for anywhere."""
        of_tissue = ActStop | CmcStop | TissueMask | InterfaceMask
        return any(isinstance(section, of_tissue) for _, section in sections_in(self))

    def files(self) -> Iterator[tuple[str, File]]:
        """Yield every file that is named, with the dotted path of its key."""
        return ((key, part) for key, part in sections_in(self) if isinstance(part, File))

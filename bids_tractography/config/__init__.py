"""The tracking configuration: parsed once, frozen, handed down in sections."""

from __future__ import annotations

from bids_tractography.config.model import CsdModel, Gradients, Model, TensorMaps
from bids_tractography.config.section import Section
from bids_tractography.config.tracking import (
    Output,
    Seeding,
    Stopping,
    ThresholdStop,
    Tracking,
)

__all__ = ["Config"]


class Config(Section):
    """Whole-brain tractography of one DWI run."""

    gradients: Gradients = Gradients()
    """Reading of b-values."""
    tensor: TensorMaps = TensorMaps()
    """Scalar maps."""
    model: Model = CsdModel()
    """The fODF that streamlines follow."""
    seeding: Seeding = Seeding()
    """Where streamlines start."""
    stopping: Stopping = ThresholdStop()
    """Where streamlines end."""
    tracking: Tracking = Tracking()
    """The tracker."""
    output: Output = Output()
    """The tractogram file."""

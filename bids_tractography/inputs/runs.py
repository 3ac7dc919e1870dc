"""DWI runs: complete with their files, skipped, or failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bids_tractography.core.gradients import GradientFiles
from bids_tractography.errors import TractographyError
from bids_tractography.inputs.tissue import TissueFiles


@dataclass(frozen=True)
class DwiRun:
    """A DWI run and the files that belong to it.

    Parameters
    ----------
    dataset : str
        Name of the dataset of the image.
    subject, session : str
        Labels; the session may be None.
    image : Path
        The diffusion-weighted image.
    bval, bvec : Path or None
        FSL's gradient files.
    gradient_table : Path or None
        MRtrix3's gradient table (``.b``). A run that requires gradients has a table, or both
        `bval` and `bvec`.
    sidecar : Path or None
        The nearest JSON sidecar.
    brain_mask : Path or None
        Brain mask, if a file matches.
    named : mapping of str to Path
        Files named in the configuration, by the dotted path of their key.
    tissue : TissueFiles or None
        Files with tissue fractions; None if the configuration does not use them.
    generated_by : tuple of str
        Names of the pipelines that generated the dataset.
    is_raw : bool
        Whether the dataset is raw.
    participant : mapping of str to str
        Row of ``participants.tsv`` in the first dataset that has one, e.g. species and age.
    warnings : tuple of str
        Doubts about the choice of files, without the name of the run.
    """

    dataset: str
    subject: str
    session: str | None
    image: Path
    bval: Path | None
    bvec: Path | None
    gradient_table: Path | None = None
    sidecar: Path | None = None
    brain_mask: Path | None = None
    named: Mapping[str, Path] = field(default_factory=dict)
    tissue: TissueFiles | None = None
    generated_by: tuple[str, ...] = ()
    is_raw: bool = True
    participant: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the image without its suffix, e.g. ``sub-01_dir-AP``."""
        return run_name(self.image)

    @property
    def files(self) -> dict[str, Path]:
        """All files that the result depends on, by role."""
        found = {
            "dwi": self.image,
            "bval": self.bval,
            "bvec": self.bvec,
            "b": self.gradient_table,
            "brain_mask": self.brain_mask,
            **self.named,
        }
        return {role: path for role, path in found.items() if path is not None}

    @property
    def gradients(self) -> GradientFiles:
        """Files with the diffusion weighting."""
        return GradientFiles(self.bval, self.bvec, self.gradient_table)


@dataclass(frozen=True)
class SkippedRun:
    """A DWI image that is deliberately not tracked.

    Parameters
    ----------
    name : str
        Name of the image without its suffix.
    reason : str
        Why it is skipped.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class FailedRun:
    """A DWI image that cannot be tracked.

    Parameters
    ----------
    name : str
        Name of the image without its suffix.
    error : TractographyError
        Why it cannot be tracked.
    """

    name: str
    error: TractographyError


FoundRun = DwiRun | SkippedRun | FailedRun


def run_name(image: Path) -> str:
    """Return the name of an image without its suffix, e.g. ``sub-01_dir-AP``."""
    return image.name.partition(".")[0].rpartition("_")[0] or image.name

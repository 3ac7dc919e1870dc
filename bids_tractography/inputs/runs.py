"""What is found of a DWI run: its files, or why it is skipped, or why it fails."""

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
        Name of the dataset it is from.
    subject, session : str
        Labels; the session may be missing.
    image : Path
    bval, bvec : Path or None
        FSL's gradient files.
    gradient_table : Path or None
        MRtrix3's gradient table (``.b``). A run that needs gradients has it, or both `bval` and
        `bvec`.
    sidecar : Path or None
        The JSON sidecar that is nearest to the image.
    brain_mask : Path or None
    named : mapping of str to Path
        Files that the configuration names, by the dotted path of their key.
    tissue : TissueFiles or None
        What may tell tissue fractions; None where nothing asks for them.
    generated_by : tuple of str
        Names of the pipelines that generated its dataset.
    is_raw : bool
        Whether its dataset is a raw one.
    participant : mapping of str to str
        Row of ``participants.tsv`` of the first dataset that has one, e.g. species and age.
    warnings : tuple of str
        What is doubtful about the choice of files, without the name of the run.
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
        """The files that describe the diffusion weighting."""
        return GradientFiles(self.bval, self.bvec, self.gradient_table)


@dataclass(frozen=True)
class SkippedRun:
    """A DWI image that is not tracked, and rightly so.

    Parameters
    ----------
    name : str
        Name of the image without its suffix.
    reason : str
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
    """

    name: str
    error: TractographyError


FoundRun = DwiRun | SkippedRun | FailedRun


def run_name(image: Path) -> str:
    """Return the name of an image without its suffix, e.g. ``sub-01_dir-AP``."""
    return image.name.partition(".")[0].rpartition("_")[0] or image.name

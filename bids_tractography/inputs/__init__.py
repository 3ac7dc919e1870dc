"""BIDS datasets: participants, DWI runs and the files that belong to them."""

from __future__ import annotations

from bids_tractography.inputs.datasets import Dataset, find_participants, read_dataset
from bids_tractography.inputs.filters import read_filters
from bids_tractography.inputs.layout import known_entities
from bids_tractography.inputs.named import RAW
from bids_tractography.inputs.participant import ParticipantFiles, Selection
from bids_tractography.inputs.runs import DwiRun, FailedRun, FoundRun, SkippedRun
from bids_tractography.inputs.tissue import TissueFiles
from bids_tractography.machine.files import check_file

__all__ = [
    "RAW",
    "Dataset",
    "DwiRun",
    "FailedRun",
    "FoundRun",
    "ParticipantFiles",
    "Selection",
    "SkippedRun",
    "TissueFiles",
    "check_file",
    "find_participants",
    "known_entities",
    "read_dataset",
    "read_filters",
]

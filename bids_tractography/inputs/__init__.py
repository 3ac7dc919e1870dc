"""BIDS datasets in; the only place that knows pybids."""

from __future__ import annotations

from bids_tractography.inputs.datasets import Dataset, find_participants, read_dataset
from bids_tractography.inputs.filters import read_filters
from bids_tractography.inputs.layout import known_entities
from bids_tractography.inputs.runs import RAW, DwiRun, ParticipantFiles, Selection

__all__ = [
    "RAW",
    "Dataset",
    "DwiRun",
    "ParticipantFiles",
    "Selection",
    "find_participants",
    "known_entities",
    "read_dataset",
    "read_filters",
]

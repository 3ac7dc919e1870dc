"""Progress of a job, as it is reported while the job runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """What a job does, and how much of the tracking is done.

    Parameters
    ----------
    name : str
        Label of the job.
    done, total : int
        Seeds, or streamlines if so many are to be selected; 0 before and after tracking.
    kept : int
        Streamlines.
    per_second : float
        Seeds or streamlines that this process has tracked in a second, so far.
    unit : str
        What `done` and `total` count.
    stage : str
        What the job does, in a word, e.g. "fitting"; empty when it has ended.
    """

    name: str
    done: int = 0
    total: int = 0
    kept: int = 0
    per_second: float = 0.0
    unit: str = "seeds"
    stage: str = "tracking"

"""Progress of a job, as it is reported while the job runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Progress of tracking.

    Parameters
    ----------
    name : str
        Of the job.
    done, total : int
        Seeds, or streamlines if so many are to be selected.
    kept : int
        Streamlines.
    per_second : float
        Seeds or streamlines that this process has tracked in a second, so far.
    unit : str
        What `done` and `total` count.
    """

    name: str
    done: int
    total: int
    kept: int
    per_second: float
    unit: str = "seeds"

"""Checks of the data against plausible ranges."""

from __future__ import annotations

from typing import Literal

from bids_tractography.config.section import OnFinding, Section

SubjectKind = Literal["adult", "infant", "animal", "ex_vivo", "phantom", "any"]


class ChecksConfig(Section):
    """Checks of the data against plausible ranges."""

    plausibility: OnFinding = "error"
    """What to do if a measurement is impossible for the subject: stop the run with an error,
    continue with a warning, or continue silently. Sidecars record the measurements and their usual
    ranges."""
    subject: SubjectKind | Literal["auto"] = "auto"
    """Kind of subject, which determines the ranges. ``auto``: ``animal`` if ``participants.tsv``
    names a species other than human; ``infant`` up to an age of three years; ``phantom`` if the
    label or the sidecar of the DWI indicates one; otherwise ``adult``. ``any``: reject only what
    is impossible for every object."""

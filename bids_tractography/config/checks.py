"""What the data are held against before, while and after they are computed with."""

from __future__ import annotations

from typing import Literal

from bids_tractography.config.section import OnFinding, Section

SubjectKind = Literal["adult", "infant", "animal", "ex_vivo", "phantom", "any"]


class ChecksConfig(Section):
    """Checks of the data against what is possible."""

    plausibility: OnFinding = "error"
    """What to do with a figure that the subject cannot have: stop the run, go on with a warning,
    or go on without a word. The figures and their usual ranges are in the sidecars."""
    subject: SubjectKind | Literal["auto"] = "auto"
    """Whose ranges hold. ``auto``: ``animal`` if ``participants.tsv`` names a species other than
    human, ``infant`` up to an age of three years, ``phantom`` if the label or the sidecar of the
    DWI says so, else ``adult``. ``any``: only what no object at all can have is refused."""

"""``.bidsignore``: files that are declared not to be part of a dataset."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

from bids_tractography.errors import NoInputError
from bids_tractography.inputs.entities import Name
from bids_tractography.machine.files import TEXT_BYTES, open_input

FILE = ".bidsignore"
_ENTITIES = frozenset({
    "sub", "ses", "cohort", "sample", "task", "acq", "ce", "trc", "stain", "rec", "dir", "run",
    "mod", "echo", "flip", "inv", "mt", "part", "proc", "hemi", "space", "split", "chunk", "atlas",
    "seg", "scale", "res", "den", "label", "desc",
})  # fmt: skip
_IMAGE = (".nii.gz", ".nii")
_RAW = {
    **dict.fromkeys(("T1w", "T2w", "T2star", "FLAIR", "PDw", "UNIT1", "sbref"), (*_IMAGE, ".json")),
    "dwi": (*_IMAGE, ".json", ".bval", ".bvec"),
}
# BIDS validators reject gradient files in derivatives, so derivatives list them in .bidsignore.
_DERIVED = {
    **dict.fromkeys(("dwi", "mask", "dseg", "probseg"), (*_IMAGE, ".json")),
    **{suffix: extensions for suffix, extensions in _RAW.items() if suffix != "dwi"},
}


@dataclass(frozen=True)
class BidsIgnore:
    """Patterns of a ``.bidsignore`` file.

    Parameters
    ----------
    patterns : GitIgnoreSpec
    warning : str
        Why the file could not be read; empty if it could, or if there is none.
    """

    patterns: GitIgnoreSpec
    warning: str = ""

    def hides(self, relative: str, name: Name, *, derivative: bool) -> bool:
        """Return whether a file is excluded from the dataset.

        File names that no validator accepts (``_tractogram``, ``_dwimap``, ``_xfm``, masks in raw
        datasets, ...) are only listed to silence the validator. They stay visible.

        Parameters
        ----------
        relative : str
            Path of the file relative to the root of the dataset.
        name : Name
            Parsed file name.
        derivative : bool
            Whether the dataset is a derivative.
        """
        image = name.suffix == "dwi" and name.extension in _IMAGE
        standard = (_DERIVED if derivative else _RAW).get(name.suffix, ())
        known = name.extension in standard and name.entities.keys() <= _ENTITIES
        return (image or known) and bool(self.patterns.match_file(relative))


def read_bidsignore(root: Path) -> BidsIgnore:
    """Read the ``.bidsignore`` of a dataset; lines that are not patterns are ignored."""
    path = root / FILE
    if not path.exists() and not path.is_symlink():
        return BidsIgnore(GitIgnoreSpec([]))
    try:
        with open_input(path) as file:
            content = file.read(TEXT_BYTES)
        text = content.decode("utf-8-sig", "surrogateescape")
    except NoInputError as error:
        return BidsIgnore(GitIgnoreSpec([]), f"{error.message} It does not exclude any run.")
    patterns = []
    for line in text.replace("\r\n", "\n").split("\n"):
        try:
            patterns += list(GitIgnoreSpec.from_lines([line]).patterns)
        except (ValueError, OverflowError, RecursionError, re.error):
            continue
    return BidsIgnore(GitIgnoreSpec(patterns))

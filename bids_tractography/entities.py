"""What the entities of a BIDS file name tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_TEMPLATE = re.compile(
    r"MNI|ICBM|IXI|NIHPD|OASIS|UNC|Talairach|Colin|fsaverage|fsLR|onavg|dhcp|CIVET|WHS|PNC|NKI",
    re.IGNORECASE,
)
# Of a file beside the DWI, these say what it shows; the others say of which run it is.
_DESCRIBING = {
    "suffix", "extension", "datatype", "desc", "space", "label", "res", "den", "fmap",
    "resolution", "density",
}  # fmt: skip


def is_template(space: object) -> bool:
    """Tell whether a space is that of a template, not of the participant."""
    return _TEMPLATE.match(str(space)) is not None


def identity(entities: Mapping[str, Any]) -> dict[str, str]:
    """Return the entities that tell runs apart.

    Parameters
    ----------
    entities : mapping
        pybids names.
    """
    return {key: str(value) for key, value in entities.items() if key not in _DESCRIBING}

"""BIDS filter files and their translation to pybids queries."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bids.layout import Query

from bids_tractography.errors import UsageError
from bids_tractography.inputs.layout import known_entities
from bids_tractography.machine.files import read_json_file

logger = logging.getLogger(__name__)

_QUERIES = ("dwi", "brain_mask")
# Of fMRIPrep, QSIPrep and QSIRecon, whose files can be used as they are.
_OTHER_QUERIES = frozenset(
    ("anat", "bold", "fmap", "flair", "roi", "sbref", "t1w", "t2w", "asl", "m0scan", "PDw")
)


def read_filters(path: Path) -> dict[str, dict[str, Any]]:
    """Read a BIDS filter file in fMRIPrep's format.

    ``null`` requires the entity to be absent, ``"*"`` accepts any value.

    Raises
    ------
    NoInputError
        If the file cannot be read.
    UsageError
        If the file is not a valid filter file.
    """
    content = read_json_file(path, UsageError, strict=True)
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise UsageError(f'{path} must map queries to their filters: {{"dwi": {{...}}}}.')
    others = sorted(set(content) & _OTHER_QUERIES)
    if others:
        logger.info("%s: filters for %s are not used.", path, ", ".join(others))
    content = {query: filters for query, filters in content.items() if query not in others}
    unknown = sorted(set(content) - set(_QUERIES))
    if unknown:
        raise UsageError(
            f"{path} has filters for {', '.join(unknown)}, which this app does not query.",
            f"Supported queries: {', '.join(_QUERIES)}.",
        )
    known = known_entities()
    for query, filters in content.items():
        for entity, value in filters.items():
            if entity not in known:
                raise UsageError(
                    f"{path}: pybids does not know the entity of {query}.{entity}.",
                    f"Supported entities: {', '.join(sorted(known))}.",
                )
            if not all(map(_is_plain, value if isinstance(value, list) else [value])):
                raise UsageError(f"{path}: {query}.{entity} must be a value or a list of values.")
    return {query: translate(filters) for query, filters in content.items()}


def _is_plain(value: Any) -> bool:
    """Return whether pybids can compare a value; its database has 64-bit integers."""
    if isinstance(value, float | int):
        return abs(value) < 2**53
    return value is None or isinstance(value, str)


def translate(filters: Mapping[str, Any]) -> dict[str, Any]:
    """Translate ``null`` and ``"*"`` to pybids' equivalents."""
    special = {None: Query.NONE, "*": Query.REQUIRED}

    def one(value: Any) -> Any:
        if isinstance(value, list):
            return [one(item) for item in value]
        return special.get(value, value)

    return {key: one(value) for key, value in filters.items()}

"""BIDS filters of users, in pybids' terms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bids.layout import Query

from bids_tractography.errors import NoInputError, UsageError
from bids_tractography.inputs.layout import known_entities

_QUERIES = ("dwi", "brain_mask")


def read_filters(path: Path) -> dict[str, dict[str, Any]]:
    """Read a BIDS filter file in fMRIPrep's dialect.

    ``null`` means that the entity is absent, ``"*"`` that it has any value.

    Raises
    ------
    UsageError
        If it is not such a file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NoInputError(f"{path} cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise UsageError(f"{path} is not valid JSON: {error}.") from None
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise UsageError(f'{path} should hold queries with their filters: {{"dwi": {{...}}}}.')
    unknown = sorted(set(content) - set(_QUERIES))
    if unknown:
        raise UsageError(
            f"{path} has filters for {', '.join(unknown)}, which this app does not ask for.",
            f"Queries: {', '.join(_QUERIES)}.",
        )
    known = known_entities()
    for query, filters in content.items():
        for entity, value in filters.items():
            if entity not in known:
                raise UsageError(
                    f"{path}: {query}.{entity} is no entity that pybids knows.",
                    f"Entities: {', '.join(sorted(known))}.",
                )
            if any(
                isinstance(item, dict) for item in (value if isinstance(value, list) else [value])
            ):
                raise UsageError(f"{path}: {query}.{entity} should be a value or a list of values.")
    return {query: translate(filters) for query, filters in content.items()}


def translate(filters: Mapping[str, Any]) -> dict[str, Any]:
    """Say ``null`` and ``"*"`` as pybids does."""
    special = {None: Query.NONE, "*": Query.REQUIRED}

    def one(value: Any) -> Any:
        if isinstance(value, list):
            return [one(item) for item in value]
        return special.get(value, value)

    return {key: one(value) for key, value in filters.items()}

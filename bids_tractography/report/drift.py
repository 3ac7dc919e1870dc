"""What differs between the configurations, and the software, of the runs of a study."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from bids_tractography.outputs.provenance import ImportRecord, TractogramRecord

ABSENT = "—"
_MAX_VALUES = 12
"""A key with more values than this differs by nature, as a path that names the participant."""
_MAX_EXAMPLES = 3


@dataclass(frozen=True)
class Variant:
    """Runs that agree in all keys that differ.

    Parameters
    ----------
    values : tuple of str
        In the order of the keys.
    runs : tuple of str
        Names.
    """

    values: tuple[str, ...]
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Drift:
    """What differs.

    Parameters
    ----------
    keys : tuple of str
    variants : tuple of Variant
        The most frequent first.
    various : tuple of (str, int, tuple of str)
        Keys with a value for almost every run: their number of values, and examples.
    """

    keys: tuple[str, ...]
    variants: tuple[Variant, ...]
    various: tuple[tuple[str, int, tuple[str, ...]], ...] = ()

    @property
    def rows(self) -> list[tuple[str, list[tuple[str, bool]]]]:
        """Keys with the value of every variant, and whether it differs from the first one's."""
        columns = [variant.values for variant in self.variants]
        return [
            (key, [(column[place], column[place] != columns[0][place]) for column in columns])
            for place, key in enumerate(self.keys)
        ]


def settings_of(record: TractogramRecord | ImportRecord) -> dict[str, str]:
    """Return everything that should be the same in all runs of a study, as text."""
    used = record.environment
    software = {
        "bids_tractography": record.version,
        "Python": used.python,
        "platform": used.platform,
        **used.libraries,
        "container": _text(used.container),
    }
    if isinstance(record, TractogramRecord):
        software["engine"] = f"{record.engine} {record.engine_version}"
    return {
        **_flat_config(record.config.model_dump_json()),
        **{f"software: {name}": version for name, version in software.items()},
    }


@lru_cache(maxsize=256)
def _flat_config(config: str) -> Mapping[str, str]:
    return flatten(json.loads(config))


def flatten(value: Any, key: str = "") -> dict[str, str]:
    """Return the leaves of a configuration by their dotted paths, as text."""
    if not isinstance(value, dict) or not value:
        return {key: _text(value)}
    leaves: dict[str, str] = {}
    for name, inner in value.items():
        leaves |= flatten(inner, f"{key}.{name}" if key else name)
    return leaves


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def drift(settings: Mapping[str, Mapping[str, str]]) -> Drift:
    """Find what differs, and which runs agree.

    Parameters
    ----------
    settings : mapping of str to mapping of str to str
        By name of the run, see `settings_of`.
    """
    names = dict.fromkeys(key for one in settings.values() for key in one)
    keys, various = [], []
    for key in names:
        counts = Counter(one.get(key, ABSENT) for one in settings.values())
        if len(counts) > _MAX_VALUES:
            examples = tuple(value for value, _ in counts.most_common(_MAX_EXAMPLES))
            various.append((key, len(counts), examples))
        elif len(counts) > 1:
            keys.append(key)
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for run, one in settings.items():
        groups[tuple(one.get(key, ABSENT) for key in keys)].append(run)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[1]))
    variants = tuple(Variant(values, tuple(runs)) for values, runs in ordered)
    return Drift(tuple(keys), variants, tuple(various))

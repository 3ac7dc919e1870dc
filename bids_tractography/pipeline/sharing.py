"""Several configurations in one folder: which files they share, and what is never replaced.

A configuration with a name shares the products that are the same as those of an earlier one, and
puts its name into the names of the others. A finished product of another configuration is never
replaced, nor is anything that the files of another configuration were made from, unless
``--overwrite`` was given; what was made from it is removed then, as its sidecar would be untrue.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bids_tractography.errors import OutputError, TractographyError
from bids_tractography.outputs.names import (
    DERIVED_ENTITIES,
    entities_of,
    file_of_sidecar,
    sidecar_path,
)
from bids_tractography.outputs.provenance import Fingerprint, decisive_settings
from bids_tractography.outputs.run import made_with, read_record, read_sidecar, why_stale
from bids_tractography.pipeline.extension import extends
from bids_tractography.pipeline.job import Job

logger = logging.getLogger(__name__)

_MAX_LISTED = 5


def settle(job: Job, fingerprints: Mapping[str, Fingerprint]) -> Job:
    """Decide which products of a job carry the name of its configuration.

    Parameters
    ----------
    job : Job
    fingerprints : mapping of str to Fingerprint
        Fingerprints of the products, by role.
    """
    if job.config.output.name is None:
        return job
    named = replace(job, named=frozenset(job.targets))
    shared = replace(job, named=frozenset())
    apart = {
        role
        for role, fingerprint in fingerprints.items()
        if not why_stale(named.paths[role], fingerprint)
        or (why_stale(shared.paths[role], fingerprint) and made_with(shared.paths[role]))
    }
    return replace(job, named=frozenset(apart))


def protect_others(
    job: Job, fingerprints: Mapping[str, Fingerprint], stale: Mapping[str, str]
) -> None:
    """Refuse to replace what other configurations have finished, or remove what depends on it.

    Parameters
    ----------
    job : Job
    fingerprints : mapping of str to Fingerprint
        Fingerprints of the products, by role.
    stale : mapping of str to str
        Roles of the products that have to be created, with the reasons.

    Raises
    ------
    OutputError
        If a finished product would be replaced, and ``--overwrite`` was not given.
    """
    conflicts = dict(_conflicts(job, fingerprints, stale))
    if conflicts and not job.overwrite:
        path, reason = list(conflicts.items())[-1]  # the tractogram, if it is one of them
        others = len(conflicts) - 1
        more = f" (and {others} other file{'s' if others > 1 else ''})" if others else ""
        raise OutputError(
            f"{path.name}{more} {reason}.",
            "Keep both by giving this configuration a name that is not in use (--name NAME), or "
            "replace the results with --overwrite.",
        )
    replaced = list(conflicts)
    while replaced:
        for sidecar in _made_from(job, replaced.pop()):
            replaced += _remove(sidecar)


def _conflicts(
    job: Job, fingerprints: Mapping[str, Fingerprint], stale: Mapping[str, str]
) -> Iterator[tuple[Path, str]]:
    """Yield the finished products that would be replaced, with the reasons to keep them."""
    for role in stale:
        target, wanted = job.targets[role], fingerprints[role]
        path = target.paths[0]
        before = made_with(path)
        if before is None or before == wanted:
            continue
        if before.config != wanted.config:
            reason = "was computed with another configuration"
            if target.product.stage == "tracking":
                tracked = _config_of(job.paths[job.main or ""])
                if extends(job.config, tracked):
                    continue
                reason += _differing(job, tracked)
            yield path, reason
        elif next(_made_from(job, path), None) is not None:
            (changed, *_) = wanted.differences(before)
            yield path, f"was computed with {changed}, and other files were made from it"


def _config_of(path: Path) -> dict[str, Any]:
    """Return the configuration in the record of streamlines; empty if there is none."""
    try:
        config = read_record(path)["config"]
    except (TractographyError, OSError, ValueError, LookupError, TypeError):
        return {}
    return config if isinstance(config, dict) else {}


def _differing(job: Job, before: dict[str, Any]) -> str:
    """List the keys that differ from an earlier configuration."""
    theirs = _flat(before)
    ours = _flat(decisive_settings(job.config))
    keys = [key for key, value in ours.items() if before and value != theirs.get(key)]
    more = ", …" if len(keys) > _MAX_LISTED else ""
    return f" (different {', '.join(keys[:_MAX_LISTED])}{more})" if keys else ""


def _flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Return settings by their dotted keys."""
    if not isinstance(settings, dict):
        return {prefix: settings}
    pairs = (_flat(v, f"{prefix}.{k}" if prefix else str(k)) for k, v in settings.items())
    return {key: value for part in pairs for key, value in part.items()}


def _made_from(job: Job, path: Path) -> Iterator[Path]:
    """Yield sidecars of the run, of other configurations, whose files were made from a file."""
    own = {sidecar_path(p) for target in job.targets.values() for p in target.paths}
    uri = job.outputs.uri(path)
    for sidecar in sorted(job.outputs.folder.glob(f"{job.name}_*.json")):
        entities = entities_of(sidecar.name)
        if entities.keys() - DERIVED_ENTITIES != job.outputs.entities.keys() or sidecar in own:
            continue
        try:
            content = read_sidecar(sidecar)
        except (TractographyError, OSError, ValueError):
            continue
        if uri in _texts(content):
            yield sidecar


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _remove(sidecar: Path) -> list[Path]:
    """Remove a sidecar and its files; return the files."""
    try:
        names = read_record(sidecar)["file_sha256"]
        files = [file_of_sidecar(sidecar, name) for name in names]
    except (TractographyError, OSError, ValueError, LookupError, TypeError):
        files = []
    logger.warning(
        "%s is removed with its sidecar: it was made from what --overwrite replaces.",
        ", ".join(file.name for file in files) or sidecar.name,
    )
    try:
        for path in (sidecar, *files):  # without its sidecar, a file counts as unfinished
            path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be removed ({error.strerror}).") from error
    return files

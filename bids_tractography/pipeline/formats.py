"""Other formats of a finished tractogram: converted rather than tracked again."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bids_tractography.core.images import read_grid
from bids_tractography.errors import TractographyError
from bids_tractography.machine.files import check_unchanged
from bids_tractography.outputs.files import write_atomically
from bids_tractography.outputs.names import file_of_sidecar
from bids_tractography.outputs.provenance import RECORD_KEY, Fingerprint
from bids_tractography.outputs.run import read_sidecar, why_stale
from bids_tractography.pipeline.job import Job
from bids_tractography.pipeline.task import Task
from bids_tractography.tractogram.convert import open_streamlines
from bids_tractography.tractogram.formats.table import WRITERS

logger = logging.getLogger(__name__)

_EXACT = (".trx", ".tck")  # both hold the points as they were tracked, which trk rounds


@dataclass(frozen=True)
class Conversion:
    """What brings a finished tractogram to the formats of the configuration.

    Parameters
    ----------
    content : mapping
        Content of its sidecar.
    source : Path
        File to convert, which is what its sidecar says.
    missing, superfluous : list of Path
        Files to write, and files to remove.
    """

    content: Mapping[str, Any]
    source: Path
    missing: list[Path]
    superfluous: list[Path]


def plan_conversion(job: Job, fingerprint: Fingerprint) -> Conversion | None:
    """Return what has to be converted; None if nothing has to, or if it is impossible.

    Parameters
    ----------
    job : Job
    fingerprint : Fingerprint
        Of the tractogram; formats are no part of it.
    """
    if job.fresh or job.config.import_tract is not None:
        return None
    wanted = job.targets["tractogram"].paths
    try:
        content = read_sidecar(wanted[0])
        named = [file_of_sidecar(wanted[0], name) for name in content[RECORD_KEY]["file_sha256"]]
    except (TractographyError, OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    intact = [path for path in named if why_stale(path, fingerprint) is None]
    missing = [path for path in wanted if path not in intact]
    superfluous = [path for path in named if path not in wanted]
    source = next((path for path in intact if path.suffix in _EXACT), None)
    if source is None or not (missing or superfluous):
        return None
    if job.config.output.per_streamline and source.suffix != ".trx":
        return None  # only the tracker knows these values
    return Conversion(content, source, missing, superfluous)


def convert_formats(task: Task) -> Task:
    """Bring a finished tractogram to the formats of the configuration.

    Returns
    -------
    Task
        Without the tractogram among the stale products if it was converted; otherwise as it is.
    """
    job = task.job
    conversion = plan_conversion(job, task.fingerprints["tractogram"])
    if conversion is None:
        return task
    if conversion.missing:
        tractogram, grid = open_streamlines(conversion.source), read_grid(job.run.image)
    for path in conversion.missing:
        logger.info("Converting %s to %s", conversion.source.name, path.suffix[1:])
        write = WRITERS[path.suffix[1:]]
        write_atomically(path, lambda p, write=write: write(p, tractogram, grid))  # type: ignore[misc]
    check_unchanged()
    # The sidecar that is there stays true until it is replaced by one for all files.
    paths = job.targets["tractogram"].paths
    record = conversion.content[RECORD_KEY]
    output = {**record["config"]["output"], "formats": [path.suffix[1:] for path in paths]}
    converted = {path.name: conversion.source.name for path in conversion.missing}
    details = {**record["details"]}
    details["converted"] = {**details.get("converted", {}), **converted}
    record = {**record, "config": {**record["config"], "output": output}, "details": details}
    job.outputs.update_sidecar(paths, {**conversion.content, RECORD_KEY: record})
    for path in conversion.superfluous:
        path.unlink(missing_ok=True)
    others = {role: reason for role, reason in task.stale.items() if role != "tractogram"}
    return replace(task, stale=others)

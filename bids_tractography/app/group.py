"""The group level: a table of all tractograms, from their sidecars alone."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path
from typing import Any

from bids_tractography.core.streamlines import Rejection, Stop
from bids_tractography.errors import NoInputError, TractographyError
from bids_tractography.machine.files import exists, printable
from bids_tractography.outputs.dataset import dataset_files
from bids_tractography.outputs.files import write_json, write_text
from bids_tractography.outputs.provenance import RECORD_KEY, ImportRecord, TractogramRecord
from bids_tractography.outputs.run import read_sidecar, why_changed

logger = logging.getLogger(__name__)

_COLUMNS: dict[str, str] = {
    "participant_id": "Participant.",
    "session_id": "Session, n/a if there is none.",
    "tractogram": "File, relative to the dataset.",
    "track": "Tracking algorithm.",
    "model": "Diffusion model.",
    "engine": "Tracking engine.",
    "seeds": "Seeds placed.",
    "seeds_without_direction": "Seeds where the fODF has no peak.",
    "generated": "Streamlines started.",
    "kept": "Streamlines in the file.",
    **{f"rejected_{reason}": f"Streamlines rejected: {reason}." for reason in Rejection},
    **{f"ends_{reason}": f"Ends of streamlines at: {reason}." for reason in Stop},
    "points": "Points of the streamlines, before any linearisation.",
    "length_median_mm": "Median length of the kept streamlines.",
    "length_p05_mm": "5th percentile of the length.",
    "length_p95_mm": "95th percentile of the length.",
    "rng_seed": "Seed of all random numbers.",
    "tracking_seconds": "Wall time of tracking.",
    "tracking_cpu_seconds": "CPU time of tracking.",
    "peak_memory_mib": "Largest resident size of the process.",
    "warnings": "Number of warnings in the sidecar.",
    "config_hash": "SHA-256 of the configuration.",
    "content_sha256": "SHA-256 of points and offsets.",
}


def write_group_table(root: Path, *, read_files: bool = False) -> tuple[Path, int]:
    """Collect the tractograms of a derivative dataset in ``group_tractograms.tsv``.

    A tractogram gets no row, but a warning, if its sidecar was modified, or if its file is missing
    or has another size than recorded.

    Parameters
    ----------
    root : Path
        The derivative dataset.
    read_files : bool
        Compare the contents of the tractograms with their hashes as well.

    Returns
    -------
    path : Path
    n_rows : int

    Raises
    ------
    NoInputError
        If there is no finished tractogram.
    """
    sidecars = sorted(root.glob("sub-*/**/*_tractogram.json")) if exists(root) else []
    rows = [row for sidecar in sidecars if (row := _row(root, sidecar, read_files=read_files))]
    if not rows:
        raise NoInputError(
            f"{root} has no finished tractogram.", "Run the participant level first."
        )
    table = io.StringIO()
    writer = csv.DictWriter(table, list(_COLUMNS), "n/a", delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path = root / "group_tractograms.tsv"
    descriptions = {name: {"Description": text} for name, text in _COLUMNS.items()}
    with dataset_files(root):
        write_text(path, table.getvalue())
        write_json(root / "group_tractograms.json", descriptions)
    return path, len(rows)


def _row(root: Path, sidecar: Path, *, read_files: bool) -> dict[str, Any] | None:
    try:
        content = read_sidecar(sidecar)
        reason = why_changed(sidecar, content, read_files=read_files)
        if reason is None:
            return _to_row(root, sidecar, content[RECORD_KEY])
    except (
        TractographyError,
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:
        reason = f"it has no usable record of this version ({_first_line(error)})"
    logger.warning("%s has no row in the table: %s.", printable(sidecar), reason)
    return None


def _first_line(error: Exception) -> str:
    """Shorten a message to one line: pydantic's have one for every key."""
    lines = [line.strip() for line in f"{type(error).__name__}: {error}".splitlines()]
    return ", ".join(lines[:3]).rstrip(".")


def _to_row(root: Path, sidecar: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Turn a record into a row.

    Raises
    ------
    ValueError, LookupError, TypeError, AttributeError
        If its record is not what this version writes.
    """
    kind = ImportRecord if "mode" in content else TractogramRecord
    record = kind.model_validate(content)
    parts = sidecar.relative_to(root).parts
    row = {
        "participant_id": parts[0],
        "session_id": parts[1] if parts[1].startswith("ses-") else "n/a",
        "tractogram": sidecar.relative_to(root).with_name(next(iter(record.file_sha256))),
        "points": record.points,
        "length_median_mm": record.length_quantiles_mm["0.5"],
        "length_p05_mm": record.length_quantiles_mm["0.05"],
        "length_p95_mm": record.length_quantiles_mm["0.95"],
        "peak_memory_mib": record.peak_memory_mib,
        "warnings": len(record.warnings),
        "config_hash": record.config_hash,
        "content_sha256": record.content_sha256,
    }
    if isinstance(record, ImportRecord):
        row |= {"track": "custom", "kept": record.streamlines}
    else:
        row |= _tracked(record)
    if unknown := row.keys() - _COLUMNS.keys():
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
    for value in row.values():
        str(value).encode()  # names of files and JSON may hold what is not Unicode: a ValueError
    return row


def _tracked(record: TractogramRecord) -> dict[str, Any]:
    """Return the columns of what was tracked here."""
    return {
        "track": record.config.tracking.algorithm.kind,
        "model": record.config.model.kind,
        "engine": record.engine,
        "seeds": record.seeds,
        "seeds_without_direction": record.seeds_without_direction,
        "generated": record.streamlines_generated,
        "kept": record.streamlines_kept,
        **{f"rejected_{reason}": n for reason, n in record.streamlines_rejected.items()},
        **{f"ends_{reason}": n for reason, n in record.ends.items()},
        "rng_seed": record.rng_seed,
        "tracking_seconds": record.seconds["tracking"],
        "tracking_cpu_seconds": record.cpu_seconds["tracking"],
    }

"""The group level: a table and a page of all tractograms, from their sidecars and logs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bids_tractography.errors import NoInputError, TractographyError
from bids_tractography.inputs.people import People, read_people
from bids_tractography.machine.files import exists, is_utf8, printable
from bids_tractography.outputs.dataset import dataset_files
from bids_tractography.outputs.files import write_json, write_text
from bids_tractography.outputs.names import entities_of
from bids_tractography.outputs.provenance import RECORD_KEY
from bids_tractography.outputs.run import read_sidecar, why_changed
from bids_tractography.report.columns import Column, columns_for, parse_record, row_of
from bids_tractography.report.data import RunData, main_sidecars
from bids_tractography.report.drift import settings_of
from bids_tractography.report.history import End, last_ends
from bids_tractography.report.study import Study, StudyRun, outliers_of, study_page

logger = logging.getLogger(__name__)

TABLE = "group_tractograms.tsv"
_OF_PARTICIPANTS = "participants_"
"""Begins the names of columns of participants.tsv that are names of columns of ours."""


def write_group_table(
    root: Path, *, read_files: bool = False, bids_dir: Path | None = None, report: bool = True
) -> tuple[Path, int]:
    """Collect the tractograms of a derivative dataset in ``group_tractograms.tsv``.

    A tractogram gets no row, but a warning, if its sidecar was modified, or if its file is missing
    or has another size than recorded.

    Parameters
    ----------
    root : Path
        The derivative dataset.
    read_files : bool
        Compare the contents of the tractograms with their hashes as well.
    bids_dir : Path, optional
        The dataset with ``participants.tsv``; without one there, those that the derivative
        dataset names are tried.
    report : bool
        Whether to write ``index.html``.

    Returns
    -------
    path : Path
    n_rows : int

    Raises
    ------
    NoInputError
        If there is no finished tractogram.
    """
    study = gather(root, read_files=read_files, bids_dir=bids_dir)
    if not study.runs:
        if report and (study.ends or study.left_out):
            _write_page(root, study)
        raise NoInputError(
            f"{root} has no finished tractogram.", "Run the participant level first."
        )
    path = root / TABLE
    text = _as_tsv(study.columns, [run.row for run in study.runs])
    dictionary = {column.name: column.entry for column in study.columns}
    with dataset_files(root):
        write_text(path, text)
        write_json(path.with_suffix(".json"), dictionary)
    if report:
        _write_page(root, study)
    return path, len(study.runs)


def gather(root: Path, *, read_files: bool = False, bids_dir: Path | None = None) -> Study:
    """Collect the runs of a derivative dataset, see `write_group_table`."""
    sidecars = main_sidecars(root.glob("sub-*/**/*_track-*.json")) if exists(root) else []
    runs: list[StudyRun] = []
    left_out: dict[str, str] = {}
    for sidecar in sidecars:
        made = _run_of(root, sidecar, read_files=read_files)
        if isinstance(made, StudyRun):
            runs.append(made)
        else:
            left_out[printable(str(sidecar.relative_to(root)))] = made
            logger.warning("%s has no row in the table: %s.", printable(sidecar), made)
    ends = last_ends(root)
    datasets = {name: path for name, path in RunData(root, "").datasets.items() if name}
    people = _people([*([bids_dir] if bids_dir else []), *datasets.values()])
    names = _names_here(people)
    entities = {key for run in runs for key in entities_of(f"{run.name}_dwi")}
    columns = columns_for(
        entities, {here: people.described.get(name, {}) for name, here in names.items()}
    )
    rows = [{**run.row, **_told(run, ends), **_of_people(run, people, names)} for run in runs]
    for row, outliers in zip(rows, outliers_of(rows), strict=True):
        if outliers:
            row["outliers"] = ",".join(outliers)
    completed = [
        StudyRun(run.name, row, run.settings, run.warnings, run.folder)
        for run, row in zip(runs, rows, strict=True)
    ]
    title = next(iter(datasets), "") or root.name
    return Study(printable(title), root, columns, completed, ends, left_out)


def _write_page(root: Path, study: Study) -> None:
    text = study_page(study)
    with dataset_files(root):
        write_text(root / "index.html", text)


def _run_of(root: Path, sidecar: Path, *, read_files: bool) -> StudyRun | str:
    """Read the sidecar of a tractogram; return why it has no row if it has none."""
    try:
        content = read_sidecar(sidecar)
        reason = why_changed(sidecar, content, read_files=read_files)
        if reason is not None:
            return reason
        record = parse_record(content[RECORD_KEY])
        row = row_of(root, sidecar, record)
        settings = settings_of(record)
        "".join([*record.warnings, *settings.values()]).encode()  # half of a surrogate pair
        return StudyRun(
            row["run_name"], row, settings, tuple(record.warnings), sidecar.parent.parent
        )
    except (
        TractographyError,
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        return f"it has no usable record of this version ({_first_line(error)})"


def _first_line(error: Exception) -> str:
    """Shorten a message to one line: pydantic's have one for every key."""
    lines = [line.strip() for line in f"{type(error).__name__}: {error}".splitlines()]
    return printable(", ".join(lines[:3]).rstrip("."))


def _told(run: StudyRun, ends: Mapping[str, End]) -> dict[str, Any]:
    """Return how the run ended last; what no log mentions has finished, as its sidecar shows."""
    return {"outcome": ends[run.name].kind if run.name in ends else "finished"}


def _people(datasets: Iterable[Path]) -> People:
    """Return the participants of the first dataset that has a table of them."""
    tables = (read_people(root) for root in datasets)
    return next((people for people in tables if people.rows), People())


def _names_here(people: People) -> dict[str, str]:
    """Return the names that columns of participants.tsv have in the table."""
    ours = {column.name for column in columns_for((), {})}
    return {
        name: f"{_OF_PARTICIPANTS}{name}" if name in ours else name
        for name in people.columns
        if is_utf8(name)
    }


def _of_people(run: StudyRun, people: People, names: Mapping[str, str]) -> dict[str, str]:
    row = people.rows.get(run.row["participant_id"], {})
    return {here: row[name] for name, here in names.items() if name in row}


def _as_tsv(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> str:
    names = [column.name for column in columns]
    lines: list[list[Any]] = [names, *([row.get(name) for name in names] for row in rows)]
    return "".join("\t".join(_cell(value) for value in line) + "\n" for line in lines)


def _cell(value: Any) -> str:
    """Write a value; tables of BIDS have neither quotes nor escapes."""
    text = "n/a" if value is None else str(value)
    return " ".join(text.split()) if any(mark in text for mark in "\t\r\n") else text

"""The page of a run: a table of sections, and the writing of page and figures.

A new section is a row here, a function that returns what it shows, and a template of its name.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from bids_tractography import __version__
from bids_tractography.machine.files import exists
from bids_tractography.outputs.files import leftovers, write_atomically, write_text
from bids_tractography.report import account, pictures
from bids_tractography.report.context import Run
from bids_tractography.report.data import UNUSABLE, RunData, RunFailure, is_run_name
from bids_tractography.report.page import asset, page, render
from bids_tractography.report.summary import summary, verdict

logger = logging.getLogger(__name__)

_IDENTITY_BYTES = 4096


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Parameters
    ----------
    name : str
        Of its anchor and of its template, ``sections/{name}.html.j2``.
    title : str
    make : callable
        Takes the `Run`, returns the variables of the template; None leaves the section out.
    """

    name: str
    title: str
    make: Callable[[Run], Mapping[str, Any] | None]


SECTIONS: tuple[Section, ...] = (
    Section("summary", "Summary", summary),
    Section("tractogram", "Tractogram", pictures.tractogram),
    Section("density", "Density", pictures.density),
    Section("lengths", "Lengths", account.lengths),
    Section("seeds", "Seeds", account.seeds),
    Section("ends", "Ends", account.ends),
    Section("model", "Model", pictures.model),
    Section("maps", "Maps and masks", pictures.maps_and_masks),
    Section("inputs", "Inputs", account.inputs),
    Section("resources", "Time and memory", account.resources),
    Section("methods", "Methods", account.methods_section),
    Section("configuration", "Configuration", account.configuration),
    Section("software", "Software", account.software),
    Section("files", "Files", account.files),
    Section("command", "Command", account.command),
)


def write_run_report(
    root: Path,
    name: str,
    failure: RunFailure | None = None,
    *,
    n_threads: int = 1,
    only_if_changed: bool = False,
) -> Path | None:
    """Write the page of a run, and its figures.

    Parameters
    ----------
    root : Path
        The derivative dataset.
    name : str
        Of the run, e.g. ``sub-01_dir-AP``.
    failure : RunFailure, optional
        How the run failed.
    n_threads : int
        It changes the time, not the page.
    only_if_changed : bool
        Keep a page of the same tractogram, sidecar and version.

    Returns
    -------
    Path or None
        The page; None for a name that cannot be that of a file.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    if not is_run_name(name):
        return None
    path = root / f"{name}.html"
    data = RunData(root, name, failure)
    if only_if_changed and not failure and _is_of(path, data.identity):
        return path
    began = time.perf_counter()
    logger.info("%s: making the report.", name)
    run = Run(data, n_threads)
    text = make_page(run)
    _write_figures(run)
    write_text(path, text)
    seconds = time.perf_counter() - began
    logger.info("%s: report in %.1f s: %s", name, seconds, path.name)
    return path


def make_page(run: Run) -> str:
    """Return the page of a run."""
    made = list(_sections(run))
    words, kind = verdict(made[0][1])
    data = pictures.viewer_data(run)
    scripts = {"viewer": asset("viewer/viewer.js")} if data else {}
    style = asset("templates/chart.css") + (asset("viewer/viewer.css") if data else "")
    return page(
        "run.html.j2",
        scripts={**scripts, "page": asset("templates/page.js")},
        data=data,
        styles=(style,),
        title=run.data.name,
        identity=f"{__version__} {run.data.identity}",
        verdict=words,
        kind=kind,
        sections=[(section, body) for section, _, body in made],
    )


def _sections(run: Run) -> Iterator[tuple[Section, Mapping[str, Any], Markup]]:
    """Make the sections that there is something for; one that cannot be made says so."""
    first, *others = SECTIONS
    made = [part for section in others if (part := _section(run, section))]
    summarised = _section(run, first)  # last, when all that is wrong is known
    for problem in run.problems:
        logger.warning("%s: report: %s", run.data.name, problem)
    yield from ([summarised] if summarised else [])
    yield from made


def _section(run: Run, section: Section) -> tuple[Section, Mapping[str, Any], Markup] | None:
    try:
        context = section.make(run)
        if context is None:
            return None
        template = f"sections/{section.name}.html.j2"
        return section, context, render(template, name=run.data.name, **context)
    except UNUSABLE as error:
        reason = f"{type(error).__name__}: {error}"
        run.problems.append(f"The section {section.title} cannot be made ({reason}).")
        return section, {}, render("sections/problem.html.j2", reason=reason)


def _write_figures(run: Run) -> None:
    """Write the pictures as files, and remove those of an earlier report."""
    folder = run.data.folder / "figures"
    if not run.figures.files and not exists(folder):
        return
    names = {}
    for figure, content in run.figures.files.items():
        desc, _, extension = figure.partition(".")
        names[run.data.figure(desc, f".{extension}")] = content
    for name, content in names.items():
        write_atomically(folder / name, lambda p, c=content: _write(p, c))  # type: ignore[misc]
    before = [p for p in folder.glob("*_dwi.*") if run.data.has_figure(p.name)]
    for path in (*before, *(p for p, _ in leftovers(folder))):
        if path.name not in names:
            path.unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _is_of(path: Path, identity: str) -> bool:
    """Tell whether a page is that of a tractogram and its sidecar, by this version."""
    if not identity or not exists(path):
        return False
    with path.open("rb") as file:
        return f"{__version__} {identity}".encode() in file.read(_IDENTITY_BYTES)

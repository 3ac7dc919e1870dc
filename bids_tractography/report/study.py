"""The page of a study: every run in a row, in a plot and in a picture.

It is made from what `columns.row_of` says of each run, so that page and table agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from bids_tractography.core.streamlines import Stop
from bids_tractography.report.columns import GROUPS, Column
from bids_tractography.report.data import as_json, is_run_name
from bids_tractography.report.drift import Drift, drift
from bids_tractography.report.history import End
from bids_tractography.report.outliers import RULE, SHARE_FLOOR, Limits, limits
from bids_tractography.report.page import asset, number, page
from bids_tractography.report.strips import Strip, strip
from bids_tractography.report.thumbnails import side_for, thumbnail

COMPARED: Mapping[str, float] = {
    "kept": 0.0,
    "yield": 0.0,
    "length_median_mm": 0.0,
    **{f"ends_{stop}_share": SHARE_FLOOR for stop in Stop},
    "fractional_anisotropy": 0.0,
    "white_matter_fa": 0.0,
    "mean_diffusivity_mm2_s": 0.0,
    "white_matter_md_mm2_s": 0.0,
    "response_ratio": 0.0,
    "brain_volume_ml": 0.0,
    "white_matter_volume_ml": 0.0,
    "grey_matter_volume_ml": 0.0,
    "csf_volume_ml": 0.0,
    "gradient_margin": 0.0,
    "tracking_seconds": 0.0,
    "peak_memory_mib": 0.0,
}
"""Columns that are drawn and searched for outliers, with the least sigma."""

_LEAST_SHARE = 0.001  # a reason that fewer ends have in every run is not drawn
_MAX_LISTED = 12
_MAX_TOLD = 500
_MAX_VARIANTS = 6
_MAX_NAMES = 400
_COMMON_TEXT = 0.7  # share of different values below which texts are written once


@dataclass(frozen=True, eq=False)
class StudyRun:
    """A run with a tractogram.

    Parameters
    ----------
    name : str
        Name of the run; tractograms of several configurations may share it.
    row : mapping
        Values of the columns by name, without those that it does not have.
    settings : mapping of str to str
        See `drift.settings_of`.
    warnings : tuple of str
    folder : Path
        Directory of the participant or session.
    """

    name: str
    row: Mapping[str, Any]
    settings: Mapping[str, str]
    warnings: tuple[str, ...]
    folder: Path


@dataclass(frozen=True, eq=False)
class Study:
    """What the page shows.

    Parameters
    ----------
    title : str
    root : Path
        The derivative dataset.
    columns : sequence of Column
    runs : sequence of StudyRun
    ends : mapping of str to End
        How runs and participants ended last, see `history.last_ends`.
    left_out : mapping of str to str
        Why sidecars have no row, by their path.
    """

    title: str
    root: Path
    columns: Sequence[Column]
    runs: Sequence[StudyRun]
    ends: Mapping[str, End]
    left_out: Mapping[str, str]

    @cached_property
    def labels(self) -> list[str]:
        """Names of the runs; of several tractograms of one run, those of their files."""
        counts = Counter(run.name for run in self.runs)
        return [
            run.name
            if counts[run.name] == 1
            else Path(str(run.row.get("tractogram", ""))).name.partition("_tractogram")[0]
            for run in self.runs
        ]

    @cached_property
    def compared(self) -> dict[str, tuple[np.ndarray, Limits | None]]:
        """Values of all runs, and their limits, by column."""
        return {
            name: (values, limits(list(values), floor))
            for name, floor in COMPARED.items()
            if np.isfinite(values := numbers([run.row for run in self.runs], name)).any()
        }

    @cached_property
    def pages(self) -> frozenset[str]:
        """Names of the runs that have a page."""
        try:
            return frozenset(path.stem for path in self.root.glob("sub-*.html"))
        except OSError:
            return frozenset()

    def link(self, name: str) -> str:
        """Return the address of a run's page, relative to that of the study; empty without."""
        return f"{quote(name)}.html" if name in self.pages and is_run_name(name) else ""


def numbers(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """Return the values of a column, NaN where there is none."""
    values = (row.get(name) for row in rows)
    return np.array([np.nan if value is None else float(value) for value in values], np.float64)


def outliers_of(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the columns in which each run is an outlier among those of its configuration."""
    found: list[list[str]] = [[] for _ in rows]
    names = np.array([str(row.get("configuration") or "") for row in rows])
    for name, floor in COMPARED.items():
        all_values = numbers(rows, name)
        for configuration in np.unique(names):
            here = np.flatnonzero(names == configuration)
            values = all_values[here]
            compared = limits(list(values), floor)
            for place in np.flatnonzero(np.isfinite(values)) if compared else ():
                if compared and compared.exclude(values[place]):
                    found[here[place]].append(name)
    return found


def study_page(study: Study) -> str:
    """Return the page."""
    strips = list(_strips(study))
    differing = drift(dict(zip(study.labels, (run.settings for run in study.runs), strict=True)))
    failed = {name: end for name, end in study.ends.items() if end.kind == "failed"}
    skipped = {name: end for name, end in study.ends.items() if end.kind == "skipped"}
    told = list(_told(study, failed, skipped))
    outlying = outliers_of([run.row for run in study.runs])
    kind, verdict = _verdict(study, failed, outlying)
    side = side_for(len(study.runs))
    return page(
        "study.html.j2",
        scripts={"study": asset("viewer/study.js")},
        data={"study-meta": as_json(_data(study, strips, outlying, differing))},
        styles=(asset("templates/chart.css") + asset("templates/study.css"),),
        title=study.title,
        verdict=verdict,
        kind=kind,
        cards=list(_cards(study, failed, skipped, outlying)),
        suspects=_suspects(study, outlying),
        n_suspects=sum(map(bool, outlying)),
        warnings=_warnings(study),
        sheet=list(_sheet(study, side, outlying)),
        side=side,
        strips=[(column, drawn, _beyond(study, column, drawn)) for column, _, drawn in strips],
        rule=RULE,
        groups=_groups(study),
        drift=differing,
        variants=list(_variants(study, differing)),
        max_variants=_MAX_VARIANTS,
        told=told[:_MAX_TOLD],
        n_told=len(told),
        columns=study.columns,
        n_runs=len(study.runs),
        has_participants=any("people" in c.groups for c in study.columns),
    )


def _verdict(
    study: Study, failed: Mapping[str, End], outlying: Sequence[Sequence[str]]
) -> tuple[str, str]:
    n_outlying = sum(map(bool, outlying))
    parts = [f"{len(failed):,} failed"] if failed else []
    if study.left_out:
        parts.append(f"{len(study.left_out):,} changed or damaged")
    if n_outlying:
        parts.append(f"{n_outlying:,} with outliers")
    if not parts:
        return "good", "all runs finished, no outliers"
    return ("bad" if failed or study.left_out else "doubtful"), ", ".join(parts)


def _cards(
    study: Study,
    failed: Mapping[str, End],
    skipped: Mapping[str, End],
    outlying: Sequence[Sequence[str]],
) -> Iterator[tuple[str, str, str]]:
    participants = len({run.row["participant_id"] for run in study.runs})
    of = f"of {participants:,} participant{'s' if participants != 1 else ''}"
    yield f"{len(study.runs):,}", "tractograms", of
    if "kept" in study.compared:
        kept = study.compared["kept"][0]
        yield f"{np.nanmedian(kept):,.0f}", "streamlines (median)", f"{np.nansum(kept):,.0f} in all"
    if "length_median_mm" in study.compared:
        lengths = study.compared["length_median_mm"][0]
        spread = f"from {number(float(np.nanmin(lengths)))} to {number(float(np.nanmax(lengths)))}"
        median = float(np.nanmedian(lengths))
        yield f"{median:.4g} mm", "median length", f"{spread} mm"
    yield f"{len(failed):,}", "failed", f"and {len(skipped):,} skipped in the latest call"
    warned = sum(bool(run.warnings) for run in study.runs)
    yield f"{warned:,}", "with warnings", "in their sidecars"
    yield f"{sum(map(bool, outlying)):,}", "with outliers", "by the rule stated below"


def _suspects(
    study: Study, outlying: Sequence[Sequence[str]]
) -> list[tuple[str, str, list[tuple[str, str, str]]]]:
    """List the runs with most outliers: name, link, and their values with the medians."""
    columns = {column.name: column for column in study.columns}
    some = (place for place, names in enumerate(outlying) if names)
    places = sorted(some, key=lambda place: -len(outlying[place]))
    listed = []
    for place in places[:_MAX_LISTED]:
        values = []
        for name in outlying[place]:
            compared = study.compared[name][1]
            if compared is not None:
                column = columns[name]
                shown = _shown(column, study.compared[name][0][place])
                values.append((column.title, shown, _shown(column, compared.median)))
        run = study.runs[place]
        listed.append((study.labels[place], study.link(run.name), values))
    return listed


def _shown(column: Column, value: float) -> str:
    text = number(float(f"{column.scale * value:.4g}"))
    return f"{text} {column.shown_unit}".strip()


def _warnings(study: Study) -> list[tuple[str, int, list[str]]]:
    """Return texts of warnings, the number of runs that have them, and some of these."""
    runs: dict[str, list[str]] = {}
    for label, run in zip(study.labels, study.runs, strict=True):
        for text in dict.fromkeys(run.warnings):
            runs.setdefault(text, []).append(label)
    ordered = sorted(runs.items(), key=lambda item: -len(item[1]))
    return [(text, len(names), names[:_MAX_LISTED]) for text, names in ordered[:_MAX_LISTED]]


def _strips(study: Study) -> Iterator[tuple[Column, Limits | None, Strip]]:
    columns = {column.name: column for column in study.columns}
    for name, (values, compared) in study.compared.items():
        if name.endswith("_share") and np.nanmax(values) < _LEAST_SHARE:
            continue
        column = columns[name]
        scaled = None
        if compared is not None:
            scaled = Limits(column.scale * compared.median, column.scale * compared.sigma)
        drawn = strip(column.scale * values, scaled, column.title, column.shown_unit)
        if drawn is not None:
            yield column, scaled, drawn


def _beyond(study: Study, column: Column, drawn: Strip) -> tuple[list[tuple[str, str, str]], int]:
    """List outliers by name, link and value; and how many there are besides."""
    values = study.compared[column.name][0]
    few = 4
    listed = [
        (study.labels[place], study.link(study.runs[place].name), _shown(column, values[place]))
        for place in drawn.outliers[:few]
    ]
    return listed, max(len(drawn.outliers) - few, 0)


def _sheet(
    study: Study, side: int, outlying: Sequence[Sequence[str]]
) -> Iterator[tuple[str, str, str, bool]]:
    """Yield label, link, picture and whether it is an outlier; nothing if there is no picture."""
    made = [thumbnail(run.folder, run.name, side) for run in study.runs]
    if not any(made):
        return
    for place, (label, run) in enumerate(zip(study.labels, study.runs, strict=True)):
        yield label, study.link(run.name), made[place], bool(outlying[place])


def _variants(study: Study, differing: Drift) -> Iterator[tuple[str, int, list[str], int]]:
    """Yield letter, number of runs, their names, and how many names are left out."""
    for place, variant in enumerate(differing.variants[:_MAX_VARIANTS]):
        names = list(variant.runs[:_MAX_NAMES])
        yield chr(ord("A") + place), len(variant.runs), names, len(variant.runs) - len(names)


def _told(
    study: Study, failed: Mapping[str, End], skipped: Mapping[str, End]
) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield what has no tractogram that counts: name, link, what happened, why, and when."""
    for name, end in failed.items():
        yield name, study.link(name), f"failed ({end.exit_code})", end.message, end.started
    for path, reason in study.left_out.items():
        yield path, "", "changed or damaged", reason, ""
    for name, end in skipped.items():
        yield name, study.link(name), "skipped", end.message, end.started


def _groups(study: Study) -> list[tuple[str, str]]:
    there = {group for column in _shown_columns(study) for group in column.groups}
    return [(group, title) for group, title in GROUPS.items() if group in there]


def _shown_columns(study: Study) -> list[Column]:
    """Return the columns that the page has: with a group, and a value in some run."""
    filled = {name for run in study.runs for name in run.row}
    return [column for column in study.columns if column.groups and column.name in filled]


def _data(
    study: Study,
    strips: Sequence[tuple[Column, Limits | None, Strip]],
    outlying: Sequence[Sequence[str]],
    differing: Drift,
) -> dict[str, Any]:
    """Return what the script needs, as JSON values."""
    columns = _shown_columns(study)
    variant_of = {
        name: min(place, _MAX_VARIANTS)
        for place, variant in enumerate(differing.variants)
        for name in variant.runs
    }
    several = len(differing.variants) > 1
    return {
        "names": study.labels,
        "pages": [study.link(run.name) for run in study.runs],
        "columns": [
            {
                "name": column.name,
                "title": column.title,
                "unit": column.shown_unit,
                "numeric": column.numeric,
                "groups": list(column.groups),
            }
            for column in columns
        ],
        "values": [_values(study, column) for column in columns],
        "outliers": [
            [place for place, names in enumerate(outlying) if column.name in names]
            for column in columns
        ],
        "warned": [int(bool(run.warnings)) for run in study.runs],
        "variants": [variant_of[label] for label in study.labels] if several else [],
        "strips": [
            {"column": columns.index(column), "runs": _compact(drawn.runs, len(study.runs))}
            for column, _, drawn in strips
        ],
    }


def _compact(places: Sequence[int], total: int) -> list[int]:
    """Return the numbers of runs; an empty list stands for all of them."""
    return [] if len(places) == total else list(places)


def _values(study: Study, column: Column) -> Any:
    """Return the values of a column as the page shows them; repeated texts are written once."""
    values = [run.row.get(column.name) for run in study.runs]
    if column.numeric:
        return [None if v is None else _rounded(column.scale * v) for v in values]
    texts = [None if v is None else str(v) for v in values]
    levels = list(dict.fromkeys(text for text in texts if text is not None))
    if len(levels) > _COMMON_TEXT * len(texts):
        return texts
    place = {text: k for k, text in enumerate(levels)}
    return {"levels": levels, "codes": [-1 if t is None else place[t] for t in texts]}


def _rounded(value: float) -> float | int:
    if float(value).is_integer():
        return int(value)
    return float(f"{value:.6g}")

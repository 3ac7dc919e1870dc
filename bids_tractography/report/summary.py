"""The first section of a run's page: what came out, what was checked, what to look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bids_tractography.core.checks import QUANTITIES
from bids_tractography.outputs.provenance import ImportRecord, TractogramRecord
from bids_tractography.report.context import Run
from bids_tractography.report.data import UNUSABLE, real
from bids_tractography.report.page import number
from bids_tractography.tractogram.formats.trx import TrxReader

_KINDS = {"usual": "good", "agrees": "good", "unusual": "doubtful", "undecided": "doubtful"}
_WORDS = {
    "usual": "usual", "unusual": "unusual", "impossible": "impossible", "agrees": "agrees",
    "undecided": "undecided", "contradicts": "contradicts",
}  # fmt: skip
_MAX_TEXT = 200
_MARKS = {"good": "✓", "doubtful": "!", "bad": "✕"}


@dataclass(frozen=True)
class Row:
    """A check.

    Parameters
    ----------
    name : str
    measured : str
    expected : str
    verdict : str
        In a word.
    kind : {"good", "doubtful", "bad"}
    hint : str
        What to look at; empty for what is as usual.
    """

    name: str
    measured: str
    expected: str
    verdict: str
    kind: str
    hint: str = ""

    @property
    def rank(self) -> int:
        """What is to be looked at comes first."""
        return -list(_MARKS).index(self.kind)

    @property
    def mark(self) -> str:
        """A sign that does not depend on its colour."""
        return _MARKS[self.kind]


def summary(run: Run) -> dict[str, Any]:
    """Return what the section shows."""
    record, failure = run.data.record, run.failure
    checks = list(check_rows(record.checks if record and not failure else failed_checks(run)))
    counts = list(count_rows(run)) if record else []
    warnings = list(failure.warnings) if failure else list(record.warnings if record else ())
    doubtful = sum(row.kind != "good" for row in (*checks, *counts))
    return {
        "sentence": _sentence(run),
        "cards": _usable_cards(record),
        "checks": checks,
        "counts": counts,
        "warnings": warnings,
        "problems": list(run.problems),
        "failure": failure,
        "earlier": failure is not None and record is not None,
        "problem": "" if failure else run.data.why_no_record,
        "doubtful": doubtful,
    }


def failed_checks(run: Run) -> Mapping[str, Any]:
    """Return the figures that were measured before a run failed."""
    return run.failure.checks if run.failure else {}


def verdict(context: Mapping[str, Any]) -> tuple[str, str]:
    """Return the verdict on a run in a few words, and its kind."""
    if not context:
        return "damaged", "bad"
    if context["failure"]:
        return "failed", "bad"
    if context["problem"]:
        return "unfinished", "bad"
    bad = any(row.kind == "bad" for row in (*context["checks"], *context["counts"]))
    bad = bad or bool(context["problems"])
    count = max(context["doubtful"], len(context["warnings"])) + len(context["problems"])
    if count:
        return f"{count} to look at", "bad" if bad else "doubtful"
    return "all checks passed", "good"


def _sentence(run: Run) -> str:
    record = run.data.record
    if run.failure:
        return "This run failed."
    if isinstance(record, ImportRecord):
        return (
            f"A tractogram of {record.streamlines:,} streamlines, created by other software, was "
            "checked and imported."
        )
    if isinstance(record, TractogramRecord):
        return (
            f"{record.streamlines_kept:,} streamlines were reconstructed by "
            f"{record.config.tracking.algorithm.method} tracking from {record.seeds:,} seeds."
        )
    return "There is no finished tractogram."


def _usable_cards(record: TractogramRecord | ImportRecord | None) -> list[tuple[str, str, str]]:
    try:
        return list(_cards(record)) if record else []
    except UNUSABLE:  # quantiles that are missing
        return []


def _cards(record: TractogramRecord | ImportRecord) -> Iterator[tuple[str, str, str]]:
    """Yield figures that matter: the figure, what it is, and more about it."""
    quantiles = record.length_quantiles_mm
    spread = f"half of them from {quantiles['0.25']:.4g} to {quantiles['0.75']:.4g} mm"
    length = (f"{quantiles['0.5']:.4g} mm", "median length", spread)
    if isinstance(record, ImportRecord):
        inside = f"{100 * record.points_inside:.4g} % of the points lie in the image"
        yield f"{record.streamlines:,}", "streamlines", inside
        yield length
    else:
        share = record.streamlines_kept / max(record.streamlines_generated, 1)
        of_all = f"{100 * share:.0f} % of {record.streamlines_generated:,} generated"
        yield f"{record.streamlines_kept:,}", "streamlines", of_all
        yield length
        yield record.config.model.kind.upper().replace("_", "-"), "model", _resolved(record)
        algorithm = record.config.tracking.algorithm
        steps = f"{algorithm.step_size_mm:g} mm steps, at most {algorithm.max_angle_deg:g}°"
        yield algorithm.kind.upper().replace("_", " "), f"{algorithm.method} tracking", steps
    seconds, cpu = sum(record.seconds.values()), sum(record.cpu_seconds.values())
    used = f"{duration(cpu)} of CPU, {record.peak_memory_mib:,.0f} MiB at most"
    yield duration(seconds), "in all", used


def _resolved(record: TractogramRecord) -> str:
    model = record.model
    parts = []
    for key, pattern in (
        ("shell_s_mm2", "b = {:.0f} s/mm²"),
        ("sh_order", "order {:.0f}"),
        ("directions", "{:.0f} directions"),
    ):
        value = real(model.get(key))
        if value is not None:
            parts.append(pattern.format(value))
    shells = model.get("shells_s_mm2")
    values = [real(b) for b in shells] if isinstance(shells, list) else []
    if values and None not in values:
        parts.insert(0, f"b = {', '.join(f'{b:.0f}' for b in values)} s/mm²")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Write a time for people."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def check_rows(checks: Mapping[str, Any]) -> Iterator[Row]:
    """Yield every check of a record with its measurement."""
    for name, figures in checks.items():
        if not isinstance(figures, dict):
            continue
        said = str(figures.get("verdict", ""))
        kind = _KINDS.get(said, "bad")
        if name == "gradient_table":
            yield _gradient_row(figures, said, kind)
            continue
        quantity = QUANTITIES.get(name)
        title = quantity.description if quantity else name.replace("_", " ")
        title = title.removeprefix("The ")
        unit = str(figures.get("unit", ""))
        measured = _with_unit(figures.get("value"), unit, title)
        hint = quantity.cause if quantity and kind != "good" else ""
        yield Row(
            title[0].upper() + title[1:],
            measured,
            _range(figures.get("usual"), unit, title),
            _WORDS.get(said, said),
            kind,
            hint,
        )


def _gradient_row(figures: Mapping[str, Any], said: str, kind: str) -> Row:
    margin, measured = real(figures.get("margin_standard_errors")), "not measured"
    if margin is not None:
        better = "better" if margin >= 0 else "worse"
        measured = f"{abs(margin):.3g} standard errors {better} than its closest competitor"
    if frame := figures.get("frame"):
        measured += f" (b-vectors read in the frame “{frame}”)"
    hint = str(figures.get("reason") or "")
    permute = figures.get("permute")
    if said == "contradicts" and isinstance(permute, list):
        hint = f"A better table: {' or '.join(map(str, permute))}."
    return Row(
        "Coherence of neighbouring directions with this gradient table",
        measured,
        "better than 23 permutations beyond doubt",
        _WORDS.get(said, said),
        kind,
        hint,
    )


def _with_unit(figure: Any, unit: str, title: str) -> str:
    value = real(figure)
    if value is None:
        return "not finite" if figure is None else _clipped(figure)
    if title.startswith("share"):
        return f"{100 * value:.3g} %"
    if unit == "mm²/s":
        return f"{1e3 * value:.3g} × 10⁻³ mm²/s"
    return f"{number(value)} {unit if unit != '1' else ''}".strip()


def _clipped(value: Any) -> str:
    text = repr(value) if not isinstance(value, str) else value
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"


def _range(usual: Any, unit: str, title: str) -> str:
    if not isinstance(usual, list) or len(usual) != 2:
        return ""
    low, high = (None if end is None else _with_unit(end, unit, title) for end in usual)
    if low is None:
        return f"up to {high}" if high is not None else "any"
    if high is None:
        return f"at least {low}"
    bare = low if unit == "1" and not title.startswith("share") else low.rsplit(" ", 1)[0]
    return f"{bare.removesuffix(' × 10⁻³')} to {high}"


def count_rows(run: Run) -> Iterator[Row]:
    """Add up the counts of a record, and compare the files with it, now."""
    changed = run.data.why_changed
    yield Row(
        "Files as they were written",
        changed or "sidecar unchanged, sizes as recorded",
        "",
        "differ" if changed else "agree",
        "bad" if changed else "good",
        "Run the app again, or restore the files." if changed else "",
    )
    record = run.data.record
    if isinstance(record, TractogramRecord):
        rejected = sum(record.streamlines_rejected.values())
        generated = record.streamlines_generated
        yield _sum_row(
            "Streamlines kept and rejected",
            f"{record.streamlines_kept:,} + {rejected:,}",
            record.streamlines_kept + rejected,
            generated,
            "generated",
        )
        ends = sum(record.ends.values())
        yield _sum_row("Ends of streamlines", f"{ends:,}", ends, 2 * generated, "(two of each)")
        if record.config.tracking.max_directions == 1:
            without = record.seeds_without_direction
            yield _sum_row(
                "Streamlines generated, and seeds without a direction",
                f"{generated:,} + {without:,}",
                generated + without,
                record.seeds,
                "seeds",
            )
    path = run.data.tractogram
    if run.survey and path and path.suffix == ".trx":
        in_file = TrxReader(path)
        yield _sum_row(
            "Streamlines in the file",
            f"{in_file.n_streamlines:,}",
            in_file.n_streamlines,
            run.survey.n_streamlines,
            "recorded",
        )


def _sum_row(name: str, left: str, total: int, expected: int, words: str) -> Row:
    same = total == expected
    sign, hint = ("=", "") if same else ("≠", "The record is damaged.")
    return Row(
        name,
        f"{left} {sign} {expected:,} {words}",
        "",
        "adds up" if same else "differ",
        "good" if same else "bad",
        hint,
    )

"""The sections of a run's page that are read: numbers, inputs, methods, configuration, files."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nibabel as nib
import numpy as np
import yaml
from markupsafe import Markup

from bids_tractography.config import Config
from bids_tractography.config.tracking import ConvergeSeedsConfig, SelectSeedsConfig
from bids_tractography.core.images import Grid, read_layout
from bids_tractography.machine.files import exists, printable
from bids_tractography.outputs.provenance import TractogramRecord
from bids_tractography.report import charts, methods
from bids_tractography.report.charts import Bar, Line
from bids_tractography.report.context import Run
from bids_tractography.report.data import real
from bids_tractography.report.pictures import ends_map
from bids_tractography.report.summary import duration

_BIN_MM = 5
_MAX_BINS = 60
_LEAST_SECONDS = 0.05
_FATES = {
    "too_long": "too long",
    "dead_end": "dead end",
    "too_short": "too short",
    "excluded": "entered an exclusion region",
    "not_included": "missed an inclusion region",
    "surplus": "beyond the number to select",
}
_ENDS = {
    "stopping_rule": "stopping criterion",
    "grey_matter": "grey matter reached",
    "fluid": "cerebrospinal fluid",
    "csf": "cerebrospinal fluid",
    "image_border": "image border",
    "no_data": "edge of the data",
    "angle": "no direction within the cone",
    "no_direction": "no direction at all",
    "max_length": "maximum length reached",
}
_WITH_BARS = ("hashing", "reading", "fitting", "tissue", "masks", "tracking", "writing")


def lengths(run: Run) -> dict[str, Any] | None:
    """Return the histogram of lengths, with the bounds."""
    survey, record = run.survey, run.data.record
    if survey is None or record is None or not len(survey.lengths_mm):
        return None
    lengths_mm = np.round(survey.lengths_mm, 3)  # sums of steps in float32
    largest = float(lengths_mm.max())
    width = _BIN_MM * max(1, int(np.ceil(largest / _BIN_MM / _MAX_BINS)))
    edges = np.arange(0, largest + width, width, dtype=float)
    counts = np.histogram(lengths_mm, edges)[0]
    lines = [Line(record.length_quantiles_mm["0.5"], f"median {_mm(record, '0.5')}")]
    tracking = record.config.tracking if isinstance(record, TractogramRecord) else None
    if tracking is not None:
        lines.append(Line(tracking.min_length_mm, f"minimum {tracking.min_length_mm:g} mm"))
        lines.append(Line(tracking.max_length_mm, f"maximum {tracking.max_length_mm:g} mm"))
        edges_end = edges[-1]
        if edges_end < tracking.max_length_mm <= 1.3 * edges_end:
            edges = np.arange(0, tracking.max_length_mm + width, width, dtype=float)
            counts = np.histogram(lengths_mm, edges)[0]
    words = f"Histogram of streamline lengths, median {_mm(record, '0.5')}"
    return {
        "chart": run.figures.chart(
            "lengths", charts.histogram(counts, edges, "length (mm)", words, lines)
        ),
        "quantiles": [
            (f"{100 * float(q):g} %", _mm(record, q)) for q in record.length_quantiles_mm
        ],
        "n_surveyed": survey.n_surveyed,
        "n_streamlines": survey.n_streamlines,
        "max_length_mm": tracking.max_length_mm if tracking else None,
    }


def _mm(record: Any, quantile: str) -> str:
    return f"{record.length_quantiles_mm[quantile]:.4g} mm"


def seeds(run: Run) -> dict[str, Any] | None:
    """Return what became of every seed."""
    record = run.data.tracked
    if record is None:
        return None
    total = record.streamlines_generated + record.seeds_without_direction
    fates = [Bar("kept", record.streamlines_kept, _share(record.streamlines_kept, total), "good")]
    for reason, count in record.streamlines_rejected.items():
        if count:
            name = _FATES.get(reason, reason.replace("_", " "))
            fates.append(Bar(name, count, _share(count, total)))
    without = record.seeds_without_direction
    if without:
        fates.append(Bar("seed without a direction", without, _share(without, total), "muted"))
    words = "What became of the streamlines from every seed"
    return {
        "chart": run.figures.chart("seeds", charts.bars(fates, words, total=total)),
        "record": record,
        "dead_ends": record.config.tracking.dead_ends,
        "goal": _goal(record),
        "curve": _curve(run, record),
    }


def _goal(record: TractogramRecord) -> str:
    """Say what ended tracking, if the number of seeds was not given."""
    match record.config.seeding.seeds:
        case SelectSeedsConfig(count=n, limit=most):
            wanted = f"until {n:,} streamlines were kept"
        case ConvergeSeedsConfig(correlation=r, limit=most):
            wanted = f"until the density maps of two halves of the seeds correlated by {r:g}"
        case _:
            return ""
    reached = (record.goal or {}).get("reached") is True
    end = "" if reached else f"; this was not reached with the largest number of seeds, {most:,}"
    return f"Seeds were placed {wanted}{end}."


def _curve(run: Run, record: TractogramRecord) -> Markup | str:
    """Draw how the correlation of the density maps grew."""
    curve = (record.goal or {}).get("curve")
    rows = []
    for look in curve if isinstance(curve, list) else ():
        if not isinstance(look, dict):
            continue
        seeds, r = real(look.get("seeds")), real(look.get("correlation"))
        if seeds is not None and r is not None:
            rows.append(Bar(f"{seeds:,.0f} seeds", max(r, 0), f"{r:.3f}"))
    words = "Correlation of the density maps of two halves of the seeds"
    return run.figures.chart("convergence", charts.bars(rows, words, total=1)) if rows else ""


def ends(run: Run) -> dict[str, Any] | None:
    """Return why streamlines ended, and where."""
    record = run.data.tracked
    if record is None:
        return None
    total = sum(record.ends.values())
    rows = [
        Bar(_ENDS.get(reason, reason.replace("_", " ")), count, _share(count, total))
        for reason, count in sorted(record.ends.items(), key=lambda item: -item[1])
        if count
    ]
    drawn = charts.bars(rows, "Why streamlines ended", total=total)
    return {
        "chart": run.figures.chart("reasons", drawn),
        "generated": record.streamlines_generated,
        "map": ends_map(run),
    }


def _share(count: int, total: int) -> str:
    percent = 100 * count / max(total, 1)
    return (
        f"{count:,} ({percent:.1f} %)" if percent >= 0.05 or not count else f"{count:,} (< 0.1 %)"
    )


def inputs(run: Run) -> dict[str, Any] | None:
    """Return the files that were read, the grid, the shells and the frame of the gradients."""
    record = run.data.record
    if record is None:
        return None
    image, gradients = run.data.input("dwi"), run.gradients
    grid: Grid | None = None
    rows: list[tuple[str, str]] = []
    if image is not None:
        grid, shape, dtype = read_layout(image, ndim=4)
        rows.append(("image", f"{' × '.join(map(str, shape[:3]))} voxels, {shape[3]} volumes"))
        rows.append(("data type", str(dtype)))
    elif run.fa is not None:
        grid = run.fa.grid
        rows.append(("image", f"{' × '.join(map(str, grid.stored_shape))} voxels"))
    elif run.density is not None:
        grid = run.density.grid
    if grid is not None:
        size = " × ".join(f"{edge:.3g}" for edge in grid.voxel_size_mm)
        rows.append(("voxel size", f"{size} mm (left–right, back–front, down–up)"))
        rows.append(("stored as", "".join(nib.aff2axcodes(grid.stored_affine))))
        origin = ", ".join(f"{value:.4g}" for value in grid.affine[:3, 3])
        rows.append(("first voxel at", f"({origin}) mm, RAS+"))
    if isinstance(record, TractogramRecord):
        frame, reason = record.gradients.get("frame"), record.gradients.get("frame_reason")
        rows.append(("frame of the b-vectors", f"{frame}: {reason}"))
        permute = record.gradients.get("permute")
        if permute:
            rows.append(("b-vectors permuted", str(permute)))
    sphere, key = "", []
    if gradients is not None:
        dots = [
            charts.Dots(gradients.directions[shell.volumes], kind)
            for kind, shell in enumerate(gradients.shells)
        ]
        key = [
            (kind, f"b = {shell.b_s_mm2:.0f} s/mm²: {len(shell.volumes)} volumes, "
             f"{shell.n_directions} directions")
            for kind, shell in enumerate(gradients.shells)
        ]  # fmt: skip
        words = "Gradient directions on one half of the sphere: " + "; ".join(t for _, t in key)
        sphere = run.figures.chart("gradients", charts.hemisphere(dots, words))
    return {
        "rows": rows,
        "files": [
            (file.role, file.uri, file.sha256, run.data.input(file.role) is not None)
            for file in record.inputs
        ],
        "sphere": sphere,
        "key": key,
        "n_b0": len(gradients.b0_volumes) if gradients is not None else 0,
        "n_volumes": len(gradients.bvals) if gradients is not None else 0,
    }


def resources(run: Run) -> dict[str, Any] | None:
    """Return time by stage, and memory."""
    record = run.data.record
    if record is None:
        return None
    order = {name: place for place, name in enumerate(_WITH_BARS)}
    stages = sorted(record.seconds.items(), key=lambda item: order.get(item[0], len(order)))
    rows = [
        Bar(name, seconds, f"{duration(seconds)} ({duration(record.cpu_seconds.get(name, 0))} CPU)")
        for name, seconds in stages
        if seconds >= _LEAST_SECONDS
    ]
    drawn = charts.bars(rows, "Time by stage")
    return {
        "chart": run.figures.chart("time", drawn),
        "record": record,
        "tracked": run.data.tracked,
        "total": duration(sum(record.seconds.values())),
        "cpu": duration(sum(record.cpu_seconds.values())),
    }


def methods_section(run: Run) -> dict[str, Any] | None:
    """Return the text for a paper, in several forms."""
    record = run.data.record
    if record is None:
        return None
    text = methods.methods_text(record.config, record)
    return {
        "plain": methods.as_plain(text),
        "references": methods.cited(text),
        "forms": [
            ("Markdown, with Pandoc’s citations", text),
            ("LaTeX", methods.as_tex(text)),
            ("BibTeX", methods.bibliography(text)),
        ],
    }


def configuration(run: Run) -> dict[str, Any] | None:
    """Return the keys that differ from their defaults, and the whole configuration."""
    record = run.data.record
    if record is None:
        return None
    content = record.config.model_dump(mode="json")
    return {
        "changed": list(changed_keys(record.config)),
        "whole": yaml.safe_dump(content, sort_keys=False, allow_unicode=True),
        "hash": record.config_hash,
    }


def changed_keys(config: Config) -> Iterator[tuple[str, Any, Any]]:
    """Yield the dotted path, value and default of every key that differs from its default."""
    default = Config().model_dump(mode="json")
    return _differences(config.model_dump(mode="json"), default, "")


def _differences(value: Any, default: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    if value == default:
        return
    same_kind = (
        isinstance(value, dict)
        and isinstance(default, dict)
        and value.get("kind") == default.get("kind")
    )
    if not same_kind:
        yield key, value, default
        return
    for name in value:
        path = f"{key}.{name}" if key else name
        yield from _differences(value[name], default.get(name), path)


def software(run: Run) -> dict[str, Any] | None:
    """Return versions, engine and container."""
    record = run.data.record
    if record is None:
        return None
    return {"record": record, "tracked": run.data.tracked}


def files(run: Run) -> dict[str, Any] | None:
    """Return the files of the run, as they are now."""
    if not run.data.files:
        return None
    hashes = dict(run.data.record.file_sha256) if run.data.record else {}
    rows = []
    for path in run.data.files:
        if path.name.endswith(".json"):
            continue
        relative = path.relative_to(run.data.root).as_posix()
        size = path.stat().st_size if exists(path) else 0
        rows.append((relative, quote(relative), _bytes(size), hashes.get(path.name, "")))
    record = run.data.record
    return {"rows": rows, "content_sha256": record.content_sha256 if record else ""}


def _bytes(size: int) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000  # type: ignore[assignment]
    return f"{size:.3g} TB"


def command(run: Run) -> dict[str, Any] | None:
    """Return the command that makes the same tractogram again."""
    record = run.data.record
    if record is None:
        return None
    used = _datasets_of(run, [file.uri for file in record.inputs])
    main = next(iter(used.values()), Path("BIDS_DIR"))
    words = [
        f"bids-tractography {_word(main)} OUTPUT_DIR participant",
        f"--participant-label {_word(run.data.entities['sub'])}",
    ]
    if "ses" in run.data.entities:
        words.append(f"--session-label {_word(run.data.entities['ses'])}")
    words += [f"-d {_word(f'{name}={path}')}" for name, path in list(used.items())[1:]]
    settings = {key: value for key, value, _ in changed_keys(record.config)}
    if isinstance(record, TractogramRecord):
        settings |= {"seeding.rng_seed": record.rng_seed, "tracking.engine": record.engine}
    words += [f"--set {_word(f'{key}={_value(value)}')}" for key, value in settings.items()]
    sidecar = run.data.sidecar_file
    place = sidecar.relative_to(run.data.root) if sidecar else Path("SIDECAR")
    return {
        "command": " \\\n    ".join(words),
        "version": record.version,
        "reproduce": f"bids-tractography reproduce {_word(Path('OUTPUT_DIR', place))}",
    }


def _datasets_of(run: Run, uris: list[str]) -> Mapping[str, Path]:
    """Return the datasets that files are from, by name, in the order of the files."""
    names = [uri.removeprefix("bids:").partition(":")[0] for uri in uris if uri.startswith("bids:")]
    known = run.data.datasets
    return {name: known[name] for name in dict.fromkeys(names) if name and name in known}


def _word(value: object) -> str:
    return shlex.quote(printable(str(value)))


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

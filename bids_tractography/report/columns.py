"""The columns of the group level: one table for the file, its data dictionary and the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bids_tractography.core.checks import QUANTITIES
from bids_tractography.core.streamlines import Rejection, Stop
from bids_tractography.outputs.names import entities_of
from bids_tractography.outputs.provenance import ImportRecord, TractogramRecord
from bids_tractography.report.data import label_of, run_of

Group = Literal["main", "counts", "ends", "data", "resources", "software", "people", ""]

GROUPS: Mapping[str, str] = {
    "main": "Overview",
    "counts": "Seeds and streamlines",
    "ends": "Ends of streamlines",
    "data": "Data and checks",
    "resources": "Time and memory",
    "software": "Method and software",
    "people": "Participants",
}
"""Groups of columns that the page shows together."""


@dataclass(frozen=True)
class Column:
    """A column.

    Parameters
    ----------
    name : str
    description : str
        A sentence, for the data dictionary.
    title : str
        Heading on the page, without the unit.
    unit : str
        As in the data dictionary; empty for text and for figures without a unit.
    groups : tuple of str
        Where the page shows it, see `GROUPS`; it does not if empty.
    levels : mapping of str to str
        Values and what they mean, if they are few.
    numeric : bool
    percent : bool
        Whether the page shows a share as a percentage.
    """

    name: str
    description: str
    title: str = ""
    unit: str = ""
    groups: tuple[str, ...] = ()
    levels: Mapping[str, str] = field(default_factory=dict)
    numeric: bool = True
    percent: bool = False

    @property
    def entry(self) -> dict[str, Any]:
        """Its entry in the data dictionary."""
        entry: dict[str, Any] = {"Description": self.description}
        if self.title:
            entry = {"LongName": self.title, **entry}
        if self.unit:
            entry["Units"] = self.unit
        if self.levels:
            entry["Levels"] = dict(self.levels)
        return entry

    @property
    def scale(self) -> float:
        """Factor of the figures on the page."""
        return 100 if self.percent else 1000 if self.unit == "mm^2/s" else 1

    @property
    def shown_unit(self) -> str:
        """Unit of the figures on the page."""
        shown = {"mm^2/s": "10⁻³ mm²/s", "s/mm^2": "s/mm²", "mL": "ml"}
        return "%" if self.percent else shown.get(self.unit, self.unit)


def _text(name: str, description: str, title: str = "", *groups: str, **levels: str) -> Column:
    return Column(name, description, title, "", groups, levels, numeric=False)


_ENTITY_NAMES: Mapping[str, str] = {
    "acq": "acquisition", "dir": "direction", "run": "run", "space": "space", "sample": "sample",
    "task": "task", "ce": "ceagent", "trc": "tracer", "rec": "reconstruction", "mod": "modality",
    "echo": "echo", "flip": "flip", "inv": "inversion", "mt": "mtransfer", "part": "part",
    "proc": "processing", "hemi": "hemisphere", "split": "split", "recording": "recording",
    "chunk": "chunk", "atlas": "atlas", "seg": "segmentation", "scale": "scale",
    "res": "resolution", "den": "density",
}  # fmt: skip
_ALWAYS = ("acq", "dir", "run", "space")

OUTCOMES = {
    "finished": "The latest call for the run finished.",
    "failed": "The latest call for the run failed; the tractogram is from an earlier one.",
    "skipped": "The latest call skipped the run; the tractogram is from an earlier one.",
}
_VERDICTS = {
    "agrees": "The directions of neighbouring voxels are most coherent with the table as it is.",
    "undecided": "The data do not decide.",
    "contradicts": "The directions are more coherent with axes permuted or flipped.",
}
_REJECTED = {
    Rejection.TOO_LONG: "longer than the maximum",
    Rejection.DEAD_END: "with an end where the anatomy has none",
    Rejection.TOO_SHORT: "shorter than the minimum",
    Rejection.EXCLUDED: "that entered an exclusion region",
    Rejection.NOT_INCLUDED: "that missed an inclusion region",
    Rejection.SURPLUS: "beyond the number to select",
}
_STOP_TITLES = {
    Stop.STOPPING_RULE: "stopping criterion",
    Stop.ANGLE: "no direction in the cone",
    Stop.NO_DIRECTION: "no direction at all",
    Stop.MAX_LENGTH: "maximum length",
    Stop.NO_DATA: "edge of the data",
}
_STOPPED = {
    Stop.STOPPING_RULE: "the stopping criterion",
    Stop.GREY_MATTER: "grey matter",
    Stop.IMAGE_BORDER: "the border of the image",
    Stop.ANGLE: "a place with no direction within the cone",
    Stop.NO_DIRECTION: "a place with no direction at all",
    Stop.MAX_LENGTH: "the maximum length",
    Stop.NO_DATA: "the edge of the data",
}
# Measured in every run, but the same as other columns.
_REPEATED = ("seeds_without_direction", "streamlines_kept")
_UNITS = {"mm²/s": "mm^2/s", "s/mm²": "s/mm^2", "ml": "mL"}
_TITLES = {
    "smallest_voxel_edge_mm": "Smallest voxel edge",
    "largest_b_s_mm2": "Largest b-value",
    "brain_volume_ml": "Brain mask volume",
    "wrapped_share": "Strongly negative b=0 values",
    "limit_share": "b=0 values at the limit of their type",
    "volume_ratio": "Ratio of a volume to those of its b-value",
    "negative_share": "Negative values in the brain",
    "growing_share": "Signal that grows with b",
    "zero_share": "Zeros in the brain",
    "mean_diffusivity_mm2_s": "MD in the brain",
    "fractional_anisotropy": "FA in the brain",
    "white_matter_fa": "FA in white matter",
    "white_matter_md_mm2_s": "MD in white matter",
    "white_matter_volume_ml": "White matter volume",
    "grey_matter_volume_ml": "Grey matter volume",
    "csf_volume_ml": "CSF volume",
    "response_axial_mm2_s": "Response, axial diffusivity",
    "response_ratio": "Response ratio",
    "response_csf_mm2_s": "Response of CSF",
    "tissue_shift_mm": "Displacement of the tissue",
    "tissue_in_brain": "Tissue in the brain mask",
    "brain_with_tissue": "Brain mask with tissue",
}
"""Short headings of checks."""
_MAIN_CHECKS = ("brain_volume_ml", "fractional_anisotropy", "mean_diffusivity_mm2_s")


def _spoken(reason: str) -> str:
    return reason.replace("_", " ")


def _stop_title(stop: Stop) -> str:
    fluid = {"fluid": "CSF", "csf": "CSF"}
    return _STOP_TITLES.get(stop) or fluid.get(stop) or _spoken(stop)


def _of_check(name: str) -> Column:
    quantity = QUANTITIES[name]
    title = quantity.description.removeprefix("The ")
    title = _TITLES.get(name) or title[0].upper() + title[1:]
    share = quantity.description.startswith("The share")
    groups = ("main", "data") if name in _MAIN_CHECKS else ("data",)
    unit = _UNITS.get(quantity.unit, quantity.unit)
    return Column(name, f"{quantity.description}.", title, unit, groups, percent=share)


def _columns() -> Iterable[Column]:
    yield _text("track", "Tracking algorithm.", "Algorithm", "main", "software")
    yield _text("model", "Diffusion model.", "Model", "main", "software")
    yield _text("engine", "Implementation of the tracking.", "Engine", "software")
    yield Column("seeds", "Seeds placed.", "Seeds", groups=("counts",))
    yield Column(
        "seeds_without_direction",
        "Seeds where the fODF has no peak.",
        "Seeds without a direction",
        groups=("counts",),
    )
    yield Column("generated", "Streamlines started.", "Generated", groups=("counts",))
    yield Column("kept", "Streamlines in the file.", "Streamlines", groups=("main", "counts"))
    yield Column(
        "yield",
        "Streamlines kept, as a share of those generated.",
        "Yield",
        groups=("main", "counts"),
        percent=True,
    )
    for reason in Rejection:
        description = f"Streamlines rejected: those {_REJECTED[reason]}."
        title = f"Rejected: {_spoken(reason)}"
        yield Column(f"rejected_{reason}", description, title, groups=("counts",))
    for stop in Stop:
        where = _STOPPED.get(stop, "cerebrospinal fluid")
        title = f"Number of ends: {_stop_title(stop)}"
        description = f"Ends of generated streamlines at {where}."
        yield Column(f"ends_{stop}", description, title, groups=("ends",))
    for stop in Stop:
        where = _STOPPED.get(stop, "cerebrospinal fluid")
        description = f"Share of the ends of generated streamlines that are at {where}."
        title = f"Ends: {_stop_title(stop)}"
        yield Column(f"ends_{stop}_share", description, title, groups=("ends",), percent=True)
    points = "Points of the streamlines, before any linearisation."
    yield Column("points", points, "Points", groups=("counts",))
    lengths = ("main", "counts")
    median = "Median length of the kept streamlines."
    yield Column("length_median_mm", median, "Median length", "mm", lengths)
    yield Column(
        "length_p05_mm",
        "5th percentile of the length.",
        "Length, 5th percentile",
        "mm",
        lengths[1:],
    )
    yield Column(
        "length_p95_mm",
        "95th percentile of the length.",
        "Length, 95th percentile",
        "mm",
        lengths[1:],
    )
    inside = "Share of the points of an imported tractogram that lie in the image."
    yield Column("points_inside", inside, "Points in the image", groups=("counts",), percent=True)
    yield from (_of_check(name) for name in QUANTITIES if name not in _REPEATED)
    yield Column(
        "gradient_margin",
        "How much more coherent directions are with the gradient table as it was used than with "
        "its best competitor of 23 permutations and flips of the axes, in standard errors.",
        "Gradient table margin (SE)",
        groups=("main", "data"),
    )
    table = "What the coherence of directions shows about the gradient table."
    yield _text("gradient_verdict", table, "Gradient table", "data", **_VERDICTS)
    frame = "Frame in which the b-vectors were read."
    yield _text("gradient_frame", frame, "Frame of the b-vectors", "data")
    unusual = "Number of checks outside their usual range."
    yield Column("checks_unusual", unusual, "Unusual checks", groups=("main", "data"))
    yield Column(
        "warnings", "Number of warnings in the sidecar.", "Warnings", groups=("main", "data")
    )
    yield _text("rng_seed", "Seed of all random numbers.", "Random seed", "software")
    time = ("main", "resources")
    wall = "Wall time of tracking."
    yield Column("tracking_seconds", wall, "Tracking time", "s", time)
    cpu = "CPU time of tracking."
    yield Column("tracking_cpu_seconds", cpu, "Tracking, CPU time", "s", time[1:])
    total = "Wall time of all stages."
    yield Column("total_seconds", total, "Total time", "s", time[1:])
    total_cpu = "CPU time of all stages."
    yield Column("total_cpu_seconds", total_cpu, "Total CPU time", "s", time[1:])
    memory = "Largest resident size of the process."
    yield Column("peak_memory_mib", memory, "Peak memory", "MiB", time)
    yield Column("threads", "Threads of the tracking.", "Threads", groups=time[1:])
    version = "Version of bids_tractography that made the tractogram."
    yield _text("software_version", version, "Version", "software")
    image = "Container image that the program ran in."
    yield _text("container", image, "Container", "software")
    yield _text("config_hash", "SHA-256 of the configuration.", "Configuration, hash", "software")
    yield _text("content_sha256", "SHA-256 of points and offsets.")


FIXED: tuple[Column, ...] = tuple(_columns())
"""The columns that every record may fill."""

_LARGEST = 1e18
_NAMES = frozenset(column.name for column in FIXED)


def row_of(root: Path, sidecar: Path, record: TractogramRecord | ImportRecord) -> dict[str, Any]:
    """Turn a record into the values of columns by name, without what it does not have.

    Parameters
    ----------
    root : Path
        The derivative dataset.
    sidecar : Path
        Of the tractogram.
    record : TractogramRecord or ImportRecord
        Our record in it.

    Raises
    ------
    ValueError, LookupError, TypeError, AttributeError, ArithmeticError
        If the record is not what this version writes.
    """
    row: dict[str, Any] = {
        "points": record.points,
        "length_median_mm": record.length_quantiles_mm["0.5"],
        "length_p05_mm": record.length_quantiles_mm["0.05"],
        "length_p95_mm": record.length_quantiles_mm["0.95"],
        "total_seconds": round(sum(record.seconds.values()), 3),
        "total_cpu_seconds": round(sum(record.cpu_seconds.values()), 3),
        "peak_memory_mib": record.peak_memory_mib,
        "warnings": len(record.warnings),
        "software_version": record.version,
        "container": _container(record),
        "config_hash": record.config_hash,
        "content_sha256": record.content_sha256,
        **_checked(record.checks),
    }
    row |= _imported(record) if isinstance(record, ImportRecord) else _tracked(record)
    if unknown := row.keys() - _NAMES:
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
    name = next(iter(record.file_sha256))
    row = {**identity_of(root, sidecar), "tractogram": _relative(root, sidecar, name), **row}
    row = {name: value for name, value in row.items() if _usable(value)}
    for value in row.values():
        str(value).encode()  # names of files and JSON may hold what is not Unicode: a ValueError
    return row


def parse_record(content: Mapping[str, Any]) -> TractogramRecord | ImportRecord:
    """Parse our record in the sidecar of a tractogram."""
    kind = ImportRecord if "mode" in content else TractogramRecord
    return kind.model_validate(content)


def _usable(value: Any) -> bool:
    """Tell whether there is a value: records may hold numbers that are none or beyond reason."""
    if isinstance(value, int | float):
        return abs(value) <= _LARGEST
    return value is not None


def _relative(root: Path, sidecar: Path, name: str) -> str:
    return sidecar.relative_to(root).with_name(name).as_posix()


def identity_of(root: Path, sidecar: Path) -> dict[str, Any]:
    """Return the columns that say which run it is."""
    parts = sidecar.relative_to(root).parts
    entities = entities_of(f"{run_of(sidecar.name)}_dwi")
    columns = {
        entity_column(key): value for key, value in entities.items() if key not in ("sub", "ses")
    }
    session = {"session_id": parts[1]} if parts[1].startswith("ses-") else {}
    name = {"run_name": label_of(sidecar.name)}
    configuration = {"configuration": entities_of(sidecar.name).get("desc")}
    return {"participant_id": parts[0], **session, **name, **columns, **configuration}


def entity_column(key: str) -> str:
    """Return the name of the column of an entity."""
    return _ENTITY_NAMES.get(key, f"entity_{key}")


def _tracked(record: TractogramRecord) -> dict[str, Any]:
    """Return the columns of what was tracked here."""
    generated = record.streamlines_generated
    shares = {
        f"ends_{reason}_share": round(n / (2 * generated), 6) if generated else None
        for reason, n in record.ends.items()
    }
    return {
        "track": record.config.tracking.algorithm.kind,
        "model": record.config.model.kind,
        "engine": record.engine,
        "seeds": record.seeds,
        "seeds_without_direction": record.seeds_without_direction,
        "generated": generated,
        "kept": record.streamlines_kept,
        "yield": round(record.streamlines_kept / generated, 6) if generated else None,
        **{f"rejected_{reason}": n for reason, n in record.streamlines_rejected.items()},
        **{f"ends_{reason}": n for reason, n in record.ends.items()},
        **shares,
        "rng_seed": record.rng_seed,
        "tracking_seconds": record.seconds["tracking"],
        "tracking_cpu_seconds": record.cpu_seconds["tracking"],
        "threads": record.threads,
        "gradient_frame": _word(record.gradients.get("frame")),
    }


def _imported(record: ImportRecord) -> dict[str, Any]:
    return {"track": "custom", "kept": record.streamlines, "points_inside": record.points_inside}


def _checked(checks: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of what was measured."""
    found = {name: figures for name, figures in checks.items() if isinstance(figures, dict)}
    row: dict[str, Any] = {
        name: _figure(figures.get("value"))
        for name, figures in found.items()
        if name in QUANTITIES and name not in _REPEATED
    }
    table = found.get("gradient_table", {})
    row["gradient_margin"] = _figure(table.get("margin_standard_errors"))
    row["gradient_verdict"] = _word(table.get("verdict"))
    row["checks_unusual"] = sum(
        figures.get("verdict") not in ("usual", "agrees") for figures in found.values()
    )
    return row


def _figure(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else None


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _container(record: TractogramRecord | ImportRecord) -> str | None:
    container = record.environment.container or {}
    return container.get("Tag") or container.get("URI") or container.get("Type")


def columns_for(
    entities: Iterable[str], participants: Mapping[str, Mapping[str, Any]], *, outliers: bool = True
) -> tuple[Column, ...]:
    """Return the columns of a study in their order.

    Parameters
    ----------
    entities : iterable of str
        Keys of the entities that its runs have, e.g. ``acq``.
    participants : mapping of str to mapping
        Columns of ``participants.tsv`` by their names here, with their data dictionary.
    outliers : bool
        Whether there is a column of outliers.
    """
    made = [
        _text("participant_id", "Participant.", "Participant", "people"),
        _text("session_id", "Session.", "Session", "people"),
    ]
    there = set(entities)
    for key in (*_ALWAYS, *sorted(there - {*_ALWAYS, "sub", "ses", "desc"})):
        name = entity_column(key)
        title = (_ENTITY_NAMES.get(key) or key).capitalize()
        groups = ("main", "people") if key in there else ()
        entity = f"Entity “{key}” of the DWI’s name."
        made.append(Column(name, entity, title, "", groups, numeric=False))
    here = ("main", "software") if "desc" in there else ("software",)
    named = "Name of the configuration (output.name)."
    made.append(Column("configuration", named, "Configuration", "", here, numeric=False))
    outcome = "Outcome of the latest call for the run, according to the logs."
    made += [
        _text("run_name", "Name of the run: what the names of its files begin with.", "Run"),
        _text("tractogram", "File, relative to the dataset.", "Tractogram"),
        Column("outcome", outcome, "Outcome", "", ("main",), OUTCOMES, numeric=False),
        *FIXED,
    ]
    if outliers:
        made.append(
            _text(
                "outliers", "Columns in which the run is an outlier, joined by commas.", "Outliers"
            )
        )
    return (*made, *(_of_participants(*item) for item in participants.items()))


def _of_participants(name: str, described: Mapping[str, Any]) -> Column:
    levels = described.get("Levels")
    unit = described.get("Units")
    return Column(
        name,
        str(described.get("Description") or f"Column {name} of participants.tsv."),
        str(described.get("LongName") or name.replace("_", " ").capitalize()),
        unit if isinstance(unit, str) else "",
        ("people",),
        {str(k): _level(v) for k, v in levels.items()} if isinstance(levels, dict) else {},
        numeric=False,
    )


def _level(value: Any) -> str:
    """Return what a level means; BIDS also allows an object with a description."""
    return str(value.get("Description", "")) if isinstance(value, dict) else str(value)

"""Plausibility checks of measurements, and the warnings of a run.

Every measurement is recorded. A value outside its usual range is a warning; a value that is
impossible for the subject is an error unless the configuration permits it.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from bids_tractography.config.checks import ChecksConfig, SubjectKind
from bids_tractography.errors import ImplausibleError

logger = logging.getLogger(__name__)

_INF = float("inf")


_ADULT_YEARS = 3.0
_PHANTOM = re.compile(r"phantom(?! *(limb|pain))", re.IGNORECASE)
_HUMAN = re.compile(r"sapiens|human|\b9606\b|unknown|n/a")


def choose_subject(
    wanted: SubjectKind | Literal["auto"],
    participant: Mapping[str, str],
    names: Iterable[str],
) -> SubjectKind:
    """Choose the kind of subject, which determines the ranges, from what the dataset states.

    Parameters
    ----------
    wanted : str
        ``checks.subject`` of the configuration.
    participant : mapping of str to str
        Row of ``participants.tsv``.
    names : iterable of str
        Names that may identify a phantom: those of the dataset, the participant and the body part.

    Returns
    -------
    str
        Kind of subject, never ``auto``.
    """
    if wanted != "auto":
        return wanted
    row = {key.strip().lower(): value.strip().lower() for key, value in participant.items()}
    species = row.get("species", "")
    if any(_PHANTOM.search(name) for name in (*names, species)):
        return "phantom"
    if species and not _HUMAN.search(species):
        return "animal"
    try:
        age_years = float(row.get("age", ""))
    except ValueError:
        return "adult"
    return "infant" if age_years < _ADULT_YEARS else "adult"


@dataclass(frozen=True)
class Range:
    """Bounds of a measurement.

    Parameters
    ----------
    usual : tuple of float
        Lowest and highest value that does not cause a warning.
    possible : tuple of float
        Lowest and highest value that is accepted.
    """

    usual: tuple[float, float]
    possible: tuple[float, float]


@dataclass(frozen=True)
class Quantity:
    """A quantity measured in every run.

    Parameters
    ----------
    description : str
        Subject of a sentence, e.g. "The axial diffusivity of the response".
    unit : str
        Unit of the value; empty for ratios.
    cause : str
        Most common cause of an impossible value.
    ranges : mapping of str to Range
        Bounds for each kind of subject. Kinds that are not listed use those of ``adult``, except
        ``any``, which has no bounds unless it is listed.
    """

    description: str
    unit: str
    cause: str
    ranges: Mapping[str, Range]

    def range_of(self, subject: SubjectKind) -> Range:
        """Return the bounds for a kind of subject."""
        if subject == "any" and "any" not in self.ranges:
            return Range((-_INF, _INF), (-_INF, _INF))
        return self.ranges.get(subject, self.ranges["adult"])


_SCALE = "The intensities, the b-values or the gradient directions may be wrong."
_MASK = "The brain mask may not cover the brain."
_TISSUE = "The tissue segmentation may be wrong."
_ANY_SHARE = Range((0, 1), (0, 1))
_ANY_AMOUNT = Range((0, _INF), (0, _INF))

# In vivo: Pierpaoli 1996, Le Bihan 2001. Free water at 37 °C has 3.0e-3 mm²/s (Holz 2000), an upper
# bound for the whole head. A high b-value lowers the apparent diffusivity, and fixation lowers all
# diffusivities to a half or a third (D'Arceuil 2007). Brain volumes: Bethlehem 2022.
QUANTITIES: Mapping[str, Quantity] = {
    "smallest_voxel_edge_mm": Quantity(
        "The smallest voxel edge",
        "mm",
        "The affine or the unit of length in the header may be wrong.",
        {
            "adult": Range((0.5, 5), (0.02, 20)),
            "animal": Range((0.02, 2), (0.002, 20)),
            "ex_vivo": Range((0.02, 3), (0.002, 20)),
            "phantom": Range((0.1, 10), (0.002, 50)),
        },
    ),
    "largest_b_s_mm2": Quantity(
        "The largest b-value",
        "s/mm²",
        "The b-values may be in a different unit.",
        {
            "adult": Range((500, 12_000), (100, 50_000)),
            "ex_vivo": Range((1000, 50_000), (100, 100_000)),
            "phantom": Range((300, 50_000), (100, 100_000)),
        },
    ),
    "brain_volume_ml": Quantity(
        "The volume of the brain mask",
        "ml",
        _MASK,
        {
            "adult": Range((600, 2200), (30, 4000)),
            "infant": Range((150, 1600), (30, 3000)),
            "animal": Range((0.1, 1200), (0.005, 12_000)),
            "ex_vivo": Range((0.1, 2200), (0.005, 12_000)),
            "phantom": Range((1, 5000), (0.001, 50_000)),
        },
    ),
    "wrapped_share": Quantity(
        "The share of strongly negative b=0 values",
        "",
        "An integer overflow may have wrapped the intensities when the file was written.",
        {"adult": Range((0, 1e-4), (0, 5e-3)), "any": Range((0, 1e-4), (0, 5e-3))},
    ),
    "limit_share": Quantity(
        "The share of b=0 values at the largest integer of their type",
        "",
        "Intensities above it were clipped or wrapped around when the file was written.",
        {"adult": Range((0, 2e-4), (0, 1)), "any": Range((0, 2e-4), (0, 1))},
    ),
    "volume_ratio": Quantity(
        "The ratio of a volume's median in the brain to that of volumes with a similar b-value",
        "",
        "A volume may be damaged, scaled differently or paired with the wrong b-value.",
        {"adult": Range((1, 1.6), (1, 20)), "any": Range((1, 1.6), (1, 1000))},
    ),
    "negative_share": Quantity(
        "The share of negative values in the brain",
        "",
        "The intensities may have been damaged when the file was written.",
        {"adult": Range((0, 0.02), (0, 0.2))},
    ),
    "growing_share": Quantity(
        "The share of the brain with more signal at high than at low diffusion weighting",
        "",
        "The intensities may have wrapped around, or the b-values may be in a different order than "
        "the volumes.",
        {"adult": Range((0, 0.02), (0, 0.2)), "any": Range((0, 0.02), (0, 0.2))},
    ),
    "zero_share": Quantity(
        "The share of zeros in the brain",
        "",
        "The brain mask may extend beyond the field of view, or volumes may be missing.",
        {"adult": Range((0, 0.02), (0, 0.3))},
    ),
    "mean_diffusivity_mm2_s": Quantity(
        "The median mean diffusivity in the brain",
        "mm²/s",
        _SCALE,
        {
            "adult": Range((0.4e-3, 1.6e-3), (0.1e-3, 3.2e-3)),
            "infant": Range((0.6e-3, 2.2e-3), (0.1e-3, 3.2e-3)),
            "ex_vivo": Range((0.03e-3, 1.0e-3), (0.005e-3, 3.2e-3)),
            "phantom": Range((0.1e-3, 3.0e-3), (0.005e-3, 5e-3)),
            "any": Range((-_INF, _INF), (0.001e-3, 6e-3)),
        },
    ),
    # For comparisons between runs; what is usual depends on sequence and definition.
    "fractional_anisotropy": Quantity(
        "The median fractional anisotropy in the brain", "", _SCALE, {"adult": _ANY_SHARE}
    ),
    "white_matter_fa": Quantity(
        "The median fractional anisotropy in white matter", "", _SCALE, {"adult": _ANY_SHARE}
    ),
    "white_matter_md_mm2_s": Quantity(
        "The median mean diffusivity in white matter", "mm²/s", _SCALE, {"adult": _ANY_AMOUNT}
    ),
    "white_matter_volume_ml": Quantity(
        "The volume of white matter", "ml", _TISSUE, {"adult": _ANY_AMOUNT}
    ),
    "grey_matter_volume_ml": Quantity(
        "The volume of grey matter", "ml", _TISSUE, {"adult": _ANY_AMOUNT}
    ),
    "csf_volume_ml": Quantity(
        "The volume of cerebrospinal fluid", "ml", _TISSUE, {"adult": _ANY_AMOUNT}
    ),
    "response_axial_mm2_s": Quantity(
        "The axial diffusivity of the response",
        "mm²/s",
        _SCALE,
        {
            "adult": Range((0.8e-3, 3.0e-3), (0.25e-3, 4.0e-3)),
            "ex_vivo": Range((0.05e-3, 2.0e-3), (0.01e-3, 4.0e-3)),
            "phantom": Range((0.1e-3, 3.0e-3), (0.01e-3, 5e-3)),
            "any": Range((-_INF, _INF), (0.001e-3, 6e-3)),
        },
    ),
    "response_ratio": Quantity(
        "The ratio of axial to radial diffusivity of the response",
        "",
        "The voxels of highest anisotropy may not be white matter: check the FA map and the "
        "brain mask.",
        {
            "adult": Range((2.0, 60), (1.15, _INF)),
            "phantom": Range((1.3, _INF), (1.02, _INF)),
        },
    ),
    "response_csf_mm2_s": Quantity(
        "The diffusivity of the CSF response at the innermost shell",
        "mm²/s",
        _SCALE,
        {
            "adult": Range((1.5e-3, 3.5e-3), (0.4e-3, 4.5e-3)),
            "ex_vivo": Range((0.3e-3, 3.5e-3), (0.05e-3, 4.5e-3)),
            "phantom": Range((0.3e-3, 3.5e-3), (0.05e-3, 5e-3)),
        },
    ),
    "tissue_shift_mm": Quantity(
        "The displacement at which white matter fits the anisotropy best",
        "mm",
        "The tissue may be in a different space than the DWI, or the DWI strongly distorted.",
        {"adult": Range((0, 4), (0, 15))},
    ),
    "tissue_in_brain": Quantity(
        "The share of white and grey matter that lies in the brain mask",
        "",
        "The tissue may be in a different space than the DWI.",
        {"adult": Range((0.85, 1), (0.5, 1))},
    ),
    "brain_with_tissue": Quantity(
        "The share of the brain mask that the tissue fills",
        "",
        "The tissue may be in a different space than the DWI.",
        {"adult": Range((0.8, 1), (0.5, 1))},
    ),
    "seeds_without_direction": Quantity(
        "The share of seeds without a direction",
        "",
        "The fODF is flat or zero where streamlines start: check the fODF and the seed mask.",
        {"adult": Range((0, 0.35), (0, 0.9))},
    ),
    "streamlines_kept": Quantity(
        "The share of streamlines kept",
        "",
        "Streamlines end immediately: check the stop mask, the tissue and the fODF.",
        {"adult": Range((0.1, 1), (0.01, 1))},
    ),
}
# Shares of a smaller number of seeds or streamlines are due to chance.
MIN_COUNT = 200


@dataclass
class Found:
    """Warnings and measurements of one stage of a run.

    Parameters
    ----------
    warnings : list of str
    figures : dict
        Measurements by the name of their quantity, JSON values.
    """

    warnings: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def record(self) -> dict[str, Any]:
        """Warnings and measurements as the sidecars record them, JSON values."""
        return {"warnings": list(self.warnings), "checks": dict(self.figures)}


class Findings:
    """Warnings and measurements of all checks of one run.

    Parameters
    ----------
    run : str
        Name of the run, e.g. "sub-01_dir-AP"; begins every line of the log.
    config : ChecksConfig
    subject : str
        Kind of subject, never ``auto``.
    """

    def __init__(self, run: str, config: ChecksConfig, subject: SubjectKind = "adult") -> None:
        self._run = run
        self._config = config
        self._subject = subject
        self._all = Found()
        self._stages: list[Found] = []

    @property
    def all(self) -> Found:
        """All warnings and measurements so far."""
        return self._all

    @contextmanager
    def stage(self) -> Iterator[Found]:
        """Collect the warnings and measurements that arise inside the block."""
        found = Found()
        self._stages.append(found)
        try:
            yield found
        finally:
            self._stages.remove(found)

    def warn(self, text: str) -> None:
        """Log a warning with the name of the run and record it, unless it has occurred before."""
        for found in self._stages:
            if text not in found.warnings:
                found.warnings.append(text)
        if text not in self._all.warnings:
            self._all.warnings.append(text)
            logger.warning("%s: %s", self._run, text)

    def record(self, name: str, figures: Mapping[str, Any]) -> None:
        """Record the measurements of a check that has its own criteria."""
        for found in (self._all, *self._stages):
            found.figures[name] = dict(figures)

    def measure(self, name: str, value: float, *, at_least: bool = True, detail: str = "") -> None:
        """Check a value against its range.

        Parameters
        ----------
        name : str
            Name of a quantity, see `QUANTITIES`.
        value : float
            Value in the unit of the quantity.
        at_least : bool
            Whether the lower bounds apply.
        detail : str
            Additional hint at the cause.

        Raises
        ------
        ImplausibleError
            If the value is impossible for the subject and ``checks.plausibility`` is ``error``.
        """
        quantity = QUANTITIES[name]
        bounds = quantity.range_of(self._subject)
        value = float(f"{value:.4g}")  # as recorded, so that a reused file gets the same verdict
        verdict = "usual"
        if not _inside(value, bounds.usual, at_least=at_least):
            verdict = "unusual"
        if not _inside(value, bounds.possible, at_least=at_least):
            verdict = "impossible"
        self.record(
            name,
            {
                "value": _finite(value),
                "unit": quantity.unit or "1",
                "usual": [_finite(bounds.usual[0]) if at_least else None, _finite(bounds.usual[1])],
                "verdict": verdict,
            },
        )
        if verdict == "usual" or self._config.plausibility == "off":
            return
        words = "is unusual" if verdict == "unusual" else f"is not possible ({self._subject})"
        text = (
            f"{quantity.description}, {_with_unit(value, quantity.unit)}, {words}: the usual range "
            f"is {_range(bounds.usual, quantity.unit)}. {quantity.cause}"
        )
        if detail:
            text += f" ({detail})"
        if verdict == "impossible" and self._config.plausibility == "error":
            raise ImplausibleError(
                text,
                "If the data are right, set checks.subject to what was scanned, or "
                "checks.plausibility=warn to continue regardless.",
            )
        self.warn(text)

    def measure_all(self, figures: Mapping[str, float]) -> None:
        """Check several values against their ranges, see `measure`."""
        for name, value in figures.items():
            self.measure(name, value)

    def repeat(self, record: Mapping[str, Any]) -> None:
        """Report again the warnings and measurements that arose when a reused file was computed.

        Parameters
        ----------
        record : mapping
            ``details`` of the file's record.
        """
        for text in record.get("warnings", ()):
            self.warn(text)
        for name, figures in record.get("checks", {}).items():
            value = figures.get("value")
            if name in QUANTITIES and value is not None:
                self.measure(name, value, at_least=figures["usual"][0] is not None)
            else:
                self.record(name, figures)


def _inside(value: float, bounds: tuple[float, float], *, at_least: bool) -> bool:
    return (value >= bounds[0] or not at_least) and value <= bounds[1]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _with_unit(value: float, unit: str) -> str:
    return f"{_short(value)} {unit}".strip()


def _range(bounds: tuple[float, float], unit: str) -> str:
    low, high = bounds
    if math.isinf(high):
        return f"{_with_unit(low, unit)} or more"
    if math.isinf(low):
        return f"{_with_unit(high, unit)} or less"
    return f"{_short(low)} to {_with_unit(high, unit)}"


def _short(value: float) -> str:
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"

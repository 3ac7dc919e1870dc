"""Strip plots: a dot for every run, the median, and what lies beyond the limits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from bids_tractography.report.charts import chart, element, ticks
from bids_tractography.report.outliers import Limits
from bids_tractography.report.page import number

WIDTH, HEIGHT = 420, 92
_LEFT, _RIGHT = 12, 12
_MIDDLE, _HALF, _FLOOR = 36, 30, 70
_SIGMAS_SHOWN = 14.0
_LEAST_SPAN = 1e-9
_MAX_TICKS = 5
_LARGEST_TICK = 1e7
_SIZES = ((100, " few", 6.5), (800, "", 4.0))  # up to a number of runs: class and diameter
_SMALL = (" many", 3.0)


@dataclass(frozen=True, eq=False)
class Strip:
    """A drawn strip plot.

    Parameters
    ----------
    drawn : Markup
    runs : tuple of int
        Numbers of the runs that have a dot, in the order of the dots.
    outliers : tuple of int
        Numbers of the runs beyond the limits.
    """

    drawn: Markup
    runs: tuple[int, ...]
    outliers: tuple[int, ...]


def strip(
    values: NDArray[np.float64], compared: Limits | None, title: str, unit: str
) -> Strip | None:
    """Draw values of all runs along a line; None if no run has one.

    Parameters
    ----------
    values : ndarray, shape (n_runs,)
        NaN for runs without a value.
    compared : Limits or None
    title, unit : str
        What is shown, for screen readers.
    """
    runs = np.flatnonzero(np.isfinite(values))
    if not len(runs):
        return None
    there = values[runs]
    out = np.array([compared is not None and compared.exclude(value) for value in there], bool)
    low, high = _axis(there, compared)
    x = _x_of(there, low, high)
    sizes = ((name, width) for most, name, width in _SIZES if len(runs) <= most)
    size, diameter = next(sizes, _SMALL)
    y = _spread(x, diameter, out)
    parts = _background(compared, low, high)
    dots = "".join(f"M{a:.1f} {b:.1f}h0" for a, b in zip(x, y, strict=True))
    parts.append(element("path", d=dots, class_=f"dots{size}"))
    if out.any():
        diamonds = zip(x[out], y[out], strict=True)
        marks = "".join(f"M{a:.1f} {b - 4.5:.1f}l4.5 4.5l-4.5 4.5l-4.5 -4.5z" for a, b in diamonds)
        parts.append(element("path", d=marks, class_="beyond"))
    words = _words(there, out, title, unit)
    drawn = chart(words, WIDTH, HEIGHT, *parts, kind="strip")
    return Strip(drawn, tuple(map(int, runs)), tuple(map(int, runs[out])))


def _axis(values: NDArray[np.float64], compared: Limits | None) -> tuple[float, float]:
    """Return the ends of the axis; a value far beyond the limits does not stretch it."""
    low, high = float(values.min()), float(values.max())
    if compared is not None:
        reach = _SIGMAS_SHOWN * compared.sigma
        low, high = max(low, compared.median - reach), min(high, compared.median + reach)
    margin = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
    margin = max(margin, _LEAST_SPAN * max(abs(low), abs(high)))
    floor = 0.0 if values.min() >= 0 else -np.inf
    return max(low - margin, floor), high + margin


def _x_of(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    share = np.clip((values - low) / (high - low), 0, 1)
    return np.asarray(_LEFT + (WIDTH - _LEFT - _RIGHT) * share, np.float64)


def _spread(x: NDArray[np.float64], diameter: float, out: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Stack dots that would cover each other, around the middle.

    All stacks have one scale, but for those of outliers: many may be at an end of the axis.
    """
    bins = np.floor(x / (0.9 * diameter)).astype(int)
    order = np.argsort(bins, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(bins[order]) > 0])
    counts = np.diff(np.r_[starts, len(x)])
    rank = np.empty(len(x), int)
    rank[order] = np.arange(len(x)) - np.repeat(starts, counts)
    inside = np.bincount(bins[~out], minlength=1)
    scale = min(0.95 * diameter, 2 * _HALF / max(int(inside.max()), 1))
    step = np.empty(len(x))
    step[order] = np.repeat(np.minimum(scale, 2 * _HALF / counts), counts)
    offset = np.where(rank % 2, 1, -1) * ((rank + 1) // 2) * step
    return np.asarray(_MIDDLE + offset, np.float64)


def _background(compared: Limits | None, low: float, high: float) -> list[Markup]:
    parts = []
    if compared is not None:
        begin, end, middle = _x_of(
            np.array([compared.low, compared.high, compared.median]), low, high
        )
        parts += [
            element(
                "rect", x=float(begin), y=2, width=float(end - begin), height=_FLOOR - 2,
                class_="inside",
            ),
            element("line", x1=float(middle), x2=float(middle), y1=2, y2=_FLOOR, class_="mark"),
        ]  # fmt: skip
    parts.append(element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=_FLOOR, y2=_FLOOR, class_="floor"))
    for tick in _few(ticks(low, high)):
        x = float(_x_of(np.array([tick]), low, high)[0])
        anchor = "start" if x < _LEFT + 14 else "end" if x > WIDTH - _RIGHT - 14 else "middle"
        parts += [
            element("line", x1=x, x2=x, y1=_FLOOR, y2=_FLOOR + 4, class_="floor"),
            element("text", _tick(tick), x=x, y=_FLOOR + 17, text_anchor=anchor),
        ]
    return parts


def _few(round_numbers: list[float]) -> list[float]:
    """Leave out every second of many ticks, so that those of even multiples stay."""
    if len(round_numbers) <= _MAX_TICKS:
        return round_numbers
    step = round_numbers[1] - round_numbers[0]
    if not step:  # closer to each other than they are written
        return round_numbers[:1]
    return [tick for tick in round_numbers if round(tick / step) % 2 == 0]


def _tick(value: float) -> str:
    """Write a round number in full, as those of a narrow axis differ in their last digits only."""
    return f"{value:,.10g}" if abs(value) < _LARGEST_TICK else number(value)


def _words(values: NDArray[np.float64], out: NDArray[np.bool_], title: str, unit: str) -> str:
    figures = [number(float(f"{v:.4g}")) for v in (np.median(values), values.min(), values.max())]
    beyond = f"; {int(out.sum())} beyond the limits" if out.any() else ""
    return (
        f"{title}: {len(values):,} runs, median {figures[0]} {unit}, "
        f"from {figures[1]} to {figures[2]}{beyond}"
    )

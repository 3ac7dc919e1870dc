"""Charts as SVG inside the page: colours are those of its style sheet, light and dark.

All text is escaped; every chart has words for those who cannot see it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

_WIDTH, _HEIGHT = 680, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 26, 34
_BAR_ROW = 26
_CHARACTER = 6.4  # width of one, about
_MAX_TICKS = 8


def element(tag: str, *children: str, **attributes: object) -> Markup:
    """Return an element; ``_`` at the end of a name is dropped, others become ``-``."""
    named = ((k.rstrip("_").replace("_", "-"), v) for k, v in attributes.items() if v is not None)
    text = "".join(f' {name}="{escape(_plain(value))}"' for name, value in named)
    return Markup(f"<{tag}{text}>{''.join(map(escape, children))}</{tag}>")


def _plain(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def chart(words: str, width: float, height: float, *children: str, kind: str = "") -> Markup:
    """Return an SVG picture with words that stand for it."""
    return element(
        "svg", *children, class_=f"chart {kind}".strip(), viewBox=f"0 0 {width:g} {height:g}",
        role="img", aria_label=words, xmlns="http://www.w3.org/2000/svg",
    )  # fmt: skip


@dataclass(frozen=True)
class Bar:
    """A bar with its name and its figure in words.

    Parameters
    ----------
    name : str
    value : float
    text : str
        At the end of the bar.
    kind : str
        Class of the style sheet: "", ``good`` or ``muted``.
    """

    name: str
    value: float
    text: str
    kind: str = ""


def bars(bars_: Sequence[Bar], words: str, *, total: float | None = None) -> Markup:
    """Draw horizontal bars, one below the other.

    Parameters
    ----------
    bars_ : sequence of Bar
    words : str
        What the chart shows, for screen readers; the figures are added.
    total : float, optional
        Value of a bar across the whole chart; the largest without it.
    """
    largest = total or max((bar.value for bar in bars_), default=0) or 1
    left = 12 + _CHARACTER * max((len(bar.name) for bar in bars_), default=0)
    right = 12 + _CHARACTER * max((len(bar.text) for bar in bars_), default=0)
    room = max(_WIDTH - left - right, 60.0)
    parts: list[Markup] = []
    for row, bar in enumerate(bars_):
        y, long = row * _BAR_ROW, room * min(max(bar.value / largest, 0), 1)
        parts += [
            element("text", bar.name, x=0, y=y + 17, class_="name"),
            element("rect", x=left, y=y + 5, width=room, height=16, rx=3, class_="track"),
            element(
                "rect", x=left, y=y + 5, width=max(long, 1.5 if bar.value else 0.0), height=16,
                rx=3, class_=f"bar {bar.kind}".strip(),
            ),
            element("text", bar.text, x=_WIDTH, y=y + 17, class_="figure", text_anchor="end"),
        ]  # fmt: skip
    listed = "; ".join(f"{bar.name}: {bar.text}" for bar in bars_)
    return chart(f"{words}. {listed}", _WIDTH, max(len(bars_), 1) * _BAR_ROW, *parts, kind="wide")


@dataclass(frozen=True)
class Line:
    """A vertical line at a value, with a label.

    Parameters
    ----------
    value : float
    label : str
    """

    value: float
    label: str


def histogram(
    counts: NDArray[np.integer],
    edges: NDArray[np.floating],
    unit: str,
    words: str,
    lines: Sequence[Line] = (),
    *,
    muted_below: float = -math.inf,
    power: float = 1,
) -> Markup:
    """Draw counts in bins.

    Parameters
    ----------
    counts : ndarray, shape (n,)
    edges : ndarray, shape (n + 1,)
    unit : str
        What stands along the axis.
    words : str
        What the chart shows, for screen readers.
    lines : sequence of Line
    muted_below : float
        Bins that end at or below it are drawn without colour.
    power : float
        Heights are counts to this power.
    """
    largest = max(int(counts.max(initial=0)), 1)
    low, high = float(edges[0]), float(edges[-1])
    floor = _HEIGHT - _BOTTOM

    def x_of(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (value - low) / ((high - low) or 1)

    parts: list[Markup] = []
    for count, begin, end in zip(counts, edges[:-1], edges[1:], strict=True):
        height = (floor - _TOP) * (float(count) / largest) ** power
        tip = element("title", f"{begin:.4g} to {end:.4g} {unit}: {int(count):,}")
        muted = "" if end > muted_below + 1e-9 else " muted"
        parts.append(
            element(
                "rect", tip, x=x_of(begin) + 0.5, y=floor - height,
                width=max(x_of(end) - x_of(begin) - 1, 0.6), height=height, class_=f"bin{muted}",
            )
        )  # fmt: skip
    parts += [
        element("text", f"{tick:g}", x=x_of(tick), y=floor + 15, text_anchor="middle")
        for tick in ticks(low, high)
    ]
    parts += [
        element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=floor, y2=floor, class_="floor"),
        element("text", f"{largest:,}", x=_LEFT - 6, y=_TOP + 4, text_anchor="end"),
        element("text", unit, x=_WIDTH / 2, y=_HEIGHT - 3, text_anchor="middle"),
        *_drawn_lines([line for line in lines if low <= line.value <= high], x_of, floor),
    ]
    return chart(words, _WIDTH, _HEIGHT, *parts, kind="wide")


def _drawn_lines(lines: Sequence[Line], x_of: object, floor: float) -> Iterable[Markup]:
    """Draw lines with labels above them, that do not run over each other."""
    free = [-1e9, -1e9]  # where the label of each row ends
    for line in sorted(lines, key=lambda line: line.value):
        x = x_of(line.value)  # type: ignore[operator]
        long = _CHARACTER * len(line.label)
        fits = x + 4 + long < _WIDTH
        row = 0 if (x if fits else x - long) > free[0] else 1
        free[row] = x + long + 10 if fits else x + 4
        yield element("line", x1=x, x2=x, y1=4 + 12 * row, y2=floor, class_="mark")
        yield element(
            "text", line.label, x=x + 4 if fits else x - 4, y=13 + 12 * row, class_="label",
            text_anchor="start" if fits else "end",
        )  # fmt: skip


def ticks(low: float, high: float) -> list[float]:
    """Return round numbers in a range, eight at most."""
    span = (high - low) or 1
    step = 10 ** math.floor(math.log10(span))
    step = next(
        s
        for s in (step / 10, step / 5, step / 4, step / 2, step, 2 * step)
        if span / s <= _MAX_TICKS
    )
    first = math.ceil(low / step - 1e-9)
    return [round(step * k, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


@dataclass(frozen=True, eq=False)
class Dots:
    """Directions of one shell.

    Parameters
    ----------
    directions : ndarray, shape (n, 3)
        Unit vectors.
    kind : int
        Number of the colour.
    """

    directions: NDArray[np.floating]
    kind: int


def hemisphere(shells: Sequence[Dots], words: str) -> Markup:
    """Draw axes on one half of the sphere, seen from above, areas kept (Lambert)."""
    parts = [element("circle", cx=150, cy=150, r=132, class_="rim")]
    for name, x, y in (("L", 8, 154), ("R", 292, 154), ("A", 150, 14), ("P", 150, 296)):
        parts.append(element("text", name, x=x, y=y, text_anchor="middle"))
    for shell in shells:
        for x, y, z in np.where(shell.directions[:, 2:] < 0, -1, 1) * shell.directions:
            share = math.sqrt(max(1 - z, 0)) / (math.hypot(x, y) or 1)
            parts.append(
                element(
                    "circle", cx=150 + 132 * share * x, cy=150 - 132 * share * y, r=4.2,
                    class_=f"series{shell.kind % 6}",
                )
            )  # fmt: skip
    return chart(words, 300, 302, *parts, kind="square")


def curves(
    polylines: Sequence[tuple[NDArray[np.floating], NDArray[np.floating], int]],
    words: str,
    extent: float,
) -> Markup:
    """Draw closed curves around the middle, in one scale, and a fibre that runs up and down.

    Parameters
    ----------
    polylines : sequence of (ndarray, ndarray, int)
        x and y of the points, and number of the colour.
    words : str
    extent : float
        Largest distance from the middle.
    """
    rings = (0.5, 1.0)
    parts = [element("circle", cx=150, cy=150, r=132 * r, class_="ring") for r in rings]
    parts.append(element("line", x1=150, x2=150, y1=18, y2=282, class_="mark"))
    parts.append(element("text", "fibre", x=155, y=28))
    for x, y, kind in polylines:
        points = " ".join(
            f"{150 + 132 * a / extent:.1f},{150 - 132 * b / extent:.1f}"
            for a, b in zip(x, y, strict=True)
        )
        parts.append(element("polygon", points=points, class_=f"curve line{kind % 6}"))
    return chart(words, 300, 302, *parts, kind="square")

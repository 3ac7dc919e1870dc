"""A self-contained page: templates, style, pictures, and the policy that keeps others out."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image as Pictures

from bids_tractography import __version__
from bids_tractography.machine.files import printable

_HERE = Path(__file__).parent
_QUALITY = 86


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["number"] = number
    made.filters["printable"] = lambda path: printable(str(path))
    return made


def number(value: float) -> str:
    """Write a figure for people: thousands apart, four digits."""
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e12):
        return f"{int(value):,}"
    if 0 < abs(value) < 1e-3 or abs(value) >= 1e6:
        mantissa, exponent = f"{value:.3e}".split("e")
        superscript = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"{float(mantissa):g} × 10{superscript}"
    return f"{value:.4g}"


def render(template: str, **context: Any) -> Markup:
    """Fill in a template of the package; whatever is not `Markup` is text."""
    return Markup(_environment().get_template(template).render(**context))


def page(
    template: str,
    *,
    scripts: Mapping[str, str] | None = None,
    data: Mapping[str, str] | None = None,
    styles: tuple[str, ...] = (),
    **context: Any,
) -> str:
    """Return a whole page: nothing runs or loads but what is named here.

    Parameters
    ----------
    template : str
        Extends ``base.html.j2``.
    scripts : mapping of str to str, optional
        Scripts by name; the policy allows these alone, by their hashes.
    data : mapping of str to str, optional
        Text that scripts read, by the id of its element; base64 or JSON, without ``<``.
    styles : tuple of str
        Style sheets besides that of all pages.
    context
        For the template.
    """
    scripts, data = scripts or {}, data or {}
    style = "".join([asset("templates/page.css"), *styles])
    if any("<" in text for text in data.values()):
        raise ValueError("data for scripts must not hold markup")
    policy = "; ".join(
        [
            "default-src 'none'",
            "img-src data: blob:",
            f"style-src {_hash(style)}",
            f"script-src {' '.join(map(_hash, scripts.values())) or chr(39) + 'none' + chr(39)}",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    made = render(
        template,
        policy=policy,
        style=Markup(style),
        scripts=[Markup(text) for text in scripts.values()],
        data={name: Markup(text) for name, text in data.items()},
        version=__version__,
        **context,
    )
    # Names of files may hold bytes that are no text.
    return str(made).encode("utf-8", "replace").decode()


def asset(name: str) -> str:
    """Return a text file of the package."""
    return (_HERE / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@dataclass
class Figures:
    """The pictures of a page, which are written as files, too.

    Parameters
    ----------
    files : dict of str to bytes
        Contents by ``desc`` and extension of their names.
    """

    files: dict[str, bytes] = field(default_factory=dict)

    def picture(self, name: str, image: NDArray[np.floating], words: str) -> Markup:
        """Return an image element with the picture inside.

        Parameters
        ----------
        name : str
            Letters and digits, for the ``desc`` of the file's name.
        image : ndarray, shape (H, W, 3)
            0 to 1.
        words : str
            What is to be seen.
        """
        pixels = np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)
        content = io.BytesIO()
        Pictures.fromarray(pixels).save(content, "WEBP", quality=_QUALITY, method=4)
        self.files[f"{name}.webp"] = content.getvalue()
        source = base64.b64encode(content.getvalue()).decode()
        return Markup(
            '<img width="{}" height="{}" alt="{}" src="data:image/webp;base64,{}">'
        ).format(image.shape[1], image.shape[0], words, source)

    def chart(self, name: str, drawn: Markup) -> Markup:
        """Keep a chart; return it as it is for the page."""
        style = f"<style>{asset('templates/chart.css')}</style>"
        alone = drawn.replace(">", f">{style}", 1)
        self.files[f"{name}.svg"] = f'<?xml version="1.0" encoding="UTF-8"?>\n{alone}\n'.encode()
        return drawn

"""One small picture of every run, from those that its own page wrote."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures

from bids_tractography.report.data import UNUSABLE, RunData

FIGURE = "thumbnail.webp"
"""What a run's page writes for the page of the study, by its ``desc``."""

_SOURCES = ("thumbnail", "viewL", "viewS", "directional", "density")
"""The first of them that a run has is shown; larger ones take longer to read."""
_TOTAL_CHARACTERS = 5_500_000
"""Of all pictures of a page, as base64."""
_SIDES = (160, 128, 104, 88, 72, 56, 40)
_CHARACTERS, _CHARACTERS_PER_PIXEL = 400, 0.25  # of dense tractograms, and a little more
_QUALITY = 70
_MAX_PIXELS = 40_000_000


def small_picture(image: NDArray[np.floating]) -> bytes:
    """Return the picture that a run's page keeps for the page of the study.

    Parameters
    ----------
    image : ndarray, shape (H, W, 3)
        0 to 1.
    """
    pixels = np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)
    return _shrunk(Pictures.fromarray(pixels), _SIDES[0])


def side_for(n_runs: int) -> int:
    """Return the edge of the pictures, in pixels, with which a page keeps its size."""
    each = _TOTAL_CHARACTERS / max(n_runs, 1) - _CHARACTERS
    return next((side for side in _SIDES if side**2 * _CHARACTERS_PER_PIXEL <= each), _SIDES[-1])


def thumbnail(folder: Path, name: str, side: int) -> str:
    """Return a small picture of a run as a data URI; empty if there is none.

    Parameters
    ----------
    folder : Path
        Directory of the participant or session.
    name : str
        Name of the run, e.g. ``sub-01_dir-AP``.
    side : int
        Largest edge in pixels.
    """
    for desc in _SOURCES:
        path = folder / "figures" / RunData(folder, name).figure(desc, ".webp")
        try:
            if path.is_file():
                content = base64.b64encode(_small(path, side)).decode()
                return f"data:image/webp;base64,{content}"
        except (*UNUSABLE, Pictures.DecompressionBombError):
            continue
    return ""


def _small(path: Path, side: int) -> bytes:
    with Pictures.open(path, formats=("WEBP",)) as picture:
        if picture.width * picture.height > _MAX_PIXELS:
            raise ValueError("too large")
        return _shrunk(picture, side)


def _shrunk(picture: Pictures.Image, side: int) -> bytes:
    small = picture.convert("RGB")
    small.thumbnail((side, side), Pictures.Resampling.BICUBIC, reducing_gap=2.0)
    content = io.BytesIO()
    small.save(content, "WEBP", quality=_QUALITY, method=2)
    return content.getvalue()

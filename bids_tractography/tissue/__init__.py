"""Fractions of white matter, grey matter and fluid on the grid of the DWI."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_tractography.config.tissue import T1wTissue, Tissue as TissueConfig
from bids_tractography.dwi import Dwi
from bids_tractography.errors import DataError, GridError
from bids_tractography.images import Grid, Image, read_image
from bids_tractography.inputs import TissueFiles
from bids_tractography.resample import resample
from bids_tractography.tissue.labels import read_labels
from bids_tractography.tissue.t1w import segment_t1w

__all__ = ["Tissue", "include_exclude", "make_tissue"]

logger = logging.getLogger(__name__)

Maps = dict[str, NDArray[np.float32]]

_TISSUES = ("wm", "gm", "csf")
_LEAST_INSIDE = 0.5
# Rounding and resampling overshoot a little; percentages and intensities by far.
_LARGEST = 1.01


@dataclass(frozen=True, eq=False)
class Tissue:
    """Tissue fractions.

    Parameters
    ----------
    maps : dict of str to ndarray of float32, shape (X, Y, Z)
        ``wm``, ``gm`` and ``csf``, from 0 to 1; together at most 1.
    source : str
        In words.
    record : dict
        How they were made, JSON values.
    sources : tuple of Path
    """

    maps: Maps
    source: str
    record: dict[str, Any]
    sources: tuple[Path, ...]


def make_tissue(
    config: TissueConfig,
    files: TissueFiles,
    dwi: Dwi,
    brain: NDArray[np.bool_],
    volume_fractions: Mapping[str, NDArray[np.float32]],
) -> Tissue:
    """Make tissue fractions from the source that a run has.

    Parameters
    ----------
    config : Tissue
    files : TissueFiles
    dwi : Dwi
    brain : ndarray of bool, shape (X, Y, Z)
    volume_fractions : mapping of str to ndarray, shape (X, Y, Z)
        ``wmvf``, ``gmvf`` and ``csfvf`` of a multi-tissue model; used where `files` has none.

    Raises
    ------
    DataError
        If a file holds no fractions or labels of tissue.
    GridError
        If tissue and DWI are not of one head in one place.
    """
    paths, details = tuple(files.files.values()), dict[str, Any]()
    match files.kind:
        case "probseg" | "files":
            maps = {t: _fraction(read_image(files.files[t], ndim=3), dwi.grid, files.files[t])
                    for t in _TISSUES}
            source = "fractions of the datasets"
        case "dseg":
            maps, details = read_labels(paths[0], dwi.grid)
            source = f"the labels of {paths[0].name}"
        case "5tt":
            maps, source = _five_tissue_types(paths[0], dwi.grid), f"5TT image {paths[0].name}"
        case "t1w":
            least = config.least_overlap if isinstance(config, T1wTissue) else None
            maps, details = segment_t1w(paths[0], dwi, brain, least)
            source = f"{paths[0].name}, aligned with the DWI and segmented"
        case _:
            maps = {t: volume_fractions[f"{t}vf"] for t in _TISSUES}
            source = "the volume fractions of the DWI's own model"
    maps = _at_most_one(maps)
    inside = _share_inside(maps, brain)
    logger.info("Tissue is from %s; %.0f %% of it lies in the brain.", source, 100 * inside)
    if inside < _LEAST_INSIDE:
        raise GridError(
            f"only {inside:.0%} of the white and grey matter from {source} lies in the brain of "
            "the DWI.",
            "They must be aligned: give images in the space of the DWI, or use tissue.kind=t1w.",
        )
    record = {"kind": files.kind, "share_inside_brain": round(inside, 4), **details}
    return Tissue(maps, source, record, paths)


def include_exclude(
    wm: NDArray[np.float32], gm: NDArray[np.float32], csf: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return where streamlines end well, and where badly (Girard 2014).

    They end well in grey matter, and where there is no tissue at all: outside of the head, or
    of the field of view at the spinal cord.
    """
    nothing = (wm + gm + csf) <= 0
    return np.where(nothing, np.float32(1), gm), csf


def _fraction(image: Image, grid: Grid, path: Path) -> NDArray[np.float32]:
    low, high = float(image.data.min()), float(image.data.max())
    if low < 1 - _LARGEST or high > _LARGEST:
        raise DataError(
            f"{path} has values from {low:.3g} to {high:.3g}; fractions are from 0 to 1.",
            "Divide percentages by 100.",
        )
    return np.clip(resample(image, grid, nearest=False), 0, 1)


def _five_tissue_types(path: Path, grid: Grid) -> Maps:
    """Read cortical and deep grey matter, white matter, fluid, and what is pathological."""
    image = read_image(path, ndim=4)
    if image.data.shape[3] != 5:
        raise DataError(f"{path} has {image.data.shape[3]} volumes; a 5TT image has 5.")
    cortex, deep, wm, csf, pathological = (
        _fraction(Image(image.data[..., volume], image.grid), grid, path) for volume in range(5)
    )
    # Streamlines may pass what is pathological, and end nowhere in it: so they do in white matter.
    return {"wm": wm + pathological, "gm": cortex + deep, "csf": csf}


def _at_most_one(maps: Maps) -> Maps:
    """Scale voxels down whose fractions come to more than one."""
    total = np.maximum(sum(maps[t].astype(np.float64) for t in _TISSUES), 1)
    return {t: (maps[t] / total).astype(np.float32) for t in _TISSUES}


def _share_inside(maps: Maps, brain: NDArray[np.bool_]) -> float:
    matter = maps["wm"].astype(np.float64) + maps["gm"]
    if matter.sum() == 0:
        return 0.0
    return float(matter[brain].sum() / matter.sum())

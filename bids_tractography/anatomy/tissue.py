"""Fractions of white matter, grey matter and CSF on the grid of the DWI."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from bids_tractography.anatomy.labels import tissues_of_labels
from bids_tractography.anatomy.t1w import fractions_of_t1w
from bids_tractography.config.tissue import T1wTissueConfig, TissueConfig
from bids_tractography.core.dwi import Dwi
from bids_tractography.core.images import Grid, Image, read_image
from bids_tractography.core.resample import on_grid, resample
from bids_tractography.core.tissue import TISSUES, TissueSource
from bids_tractography.errors import DataError

Fractions = Mapping[str, NDArray[np.float32]]

# Tolerances for files with fractions in 8 or 16 bits, and for spline interpolation.
_RANGE_TOLERANCE = 0.01
_SUM_TOLERANCE = 1e-3
_MAX_SHIFT_MM = 30.0


@dataclass(frozen=True, eq=False)
class Tissue:
    """Tissue fractions and their provenance.

    Parameters
    ----------
    wm, gm, csf : ndarray of float32, shape (X, Y, Z)
        Fractions of each voxel, from 0 to 1; their sum is at most 1.
    source : str
        Kind of source: ``probseg``, ``dseg``, ``5tt``, ``t1w``, ``dwi`` or ``files``.
    record : dict
        How the fractions were computed, JSON values.
    sources : tuple of Path
        Files of the source.
    figures : mapping of str to float
        Measurements to check for plausibility, see `checks.QUANTITIES`.
    warnings : tuple of str
        Doubts about the fractions.
    """

    wm: NDArray[np.float32]
    gm: NDArray[np.float32]
    csf: NDArray[np.float32]
    source: str
    record: dict[str, Any]
    sources: tuple[Path, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _RawFractions:
    """Fractions of a source before they are checked."""

    fractions: Fractions
    record: dict[str, Any]
    sources: tuple[Path, ...]
    warnings: tuple[str, ...] = ()


def make_tissue(
    config: TissueConfig,
    source: TissueSource,
    dwi: Dwi,
    brain: NDArray[np.bool_],
    fractions_from_model: Fractions | None = None,
) -> Tissue:
    """Compute tissue fractions on the grid of the DWI.

    Parameters
    ----------
    config : TissueConfig
            Section ``tissue`` of the configuration.
        source : TissueSource
            Chosen source of the fractions.
    dwi : Dwi
        The diffusion-weighted image.
    brain : ndarray of bool, shape (X, Y, Z)
        Brain mask of the DWI.
    fractions_from_model : mapping of str to ndarray of float32, shape (X, Y, Z), optional
        Fractions ``wm``, ``gm`` and ``csf`` of multi-tissue deconvolution.

    Raises
    ------
    DataError
        If values are not fractions.
    GridError
        If a T1w image cannot be registered.
    """
    kind, paths = source.kind, source.paths
    min_overlap = (
        config.min_overlap if isinstance(config, T1wTissueConfig) else T1wTissueConfig().min_overlap
    )
    if kind == "dwi":
        raw = _RawFractions(dict(fractions_from_model or {}), {}, ())
    elif kind == "t1w":
        fractions, record, warnings = fractions_of_t1w(paths, dwi, brain, min_overlap)
        raw = _RawFractions(fractions, record, paths, warnings)
    else:
        raw = _READERS[kind](paths, dwi.grid, brain)
    fractions = _checked(raw)
    return Tissue(
        **fractions,
        source=kind,
        record={"kind": kind, **raw.record},
        sources=raw.sources,
        figures=_overlap(fractions, brain),
        warnings=raw.warnings,
    )


def _from_maps(paths: tuple[Path, ...], grid: Grid, brain: NDArray[np.bool_]) -> _RawFractions:
    images = [read_image(path, ndim=3) for path in paths]
    for path, image in zip(paths, images, strict=True):
        _check_range(image.data, str(path))
    maps = [
        on_grid(image, path, grid, brain, nearest=False)
        for path, image in zip(paths, images, strict=True)
    ]
    resampled = not all(image.grid.matches(grid) for image in images)
    return _RawFractions(dict(zip(TISSUES, maps, strict=True)), {"resampled": resampled}, paths)


def _from_labels(paths: tuple[Path, ...], grid: Grid, _brain: NDArray[np.bool_]) -> _RawFractions:
    image = read_image(paths[0], ndim=3)
    masks, scheme, _ = tissues_of_labels(image, paths[0])
    fractions = {
        tissue: resample(Image(mask.astype(np.float32), image.grid), grid, nearest=False)
        for tissue, mask in masks.items()
    }
    record = {"labels": scheme, "resampled": not image.grid.matches(grid)}
    return _RawFractions(fractions, record, paths)


def _from_5tt(paths: tuple[Path, ...], grid: Grid, brain: NDArray[np.bool_]) -> _RawFractions:
    image = read_image(paths[0], ndim=4)
    if image.data.shape[3] != 5:
        raise DataError(
            f"{paths[0]} has {image.data.shape[3]} volumes; a 5TT image has five: cortical grey "
            "matter, deep grey matter, white matter, CSF and pathological tissue.",
            "Create it with 5ttgen.",
        )
    _check_range(image.data, str(paths[0]))
    cortical, deep, white, csf, pathological = np.moveaxis(
        on_grid(image, paths[0], grid, brain, nearest=False), 3, 0
    )
    fractions = {"wm": white + pathological, "gm": cortical + deep, "csf": csf}
    record = {"resampled": not image.grid.matches(grid), "pathological_as": "wm"}
    return _RawFractions(fractions, record, paths)


_READERS: dict[str, Callable[[tuple[Path, ...], Grid, NDArray[np.bool_]], _RawFractions]] = {
    "probseg": _from_maps,
    "files": _from_maps,
    "dseg": _from_labels,
    "5tt": _from_5tt,
}


def _check_range(data: NDArray[np.float32], name: str) -> None:
    low, high = float(data.min()), float(data.max())
    if low < -_RANGE_TOLERANCE or high > 1 + _RANGE_TOLERANCE:
        raise DataError(
            f"{name}: fractions must be between 0 and 1; these range from {low:g} to {high:g}.",
            "Divide percentages by 100, and 8-bit maps by 255.",
        )


def _checked(raw: _RawFractions) -> dict[str, NDArray[np.float32]]:
    """Clip fractions to [0, 1], and divide them by their sum if it is more than 1."""
    fractions = {t: np.clip(raw.fractions[t], 0, 1).astype(np.float32) for t in TISSUES}
    total = fractions["wm"] + fractions["gm"] + fractions["csf"]
    scale = np.where(total > 1 + _SUM_TOLERANCE, np.maximum(total, 1), np.float32(1))
    return {t: np.asarray(fraction / scale, np.float32) for t, fraction in fractions.items()}


def _overlap(fractions: Fractions, brain: NDArray[np.bool_]) -> dict[str, float]:
    """Return the share of white and grey matter in the brain, and the brain's share of tissue."""
    matter = fractions["wm"].astype(np.float64) + fractions["gm"]
    filled = (matter + fractions["csf"])[brain].sum() / max(np.count_nonzero(brain), 1)
    return {
        "tissue_in_brain": float(matter[brain].sum() / max(matter.sum(), 1e-9)),
        "brain_with_tissue": float(filled),
    }


def displacement_mm(
    wm: NDArray[np.float32], fa: NDArray[np.float32], brain: NDArray[np.bool_], grid: Grid
) -> float:
    """Measure the displacement of white matter from regions of high anisotropy.

    Parameters
    ----------
    wm : ndarray, shape (X, Y, Z)
        Fraction of white matter.
    fa : ndarray, shape (X, Y, Z)
        Fractional anisotropy.
    brain : ndarray of bool, shape (X, Y, Z)
        Brain mask.
    grid : Grid
        Grid of the maps.

    Returns
    -------
    float
        Length of the shift that maximises the correlation of the two, in mm. Shifts are whole
        voxels along the axes, up to 30 mm.
    """
    where = np.argwhere(brain)
    box = tuple(slice(low, high + 1) for low, high in zip(where.min(0), where.max(0), strict=True))
    inside = brain[box]
    margins = np.minimum(np.ceil(_MAX_SHIFT_MM / grid.voxel_size_mm).astype(int), inside.shape)
    fields = (
        np.where(inside, values[box] - values[brain].mean(), np.float32(0)) for values in (fa, wm)
    )
    # Padding by the maximum shift prevents the transform from wrapping around.
    shape = [size + int(margin) for size, margin in zip(inside.shape, margins, strict=True)]
    first, second = (fft.rfftn(field, shape, axes=(0, 1, 2)) for field in fields)
    correlation = fft.irfftn(first * np.conj(second), shape, axes=(0, 1, 2))
    shifts = [np.arange(-margin, margin + 1) for margin in margins]
    near = correlation[np.ix_(*shifts)]
    best = np.unravel_index(int(near.argmax()), near.shape)
    shift = [int(along[at]) for along, at in zip(shifts, best, strict=True)]
    return float(np.linalg.norm(shift * grid.voxel_size_mm))


def include_exclude(
    wm: NDArray[np.float32], gm: NDArray[np.float32], csf: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the maps in which streamlines end validly and invalidly (Smith 2012, Girard 2014).

    `include` is grey matter, and 1 outside all tissue, because streamlines may leave the brain,
    e.g. through the brain stem. `exclude` is CSF.

    Parameters
    ----------
    wm, gm, csf : ndarray, shape (X, Y, Z)
        Tissue fractions.

    Returns
    -------
    include, exclude : ndarray of float32, shape (X, Y, Z)
    """
    outside = wm + gm + csf == 0
    return np.where(outside, np.float32(1), gm), csf.copy()

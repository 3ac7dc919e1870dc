"""Masks as defined in the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_tractography.config import masks as define
from bids_tractography.config.files import FileConfig
from bids_tractography.config.section import Section, sections_in
from bids_tractography.core.images import Grid, read_image, read_shape
from bids_tractography.core.resample import read_on_grid
from bids_tractography.errors import DataError, EmptyMaskError

TISSUE_WORDS = {"wm": "white matter", "gm": "grey matter", "csf": "cerebrospinal fluid"}


@dataclass(frozen=True, eq=False)
class Mask:
    """A mask and its provenance.

    Parameters
    ----------
    data : ndarray of bool, shape (X, Y, Z)
    description : str
        Human-readable description.
    record : dict
        Definition with resolved values, JSON values.
    parents : tuple of str
        Sources: maps by name, files by the key of the configuration that names them.
    warnings : tuple of str
        Doubts about the mask.
    """

    data: NDArray[np.bool_]
    description: str
    record: dict[str, Any]
    parents: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def n_voxels(self) -> int:
        """Number of voxels in the mask."""
        return int(np.count_nonzero(self.data))


@dataclass(frozen=True, eq=False)
class Sources:
    """Images that masks are computed from.

    Parameters
    ----------
    grid : Grid
        Grid of the DWI and of every mask.
    maps : mapping of str to ndarray, shape (X, Y, Z)
        Scalar maps of the fit and, if required, tissue fractions (``wm gm csf``).
    brain : ndarray of bool, shape (X, Y, Z)
        Brain mask, which restricts thresholds of these maps.
    files : mapping of str to Path
        Files named in the configuration, by key.
    """

    grid: Grid
    maps: Mapping[str, NDArray[np.float32]]
    brain: NDArray[np.bool_]
    files: Mapping[str, Path]

    def map(self, source: str | FileConfig, key: str) -> tuple[NDArray[np.float32], str, str]:
        """Return a map on the grid of the DWI, its name, and its source."""
        if isinstance(source, str):
            return self.maps[source], source.upper(), source
        path = self.files[key]
        return read_on_grid(path, self.grid, self.brain, nearest=False), path.name, key

    def labels(self, key: str) -> NDArray[np.float32]:
        """Return the values of a file on the grid of the DWI, by nearest neighbour."""
        nowhere = np.zeros_like(self.brain)  # a voxel without a value is outside every region
        return read_on_grid(self.files[key], self.grid, nowhere, nearest=True)


def make_mask(config: define.MaskConfig, sources: Sources, key: str) -> Mask:
    """Compute a mask from its definition.

    Parameters
    ----------
    config : MaskConfig
        Definition of the mask.
    sources : Sources
        Images to compute it from.
    key : str
        Dotted path of the definition in the configuration.

    Raises
    ------
    EmptyMaskError
        If the mask is empty.
    """
    return not_empty(_make(config, sources, key), key)


def _make(config: define.MaskConfig, sources: Sources, key: str) -> Mask:
    record: dict[str, Any] = {"kind": config.kind}
    match config:
        case define.FullMaskConfig():
            return Mask(np.ones(sources.grid.shape, bool), "every voxel", record)
        case define.BrainMaskConfig():
            return Mask(sources.brain, "the brain", record, ("brain",))
        case define.FileMaskConfig():
            data, warnings = positive(sources.labels(key), sources.files[key].name)
            text = f"voxels above 0 of {sources.files[key].name}"
            return Mask(data, text, record, (key,), warnings)
        case define.RoiMaskConfig(files=files):
            keys = tuple(f"{key}.files.{index}" for index in range(len(files)))
            parts = [positive(sources.labels(one), sources.files[one].name) for one in keys]
            names = ", ".join(sources.files[one].name for one in keys)
            text = f"voxels above 0 of any of {names}"
            warnings = tuple(warning for _, several in parts for warning in several)
            return Mask(np.any([part for part, _ in parts], axis=0), text, record, keys, warnings)
        case define.LabelsMaskConfig():
            return _labels(config, sources, key)
        case define.ThresholdMaskConfig():
            return _threshold(config, sources, key)
        case define.TissueMaskConfig(tissue=tissue, above=above):
            text = f"voxels with a fraction of {TISSUE_WORDS[tissue]} > {above:g}"
            record |= {"tissue": tissue, "above": above}
            return Mask(sources.maps[tissue] > above, text, record, (tissue,))
        case define.InterfaceMaskConfig(above=above):
            data = interface(sources.maps["wm"], sources.maps["gm"], above)
            text = f"white matter next to grey matter, both with fractions > {above:g}"
            return Mask(data, text, {**record, "above": above}, ("wm", "gm"))
        case define.NotMaskConfig(of=inner):
            mask = _make(inner, sources, f"{key}.of")
            text = f"all but ({mask.description})"
            return Mask(
                ~mask.data, text, {**record, "of": mask.record}, mask.parents, mask.warnings
            )
        case define.AnyMaskConfig(of=several) | define.AllMaskConfig(of=several):
            return _combine(
                config.kind,
                [_make(one, sources, f"{key}.of.{index}") for index, one in enumerate(several)],
            )


def _combine(kind: str, masks: list[Mask]) -> Mask:
    """Return the union or intersection of masks."""
    combine, word = (np.logical_or, "or") if kind == "any" else (np.logical_and, "and")
    data = reduce(combine, (mask.data for mask in masks))
    text = f" {word} ".join(f"({mask.description})" for mask in masks)
    parents = dict.fromkeys(parent for mask in masks for parent in mask.parents)
    record = {"kind": kind, "of": [mask.record for mask in masks]}
    warnings = dict.fromkeys(warning for mask in masks for warning in mask.warnings)
    return Mask(np.asarray(data), text, record, tuple(parents), tuple(warnings))


def two_valued(data: NDArray[np.float32], name: str) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Threshold values at half their maximum.

    Interpolation and compression add other values to the two of a mask.

    Parameters
    ----------
    data : ndarray
        Values of a mask.
    name : str
        Name of the image, for the warning.

    Returns
    -------
    mask : ndarray of bool, shape of `data`
    warnings : tuple of str
        A warning if there are more than two values.
    """
    largest = np.float32(max(float(data.max()), 0.0))
    n_other = int(np.count_nonzero((data != 0) & (data != largest)))
    mask = np.asarray(data > largest / 2)
    if not n_other:
        return mask, ()
    warning = (
        f"{name} is not binary ({n_other} voxels are neither 0 nor {largest:g}): voxels above "
        f"half the maximum are in the mask."
    )
    return mask, (warning,)


def positive(data: NDArray[np.float32], name: str) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Return labels above zero as a mask; values that are not labels as in `two_valued`."""
    if np.array_equal(data, np.round(data)):
        return np.asarray(data > 0), ()
    return two_valued(data, name)


def _labels(config: define.LabelsMaskConfig, sources: Sources, key: str) -> Mask:
    labels = sources.labels(key)
    data = np.isin(labels, config.include) if config.include else labels > 0
    if config.exclude:
        data &= ~np.isin(labels, config.exclude)
    which = f"labels {list(config.include)}" if config.include else "all labels"
    without = f" but {list(config.exclude)}" if config.exclude else ""
    text = f"{which}{without} of {sources.files[key].name}"
    record = {"kind": "labels", "include": [*config.include], "exclude": [*config.exclude]}
    return Mask(data, text, record, (key,))


def _threshold(config: define.ThresholdMaskConfig, sources: Sources, key: str) -> Mask:
    values, name, parent = sources.map(config.map, f"{key}.map")
    of_fit = isinstance(config.map, str)
    data = sources.brain.copy() if of_fit else np.ones(values.shape, bool)
    record: dict[str, Any] = {"kind": "threshold", "map": name}
    bounds = []
    for sign, bound in ((">", config.above), ("<", config.below)):
        if bound is None:
            continue
        value = resolve(bound, config.percentile, values, sources.brain, key)
        data &= values > value if sign == ">" else values < value
        word = "above" if sign == ">" else "below"
        record[word] = value
        if config.percentile:
            record[f"{word}_percentile"] = bound
        bounds.append(f"{name} {sign} {value:g}")
    domain = "voxels of the brain" if of_fit else "voxels"
    return Mask(
        data,
        f"{domain} where {' and '.join(bounds)}",
        record,
        (parent, "brain") if of_fit else (parent,),
    )


def resolve(
    bound: float,
    percentile: bool,
    values: NDArray[np.float32],
    brain: NDArray[np.bool_],
    key: str,
) -> float:
    """Return the value of a threshold, resolving a percentile of the brain's non-zero voxels.

    Parameters
    ----------
    bound : float
        Threshold, or percentile from 0 to 100.
    percentile : bool
        Whether `bound` is a percentile.
    values : ndarray, shape (X, Y, Z)
        The map.
    brain : ndarray of bool, shape (X, Y, Z)
        Brain mask.
    key : str
        Dotted path of the key, for the message.

    Raises
    ------
    EmptyMaskError
        If a percentile is required and the map is zero in the whole brain.
    """
    if not percentile:
        return bound
    values = values[brain & (values != 0)]
    if values.size == 0:
        raise EmptyMaskError(
            f"{key}: the percentile is undefined, because the map is zero in the whole brain."
        )
    return float(np.percentile(values.astype(np.float64), bound))


def interface(wm: NDArray[np.float32], gm: NDArray[np.float32], above: float) -> NDArray[np.bool_]:
    """Return white-matter voxels that contain or touch grey matter (six neighbours).

    Parameters
    ----------
    wm, gm : ndarray, shape (X, Y, Z)
        Fractions of white and grey matter.
    above : float
        Threshold of both fractions.
    """
    return np.asarray((wm > above) & ndimage.binary_dilation(gm > above))


def check_files(config: Section, files: Mapping[str, Path]) -> None:
    """Check that files match their definitions before anything is computed.

    Raises
    ------
    DataError
        If a label or a dimension is missing, or a file cannot be read.
    """
    for key, section in sections_in(config):
        if isinstance(section, define.LabelsMaskConfig):
            there = np.unique(read_image(files[key], ndim=3).data).astype(int)
            absent = sorted({*section.include, *section.exclude} - set(there.tolist()))
            if absent:
                raise DataError(
                    f"{key}: {files[key]} has no label {', '.join(map(str, absent))}.",
                    f"Its labels: {', '.join(str(label) for label in there[:30])}"
                    f"{' ...' if len(there) > 30 else ''}.",
                )
        elif isinstance(section, FileConfig) and files[key].name.endswith((".nii", ".nii.gz")):
            shape, wanted = read_shape(files[key]), section.n_dimensions
            if len(shape) != wanted:
                raise DataError(
                    f"{key}: {files[key]} has {len(shape)} dimensions {shape}; {wanted} are "
                    "required."
                )


def not_empty(mask: Mask, name: str) -> Mask:
    """Return the mask if it is not empty.

    Raises
    ------
    EmptyMaskError
        If it is empty.
    """
    if mask.n_voxels == 0:
        raise EmptyMaskError(
            f"{name} is empty. ({mask.description})",
            "Lower its threshold, or check the map or file that it is computed from.",
        )
    return mask

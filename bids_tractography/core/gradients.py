"""b-values and b-vectors: reading, validation and rotation into RAS+ scanner axes.

Three conventions for the axes of b-vectors are in use, and no file states which one it follows:

``fsl``
    Along the axes of the image as stored, with x negated if the determinant of the affine is
    positive. BIDS adopts this convention.
``image``
    Along the axes of the image as stored, without that negation. QSIPrep writes this convention
    (PennLINC/qsiprep#530, #592).
``scanner``
    RAS+ scanner axes. MRtrix3's gradient tables (``.b``) use this convention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from dipy.core.gradients import GradientTable, gradient_table
from numpy.typing import NDArray

from bids_tractography.config.model import FrameName, GradientsConfig
from bids_tractography.core.images import Grid, nearest_rotation
from bids_tractography.core.tables import read_table
from bids_tractography.errors import ConfigError, GradientError, NoInputError

# b-vectors are stored with 3 to 6 decimals, so a larger deviation from 1 is not due to rounding.
_UNIT_TOLERANCE = 0.02
# About 2.5 degrees: motion correction rotates repeated directions by less.
_SAME_AXIS_COSINE = 0.999
# The largest b-value of any scheme in s/mm² is in this range; in ms/µm² or s/m² it is not.
_LARGEST_B_RANGE_S_MM2 = (100, 1e5)
_UNIT_REMEDY = "BIDS requires b-values in s/mm²: 1000, not 1 (ms/µm²) or 1e9 (s/m²)."
# Two files with the same directions differ by rounding, or by the small rotation of an axis that
# one program applied to both; a wrong axis or sign differs by tens of degrees.
_SAME_DIRECTION_DEG = 2.0
# Pipelines that write b-vectors along the image axes (PennLINC/qsiprep#530).
_ALONG_IMAGE_AXES = ("qsiprep", "ingress2qsirecon")
_SAME_B_SHARE, _SAME_B_S_MM2 = 0.02, 20.0


@dataclass(frozen=True, eq=False)
class Shell:
    """Volumes that share a b-value.

    Parameters
    ----------
    b_s_mm2 : float
        Mean b-value.
    volumes : ndarray of int, shape (n,)
        Indices of the volumes in the image.
    n_directions : int
        Number of distinct axes; repeated volumes do not add any.
    """

    b_s_mm2: float
    volumes: NDArray[np.intp]
    n_directions: int


@dataclass(frozen=True, eq=False)
class Gradients:
    """Diffusion weighting of each volume.

    Parameters
    ----------
    bvals : ndarray, shape (V,)
        b-values in s/mm².
    directions : ndarray, shape (V, 3)
        Unit vectors in RAS+ scanner axes; zero for b=0.
    b0_threshold_s_mm2 : float
        Volumes with this b-value or less count as b=0.
    shell_gap_s_mm2 : float or "auto"
        Minimum gap between sorted b-values of different shells.
    axes : ndarray, shape (3, 3)
        Orthogonal matrix from vectors as stored in their file to scanner axes.
    record : dict
        Source and frame of the directions, JSON values.
    """

    bvals: NDArray[np.float64]
    directions: NDArray[np.float64]
    b0_threshold_s_mm2: float
    shell_gap_s_mm2: float | Literal["auto"]
    axes: NDArray[np.float64] = field(default_factory=lambda: np.eye(3))
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def b0_volumes(self) -> NDArray[np.intp]:
        """Indices of the volumes without diffusion weighting."""
        return np.flatnonzero(self.bvals <= self.b0_threshold_s_mm2)

    @property
    def shells(self) -> tuple[Shell, ...]:
        """Diffusion-weighted shells, innermost first."""
        weighted = np.flatnonzero(self.bvals > self.b0_threshold_s_mm2)
        order = weighted[np.argsort(self.bvals[weighted], kind="stable")]
        values = self.bvals[order]
        gap = self.shell_gap_s_mm2
        # The spread of b-values within a shell grows with the b-value.
        jumps = np.diff(values) > (np.maximum(100, 0.1 * values[:-1]) if gap == "auto" else gap)
        groups = np.split(order, np.flatnonzero(jumps) + 1)
        return tuple(
            Shell(
                float(self.bvals[group].mean()),
                np.sort(group),
                count_axes(self.directions[group]),
            )
            for group in groups
            if group.size
        )

    def table(self, volumes: NDArray[np.intp]) -> GradientTable:
        """Return DIPY's gradient table of the given volumes, with directions in scanner axes."""
        bvals = np.where(self.bvals[volumes] <= self.b0_threshold_s_mm2, 0, self.bvals[volumes])
        return gradient_table(bvals, bvecs=self.directions[volumes], b0_threshold=0)


def count_axes(directions: NDArray[np.float64]) -> int:
    """Count the distinct axes among unit vectors (n, 3); antipodes share an axis."""
    same = np.abs(directions @ directions.T) > _SAME_AXIS_COSINE
    distinct = 0
    left = np.ones(len(directions), bool)
    while left.any():
        distinct += 1
        left &= ~same[int(np.argmax(left))]
    return distinct


@dataclass(frozen=True)
class GradientFiles:
    """Files with the diffusion weighting of an image.

    Parameters
    ----------
    bval, bvec : Path or None
        FSL's text files.
    table : Path or None
        MRtrix3's gradient table (``.b``) with a row ``x y z b`` for each volume.
    """

    bval: Path | None = None
    bvec: Path | None = None
    table: Path | None = None


@dataclass(frozen=True)
class Frame:
    """Axes that the b-vectors of a file refer to.

    Parameters
    ----------
    kind : {"fsl", "image", "scanner"}
    reason : str
        Reason for the choice, for the log and the sidecar.
    """

    kind: FrameName
    reason: str

    def axes(self, grid: Grid) -> NDArray[np.float64]:
        """Return the matrix from vectors in the file to RAS+ scanner axes, shape (3, 3)."""
        if self.kind == "scanner":
            return np.eye(3)
        rotation = nearest_rotation(grid.stored_affine)
        if self.kind == "fsl" and np.linalg.det(grid.stored_affine[:3, :3]) > 0:
            return rotation @ np.diag([-1.0, 1.0, 1.0])
        return rotation


FRAMES: tuple[FrameName, ...] = ("image", "fsl", "scanner")
FSL = Frame("fsl", "BIDS adopts FSL's convention")


def choose_frame(
    wanted: FrameName | Literal["auto"], files: GradientFiles, generated_by: Sequence[str]
) -> Frame:
    """Choose the frame of the b-vectors without opening a file.

    Parameters
    ----------
    wanted : str
        ``gradients.frame`` of the configuration.
    files : GradientFiles
    generated_by : sequence of str
        Names of the pipelines that generated the dataset.


    Raises
    ------
    NoInputError
        If the files are incomplete.
    ConfigError
        If the configured frame contradicts the only file.
    """
    complete = files.bval is not None and files.bvec is not None
    if files.table is None and not complete:
        missing = [e for e in (".bval", ".bvec") if getattr(files, e[1:]) is None]
        raise NoInputError(f"the image has no {' and no '.join(missing)} file, and no .b file.")
    if wanted != "auto":
        if not complete and wanted != "scanner":
            raise ConfigError(
                f"gradients.frame is {wanted}, but the only gradients are those of "
                f"{files.table}, which are in scanner axes."
            )
        return Frame(wanted, "gradients.frame of the configuration")
    if files.table is not None:
        return Frame("scanner", f"{files.table.name} is a gradient table in scanner axes")
    for name in generated_by:
        if any(pipeline in name.lower() for pipeline in _ALONG_IMAGE_AXES):
            return Frame("image", f"the dataset was generated by {name}")
    return FSL


def read_gradients(
    files: GradientFiles,
    grid: Grid,
    n_volumes: int,
    config: GradientsConfig,
    frame: Frame = FSL,
) -> Gradients:
    """Read the diffusion weighting of an image and rotate it into RAS+ scanner axes.

    A gradient table (``.b``) takes precedence unless the configuration sets a frame. The ``.bval``
    and ``.bvec`` next to it must then agree with it in one of the three frames.

    Parameters
    ----------
    files : GradientFiles
    grid : Grid
        Grid of the image.
    n_volumes : int
        Number of volumes of the image.
    config : GradientsConfig
        b=0 threshold, gap between shells and permutation.
    frame : Frame
        Axes of the b-vectors, see `choose_frame`.

    Raises
    ------
    NoInputError
        If a file cannot be read.
    GradientError
        If the files are malformed, contradict the image or each other, or are not a valid gradient
        scheme.
    """
    complete = files.bval is not None and files.bvec is not None
    of_table = files.table is not None and (config.frame == "auto" or not complete)
    record: dict[str, Any] = {"frame": frame.kind, "frame_reason": frame.reason}
    threshold = config.b0_threshold_s_mm2
    if of_table and files.table is not None:
        bvals, vectors = _read_table(files.table, n_volumes, threshold)
        record["file"] = files.table.name
        if files.bval is not None and files.bvec is not None:
            others = _read_fsl(files.bval, files.bvec, n_volumes, threshold)
            record["bvec_agrees_as"] = _agreeing(files, grid, (bvals, vectors), others, threshold)
    elif files.bval is not None and files.bvec is not None:
        bvals, vectors = _read_fsl(files.bval, files.bvec, n_volumes, threshold)
        record["file"] = files.bvec.name
    else:
        raise NoInputError("the image has no .bval and .bvec, and no .b file.")
    axes = frame.axes(grid)
    if config.permute is not None:
        vectors = vectors @ permutation_matrix(config.permute).T
        record["permute"] = list(config.permute)
    directions = vectors @ axes.T
    norms = np.linalg.norm(directions, axis=1, keepdims=True)
    directions = np.divide(directions, norms, out=np.zeros_like(directions), where=norms > 0)
    return Gradients(bvals, directions, threshold, config.shell_gap_s_mm2, axes, record)


_Scheme = tuple[NDArray[np.float64], NDArray[np.float64]]


def _read_fsl(bval: Path, bvec: Path, n_volumes: int, b0_threshold_s_mm2: float) -> _Scheme:
    """Read and validate b-values (V,) and vectors (V, 3) in FSL's format."""
    bvals = read_table(bval, GradientError)
    if min(bvals.shape) > 1:
        raise GradientError(f"{bval} has {bvals.shape[0]} rows; expected one.")
    bvals = bvals.ravel()
    bvecs = read_table(bvec, GradientError)
    _check_counts(bval, bvals, bvec, bvecs, n_volumes)
    return _checked(bval, bvals, bvec, bvecs.T, b0_threshold_s_mm2)


def _read_table(path: Path, n_volumes: int, b0_threshold_s_mm2: float) -> _Scheme:
    """Read and validate b-values (V,) and vectors (V, 3) of MRtrix3's gradient table."""
    rows = read_table(path, GradientError)
    if rows.shape[1] != 4:
        raise GradientError(
            f"{path} has {rows.shape[1]} columns; a gradient table has four (x, y, z, b)."
        )
    if len(rows) != n_volumes:
        raise GradientError(f"{path} has {len(rows)} rows, but the image has {n_volumes} volumes.")
    return _checked(path, rows[:, 3], path, rows[:, :3], b0_threshold_s_mm2)


def _agreeing(
    files: GradientFiles,
    grid: Grid,
    table: _Scheme,
    others: _Scheme,
    b0_threshold_s_mm2: float,
) -> list[str]:
    """Return the frames in which the ``.bvec`` agrees with the gradient table.

    Raises
    ------
    GradientError
        If the b-values differ, or the directions differ in every frame.
    """
    bvals, directions = table
    other_bvals, vectors = others
    both = f"{files.table} and {files.bval or files.bvec}"
    if (np.abs(bvals - other_bvals) > np.maximum(_SAME_B_SHARE * bvals, _SAME_B_S_MM2)).any():
        raise GradientError(
            f"{both} have different b-values.",
            "Remove the file that does not belong to the image, or set gradients.frame to use "
            "the .bval and .bvec.",
        )
    weighted = bvals > b0_threshold_s_mm2
    cosine = np.cos(np.deg2rad(_SAME_DIRECTION_DEG))
    agreeing: list[str] = []
    for kind in FRAMES:
        turned = vectors @ Frame(kind, "").axes(grid).T
        lengths = np.linalg.norm(turned, axis=1) * np.linalg.norm(directions, axis=1)
        products = np.abs((turned * directions).sum(axis=1))[weighted]
        if (products > cosine * lengths[weighted]).all():
            agreeing.append(kind)
    if not agreeing:
        raise GradientError(
            f"{files.table} and {files.bvec} contradict each other: the directions differ "
            "whether the .bvec is read along image axes, by FSL's convention or along scanner "
            "axes.",
            "Remove the wrong file, or set gradients.frame to image, fsl or scanner to use "
            "the .bvec.",
        )
    return agreeing


def _checked(
    bval_path: Path,
    bvals: NDArray[np.float64],
    bvec_path: Path,
    vectors: NDArray[np.float64],
    b0_threshold_s_mm2: float,
) -> _Scheme:
    # b=0 volumes may have any vector, even NaN.
    vectors = np.where((bvals > b0_threshold_s_mm2)[:, None], vectors, 0.0)
    _check_values(bval_path, bvals, bvec_path, vectors, b0_threshold_s_mm2)
    return bvals, vectors


def _check_counts(
    bval_path: Path,
    bvals: NDArray[np.float64],
    bvec_path: Path,
    bvecs: NDArray[np.float64],
    n_volumes: int,
) -> None:
    if bvals.size != n_volumes:
        raise GradientError(
            f"{bval_path} has {bvals.size} b-values, but the image has {n_volumes} volumes."
        )
    if bvecs.shape == (n_volumes, 3) and n_volumes != 3:
        raise GradientError(
            f"{bvec_path} has {n_volumes} rows of 3 numbers: it is transposed.",
            "BIDS requires 3 rows (x, y, z) with one column for each volume.",
        )
    if bvecs.shape[0] != 3:
        raise GradientError(f"{bvec_path} has {bvecs.shape[0]} rows; expected 3 (x, y, z).")
    if bvecs.shape[1] != n_volumes:
        raise GradientError(
            f"{bvec_path} has {bvecs.shape[1]} b-vectors, but the image has {n_volumes} volumes."
        )


def _check_values(
    bval_path: Path,
    bvals: NDArray[np.float64],
    bvec_path: Path,
    bvecs: NDArray[np.float64],
    b0_threshold_s_mm2: float,
) -> None:
    weighted = bvals > b0_threshold_s_mm2
    if not np.isfinite(bvals).all() or (bvals < 0).any():
        raise GradientError(f"{bval_path} has negative or non-finite b-values.")
    low, high = _LARGEST_B_RANGE_S_MM2
    if not weighted.any():
        raise GradientError(
            f"{bval_path}: all volumes are b=0, none is diffusion-weighted (the largest b-value is "
            f"{bvals.max():g}).",
            _UNIT_REMEDY if bvals.max() > 0 else "",
        )
    if not low <= bvals.max() <= high:
        raise GradientError(
            f"{bval_path}: the largest b-value is {bvals.max():g}, outside the possible range "
            f"{low:g} to {high:g} s/mm².",
            _UNIT_REMEDY,
        )
    if weighted.all():
        raise GradientError(
            f"{bval_path}: no volume has b <= {b0_threshold_s_mm2:g} s/mm²; the smallest b-value "
            f"is {bvals.min():g}.",
            "Raise gradients.b0_threshold_s_mm2 if that volume counts as b=0.",
        )
    norms = np.linalg.norm(bvecs, axis=1)
    wrong = np.flatnonzero(weighted & ~(np.abs(norms - 1) < _UNIT_TOLERANCE))
    if wrong.size:
        volume = int(wrong[0])
        raise GradientError(
            f"{bvec_path}: {wrong.size} diffusion-weighted volume(s) do not have a unit vector: "
            f"volume {volume} has b = {bvals[volume]:g} and |g| = {norms[volume]:.3g}.",
            "Zero vectors mark trace images, which must be removed; other lengths indicate wrong "
            "scaling.",
        )


def permutation_matrix(names: tuple[str, str, str]) -> NDArray[np.float64]:
    """Return the matrix of a signed permutation of the components of b-vectors.

    Parameters
    ----------
    names : tuple of str
        Component that each component of the result is taken from: ``("-x", "z", "y")``
        negates x and swaps y and z.

    Returns
    -------
    ndarray, shape (3, 3)
        Multiply it by a column vector of the file to obtain the permuted vector.

    Raises
    ------
    ValueError
        If `names` is not a permutation of x, y and z with optional minus signs.
    """
    if sorted(name.removeprefix("-") for name in names) != ["x", "y", "z"]:
        raise ValueError(f"{names} is not a permutation of x, y and z with optional minus signs.")
    matrix = np.zeros((3, 3))
    for row, name in enumerate(names):
        matrix[row, "xyz".index(name[-1])] = -1.0 if name.startswith("-") else 1.0
    return matrix


def permutation_names(matrix: NDArray[np.floating]) -> tuple[str, str, str]:
    """Return the names of a signed permutation, the inverse of `permutation_matrix`.

    Raises
    ------
    ValueError
        If `matrix` is not a signed permutation matrix of shape (3, 3).
    """
    axes = np.abs(matrix).argmax(axis=1)
    signs = np.sign(matrix[np.arange(3), axes])
    x, y, z = (f"{'-' if s < 0 else ''}{'xyz'[a]}" for s, a in zip(signs, axes, strict=True))
    if sorted(axes) != [0, 1, 2] or not np.array_equal(permutation_matrix((x, y, z)), matrix):
        raise ValueError(f"{matrix.tolist()} is not a signed permutation matrix.")
    return x, y, z


def canonical_permutation(names: tuple[str, str, str]) -> tuple[str, str, str]:
    """Return the equivalent permutation with the fewest minus signs, at most one.

    Diffusion weighting along g and along -g is the same, so negating a whole table changes
    nothing, and each of the 48 signed permutations is equivalent to one other.
    """
    matrix = permutation_matrix(names)
    return permutation_names(-matrix if (matrix < 0).sum() > 1 else matrix)


def compose_permutations(
    first: tuple[str, str, str], second: tuple[str, str, str]
) -> tuple[str, str, str]:
    """Return the canonical permutation equivalent to `first` followed by `second`."""
    return canonical_permutation(
        permutation_names(permutation_matrix(second) @ permutation_matrix(first))
    )

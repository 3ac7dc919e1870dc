"""b-values and b-vectors: read, checked, and rotated into RAS+ scanner axes.

Three conventions for the axes of b-vectors are in use, and no file states its own:

``fsl``
    Along the axes of the image as stored, with x negated where the determinant of the affine is
    positive. BIDS adopts it.
``image``
    Along the axes of the image as stored, without that sign. QSIPrep writes it
    (PennLINC/qsiprep#530, #592).
``scanner``
    RAS+ scanner axes. MRtrix3's gradient tables (``.b``) use it.
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

# b-vectors are stored with 3 to 6 decimals; further from 1 is not rounding.
_UNIT_TOLERANCE = 0.02
# About 2.5 degrees: motion correction turns repeated directions by less.
_SAME_AXIS_COSINE = 0.999
# No scheme in s/mm² has a largest b-value outside this range; ms/µm² and s/m² do.
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
    """Volumes of one b-value.

    Parameters
    ----------
    b_s_mm2 : float
        Mean b-value.
    volumes : ndarray of int, shape (n,)
        Their indices in the image.
    n_directions : int
        Distinct axes among them: repeated volumes add signal, no direction.
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
        In s/mm².
    directions : ndarray, shape (V, 3)
        Unit vectors in RAS+ scanner axes; zero for b=0.
    b0_threshold_s_mm2 : float
        Volumes at or below it count as b=0.
    shell_gap_s_mm2 : float or "auto"
        Sorted b-values further apart belong to different shells.
    axes : ndarray, shape (3, 3)
        Rotates (or reflects) vectors as their file stores them into scanner axes.
    record : dict
        Where the directions come from and in which frame they were read, JSON values.
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
        # Ragged shells are proportionally ragged.
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
        """Return DIPY's table of some volumes, directions in scanner axes."""
        bvals = np.where(self.bvals[volumes] <= self.b0_threshold_s_mm2, 0, self.bvals[volumes])
        return gradient_table(bvals, bvecs=self.directions[volumes], b0_threshold=0)


def count_axes(directions: NDArray[np.float64]) -> int:
    """Count the distinct axes among unit vectors (n, 3), antipodes being one."""
    same = np.abs(directions @ directions.T) > _SAME_AXIS_COSINE
    distinct = 0
    left = np.ones(len(directions), bool)
    while left.any():
        distinct += 1
        left &= ~same[int(np.argmax(left))]
    return distinct


@dataclass(frozen=True)
class GradientFiles:
    """The files that describe the diffusion weighting of an image.

    Parameters
    ----------
    bval, bvec : Path or None
        FSL's text files.
    table : Path or None
        MRtrix3's gradient table (``.b``): a row ``x y z b`` for each volume.
    """

    bval: Path | None = None
    bvec: Path | None = None
    table: Path | None = None


@dataclass(frozen=True)
class Frame:
    """The axes along which the b-vectors of a file lie.

    Parameters
    ----------
    kind : {"fsl", "image", "scanner"}
    reason : str
        Why, for the log and the sidecar.
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
    """Decide along which axes the b-vectors lie, without opening a file.

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
        If the frame does not suit the only file.
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
    """Read the diffusion weighting of an image and express it in RAS+ scanner axes.

    A gradient table (``.b``) decides where there is one and the configuration does not say
    otherwise. Next to it, ``.bval`` and ``.bvec`` have to say the same in one of the three frames.

    Parameters
    ----------
    files : GradientFiles
    grid : Grid
        Grid of the image.
    n_volumes : int
        Number of volumes of the image.
    config : GradientsConfig
    frame : Frame
        Axes of the vectors, see `choose_frame`.

    Raises
    ------
    NoInputError
        If a file cannot be read.
    GradientError
        If the files are malformed, do not belong to the image or to each other, or hold what
        cannot be a gradient scheme.
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
    """Read b-values (V,) and vectors (V, 3) as FSL writes them, and check them."""
    bvals = read_table(bval, GradientError)
    if min(bvals.shape) > 1:
        raise GradientError(f"{bval} has {bvals.shape[0]} rows; it should have one.")
    bvals = bvals.ravel()
    bvecs = read_table(bvec, GradientError)
    _check_counts(bval, bvals, bvec, bvecs, n_volumes)
    return _checked(bval, bvals, bvec, bvecs.T, b0_threshold_s_mm2)


def _read_table(path: Path, n_volumes: int, b0_threshold_s_mm2: float) -> _Scheme:
    """Read b-values (V,) and vectors (V, 3) from MRtrix3's gradient table, and check them."""
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
    """Return the frames in which ``.bvec`` says what the gradient table says.

    Raises
    ------
    GradientError
        If b-values differ, or directions differ in every frame.
    """
    bvals, directions = table
    other_bvals, vectors = others
    both = f"{files.table} and {files.bval or files.bvec}"
    if (np.abs(bvals - other_bvals) > np.maximum(_SAME_B_SHARE * bvals, _SAME_B_S_MM2)).any():
        raise GradientError(
            f"{both} have different b-values.",
            "Remove the one that does not belong to the image, or set gradients.frame to take "
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
            "Remove the one that is wrong, or set gradients.frame to image, fsl or scanner to take "
            "the .bvec as it is.",
        )
    return agreeing


def _checked(
    bval_path: Path,
    bvals: NDArray[np.float64],
    bvec_path: Path,
    vectors: NDArray[np.float64],
    b0_threshold_s_mm2: float,
) -> _Scheme:
    # b=0 may carry any vector, even NaN
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
        raise GradientError(f"{bvec_path} has {bvecs.shape[0]} rows; 3 are needed (x, y, z).")
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
            f"{bval_path}: the largest b-value is {bvals.max():g}; {low:g} to {high:g} s/mm² are "
            "possible.",
            _UNIT_REMEDY,
        )
    if weighted.all():
        raise GradientError(
            f"{bval_path}: no volume has b <= {b0_threshold_s_mm2:g} s/mm², the smallest is "
            f"{bvals.min():g}.",
            "Raise gradients.b0_threshold_s_mm2 if that volume is meant as b=0.",
        )
    norms = np.linalg.norm(bvecs, axis=1)
    wrong = np.flatnonzero(weighted & ~(np.abs(norms - 1) < _UNIT_TOLERANCE))
    if wrong.size:
        volume = int(wrong[0])
        raise GradientError(
            f"{bvec_path}: {wrong.size} diffusion-weighted volume(s) have no unit vector; volume "
            f"{volume} has b = {bvals[volume]:g} and |g| = {norms[volume]:.3g}.",
            "Zero vectors mark trace images, which have to be removed; others are a scale gone "
            "wrong.",
        )


def permutation_matrix(names: tuple[str, str, str]) -> NDArray[np.float64]:
    """Return the matrix of a signed permutation of the components of b-vectors.

    Parameters
    ----------
    names : tuple of str
        For each component of the result, the component it is taken from: ``("-x", "z", "y")``
        negates x and swaps y and z.

    Returns
    -------
    ndarray, shape (3, 3)
        Multiplied by a column vector as it is in the file, it gives the permuted vector.

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
    """Return the equivalent permutation with the fewest minus signs, which are at most one.

    Diffusion weighting along g and along -g is the same, so that negating a whole table changes
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

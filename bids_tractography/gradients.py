"""b-values and b-vectors: read as FSL writes them, checked, turned into scanner axes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from dipy.core.gradients import GradientTable, gradient_table
from numpy.typing import NDArray

from bids_tractography.errors import GradientError
from bids_tractography.images import Grid, nearest_rotation
from bids_tractography.tables import read_table

# b-vectors are stored with 3 to 6 decimals; further from 1 is not rounding.
_UNIT_TOLERANCE = 0.02
# About 2.5 degrees: motion correction turns repeated directions by less.
_SAME_AXIS_COSINE = 0.999
_LEAST_LARGEST_B_S_MM2 = 100


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
    """

    bvals: NDArray[np.float64]
    directions: NDArray[np.float64]
    b0_threshold_s_mm2: float
    shell_gap_s_mm2: float | Literal["auto"]

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


def read_gradients(
    bval_path: Path,
    bvec_path: Path,
    grid: Grid,
    n_volumes: int,
    *,
    b0_threshold_s_mm2: float,
    shell_gap_s_mm2: float | Literal["auto"],
) -> Gradients:
    """Read FSL's files and turn the directions into RAS+ scanner axes.

    b-vectors on disk are relative to the image axes as stored, with x negated where the
    determinant of the affine is positive (FSL's convention, which BIDS adopts).

    Raises
    ------
    GradientError
        If the files are malformed, do not belong to the image or to each other, or hold what
        cannot be a gradient scheme.
    """
    bvals = read_table(bval_path, GradientError)
    if min(bvals.shape) > 1:
        raise GradientError(f"{bval_path} has {bvals.shape[0]} rows; one is needed.")
    bvals = bvals.ravel()
    bvecs = read_table(bvec_path, GradientError)
    _check_counts(bval_path, bvals, bvec_path, bvecs, n_volumes)
    weighted = bvals > b0_threshold_s_mm2
    bvecs = np.where(weighted[:, None], bvecs.T, 0.0)  # b=0 may carry any vector, even NaN
    _check_values(bval_path, bvals, bvec_path, bvecs, weighted, b0_threshold_s_mm2)
    if np.linalg.det(grid.stored_affine[:3, :3]) > 0:
        bvecs = bvecs * [-1, 1, 1]
    directions = bvecs @ nearest_rotation(grid.stored_affine).T
    norms = np.linalg.norm(directions, axis=1, keepdims=True)
    directions = np.divide(directions, norms, out=np.zeros_like(directions), where=norms > 0)
    return Gradients(bvals, directions, b0_threshold_s_mm2, shell_gap_s_mm2)


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
            "BIDS wants 3 rows (x, y, z) with one column a volume.",
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
    weighted: NDArray[np.bool_],
    b0_threshold_s_mm2: float,
) -> None:
    if not np.isfinite(bvals).all() or (bvals < 0).any():
        raise GradientError(f"{bval_path} has negative or non-finite b-values.")
    if weighted.all():
        raise GradientError(
            f"{bval_path}: no volume has b <= {b0_threshold_s_mm2:g} s/mm², the smallest is "
            f"{bvals.min():g}.",
            "Raise gradients.b0_threshold_s_mm2 if that volume is meant as b=0.",
        )
    if not weighted.any():
        raise GradientError(f"{bval_path}: all volumes are b=0, none is diffusion-weighted.")
    if bvals.max() < _LEAST_LARGEST_B_S_MM2:
        raise GradientError(
            f"{bval_path}: the largest b-value is {bvals.max():g}.",
            "BIDS wants s/mm² (1000, not 1).",
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

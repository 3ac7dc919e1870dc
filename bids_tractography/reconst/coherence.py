"""Check of the gradient table by the coherence of neighbouring principal directions.

If the table is correct, the principal direction of a white-matter voxel points to voxels with a
similar principal direction. If components of the b-vectors are swapped or have the wrong sign, the
directions of most voxels still resemble those of their neighbours, but point to the wrong
neighbours (Jeurissen, Med Image Anal 2014; Schilling, Magn Reson Imaging 2019).

The coherence is measured for the 24 permutations and sign changes of the components that differ by
more than the sign of the whole vector. Permuting the components of the b-vectors permutes those of
the fitted tensor, so the tensor is fitted only once. The difference that is considered significant
is estimated from its variation over the image, see `check_gradients`.

The measure assumes that bundles are straight over a few voxels and narrower than the image. It is
wrong about solid discs of concentric fibres, such as those of the myocardium, for which it prefers
spokes. Rotations by angles other than 90 degrees are not among the permutations, e.g. if a table
in scanner axes is taken to be along the axes of an oblique image.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import stdtr

from bids_tractography.core.gradients import permutation_matrix
from bids_tractography.core.images import Grid
from bids_tractography.reconst.base import TensorFit

Permutation = tuple[str, str, str]
Verdict = Literal["agrees", "undecided", "contradicts"]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Canonical representatives with at most one minus sign, the identity first.
PERMUTATIONS: tuple[Permutation, ...] = tuple(
    (
        f"{'-' * (negated == 0)}{axes[0]}",
        f"{'-' * (negated == 1)}{axes[1]}",
        f"{'-' * (negated == 2)}{axes[2]}",
    )
    for axes in itertools.permutations("xyz")
    for negated in (None, 0, 1, 2)
)

# A difference is significant if chance exceeds it less often than this. The error rate is the same
# for every dataset; the size of a significant difference is estimated from the data.
_DOUBT = 1e-4
# Scores that differ by rounding only are not evidence, however small the variation.
_NEGLIGIBLE = 1e-3
# In edges of a cubic voxel of the same volume. Shorter steps compare a voxel with itself, because
# interpolation at their ends includes it (up to sqrt(3) edges); longer steps leave the bundle.
_STEP_EDGES = 1.75
# White matter is a quarter of a head, and more than this fraction of any complete head.
_MIN_SHARE = 0.15
# 16 to 128 blocks: smaller blocks than these are not independent, as bundles are thicker.
_MIN_HALVINGS, _MAX_HALVINGS = 4, 7
_MIN_VOXELS_PER_BLOCK, _MAX_VOXELS_PER_BLOCK = 8, 16
_MERGES = 2  # merged blocks, up to four times as large, show whether blocks are independent


@dataclass(frozen=True, eq=False)
class GradientCheck:
    """Fit of a gradient table to its image, compared with the permutations of the table.

    Parameters
    ----------
    verdict : {"agrees", "undecided", "contradicts"}
        "agrees": significantly better than all other permutations. "contradicts": significantly
        worse than another permutation. "undecided": neither.
    reason : str
        Why the verdict is undecided; empty otherwise.
    scores : dict of tuple of str to float
        Coherence of every permutation, 0 to 1; empty if it could not be measured.
    best : tuple of tuple of str
        Permutations that the data cannot distinguish, best first. They apply to the b-vectors as
        in the file. If the verdict is "undecided" they include the identity.
    margin : float
        Difference between the given table and its closest competitor, in standard errors; negative
        if the competitor is better.
    probability : float
        Upper bound of the probability that the difference is due to chance.
    n_voxels, n_blocks : int
        Number of voxels that were compared with their neighbours, and number of groups of
        neighbouring voxels from which the standard errors were estimated.
    """

    verdict: Verdict
    reason: str = ""
    scores: dict[Permutation, float] = field(default_factory=dict)
    best: tuple[Permutation, ...] = PERMUTATIONS
    margin: float = 0.0
    probability: float = 1.0
    n_voxels: int = 0
    n_blocks: int = 0

    @property
    def record(self) -> dict[str, Any]:
        """Result for the sidecars, JSON values."""
        return {
            "verdict": self.verdict,
            "reason": self.reason or None,
            "best": [" ".join(names) for names in self.best],
            "margin_standard_errors": round(self.margin, 2),
            "probability": float(f"{self.probability:.2g}"),
            "scores": {" ".join(names): round(score, 4) for names, score in self.scores.items()},
            "n_voxels": self.n_voxels,
            "n_blocks": self.n_blocks,
        }


def check_gradients(tensor: TensorFit, mask: Mask, grid: Grid, frame: Floats) -> GradientCheck:
    """Compare a gradient table with its 23 axis permutations and sign changes.

    A step is made from voxels of high anisotropy along the principal direction, forwards and
    backwards. Its length is 1.75 edges of a cubic voxel of the same volume, but not less than the
    longest edge. The score is the squared cosine between the principal direction of the voxel and
    the directions interpolated at the end of the step, times their anisotropy relative to that of
    white matter, at most 1. A permutation changes where the step leads, but not the cosines.

    The part of a score that the direction of the step alone explains is subtracted: voxels may be
    anisotropic, images smoothed more along one axis than along another, and heads are longer than
    wide. It is estimated from the steps of all permutations as a quadratic form of the direction.

    Two permutations are compared at voxels from which a step of either ends inside the mask,
    because what is outside of a thin slab is unknown rather than incoherent. Differences are summed
    over blocks of neighbouring voxels, whose variation yields the standard error of the total (a
    delete-one-block jackknife). If merged blocks vary more than independent blocks would, the
    standard error is increased and the number of blocks decreased accordingly.

    Parameters
    ----------
    tensor : TensorFit
        Tensor fitted with the table to check.
    mask : ndarray of bool, shape (X, Y, Z)
        Brain mask.
    grid : Grid
        Grid of the mask.
    frame : ndarray, shape (3, 3)
        Orthogonal matrix from a b-vector as in its file to RAS+ scanner axes; it may be a
        reflection.

    Returns
    -------
    GradientCheck
        Deterministic verdict.
    """
    weights, seeds = _choose_voxels(tensor.fa, mask, grid)
    if seeds.shape[0] == 0:
        return GradientCheck("undecided", "the mask has too few voxels with anisotropic diffusion.")
    turns = np.array([frame @ permutation_matrix(names) @ frame.T for names in PERMUTATIONS])
    v1 = tensor.v1.reshape(-1, 3)
    steps = np.einsum("kij,...j->...ki", turns, v1[seeds].astype(np.float64))
    scores, inside = _walk(v1, weights, mask, grid, seeds, steps)
    if not inside.any():
        return GradientCheck("undecided", "no voxel has neighbours inside the mask.")
    means = scores.sum(axis=(0, 1)) / np.maximum(inside.sum(axis=(0, 1)), 1)
    return replace(
        _judge(_compare(_without_bias(scores, inside, steps), inside)),
        scores=dict(zip(PERMUTATIONS, means.tolist(), strict=True)),
        n_voxels=seeds.size,
        n_blocks=len(seeds),
    )


def _choose_voxels(
    fa: NDArray[np.float32], mask: Mask, grid: Grid
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Choose starting voxels of high anisotropy, evenly and in blocks of neighbours.

    Returns
    -------
    weights : ndarray, shape (X * Y * Z,)
        Anisotropy relative to the lowest anisotropy of a chosen voxel, at most 1.
    voxels : ndarray of int, shape (blocks, n)
        Flat indices; no blocks if there are too few voxels. Consecutive blocks are neighbours, and
        so are consecutive pairs of blocks, etc.
    """
    flat = np.where(mask, fa, np.float32(0)).ravel()
    # Partial volume and motion make the rim of a brain anisotropic. Thin masks consist of rim only.
    for within in (ndimage.binary_erosion(mask, border_value=1), mask):
        candidates = np.flatnonzero(within.ravel() & (flat > 0))
        white = _white_matter_threshold(flat[candidates])
        candidates = candidates[flat[candidates] >= white]
        if candidates.size >= _MIN_VOXELS_PER_BLOCK << _MIN_HALVINGS:
            break
    else:
        return flat, np.empty((0, 0), np.intp)
    halvings = min(_MAX_HALVINGS, (candidates.size // _MIN_VOXELS_PER_BLOCK).bit_length() - 1)
    per_block = min(candidates.size >> halvings, _MAX_VOXELS_PER_BLOCK)
    n_voxels = per_block << halvings
    chosen = candidates[np.arange(n_voxels) * candidates.size // n_voxels]
    points_mm = grid.to_mm(np.stack(np.unravel_index(chosen, mask.shape), axis=1))
    weights = np.minimum(flat / np.float32(white), np.float32(1))
    return weights, chosen[_blocks(points_mm, halvings)]


def _white_matter_threshold(fa: NDArray[np.float32]) -> float:
    """Return the minimum anisotropy of white matter.

    It is Otsu's threshold (1979), which best separates two classes, unless that leaves less than
    `_MIN_SHARE` of the voxels, because outliers may form a class of their own.
    """
    if fa.size == 0 or fa.min() == fa.max():
        return float(fa.min(initial=1.0))
    counts, edges = np.histogram(fa, bins=256)
    centres = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)[:-1]
    sums = np.cumsum(counts * centres)
    above = fa.size - below
    apart = sums[:-1] / np.maximum(below, 1) - (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    otsu = edges[1:][int(np.argmax(below * above * apart**2))]
    return float(min(otsu, np.quantile(fa, 1 - _MIN_SHARE)))


def _blocks(points_mm: Floats, halvings: int) -> NDArray[np.intp]:
    """Divide points (N, 3) into compact blocks of equal size; return their indices, (blocks, n).

    All blocks are halved across their longest side `halvings` times; N must be a multiple of the
    number of blocks.
    """
    order = np.arange(len(points_mm))[None]
    for _ in range(halvings):
        cells = points_mm[order]
        longest = np.ptp(cells, axis=1).argmax(axis=1)
        along = np.take_along_axis(cells, longest[:, None, None], axis=2)[..., 0]
        ranks = np.argsort(along, axis=1, kind="stable")
        order = np.take_along_axis(order, ranks, axis=1).reshape(2 * len(order), -1)
    return order


def _walk(
    v1: NDArray[np.float32],
    weights: NDArray[np.float32],
    mask: Mask,
    grid: Grid,
    seeds: NDArray[np.intp],
    steps: Floats,
) -> tuple[Floats, Mask]:
    """Score steps along each direction and its opposite.

    Parameters
    ----------
    v1 : ndarray, shape (X * Y * Z, 3)
        Principal directions.
    weights : ndarray, shape (X * Y * Z,)
        Weight of each voxel, 0 to 1.
    mask : ndarray of bool, shape (X, Y, Z)
        Brain mask.
    grid : Grid
        Grid of the mask.
    seeds : ndarray of int, shape (blocks, n)
        Flat indices of the starting voxels.
    steps : ndarray, shape (blocks, n, 24, 3)
        Directions of the steps, unit vectors in RAS+ axes.

    Returns
    -------
    scores : ndarray, shape (blocks, n, 24)
        Mean score of the steps that end inside the mask; zero if neither does.
    inside : ndarray of bool, shape (blocks, n, 24)
        Whether at least one of them does.
    """
    ends = _ends(grid, mask, seeds, steps)
    flat_mask, own, direction = mask.ravel(), seeds[..., None, None], v1[seeds]
    scores, total = np.zeros(ends.inside.shape), np.zeros(ends.inside.shape)
    for i, j, k in itertools.product((0, 1), repeat=3):
        voxel = ends.voxels[0][i] + ends.voxels[1][j] + ends.voxels[2][k]
        share = ends.shares[0][i] * ends.shares[1][j] * ends.shares[2][k]
        share = share * (flat_mask[voxel] & (voxel != own))
        cosines = np.einsum("bntsi,bni->bnts", v1[voxel], direction)
        scores += share * weights[voxel] * cosines**2
        total += share
    inside = ends.inside & (total > 0)
    scores = np.divide(scores, total, out=np.zeros_like(scores), where=inside)
    n_inside = inside.sum(axis=-1)
    return scores.sum(axis=-1) / np.maximum(n_inside, 1), n_inside > 0


class _Ends(NamedTuple):
    """Ends of steps; all arrays have the shape (blocks, n, 24, 2).

    Parameters
    ----------
    inside : ndarray of bool
        Whether the end is inside the mask.
    voxels : list of list of ndarray of int
        For each axis, offsets of the lower and the upper neighbour along it in a flat index.
    shares : list of list of ndarray
        Weights of these neighbours in linear interpolation.
    """

    inside: Mask
    voxels: list[list[NDArray[np.intp]]]
    shares: list[list[Floats]]


def _ends(grid: Grid, mask: Mask, seeds: NDArray[np.intp], steps: Floats) -> _Ends:
    """Find the ends of steps and the voxels around them; see `_walk` for the parameters."""
    edge_mm = np.prod(grid.voxel_size_mm) ** (1 / 3)
    length_mm = max(_STEP_EDGES * edge_mm, grid.voxel_size_mm.max())
    moves = length_mm * np.einsum("ij,...j->i...", np.linalg.inv(grid.affine[:3, :3]), steps)
    inside = np.ones((*moves.shape[1:], 2), bool)
    nearest = np.zeros(inside.shape, np.intp)
    voxels, shares = [], []
    strides = (mask.shape[1] * mask.shape[2], mask.shape[2], 1)
    starts = np.unravel_index(seeds, mask.shape)
    for start, move, n, stride in zip(starts, moves, mask.shape, strides, strict=True):
        end = start[..., None, None] + np.stack([move, -move], axis=-1)
        inside &= (end > -0.5) & (end < n - 0.5)
        end = np.clip(end, 0, n - 1)  # voxels extend half an edge beyond their centres
        nearest += np.rint(end).astype(np.intp) * stride
        first = np.minimum(end.astype(np.intp), max(n - 2, 0))
        voxels.append([first * stride, np.minimum(first + 1, n - 1) * stride])
        shares.append([1 - (end - first), end - first])
    return _Ends(inside & mask.ravel()[nearest], voxels, shares)


def _without_bias(scores: Floats, inside: Mask, steps: Floats) -> Floats:
    """Subtract the part of the scores that the direction of the step alone explains.

    It is each voxel's mean score over all permutations times a quadratic form of the direction,
    which is fitted to all steps by least squares.
    """
    counted = np.maximum(inside.sum(axis=2, keepdims=True), 1)
    typical = scores.sum(axis=2, keepdims=True) / counted
    x, y, z = np.moveaxis(steps, -1, 0)
    terms = [term * typical * inside for term in (x * x, y * y, z * z, x * y, x * z, y * z)]
    # Sums without BLAS, whose rounding may depend on the number of threads.
    products = np.array([[(a * b).sum() for a in terms] for b in terms])
    projections = np.array([(term * scores).sum() for term in terms])
    coefficients = np.linalg.lstsq(products, projections, rcond=1e-9)[0]
    explained = sum(c * term for c, term in zip(coefficients, terms, strict=True))
    return np.asarray(np.where(inside, scores - explained, 0.0))


class _Comparison(NamedTuple):
    """Differences between permutations; element (i, j) is positive if i is better than j.

    Parameters
    ----------
    margin : ndarray, shape (24, 24)
        Difference of the scores in standard errors.
    probability : ndarray, shape (24, 24)
        Upper bound of the probability that i is this much better than j by chance.
    """

    margin: Floats
    probability: Floats


def _compare(scores: Floats, inside: Mask) -> _Comparison:
    """Compare all pairs of permutations at voxels where both end inside the mask."""
    valid = inside.astype(np.float64)
    sums = np.einsum("bni,bnj->bij", scores, valid)
    blocks = sums - sums.swapaxes(1, 2)
    overlap = np.einsum("bni,bnj->ij", valid, valid)
    difference = blocks.sum(axis=0)
    error, independent = _standard_error(blocks)
    counts = (error > 0) & (np.abs(difference) > _NEGLIGIBLE * overlap)
    margin = np.divide(difference, error, out=np.zeros_like(difference), where=counts)
    chance = stdtr(np.maximum(independent - 1, 1), -margin)
    # The probability that n independent blocks all have the same sign is a lower bound.
    return _Comparison(margin, np.maximum(chance, 0.5**independent))


def _standard_error(blocks: Floats) -> tuple[Floats, Floats]:
    """Estimate the standard error of sums over blocks from the variation of the blocks.

    Parameters
    ----------
    blocks : ndarray, shape (blocks, ...)
        Difference in each block; zero if a block does not contribute.

    Returns
    -------
    error : ndarray, shape (...)
        Standard error.
    independent : ndarray, shape (...)
        Equivalent number of independent blocks, at least one.
    """
    contributes = blocks != 0
    n = np.maximum(contributes.sum(axis=0), 1)
    excess = np.where(contributes, blocks - blocks.sum(axis=0) / n, 0.0)
    variance = (excess**2).sum(axis=0)
    inflation = np.ones_like(variance)
    merged = excess
    for _ in range(_MERGES):
        merged = merged[0::2] + merged[1::2]
        ratio = np.divide((merged**2).sum(axis=0), variance, where=variance > 0, out=inflation + 0)
        inflation = np.maximum(inflation, ratio)
    error = np.sqrt(variance * inflation * n / np.maximum(n - 1, 1))
    return error, np.maximum(n / inflation, 1.0)


def _judge(comparison: _Comparison) -> GradientCheck:
    """Derive the verdict on the first permutation from the comparisons of all pairs."""
    # The best permutation has the best worst comparison; the stable sort prefers the identity.
    ranking = np.argsort(-comparison.margin.min(axis=1), kind="stable").tolist()
    # The probability that any of many rivals is better by chance is larger than that of a
    # particular rival (Bonferroni). The probability of being better than all by chance is not.
    by_chance = np.minimum((len(PERMUTATIONS) - 1) * comparison.probability[:, 0], 1.0)
    better = [i for i in ranking if i and by_chance[i] < _DOUBT]
    if better:
        first, beaten = better[0], comparison.probability[better[0]] < _DOUBT
        equal = [i for i in ranking if i not in (0, first) and not beaten[i]]
        return GradientCheck(
            "contradicts",
            best=tuple(PERMUTATIONS[i] for i in (first, *equal)),
            margin=float(comparison.margin[0, first]),
            probability=float(by_chance[first]),
        )
    rivals = [i for i in ranking if i and comparison.probability[0, i] >= _DOUBT]
    closest = min(range(1, len(PERMUTATIONS)), key=lambda i: comparison.margin[0, i])
    margin = float(comparison.margin[0, closest])
    pair = (0, closest) if margin >= 0 else (closest, 0)
    return GradientCheck(
        "undecided" if rivals else "agrees",
        reason=f"the data cannot distinguish {len(rivals)} other permutation(s) from the given "
        "table."
        if rivals
        else "",
        best=tuple(PERMUTATIONS[i] for i in ranking if i == 0 or i in rivals),
        margin=margin,
        probability=float(comparison.probability[pair]),
    )

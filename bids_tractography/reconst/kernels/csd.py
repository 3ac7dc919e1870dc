"""Inner loops of constrained spherical deconvolution.

They release the interpreter's lock and keep no state, and the sums of a voxel are its own, in a
fixed order: results depend neither on threads nor on which voxels are computed together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bids_tractography.machine.compiled import summing_kernel

Array = NDArray[np.float64]

# Rows are padded to multiples of this, so that inner loops need no remainder: two AVX-512 registers
# of float64, or four of AVX2.
WIDTH = 16

# Rows added to a matrix in one pass: the matrix is loaded and stored once for four of them.
_TOGETHER = 4

# Terms up to order 4 of the first guess: higher ones are mostly noise before any constraint
# (Tournier 2007).
_SMOOTH_TERMS = 15


def padded(matrix: Array) -> Array:
    """Return a matrix in C order, its rows padded with zeros to a multiple of `WIDTH`."""
    return np.ascontiguousarray(np.pad(matrix, ((0, 0), (0, -matrix.shape[1] % WIDTH))))


@summing_kernel
def constrained_deconvolution(
    signals: Array,
    forward: Array,
    normal: Array,
    first_guess: Array,
    constraint: Array,
    amplitudes: Array,
    threshold: float,
    max_iterations: int,
) -> Array:
    """Deconvolve the signals of many voxels, driving amplitudes below a threshold to zero.

    The set of constrained amplitudes changes little from one iteration to the next, so the normal
    matrix is updated by the rows that come or go, and then solved by a Cholesky factor.

    Parameters
    ----------
    signals : ndarray, shape (n, V)
    forward : ndarray, shape (V, C')
        Coefficients to signals. C' is C, the number of coefficients, rounded up as by `padded`.
    normal : ndarray, shape (C, C')
        Normal matrix without constraints, positive definite.
    first_guess : ndarray, shape (V, C')
        Signals to the solution without constraints.
    constraint : ndarray, shape (N, C')
        Coefficients to weighted amplitudes, one row each.
    amplitudes : ndarray, shape (C, N')
        The same matrix, one column each.
    threshold : float
        Share of the mean amplitude below which an amplitude is constrained.
    max_iterations : int

    Returns
    -------
    ndarray, shape (n, C)
    """
    n_terms, width = normal.shape
    n_rows = constraint.shape[0]
    result = np.empty((signals.shape[0], n_terms))
    target = np.empty(width)
    solution = np.empty(width)
    smooth = np.zeros(width)
    values = np.empty(amplitudes.shape[1])
    matrix = np.empty((n_terms, width))
    factor = np.empty((n_terms, width))
    is_low = np.empty(n_rows, np.bool_)
    seen = np.empty(n_rows, np.bool_)
    changes = np.empty(n_rows + _TOGETHER, np.intp)
    for voxel in range(signals.shape[0]):
        _combine(signals[voxel], forward, target)
        _combine(signals[voxel], first_guess, solution)
        # The first coefficient is the mean amplitude; the first guess of low ones is smooth.
        bound = threshold * constraint[0, 0] * solution[0]
        for j in range(min(_SMOOTH_TERMS, n_terms)):
            smooth[j] = solution[j]
        for i in range(n_rows):
            is_low[i] = seen[i] = False
        _copy(normal, matrix)
        _combine(smooth, amplitudes, values)
        n_changes = _compare(values, bound, is_low, changes)
        if n_changes == 0:
            # Nothing low in the smooth guess: there may be in the whole one.
            _combine(solution, amplitudes, values)
            n_changes = _compare(values, bound, is_low, changes)
        # The constrained set may alternate between a few states for ever. The one at iterations
        # 1, 2, 4, 8, ... is remembered and compared with those that follow (Brent 1980).
        iteration, mark = 0, 1
        while n_changes > 0 and iteration < max_iterations:
            _update(matrix, constraint, is_low, changes, n_changes)
            _copy(matrix, factor)
            _solve(factor, target, solution)
            _combine(solution, amplitudes, values)
            n_changes = _compare(values, bound, is_low, changes)
            iteration += 1
            if iteration == mark:
                for i in range(n_rows):
                    seen[i] = is_low[i]
                mark *= 2
            elif n_changes > 0 and _equal(seen, is_low):
                # A cycle since the mark: skip whole cycles, and end in the state that the limit
                # of iterations would have ended in.
                period = iteration - mark // 2
                iteration += (max_iterations - iteration) // period * period
        for j in range(n_terms):
            result[voxel, j] = solution[j]
    return result


@summing_kernel
def _copy(source: Array, target: Array) -> None:
    for i in range(source.shape[0]):
        for j in range(source.shape[1]):
            target[i, j] = source[i, j]


@summing_kernel
def _combine(weights: Array, rows: Array, total: Array) -> None:
    """Write the sum of weighted rows; weights beyond the last row are ignored.

    Four rows at a time, so that the total is loaded and stored a quarter as often.
    """
    for j in range(total.size):
        total[j] = 0.0
    n = min(weights.size, rows.shape[0])
    for k in range(0, n - n % 4, 4):
        w0, w1, w2, w3 = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
        for j in range(total.size):
            total[j] += w0 * rows[k, j] + w1 * rows[k + 1, j]
            total[j] += w2 * rows[k + 2, j] + w3 * rows[k + 3, j]
    for k in range(n - n % 4, n):
        for j in range(total.size):
            total[j] += weights[k] * rows[k, j]


@summing_kernel
def _compare(
    values: Array, bound: float, is_low: NDArray[np.bool_], changes: NDArray[np.intp]
) -> int:
    """List the values that went below the bound or came back above it; return their number."""
    # Every index is written and only those that count are kept: there is no branch to mispredict.
    count = 0
    for i in range(is_low.size):
        low = values[i] < bound
        changes[count] = i
        count += low != is_low[i]
        is_low[i] = low
    return count


@summing_kernel
def _equal(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    n_different = 0
    for i in range(one.size):
        n_different += one[i] != other[i]
    return n_different == 0


@summing_kernel
def _update(
    matrix: Array,
    constraint: Array,
    is_low: NDArray[np.bool_],
    changes: NDArray[np.intp],
    n_changes: int,
) -> None:
    """Add the outer products of rows newly constrained; subtract those of rows set free.

    Only the lower triangle is used, but each row is updated to a multiple of `WIDTH`.
    """
    signs = np.zeros(_TOGETHER)
    for first in range(0, n_changes, _TOGETHER):
        for k in range(_TOGETHER):
            signs[k] = 0.0
            if first + k < n_changes:
                signs[k] = 1.0 if is_low[changes[first + k]] else -1.0
            else:
                changes[first + k] = changes[first]
        a, b = constraint[changes[first]], constraint[changes[first + 1]]
        c, d = constraint[changes[first + 2]], constraint[changes[first + 3]]
        for i in range(matrix.shape[0]):
            wa, wb, wc, wd = signs[0] * a[i], signs[1] * b[i], signs[2] * c[i], signs[3] * d[i]
            for j in range(i // WIDTH * WIDTH + WIDTH):
                matrix[i, j] += wa * a[j] + wb * b[j] + wc * c[j] + wd * d[j]


@summing_kernel
def _solve(matrix: Array, target: Array, solution: Array) -> None:
    """Solve for a positive definite matrix, which is overwritten.

    Its lower triangle becomes the Cholesky factor L of ``LᵀL``, not of ``LLᵀ``, so that all inner
    loops run along rows. They run to a multiple of `WIDTH`; what is right of the diagonal is never
    used.
    """
    n = matrix.shape[0]
    for j in range(solution.size):
        solution[j] = target[j]
    for k in range(n - 1, -1, -1):
        inverse = 1.0 / np.sqrt(matrix[k, k])
        for j in range(k // WIDTH * WIDTH + WIDTH):
            matrix[k, j] *= inverse
        matrix[k, k] = inverse  # it is only divided by
        for i in range(k):
            weight = matrix[k, i]
            for j in range(i // WIDTH * WIDTH + WIDTH):
                matrix[i, j] -= weight * matrix[k, j]
        solution[k] *= inverse
        for j in range(k):
            solution[j] -= solution[k] * matrix[k, j]
    for k in range(n):
        total = solution[k]
        for j in range(k):
            total -= matrix[k, j] * solution[j]
        solution[k] = total * matrix[k, k]

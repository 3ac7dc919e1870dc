"""Compiled inner loops of the models; voxels are independent of each other."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]


# Sums may be taken in any order, for the processor's vectors; NaN and infinity keep their meaning.
_FAST = {"reassoc", "contract", "arcp", "nsz"}


@njit(nogil=True, cache=True, fastmath=_FAST)
def nonnegative_multipliers(gram: Array, values: Array, rank: int) -> Array:
    """Solve ``min ½ λᵀGλ + aᵀλ, λ ≥ 0`` for many `a` by an active-set method (Lawson 1974).

    The dual of a quadratic problem with inequalities: `a` are the constraints' values at the
    unconstrained solution. In each voxel the most violated constraint becomes active, and the
    active ones are solved for by a Cholesky factor that grows and shrinks with them.

    Parameters
    ----------
    gram : ndarray, shape (m, m)
        Positive semi-definite, with a positive diagonal.
    values : ndarray, shape (n, m)
    rank : int
        Of `gram`.

    Returns
    -------
    ndarray, shape (n, m)
    """
    n_voxels, m = values.shape
    result = np.zeros((n_voxels, m))
    active = np.empty(rank, np.int64)
    factor = np.zeros((rank, rank))
    solution = np.empty(rank)
    turns = np.empty((rank, 2))
    gradient = np.empty(m)
    scale = 1.0 / np.sqrt(np.diag(gram))
    for voxel in range(n_voxels):
        a = values[voxel]
        multipliers = result[voxel]
        gradient[:] = a
        tolerance = 1e-9 * np.max(np.abs(a * scale))
        count = 0
        for _ in range(10 * m):
            worst, entering = -tolerance, -1
            for j in range(m):
                if gradient[j] * scale[j] < worst:
                    worst, entering = gradient[j] * scale[j], j
            if entering < 0 or count == rank:
                break
            active[count] = entering
            if not _append(gram, active, factor, count):
                break  # it depends on those that are active: violated by rounding only
            count = _solve_active(a, active, factor, turns, solution, multipliers, count + 1)
            gradient[:] = a
            for i in range(count):
                row = gram[active[i]]
                weight = multipliers[active[i]]
                for j in range(m):
                    gradient[j] += weight * row[j]
            for i in range(count):
                gradient[active[i]] = 0.0
    return result


@njit(nogil=True, cache=True, fastmath=_FAST)
def _solve_active(
    a: Array,
    active: NDArray[np.int64],
    factor: Array,
    turns: Array,
    solution: Array,
    multipliers: Array,
    count: int,
) -> int:
    """Move to the solution for the active constraints, releasing those it would turn negative."""
    while count > 0:
        for i in range(count):
            row = factor[i]
            total = -a[active[i]]
            for k in range(i):
                total -= row[k] * solution[k]
            solution[i] = total / row[i]
        for i in range(count - 1, -1, -1):
            row = factor[i]
            solution[i] /= row[i]
            for k in range(i):
                solution[k] -= row[k] * solution[i]
        share, leaving = 1.0, -1
        for i in range(count):
            before = multipliers[active[i]]
            if solution[i] <= 0.0 and before <= share * (before - solution[i]):
                share, leaving = before / (before - solution[i]) if before > 0.0 else 0.0, i
        for i in range(count):
            before = multipliers[active[i]]
            multipliers[active[i]] = before + share * (solution[i] - before)
        if leaving < 0:
            break
        multipliers[active[leaving]] = 0.0
        count -= 1
        _remove(active, factor, turns, leaving, count)
    return count


@njit(nogil=True, cache=True, fastmath=_FAST)
def _append(gram: Array, active: NDArray[np.int64], factor: Array, last: int) -> bool:
    """Add a row to the Cholesky factor; False if it depends on the others."""
    row, new = gram[active[last]], factor[last]
    pivot = row[active[last]]
    for k in range(last):
        other = factor[k]
        total = row[active[k]]
        for n in range(k):
            total -= new[n] * other[n]
        new[k] = total / other[k]
    for k in range(last):
        pivot -= new[k] * new[k]
    if pivot <= 1e-12 * row[active[last]]:
        return False
    new[last] = np.sqrt(pivot)
    return True


@njit(nogil=True, cache=True, fastmath=_FAST)
def _remove(active: NDArray[np.int64], factor: Array, turns: Array, place: int, count: int) -> None:
    """Take a row out of the Cholesky factor, of which `count` are left, by Givens rotations."""
    for i in range(place, count):
        active[i] = active[i + 1]
        row = factor[i]
        row[: i + 2] = factor[i + 1, : i + 2]
        for k in range(place, i):
            cosine, sine = turns[k]
            kept, moved = row[k], row[k + 1]
            row[k] = cosine * kept + sine * moved
            row[k + 1] = cosine * moved - sine * kept
        length = np.sqrt(row[i] * row[i] + row[i + 1] * row[i + 1])
        turns[i, 0], turns[i, 1] = row[i] / length, row[i + 1] / length
        row[i] = length
        row[i + 1] = 0.0


@njit(nogil=True, cache=True, fastmath=_FAST)
def constrained_solutions(
    normal: Array,
    rows: Array,
    targets: Array,
    low: NDArray[np.bool_],
    thresholds: Array,
    max_iterations: int,
) -> Array:
    """Drive low amplitudes to zero by rows of least squares until their set stands still.

    The iteration of Tournier (2007). From one to the next only few rows come and go, and the
    normal matrix is changed by those alone.

    Parameters
    ----------
    normal : ndarray, shape (C, C)
        Normal matrix without constraints.
    rows : ndarray, shape (N, C)
        Coefficients to weighted amplitudes.
    targets : ndarray, shape (n, C)
    low : ndarray of bool, shape (n, N)
        Which amplitudes are low at first.
    thresholds : ndarray, shape (n,)
        Amplitudes below it are low.
    max_iterations : int

    Returns
    -------
    ndarray, shape (n, C)
    """
    n_voxels, n_terms = targets.shape
    n_rows = len(rows)
    result = np.empty((n_voxels, n_terms))
    # Where most rows are in, it is quicker to take the others out.
    every = normal + rows.T @ rows
    columns = rows.T.copy()
    amplitudes = np.empty(n_rows)
    current = np.empty((n_terms, n_terms))
    factor = np.empty((n_terms, n_terms))
    present = np.empty(n_rows, np.bool_)
    coming = np.empty(n_rows, np.int64)
    signs = np.empty(n_rows)
    for voxel in range(n_voxels):
        solution = result[voxel]
        most = 2 * np.sum(low[voxel]) > n_rows
        current[:] = every if most else normal
        present[:] = most
        count = 0
        for j in range(n_rows):
            if low[voxel, j] != most:
                coming[count], signs[count] = j, -1.0 if most else 1.0
                present[j] = not most
                count += 1
        for _ in range(max_iterations):
            _add_outer_products(current, rows, coming, signs, count)
            _solve_symmetric(current, factor, targets[voxel], solution)
            count = 0
            amplitudes[:] = 0.0
            for i in range(n_terms):
                column, weight = columns[i], solution[i]
                for j in range(n_rows):
                    amplitudes[j] += weight * column[j]
            for j in range(n_rows):
                if (amplitudes[j] < thresholds[voxel]) != present[j]:
                    coming[count], signs[count] = j, -1.0 if present[j] else 1.0
                    present[j] = not present[j]
                    count += 1
            if count == 0:
                break
    return result


@njit(nogil=True, cache=True, fastmath=_FAST)
def _add_outer_products(
    matrix: Array, rows: Array, which: NDArray[np.int64], signs: Array, count: int
) -> None:
    """Add the outer products of some rows, times signs, to the upper triangle, four at a time."""
    # Loops over slices from their start have no negative index to mind, and vectorise.
    n_terms = len(matrix)
    whole = count - count % 4
    for start in range(0, whole, 4):
        for i in range(n_terms):
            into = matrix[i, i:]
            one, two = rows[which[start], i:], rows[which[start + 1], i:]
            three, four = rows[which[start + 2], i:], rows[which[start + 3], i:]
            a, b = signs[start] * one[0], signs[start + 1] * two[0]
            c, d = signs[start + 2] * three[0], signs[start + 3] * four[0]
            for j in range(len(into)):
                into[j] += a * one[j] + b * two[j] + c * three[j] + d * four[j]
    for place in range(whole, count):
        for i in range(n_terms):
            into, row = matrix[i, i:], rows[which[place], i:]
            a = signs[place] * row[0]
            for j in range(len(into)):
                into[j] += a * row[j]


@njit(nogil=True, cache=True, fastmath=_FAST)
def _solve_symmetric(matrix: Array, factor: Array, target: Array, solution: Array) -> None:
    """Solve by Cholesky's factorisation of the upper triangle, four rows at a time."""
    n_terms = len(target)
    factor[:] = matrix
    for start in range(0, n_terms, 4):
        end = min(start + 4, n_terms)
        for k in range(start, end):
            into = factor[k, k:]
            for before in range(start, k):
                top = factor[before, k:]
                share = top[0]
                for j in range(len(into)):
                    into[j] -= share * top[j]
            scale = 1.0 / np.sqrt(into[0])
            for j in range(len(into)):
                into[j] *= scale
        for i in range(end, n_terms):
            into = factor[i, i:]
            one, two = factor[start, i:], factor[start + 1, i:]
            three, four = factor[start + 2, i:], factor[start + 3, i:]
            a, b, c, d = one[0], two[0], three[0], four[0]
            for j in range(len(into)):
                into[j] -= a * one[j] + b * two[j] + c * three[j] + d * four[j]
    solution[:] = target
    for k in range(n_terms):
        solution[k] /= factor[k, k]
        share, top, below = solution[k], factor[k, k + 1 :], solution[k + 1 :]
        for j in range(len(top)):
            below[j] -= share * top[j]
    for k in range(n_terms - 1, -1, -1):
        top, below = factor[k, k + 1 :], solution[k + 1 :]
        total = solution[k]
        for j in range(len(top)):
            total -= top[j] * below[j]
        solution[k] = total / factor[k, k]

"""Quadratic problems with inequalities for many voxels, each independent of the others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bids_tractography.machine.compiled import summing_kernel

Array = NDArray[np.float64]


@summing_kernel
def nonnegative_multipliers(gram: Array, values: Array, rank: int) -> Array:
    """Solve ``min ½ λᵀGλ + aᵀλ, λ ≥ 0`` for many `a` by an active-set method (Lawson 1974).

    The dual of a quadratic problem with inequalities: `a` are the constraints' values at the
    unconstrained solution. In each voxel the most violated constraint becomes active, and the
    active ones are solved for by a Cholesky factor that grows and shrinks with them. That is far
    less work than a general solver does: few constraints are active, and the matrix is shared.

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
    # "Most violated" must not depend on the length of a constraint's vector.
    scale = 1.0 / np.sqrt(np.diag(gram))
    for voxel in range(n_voxels):
        a = values[voxel]
        multipliers = result[voxel]
        gradient[:] = a
        tolerance = 1e-9 * np.max(np.abs(a * scale))
        count = 0
        # Each turn lowers the objective, so that no active set comes twice; the bound guards
        # against rounding.
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
            # Zero by definition: what rounding leaves must not let one enter a second time.
            for i in range(count):
                gradient[active[i]] = 0.0
    return result


@summing_kernel
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
        # As far towards the solution as all multipliers stay nonnegative.
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


@summing_kernel
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


@summing_kernel
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

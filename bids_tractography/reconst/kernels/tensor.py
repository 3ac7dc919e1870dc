"""Inner loops of the tensor fit; voxels are independent of each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bids_tractography.machine.compiled import summing_kernel

Array = NDArray[np.float64]

# Share of a squared length that is left by rounding, (1e-13)**2: such a row depends on others.
_NEGLIGIBLE = 1e-26
_MAX_SWEEPS = 20  # of Jacobi's method, which converges quadratically: five are usual


@summing_kernel
def weighted_tensors(
    signals: Array,
    volumes: NDArray[np.intp],
    basis: Array,
    to_tensor: Array,
    least_signal: float,
    least_diffusivity: float,
) -> Array:
    """Fit tensors to log signals, weighted by the signals that an unweighted fit predicts.

    Least squares by modified Gram-Schmidt orthogonalisation (Björck 1967): it keeps the digits
    that a normal matrix loses where weights differ much.

    Parameters
    ----------
    signals : ndarray, shape (n, N)
    volumes : ndarray of int, shape (V,)
        Which of the N are fitted to.
    basis : ndarray, shape (T, V)
        Orthonormal rows, which span the design matrix.
    to_tensor : ndarray, shape (6, T)
        Coefficients of the rows to the tensor's xx, xy, yy, xz, yz, zz.
    least_signal, least_diffusivity : float
        Lower bounds to which smaller signals and eigenvalues are raised.

    Returns
    -------
    ndarray, shape (n, 12)
        Eigenvalues, largest first, and the matrix whose columns are their eigenvectors. Of each
        eigenvector the component of largest magnitude is positive.
    """
    n_terms, n_volumes = basis.shape
    result = np.empty((signals.shape[0], 12))
    logs = np.empty(n_volumes)
    predicted = np.empty(n_volumes)
    rows = np.empty((n_terms, n_volumes))
    coefficients = np.empty(n_terms)
    tensor = np.empty((3, 3))
    vectors = np.empty((3, 3))
    for voxel in range(signals.shape[0]):
        for i in range(n_volumes):
            signal = signals[voxel, volumes[i]]
            logs[i] = np.log(least_signal if signal < least_signal else signal)
            predicted[i] = 0.0
        for k in range(n_terms):
            coefficients[k] = _dot(basis[k], logs)
            _add(coefficients[k], basis[k], predicted)
        largest = predicted[0]
        for i in range(n_volumes):
            largest = max(largest, predicted[i])
        # Weights relative to the largest, so that no exponential overflows whatever the unit of the
        # signal.
        for i in range(n_volumes):
            weight = np.exp(predicted[i] - largest)
            # Only what the first fit leaves is fitted again: small numbers, small errors.
            logs[i] = weight * (logs[i] - predicted[i])
            for k in range(n_terms):
                rows[k, i] = weight * basis[k, i]
        _improve(rows, logs, coefficients)
        place = 0
        for i in range(3):
            for j in range(i + 1):
                tensor[i, j] = tensor[j, i] = _dot(to_tensor[place], coefficients)
                place += 1
        _diagonalise(tensor, vectors)
        _write(tensor, vectors, least_diffusivity, result[voxel])
    return result


@summing_kernel
def _dot(one: Array, other: Array) -> float:
    total = 0.0
    for i in range(one.size):
        total += one[i] * other[i]
    return total


@summing_kernel
def _add(weight: float, values: Array, total: Array) -> None:
    for i in range(values.size):
        total[i] += weight * values[i]


@summing_kernel
def _improve(rows: Array, residual: Array, coefficients: Array) -> None:
    """Add to the coefficients those by which rows explain a residual; both are overwritten.

    A row that depends on those before it gets none.
    """
    n_terms = rows.shape[0]
    triangle = np.zeros((n_terms, n_terms))
    found = np.zeros(n_terms)
    for k in range(n_terms):
        triangle[k, k] = _dot(rows[k], rows[k])
    for k in range(n_terms):
        before = triangle[k, k]
        square = _dot(rows[k], rows[k])
        triangle[k, k] = square
        if square <= _NEGLIGIBLE * before:
            triangle[k, k] = 0.0
            continue
        for j in range(k + 1, n_terms):
            share = _dot(rows[k], rows[j]) / square
            triangle[k, j] = share
            _add(-share, rows[k], rows[j])
        found[k] = _dot(rows[k], residual) / square
        _add(-found[k], rows[k], residual)
    for k in range(n_terms - 1, -1, -1):
        for j in range(k + 1, n_terms):
            found[k] -= triangle[k, j] * found[j]
        if triangle[k, k] == 0.0:
            found[k] = 0.0
        coefficients[k] += found[k]


@summing_kernel
def _diagonalise(matrix: Array, vectors: Array) -> None:
    """Turn a symmetric matrix (3, 3) into a diagonal one, by Jacobi's rotations.

    Closed forms lose the digits of small eigenvalues and of the vectors of near-equal ones.
    """
    for i in range(3):
        for j in range(3):
            vectors[i, j] = 1.0 if i == j else 0.0
    for _ in range(_MAX_SWEEPS):
        off = abs(matrix[0, 1]) + abs(matrix[0, 2]) + abs(matrix[1, 2])
        if not off > 1e-17 * (abs(matrix[0, 0]) + abs(matrix[1, 1]) + abs(matrix[2, 2])):
            break
        for p in range(2):
            for q in range(p + 1, 3):
                _rotate(matrix, vectors, p, q)


@summing_kernel
def _rotate(matrix: Array, vectors: Array, p: int, q: int) -> None:
    if matrix[p, q] == 0.0:
        return
    ratio = (matrix[q, q] - matrix[p, p]) / (2.0 * matrix[p, q])
    tangent = 1.0 / (abs(ratio) + np.sqrt(ratio * ratio + 1.0))
    if ratio < 0.0:
        tangent = -tangent
    cosine = 1.0 / np.sqrt(tangent * tangent + 1.0)
    sine = tangent * cosine
    matrix[p, p] -= tangent * matrix[p, q]
    matrix[q, q] += tangent * matrix[p, q]
    matrix[p, q] = matrix[q, p] = 0.0
    r = 3 - p - q
    kept, moved = matrix[r, p], matrix[r, q]
    matrix[r, p] = matrix[p, r] = cosine * kept - sine * moved
    matrix[r, q] = matrix[q, r] = sine * kept + cosine * moved
    for i in range(3):
        kept, moved = vectors[i, p], vectors[i, q]
        vectors[i, p] = cosine * kept - sine * moved
        vectors[i, q] = sine * kept + cosine * moved


@summing_kernel
def _write(matrix: Array, vectors: Array, least: float, result: Array) -> None:
    """Write eigenvalues from the diagonal, largest first, and the eigenvectors by rows."""
    first, second, third = 0, 1, 2
    if matrix[second, second] > matrix[first, first]:
        first, second = second, first
    if matrix[third, third] > matrix[second, second]:
        second, third = third, second
    if matrix[second, second] > matrix[first, first]:
        first, second = second, first
    for place, column in enumerate((first, second, third)):
        value = matrix[column, column]
        result[place] = least if value < least else value
        widest = 0
        for i in range(1, 3):
            if abs(vectors[i, column]) > abs(vectors[widest, column]):
                widest = i
        sign = -1.0 if vectors[widest, column] < 0.0 else 1.0
        for i in range(3):
            result[3 + 3 * i + place] = sign * vectors[i, column]

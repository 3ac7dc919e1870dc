"""Parallel fitting of voxels, with the same result for any number of threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

# The block size is part of the result, because linear algebra rounds differently for another
# number of rows. Larger blocks do not fit into the cache.
_BLOCK_VOXELS = 256


def map_voxels(
    function: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    data: NDArray[np.float32],
    mask: NDArray[np.bool_],
    n_threads: int,
) -> NDArray[np.float32]:
    """Apply a function to the voxels of a mask, block by block.

    Parameters
    ----------
    function : callable
        Function of signals (n, V) that returns values (n, C).
    data : ndarray, shape (X, Y, Z, V)
        Signals.
    mask : ndarray of bool, shape (X, Y, Z)
        Voxels, at least one.
    n_threads : int
        Number of threads.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z, C)
        Zero outside the mask.
    """
    voxels = np.argwhere(mask)
    blocks = [voxels[i : i + _BLOCK_VOXELS] for i in range(0, len(voxels), _BLOCK_VOXELS)]

    def fit(block: NDArray[np.intp]) -> NDArray[np.float64]:
        return function(data[tuple(block.T)].astype(np.float64))

    with threadpool_limits(1), ThreadPoolExecutor(n_threads) as pool:
        values = np.concatenate(list(pool.map(fit, blocks)))
    result = np.zeros((*mask.shape, values.shape[1]), np.float32)
    result[mask] = values
    return result

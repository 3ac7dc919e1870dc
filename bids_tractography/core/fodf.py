"""Fibre orientation distributions (fODFs) as spherical harmonics.

Coefficients are in MRtrix3's real, even basis (``tournier07``, not legacy) and directions in RAS+
scanner axes, as in MRtrix3's files, which therefore need no conversion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from dipy.core.geometry import cart2sphere
from dipy.data import default_sphere
from dipy.reconst.shm import real_sh_tournier
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from bids_tractography.core.images import Grid

_BLOCK = 4096  # voxels evaluated at a time


@dataclass(frozen=True, eq=False)
class Fodf:
    """Fibre orientation distributions on a grid.

    Parameters
    ----------
    coefficients : ndarray of float32, shape (X, Y, Z, C)
        Spherical-harmonic coefficients in MRtrix3's basis and RAS+ scanner axes.
    grid : Grid
    """

    coefficients: NDArray[np.float32]
    grid: Grid

    @property
    def sh_order(self) -> int:
        """Maximum order of the spherical harmonics."""
        return sh_order_of(self.coefficients.shape[3])


def gfa(coefficients: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the generalised fractional anisotropy (Tuch 2004).

    It is the share of the root mean square that does not come from the mean; 0 where the
    distribution is zero.

    Parameters
    ----------
    coefficients : ndarray, shape (..., C)

    Returns
    -------
    ndarray, shape (...)
    """
    power = np.einsum("...c,...c->...", coefficients, coefficients, dtype=np.float64)
    mean = coefficients[..., 0].astype(np.float64) ** 2
    share = np.divide(mean, power, out=np.ones_like(power), where=power > 0)
    return np.asarray(np.sqrt(np.clip(1 - share, 0, 1)), np.float32)


def peak_amplitudes(coefficients: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the largest amplitude of distributions along `AXES`, 0 where none is positive.

    Parameters
    ----------
    coefficients : ndarray, shape (..., C)

    Returns
    -------
    ndarray, shape (...)
    """
    rows = coefficients.reshape(-1, coefficients.shape[-1])
    basis = axes_basis(sh_order_of(coefficients.shape[-1])).astype(np.float32)
    peaks = np.zeros(len(rows), np.float32)
    found = np.flatnonzero(rows.any(axis=1))
    for first in range(0, len(found), _BLOCK):
        block = found[first : first + _BLOCK]
        with threadpool_limits(1):  # sums must not depend on the number of BLAS threads
            peaks[block] = (rows[block] @ basis.T).max(axis=1)
    return np.maximum(peaks, 0).reshape(coefficients.shape[:-1])


def n_coefficients(sh_order: int) -> int:
    """Return the number of even spherical harmonics up to an order."""
    return (sh_order + 1) * (sh_order + 2) // 2


def orders_of(sh_order: int) -> NDArray[np.intp]:
    """Return the order of each coefficient, shape (C,)."""
    even = np.arange(0, sh_order + 1, 2)
    return np.repeat(even, 2 * even + 1)


def sh_order_of(count: int) -> int:
    """Return the maximum order of a number of even spherical harmonics.

    Raises
    ------
    ValueError
        If no order has this number of harmonics.
    """
    order = round((math.sqrt(8 * count + 1) - 3) / 2)
    if order % 2 or n_coefficients(order) != count:
        raise ValueError(f"{count} is not a number of even spherical-harmonic coefficients")
    return order


def sh_basis(sh_order: int, directions: NDArray[np.floating]) -> NDArray[np.float64]:
    """Evaluate the basis.

    Parameters
    ----------
    sh_order : int
    directions : ndarray, shape (N, 3)
        Unit vectors.

    Returns
    -------
    ndarray, shape (N, C)
    """
    _, theta, phi = cart2sphere(*np.asarray(directions, float).T)
    basis, _, _ = real_sh_tournier(sh_order, theta, phi, legacy=False)
    return np.asarray(basis)


# 362 axes; an even function sampled on them is sampled on the full sphere.
AXES: NDArray[np.float64] = default_sphere.vertices


@cache
def axes_basis(sh_order: int) -> NDArray[np.float64]:
    """Return the basis evaluated on `AXES`, shape (N, C)."""
    return sh_basis(sh_order, AXES)


@cache
def from_axes(sh_order: int) -> NDArray[np.float64]:
    """Return the matrix that fits coefficients to values on `AXES`, shape (N, C)."""
    return np.asarray(np.linalg.pinv(axes_basis(sh_order)).T)


def without_floor(coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
    """Subtract the minimum over the sphere from distributions (n, C), where it is positive.

    Subtracting a negative minimum would add an isotropic part instead of removing one.
    """
    basis = axes_basis(sh_order_of(coefficients.shape[1]))
    floor = np.maximum((coefficients @ basis.T).min(axis=1), 0)
    result = coefficients.copy()
    result[:, 0] -= floor * np.sqrt(4 * np.pi)
    return result

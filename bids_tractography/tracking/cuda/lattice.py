"""The lattice of cubes that a tracker walks on which knows voxels only as cubes of edge 1."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from bids_tractography.config.algorithm import ParallelTransportConfig
from bids_tractography.core.fodf import Fodf
from bids_tractography.core.stopping import BinaryRule, StoppingRule, ThresholdRule, extent
from bids_tractography.tracking.base import TrackingProblem
from bids_tractography.tracking.directions import interpolate

_CUBE_TOLERANCE = 1e-4  # 0.025 mm over the longest streamline
_BLOCK = 4096
PERMITTED = 0.01  # of a map of ones and zeros: at least one of the corners around is a one


@dataclass(frozen=True, eq=False)
class Lattice:
    """Cubes that cuslines takes for voxels; its nodes may lie beyond the image.

    Parameters
    ----------
    shape : tuple of int
    origin : ndarray, shape (3,)
        The first node, in voxels of the image.
    scale : ndarray, shape (3,)
        From node to node, in voxels.
    edge_mm : float
    """

    shape: tuple[int, int, int]
    origin: NDArray[np.float64]
    scale: NDArray[np.float64]
    edge_mm: float

    def nodes_of(self, voxels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn voxel coordinates (n, 3) into nodes."""
        return np.asarray((voxels - self.origin) / self.scale)

    def axis(self, n: int) -> NDArray[np.float64]:
        """Voxel coordinates of the nodes along an axis."""
        return np.asarray(np.arange(self.shape[n]) * self.scale[n] + self.origin[n])


def make_lattice(problem: TrackingProblem) -> tuple[Lattice, NDArray[np.bool_]]:
    """Lay cubes over all that can be reached from the places to go on, with room around.

    Returns
    -------
    lattice : Lattice
        The voxels themselves where they are cubes.
    permitted : ndarray of bool
        The nodes near any point that lies a step or less from a place to go on, however the map
        is read there: with its values at the nodes or half a node further. All others can be
        told from places to go on.
    """
    grid, algorithm = problem.fodf.grid, problem.tracking.algorithm
    places = extent(problem.stopping)
    edge_mm = float(grid.voxel_size_mm.min())
    scale = edge_mm / grid.voxel_size_mm
    if np.abs(scale - 1).max() < _CUBE_TOLERANCE:
        scale = np.ones(3)
    ahead = algorithm.step_size_mm
    if isinstance(algorithm, ParallelTransportConfig):
        ahead = max(ahead, algorithm.probe_length_mm)
    # The place itself reaches a voxel far; the nearest node is half a node away, as is the shift.
    reach = 1 / scale + ahead / edge_mm + 1
    room = np.ceil(reach) + 3  # two rows of nodes without anything, where unit_mark lies
    box = [np.flatnonzero(places.any(axis=tuple(a for a in range(3) if a != n))) for n in range(3)]
    low = np.array([float(taken[0]) for taken in box]) - room * scale
    high = np.array([float(taken[-1]) for taken in box]) + room * scale
    n = np.ceil((high - low) / scale - _CUBE_TOLERANCE).astype(int) + 1
    lattice = Lattice((int(n[0]), int(n[1]), int(n[2])), low, scale, edge_mm)
    near = places.astype(np.float32)
    for axis in range(3):
        node, voxel = lattice.axis(axis), np.arange(places.shape[axis])
        apart = np.abs(node[:, None] - voxel) / scale[axis]
        near = np.moveaxis(
            np.tensordot((apart < reach[axis]).astype(np.float32), near, (1, axis)), 0, axis
        )
        near = (near > 0).astype(np.float32)
    return lattice, near > 0


def stop_map(
    rule: StoppingRule, lattice: Lattice, permitted: NDArray[np.bool_], *, exact: bool
) -> tuple[NDArray[np.float32], float]:
    """Make a map, and a threshold that it exceeds wherever the rule says to go on.

    It does so read with its values at the nodes, or half a node further. On the voxels
    themselves it exceeds it hardly anywhere else; so the walk soon ends where a streamline does.

    Parameters
    ----------
    rule : StoppingRule
    lattice : Lattice
    permitted : ndarray of bool, shape (X, Y, Z)
    exact : bool
        Keep to the rule where that can be; otherwise let through all that is permitted.
    """
    if not exact or (lattice.scale != 1).any() or not isinstance(rule, ThresholdRule | BinaryRule):
        return permitted.astype(np.float32), PERMITTED
    values = rule.map if isinstance(rule, ThresholdRule) else rule.mask.astype(np.float32)
    # A voxel's own corner has an eighth of it.
    threshold = rule.threshold if isinstance(rule, ThresholdRule) else 0.125
    axes = [np.clip(lattice.axis(n), 0, values.shape[n] - 1).astype(int) for n in range(3)]
    nodes = values[np.ix_(*axes)]
    # The larger of two nodes: interpolated half a node off, that is no less than what it is of.
    for axis in range(3):
        nodes = np.maximum(nodes, np.roll(nodes, -1, axis))
    margin = 0.01 * float(values.max() - values.min())  # textures have 8 bits between nodes
    lowest = min(float(nodes.min()), threshold) - 1
    return np.where(permitted, nodes, lowest).astype(np.float32), threshold - margin


def amplitude_volume(
    fodf: Fodf,
    lattice: Lattice,
    permitted: NDArray[np.bool_],
    basis: NDArray[np.float64],
    n_threads: int,
) -> NDArray[np.float32]:
    """Evaluate the fODF at the permitted nodes; the outermost voxel holds beyond the image.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z, V)
        None negative, zero at the other nodes.
    """
    volume = np.zeros((*lattice.shape, len(basis)), np.float32)
    rows = volume.reshape(-1, len(basis))
    axes = [np.clip(lattice.axis(n), 0, fodf.grid.shape[n] - 1) for n in range(3)]
    index = np.flatnonzero(permitted)

    def fill(first: int) -> None:
        some = index[first : first + _BLOCK]
        places = np.unravel_index(some, lattice.shape)
        voxels = np.stack([axes[n][places[n]] for n in range(3)], axis=1)
        coefficients, _ = interpolate(fodf.coefficients, voxels)
        rows[some] = np.maximum(coefficients @ basis.T, 0)

    with threadpool_limits(1), ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(fill, range(0, len(index), _BLOCK)))
    return volume

"""Diffusion signals of known fibres, for tests of models."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from bids_tractography.config.model import TensorMapsConfig
from bids_tractography.core.dwi import Dwi
from bids_tractography.core.gradients import Gradients, Shell
from bids_tractography.core.images import Grid
from bids_tractography.reconst.base import TensorFit
from bids_tractography.reconst.tensor import fit_tensor

AXIAL, RADIAL = 1.7e-3, 0.3e-3


def spread(count: int, seed: int = 0) -> Any:
    """Return unit vectors that cover the sphere about evenly, in no special position."""
    z = 1 - (np.arange(count) + 0.5) / count
    angle = np.arange(count) * np.pi * (3 - np.sqrt(5))
    radius = np.sqrt(1 - z**2)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1)
    return points @ Rotation.random(random_state=np.random.default_rng(seed)).as_matrix()


def scheme(*shells: tuple[float, int], n_b0: int = 2) -> Gradients:
    bvals = np.concatenate([np.zeros(n_b0), *(np.full(n, b) for b, n in shells)])
    parts = [spread(n, seed) for seed, (_, n) in enumerate(shells)]
    return Gradients(bvals, np.concatenate([np.zeros((n_b0, 3)), *parts]), 50, 100)


def tensor(direction: Any, axial: float = AXIAL, radial: float = RADIAL) -> Any:
    direction = np.asarray(direction, float)
    outer = direction[..., :, None] * direction[..., None, :]
    return radial * np.eye(3) + (axial - radial) * outer


def signal(gradients: Gradients, tensors: Any, s0: float = 1000) -> Any:
    """Signals (..., V) of tensors (..., 3, 3)."""
    g = gradients.directions
    return s0 * np.exp(-gradients.bvals * np.einsum("vi,...ij,vj->...v", g, tensors, g))


def dwi_of(signals: Any, gradients: Gradients, size_mm: float = 2) -> Dwi:
    signals = np.asarray(signals, np.float32)
    grid = Grid(signals.shape[:3], np.diag([size_mm, size_mm, size_mm, 1.0]))
    return Dwi(signals, grid, gradients)


def whole(dwi: Dwi) -> Any:
    return np.ones(dwi.grid.shape, bool)


def tensor_fit(dwi: Dwi, **config: Any) -> TensorFit:
    return fit_tensor(dwi, whole(dwi), TensorMapsConfig(**config), 1)


def random_directions(shape: Any, seed: int = 0) -> Any:
    vectors = np.random.default_rng(seed).normal(size=(*shape, 3))
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def crossing(gradients: Gradients, angle_deg: float, count: int) -> tuple[Any, Any, Any]:
    """Signals (count, 1, 1, V) of two equal bundles at an angle, and their directions."""
    turn = Rotation.random(count, random_state=np.random.default_rng(1)).as_matrix()
    angle = np.deg2rad(angle_deg)
    one, other = turn[:, :, 0], np.cos(angle) * turn[:, :, 0] + np.sin(angle) * turn[:, :, 1]
    signals = 0.5 * signal(gradients, tensor(one)) + 0.5 * signal(gradients, tensor(other))
    return signals[:, None, None], one, other


def rician(signals: Any, sigma: float) -> Any:
    rng = np.random.default_rng(3)
    real, imaginary = rng.normal(0, sigma, (2, *signals.shape))
    return np.hypot(signals + real, imaginary)


def degrees(cosine: Any) -> Any:
    return np.rad2deg(np.arccos(np.minimum(np.abs(cosine), 1)))


def shells(*pairs: tuple[float, int]) -> tuple[Shell, ...]:
    return tuple(Shell(b, np.arange(n), n) for b, n in pairs)

"""A diffusion-weighted image with its gradients: what every model is fitted to."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bids_tractography.config.model import Gradients as GradientsConfig
from bids_tractography.errors import DataError
from bids_tractography.gradients import Gradients, read_gradients
from bids_tractography.images import Grid, read_image

logger = logging.getLogger(__name__)

# Interpolation and denoising leave a few small negative values; integer overflow leaves many.
_NEGATIVE_SHARE_LIMIT = 0.01


@dataclass(frozen=True, eq=False)
class Dwi:
    """A diffusion-weighted image.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z, V)
        Signal, in RAS+ order.
    grid : Grid
    gradients : Gradients
    warnings : tuple of str
        What is odd about it; recorded with everything made from it.
    """

    data: NDArray[np.float32]
    grid: Grid
    gradients: Gradients
    warnings: tuple[str, ...] = ()

    @property
    def mean_b0(self) -> NDArray[np.float32]:
        """Mean signal without diffusion weighting, shape (X, Y, Z)."""
        mean: NDArray[np.float32] = self.data[..., self.gradients.b0_volumes].mean(axis=-1)
        return mean

    @property
    def mean_weighted(self) -> NDArray[np.float32]:
        """Mean signal of the diffusion-weighted volumes, shape (X, Y, Z)."""
        volumes = np.concatenate([shell.volumes for shell in self.gradients.shells])
        mean: NDArray[np.float32] = self.data[..., volumes].mean(axis=-1)
        return mean


def read_dwi(image: Path, bval: Path, bvec: Path, config: GradientsConfig) -> Dwi:
    """Read and check a DWI run.

    Raises
    ------
    TractographyError
        If image or gradients are unusable; see `read_image` and `read_gradients`.
    """
    stored = read_image(image, ndim=4)
    if not stored.data.any():
        raise DataError(f"{image} is zero everywhere.")
    gradients = read_gradients(
        bval,
        bvec,
        stored.grid,
        stored.data.shape[3],
        b0_threshold_s_mm2=config.b0_threshold_s_mm2,
        shell_gap_s_mm2=config.shell_gap_s_mm2,
    )
    return Dwi(stored.data, stored.grid, gradients, tuple(_oddities(image, stored.data)))


def _oddities(image: Path, data: NDArray[np.float32]) -> list[str]:
    negative = int(np.count_nonzero(data < 0)) / int(np.count_nonzero(data))
    if negative <= _NEGATIVE_SHARE_LIMIT:
        return []
    warning = (
        f"{negative:.0%} of the non-zero values of {image.name} are negative, which no magnitude "
        "image has: it looks like an integer overflow when the file was made."
    )
    logger.warning(warning)
    return [warning]

"""Diffusion-weighted images with their gradients."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bids_tractography.config.model import GradientsConfig
from bids_tractography.core.gradients import FSL, Frame, GradientFiles, Gradients, read_gradients
from bids_tractography.core.images import Grid, read_image
from bids_tractography.errors import DataError

# Squares of values outside this range overflow or vanish in single precision.
_MAGNITUDE_RANGE = (1e-15, 1e15)
_INTEGER_LIMITS, _NEAR = (255, 32_767, 65_535), 0.02
_BRIGHT_PERCENTILE, _STRONG_SHARE = 99, 0.25
# Signals below this fraction of the median b=0 signal are treated as zero.
_NO_SIGNAL_SHARE = 1e-7


@dataclass(frozen=True, eq=False)
class Dwi:
    """A diffusion-weighted image.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z, V)
        Signal in RAS+ order; zero where the value in the file is not finite.
    grid : Grid
    gradients : Gradients
    missing : ndarray of bool, shape (X, Y, Z), or None
        Voxels with a NaN or infinite value; None if there are none.
    """

    data: NDArray[np.float32]
    grid: Grid
    gradients: Gradients
    missing: NDArray[np.bool_] | None = None

    @property
    def figures(self) -> dict[str, float]:
        """Measurements to check for plausibility, see `checks.QUANTITIES`."""
        return {
            **header_figures(self.grid, self.gradients),
            "wrapped_share": self._wrapped_share(),
            "limit_share": self._limit_share(),
        }

    def _limit_share(self) -> float:
        """Return the share of b=0 values just below the largest integer of a file's data type."""
        values = self.data[..., self.gradients.b0_volumes]
        values = values[values != 0]
        largest = float(values.max()) if values.size else 0.0
        for limit in _INTEGER_LIMITS:
            if (1 - _NEAR) * limit < largest <= limit:
                return float(np.mean(values > (1 - _NEAR) * limit))
        return 0.0

    def _wrapped_share(self) -> float:
        """Return the share of b=0 values that are strongly negative.

        Noise and interpolation cause negative values near zero only; integers that overflowed are
        as strongly negative as others are positive.
        """
        values = self.data[..., self.gradients.b0_volumes]
        values = values[values != 0]
        if not values.size:
            return 0.0
        bright = np.percentile(np.abs(values), _BRIGHT_PERCENTILE)
        return float(np.mean(values < -_STRONG_SHARE * bright))

    @cached_property
    def min_signal(self) -> float:
        """Lower bound of the signal before logarithms are taken; it scales with the data."""
        positive = self.mean_b0[self.mean_b0 > 0]
        return _NO_SIGNAL_SHARE * float(np.median(positive)) if positive.size else 1e-30

    @cached_property
    def mean_b0(self) -> NDArray[np.float32]:
        """Mean signal without diffusion weighting, shape (X, Y, Z)."""
        mean: NDArray[np.float32] = self.data[..., self.gradients.b0_volumes].mean(axis=-1)
        return mean

    @cached_property
    def has_signal(self) -> NDArray[np.bool_]:
        """Voxels that are not zero in every volume, shape (X, Y, Z)."""
        return np.asarray(self.data.any(axis=-1))

    @cached_property
    def mean_weighted(self) -> NDArray[np.float32]:
        """Mean signal of the diffusion-weighted volumes, shape (X, Y, Z)."""
        volumes = np.concatenate([shell.volumes for shell in self.gradients.shells])
        mean: NDArray[np.float32] = self.data[..., volumes].mean(axis=-1)
        return mean


def header_figures(grid: Grid, gradients: Gradients) -> dict[str, float]:
    """Return the measurements that do not require the signal."""
    return {
        "smallest_voxel_edge_mm": float(grid.voxel_size_mm.min()),
        "largest_b_s_mm2": float(gradients.bvals.max()),
    }


def read_dwi(image: Path, files: GradientFiles, config: GradientsConfig, frame: Frame = FSL) -> Dwi:
    """Read and check a DWI run.

    Parameters
    ----------
    image : Path
        NIfTI image with four dimensions.
    files : GradientFiles
        Its b-values and b-vectors.
    config : GradientsConfig
        How to read them.
    frame : Frame
        Axes of the b-vectors, see `choose_frame`.

    Raises
    ------
    TractographyError
        If the image or its gradients are unusable; see `read_image` and `read_gradients`.
    """
    stored = read_image(image, ndim=4)
    largest = float(np.abs(stored.data).max())
    if largest == 0:
        raise DataError(f"{image} is zero everywhere.")
    low, high = _MAGNITUDE_RANGE
    if not low < largest < high:
        raise DataError(
            f"{image}: its largest value is {largest:.2g}, outside the supported range {low:g} to "
            f"{high:g}.",
            "Check the scale (scl_slope) of the image.",
        )
    gradients = read_gradients(files, stored.grid, stored.data.shape[3], config, frame)
    return Dwi(stored.data, stored.grid, gradients, stored.missing)

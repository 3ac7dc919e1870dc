"""Which streamlines pass where they have to, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bids_tractography.core.images import Grid
from bids_tractography.core.streamlines import Rejection, StreamlineBatch


@dataclass(frozen=True, eq=False)
class Regions:
    """Masks that streamlines have to pass, and masks that they must not enter.

    Parameters
    ----------
    grid : Grid
    include, exclude : tuple of ndarray of bool, each of shape (X, Y, Z)
    """

    grid: Grid
    include: tuple[NDArray[np.bool_], ...] = ()
    exclude: tuple[NDArray[np.bool_], ...] = ()

    def accept(self, batch: StreamlineBatch) -> StreamlineBatch:
        """Reject streamlines by the voxels that hold their points; counts follow."""
        if not (self.include or self.exclude) or len(batch) == 0:
            return batch
        voxels = np.rint(self.grid.to_voxels(batch.points_mm)).astype(np.int64)
        voxels = np.clip(voxels, 0, np.array(self.grid.shape) - 1)  # rounding at the border
        first = batch.offsets[:-1]

        def enters(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
            return np.asarray(np.logical_or.reduceat(mask[tuple(voxels.T)], first))

        none = np.zeros(len(batch), bool)
        excluded = np.any([none, *map(enters, self.exclude)], axis=0)
        missing = ~excluded & ~np.all([~none, *map(enters, self.include)], axis=0)
        rejected = dict(batch.counts.rejected)
        rejected[Rejection.EXCLUDED] += int(excluded.sum())
        rejected[Rejection.NOT_INCLUDED] += int(missing.sum())
        kept = ~(excluded | missing)
        counts = replace(batch.counts, kept=int(kept.sum()), rejected=rejected)
        return replace(batch.select(kept), counts=counts)

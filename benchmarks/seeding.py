"""Time of seeding beside DIPY's ``random_seeds_from_mask``: microseconds a seed.

Run as ``python benchmarks/seeding.py``.
"""

from __future__ import annotations

import time

import numpy as np
from dipy.tracking.utils import random_seeds_from_mask

from bids_tractography.config.tracking import RandomSeedsConfig, TotalSeedsConfig
from bids_tractography.core.images import Grid
from bids_tractography.core.seeding import SeedList

SHAPE = (100, 100, 100)
AFFINE = np.diag([-1.75, 1.75, 2.5, 1.0])


def microseconds_a_seed(seeds: SeedList, batch: int = 10_000) -> float:
    """Time all seeds, batch by batch as the pipeline makes them."""
    start = time.perf_counter()
    for _ in seeds.batches(batch):
        pass
    return 1e6 * (time.perf_counter() - start) / len(seeds)


def main() -> None:
    """Print the time of a million of our seeds, and of 20,000 of DIPY's."""
    mask = np.ones(SHAPE, bool)
    grid = Grid(SHAPE, AFFINE)
    for config in (RandomSeedsConfig(per_voxel=1), TotalSeedsConfig(count=1_000_000)):
        seeds = SeedList(config, mask, grid, rng_seed=1)
        times = sorted(microseconds_a_seed(seeds) for _ in range(5))
        print(f"{config.kind}: {times[2]:.3f} µs a seed ({len(seeds)} seeds, median of 5)")
        offsets = grid.to_voxels(seeds.batch(0, 1_000_000).positions_mm) % 1
        print(f"  distinct offsets: {len(np.unique(offsets.round(12), axis=0))}")
    start = time.perf_counter()
    theirs = random_seeds_from_mask(
        mask[:20, :20, :50], AFFINE, seeds_count=1, seed_count_per_voxel=True, random_seed=1
    )
    print(f"DIPY: {1e6 * (time.perf_counter() - start) / len(theirs):.1f} µs a seed")


if __name__ == "__main__":
    main()

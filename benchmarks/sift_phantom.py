"""MRtrix3's own fODFs read by us: density of our streamlines beside those it brings along.

    python benchmarks/sift_phantom.py ../shared/data/peers/mrtrix_sift_phantom

The folder has an fODF image, a mask and 5,000 iFOD2 streamlines. Ours start and go on in the voxels
that have an fODF, in steps like theirs; densities are points per voxel of these.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import numpy as np

from bids_tractography.config.algorithm import ProbabilisticConfig
from bids_tractography.config.tracking import TotalSeedsConfig, TrackingConfig
from bids_tractography.core.fodf import Fodf
from bids_tractography.core.images import read_image
from bids_tractography.core.seeding import SeedList
from bids_tractography.core.stopping import BinaryRule
from bids_tractography.tracking.base import TrackingProblem
from bids_tractography.tracking.cpu.engine import CpuEngine


def main(folder: Path) -> None:
    image = read_image(folder / "fods.nii.gz", ndim=4)
    there = image.data[..., 0] > 0
    theirs = nib.streamlines.load(folder / "tracks.tck").streamlines

    def density(points: np.ndarray) -> np.ndarray:
        voxels = np.rint(image.grid.to_voxels(points)).astype(int)
        inside = ((voxels >= 0) & (voxels < image.grid.shape)).all(axis=1)
        counts = np.zeros(image.grid.shape)
        np.add.at(counts, tuple(voxels[inside].T), 1)
        return counts[there]

    tracking = TrackingConfig(
        algorithm=ProbabilisticConfig(step_size_mm=1.0, max_angle_deg=45),
        min_length_mm=4,
        dead_ends="keep",
    )
    rule = BinaryRule(there)
    ours = []
    for rng_seed in (1, 2):
        problem = TrackingProblem(Fodf(image.data, image.grid), rule, tracking, rng_seed)
        seeds = SeedList(TotalSeedsConfig(count=10_000), there, image.grid, rng_seed)
        batch = CpuEngine(problem, 1).track(seeds.batch(0, len(seeds)))
        ours.append(density(batch.points_mm))
        print(f"{len(batch)} streamlines of {len(seeds)} seeds, rng_seed {rng_seed}")
    halves = [density(np.concatenate(list(theirs[n::2]))) for n in range(2)]
    both = density(theirs.get_data())
    print(f"r of densities, ours and theirs: {[f'{np.corrcoef(o, both)[0, 1]:.3f}' for o in ours]}")
    print(f"r of densities, ours twice: {np.corrcoef(ours[0], ours[1])[0, 1]:.3f}")
    print(f"r of densities, halves of theirs: {np.corrcoef(halves[0], halves[1])[0, 1]:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Density of our tractogram beside that of MRtrix3's ``tckgen`` on the same fODF and masks.

    python benchmarks/density_beside_mrtrix.py OUTPUT_DIR [NAME ...]

For each DWI run of an output folder (or those named), ``tckgen`` tracks from our fODF file as it
is, with our seed and stop masks, as many seeds, step, angle and lengths as our sidecar says; both
densities are counted by the same code on the same grid. Printed: Pearson's correlation over the
voxels of the seed mask, and, for scale, between two runs of ``tckgen`` with other random numbers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

ALGORITHMS = {"prob": ("iFOD1", "iFOD2"), "det": ("SD_STREAM",)}


def tckgen(run: Path, record: dict[str, Any], algorithm: str, rng_seed: int, out: Path) -> None:
    """Track with MRtrix3 from our files."""
    tracking = record["config"]["tracking"]
    step_mm = tracking["algorithm"]["step_size_mm"]
    command = [
        "tckgen", "-quiet", "-force", "-algorithm", algorithm,
        f"{run}_model-{record['config']['model']['kind']}_param-fod_dwimap.nii.gz", str(out),
        "-seed_image", f"{run}_desc-seed_mask.nii.gz", "-mask", f"{run}_desc-stop_mask.nii.gz",
        "-seeds", str(record["seeds"]), "-select", "0",
        "-angle", str(tracking["algorithm"]["max_angle_deg"]), "-cutoff", "0.05",
        "-minlength", str(tracking["min_length_mm"]), "-maxlength", str(tracking["max_length_mm"]),
    ]  # fmt: skip
    if algorithm != "iFOD2":
        command += ["-step", str(step_mm)]
    subprocess.run(command, check=True, env={**os.environ, "MRTRIX_RNG_SEED": str(rng_seed)})


def density(streamlines: nib.streamlines.ArraySequence, image: nib.Nifti1Image) -> np.ndarray:
    """Count the streamlines with a point in each voxel."""
    total = np.zeros(image.shape)
    inverse = np.linalg.inv(image.affine)
    for line in streamlines:
        fine = np.vstack([line, (line[1:] + line[:-1]) / 2])  # iFOD2 writes sparser points
        voxels = np.unique(np.rint(nib.affines.apply_affine(inverse, fine)).astype(int), axis=0)
        voxels = voxels[((voxels >= 0) & (voxels < image.shape)).all(axis=1)]
        total[tuple(voxels.T)] += 1
    return total


def main(output: Path, names: list[str]) -> None:
    """Print one line for each run and algorithm."""
    print("run  algorithm  streamlines(ours)  streamlines(mrtrix)  r(ours)  r(mrtrix itself)")
    for sidecar in sorted(output.glob("sub-*/**/*_tractogram.json")):
        name = sidecar.name.split("_tract-")[0]
        if names and name not in names:
            continue
        record = json.loads(sidecar.read_text())["BidsTractography"]
        kind = record["config"]["tracking"]["algorithm"]["kind"]
        tdi = sidecar.name.replace("_tractogram.json", "_param-tdi_dwimap.nii.gz")
        ours = nib.load(sidecar.with_name(tdi))
        where = nib.load(sidecar.with_name(f"{name}_desc-seed_mask.nii.gz")).get_fdata() > 0
        for algorithm in ALGORITHMS[kind]:
            theirs, counts = [], []
            with tempfile.TemporaryDirectory() as folder:
                for rng_seed in (1, 2):
                    tck = Path(folder) / "tracks.tck"
                    tckgen(sidecar.with_name(name), record, algorithm, rng_seed, tck)
                    lines = nib.streamlines.load(tck).streamlines
                    counts.append(len(lines))
                    theirs.append(density(lines, ours)[where])
            own = ours.get_fdata()[where]
            across, among = np.corrcoef(own, theirs[0])[0, 1], np.corrcoef(*theirs)[0, 1]
            print(
                f"{name}  {algorithm}  {record['streamlines_kept']}  {counts[0]}"
                f"  {across:.3f}  {among:.3f}"
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

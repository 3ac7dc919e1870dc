"""Brain masks and tissue of scans: volumes beside `dwi2mask`, and the pictures of docs/anatomy.md.

    python anatomy.py DATA OUT

DATA has the folders scans and icbm. A table is printed; pictures are written to OUT as WebP.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures
from programs import UnavailableError, mrtrix, print_table

from bids_tractography.anatomy.brain import above_noise, find_brain_mask
from bids_tractography.anatomy.t1w import fractions_of_t1w
from bids_tractography.config.model import GradientsConfig, TensorMapsConfig
from bids_tractography.core.dwi import Dwi, read_dwi
from bids_tractography.core.gradients import GradientFiles
from bids_tractography.core.images import read_image
from bids_tractography.core.morphology import within_mm
from bids_tractography.core.resample import resample
from bids_tractography.reconst.tensor import fit_tensor
from bids_tractography.report.maps import Contour, mosaic

OURS, THEIRS = (0.2, 1.0, 0.2), (0.3, 0.6, 1.0)
TISSUE_COLOURS = {"wm": (1.0, 0.25, 0.2), "gm": (0.2, 1.0, 0.2), "csf": (0.3, 0.6, 1.0)}
QUALITY = 45
_MARGIN_MM = 15.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    images = [*arguments.data.glob("scans/sub-*/dwi/*_dwi.nii.gz")]
    images += arguments.data.glob("icbm/sub-*/dwi/*_dwi.nii.gz")
    print_table(brain_row(image, arguments.out) for image in sorted(images))
    for t1w in sorted(arguments.data.glob("scans/sub-*/anat/*_T1w.nii.gz")):
        image = next(t1w.parents[1].glob("dwi/*_dwi.nii.gz"))
        print()
        print_table(tissue_rows(image, t1w, arguments.out))


def read(image: Path) -> Dwi:
    stem = str(image).removesuffix(".nii.gz")
    files = GradientFiles(Path(f"{stem}.bval"), Path(f"{stem}.bvec"))
    return read_dwi(image, files, GradientsConfig())


def brain_row(image: Path, out: Path) -> dict[str, str]:
    dwi, name = read(image), image.name.removesuffix("_dwi.nii.gz")
    start = time.process_time()
    brain, _ = find_brain_mask(dwi)
    seconds = time.process_time() - start
    theirs = dwi2mask(image)
    contours = [Contour(theirs, THEIRS)] if theirs is not None else []
    contours.append(Contour(brain, OURS))
    fa = fit_tensor(dwi, (dwi.mean_b0 > 0) & above_noise(dwi), TensorMapsConfig(), 1).fa
    where = brain if theirs is None else brain | theirs
    size = dwi.grid.voxel_size_mm
    near = within_mm(where, _MARGIN_MM, dwi.grid)  # without the face
    volumes = (shown(dwi.mean_b0 * near), fa * near)
    pictures = [mosaic(volume, where, size, contours) for volume in volumes]
    save(out / f"brain_{name}.webp", np.concatenate(pictures))
    ml = float(size.prod()) / 1000
    return {
        "scan": name,
        "ours (ml)": f"{brain.sum() * ml:,.0f}",
        "`dwi2mask` (ml)": "-" if theirs is None else f"{theirs.sum() * ml:,.0f}",
        "Dice": "-" if theirs is None else f"{dice(brain, theirs):.3f}",
        "ours, CPU (s)": f"{seconds:.1f}",
    }


def dwi2mask(image: Path) -> NDArray[np.bool_] | None:
    stem = str(image).removesuffix(".nii.gz")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "mask.nii.gz"
        try:
            mrtrix("dwi2mask", "-fslgrad", f"{stem}.bvec", f"{stem}.bval", image, made)
        except UnavailableError:
            return None
        return read_image(made, ndim=3).data > 0


def tissue_rows(image: Path, t1w: Path, out: Path) -> Iterator[dict[str, str]]:
    dwi, name = read(image), t1w.name.removesuffix("_T1w.nii.gz")
    brain, _ = find_brain_mask(dwi)
    start = time.process_time()
    fractions, record, _ = fractions_of_t1w((t1w,), dwi, brain, 0.8)
    seconds = time.process_time() - start
    fa = fit_tensor(dwi, brain & above_noise(dwi), TensorMapsConfig(), 1).fa
    moved = np.array(record["t1w_to_dwi_mm"])
    anatomy = resample(read_image(t1w, ndim=3), dwi.grid, nearest=False, to_world=moved)
    size = dwi.grid.voxel_size_mm
    stack = np.stack(list(fractions.values()), axis=-1)
    largest = np.where(stack.max(axis=-1) > 0.5, stack.argmax(axis=-1), -1)
    contours = [
        Contour(largest == place, TISSUE_COLOURS[tissue])
        for place, tissue in enumerate(fractions)
        if tissue != "gm"
    ]
    colours = np.array([TISSUE_COLOURS[tissue] for tissue in fractions], np.float32)
    pictures = [
        mosaic(shown(anatomy * brain), brain, size, contours),
        mosaic(shown(dwi.mean_b0 * brain), brain, size, contours),
        mosaic(np.clip(stack @ colours, 0, 1), brain, size),
    ]
    save(out / f"tissue_{name}.webp", np.concatenate(pictures))
    ml = float(size.prod()) / 1000
    for tissue, fraction in fractions.items():
        inside = brain & (fraction > 0.5)
        yield {
            "tissue": tissue,
            "volume in the brain (ml)": f"{fraction[brain].sum() * ml:,.0f}",
            "median FA": f"{np.median(fa[inside]):.2f}",
            "agreement of T1w and attenuation": f"{record['agreement']:.2f}",
            "likeness to the atlas": f"{record['likeness']:.2f}",
            "CPU of all (s)": f"{seconds:.0f}",
        }


def shown(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale intensities to 0 to 1, dark ones raised."""
    top = np.percentile(volume[volume > 0], 99.5)
    return np.asarray(np.clip(volume / top, 0, 1) ** 0.6, np.float32)


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def save(path: Path, picture: NDArray[Any]) -> None:
    pixels = np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8)
    Pictures.fromarray(pixels).save(path, quality=QUALITY, method=6)


if __name__ == "__main__":
    main()

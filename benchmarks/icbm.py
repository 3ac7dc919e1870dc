"""A simulated head: ends in grey matter and true bundles covered, by us and by MRtrix3.

    python benchmarks/icbm.py DATA_DIR [--seeds N] [--rng-seeds N] [--keep DIR]

DATA_DIR is the dataset with its ``truth/``. Everybody gets the same DWI, brain mask, tissue
fractions (a 5TT image of them for MRtrix3), number of random seeds in white matter (fraction above
0.5) and bounds of length; responses are estimated by each program (Dhollander 2016), step and
angle are each program's defaults. "plain" stops by each program's defaults, in the brain mask.
Every row is the mean and the standard deviation over several seeds of the random numbers.

An end is in grey matter where that is the largest interpolated fraction. A streamline belongs to a
bundle if it passes within 5 mm of where the bundle's streamlines begin and of where they end, and
three quarters of its voxels are the bundle's or touch it; a bundle is covered if such streamlines
visit more than half of the voxels that its true streamlines visit. Of the true streamlines
themselves every fifth is scored too, and all of them moved by 5 mm, for scale.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from programs import Tracked, UnavailableError, mrtrix, print_table, spread, track
from scoring import (
    Lines,
    TrueBundles,
    Volume,
    belongs,
    bundle_coverage,
    read_lines,
    read_volume,
    share_in_grey_matter,
    true_bundles,
    visits,
)

LENGTHS_MM = (20, 250)
TOLERANCE_MM = 5.0
TISSUES = ("wm", "gm", "csf")
OURS = (
    *((algorithm, "plain") for algorithm in ("det", "prob", "ptt")),
    *((algorithm, "act") for algorithm in ("det", "prob", "ptt", "pft")),
    ("pft", "cmc"),
)
THEIRS = tuple(
    (algorithm, stop) for algorithm in ("SD_STREAM", "iFOD1", "iFOD2") for stop in ("plain", "act")
)


@dataclass(frozen=True, eq=False)
class Truth:
    """The streamlines that the head was simulated from, and its tissue."""

    lines: Lines
    bundles: TrueBundles
    fractions: Mapping[str, Volume]


def read_truth(data: Path) -> Truth:
    """Read the truth of the simulated head."""
    anat = data / "sub-icbm" / "anat"
    fractions = {
        name: read_volume(anat / f"sub-icbm_space-ACPC_label-{name.upper()}_probseg.nii.gz")
        for name in TISSUES
    }
    folder = data / "truth"
    lines = read_lines(folder / "bundles.tck")
    bundle_of = np.loadtxt(folder / "bundle_of_streamline.txt", dtype=int)
    names = tuple((folder / "bundle_names.txt").read_text().split())
    bundles = true_bundles(lines, bundle_of, names, fractions["wm"], TOLERANCE_MM)
    return Truth(lines, bundles, fractions)


def score(lines: Lines, truth: Truth) -> dict[str, float]:
    """Return the score of streamlines in mm as columns of the table."""
    both, each = share_in_grey_matter(lines, truth.fractions)
    through = visits(lines, truth.bundles.grid)
    coverage = bundle_coverage(through, truth.bundles)
    return {
        "streamlines": len(lines),
        "in a true bundle %": 100 * belongs(through, truth.bundles).any(axis=1).mean(),
        "both ends in grey matter %": 100 * both,
        "ends in grey matter %": 100 * each,
        f"bundles covered of {len(coverage)}": int((coverage > 0.5).sum()),
        "mean coverage %": 100 * coverage.mean(),
    }


def columns(scores: list[dict[str, float]]) -> dict[str, str]:
    """Return mean and spread of scores."""
    return {
        name: spread([each[name] for each in scores], 0 if name == "streamlines" else 1)
        for name in scores[0]
    }


@dataclass(frozen=True)
class Inputs:
    """Files that all trackers get."""

    dataset: Path
    folder: Path
    n_seeds: int

    @property
    def dwi(self) -> Path:
        """The DWI, without its extension."""
        return self.dataset / "sub-icbm" / "dwi" / "sub-icbm_space-ACPC_desc-preproc_dwi"

    @property
    def brain(self) -> Path:
        """The brain mask of the dataset."""
        return self.dwi.with_name("sub-icbm_space-ACPC_desc-brain_mask.nii.gz")

    def file(self, name: str) -> Path:
        """Return a file of the folder."""
        return self.folder / name


def prepare(inputs: Inputs, fractions: Mapping[str, Volume]) -> None:
    """Write the seed mask and the 5TT image."""
    wm, gm, csf = (fractions[name].data.astype(np.float32) for name in TISSUES)
    affine = fractions["wm"].affine
    nib.save(nib.Nifti1Image((wm > 0.5).astype(np.uint8), affine), inputs.file("seeds.nii.gz"))
    total = wm + gm + csf
    head = total > 0.5
    scale = np.where(head, 1 / np.maximum(total, 0.5), 0)
    nothing = np.zeros_like(wm)
    five = np.stack([gm * scale, nothing, wm * scale, csf * scale, nothing], axis=3)
    nib.save(nib.Nifti1Image(five, affine), inputs.file("5tt.nii.gz"))


def run_ours(inputs: Inputs, algorithm: str, stop: str, rng_seed: int) -> Tracked:
    """Track with our own command."""
    settings: dict[str, Any] = {
        "model": {"kind": "msmt_csd"},
        "seeding": {
            "mask": {"kind": "file", "path": str(inputs.file("seeds.nii.gz"))},
            "seeds": {"kind": "total", "count": inputs.n_seeds},
            "rng_seed": rng_seed,
        },
        "tracking.algorithm": {"kind": algorithm},
        "tracking.min_length_mm": LENGTHS_MM[0],
        "tracking.max_length_mm": LENGTHS_MM[1],
    }
    if stop != "plain":
        settings["stopping"] = {"kind": stop}
    return track(inputs.dataset, inputs.file(f"ours_{stop}"), settings)


def run_theirs(inputs: Inputs, algorithm: str, stop: str, rng_seed: int) -> Tracked:
    """Track with ``tckgen``."""
    file = inputs.file
    fod = file("wm_fod.nii.gz")
    if not fod.exists():
        dwi = [f"{inputs.dwi}.nii.gz", "-fslgrad", f"{inputs.dwi}.bvec", f"{inputs.dwi}.bval"]
        mask = ["-mask", inputs.brain]
        responses = [file(f"{name}.txt") for name in TISSUES]
        mrtrix("dwi2response", "dhollander", *dwi, *responses, *mask)
        images = (fod, file("gm_fod.nii.gz"), file("csf_fod.nii.gz"))
        pairs = [path for pair in zip(responses, images, strict=True) for path in pair]
        mrtrix("dwi2fod", "msmt_csd", *dwi, *pairs, *mask)
    out = file(f"{algorithm}_{stop}.tck")
    act = ["-act", file("5tt.nii.gz"), "-backtrack"]
    within = (
        act[: 2 if algorithm == "SD_STREAM" else 3] if stop == "act" else ["-mask", inputs.brain]
    )
    seconds = mrtrix(
        *("tckgen", "-algorithm", algorithm, fod, out, *within),
        *("-seed_image", file("seeds.nii.gz"), "-seeds", inputs.n_seeds, "-select", 0),
        *("-minlength", LENGTHS_MM[0], "-maxlength", LENGTHS_MM[1]),
        rng_seed=rng_seed,
    )
    return Tracked(out, seconds)


def rows(inputs: Inputs, truth: Truth, n_seeds: int) -> Iterator[Mapping[str, str]]:
    """Track with everything and score it; a tracker that refuses makes a row that says so."""
    trackers: list[tuple[str, str, Callable[[int], Tracked]]] = [
        (program, f"{name}, {stop}", partial(run, inputs, name, stop))
        for program, run, some in (("ours", run_ours, OURS), ("MRtrix3", run_theirs, THEIRS))
        for name, stop in some
    ]
    moved = Lines(truth.lines.points + np.array([TOLERANCE_MM, 0, 0]), truth.lines.offsets)
    fifth = truth.lines.take(np.arange(0, len(truth.lines), 5))
    for name, lines in (("every fifth", fifth), ("moved by 5 mm", moved)):
        yield {"program": "truth", "tracker": name, **columns([score(lines, truth)]), "s": ""}
    names = score(truth.lines.take(np.arange(1)), truth)
    for program, tracker, run in trackers:
        row = {"program": program, "tracker": tracker}
        try:
            found, seconds = [], 0.0
            for rng_seed in range(1, n_seeds + 1):
                made = run(rng_seed)
                found.append(score(read_lines(made.path), truth))
                seconds += made.seconds / n_seeds
            yield {**row, **columns(found), "s": f"{seconds:.0f}"}
        except UnavailableError as refusal:
            empty = dict.fromkeys([*names, "s"], "")
            yield {**row, **empty, "streamlines": f"not available: {refusal}"}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=20_000, help="seeds in all (default: 20000)")
    parser.add_argument("--rng-seeds", type=int, default=5, help="seeds of each (default: 5)")
    parser.add_argument("--keep", type=Path, help="new folder for everything that is made")
    options = parser.parse_args()
    truth = read_truth(options.data)
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(exist_ok=True)
        inputs = Inputs(options.data.resolve(), folder.resolve(), options.seeds)
        prepare(inputs, truth.fractions)
        print_table(rows(inputs, truth, options.rng_seeds))


if __name__ == "__main__":
    main()

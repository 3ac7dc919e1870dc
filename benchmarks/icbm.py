"""A simulated head: ends in grey matter and true bundles covered, by us and by MRtrix3.

    python benchmarks/icbm.py DATA_DIR [--seeds N] [--keep DIR]

DATA_DIR is the dataset with its ``truth/``. Everybody gets the same DWI, brain mask, tissue
fractions (a 5TT image of them for MRtrix3), number of random seeds in white matter (fraction above
0.5) and bounds of length; responses are estimated by each program (Dhollander 2016), step and
angle are each program's defaults.

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

import nibabel as nib
import numpy as np
from programs import Tracked, UnavailableError, mrtrix, print_table, track
from scoring import (
    Lines,
    TrueBundles,
    Volume,
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
OURS = (("prob", "act"), ("pft", "cmc"), ("pft", "act"))
THEIRS = (("iFOD2", ()), ("iFOD2", ("-backtrack",)))
BEYOND_MM = 1.0  # the step into grey matter, which some programs keep and others do not


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


def score(lines: Lines, truth: Truth) -> dict[str, str]:
    """Return the score of streamlines in mm as columns of the table."""
    both, each = share_in_grey_matter(lines, truth.fractions, BEYOND_MM)
    coverage = bundle_coverage(visits(lines, truth.bundles.grid), truth.bundles)
    return {
        "streamlines": str(len(lines)),
        "both ends in grey matter %": f"{100 * both:.1f}",
        "ends in grey matter %": f"{100 * each:.1f}",
        f"bundles covered of {len(coverage)}": str(int((coverage > 0.5).sum())),
        "mean coverage %": f"{100 * coverage.mean():.1f}",
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


def run_ours(inputs: Inputs, algorithm: str, stop: str) -> Tracked:
    """Track with our own command."""
    settings = {
        "model": {"kind": "msmt_csd"},
        "seeding": {
            "mask": {"kind": "file", "path": str(inputs.file("seeds.nii.gz"))},
            "seeds": {"kind": "total", "count": inputs.n_seeds},
            "rng_seed": 1,
        },
        "stopping": {"kind": stop},
        "tracking.algorithm": {"kind": algorithm},
        "tracking.min_length_mm": LENGTHS_MM[0],
        "tracking.max_length_mm": LENGTHS_MM[1],
    }
    return track(inputs.dataset, inputs.file(f"ours_{stop}"), settings)


def run_theirs(inputs: Inputs, algorithm: str, options: tuple[str, ...]) -> Tracked:
    """Track with ``tckgen -act``."""
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
    out = file(f"{algorithm}{''.join(options)}.tck")
    seconds = mrtrix(
        *("tckgen", "-algorithm", algorithm, fod, out, "-act", file("5tt.nii.gz"), *options),
        *("-seed_image", file("seeds.nii.gz"), "-seeds", inputs.n_seeds, "-select", 0),
        *("-minlength", LENGTHS_MM[0], "-maxlength", LENGTHS_MM[1]),
    )
    return Tracked(out, seconds)


def rows(inputs: Inputs, truth: Truth) -> Iterator[Mapping[str, str]]:
    """Track with everything and score it; a tracker that refuses makes a row that says so."""
    trackers: list[tuple[str, str, Callable[[], Tracked]]] = [
        ("ours", f"{name}, {stop}", partial(run_ours, inputs, name, stop)) for name, stop in OURS
    ]
    trackers += [
        ("MRtrix3", " ".join([name, "-act", *more]), partial(run_theirs, inputs, name, more))
        for name, more in THEIRS
    ]
    moved = Lines(truth.lines.points + np.array([TOLERANCE_MM, 0, 0]), truth.lines.offsets)
    fifth = truth.lines.take(np.arange(0, len(truth.lines), 5))
    for name, lines in (("every fifth", fifth), ("moved by 5 mm", moved)):
        yield {"program": "truth", "tracker": name, **score(lines, truth), "s": ""}
    names = score(truth.lines.take(np.arange(1)), truth)
    for program, tracker, run in trackers:
        row = {"program": program, "tracker": tracker}
        try:
            made = run()
            yield {**row, **score(read_lines(made.path), truth), "s": f"{made.seconds:.0f}"}
        except UnavailableError as refusal:
            empty = dict.fromkeys([*names, "s"], "")
            yield {**row, **empty, "streamlines": f"not available: {refusal}"}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=20_000, help="seeds in all (default: 20000)")
    parser.add_argument("--keep", type=Path, help="new folder for everything that is made")
    options = parser.parse_args()
    truth = read_truth(options.data)
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(exist_ok=True)
        inputs = Inputs(options.data.resolve(), folder.resolve(), options.seeds)
        prepare(inputs, truth.fractions)
        print_table(rows(inputs, truth))


if __name__ == "__main__":
    main()

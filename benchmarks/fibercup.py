"""FiberCup: which of the seven bundles are found, by us and by MRtrix3.

    python benchmarks/fibercup.py DATA_DIR [--per-voxel N] [--rng-seeds N] [--keep DIR]

DATA_DIR is the dataset with its ``truth/``. All trackers get the same DWI, brain mask, random
seeds per voxel and bounds of length, and estimate their responses themselves; step, angle and
thresholds are each program's defaults, those of DIPY being its command line's (0.5 mm, 30 degrees,
0.1). CSD takes b = 1500, where there still is more signal than noise. Every row is the mean and the
standard deviation over several seeds of the random numbers.

"mask" goes on in the white-matter mask with the bundles and the end regions, as the mask alone does
not reach all of them, where there is any signal, as the mask also covers voxels without; "default"
stops by our own default there. PFT needs tissue: grey matter is the end regions, white matter the
rest of the mask, fluid everything else; rows with ACT have it too, as a 5TT image for MRtrix3,
which then also backtracks.

Scores are Tractometer's (Côté 2013): streamlines that connect the two regions of a bundle, two
others, or no two; bundles with a valid streamline; share of the bundles' voxels visited by valid
streamlines, and of voxels visited outside. An end may be a voxel away from its region.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from programs import Tracked, UnavailableError, mrtrix, print_table, spread, track
from scoring import ConnectionScore, Lines, Volume, read_lines, read_volume, score_connections

LENGTHS_MM = (20, 250)
TOLERANCE_MM = 3.0
SHELL = 1500
LEAST_SIGNAL = 0.1  # of the 99th percentile of b = 0
MODELS = ("csd", "msmt_csd")
OURS = (
    *((algorithm, stop) for algorithm in ("det", "prob", "ptt") for stop in ("default", "mask")),
    *((algorithm, "act") for algorithm in ("det", "prob", "pft")),
)
THEIRS = tuple(
    (algorithm, stop) for algorithm in ("SD_STREAM", "iFOD1", "iFOD2") for stop in ("mask", "act")
)
DIPYS = (("det", "mask"), ("prob", "mask"))


@dataclass(frozen=True, eq=False)
class Truth:
    """End regions and bundles.

    Parameters
    ----------
    regions : Volume
        Labels.
    bundles : Volume
        Masks, shape (X, Y, Z, 7).
    pairs : dict of int to two int
        Labels at the ends of each bundle, by its place.
    white_matter : Volume
    """

    regions: Volume
    bundles: Volume
    pairs: dict[int, tuple[int, int]]
    white_matter: Volume

    def mask(self, signal: np.ndarray) -> np.ndarray:
        """Return where tracking goes on: known fibres with any signal without weighting."""
        parts = (self.white_matter.data, self.regions.data, self.bundles.data.any(axis=3))
        known = np.logical_or.reduce([part > 0 for part in parts])
        return np.asarray(known & (signal > LEAST_SIGNAL * np.percentile(signal[known], 99)))


def read_truth(folder: Path) -> Truth:
    """Read the truth of FiberCup; region ``3a`` is one end of bundle 3."""
    labels = json.loads((folder / "geometry.json").read_text())["roi_labels"]
    ends: dict[str, list[int]] = {}
    for label, names in labels.items():
        for name in names:
            ends.setdefault(name[:-1], []).append(int(label))
    return Truth(
        regions=read_volume(folder / "end_rois.nii.gz"),
        bundles=read_volume(folder / "bundles_4d.nii.gz"),
        pairs={int(bundle) - 1: (pair[0], pair[1]) for bundle, pair in ends.items()},
        white_matter=read_volume(folder / "wm_mask.nii.gz"),
    )


def score(lines: Lines, truth: Truth) -> ConnectionScore:
    """Score streamlines in mm against FiberCup's truth."""
    return score_connections(lines, truth.regions, truth.bundles, truth.pairs, TOLERANCE_MM)


@dataclass(frozen=True)
class Inputs:
    """Files that all trackers get."""

    dataset: Path
    folder: Path
    per_voxel: int

    @property
    def dwi(self) -> Path:
        """The DWI, without its extension."""
        return self.dataset / "sub-fibercup" / "dwi" / "sub-fibercup_dwi"

    def file(self, name: str) -> Path:
        """Return a file of the folder."""
        return self.folder / name


def prepare(inputs: Inputs, truth: Truth) -> None:
    """Write the mask, the tissue fractions, the 5TT image and a dataset with the brain mask."""
    image = nib.as_closest_canonical(nib.load(f"{inputs.dwi}.nii.gz"))  # the truth is in RAS+
    if not np.allclose(image.affine, truth.regions.affine):
        raise ValueError("the DWI and the truth are on different grids")
    unweighted = np.loadtxt(f"{inputs.dwi}.bval") < 50
    mask = truth.mask(image.get_fdata()[..., unweighted].mean(axis=3))
    ends = truth.regions.data > 0
    tissue = {"gm": mask & ends, "wm": mask & ~ends, "csf": ~mask}
    for name, data in {"mask": mask, **tissue}.items():
        save(data, truth.regions, inputs.file(f"{name}.nii.gz"))
    nothing = np.zeros_like(mask)
    five = [tissue["gm"], nothing, tissue["wm"], tissue["csf"], nothing]
    save(np.stack(five, axis=3), truth.regions, inputs.file("5tt.nii.gz"))
    masks = inputs.file("masks")
    place = masks / "sub-fibercup" / "dwi" / "sub-fibercup_desc-brain_mask.nii.gz"
    place.parent.mkdir(parents=True)
    save(mask, truth.regions, place)
    description = {
        "Name": "masks",
        "BIDSVersion": "1.9.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "masks"}],
    }
    (masks / "dataset_description.json").write_text(json.dumps(description))


def save(data: np.ndarray, grid: Volume, path: Path) -> None:
    """Write a yes or no, or fractions, as an image."""
    nib.save(nib.Nifti1Image(data.astype(np.float32), grid.affine), path)


def run_ours(
    inputs: Inputs, model: str, algorithm: str, stop: str, rng_seed: int, **more: Any
) -> Tracked:
    """Track with our own command."""
    mask = {"kind": "file", "path": str(inputs.file("mask.nii.gz"))}
    settings: dict[str, Any] = {
        "model": {"kind": model},
        "seeding": {
            "mask": mask,
            "seeds": {"kind": "random", "per_voxel": inputs.per_voxel},
            "rng_seed": rng_seed,
        },
        "tracking.algorithm": {"kind": algorithm},
        "tracking.min_length_mm": LENGTHS_MM[0],
        "tracking.max_length_mm": LENGTHS_MM[1],
    }
    if model == "csd":  # the phantom is thinner than the border that is left out in a head
        response = {"kind": "auto", "erode_mm": 0, "voxels": 100}
        settings["model"] |= {"shell_s_mm2": SHELL, "response": response}
    settings |= more
    if stop == "mask":
        settings["stopping"] = {"kind": "binary", "mask": mask}
    if stop == "act":
        settings["stopping"] = {"kind": "act"}
        files = {name: str(inputs.file(f"{name}.nii.gz")) for name in ("wm", "gm", "csf")}
        settings["tissue"] = {"kind": "files", **files}
    output = inputs.file(f"ours_{model}_{stop}")
    return track(inputs.dataset, output, settings, [inputs.file("masks")])


def run_dipy(inputs: Inputs, model: str, algorithm: str, stop: str, rng_seed: int) -> Tracked:
    """Track with DIPY on our fODF."""
    habits = {"step_size_mm": 0.5, "max_angle_deg": 30, "pmf_threshold": 0.1}
    settings = {
        "tracking.engine": "dipy",
        "tracking.algorithm": {"kind": algorithm, **habits},
        "tracking.dead_ends": "keep",
    }
    return run_ours(inputs, model, algorithm, stop, rng_seed, **settings)


def fit_theirs(inputs: Inputs, model: str) -> None:
    """Make MRtrix3's fODF."""
    file = inputs.file
    dwi = [f"{inputs.dwi}.nii.gz", "-fslgrad", f"{inputs.dwi}.bvec", f"{inputs.dwi}.bval"]
    mask = ["-mask", file("mask.nii.gz")]
    if model == "csd":
        shells = ["-shells", SHELL]
        mrtrix("dwi2response", "tournier", *dwi, file("wm_ss.txt"), *mask, *shells, "-number", 100)
        mrtrix("dwi2fod", "csd", *dwi, file("wm_ss.txt"), file("csd.nii.gz"), *mask, *shells)
        return
    responses = [file(f"{tissue}_ms.txt") for tissue in ("wm", "gm", "csf")]
    mrtrix("dwi2response", "dhollander", *dwi, *responses, *mask, "-erode", 0)
    wm, _, csf = responses  # the phantom has no grey matter
    images = [wm, file("msmt_csd.nii.gz"), csf, file("msmt_csf.nii.gz")]
    mrtrix("dwi2fod", "msmt_csd", *dwi, *images, *mask)


def run_theirs(inputs: Inputs, model: str, algorithm: str, stop: str, rng_seed: int) -> Tracked:
    """Track with ``tckgen``."""
    file = inputs.file
    if not file(f"{model}.nii.gz").exists():
        fit_theirs(inputs, model)
    out = file(f"{model}_{algorithm}_{stop}.tck")
    mask = file("mask.nii.gz")
    within = ["-mask", mask]
    if stop == "act":
        # Backtracking is for algorithms that draw.
        within = ["-act", file("5tt.nii.gz"), *(["-backtrack"] * (algorithm != "SD_STREAM"))]
    seconds = mrtrix(
        *("tckgen", "-algorithm", algorithm, file(f"{model}.nii.gz"), out, *within),
        *("-seed_random_per_voxel", mask, inputs.per_voxel, "-select", 0),
        *("-minlength", LENGTHS_MM[0], "-maxlength", LENGTHS_MM[1]),
        rng_seed=rng_seed,
    )
    return Tracked(out, seconds)


def rows(inputs: Inputs, truth: Truth, n_seeds: int) -> Iterator[Mapping[str, str]]:
    """Track with everything and score it; a tracker that refuses makes a row that says so."""
    for model in MODELS:
        for program, run, trackers in (
            ("ours", run_ours, OURS),
            ("DIPY", run_dipy, DIPYS),
            ("MRtrix3", run_theirs, THEIRS),
        ):
            for algorithm, stop in trackers:
                names = {"program": program, "model": model, "tracker": algorithm, "stop": stop}
                try:
                    found = []
                    for rng_seed in range(1, n_seeds + 1):
                        made = run(inputs, model, algorithm, stop, rng_seed)
                        found.append((score(read_lines(made.path), truth), made.seconds))
                    yield {**names, **columns(found)}
                except UnavailableError as refusal:
                    empty = dict.fromkeys(columns([(NOTHING, 0)]), "")
                    yield {**names, **empty, "streamlines": f"not available: {refusal}"}


NOTHING = ConnectionScore(0, 0, 0, 0, 0, 0, 0, 0)


def columns(found: list[tuple[ConnectionScore, float]]) -> dict[str, str]:
    """Return scores and seconds as columns of the table."""
    scores = [scored for scored, _ in found]
    return {
        "streamlines": spread([scored.count for scored in scores], 0),
        "valid %": spread([100 * scored.valid for scored in scores]),
        "invalid %": spread([100 * scored.invalid for scored in scores]),
        "no connection %": spread([100 * scored.none for scored in scores]),
        "bundles of 7": spread([scored.bundles_found for scored in scores]),
        "invalid bundles": spread([scored.invalid_bundles for scored in scores]),
        "coverage %": spread([100 * scored.coverage for scored in scores]),
        "overreach %": spread([100 * scored.overreach for scored in scores]),
        "s": f"{statistics.mean(seconds for _, seconds in found):.0f}",
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--per-voxel", type=int, default=5, help="seeds in a voxel (default: 5)")
    parser.add_argument("--rng-seeds", type=int, default=5, help="seeds of each (default: 5)")
    parser.add_argument("--keep", type=Path, help="new folder for everything that is made")
    options = parser.parse_args()
    truth = read_truth(options.data / "truth")
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(exist_ok=True)
        inputs = Inputs(options.data.resolve(), folder.resolve(), options.per_voxel)
        prepare(inputs, truth)
        print_table(rows(inputs, truth, options.rng_seeds))


if __name__ == "__main__":
    main()

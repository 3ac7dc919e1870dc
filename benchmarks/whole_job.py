"""The whole job beside a DIPY script and a chain of MRtrix3, on the same run of a BIDS dataset.

    python benchmarks/whole_job.py BIDS_DIR LABEL [--seeds N] [--order N] [--repeats N]
        [--tools ours dipy mrtrix] [--dipy-seeds N]

From the DWI to streamlines on disk, on all cores of this process: brain mask, tensor, response,
fODFs of the same order, probabilistic tracking from the same number of seeds in FA > 0.2 with the
same step, angle, bounds of length and FA to stop at. Each does all of it in its own way; ours
writes maps, masks, sidecars and a density besides. What is compared is therefore only as equal as
the points that are kept: the table tells them. DIPY's script is ``whole_job_dipy.py``; MRtrix3's
chain is `mrtrix_chain`. The run has one shell and no other image; kernels of ours are compiled
beforehand, as in its container.

Wall time, and CPU time and peak memory with all child processes: the largest single process, or
the largest sum over those that live at one time (proportional shares, sampled twice a second).
With ``--dipy-seeds`` DIPY tracks from fewer seeds, which its row says; what it would take for all
of them is in a column of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from programs import Usage, describe_machine, measure, mrtrix_version, print_table
from tracking import tck_offset

B0_UP_TO = 50


@dataclass(frozen=True)
class Rules:
    """What is the same for everybody."""

    step_mm: float = 0.5
    angle_deg: float = 30
    stop_below: float = 0.2
    min_mm: float = 20
    max_mm: float = 250


RULES = Rules()
CORES = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Task:
    """What is to be done, and where."""

    dataset: Path
    label: str
    order: int
    n_seeds: int
    folder: Path

    @property
    def image(self) -> Path:
        """The only DWI of the participant."""
        return only(sorted((self.dataset / f"sub-{self.label}").rglob("*_dwi.nii.gz")))


@dataclass(frozen=True)
class Job:
    """What a tool did.

    Parameters
    ----------
    n_seeds, n_streamlines, n_points : int
    used : Usage
    steps : dict
        What its steps took.
    tracking_s : float
        Wall time of the step that grows with the number of seeds; 0 where it is not told.
    """

    n_seeds: int
    n_streamlines: int
    n_points: int
    used: Usage
    steps: dict[str, str] = field(default_factory=dict)
    tracking_s: float = 0.0


def ours(task: Task) -> Job:
    """Run ``bids-tractography``."""
    seeds = json.dumps({"kind": "total", "count": task.n_seeds})
    settings = {
        "model.sh_order": task.order,
        "seeding.seeds": seeds,
        "seeding.rng_seed": 1,
        "stopping.threshold": RULES.stop_below,
        "tracking.algorithm.step_size_mm": RULES.step_mm,
        "tracking.algorithm.max_angle_deg": RULES.angle_deg,
        "tracking.algorithm.pmf_threshold": 0.1,
        "tracking.min_length_mm": RULES.min_mm,
        "tracking.max_length_mm": RULES.max_mm,
        "tracking.dead_ends": "keep",  # as the others do
    }
    used = measure(
        [
            *(sys.executable, "-m", "bids_tractography", task.dataset, task.folder, "participant"),
            *("--participant-label", task.label, "--omp-nthreads", CORES),
            *(word for key, value in settings.items() for word in ("--set", f"{key}={value}")),
        ]
    )
    made = only(sorted(task.folder.rglob("*_tractogram.trx")))
    return Job(task.n_seeds, *count_trx(made), used)


def dipy(task: Task) -> Job:
    """Run the script."""
    script = Path(__file__).with_name("whole_job_dipy.py")
    numbers = task.order, task.n_seeds, CORES
    used = measure([sys.executable, "-W", "ignore", script, task.image, task.folder, *numbers])
    steps = json.loads((task.folder / "steps.json").read_text())
    counts = count_trx(task.folder / "tracks.trx")
    told = {step: f"{seconds:.1f} s" for step, seconds in steps.items()}
    return Job(task.n_seeds, *counts, used, told, steps["tracking"] + steps["writing"])


def mrtrix(task: Task) -> Job:
    """Run the chain."""
    total, steps = Usage(0, 0, 0), {}
    for step, words in mrtrix_chain(task):
        used = measure(
            [words[0], "-quiet", "-force", "-nthreads", CORES, *words[1:]],
            cwd=task.folder,
            environment={"MRTRIX_RNG_SEED": "1"},
        )
        total += used
        steps[step] = f"{used.wall_s:.1f} s, {used.cpu_s:.1f} s CPU"
    data = np.fromfile(tck := task.folder / "tracks.tck", "<f4", offset=tck_offset(tck))
    ends = ~np.isfinite(data.reshape(-1, 3)).all(axis=1)
    n_streamlines = int(ends.sum()) - 1  # the last one is the file's
    return Job(task.n_seeds, n_streamlines, int((~ends).sum()), total, steps)


def mrtrix_chain(task: Task) -> Iterator[tuple[str, list[object]]]:
    """Yield steps and their commands, which run in the task's folder."""
    stem = str(task.image).removesuffix(".nii.gz")
    gradients = ["-fslgrad", f"{stem}.bvec", f"{stem}.bval"]
    yield "mrconvert", ["mrconvert", task.image, "dwi.mif", *gradients, "-strides", "0,0,0,1"]
    yield "dwi2mask", ["dwi2mask", "dwi.mif", "mask.mif"]
    yield "dwi2tensor", ["dwi2tensor", "dwi.mif", "tensor.mif", "-mask", "mask.mif"]
    maps = ["-fa", "fa.mif", "-adc", "md.mif"]
    yield "tensor2metric", ["tensor2metric", "tensor.mif", *maps, "-mask", "mask.mif"]
    yield "mrthreshold", ["mrthreshold", "fa.mif", "white.mif", "-abs", RULES.stop_below]
    response = ["response.txt", "-lmax", task.order, "-mask", "mask.mif"]
    yield "dwi2response tournier", ["dwi2response", "tournier", "dwi.mif", *response]
    fod = ["response.txt", "fod.mif", "-lmax", task.order, "-mask", "mask.mif"]
    yield "dwi2fod csd", ["dwi2fod", "csd", "dwi.mif", *fod]
    tracking = [
        *("-algorithm", "iFOD1", "-seed_image", "white.mif", "-mask", "white.mif"),
        *("-seeds", task.n_seeds, "-select", 0, "-step", RULES.step_mm),
        *("-angle", RULES.angle_deg, "-minlength", RULES.min_mm, "-maxlength", RULES.max_mm),
    ]
    yield "tckgen iFOD1", ["tckgen", "fod.mif", "tracks.tck", *tracking]


def count_trx(path: Path) -> tuple[int, int]:
    """Read the numbers of streamlines and points."""
    with zipfile.ZipFile(path) as archive:
        header = json.loads(archive.read("header.json"))
    return header["NB_STREAMLINES"], header["NB_VERTICES"]


def only(paths: list[Path]) -> Path:
    """Return the one path there is."""
    if len(paths) != 1:
        raise SystemExit(f"one file is wanted: {[str(path) for path in paths]}")
    return paths[0]


TOOLS: dict[str, Callable[[Task], Job]] = {"ours": ours, "dipy": dipy, "mrtrix": mrtrix}


def row(name: str, jobs: list[Job], n_seeds: int) -> dict[str, str]:
    """Put the medians of a tool's runs into a row of the table."""
    job, used = jobs[0], [each.used for each in jobs]
    fewer = job.n_seeds < n_seeds
    name = f"{name} ({job.n_seeds:,} seeds)" if fewer else name
    wall = statistics.median(each.wall_s for each in used)
    more = statistics.median(each.tracking_s for each in jobs) * (n_seeds / job.n_seeds - 1)
    return {
        "": name,
        "wall (s)": f"{wall:.1f}",
        "CPU (s)": f"{statistics.median(each.cpu_s for each in used):.1f}",
        "peak memory (GiB)": f"{max(each.peak_gib for each in used):.2f}",
        "streamlines": f"{job.n_streamlines:,}",
        "points": f"{job.n_points:,}",
        "points a streamline": f"{job.n_points / max(job.n_streamlines, 1):.1f}",
        f"wall for {n_seeds:,} seeds, extrapolated (s)": f"{wall + more:.0f}" if fewer else "",
    }


def main() -> None:
    """Run every tool in turn; print the table and the steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("label")
    parser.add_argument("--seeds", type=int, default=1_000_000)
    parser.add_argument("--dipy-seeds", type=int)
    parser.add_argument("--order", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    given = parser.parse_args()
    dataset, label = given.dataset.resolve(), given.label.removeprefix("sub-")

    def run(name: str, n_seeds: int) -> Job:
        with tempfile.TemporaryDirectory() as folder:
            return TOOLS[name](Task(dataset, label, given.order, n_seeds, Path(folder)))

    if "ours" in given.tools:
        run("ours", 100)  # compiles
    seeds = dict.fromkeys(given.tools, given.seeds)
    if "dipy" in seeds and given.dipy_seeds:
        seeds["dipy"] = given.dipy_seeds
    jobs: dict[str, list[Job]] = {name: [] for name in given.tools}
    for _ in range(given.repeats):
        for name, n_seeds in seeds.items():
            jobs[name].append(run(name, n_seeds))
    print(
        f"sub-{label}: {given.seeds:,} seeds, order {given.order}, step {RULES.step_mm} mm, "
        f"{RULES.angle_deg} degrees, FA > {RULES.stop_below}, {RULES.min_mm} to {RULES.max_mm} mm; "
        f"medians of {given.repeats}\n\n"
        f"{describe_machine('bids-tractography', 'dipy', 'numba', 'numpy')}, {mrtrix_version()}\n"
    )
    print_table(row(name, of_one, given.seeds) for name, of_one in jobs.items())
    for name, of_one in jobs.items():
        if of_one[0].steps:
            print(f"\n{name}: " + "; ".join(f"{k} {v}" for k, v in of_one[0].steps.items()))


if __name__ == "__main__":
    main()

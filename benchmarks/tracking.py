"""Speed of our engine beside DIPY, MRtrix3 and cuslines, on the same fODF, stop map and seeds.

    python benchmarks/tracking.py [OUTPUT_RUN] [--small] [--repeats N] [--out TABLE.md]

``OUTPUT_RUN`` is the path of a run in an output folder up to its suffix, such as
``out/sub-01/dwi/sub-01``: its fODF and FA are read. Without one, the phantom's fODF is made in
memory. Tools run in turn, several times, each in its own process; points per second of CPU time
are of the streamlines that a tool returns, without start-up and reading. Ratios are medians over
paired repeats of ours on one thread to the other.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from programs import describe_machine

STEP_MM, ANGLE_DEG, STOP_BELOW, MAX_MM, CUTOFF = 0.5, 30, 0.2, 250, 0.1
OURS = ("prob", "det", "pft", "closest_peak", "eudx", "ptt")
# Which of ours each peer is compared with, and what part of the seeds is enough for it, which is
# slower. From MRtrix3's times its start-up is subtracted: it tracks for long beside that.
PEERS = {
    "dipy prob, dense": ("prob", 20),
    "dipy det, dense": ("det", 10),
    "dipy prob, SH": ("prob", 80),
    "dipy pft, dense": ("pft", 40),
    "mrtrix iFOD1": ("prob", 3),
    "mrtrix iFOD2": ("prob", 15),
    "mrtrix SD_STREAM": ("det", 3),
    "cuslines prob, numba": ("prob", 10),
}


def read_problem(folder: Path) -> tuple[Any, Any, Any, Any]:
    """Read what all tools are given: fODF, stop map, seeds in mm and the grid."""
    from bids_tractography.core.images import read_image

    fodf = read_image(folder / "fod.nii.gz", ndim=4)
    stop = read_image(folder / "stop.nii.gz", ndim=3).data
    return fodf.data, stop, np.load(folder / "seeds.npy"), fodf.grid


def write_problem(run: str | None, folder: Path, n_seeds: int, below: float = STOP_BELOW) -> str:
    """Write it, from an output run or the phantom; return what it is."""
    from bids_tractography.core.images import Grid, read_image, write_image

    fod: np.ndarray
    stop: np.ndarray
    if run is None:
        from bids_tractography.core.fodf import sh_basis
        from bids_tractography.phantom import ScanGrid, make_phantom, voxelise

        scan = ScanGrid(voxel_size_mm=(2.0, 2.0, 2.0))
        voxels = voxelise(make_phantom(), scan)
        grid = Grid(scan.shape, scan.affine)
        degrees = np.repeat([0, 2, 4, 6, 8], [1, 5, 9, 13, 17])
        lobes = sh_basis(8, voxels.fibre_direction) * np.exp(-degrees * (degrees + 1) / 40)
        rows = np.zeros((len(voxels.tissue), 45), np.float32)
        np.add.at(rows, voxels.fibre_voxel, voxels.fibre_fraction[:, None] * lobes)
        fod, stop = rows.reshape(*grid.shape, 45), voxels.tissue[:, 0].reshape(grid.shape)
        name = "the phantom, 2 mm"
    else:
        model = next(Path(run).parent.glob(f"{Path(run).name}_model-*_param-fod_dwimap.nii.gz"))
        image = read_image(model, ndim=4)
        fod, grid = image.data, image.grid
        stop = read_image(Path(f"{run}_model-tensor_param-fa_dwimap.nii.gz"), ndim=3).data
        name = Path(run).name
    rng = np.random.default_rng(1)
    inside = np.argwhere((stop > below) & (np.abs(fod).max(axis=3) > 0))
    chosen = inside[rng.integers(len(inside), size=n_seeds)]
    np.save(folder / "seeds.npy", grid.to_mm(chosen + rng.uniform(-0.5, 0.5, chosen.shape)))
    write_image(folder / "fod.nii.gz", fod.astype(np.float32), grid)
    write_image(folder / "stop.nii.gz", stop.astype(np.float32), grid)
    write_image(folder / "mask.nii.gz", (stop > below).astype(np.uint8), grid)
    size = "x".join(str(n) for n in grid.shape)
    return f"{name}: {size} voxels, {len(inside)} in the seed mask"


def ours(kind: str, folder: Path, n_seeds: int, threads: int) -> dict[str, float]:
    """Track with our engine."""
    from bids_tractography.config.tracking import TrackingConfig
    from bids_tractography.core.fodf import Fodf
    from bids_tractography.core.seeding import SeedBatch
    from bids_tractography.core.stopping import ActRule, ThresholdRule
    from bids_tractography.tracking.base import TrackingProblem
    from bids_tractography.tracking.cpu.engine import CPU

    fod, stop, seeds, grid = read_problem(folder)
    started = time.perf_counter()
    rule = ActRule(*tissue_of(stop)) if kind == "pft" else ThresholdRule(stop, STOP_BELOW)
    # The same work as that of the others, whatever our own defaults are.
    task = {"step_size_mm": STEP_MM, "max_angle_deg": ANGLE_DEG, "pmf_threshold": CUTOFF}
    config = TrackingConfig(
        algorithm={"kind": kind, **({} if kind in ("eudx", "ptt") else task)},
        dead_ends="keep", min_length_mm=0, max_length_mm=MAX_MM,
    )  # fmt: skip
    engine = CPU.build(TrackingProblem(Fodf(fod, grid), rule, config, 1), threads)
    engine.track(SeedBatch(0, seeds[:2]))
    start_up = time.perf_counter() - started
    points = 0

    def run() -> None:
        nonlocal points
        for first in range(0, n_seeds, CPU.batch_size):
            batch = SeedBatch(first, seeds[first : min(first + CPU.batch_size, n_seeds)])
            points += len(engine.track(batch).points_mm)

    return timed(run, lambda: points, start_up)


def tissue_of(stop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Make grey matter and fluid, half and half by place, of what the stop map excludes."""
    outside = np.clip((2 * STOP_BELOW - stop) / (2 * STOP_BELOW), 0, 1).astype(np.float32)
    fluid = np.indices(stop.shape).sum(axis=0) // 4 % 2 == 0
    return outside * ~fluid, outside * fluid


def dipy(variant: str, folder: Path, n_seeds: int, threads: int) -> dict[str, float]:
    """Track with DIPY called directly."""
    from dipy.data import default_sphere
    from dipy.tracking import tracker
    from dipy.tracking.stopping_criterion import ActStoppingCriterion, ThresholdStoppingCriterion

    from bids_tractography.core.fodf import sh_basis, sh_order_of
    from bids_tractography.tracking.directions import (
        initial_directions,
        interpolate,
        neighbour_table,
    )

    fod, stop, seeds, grid = read_problem(folder)
    kind = variant.split()[0].rstrip(",")
    seeds = seeds[:n_seeds]
    started = time.perf_counter()
    basis, vertices = (
        sh_basis(sh_order_of(fod.shape[3]), default_sphere.vertices),
        default_sphere.vertices,
    )
    rows, directions = [], []
    for first in range(0, len(seeds), 4096):
        values = interpolate(fod, grid.to_voxels(seeds[first : first + 4096]))[0] @ basis.T
        neighbours = neighbour_table(default_sphere.edges, len(vertices))
        row, vertex = initial_directions(values, vertices, neighbours, 1)
        rows.append(row + first)
        directions.append(vertices[vertex])
    seeds, initial = seeds[np.concatenate(rows)], np.concatenate(directions)
    criterion: Any = ThresholdStoppingCriterion(stop.astype(float), STOP_BELOW)
    if kind == "pft":
        criterion = ActStoppingCriterion(*(part.astype(float) for part in tissue_of(stop)))
        initial = initial[:, None]
    # DIPY takes scanner axes for image axes; the work is the same.
    orientation: dict[str, Any] = {
        "sh": fod.astype(float), "basis_type": "tournier07", "legacy": False,
    }  # fmt: skip
    if "dense" in variant:
        dense = np.zeros((*fod.shape[:3], len(vertices)))
        for x in range(len(fod)):
            dense[x] = np.maximum(fod[x] @ basis.T, 0)
        orientation = {"sf": dense}
    algorithm = {"prob": "probabilistic", "det": "deterministic", "pft": "pft"}[kind]
    start_up = time.perf_counter() - started
    points = 0

    def run() -> None:
        nonlocal points
        lines = getattr(tracker, f"{algorithm}_tracking")(
            seeds, criterion, grid.affine, seed_directions=initial, sphere=default_sphere,
            min_len=0, max_len=MAX_MM, step_size=STEP_MM, max_angle=ANGLE_DEG,
            pmf_threshold=CUTOFF, random_seed=12345678, return_all=True, nbr_threads=threads,
            **orientation,
        )  # fmt: skip
        points = sum(len(line) for line in lines)

    return timed(run, lambda: points, start_up)


def cuslines(folder: Path, n_seeds: int) -> dict[str, float]:
    """Track with the numba back end of cuslines."""
    from cuslines.numba import CPUProbDirectionGetter, CPUTracker
    from cuslines.numba.nu_tractography import SeedBatchPropagator
    from dipy.data import default_sphere

    from bids_tractography.core.fodf import sh_basis, sh_order_of

    fod, stop, seeds, grid = read_problem(folder)
    started = time.perf_counter()
    basis = sh_basis(sh_order_of(fod.shape[3]), default_sphere.vertices).astype(np.float32)
    dense = np.maximum(fod @ basis.T, 0)
    tracker = CPUTracker(
        CPUProbDirectionGetter(), dense, stop, STOP_BELOW, default_sphere.vertices,
        default_sphere.edges, sphere_symm=True, max_angle=np.deg2rad(ANGLE_DEG),
        step_size=STEP_MM / float(grid.voxel_size_mm.mean()), relative_peak_thresh=0.5,
        min_separation_angle=np.deg2rad(25),
    )  # fmt: skip
    propagator = SeedBatchPropagator(tracker)
    voxels = grid.to_voxels(seeds)
    propagator.propagate(voxels[:2])
    start_up = time.perf_counter() - started
    points = 0

    def run() -> None:
        nonlocal points
        for first in range(0, n_seeds, 10_000):
            propagator.propagate(voxels[first : min(first + 10_000, n_seeds)])
            points += int(propagator.sline_lens.sum())

    return timed(run, lambda: points, start_up)


def timed(run: Callable[[], None], points: Callable[[], int], start_up: float) -> dict[str, float]:
    """Measure a run in this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"points": points(), "cpu_s": cpu, "wall_s": wall, "start_s": start_up, "peak_gib": peak}


def mrtrix(algorithm: str, folder: Path, n_seeds: int) -> dict[str, float]:
    """Track with tckgen on one thread, less what it takes for a hundredth of the seeds.

    It draws seeds of its own in the same mask.
    """
    n_points, times = [], []
    for count in (n_seeds, max(n_seeds // 100, 1)):
        out = folder / "tracks.tck"
        command = [
            "tckgen", "-quiet", "-force", "-nthreads", "0", "-algorithm", algorithm,
            str(folder / "fod.nii.gz"), str(out), "-seed_image",
            str(folder / "mask.nii.gz"), "-seeds", str(count), "-select", "0",
            "-mask", str(folder / "mask.nii.gz"),
            "-angle", str(ANGLE_DEG), "-minlength", "0", "-maxlength", str(MAX_MM),
        ]  # fmt: skip
        if algorithm != "iFOD2":
            command += ["-step", str(STEP_MM)]
        before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, check=True)
        after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - wall
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        data = np.fromfile(out, "<f4", offset=tck_offset(out)).reshape(-1, 3)
        n_points.append(int(np.isfinite(data).all(axis=1).sum()))
        times.append((cpu, wall))
    (cpu, wall), (cpu_less, wall_less) = times
    voxel_mm = nib.load(folder / "fod.nii.gz").header.get_zooms()[:3]
    return {
        "step_mm": 0.5 * float(np.mean(voxel_mm)) if algorithm == "iFOD2" else STEP_MM,
        "points": n_points[0] - n_points[1],
        "cpu_s": cpu - cpu_less,
        "wall_s": wall - wall_less,
        "start_s": wall_less,
        "peak_gib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20,
    }


def tck_offset(path: Path) -> int:
    """Return where the points of a .tck file begin."""
    with path.open("rb") as file:
        for line in file:
            if line.startswith(b"file: . "):
                return int(line.split()[-1])
    raise ValueError(f"{path} is no .tck file")


def one(name: str, folder: Path, n_seeds: int, threads: int) -> dict[str, float]:
    """Run one tool in this process."""
    family, _, variant = name.partition(" ")
    if family == "ours":
        return ours(variant, folder, n_seeds, threads)
    if family == "dipy":
        return dipy(variant, folder, n_seeds, threads)
    if family == "cuslines":
        return cuslines(folder, n_seeds)
    return mrtrix(variant, folder, n_seeds)


def measure(name: str, folder: Path, n_seeds: int, threads: int = 1) -> dict[str, float]:
    """Run one tool in a process of its own."""
    command = [sys.executable, __file__, "--one", name, str(folder), str(n_seeds), str(threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    made = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    result: dict[str, float] = json.loads(made.stdout.splitlines()[-1])
    return result


def available(name: str) -> bool:
    """Tell whether a peer can be run here."""
    if name.startswith("mrtrix"):
        return shutil.which("tckgen") is not None
    return name.startswith("dipy") or find_spec("cuslines") is not None


def speed(result: dict[str, float]) -> float:
    """Points per second of CPU time."""
    return result["points"] / max(result["cpu_s"], 1e-9)


def main() -> None:
    """Measure every tool in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    repeats = given.repeats or (2 if given.small else 5)
    n_seeds = given.seeds or (20_000 if given.small else 200_000)
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        what = write_problem(given.run, folder, n_seeds)
        measure("ours prob", folder, 100)  # compiles
        found: dict[str, list[dict[str, float]]] = {}
        peers = {peer: entry for peer, entry in PEERS.items() if available(peer)}
        for _ in range(repeats):
            for kind in OURS:
                count = n_seeds // 50 if kind == "ptt" else n_seeds
                found.setdefault(f"ours {kind}", []).append(measure(f"ours {kind}", folder, count))
                for peer, (like, slower) in peers.items():
                    if like == kind:
                        found.setdefault(peer, []).append(measure(peer, folder, n_seeds // slower))
            found.setdefault(f"ours prob, {cores} threads", []).append(
                measure("ours prob", folder, n_seeds, cores)
            )
    table = report(what, found, repeats)
    print(table)
    if given.out:
        given.out.write_text(table)


def report(what: str, found: dict[str, list[dict[str, float]]], repeats: int) -> str:
    """Write the table."""
    lines = [
        f"{what}; step {STEP_MM} mm, {ANGLE_DEG} degrees, stop below {STOP_BELOW}; "
        f"{repeats} repeats, one thread unless said.",
        "",
        describe_machine("numba", "numpy", "dipy"),
        "",
        "| | points per CPU second | mm per CPU second | ours is faster by "
        "| points per second of wall time | peak memory (GiB) | start-up (s) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, results in found.items():
        like = PEERS[name][0] if name in PEERS else None
        ratio = ""
        if like:
            pairs = zip(found[f"ours {like}"], results, strict=True)
            ratio = f"{statistics.median(speed(one) / speed(other) for one, other in pairs):.1f}"
        step = results[0].get("step_mm", STEP_MM)
        middle = statistics.median(map(speed, results))
        wall = statistics.median(result["points"] / result["wall_s"] for result in results)
        peak = max(result["peak_gib"] for result in results)
        start = statistics.median(result["start_s"] for result in results)
        lines.append(
            f"| {name} | {middle:,.0f} | {middle * step:,.0f} | {ratio} | {wall:,.0f} "
            f"| {peak:.2f} | {start:.1f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        _, _, tool, place, seeds, threads = sys.argv
        print(json.dumps(one(tool, Path(place), int(seeds), int(threads))))
    else:
        main()

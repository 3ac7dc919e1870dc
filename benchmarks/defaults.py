"""Accuracy over a grid of tracking settings, from which the defaults are chosen.

    python benchmarks/defaults.py DATA_DIR CACHE_DIR OUT.jsonl [--settings FILE] [--cases NAME...]

DATA_DIR holds ``fibercup`` and ``icbm``. Each model is fitted once to each scan and kept in
CACHE_DIR; every setting is then tracked on every case and scored against the truth. A setting is a
row of JSON: ``algorithm`` as in ``tracking.algorithm``, ``fa`` and ``fod`` the thresholds of the
stopping rule (null: none). Cases are phantoms with 27 bundles at several noise levels, the phantom
with five bundles, FiberCup with its shells one by one and together, and the simulated head.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import fibercup
import icbm
import nibabel as nib
import numpy as np
from scoring import Lines, belongs, read_volume, visits
from tubes import make_tubes, score_tubes, simulate

from bids_tractography.config import Config
from bids_tractography.config.model import GradientsConfig
from bids_tractography.config.tracking import RandomSeedsConfig, TotalSeedsConfig, TrackingConfig
from bids_tractography.core.dwi import Dwi, read_dwi
from bids_tractography.core.fodf import Fodf, peak_amplitudes
from bids_tractography.core.gradients import GradientFiles
from bids_tractography.core.images import Grid
from bids_tractography.core.seeding import SeedList
from bids_tractography.core.stopping import FodRule, StoppingRule, ThresholdRule
from bids_tractography.phantom import ScanGrid, make_phantom
from bids_tractography.phantom.scan import (
    SINGLE_SHELL,
    TWO_SHELLS,
    GradientScheme,
    fsl_bvecs,
    gradient_scheme,
    voxelise,
)
from bids_tractography.reconst import fit_model
from bids_tractography.reconst.tensor import fit_tensor
from bids_tractography.tracking.base import TrackingProblem
from bids_tractography.tracking.cpu.engine import CPU

FINE = gradient_scheme(6, {1000: 30, 2500: 60})
GRID = ScanGrid(voxel_size_mm=(2.0, 2.0, 2.0))
THREADS = 2

Score = Callable[[Lines], dict[str, float]]


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a setting is tried on."""

    coefficients: np.ndarray
    fa: np.ndarray
    brain: np.ndarray
    single: float
    seeds: SeedList
    grid: Grid
    score: Score


def read(image: Path) -> Dwi:
    """Read a DWI with the FSL tables next to it."""
    files = GradientFiles(Path(f"{image}.bval"), Path(f"{image}.bvec"))
    return read_dwi(Path(f"{image}.nii.gz"), files, GradientsConfig())


def scanned(phantom: Any, scheme: GradientScheme, snr: float, rng_seed: int) -> Dwi:
    """Simulate a scan and read it as if it were one."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "dwi"
        signal = simulate(phantom, GRID, scheme, snr, rng_seed)
        nib.save(nib.Nifti1Image(signal, GRID.affine), f"{place}.nii.gz")
        np.savetxt(f"{place}.bval", scheme.bvals_s_mm2[None], fmt="%g")
        np.savetxt(f"{place}.bvec", fsl_bvecs(scheme.directions, GRID.affine).T, fmt="%.8f")
        return read(place)


def fitted(
    name: str, cache: Path, dwi: Callable[[], Dwi], brain: np.ndarray, model: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray, float, Grid]:
    """Fit tensor and model, or read them back."""
    kept = cache / f"{name}.npz"
    if not kept.exists():
        scan = dwi()
        config = Config(model=model)
        tensor = fit_tensor(scan, brain, config.tensor, THREADS)
        fit = fit_model(scan, brain, tensor, config.model, THREADS)
        np.savez(
            kept, coefficients=fit.coefficients, fa=tensor.fa,
            single=fit.record["single_fibre_peak"], affine=scan.grid.affine,
        )  # fmt: skip
    made = np.load(kept)
    grid = Grid(made["fa"].shape, made["affine"])
    return made["coefficients"], made["fa"], float(made["single"]), grid


def tubes(
    scheme: GradientScheme, snr: float, seed: int, model: str, name: str, cache: Path
) -> Fitted:
    """Make a case of many bundles."""
    phantom = make_tubes(seed)
    brain = voxelise(phantom, GRID).tissue.sum(axis=1).reshape(GRID.shape) >= 0.5
    scan = partial(scanned, phantom, scheme, snr, 100 + seed)
    sh, fa, single, grid = fitted(name, cache, scan, brain, {"kind": model})
    seeds = SeedList(RandomSeedsConfig(per_voxel=2), brain & (fa > 0.2), grid, 1)
    return Fitted(
        sh, fa, brain, single, seeds, grid, lambda lines: asdict(score_tubes(lines, phantom, GRID))
    )


def five(model: str, name: str, cache: Path) -> Fitted:
    """Make the case of the phantom that the tests use."""
    phantom = make_phantom()
    brain = voxelise(phantom, GRID).tissue.sum(axis=1).reshape(GRID.shape) >= 0.5
    scheme = SINGLE_SHELL if model == "csd" else TWO_SHELLS
    scan = partial(scanned, phantom, scheme, 20.0, 3)
    sh, fa, single, grid = fitted(name, cache, scan, brain, {"kind": model})
    seeds = SeedList(RandomSeedsConfig(per_voxel=2), brain & (fa > 0.2), grid, 1)
    return Fitted(
        sh, fa, brain, single, seeds, grid, lambda lines: asdict(score_tubes(lines, phantom, GRID))
    )


def cup(shell: int | None, name: str, cache: Path, data: Path) -> Fitted:
    """Make a case of FiberCup: one shell by ``csd``, or all by ``msmt_csd``."""
    truth = fibercup.read_truth(data / "fibercup" / "truth")
    place = data / "fibercup" / "sub-fibercup" / "dwi" / "sub-fibercup_dwi"
    scan = read(place)
    brain = truth.mask(scan.mean_b0)
    response = {"kind": "auto", "erode_mm": 0, "voxels": 100}
    model: dict[str, Any] = {"kind": "msmt_csd"}
    if shell:
        model = {"kind": "csd", "shell_s_mm2": shell, "response": response}
    sh, fa, single, grid = fitted(name, cache, lambda: scan, brain, model)
    seeds = SeedList(RandomSeedsConfig(per_voxel=5), brain, grid, 1)

    def score(lines: Lines) -> dict[str, float]:
        found = fibercup.score(lines, truth)
        return {
            "count": found.count, "valid": found.valid, "invalid": found.invalid,
            "none": found.none, "found": found.bundles_found, "overlap": found.coverage,
            "overreach": found.overreach, "wrong pairs": found.invalid_bundles,
            "connectome_valid": found.valid / max(found.valid + found.invalid, 1e-9),
        }  # fmt: skip

    return Fitted(sh, fa, brain, single, seeds, grid, score)


def head(model: str, name: str, cache: Path, data: Path) -> Fitted:
    """Make a case of the simulated head; its white matter has no end regions."""
    truth = icbm.read_truth(data / "icbm")
    inputs = icbm.Inputs(data / "icbm", cache, 0)
    brain = read_volume(inputs.brain).data > 0
    image = nib.as_closest_canonical(nib.load(inputs.brain))
    brain = np.asarray(image.dataobj) > 0
    sh, fa, single, grid = fitted(name, cache, lambda: read(inputs.dwi), brain, {"kind": model})
    seeds = SeedList(TotalSeedsConfig(count=8_000), brain & (fa > 0.2), grid, 1)

    def score(lines: Lines) -> dict[str, float]:
        through = visits(lines, truth.bundles.grid)
        members = belongs(through, truth.bundles)
        covered, over = [], []
        for place in range(len(truth.bundles.names)):
            visited = np.unique(through[np.flatnonzero(members[:, place])].indices)
            mask = truth.bundles.mask[:, place]
            covered.append(mask[visited].sum() / mask.sum())
            over.append((~mask[visited]).sum() / mask.sum())
        return {
            "count": len(lines), "valid": float(members.any(axis=1).mean()),
            "overlap": float(np.mean(covered)), "overreach": float(np.mean(over)),
            "found": float((np.array(covered) > 0.5).sum()),
        }  # fmt: skip

    return Fitted(sh, fa, brain, single, seeds, grid, score)


def cases(cache: Path, data: Path) -> dict[str, Callable[[], Fitted]]:
    """Return what makes each case, by its name."""
    made: dict[str, Callable[[], Fitted]] = {}
    for name, scheme, snr, seed, model in (
        ("tubes 32 dir b1000 snr 20", SINGLE_SHELL, 20, 0, "csd"),
        ("tubes 60 dir b2500 snr 15", FINE, 15, 1, "csd"),
        ("tubes 60 dir b2500 snr 30", FINE, 30, 2, "csd"),
        ("tubes two shells snr 20", FINE, 20, 3, "msmt_csd"),
    ):
        made[name] = partial(tubes, scheme, float(snr), seed, model, name, cache)
    for model in ("csd", "msmt_csd"):
        name = f"five {model}"
        made[name] = partial(five, model, name, cache)
    for shell in (650, 1500, 2000, None):
        name = f"fibercup {shell or 'msmt'}"
        made[name] = partial(cup, shell, name, cache, data)
    for model in ("csd", "msmt_csd"):
        name = f"icbm {model}"
        made[name] = partial(head, model, name, cache, data)
    return made


def stop(case: Fitted, setting: dict[str, Any]) -> StoppingRule:
    """Return the stopping rule of a setting."""
    by_fa = None
    if setting.get("fa") is not None:
        by_fa = ThresholdRule(np.where(case.brain, case.fa, 0).astype(np.float32), setting["fa"])
    if setting.get("fod") is not None:
        return FodRule(peak_amplitudes(case.coefficients), setting["fod"] * case.single, by_fa)
    if by_fa is None:
        raise ValueError("a setting needs fa or fod")
    return by_fa


def run(case: Fitted, setting: dict[str, Any]) -> dict[str, float]:
    """Track with a setting and score."""
    config = TrackingConfig(algorithm=setting["algorithm"])
    fodf = Fodf(case.coefficients, case.grid)
    engine = CPU.build(TrackingProblem(fodf, stop(case, setting), config, 1, case.brain), THREADS)
    batch = engine.track(case.seeds.batch(0, len(case.seeds)))
    if not len(batch):
        return {"count": 0}
    return case.score(Lines(batch.points_mm.astype(np.float64), batch.offsets))


def rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield a row for each case and setting."""
    settings = [json.loads(line) for line in options.settings.read_text().splitlines() if line]
    for name, make in cases(options.cache, options.data).items():
        if options.cases and not any(name.startswith(part) for part in options.cases):
            continue
        case = make()
        for setting in settings:
            yield {"case": name, **setting, **run(case, setting)}


def main() -> None:
    """Append the scores to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("data", "cache", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--cases", nargs="*")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    with options.out.open("a") as out:
        for row in rows(options):
            out.write(json.dumps(row) + "\n")
            out.flush()


if __name__ == "__main__":
    main()

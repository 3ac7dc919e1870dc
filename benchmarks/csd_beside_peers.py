"""CPU time of spherical deconvolution beside DIPY's and MRtrix3's ``dwi2fod csd``.

    python benchmarks/csd_beside_peers.py IMAGE [MASK] [--order N] [--repeats N] [--small]

The same voxels, shell, response and order, one thread each, in turn. DIPY does a sample of the
voxels. MRtrix3's time is that of its process less that on one voxel, which reads the image as
well. Agreement is that of DIPY and MRtrix3 with ours, in voxels whose fODF has a peak above four
times its mean: correlation of amplitudes, and angle between the main peaks.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from dipy.core.gradients import gradient_table
from dipy.data import get_sphere
from dipy.reconst.csdeconv import AxSymShResponse, ConstrainedSphericalDeconvModel
from dipy.reconst.shm import sh_to_sf
from numpy.polynomial import legendre
from threadpoolctl import threadpool_limits

from bids_tractography.config.model import CsdModelConfig, GradientsConfig
from bids_tractography.core.dwi import Dwi, read_dwi
from bids_tractography.core.fodf import sh_basis
from bids_tractography.core.gradients import GradientFiles
from bids_tractography.reconst.csd import Response, _problem, deconvolve
from bids_tractography.reconst.shells import choose_order
from bids_tractography.reconst.voxels import map_voxels

EIGENVALUES_MM2_S = (1.7e-3, 0.2e-3, 0.2e-3)
DIRECTIONS = get_sphere(name="repulsion724").vertices


def zonal(response: Response, b_s_mm2: float, order: int) -> np.ndarray:
    """Expand the response in spherical harmonics of phase zero."""
    cosines, weights = legendre.leggauss(200)
    first, radial, _ = response.eigenvalues_mm2_s
    signal = response.s0 * np.exp(-b_s_mm2 * (radial + (first - radial) * cosines**2))
    even = np.arange(0, order + 1, 2)
    norms = np.sqrt((2 * even + 1) / (4 * np.pi))
    return 2 * np.pi * norms * ((weights * signal) @ legendre.legvander(cosines, order)[:, even])


def children_s() -> float:
    """CPU seconds of all processes that have been waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Mrtrix:
    """``dwi2fod csd`` on one shell in uncompressed files."""

    def __init__(self, folder: Path, dwi: Dwi, volumes: np.ndarray, order: int, row: np.ndarray):
        self.folder, self.order, self.dwi = folder, order, dwi
        self.affine = dwi.grid.affine
        nib.save(nib.Nifti1Image(dwi.data[..., volumes], self.affine), folder / "dwi.nii")
        table = [dwi.gradients.directions[volumes], dwi.gradients.bvals[volumes, None]]
        np.savetxt(folder / "grad.txt", np.concatenate(table, axis=1))
        np.savetxt(folder / "response.txt", row[None])

    def cpu_s(self, mask: np.ndarray) -> float:
        """Deconvolve a mask's voxels into ``fod.nii``."""
        image = nib.Nifti1Image(mask.astype(np.uint8), self.affine)
        nib.save(image, self.folder / "mask.nii")
        before = children_s()
        subprocess.run(
            ["dwi2fod", "csd", "dwi.nii", "response.txt", "fod.nii", "-mask", "mask.nii",
             "-grad", "grad.txt", "-lmax", str(self.order), "-nthreads", "1", "-quiet", "-force"],
            cwd=self.folder, check=True,
        )  # fmt: skip
        return children_s() - before


def cpu_s(function: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """Time a function of this process."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def agreement(name: str, ours: np.ndarray, theirs: np.ndarray) -> str:
    """Compare amplitudes (n, 724)."""
    sharp = ours.max(axis=1) > 4 * np.abs(ours.mean(axis=1))
    ours, theirs = ours[sharp], theirs[sharp]
    apart = np.abs(ours - theirs).max(axis=1) / ours.max(axis=1)
    correlation = [np.corrcoef(*pair)[0, 1] for pair in zip(ours, theirs, strict=True)]
    cosine = (DIRECTIONS[ours.argmax(axis=1)] * DIRECTIONS[theirs.argmax(axis=1)]).sum(axis=1)
    angle = np.rad2deg(np.arccos(np.minimum(np.abs(cosine), 1)))
    low, middle = np.percentile(correlation, [1, 50])
    return (
        f"{name}: {sharp.sum()} voxels; relative difference median {np.median(apart):.1e}, "
        f"99th percentile {np.percentile(apart, 99):.1e}, largest {apart.max():.1e}; correlation "
        f"median {middle:.6f}, 1st percentile {low:.4f}; peaks in the same of 724 directions "
        f"{np.mean(angle < 0.1):.1%}, 99th percentile {np.percentile(angle, 99):.1f} degrees"
    )


def voxels(dwi: Dwi, mask: Path | None, small: bool) -> np.ndarray:
    """Return the mask, or where there is signal; of a small run, three slices."""
    if mask is None:
        inside = dwi.mean_b0 > 0.15 * np.percentile(dwi.mean_b0[dwi.mean_b0 > 0], 99)
    else:
        inside = dwi.grid.from_stored(np.asarray(nib.load(mask).dataobj)) > 0
    if small:
        middle = inside.shape[2] // 2
        inside[:, :, : middle - 1] = inside[:, :, middle + 2 :] = False
    return inside


def main(
    image: Path, given_mask: Path | None, order: int | None, repeats: int, small: bool
) -> None:
    """Print one line for each repetition, medians and agreement."""
    stem = image.name.split(".")[0]
    gradients = image.with_name(f"{stem}.bval"), image.with_name(f"{stem}.bvec")
    dwi = read_dwi(image, GradientFiles(*gradients), GradientsConfig())
    mask = voxels(dwi, given_mask, small)
    shell = dwi.gradients.shells[-1]
    order = order or choose_order(shell.n_directions, "auto")
    response = Response(EIGENVALUES_MM2_S, float(np.median(dwi.mean_b0[mask])), None)
    directions = dwi.gradients.directions[shell.volumes]
    given = _problem(directions, shell.b_s_mm2, response, order, CsdModelConfig())
    row = zonal(response, shell.b_s_mm2, order)
    signals = dwi.data[mask][:, shell.volumes].astype(float)
    n_voxels = len(signals)
    sample = np.sort(np.random.default_rng(0).permutation(n_voxels)[: 300 if small else 2000])
    table = gradient_table(np.full(len(directions), shell.b_s_mm2), bvecs=directions)
    print(f"{n_voxels} voxels, {len(directions)} volumes, order {order}")
    print(f"first call: {cpu_s(lambda: deconvolve(signals[:1], given))[0]:.2f} CPU s")
    print("CPU seconds per 1000 voxels: ours, DIPY, MRtrix3; ratios DIPY/ours, MRtrix3/ours")
    rows = []
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # DIPY: no convergence, legacy basis
        model = ConstrainedSphericalDeconvModel(
            table, AxSymShResponse(response.s0, row), sh_order_max=order
        )
        mrtrix = None
        if shutil.which("dwi2fod"):
            mrtrix = Mrtrix(Path(folder), dwi, shell.volumes, order, row)
        one_voxel = np.zeros_like(mask)
        one_voxel[tuple(np.argwhere(mask)[0])] = True
        for _ in range(repeats):
            ours_s, ours = cpu_s(
                lambda: map_voxels(
                    lambda block: deconvolve(block[:, shell.volumes], given), dwi.data, mask, 1
                )
            )
            dipy_s, theirs = cpu_s(lambda: model.fit(signals[sample]).shm_coeff)
            reading_s = mrtrix.cpu_s(one_voxel) if mrtrix else np.nan
            mrtrix_s = mrtrix.cpu_s(mask) - reading_s if mrtrix else np.nan
            times = 1000 * np.array([ours_s / n_voxels, dipy_s / len(sample), mrtrix_s / n_voxels])
            rows.append([*times, *times[1:] / times[0]])
            print("  ".join(f"{value:.3f}" for value in rows[-1]), flush=True)
        print("median  " + "  ".join(f"{value:.3f}" for value in np.median(rows, axis=0)))
        basis = sh_basis(order, DIRECTIONS).T
        found = ours[mask][sample] @ basis
        sphere = get_sphere(name="repulsion724")
        dipy = sh_to_sf(theirs, sphere, sh_order_max=order, basis_type="descoteaux07", legacy=True)
        print(agreement("DIPY", found, dipy))
        if mrtrix:
            fod = np.asarray(nib.load(Path(folder) / "fod.nii").dataobj)
            print(agreement("MRtrix3", found, fod[mask][sample] @ basis))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("image", type=Path)
    parser.add_argument("mask", type=Path, nargs="?")
    parser.add_argument("--order", type=int)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="a slab of the image, 3 repetitions")
    words = parser.parse_args()
    main(words.image, words.mask, words.order, 3 if words.small else words.repeats, words.small)

"""Our multi-tissue deconvolution beside MRtrix3's ``dwi2fod msmt_csd``: speed and agreement.

    python benchmarks/msmt_beside_mrtrix.py FOLDER [REPEATS]

FOLDER holds ``dwi.nii.gz`` with ``.bval`` and ``.bvec``, ``mask.nii.gz`` and MRtrix3's responses
``wm.txt``, ``gm.txt``, ``csf.txt``. Both run on one thread, in turn; CPU seconds are those of the
deconvolution alone (ours) and of the whole command (``dwi2fod``).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bids_tractography.config.model import GradientsConfig, MsmtCsdModelConfig, TensorMapsConfig
from bids_tractography.core.dwi import read_dwi
from bids_tractography.core.fodf import AXES, sh_basis, sh_order_of
from bids_tractography.core.gradients import GradientFiles
from bids_tractography.core.images import read_image
from bids_tractography.reconst import fit_model
from bids_tractography.reconst.tensor import fit_tensor

TISSUES = ("wm", "gm", "csf")


def dwi2fod(folder: Path, out: Path) -> float:
    """Run MRtrix3 and return its CPU seconds."""
    outputs = [word for t in TISSUES for word in (folder / f"{t}.txt", out / f"{t}.nii")]
    before = os.times()
    subprocess.run(
        [
            "dwi2fod", "msmt_csd", "-quiet", "-force", "-nthreads", "0",
            "-fslgrad", folder / "dwi.bvec", folder / "dwi.bval",
            "-mask", folder / "mask.nii.gz", folder / "dwi.nii.gz", *outputs,
        ],
        check=True,
    )  # fmt: skip
    after = os.times()
    used = after.children_user + after.children_system
    return used - before.children_user - before.children_system


def main(folder: Path, repeats: int) -> None:
    """Print speeds, then how far the results are apart."""
    dwi = read_dwi(
        folder / "dwi.nii.gz",
        GradientFiles(folder / "dwi.bval", folder / "dwi.bvec"),
        GradientsConfig(),
    )
    mask = read_image(folder / "mask.nii.gz", ndim=3).data > 0
    tensor = fit_tensor(dwi, mask, TensorMapsConfig(), 1)
    response = {"kind": "files"} | {t: str(folder / f"{t}.txt") for t in TISSUES}
    config = MsmtCsdModelConfig(response=response)
    files = {f"response.{t}": folder / f"{t}.txt" for t in TISSUES}
    ours = fit_model(dwi, mask, tensor, config, 1, files)  # compiles
    speeds = []
    with tempfile.TemporaryDirectory() as name:
        for _ in range(repeats):
            begin = time.process_time()
            fit_model(dwi, mask, tensor, config, 1, files)
            mine = mask.sum() / (time.process_time() - begin)
            theirs = mask.sum() / dwi2fod(folder, Path(name))
            speeds.append((mine, theirs, mine / theirs))
            print(f"voxels per CPU second: {mine:.0f} ours, {theirs:.0f} dwi2fod")
        found = {t: read_image(Path(name) / f"{t}.nii", ndim=4).data[mask] for t in TISSUES}
    print(f"median ratio {np.median([ratio for _, _, ratio in speeds]):.1f}")
    one, other = ours.coefficients[mask], found["wm"]
    basis = sh_basis(sh_order_of(one.shape[1]), AXES)
    print(f"r(WM coefficients) = {np.corrcoef(one.ravel(), other.ravel())[0, 1]:.5f}")
    amplitudes = one @ basis.T, other @ basis.T
    apart = np.abs(amplitudes[0] - amplitudes[1]).max(axis=1) / amplitudes[1].max(axis=1)
    leading = tensor.fa[mask] > 0.4
    peaks = [AXES[values.argmax(axis=1)] for values in amplitudes]
    cosines = np.abs((peaks[0] * peaks[1]).sum(axis=1))[leading]
    angles = np.rad2deg(np.arccos(np.minimum(cosines, 1)))
    print(f"largest amplitude difference over the peak: median {np.median(apart[leading]):.4f}")
    print(f"peak on the same one of 362 axes (FA > 0.4): {np.mean(angles < 0.1):.1%}")
    print(f"smallest amplitude: {amplitudes[0].min():.1e} ours, {amplitudes[1].min():.1e} dwi2fod")
    amounts = {t: found[t][:, 0] for t in TISSUES}
    total = np.sum(list(amounts.values()), axis=0)
    assert ours.fractions is not None
    for tissue, amount in amounts.items():
        mine, theirs = ours.fractions[tissue][mask], amount / total
        print(
            f"fraction {tissue}: r = {np.corrcoef(mine, theirs)[0, 1]:.6f}, largest difference "
            f"{np.abs(mine - theirs).max():.4f}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)

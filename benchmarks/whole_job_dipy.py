"""The whole job by a short script over DIPY, for `whole_job.py`, which runs it.

    python benchmarks/whole_job_dipy.py DWI OUTPUT_FOLDER ORDER SEEDS THREADS

Parallel where DIPY is without further packages: the fODFs (processes) and tracking (threads).
Of its ways to track, that on amplitudes of all directions is the quickest, and takes most memory.
"""

import json
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from dipy.core.gradients import gradient_table
from dipy.data import default_sphere
from dipy.direction import peaks_from_model
from dipy.io.gradients import read_bvals_bvecs
from dipy.io.image import load_nifti, save_nifti
from dipy.io.stateful_tractogram import Space, StatefulTractogram
from dipy.io.streamline import save_tractogram
from dipy.reconst.csdeconv import ConstrainedSphericalDeconvModel, auto_response_ssst
from dipy.reconst.dti import TensorModel
from dipy.segment.mask import median_otsu
from dipy.tracking.stopping_criterion import ThresholdStoppingCriterion
from dipy.tracking.streamline import Streamlines
from dipy.tracking.tracker import probabilistic_tracking
from whole_job import B0_UP_TO, RULES


def main(image: str, folder: Path, order: int, n_seeds: int, threads: int) -> None:
    """Do it; print what each step took."""
    took: dict[str, float] = {}
    at = time.perf_counter()

    def done(step: str) -> None:
        nonlocal at
        took[step], at = time.perf_counter() - at, time.perf_counter()

    data, affine = load_nifti(image)
    stem = image.removesuffix(".nii.gz")
    bvals, bvecs = read_bvals_bvecs(f"{stem}.bval", f"{stem}.bvec")
    if np.linalg.det(affine) > 0:  # FSL's convention
        bvecs[:, 0] *= -1
    table = gradient_table(bvals, bvecs=bvecs, b0_threshold=B0_UP_TO)
    done("reading")
    _, mask = median_otsu(data, vol_idx=np.flatnonzero(table.b0s_mask))
    done("mask")
    tensor = TensorModel(table).fit(data, mask=mask)
    fa = np.nan_to_num(tensor.fa)
    save_nifti(str(folder / "fa.nii.gz"), fa.astype(np.float32), affine)
    save_nifti(str(folder / "md.nii.gz"), tensor.md.astype(np.float32), affine)
    done("tensor")
    response, _ = auto_response_ssst(table, data)
    model = ConstrainedSphericalDeconvModel(table, response, sh_order_max=order)
    peaks = peaks_from_model(
        model, data, default_sphere, 0.5, 25, mask=mask, npeaks=1, sh_order_max=order,
        return_odf=True, parallel=threads > 1, num_processes=threads,
    )  # fmt: skip
    save_nifti(str(folder / "fod.nii.gz"), peaks.shm_coeff.astype(np.float32), affine)
    done("fODFs")
    rng = np.random.default_rng(1)
    inside = np.argwhere(mask & (fa > RULES.stop_below))
    voxels = inside[rng.integers(len(inside), size=n_seeds)] + rng.uniform(-0.5, 0.5, (n_seeds, 3))
    streamlines = probabilistic_tracking(
        nib.affines.apply_affine(affine, voxels),
        ThresholdStoppingCriterion(fa * mask, RULES.stop_below), affine, sf=peaks.odf,
        sphere=default_sphere, min_len=RULES.min_mm, max_len=RULES.max_mm,
        step_size=RULES.step_mm, max_angle=RULES.angle_deg, random_seed=12345678,
        nbr_threads=threads, seed_buffer_fraction=0.1,
    )  # fmt: skip
    tractogram = StatefulTractogram(Streamlines(streamlines), nib.load(image), Space.RASMM)
    done("tracking")
    save_tractogram(tractogram, str(folder / "tracks.trx"), bbox_valid_check=False)
    done("writing")
    (folder / "steps.json").write_text(json.dumps(took))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))

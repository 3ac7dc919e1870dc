"""Dataset of the phantom: two participants in raw BIDS; tissue and truth as derivatives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bids_tractography import BIDS_VERSION
from bids_tractography.errors import OutputError
from bids_tractography.phantom.anatomy import Bundle, Phantom, make_phantom
from bids_tractography.phantom.scan import (
    SINGLE_SHELL,
    TWO_SHELLS,
    ScanGrid,
    write_dwi,
    write_json,
    write_t1w,
    write_tissue,
)

_OBLIQUE = ScanGrid("RAS", rotation_deg=(12.0, 0.0, 0.0))
_DWI_RUNS = {
    "sub-01/dwi/sub-01": (ScanGrid("LAS"), SINGLE_SHELL, "P"),
    "sub-02/dwi/sub-02_dir-AP": (_OBLIQUE, TWO_SHELLS, "P"),
    "sub-02/dwi/sub-02_dir-PA": (_OBLIQUE, TWO_SHELLS, "A"),
}
_T1WS = {
    "sub-01/anat/sub-01_T1w": ScanGrid("RAS", (2.0, 2.0, 2.0)),
    "sub-02/anat/sub-02_T1w": ScanGrid("PIR", (2.0, 2.0, 2.0)),
}
_README = """\
A simulated head in two acquisitions, created by `bids-tractography phantom`. Five bundles of white
matter connect cortex with cortex: association, commissural and projection are straight and cross
at 90 and 60 degrees, arcuate bends, radiation fans out. Their centrelines are in
derivatives/truth, the tissue fractions on the grid of each DWI in derivatives/tissue.
"""


def write_phantom(directory: Path, *, rng_seed: int = 0) -> Path:
    """Write the phantom as a raw BIDS dataset with derivatives for its tissue and truth.

    sub-01 has one shell, stored LAS; sub-02 has two shells, stored RAS on an oblique grid, in
    two runs with opposite phase encoding. All show the same head.

    Parameters
    ----------
    directory : Path
        Root of the dataset; created if it does not exist.
    rng_seed : int
        Seed of the noise; the same seed writes the same bytes.

    Returns
    -------
    Path
        `directory`.

    Raises
    ------
    OutputError
        If `directory` cannot be created or is not empty.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{directory} cannot be created ({error.strerror}).") from None
    if any(directory.iterdir()):
        raise OutputError(f"{directory} is not empty.", "Choose a new or an empty directory.")
    phantom = make_phantom()
    _write_raw(directory, phantom, rng_seed)
    _write_derivatives(directory / "derivatives", phantom)
    return directory


def _write_raw(root: Path, phantom: Phantom, rng_seed: int) -> None:
    _write_description(root, "Digital phantom for tractography", DatasetType="raw")
    (root / "README").write_text(_README, encoding="utf-8")
    (root / "participants.tsv").write_text("participant_id\nsub-01\nsub-02\n", encoding="utf-8")
    rng_seeds = iter(np.random.SeedSequence(rng_seed).generate_state(8).tolist())
    for stem, (grid, scheme, towards) in _DWI_RUNS.items():
        write_dwi(
            root / f"{stem}_dwi",
            phantom,
            grid,
            scheme=scheme,
            rng_seed=next(rng_seeds),
            phase_encoding_to=towards,
        )
    for stem, grid in _T1WS.items():
        write_t1w(root / stem, phantom, grid, rng_seed=next(rng_seeds))


def _write_derivatives(root: Path, phantom: Phantom) -> None:
    for name, title in (("tissue", "Tissue of the phantom"), ("truth", "Bundles of the phantom")):
        origin = {"GeneratedBy": [{"Name": name}], "DatasetLinks": {"raw": "../.."}}
        _write_description(root / name, title, DatasetType="derivative", **origin)
    for stem, (grid, _, _) in _DWI_RUNS.items():
        write_tissue(root / "tissue" / stem, phantom, grid, sources=[f"bids:raw:{stem}_dwi.nii.gz"])
    lines = [bundle.centreline_mm.astype(np.float32) for bundle in phantom.bundles]
    tractogram = nib.streamlines.Tractogram(lines, affine_to_rasmm=np.eye(4))
    nib.streamlines.save(tractogram, str(root / "truth" / "centrelines.tck"))
    facts = {bundle.name: _facts(bundle) for bundle in phantom.bundles}
    write_json(root / "truth" / "bundles.json", facts)
    (root / "truth" / ".bidsignore").write_text("bundles.json\n*.tck\n", encoding="utf-8")


def _facts(bundle: Bundle) -> dict[str, Any]:
    steps_mm = np.linalg.norm(np.diff(bundle.centreline_mm, axis=0), axis=1)
    return {
        "shape": bundle.shape,
        "length_mm": round(float(steps_mm.sum()), 2),
        "ends_mm": bundle.centreline_mm[[0, -1]].round(2).tolist(),
        "end_radii_mm": bundle.radii_mm[[0, -1]].tolist(),
    }


def _write_description(root: Path, name: str, **fields: Any) -> None:
    content = {"Name": name, "BIDSVersion": BIDS_VERSION, "License": "CC0"} | fields
    write_json(root / "dataset_description.json", content)

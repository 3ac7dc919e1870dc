"""Confusion table of the check of gradient tables, and of programs with the same purpose.

    python benchmarks/gradient_guard.py DATASET... [--gradlint PROGRAM] [--dwigradcheck N]
        [--peers-only]

Every DATASET is a BIDS directory whose b-vectors are known to be right, in FSL's convention. The
brain mask is the one next to the image or in a derivative inside DATASET; without one it is
computed from the image.

Each DWI is checked with its own table and with the 23 wrong ones that result from permuting and
negating its components. It is stored as it is, as LAS, RAS and LPS (reordering data, affine and
b-vectors), obliquely (the affine rotated by 20, -25 and 35 degrees about x, y and z; b-vectors
along image axes stay), and with every other slice along one axis, which makes voxels anisotropic.
Permuting the table permutes the tensor, so that one fit serves all tables of a storage; "refitted"
counts for how many of three tables a fit with permuted b-vectors gives the same verdict. "best is
right" counts for how many of the wrong tables the first permutation named is the one that undoes
the error, "best alone" for how many it is the only one named.

``--gradlint`` runs that program, installed in an environment of its own, on all 24 tables of each
DWI as it is stored. ``--dwigradcheck`` runs MRtrix3's command on the first N of four tables: the
right one, then the wrong ones ``-x y z``, ``y x z`` and ``z -x y``. What counts is the table that
they export: "best is right" compares it with the true one, up to the sign of each vector. The
verdict of gradlint is its decision (PASS, FLAG, WARN); dwigradcheck has none, so it is whether the
exported table differs from the given one. All run on one thread.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)
from programs import UnavailableError, describe_machine, measure, print_table
from scipy.spatial.transform import Rotation
from threadpoolctl import threadpool_limits

from bids_tractography.anatomy.brain import brain_mask
from bids_tractography.config.model import TensorMapsConfig
from bids_tractography.core.dwi import Dwi
from bids_tractography.core.gradients import (
    Gradients,
    canonical_permutation,
    permutation_matrix,
    permutation_names,
)
from bids_tractography.core.images import Grid, nearest_rotation
from bids_tractography.reconst.base import TensorFit
from bids_tractography.reconst.coherence import (
    PERMUTATIONS,
    GradientCheck,
    Permutation,
    check_gradients,
)
from bids_tractography.reconst.tensor import fit_tensor

B0_S_MM2 = 50
ROTATION_DEG = (20, -25, 35)
REFITTED: tuple[Permutation, ...] = (("-x", "y", "z"), ("y", "x", "z"), ("z", "-x", "y"))
TABLES_OF_DWIGRADCHECK: tuple[Permutation, ...] = (("x", "y", "z"), *REFITTED)


@dataclass(frozen=True, eq=False)
class Scan:
    """A DWI as a file stores it.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z, V)
    affine : ndarray, shape (4, 4)
    bvals : ndarray, shape (V,)
        In s/mm².
    bvecs : ndarray, shape (V, 3)
        In FSL's convention.
    mask : ndarray of bool, shape (X, Y, Z)
    """

    data: np.ndarray
    affine: np.ndarray
    bvals: np.ndarray
    bvecs: np.ndarray
    mask: np.ndarray

    @property
    def grid(self) -> Grid:
        """The grid."""
        x, y, z = self.data.shape[:3]
        return Grid((x, y, z), self.affine)

    @property
    def frame(self) -> np.ndarray:
        """The matrix from b-vectors of the file to scanner axes."""
        return fsl_frame(self.affine)

    def fit(self, names: Permutation = PERMUTATIONS[0]) -> TensorFit:
        """Fit the tensor with the permuted table."""
        directions = self.bvecs @ permutation_matrix(names).T @ self.frame.T
        gradients = Gradients(self.bvals, directions, B0_S_MM2, "auto")
        data = np.ascontiguousarray(self.grid.from_stored(self.data), np.float32)
        mask = np.asarray(self.grid.from_stored(self.mask))
        return fit_tensor(Dwi(data, self.grid, gradients), mask, TensorMapsConfig(), 1)

    def check(self, tensor: TensorFit) -> GradientCheck:
        """Check the table that the tensor was fitted with."""
        mask = np.ascontiguousarray(self.grid.from_stored(self.mask))
        return check_gradients(tensor, mask, self.grid, self.frame)


def fsl_frame(affine: np.ndarray) -> np.ndarray:
    """Return the matrix from FSL's b-vectors to scanner axes."""
    flip = -1 if np.linalg.det(affine[:3, :3]) > 0 else 1
    return nearest_rotation(affine) @ np.diag([flip, 1, 1])


def read_scan(image: Path, dataset: Path) -> Scan:
    """Read a DWI, its table and its brain mask."""
    loaded = nib.load(image)
    stem = image.name.removesuffix("_dwi.nii.gz")
    bvals, bvecs = (
        np.loadtxt(image.with_name(f"{stem}_dwi.{end}"), ndmin=2) for end in ("bval", "bvec")
    )
    data = np.asanyarray(loaded.dataobj, dtype=np.float32)
    weighted = bvals[0] > B0_S_MM2
    bvecs = np.where(weighted, bvecs, 0.0).T
    bvecs /= np.maximum(np.linalg.norm(bvecs, axis=1, keepdims=True), 1e-9)
    scan = Scan(data, np.asarray(loaded.affine, np.float64), bvals[0], bvecs, data[..., 0] > 0)
    masks = sorted(dataset.rglob(f"{stem.split('_desc-')[0]}_desc-brain_mask.nii.gz"))
    if masks:
        mask = np.asanyarray(nib.load(masks[0]).dataobj) > 0
    else:
        gradients = Gradients(scan.bvals, bvecs @ scan.frame.T, B0_S_MM2, "auto")
        turned = np.ascontiguousarray(scan.grid.from_stored(data), np.float32)
        mask = scan.grid.to_stored(brain_mask(Dwi(turned, scan.grid, gradients), None).data)
    return Scan(data, scan.affine, scan.bvals, scan.bvecs, np.asarray(mask))


def stored_as(scan: Scan, codes: str) -> Scan:
    """Return the same scan with axes in another order."""
    turn = ornt_transform(io_orientation(scan.affine), axcodes2ornt(codes))
    affine = scan.affine @ inv_ornt_aff(turn, scan.data.shape[:3])
    directions = scan.bvecs @ scan.frame.T
    data, mask = (apply_orientation(array, turn) for array in (scan.data, scan.mask))
    return Scan(data, affine, scan.bvals, directions @ fsl_frame(affine), mask)


def rotated(scan: Scan) -> Scan:
    """Return the scan of a rotated head in a rotated scanner."""
    affine = scan.affine.copy()
    affine[:3] = Rotation.from_euler("xyz", ROTATION_DEG, degrees=True).as_matrix() @ affine[:3]
    return Scan(scan.data, affine, scan.bvals, scan.bvecs, scan.mask)


def thinned(scan: Scan, axis: int) -> Scan:
    """Return every other slice across an axis."""
    keep = tuple(slice(None, None, 2 if i == axis else 1) for i in range(3))
    affine = scan.affine.copy()
    affine[:3, axis] *= 2
    return Scan(scan.data[keep], affine, scan.bvals, scan.bvecs, scan.mask[keep])


def storages(scan: Scan) -> Iterator[tuple[str, Scan]]:
    """Return the scan in all storages, by name."""
    yield "".join(nib.aff2axcodes(scan.affine)), scan
    for codes in ("LAS", "RAS", "LPS"):
        if codes != "".join(nib.aff2axcodes(scan.affine)):
            yield codes, stored_as(scan, codes)
    yield "oblique", rotated(scan)
    for axis, name in enumerate("ijk"):
        if scan.data.shape[axis] > 3:
            yield f"half of {name}", thinned(scan, axis)


def permuted(tensor: TensorFit, names: Permutation, frame: np.ndarray) -> TensorFit:
    """Return the tensor that a table permuted by `names` would give."""
    turn = (frame @ permutation_matrix(names) @ frame.T).astype(np.float32)
    return TensorFit(tensor.eigenvalues_mm2_s, turn @ tensor.eigenvectors, tensor.shells_s_mm2)


def remedy(names: Permutation) -> Permutation:
    """Return the permutation that undoes another."""
    return canonical_permutation(permutation_names(permutation_matrix(names).T))


def confusion(name: str, storage: str, scan: Scan) -> Mapping[str, str]:
    """Check all tables of a scan."""
    start = time.process_time()
    tensor = scan.fit()
    fit_s = time.process_time() - start
    right = scan.check(tensor)
    wrong = {p: scan.check(permuted(tensor, p, scan.frame)) for p in PERMUTATIONS[1:]}
    start = time.process_time()
    scan.check(tensor)
    check_s = time.process_time() - start
    verdicts = Counter(check.verdict for check in wrong.values())
    refitted = [scan.check(scan.fit(p)).verdict == wrong[p].verdict for p in REFITTED]
    closest = max((check for check in wrong.values()), key=lambda check: check.margin)
    return {
        "DWI": name,
        "storage": storage,
        "right table": right.verdict,
        "margin": f"{right.margin:.1f}",
        "wrong: contradicts": str(verdicts["contradicts"]),
        "undecided": str(verdicts["undecided"]),
        "agrees": str(verdicts["agrees"]),
        "margin of the closest": f"{closest.margin:.1f}",
        "best is right": str(sum(c.best[0] == remedy(p) for p, c in wrong.items())),
        "best alone": str(sum(c.best == (remedy(p),) for p, c in wrong.items())),
        "refitted": f"{sum(refitted)} of {len(refitted)}",
        "voxels": str(right.n_voxels),
        "tensor, CPU s": f"{fit_s:.2f}",
        "check, CPU s": f"{check_s:.3f}",
    }


def ours(scans: Iterable[tuple[str, Path, Path]]) -> Iterator[Mapping[str, str]]:
    """Check all scans in all storages."""
    for name, image, dataset in scans:
        for storage, scan in storages(read_scan(image, dataset)):
            with threadpool_limits(1):
                yield confusion(name, storage, scan)


@dataclass(frozen=True, eq=False)
class Peer:
    """A program that checks files.

    Parameters
    ----------
    name : str
    command : list of str
    tables : tuple
        Those that it gets.
    """

    name: str
    command: list[str]
    tables: tuple[Permutation, ...]

    def answer(self, folder: Path, image: Path, names: Permutation) -> tuple[str, bool, float]:
        """Return its verdict, whether the table it exports is the true one, and its CPU seconds."""
        bval, bvec = (image.with_name(image.name.replace("nii.gz", e)) for e in ("bval", "bvec"))
        truth = np.loadtxt(bvec)
        given, out = folder / "given.bvec", folder / "out.bvec"
        np.savetxt(given, permutation_matrix(names) @ truth, fmt="%.8f")
        out.unlink(missing_ok=True)
        words = {"IMAGE": image, "BVAL": bval, "BVEC": given, "OUT": out, "FOLDER": folder}
        used = measure([words.get(word, word) for word in self.command], cwd=folder)
        found = np.loadtxt(out) if out.exists() else np.loadtxt(given)
        weighted = np.loadtxt(bval) > B0_S_MM2
        cosines = np.abs((found * truth).sum(axis=0))[weighted]
        cosines /= np.linalg.norm(truth, axis=0)[weighted]
        kept = np.abs((found * np.loadtxt(given)).sum(axis=0))[weighted].min() > 0.99
        verdict = "agrees" if kept else "contradicts"
        report = folder / "report.json"
        if report.exists():
            decision = json.loads(report.read_text())["flip"]["decision"]
            verdict = {"PASS": "agrees", "FLAG": "contradicts"}.get(decision, "undecided")
        return verdict, bool(cosines.min() > 0.99), used.cpu_s


def gradlint(program: str) -> Peer:
    """Return PyPI's ``gradlint``, which exports its best table when told to apply it."""
    options = "--apply-repair --force-repair --force --report report.json --out-bval b.bval"
    inputs = "--dwi IMAGE --bval BVAL --bvec BVEC --out-bvec OUT"
    command = [program, "--nthreads", "1", "audit", *inputs.split(), *options.split()]
    return Peer("gradlint", command, PERMUTATIONS)


def dwigradcheck(n_tables: int) -> Peer:
    """Return MRtrix3's ``dwigradcheck``, which always exports its best table."""
    inputs = "IMAGE -fslgrad BVEC BVAL -export_grad_fsl OUT b.bval"
    options = "-force -quiet -nthreads 1 -scratch FOLDER"
    command = ["dwigradcheck", *inputs.split(), *options.split()]
    return Peer("dwigradcheck", command, TABLES_OF_DWIGRADCHECK[:n_tables])


def theirs(
    scans: Iterable[tuple[str, Path, Path]], peers: Iterable[Peer]
) -> Iterator[Mapping[str, str]]:
    """Run other programs on the scans as they are stored."""
    for peer, (name, image, _) in itertools.product(list(peers), list(scans)):
        with tempfile.TemporaryDirectory() as folder:
            answers = {}
            for names in peer.tables:
                try:
                    answers[names] = peer.answer(Path(folder), image.resolve(), names)
                except UnavailableError as refusal:
                    print(f"{peer.name}, {name}, {' '.join(names)}: {refusal}")
        if not answers:
            continue
        wrong = [answer for names, answer in answers.items() if names != PERMUTATIONS[0]]
        verdicts = Counter(verdict for verdict, _, _ in wrong)
        right = answers.get(PERMUTATIONS[0], ("failed", False, 0.0))
        yield {
            "program": peer.name,
            "DWI": name,
            "right table": right[0],
            "wrong: contradicts": str(verdicts["contradicts"]),
            "undecided": str(verdicts["undecided"]),
            "agrees": str(verdicts["agrees"]),
            "best is right": f"{sum(is_right for _, is_right, _ in wrong)} of {len(wrong)}",
            "CPU s a table": f"{np.median([seconds for _, _, seconds in answers.values()]):.1f}",
        }


def find_scans(datasets: Iterable[Path]) -> list[tuple[str, Path, Path]]:
    """Return name, image and dataset of every DWI."""
    return [
        (f"{dataset.resolve().name} {re.sub('_(desc|space)-[^_]+|_dwi.nii.gz', '', image.name)}",
         image, dataset)
        for dataset in datasets
        for image in sorted(dataset.glob("sub-*/dwi/*_dwi.nii.gz"))
    ]  # fmt: skip


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("datasets", type=Path, nargs="+")
    parser.add_argument("--gradlint", help="the program, e.g. of an environment of its own")
    parser.add_argument("--dwigradcheck", type=int, default=0, metavar="N", help="tables it gets")
    parser.add_argument("--peers-only", action="store_true", help="leave our own table out")
    options = parser.parse_args()
    scans = find_scans(options.datasets)
    print(f"{describe_machine('numpy', 'scipy')}\n")
    if not options.peers_only:
        print_table(ours(scans))
    peers = [gradlint(options.gradlint)] if options.gradlint else []
    if options.dwigradcheck:
        peers.append(dwigradcheck(options.dwigradcheck))
        version = subprocess.run(["dwi2tensor", "-version"], capture_output=True, text=True)
        print(f"\n{version.stdout.splitlines()[0]}")
    if peers:
        print()
        print_table(theirs(scans, peers))


if __name__ == "__main__":
    main()

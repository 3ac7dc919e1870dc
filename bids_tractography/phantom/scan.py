"""Simulated scanner: gradient schemes, voxel grids in any storage order, signal and noise."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from bids_tractography.phantom.anatomy import (
    TISSUES,
    Floats,
    Integers,
    Phantom,
    Vector,
    unit_vectors,
)

# Orders of magnitude for the adult brain at 3 T: signal at b=0 and in a T1w image, diffusivities.
B0_SIGNAL = np.array([600.0, 750.0, 1500.0])
T1W_SIGNAL = np.array([1000.0, 650.0, 200.0])
AXIAL_MM2_S, RADIAL_MM2_S = 1.7e-3, 0.3e-3
GM_CSF_MM2_S = np.array([0.8e-3, 3.0e-3])
REPETITION_TIME_S = 3.2

# The head is off-centre in the field of view, so a flipped array cannot be mistaken for a shift.
FIELD_OF_VIEW_MM = np.array([100.0, 115.0, 80.0])
FIELD_CENTRE_MM = np.array([2.0, -3.0, 1.0])


@dataclass(frozen=True, eq=False)
class GradientScheme:
    """b-values (G,) in s/mm² and unit directions (G, 3) in RAS+ scanner axes, zero for b=0."""

    bvals_s_mm2: Floats
    directions: Floats


def gradient_scheme(n_b0: int, shells: Mapping[int, int]) -> GradientScheme:
    """Distribute directions evenly over each shell and interleave the shells, deterministically.

    Parameters
    ----------
    n_b0 : int
        Number of b=0 volumes, evenly interspersed; the first volume is b=0.
    shells : mapping of int to int
        Number of directions by b-value in s/mm².
    """
    rng = np.random.Generator(np.random.Philox(0))
    bvals = np.repeat(np.array([*shells], dtype=np.float64), [*shells.values()])
    directions = np.concatenate([_evenly_spread(count) for count in shells.values()])
    directions *= rng.choice([-1, 1], size=(len(bvals), 1))
    order = rng.permutation(len(bvals))
    b0_before = np.arange(n_b0) * len(bvals) // n_b0
    return GradientScheme(
        np.insert(bvals[order], b0_before, 0), np.insert(directions[order], b0_before, 0, axis=0)
    )


def _evenly_spread(count: int) -> Floats:
    """Return unit vectors (count, 3) that repel each other and each other's antipodes.

    Electrostatic repulsion (Jones et al., Magn Reson Med 1999), starting from a Fibonacci lattice.
    """
    height = (np.arange(count) + 0.5) / count
    turn = np.pi * (1 + np.sqrt(5)) * np.arange(count)
    ring = np.sqrt(1 - height**2)
    charges = np.stack([ring * np.cos(turn), ring * np.sin(turn), height], axis=1)
    for _ in range(100):
        apart = charges[:, None] - np.concatenate([charges, -charges])
        distances = np.linalg.norm(apart, axis=2, keepdims=True)
        forces = np.divide(apart, distances**3, where=distances > 0, out=np.zeros_like(apart))
        charges = unit_vectors(charges + forces.sum(axis=1) / count**1.5)
    return charges


SINGLE_SHELL = gradient_scheme(3, {1000: 32})
TWO_SHELLS = gradient_scheme(4, {1000: 24, 2500: 45})


def fsl_bvecs(directions: Floats, affine: Floats) -> Floats:
    """Return FSL's b-vectors (G, 3) for directions (G, 3) in scanner axes.

    They are relative to the image axes, with x negated if the affine's determinant is positive,
    because FSL assumes that the first axis runs from right to left.
    """
    along_axes = directions @ (affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))
    radiological = np.linalg.det(affine[:3, :3]) < 0
    return np.asarray(along_axes * [1 if radiological else -1, 1, 1])


@dataclass(frozen=True)
class ScanGrid:
    """Voxels of the field of view, created in RAS order and stored in any order.

    Parameters
    ----------
    axcodes : str
        Directions of the stored axes, e.g. "LAS" or "PIR". They change the order of the numbers in
        a file, but not the number at a position in the head, including noise.
    voxel_size_mm : tuple of 3 float
        Along R, A and S, regardless of the stored order.
    rotation_deg : tuple of 3 float
        Rotation of the grid about the scanner's x, then y, then z axis.
    """

    # Excluded from equality, because grids that differ only in it have the same voxels.
    axcodes: str = field(default="RAS", compare=False)
    voxel_size_mm: Vector = (2.5, 2.5, 2.5)
    rotation_deg: Vector = (0.0, 0.0, 0.0)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along R, A and S."""
        x, y, z = np.ceil(FIELD_OF_VIEW_MM / self.voxel_size_mm - 1e-6).astype(int).tolist()
        return x, y, z

    @property
    def affine(self) -> Floats:
        """Voxel indices in RAS order to RAS+ mm, (4, 4)."""
        affine = np.eye(4)
        rotation = Rotation.from_euler("xyz", self.rotation_deg, degrees=True).as_matrix()
        affine[:3, :3] = rotation * self.voxel_size_mm
        affine[:3, 3] = FIELD_CENTRE_MM - affine[:3, :3] @ (np.array(self.shape) - 1) / 2
        return affine

    def centres_mm(self) -> Floats:
        """Return the centres of the V voxels in C order, in RAS+ mm, shape (V, 3)."""
        indices = np.indices(self.shape).reshape(3, -1).T
        return np.asarray(indices @ self.affine[:3, :3].T + self.affine[:3, 3])

    def store(self, values: NDArray[Any]) -> tuple[NDArray[Any], Floats]:
        """Return values (V,) or (V, G) as an array in the stored order, and its affine."""
        order = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(self.axcodes))
        volumes = values.reshape(*self.shape, *values.shape[1:])
        affine = self.affine @ inv_ornt_aff(order, self.shape)
        return apply_orientation(volumes, order), np.asarray(affine, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Voxels:
    """Contents of the V voxels of a grid, in C order.

    Parameters
    ----------
    tissue : ndarray, shape (V, 3)
        Fractions of `TISSUES`; their sum is the part of the voxel that is inside the head.
    fibre_voxel, fibre_fraction : ndarray, shape (F,)
        Voxel of each fibre segment, and its volume fraction; a voxel may have several segments.
    fibre_direction : ndarray, shape (F, 3)
        Unit vectors along the segments, RAS+.
    """

    tissue: Floats
    fibre_voxel: Integers
    fibre_fraction: Floats
    fibre_direction: Floats


@lru_cache(maxsize=16)
def voxelise(phantom: Phantom, grid: ScanGrid, samples_per_axis: int = 3) -> Voxels:
    """Sample the anatomy on a lattice inside each voxel, which yields partial volumes.

    Parameters
    ----------
    phantom : Phantom
        The anatomy.
    grid : ScanGrid
        Voxels.
    samples_per_axis : int
        Number of samples along each axis of a voxel.
    """
    centres = grid.centres_mm()
    near_head = np.flatnonzero(phantom.head.shrunk(-max(grid.voxel_size_mm)).contains(centres))
    lattice = np.indices((samples_per_axis,) * 3).reshape(3, -1).T + 0.5
    within_mm = (lattice / samples_per_axis - 0.5) @ grid.affine[:3, :3].T
    points = (centres[near_head, None] + within_mm).reshape(-1, 3)
    here = phantom.composition(points)
    tissue = np.zeros((len(centres), len(TISSUES)))
    tissue[near_head] = here.tissue.reshape(-1, len(lattice), len(TISSUES)).mean(axis=1)
    point, bundle = np.nonzero(here.fractions)
    return Voxels(
        tissue=tissue,
        fibre_voxel=near_head[point // len(lattice)],
        fibre_fraction=here.fractions[point, bundle] / len(lattice),
        fibre_direction=here.directions[point, bundle],
    )


def simulate_dwi(voxels: Voxels, scheme: GradientScheme) -> Floats:
    """Return the noise-free signal (V, G): a tensor for each fibre, isotropic GM and CSF."""
    isotropic = B0_SIGNAL[1:, None] * np.exp(-np.outer(GM_CSF_MM2_S, scheme.bvals_s_mm2))
    signal = voxels.tissue[:, 1:] @ isotropic
    for volume, (bval, gradient) in enumerate(
        zip(scheme.bvals_s_mm2, scheme.directions, strict=True)
    ):
        cosine = voxels.fibre_direction @ gradient
        diffusivity = RADIAL_MM2_S + (AXIAL_MM2_S - RADIAL_MM2_S) * cosine**2
        fibres = B0_SIGNAL[0] * voxels.fibre_fraction * np.exp(-bval * diffusivity)
        signal[:, volume] += np.bincount(voxels.fibre_voxel, fibres, minlength=len(signal))
    return np.asarray(signal)


def _noisy(signal: Floats, sigma: float, rng_seed: int) -> NDArray[np.int16]:
    """Add Rician noise: Gaussian noise in the real and imaginary parts, then the magnitude."""
    rng = np.random.Generator(np.random.Philox(rng_seed))
    real, imaginary = sigma * rng.standard_normal((2, *signal.shape), dtype=np.float32)
    magnitude = np.sqrt((signal.astype(np.float32) + real) ** 2 + imaginary**2)
    return np.asarray(np.rint(magnitude), dtype=np.int16)


def write_dwi(
    path: Path,
    phantom: Phantom,
    grid: ScanGrid,
    *,
    scheme: GradientScheme = SINGLE_SHELL,
    snr: float = 30.0,
    rng_seed: int = 0,
    phase_encoding_to: str = "P",
) -> None:
    """Write a DWI of the phantom: `path` with .nii.gz, .bval, .bvec and .json.

    Parameters
    ----------
    path : Path
        Path without extension.
    phantom : Phantom
        The anatomy.
    grid : ScanGrid
        Voxels and storage order.
    scheme : GradientScheme
        b-values and directions.
    snr : float
        Signal of WM at b=0 divided by the standard deviation of the noise; ``math.inf`` for none.
    rng_seed : int
        Seed of the noise.
    phase_encoding_to : str
        "A" or "P", for the sidecar; the image is not distorted.
    """
    signal = simulate_dwi(voxelise(phantom, grid), scheme)
    axis = next(index for index, code in enumerate(grid.axcodes) if code in "AP")
    sidecar = _sequence(RepetitionTime=REPETITION_TIME_S, EchoTime=0.085, FlipAngle=90) | {
        "PhaseEncodingDirection": "ijk"[axis] + "-" * (grid.axcodes[axis] != phase_encoding_to),
        "TotalReadoutTime": 0.045,
    }
    affine = _write_image(path, _noisy(signal, B0_SIGNAL[0] / snr, rng_seed), grid, sidecar)
    np.savetxt(f"{path}.bval", scheme.bvals_s_mm2[None], fmt="%g")
    np.savetxt(f"{path}.bvec", fsl_bvecs(scheme.directions, affine).T, fmt="%.8f")


def write_tissue(
    path: Path, phantom: Phantom, grid: ScanGrid, *, sources: Sequence[str] = ()
) -> None:
    """Write tissue fractions: `path` with _label-{WM,GM,CSF}_probseg and _desc-brain_mask.

    Each is a .nii.gz with a .json.

    Parameters
    ----------
    path : Path
        Path without suffix and extension.
    phantom : Phantom
        The anatomy.
    grid : ScanGrid
        Voxels and storage order.
    sources : sequence of str
        BIDS URIs for the sidecars.
    """
    tissue = voxelise(phantom, grid).tissue
    origin = {"Sources": list(sources)}
    for name, fraction in zip(TISSUES, tissue.T.astype(np.float32), strict=True):
        sidecar = {"Description": f"Fraction of each voxel that is {name}"} | origin
        _write_image(Path(f"{path}_label-{name}_probseg"), fraction, grid, sidecar)
    mask = (tissue.sum(axis=1) >= 0.5).astype(np.uint8)
    _write_image(Path(f"{path}_desc-brain_mask"), mask, grid, {"Type": "Brain"} | origin)


def write_t1w(path: Path, phantom: Phantom, grid: ScanGrid, *, rng_seed: int = 0) -> None:
    """Write a T1-weighted image: `path` with .nii.gz and .json.

    Parameters
    ----------
    path : Path
        Path without extension.
    phantom : Phantom
        The anatomy.
    grid : ScanGrid
        Voxels and storage order.
    rng_seed : int
        Seed of the noise.
    """
    signal = voxelise(phantom, grid, samples_per_axis=2).tissue @ T1W_SIGNAL
    sidecar = _sequence(RepetitionTime=2.3, EchoTime=0.003, InversionTime=0.9, FlipAngle=9)
    _write_image(path, _noisy(signal, T1W_SIGNAL[0] / 50, rng_seed), grid, sidecar)


def _sequence(**parameters: float) -> dict[str, Any]:
    return {"Modality": "MR", "Manufacturer": "none", "MagneticFieldStrength": 3} | parameters


def _write_image(
    path: Path, values: NDArray[Any], grid: ScanGrid, sidecar: Mapping[str, Any]
) -> Floats:
    """Write values (V,) or (V, G) and a sidecar; return the stored affine."""
    array, affine = grid.store(values)
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm", "sec")
    if array.ndim == 4:
        image.header["pixdim"][4] = REPETITION_TIME_S
    write_json(Path(f"{path}.json"), sidecar)
    # No time stamp in the gzip header, so that the same phantom has the same bytes.
    compressed = gzip.compress(image.to_bytes(), compresslevel=1, mtime=0)
    Path(f"{path}.nii.gz").write_bytes(compressed)
    return affine


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

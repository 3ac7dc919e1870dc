"""The phantom against known answers: DIPY's tensor fit, analytic volumes, FSL's rule by hand."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from dipy.core.gradients import gradient_table
from dipy.reconst.dti import TensorModel

from bids_tractography.errors import OutputError
from bids_tractography.phantom import (
    SINGLE_SHELL,
    TWO_SHELLS,
    Ellipsoid,
    GradientScheme,
    Phantom,
    ScanGrid,
    connected_bundles,
    fsl_bvecs,
    gradient_scheme,
    make_phantom,
    simulate_dwi,
    voxelise,
    write_dwi,
    write_phantom,
)

NAMES = ["association", "commissural", "projection", "arcuate", "radiation"]
HEAD_MM3 = 4 / 3 * np.pi * 40 * 48 * 32
CSF_MM3 = HEAD_MM3 - 4 / 3 * np.pi * (37.5 * 45.5 * 29.5 - 6 * 10 * 6)
GRIDS = {
    "RAS": ScanGrid("RAS"),
    "LAS": ScanGrid("LAS"),
    "PIR": ScanGrid("PIR"),
    "oblique": ScanGrid("AIL", rotation_deg=(12, -8, 15)),
    "anisotropic": ScanGrid("LPS", voxel_size_mm=(2.2, 2.5, 3.0), rotation_deg=(-10, 0, 14)),
}
COARSE = ScanGrid("RAS", (4.0, 4.0, 4.0))


@dataclass(frozen=True)
class Dwi:
    """A DWI as another program reads it: directions in scanner axes by FSL's rule."""

    image: Any
    data: Any
    bvals: Any
    directions: Any

    def tensor_fit(self, mask: Any) -> Any:
        low = self.bvals < 1500
        table = gradient_table(self.bvals[low], bvecs=self.directions[low], b0_threshold=10)
        return TensorModel(table).fit(self.data[mask][:, low])


def read_dwi(stem: Path) -> Dwi:
    image = nib.load(f"{stem}.nii.gz")
    frame = image.affine[:3, :3] / np.sqrt((image.affine[:3, :3] ** 2).sum(axis=0))
    if np.linalg.det(frame) > 0:  # FSL sees the x axis of a neurological image from its other end
        frame = frame @ np.diag([-1, 1, 1])
    bvecs = np.loadtxt(f"{stem}.bvec")
    assert bvecs.shape == (3, image.shape[3])
    return Dwi(image, np.asarray(image.dataobj), np.loadtxt(f"{stem}.bval"), (frame @ bvecs).T)


def centres_mm(image: Any) -> Any:
    indices = np.moveaxis(np.indices(image.shape[:3]), 0, -1)
    return nib.affines.apply_affine(image.affine, indices).reshape(-1, 3)


def single_fibre(phantom: Phantom, image: Any) -> tuple[Any, Any, Any]:
    """Voxels with one bundle from corner to corner: indices, which bundle, its direction."""
    centres = centres_mm(image)
    voxels = np.flatnonzero(phantom.composition(centres).fractions.max(axis=1) == 1)
    for corner in itertools.product((-0.5, 0.5), repeat=3):
        points = centres[voxels] + image.affine[:3, :3] @ corner
        voxels = voxels[phantom.composition(points).fractions.max(axis=1) == 1]
    here = phantom.composition(centres[voxels])
    bundle = here.fractions.argmax(axis=1)
    indices = np.unravel_index(voxels, image.shape[:3])
    return indices, bundle, here.directions[np.arange(len(voxels)), bundle]


def angles_deg(first: Any, second: Any) -> Any:
    return np.rad2deg(np.arccos(np.abs((first * second).sum(axis=-1)).clip(0, 1)))


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom(tmp_path_factory.mktemp("phantom") / "bids", rng_seed=7)


@pytest.fixture(scope="module")
def tractogram(phantom: Phantom) -> tuple[Any, Any]:
    lines = [bundle.centreline_mm for bundle in phantom.bundles]
    return np.concatenate(lines), np.cumsum([0, *map(len, lines)])


# Anatomy


def test_bundles_are_the_documented_ones(phantom: Phantom) -> None:
    assert [bundle.name for bundle in phantom.bundles] == NAMES
    steps = [_unit_steps(bundle.centreline_mm) for bundle in phantom.bundles]
    association, commissural, projection = (step.mean(axis=0) for step in steps[:3])
    assert association @ commissural == pytest.approx(0, abs=1e-6)
    assert abs(projection @ commissural) == pytest.approx(0.5, abs=1e-6)
    for step in [*steps[:3], steps[4]]:
        np.testing.assert_allclose(step, step[:1].repeat(len(step), 0), atol=1e-6)


def _unit_steps(line: Any) -> Any:
    steps = np.diff(line, axis=0)
    return steps / np.linalg.norm(steps, axis=1, keepdims=True)


def test_arcuate_bends_by_half_a_turn_with_a_radius_of_17_mm(phantom: Phantom) -> None:
    line = phantom.bundles[3].centreline_mm
    turns = np.arccos((_unit_steps(line)[1:] * _unit_steps(line)[:-1]).sum(axis=1).clip(-1, 1))
    assert turns.sum() == pytest.approx(np.pi, rel=0.01)
    assert turns.max() < 0.1 / 17 * 1.01
    arc = line[np.flatnonzero(turns > 1e-3)]
    np.testing.assert_allclose(np.linalg.norm(arc - [0, -13, -11], axis=1), 17, atol=0.01)


def test_fibres_of_the_radiation_are_lines_through_one_apex(phantom: Phantom) -> None:
    fan = phantom.bundles[4]
    axis = fan.centreline_mm[-1] - fan.centreline_mm[0]
    apex = fan.centreline_mm[0] - axis * 4.5 / (12 - 4.5)
    points = np.random.default_rng(0).uniform(-40, 40, (20_000, 3))
    here = phantom.composition(points)
    inside = here.fractions[:, 4] > 0
    from_apex = points[inside] - apex
    assert inside.sum() > 200
    assert (
        angles_deg(
            here.directions[inside, 4], from_apex / np.linalg.norm(from_apex, axis=1, keepdims=True)
        ).max()
        < 0.1
    )
    spread = angles_deg(
        from_apex / np.linalg.norm(from_apex, axis=1)[:, None], axis / np.linalg.norm(axis)
    )
    assert 7 < spread.max() < 8.5  # atan(7.5 mm / 55 mm)


def test_bundles_meet_only_at_the_two_crossings_and_share_the_volume(phantom: Phantom) -> None:
    fractions = phantom.composition(_lattice()).fractions
    present = (fractions > 0).T
    meeting = {(i, j) for i in range(5) for j in range(i) if (present[i] & present[j]).any()}
    assert meeting == {(1, 0), (2, 1)}
    assert set(np.unique(fractions)) == {0, 0.5, 1}
    assert set(np.unique(fractions.sum(axis=1))) == {0, 1}


def _lattice() -> Any:
    axis = np.arange(-49.0, 50, 2.0)
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)


def test_end_regions_are_apart_and_each_centreline_reaches_its_own(phantom: Phantom) -> None:
    points = _lattice()
    claims = np.zeros(len(points), dtype=int)
    for index, bundle in enumerate(phantom.bundles):
        alone = Phantom(
            phantom.head, phantom.pial_surface, phantom.white_surface, phantom.ventricle, (bundle,)
        )
        claims += alone.end_regions(points) >= 0
        ends = phantom.end_regions(bundle.centreline_mm[[0, len(bundle.centreline_mm) // 2, -1]])
        assert ends.tolist() == [2 * index, -1, 2 * index + 1]
    assert claims.max() == 1


def test_tissue_at_known_places(phantom: Phantom) -> None:
    places = np.array(
        [[-16, 14, -10], [-39, 0, 0], [-35, 0, 0], [0, 30, 0], [-17, -13, -11], [41, 0, 0]]
    )
    wm_gm_csf = [[0, 0, 1], [0, 0, 1], [0, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]]
    np.testing.assert_array_equal(phantom.composition(places).tissue, wm_gm_csf)


@pytest.mark.parametrize("grid", [GRIDS["RAS"], GRIDS["anisotropic"]])
def test_tissue_fractions_sum_to_one_and_have_the_analytic_volumes(
    phantom: Phantom, grid: ScanGrid
) -> None:
    tissue = voxelise(phantom, grid).tissue
    total = tissue.sum(axis=1)
    deep = Ellipsoid((0, 0, 0), (37, 45, 29)).contains(grid.centres_mm())
    np.testing.assert_allclose(total[deep], 1, rtol=1e-12)
    assert total.min() == 0
    assert total.max() <= 1 + 1e-12
    assert ((tissue > 0) & (tissue < 1)).any(axis=0).all(), "no partial volume"
    voxel_mm3 = np.prod(grid.voxel_size_mm)
    assert total.sum() * voxel_mm3 == pytest.approx(HEAD_MM3, rel=0.003)
    assert tissue[:, 2].sum() * voxel_mm3 == pytest.approx(CSF_MM3, rel=0.01)
    samples = voxelise(phantom, grid)
    white = np.bincount(samples.fibre_voxel, samples.fibre_fraction, minlength=len(tissue))
    np.testing.assert_allclose(white, tissue[:, 0], atol=1e-12)


# Connections


def test_centrelines_connect_their_bundles_in_either_sense(
    phantom: Phantom, tractogram: tuple[Any, Any]
) -> None:
    points, offsets = tractogram
    each_once = dict.fromkeys(NAMES, 1) | {"invalid": 0, "none": 0}
    assert connected_bundles(phantom, points, offsets) == each_once
    assert connected_bundles(phantom, points[::-1], len(points) - offsets[::-1]) == each_once


def test_wrong_short_and_returning_streamlines_are_not_connections(phantom: Phantom) -> None:
    association, commissural = (bundle.centreline_mm for bundle in phantom.bundles[:2])
    lines = [
        np.array([association[0], commissural[-1]]),
        association[: len(association) // 2],
        np.array([association[0], association[0]]),
        association[30:-30] + np.array([3, 2, 0]),
    ]
    counts = connected_bundles(phantom, np.concatenate(lines), np.cumsum([0, *map(len, lines)]))
    assert counts == dict.fromkeys(NAMES, 0) | {"association": 1, "invalid": 1, "none": 2}


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mirrored_tractogram_connects_nothing(
    phantom: Phantom, tractogram: tuple[Any, Any], axis: int
) -> None:
    points, offsets = tractogram
    mirrored = points * np.where(np.arange(3) == axis, -1, 1)
    counts = connected_bundles(phantom, mirrored, offsets)
    assert [counts[name] for name in NAMES] == [0] * 5
    assert counts["invalid"] + counts["none"] == 5


def test_no_streamlines_are_counted_as_none_at_all(phantom: Phantom) -> None:
    assert set(connected_bundles(phantom, np.empty((0, 3)), [0]).values()) == {0}


# Gradients


@pytest.mark.parametrize(
    ("scheme", "shells"),
    [(SINGLE_SHELL, {0: 3, 1000: 32}), (TWO_SHELLS, {0: 4, 1000: 24, 2500: 45})],
)
def test_schemes_are_evenly_spread(scheme: GradientScheme, shells: dict[int, int]) -> None:
    values, counts = np.unique(scheme.bvals_s_mm2, return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == shells
    assert scheme.bvals_s_mm2[0] == 0
    assert not scheme.directions[scheme.bvals_s_mm2 == 0].any()
    for bval in values[1:]:
        directions = scheme.directions[scheme.bvals_s_mm2 == bval]
        np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
        np.testing.assert_allclose(
            directions.T @ directions / len(directions), np.eye(3) / 3, atol=0.03
        )
        angles = angles_deg(directions[:, None], directions[None]) + 180 * np.eye(len(directions))
        # Neighbours on the half sphere, were each in the middle of its own share of it.
        assert angles.min() > 0.9 * np.rad2deg(np.sqrt(2 * np.pi / len(directions)))
        assert 0.25 < (directions[:, 2] > 0).mean() < 0.75


def test_six_directions_are_the_axes_of_an_icosahedron() -> None:
    directions = gradient_scheme(1, {1000: 6}).directions[1:]
    angles = angles_deg(directions[:, None], directions[None])[np.triu_indices(6, 1)]
    np.testing.assert_allclose(angles, np.rad2deg(np.arctan(2)), atol=0.1)


@pytest.mark.parametrize(
    ("axcodes", "right", "front", "up"),
    [
        ("RAS", [-1, 0, 0], [0, 1, 0], [0, 0, 1]),
        ("LAS", [-1, 0, 0], [0, 1, 0], [0, 0, 1]),
        ("LPS", [1, 0, 0], [0, -1, 0], [0, 0, 1]),
        ("PIR", [0, 0, 1], [1, 0, 0], [0, -1, 0]),
        ("PSR", [0, 0, 1], [-1, 0, 0], [0, 1, 0]),
    ],
)
def test_fsl_bvecs_by_hand(axcodes: str, right: Any, front: Any, up: Any) -> None:
    grid = ScanGrid(axcodes, (2.0, 2.5, 3.0))
    _, affine = grid.store(np.zeros(math.prod(grid.shape)))
    np.testing.assert_allclose(fsl_bvecs(np.eye(3), affine), [right, front, up], atol=1e-12)


@pytest.mark.skipif(shutil.which("mrinfo") is None, reason="MRtrix3 is not installed")
@pytest.mark.parametrize("axcodes", ["LAS", "PIR"])
def test_mrtrix_reads_the_scheme_in_scanner_axes(
    phantom: Phantom, tmp_path: Path, axcodes: str
) -> None:
    write_dwi(tmp_path / "dwi", phantom, ScanGrid(axcodes, (8.0, 10.0, 9.0), (20.0, -5.0, 10.0)))
    command = ["mrinfo", "-quiet", "-dwgrad", "-fslgrad", "dwi.bvec", "dwi.bval", "dwi.nii.gz"]
    text = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    table = np.array([line.split() for line in text.splitlines()], dtype=float)
    np.testing.assert_allclose(table[:, 3], SINGLE_SHELL.bvals_s_mm2, atol=0.5)
    weighted = table[:, 3] > 0
    np.testing.assert_allclose(table[weighted, :3], SINGLE_SHELL.directions[weighted], atol=1e-4)


# Signal


def test_signal_of_a_crossing_is_the_mean_of_its_two_bundles(phantom: Phantom) -> None:
    grid = ScanGrid()
    crossing = np.array([[-14, 11, 6]])
    nearest = int(np.linalg.norm(grid.centres_mm() - crossing, axis=1).argmin())
    signal = simulate_dwi(voxelise(phantom, grid), TWO_SHELLS)[nearest]
    fibres = np.array([[-0.1, 0.96, -0.32], [0.96, 0.15, 0.15]])
    fibres /= np.linalg.norm(fibres, axis=1, keepdims=True)
    along = (fibres @ TWO_SHELLS.directions.T) ** 2
    expected = 600 * np.exp(-TWO_SHELLS.bvals_s_mm2 * (0.3e-3 + 1.4e-3 * along)).mean(axis=0)
    np.testing.assert_allclose(signal, expected, rtol=1e-6)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_first_eigenvector_is_the_fibre_direction(
    phantom: Phantom, grid: ScanGrid, tmp_path: Path
) -> None:
    write_dwi(tmp_path / "dwi", phantom, grid, snr=30, rng_seed=1)
    dwi = read_dwi(tmp_path / "dwi")
    mask, bundle, truth = single_fibre(phantom, dwi.image)
    errors = angles_deg(dwi.tensor_fit(mask).evecs[..., 0], truth)
    for index in range(5):
        assert (bundle == index).sum() > 50
        assert np.median(errors[bundle == index]) < 4
        assert np.percentile(errors[bundle == index], 95) < 10


def test_without_noise_the_tensor_has_the_diffusivities_it_was_made_of(
    phantom: Phantom, tmp_path: Path
) -> None:
    write_dwi(tmp_path / "dwi", phantom, ScanGrid("LPI"), snr=math.inf)
    dwi = read_dwi(tmp_path / "dwi")
    mask, bundle, truth = single_fibre(phantom, dwi.image)
    fit = dwi.tensor_fit(mask)
    straight = bundle < 3
    np.testing.assert_allclose(
        fit.evals[straight], [[1.7e-3, 0.3e-3, 0.3e-3]] * straight.sum(), atol=2e-5
    )
    assert angles_deg(fit.evecs[..., 0], truth)[straight].max() < 0.5
    # Between two samples of a voxel the C turns by 0.8 mm / 17 mm, the fan hardly at all.
    assert angles_deg(fit.evecs[..., 0], truth).max() < 3


def test_tissues_have_their_signal_and_diffusivity(dataset: Path) -> None:
    dwi, tissue = read_dwi(dataset / "sub-01/dwi/sub-01_dwi"), _tissue(dataset, "sub-01/dwi/sub-01")
    b0 = dwi.data[..., dwi.bvals == 0].mean(axis=-1)
    for name, signal, diffusivity in (("GM", 750, 0.8e-3), ("CSF", 1500, 3e-3)):
        pure = tissue[name] == 1
        assert pure.sum() > 40
        assert b0[pure].mean() == pytest.approx(signal, rel=0.01)
        assert dwi.tensor_fit(pure).md.mean() == pytest.approx(diffusivity, rel=0.03)
    assert np.percentile(dwi.tensor_fit(tissue["GM"] == 1).fa, 99) < 0.2


def _tissue(dataset: Path, stem: str) -> dict[str, Any]:
    prefix = dataset / "derivatives/tissue" / stem
    names = {name: f"{prefix}_label-{name}_probseg.nii.gz" for name in ("WM", "GM", "CSF")}
    names["mask"] = f"{prefix}_desc-brain_mask.nii.gz"
    return {name: np.asarray(nib.load(path).dataobj) for name, path in names.items()}


def test_fa_above_a_fifth_is_white_matter(dataset: Path) -> None:
    stem = "sub-02/dwi/sub-02_dir-PA"
    tissue = _tissue(dataset, stem)
    brain, white = tissue["mask"] > 0, tissue["WM"] > 0.25
    anisotropic = np.zeros_like(brain)
    anisotropic[brain] = read_dwi(dataset / f"{stem}_dwi").tensor_fit(brain).fa > 0.2
    assert 2 * (anisotropic & white).sum() / (anisotropic.sum() + white.sum()) > 0.95


def test_noise_is_rician_at_the_ratio_asked_for(phantom: Phantom, tmp_path: Path) -> None:
    write_dwi(tmp_path / "dwi", phantom, COARSE, snr=15)
    sigma = 600 / 15
    data = read_dwi(tmp_path / "dwi").data
    tissue = voxelise(phantom, COARSE).tissue.reshape(*data.shape[:3], 3)
    air = data[tissue.sum(axis=-1) == 0].astype(float)
    assert air.mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.01)
    assert air.std() == pytest.approx(sigma * np.sqrt(2 - np.pi / 2), rel=0.01)
    assert data[tissue[..., 1] == 1, 0].std() == pytest.approx(sigma, rel=0.05)
    neighbours = np.corrcoef(air[:, :2].T)[0, 1]
    assert abs(neighbours) < 0.05


# Storage


@pytest.mark.parametrize("axcodes", ["LAS", "PIR", "SLP"])
def test_the_same_head_is_stored_in_any_order(
    phantom: Phantom, tmp_path: Path, axcodes: str
) -> None:
    for name, codes in (("ras", "RAS"), ("other", axcodes)):
        grid = ScanGrid(codes, (5.0, 7.0, 6.0), (7.0, 0.0, 0.0))
        write_dwi(tmp_path / name, phantom, grid, rng_seed=3)
    ras, other = (nib.load(tmp_path / f"{name}.nii.gz") for name in ("ras", "other"))
    assert nib.aff2axcodes(other.affine) == tuple(axcodes)
    canonical = nib.as_closest_canonical(other)
    np.testing.assert_array_equal(np.asarray(canonical.dataobj), np.asarray(ras.dataobj))
    np.testing.assert_allclose(canonical.affine, ras.affine, atol=1e-4)
    directions = [read_dwi(tmp_path / name).directions for name in ("ras", "other")]
    np.testing.assert_allclose(directions[0], directions[1], atol=1e-6)


def test_headers_say_frame_units_and_size(dataset: Path) -> None:
    image = nib.load(dataset / "sub-02/dwi/sub-02_dir-AP_dwi.nii.gz")
    assert image.shape == (40, 46, 32, 73)
    assert image.header.get_zooms() == pytest.approx((2.5, 2.5, 2.5, 3.2))
    assert image.header.get_xyzt_units() == ("mm", "sec")
    np.testing.assert_allclose(image.get_sform(), image.get_qform(), atol=1e-4)
    assert image.header["sform_code"] == image.header["qform_code"] == 1
    assert image.affine[:3, 1] / 2.5 == pytest.approx(
        [0, np.cos(np.pi / 15), np.sin(np.pi / 15)], abs=1e-6
    )
    assert nib.aff2axcodes(nib.load(dataset / "sub-01/dwi/sub-01_dwi.nii.gz").affine) == (
        "L",
        "A",
        "S",
    )


@pytest.mark.parametrize(
    ("axcodes", "towards", "expected"),
    [
        ("RAS", "P", "j-"),
        ("RAS", "A", "j"),
        ("LPS", "P", "j"),
        ("PIR", "P", "i"),
        ("SRA", "P", "k-"),
    ],
)
def test_phase_encoding_is_named_by_stored_axis(
    phantom: Phantom, tmp_path: Path, axcodes: str, towards: str, expected: str
) -> None:
    grid = ScanGrid(axcodes, (10.0, 10.0, 10.0))
    write_dwi(tmp_path / "dwi", phantom, grid, phase_encoding_to=towards)
    sidecar = json.loads((tmp_path / "dwi.json").read_text())
    assert sidecar["PhaseEncodingDirection"] == expected


def test_tissue_and_mask_are_on_the_grid_of_their_dwi(dataset: Path) -> None:
    for stem in ("sub-01/dwi/sub-01", "sub-02/dwi/sub-02_dir-AP", "sub-02/dwi/sub-02_dir-PA"):
        dwi = nib.load(dataset / f"{stem}_dwi.nii.gz")
        mask = nib.load(dataset / f"derivatives/tissue/{stem}_desc-brain_mask.nii.gz")
        np.testing.assert_array_equal(mask.affine, dwi.affine)
        assert mask.shape == dwi.shape[:3]
        tissue = _tissue(dataset, stem)
        assert tissue["mask"].sum() * 2.5**3 == pytest.approx(HEAD_MM3, rel=0.01)
        total = tissue["WM"] + tissue["GM"] + tissue["CSF"]
        np.testing.assert_array_equal(total >= 0.5, tissue["mask"] == 1)


def test_both_t1w_show_the_same_contrast_at_the_same_place(phantom: Phantom, dataset: Path) -> None:
    paths = [dataset / f"sub-{label}/anat/sub-{label}_T1w.nii.gz" for label in ("01", "02")]
    first, second = (nib.load(path) for path in paths)
    assert nib.aff2axcodes(second.affine) == ("P", "I", "R")
    for image in (first, second):
        tissue = phantom.composition(centres_mm(image)).tissue
        values = np.asarray(image.dataobj).reshape(-1)
        means = [np.median(values[column == 1]) for column in tissue.T]
        assert means == pytest.approx([1000, 650, 200], rel=0.05)


# Dataset


def test_truth_is_the_centrelines(phantom: Phantom, dataset: Path) -> None:
    truth = dataset / "derivatives/truth"
    lines = nib.streamlines.load(truth / "centrelines.tck").streamlines
    facts = json.loads((truth / "bundles.json").read_text())
    assert list(facts) == NAMES
    for line, bundle, fact in zip(lines, phantom.bundles, facts.values(), strict=True):
        np.testing.assert_allclose(line, bundle.centreline_mm, atol=1e-4)
        length = sum(math.dist(a, b) for a, b in itertools.pairwise(line.tolist()))
        assert fact["length_mm"] == pytest.approx(length, abs=0.1)


def test_two_runs_are_byte_identical_and_the_seed_is_of_the_noise(
    phantom: Phantom, dataset: Path, tmp_path: Path
) -> None:
    again = write_phantom(tmp_path / "again", rng_seed=7)
    assert _bytes(again) == _bytes(dataset)
    for seed in (1, 2):
        write_dwi(tmp_path / f"seed{seed}", phantom, COARSE, rng_seed=seed)
    first, second = (read_dwi(tmp_path / name).data.astype(float) for name in ("seed1", "seed2"))
    tissue = voxelise(phantom, COARSE).tissue.reshape(*first.shape[:3], 3)
    difference = (first - second)[tissue[..., 0] == 1]
    assert difference.std() == pytest.approx(20 * np.sqrt(2), rel=0.05)
    assert abs(difference.mean()) < 2
    runs = [
        nib.load(dataset / f"sub-02/dwi/sub-02_dir-{label}_dwi.nii.gz") for label in ("AP", "PA")
    ]
    air = [np.asarray(run.dataobj)[:2].ravel() for run in runs]
    assert abs(np.corrcoef(air)[0, 1]) < 0.02, "two runs with the same noise"


def _bytes(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_dataset_is_small(dataset: Path) -> None:
    assert sum(len(content) for content in _bytes(dataset).values()) < 15e6


def test_a_folder_with_anything_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        write_phantom(tmp_path)
    with pytest.raises(OutputError, match="cannot be created"):
        write_phantom(tmp_path / "precious")
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


VALIDATOR = shutil.which("bids-validator-deno") or shutil.which(
    "bids-validator-deno", path=str(Path(sys.executable).parent)
)


@pytest.mark.skipif(VALIDATOR is None, reason="bids-validator-deno is not installed")
@pytest.mark.parametrize("part", [".", "derivatives/tissue"])
def test_validator_finds_no_error(dataset: Path, part: str) -> None:
    command = [str(VALIDATOR), "--format", "json", "--ignoreWarnings", str(dataset / part)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    assert sorted(json.loads(result.stdout)["summary"]["subjects"]) == ["01", "02"]

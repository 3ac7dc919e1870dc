"""The check of gradient tables: closed forms, equivariance, and fields with a known table."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
from fields import affine_of, stored_as
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from threadpoolctl import threadpool_limits

from bids_tractography.config.model import TensorMapsConfig
from bids_tractography.core.dwi import Dwi
from bids_tractography.core.gradients import (
    Gradients,
    canonical_permutation,
    compose_permutations,
    permutation_matrix,
    permutation_names,
)
from bids_tractography.core.images import Grid, nearest_rotation
from bids_tractography.phantom import SINGLE_SHELL, ScanGrid, make_phantom, simulate_dwi, voxelise
from bids_tractography.reconst.base import TensorFit
from bids_tractography.reconst.coherence import PERMUTATIONS, GradientCheck, check_gradients
from bids_tractography.reconst.tensor import fit_tensor

IDENTITY = ("x", "y", "z")
SIGNED = [
    (a + x, b + y, c + z)
    for x, y, z in itertools.permutations("xyz")
    for a, b, c in itertools.product(("", "-"), repeat=3)
]
# Eigenvalues in mm²/s: FA 0.80, and 0.03.
WHITE, GREY = (1.7e-3, 0.3e-3, 0.3e-3), (0.8e-3, 0.78e-3, 0.76e-3)

permutations = st.sampled_from(PERMUTATIONS)


def tensor_of(v1: Any, white: Any) -> TensorFit:
    """Tensors whose principal directions are v1; grey matter is almost isotropic."""
    v1 = np.asarray(v1, np.float32)
    eigenvectors = np.zeros((*v1.shape, 3), np.float32)
    eigenvectors[..., 0] = v1
    eigenvalues = np.where(np.asarray(white)[..., None], WHITE, GREY).astype(np.float32)
    return TensorFit(eigenvalues, eigenvectors, (1000.0,))


def fsl_frame(grid: Grid) -> NDArray[np.float64]:
    flip = -1 if np.linalg.det(grid.stored_affine[:3, :3]) > 0 else 1
    return nearest_rotation(grid.stored_affine) @ np.diag([flip, 1, 1])


def fitted_with(
    tensor: TensorFit, names: tuple[str, str, str], frame: NDArray[np.float64]
) -> TensorFit:
    """Return the tensor that a table permuted by `names` gives."""
    turn = (frame @ permutation_matrix(names) @ frame.T).astype(np.float32)
    return TensorFit(tensor.eigenvalues_mm2_s, turn @ tensor.eigenvectors, tensor.shells_s_mm2)


def remedy(names: tuple[str, str, str]) -> tuple[str, str, str]:
    """Return the permutation that undoes another."""
    return canonical_permutation(permutation_names(permutation_matrix(names).T))


def random_axes(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    axes = rng.normal(size=(*shape, 3))
    return axes / np.linalg.norm(axes, axis=-1, keepdims=True)


def rings(points_mm: NDArray[np.float64]) -> tuple[Any, Any]:
    """Return directions (N, 3) in thirty rings at random angles, and where (N,) the rings are."""
    rng = np.random.default_rng(3)
    v1, white = random_axes(rng, (len(points_mm),)), np.zeros(len(points_mm), bool)
    for normal in random_axes(rng, (30,)):
        from_centre = points_mm - rng.uniform(-30, 30, 3)
        height = from_centre @ normal
        in_plane = from_centre - height[:, None] * normal
        radius = np.linalg.norm(in_plane, axis=1)
        inside = np.hypot(height, radius - rng.uniform(15, 30)) < 6
        v1[inside] = np.cross(normal, in_plane[inside]) / radius[inside, None]
        white |= inside
    return v1, white


def ring_tensor(codes: str, size_mm: Any, turn_deg: Any) -> tuple[TensorFit, Grid]:
    """Return rings in a cube of 90 mm, and its grid as a file stores it."""
    shape = tuple(int(n) for n in np.ceil(90 / np.asarray(size_mm)))
    grid = stored_as(codes, shape, affine_of(size_mm, turn_deg, shape))
    voxels = np.indices(grid.stored_shape).reshape(3, -1).T
    points_mm = voxels @ grid.stored_affine[:3, :3].T + grid.stored_affine[:3, 3]
    v1, white = rings(points_mm - [3.0, -2.0, 5.0])
    v1, white = v1.reshape(*grid.stored_shape, 3), white.reshape(grid.stored_shape)
    return tensor_of(grid.from_stored(v1), grid.from_stored(white)), grid


def check(tensor: TensorFit, grid: Grid, frame: Any = None) -> GradientCheck:
    mask = np.ones(tensor.fa.shape, bool)
    return check_gradients(tensor, mask, grid, np.eye(3) if frame is None else frame)


@pytest.fixture(scope="module")
def ringed() -> tuple[TensorFit, Grid]:
    return ring_tensor("LAS", [2.5, 2.5, 2.5], [0, 0, 0])


def cube(n: int = 24, size_mm: float = 2.0) -> Grid:
    return Grid((n, n, n), np.diag([size_mm, size_mm, size_mm, 1.0]))


# Names of permutations


def test_permutations_are_canonical_and_stand_for_all_48() -> None:
    assert len(set(PERMUTATIONS)) == 24
    assert PERMUTATIONS[0] == IDENTITY
    assert all("".join(names).count("-") <= 1 for names in PERMUTATIONS)
    assert {canonical_permutation(names) for names in SIGNED} == set(PERMUTATIONS)


def test_permutation_matrix_takes_signed_components() -> None:
    assert (permutation_matrix(("-y", "z", "x")) @ [1, 2, 3]).tolist() == [-2, 3, 1]


@pytest.mark.parametrize("names", SIGNED)
def test_permutation_names_inverts_permutation_matrix(names: tuple[str, str, str]) -> None:
    assert permutation_names(permutation_matrix(names)) == names


@pytest.mark.parametrize(
    "names", [("x", "x", "y"), ("x", "y", "w"), ("--x", "y", "z"), ("", "", "")]
)
def test_permutation_matrix_rejects_other_names(names: tuple[str, str, str]) -> None:
    with pytest.raises(ValueError, match="is not a permutation"):
        permutation_matrix(names)


@pytest.mark.parametrize("matrix", [np.zeros((3, 3)), np.ones((3, 3)), 2 * np.eye(3)])
def test_permutation_names_rejects_other_matrices(matrix: Any) -> None:
    with pytest.raises(ValueError, match="is not a signed permutation"):
        permutation_names(matrix)


@given(st.sampled_from(SIGNED), st.sampled_from(SIGNED))
def test_compose_permutations_applies_one_after_the_other(first: Any, second: Any) -> None:
    composed = permutation_matrix(compose_permutations(first, second)) @ [1, 2, 3]
    expected = permutation_matrix(second) @ (permutation_matrix(first) @ [1, 2, 3])
    assert composed.tolist() in (expected.tolist(), (-expected).tolist())


# Fields with a known table


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(
    names=permutations,
    codes=st.sampled_from(["RAS", "LAS", "LPS", "PIR", "SLA"]),
    size_mm=st.tuples(*[st.sampled_from([2.0, 2.5, 3.5])] * 3),
    turn_deg=st.tuples(*[st.integers(-30, 30)] * 3),
    of_fsl=st.booleans(),
)
def test_check_finds_the_permutation_in_any_storage(
    names: Any, codes: str, size_mm: Any, turn_deg: Any, of_fsl: bool
) -> None:
    tensor, grid = ring_tensor(codes, size_mm, turn_deg)
    frame = fsl_frame(grid) if of_fsl else np.eye(3)
    found = check(fitted_with(tensor, names, frame), grid, frame)
    assert found.verdict == ("agrees" if names == IDENTITY else "contradicts")
    assert found.best == (remedy(names),)
    assert found.probability < 1e-4


@settings(max_examples=6, deadline=None)
@given(names=permutations)
def test_check_of_a_permuted_table_permutes_the_scores(ringed: Any, names: Any) -> None:
    tensor, grid = ringed
    frame = fsl_frame(grid)
    right = check(tensor, grid, frame).scores
    wrong = check(fitted_with(tensor, names, frame), grid, frame).scores
    moved = {other: right[compose_permutations(names, other)] for other in PERMUTATIONS}
    assert wrong == pytest.approx(moved, abs=1e-5)


@pytest.mark.parametrize("names", [IDENTITY, ("-x", "y", "z"), ("y", "x", "z"), ("z", "x", "-y")])
def test_check_of_a_refitted_tensor_equals_that_of_the_permuted_one(names: Any) -> None:
    scan = ScanGrid("LAS")
    signal, affine = scan.store(simulate_dwi(voxelise(make_phantom(), scan), SINGLE_SHELL))
    grid = Grid(signal.shape[:3], affine)
    signal = np.ascontiguousarray(grid.from_stored(signal), np.float32)
    frame = fsl_frame(grid)
    turn = frame @ permutation_matrix(names) @ frame.T

    def fit(directions: Any) -> TensorFit:
        dwi = Dwi(signal, grid, Gradients(SINGLE_SHELL.bvals_s_mm2, directions, 50, "auto"))
        return fit_tensor(dwi, mask, TensorMapsConfig(), 1)

    mask = signal[..., 0] > 0
    refitted = check_gradients(fit(SINGLE_SHELL.directions @ turn.T), mask, grid, frame)
    permuted = fitted_with(fit(SINGLE_SHELL.directions), names, frame)
    assert refitted.scores == pytest.approx(
        check_gradients(permuted, mask, grid, frame).scores, abs=1e-3
    )
    assert refitted.verdict == ("agrees" if names == IDENTITY else "contradicts")
    assert refitted.best[0] == remedy(names)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), spread=st.sampled_from([0.0, 0.1, 0.4]))
def test_check_of_a_straight_bundle_never_contradicts(seed: int, spread: float) -> None:
    rng, grid = np.random.default_rng(seed), cube()
    along = random_axes(rng, ())
    centred = np.moveaxis(np.indices(grid.shape), 0, -1) - 11.5
    across = np.linalg.norm(centred - (centred @ along)[..., None] * along, axis=-1)
    v1 = along + spread * rng.normal(size=(*grid.shape, 3))
    v1 /= np.linalg.norm(v1, axis=-1, keepdims=True)
    assert check(tensor_of(v1, across < 6), grid).verdict != "contradicts"


def test_check_of_a_uniform_field_is_undecided_between_all() -> None:
    grid = cube()
    v1 = np.broadcast_to([0.6, 0.0, 0.8], (*grid.shape, 3))
    found = check(tensor_of(v1, np.ones(grid.shape, bool)), grid)
    assert found.verdict == "undecided"
    assert set(found.best) == set(PERMUTATIONS)
    assert all(score == pytest.approx(1) for score in found.scores.values())


def test_check_of_a_ring_in_a_plane_names_both_remedies() -> None:
    """Nothing depends on the sign of the component across the plane."""
    rng, grid = np.random.default_rng(0), Grid((40, 40, 16), np.diag([2.0, 2.0, 2.0, 1.0]))
    x, y, z = np.indices(grid.shape) - np.array([19.5, 19.5, 7.5])[:, None, None, None]
    radius = np.hypot(x, y)
    ring = np.hypot(radius - 14, z) < 4
    along = np.stack([-y, x, 0 * x], axis=-1) / radius[..., None]
    tensor = tensor_of(np.where(ring[..., None], along, random_axes(rng, grid.shape)), ring)
    right = check(tensor, grid)
    assert right.verdict == "undecided"
    assert set(right.best) == {IDENTITY, ("x", "y", "-z")}
    wrong = check(fitted_with(tensor, ("-x", "y", "z"), np.eye(3)), grid)
    assert wrong.verdict == "contradicts"
    assert set(wrong.best) == {("-x", "y", "z"), ("x", "-y", "z")}


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), towards_z=st.sampled_from([1.0, 3.0]), smooth=st.booleans())
def test_check_of_noise_is_undecided(seed: int, towards_z: float, smooth: bool) -> None:
    """Also if noise prefers a direction, and is correlated along two axes of the image only."""
    rng = np.random.default_rng(seed)
    grid = Grid((32, 32, 20), np.diag([1.5, 1.5, 4.0, 1.0]))
    v1 = rng.normal(size=(*grid.shape, 3)) * [1, 1, towards_z]
    if smooth:
        v1 = ndimage.uniform_filter(v1, (5, 5, 1, 1), mode="wrap")
    v1 /= np.linalg.norm(v1, axis=-1, keepdims=True)
    found = check(tensor_of(v1, rng.random(grid.shape) < 0.5), grid)
    assert found.verdict == "undecided"
    assert found.reason


# Little to go by


@pytest.mark.parametrize("shape", [(40, 40, 1), (1, 40, 40), (40, 40, 3), (40, 1, 1), (1, 1, 1)])
def test_check_of_thin_grids_is_finite(shape: tuple[int, int, int]) -> None:
    rng, grid = np.random.default_rng(0), Grid(shape, np.diag([2.0, 2.0, 2.0, 1.0]))
    found = check(tensor_of(random_axes(rng, shape), rng.random(shape) < 0.5), grid)
    assert found.verdict == "undecided"
    assert np.isfinite([found.margin, found.probability, *found.scores.values()]).all()


def test_check_without_anisotropy_is_undecided() -> None:
    grid = cube()
    isotropic = np.full((*grid.shape, 3), 1e-3, np.float32)
    vectors = np.broadcast_to(np.eye(3, dtype=np.float32), (*grid.shape, 3, 3))
    for eigenvalues in (isotropic, 0 * isotropic):
        found = check(TensorFit(eigenvalues, vectors, (1000.0,)), grid)
        assert found.verdict == "undecided"
        assert "too few voxels" in found.reason
        assert found.n_voxels == 0


@pytest.mark.parametrize("n", [0, 1, 127])
def test_check_of_small_masks_is_undecided(ringed: Any, n: int) -> None:
    tensor, grid = ringed
    mask = np.zeros(tensor.fa.size, bool)
    mask[np.flatnonzero(tensor.fa > 0.5)[:n]] = True
    found = check_gradients(tensor, mask.reshape(tensor.fa.shape), grid, np.eye(3))
    assert found.verdict == "undecided"
    assert "too few voxels" in found.reason


def test_check_starts_from_masks_that_erosion_empties(ringed: Any) -> None:
    tensor, grid = ringed
    mask = np.zeros(tensor.fa.shape, bool)
    mask[:, :, ::3] = True
    assert check_gradients(tensor, mask, grid, fsl_frame(grid)).n_voxels > 0


# What is recorded


def test_check_depends_on_nothing_but_its_input(ringed: Any) -> None:
    tensor, grid = ringed
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(check(tensor, grid, fsl_frame(grid)))
    assert found[0].scores == found[1].scores
    assert found[0].margin == found[1].margin


def test_record_holds_json_values(ringed: Any) -> None:
    tensor, grid = ringed
    record = check(tensor, grid, fsl_frame(grid)).record
    assert json.loads(json.dumps(record)) == record
    assert record["verdict"] == "agrees"
    assert record["best"] == ["x y z"]
    assert len(record["scores"]) == 24
    assert max(record["scores"], key=record["scores"].get) == "x y z"

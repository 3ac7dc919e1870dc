"""Seeds against closed forms, chi-squared tests and the defects of DIPY's seeding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform
from scipy.spatial.transform import Rotation
from scipy.stats import chisquare

from bids_tractography.config.tracking import (
    GivenSeedsConfig,
    GridSeedsConfig,
    RandomSeedsConfig,
    TotalSeedsConfig,
)
from bids_tractography.core.images import Grid
from bids_tractography.core.seeding import SeedList, draw_rng_seed, read_given_seeds
from bids_tractography.errors import DataError, EmptyMaskError, NoInputError

SHAPE = (7, 6, 5)
LEAST_P = 1e-4
KINDS: dict[str, Any] = {
    "grid": GridSeedsConfig(per_axis=2),
    "random": RandomSeedsConfig(per_voxel=3),
    "total": TotalSeedsConfig(count=101),
}


def oblique_affine() -> Any:
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", [11, -7, 19], degrees=True).as_matrix()
    affine[:3, :3] = turn * [2.2, 1.5, 3.1]
    affine[:3, 3] = [-31.0, 12.5, 7.25]
    return affine


def stored_as(codes: str, shape: tuple[int, int, int], affine: Any) -> Grid:
    """Store a RAS+ grid in another order of axes, as any converter does."""
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    stored = np.empty(3, int)
    stored[turn[:, 0].astype(int)] = shape
    x, y, z = stored.tolist()
    return Grid((x, y, z), affine @ inv_ornt_aff(turn, shape))


def some_mask(shape: tuple[int, int, int] = SHAPE, share: float = 0.4) -> Any:
    return np.random.default_rng(5).random(shape) < share


def seed_list(config: Any, mask: Any = None, grid: Grid | None = None, rng_seed: int = 1) -> Any:
    mask = some_mask() if mask is None else mask
    return SeedList(config, mask, grid or Grid(mask.shape, np.eye(4)), rng_seed)


def all_positions(seeds: SeedList) -> Any:
    return seeds.batch(0, len(seeds)).positions_mm


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_grid_seeds_are_the_centres_of_n_cubed_equal_cells(n: int) -> None:
    mask = np.zeros(SHAPE, bool)
    mask[2, 3, 4] = mask[6, 0, 1] = True
    affine = oblique_affine()
    positions = all_positions(seed_list(GridSeedsConfig(per_axis=n), mask, Grid(SHAPE, affine)))
    expected = [
        apply_affine(affine, [x + (2 * i + 1 - n) / (2 * n), y + (2 * j + 1 - n) / (2 * n),
                              z + (2 * k + 1 - n) / (2 * n)])
        for x, y, z in [(2, 3, 4), (6, 0, 1)]
        for i in range(n)
        for j in range(n)
        for k in range(n)
    ]  # fmt: skip
    np.testing.assert_allclose(positions, expected, rtol=0, atol=1e-12)


def test_random_seeds_are_as_many_as_asked_in_each_voxel_in_order() -> None:
    mask = some_mask()
    seeds = seed_list(RandomSeedsConfig(per_voxel=7), mask)
    voxels = np.rint(all_positions(seeds)).astype(int)
    assert len(seeds) == 7 * mask.sum()
    np.testing.assert_array_equal(voxels, np.repeat(np.argwhere(mask), 7, axis=0))


def test_random_seeds_reach_every_face_of_their_voxel_but_not_beyond() -> None:
    mask = np.ones((1, 1, 1), bool)
    positions = all_positions(seed_list(RandomSeedsConfig(per_voxel=5000), mask))
    assert (np.abs(positions) <= 0.5).all()
    assert (positions.min(axis=0) < -0.49).all()
    assert (positions.max(axis=0) > 0.49).all()


@pytest.mark.parametrize("rng_seed", [0, 1, 2**53 - 1])
def test_random_seeds_are_uniform_in_the_octants_and_the_axes_of_their_voxels(
    rng_seed: int,
) -> None:
    mask = some_mask((10, 10, 10), 0.5)
    positions = all_positions(seed_list(RandomSeedsConfig(per_voxel=20), mask, rng_seed=rng_seed))
    offsets = positions - np.rint(positions)
    octants = np.bincount((offsets > 0) @ [4, 2, 1], minlength=8)
    assert chisquare(octants).pvalue > LEAST_P
    for axis in range(3):
        slabs = np.histogram(offsets[:, axis], bins=16, range=(-0.5, 0.5))[0]
        assert chisquare(slabs).pvalue > LEAST_P


def test_consecutive_random_seeds_are_independent() -> None:
    mask = np.ones((1, 1, 1), bool)
    positions = all_positions(seed_list(RandomSeedsConfig(per_voxel=20_000), mask))
    correlations = np.corrcoef(np.hstack([positions[:-1], positions[1:]]).T) - np.eye(6)
    assert np.abs(correlations).max() < 5 / np.sqrt(20_000)


def test_offsets_of_100000_random_seeds_are_all_distinct_which_those_of_dipy_are_not() -> None:
    mask = np.ones((50, 50, 40), bool)
    positions = all_positions(seed_list(RandomSeedsConfig(per_voxel=1), mask))
    offsets = np.round(positions - np.rint(positions), 9)
    assert len(offsets) == 100_000
    assert len(np.unique(offsets, axis=0)) == 100_000
    assert np.unique(offsets[:, 0]).size > 99_900


def test_total_seeds_are_uniform_over_the_voxels_of_the_mask() -> None:
    mask = some_mask()
    positions = all_positions(seed_list(TotalSeedsConfig(count=20_000), mask))
    voxels = np.ravel_multi_index(tuple(np.rint(positions).astype(int).T), SHAPE)
    counts = np.bincount(voxels, minlength=mask.size)
    assert counts[~mask.ravel()].sum() == 0
    assert chisquare(counts[mask.ravel()]).pvalue > LEAST_P


def test_total_seeds_fill_octants_evenly_whatever_voxel_they_are_in() -> None:
    mask = np.zeros(SHAPE, bool)
    mask[1, 1, 1] = mask[4, 4, 4] = True
    positions = all_positions(seed_list(TotalSeedsConfig(count=20_000), mask))
    voxels = np.rint(positions)
    cells = (voxels[:, 0] > 2) * 8 + (positions > voxels) @ [4, 2, 1]
    assert chisquare(np.bincount(cells, minlength=16)).pvalue > LEAST_P


def test_a_longer_list_begins_with_the_shorter_one() -> None:
    few = all_positions(seed_list(TotalSeedsConfig(count=1000)))
    many = all_positions(seed_list(TotalSeedsConfig(count=5000)))
    assert few.shape == (1000, 3)
    assert many.shape == (5000, 3)
    np.testing.assert_array_equal(many[:1000], few)
    assert not np.array_equal(many[1000:2000], few)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 400), start=st.integers(0, 100))
def test_any_slicing_into_batches_gives_the_same_bits(kind: str, size: int, start: int) -> None:
    affine = oblique_affine()
    seeds = seed_list(KINDS[kind], grid=Grid(SHAPE, affine))
    whole = all_positions(seeds)
    batches = list(seeds.batches(size, start=start))
    assert [batch.first for batch in batches] == list(range(start, len(seeds), size))
    assert sum(len(batch) for batch in batches) == len(seeds) - start
    joined = np.concatenate([batch.positions_mm for batch in batches])
    assert joined.tobytes() == whole[start:].tobytes()


@pytest.mark.parametrize("config", [RandomSeedsConfig(), TotalSeedsConfig(count=500)])
def test_rng_seed_0_is_a_seed_like_any_other(config: Any) -> None:
    zero, again, one = (all_positions(seed_list(config, rng_seed=seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(zero, again)
    assert (zero != one).all()


def test_drawn_rng_seeds_differ_and_fit_the_configuration() -> None:
    drawn = {draw_rng_seed() for _ in range(20)}
    assert len(drawn) == 20
    assert all(0 <= seed < 2**53 for seed in drawn)


@pytest.mark.parametrize(
    "config", [GridSeedsConfig(), RandomSeedsConfig(), TotalSeedsConfig(count=1)]
)
def test_a_mask_of_only_voxel_000_is_transformed_unlike_in_dipy(config: Any) -> None:
    mask = np.zeros(SHAPE, bool)
    mask[0, 0, 0] = True
    affine = oblique_affine()
    positions = all_positions(seed_list(config, mask, Grid(SHAPE, affine)))
    assert positions.shape == (1, 3)
    voxels = apply_affine(np.linalg.inv(affine), positions)
    assert (np.abs(voxels) <= 0.5).all()
    assert np.linalg.norm(positions - affine[:3, 3]) < 2.1  # half the voxel's diagonal


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_mask_is_an_error_of_its_own_not_a_division_by_zero(kind: str) -> None:
    with pytest.raises(EmptyMaskError, match="seed mask"):
        seed_list(KINDS[kind], np.zeros(SHAPE, bool))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("codes", ["RAS", "LPI", "PIR"])
def test_seeds_lie_in_voxels_of_the_mask_on_an_anisotropic_oblique_grid(
    kind: str, codes: str
) -> None:
    mask, affine = some_mask(), oblique_affine()
    positions = all_positions(seed_list(KINDS[kind], mask, stored_as(codes, SHAPE, affine)))
    voxels = apply_affine(np.linalg.inv(affine), positions)
    assert mask[tuple(np.rint(voxels).astype(int).T)].all()


@pytest.mark.parametrize("codes", ["LAS", "LPS", "PIR", "SAL"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_head_stored_otherwise_gives_the_same_seeds_in_mm(kind: str, codes: str) -> None:
    mask, affine = some_mask(), oblique_affine()
    ras = stored_as("RAS", SHAPE, affine)
    other = stored_as(codes, SHAPE, affine)
    in_file_order = np.ascontiguousarray(other.to_stored(mask))
    there = seed_list(KINDS[kind], np.asarray(other.from_stored(in_file_order)), other)
    here = seed_list(KINDS[kind], mask, ras)
    np.testing.assert_allclose(all_positions(there), all_positions(here), rtol=0, atol=1e-10)


def written(path: Path, points: Any) -> Path:
    if path.suffix == ".npy":
        np.save(path, points)
    else:
        np.savetxt(path, points)
    return path


@pytest.mark.parametrize("name", ["seeds.txt", "seeds.npy"])
@pytest.mark.parametrize("count", [1, 3, 10])
def test_given_seeds_are_read_as_they_are(tmp_path: Path, name: str, count: int) -> None:
    grid = Grid(SHAPE, oblique_affine())
    points = grid.to_mm(np.random.default_rng(2).uniform(0, 4, (count, 3)))
    read = read_given_seeds(written(tmp_path / name, points), grid)
    np.testing.assert_allclose(read, points, rtol=1e-15)
    config = GivenSeedsConfig(path=tmp_path / name)
    seeds = SeedList(config, np.zeros(SHAPE, bool), grid, 1, read)
    assert len(seeds) == count
    batches = list(seeds.batches(2))
    np.testing.assert_array_equal(np.concatenate([b.positions_mm for b in batches]), read)
    assert [batch.first for batch in batches] == list(range(0, count, 2))


def test_given_seeds_in_integers_are_coordinates_too(tmp_path: Path) -> None:
    path = written(tmp_path / "seeds.npy", np.array([[1, 2, 3]], np.int16))
    read = read_given_seeds(path, Grid(SHAPE, np.eye(4)))
    assert read.dtype == np.float64
    assert read.tolist() == [[1.0, 2.0, 3.0]]


def test_given_seeds_may_be_partly_outside_the_image(tmp_path: Path) -> None:
    path = written(tmp_path / "seeds.txt", [[1, 2, 3], [500, 0, 0]])
    assert len(read_given_seeds(path, Grid(SHAPE, np.eye(4)))) == 2


@pytest.mark.parametrize(
    "points",
    [
        np.zeros((4, 2)),
        np.zeros((4, 4)),
        np.zeros((0, 3)),
        np.zeros((2, 2, 3)),
        np.zeros(3),
        np.array([[1.0, 2.0, np.nan]]),
        np.array([[1.0, 2.0, 3.0], [np.inf, 2.0, 3.0]]),
        np.array([[1j, 2, 3]]),
        np.array([["a", "b", "c"]]),
        np.array([[1, "b", None]], object),
        np.array([[True, False, True]]),
    ],
    ids=repr,
)
def test_given_seeds_that_are_no_list_of_points_are_refused(tmp_path: Path, points: Any) -> None:
    path = tmp_path / "seeds.npy"
    np.save(path, points)
    with pytest.raises(DataError, match=r"seeds\.npy"):
        read_given_seeds(path, Grid(SHAPE, np.eye(4)))


@pytest.mark.parametrize("text", ["1 2\n", "1 2 3\n4 5\n", "x y z\n", "1 2 nan\n", "\xff\xfe\n"])
def test_given_seeds_in_malformed_text_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "seeds.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=r"seeds\.txt"):
        read_given_seeds(path, Grid(SHAPE, np.eye(4)))


@pytest.mark.parametrize("name", ["seeds.txt", "seeds.npy"])
def test_an_empty_file_of_given_seeds_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match="seeds"):
        read_given_seeds(tmp_path / name, Grid(SHAPE, np.eye(4)))


def test_a_truncated_array_of_given_seeds_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "seeds.npy", np.ones((100, 3)))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match="seeds"):
        read_given_seeds(path, Grid(SHAPE, np.eye(4)))


@pytest.mark.parametrize("point", [[-0.51, 2, 2], [6.51, 2, 2], [2, 5.6, 2], [2, 2, -30]])
def test_given_seeds_all_outside_the_image_are_refused(tmp_path: Path, point: Any) -> None:
    path = written(tmp_path / "seeds.txt", [point])
    with pytest.raises(DataError, match="none of the 1 seeds"):
        read_given_seeds(path, Grid(SHAPE, np.eye(4)))


@pytest.mark.parametrize("point", [[-0.49, 2, 2], [6.49, 2, 2], [2, 5.49, 4.49]])
def test_given_seeds_in_the_outer_half_of_a_border_voxel_are_in_the_image(
    tmp_path: Path, point: Any
) -> None:
    path = written(tmp_path / "seeds.txt", [point])
    assert len(read_given_seeds(path, Grid(SHAPE, np.eye(4)))) == 1


def test_a_missing_file_of_given_seeds_is_no_input(tmp_path: Path) -> None:
    for name in ("nothing.txt", "nothing.npy"):
        with pytest.raises(NoInputError, match=name):
            read_given_seeds(tmp_path / name, Grid(SHAPE, np.eye(4)))

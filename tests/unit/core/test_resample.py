from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from bids_tractography.core.images import Grid, Image
from bids_tractography.core.resample import resample

Triple = tuple[float, float, float]
RAMP = np.array([0.3, -0.7, 0.2])


def grid(
    shape: tuple[int, int, int] = (20, 22, 18),
    size: Triple = (2.0, 2.0, 2.0),
    turn: Triple = (0, 0, 0),
    codes: str = "RAS",
    centre: Triple = (1, 2, 3),
) -> Grid:
    """Centred voxels stored in any order."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", turn, degrees=True).as_matrix() * size
    affine[:3, 3] = np.array(centre) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    order = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes)
    )
    stored = np.empty(3, int)
    stored[order[:, 0].astype(int)] = shape
    x, y, z = stored.tolist()
    return Grid((x, y, z), affine @ nib.orientations.inv_ornt_aff(order, shape))


def centres_mm(of: Grid) -> NDArray[np.float64]:
    return of.to_mm(np.indices(of.shape).reshape(3, -1).T.astype(float)).reshape(*of.shape, 3)


SOURCE = grid(turn=(5, -8, 20), codes="LPS")
INNER = [
    grid((8, 7, 6), (2.5, 2.5, 2.5)),
    grid((8, 7, 6), (1.0, 3.0, 2.2), turn=(30, 10, -15)),
    grid((6, 6, 6), (3.1, 2.9, 3.0), codes="PIR"),
]


@pytest.mark.parametrize("target", INNER)
def test_a_ramp_is_exact_on_any_grid(target: Grid) -> None:
    ramp = Image((centres_mm(SOURCE) @ RAMP).astype(np.float32), SOURCE)
    found = resample(ramp, target, nearest=False)
    np.testing.assert_allclose(found, centres_mm(target) @ RAMP, atol=2e-5)


def test_a_motion_goes_from_the_image_to_the_grid() -> None:
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("z", 7, degrees=True).as_matrix()
    motion[:3, 3] = 1.5, -2, 0.5
    ramp = Image((centres_mm(SOURCE) @ RAMP).astype(np.float32), SOURCE)
    found = resample(ramp, INNER[0], nearest=False, to_world=motion)
    back = (centres_mm(INNER[0]) - motion[:3, 3]) @ motion[:3, :3]  # inverse of a rotation
    np.testing.assert_allclose(found, back @ RAMP, atol=2e-5)


def test_the_same_grid_gives_the_same_bits() -> None:
    data = np.random.default_rng(0).random(SOURCE.shape, np.float32)
    stored_otherwise = grid(turn=(5, -8, 20), codes="SAL")
    assert np.array_equal(resample(Image(data, SOURCE), stored_otherwise, nearest=False), data)


def test_a_block_of_voxels_becomes_their_mean() -> None:
    fine = grid((24, 24, 24), (1.0, 1.0, 1.0))
    coarse = grid((8, 8, 8), (3.0, 3.0, 3.0))
    data = (np.random.default_rng(1).random(fine.shape) > 0.5).astype(np.float32)
    means = data.reshape(8, 3, 8, 3, 8, 3).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(resample(Image(data, fine), coarse, nearest=False), means, atol=1e-6)


def test_the_volume_of_a_tissue_is_kept() -> None:
    fine = grid((60, 60, 60), (1.0, 1.0, 1.0))
    ball = (((centres_mm(fine) - [1, 2, 3]) ** 2).sum(axis=-1) < 20**2).astype(np.float32)
    coarse = grid((30, 30, 30), (2.5, 2.5, 2.5), turn=(10, 20, 30))
    found = resample(Image(ball, fine), coarse, nearest=False)
    assert found.sum() * 2.5**3 == pytest.approx(ball.sum(), rel=5e-3)
    assert found.min() >= 0
    assert found.max() <= 1


def test_labels_stay_labels_and_outside_is_zero() -> None:
    labels = np.random.default_rng(2).integers(1, 12175, SOURCE.shape).astype(np.float32)
    large = grid((40, 40, 40), (1.7, 1.7, 1.7))
    found = resample(Image(labels, SOURCE), large, nearest=True)
    assert set(np.unique(found)) <= {0, *np.unique(labels)}
    voxels = SOURCE.to_voxels(centres_mm(large).reshape(-1, 3)).reshape(*large.shape, 3)
    outside = ((voxels < -0.5) | (voxels > np.array(SOURCE.shape) - 0.5)).any(axis=-1)
    assert outside.any()
    assert not found[outside].any()
    assert found[~outside].all()


def test_volumes_are_resampled_one_by_one() -> None:
    data = np.random.default_rng(3).random((*SOURCE.shape, 3), np.float32)
    found = resample(Image(data, SOURCE), INNER[1], nearest=False)
    for volume in range(3):
        alone = resample(Image(data[..., volume], SOURCE), INNER[1], nearest=False)
        assert np.array_equal(found[..., volume], alone)

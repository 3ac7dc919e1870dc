from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from signals import rician, scheme
from threadpoolctl import threadpool_limits

from bids_tractography.anatomy.brain import above_noise, brain_mask, find_brain_mask
from bids_tractography.config.model import TensorMapsConfig
from bids_tractography.core.dwi import Dwi
from bids_tractography.core.images import Grid
from bids_tractography.reconst.tensor import fit_tensor

GRADIENTS = scheme((1000, 12))
# Signal at b=0 and diffusivity in mm^2/s.
GREY, CSF, BONE, SCALP = (1000, 0.8e-3), (2000, 3e-3), (60, 1e-3), (900, 0.3e-3)


@dataclass(frozen=True)
class Head:
    dwi: Dwi
    brain: NDArray[np.bool_]
    depth: NDArray[np.float64]  # 1 at the centre, 0 at the brain's surface, negative outside

    def dice(self, mask: NDArray[np.bool_]) -> float:
        return float(2 * (mask & self.brain).sum() / (mask.sum() + self.brain.sum()))


def make_head(
    *,
    size: float = 1.0,
    voxel_mm: tuple[float, float, float] = (3.0, 3.0, 3.0),
    scalp: bool = True,
    weakest: float = 1.0,
    sigma: float = 15.0,
) -> Head:
    """An ellipsoid of brain in CSF, bone and scalp, in a coil that is weak at the centre."""
    radii, voxel = size * np.array([66.0, 82.0, 62.0]), np.array(voxel_mm)
    shape = np.ceil(2 * (radii + size * 30) / voxel).astype(int)
    centred = [(np.arange(n) - (n - 1) / 2) * v for n, v in zip(shape, voxel, strict=True)]
    x, y, z = np.meshgrid(*centred, indexing="ij")
    depth = 1 - np.sqrt((x / radii[0]) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2)
    mm = -depth * radii.mean()
    signal = np.zeros((*shape, len(GRADIENTS.bvals)))
    layers = [(mm <= 0, GREY)]
    if scalp:
        layers += [
            ((mm > 0) & (mm <= 3 * size), CSF),
            ((mm > 3 * size) & (mm <= 10 * size), BONE),
            ((mm > 10 * size) & (mm <= 17 * size), SCALP),
        ]
    for where, (s0, diffusivity) in layers:
        signal[where] = s0 * np.exp(-GRADIENTS.bvals * diffusivity)
    coil = weakest + (1 - weakest) * np.clip(1 - depth, 0, 1.3) ** 2
    noisy = rician(signal * coil[..., None], sigma).astype(np.float32)
    grid = Grid((shape[0], shape[1], shape[2]), np.diag([*voxel_mm, 1.0]))
    return Head(Dwi(noisy, grid, GRADIENTS), mm <= 0, depth)


def test_a_ball_in_noise_is_found() -> None:
    head = make_head(scalp=False, sigma=60)
    mask, scale = find_brain_mask(head.dwi)
    assert head.dice(mask) > 0.97
    assert scale == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("weakest", [1.0, 0.5, 0.25])
def test_scalp_is_removed_and_a_weak_centre_is_kept(weakest: float) -> None:
    head = make_head(weakest=weakest)
    mask, _ = find_brain_mask(head.dwi)
    assert head.dice(mask) > 0.93
    assert mask[head.depth > 0.1].all()  # no hole
    assert not mask[head.depth < -0.14].any()  # scalp


@pytest.mark.parametrize(
    ("size", "voxel_mm"),
    [(0.1, (0.25, 0.25, 0.25)), (0.1, (0.2, 0.2, 0.5)), (0.5, (1.5, 1.5, 2.0))],
    ids=["mouse", "mouse-thick", "macaque"],
)
def test_small_heads(size: float, voxel_mm: tuple[float, float, float]) -> None:
    head = make_head(size=size, voxel_mm=voxel_mm, weakest=0.5)
    mask, scale = find_brain_mask(head.dwi)
    assert head.dice(mask) > 0.93
    assert scale < 1.5 * size
    assert not mask[head.depth < -0.16].any()


@pytest.mark.parametrize("voxel_mm", [(2.0, 2.0, 6.0), (4.0, 2.0, 2.5), (1.5, 1.5, 1.5)])
def test_anisotropic_and_fine_voxels(voxel_mm: tuple[float, float, float]) -> None:
    head = make_head(voxel_mm=voxel_mm, weakest=0.5)
    mask, _ = find_brain_mask(head.dwi)
    assert head.dice(mask) > 0.93
    assert mask[head.depth > 0.12].all()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("flip", [(), (0,), (0, 1, 2)])
def test_orientation_does_not_matter(order: tuple[int, int, int], flip: tuple[int, ...]) -> None:
    head = make_head(voxel_mm=(3.0, 3.5, 4.0), weakest=0.5)

    def turn(data: Any) -> Any:
        return np.flip(np.transpose(data, (*order, *range(3, data.ndim))), flip)

    size = head.dwi.grid.voxel_size_mm[list(order)]
    data = np.ascontiguousarray(turn(head.dwi.data))
    turned = Dwi(data, Grid(data.shape[:3], np.diag([*size, 1.0])), GRADIENTS)
    differing = find_brain_mask(turned)[0] ^ turn(find_brain_mask(head.dwi)[0])
    assert differing.sum() <= 2  # sums in another order


def test_a_mask_is_the_same_on_any_number_of_threads() -> None:
    head = make_head(weakest=0.5)
    masks = []
    for n_threads in (1, 2):
        with threadpool_limits(n_threads):
            masks.append(find_brain_mask(head.dwi)[0])
    assert np.array_equal(masks[0], masks[1])


def test_a_brain_that_the_field_of_view_cuts_is_filled_to_its_border() -> None:
    head = make_head(weakest=0.5)
    third = head.brain.shape[2] // 2
    grid = Grid((*head.brain.shape[:2], third), head.dwi.grid.affine)
    mask, _ = find_brain_mask(Dwi(head.dwi.data[:, :, :third], grid, GRADIENTS))
    cut = Head(head.dwi, head.brain[:, :, :third], head.depth[:, :, :third])
    assert cut.dice(mask) > 0.93
    assert mask[cut.depth > 0.12].all()


def test_the_method_is_recorded_and_an_image_of_zeros_has_no_brain() -> None:
    made = brain_mask(make_head().dwi, None)
    assert made.record["method"] == "local_threshold"
    assert made.record["opening_radius_mm"] == pytest.approx(4.1)
    empty = Dwi(np.zeros((6, 6, 6, 14), np.float32), Grid((6, 6, 6), np.eye(4)), GRADIENTS)
    assert not find_brain_mask(empty)[0].any()


def test_the_anisotropy_of_noise_does_not_count() -> None:
    head = make_head(sigma=30)
    above = above_noise(head.dwi)
    assert above[head.depth > -0.02].all()
    air = head.depth < -0.4
    assert air.sum() > 10_000
    assert above[air].mean() < 0.001
    everywhere = np.ones_like(above)
    noisy = fit_tensor(head.dwi, everywhere, TensorMapsConfig(), 1).fa
    assert np.median(noisy[air]) > 0.2  # seeds would be placed here
    assert fit_tensor(head.dwi, above, TensorMapsConfig(), 1).fa[air].mean() < 0.001


def test_without_air_no_voxel_is_excluded() -> None:
    head = make_head()
    inside = tuple(slice(n // 2 - 6, n // 2 + 6) for n in head.brain.shape)
    crop = Dwi(head.dwi.data[inside], Grid((12, 12, 12), np.eye(4)), GRADIENTS)
    assert above_noise(crop).all()
    stripped = Dwi(np.where(head.brain[..., None], head.dwi.data, 0), head.dwi.grid, GRADIENTS)
    assert above_noise(stripped).all()

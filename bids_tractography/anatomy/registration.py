"""Registration of a T1-weighted image to a DWI, and of the atlas of tissue to it."""

from __future__ import annotations

from typing import Any

import numpy as np
from dipy.align import VerbosityLevels
from dipy.align.imaffine import AffineRegistration, MutualInformationMetric
from dipy.align.imwarp import SymmetricDiffeomorphicRegistration
from dipy.align.metrics import CCMetric
from dipy.align.transforms import AffineTransform3D, RigidTransform3D
from numpy.typing import NDArray
from scipy import ndimage

from bids_tractography.anatomy.atlas import ATLAS_FILE
from bids_tractography.core.dwi import Dwi
from bids_tractography.core.images import Grid, Image, read_image
from bids_tractography.core.resample import resample

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]
Affine = NDArray[np.float64]

_MAX_ATTENUATION = 5.0
_MARGIN_VOXELS = 3
_AFFINE_EDGE_MM, _ATLAS_EDGE_MM = 4.0, 3.0
_ELASTIC: dict[str, Any] = {"level_iters": [20, 20, 10]}
_ELASTIC_RADIUS, _ELASTIC_SIGMA = 3, 2.0
_PRIOR_SHARE, _PRIOR_SMOOTHNESS_MM = 0.96, 1.0
_MIN_DEEP = 0.02


def attenuation(dwi: Dwi) -> Volume:
    """Return ln(b=0 / mean weighted), 0 to 5.

    Coil sensitivity cancels in it, and CSF stands out as in a T1w image. In the b=0 image the
    sensitivity dominates the tissue contrast and shifts heads by millimetres.
    """
    b0, weighted = (np.maximum(m, dwi.min_signal) for m in (dwi.mean_b0, dwi.mean_weighted))
    return np.asarray(np.clip(np.log(b0 / weighted), 0, _MAX_ATTENUATION), np.float32)


def rigid(fixed: Image, moving: Image, start: Affine, edge_mm: float) -> Affine:
    """Find the rigid transform from RAS+ mm of `moving` to RAS+ mm of `fixed`.

    It maximises the mutual information (Mattes 2003) over all voxels of `fixed`, which are averaged
    to an edge length first: the time that it takes is that of the voxels.

    Parameters
    ----------
    fixed, moving : Image
        Images, 0 outside what is registered, see `masked`.
    start : ndarray, shape (4, 4)
        Transform to start from, in the opposite direction, as DIPY has it.
    edge_mm : float
        Minimum edge length of the voxels.
    """
    to_moving = _optimise(coarser(fixed, edge_mm), moving, [RigidTransform3D()], start)
    return np.asarray(np.linalg.inv(to_moving), np.float64)


def _optimise(fixed: Image, moving: Image, transforms: list[Any], start: Affine) -> Affine:
    registration = AffineRegistration(
        metric=MutualInformationMetric(nbins=32, sampling_proportion=None),
        level_iters=[200, 100],
        sigmas=[3.0, 1.0],
        factors=[4, 2],  # the last level has all voxels, regardless of its factor
        verbosity=0,
    )
    for transform in transforms:
        start = registration.optimize(
            fixed.data.astype(np.float64),
            moving.data.astype(np.float64),
            transform,
            None,
            static_grid2world=fixed.grid.affine,
            moving_grid2world=moving.grid.affine,
            starting_affine=start,
        ).affine
    return start


def masked(image: Image, mask: Mask) -> Image:
    """Return an image in the bounding box of a mask, 0 outside the mask."""
    where = np.argwhere(mask)
    low = np.maximum(where.min(axis=0) - _MARGIN_VOXELS, 0)
    box = tuple(slice(a, b) for a, b in zip(low, where.max(axis=0) + 4, strict=True))
    data = np.where(mask, image.data, np.float32(0))[box]
    affine = image.grid.affine.copy()
    affine[:3, 3] = image.grid.to_mm(low[None].astype(np.float64))[0]
    return Image(data, Grid(data.shape, affine))


def coarser(image: Image, edge_mm: float) -> Image:
    """Return an image with voxels of at least an edge length, averaged; itself if it has them."""
    factors = np.maximum(edge_mm / image.grid.voxel_size_mm, 1)
    if (factors < 1.01).all():
        return image
    affine = image.grid.affine.copy()
    affine[:3, :3] = affine[:3, :3] * factors
    affine[:3, 3] = image.grid.to_mm(((factors - 1) / 2)[None])[0]
    x, y, z = (max(1, int(n / f)) for n, f in zip(image.grid.shape, factors, strict=True))
    grid = Grid((x, y, z), affine)
    return Image(resample(image, grid, nearest=False), grid)


def centre_mm(mask: Mask, grid: Grid) -> NDArray[np.float64]:
    """Return the centre of mass of a mask in RAS+ mm, shape (3,)."""
    return np.asarray(grid.to_mm(np.argwhere(mask).mean(axis=0)[None])[0])


def atlas_priors(flat: Image, mask: Mask) -> tuple[Volume, float]:
    """Bring the atlas of tissue into a T1-weighted brain.

    The transform is affine, by mutual information, and then diffeomorphic, by the cross-correlation
    of neighbourhoods (SyN, Avants 2008), both with voxels of 3 mm (DIPY).

    Parameters
    ----------
    flat : Image
        T1-weighted brain without bias field, 0 outside the mask.
    mask : ndarray of bool, shape (X, Y, Z)
        Brain mask.

    Returns
    -------
    priors : ndarray of float32, shape (X, Y, Z, 4)
        Probabilities of CSF, grey, white and deep grey matter.
    likeness : float
        Correlation of the brain with the atlas.
    """
    atlas = read_image(ATLAS_FILE, ndim=4)
    template = Image(atlas.data[..., 0], atlas.grid)
    fixed = coarser(masked(flat, mask), _ATLAS_EDGE_MM)
    moving = coarser(template, _ATLAS_EDGE_MM)
    start = np.eye(4)
    start[:3, 3] = centre_mm(template.data > 0, atlas.grid) - centre_mm(mask, flat.grid)
    steps = [RigidTransform3D(), AffineTransform3D()]
    affine = _optimise(coarser(fixed, _AFFINE_EDGE_MM), moving, steps, start)
    metric = CCMetric(3, radius=_ELASTIC_RADIUS, sigma_diff=_ELASTIC_SIGMA)
    registration = SymmetricDiffeomorphicRegistration(metric, **_ELASTIC)
    registration.verbosity = VerbosityLevels.NONE
    elastic = registration.optimize(
        *(image.data.astype(np.float64) / image.data.max() for image in (fixed, moving)),
        static_grid2world=fixed.grid.affine,
        moving_grid2world=moving.grid.affine,
        prealign=affine,
    )
    to_atlas = np.linalg.inv(atlas.grid.affine)
    t1, wm, gm, deep = (
        elastic.transform(
            np.ascontiguousarray(atlas.data[..., volume], np.float64) / 255,
            image_world2grid=to_atlas,
            out_shape=flat.grid.shape,
            out_grid2world=flat.grid.affine,
        )
        for volume in range(4)
    )
    likeness = float(np.corrcoef(t1[mask], flat.data[mask])[0, 1])
    sigma = _PRIOR_SMOOTHNESS_MM / flat.grid.voxel_size_mm
    gm, wm, deep = (ndimage.gaussian_filter(each, sigma) for each in (gm, wm, deep))
    csf = np.clip(1 - gm - wm - deep, 0, 1)
    priors = np.stack([csf, gm, wm, deep], axis=3).astype(np.float32)
    priors *= _PRIOR_SHARE / np.maximum(priors.sum(axis=3, keepdims=True), np.float32(1e-6))
    priors += (1 - _PRIOR_SHARE) / 4
    priors[deep < _MIN_DEEP, 3] = 1e-6
    return priors, likeness

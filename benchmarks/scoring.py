"""Scores of tractograms whose truth is known; shared by ``fibercup.py`` and ``icbm.py``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from trx.trx_file_memmap import load as load_trx

Floats = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Lines:
    """Streamlines.

    Parameters
    ----------
    points : ndarray, shape (N, 3)
        RAS+ mm.
    offsets : ndarray of int, shape (T + 1,)
        Streamline ``i`` is ``points[offsets[i]:offsets[i + 1]]``.
    """

    points: Floats
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def ends(self) -> Floats:
        """First and last points, shape (T, 2, 3)."""
        return np.stack([self.points[self.offsets[:-1]], self.points[self.offsets[1:] - 1]], axis=1)

    @property
    def headings(self) -> Floats:
        """Outward unit vectors at both ends, shape (T, 2, 3); zero where there is one point."""
        first, last = self.offsets[:-1], self.offsets[1:] - 1
        inner = np.stack([np.minimum(first + 1, last), np.maximum(last - 1, first)], axis=1)
        outward = self.ends - self.points[inner]
        lengths = np.maximum(np.linalg.norm(outward, axis=2, keepdims=True), 1e-9)
        return np.asarray(outward / lengths)

    @property
    def lengths_mm(self) -> Floats:
        """Lengths along the points, shape (T,)."""
        steps = np.linalg.norm(np.diff(self.points, axis=0), axis=1)
        steps[self.offsets[1:-1] - 1] = 0  # from one streamline to the next
        total = np.concatenate([[0.0], np.cumsum(steps, dtype=np.float64)])
        return np.asarray(total[self.offsets[1:] - 1] - total[self.offsets[:-1]])

    def take(self, chosen: NDArray[np.intp]) -> Lines:
        """Return some of the streamlines, in the order given."""
        parts = [self.points[self.offsets[i] : self.offsets[i + 1]] for i in chosen]
        return lines_of(parts)


def lines_of(parts: list[Floats]) -> Lines:
    """Join arrays (n, 3) of points, one for each streamline."""
    sizes = [len(part) for part in parts]
    points = np.concatenate(parts) if parts else np.zeros((0, 3))
    return Lines(points, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))


def read_lines(path: Path) -> Lines:
    """Read a ``.trx``, ``.tck`` or ``.trk`` file; streamlines without points are dropped."""
    if path.suffix == ".trx":
        trx = load_trx(str(path))
        try:
            return lines_of([np.array(line) for line in trx.streamlines if len(line)])
        finally:
            trx.close()
    lines = nib.streamlines.load(path).streamlines
    return lines_of([np.asarray(line) for line in lines if len(line)])


@dataclass(frozen=True, eq=False)
class Volume:
    """Values of voxels and where they lie.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z, ...)
    affine : ndarray, shape (4, 4)
        Voxel indices to RAS+ mm.
    """

    data: NDArray[Any]
    affine: Floats

    @property
    def shape(self) -> tuple[int, int, int]:
        """Numbers of voxels along the axes."""
        x, y, z = self.data.shape[:3]
        return x, y, z

    @property
    def voxel_size_mm(self) -> Floats:
        """Lengths of the edges of a voxel."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0))

    def voxels(self, points: Floats) -> Floats:
        """Return voxel coordinates of points in mm."""
        return np.asarray(nib.affines.apply_affine(np.linalg.inv(self.affine), points))

    def nearest(self, points: Floats) -> NDArray[np.int64]:
        """Return the flat index of the voxel nearest to each point."""
        index = np.rint(self.voxels(points)).astype(np.int64)
        index = np.clip(index, 0, np.array(self.shape) - 1)
        return np.asarray(np.ravel_multi_index(tuple(np.moveaxis(index, -1, 0)), self.shape))


def read_volume(path: Path) -> Volume:
    """Read an image as it is stored."""
    image = nib.load(path)
    return Volume(np.asanyarray(image.dataobj), image.affine)


def visits(lines: Lines, grid: Volume) -> sparse.csr_array:
    """Return which streamline passes through which voxel, bool, shape (T, X·Y·Z).

    Between points a streamline is straight; every quarter of a voxel is looked at.
    """
    voxels = grid.voxels(lines.points)
    n_voxels = int(np.prod(grid.shape))
    rows, columns = [], []
    for first, last in _blocks(lines, 2000):
        begin, end = lines.offsets[first], lines.offsets[last]
        owner = np.repeat(np.arange(first, last), np.diff(lines.offsets[first : last + 1]))
        start, line = voxels[begin:end], owner
        stop = np.where((owner[1:] == owner[:-1])[:, None], start[1:], start[:-1])
        stop = np.concatenate([stop, start[-1:]])
        longest = np.abs(stop - start).max(initial=0)
        found = []
        for part in np.linspace(0, 1, int(np.ceil(longest * 4)) + 1):
            index = np.rint(start + part * (stop - start)).astype(np.int64)
            inside = ((index >= 0) & (index < grid.shape)).all(axis=1)
            flat = np.ravel_multi_index(tuple(index[inside].T), grid.shape)
            found.append(np.unique(line[inside] * n_voxels + flat))
        pairs = np.unique(np.concatenate(found))
        rows.append(pairs // n_voxels)
        columns.append(pairs % n_voxels)
    row, column = (np.concatenate(part) if part else np.zeros(0, int) for part in (rows, columns))
    ones = np.ones(len(row), bool)
    return sparse.csr_array((ones, (row, column)), shape=(len(lines), n_voxels))


def _blocks(lines: Lines, size: int) -> Iterator[tuple[int, int]]:
    for first in range(0, len(lines), size):
        yield first, min(first + size, len(lines))


def regions_at(points: Floats, labels: Volume, tolerance_mm: float) -> NDArray[np.int64]:
    """Return the label of the region at each point, or the nearest one; 0 if there is none.

    Distances are between the centres of the voxel of the point and of the region's nearest voxel.
    """
    distance, nearest = ndimage.distance_transform_edt(
        labels.data == 0, sampling=labels.voxel_size_mm, return_indices=True
    )
    reached = np.where(distance <= tolerance_mm + 1e-6, labels.data[tuple(nearest)], 0)
    return reached.ravel()[labels.nearest(points)].astype(np.int64)


# Connections


@dataclass(frozen=True)
class ConnectionScore:
    """How streamlines connect regions, in the manner of Tractometer (Côté 2013).

    Parameters
    ----------
    count : int
        Streamlines.
    valid, invalid, none : float
        Shares of them that connect the two regions of a bundle; two regions that no bundle
        connects; and no two regions (both ends in one count here).
    bundles_found : int
        Bundles with a valid streamline.
    invalid_bundles : int
        Pairs of regions that are connected and should not be.
    coverage : float
        Share of a bundle's voxels that its valid streamlines visit, mean over all bundles.
    overreach : float
        Voxels that they visit outside the bundle, as a share of its voxels, mean over all bundles.
    """

    count: int
    valid: float
    invalid: float
    none: float
    bundles_found: int
    invalid_bundles: int
    coverage: float
    overreach: float


def score_connections(
    lines: Lines,
    regions: Volume,
    bundles: Volume,
    pairs: Mapping[int, tuple[int, int]],
    tolerance_mm: float,
) -> ConnectionScore:
    """Score streamlines by the regions in which they end.

    Parameters
    ----------
    lines : Lines
    regions : Volume
        Labels of the end regions.
    bundles : Volume
        Masks of the bundles, shape (X, Y, Z, B).
    pairs : mapping of int to two int
        Labels at the two ends of each bundle, by its place in ``bundles``.
    tolerance_mm : float
        How far from a region an end may be.
    """
    ends = np.sort(regions_at(lines.ends, regions, tolerance_mm), axis=1)
    connects = (ends[:, 0] > 0) & (ends[:, 0] != ends[:, 1])
    bundle = np.full(len(lines), -1)
    for place, labels in pairs.items():
        bundle[(ends == np.sort(labels)).all(axis=1)] = place
    valid = bundle >= 0
    through = visits(lines, bundles)
    n_bundles = bundles.data.shape[3]
    covered, over = np.zeros(n_bundles), np.zeros(n_bundles)
    for place in range(n_bundles):
        mask = bundles.data[..., place].ravel() > 0
        visited = np.asarray(through[bundle == place].sum(axis=0)).ravel() > 0
        covered[place] = (visited & mask).sum() / mask.sum()
        over[place] = (visited & ~mask).sum() / mask.sum()
    count = max(len(lines), 1)
    return ConnectionScore(
        count=len(lines),
        valid=float(valid.sum() / count),
        invalid=float((connects & ~valid).sum() / count),
        none=float((~connects).sum() / count),
        bundles_found=len(np.unique(bundle[valid])),
        invalid_bundles=len(np.unique(ends[connects & ~valid], axis=0)),
        coverage=float(covered.mean()),
        overreach=float(over.mean()),
    )


# Anatomy


def share_in_grey_matter(
    lines: Lines, fractions: Mapping[str, Volume], beyond_mm: float = 0.0
) -> tuple[float, float]:
    """Return the shares of streamlines with both ends, and of ends, in grey matter.

    An end is in grey matter where that has the largest of the fractions ``wm``, ``gm`` and
    ``csf``, each interpolated linearly, and is not zero. The place asked is `beyond_mm` further
    on: programs differ in whether the step into grey matter belongs to a streamline.
    """
    names = ("gm", "wm", "csf")
    ends = lines.ends + beyond_mm * lines.headings
    values = []
    for name in names:
        volume = fractions[name]
        coordinates = volume.voxels(ends.reshape(-1, 3)).T
        values.append(
            ndimage.map_coordinates(volume.data.astype(float), coordinates, order=1, cval=0.0)
        )
    in_gm = ((np.argmax(values, axis=0) == 0) & (values[0] > 0)).reshape(-1, 2)
    if not len(in_gm):
        return 0.0, 0.0
    return float(in_gm.all(axis=1).mean()), float(in_gm.mean())


@dataclass(frozen=True, eq=False)
class TrueBundles:
    """What is known of bundles from their own streamlines.

    Parameters
    ----------
    names : tuple of str
    mask : ndarray of bool, shape (X·Y·Z, B)
        Voxels with a streamline of the bundle.
    near : ndarray of bool, shape (X·Y·Z, B)
        The mask, and voxels that touch it.
    heads, tails : ndarray of bool, shape (X·Y·Z, B)
        Voxels near the ends.
    grid : Volume
    """

    names: tuple[str, ...]
    mask: NDArray[np.bool_]
    near: NDArray[np.bool_]
    heads: NDArray[np.bool_]
    tails: NDArray[np.bool_]
    grid: Volume


def true_bundles(
    lines: Lines,
    bundle_of: NDArray[np.intp],
    names: tuple[str, ...],
    grid: Volume,
    tolerance_mm: float,
) -> TrueBundles:
    """Find the voxels and the two end regions of each bundle.

    Streamlines of a bundle are turned to run like its longest one; an end region is what lies
    within the tolerance of a first, or of a last point.
    """
    n_voxels = int(np.prod(grid.shape))
    mask, near, heads, tails = (np.zeros((n_voxels, len(names)), bool) for _ in range(4))
    through = visits(lines, grid)
    all_ends, lengths = lines.ends, lines.lengths_mm
    touching = np.argwhere(np.ones((3, 3, 3))) - 1
    around = np.argwhere(np.ones((2 * _REACH + 1,) * 3)) - _REACH
    around = around[np.linalg.norm(around * grid.voxel_size_mm, axis=1) <= tolerance_mm + 1e-6]
    for place in range(len(names)):
        own = np.flatnonzero(bundle_of == place)
        visited = np.unique(through[own].indices)
        mask[visited, place] = True
        near[_grown(visited, touching, grid.shape), place] = True
        ends = all_ends[own]
        model = ends[np.argmax(lengths[own])]
        straight = np.linalg.norm(ends - model, axis=2).sum(axis=1)
        turned = np.linalg.norm(ends[:, ::-1] - model, axis=2).sum(axis=1)
        ends = np.where((turned < straight)[:, None, None], ends[:, ::-1], ends)
        for region, side in ((heads, 0), (tails, 1)):
            region[_grown(grid.nearest(ends[:, side]), around, grid.shape), place] = True
    return TrueBundles(names, mask, near, heads, tails, grid)


_REACH = 8  # voxels, more than any tolerance


def _grown(
    flat: NDArray[np.int64], offsets: NDArray[np.int64], shape: tuple[int, int, int]
) -> NDArray[np.int64]:
    """Return the flat indices of voxels at any of the offsets from those given."""
    index = np.stack(np.unravel_index(np.unique(flat), shape), axis=1)
    index = (index[:, None] + offsets).reshape(-1, 3)
    index = index[((index >= 0) & (index < shape)).all(axis=1)]
    return np.unique(np.ravel_multi_index(tuple(index.T), shape))


def belongs(
    through: sparse.csr_array, truth: TrueBundles, least_inside: float = 0.75
) -> NDArray[np.bool_]:
    """Return which streamline belongs to which bundle, shape (T, B).

    It passes both end regions of the bundle, and at least the share ``least_inside`` of its voxels
    is near the bundle: the true streamlines end before the cortex in places, and one that goes on
    is no worse for it. (Renauld 2023 scores the challenge of 2015 by end regions and masks too.)

    Parameters
    ----------
    through : sparse array of bool, shape (T, X·Y·Z)
        Of `visits`.
    truth : TrueBundles
    least_inside : float
    """
    voxels = through.astype(np.float32)
    share = voxels @ truth.near.astype(np.float32)
    share /= np.maximum(np.diff(through.indptr), 1)[:, None]
    passes = [(voxels @ region.astype(np.float32)) > 0 for region in (truth.heads, truth.tails)]
    return np.asarray(passes[0] & passes[1] & (share >= least_inside))


def bundle_coverage(through: sparse.csr_array, truth: TrueBundles) -> Floats:
    """Return the share of each bundle's voxels that streamlines that belong to it visit, (B,)."""
    members = belongs(through, truth)
    coverage = np.zeros(len(truth.names))
    for place in range(len(truth.names)):
        visited = np.unique(through[np.flatnonzero(members[:, place])].indices)
        mask = truth.mask[:, place]
        coverage[place] = mask[visited].sum() / mask.sum()
    return coverage

"""Six still views of the streamlines, drawn with a depth buffer and shaded by it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_tractography.report.kernels.raster import DEPTH_MM, DEPTH_UNITS, draw_streamlines

# Name and words of the views from the positive and the negative end of x, y and z. Of each, the
# one that is drawn mirrored: a viewer's right is the patient's left when they face each other.
_VIEWS = (
    (("R", "from the right", False), ("L", "from the left", True)),
    (("A", "from the front", True), ("P", "from behind", False)),
    (("S", "from above", False), ("I", "from below", True)),
)
_OVERSAMPLING = 2
_BACKGROUND = np.array([14, 15, 18], np.float32) / 255


def six_views(
    points: NDArray[np.float32], lengths: NDArray[np.uint32], size: int, n_threads: int
) -> Iterator[tuple[str, str, NDArray[np.float32]]]:
    """Draw streamlines from six sides.

    Parameters
    ----------
    points : ndarray of float32, shape (n, 3)
        RAS+ mm, relative to any point near their middle.
    lengths : ndarray, shape (t,)
        Points of each streamline.
    size : int
        Edge of the pictures in pixels.
    n_threads : int
        It changes the time, not the pictures.

    Yields
    ------
    name : str
        ``R``, ``L``, ``A``, ``P``, ``S``, ``I``.
    words : str
        Where the viewer is.
    image : ndarray of float32, shape (size, size, 3)
        0 to 1.
    """
    if not len(points):
        return
    low, high = points.min(axis=0), points.max(axis=0)
    extent = max(float((high - low).max()), 1e-3)
    unit_mm = max(1.0, extent / DEPTH_MM)  # depth is limited; a head is smaller by far
    centred = ((points - (low + high) / 2) / unit_mm).astype(np.float32)
    pixels = size * _OVERSAMPLING
    scale = pixels / (extent / unit_mm * 1.04)

    def draw(axis: int) -> NDArray[np.uint64]:
        keys = np.zeros((2, pixels, pixels), np.uint64)
        draw_streamlines(centred, lengths, axis, scale, 1, keys[0], keys[1])
        return keys

    with ThreadPoolExecutor(max(1, n_threads)) as pool:
        for views, sides in zip(_VIEWS, pool.map(draw, range(3)), strict=True):
            for (name, words, mirrored), side in zip(views, sides, strict=True):
                image = _shaded(side, scale)
                yield name, words, image[:, ::-1] if mirrored else image


def _shaded(keys: NDArray[np.uint64], scale: float) -> NDArray[np.float32]:
    """Turn depths and colours into a picture, darker in hollows and further away."""
    hit = keys > 0
    depth = (keys >> np.uint64(32)).astype(np.float32) / np.float32(DEPTH_UNITS)
    nearest, furthest = depth.max(), depth[hit].min() if hit.any() else 0
    depth = np.where(hit, depth, furthest).astype(np.float32)
    light = (keys >> np.uint64(24) & np.uint64(255)).astype(np.float32) / 255
    # How far a point lies behind its surroundings, at two widths (Luft 2006).
    for width_mm, strength in ((1.2, 0.55), (5.0, 0.5)):
        around = _blurred(depth, width_mm * scale)
        light *= np.exp(-strength / width_mm * np.clip(around - depth, 0, None))
    light *= 0.55 + 0.45 * ((depth - furthest) / max(nearest - furthest, 1)) ** 0.8
    n = len(keys) // _OVERSAMPLING
    image = np.empty((n, n, 3), np.float32)
    for channel, shift in enumerate((16, 8, 0)):
        colour = (keys >> np.uint64(shift) & np.uint64(255)).astype(np.float32) / 255
        shaded = np.clip(1.25 * colour * light, 0, 1) ** np.float32(1 / 1.15)
        large = np.where(hit, shaded, _BACKGROUND[channel])
        image[..., channel] = large.reshape(n, _OVERSAMPLING, n, -1).mean(axis=(1, 3))
    return image


def _blurred(image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Blur an image; what is wide is computed from fewer pixels, which saves most of the time."""
    coarse = image[:: (edge := max(1, int(sigma / 4))), ::edge]
    blurred = ndimage.gaussian_filter(coarse, sigma / edge, truncate=2.5)
    if edge == 1:
        return np.asarray(blurred)
    # Pixel i of the coarse image is pixel i * edge of the other one.
    return np.asarray(
        ndimage.affine_transform(
            blurred, [1 / edge, 1 / edge], output_shape=image.shape, order=1, mode="nearest"
        )
    )

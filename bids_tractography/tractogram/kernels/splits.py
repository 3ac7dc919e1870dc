"""Compiled choice of the points of streamlines that have to stay."""

from __future__ import annotations

import numpy as np

from bids_tractography.machine.compiled import kernel


@kernel
def split_at_furthest(points, lengths, max_square, kept, squares):
    """Keep points until none of the others is too far from the line between its neighbours.

    Parameters
    ----------
    points : ndarray of float32, shape (n, 3)
    lengths : ndarray, shape (t,)
        Points of each streamline.
    max_square : float
        Square of the largest distance.
    kept : ndarray of bool, shape (n,)
        Written.
    squares : ndarray of float64, shape (n,)
        Written: squared distance of each point that is dropped to the segment that stands for it.
    """
    begins, ends = np.empty(64, np.int64), np.empty(64, np.int64)
    p = np.int64(0)
    for t in range(len(lengths)):
        first, last = p, p + np.int64(lengths[t]) - 1
        p = last + 1
        if last < first:
            continue
        kept[first] = kept[last] = True
        begins[0], ends[0] = first, last
        open_ = 1
        while open_:
            open_ -= 1
            a, b = begins[open_], ends[open_]
            furthest, place = _furthest(points, a, b, squares)
            if furthest <= max_square:
                continue
            kept[place] = True
            squares[place] = 0
            if open_ + 2 > len(begins):
                begins = np.concatenate((begins, np.empty_like(begins)))
                ends = np.concatenate((ends, np.empty_like(ends)))
            begins[open_], ends[open_] = a, place
            begins[open_ + 1], ends[open_ + 1] = place, b
            open_ += 2


@kernel
def _furthest(points, a, b, squares):
    """Measure the points between two; return the largest squared distance and its first place."""
    x, y, z = np.float64(points[a, 0]), np.float64(points[a, 1]), np.float64(points[a, 2])
    along_x, along_y, along_z = points[b, 0] - x, points[b, 1] - y, points[b, 2] - z
    length = along_x * along_x + along_y * along_y + along_z * along_z
    # A closed loop has no direction; its points are measured from its end.
    inverse = 1 / length if length > 0 else 0.0
    furthest, place = -1.0, a
    for i in range(a + 1, b):
        away_x, away_y, away_z = points[i, 0] - x, points[i, 1] - y, points[i, 2] - z
        share = (away_x * along_x + away_y * along_y + away_z * along_z) * inverse
        share = min(max(share, 0.0), 1.0)
        away_x -= along_x * share
        away_y -= along_y * share
        away_z -= along_z * share
        square = away_x * away_x + away_y * away_y + away_z * away_z
        squares[i] = square
        if square > furthest:
            furthest, place = square, i
    return furthest, place

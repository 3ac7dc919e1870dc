"""Compiled trackers whose directions are no vertices: eudx and ptt."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bids_tractography.machine.compiled import kernel
from bids_tractography.tracking.cpu.kernels.amplitudes import find_peaks, why_no_direction
from bids_tractography.tracking.cpu.kernels.field import (
    ANGLE,
    GO_ON,
    IMAGE_BORDER,
    LARGEST,
    MAX_LENGTH,
    NO_DIRECTION,
    amplitude,
    ask_rule,
    is_inside,
    look,
)
from bids_tractography.tracking.cpu.kernels.memory import doubles, floats, ints, longs, shorts
from bids_tractography.tracking.cpu.kernels.random import CURVE, random_words

EUDX, PTT = range(2)
PEAKS = 5  # of a voxel, at most
NO_PEAK = 65535
_SAMPLES, _TRIES = 10, 100  # curves to find how good they get, and to draw one (as DIPY has it)
_MARGIN = 2.0  # the best curve is taken to be so much better than the best sample


class Curves(NamedTuple):
    """What eudx and ptt need beside the field; arrays are addresses.

    Parameters
    ----------
    kind : int
    to_voxels : float64, shape (3, 3)
        Of displacements in mm.
    step_mm : float
    first : float64, shape (3,)
        Written: direction of the first step of a half.
    peaks : uint16, shape (R, 5)
        eudx: axes of the peaks of each row, the largest first, then NO_PEAK.
    least_cosine, least_weight : float
        eudx.
    curvature : float
        ptt: the largest, 1/mm.
    probe_step_mm, probe_radius_mm, exponent : float
        ptt.
    probe_quality, probe_count : int
        ptt.
    nearest : uint16, shape (3, n_nearest, n_nearest)
        ptt: the vertex nearest to a direction, by its largest component and the other two
        divided by it.
    n_nearest : int
    """

    kind: int
    to_voxels: int
    step_mm: float
    first: int
    peaks: int
    least_cosine: float
    least_weight: float
    curvature: float
    probe_step_mm: float
    probe_radius_mm: float
    exponent: float
    probe_quality: int
    probe_count: int
    nearest: int
    n_nearest: int


@kernel
def fill_peaks(rows, unit, criteria, least, values, scratch, peaks):
    """Find the peaks of rows.

    Parameters
    ----------
    rows : ndarray of uint16, shape (n, V)
    unit : ndarray of float32, shape (n,)
        Amplitude of 1 in each row.
    criteria : Peaks
    least : float
        Amplitude that counts.
    values, scratch : address of int32 and int64, shape (V,)
    peaks : ndarray of uint16, shape (n, 5)
        Written: axes, the largest first, then NO_PEAK.
    """
    room = ints(values)
    found_at = longs(scratch)
    for n in range(len(rows)):
        for axis in range(rows.shape[1]):
            room[axis] = rows[n, axis]
        found = find_peaks(criteria, rows.shape[1], values, criteria.relative, scratch, PEAKS)
        for place in range(PEAKS):
            peaks[n, place] = NO_PEAK
            if place < found and unit[n] * rows[n, found_at[place]] > least:
                peaks[n, place] = found_at[place]


@kernel
def _to_voxels(curves, x, y, z):
    """Turn a displacement in mm into voxels."""
    m = doubles(curves.to_voxels)
    return (
        m[0] * x + m[1] * y + m[2] * z,
        m[3] * x + m[4] * y + m[5] * z,
        m[6] * x + m[7] * y + m[8] * z,
    )


@kernel
def _next_direction(field, curves, corners, place, direction):
    """Average the peaks nearest to a direction over the eight voxels around a place.

    Returns
    -------
    found : bool
    anywhere : bool
        Whether any of the voxels has a peak.
    direction : tuple of float
    """
    start, axes, peaks = longs(corners.start), doubles(field.axes), shorts(curves.peaks)
    x, y, z = place
    dx, dy, dz = x - np.floor(x), y - np.floor(y), z - np.floor(z)
    tx, ty, tz = direction
    sum_x, sum_y, sum_z, sum_ = 0.0, 0.0, 0.0, 0.0
    anywhere = False
    for corner in range(8):
        row = start[corner] // field.width
        weight = (
            (dx if corner & 4 else 1 - dx)
            * (dy if corner & 2 else 1 - dy)
            * (dz if corner & 1 else 1 - dz)
        )
        best, nearest = 0.0, np.int64(-1)
        for place_ in range(PEAKS):
            axis = np.int64(peaks[row * PEAKS + place_])
            if axis == NO_PEAK:
                break
            anywhere = True
            cosine = tx * axes[3 * axis] + ty * axes[3 * axis + 1] + tz * axes[3 * axis + 2]
            if abs(cosine) > abs(best):
                best, nearest = cosine, axis
        if nearest >= 0 and abs(best) >= curves.least_cosine:
            signed = weight if best > 0 else -weight
            sum_ += weight
            sum_x += signed * axes[3 * nearest]
            sum_y += signed * axes[3 * nearest + 1]
            sum_z += signed * axes[3 * nearest + 2]
    length = np.sqrt(sum_x**2 + sum_y**2 + sum_z**2)
    if sum_ < curves.least_weight or length == 0:
        return False, anywhere, direction
    return True, anywhere, (sum_x / length, sum_y / length, sum_z / length)


@kernel
def _nearest_axis(curves, x, y, z):
    """Return the axis nearest to a direction."""
    nearest = shorts(curves.nearest)
    ax, ay, az = abs(x), abs(y), abs(z)
    if ax >= ay and ax >= az:
        side, u, v = 0, y / x, z / x
    elif ay >= az:
        side, u, v = 1, z / y, x / y
    else:
        side, u, v = 2, x / z, y / z
    n = curves.n_nearest
    i = min(np.int64((u + 1) * 0.5 * n), n - 1)
    j = min(np.int64((v + 1) * 0.5 * n), n - 1)
    return np.int64(nearest[(side * n + i) * n + j])


@kernel
def _support(field, curves, corners, place, axis):
    """Interpolate the fODF at a place along an axis; little counts as nothing."""
    x, y, z = place
    if not is_inside(field, x, y, z):
        return 0.0
    look(field, x, y, z, corners)
    value = np.float64(amplitude(field, corners, axis))
    return value if value > field.pmf_threshold * LARGEST * floats(corners.share)[15] else 0.0


@kernel
def _transport(frame, k1, k2, s):
    """Follow a curve of constant curvatures by an arc length (Aydogan 2021).

    A frame is nine numbers: tangent, normal and binormal.

    Returns
    -------
    moved : tuple of float
        Displacement, in mm.
    frame : tuple of float
    """
    tx, ty, tz, nx, ny, nz, bx, by, bz = frame
    curvature = np.sqrt(k1 * k1 + k2 * k2)
    if curvature < 1e-9:
        return (s * tx, s * ty, s * tz), frame
    # A circle in the plane of the tangent and m; the frame turns with the tangent.
    n, b = k1 / curvature, k2 / curvature
    mx, my, mz = n * nx + b * bx, n * ny + b * by, n * nz + b * bz
    sine, cosine = np.sin(curvature * s), np.cos(curvature * s)
    along, across = sine / curvature, (1 - cosine) / curvature
    moved = (along * tx + across * mx, along * ty + across * my, along * tz + across * mz)
    dx = (cosine - 1) * mx - sine * tx
    dy = (cosine - 1) * my - sine * ty
    dz = (cosine - 1) * mz - sine * tz
    return moved, (
        cosine * tx + sine * mx,
        cosine * ty + sine * my,
        cosine * tz + sine * mz,
        nx + n * dx,
        ny + n * dy,
        nz + n * dz,
        bx + b * dx,
        by + b * dy,
        bz + b * dz,
    )


@kernel
def _section(field, curves, corners, place, frame):
    """Sum the support over the cross-section of a probe."""
    axis = _nearest_axis(curves, frame[0], frame[1], frame[2])
    if curves.probe_count == 1:
        return _support(field, curves, corners, place, axis)
    sum_ = 0.0
    for n in range(curves.probe_count):
        turn = 2 * np.pi * n / curves.probe_count
        a, b = curves.probe_radius_mm * np.cos(turn), curves.probe_radius_mm * np.sin(turn)
        x, y, z = _to_voxels(
            curves,
            a * frame[3] + b * frame[6],
            a * frame[4] + b * frame[7],
            a * frame[5] + b * frame[8],
        )
        there = (place[0] + x, place[1] + y, place[2] + z)
        sum_ += _support(field, curves, corners, there, axis)
    return sum_


@kernel
def _probe(field, curves, corners, place, frame, k1, k2):
    """Return the support of a curve ahead."""
    sum_ = 0.0
    for _ in range(1, curves.probe_quality):
        moved, frame = _transport(frame, k1, k2, curves.probe_step_mm)
        x, y, z = _to_voxels(curves, moved[0], moved[1], moved[2])
        place = (place[0] + x, place[1] + y, place[2] + z)
        sum_ += _section(field, curves, corners, place, frame)
    return sum_


@kernel
def _draw_curve(field, curves, corners, place, frame, stream, turn):
    """Draw curvatures with the probability of the support of their curve.

    Returns
    -------
    found : bool
    k1, k2 : float
    """
    here = _section(field, curves, corners, place, frame)
    most = 0.0
    for attempt in range(_SAMPLES + _TRIES):
        w0, w1, w2, _ = random_words(stream, CURVE, turn, np.int64(0), attempt)
        radius = curves.curvature * np.sqrt(np.float64(w0) * 2.0**-32)
        around = 2 * np.pi * np.float64(w1) * 2.0**-32
        k1, k2 = radius * np.cos(around), radius * np.sin(around)
        ahead = _probe(field, curves, corners, place, frame, k1, k2)
        support = (here + ahead) ** curves.exponent
        if attempt < _SAMPLES:
            most = max(most, support * _MARGIN**curves.exponent)
        elif np.float64(w2) * 2.0**-32 * most < support:
            return True, k1, k2
    return False, 0.0, 0.0


@kernel
def _frame_along(x, y, z):
    """Complete a unit vector to a frame."""
    if abs(x) < 0.9:
        wx, wy, wz = 0.0, z, -y
    else:
        wx, wy, wz = -z, 0.0, x
    length = np.sqrt(wx * wx + wy * wy + wz * wz)
    wx, wy, wz = wx / length, wy / length, wz / length
    return x, y, z, wx, wy, wz, y * wz - z * wy, z * wx - x * wz, x * wy - y * wx


@kernel
def track_curve(field, plan, curves, corners, seed, direction, stream, n_before, half):
    """Track one half of a streamline; as `kernels_tracks.track_half`.

    Parameters
    ----------
    direction : tuple of float
        Unit vector to set out along, RAS+.
    """
    points, first = doubles(half.points), doubles(curves.first)
    x, y, z = seed
    first[0], first[1], first[2] = direction
    look(field, x, y, z, corners)
    frame = _frame_along(direction[0], direction[1], direction[2])
    n, alone = np.int64(0), np.int64(0)
    while True:
        if curves.kind == EUDX:
            found, anywhere, direction = _next_direction(
                field, curves, corners, (x, y, z), direction
            )
            if not found:
                return n, np.int64(ANGLE if anywhere else NO_DIRECTION)
            moved = (
                curves.step_mm * direction[0],
                curves.step_mm * direction[1],
                curves.step_mm * direction[2],
            )
        else:
            found, k1, k2 = _draw_curve(field, curves, corners, (x, y, z), frame, stream, n)
            if not found:
                look(field, x, y, z, corners)
                return n, np.int64(why_no_direction(field, corners))
            moved, frame = _transport(frame, k1, k2, curves.step_mm)
        dx, dy, dz = _to_voxels(curves, moved[0], moved[1], moved[2])
        x, y, z = x + dx, y + dy, z + dz
        if not is_inside(field, x, y, z):
            return n, np.int64(IMAGE_BORDER)
        one, other = look(field, x, y, z, corners)
        stop = ask_rule(field, one, other, stream, n, alone)
        if stop != GO_ON:
            return n, np.int64(stop)
        if n_before + n == plan.max_points:
            return n, np.int64(MAX_LENGTH)
        if n == 0 and curves.kind == EUDX:
            first[0], first[1], first[2] = direction
        points[3 * n], points[3 * n + 1], points[3 * n + 2] = x, y, z
        n += 1

"""Trackers whose directions are not vertices of the sphere: eudx and ptt."""

from __future__ import annotations

import math
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
    NO_DATA,
    NO_DIRECTION,
    amplitude,
    ask_rule,
    gather_corners,
    has_data,
    is_entry,
    is_inside,
)
from bids_tractography.tracking.cpu.kernels.memory import doubles, floats, ints, longs, shorts
from bids_tractography.tracking.cpu.kernels.random import CURVE, random_words

EUDX, PTT = range(2)
PEAKS = 5  # of a voxel, at most
NO_PEAK = 65535

# Rejection sampling needs an upper bound of the support. None is known, so that of the best of some
# random curves is taken twice, as DIPY does; candidates above it are accepted like those at it.
_SAMPLES, _MARGIN = 10, 2.0
_TRIES = 100  # candidates, of which none may be accepted


class Curves(NamedTuple):
    """What eudx and ptt need besides the field; arrays are addresses.

    Parameters
    ----------
    kind : int
    to_voxels : float64, shape (3, 3)
        Of displacements in mm.
    step_mm : float
    peaks : uint16, shape (R, 5)
        eudx: axes of the peaks of each row, the largest first, then NO_PEAK.
    min_cosine, min_weight : float
        eudx: of the peaks that count, and of all that count together.
    curvature : float
        ptt: the largest, 1/mm.
    probe_step_mm, probe_radius_mm : float
        ptt: between cross-sections of a probe, and of a cross-section.
    exponent : float
        ptt: power of the support with which curves are drawn.
    probe_quality, probe_count : int
        ptt: cross-sections of a probe, the one at its start included; samples of each.
    nearest : uint16, shape (3, n_nearest, n_nearest)
        ptt: the vertex nearest to a direction, by its largest component and the other two
        divided by it.
    n_nearest : int
    """

    kind: int
    to_voxels: int
    step_mm: float
    peaks: int
    min_cosine: float
    min_weight: float
    curvature: float
    probe_step_mm: float
    probe_radius_mm: float
    exponent: float
    probe_quality: int
    probe_count: int
    nearest: int
    n_nearest: int


@kernel
def fill_peaks(rows, unit, criteria, smallest, values, scratch, peaks):
    """Find the peaks of rows of amplitudes.

    Parameters
    ----------
    rows : ndarray of uint16, shape (n, V)
    unit : ndarray of float32, shape (n,)
        Amplitude of 1 in each row.
    criteria : Peaks
    smallest : float
        Amplitude above which a peak counts.
    values, scratch : address of int32 and int64, shape (V,)
    peaks : ndarray of uint16, shape (n, 5)
        Written: axes, the largest first, then NO_PEAK.
    """
    room = ints(values)
    found_at = longs(scratch)
    for n in range(len(rows)):
        largest = np.int32(0)
        for axis in range(rows.shape[1]):
            room[axis] = rows[n, axis]
            largest = max(largest, room[axis])
        found = 0
        if largest > 0:
            found = find_peaks(
                criteria, rows.shape[1], values, np.int32(-1), criteria.relative * largest,
                scratch, PEAKS,
            )  # fmt: skip
        for place in range(PEAKS):
            peaks[n, place] = NO_PEAK
            if place < found and np.float64(unit[n]) * rows[n, found_at[place]] > smallest:
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

    Parameters
    ----------
    field : Field
    curves : Curves
    corners : Corners
        Those of the place.
    place : tuple of float
        Voxels.
    direction : tuple of float
        Unit vector, RAS+.

    Returns
    -------
    found : bool
        Whether peaks near enough have enough weight.
    anywhere : bool
        Whether any of the voxels has a peak.
    direction : tuple of float
        Unit vector, RAS+; the one given if there is no other.
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
        if nearest >= 0 and abs(best) >= curves.min_cosine:
            # A peak is an axis: the end of it that points ahead is averaged.
            signed = weight if best > 0 else -weight
            sum_ += weight
            sum_x += signed * axes[3 * nearest]
            sum_y += signed * axes[3 * nearest + 1]
            sum_z += signed * axes[3 * nearest + 2]
    length = np.sqrt(sum_x * sum_x + sum_y * sum_y + sum_z * sum_z)
    if sum_ < curves.min_weight or length == 0:
        return False, anywhere, direction
    return True, anywhere, (sum_x / length, sum_y / length, sum_z / length)


@kernel
def _nearest_axis(curves, x, y, z):
    """Return the axis nearest to a direction.

    Looked up on the faces of a cube, where a direction is its two smaller components divided by
    the largest: opposite directions have the same ratios, as an axis should. A search would take
    362 scalar products for every cross-section of a probe.
    """
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
    """Interpolate the fODF at a place along an axis; below the threshold it counts as zero."""
    x, y, z = place
    if not is_inside(field, x, y, z):
        return 0.0
    gather_corners(field, x, y, z, corners)
    value = np.float64(amplitude(field, corners, axis))
    threshold = field.pmf_threshold * LARGEST * np.float64(floats(corners.share)[15])
    return value if value > threshold else 0.0


@kernel
def _transport(frame, k1, k2, s):
    """Follow a curve of constant curvatures by an arc length (Aydogan 2021).

    Parameters
    ----------
    frame : tuple of float
        Tangent, normal and binormal, RAS+: nine numbers.
    k1, k2 : float
        Curvatures towards normal and binormal, 1/mm.
    s : float
        Arc length, mm.

    Returns
    -------
    moved : tuple of float
        Displacement, mm.
    frame : tuple of float
        At the end of the arc.
    """
    tx, ty, tz, nx, ny, nz, bx, by, bz = frame
    curvature = np.sqrt(k1 * k1 + k2 * k2)
    if curvature < 1e-9:  # a straight line, which would divide by zero below
        return (s * tx, s * ty, s * tz), frame
    # Constant k1 and k2 without torsion make an arc of a circle in the plane of the tangent and m.
    # The frame turns in that plane, with the tangent: so it is transported in parallel.
    n, b = k1 / curvature, k2 / curvature
    mx, my, mz = n * nx + b * bx, n * ny + b * by, n * nz + b * bz
    sine, cosine = math.sin(curvature * s), math.cos(curvature * s)
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
        a, b = curves.probe_radius_mm * math.cos(turn), curves.probe_radius_mm * math.sin(turn)
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
    """Sum the support over the cross-sections of a curve ahead."""
    sum_ = 0.0
    for _ in range(1, curves.probe_quality):
        moved, frame = _transport(frame, k1, k2, curves.probe_step_mm)
        x, y, z = _to_voxels(curves, moved[0], moved[1], moved[2])
        place = (place[0] + x, place[1] + y, place[2] + z)
        sum_ += _section(field, curves, corners, place, frame)
    return sum_


@kernel
def _draw_curve(field, curves, corners, place, frame, stream, turn):
    """Draw curvatures with a probability in proportion to the support of their curve.

    Parameters
    ----------
    field : Field
    curves : Curves
    corners : Corners
    place : tuple of float
        Voxels.
    frame : tuple of float
        See `_transport`.
    stream : Stream
    turn : int
        What the random numbers are for.

    Returns
    -------
    found : bool
    k1, k2 : float
        1/mm.
    """
    here = _section(field, curves, corners, place, frame)
    bound = 0.0
    for attempt in range(_SAMPLES + _TRIES):
        w0, w1, w2, _ = random_words(stream, CURVE, turn, np.int64(0), attempt)
        # The root makes points uniform in the disc of permitted curvatures.
        radius = curves.curvature * np.sqrt(np.float64(w0) * 2.0**-32)
        around = 2 * np.pi * np.float64(w1) * 2.0**-32
        k1, k2 = radius * math.cos(around), radius * math.sin(around)
        ahead = _probe(field, curves, corners, place, frame, k1, k2)
        support = (here + ahead) ** curves.exponent
        if attempt < _SAMPLES:
            bound = max(bound, support * _MARGIN**curves.exponent)
        elif np.float64(w2) * 2.0**-32 * bound < support:
            return True, k1, k2
    return False, 0.0, 0.0


@kernel
def _frame_along(x, y, z):
    """Complete a unit vector to a frame."""
    # The cross product with the x axis, or with the y axis where that would be nearly zero.
    if abs(x) < 0.9:
        wx, wy, wz = 0.0, z, -y
    else:
        wx, wy, wz = -z, 0.0, x
    length = np.sqrt(wx * wx + wy * wy + wz * wz)
    wx, wy, wz = wx / length, wy / length, wz / length
    return x, y, z, wx, wy, wz, y * wz - z * wy, z * wx - x * wz, x * wy - y * wx


@kernel
def track_curve(field, plan, curves, corners, seed, direction, stream, n_before, half):
    """Track one half of a streamline.

    Parameters
    ----------
    field : Field
    plan : Plan
    curves : Curves
    corners : Corners
        ``heading`` is written: the direction of the first step.
    seed : tuple of float
        Voxels.
    direction : tuple of float
        Unit vector to set out along, RAS+.
    stream : Stream
    n_before : int
        Points that the streamline has so far.
    half : Half
        Written.

    Returns
    -------
    n, stop : int
        Points written, and why it ended.
    """
    points, heading = doubles(half.points), doubles(corners.heading)
    x, y, z = seed
    heading[0], heading[1], heading[2] = direction
    gather_corners(field, x, y, z, corners)
    frame = _frame_along(direction[0], direction[1], direction[2])
    n, alone = np.int64(0), np.int64(0)
    while True:
        if curves.kind == EUDX:
            found, anywhere, direction = _next_direction(
                field, curves, corners, (x, y, z), direction
            )
            if not found:
                if not has_data(corners, x, y, z):
                    return n, np.int64(NO_DATA)
                return n, np.int64(ANGLE if anywhere else NO_DIRECTION)
            moved = (
                curves.step_mm * direction[0],
                curves.step_mm * direction[1],
                curves.step_mm * direction[2],
            )
        else:
            found, k1, k2 = _draw_curve(field, curves, corners, (x, y, z), frame, stream, n)
            if not found:
                gather_corners(field, x, y, z, corners)  # probes have left others there
                return n, np.int64(why_no_direction(field, corners, x, y, z))
            moved, frame = _transport(frame, k1, k2, curves.step_mm)
        dx, dy, dz = _to_voxels(curves, moved[0], moved[1], moved[2])
        x, y, z = x + dx, y + dy, z + dz
        if not is_inside(field, x, y, z):
            return n, np.int64(IMAGE_BORDER)
        one, other = gather_corners(field, x, y, z, corners)
        stop = ask_rule(field, corners, one, other, stream, n, alone)
        if stop != GO_ON and not is_entry(field, stop):
            return n, np.int64(stop)
        if n_before + n == plan.max_points:
            return n, np.int64(MAX_LENGTH)
        if n == 0 and curves.kind == EUDX:
            # The other half sets out opposite to the first step, not to the peak at the seed.
            heading[0], heading[1], heading[2] = direction
        points[3 * n], points[3 * n + 1], points[3 * n + 2] = x, y, z
        n += 1
        if stop != GO_ON:
            return n, np.int64(stop)

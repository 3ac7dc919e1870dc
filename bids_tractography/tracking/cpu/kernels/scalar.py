"""Plain loops that do what `vectors` does, to the bit.

A float32 is rounded after every operation here because the lanes of a vector are; the order of the
operations is that of `vectors`, and fused multiply-adds are emulated exactly, since neither Python
before 3.13 nor numba has them. Parameters and results are documented there.

NumPy raises a float32 by a Python float to float32, numba to float64: no operation here mixes them.
"""

from __future__ import annotations

import numpy as np

from bids_tractography.machine.compiled import kernel
from bids_tractography.tracking.cpu.kernels.blocks import BLOCK, LINE, MAX_BLOCKS, MAXIMUM_STEP
from bids_tractography.tracking.cpu.kernels.memory import bytes_at, floats, ints, longs, shorts


@kernel
def fused_multiply_add(one, other, term):
    """Return ``one * other + term`` rounded once to float32, for an ``other`` of 16 bits.

    The product has at most 24 + 16 bits, which a float64 holds exactly, but the sum may have more:
    rounding it to float64 and then to float32 goes wrong where the first rounding ends exactly
    midway between two float32. The error of the first rounding, which Knuth's two-sum gives,
    decides on which side of the middle the true sum lies.

    Parameters
    ----------
    one, other, term : float32
    """
    product, addend = np.float64(one) * np.float64(other), np.float64(term)
    total = product + addend
    nearest = np.float32(total)
    carried = total - product
    error = (product - (total - carried)) + (addend - carried)
    beyond = total - np.float64(nearest)
    if error == 0 or beyond == 0 or (error > 0) != (beyond > 0):
        return nearest
    next_one = np.nextafter(nearest, np.float32(np.inf if beyond > 0 else -np.inf))
    is_midway = np.float64(next_one) - total == beyond
    return next_one if is_midway else nearest


@kernel
def _amplitude(rows, start, share, scale, axis):
    """Interpolate along one axis, as a whole number."""
    rows, start, share = shorts(rows), longs(start), floats(share)
    total = np.float32(0)
    for corner in range(8):
        number = np.float32(rows[np.uint64(start[corner] + axis)])
        total = fused_multiply_add(share[corner], number, total)
    return np.int32(total * scale)


@kernel
def _bound(rows, start, share, scale, maxima, block):
    """Interpolate the maxima of a block."""
    start, share = longs(start), floats(share)
    total = np.float32(0)
    for corner in range(8):
        row = bytes_at(rows + 2 * (start[corner] + maxima))
        number = np.float32(np.int64(row[np.uint64(block)]) * MAXIMUM_STEP)
        total = fused_multiply_add(share[corner], number, total)
    return np.int32(total * scale)


@kernel
def which_blocks(members):
    """Return which blocks have axes in a cone."""
    members = shorts(members)
    which = np.int64(0)
    for block in range(MAX_BLOCKS):
        if members[block] != 0:
            which |= np.int64(1) << block
    return np.int32(np.uint32(which))


@kernel
def interpolate_blocks(rows, start, share, scale, members, which, values):
    """Interpolate amplitudes along the axes of a cone; return the largest."""
    members, values = shorts(members), ints(values)
    largest = np.int32(0)
    for block in range(MAX_BLOCKS):
        if not (np.int64(which) >> block) & 1:
            continue
        for lane in range(BLOCK):
            axis = BLOCK * block + lane
            value = np.int32(0)
            if (np.int64(members[block]) >> lane) & 1:
                value = _amplitude(rows, start, share, scale, axis)
            values[axis] = value
            largest = max(largest, value)
    return largest


@kernel
def blocks_reaching(rows, start, share, scale, maxima, smallest):
    """Return which blocks may have an amplitude that reaches a value."""
    which = np.int64(0)
    for block in range(MAX_BLOCKS):
        if _bound(rows, start, share, scale, maxima, block) >= smallest:
            which |= np.int64(1) << block
    return np.int32(np.uint32(which))


@kernel
def find_largest(rows, start, share, scale, maxima, above, any_of_them):
    """Find the largest amplitude, interpolating only blocks whose maxima permit it."""
    bounds = np.empty(MAX_BLOCKS, np.int32)
    for block in range(MAX_BLOCKS):
        bounds[block] = _bound(rows, start, share, scale, maxima, block)
    largest, found = np.int64(above) + 1, np.int64(-1)
    while not (any_of_them and found >= 0):
        block = 0
        for other in range(1, MAX_BLOCKS):
            if bounds[other] > bounds[block]:
                block = other
        if bounds[block] < largest:
            break
        bounds[block] = -1
        value, axis = np.int64(-1), np.int64(-1)
        for lane in range(BLOCK):
            here = np.int64(_amplitude(rows, start, share, scale, BLOCK * block + lane))
            if here > value:
                value, axis = here, np.int64(BLOCK * block + lane)
        if value > largest or (value == largest and (found < 0 or axis < found)):
            largest, found = value, axis
    return largest, found


@kernel
def count_reached(limits, value):
    """Count of eight numbers those that a value reaches."""
    limits = floats(limits)
    count = np.int64(0)
    for n in range(8):
        if value >= limits[n]:
            count += 1
    return count


@kernel
def gather_cells(cells, cell, step_y, step_x, dx, dy, dz, start, share):
    """Interpolate linearly between eight cells."""
    lines, numbers = ints(cells), floats(cells)
    start, share = longs(start), floats(share)
    one = np.float32(1)
    first, second = np.empty(8, np.float32), np.empty(8, np.float32)
    for corner in range(8):
        x, y, z = corner >> 2, (corner >> 1) & 1, corner & 1
        place = 4 * (cell + x * step_x + y * step_y + z)
        weight = dx if x else one - dx
        weight = weight * (dy if y else one - dy)
        weight = weight * (dz if z else one - dz)
        start[corner] = np.int64(lines[place]) * LINE
        share[corner] = weight * numbers[place + 1]
        first[corner] = weight * numbers[place + 2]
        second[corner] = weight * numbers[place + 3]
    # Running sums over 1, 2, 4 and 8 numbers, each from the one before.
    for corner in range(8):
        share[8 + corner] = share[corner]
    for step in range(3):
        distance = 1 << step
        for corner in range(7, distance - 1, -1):
            share[8 + corner] += share[8 + corner - distance]
    for half in (4, 2, 1):
        for n in range(half):
            first[n] += first[n + half]
            second[n] += second[n + half]
    return first[0], second[0]

"""Arithmetic on blocks of sixteen axes in the vector registers of the processor, as LLVM IR.

LLVM turns a loop into vector instructions only where it can prove that arrays do not overlap, and
of addresses it cannot: these functions state the instructions. Amplitudes become whole numbers, so
that sums of them are exact in any order, and the order of all floating-point operations is fixed,
so that every processor gets the same bits. `scalar` has a plain loop of the same name for each.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from bids_tractography.tracking.cpu.kernels.blocks import BLOCK, LINE, MAXIMUM_STEP

_LONG, _INT, _SHORT = ir.IntType(64), ir.IntType(32), ir.IntType(16)
_INTS, _SHORTS, _BYTES, _FLOATS = (
    ir.VectorType(kind, BLOCK) for kind in (_INT, _SHORT, ir.IntType(8), ir.FloatType())
)
_FLAGS = ir.VectorType(ir.IntType(1), BLOCK)
_ZERO = ir.Constant(_INTS, None)


def _load(builder: Any, kind: ir.Type, address: Any, index: Any, align: int) -> Any:
    """Load an element, or a vector of them, of an array whose elements have ``align`` bytes."""
    place = builder.add(address, builder.mul(index, ir.Constant(_LONG, align)))
    return builder.load(builder.inttoptr(place, kind.as_pointer()), align=align)


def _store(builder: Any, vector: Any, address: Any, index: Any) -> None:
    place = builder.add(address, builder.mul(index, ir.Constant(_LONG, 4)))
    builder.store(vector, builder.inttoptr(place, vector.type.as_pointer()), align=4)


def _spread(builder: Any, value: Any, lanes: int = BLOCK) -> Any:
    """Fill a vector with a number."""
    kind = ir.VectorType(value.type, lanes)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_INT, 0))
    return _pick(builder, one, one, [0] * lanes)


def _pick(builder: Any, one: Any, other: Any, lanes: list[int]) -> Any:
    """Make a vector of lanes of two; the second's are numbered after the first's."""
    kind = ir.VectorType(_INT, len(lanes))
    return builder.shuffle_vector(one, other, ir.Constant(kind, lanes))


def _running_sums(builder: Any, vector: Any, add: Any) -> Any:
    """Sum the lanes up to and including each.

    In log2(n) steps, each of which adds the vector moved by 1, 2, 4, ... lanes (Hillis and Steele
    1986): a sum lane by lane would wait for n additions in turn.
    """
    count, nothing = vector.type.count, ir.Constant(vector.type, None)
    distance = 1
    while distance < count:
        lanes = [max(count + lane - distance, count - 1) for lane in range(count)]
        vector = add(vector, _pick(builder, nothing, vector, lanes))
        distance *= 2
    return vector


def _largest(builder: Any, vector: Any) -> Any:
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_INT, [_INTS]), "llvm.vector.reduce.smax.v16i32"
    )
    return builder.call(function, [vector])


@contextmanager
def _each(builder: Any, which: Any) -> Iterator[tuple[Any, Any]]:
    """Loop over blocks of which the bits are set: yields a block and its first axis."""
    one = ir.Constant(_INT, 1)
    left = cgutils.alloca_once_value(builder, which)
    test, body, end = (builder.append_basic_block(name) for name in ("test", "body", "end"))
    builder.branch(test)
    builder.position_at_end(test)
    bits = builder.load(left)
    builder.cbranch(builder.icmp_signed("!=", bits, ir.Constant(_INT, 0)), body, end)
    builder.position_at_end(body)
    builder.store(builder.and_(bits, builder.sub(bits, one)), left)
    block = _first_bit(builder, bits)
    yield block, _place_of(builder, block)
    builder.branch(test)
    builder.position_at_end(end)


def _first_bit(builder: Any, bits: Any) -> Any:
    return builder.cttz(bits, ir.Constant(ir.IntType(1), 0))


def _place_of(builder: Any, block: Any) -> Any:
    """Return the place of a block's first axis."""
    return builder.mul(builder.zext(block, _LONG), ir.Constant(_LONG, BLOCK))


class _Corners:
    """Eight rows, and how what they have at a place is interpolated, as whole numbers."""

    def __init__(self, builder: Any, rows: Any, start: Any, share: Any, scale: Any) -> None:
        corners = [ir.Constant(_LONG, corner) for corner in range(8)]
        two = ir.Constant(_LONG, 2)
        self._builder = builder
        self._rows = [
            builder.add(rows, builder.mul(_load(builder, _LONG, start, corner, 8), two))
            for corner in corners
        ]
        self._shares = [
            _spread(builder, _load(builder, ir.FloatType(), share, corner, 4)) for corner in corners
        ]
        self._scale = _spread(builder, scale)
        self._fused = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_FLOATS, [_FLOATS] * 3), "llvm.fma.v16f32"
        )

    def amplitudes(self, axis: Any) -> Any:
        """Interpolate along sixteen axes."""
        return self._interpolate(
            [_load(self._builder, _SHORTS, row, axis, 2) for row in self._rows]
        )

    def bounds(self, maxima: Any, half: int) -> Any:
        """Interpolate the maxima of blocks 0 to 15 or 16 to 31.

        Multiplying, adding and rounding are all monotonic, and the operations are those of
        `amplitudes`: a bound is never below what is interpolated along any axis of its block,
        not even by a rounding error.
        """
        b = self._builder
        place = b.add(b.mul(maxima, ir.Constant(_LONG, 2)), ir.Constant(_LONG, BLOCK * half))
        steps = (b.zext(_load(b, _BYTES, row, place, 1), _SHORTS) for row in self._rows)
        return self._interpolate(
            [b.mul(step, ir.Constant(_SHORTS, [MAXIMUM_STEP] * BLOCK)) for step in steps]
        )

    def _interpolate(self, numbers: list[Any]) -> Any:
        builder, total = self._builder, ir.Constant(_FLOATS, None)
        # Fused, because whether a compiler fuses a product and a sum depends on the processor.
        for part, number in zip(self._shares, numbers, strict=True):
            value = builder.sitofp(builder.zext(number, _INTS), _FLOATS)
            total = builder.call(self._fused, [part, value, total])
        return builder.fptosi(builder.fmul(total, self._scale), _INTS)


@intrinsic
def which_blocks(_context, members):
    """Return which blocks have axes in a cone, a bit for each.

    Parameters
    ----------
    members : address of uint16, shape (32,)
        See `field.Field`.

    Returns
    -------
    int32
    """

    def generate(_context, builder, _signature, arguments):
        both = ir.VectorType(_SHORT, 2 * BLOCK)
        members = _load(builder, both, arguments[0], ir.Constant(_LONG, 0), 2)
        return builder.bitcast(builder.icmp_signed("!=", members, ir.Constant(both, None)), _INT)

    return types.int32(types.int64), generate


@intrinsic
def interpolate_blocks(_context, rows, start, share, scale, members, which, values):
    """Interpolate amplitudes along the axes of a cone; return the largest.

    Parameters
    ----------
    rows : address of uint16
    start : address of int64, shape (8,)
        Of each corner's row.
    share : address of float32, shape (8,)
    scale : float32
        Amplitudes are multiplied by, then rounded towards zero.
    members : address of uint16, shape (32,)
        A bit for each axis of each block: the others get 0.
    which : int32
        The cone's blocks; the others are not written.
    values : address of int32, shape (n_axes,)
        Written.

    Returns
    -------
    int32
    """

    def generate(_context, builder, _signature, arguments):
        members, which, values = arguments[4:]
        corners = _Corners(builder, *arguments[:4])
        largest = cgutils.alloca_once_value(builder, _ZERO)
        with _each(builder, which) as (block, place):
            mask = _load(builder, _SHORT, members, builder.zext(block, _LONG), 2)
            mask = builder.bitcast(mask, _FLAGS)
            whole = builder.select(mask, corners.amplitudes(place), _ZERO)
            _store(builder, whole, values, place)
            best = builder.load(largest)
            larger = builder.icmp_signed(">", whole, best)
            builder.store(builder.select(larger, whole, best), largest)
        return _largest(builder, builder.load(largest))

    return types.int32(
        types.int64, types.int64, types.int64, types.float32, types.int64, types.int32,
        types.int64,
    ), generate  # fmt: skip


@intrinsic
def blocks_reaching(_context, rows, start, share, scale, maxima, smallest):
    """Return which blocks may have an amplitude that reaches a value, a bit for each.

    Parameters
    ----------
    rows, start, share, scale
        See `interpolate_blocks`.
    maxima : int64
        Column at which the maxima of blocks begin.
    smallest : int32

    Returns
    -------
    int32
    """

    def generate(_context, builder, _signature, arguments):
        maxima, smallest = arguments[4:]
        corners = _Corners(builder, *arguments[:4])
        wanted = _spread(builder, smallest)
        bits = [
            builder.zext(
                builder.bitcast(
                    builder.icmp_signed(">=", corners.bounds(maxima, half), wanted), _SHORT
                ),
                _INT,
            )
            for half in range(2)
        ]
        return builder.or_(bits[0], builder.shl(bits[1], ir.Constant(_INT, BLOCK)))

    return types.int32(
        types.int64, types.int64, types.int64, types.float32, types.int64, types.int32,
    ), generate  # fmt: skip


@intrinsic
def find_largest(_context, rows, start, share, scale, maxima, above, any_of_them):
    """Find the largest amplitude, interpolating as few blocks as their maxima permit.

    Parameters
    ----------
    rows, start, share, scale
        See `interpolate_blocks`.
    maxima : int64
        Where the maxima of blocks begin in a row.
    above : int32
        The largest is only sought if it is above this, which is not negative.
    any_of_them : bool
        Whether anything above will do.

    Returns
    -------
    largest, axis : int64
        Of equal ones the first axis. -1 if none is above.
    """

    def generate(_context, builder, _signature, arguments):
        maxima, above, any_of_them = arguments[4:]
        corners = _Corners(builder, *arguments[:4])
        none = ir.Constant(_INTS, [-1] * BLOCK)
        lanes = ir.Constant(_INTS, list(range(BLOCK)))
        bounds = [
            cgutils.alloca_once_value(builder, corners.bounds(maxima, half)) for half in range(2)
        ]
        largest = cgutils.alloca_once_value(builder, builder.add(above, ir.Constant(_INT, 1)))
        found = cgutils.alloca_once_value(builder, ir.Constant(_INT, -1))

        test, body, end = (builder.append_basic_block(name) for name in ("test", "body", "end"))
        builder.branch(test)
        builder.position_at_end(test)
        low, high = (builder.load(bound) for bound in bounds)
        bound = _largest(builder, builder.select(builder.icmp_signed(">", low, high), low, high))
        best = builder.load(largest)
        before = builder.load(found)
        enough = builder.and_(any_of_them, builder.icmp_signed("!=", before, ir.Constant(_INT, -1)))
        go_on = builder.and_(builder.icmp_signed(">=", bound, best), builder.not_(enough))
        builder.cbranch(go_on, body, end)

        # Blocks are visited in the order of their bounds, the highest first: the first one usually
        # has the largest amplitude, and then no other bound reaches it. An equal one has to be
        # visited too, for the first of equal axes is wanted.
        builder.position_at_end(body)
        bound = _spread(builder, bound)
        bits = [
            builder.zext(builder.bitcast(builder.icmp_signed("==", half, bound), _SHORT), _INT)
            for half in (low, high)
        ]
        bits = builder.or_(bits[0], builder.shl(bits[1], ir.Constant(_INT, BLOCK)))
        block = _first_bit(builder, bits)
        for half, values in enumerate((low, high)):
            lane = builder.sub(block, ir.Constant(_INT, BLOCK * half))
            this = builder.icmp_signed("==", lanes, _spread(builder, lane))
            builder.store(builder.select(this, none, values), bounds[half])
        place = _place_of(builder, block)
        whole = corners.amplitudes(place)
        value = _largest(builder, whole)
        equal = builder.bitcast(builder.icmp_signed("==", whole, _spread(builder, value)), _SHORT)
        axis = builder.add(
            builder.trunc(place, _INT), builder.zext(_first_bit(builder, equal), _INT)
        )
        is_next = builder.or_(
            builder.icmp_signed(">", value, best),
            builder.and_(
                builder.icmp_signed("==", value, best), builder.icmp_unsigned("<", axis, before)
            ),
        )
        builder.store(builder.select(is_next, value, best), largest)
        builder.store(builder.select(is_next, axis, before), found)
        builder.branch(test)

        builder.position_at_end(end)
        results = (builder.load(largest), builder.load(found))
        return cgutils.pack_array(builder, [builder.sext(result, _LONG) for result in results])

    return types.UniTuple(types.int64, 2)(
        types.int64, types.int64, types.int64, types.float32, types.int64, types.int32,
        types.boolean,
    ), generate  # fmt: skip


@intrinsic
def count_reached(_context, limits, value):
    """Count of eight numbers those that a value reaches.

    Parameters
    ----------
    limits : address of float32, shape (8,)
    value : float32
    """

    def generate(_context, builder, _signature, arguments):
        limits, value = arguments
        eight = ir.VectorType(ir.FloatType(), 8)
        limits = _load(builder, eight, limits, ir.Constant(_LONG, 0), 4)
        reached = builder.fcmp_ordered(">=", _spread(builder, value, 8), limits)
        bits = builder.bitcast(reached, ir.IntType(8))
        return builder.zext(builder.ctpop(bits), _LONG)

    return types.int64(types.int64, types.float32), generate


@intrinsic
def gather_cells(_context, cells, cell, step_y, step_x, dx, dy, dz, start, share):
    """Interpolate linearly between eight cells.

    Parameters
    ----------
    cells : address of float32 or int32, shape (..., 4)
        See `field.Field`.
    cell, step_y, step_x : int64
        The first of the eight, and from there to the next along two axes; along z it is 1.
    dx, dy, dz : float32
        Distance from the first along each axis, 0 to 1.
    start : address of int64, shape (8,)
    share : address of float32, shape (16,)
        Written; see `field.Corners`.

    Returns
    -------
    first, second : float32
        The maps of the stopping rule.
    """
    pair = types.UniTuple(types.float32, 2)

    def generate(_context, builder, signature, arguments):
        cells, cell, step_y, step_x, dx, dy, dz, start, share = arguments
        four, eight = ir.Constant(_LONG, 4), ir.VectorType(ir.FloatType(), 8)

        # Cells that are neighbours along z are neighbours in memory: two are loaded as one vector.
        next_x = builder.add(cell, step_x)
        two_cells = [
            _load(builder, eight, cells, builder.mul(place, four), 4)
            for place in (cell, builder.add(cell, step_y), next_x, builder.add(next_x, step_y))
        ]
        a, b, c, d = two_cells
        near, far = _pick(builder, a, b, list(range(16))), _pick(builder, c, d, list(range(16)))
        rows, units, first, second = (
            _pick(builder, near, far, [n + 4 * corner for corner in range(8)]) for n in range(4)
        )
        # x, then y, then z: `scalar` multiplies in the same order.
        weight = None
        for bit, distance in ((4, dx), (2, dy), (1, dz)):
            ahead = _spread(builder, distance, 8)
            behind = builder.fsub(ir.Constant(eight, [1.0] * 8), ahead)
            part = _pick(
                builder, behind, ahead, [corner + 8 * bool(corner & bit) for corner in range(8)]
            )
            weight = part if weight is None else builder.fmul(weight, part)
        longs = ir.VectorType(_LONG, 8)
        rows = builder.zext(builder.bitcast(rows, ir.VectorType(_INT, 8)), longs)
        starts = builder.mul(rows, ir.Constant(longs, [LINE] * 8))
        _store(builder, starts, start, ir.Constant(_LONG, 0))
        shares = builder.fmul(weight, units)
        _store(builder, shares, share, ir.Constant(_LONG, 0))
        shares = _running_sums(builder, shares, builder.fadd)
        _store(builder, shares, share, ir.Constant(_LONG, 8))
        maps = []
        for values in (first, second):
            sum_ = builder.fmul(weight, values)
            for half in (4, 2, 1):
                low, high = (list(range(n, n + half)) for n in (0, half))
                sum_ = builder.fadd(
                    _pick(builder, sum_, sum_, low), _pick(builder, sum_, sum_, high)
                )
            maps.append(builder.extract_element(sum_, ir.Constant(_INT, 0)))
        return cgutils.pack_array(builder, maps)

    return pair(
        types.int64, types.int64, types.int64, types.int64, types.float32, types.float32,
        types.float32, types.int64, types.int64,
    ), generate  # fmt: skip

"""Compiled arithmetic on blocks of sixteen axes, in the vector registers of the processor.

numba compiles a loop to vector instructions where it can prove that arrays do not overlap, which
it cannot of addresses: here the instructions are said outright. Amplitudes become whole numbers,
so that their sums are exact in whatever order they are taken, and the order of multiplications
and additions is written down, so that every processor gets the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

BLOCK = 16  # axes
LINE = 32  # numbers of 16 bits in a line of the cache
UNIT = 2**22  # an amplitude as large as the interpolated maxima of the corners

_LONG, _INT, _SHORT = ir.IntType(64), ir.IntType(32), ir.IntType(16)
_INTS, _SHORTS, _FLOATS = (
    ir.VectorType(kind, BLOCK) for kind in (_INT, _SHORT, ir.FloatType())
)  # fmt: skip
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
    """Make a vector of lanes of two, those of the other being counted on."""
    kind = ir.VectorType(_INT, len(lanes))
    return builder.shuffle_vector(one, other, ir.Constant(kind, lanes))


def _running_sums(builder: Any, vector: Any, add: Any) -> Any:
    """Sum the lanes up to and with each, by the same additions everywhere."""
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
def _each(builder: Any, number: Any) -> Iterator[tuple[Any, Any]]:
    """Loop over blocks: yields a block's number and the place of its first axis."""
    with cgutils.for_range(builder, number, intp=_LONG) as loop:
        yield loop.index, builder.mul(loop.index, ir.Constant(_LONG, BLOCK))


@intrinsic
def interpolate_blocks(_context, rows, start, share, scale, blocks, masks, number, values):
    """Interpolate amplitudes along the axes of some blocks; return the largest.

    Parameters
    ----------
    rows : address of uint16
    start : address of int64, shape (8,)
        Of each corner's row.
    share : address of float32, shape (8,)
    scale : float32
        Amplitudes are multiplied by, then rounded towards zero.
    blocks, masks : address of uint16, shape (number,)
        Numbers of the blocks, and a bit for each of their axes: the others get 0.
    number : int64
    values : address of int32, shape (16 number,)
        Written.

    Returns
    -------
    int32
    """

    def generate(_context, builder, _signature, arguments):
        rows, start, share, scale, blocks, masks, number, values = arguments
        corners = [ir.Constant(_LONG, corner) for corner in range(8)]
        starts = [_load(builder, _LONG, start, corner, 8) for corner in corners]
        shares = [
            _spread(builder, _load(builder, ir.FloatType(), share, corner, 4)) for corner in corners
        ]
        scale = _spread(builder, scale)
        fused = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_FLOATS, [_FLOATS] * 3), "llvm.fma.v16f32"
        )
        largest = cgutils.alloca_once_value(builder, _ZERO)
        with _each(builder, number) as (n, place):
            block = builder.zext(_load(builder, _SHORT, blocks, n, 2), _LONG)
            mask = builder.bitcast(_load(builder, _SHORT, masks, n, 2), _FLAGS)
            axis = builder.mul(block, ir.Constant(_LONG, BLOCK))
            total = ir.Constant(_FLOATS, None)
            for row, part in zip(starts, shares, strict=True):
                amplitudes = _load(builder, _SHORTS, rows, builder.add(row, axis), 2)
                amplitudes = builder.sitofp(builder.zext(amplitudes, _INTS), _FLOATS)
                total = builder.call(fused, [part, amplitudes, total])
            whole = builder.fptosi(builder.fmul(total, scale), _INTS)
            whole = builder.select(mask, whole, _ZERO)
            _store(builder, whole, values, place)
            best = builder.load(largest)
            larger = builder.icmp_signed(">", whole, best)
            builder.store(builder.select(larger, whole, best), largest)
        return _largest(builder, builder.load(largest))

    return types.int32(
        types.int64, types.int64, types.int64, types.float32, types.int64, types.int64,
        types.int64, types.int64,
    ), generate  # fmt: skip


@intrinsic
def sum_lanes(_context, values, number, least, sums):
    """Sum what is not below a value at each place in a block, then over the places before it.

    Parameters
    ----------
    values : address of int32, shape (16 number,)
    number : int64
    least : int32
    sums : address of int32, shape (16,)
        Written: sums over all blocks of the places up to and with each.
    """

    def generate(_context, builder, _signature, arguments):
        values, number, least, sums = arguments
        least = _spread(builder, least)
        sum_ = cgutils.alloca_once_value(builder, _ZERO)
        with _each(builder, number) as (_, place):
            block = _load(builder, _INTS, values, place, 4)
            block = builder.select(builder.icmp_signed(">=", block, least), block, _ZERO)
            builder.store(builder.add(builder.load(sum_), block), sum_)
        running = _running_sums(builder, builder.load(sum_), builder.add)
        _store(builder, running, sums, ir.Constant(_LONG, 0))
        return _context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int32, types.int64), generate


@intrinsic
def find_in_blocks(_context, values, number, wanted):
    """Return the place of the first number that is the one wanted, -1 if there is none.

    Parameters
    ----------
    values : address of int32, shape (16 number,)
    number : int64
    wanted : int32
    """

    def generate(_context, builder, _signature, arguments):
        values, number, wanted = arguments
        wanted = _spread(builder, wanted)
        none = ir.Constant(_LONG, -1)
        found = cgutils.alloca_once_value(builder, none)
        with _each(builder, number) as (_, place):
            block = _load(builder, _INTS, values, place, 4)
            equal = builder.bitcast(builder.icmp_signed("==", block, wanted), _SHORT)
            lane = builder.cttz(equal, ir.Constant(ir.IntType(1), 0))
            here = builder.add(place, builder.zext(lane, _LONG))
            before = builder.load(found)
            is_first = builder.and_(
                builder.icmp_signed("!=", equal, ir.Constant(_SHORT, 0)),
                builder.icmp_signed("==", before, none),
            )
            builder.store(builder.select(is_first, here, before), found)
        return builder.load(found)

    return types.int64(types.int64, types.int64, types.int32), generate


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
def look_at_cells(_context, cells, cell, step_y, step_x, dx, dy, dz, start, share):
    """Interpolate linearly between eight cells.

    Parameters
    ----------
    cells : address of float32 or int32, shape (..., 4)
        See `kernels.Field`.
    cell, step_y, step_x : int64
        The first of the eight, and from there to the next along two axes; along z it is 1.
    dx, dy, dz : float32
        Distance from the first along each axis, 0 to 1.
    start : address of int64, shape (8,)
    share : address of float32, shape (16,)
        Written; see `kernels.Corners`.

    Returns
    -------
    first, second : float32
        The maps of the stopping rule.
    """
    pair = types.UniTuple(types.float32, 2)

    def generate(_context, builder, signature, arguments):
        cells, cell, step_y, step_x, dx, dy, dz, start, share = arguments
        four, eight = ir.Constant(_LONG, 4), ir.VectorType(ir.FloatType(), 8)

        beside = builder.add(cell, step_x)
        two_cells = [
            _load(builder, eight, cells, builder.mul(place, four), 4)
            for place in (cell, builder.add(cell, step_y), beside, builder.add(beside, step_y))
        ]
        a, b, c, d = two_cells
        near, far = _pick(builder, a, b, list(range(16))), _pick(builder, c, d, list(range(16)))
        rows, units, first, second = (
            _pick(builder, near, far, [n + 4 * corner for corner in range(8)]) for n in range(4)
        )
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

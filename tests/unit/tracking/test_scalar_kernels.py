"""Plain loops beside vector instructions: the same bits from any input, and whole streamlines."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import few_seeds
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numba import njit

from bids_tractography.core.stopping import StoppingRule
from bids_tractography.core.streamlines import Rejection, Stop
from bids_tractography.machine import compiled
from bids_tractography.tracking.cpu.kernels import (
    arithmetic,
    field,
    scalar,
    streamlines,
    vectors,
    vertices,
)
from bids_tractography.tracking.cpu.kernels.blocks import (
    BLOCK,
    LINE,
    MAX_BLOCKS,
    MAXIMUM_STEP,
    UNIT,
)

MAXIMA = BLOCK * MAX_BLOCKS
WIDTH = MAXIMA + LINE


def test_every_vector_kernel_has_a_plain_loop_of_its_name_and_one_of_them_is_used() -> None:
    used = scalar if compiled.SCALAR else vectors
    for name in arithmetic.__all__:
        assert hasattr(vectors, name)
        assert hasattr(scalar, name)
        assert getattr(arithmetic, name) is getattr(used, name)
    written_in_ir = {
        name for name, value in vars(vectors).items() if type(value).__name__ == "_Intrinsic"
    }
    assert written_in_ir == set(arithmetic.__all__)


def test_codes_of_kernels_are_those_of_the_enums() -> None:
    for stop in Stop:
        assert getattr(field, stop.name) == stop.code == list(Stop).index(stop)
    for rejection in (Rejection.TOO_LONG, Rejection.DEAD_END, Rejection.TOO_SHORT):
        assert getattr(streamlines, rejection.name) == rejection.code
    assert field.GO_ON not in [stop.code for stop in Stop]
    assert set(field.RULES) == set(get_args(StoppingRule))
    assert len(set(field.RULES.values())) == len(field.RULES)


FLOAT32 = st.floats(0, 2.0**20, width=32)


def midway() -> Any:
    """Draw sums that end midway between two float32, or next to it."""
    return st.tuples(
        st.sampled_from([2.0**-24, 2.0**-23 + 2.0**-40, 3 * 2.0**-25, 1 + 2.0**-23]),
        st.sampled_from([1, 2, 3, 65535]),
        st.sampled_from([1.0, 1 + 2.0**-23, 2.0**15, 65536.0]),
    )


@settings(deadline=None)
@given(numbers=st.one_of(st.tuples(FLOAT32, st.integers(0, 65535), FLOAT32), midway()))
@example(numbers=(2.0**-24 * (1 + 2.0**-23), 1, 1.0))
@example(numbers=(2.0**-60, 1, 1 + 2.0**-24))
def test_a_fused_multiply_add_is_rounded_once(numbers: Any) -> None:
    one, other, term = (np.float32(number) for number in numbers)
    exact = Fraction(float(one)) * Fraction(float(other)) + Fraction(float(term))
    found = scalar.fused_multiply_add(one, other, term)
    assert isinstance(found, float | np.floating)
    found = np.float32(found)
    near = [np.nextafter(found, np.float32(end)) for end in (-np.inf, np.inf)]
    error = abs(Fraction(float(found)) - exact)
    for other_one in near:
        further = abs(Fraction(float(other_one)) - exact)
        is_even = found.view(np.uint32) % 2 == 0
        assert error < further or (error == further and is_even)


@njit
def in_vectors(rows, start, share, scale, members, values):  # type: ignore[no-untyped-def]
    which = vectors.which_blocks(members)
    largest = vectors.interpolate_blocks(rows, start, share, scale, members, which, values)
    return which, largest


@njit
def in_loops(rows, start, share, scale, members, values):  # type: ignore[no-untyped-def]
    which = scalar.which_blocks(members)
    largest = scalar.interpolate_blocks(rows, start, share, scale, members, which, values)
    return which, largest


@njit
def largest_in_vectors(rows, start, share, scale, maxima, above, any_of_them):  # type: ignore[no-untyped-def]
    return vectors.find_largest(rows, start, share, scale, maxima, above, any_of_them)


@njit
def blocks_in_vectors(rows, start, share, scale, maxima, smallest):  # type: ignore[no-untyped-def]
    return vectors.blocks_reaching(rows, start, share, scale, maxima, smallest)


@njit
def reached_in_vectors(limits, value):  # type: ignore[no-untyped-def]
    return vectors.count_reached(limits, value)


@njit
def cells_in_vectors(cells, cell, step_y, step_x, dx, dy, dz, start, share):  # type: ignore[no-untyped-def]
    return vectors.gather_cells(cells, cell, step_y, step_x, dx, dy, dz, start, share)


@dataclass(frozen=True)
class Rows:
    """Eight rows of amplitudes around a point."""

    values: Any
    start: Any
    share: Any
    scale: Any

    def addresses(self) -> tuple[Any, ...]:
        return (self.values.ctypes.data, self.start.ctypes.data, self.share.ctypes.data, self.scale)


@st.composite
def rows(draw: st.DrawFn) -> Rows:
    """Draw rows with partial last blocks, empty rows, corners without weight, and ties."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_axes = draw(st.sampled_from([1, 15, 16, 17, 362, 480, 512]))
    levels = draw(st.sampled_from([1, 2, 5, 65536]))
    values = np.zeros((9, WIDTH), np.uint16)
    drawn = rng.integers(0, levels, (8, n_axes)) * (65535 // max(levels - 1, 1))
    values[1:, :n_axes] = drawn * (rng.random((8, n_axes)) < draw(st.sampled_from([0.02, 1])))
    blocks = values[:, :MAXIMA].reshape(9, MAX_BLOCKS, BLOCK).max(axis=2).astype(int)
    steps = -(-blocks // MAXIMUM_STEP)
    values[:, MAXIMA : MAXIMA + MAX_BLOCKS // 2] = steps.astype(np.uint8).view(np.uint16)
    start = rng.integers(0, 9, 8) * WIDTH
    share = rng.random(8) * rng.choice([0, 1e-6, 1], 8, p=draw(
        st.sampled_from([(0, 0, 1), (0.5, 0, 0.5), (0.3, 0.3, 0.4), (1, 0, 0)])
    ))  # fmt: skip
    share = share.astype(np.float32)
    total = share.sum(dtype=np.float32)
    scale = np.float32(UNIT) / (np.float32(65535) * total) if total > 0 else np.float32(0)
    return Rows(values, start, share, scale)


@st.composite
def cone(draw: st.DrawFn) -> Any:
    """Draw which axes of each block are in a cone: none, few, all."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    density = draw(st.sampled_from([0, 0.01, 0.3, 1]))
    bits = rng.random((MAX_BLOCKS, BLOCK)) < density
    bits[rng.random(MAX_BLOCKS) < draw(st.sampled_from([0, 0.8]))] = False
    return np.packbits(bits, axis=1, bitorder="little").view(np.uint16).ravel()


@settings(deadline=None)
@given(of=rows(), members=cone())
def test_a_cone_is_interpolated_to_the_same_bits(of: Rows, members: Any) -> None:
    found = []
    for kind in (in_vectors, in_loops):
        values = np.full(MAXIMA, -7, np.int32)
        returned = kind(*of.addresses(), members.ctypes.data, values.ctypes.data)
        found.append((returned, values.tolist()))
    assert found[0] == found[1]


@settings(deadline=None)
@given(
    amplitudes=st.lists(st.integers(0, 5), min_size=MAXIMA, max_size=MAXIMA),
    which=st.integers(0, 2**31 - 1),
    smallest=st.integers(0, 6),
)
def test_amplitudes_of_blocks_are_summed_and_found(
    amplitudes: list[int], which: int, smallest: int
) -> None:
    values, sums = np.array(amplitudes, np.int32), np.full(BLOCK, -7, np.int32)
    taken = np.repeat([(which >> block) & 1 for block in range(MAX_BLOCKS)], BLOCK)
    vertices._sum_lanes(values.ctypes.data, np.int32(which), smallest, sums.ctypes.data)
    counted = np.where(values >= smallest, values * taken, 0).reshape(-1, BLOCK).sum(axis=0)
    assert sums.tolist() == counted.cumsum().tolist()
    axis = vertices._find_amplitude(values.ctypes.data, np.int32(which), np.int32(smallest))
    where = np.flatnonzero((values == smallest) & (taken == 1))
    assert axis == (where[0] if len(where) else -1)


@settings(deadline=None)
@given(of=rows(), share=st.floats(0, 1.1), any_of_them=st.booleans())
@example(of=Rows(np.zeros((9, WIDTH), np.uint16), np.zeros(8, np.int64),
                 np.zeros(8, np.float32), np.float32(0)), share=0, any_of_them=False)  # fmt: skip
def test_the_largest_is_found_to_the_same_bits(of: Rows, share: float, any_of_them: bool) -> None:
    arguments = (*of.addresses(), MAXIMA, np.int32(share * UNIT), any_of_them)
    largest, axis = largest_in_vectors(*arguments)
    assert (largest, axis) == scalar.find_largest(*arguments)


@settings(deadline=None)
@given(of=rows(), share=st.floats(0, 1))
def test_blocks_that_may_reach_a_value_are_found_alike_and_none_that_does_is_missed(
    of: Rows, share: float
) -> None:
    smallest = np.int32(max(share * UNIT, 1))
    which = blocks_in_vectors(*of.addresses(), MAXIMA, smallest)
    assert which == scalar.blocks_reaching(*of.addresses(), MAXIMA, smallest)
    values = np.empty(MAXIMA, np.int32)
    whole = np.full(MAX_BLOCKS, 0xFFFF, np.uint16)
    in_vectors(*of.addresses(), whole.ctypes.data, values.ctypes.data)
    reached = (values >= smallest).reshape(MAX_BLOCKS, BLOCK).any(axis=1)
    found = [bool((int(which) >> block) & 1) for block in range(MAX_BLOCKS)]
    assert (reached <= np.array(found)).all()


@settings(deadline=None)
@given(
    limits=st.lists(st.floats(0, 2, width=32), min_size=8, max_size=8),
    value=st.floats(0, 2, width=32), place=st.integers(0, 8),
)  # fmt: skip
def test_limits_are_counted_alike(limits: list[float], value: float, place: int) -> None:
    array = np.sort(np.array(limits, np.float32))
    reached = np.float32(value) if place == 8 else array[place]  # equal to one of them
    counts = [
        kind(array.ctypes.data, reached) for kind in (reached_in_vectors, scalar.count_reached)
    ]
    assert counts[0] == counts[1] == (array <= reached).sum()


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    at=st.tuples(*[st.one_of(st.just(0.0), st.floats(0, 1, width=32, exclude_max=True))] * 3),
    empty=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_cells_are_interpolated_to_the_same_bits(seed: int, at: Any, empty: float) -> None:
    rng = np.random.default_rng(seed)
    shape = (3, 4, 5)
    cells = rng.random((*shape, 4)).astype(np.float32)
    cells[rng.random(shape) < empty, 1] = 0
    cells.view(np.int32)[..., 0] = rng.integers(0, 2**30, shape)
    cell = 5 * rng.integers(0, 2) * 4 + 5 * rng.integers(0, 3) + rng.integers(0, 4)
    found = []
    for kind in (cells_in_vectors, scalar.gather_cells):
        start, share = np.full(8, -7, np.int64), np.full(16, -7, np.float32)
        first, second = kind(
            cells.ctypes.data, cell, 5, 20, *(np.float32(part) for part in at),
            start.ctypes.data, share.ctypes.data,
        )  # fmt: skip
        found.append((first, second, start.tobytes(), share.tobytes()))
    assert found[0] == found[1]


def hashes(**environment: str) -> list[str]:
    """Track a few seeds in a new process; return what it prints."""
    tests = Path(few_seeds.__file__).parent
    ended = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", few_seeds.__file__],
        env={**os.environ, "PYTHONPATH": f"{tests}:{tests.parent}", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


@pytest.mark.parametrize(
    ("environment", "runs_as"),
    [
        pytest.param({"NUMBA_DISABLE_JIT": "1"}, "plain scalar", id="plain Python"),
        pytest.param({"BIDS_TRACTOGRAPHY_KERNELS": "scalar"}, "compiled scalar",
                     id="scalar", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_streamlines_are_the_same_in_any_kind_of_kernels(
    environment: dict[str, str], runs_as: str
) -> None:
    here = [f"{kind} {sha256}" for kind, sha256 in few_seeds.batches()]
    assert hashes(**environment) == [runs_as, *here]


OVERRUNS = """
import numpy as np
from bids_tractography.tracking.cpu.kernels.memory import address_of, doubles, ints
array = np.arange(4, dtype=np.int32)
address = address_of(array)
assert ints(address).tolist() == [0, 1, 2, 3] and ints(address + 8).tolist() == [2, 3]
ints(address + 4)[1] = 7
assert array[2] == 7 and len(doubles(address + 4)) == 1

def refused(read):
    try:
        read()
    except IndexError:
        return True

assert refused(lambda: ints(address)[4]) and refused(lambda: ints(address + 16))
assert refused(lambda: ints(address - 1))
del array
assert refused(lambda: ints(address))
"""


def test_plain_kernels_read_neither_beyond_an_array_nor_after_its_end() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", OVERRUNS],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr


def test_a_wrong_kind_of_kernels_is_refused() -> None:
    code = "import bids_tractography.machine.compiled"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "BIDS_TRACTOGRAPHY_KERNELS": "both"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "must be one of vector, scalar, not 'both'" in ended.stderr

"""Tracking on GPUs: cuslines 2.2 behind the protocol of the other engines.

cuslines has `prob` and `ptt`, one map and one threshold to stop by, steps in voxels, and random
numbers that begin anew with every call. What is asked of it here is therefore less than it
offers: to walk, on a lattice of cubes, through everything within reach of the places to go on,
from seeds that it is given in fixed units of work. Where a streamline ends and whether it is
kept is settled here, by the same rules as on the CPU.

What is worked round, with the tests (``tests/unit/tracking/test_cuda_engine.py``) that say so:

- Every call uses the same random numbers; the offset that its kernels are given is not read
  (`test_kernels_do_not_read_the_random_offset`). The last seed of a unit is no seed: its
  coordinates carry the number of the unit, which the kernels add to the key
  (`test_kernels_compile_with_a_key_for_every_unit`). A seed has the same place in its unit
  whatever the batch (`test_any_slicing_into_batches_and_any_number_of_gpus_changes_no_bit`).
- The map to stop by is a texture, which has its values at the centres of its texels, and is
  asked half a voxel off; it is interpolated where a mask should be asked at the nearest voxel.
  So the map lets streamlines through to beyond their end, and they are cut here
  (`test_a_stop_map_asked_half_a_voxel_off_changes_nothing`). The fODF of ptt is a texture too:
  for ptt everything is moved by half a voxel (`test_ptt_is_moved_by_half_a_voxel`).
- Between the outermost voxel and the image border it interpolates with the wrong neighbour. The
  lattice is wider than the image (`test_the_outermost_half_voxel_is_part_of_the_image`).
- A step is one number in voxels. Where voxels are not cubes the fODF is interpolated on cubes of
  the smallest edge (`test_steps_are_mm_in_every_geometry`).
- The host's buffers are not enlarged after the first call, and a later one may write beyond them.
  They are dropped before each (`test_host_buffers_are_those_of_the_call`).
- Amplitudes count above a fixed 5 % of the largest, and ptt has a curvature for steps of a
  quarter of a voxel: both are set (`test_macros_say_what_the_configuration_says`).
- A half has 501 points at most, and nothing tells if it was cut off
  (`test_more_points_than_cuslines_has_are_refused`,
  `test_a_half_as_long_as_cuslines_can_make_it_is_too_long`).
- All peaks start streamlines, antipodes too on a full sphere; a half sphere is given, and the
  largest peaks are taken (`test_only_the_largest_peaks_are_tracked`).
- Dead ends and streamlines of any length come back (`test_ends_are_those_of_the_rule`).
- Back ends are probed when it is imported, so it is imported when an engine is made
  (`test_importing_the_package_imports_neither_cuslines_nor_cuda`).

Not worked round: it leaves a context on every GPU behind for each engine made in a process.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_tractography.config import Config
from bids_tractography.config.algorithm import ParallelTransportConfig
from bids_tractography.config.tracking import TrackingConfig
from bids_tractography.errors import DeviceError, DeviceLostError
from bids_tractography.tracking.acceptance import max_points
from bids_tractography.tracking.base import EngineKind, TrackingProblem
from bids_tractography.tracking.cuda.engine import (
    MOST_POINTS_OF_A_HALF,
    UNIT,
    Request,
    UnitEngine,
    Walks,
)

_SLOT_BYTES = 2 * MOST_POINTS_OF_A_HALF * 3 * 4
_REMEDY = "Use engine: cpu, which tracks with the same meaning."


def make_cuda_engine(problem: TrackingProblem, n_threads: int) -> UnitEngine:
    """Make the engine.

    Raises
    ------
    DeviceError
        If there is no device, or not enough memory on it.
    """
    n_devices = problem.tracking.ngpus or len(probe_devices().names)
    return UnitEngine(problem, n_threads, CudaSession, n_devices)


def arguments(request: Request) -> dict[str, Any]:
    """Return what all of cuslines' trackers take."""
    return {
        "dataf": request.volume,
        "stop_map": request.stop_map,
        "stop_threshold": request.stop_threshold,
        "sphere_vertices": request.vertices,
        "sphere_edges": request.edges,
        "sphere_symm": True,
        "max_angle": request.max_angle_rad,
        "step_size": request.step,
        "relative_peak_thresh": request.relative_peak,
        "min_separation_angle": request.separation_rad,
        "ngpus": request.n_devices,
    }


_RNG_SEED = (
    "({key}ull + (unsigned long long)(seeds[nseed - 1].x * 16777216.0f)"
    " + ((unsigned long long)(seeds[nseed - 1].y * 16777216.0f) << 24))"
)


def macros(request: Request) -> dict[str, str]:
    """Return what has to be said to the compiler in other words than cuslines would."""
    said = {
        "RNG_SEED": _RNG_SEED.format(key=request.key),
        "PMF_THRESHOLD_P": str(float(request.pmf_threshold)),
    }
    if request.probe is not None:
        curvature = 2 * math.sin(request.max_angle_rad / 2) / request.step
        said["MAX_CURVATURE"] = str(curvature)
    return said


class CudaSession:
    """cuslines on NVIDIA GPUs.

    Parameters
    ----------
    request : Request

    Raises
    ------
    DeviceError
        If a device is missing, too small, or its kernels cannot be compiled.
    """

    def __init__(self, request: Request) -> None:
        _check_memory(request)
        self.n_devices = request.n_devices
        self.shift = 0.5 if request.probe else 0.0
        self._starts: list[NDArray[np.int32]] = [np.empty(0, np.int32)] * self.n_devices
        with _told(DeviceError, "cuslines cannot be started", _REMEDY):
            from cuslines.cuda_python import GPUTracker

            directions = _make_directions(request, self._starts)
            self._tracker = GPUTracker(dg=directions, rng_seed=0, **arguments(request))
            self._tracker.__enter__()
        self._propagator = self._tracker.seed_propagator

    def run(self, seeds: NDArray[np.float32]) -> list[Walks]:
        """Walk from the seeds of a unit on each device."""
        self._propagator.slines = [None] * self.n_devices
        self._propagator.sline_lens = [None] * self.n_devices
        with _told(
            DeviceLostError, "the GPU failed in mid-run", "Run again: finished batches are kept."
        ):
            self._propagator.propagate(seeds.reshape(-1, 3))
        lines = self._propagator.as_generator()
        return [
            _collect(islice(lines, int(starts[-1])), starts, seeds.shape[1])
            for starts in self._starts
        ]

    def __del__(self) -> None:
        if hasattr(self, "_propagator"):
            self._tracker.__exit__(None, None, None)


def _make_directions(request: Request, starts: list[NDArray[np.int32]]) -> Any:
    """Make cuslines' direction getter, told of our macros, telling us of its streamlines."""
    from cuda.bindings import runtime
    from cuslines.cuda_python import ProbDirectionGetter, PttDirectionGetter
    from cuslines.cuda_python.cutils import checkCudaErrors

    base = ProbDirectionGetter if request.probe is None else PttDirectionGetter

    class Directions(base):  # type: ignore[misc, valid-type]
        def set_macros(self, tracker: Any) -> None:
            super().set_macros(tracker)
            self.macros.update(macros(request))

        def generateStreamlines(  # noqa: N802
            self, n: int, nseeds_gpu: int, block: Any, grid: Any, sp: Any
        ) -> None:
            offsets = np.empty(nseeds_gpu + 1, np.int32)
            kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
            checkCudaErrors(
                runtime.cudaMemcpy(offsets.ctypes.data, sp.slinesOffs_d[n], offsets.nbytes, kind)
            )
            starts[n] = offsets
            super().generateStreamlines(n, nseeds_gpu, block, grid, sp)

    if request.probe is None:
        return Directions()
    return Directions(
        probe_length=request.probe.step,
        probe_quality=request.probe.steps,
        target_short_step=request.step,  # one curve is drawn for a step, as on the CPU
    )


class NumbaSession:
    """cuslines' back end without a GPU, for tests and comparisons.

    It has prob only, and no seed for its random numbers.

    Parameters
    ----------
    request : Request
    """

    def __init__(self, request: Request) -> None:
        from cuslines.numba import CPUProbDirectionGetter, CPUTracker

        self.n_devices, self.shift = 1, 0.0
        self._pmf_threshold = request.pmf_threshold
        self._starts = np.zeros(1, np.int32)
        self.tracker = CPUTracker(dg=CPUProbDirectionGetter(), **arguments(request))
        propagator = self.tracker.seed_propagator
        find = propagator._get_num_streamlines

        def find_and_tell(seeds: Any) -> Any:
            directions, self._starts = find(seeds)
            return directions, self._starts

        propagator._get_num_streamlines = find_and_tell

    def run(self, seeds: NDArray[np.float32]) -> list[Walks]:
        """Walk from the seeds of a unit."""
        from cuslines.numba_njit import generate_streamlines_numba, num_streamlines_numba

        for module in (generate_streamlines_numba, num_streamlines_numba):
            module.PMF_THRESHOLD_P = self._pmf_threshold  # read when they are compiled
        propagator = self.tracker.seed_propagator
        propagator.propagate(seeds.reshape(-1, 3))
        return [_collect(propagator.as_generator(), self._starts, seeds.shape[1])]


def _collect(
    lines: Iterator[NDArray[np.float32]], starts: NDArray[np.integer], n_seeds: int
) -> Walks:
    made = list(lines)
    if len(made) != starts[-1] or len(starts) != n_seeds + 1:
        raise ArithmeticError(f"cuslines made {len(made)} streamlines and announced {starts[-1]}")
    points = np.concatenate([np.empty((0, 3), np.float32), *made])
    return Walks(points, np.array([len(line) for line in made], np.int64), starts.astype(np.int64))


@contextmanager
def _told(error_class: type[DeviceError], what: str, remedy: str) -> Iterator[None]:
    """Say what a driver or compiler says as an error of ours."""
    try:
        yield
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        raise error_class(f"tracking.engine cuda: {what}: {error}.", remedy) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "cuda":
            raise
        raise error_class(f"tracking.engine cuda: {what}: {error}.", remedy) from error


def memory_needed(request: Request) -> int:
    """Estimate the bytes that each device needs."""
    n_vertices = len(request.vertices)
    if request.probe is not None:  # the texture has room for a power of two
        n_vertices = 1 << math.ceil(math.log2(n_vertices))
    volume = request.stop_map.size * 4 * (n_vertices + 1)
    streamlines = 1 if request.relative_peak == 1 else 4
    places = UNIT + 1
    return volume + places * (streamlines * _SLOT_BYTES + 12 * len(request.vertices) + 20)


def _check_memory(request: Request) -> None:
    from cuda.bindings import runtime

    needed = memory_needed(request)
    for n in range(request.n_devices):
        with _told(DeviceError, f"GPU {n} cannot be used", _REMEDY):
            _call(runtime.cudaSetDevice(n))
            free, _ = _call(runtime.cudaMemGetInfo())
        if free < needed:
            raise DeviceError(
                f"tracking.engine cuda: GPU {n} has {free / 2**30:.1f} GiB of memory free, and "
                f"about {needed / 2**30:.1f} GiB are needed.",
                f"Free some of it, or take a card with more. {_REMEDY}",
            )


def _call(answer: tuple[Any, ...]) -> Any:
    """Return what a function of the CUDA runtime gives beside its error code."""
    code, *values = answer
    if int(code) != 0:
        raise RuntimeError(getattr(code, "name", str(code)))
    return values[0] if len(values) == 1 else values


@dataclass(frozen=True)
class Devices:
    """GPUs of this machine.

    Parameters
    ----------
    names : tuple of str
    driver : str
        CUDA version that the driver supports.
    problem : str or None
        Why none can be used.
    """

    names: tuple[str, ...]
    driver: str
    problem: str | None


@cache
def probe_devices() -> Devices:
    """Look for GPUs, without starting anything on them."""
    try:
        from cuda.bindings import runtime
    except (ImportError, OSError) as error:
        return Devices((), "", f"CUDA for Python cannot be imported ({error})")
    try:
        version = _call(runtime.cudaDriverGetVersion())
        driver = f"{version // 1000}.{version % 1000 // 10}"
        n = _call(runtime.cudaGetDeviceCount())
        names = tuple(
            _call(runtime.cudaGetDeviceProperties(i)).name.decode().strip("\0") for i in range(n)
        )
    except RuntimeError as error:
        return Devices((), "", f"no usable GPU or driver ({error})")
    return Devices(names, driver, None if names else "there is no GPU")


def unavailable(tracking: TrackingConfig) -> str | None:
    """Tell why no GPU can be used here, if so; cheap, and asked once."""
    found = probe_devices()
    if found.problem:
        return found.problem
    try:
        import cuslines
    except (ImportError, OSError) as error:
        return f"cuslines cannot be imported ({error})"
    if cuslines.BACKEND != "cuda":
        return f"cuslines finds no GPU (its back end is {cuslines.BACKEND or 'numba'})"
    if tracking.ngpus is not None and tracking.ngpus > len(found.names):
        return f"tracking.ngpus is {tracking.ngpus}, and there are {len(found.names)} GPUs"
    return None


def limits(config: Config) -> str | None:
    """Tell what of a configuration cuslines cannot do, if anything."""
    tracking = config.tracking
    algorithm = tracking.algorithm
    steps = tracking.max_length_mm / algorithm.step_size_mm
    if max_points(tracking) > MOST_POINTS_OF_A_HALF:
        return (
            f"{MOST_POINTS_OF_A_HALF - 1} steps from a seed at most, and max_length_mm / "
            f"step_size_mm is {steps:g}"
        )
    if isinstance(algorithm, ParallelTransportConfig):
        if algorithm.probe_radius_mm != 0 or algorithm.probe_count != 1:
            return "probes without a radius only (probe_radius_mm 0, probe_count 1)"
        if algorithm.data_support_exponent != 1:
            return "data_support_exponent 1 only"
    return None


CUDA = EngineKind(
    name="cuda",
    library="cuslines",
    algorithms=frozenset({"prob", "ptt"}),
    stopping=frozenset({"threshold", "binary", "fod"}),
    batch_size=4 * UNIT,
    differences=(
        "With stopping.fod_below, the threshold and the share of the fODF are combined in each "
        "voxel, before interpolation.",
        f"The random numbers of a streamline are keyed by rng_seed, by the index of its seed over "
        f"{UNIT} and by the remainder; streamlines of one seed share a stream, one after another. "
        "They do not depend on the batch size, the number of GPUs or the card, but the rounding "
        "of single-precision arithmetic may differ between generations of cards.",
        "The fODF is evaluated along the directions of the sphere in every voxel and interpolated "
        "in single precision; where voxels are not cubes it is first interpolated linearly on "
        "cubes of the smallest edge.",
        "Both halves of a streamline set out from the peak at the seed, not the second from the "
        "reverse of the first step.",
        "With more than one direction a seed, the share of the largest peak is of what exceeds "
        "the fODF's minimum there, and peaks below pmf_threshold start no streamline.",
        "A half that alone has as many points as cuslines can hold counts as too long.",
        "ptt: amplitudes are relative to the largest of each voxel, and so is pmf_threshold; "
        "peaks are found in the same.",
    ),
    build=make_cuda_engine,
    unavailable=unavailable,
    limits=limits,
)

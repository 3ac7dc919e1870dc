"""A machine with GPUs that is not there, for tests of the CUDA engine's own part.

`walk` does what cuslines' `prob` kernels do, read from their source: every peak starts a
streamline, backwards first; one stream of random numbers for each seed of a call, keyed by the
macro RNG_SEED and the place of the seed; halves of 501 points; a texture to stop by that is
asked half a voxel off; the wrong neighbour in the outermost half voxel.
`PretendSession` is a session of the engine over it; `pretend_cuda` puts it below cuslines' own
host code, in the place of NVIDIA's packages.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from bids_tractography.tracking.cuda.cuslines import arguments
from bids_tractography.tracking.cuda.engine import Request, Walks, unit_mark

HALF = 501
COORDINATE = np.float32


@dataclass
class Kernel:
    """What `walk` is compiled with."""

    volume: Any
    permitted: Any
    vertices: Any
    edges: Any
    threshold: float
    step: float
    cos_angle: float
    cos_separation: float
    relative_peak: float
    pmf_threshold: float
    key: int
    texture_shift: float


def kernel_of(request: Request, texture_shift: float = 0.5) -> Kernel:
    return Kernel(
        volume=request.volume,
        permitted=request.stop_map,
        vertices=request.vertices,
        edges=request.edges,
        threshold=arguments(request)["stop_threshold"],
        step=request.step,
        cos_angle=np.cos(request.max_angle_rad),
        cos_separation=np.cos(request.separation_rad),
        relative_peak=request.relative_peak,
        pmf_threshold=request.pmf_threshold,
        key=request.key,
        texture_shift=texture_shift,
    )


def pmf_at(kernel: Kernel, point: Any) -> Any:
    shape = np.array(kernel.volume.shape[:3])
    if (point < -0.5).any() or (point + 0.5 >= shape).any():
        return None
    floor = np.floor(point)
    low = np.maximum(floor, 0).astype(int)
    high = np.minimum(shape - 1, low + 1)
    values = np.zeros(kernel.volume.shape[3])
    for corner in np.ndindex(2, 2, 2):
        weight = np.where(corner, point - floor, 1 - (point - floor)).prod()
        if weight:
            values += weight * kernel.volume[tuple(np.where(corner, high, low))]
    values[values < kernel.pmf_threshold * values.max()] = 0
    return values


def goes_on(kernel: Kernel, point: Any) -> bool:
    """Ask the map: a texture with a border of -1."""
    place = point - kernel.texture_shift
    low = np.floor(place).astype(int)
    value = 0.0
    for corner in np.ndindex(2, 2, 2):
        node = low + corner
        inside = (node >= 0).all() and (node < kernel.permitted.shape).all()
        weight = np.where(corner, place - low, 1 - (place - low)).prod()
        value += weight * (kernel.permitted[tuple(node)] if inside else -1)
    return bool(value > kernel.threshold)


def peaks_of(kernel: Kernel, point: Any) -> list[int]:
    values = pmf_at(kernel, point)
    if values is None:
        return []
    state = np.zeros(len(values), int)
    for one, other in kernel.edges:
        if values[one] == values[other]:
            continue
        less, more = (one, other) if values[one] < values[other] else (other, one)
        state[less] = -1
        if state[more] != -1:
            state[more] = 1
    found = np.flatnonzero(state > 0)
    if len(found) == 0:
        return []
    above = values - max(values.min(), 0)
    found = found[above[found] >= kernel.relative_peak * above[found].max()]
    taken: list[int] = []
    for vertex in found[np.argsort(-values[found], kind="stable")]:
        cosines = np.abs(kernel.vertices[taken] @ kernel.vertices[vertex])
        if not (cosines > kernel.cos_separation).any():
            taken.append(int(vertex))
    return taken


def half(kernel: Kernel, seed: Any, direction: Any, random: Any) -> list[Any]:
    point, points = seed.copy(), [seed.copy()]
    while len(points) < HALF:
        values = pmf_at(kernel, point)
        if values is None:
            break
        cosines = kernel.vertices @ direction
        values[np.abs(cosines) < kernel.cos_angle] = 0
        total = np.cumsum(values)
        if total[-1] == 0:
            break
        vertex = int(np.searchsorted(total, random.random() * total[-1], side="right"))
        direction = kernel.vertices[vertex] * (1 if cosines[vertex] > 0 else -1)
        point = (point + direction * COORDINATE(kernel.step)).astype(COORDINATE)
        if not goes_on(kernel, point):
            break
        points.append(point)
    return points


def walk(kernel: Kernel, seeds: Any) -> tuple[list[Any], Any]:
    """Return streamlines and, for each seed, the number of the first of its own."""
    mark = (seeds[-1, :2].astype(float) * 2**24).astype(int)
    lines: list[Any] = []
    starts = [0]
    for place, seed in enumerate(seeds):
        random = np.random.Generator(
            np.random.Philox(key=[kernel.key + int(mark[0]) + (int(mark[1]) << 24), place])
        )
        for vertex in peaks_of(kernel, seed):
            back = half(kernel, seed, -kernel.vertices[vertex], random)
            ahead = half(kernel, seed, kernel.vertices[vertex], random)
            lines.append(np.array(back[:0:-1] + ahead, COORDINATE))
        starts.append(len(lines))
    return lines, np.array(starts)


class PretendSession:
    """Walks on devices that are not there."""

    def __init__(self, request: Request, texture_shift: float = 0.5) -> None:
        self.request, self.kernel = request, kernel_of(request, texture_shift)
        self.n_devices, self.shift = request.n_devices, 0.0
        self.seen: list[Any] = []

    def run(self, seeds: Any) -> list[Walks]:
        assert seeds.dtype == np.float32
        assert len(seeds) == self.n_devices
        self.seen.append(seeds)
        made = []
        for unit in seeds:
            lines, starts = walk(self.kernel, unit)
            points = np.concatenate([np.empty((0, 3), np.float32), *lines])
            made.append(Walks(points, np.array([len(line) for line in lines], int), starts))
        return made


class _Memory:
    """Host memory by address, as devices' is."""

    def __init__(self) -> None:
        self.blocks: dict[int, Any] = {}

    def new(self, size: int) -> int:
        block = np.zeros(max(int(size), 1), np.uint8)
        self.blocks[block.ctypes.data] = block
        return block.ctypes.data

    def view(self, address: int, dtype: Any, *shape: int) -> Any:
        return (
            self.blocks[address]
            .view(np.uint8)[: int(np.prod(shape)) * 4]
            .view(dtype)
            .reshape(shape)
        )


class _Anything:
    """A structure of the runtime: whatever is set, is there."""

    def __getattr__(self, name: str) -> Any:
        value = [None] * 3 if name in ("addressMode", "borderColor") else _Anything()
        setattr(self, name, value)
        return value


class _Texture:
    def __init__(self, array: Any) -> None:
        self.array = array

    def getPtr(self) -> Any:  # noqa: N802
        return self


class _Code:
    def __init__(self, value: int) -> None:
        self.value = value

    def __int__(self) -> int:
        return self.value


class Machine:
    """What the pretended packages share: memory, failures to come, and what was launched."""

    def __init__(self, n_devices: int, free: int) -> None:
        self.n_devices, self.free = n_devices, free
        self.memory = _Memory()
        self.fail_at_launch: int | None = None
        self.launches: list[Any] = []
        self.programs: list[dict[str, str]] = []

    def runtime(self) -> Any:
        ok = _Code(0)
        memory = self.memory
        runtime = ModuleType("cuda.bindings.runtime")

        def copy(target: Any, source: Any, size: int, *_: Any) -> Any:
            if isinstance(target, np.ndarray):
                if size > target.nbytes:
                    raise MemoryError("the copy writes beyond the buffer")
                target = target.ctypes.data
            ctypes.memmove(target, source, int(size))
            return (ok,)

        def array_of(source: Any) -> Any:
            address, _pitch, depth, height = source
            total = source_extent[0]
            flat = (ctypes.c_float * int(np.prod(total))).from_address(address)
            assert (depth, height) == (total[0], total[1])
            return np.array(flat, np.float32).reshape(total[::-1])

        source_extent: list[Any] = [None]

        def copy_3d(parameters: Any) -> Any:
            source_extent[0] = parameters.extent
            parameters.dstArray.append(array_of(parameters.srcPtr))
            return (ok,)

        named: dict[str, Any] = {
            "cudaGetDeviceCount": lambda: (ok, self.n_devices),
            "cudaDriverGetVersion": lambda: (ok, 12090),
            "cudaGetDeviceProperties": lambda n: (ok, SimpleNamespace(name=b"Pretended\0")),
            "cudaSetDevice": lambda n: (ok,) if n < self.n_devices else (_Code(101),),
            "cudaMemGetInfo": lambda: (ok, (self.free, 2 * self.free)),
            "cudaMalloc": lambda size: (ok, memory.new(size)),
            "cudaFree": lambda address: (ok,) if memory.blocks.pop(address) is not None else 1,
            "cudaMemset": lambda address, value, size: (ok,),
            "cudaMemcpy": copy,
            "cudaMemcpyAsync": copy,
            "cudaMemcpyKind": _Anything(),
            "cudaStreamCreateWithFlags": lambda flags: (ok, object()),
            "cudaStreamNonBlocking": 1,
            "cudaStreamSynchronize": lambda stream: (ok,),
            "cudaStreamDestroy": lambda stream: (ok,),
            "cudaCreateChannelDesc": lambda *_: (ok, None),
            "cudaChannelFormatKind": _Anything(),
            "make_cudaExtent": lambda *extent: extent,
            "cudaMalloc3DArray": lambda *_: (ok, []),
            "cudaMemcpy3DParms": _Anything,
            "make_cudaPitchedPtr": lambda *pointer: pointer,
            "cudaMemcpy3D": copy_3d,
            "cudaResourceDesc": _Anything,
            "cudaResourceType": _Anything(),
            "cudaTextureDesc": _Anything,
            "cudaTextureAddressMode": _Anything(),
            "cudaTextureFilterMode": _Anything(),
            "cudaTextureReadMode": _Anything(),
            "cudaTextureObject_t": _Texture,
            "cudaCreateTextureObject": lambda desc, *_: (ok, _Texture(desc.res.array.array[0])),
            "cudaDestroyTextureObject": lambda texture: (ok,),
            "cudaFreeArray": lambda array: (ok,),
        }
        vars(runtime).update(named)
        return runtime

    def launch(self, stream: Any, config: Any, kernel: Any, *given: Any) -> None:
        """Run a kernel on memory that its arguments point to."""
        name, said = kernel
        self.launches.append(name)
        if self.fail_at_launch == len(self.launches):
            raise RuntimeError("CUDA error code=719(b'CUDA_ERROR_LAUNCH_FAILED')")
        n_vertices, view = int(said["DIMT"]), self.memory.view
        shape = [int(said[name]) for name in ("DIMX", "DIMY", "DIMZ")]
        if name.startswith("getNum"):
            n_seeds, seeds, volume, vertices, edges, _, starts = given
            permitted = None
        else:
            _, n_seeds, seeds, volume, permitted, vertices, edges, *rest = given
            starts, _, _, lengths, lines = rest
        places = view(seeds, np.float32, n_seeds, 3)
        key = said["RNG_SEED"].strip("(").partition("ull")[0]
        compiled = Kernel(
            volume=view(volume, np.float32, *shape, n_vertices),
            permitted=None if permitted is None else permitted.array,
            vertices=view(vertices, np.float32, n_vertices, 3),
            edges=view(edges, np.int32, int(said["NUM_EDGES"]), 2),
            threshold=float(said["TC_THRESHOLD"]),
            step=float(said["STEP_SIZE"]),
            cos_angle=np.cos(float(said["MAX_ANGLE"])),
            cos_separation=np.cos(float(said["MIN_SEPARATION_ANGLE"])),
            relative_peak=float(said["RELATIVE_PEAK_THRESH"]),
            pmf_threshold=float(said["PMF_THRESHOLD_P"]),
            key=int(key),
            texture_shift=0.5,
        )
        offsets = view(starts, np.int32, n_seeds + 1)
        if permitted is None:
            for place, seed in enumerate(places):
                offsets[place] = len(peaks_of(compiled, seed))
            return
        made, expected = walk(compiled, places)
        assert offsets.tolist() == expected.tolist()
        room = view(lines, np.float32, len(made), 2 * HALF, 3)
        written = view(lengths, np.int32, len(made))
        for line, (points, slot) in enumerate(zip(made, room, strict=True)):
            slot[: len(points)] = points
            written[line] = len(points)


@contextmanager
def pretend_cuda(n_devices: int = 1, free: int = 2**40) -> Iterator[Machine]:
    """Put a machine in the place of NVIDIA's packages, and load cuslines anew over it."""
    machine = Machine(n_devices, free)
    runtime = machine.runtime()
    ok = _Code(0)

    class Program:
        def __init__(self, source: str, code_type: str, options: Any) -> None:
            pairs = [pair.partition("=") for pair in options["define_macro"]]
            self.said = {name: value for name, _, value in pairs}
            machine.programs.append(self.said)

        def compile(self, kind: str, name_expressions: Any) -> Any:
            return SimpleNamespace(get_kernel=lambda name: (name, self.said))

    driver = ModuleType("cuda.bindings.driver")
    vars(driver).update(
        cuInit=lambda flags: (ok,),
        cuDeviceGet=lambda n: (ok, n),
        CUctxCreateParams=_Anything,
        cuCtxCreate=lambda *_: (ok, object()),
        CUresult=type("CUresult", (), {}),
    )
    nvrtc = ModuleType("cuda.bindings.nvrtc")
    vars(nvrtc).update(nvrtcResult=type("nvrtcResult", (), {}))
    contents: dict[str, dict[str, Any]] = {
        "cuda": {},
        "cuda.bindings": {"runtime": runtime, "driver": driver, "nvrtc": nvrtc},
        "cuda.cccl": {"get_include_paths": lambda: SimpleNamespace(libcudacxx="")},
        "cuda.core": {
            "Device": lambda: SimpleNamespace(set_current=lambda: None),
            "LaunchConfig": lambda **config: config,
            "Program": Program,
            "ProgramOptions": lambda **options: options,
            "launch": machine.launch,
        },
        "cuda.pathfinder": {"find_nvidia_header_directory": lambda name: ""},
    }
    modules: dict[str, ModuleType] = {}
    for name, content in contents.items():
        modules[name] = ModuleType(name)
        vars(modules[name]).update(content)
    modules |= {
        f"cuda.bindings.{m.__name__.rpartition('.')[2]}": m for m in (runtime, driver, nvrtc)
    }
    ours = [name for name in sys.modules if name.split(".")[0] in ("cuda", "cuslines")]
    before = {name: sys.modules.pop(name) for name in ours}
    sys.modules.update(modules)
    try:
        yield machine
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] in ("cuda", "cuslines")]:
            del sys.modules[name]
        sys.modules.update(before)


__all__ = ["Machine", "PretendSession", "pretend_cuda", "unit_mark", "walk"]

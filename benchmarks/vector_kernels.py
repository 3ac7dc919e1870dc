"""What each kernel written in vector instructions buys: the engine without it, in turn.

    python benchmarks/vector_kernels.py [--repeats N] [--algorithms prob,det,pft] [--variants ...]

Each kernel of `vectors` is replaced by its plain loop of `scalar`, one at a time; each variant is
compiled in a process of its own, and all track the same seeds of the phantom in turn. The table
has medians of paired ratios: CPU time without one of the vector kernels over CPU time with all of
them. The plain loops of interpolation emulate fused multiply-adds; "+fma" has those loops with the
processor's instruction instead, without which they would not stand a chance. All variants have to
give the same bytes; `--variants` takes others, such as `interpolate_blocks` or `all`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

FEWER_SEEDS = {"pft": 1000}
KERNELS = ("which_blocks", "interpolate_blocks", "find_largest", "count_reached", "gather_cells")
VARIANTS = (
    "which_blocks", "interpolate_blocks+fma", "find_largest+fma", "count_reached", "gather_cells",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--algorithms", default="prob,det")
    parser.add_argument("--variants", nargs="+", default=VARIANTS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    algorithms = arguments.algorithms.split(",")
    variants = ("none", *arguments.variants)
    if arguments.worker:
        work(arguments.worker, algorithms)
        return
    with tempfile.TemporaryDirectory() as folder:
        import kernels

        os.environ["COEFFICIENTS"] = f"{folder}/coefficients.npy"
        np.save(os.environ["COEFFICIENTS"], kernels.fodf().coefficients)
        workers = {}
        for name in variants:
            workers[name] = Worker(name, algorithms, Path(folder) / name)
            workers[name].ready()
            print(name, "is compiled", file=sys.stderr, flush=True)
        times: dict[str, dict[str, list[float]]] = {
            name: {kind: [] for kind in algorithms} for name in variants
        }
        for _ in range(arguments.repeats):
            for kind in algorithms:
                found = set()
                for name, worker in workers.items():
                    seconds, sha256 = worker.track(kind)
                    times[name][kind].append(seconds)
                    found.add(sha256)
                if len(found) != 1:
                    raise SystemExit(f"{kind}: not the same bytes")
        for worker in workers.values():
            worker.end()
    print("| plain loop for |", " | ".join(algorithms), "|")
    print("|---" * (len(algorithms) + 1) + "|")
    for name in variants[1:]:
        ratios = []
        for kind in algorithms:
            pairs = zip(times[name][kind], times["none"][kind], strict=True)
            ratios.append(f"{median(without / with_ for without, with_ in pairs):.2f}")
        print(f"| {name} |", " | ".join(ratios), "|")


class Worker:
    """A process that tracks with one variant."""

    def __init__(self, name: str, algorithms: list[str], cache: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker", name, "--algorithms", ",".join(algorithms)],
            # The stamp of compiled code does not know what is replaced here.
            env={**os.environ, "NUMBA_CACHE_DIR": str(cache)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._questions, self._answers = self._process.stdin, self._process.stdout

    def _read(self) -> str:
        line = self._answers.readline()
        if not line:
            raise SystemExit("a variant has failed")
        return line

    def ready(self) -> None:
        """Wait until it has compiled."""
        self._read()

    def track(self, kind: str) -> tuple[float, str]:
        """Return CPU seconds, and the hash of what was made."""
        self._questions.write(f"{kind}\n")
        self._questions.flush()
        seconds, sha256 = self._read().split()
        return float(seconds), sha256

    def end(self) -> None:
        """Let it end."""
        self._questions.close()
        self._process.wait()


def work(name: str, algorithms: list[str]) -> None:
    """Track what is asked for on standard input."""
    import kernels

    from bids_tractography.core.fodf import Fodf
    from bids_tractography.tracking.cpu.kernels import (
        amplitudes,
        arithmetic,
        field,
        scalar,
        vertices,
    )

    what, _, how = name.partition("+")
    if how == "fma":
        setattr(scalar, "fused_multiply_add", hardware_fma())  # noqa: B010  # of another type
    replaced = KERNELS if what == "all" else () if what == "none" else (what,)
    for module in (amplitudes, arithmetic, field, vertices):
        for kernel in set(replaced) & set(vars(module)):
            # Nothing has been compiled yet.
            setattr(module, kernel, getattr(scalar, kernel))

    fodf = Fodf(np.load(os.environ["COEFFICIENTS"]), kernels.scan()[0].grid)
    setattr(kernels, "fodf", lambda: fodf)  # noqa: B010  # of another type
    engines = {kind: kernels.make_engine(kind) for kind in algorithms}
    from_seeds = {kind: kernels.seeds(FEWER_SEEDS.get(kind, 2500)) for kind in algorithms}
    for kind, engine in engines.items():
        engine.track(from_seeds[kind])
    print("ready", flush=True)
    for line in sys.stdin:
        kind = line.strip()
        start = time.process_time()
        batch = engines[kind].track(from_seeds[kind])
        seconds = time.process_time() - start
        print(seconds, hashlib.sha256(batch.points_mm.tobytes()).hexdigest(), flush=True)


def hardware_fma() -> object:
    """Make a kernel of LLVM's fused multiply-add."""
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic

    @intrinsic
    def fma(_context, one, other, term):  # type: ignore[no-untyped-def]
        def generate(_context, builder, _signature, arguments):  # type: ignore[no-untyped-def]
            kind = ir.FloatType()
            function = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(kind, [kind] * 3), "llvm.fma.f32"
            )
            return builder.call(function, arguments)

        return types.float32(types.float32, types.float32, types.float32), generate

    return fma


if __name__ == "__main__":
    main()

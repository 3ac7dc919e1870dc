"""Give damaged files to every reader, and count what is not a clear refusal.

Whatever a file holds, a reader returns or raises one of our errors, within seconds and within the
memory that the file's size allows. And of a compressed image no flipped bit changes a voxel
without an error.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from hostile import Kind, damaged, kinds

from bids_tractography.errors import TractographyError

LIMIT_S, LIMIT_BYTES = 10, 6 << 30


class Hang(BaseException):
    """A reader took too long."""


def _alarm(*_: Any) -> None:
    raise Hang


def outcome(kind: Kind, path: Path) -> str:
    """Read a file and name what came of it."""
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        kind.read(path)
    except TractographyError as error:
        return f"refused ({error.exit_code})"
    except Hang:
        return "HANG"
    except Exception:  # noqa: BLE001 - it is what is looked for
        traceback.print_exc()
        return "TRACEBACK"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return "read"


def flipped_silently(kind: Kind, path: Path, draw: random.Random) -> bool:
    """Flip one bit of a compressed image and tell whether other voxels come out of it."""
    content = bytearray(kind.content)
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(kind.content)
    sound = kind.read(path)
    path.write_bytes(content)
    try:
        return not np.array_equal(kind.read(path), sound)
    except TractographyError:
        return False


def main(minutes: float, seed: int, keep: Path | None) -> int:
    """Fuzz until the time is over; return 1 if anything was not as it should be."""
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    signal.signal(signal.SIGALRM, _alarm)
    logging.disable()
    warnings.simplefilter("ignore")
    draw, counts, flips, silent = random.Random(seed), Counter[str](), 0, 0
    slowest = 0.0, ""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = kinds(folder / "samples")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        end = time.monotonic() + 60 * minutes
        while time.monotonic() < end:
            kind = draw.choice(list(samples.values()))
            path = folder / kind.name
            path.write_bytes(damaged(kind, draw))
            begin = time.monotonic()
            result = outcome(kind, path)
            slowest = max(slowest, (time.monotonic() - begin, kind.name))
            counts[result] += 1
            if result.isupper() and keep:
                keep.mkdir(exist_ok=True)
                (keep / f"{counts.total()}_{kind.name}").write_bytes(path.read_bytes())
            path.unlink()
            if kind.name.endswith(".nii.gz"):
                flips += 1
                silent += flipped_silently(kind, path, draw)
                path.unlink()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("| outcome | cases |\n|---|---|")
    for result, count in sorted(counts.items()):
        print(f"| {result} | {count} |")
    print(
        f"\n{counts.total()} cases, seed {seed}; slowest {slowest[0]:.2f} s ({slowest[1]}); "
        f"peak memory {peak:.0f} MiB ({before:.0f} MiB before).\n{flips} single-bit flips of "
        f"compressed images: {silent} changed voxels without an error."
    )
    return int(bool(counts["HANG"] + counts["TRACEBACK"] + silent))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the files that were not refused")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main(options.minutes, options.seed, options.keep))

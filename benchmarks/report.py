"""What the reports of an output dataset take: CPU time, peak memory, size of the pages.

    python benchmarks/report.py OUTPUT_DIR [--repeats N]

Makes each report again from the derivatives, in a process of its own (``--reports-only`` on one
run), on one thread, start-up included.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from programs import describe_machine, measure, print_table

ONE = """
import sys
from pathlib import Path
from bids_tractography.report.data import find_runs
from bids_tractography.report.run import write_run_report
root, name = Path(sys.argv[1]), sys.argv[2]
write_run_report(root, name, find_runs(root)[name])
"""


def main() -> None:
    """Print a row for each run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(f"{describe_machine('bids-tractography', 'numba', 'pillow')}\n")
    print_table(_rows(options.output, options.repeats))


def _rows(output: Path, repeats: int) -> Iterator[Mapping[str, str]]:
    for sidecar in sorted(output.rglob("*_tractogram.json")):
        record = json.loads(sidecar.read_text())["BidsTractography"]
        name = sidecar.name.partition("_tract-")[0]
        used = [measure([sys.executable, "-c", ONE, output, name]) for _ in range(repeats)]
        yield {
            "run": name,
            "streamlines": f"{record['streamlines_kept']:,}",
            "points": f"{record['points']:,}",
            "CPU s, median": f"{statistics.median(each.cpu_s for each in used):.1f}",
            "wall s, median": f"{statistics.median(each.wall_s for each in used):.1f}",
            "peak MiB": f"{max(each.peak_gib for each in used) * 1024:.0f}",
            "page MB": f"{(output / f'{name}.html').stat().st_size / 1e6:.2f}",
        }


if __name__ == "__main__":
    main()

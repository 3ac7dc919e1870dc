"""One participant here and on Ray clusters of this machine: the same bytes, and the time of each.

    python benchmarks/ray_nodes.py BIDS_DIR LABEL [--seeds N] [--batch-size N]

Nodes are processes of this machine with a share of its cores; one of three is killed when some
batches are there. A Markdown table is printed; the exit code is 1 if files differ. Time of
tracking is from the opening of the batch store to its last batch: Ray starts its workers in it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from programs import print_table

from bids_tractography.outputs.provenance import sha256_of_file
from bids_tractography.outputs.run import read_record

BATCHES_BEFORE_DEATH = 3
Row = tuple[float, float, float, str]  # whole run and tracking in s, seeds/s, SHA-256 of the files


@dataclass
class Ledger:
    """What is seen of the batches of a DWI run; the first line is no batch."""

    lines: int
    began: float
    ended: float


def look(output: Path, ledgers: dict[Path, Ledger]) -> None:
    """Look how many batches are there."""
    for path in (output / ".work").rglob("ledger.jsonl"):
        with suppress(FileNotFoundError):
            lines, now = len(path.read_bytes().splitlines()), time.perf_counter()
            seen = ledgers.setdefault(path, Ledger(lines, now, now))
            if lines > seen.lines:
                seen.lines, seen.ended = lines, now


def run(words: list[str], output: Path, kill: Callable[[], None] | None = None) -> Row:
    """Run the command line, and kill something when some batches are there."""
    command = [sys.executable, "-m", "bids_tractography", words[0], str(output), "participant"]
    ledgers: dict[Path, Ledger] = {}
    begin = time.perf_counter()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([*command, *words[1:]], stdout=log, stderr=log)
        while process.poll() is None:
            look(output, ledgers)
            if kill and any(seen.lines > BATCHES_BEFORE_DEATH for seen in ledgers.values()):
                kill()
                kill = None
            time.sleep(0.02)
        seconds = time.perf_counter() - begin
        log.seek(0)
        if process.returncode:
            sys.exit(log.read())
    if kill:
        sys.exit("the run ended before the node was killed: give it more seeds")
    paths = sorted(output.glob("sub-*/**/*_tractogram.trx"))
    seeds = sum(read_record(path)["seeds"] for path in paths)
    tracking = sum(seen.ended - seen.began for seen in ledgers.values())
    hashes = [sha256_of_file(path) for path in paths]
    return seconds, tracking, seeds / tracking, " ".join(hashes)


def on_nodes(cpus: list[int], words: list[str], output: Path, *, kill: bool) -> Row:
    """Run on a cluster; the first of these nodes holds it together, the last may be killed."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus[0]})
    try:
        others = [cluster.add_node(num_cpus=count) for count in cpus[1:]]
        words = [*words, "--executor", "ray", "--ray-address", cluster.address]
        if not kill:
            return run(words, output)
        return run(words, output, lambda: cluster.remove_node(others[-1], allow_graceful=False))
    finally:
        cluster.shutdown()


def main() -> int:
    """Print the table; return 1 if files differ."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bids_dir")
    parser.add_argument("label")
    parser.add_argument("--seeds", type=int, default=200_000)
    parser.add_argument("--batch-size", type=int, default=5000)
    options = parser.parse_args()
    n_cpus = len(os.sched_getaffinity(0))
    words = [
        *(options.bids_dir, "--participant-label", options.label),
        *("--set", "seeding.rng_seed=1", "--set", f"tracking.batch_size={options.batch_size}"),
        *("--set", f"seeding.seeds={json.dumps({'kind': 'total', 'count': options.seeds})}"),
    ]
    all_threads, one_thread = ([*words, "--omp-nthreads", str(n)] for n in (n_cpus, 1))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        rows = {
            f"here, {n_cpus} threads": run(all_threads, out / "here"),
            f"Ray, 1 node of {n_cpus} CPUs": on_nodes(
                [n_cpus], one_thread, out / "one", kill=False
            ),
            "Ray, 3 nodes of 1 CPU": on_nodes([1, 1, 1], one_thread, out / "three", kill=False),
            "Ray, 3 nodes, one killed": on_nodes([1, 1, 1], one_thread, out / "killed", kill=True),
        }
    print_table(
        {
            "where": where,
            "whole run, s": f"{seconds:.1f}",
            "tracking, s": f"{tracking:.1f}",
            "seeds/s": f"{rate:.0f}",
            "SHA-256": " ".join(sha256[:12] for sha256 in hashes.split()),
        }
        for where, (seconds, tracking, rate, hashes) in rows.items()
    )
    return int(len({row[-1] for row in rows.values()}) > 1)


if __name__ == "__main__":
    sys.exit(main())

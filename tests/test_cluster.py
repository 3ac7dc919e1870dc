"""Ray: the same bytes as on this machine alone, whatever dies on the way."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import QUICK, run_cli, sidecar, tractograms

from bids_tractography.provenance import RECORD_KEY

SMALL_BATCHES = "tracking.batch_size=50"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_without_ray_the_error_says_what_to_install(
    scanned_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    ended = run_cli(scanned_once, tmp_path / "out", "participant", "--executor", "ray")
    assert ended.returncode == 69
    assert "bids-tractography[ray]" in ended.stderr


def test_an_address_without_ray_is_refused(scanned_once: Path, tmp_path: Path) -> None:
    ended = run_cli(scanned_once, tmp_path / "out", "participant", "--ray-address", "auto")
    assert ended.returncode == 64


def on_ray(dataset: Path, output: Path, *words: str) -> subprocess.Popen[str]:
    settings = [word for override in (*QUICK, SMALL_BATCHES) for word in ("--set", override)]
    command = [sys.executable, "-m", "bids_tractography", dataset, output, "participant"]
    options = ["--executor", "ray", "--omp-nthreads", "1", *words, *settings]
    return subprocess.Popen(
        [*map(str, command), *options], stderr=subprocess.PIPE, text=True, env={**os.environ}
    )


@pytest.mark.slow
def test_a_cluster_gives_the_same_bytes(finished, scanned_once: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    process = on_ray(scanned_once, tmp_path / "out")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    (path,), (expected,) = tractograms(tmp_path / "out"), tractograms(finished[0])
    assert sha256(path) == sha256(expected)
    assert sidecar(path)[RECORD_KEY]["batches"] == 12


@pytest.mark.slow
def test_a_node_that_dies_costs_its_batches_only(
    finished, scanned_once: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        doomed = cluster.add_node(num_cpus=1)
        cluster.add_node(num_cpus=1)
        process = on_ray(scanned_once, tmp_path / "out", "--ray-address", cluster.address)

        def kill_in_mid_run() -> None:
            ledger = tmp_path / "out" / ".work"
            while process.poll() is None:
                if any(len(p.read_text().splitlines()) > 2 for p in ledger.rglob("ledger.jsonl")):
                    cluster.remove_node(doomed, allow_graceful=False)
                    return
                time.sleep(0.02)

        killer = threading.Thread(target=kill_in_mid_run)
        killer.start()
        _, errors = process.communicate(timeout=300)
        killer.join()
        assert process.returncode == 0, errors
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        cluster.shutdown()
    (path,), (expected,) = tractograms(tmp_path / "out"), tractograms(finished[0])
    assert sha256(path) == sha256(expected)

from __future__ import annotations

import contextlib
import io
import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trx.trx_file_memmap import load as load_trx

from bids_tractography.cli.main import main
from bids_tractography.phantom import Phantom, ScanGrid, make_phantom, write_dwi

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "data"
SHARED_DATA = ROOT.parent / "shared" / "data"  # what cannot be redistributed

# Enough for every bundle of the phantom, in seconds.
QUICK = (
    "seeding.rng_seed=11",
    "seeding.seeds={kind: total, count: 600}",
    "tracking.algorithm.step_size_mm=1",
)


@dataclass(frozen=True)
class Ended:
    returncode: int
    stdout: str
    stderr: str


def run_cli(*words: object, overrides: tuple[str, ...] = QUICK, report: bool = False) -> Ended:
    """Run the command line in this process, where a warning is an error."""
    if "participant" in words and not report:
        words += ("--no-report",)
    settings = [word for override in overrides for word in ("--set", override)]
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            code = main([*map(str, words), *settings])
        except SystemExit as exit_:  # argparse
            code = int(exit_.code or 0)
        finally:
            logging.captureWarnings(capture=False)
    return Ended(code, stdout.getvalue(), stderr.getvalue())


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Points (N, 3) and offsets (T + 1,) of a TRX file."""
    trx = load_trx(str(path))
    try:
        points = np.array(trx.streamlines._data)
        yield points, np.append(trx.streamlines._offsets, len(points)).astype(int)
    finally:
        trx.close()


def sidecar(path: Path) -> dict[str, Any]:
    text = path.with_name(path.name.split(".")[0] + ".json").read_text()
    content: dict[str, Any] = json.loads(text)
    return content


def tractograms(output: Path) -> list[Path]:
    return sorted(output.glob("sub-*/**/*_tractogram.trx"))


def write_description(root: Path, **fields: object) -> None:
    root.mkdir(parents=True, exist_ok=True)
    content = {"Name": "test", "BIDSVersion": "1.10.0", **fields}
    (root / "dataset_description.json").write_text(json.dumps(content))


@pytest.fixture(scope="session")
def phantom() -> Phantom:
    return make_phantom()


@pytest.fixture(scope="session")
def scanned_once(tmp_path_factory: pytest.TempPathFactory, phantom: Phantom) -> Path:
    """A raw dataset of one participant with one run, at 3 mm."""
    root = tmp_path_factory.mktemp("once")
    write_description(root, DatasetType="raw")
    (root / "sub-01" / "dwi").mkdir(parents=True)
    grid = ScanGrid("LAS", (3.0, 3.0, 3.0))
    write_dwi(root / "sub-01" / "dwi" / "sub-01_dwi", phantom, grid)
    return root


@pytest.fixture
def dataset(scanned_once: Path, tmp_path: Path) -> Path:
    """A copy of `scanned_once` that a test may damage."""
    return Path(shutil.copytree(scanned_once, tmp_path / "dataset"))


@pytest.fixture
def two_participants(dataset: Path) -> Path:
    """The same scan of two participants, for two runs at a time."""
    folder = dataset / "sub-02" / "dwi"
    folder.mkdir(parents=True)
    for path in (dataset / "sub-01" / "dwi").iterdir():
        shutil.copy(path, folder / path.name.replace("sub-01", "sub-02"))
    return dataset


@pytest.fixture(scope="session")
def finished(scanned_once: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """Output of an uninterrupted run on `scanned_once`, and how the command ended."""
    output = tmp_path_factory.mktemp("finished") / "output"
    return output, run_cli(scanned_once, output, "participant")

"""Report versions, engines and executors of this machine, and track a small phantom on each."""

from __future__ import annotations

import os
import platform
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from trx.trx_file_memmap import load as load_trx

from bids_tractography import __version__
from bids_tractography.app.cluster import try_ray
from bids_tractography.app.outcome import Failure
from bids_tractography.app.request import Request, open_study
from bids_tractography.app.run import run
from bids_tractography.config import Config
from bids_tractography.config.tracking import SeedingConfig, TotalSeedsConfig, TrackingConfig
from bids_tractography.errors import UnavailableError
from bids_tractography.outputs.provenance import RECORDED_LIBRARIES
from bids_tractography.outputs.run import read_record
from bids_tractography.phantom import write_phantom
from bids_tractography.pipeline.process import Done
from bids_tractography.tracking import ENGINES
from bids_tractography.tracking.base import EngineKind
from bids_tractography.tractogram.summary import ContentHash

_LIBRARIES = (*RECORDED_LIBRARIES, "cuslines", "ray")
_SEEDS = 500
_RNG_SEED = 1


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report.

    Parameters
    ----------
    subject : str
        What was looked at.
    healthy : bool or None
        None where it is neither good nor bad.
    text : str
    """

    subject: str
    healthy: bool | None
    text: str


def examine(n_threads: int) -> Iterator[Finding]:
    """Examine the machine, and track a small phantom on every engine and executor.

    Parameters
    ----------
    n_threads : int
        Threads of the trial runs.
    """
    yield Finding("program", None, f"bids_tractography {__version__}")
    yield Finding("python", None, f"{platform.python_version()} on {platform.platform()}")
    yield Finding("machine", None, _machine(n_threads))
    for name in _LIBRARIES:
        try:
            yield Finding(name, True, version(name))
        except PackageNotFoundError:
            yield Finding(name, None, "not installed")
    for kind in ENGINES.values():
        algorithms, stopping = ", ".join(sorted(kind.algorithms)), ", ".join(sorted(kind.stopping))
        yield Finding(f"engine {kind.name}", None, f"{algorithms}; stopping: {stopping}")
    with tempfile.TemporaryDirectory() as folder:
        dataset = write_phantom(Path(folder) / "phantom")
        for kind in ENGINES.values():
            missing = kind.unavailable(TrackingConfig())
            if missing:
                yield Finding(f"trial of {kind.name}", None, f"not on this machine: {missing}")
                continue
            yield _trial(kind, dataset, Path(folder) / kind.name, n_procs=1, n_threads=n_threads)
        best = next(iter(ENGINES.values()))
        yield _trial(best, dataset, Path(folder) / "processes", n_procs=2, n_threads=1)
    yield from examine_ray()


def examine_ray() -> Iterator[Finding]:
    """Start Ray on this machine and stop it, if it is installed."""
    if find_spec("ray") is None:
        return
    begin = time.perf_counter()
    try:
        try_ray()
    except UnavailableError as error:
        yield Finding("trial of ray", healthy=False, text=str(error))
        return
    seconds = time.perf_counter() - begin
    yield Finding("trial of ray", healthy=True, text=f"a task done here, {seconds:.0f} s in all")


def _machine(n_threads: int) -> str:
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    gib = pages * page_bytes / 2**30
    return f"{os.cpu_count()} cores, of which {n_threads} are ours; {gib:.0f} GiB of memory"


def _trial(
    kind: EngineKind, dataset: Path, output: Path, *, n_procs: int, n_threads: int
) -> Finding:
    """Run the whole method on the phantom."""
    subject = f"trial of {kind.name}" + (f", {n_procs} processes" if n_procs > 1 else "")
    config = Config(
        seeding=SeedingConfig(seeds=TotalSeedsConfig(count=_SEEDS), rng_seed=_RNG_SEED),
        tracking=TrackingConfig(engine=kind.name),
    )
    request = Request(
        bids_dir=dataset,
        output_dir=output,
        work_dir=output / ".work",
        config=config,
        participants=("01",) if n_procs == 1 else ("02",),
        n_procs=n_procs,
        n_threads=n_threads,
    )
    begin = time.perf_counter()
    outcomes = dict(run(request, open_study(request), lambda _: None))
    seconds = time.perf_counter() - begin
    failures = [outcome for outcome in outcomes.values() if isinstance(outcome, Failure)]
    if failures:
        return Finding(subject, healthy=False, text=failures[0].message)
    paths = [d.result for d in outcomes.values() if isinstance(d, Done) and d.result is not None]
    records = [read_record(path) for path in paths]
    for path, record in zip(paths, records, strict=True):
        fault = compare_with_trx_python(path, record["content_sha256"])
        if fault:
            return Finding(subject, healthy=False, text=fault)
    kept, seeds = (sum(r[key] for r in records) for key in ("streamlines_kept", "seeds"))
    tracking = sum(record["seconds"]["tracking"] for record in records)
    text = f"{kept} streamlines of {seeds} seeds in {tracking:.1f} s, {seconds:.0f} s in all"
    return Finding(subject, healthy=True, text=f"{text}; trx-python reads the same streamlines")


def compare_with_trx_python(path: Path, content_sha256: str) -> str | None:
    """Read a TRX file with the format's reference library and compare what it finds.

    Parameters
    ----------
    path : Path
        A small file: it is read into memory.
    content_sha256 : str
        Hash of the streamlines that were written, see `ContentHash`.

    Returns
    -------
    str or None
        The difference, or why trx-python cannot read the file; None if the content is the same.
    """
    content = ContentHash()
    try:
        trx = load_trx(str(path))
        try:
            points = np.asarray(trx.streamlines.get_data(), np.float32).reshape(-1, 3)
            lengths = np.array([len(line) for line in trx.streamlines], np.uint32)
        finally:
            trx.close()
    except (
        *(OSError, ValueError, TypeError, LookupError, AttributeError),
        zipfile.BadZipFile,
    ) as error:
        return f"trx-python cannot read {path.name}: {error}"
    content.add(points)
    if content.finish([lengths]) != content_sha256:
        return f"trx-python finds other streamlines in {path.name} than were written"
    return None

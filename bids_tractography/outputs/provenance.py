"""Provenance of files: hashes, versions, resources, and the record in each sidecar."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue

from bids_tractography import __version__
from bids_tractography.config import Config
from bids_tractography.machine.files import open_input

logger = logging.getLogger(__name__)

RECORD_KEY = "BidsTractography"
RECORD_VERSION = 4
RESULTS_VERSION = 2
"""Raised when the same inputs and configuration give other results, so that they are recomputed."""

DECISIVE_LIBRARIES = ("dipy", "nibabel", "numba", "numpy", "scipy")
"""Libraries whose version can change the results."""
RECORDED_LIBRARIES = (*DECISIVE_LIBRARIES, "pybids", "pydantic", "trx-python")


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with open_input(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(value: Any) -> str:
    """Return the SHA-256 of a JSON value, regardless of the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def hash_of_sidecar(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the content of a sidecar without the field that holds the hash.

    Raises
    ------
    KeyError, TypeError
        If the sidecar does not have a record.
    """
    record = {k: v for k, v in content[RECORD_KEY].items() if k != "sidecar_sha256"}
    return sha256_of_json({**content, RECORD_KEY: record})


def config_hash(config: Config) -> str:
    """Return the hash of all settings that affect the tractogram.

    The engine is omitted because the record names it together with its version, the formats
    because they all hold the same streamlines.
    """
    return sha256_of_json(decisive_settings(config))


def decisive_settings(config: Config) -> dict[str, Any]:
    """Return the settings that affect the streamlines and their points, JSON values."""
    nothing: dict[str, Any] = {
        "output": {"name", "formats", "keep"},
        "tracking": {"batch_size", "engine", "ngpus"},
        "tensor": {"v1"},
        "gradients": {"check"},
        "checks": ...,
    }
    return config.model_dump(mode="json", exclude=nothing)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Fingerprint(_Model):
    """Everything that the content of a file depends on: equal fingerprints mean equal files."""

    inputs: str
    """Hash of the contents of all input files, by role."""
    config: str
    """Hash of the settings that the file depends on."""
    software: str
    """Versions that can change the results."""

    def differences(self, other: Fingerprint) -> list[str]:
        """Describe the parts that differ."""
        names = {
            "inputs": "different inputs",
            "config": "a different configuration",
            "software": "a different software version",
        }
        return [text for key, text in names.items() if getattr(self, key) != getattr(other, key)]


def software_fingerprint() -> str:
    """Return the versions that can change the results, as one line."""
    versions = [f"{name} {version(name)}" for name in DECISIVE_LIBRARIES]
    return ", ".join([f"bids_tractography {__version__} ({RESULTS_VERSION})", *versions])


class InputFile(_Model):
    """An input file."""

    role: str
    """What the file is for, e.g. ``dwi``, ``bvec``, ``tissue.wm``."""
    uri: str
    """BIDS URI, whose dataset is in ``DatasetLinks``; a file URI outside of all datasets."""
    sha256: str
    """SHA-256 of the bytes."""


class Environment(_Model):
    """Software and machine; results depend on the software only."""

    python: str
    platform: str
    libraries: dict[str, str]
    container: dict[str, str] | None


def environment(container: dict[str, str] | None) -> Environment:
    """Describe the environment of this process."""
    return Environment(
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        libraries={name: version(name) for name in RECORDED_LIBRARIES},
        container=container,
    )


class Record(_Model):
    """Record of this program in the sidecar of any file."""

    record_version: int = RECORD_VERSION
    """Version of the fields of this record."""
    fingerprint: Fingerprint
    """Hashes of all that the content of the file depends on."""
    version: str = __version__
    """Version of the program."""
    details: dict[str, JsonValue] = {}
    """Values that were resolved for this file, e.g. a response or a threshold."""
    file_sha256: dict[str, str] = {}
    """Hashes of the files that the sidecar describes, by name."""
    file_bytes: dict[str, int] = {}
    """Sizes of these files in bytes."""
    source_sha256: dict[str, str] = {}
    """Hashes that the sources in this dataset had, by URI."""
    sidecar_sha256: str = ""
    """Hash of the content of the sidecar without this field, see `hash_of_sidecar`."""


class _TractogramRecordBase(Record):
    config: Config
    """The configuration, with all keys."""
    config_hash: str
    """SHA-256 of the settings that affect the streamlines."""
    inputs: list[InputFile]
    """Input files with their hashes."""
    environment: Environment
    """Versions of Python and libraries, platform, and container image."""
    points: int
    """Number of points of all streamlines, before any linearisation."""
    length_quantiles_mm: dict[str, float]
    """Quantiles of the length of the kept streamlines."""
    content_sha256: str
    """SHA-256 of points and offsets, which is the same for all formats."""
    warnings: list[str]
    """Warnings of the run."""
    checks: dict[str, JsonValue]
    """Measurements that were checked for plausibility, by name."""
    seconds: dict[str, float]
    """Wall time of each stage."""
    cpu_seconds: dict[str, float]
    """CPU time of each stage."""
    peak_memory_mib: float
    """Maximum resident set size of the process."""


class ImportRecord(_TractogramRecordBase):
    """Record in the sidecar of a tractogram that was created by other software."""

    mode: str
    """Whether the file was copied or linked."""
    format: str
    """Format of the imported file."""
    streamlines: int
    """Number of streamlines."""
    points_inside: float
    """Share of the points that are inside the image."""
    source_generated_by: list[JsonValue]
    """``GeneratedBy`` of its dataset."""
    source_sidecar: dict[str, JsonValue] | None
    """Content of its sidecar."""


class TractogramRecord(_TractogramRecordBase):
    """Record in the sidecar of a tractogram, sufficient to reproduce the file."""

    model: dict[str, JsonValue]
    """What the model resolved to: shell, order, response."""
    gradients: dict[str, JsonValue]
    """File and frame of the b-vectors, and the reason for the frame."""
    engine: str
    """Implementation of the tracking."""
    engine_version: str
    """Version of the library that the engine consists of."""
    engine_differences: list[str]
    """How the engine departs from the method as documented."""
    threads: int
    """Threads of the run, which do not affect the result."""
    rng_seed: int
    """Seed of all random numbers, chosen at random if the configuration sets none."""
    batches: int
    """Number of batches of seeds."""
    seeds: int
    """Number of seeds."""
    goal: dict[str, JsonValue] | None = None
    """What ended tracking where the number of seeds was not given, and whether it was reached."""
    seed_voxels: int | None
    """Number of voxels of the seed mask; null for seeds from a file."""
    seeds_without_direction: int
    """Seeds where the fODF has no peak, or outside of the image."""
    streamlines_generated: int
    """Streamlines started: those kept plus those rejected."""
    streamlines_kept: int
    """Streamlines in the file."""
    streamlines_rejected: dict[str, int]
    """Numbers of rejected streamlines by the first reason that applies."""
    ends: dict[str, int]
    """Numbers of ends of the generated streamlines by reason; two for each streamline."""
    linearised: dict[str, float] | None
    """Share of the points that were written, and the error in mm; counts refer to all points."""


@dataclass
class Stopwatch:
    """Wall and CPU time of named stages, in seconds; `entered` is called with each that begins."""

    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    entered: Callable[[str], None] = lambda _: None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent in the block to a stage."""
        self.entered(name)
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
            self.add(name, seconds, cpu_seconds)
            logger.debug(
                "%s took %.1f s (%.1f s of CPU); peak of memory so far: %.0f MiB.",
                name, seconds, cpu_seconds, peak_memory_mib(),
            )  # fmt: skip

    def add(self, name: str, seconds: float, cpu_seconds: float) -> None:
        """Add time to a stage.

        Parameters
        ----------
        name : str
            Name of the stage.
        seconds, cpu_seconds : float
            Wall and CPU time.
        """
        self.seconds[name] = round(self.seconds.get(name, 0) + seconds, 3)
        self.cpu_seconds[name] = round(self.cpu_seconds.get(name, 0) + cpu_seconds, 3)


def peak_memory_mib() -> float:
    """Return the maximum resident set size of this process in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    per_mib = 1024 if platform.system() == "Linux" else 1024**2  # KiB; bytes on macOS
    return round(peak / per_mib, 1)

"""Where a file comes from: hashes, versions, resources, and the record in its sidecar."""

from __future__ import annotations

import hashlib
import json
import platform
import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue

from bids_tractography import __version__
from bids_tractography.config import Config
from bids_tractography.machine.files import open_input

RECORD_KEY = "BidsTractography"
RECORD_VERSION = 3

# Versions that decide what comes out.
_DECISIVE = ("dipy", "nibabel", "numba", "numpy", "scipy")
_RECORDED = (*_DECISIVE, "pybids", "pydantic", "trx-python")


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with open_input(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(value: Any) -> str:
    """Return the SHA-256 of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def hash_of_sidecar(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the JSON content of a sidecar, without the field that holds it.

    Raises
    ------
    KeyError, TypeError
        If there is no record of ours in it.
    """
    record = {k: v for k, v in content[RECORD_KEY].items() if k != "sidecar_sha256"}
    return sha256_of_json({**content, RECORD_KEY: record})


def config_hash(config: Config) -> str:
    """Hash what the configuration says about the result.

    What changes nothing of the tractogram is left out; the engine is named with its version.
    """
    nothing: dict[str, Any] = {
        "tracking": {"batch_size", "engine", "ngpus"},
        "tensor": {"v1"},
        "gradients": {"check"},
        "checks": ...,
    }
    return sha256_of_json(config.model_dump(mode="json", exclude=nothing))


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Fingerprint(_Model):
    """What a file is a function of: equal fingerprints, equal file."""

    inputs: str
    """Of the contents of all input files, by role."""
    config: str
    """Of the parts of the configuration that the file depends on."""
    software: str
    """Versions that decide what comes out."""

    def differences(self, other: Fingerprint) -> list[str]:
        """Name the parts that differ."""
        names = {"inputs": "inputs", "config": "configuration", "software": "software version"}
        return [text for key, text in names.items() if getattr(self, key) != getattr(other, key)]


def software_fingerprint() -> str:
    """Versions that decide what comes out, as one line."""
    versions = [f"{name} {version(name)}" for name in _DECISIVE]
    return ", ".join([f"bids_tractography {__version__}", *versions])


class InputFile(_Model):
    """A file that was read."""

    role: str
    uri: str
    sha256: str


class Environment(_Model):
    """Software and machine; the result depends on the software alone."""

    python: str
    platform: str
    libraries: dict[str, str]
    container: dict[str, str] | None


def environment(container: dict[str, str] | None) -> Environment:
    """Describe this process."""
    return Environment(
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        libraries={name: version(name) for name in _RECORDED},
        container=container,
    )


class Record(_Model):
    """Our record in the sidecar of any file."""

    record_version: int = RECORD_VERSION
    fingerprint: Fingerprint
    version: str = __version__
    details: dict[str, JsonValue] = {}
    file_sha256: dict[str, str] = {}
    """Of the files that the sidecar is about, by name."""
    file_bytes: dict[str, int] = {}
    """Sizes of these files."""
    sidecar_sha256: str = ""
    """Of the content of the sidecar without this field, see `hash_of_sidecar`."""


class _Made(Record):
    config: Config
    config_hash: str
    inputs: list[InputFile]
    environment: Environment
    points: int
    length_quantiles_mm: dict[str, float]
    content_sha256: str
    warnings: list[str]
    checks: dict[str, JsonValue]
    """Figures that were held against their usual ranges, by name."""
    seconds: dict[str, float]
    cpu_seconds: dict[str, float]
    peak_memory_mib: float


class ImportRecord(_Made):
    """Our record in the sidecar of a tractogram that was made elsewhere."""

    mode: str
    format: str
    streamlines: int
    points_inside: float
    """Share of the points that lie in the image."""
    source_generated_by: list[JsonValue]
    """What its dataset says made it."""
    source_sidecar: dict[str, JsonValue] | None
    """What stands beside it."""


class TractogramRecord(_Made):
    """Our record in the sidecar of a tractogram: enough to make the file again."""

    model: dict[str, JsonValue]
    gradients: dict[str, JsonValue]
    """File and frame of the b-vectors, and why that frame."""
    engine: str
    engine_version: str
    engine_differences: list[str]
    threads: int
    rng_seed: int
    batches: int
    seeds: int
    seed_voxels: int | None
    seeds_without_direction: int
    streamlines_generated: int
    streamlines_kept: int
    streamlines_rejected: dict[str, int]
    ends: dict[str, int]
    linearised: dict[str, float] | None
    """Share of the points written, and the error in mm; the counts here are before it."""


@dataclass
class Stopwatch:
    """Wall and CPU seconds of named stages."""

    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - wall, time.process_time() - cpu)

    def add(self, name: str, seconds: float, cpu_seconds: float) -> None:
        """Add time to a stage."""
        self.seconds[name] = round(self.seconds.get(name, 0) + seconds, 3)
        self.cpu_seconds[name] = round(self.cpu_seconds.get(name, 0) + cpu_seconds, 3)


def peak_memory_mib() -> float:
    """Return the largest resident size that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    per_mib = 1024 if platform.system() == "Linux" else 1024**2  # KiB, or bytes on macOS
    return round(peak / per_mib, 1)

"""The record of a tractogram, read in order to run it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from bids_tractography.config import Config
from bids_tractography.config.load import validate_config
from bids_tractography.errors import ConfigError, DataError, NoInputError
from bids_tractography.machine.files import exists, printable, read_json_file
from bids_tractography.outputs.dataset import linked_datasets, parse_uri
from bids_tractography.outputs.names import file_of_sidecar, sidecar_path
from bids_tractography.outputs.provenance import RECORD_KEY, InputFile, hash_of_sidecar
from bids_tractography.tractogram.formats.table import extension_of

_GIVE = "Give the JSON file of a tractogram, *_tractogram.json."


class _Part(BaseModel):
    """What is read of a record: records of other versions have fewer fields, or more."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class RecordedEnvironment(_Part):
    """Software and machine."""

    python: str
    platform: str
    libraries: dict[str, str]
    container: dict[str, str] | None = None


class Recorded(_Part):
    """What is needed to run a tractogram again, and to compare what comes out."""

    version: str
    config: dict[str, JsonValue]
    inputs: tuple[InputFile, ...]
    environment: RecordedEnvironment
    sidecar_sha256: str
    content_sha256: str
    file_sha256: dict[str, str]
    mode: str | None = None
    """How the tractogram was imported; None if it was tracked."""
    engine: str | None = None
    engine_version: str | None = None
    rng_seed: int | None = None
    gradients: dict[str, JsonValue] = {}
    model: dict[str, JsonValue] = {}
    seed_voxels: int | None = None
    seeds: int | None = None
    seeds_without_direction: int | None = None
    streamlines_generated: int | None = None
    streamlines_kept: int | None = None


@dataclass(frozen=True)
class Original:
    """A tractogram that is to be reproduced, as its sidecar records it.

    Parameters
    ----------
    sidecar : Path
    record : Recorded
    config : Config
        The recorded configuration, as this version of the program reads it.
    root : Path or None
        The derivative dataset; None if the sidecar is outside of any.
    """

    sidecar: Path
    record: Recorded
    config: Config
    root: Path | None

    @property
    def datasets(self) -> dict[str, Path]:
        """Datasets that the URIs of the inputs name, as far as they are known."""
        return linked_datasets(self.root) if self.root else {}

    def path_of(self, role: str) -> PurePosixPath:
        """Return the path of an input inside its dataset."""
        return next(parse_uri(file.uri)[1] for file in self.record.inputs if file.role == role)


def files_of(sidecar: Path, record: Recorded) -> dict[str, Path]:
    """Return the files of a tractogram by extension, whether they exist or not."""
    paths = (file_of_sidecar(sidecar, name) for name in record.file_sha256)
    return {extension_of(path) or path.suffix: path for path in paths}


def read_original(path: Path) -> Original:
    """Read the sidecar of a tractogram, and check that it is as it was written.

    Parameters
    ----------
    path : Path
        The sidecar, or the tractogram next to it.

    Raises
    ------
    NoInputError
        If there is no such file.
    DataError
        If it is not the sidecar of a tractogram of this program, or was modified.
    ConfigError
        If this version of the program does not accept the recorded configuration.
    """
    shown = printable(path)
    if path.is_dir():
        raise NoInputError(f"{shown} is a directory.", _GIVE)
    if path.suffix != ".json" and extension_of(path) is None:
        raise DataError(f"{shown} is not the sidecar of a tractogram.", _GIVE)
    sidecar = sidecar_path(path).absolute()
    record = _read_record(sidecar, printable(sidecar))
    _check(record, sidecar)
    where = f"the configuration that {printable(sidecar)} records"
    try:
        config = validate_config(record.config, where)
    except ConfigError as error:
        raise ConfigError(
            error.message, f"Use bids_tractography {record.version}, which wrote the record."
        ) from None
    roots = (f for f in sidecar.parents if exists(f / "dataset_description.json"))
    return Original(sidecar, record, config, next(roots, None))


def _read_record(sidecar: Path, shown: str) -> Recorded:
    content: Mapping[str, Any] = read_json_file(sidecar, remedy=_GIVE)
    try:
        record = content[RECORD_KEY]
        intact = record["sidecar_sha256"] == hash_of_sidecar(content)
    except (LookupError, TypeError, AttributeError, ValueError):
        raise DataError(f"{shown} does not have a record of bids_tractography.", _GIVE) from None
    if not intact:
        raise DataError(
            f"{shown} was modified or damaged: its content does not match the hash in it.",
            "Restore the file as bids_tractography wrote it.",
        )
    if "content_sha256" not in record:
        raise DataError(f"{shown} describes a map or a mask, not a tractogram.", _GIVE)
    try:
        return Recorded.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{shown}: the record (version {record.get('record_version')}) cannot be read: "
            f"{key}: {first['msg']}.",
            f"Use bids_tractography {record.get('version')}, which wrote it.",
        ) from None


def _check(record: Recorded, sidecar: Path) -> None:
    """Check that the record names files in places where files of datasets can be."""
    shown = printable(sidecar)
    for file in record.inputs:
        try:
            dataset, path = parse_uri(file.uri)
        except ValueError as error:
            raise DataError(f"{shown}: the input {file.role} is {file.uri!r}: {error}.") from None
        if file.role == "dwi" and (path.is_absolute() or not path.parts[0].startswith("sub-")):
            raise DataError(f"{shown}: {file.uri!r} is not a DWI of a participant in {dataset!r}.")
    if not any(file.role == "dwi" for file in record.inputs):
        raise DataError(f"{shown} does not record a DWI.")
    if record.mode is None and (record.engine is None or record.rng_seed is None):
        raise DataError(f"{shown} does not record the engine and the seed of its random numbers.")
    try:
        files_of(sidecar, record)
    except ValueError as error:
        raise DataError(f"{shown}: {error}.") from None

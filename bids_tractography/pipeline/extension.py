"""A finished tractogram is the beginning of a larger one, or the same in other formats."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_tractography.config import Config
from bids_tractography.config.tracking import (
    OutputConfig,
    SeedsConfig,
    SelectSeedsConfig,
    TotalSeedsConfig,
)
from bids_tractography.core.streamlines import Counts, Rejection
from bids_tractography.errors import DataError, TractographyError
from bids_tractography.outputs.provenance import (
    RECORD_KEY,
    Fingerprint,
    TractogramRecord,
    decisive_settings,
    hash_of_sidecar,
)
from bids_tractography.outputs.run import read_sidecar
from bids_tractography.tractogram.base import Piece, Reader
from bids_tractography.tractogram.formats.table import READERS, reading
from bids_tractography.tractogram.formats.trx import TrxReader
from bids_tractography.tractogram.store import BatchStore
from bids_tractography.tractogram.summary import ContentHash

logger = logging.getLogger(__name__)

# Formats that hold the points exactly, the first one preferred.
_EXACT = (".trx", ".tck")
_VALUES = {"seed": "seed_index", "ends": "ends"}
_PIECE = 1 << 16  # streamlines


def extends(config: Config, before: Any) -> bool:
    """Return whether the result of a configuration contains that of an earlier one.

    It does if only the number of seeds, or of streamlines to select, is larger, whatever the
    formats.

    Parameters
    ----------
    config : Config
    before : dict
        The earlier configuration, JSON values.
    """
    try:
        earlier = Config.model_validate(before)
    except (ValueError, TypeError):
        return False
    outputs = (decisive_settings(each)["output"] for each in (config, earlier))
    return _goes_on(config, earlier) and len({str(output) for output in outputs}) == 1


def _goes_on(config: Config, earlier: Config) -> bool:
    """Return whether the streamlines of a configuration begin with those of an earlier one."""
    return _apart(config) == _apart(earlier) and _continues(
        config.seeding.seeds, earlier.seeding.seeds
    )


def _apart(config: Config) -> dict[str, Any]:
    """Return the decisive settings except seeds and output."""
    settings = decisive_settings(config)
    del settings["output"], settings["seeding"]["seeds"]
    return settings


def _continues(seeds: SeedsConfig, earlier: SeedsConfig) -> bool:
    match seeds, earlier:
        case (TotalSeedsConfig(count=n), TotalSeedsConfig(count=m)):
            return n >= m
        case (SelectSeedsConfig(count=n), SelectSeedsConfig(count=m)):
            return n >= m and seeds.limit >= earlier.limit
    return seeds == earlier


def _holds_points(output: OutputConfig, earlier: OutputConfig) -> bool:
    """Return whether the files of an earlier output hold what this one needs."""
    return (
        earlier.linearise is None
        and earlier.dtype in ("float32", output.dtype)
        and any(f".{name}" in _EXACT for name in earlier.formats)
        and set(output.per_streamline) <= set(earlier.per_streamline)
    )


@dataclass(frozen=True, eq=False)
class Beginning:
    """A finished tractogram that a job continues.

    Parameters
    ----------
    path : Path
        The file.
    record : TractogramRecord
        Of its sidecar.
    """

    path: Path
    record: TractogramRecord

    def is_whole_for(self, config: Config) -> bool:
        """Return whether only other files of the same streamlines are missing."""
        return self.record.config.seeding.seeds == config.seeding.seeds

    def formats_for(self, config: Config) -> Config:
        """Return a configuration that writes the existing formats too, if it extends this one."""
        if not extends(config, self.record.config.model_dump(mode="json")):
            return config
        formats = dict.fromkeys((*config.output.formats, *self.record.config.output.formats))
        output = config.output.model_copy(update={"formats": tuple(formats)})
        return config.model_copy(update={"output": output})

    def into(self, store: BatchStore) -> bool:
        """Copy the streamlines into an empty store, if the file is as it was written.

        Returns
        -------
        bool
            Whether it was; if not, the store is as before.
        """
        record = self.record
        content = ContentHash(record.config.output.dtype)
        lengths: list[NDArray[np.uint32]] = []

        def pieces() -> Iterator[Piece]:
            for points, some in self._reader.streamlines():
                content.add(points)
                lengths.append(some)
                yield points, some

        def is_whole() -> bool:
            return content.finish(lengths) == record.content_sha256

        counts = Counts(
            record.seeds,
            record.seeds_without_direction,
            record.streamlines_generated,
            record.streamlines_kept,
            dict(record.streamlines_rejected),
            dict(record.ends),
        )
        try:
            with reading(self.path):
                values = {name: self._values(name) for name in _VALUES}
                adopted = store.adopt(
                    pieces(),
                    values,
                    is_whole,
                    counts,
                    batches=record.batches,
                    seconds=record.seconds.get("tracking", 0.0),
                    cpu_seconds=record.cpu_seconds.get("tracking", 0.0),
                )
        except DataError:
            adopted = False
        if not adopted:
            logger.warning("%s is damaged: tracking from the first seed.", self.path.name)
        return adopted

    @property
    def _reader(self) -> Reader:
        return READERS[self.path.suffix](self.path)

    def _values(self, name: str) -> Iterator[NDArray[Any]]:
        """Read the values of the streamlines in pieces; zeros where the file does not have them."""
        n, title, reader = self.record.streamlines_kept, _VALUES[name], self._reader
        held = reader if isinstance(reader, TrxReader) and title in reader.values else None
        columns = 2 if name == "ends" else 1
        for first in range(0, n, _PIECE):
            numbers = np.arange(first, min(first + _PIECE, n))
            if held is not None:
                yield held.read_values(title, numbers)
            else:
                yield np.zeros((len(numbers), columns), np.int64)


def beginning_of(path: Path, fingerprint: Fingerprint, config: Config) -> Beginning | None:
    """Return the finished tractogram that a job can continue, if there is one.

    Parameters
    ----------
    path : Path
        Where the job writes its tractogram.
    fingerprint : Fingerprint
        Of the tractogram.
    config : Config
        Of the job.
    """
    try:
        content = read_sidecar(path)
        record = TractogramRecord.model_validate(content[RECORD_KEY])
        if record.sidecar_sha256 != hash_of_sidecar(content):
            return None
        # Any file of its size: the content is compared with its hash when it is read.
        sizes = {path.with_name(name): size for name, size in record.file_bytes.items()}
        intact = {
            p.suffix: p for p, size in sizes.items() if p.is_file() and p.stat().st_size == size
        }
    except (TractographyError, OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    exact = next((intact[extension] for extension in _EXACT if extension in intact), None)
    before = record.fingerprint
    if (before.inputs, before.software) != (fingerprint.inputs, fingerprint.software):
        return None
    if record.streamlines_rejected.get(Rejection.SURPLUS):  # streamlines that are missing
        return None
    earlier = record.config
    if not (_goes_on(config, earlier) and _holds_points(config.output, earlier.output)):
        return None
    return None if exact is None else Beginning(exact, record)

"""The request of a user, checked as a whole before any participant is examined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bids_tractography.config import Config
from bids_tractography.errors import ConfigError, DeviceError, NoInputError, UsageError
from bids_tractography.inputs import RAW, Dataset, check_file, find_participants, read_dataset
from bids_tractography.machine.files import exists
from bids_tractography.outputs.dataset import check_output_folder, link_name
from bids_tractography.outputs.files import make_folder, read_json
from bids_tractography.pipeline.products import STAGES
from bids_tractography.tracking import choose_engine


@dataclass(frozen=True)
class Request:
    """The request of a user.

    Parameters
    ----------
    bids_dir, output_dir, work_dir : Path
        Absolute.
    config : Config
    participants, sessions : tuple of str
        Labels, with or without ``sub-`` and ``ses-``; empty for all.
    filters : mapping
        pybids filters by query.
    derivatives : tuple of (str or None, Path)
        Further datasets, with the names they were given.
    n_procs, n_threads : int
        Jobs at a time, and threads of each.
    memory_mib : float or None
        Memory of all jobs at a time, as far as it can be estimated; None if it is unlimited.
    check_dataset : bool
        Insist on a valid ``dataset_description.json``.
    database : Path or None
        Folder to keep pybids' databases in.
    fresh : bool
        Recompute everything.
    overwrite : bool
        Replace results of other configurations.
    last_stage : str
        Stage after which to stop, one of `pipeline.products.STAGES`.
    container : dict or None
        Container image that the program runs in.
    executor : str
        ``local``, or ``ray`` for a cluster.
    ray_address : str or None
        Of a running cluster.
    report : bool
        Make a page of every run.
    """

    bids_dir: Path
    output_dir: Path
    work_dir: Path
    config: Config
    participants: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    filters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    derivatives: tuple[tuple[str | None, Path], ...] = ()
    n_procs: int = 1
    n_threads: int = 1
    memory_mib: float | None = None
    check_dataset: bool = True
    database: Path | None = None
    fresh: bool = False
    overwrite: bool = False
    last_stage: str = STAGES[-1]
    container: dict[str, str] | None = None
    executor: Literal["local", "ray"] = "local"
    ray_address: str | None = None
    report: bool = True


@dataclass(frozen=True)
class Study:
    """The datasets and participants of a request.

    Parameters
    ----------
    datasets : list of Dataset
        The main one first.
    participants : list of str
        Labels without ``sub-``.
    engine : str or None
        Name of the engine that tracks; None where a tractogram is imported.
    """

    datasets: list[Dataset]
    participants: list[str]
    engine: str | None


def open_study(request: Request) -> Study:
    """Check everything that concerns the request as a whole.

    Raises
    ------
    TractographyError
        For a faulty configuration, dataset, label or output folder.
    """
    check_config(request.config)
    datasets = _datasets(request)
    engine = _choose_engine(request.config)
    _check_files(request.config, datasets)
    if request.database:
        make_folder(request.database)
    for dataset in datasets:
        check_output_folder(request.output_dir, dataset.root, request.work_dir)
    participants = find_participants(datasets[0].root, request.participants)
    return Study(datasets, participants, engine)


def check_config(config: Config) -> list[str]:
    """Check what a run would refuse, as far as the configuration alone decides.

    Returns
    -------
    list of str
        What this machine lacks: an engine, or files. Another machine may have them.

    Raises
    ------
    ConfigError
        If no engine can do what is configured, or the name of a file is wrong.
    """
    for key, file in config.files():
        if file.path is not None and not file.path.name.endswith(file.extensions):
            raise ConfigError(
                f"{key}.path: {file.path.name} is not {' or '.join(file.extensions)} by its name."
            )
    lacking = []
    for check in (_choose_engine, _check_paths):
        try:
            check(config)
        except (DeviceError, NoInputError) as error:
            lacking.append(str(error))
    return lacking


def _choose_engine(config: Config) -> str | None:
    """Choose the engine of all runs once, because workers may have other devices."""
    return choose_engine(config).name if config.import_tract is None else None


def _check_paths(config: Config) -> None:
    """Check that the files that the configuration names by their paths are there."""
    for key, file in config.files():
        if file.path is not None:
            check_file(file.path, f"{key}.path")


def _check_files(config: Config, datasets: list[Dataset]) -> None:
    """Check the files and datasets that the configuration names."""
    _check_paths(config)
    scopes = {RAW, *(dataset.name for dataset in datasets)}
    for key, file in config.files():
        if file.scope not in (None, *scopes):
            raise ConfigError(
                f"{key}.scope: there is no dataset named {file.scope}.",
                f"There are: {', '.join(sorted(scopes))}; --derivatives NAME=PATH adds others.",
            )


def _datasets(request: Request) -> list[Dataset]:
    """Open the main dataset and the derivatives, each under a unique name."""
    roots: dict[str, Path] = {}
    for name, path in ((None, request.bids_dir), *request.derivatives):
        if path in roots.values():
            continue  # named twice
        if name in roots:
            raise UsageError(f"two datasets are named {name}.", "Give --derivatives other names.")
        roots[name or link_name(path, roots)] = path
    datasets = []
    for name, path in roots.items():
        if request.check_dataset or path != request.bids_dir:
            datasets.append(read_dataset(name, path))
        elif exists(path) and path.is_dir():
            description = read_json(path / "dataset_description.json")
            datasets.append(Dataset(name, path.resolve(), description))
        else:
            raise NoInputError(f"{path} is not a directory.")
    return datasets

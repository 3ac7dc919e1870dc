"""The Python interface: `track` images, `run` datasets, and read what they wrote."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike, NDArray

from bids_tractography.app.local import Outcome
from bids_tractography.app.plan import make_job
from bids_tractography.app.request import Request, Study, check_config, open_study
from bids_tractography.app.run import run as run_request
from bids_tractography.config import Config
from bids_tractography.config.load import load_config, validate_config
from bids_tractography.config.presets import configuration_path
from bids_tractography.core.gradients import GradientFiles
from bids_tractography.core.images import Grid
from bids_tractography.core.streamlines import Stop
from bids_tractography.errors import ConfigError, UsageError
from bids_tractography.inputs import Dataset, DwiRun, TissueFiles, check_file
from bids_tractography.machine.cpus import count_cpus
from bids_tractography.machine.files import resolve
from bids_tractography.outputs.files import read_json, write_atomically
from bids_tractography.outputs.names import sidecar_path
from bids_tractography.outputs.run import read_record
from bids_tractography.pipeline.process import process_dwi
from bids_tractography.pipeline.progress import Progress
from bids_tractography.tracking import choose_engine
from bids_tractography.tractogram.base import Piece, StreamlineValues, Writer, offsets_of
from bids_tractography.tractogram.formats.table import WRITERS, open_reader, reading
from bids_tractography.tractogram.formats.trx import write_trx
from bids_tractography.tractogram.summary import density, measured_lengths_mm

ConfigLike = Config | Mapping[str, Any] | str | Path | None
"""A configuration, its content, a file, the name of a preset, or None for the defaults."""

_VALUES = {"seed": "seed_index", "ends": "ends"}  # names in the configuration, and in TRX files


def _nothing(progress: Progress) -> None:
    pass


@dataclass(frozen=True, eq=False)
class Tractogram:
    """Streamlines in memory.

    Parameters
    ----------
    points_mm : ndarray of float32, shape (N, 3)
        Points of all streamlines in RAS+ mm.
    offsets : ndarray of int64, shape (T + 1,)
        Streamline ``t`` consists of the points ``offsets[t]`` to ``offsets[t + 1] - 1``.
    grid : Grid or None
        Grid of the image; None if it is read from TCK, which has none.
    per_streamline : mapping of str to ndarray, shape (T,) or (T, C)
        Values of each streamline. After `track`: ``seed_index``, the index of its seed, and
        ``ends``, why its first and its last point are ends, as indices of `end_reasons`.
    record : mapping
        Record of this program, as in the sidecar: configuration, counts, checks, environment.
        Empty for other tractograms.
    dtype : str
        Type of the positions in TRX files.
    saved : tuple of str
        Which of `per_streamline` `save` writes into TRX files.
    """

    points_mm: NDArray[np.float32]
    offsets: NDArray[np.int64]
    grid: Grid | None
    per_streamline: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    dtype: Literal["float32", "float16"] = "float32"
    saved: tuple[str, ...] = ()

    end_reasons = tuple(map(str, Stop))
    """Reasons why streamlines end, in the order of the numbers in ``ends``."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        """Return the points of a streamline, shape (n, 3), RAS+ mm."""
        first = range(len(self))[index]
        return self.points_mm[self.offsets[first] : self.offsets[first + 1]]

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"<Tractogram: {len(self)} streamlines, {len(self.points_mm)} points>"

    @property
    def n_streamlines(self) -> int:
        """Number of streamlines."""
        return len(self)

    @property
    def n_points(self) -> int:
        """Number of points of all streamlines."""
        return len(self.points_mm)

    @property
    def lengths_mm(self) -> NDArray[np.float64]:
        """Lengths of the streamlines along their points, shape (T,), mm."""
        return measured_lengths_mm(self.points_mm, np.diff(self.offsets).astype(np.uint32))

    @property
    def counts(self) -> dict[str, Any]:
        """Numbers of seeds and streamlines, and why streamlines were rejected or ended."""
        keys = ("seeds", "seeds_without_direction", "streamlines_generated", "streamlines_kept")
        return {
            key: self.record[key]
            for key in (*keys, "streamlines_rejected", "ends")
            if key in self.record
        }

    def density(self, grid: Grid | None = None) -> NDArray[np.int32]:
        """Count the streamlines through each voxel, each once.

        Parameters
        ----------
        grid : Grid, optional
            By default that of the tractogram.

        Returns
        -------
        ndarray of int32, shape (X, Y, Z)
            Axes are those of ``grid.affine``.
        """
        return density(self, grid or self._grid("its density"))

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the tractogram as TRX, TCK or TRK, depending on the extension.

        A TRX file has the bytes that the command line writes for the same configuration.

        Parameters
        ----------
        path : str or Path
        overwrite : bool
            Whether to replace an existing file.

        Raises
        ------
        UsageError
            If the extension is unknown, or there is no grid, which TRX and TRK require.
        OutputError
            If the file exists or cannot be written.
        """
        target = Path(path)
        extension = target.suffix[1:]
        if extension not in WRITERS:
            raise UsageError(
                f"{target} is not a tractogram by its name.", f"Formats: .{', .'.join(WRITERS)}."
            )
        write: Writer = WRITERS[extension]
        if extension == "trx":
            values = [_as_values(name, self.per_streamline[name]) for name in self.saved]
            write = partial(write_trx, dtype=self.dtype, per_streamline=values)
        no_grid = Grid((1, 1, 1), np.eye(4))  # which tck ignores
        grid = no_grid if extension == "tck" else self._grid(extension)
        write_atomically(target, lambda file: write(file, self, grid), new=not overwrite)
        return target

    def streamlines(self) -> Iterator[Piece]:
        """Yield all streamlines as one piece, for writers."""
        if len(self):
            yield self.points_mm, np.diff(self.offsets).astype(np.uint32)

    def lengths(self) -> Iterator[NDArray[np.uint32]]:
        """Yield the numbers of points of the streamlines, for writers."""
        yield np.diff(self.offsets).astype(np.uint32)

    def _grid(self, purpose: str) -> Grid:
        if self.grid is None:
            raise UsageError(f"{purpose} requires the grid of an image, which TCK does not have.")
        return self.grid


def read_tractogram(path: str | Path) -> Tractogram:
    """Read a tractogram into memory.

    Parameters
    ----------
    path : str or Path
        TRX, TCK or TRK. If it was written by this program and has its sidecar, the tractogram has
        its record.

    Raises
    ------
    NoInputError, DataError
        If the file is missing or not whole.

    Examples
    --------
    >>> import bids_tractography as bt
    >>> tractogram = bt.read_tractogram("output/sub-01/dwi/"
    ...     "sub-01_tract-wholebrain_track-prob_tractogram.trx")
    >>> tractogram.record["config"]["model"]["kind"]
    'tensor'
    """
    source = Path(path)
    reader = open_reader(source)
    with reading(source):
        pieces = list(reader.streamlines())
        values = {
            some.name: np.concatenate([*some.read(), _no_rows(some)])
            for some in reader.per_streamline()
        }
    offsets = np.concatenate([*offsets_of(lengths for _, lengths in pieces)]).astype(np.int64)
    points = [np.empty((0, 3), np.float32), *(points for points, _ in pieces)]
    return Tractogram(
        np.concatenate(points),
        offsets,
        reader.grid,
        {name: rows[:, 0] if rows.shape[1] == 1 else rows for name, rows in values.items()},
        _record_of(source),
        "float16" if reader.dtype.itemsize == 2 else "float32",
        tuple(values),
    )


def read_config(source: ConfigLike = None) -> Config:
    """Return a validated configuration.

    Parameters
    ----------
    source : Config, mapping, str, Path or None
        A configuration, its content as nested mappings, a YAML, TOML or JSON file, the name of a
        preset, or None for the defaults.

    Raises
    ------
    ConfigError
        If it is invalid; the message lists all errors with the paths of their keys.

    Examples
    --------
    >>> import bids_tractography as bt
    >>> bt.read_config("det_dti").model.kind
    'tensor'
    >>> bt.read_config({"stopping": "ACT"})
    Traceback (most recent call last):
    ...
    bids_tractography.errors.ConfigError: the configuration has 1 error:
      stopping: unknown kind 'ACT'. Did you mean 'act'?
    ...
    """
    return validate_config(_content(source), "the configuration")


def track(
    dwi: str | Path | ArrayLike,
    *,
    affine: ArrayLike | None = None,
    bvals: str | Path | ArrayLike | None = None,
    bvecs: str | Path | ArrayLike | None = None,
    brain_mask: str | Path | ArrayLike | None = None,
    seed_mask: str | Path | ArrayLike | None = None,
    tissue: str | Path | ArrayLike | Mapping[str, str | Path | ArrayLike] | None = None,
    fodf: str | Path | ArrayLike | None = None,
    config: ConfigLike = None,
    n_threads: int | None = None,
    progress: Callable[[Progress], None] = _nothing,
) -> Tractogram:
    """Track the whole brain in one diffusion-weighted image.

    Images are NIfTI files, or arrays with the axes of `affine`. The method, its checks and its
    result are those of the command line, to the byte.

    Parameters
    ----------
    dwi : path or array, shape (X, Y, Z, V)
        Diffusion-weighted image.
    affine : array, shape (4, 4), optional
        From voxels to RAS+ mm, of all images given as arrays; that of the file `dwi` by default.
    bvals : path or array, shape (V,), optional
        b-values in s/mm²; the ``.bval`` file next to the file `dwi` by default, or both of the
        gradients from its ``.b`` table.
    bvecs : path or array, shape (V, 3) or (3, V), optional
        b-vectors in FSL's convention, unless ``gradients.frame`` states another; the ``.bvec``
        file next to the file `dwi` by default.
    brain_mask : path or array, shape (X, Y, Z), optional
        Computed from the image by default.
    seed_mask : path or array, shape (X, Y, Z), optional
        Replaces ``seeding.mask``.
    tissue : path or array, shape (X, Y, Z, 5), or mapping, optional
        5TT image, or fractions as images ``wm``, ``gm`` and ``csf``. Replaces ``tissue``.
    fodf : path or array, shape (X, Y, Z, C), optional
        Spherical harmonics to use instead of a fit, of `dwi`'s grid. Replaces ``model``, except
        for the basis and axes of a ``precomputed`` one; an array has MRtrix3's basis and scanner
        axes by default.
    config : Config, mapping, str, Path or None
        See `read_config`.
    n_threads : int, optional
        All processors that this process may use by default; it does not affect the result.
    progress : callable, optional
        Called with the progress after each batch.

    Returns
    -------
    Tractogram

    Raises
    ------
    TractographyError
        For errors of the images or the configuration.

    Examples
    --------
    >>> import bids_tractography as bt
    >>> tractogram = bt.track(
    ...     "phantom/sub-01/dwi/sub-01_dwi.nii.gz",
    ...     config={
    ...         "model": "tensor",
    ...         "seeding": {"seeds": {"kind": "select", "count": 100}, "rng_seed": 1},
    ...         "checks": {"subject": "phantom"},
    ...     },
    ... )
    >>> tractogram
    <Tractogram: 100 streamlines, ... points>
    """
    with TemporaryDirectory(prefix="bids-tractography-") as folder:
        files = _Files(Path(folder).resolve(), dwi, affine)
        content = _content(config)
        content |= _replaced(content, files, seed_mask, tissue, fodf)
        gradients = files.gradients(bvals, bvecs)
        return _tracked(
            files,
            gradients,
            files.image("brain_mask", brain_mask),
            validate_config(content, "the configuration"),
            n_threads or count_cpus(os.environ),
            progress,
        )


def run(
    request: Request | None = None,
    *,
    progress: Callable[[Progress], None] = _nothing,
    **options: Any,
) -> dict[str, Outcome]:
    """Run the participant level on a BIDS dataset.

    Parameters
    ----------
    request : Request, optional
        Everything that the command line takes; or keyword arguments:
    progress : callable, optional
        Called with the progress after each batch.
    **options
        Fields of `Request`. ``bids_dir`` and ``output_dir`` are required; ``config`` may be all
        that `read_config` takes.

    Returns
    -------
    dict of str to Done, Failure or Skipped
        Outcomes by the names of the runs. Failures of runs are values and do not raise.

    Raises
    ------
    TractographyError
        If the request as a whole is faulty, or every run is skipped.

    Examples
    --------
    >>> import bids_tractography as bt
    >>> outcomes = bt.run(
    ...     bids_dir="phantom",
    ...     output_dir="output",
    ...     participants=("01",),
    ...     config={"model": "tensor", "seeding": {"seeds": {"kind": "total", "count": 100}}},
    ... )
    >>> outcomes["sub-01"].result.name
    'sub-01_tract-wholebrain_track-prob_tractogram.trx'
    """
    if request is None:
        request = _request(**options)
    elif options:
        raise TypeError(f"{', '.join(options)}: not accepted together with a request")
    return dict(run_request(request, open_study(request), progress))


def _request(
    *,
    bids_dir: str | Path,
    output_dir: str | Path,
    work_dir: str | Path | None = None,
    config: ConfigLike = None,
    n_procs: int = 1,
    n_threads: int | None = None,
    **options: Any,
) -> Request:
    output = resolve(Path(output_dir))
    return Request(
        bids_dir=resolve(Path(bids_dir)),
        output_dir=output,
        work_dir=resolve(Path(work_dir)) if work_dir else output / ".work",
        config=read_config(config),
        n_procs=n_procs,
        n_threads=n_threads or max(1, count_cpus(os.environ) // n_procs),
        **options,
    )


class _Files:
    """Inputs as files under BIDS names, in a folder that is removed afterwards.

    Parameters
    ----------
    folder : Path
    dwi : path or array
    affine : array or None
        Of all images that are arrays.
    """

    def __init__(self, folder: Path, dwi: str | Path | ArrayLike, affine: ArrayLike | None) -> None:
        self.folder = folder
        # Not resolved: the files of an annex are links, and gradients are next to the link.
        self._source = Path(dwi).absolute() if isinstance(dwi, str | Path) else None
        if self._source is not None:
            check_file(self._source)
            if affine is None:
                affine = nib.load(self._source).affine
        elif affine is None:
            raise UsageError("affine is required for an array.", "Give the affine of the image.")
        self._affine = np.asarray(affine, np.float64)
        self.dwi = folder / "sub-01_dwi.nii.gz"
        if self._source is None:
            self._write(self.dwi, dwi)
        else:
            name = self._source.name
            self.dwi = folder / f"sub-01_dwi{name[len(_stem(name)) :]}"
            self.dwi.symlink_to(self._source)

    def image(self, name: str, given: str | Path | ArrayLike | None) -> Path | None:
        """Return the file of an image."""
        if given is None or isinstance(given, str | Path):
            return None if given is None else resolve(Path(given))
        path = self.folder / f"{name}.nii.gz"
        self._write(path, given)
        return path

    def gradients(
        self, bvals: str | Path | ArrayLike | None, bvecs: str | Path | ArrayLike | None
    ) -> GradientFiles:
        """Return the files with the diffusion weighting."""
        if self._source is not None and bvals is None and bvecs is None:
            table = self._source.with_name(f"{_stem(self._source.name)}.b")
            if table.exists():
                return GradientFiles(table=table)
        return GradientFiles(self._gradient("bval", bvals), self._gradient("bvec", bvecs))

    def _gradient(self, extension: str, given: str | Path | ArrayLike | None) -> Path:
        if isinstance(given, str | Path):
            return check_file(resolve(Path(given)))
        if given is None:
            if self._source is None:
                raise UsageError(f"{extension}s are required for an array.")
            return check_file(self._source.with_name(f"{_stem(self._source.name)}.{extension}"))
        path = self.folder / f"sub-01_dwi.{extension}"
        table = np.atleast_2d(np.asarray(given, np.float64))
        if table.shape[0] != 3 and table.shape[1] == 3:
            table = table.T
        np.savetxt(path, table, fmt="%.17g")
        return path

    def dataset(self) -> Dataset:
        """Return the folder as a dataset, with the description of the one that has the image.

        It decides how b-vectors are read, and which values are plausible.
        """
        parents = self._source.parents if self._source is not None else ()
        files = (parent / "dataset_description.json" for parent in parents)
        found = next((file for file in files if file.exists()), None)
        return Dataset("dwi", self.folder, read_json(found) if found else {})

    def _write(self, path: Path, given: Any) -> None:
        data = np.asarray(given)
        if data.dtype == bool:
            data = data.astype(np.uint8)
        elif data.dtype.kind in "iu" and data.dtype.itemsize > 4:
            data = data.astype(np.float64)
        image = nib.Nifti1Image(data, self._affine)
        image.header.set_xyzt_units("mm")
        nib.save(image, path)


def _stem(name: str) -> str:
    """Return the name of a NIfTI file without its extension."""
    return name.removesuffix(".gz").removesuffix(".nii")


def _content(source: ConfigLike) -> dict[str, Any]:
    """Return the content of a configuration, for `validate_config`."""
    if isinstance(source, Mapping):
        return dict(source)
    if not isinstance(source, Config):
        source = load_config(None if source is None else configuration_path(str(source)))
    return source.model_dump(mode="json")


def _replaced(
    content: Mapping[str, Any],
    files: _Files,
    seed_mask: str | Path | ArrayLike | None,
    tissue: str | Path | ArrayLike | Mapping[str, str | Path | ArrayLike] | None,
    fodf: str | Path | ArrayLike | None,
) -> dict[str, Any]:
    """Return the sections of a configuration that images given as arguments replace."""
    replaced: dict[str, Any] = {}
    if seed_mask is not None:
        mask = {"kind": "file", "path": str(files.image("seed_mask", seed_mask))}
        replaced["seeding"] = {**content.get("seeding", {}), "mask": mask}
    if isinstance(tissue, Mapping):
        paths = {name: str(files.image(name, given)) for name, given in tissue.items()}
        replaced["tissue"] = {"kind": "files", **paths}
    elif tissue is not None:
        replaced["tissue"] = {"kind": "5tt", "image": str(files.image("5tt", tissue))}
    if fodf is not None:
        model = content.get("model")
        given = model if isinstance(model, dict) and model.get("kind") == "precomputed" else {}
        ours = {} if isinstance(fodf, str | Path) else {"basis": "tournier07", "axes": "scanner"}
        path = str(files.image("fodf", fodf))
        replaced["model"] = {**ours, **given, "kind": "precomputed", "path": path}
    return replaced


def _tracked(
    files: _Files,
    gradients: GradientFiles,
    brain_mask: Path | None,
    config: Config,
    n_threads: int,
    progress: Callable[[Progress], None],
) -> Tractogram:
    """Track in a folder, and read the tractogram."""
    output = config.output
    if config.import_tract is not None or "tractogram" not in output.keep:
        raise ConfigError("track returns streamlines: import_tract, or output.keep without them.")
    check_config(config)
    for key, file in config.files():
        if file.path is None:
            raise ConfigError(f"{key}: filters require a dataset.", "Give the path of the file.")
        check_file(file.path, f"{key}.path")
    every = output.model_copy(
        update={"formats": ("trx",), "per_streamline": tuple(_VALUES), "name": None}
    )
    dataset = files.dataset()
    run = DwiRun(
        dataset="dwi",
        subject="01",
        session=None,
        image=files.dwi,
        bval=gradients.bval,
        bvec=gradients.bvec,
        gradient_table=gradients.table,
        brain_mask=brain_mask,
        named={key: resolve(file.path) for key, file in config.files() if file.path},
        tissue=TissueFiles() if config.needs_tissue else None,
        generated_by=dataset.generated_by,
        is_raw=False,
    )
    request = Request(
        bids_dir=files.folder,
        output_dir=files.folder / "output",
        work_dir=files.folder / "work",
        config=config.model_copy(update={"output": every}),
        n_threads=n_threads,
        report=False,
    )
    study = Study([dataset], ["01"], choose_engine(config).name)
    done = process_dwi(make_job(request, study, run), progress)
    assert done.result is not None  # the last stage is tracking
    tractogram = read_tractogram(done.result)
    return replace(tractogram, saved=tuple(_VALUES[name] for name in output.per_streamline))


def _as_values(name: str, rows: NDArray[Any]) -> StreamlineValues:
    columns = 1 if rows.ndim == 1 else rows.shape[1]
    return StreamlineValues(name, rows.dtype, columns, lambda: iter([rows]))


def _no_rows(values: StreamlineValues) -> NDArray[Any]:
    return np.empty((0, values.columns), values.dtype)


def _record_of(path: Path) -> dict[str, Any]:
    """Return the record of a tractogram; empty if it has none of ours."""
    try:
        return read_record(path) if sidecar_path(path).exists() else {}
    except KeyError:
        return {}

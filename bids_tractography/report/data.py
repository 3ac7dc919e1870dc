"""What a report is made from: the sidecars, maps and logs of one run, and nothing else.

Nothing that is read here is trusted: it may be damaged, of another version, or made up.
"""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_tractography.core.fodf import AXES, axes_basis, sh_order_of
from bids_tractography.core.images import (
    Grid,
    Image,
    read_grid,
    read_image,
    read_layout,
    read_volumes,
)
from bids_tractography.errors import TractographyError
from bids_tractography.machine.files import exists, read_json_file
from bids_tractography.outputs.dataset import linked_datasets, parse_uri
from bids_tractography.outputs.files import read_json
from bids_tractography.outputs.names import (
    DERIVED_ENTITIES,
    belongs_to,
    entities_of,
    file_name,
    with_configuration,
)
from bids_tractography.outputs.provenance import RECORD_KEY, ImportRecord, TractogramRecord
from bids_tractography.outputs.run import read_sidecar, why_changed

UNUSABLE = (
    TractographyError,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    zlib.error,
    zipfile.BadZipFile,
)
"""What is raised for files that are not what they should be."""


@dataclass(frozen=True)
class RunFailure:
    """How a run failed.

    Parameters
    ----------
    message : str
        With the remedy.
    exit_code : int
    warnings : tuple of str
        That preceded it.
    checks : mapping
        Figures that had been measured by then, by name.
    """

    message: str
    exit_code: int
    warnings: tuple[str, ...] = ()
    checks: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class RunData:
    """The derivatives of one DWI run.

    Parameters
    ----------
    root : Path
        The derivative dataset.
    name : str
        Of the run, e.g. ``sub-01_dir-AP``, followed by ``_desc-`` and the name of the configuration
        if it has one.
    failure : RunFailure or None
        If it failed when it was run last.
    """

    root: Path
    name: str
    failure: RunFailure | None = None

    @cached_property
    def entities(self) -> dict[str, str]:
        """Entities of the DWI."""
        return {k: v for k, v in entities_of(f"{self.name}_dwi").items() if k != "desc"}

    @cached_property
    def configuration(self) -> str:
        """Name of the configuration; empty if it has none."""
        return entities_of(f"{self.name}_dwi").get("desc", "")

    @cached_property
    def folder(self) -> Path:
        """Where the derivatives of its participant, or session, are."""
        session = [f"ses-{self.entities['ses']}"] if "ses" in self.entities else []
        return self.root.joinpath(f"sub-{self.entities.get('sub', '')}", *session)

    def figure(self, desc: str, extension: str) -> str:
        """Return the name of the file of a figure."""
        own = {"desc": desc}
        named = with_configuration(own, self.configuration) if self.configuration else own
        return file_name({**self.entities, **named}, "dwi", extension)

    def has_figure(self, name: str) -> bool:
        """Return whether a file is named like a figure of this page."""
        entities = entities_of(name)
        desc = entities.pop("desc", "")
        # Figures of pages without a configuration begin with a lower-case letter, and have no
        # capital before their end.
        mine = belongs_to(desc, self.configuration) if self.configuration else desc[:-1].islower()
        return mine and entities == self.entities

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """All files of the run in ``dwi/``, by name, without those of other configurations."""
        if "/" in self.name or not self.entities.get("sub"):
            return ()
        try:
            found = sorted((self.folder / "dwi").glob("*"))
        except OSError:
            return ()
        run = run_of(f"{self.name}_dwi")
        of_run = [path for path in found if run_of(path.name) == run]
        made = (entities_of(path.name) for path in of_run)
        names = {self.configuration, *(e.get("desc", "") for e in made if "track" in e)}

        def of_ours(path: Path) -> bool:
            desc = entities_of(path.name).get("desc", "")
            named = [name for name in names if name and belongs_to(desc, name)]
            return not named or max(named, key=len) == self.configuration

        return tuple(filter(of_ours, of_run))

    @cached_property
    def sidecar_file(self) -> Path | None:
        """Sidecar of the tractogram, or of the density map if it was not kept; the newest."""
        found = [
            path
            for path in main_sidecars(self.files)
            if entities_of(path.name).get("desc", "") == self.configuration
        ]
        return max(found, key=lambda path: (path.stat().st_mtime_ns, path.name), default=None)

    @cached_property
    def sidecar(self) -> dict[str, Any]:
        """Content of the tractogram's sidecar; empty if there is none."""
        try:
            content = read_json_file(self.sidecar_file, strict=True) if self.sidecar_file else {}
        except UNUSABLE:
            return {}
        return content if isinstance(content, dict) else {}

    @cached_property
    def _parsed(self) -> tuple[TractogramRecord | ImportRecord | None, str]:
        content = self.sidecar.get(RECORD_KEY)
        if content is None:
            return None, "there is no finished tractogram"
        kind = ImportRecord if isinstance(content, dict) and "mode" in content else TractogramRecord
        try:
            return kind.model_validate(content), ""
        except ValueError as error:
            first = " ".join(str(error).split("\n")[:3])
            return None, f"the record in {self.sidecar_file} is not of this version ({first})"

    @property
    def record(self) -> TractogramRecord | ImportRecord | None:
        """Our record in the tractogram's sidecar, if it is usable."""
        return self._parsed[0]

    @property
    def tracked(self) -> TractogramRecord | None:
        """The record, if the tractogram was not imported."""
        return self.record if isinstance(self.record, TractogramRecord) else None

    @property
    def why_no_record(self) -> str:
        """Why there is no record; empty if there is one."""
        return self._parsed[1]

    @property
    def identity(self) -> str:
        """What changes with the tractogram and its sidecar; empty without a record."""
        return self.record.sidecar_sha256 if self.record else ""

    @cached_property
    def why_changed(self) -> str | None:
        """How sidecar or tractogram differ from what was written."""
        if self.sidecar_file is None:
            return self.why_no_record
        try:
            return why_changed(self.sidecar_file, self.sidecar)
        except UNUSABLE as error:
            return f"the sidecar is unusable ({type(error).__name__})"

    @cached_property
    def tractogram(self) -> Path | None:
        """The tractogram's file; of several formats the first that is there."""
        if self.record is None or self.sidecar_file is None:
            return None
        paths = (self.sidecar_file.with_name(Path(name).name) for name in self.record.file_sha256)
        return next((path for path in paths if is_tractogram(path) and exists(path)), None)

    def find(self, suffix: str, **entities: str) -> Path | None:
        """Find an image of the run by its suffix and the entities that it has besides.

        That of the configuration is preferred to one that it shares with others.
        """
        here: dict[frozenset[tuple[str, str]], Path] = {}
        for path in self.files:
            if path.name.endswith(f"_{suffix}.nii.gz"):
                own = {k: v for k, v in entities_of(path.name).items() if k in DERIVED_ENTITIES}
                here[frozenset(own.items())] = path
        wanted = [with_configuration(entities, self.configuration)] if self.configuration else []
        keys = (frozenset(each.items()) for each in (*wanted, entities))
        return next((here[key] for key in keys if key in here), None)

    def read(self, suffix: str, **entities: str) -> Image | None:
        """Read an image of the run; None if there is none."""
        path = self.find(suffix, **entities)
        return read_image(path, ndim=3) if path else None

    @cached_property
    def fod(self) -> Path | None:
        """The fODF that the tractogram follows."""
        propagation = self.sidecar.get("StreamlinePropagation")
        source = propagation.get("Source") if isinstance(propagation, dict) else None
        path = self.resolve(source) if isinstance(source, str) else None
        if path in self.files:
            return path
        found = (path for path in self.files if path.name.endswith("_param-fod_dwimap.nii.gz"))
        return next(found, None)

    def details(self, path: Path | None) -> dict[str, Any]:
        """Return what the sidecar of a file records of how it was made."""
        try:
            details = read_sidecar(path)[RECORD_KEY]["details"] if path else {}
        except UNUSABLE:
            return {}
        return details if isinstance(details, dict) else {}

    @cached_property
    def datasets(self) -> dict[str, Path]:
        """Datasets that BIDS URIs name."""
        return linked_datasets(self.root)

    def resolve(self, uri: str) -> Path | None:
        """Return the file that a BIDS URI names, if its dataset is known."""
        try:
            dataset, relative = parse_uri(uri)
        except ValueError:
            return None
        if relative.is_absolute() or dataset not in self.datasets:
            return None
        return self.datasets[dataset] / relative

    def input(self, role: str) -> Path | None:
        """Return an input file by its role, if it is still there."""
        uris = [file.uri for file in self.record.inputs if file.role == role] if self.record else []
        path = self.resolve(uris[0]) if uris else None
        return path if path and exists(path) else None


def main_sidecars(files: Iterable[Path]) -> list[Path]:
    """Return the sidecars with records of streamlines: of tractograms, or of density maps alone."""
    found = {path for path in files if path.suffix == ".json"}
    tractograms = {path for path in found if path.name.endswith("_tractogram.json")}
    maps = {p for p in found if entities_of(p.name).get("param") == "tdi"}

    def of_tractogram(path: Path) -> Path:
        entities = {k: v for k, v in entities_of(path.name).items() if k != "param"}
        return path.with_name(file_name(entities, "tractogram", ".json"))

    return sorted(tractograms | {path for path in maps if of_tractogram(path) not in tractograms})


def is_tractogram(path: Path) -> bool:
    """Return whether a file is a tractogram by its name."""
    return "_tractogram." in path.name


def run_of(name: str) -> str:
    """Return the name of the run that a derivative belongs to."""
    parts = name.split("_")[:-1]
    return "_".join(part for part in parts if part.partition("-")[0] not in DERIVED_ENTITIES)


def label_of(tractogram: str) -> str:
    """Return the name of the run of a tractogram, with that of its configuration if it has one."""
    desc = entities_of(tractogram).get("desc")
    return run_of(tractogram) if desc is None else f"{run_of(tractogram)}_desc-{desc}"


def find_runs(root: Path) -> dict[str, RunFailure | None]:
    """Find the runs of a derivative dataset: those with a tractogram, and those that failed.

    Returns
    -------
    dict
        By name of the run: how it failed when it was run last, None if it did not.
    """
    files = [*root.glob("sub-*/dwi/*_track-*.json"), *root.glob("sub-*/ses-*/dwi/*_track-*.json")]
    runs: dict[str, RunFailure | None] = {
        label_of(path.name): None for path in main_sidecars(files)
    }
    for log in sorted((root / "logs").glob("*_participant.json")):
        content = read_json(log)
        for name in _strings(content.get("finished")):
            runs[name] = None
        failed, warnings = content.get("failed"), content.get("warnings")
        for name, what in failed.items() if isinstance(failed, dict) else ():
            if isinstance(what, dict) and is_run_name(name):
                told = warnings.get(name) if isinstance(warnings, dict) else ()
                runs[name] = _failure(what, _strings(told))
    return {name: failure for name, failure in sorted(runs.items()) if is_run_name(name)}


def is_run_name(name: str) -> bool:
    """Tell whether pages can be named after a run: entities of letters, digits and ``+``."""
    pairs = [part.partition("-") for part in name.split("_")]
    return pairs[0][0] == "sub" and all(
        key.isalnum() and value.replace("+", "").isalnum() for key, _, value in pairs
    )


def _failure(content: Mapping[str, Any], warnings: Sequence[str]) -> RunFailure:
    code, checks = content.get("exit_code"), content.get("checks")
    return RunFailure(
        str(content.get("message", "")),
        code if isinstance(code, int) else 1,
        tuple(warnings),
        checks if isinstance(checks, dict) else {},
    )


def _strings(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


@dataclass(frozen=True, eq=False)
class FodScan:
    """What the report needs of an fODF, which may be larger than the memory.

    Parameters
    ----------
    grid : Grid
    planes : dict of int to ndarray, shape (U, V, C)
        Coefficients of one slice across each axis, in RAS+ order.
    voxels : ndarray, shape (n, C)
        Coefficients of some voxels.
    direction : ndarray of float32, shape (X, Y, Z, 3)
        Integral of the fODF times the magnitudes of x, y and z: its colour by direction.
    """

    grid: Grid
    planes: dict[int, NDArray[np.float32]]
    voxels: NDArray[np.float32]
    direction: NDArray[np.float32]


def scan_fod(
    path: Path,
    places: Mapping[int, int],
    voxels: NDArray[np.intp],
) -> FodScan:
    """Read an fODF one coefficient after another, keeping slices and voxels.

    Parameters
    ----------
    path : Path
    places : mapping of int to int
        Place of the slice to keep along each axis.
    voxels : ndarray, shape (n, 3)
        Voxels to keep.
    """
    grid, shape, _ = read_layout(path, ndim=4)
    # Integrals of |x|, |y| and |z| times each harmonic.
    colouring = axes_basis(sh_order_of(shape[3])).T @ np.abs(AXES) / len(AXES)
    planes: dict[int, list[NDArray[np.float32]]] = {axis: [] for axis in places}
    kept = []
    direction = np.zeros((*grid.shape, 3), np.float32)
    i, j, k = voxels.T
    for number, volume in enumerate(read_volumes(path)):
        for axis, place in places.items():
            planes[axis].append(np.array(np.take(volume, place, axis=axis), np.float32))
        kept.append(np.array(volume[i, j, k], np.float32))
        for c in range(3):
            if abs(colouring[number, c]) > 1e-9:
                direction[..., c] += volume * np.float32(colouring[number, c])
    return FodScan(
        grid,
        {axis: np.stack(slices, axis=-1) for axis, slices in planes.items()},
        np.stack(kept, axis=-1),
        np.maximum(direction, 0),
    )


def read_volume(path: Path, number: int) -> Image:
    """Read one volume of a series, without what follows it."""
    for place, volume in enumerate(read_volumes(path)):
        if place == number:
            return Image(volume, read_grid(path))
    raise ValueError(f"{path.name} has no volume {number}")


def real(value: Any) -> float | None:
    """Return a finite number as it is; None for anything else, which JSON may hold as well."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def as_json(value: Any) -> str:
    """Return JSON that may stand in a page."""
    return json.dumps(value, allow_nan=False, ensure_ascii=True).replace("<", "\\u003c")

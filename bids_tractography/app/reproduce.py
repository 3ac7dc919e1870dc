"""Run a recorded tractogram again, and find where the result first differs."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from bids_tractography import __version__
from bids_tractography.app.outcome import Failure, Skipped
from bids_tractography.app.plan import plan
from bids_tractography.app.recorded import Original, Recorded, files_of, read_original
from bids_tractography.app.request import Request, Study, open_study
from bids_tractography.app.run import run
from bids_tractography.app.staging import Located, Search, Stage, stage
from bids_tractography.config import Config
from bids_tractography.config.load import validate_config
from bids_tractography.errors import (
    DataError,
    NoInputError,
    OutputError,
    TractographyError,
    UnavailableError,
)
from bids_tractography.machine.files import is_utf8, printable, resolve
from bids_tractography.outputs.dataset import check_output_folder
from bids_tractography.outputs.names import entities_of, sidecar_path
from bids_tractography.outputs.provenance import (
    DECISIVE_LIBRARIES,
    RECORD_KEY,
    environment,
    sha256_of_file,
)
from bids_tractography.outputs.run import read_sidecar
from bids_tractography.pipeline.progress import Progress
from bids_tractography.report.drift import ABSENT, flatten
from bids_tractography.tracking import ENGINES
from bids_tractography.tractogram.difference import StreamlineDifference, first_difference

logger = logging.getLogger(__name__)

Kind = Literal[
    "input", "configuration", "program", "library", "engine", "processor", "step", "result"
]
Verdict = Literal["same", "differs", "missing"]

_STEPS = ("gradients", "model", "seed_voxels", "seeds", "seeds_without_direction")
_STEPS_OF_TRACKING = ("streamlines_generated", "streamlines_kept")


@dataclass(frozen=True)
class Row:
    """Something that was compared.

    Parameters
    ----------
    kind : str
    name : str
    recorded, here : str
    decisive : bool
        Whether a difference can change the result.
    """

    kind: Kind
    name: str
    recorded: str
    here: str
    decisive: bool = True

    @property
    def same(self) -> bool:
        """Whether both are the same."""
        return self.recorded == self.here


@dataclass(frozen=True)
class Comparison:
    """A recorded tractogram compared with what this machine has, or has made.

    Parameters
    ----------
    sidecar : Path
    inputs : tuple of Located
    rows : tuple of Row
        What was compared before and, as kind ``step``, after the run, in the order of influence.
    files : tuple of Row
        Hashes of the content and of each file, after a run.
    streamline : StreamlineDifference or None
        The first streamline that differs, if the recorded tractogram is still there.
    batch : int or None
        Batch of its seed, from 0.
    tractogram : Path or None
        The new tractogram; None if nothing was run.
    """

    sidecar: Path
    inputs: tuple[Located, ...]
    rows: tuple[Row, ...]
    files: tuple[Row, ...] = ()
    streamline: StreamlineDifference | None = None
    batch: int | None = None
    tractogram: Path | None = None

    @property
    def missing(self) -> tuple[Located, ...]:
        """Inputs of which no file has the recorded content."""
        return tuple(one for one in self.inputs if one.path is None)

    @property
    def verdict(self) -> Verdict:
        """Whether the result is the same; before a run, whether it should be."""
        if self.missing:
            return "missing"
        compared = self.files or tuple(row for row in self.rows if row.decisive)
        return "same" if all(row.same for row in compared) else "differs"

    @property
    def first(self) -> Row | None:
        """The first difference that can change the result; None if there is none."""
        rows = (*self.rows, *self.files)
        return next((row for row in rows if row.decisive and not row.same), None)


@dataclass(frozen=True)
class Options:
    """How to reproduce a tractogram.

    Parameters
    ----------
    folders : tuple of Path
        Directories to search for inputs, absolute.
    output, work : Path or None
        Derivative dataset to write, and directory for unfinished work, absolute; None for
        temporary ones.
    n_threads : int
    report : bool
        Make the page of the run, in `output`.
    only_check : bool
        Compare inputs, configuration and software, and run nothing.
    container : dict or None
        Container image that the program runs in.
    """

    folders: tuple[Path, ...] = ()
    output: Path | None = None
    work: Path | None = None
    n_threads: int = 1
    report: bool = True
    only_check: bool = False
    container: dict[str, str] | None = None


def reproduce(path: Path, options: Options, report: Callable[[Progress], None]) -> Comparison:
    """Run a recorded tractogram again with the recorded inputs, and compare the result.

    Parameters
    ----------
    path : Path
        Sidecar of the tractogram.
    options : Options
    report : callable
        Called with the progress.

    Raises
    ------
    TractographyError
        If the record cannot be used, or the run fails.
    """
    original = read_original(path)
    _check_places(original, options)
    search = Search(options.folders, original.datasets)
    located = tuple(search.locate(file) for file in original.record.inputs)
    before = Comparison(original.sidecar, located, tuple(_rows_before(original, located, options)))
    if before.missing:
        return before
    with _places(original, options) as (output, work, links):
        staged = stage(links, located)
        request = _request(original, staged, output, work, options)
        study = _open(request)
        _check_plan(original, staged, request, study)
        if options.only_check:
            return before
        made = _run(request, study, report)
        return _compare(original, before, made)


def _check_places(original: Original, options: Options) -> None:
    """Check the directories, before anything is read in them or written to them."""
    for folder in options.folders:
        if not folder.is_dir() or not is_utf8(folder):
            raise NoInputError(f"{printable(folder)} is not a directory.")
    for output in filter(None, (options.output, options.work)):
        if output == original.root:
            raise OutputError(
                f"{output} contains the recorded tractogram.", "Choose another output directory."
            )
        inputs = (folder for name, folder in original.datasets.items() if name)
        for folder in (*options.folders, *inputs):
            if folder != original.root:
                check_output_folder(output, resolve(folder), output)


@contextmanager
def _places(original: Original, options: Options) -> Iterator[tuple[Path, Path, Path]]:
    """Provide the directories for output, unfinished work, and links to the inputs.

    The links are kept with the output, whose sidecars refer to them.
    """
    with tempfile.TemporaryDirectory(prefix="bids-tractography-") as temporary:
        output = options.output or Path(temporary).resolve() / "output"
        work = options.work or output / ".work"
        links = work / f"reproduce-{original.record.sidecar_sha256[:12]}"
        try:
            yield output, work, links
        finally:
            if options.output is None:
                shutil.rmtree(links, ignore_errors=True)


def _request(
    original: Original, staged: Stage, output: Path, work: Path, options: Options
) -> Request:
    subject = original.path_of("dwi").parts[0].removeprefix("sub-")
    mask = original.path_of("brain_mask") if "brain_mask" in staged.paths else None
    return Request(
        bids_dir=staged.main,
        output_dir=output,
        work_dir=work,
        config=_config(original, staged),
        participants=(subject,),
        filters=_mask_filters(mask.name) if mask else {},
        derivatives=tuple((None, root) for root in staged.others),
        n_threads=options.n_threads,
        container=options.container,
        report=options.report and options.output is not None,
    )


def _open(request: Request) -> Study:
    try:
        return open_study(request)
    except UnavailableError as error:
        remedy = "The recorded engine is needed: reproduce the tractogram on a machine that has it."
        raise type(error)(error.message, remedy) from None


def _mask_filters(name: str) -> dict[str, dict[str, str]]:
    """Return the filters of a brain mask that is not taken for one by its name."""
    entities = entities_of(name)
    if entities.get("desc") == "brain" or entities.get("label", "").lower() == "brain":
        return {}
    return {"brain_mask": {key: entities[key] for key in ("desc", "label") if key in entities}}


def _config(original: Original, staged: Stage) -> Config:
    """Return the recorded configuration, with everything that was decided elsewhere set."""
    record, content = original.record, original.config.model_dump(mode="json")
    for key, file in original.config.files():
        if key not in staged.paths:
            raise DataError(f"{original.sidecar} does not record the file of {key}.")
        _set(content, f"{key}.path", str(staged.paths[key]))
        if file.path is None:
            _set(content, f"{key}.filters", None)
            _set(content, f"{key}.scope", None)
    if record.mode is not None:
        _set(content, "import_tract.mode", "copy")
        return validate_config(content, "the configuration")
    _set(content, "seeding.rng_seed", record.rng_seed)
    _set(content, "tracking.engine", record.engine)
    _set(content, "tracking.ngpus", None)
    if "b" not in staged.paths:  # with a gradient table, this would choose the file as well
        _set(content, "gradients.frame", record.gradients.get("frame", "auto"))
    # Checks do not change the result, and depend on tables of the dataset that are not recorded.
    for key in ("gradients.check", "checks.plausibility"):
        _set(content, key, "off")
    return validate_config(content, "the configuration with the recorded engine, seed and frame")


def _walk(content: Any, key: str) -> Any:
    for part in key.split("."):
        content = content[int(part) if isinstance(content, list) else part]
    return content


def _set(content: Any, key: str, value: Any) -> None:
    parent, _, last = key.rpartition(".")
    _walk(content, parent)[last] = value


def _check_plan(original: Original, staged: Stage, request: Request, study: Study) -> None:
    """Check that the program would use the recorded inputs, and only these.

    Raises
    ------
    TractographyError
        If it would not.
    """
    first, *others = plan(request, study)
    if isinstance(first.what, Skipped):
        raise first.what.error
    if isinstance(first.what, Failure):
        raise _failed(first.what)
    job, expected = first.what, staged.paths
    if others or job.inputs != expected:
        roles = job.inputs.keys() | expected
        differing = sorted(role for role in roles if job.inputs.get(role) != expected.get(role))
        raise DataError(
            f"version {__version__} would use other files than those recorded for "
            f"{', '.join(differing) or 'dwi'}.",
            f"Use bids_tractography {original.record.version}.",
        )
    path = job.paths["tractogram"]
    if sidecar_path(path).exists():
        raise OutputError(
            f"{request.output_dir} already contains {path.name}.",
            "Choose another output directory.",
        )


def _run(request: Request, study: Study, report: Callable[[Progress], None]) -> Path:
    """Run the only job; return its tractogram."""
    ((_, outcome),) = run(request, study, report)
    if isinstance(outcome, Failure):
        raise _failed(outcome)
    if isinstance(outcome, Skipped):
        raise outcome.error
    if outcome.result is None:
        raise DataError("the recorded configuration does not track.")
    return outcome.result


def _failed(failure: Failure) -> TractographyError:
    error = TractographyError(f"the run fails here: {failure.message}")
    error.exit_code = failure.exit_code
    return error


def _rows_before(original: Original, located: Sequence[Located], options: Options) -> Iterator[Row]:
    """Compare what is known before a run, in the order of influence."""
    record, here = original.record, environment(options.container)
    for one in located:
        found = one.sha256 or "not found"
        yield Row("input", one.file.role, one.file.sha256, found)
    yield from _rows(
        "configuration",
        flatten(record.config),
        flatten(original.config.model_dump(mode="json")),
    )
    yield Row("program", "bids_tractography", record.version, __version__)
    libraries = record.environment.libraries
    decisive = dict.fromkeys(DECISIVE_LIBRARIES)
    for name in dict.fromkeys([*DECISIVE_LIBRARIES, *libraries]):
        yield Row("library", name, libraries.get(name, ABSENT), _version(name), name in decisive)
    if record.engine is not None:
        kind = ENGINES.get(record.engine)
        there = f"{kind.name} {_version(kind.library)}" if kind else ABSENT
        yield Row("engine", "engine", f"{record.engine} {record.engine_version}", there)
    was = record.environment
    yield Row("processor", "platform", was.platform, here.platform)
    yield Row("processor", "Python", was.python, here.python, decisive=False)
    old, new = (json.dumps(image) if image else ABSENT for image in (was.container, here.container))
    yield Row("processor", "container", old, new, decisive=False)


def _rows(kind: Kind, recorded: Mapping[str, str], here: Mapping[str, str]) -> Iterator[Row]:
    """Yield a row for every key whose values differ, or one that says that none does."""
    keys = dict.fromkeys((*recorded, *here))
    differing = [key for key in keys if recorded.get(key) != here.get(key)]
    for key in differing:
        yield Row(kind, key, recorded.get(key, ABSENT), here.get(key, ABSENT))
    if not differing:
        yield Row(kind, f"all {len(keys)} values", "", "")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ABSENT


def _compare(original: Original, before: Comparison, made: Path) -> Comparison:
    """Compare the new tractogram with the record and, if they differ, with the recorded one."""
    record = original.record
    new = Recorded.model_validate(read_sidecar(made)[RECORD_KEY])
    content = Row("result", "streamlines (SHA-256)", record.content_sha256, new.content_sha256)
    old_files, new_files = files_of(original.sidecar, record), files_of(made, new)
    files = [
        Row("result", f"{old.name} (SHA-256)", record.file_sha256[old.name],
            new.file_sha256[new_files[key].name] if key in new_files else ABSENT)
        for key, old in old_files.items()
    ]  # fmt: skip
    streamline = None if content.same else _first_streamline(record, old_files, new_files)
    return Comparison(
        original.sidecar,
        before.inputs,
        (*before.rows, *_rows("step", _steps(record), _steps(new))),
        (content, *files),
        streamline,
        _batch(original.config, record, streamline),
        made,
    )


def _steps(record: Recorded) -> dict[str, str]:
    """Return what the steps of a run gave, in their order."""
    gradients = {k: v for k, v in record.gradients.items() if k != "frame_reason"}
    given = record.model_dump(mode="json") | {"gradients": gradients}
    return flatten({name: given[name] for name in (*_STEPS, *_STEPS_OF_TRACKING)})


def _first_streamline(
    record: Recorded, old_files: Mapping[str, Path], new_files: Mapping[str, Path]
) -> StreamlineDifference | None:
    """Compare the streamlines with those of the recorded file, if that is still there."""
    for extension in old_files.keys() & new_files:
        path = old_files[extension]
        if not path.is_file():
            continue
        if sha256_of_file(path) != record.file_sha256[path.name]:
            logger.warning("%s is not the recorded file, and is not compared.", path)
            continue
        return first_difference(path, new_files[extension])
    return None


def _batch(config: Config, record: Recorded, streamline: StreamlineDifference | None) -> int | None:
    """Return the batch of the streamline's seed, from 0, if its seed is known."""
    kind = ENGINES.get(record.engine or "")
    if streamline is None or streamline.seed is None or kind is None:
        return None
    size = config.tracking.batch_size
    return streamline.seed // (kind.batch_size if size == "auto" else size)

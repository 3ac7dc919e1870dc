"""The derivative dataset as a whole: its description, README and place."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bids_tractography import __version__
from bids_tractography.errors import NoInputError, OutputError, TractographyError
from bids_tractography.machine.files import read_json_file
from bids_tractography.outputs.files import leftovers, write_json, write_text
from bids_tractography.outputs.locks import exclusive
from bids_tractography.outputs.names import BIDS_VERSION, PIPELINE

_BIDSIGNORE = """\
*_tractogram.*
*_dwimap.*
group_*
*.html
figures
.work
"""


def check_output_folder(output: Path, bids: Path, work: Path) -> None:
    """Refuse places that would damage the input or cannot be written.

    Raises
    ------
    OutputError
        If the output or work folder is the input, lies in it other than under
        ``derivatives/``, or cannot be written.
    """
    for name, folder in (("output", output), ("work", work)):
        inside = folder == bids or folder.is_relative_to(bids)
        if inside and not (folder.is_relative_to(bids / "derivatives") and folder.parent != bids):
            raise OutputError(
                f"the {name} folder {folder} lies inside the input {bids}.",
                f"Use {bids / 'derivatives' / PIPELINE} or a place outside.",
            )
        if not _is_writable(folder):
            raise OutputError(
                f"the {name} folder {folder} cannot be written.",
                "Choose another one, or check the permissions of the folders above it.",
            )


def _is_writable(folder: Path) -> bool:
    """Tell whether a folder can be written, or made in the nearest one above that exists."""
    try:
        above = (folder, *folder.parents)
        there = next(path for path in above if path.exists() or path.is_symlink())
        return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    except OSError:  # below a folder that may not be searched
        return False


@contextmanager
def dataset_files(root: Path) -> Iterator[None]:
    """Hold the files of the dataset as a whole: those in its root, ``code/`` and ``logs/``.

    Everyone who writes there holds them, so that temporary files found there are of processes
    that were killed; they are removed.
    """
    with exclusive(root, "dataset", wait=True):
        for folder in (root, root / "code", root / "logs"):
            for path, _ in leftovers(folder):
                with suppress(OSError):
                    path.unlink()
        yield


def write_dataset_files(
    root: Path,
    links: Mapping[str, Path],
    inputs_generated_by: list[dict[str, Any]],
    container: dict[str, str] | None,
    files: Iterable[tuple[str, str]] = (),
) -> None:
    """Write what makes the output folder a BIDS derivative dataset, holding `dataset_files`.

    Parameters
    ----------
    root : Path
    links : mapping of str to Path
        Datasets that BIDS URIs name.
    inputs_generated_by : list of dict
        ``GeneratedBy`` of the input datasets.
    container : dict or None
        Image that the program runs in.
    files : iterable of (str, str)
        Name patterns and descriptions of the files of a run, for the README.

    Raises
    ------
    OutputError
        If the folder holds another dataset, or cannot be written.
    """
    path = root / "dataset_description.json"
    before = _our_description(path)
    ourselves: dict[str, Any] = {
        "Name": PIPELINE,
        "Version": __version__,
        "Description": "Whole-brain tractography.",
    }
    if container:
        ourselves["Container"] = container
    # Links of earlier calls stay: sidecars that are there use them.
    targets = _links(path, before) | {n: link_target(root, p) for n, p in links.items()}
    description = {
        "Name": "Whole-brain tractography",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [ourselves, *inputs_generated_by],
        "SourceDatasets": [{"URL": target} for target in dict.fromkeys(targets.values())],
        "DatasetLinks": targets,
    }
    write_json(path, description)
    write_text(root / ".bidsignore", _BIDSIGNORE)
    write_text(root / "README", _readme(files))


def _our_description(path: Path) -> dict[str, Any]:
    """Read the description of an earlier call; refuse that of another pipeline."""
    if not os.path.lexists(path):
        return {}
    try:
        content: dict[str, Any] = read_json_file(path, strict=True)
        name = content["GeneratedBy"][0]["Name"]
    except NoInputError as error:
        raise OutputError(error.message) from None
    except (TractographyError, OSError, LookupError, TypeError):
        name = None
    if name != PIPELINE:
        raise OutputError(
            f"{path.parent} holds a dataset that is not ours, as {path.name} shows.",
            "Choose another output directory.",
        )
    return content


def _links(path: Path, description: Mapping[str, Any]) -> dict[str, str]:
    """Return the links of an earlier call."""
    links = description.get("DatasetLinks", {})
    if not isinstance(links, dict) or not all(isinstance(uri, str) for uri in links.values()):
        raise OutputError(
            f"{path}: DatasetLinks does not map names to URIs.", "Correct or delete the file."
        )
    return links


def link_target(root: Path, dataset: Path) -> str:
    """Return how an output dataset points to another: relative when it lies inside it."""
    if root.is_relative_to(dataset):
        return Path(os.path.relpath(dataset, root)).as_posix()
    return dataset.as_uri()


def link_name(path: Path, taken: Mapping[str, Path]) -> str:
    """Make a name for a dataset from its folder that no other has."""
    base = re.sub(r"[^0-9a-zA-Z-]+", "-", path.name).strip("-") or "dataset"
    name, number = base, 2
    while name in taken:
        name, number = f"{base}-{number}", number + 1
    return name


def _readme(files: Iterable[tuple[str, str]]) -> str:
    listing = "".join(f"  {pattern:<52} {description}\n" for pattern, description in files)
    return f"""\
Whole-brain tractography, made by {PIPELINE} {__version__}.

sub-*/[ses-*/]dwi/
{listing}\
group_tractograms.tsv   one row for each tractogram (written by the group level)
index.html              all runs at a glance (written by the group level)
code/config.yaml        the resolved configuration
logs/                   records of the runs; CITATION.md describes the method

The JSON file beside each file says what it was made from and how. Tractograms (.trx) can be opened
with trx-python, nibabel, DIPY and MI-Brain.
"""

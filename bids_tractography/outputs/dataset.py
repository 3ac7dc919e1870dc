"""The derivative dataset: its location, description and README."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from bids_tractography import BIDS_VERSION, __version__
from bids_tractography.errors import NoInputError, OutputError, TractographyError
from bids_tractography.machine.files import read_json_file
from bids_tractography.outputs.files import leftovers, read_json, write_json, write_text
from bids_tractography.outputs.locks import exclusive
from bids_tractography.outputs.names import PIPELINE

_BIDSIGNORE = """\
*_tractogram.*
*_dwimap.*
group_*
*.html
figures
.work
"""


def check_output_folder(output: Path, bids: Path, work: Path) -> None:
    """Refuse output and work folders that would damage the input or cannot be written.

    Parameters
    ----------
    output : Path
        Output folder.
    bids : Path
        Input dataset.
    work : Path
        Folder for unfinished work.

    Raises
    ------
    OutputError
        If the output or work folder is the input, is inside it except under ``derivatives/``, or
        cannot be written.
    """
    for name, folder in (("output", output), ("work", work)):
        inside = folder == bids or folder.is_relative_to(bids)
        if inside and not (folder.is_relative_to(bids / "derivatives") and folder.parent != bids):
            raise OutputError(
                f"the {name} folder {folder} is inside the input {bids}.",
                f"Use {bids / 'derivatives' / PIPELINE} or a folder outside of the input.",
            )
        if not is_writable(folder):
            raise OutputError(
                f"the {name} folder {folder} cannot be written.",
                "Choose another folder, or check the permissions of its parents.",
            )


def is_writable(folder: Path) -> bool:
    """Return whether a folder can be written, or created in its nearest existing parent."""
    try:
        above = (folder, *folder.parents)
        there = next(path for path in above if path.exists() or path.is_symlink())
        return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    except OSError:  # in a folder without search permission
        return False


@contextmanager
def dataset_files(root: Path) -> Iterator[None]:
    """Lock the files of the dataset as a whole: those in its root, ``code/`` and ``logs/``.

    All processes that write there hold this lock, so temporary files found there belong to
    processes that were killed. They are removed.
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
    """Write the files that make the output folder a BIDS derivative dataset.

    The caller must hold `dataset_files`.

    Parameters
    ----------
    root : Path
        Output folder.
    links : mapping of str to Path
        Roots of the datasets that sidecars refer to, by name.
    inputs_generated_by : list of dict
        ``GeneratedBy`` of the inputs.
    container : dict or None
        Container of this process, as in ``GeneratedBy``.
    files : iterable of (str, str)
        Name patterns and descriptions of the files of a run, for the README.

    Raises
    ------
    OutputError
        If a file cannot be written, or the folder contains a dataset of another program.
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
    # Links of earlier runs are kept, because existing sidecars use them.
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


def check_dataset(root: Path) -> None:
    """Check that the files of the dataset as a whole can be written, which is not done here.

    Raises
    ------
    OutputError
        If the folder contains a dataset of another program, or a directory is in the way.
    """
    path = root / "dataset_description.json"
    for file in (path, root / ".bidsignore", root / "README", root / "code" / "config.yaml"):
        if file.is_dir() or not is_writable(file.parent):
            raise OutputError(f"{file} cannot be written.", "Check what is in its place.")
    _links(path, _our_description(path))


def _our_description(path: Path) -> dict[str, Any]:
    """Read the description of an earlier run; refuse that of another pipeline."""
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
            f"{path.parent} contains a dataset of another program, according to {path.name}.",
            "Choose another output directory.",
        )
    return content


def _links(path: Path, description: Mapping[str, Any]) -> dict[str, str]:
    """Return the links of an earlier run."""
    links = description.get("DatasetLinks", {})
    if not isinstance(links, dict) or not all(isinstance(uri, str) for uri in links.values()):
        raise OutputError(
            f"{path}: DatasetLinks does not map names to URIs.", "Correct or delete the file."
        )
    return links


def link_target(root: Path, dataset: Path) -> str:
    """Return the URL from an output dataset to another: relative if the output is inside it."""
    if root.is_relative_to(dataset):
        return Path(os.path.relpath(dataset, root)).as_posix()
    return dataset.as_uri()


def linked_datasets(root: Path) -> dict[str, Path]:
    """Return the datasets that BIDS URIs in a derivative dataset may name.

    Parameters
    ----------
    root : Path
        The derivative dataset.

    Returns
    -------
    dict of str to Path
        Roots by name, whether they exist or not; the derivative dataset itself has no name.
    """
    links = read_json(root / "dataset_description.json").get("DatasetLinks")
    found = {"": root}
    for name, target in links.items() if isinstance(links, dict) else ():
        if not isinstance(target, str):
            continue
        try:
            parts = urlsplit(target)
        except ValueError:
            continue
        if parts.scheme == "file" and not parts.netloc:
            found[name] = Path(unquote(parts.path))
        elif not parts.scheme:
            found[name] = root / target
    return found


def parse_uri(uri: str) -> tuple[str, PurePosixPath]:
    """Split the URI of a file in a sidecar into its dataset and its path.

    Parameters
    ----------
    uri : str
        BIDS URI ``bids:<dataset>:<path>``, or file URI of a file outside of all datasets.

    Returns
    -------
    dataset : str
        Name of the dataset.
    path : PurePosixPath
        Path inside the dataset; absolute for a file URI, whose dataset is empty.

    Raises
    ------
    ValueError
        If it is another kind of URI, or its path leaves the dataset.
    """
    scheme, _, rest = uri.partition(":")
    if scheme == "bids":
        dataset, _, relative = rest.partition(":")
        path = PurePosixPath(relative)
    else:
        parts = urlsplit(uri)
        dataset, path = "", PurePosixPath(unquote(parts.path))
        if parts.scheme != "file" or parts.netloc:
            raise ValueError("it is neither a BIDS URI nor a file URI")
    if not path.name or "\0" in uri:
        raise ValueError("it does not name a file")
    if path.is_absolute() == (scheme == "bids") or ".." in path.parts:
        raise ValueError("its path is not inside a dataset")
    return dataset, path


def link_name(path: Path, taken: Mapping[str, Path]) -> str:
    """Create a name for a dataset from its folder, different from those taken."""
    base = re.sub(r"[^0-9a-zA-Z-]+", "-", path.name).strip("-") or "dataset"
    name, number = base, 2
    while name in taken:
        name, number = f"{base}-{number}", number + 1
    return name


def _readme(files: Iterable[tuple[str, str]]) -> str:
    listing = "".join(f"  {pattern:<52} {description}\n" for pattern, description in files)
    return f"""\
Whole-brain tractography, created by {PIPELINE} {__version__}.

sub-*/[ses-*/]dwi/
{listing}\
sub-*.html              report of each run, for a browser; its pictures are in sub-*/figures/
group_tractograms.tsv   one row for each tractogram (created by the group level)
index.html              all runs at a glance (created by the group level)
code/config.yaml        the resolved configuration
logs/                   records of the runs; CITATION.* describe the method

The JSON file of each file describes how it was created.

Tractograms are opened by
  .trx   trx-python, DIPY (not by nibabel 5 and MRtrix3 3.0)
  .tck   MRtrix3, nibabel, DIPY
  .trk   TrackVis, nibabel, DIPY

To look at one, open the report of its run in a browser, or type one of
  dipy_horizon X_tractogram.trx                            (DIPY, with FURY)
  mrview X_dwimap.nii.gz -tractography.load X_tractogram.tck   (MRtrix3)

To convert one, or to have several formats in this dataset:
  bids-tractography convert X_tractogram.trx elsewhere/X_tractogram.tck
  bids-tractography ... --set output.formats=[trx,tck]     (tracks nothing again)
"""

"""Which source of tissue fractions is taken, of those that there are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bids_tractography.config.tissue import AutoTissueConfig, GivenTissueConfig, TissueConfig
from bids_tractography.core.tissue import TISSUES, TissueSource, label_table
from bids_tractography.errors import NoInputError
from bids_tractography.inputs.tissue import TissueFiles

_OF_FILES = {"probseg", "dseg", "5tt"}  # kinds that have to lie in the space of the DWI
_GIVEN_KEY = {"dseg": "tissue.segmentation", "5tt": "tissue.image", "t1w": "tissue.image"}


def choose_source(
    config: TissueConfig,
    files: TissueFiles,
    config_files: Mapping[str, Path],
    *,
    from_model: bool,
) -> TissueSource:
    """Choose the source of the tissue, without opening a file.

    Parameters
    ----------
    config : Tissue
        Section of the configuration.
    files : TissueFiles
        What the datasets have.
    config_files : mapping of str to Path
        What the files of the configuration resolved to, by key (``tissue.wm``).
    from_model : bool
        The model of the fODF gives fractions.

    Raises
    ------
    NoInputError
        If the kind asked for is not there, or nothing at all is.
    NoMatchError
        If there are several of it, or none that is known to be aligned with the DWI.
    """
    there = dict(files.by_kind)
    if from_model:
        there["dwi"] = ()
    if isinstance(config, GivenTissueConfig):
        return TissueSource(
            config.kind, tuple(config_files[f"tissue.{tissue}"] for tissue in TISSUES)
        )
    given = config_files.get(_GIVEN_KEY.get(config.kind, ""))
    if given is not None:
        own_mask = config.kind == "t1w" and given == files.t1w and files.t1w_mask
        if own_mask and files.t1w_mask:
            return TissueSource(config.kind, (given, files.t1w_mask))
        return TissueSource(config.kind, _with_table(config.kind, (given,)))
    if isinstance(config, AutoTissueConfig):
        # What would be aligned or fitted here instead is another method than what lies there.
        if files.refused and not _OF_FILES & set(there):
            raise next(iter(files.refused.values()))
        if not there:
            raise NoInputError(
                "tissue: the datasets have no probseg, dseg, 5TT or T1w image of this DWI run, "
                "and the model gives no fractions." + files.not_taken(),
                "Add a dataset that has one with --derivatives, or use model msmt_csd.",
            )
        kind = next(iter(there))
    elif config.kind in there:
        kind = config.kind
    elif config.kind in files.refused:
        raise files.refused[config.kind]
    else:
        raise NoInputError(
            f"tissue.kind {config.kind}: the datasets have no such file of this DWI run."
            + files.not_taken(config.kind),
            f"There is: {', '.join(there) or 'nothing'}. Add a dataset with --derivatives, name "
            "the file, or set tissue.kind to auto.",
        )
    if kind in files.faults:
        raise files.faults[kind]
    return TissueSource(kind, _with_table(kind, there[kind]))


def _with_table(kind: str, paths: tuple[Path, ...]) -> tuple[Path, ...]:
    """Add the table that says what the labels of a segmentation mean."""
    found = label_table(paths[0]) if kind == "dseg" else None
    return (*paths, found[0]) if found else paths

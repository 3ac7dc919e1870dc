"""Choice of the source of tissue fractions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bids_tractography.config.tissue import AutoTissueConfig, GivenTissueConfig, TissueConfig
from bids_tractography.core.tissue import TISSUES, TissueSource, label_table
from bids_tractography.errors import NoInputError
from bids_tractography.inputs.tissue import TissueFiles

_OF_FILES = {"probseg", "dseg", "5tt"}  # kinds that must be in the space of the DWI
_GIVEN_KEY = {"dseg": "tissue.segmentation", "5tt": "tissue.image", "t1w": "tissue.image"}


def choose_source(
    config: TissueConfig,
    files: TissueFiles,
    config_files: Mapping[str, Path],
    *,
    from_model: bool,
) -> TissueSource:
    """Choose the source of tissue fractions without opening a file.

    Parameters
    ----------
    config : TissueConfig
        Section ``tissue`` of the configuration.
    files : TissueFiles
        Matching files of the datasets.
    config_files : mapping of str to Path
        Files named in the configuration, by key (e.g. ``tissue.wm``).
    from_model : bool
        Whether the diffusion model yields tissue fractions.

    Raises
    ------
    NoInputError
        If the configured kind, or any source at all, is missing.
    NoMatchError
        If several files match, or none is known to be aligned with the DWI.
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
        # Do not silently register or fit instead of using the files that are present: that is a
        # different method.
        if files.refused and not _OF_FILES & set(there):
            raise next(iter(files.refused.values()))
        if not there:
            raise NoInputError(
                "tissue: the datasets have no probseg, dseg, 5TT or T1w image of this DWI run, "
                "and the model does not yield fractions." + files.not_taken(),
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
            f"Available: {', '.join(there) or 'none'}. Add a dataset with --derivatives, name "
            "the file, or set tissue.kind to auto.",
        )
    if kind in files.faults:
        raise files.faults[kind]
    return TissueSource(kind, _with_table(kind, there[kind]))


def _with_table(kind: str, paths: tuple[Path, ...]) -> tuple[Path, ...]:
    """Append the table with the meaning of a segmentation's labels."""
    found = label_table(paths[0]) if kind == "dseg" else None
    return (*paths, found[0]) if found else paths

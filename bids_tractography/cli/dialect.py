"""Options of other programs by habit: what they do here, or what to use instead.

The options are those of fMRIPrep, QSIPrep and QSIRecon as of August 2026, and the common ones of
MRtrix3's ``tckgen``. Underscores may be written for hyphens everywhere, see `cli.parser`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

FMRIPREP, QSIPREP, QSIRECON, TCKGEN = "fMRIPrep", "QSIPrep", "QSIRecon", "tckgen"

Effect = Literal["works", "ignored", "replaced"]


@dataclass(frozen=True)
class Foreign:
    """An option of other programs.

    Parameters
    ----------
    names : tuple of str
        Its spellings.
    programs : tuple of str
        Programs that have it.
    effect : str
        ``works``: it is one of our options, with the same meaning. ``ignored``: it is accepted, and
        the log states why it has no effect. ``replaced``: it is an error, whose message names what
        to use instead.
    answer : str
        Why it is ignored, or what to use instead; for ``works``, what is different.
    values : int or str
        How many values follow it, as ``nargs`` of argparse.
    """

    names: tuple[str, ...]
    programs: tuple[str, ...]
    effect: Effect
    answer: str
    values: int | str


_F, _P, _R = (FMRIPREP,), (QSIPREP,), (QSIRECON,)
_FP, _PR, _FPR = (FMRIPREP, QSIPREP), (QSIPREP, QSIRECON), (FMRIPREP, QSIPREP, QSIRECON)
_T = (TCKGEN,)

_QSIPREP = "preprocess with QSIPrep, and give its output as BIDS_DIR"
_ANATOMY = "it concerns anatomical preprocessing: use it in fMRIPrep or QSIPrep"
_FUNCTIONAL = "it concerns functional MRI"
_LICENSE = "FreeSurfer is not used"


def _works(names: str, programs: tuple[str, ...], note: str = "", values: int | str = 1) -> Foreign:
    return Foreign(tuple(names.split()), programs, "works", note, values)


def _ignored(names: str, programs: tuple[str, ...], why: str, values: int | str = 0) -> Foreign:
    return Foreign(tuple(names.split()), programs, "ignored", why, values)


def _replaced(names: str, programs: tuple[str, ...], ours: str, values: int | str = 1) -> Foreign:
    return Foreign(tuple(names.split()), programs, "replaced", ours, values)


DIALECT: tuple[Foreign, ...] = (
    # What to process.
    _works("--participant-label", _FPR, values="+"),
    _works("--session-label", _F, values="+"),
    _works("--session-id", _PR, values="+"),
    _works("--bids-filter-file", _FPR, "filters of other queries than `dwi` are ignored"),
    _works("--bids-database-dir", _FPR, "an index for each participant"),
    _works("--skip-bids-validation", _FP, values=0),
    _works("-d --derivatives", _F, values="+"),
    _works("-d --datasets", _R, values="+"),
    _replaced("--input-type", _R, "not needed: raw BIDS and QSIPrep's output are recognised. "
              "Convert other data to BIDS first"),
    _replaced("-t --task-id", _F, "DWI has no task: use --bids-filter-file"),
    _replaced("--echo-idx", _F, "use --bids-filter-file"),
    # Machine.
    _works("--nprocs --nthreads --n-cpus", _FPR, "threads of all runs together"),
    _works("--omp-nthreads", _FPR, "threads of each run"),
    _works("--mem --mem-mb", _FPR, "MiB unless a unit is given; bounds the runs at a time"),
    _ignored("--low-mem", _FPR, "memory does not depend on the number of streamlines"),
    _works("-w --work-dir", _FPR),
    _ignored("--clean-workdir", _F, "the work of finished runs is removed; --fresh discards "
             "unfinished work"),
    _works("--stop-on-first-crash", _FPR, values=0),
    _ignored("--resource-monitor", _FPR, "time and memory are always recorded, in the sidecars"),
    _replaced("--use-plugin --nipype-plugin-file", _FPR, "use --executor ray for a cluster"),
    _replaced("--gpu", _P, "use --set tracking.engine=cuda", "+"),
    _ignored("--notrack", _FPR, "nothing is ever sent anywhere"),
    _ignored("--track-carbon", _F, "it is not measured; CPU time is in the sidecars"),
    _ignored("--country-code", _F, "energy is not measured", 1),
    # How to process.
    _works("--random-seed", _F, "sets `seeding.rng_seed`"),
    _replaced("--config-file", _FPR, "use --config FILE, which 'config init' writes"),
    _replaced("--recon-spec", _R, "use --config NAME; 'config init' writes a file to edit"),
    _replaced("--recon-spec-aux-files", _R, "name files in the configuration"),
    _replaced("--atlases", _R, "parcellations are not used: make connectomes of the tractogram "
              "with tck2connectome", "+"),
    _replaced("--b0-threshold", _PR, "use --set gradients.b0_threshold_s_mm2=N"),
    _replaced("--infant", _PR, "use --set checks.subject=infant", 0),
    _replaced("--output-resolution", _PR, "streamlines follow the grid of the DWI: choose it in "
              "QSIPrep"),
    _replaced("--output-spaces", _F, "results are in the space of the DWI", "*"),
    _replaced("--output-layout", _F, "results are always in BIDS' layout for derivatives"),
    _replaced("--level", _F, "use --stop-after maps or --stop-after masks"),
    _replaced("--sloppy", _FPR, "use fewer seeds, e.g. --set seeding.seeds='{kind: total, "
              "count: 10k}'", 0),
    _replaced("--force", _F, "use --overwrite to replace results of another configuration, --fresh "
              "to do everything again", "+"),
    # What is written and printed.
    _works("--version", _FPR, values=0),
    _works("-v --verbose", _FPR, "may be repeated: `-vv`", 0),
    _ignored("--debug", _FPR, "-vv shows messages for debugging, and tracebacks of defects are in "
             "logs/", "+"),
    _works("--reports-only", _FPR, values=0),
    _replaced("--boilerplate-only", _FPR, "every run writes it: see "
              "logs/CITATION.md and the report", 0),
    _replaced("--boilerplate", _PR, "every run writes it: see logs/CITATION.md and the report", 0),
    _ignored("--md-only-boilerplate", _F, "the methods text is written in all formats"),
    _ignored("--report-output-level", _PR, "reports are in the root, one for each run", 1),
    _ignored("--aggregate-session-reports", _F, "there is one report for each run", 1),
    _replaced("--skip-odf-reports", _R, "use --no-report", 0),
    _ignored("--write-graph", _FPR, "--dry-run prints what is done"),
    # Preprocessing of DWI.
    _replaced("--ignore", _FP, _QSIPREP, "+"),
    _replaced("--anat-only", _FP, _QSIPREP, 0),
    _ignored("--dwi-only", _P, "only DWI is processed"),
    _replaced("--dwi-denoise-window --denoise-method --unringing-method --b1-biascorrect-stage "
              "--distortion-group-merge --b0-to-anat-transform --b0-to-t1w-transform "
              "--intramodal-template-iters --intramodal-template-transform --b0-motion-corr-to "
              "--hmc-transform --hmc-model --eddy-config --diffprep-config "
              "--tortoise-gpu-cpu-ratio --shoreline-iters --pepolar-method", _P, _QSIPREP),
    _replaced("--dwi-no-biascorr --no-b0-harmonization --denoise-after-combining "
              "--prefer-dedicated-fmaps", _P, _QSIPREP, 0),
    _ignored("--separate-all-dwis", _P, "every DWI has a tractogram of its own"),
    _replaced("--fmap-bspline --fmap-no-demean", _FP, _QSIPREP, 0),
    _replaced("--force-syn", _FP, _QSIPREP, 0),
    _replaced("--use-syn-sdc", _FP, _QSIPREP, "?"),
    # Anatomical preprocessing.
    _ignored("--fs-license-file", _FPR, _LICENSE, 1),
    _replaced("--fs-subjects-dir", (FMRIPREP, QSIRECON), "name a segmentation on the grid "
              "or in the space of the DWI: tissue in docs/config.md"),
    _replaced("--submm-recon --no-submm-recon --fs-no-reconall --fs-no-resume", _F, _ANATOMY, 0),
    _replaced("--subject-anatomical-reference", _FP, _ANATOMY),
    _replaced("--longitudinal", _FP, _ANATOMY, 0),
    _replaced("--skip-anat-based-spatial-normalization", _P, _ANATOMY, 0),
    _replaced("--anat-modality --anat-biascorrect --anatomical-template", _P, _ANATOMY),
    _replaced("--skull-strip-template --skull-strip-t1w", _F, _ANATOMY),
    _replaced("--skull-strip-fixed-seed", _F, _ANATOMY, 0),
    # Functional MRI.
    _replaced("--bold2anat-init --bold2anat-dof --slice-time-ref --dummy-scans "
              "--fallback-total-readout-time --me-t2s-fit-method --fd-spike-threshold "
              "--dvars-spike-threshold", _F, _FUNCTIONAL),
    _replaced("--track-sessions --no-track-sessions --force-bbr --force-no-bbr --me-output-echos "
              "--medial-surface-nan --project-goodvoxels --msm --no-msm --return-all-components",
              _F, _FUNCTIONAL, 0),
    _replaced("--cifti-output", _F, _FUNCTIONAL, "?"),
    # MRtrix3: options with one hyphen.
    _works("-nthreads", _T),
    _replaced("-select", _T, "use --set seeding.seeds='{kind: select, count: N}'"),
    _replaced("-seeds", _T, "use --set seeding.seeds='{kind: total, count: N}'"),
    _replaced("-algorithm", _T, "use --set tracking.algorithm.kind=prob (of iFOD), det (of "
              "SD_STREAM), pft, ptt, eudx or closest_peak"),
    _replaced("-step", _T, "use --set tracking.algorithm.step_size_mm=MM"),
    _replaced("-angle", _T, "use --set tracking.algorithm.max_angle_deg=DEG"),
    _replaced("-cutoff", _T, "streamlines stop by a map, not by the amplitude of the fODF: use "
              "--set stopping.threshold=FA"),
    _replaced("-minlength", _T, "use --set tracking.min_length_mm=MM"),
    _replaced("-maxlength", _T, "use --set tracking.max_length_mm=MM"),
    _replaced("-act", _T, "use --config act_msmt, or --set stopping.kind=act with tissue: of a "
              "5TT image '{kind: 5tt, image: FILE}'"),
    _replaced("-seed_image -seed_gmwmi -seed_dynamic", _T, "use seeding.mask in the configuration"),
    _replaced("-mask", _T, "use stopping in the configuration: '{kind: binary, mask: FILE}'"),
    _replaced("-include -exclude", _T, "use the key of this name in tracking of the configuration"),
    _replaced("-force", _T, "use --overwrite", 0),
    _replaced("-info", _T, "use -v", 0),
    _replaced("-debug", _T, "use -vv", 0),
    _replaced("-quiet", _T, "redirect standard error: 2>/dev/null", 0),
)  # fmt: skip


def add_dialect(parser: argparse.ArgumentParser) -> None:
    """Add the options of other programs that are not ours, which are not shown in the help."""
    known = set(parser._option_string_actions)
    for name, foreign in _by_name():
        if foreign.effect != "works" and name not in known:
            known.add(name)
            parser.add_argument(
                name, dest="foreign", action=_Noted, nargs=foreign.values, help=argparse.SUPPRESS
            )


def answers(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return what to say about options of other programs that were given.

    Returns
    -------
    replaced, ignored : list of str
        Lines about options that are errors, and about those without effect.
    """
    table = dict(_by_name())
    lines: dict[Effect, list[str]] = {"replaced": [], "ignored": []}
    for name in dict.fromkeys(names):
        foreign = table[name]
        lines[foreign.effect].append(f"{name}: {foreign.answer}")
    return lines["replaced"], lines["ignored"]


def _by_name() -> Iterator[tuple[str, Foreign]]:
    for foreign in DIALECT:
        for name in foreign.names:
            yield name, foreign


class _Noted(argparse.Action):
    """Notes that an option was given."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Add the name of the option to the namespace."""
        setattr(namespace, self.dest, [*(getattr(namespace, self.dest) or []), option_string])

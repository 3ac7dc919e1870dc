"""What was done, in words that can go into a paper, with its references."""

from __future__ import annotations

from bids_tractography import __version__
from bids_tractography.config import Config
from bids_tractography.config.masks import ThresholdMask
from bids_tractography.config.model import CsdModel
from bids_tractography.config.tracking import (
    GivenSeeds,
    GridSeeds,
    RandomSeeds,
    ThresholdStop,
    TotalSeeds,
)

_REFERENCES = {
    "garyfallidis2014": """@article{garyfallidis2014,
  title = {Dipy, a library for the analysis of diffusion {MRI} data},
  author = {Garyfallidis, Eleftherios and Brett, Matthew and Amirbekian, Bagrat and others},
  journal = {Frontiers in Neuroinformatics}, volume = {8}, year = {2014},
  doi = {10.3389/fninf.2014.00008}
}""",
    "basser1994": """@article{basser1994,
  title = {{MR} diffusion tensor spectroscopy and imaging},
  author = {Basser, Peter J. and Mattiello, James and Le Bihan, Denis},
  journal = {Biophysical Journal}, volume = {66}, year = {1994},
  doi = {10.1016/S0006-3495(94)80775-1}
}""",
    "tournier2007": """@article{tournier2007,
  title = {Robust determination of the fibre orientation distribution in diffusion {MRI}:
           non-negativity constrained super-resolved spherical deconvolution},
  author = {Tournier, J.-Donald and Calamante, Fernando and Connelly, Alan},
  journal = {NeuroImage}, volume = {35}, year = {2007},
  doi = {10.1016/j.neuroimage.2007.02.016}
}""",
    "aganj2010": """@article{aganj2010,
  title = {Reconstruction of the orientation distribution function in single- and
           multiple-shell q-ball imaging within constant solid angle},
  author = {Aganj, Iman and Lenglet, Christophe and Sapiro, Guillermo and Yacoub, Essa and
            Ugurbil, Kamil and Harel, Noam},
  journal = {Magnetic Resonance in Medicine}, volume = {64}, year = {2010},
  doi = {10.1002/mrm.22365}
}""",
    "calamante2010": """@article{calamante2010,
  title = {Track-density imaging ({TDI}): super-resolution white matter imaging using
           whole-brain track-density mapping},
  author = {Calamante, Fernando and Tournier, Jacques-Donald and Jackson, Graeme D. and
            Connelly, Alan},
  journal = {NeuroImage}, volume = {53}, year = {2010},
  doi = {10.1016/j.neuroimage.2010.07.024}
}""",
    "salmon2011": """@inproceedings{salmon2011,
  title = {Parallel random numbers: as easy as 1, 2, 3},
  author = {Salmon, John K. and Moraes, Mark A. and Dror, Ron O. and Shaw, David E.},
  booktitle = {Proceedings of SC11}, year = {2011},
  doi = {10.1145/2063384.2063405}
}""",
}


def methods_text(config: Config) -> str:
    """Describe the method in a paragraph of Markdown."""
    tracking, algorithm = config.tracking, config.tracking.algorithm
    kinds = {"prob": "probabilistic", "det": "deterministic"}
    return f"""\
Whole-brain tractography was done with bids_tractography {__version__}, which builds on DIPY
[@garyfallidis2014]. The diffusion tensor [@basser1994] was fitted by weighted least squares to
shells up to b = {config.tensor.max_b_s_mm2:g} s/mm². {_model(config)} Streamlines were started
from {_seeds(config)} (random numbers: Philox [@salmon2011]) and propagated with
{kinds[algorithm.kind]} tracking in steps of {algorithm.step_size_mm:g} mm, turning by at most
{algorithm.max_angle_deg:g}° a step, {_stopping(config)}. Streamlines from
{tracking.min_length_mm:g} to {tracking.max_length_mm:g} mm were kept. Track density
[@calamante2010] was counted on the grid of the diffusion-weighted images.
"""


def _model(config: Config) -> str:
    if not isinstance(config.model, CsdModel):
        return (
            "The orientation distribution of the tensor [@aganj2010] was expanded in spherical "
            f"harmonics of order {config.model.sh_order}."
        )
    shell = config.model.shell_s_mm2
    which = "the outermost suitable shell" if shell == "outermost" else f"b = {shell:g} s/mm²"
    return (
        f"Fibre orientation distributions were estimated from {which} by constrained spherical "
        "deconvolution [@tournier2007]; response and harmonic order stand in the sidecars."
    )


def _seeds(config: Config) -> str:
    match config.seeding.seeds:
        case GridSeeds(per_axis=n):
            seeds = f"a grid of {n**3} seeds in every voxel"
        case RandomSeeds(per_voxel=n):
            seeds = f"{n} random seed(s) in every voxel"
        case TotalSeeds(count=n):
            seeds = f"{n} random seeds"
        case GivenSeeds():
            return "given coordinates"
    mask = config.seeding.mask
    if isinstance(mask, ThresholdMask):
        return f"{seeds} with {mask.map.upper()} > {mask.above:g}"
    return f"{seeds} of a seed mask"


def _stopping(config: Config) -> str:
    if isinstance(config.stopping, ThresholdStop):
        return f"while {config.stopping.map.upper()} > {config.stopping.below:g}"
    return "inside a mask"


def bibliography(config: Config) -> str:
    """Return the BibTeX entries that the text cites."""
    text = methods_text(config)
    return "\n\n".join(entry for key, entry in _REFERENCES.items() if f"@{key}" in text) + "\n"

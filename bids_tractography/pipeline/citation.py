"""What was done, in words that can go into a paper, with its references."""

from __future__ import annotations

from bids_tractography import __version__
from bids_tractography.config import Config
from bids_tractography.config.masks import InterfaceMaskConfig, ThresholdMaskConfig
from bids_tractography.config.tracking import (
    GivenSeedsConfig,
    GridSeedsConfig,
    RandomSeedsConfig,
    TotalSeedsConfig,
)
from bids_tractography.reconst import MODELS

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
    "jeurissen2014": """@article{jeurissen2014,
  title = {Multi-tissue constrained spherical deconvolution for improved analysis of multi-shell
           diffusion {MRI} data},
  author = {Jeurissen, Ben and Tournier, Jacques-Donald and Dhollander, Thijs and
            Connelly, Alan and Sijbers, Jan},
  journal = {NeuroImage}, volume = {103}, year = {2014},
  doi = {10.1016/j.neuroimage.2014.07.061}
}""",
    "dhollander2016": """@inproceedings{dhollander2016,
  title = {Unsupervised 3-tissue response function estimation from single-shell or multi-shell
           diffusion {MR} data without a co-registered {T1} image},
  author = {Dhollander, Thijs and Raffelt, David and Connelly, Alan},
  booktitle = {ISMRM Workshop on Breaking the Barriers of Diffusion {MRI}}, year = {2016},
  pages = {5}
}""",
    "jensen2005": """@article{jensen2005,
  title = {Diffusional kurtosis imaging: the quantification of non-{Gaussian} water diffusion by
           means of magnetic resonance imaging},
  author = {Jensen, Jens H. and Helpern, Joseph A. and Ramani, Anita and Lu, Hanzhang and
            Kaczynski, Kyle},
  journal = {Magnetic Resonance in Medicine}, volume = {53}, year = {2005},
  doi = {10.1002/mrm.20508}
}""",
    "jensen2014": """@article{jensen2014,
  title = {Leading non-{Gaussian} corrections for diffusion orientation distribution function},
  author = {Jensen, Jens H. and Helpern, Joseph A. and Tabesh, Ali},
  journal = {NMR in Biomedicine}, volume = {27}, year = {2014},
  doi = {10.1002/nbm.3053}
}""",
    "henriques2015": """@article{henriques2015,
  title = {Exploring the {3D} geometry of the diffusion kurtosis tensor: impact on the development
           of robust tractography procedures and novel biomarkers},
  author = {Neto Henriques, Rafael and Correia, Marta Morgado and Nunes, Rita Gouveia and
            Ferreira, Hugo Alexandre},
  journal = {NeuroImage}, volume = {111}, year = {2015},
  doi = {10.1016/j.neuroimage.2015.02.004}
}""",
    "veraart2013": """@article{veraart2013,
  title = {Weighted linear least squares estimation of diffusion {MRI} parameters: strengths,
           limitations, and pitfalls},
  author = {Veraart, Jelle and Sijbers, Jan and Sunaert, Stefan and Leemans, Alexander and
            Jeurissen, Ben},
  journal = {NeuroImage}, volume = {81}, year = {2013},
  doi = {10.1016/j.neuroimage.2013.05.028}
}""",
    "descoteaux2007": """@article{descoteaux2007,
  title = {Regularized, fast, and robust analytical {Q}-ball imaging},
  author = {Descoteaux, Maxime and Angelino, Elaine and Fitzgibbons, Shaun and Deriche, Rachid},
  journal = {Magnetic Resonance in Medicine}, volume = {58}, year = {2007},
  doi = {10.1002/mrm.21277}
}""",
    "tristanvega2010": """@article{tristanvega2010,
  title = {A new methodology for the estimation of fiber populations in the white matter of the
           brain with the {Funk-Radon} transform},
  author = {Tristan-Vega, Antonio and Westin, Carl-Fredrik and Aja-Fernandez, Santiago},
  journal = {NeuroImage}, volume = {49}, year = {2010},
  doi = {10.1016/j.neuroimage.2009.09.070}
}""",
    "yeh2010": """@article{yeh2010,
  title = {Generalized q-sampling imaging},
  author = {Yeh, Fang-Cheng and Wedeen, Van Jay and Tseng, Wen-Yih Isaac},
  journal = {IEEE Transactions on Medical Imaging}, volume = {29}, year = {2010},
  doi = {10.1109/TMI.2010.2045126}
}""",
    "garyfallidis2012": """@phdthesis{garyfallidis2012,
  title = {Towards an accurate brain tractography},
  author = {Garyfallidis, Eleftherios},
  school = {University of Cambridge}, year = {2012}
}""",
    "canalesrodriguez2015": """@article{canalesrodriguez2015,
  title = {Spherical deconvolution of multichannel diffusion {MRI} data with non-{Gaussian} noise
           models and spatial regularization},
  author = {Canales-Rodriguez, Erick J. and Daducci, Alessandro and Sotiropoulos, Stamatios N. and
            Caruyer, Emmanuel and Aja-Fernandez, Santiago and others},
  journal = {PLOS ONE}, volume = {10}, year = {2015},
  doi = {10.1371/journal.pone.0138910}
}""",
    "calamante2010": """@article{calamante2010,
  title = {Track-density imaging ({TDI}): super-resolution white matter imaging using
           whole-brain track-density mapping},
  author = {Calamante, Fernando and Tournier, Jacques-Donald and Jackson, Graeme D. and
            Connelly, Alan},
  journal = {NeuroImage}, volume = {53}, year = {2010},
  doi = {10.1016/j.neuroimage.2010.07.024}
}""",
    "smith2012": """@article{smith2012,
  title = {Anatomically-constrained tractography: improved diffusion {MRI} streamlines
           tractography through effective use of anatomical information},
  author = {Smith, Robert E. and Tournier, Jacques-Donald and Calamante, Fernando and
            Connelly, Alan},
  journal = {NeuroImage}, volume = {62}, year = {2012},
  doi = {10.1016/j.neuroimage.2012.06.005}
}""",
    "girard2014": """@article{girard2014,
  title = {Towards quantitative connectivity analysis: reducing tractography biases},
  author = {Girard, Gabriel and Whittingstall, Kevin and Deriche, Rachid and
            Descoteaux, Maxime},
  journal = {NeuroImage}, volume = {98}, year = {2014},
  doi = {10.1016/j.neuroimage.2014.04.074}
}""",
    "aydogan2021": """@article{aydogan2021,
  title = {Parallel transport tractography},
  author = {Aydogan, Dogu Baran and Shi, Yonggang},
  journal = {IEEE Transactions on Medical Imaging}, volume = {40}, year = {2021},
  doi = {10.1109/TMI.2020.3034038}
}""",
    "tournier2012": """@article{tournier2012,
  title = {{MRtrix}: diffusion tractography in crossing fiber regions},
  author = {Tournier, J.-Donald and Calamante, Fernando and Connelly, Alan},
  journal = {International Journal of Imaging Systems and Technology}, volume = {22},
  year = {2012}, doi = {10.1002/ima.22005}
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
    if config.import_tract is not None:
        return f"""\
A tractogram made elsewhere was checked and brought in by bids_tractography {__version__}. Track
density [@calamante2010] was counted on the grid of the diffusion-weighted images.
"""
    return f"""\
Whole-brain tractography was done with bids_tractography {__version__}, which builds on DIPY
[@garyfallidis2014]. The diffusion tensor [@basser1994] was fitted by weighted least squares to
shells up to b = {config.tensor.max_b_s_mm2:g} s/mm². {_model(config)} Streamlines were started
from {_seeds(config)} (random numbers: Philox [@salmon2011]) and propagated with
{algorithm.method} tracking [@{algorithm.reference}] in steps of {algorithm.step_size_mm:g} mm,
turning by at most {algorithm.max_angle_deg:g}° a step, {config.stopping.where}. Streamlines from
{tracking.min_length_mm:g} to {tracking.max_length_mm:g} mm were kept. Track density
[@calamante2010] was counted on the grid of the diffusion-weighted images.
"""


def _model(config: Config) -> str:
    kind = MODELS[config.model.kind]
    cited = "; ".join(f"@{key}" for key in kind.references)
    return (
        f"Streamlines follow: {kind.description[0].lower()}{kind.description[1:]} [{cited}]; its "
        "resolved parameters stand in the sidecars."
    )


def _seeds(config: Config) -> str:
    match config.seeding.seeds:
        case GridSeedsConfig(per_axis=n):
            seeds = f"a grid of {n**3} seeds in every voxel"
        case RandomSeedsConfig(per_voxel=n):
            seeds = f"{n} random seed(s) in every voxel"
        case TotalSeedsConfig(count=n):
            seeds = f"{n} random seeds"
        case GivenSeedsConfig():
            return "given coordinates"
    mask = config.seeding.mask
    match mask:
        case ThresholdMaskConfig(map="fa", above=float(above), below=None, percentile=False):
            return f"{seeds} with FA > {above:g}"
        case InterfaceMaskConfig():
            return f"{seeds} of the interface of white and grey matter"
    return f"{seeds} of a seed mask"


def bibliography(config: Config) -> str:
    """Return the BibTeX entries that the text cites."""
    text = methods_text(config)
    return "\n\n".join(entry for key, entry in _REFERENCES.items() if f"@{key}" in text) + "\n"

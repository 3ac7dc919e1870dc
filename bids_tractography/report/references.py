"""The literature that a run may cite."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_FIELD = {"article": "journal", "inproceedings": "booktitle", "phdthesis": "school"}


@dataclass(frozen=True)
class Reference:
    """An entry of the bibliography.

    Parameters
    ----------
    key : str
        Key that texts cite it by.
    authors : tuple of str
        Family name, given names; the last may be ``"others"``.
    title : str
        Braces protect capitals, as in BibTeX.
    where : str
        Journal, proceedings or university.
    year : int
    kind : str
        Type of the BibTeX entry.
    volume, pages, doi : str
        Empty where unknown.
    """

    key: str
    authors: tuple[str, ...]
    title: str
    where: str
    year: int
    kind: str = "article"
    volume: str = ""
    pages: str = ""
    doi: str = ""

    @property
    def bibtex(self) -> str:
        """The entry in BibTeX."""
        fields = {
            "title": self.title,
            "author": " and ".join(self.authors),
            _FIELD[self.kind]: self.where,
            "volume": self.volume,
            "pages": self.pages,
            "year": str(self.year),
            "doi": self.doi,
        }
        lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items() if value)
        return f"@{self.kind}{{{self.key},\n{lines}\n}}"

    @property
    def short(self) -> str:
        """Author and year, as they are cited in a text."""
        families = [author.partition(",")[0] for author in self.authors]
        if len(families) > 2 or "others" in families:
            return f"{families[0]} et al., {self.year}"
        return f"{' and '.join(families)}, {self.year}"

    @property
    def plain(self) -> str:
        """The entry as a line of text, without its DOI."""
        names = [_initials(author) for author in self.authors if author != "others"]
        listed = ", ".join(names) + (" et al." if "others" in self.authors else "")
        title = re.sub(r"[{}]", "", self.title)
        volume = f" {self.volume}" if self.volume else ""
        pages = f", p. {self.pages}" if self.pages else ""
        return f"{listed} ({self.year}). {title}. {self.where}{volume}{pages}."


def _initials(author: str) -> str:
    """Shorten given names: ``Tournier, J.-Donald`` becomes ``Tournier J-D``."""
    family, _, given = author.partition(", ")
    parts = ("-".join(name[0] for name in part.split("-") if name) for part in given.split())
    return f"{family} {''.join(parts)}".strip()


_ALL = (
    Reference(
        "garyfallidis2014",
        (
            "Garyfallidis, Eleftherios",
            "Brett, Matthew",
            "Amirbekian, Bagrat",
            "others",
        ),
        "Dipy, a library for the analysis of diffusion {MRI} data",
        "Frontiers in Neuroinformatics",
        2014,
        volume="8",
        doi="10.3389/fninf.2014.00008",
    ),
    Reference(
        "basser1994",
        (
            "Basser, Peter J.",
            "Mattiello, James",
            "Le Bihan, Denis",
        ),
        "{MR} diffusion tensor spectroscopy and imaging",
        "Biophysical Journal",
        1994,
        volume="66",
        doi="10.1016/S0006-3495(94)80775-1",
    ),
    Reference(
        "tournier2007",
        (
            "Tournier, J.-Donald",
            "Calamante, Fernando",
            "Connelly, Alan",
        ),
        "Robust determination of the fibre orientation distribution in diffusion {MRI}: non-"
        "negativity constrained super-resolved spherical deconvolution",
        "NeuroImage",
        2007,
        volume="35",
        doi="10.1016/j.neuroimage.2007.02.016",
    ),
    Reference(
        "aganj2010",
        (
            "Aganj, Iman",
            "Lenglet, Christophe",
            "Sapiro, Guillermo",
            "Yacoub, Essa",
            "Ugurbil, Kamil",
            "Harel, Noam",
        ),
        "Reconstruction of the orientation distribution function in single- and multiple-shell "
        "q-ball imaging within constant solid angle",
        "Magnetic Resonance in Medicine",
        2010,
        volume="64",
        doi="10.1002/mrm.22365",
    ),
    Reference(
        "jeurissen2014",
        (
            "Jeurissen, Ben",
            "Tournier, Jacques-Donald",
            "Dhollander, Thijs",
            "Connelly, Alan",
            "Sijbers, Jan",
        ),
        "Multi-tissue constrained spherical deconvolution for improved analysis of multi-shell "
        "diffusion {MRI} data",
        "NeuroImage",
        2014,
        volume="103",
        doi="10.1016/j.neuroimage.2014.07.061",
    ),
    Reference(
        "dhollander2016",
        (
            "Dhollander, Thijs",
            "Raffelt, David",
            "Connelly, Alan",
        ),
        "Unsupervised 3-tissue response function estimation from single-shell or multi-shell "
        "diffusion {MR} data without a co-registered {T1} image",
        "ISMRM Workshop on Breaking the Barriers of Diffusion {MRI}",
        2016,
        kind="inproceedings",
        pages="5",
    ),
    Reference(
        "jensen2005",
        (
            "Jensen, Jens H.",
            "Helpern, Joseph A.",
            "Ramani, Anita",
            "Lu, Hanzhang",
            "Kaczynski, Kyle",
        ),
        "Diffusional kurtosis imaging: the quantification of non-{Gaussian} water diffusion by "
        "means of magnetic resonance imaging",
        "Magnetic Resonance in Medicine",
        2005,
        volume="53",
        doi="10.1002/mrm.20508",
    ),
    Reference(
        "jensen2014",
        (
            "Jensen, Jens H.",
            "Helpern, Joseph A.",
            "Tabesh, Ali",
        ),
        "Leading non-{Gaussian} corrections for diffusion orientation distribution function",
        "NMR in Biomedicine",
        2014,
        volume="27",
        doi="10.1002/nbm.3053",
    ),
    Reference(
        "henriques2015",
        (
            "Neto Henriques, Rafael",
            "Correia, Marta Morgado",
            "Nunes, Rita Gouveia",
            "Ferreira, Hugo Alexandre",
        ),
        "Exploring the {3D} geometry of the diffusion kurtosis tensor: impact on the development "
        "of robust tractography procedures and novel biomarkers",
        "NeuroImage",
        2015,
        volume="111",
        doi="10.1016/j.neuroimage.2015.02.004",
    ),
    Reference(
        "veraart2013",
        (
            "Veraart, Jelle",
            "Sijbers, Jan",
            "Sunaert, Stefan",
            "Leemans, Alexander",
            "Jeurissen, Ben",
        ),
        "Weighted linear least squares estimation of diffusion {MRI} parameters: strengths, "
        "limitations, and pitfalls",
        "NeuroImage",
        2013,
        volume="81",
        doi="10.1016/j.neuroimage.2013.05.028",
    ),
    Reference(
        "descoteaux2007",
        (
            "Descoteaux, Maxime",
            "Angelino, Elaine",
            "Fitzgibbons, Shaun",
            "Deriche, Rachid",
        ),
        "Regularized, fast, and robust analytical {Q}-ball imaging",
        "Magnetic Resonance in Medicine",
        2007,
        volume="58",
        doi="10.1002/mrm.21277",
    ),
    Reference(
        "tristanvega2010",
        (
            "Tristan-Vega, Antonio",
            "Westin, Carl-Fredrik",
            "Aja-Fernandez, Santiago",
        ),
        "A new methodology for the estimation of fiber populations in the white matter of the "
        "brain with the {Funk-Radon} transform",
        "NeuroImage",
        2010,
        volume="49",
        doi="10.1016/j.neuroimage.2009.09.070",
    ),
    Reference(
        "yeh2010",
        (
            "Yeh, Fang-Cheng",
            "Wedeen, Van Jay",
            "Tseng, Wen-Yih Isaac",
        ),
        "Generalized q-sampling imaging",
        "IEEE Transactions on Medical Imaging",
        2010,
        volume="29",
        doi="10.1109/TMI.2010.2045126",
    ),
    Reference(
        "garyfallidis2012",
        ("Garyfallidis, Eleftherios",),
        "Towards an accurate brain tractography",
        "University of Cambridge",
        2012,
        kind="phdthesis",
    ),
    Reference(
        "canalesrodriguez2015",
        (
            "Canales-Rodriguez, Erick J.",
            "Daducci, Alessandro",
            "Sotiropoulos, Stamatios N.",
            "Caruyer, Emmanuel",
            "Aja-Fernandez, Santiago",
            "others",
        ),
        "Spherical deconvolution of multichannel diffusion {MRI} data with non-{Gaussian} noise "
        "models and spatial regularization",
        "PLOS ONE",
        2015,
        volume="10",
        doi="10.1371/journal.pone.0138910",
    ),
    Reference(
        "calamante2010",
        (
            "Calamante, Fernando",
            "Tournier, Jacques-Donald",
            "Jackson, Graeme D.",
            "Connelly, Alan",
        ),
        "Track-density imaging ({TDI}): super-resolution white matter imaging using whole-brain "
        "track-density mapping",
        "NeuroImage",
        2010,
        volume="53",
        doi="10.1016/j.neuroimage.2010.07.024",
    ),
    Reference(
        "smith2012",
        (
            "Smith, Robert E.",
            "Tournier, Jacques-Donald",
            "Calamante, Fernando",
            "Connelly, Alan",
        ),
        "Anatomically-constrained tractography: improved diffusion {MRI} streamlines tractography"
        " through effective use of anatomical information",
        "NeuroImage",
        2012,
        volume="62",
        doi="10.1016/j.neuroimage.2012.06.005",
    ),
    Reference(
        "girard2014",
        (
            "Girard, Gabriel",
            "Whittingstall, Kevin",
            "Deriche, Rachid",
            "Descoteaux, Maxime",
        ),
        "Towards quantitative connectivity analysis: reducing tractography biases",
        "NeuroImage",
        2014,
        volume="98",
        doi="10.1016/j.neuroimage.2014.04.074",
    ),
    Reference(
        "aydogan2021",
        (
            "Aydogan, Dogu Baran",
            "Shi, Yonggang",
        ),
        "Parallel transport tractography",
        "IEEE Transactions on Medical Imaging",
        2021,
        volume="40",
        doi="10.1109/TMI.2020.3034038",
    ),
    Reference(
        "tournier2012",
        (
            "Tournier, J.-Donald",
            "Calamante, Fernando",
            "Connelly, Alan",
        ),
        "{MRtrix}: diffusion tractography in crossing fiber regions",
        "International Journal of Imaging Systems and Technology",
        2012,
        volume="22",
        doi="10.1002/ima.22005",
    ),
    Reference(
        "salmon2011",
        (
            "Salmon, John K.",
            "Moraes, Mark A.",
            "Dror, Ron O.",
            "Shaw, David E.",
        ),
        "Parallel random numbers: as easy as 1, 2, 3",
        "Proceedings of SC11",
        2011,
        kind="inproceedings",
        doi="10.1145/2063384.2063405",
    ),
)

REFERENCES: Mapping[str, Reference] = {reference.key: reference for reference in _ALL}

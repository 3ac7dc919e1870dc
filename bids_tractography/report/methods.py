"""What was done, in words that can go into a paper, with its references.

The text is Markdown with citations as Pandoc reads them, ``[@key]``; other forms are made of it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator

from bids_tractography import __version__
from bids_tractography.anatomy.masks import TISSUE_WORDS
from bids_tractography.config import Config
from bids_tractography.config.masks import (
    SCALAR_UNITS,
    InterfaceMaskConfig,
    ThresholdMaskConfig,
    TissueMaskConfig,
)
from bids_tractography.config.tracking import (
    ActStopConfig,
    CmcStopConfig,
    ConvergeSeedsConfig,
    GivenSeedsConfig,
    GridSeedsConfig,
    RandomSeedsConfig,
    SelectSeedsConfig,
    TotalSeedsConfig,
)
from bids_tractography.outputs.provenance import ImportRecord, TractogramRecord
from bids_tractography.reconst import MODELS
from bids_tractography.report.data import real
from bids_tractography.report.references import REFERENCES, Reference

_CITATION = re.compile(r" ?\[(@\w+(?:; @\w+)*)\]")
_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "²": r"\textsuperscript{2}", "³": r"\textsuperscript{3}", "°": r"\textdegree{}",
    "≤": r"$\leq$", "≥": r"$\geq$", "×": r"$\times$", "<": "$<$", ">": "$>$",
}  # fmt: skip


def methods_text(config: Config, record: TractogramRecord | ImportRecord | None = None) -> str:
    """Describe the method in a paragraph of Markdown.

    Parameters
    ----------
    config : Config
    record : TractogramRecord or ImportRecord, optional
        Of a run, whose resolved parameters and counts are stated; without it, the text is about
        any run with this configuration.
    """
    version = record.version if record else __version__
    if config.import_tract is not None:
        return (
            "A tractogram created by other software was checked and imported with "
            f"bids_tractography {version}. {_density()}\n"
        )
    made = record if isinstance(record, TractogramRecord) else None
    tracking, algorithm = config.tracking, config.tracking.algorithm
    angle = "considering peaks within" if algorithm.kind == "eudx" else "and a maximum angle of"
    sentences = [
        f"Whole-brain tractography was performed with bids_tractography {version}, which builds "
        "on DIPY [@garyfallidis2014].",
        "The diffusion tensor [@basser1994] was fitted by weighted least squares to the volumes "
        f"with b ≤ {config.tensor.max_b_s_mm2:g} s/mm².",
        _model(config, made),
        f"Streamlines were seeded {_seeds(config, made)} and propagated by {algorithm.method} "
        f"tracking [@{algorithm.reference}] with a step size of {algorithm.step_size_mm:g} mm "
        f"{angle} {algorithm.max_angle_deg:g}° per step, {config.stopping.where}.",
        f"Streamlines shorter than {tracking.min_length_mm:g} mm or longer than "
        f"{tracking.max_length_mm:g} mm were discarded{_dead_ends(config)}.",
        *_regions(config),
        *_kept(made),
        f"Random numbers were generated{f' with seed {made.rng_seed}' if made else ''} by the "
        "counter-based generator Philox [@salmon2011].",
        _density(),
    ]
    return " ".join(sentences) + "\n"


def _density() -> str:
    return (
        "Track density [@calamante2010] was computed on the grid of the diffusion-weighted images."
    )


def _model(config: Config, made: TractogramRecord | None) -> str:
    kind = config.model.kind
    if kind == "precomputed":
        return (
            "Fibre orientation distribution functions (fODFs) computed by other software were "
            "imported."
        )
    cited = "; ".join(f"@{key}" for key in MODELS[kind].references)
    name = re.sub(r" \([^()]*\d{4}\)$", "", MODELS[kind].description)
    name = name[0].lower() + name[1:]
    way = "as the" if name.startswith(("orientation", "solid-angle")) else "by"
    text = f"Fibre orientation distribution functions (fODFs) were estimated {way} {name} [{cited}]"
    resolved = list(_resolved(made)) if made else []
    if not resolved:
        return f"{text}."
    *others, last = resolved
    return f"{text}, with {', '.join(others)}{' and ' if others else ''}{last}."


def _resolved(made: TractogramRecord) -> Iterator[str]:
    """Yield the parameters of the model that the data decided."""
    model = made.model
    response = model.get("response")
    of_response = response if isinstance(response, dict) else {}
    for value, words in (
        (model.get("shell_s_mm2"), "b = {:.0f} s/mm²"),
        (model.get("directions"), "{:.0f} directions"),
        (model.get("sh_order"), "a maximal spherical-harmonic order of {:.0f}"),
        (of_response.get("voxels"), "a white-matter response estimated from {:.0f} voxels"),
    ):
        found = real(value)
        if found is not None:
            yield words.format(found)


def _seeds(config: Config, made: TractogramRecord | None) -> str:
    seeds, mask = config.seeding.seeds, config.seeding.mask
    if isinstance(seeds, GivenSeedsConfig):
        return f"at {made.seeds:,} given coordinates" if made else "at given coordinates"
    match seeds:
        case GridSeedsConfig(per_axis=1):
            where = "at the centre of every voxel"
        case GridSeedsConfig(per_axis=n):
            where = f"on a regular grid of {n} × {n} × {n} positions in every voxel"
        case RandomSeedsConfig(per_voxel=1):
            where = "at a random position in every voxel"
        case RandomSeedsConfig(per_voxel=n):
            where = f"at {n:,} random positions in every voxel"
        case TotalSeedsConfig(count=n):
            where = f"at {n:,} random positions in the voxels"
        case SelectSeedsConfig(count=n):
            where = f"at random positions, until {n:,} streamlines were kept, in the voxels"
        case ConvergeSeedsConfig(correlation=r):
            where = (
                "at random positions, until the density maps of two halves of the seeds had a "
                f"correlation of {r:g}, in the voxels"
            )
    match mask:
        case ThresholdMaskConfig(map=str(name), above=float(above), below=None, percentile=False):
            where += f" with {name.upper()} > {above:g}{SCALAR_UNITS[name]}"
        case InterfaceMaskConfig():
            where += " at the interface of white and grey matter"
        case TissueMaskConfig(tissue=tissue, above=above):
            where += f" with a {TISSUE_WORDS[tissue]} fraction above {above:g}"
        case _:
            where += " of a seed mask"
    if made and made.seed_voxels is not None:
        where += f" ({made.seeds:,} seeds in {made.seed_voxels:,} voxels)"
    return where


def _dead_ends(config: Config) -> str:
    if config.tracking.dead_ends == "keep":
        return ""
    if isinstance(config.stopping, ActStopConfig | CmcStopConfig):
        return ", as were streamlines that ended in cerebrospinal fluid or inside white matter"
    return (
        ", as were streamlines that ended for want of a direction inside the region where "
        "tracking could have continued"
    )


def _regions(config: Config) -> Iterator[str]:
    if config.tracking.include:
        yield "Only streamlines that passed through all inclusion regions were kept."
    if config.tracking.exclude:
        yield "Streamlines that entered an exclusion region were discarded."


def _kept(made: TractogramRecord | None) -> Iterator[str]:
    if made:
        yield (
            f"Of {made.streamlines_generated:,} streamlines generated, "
            f"{made.streamlines_kept:,} were retained."
        )


def cited(text: str) -> list[Reference]:
    """Return the references that a text cites, in the order in which it does."""
    keys = re.findall(r"@(\w+)", " ".join(_CITATION.findall(text)))
    return [REFERENCES[key] for key in dict.fromkeys(keys)]


def bibliography(text: str) -> str:
    """Return the BibTeX entries that a text cites."""
    return "\n\n".join(reference.bibtex for reference in cited(text)) + "\n"


def as_plain(text: str) -> str:
    """Return a text with citations by author and year, ready to paste."""
    return _with_citations(text, _by_author)


def as_html(text: str, title: str) -> str:
    """Return a text and its references as an HTML page."""
    body = _with_citations(html.escape(text), lambda keys: html.escape(_by_author(keys)))
    entries = "\n".join(f"<li>{_linked(reference)}</li>" for reference in cited(text))
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f"<title>{html.escape(title)}</title>\n<p>{body.strip()}</p>\n<ul>\n{entries}\n</ul>\n"
    )


def as_tex(text: str) -> str:
    r"""Return a text as LaTeX, with citations by ``\cite``."""
    pieces, at = [], 0
    for found in _CITATION.finditer(text):
        pieces.append(_escaped_tex(text[at : found.start()]))
        pieces.append(f"~\\cite{{{','.join(_keys(found[1]))}}}")
        at = found.end()
    return "".join([*pieces, _escaped_tex(text[at:])])


def _escaped_tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in text)


def _linked(reference: Reference) -> str:
    link = f"https://doi.org/{html.escape(reference.doi)}"
    doi = f' <a href="{link}">{link}</a>' if reference.doi else ""
    return html.escape(reference.plain) + doi


def _with_citations(text: str, cite: Callable[[list[str]], str]) -> str:
    return _CITATION.sub(lambda found: f" ({cite(_keys(found[1]))})", text)


def _by_author(keys: list[str]) -> str:
    return "; ".join(REFERENCES[key].short for key in keys)


def _keys(citation: str) -> list[str]:
    return re.findall(r"@(\w+)", citation)

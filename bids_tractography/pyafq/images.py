"""Translation of pyAFQ's image definitions, which are parsed from text."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_FILE = ("path", "suffix", "filters")
_BOUNDS = ("lower_bound", "upper_bound")
PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "ImageFile": (*_FILE, "resample"),
    "ScalarImage": ("scalar",),
    "ThresholdedImageFile": (*_FILE, *_BOUNDS, "as_percentage", "combine"),
    "ThresholdedScalarImage": ("scalar", *_BOUNDS, "combine"),
    "LabelledImageFile": (*_FILE, "inclusive_labels", "exclusive_labels", "combine"),
    "FullImage": (),
    "B0Image": ("median_otsu_kwargs",),
    "PFTImage": ("WM_probseg", "GM_probseg", "CSF_probseg"),
    "PVEImages": ("CSF_probseg", "GM_probseg", "WM_probseg"),
    "PVEImage": (*_FILE, "pve_order", "resample"),
    "RoiImage": (
        *("use_waypoints", "use_presegment", "use_endpoints"),
        *("tissue_property", "tissue_property_n_voxel", "tissue_property_threshold"),
    ),
    "TemplateImage": ("path",),
    "GQImage": (),
}
# Translation of each definition; docs/pyafq.md is generated from this table.
DEFINITIONS: Mapping[str, str] = {
    "ImageFile": "`{kind: threshold, map: FILE}` with the threshold for its use",
    "ScalarImage": "`{kind: threshold, map: fa}`: dti_fa, dti_md, dti_ad, dti_rd; "
    "wm_gm_interface `{kind: interface}`",
    "ThresholdedImageFile": "`{kind: threshold, map: FILE, above: ..., below: ...}`; "
    "`combine='or'` `{kind: any}`; percentages are an error",
    "ThresholdedScalarImage": "`{kind: threshold, map: fa, above: ..., below: ...}`",
    "LabelledImageFile": "`{kind: labels}`; exclusions only, without label 0: `{kind: not}` of it",
    "FullImage": "`{kind: full}`",
    "B0Image": "`{kind: brain}`",
    "PFTImage": "`tissue: {kind: files, wm: FILE, gm: FILE, csf: FILE}`",
    "PVEImages": "as PFTImage, with arguments in its own order",
    "PVEImage": "an error: three files are required",
    "RoiImage": "an error: provide images of the regions, `{kind: roi, files: [...]}`",
    "TemplateImage": "an error: images in template space are not supported",
    "GQImage": "an error",
}
SCALARS: Mapping[str, str] = {"dti_fa": "fa", "dti_md": "md", "dti_ad": "ad", "dti_rd": "rd"}
INTERFACE = "wm_gm_interface"


class NoCounterpartError(Exception):
    """A value cannot be translated; the message states why."""


@dataclass(frozen=True)
class Definition:
    """A call such as ``ImageFile(path="x.nii.gz")``; arguments that are not given are None."""

    name: str
    arguments: Mapping[str, Any]

    def __getitem__(self, key: str) -> Any:
        return self.arguments.get(key)


def read_value(value: Any) -> Any:
    """Parse a value as pyAFQ parses its TOML, without executing it.

    Empty text becomes None; text that begins like a list, tuple or dict is parsed as one; text that
    calls an image definition becomes a `Definition`.

    Raises
    ------
    NoCounterpartError
        If the text cannot be parsed, or calls anything else.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    if not text:
        return None
    if text[0] not in "[{(" and not ("(" in text and "Image" in text):
        return value
    try:
        return _evaluate(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise NoCounterpartError(f"cannot be parsed: {value}") from None


def _evaluate(node: ast.expr) -> Any:
    if not isinstance(node, ast.Call):
        return ast.literal_eval(node)
    name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
    parameters = PARAMETERS.get(name)
    if parameters is None:
        raise NoCounterpartError(f"{name} is not a supported image definition.")
    arguments = dict(zip(parameters, map(_evaluate, node.args), strict=False))
    named = {str(word.arg): _evaluate(word.value) for word in node.keywords}
    if len(node.args) > len(parameters) or not named.keys() <= set(parameters) - set(arguments):
        raise NoCounterpartError(f"{name} has the arguments {', '.join(parameters) or '(none)'}.")
    return Definition(name, arguments | named)


def file_of(definition: Definition) -> dict[str, Any]:
    """Return the file of a definition as our configuration: a path, or filters and a scope.

    Raises
    ------
    NoCounterpartError
        If the definition has no counterpart.
    """
    if definition["path"] is not None:
        return {"path": definition["path"]}
    if definition["suffix"] is None:
        raise NoCounterpartError(f"{definition.name} requires a path or a suffix.")
    return file_of_filters({"suffix": definition["suffix"], **(definition["filters"] or {})})


def file_of_filters(filters: Mapping[str, Any]) -> dict[str, Any]:
    """Return a file given by pybids filters, which include the scope in pyAFQ."""
    entities = {key: value for key, value in filters.items() if key != "scope"}
    scope = filters.get("scope")
    return (
        {"filters": entities} if scope in (None, "all") else {"filters": entities, "scope": scope}
    )


def map_of(definition: Definition) -> Any:
    """Return the map of a definition: a name, or a file.

    Raises
    ------
    NoCounterpartError
        If the definition has no counterpart.
    """
    if definition.name in ("ScalarImage", "ThresholdedScalarImage"):
        scalar = definition["scalar"]
        if scalar not in SCALARS:
            raise NoCounterpartError(
                f"the map {scalar} is not available (only {', '.join(SCALARS)}); provide a file."
            )
        return SCALARS[scalar]
    if definition.name in ("ImageFile", "ThresholdedImageFile"):
        return file_of(definition)
    raise NoCounterpartError(f"{definition.name} does not define a single map.")


def fractions_of(definition: Definition) -> dict[str, Any]:
    """Return the section ``tissue`` for a definition of three images.

    Raises
    ------
    NoCounterpartError
        If the definition has no counterpart.
    """
    if definition.name not in ("PFTImage", "PVEImages"):
        raise NoCounterpartError(
            f"{definition.name} does not define three images: PFTImage(WM, GM, CSF)."
        )
    images = {tissue: definition[f"{tissue.upper()}_probseg"] for tissue in ("wm", "gm", "csf")}
    for tissue, image in images.items():
        if not isinstance(image, Definition) or image.name != "ImageFile":
            raise NoCounterpartError(f"{tissue.upper()}_probseg must be an ImageFile.")
    return {"kind": "files", **{tissue: file_of(image) for tissue, image in images.items()}}


def is_binary(definition: Definition) -> bool:
    """Return whether a definition yields a mask, so that thresholds do not apply to it."""
    return definition.name in _BINARY


def mask_of(definition: Definition) -> dict[str, Any]:
    """Return the mask of a definition of a binary image."""
    return _BINARY[definition.name](definition)


def _labels(definition: Definition) -> dict[str, Any]:
    image = {"kind": "labels", **file_of(definition)}
    include, exclude = definition["inclusive_labels"], definition["exclusive_labels"]
    combine = definition["combine"] or "or"
    if combine == "and" and len(include or ()) > 1:
        raise NoCounterpartError("no voxel has several labels; use combine='or'.")
    if combine == "or" and len(exclude or ()) > 1:
        raise NoCounterpartError("every voxel lacks one of several labels; use combine='and'.")
    parts: list[dict[str, Any]] = []
    if include is not None:
        parts.append({**image, "include": list(include)})
    if exclude is not None and 0 in exclude:
        parts.append({**image, "exclude": list(exclude)})
    elif exclude is not None:  # pyAFQ does not exclude the background
        parts.append({"kind": "not", "of": {**image, "include": list(exclude)}})
    return _combined(parts, combine)


def _between_bounds(definition: Definition) -> dict[str, Any]:
    if definition["as_percentage"]:
        raise NoCounterpartError(
            "percentages of all voxels, including zeros, are not supported; percentiles here are "
            "those of non-zero voxels."
        )
    sides = {"above": definition["lower_bound"], "below": definition["upper_bound"]}
    bounds = {side: bound for side, bound in sides.items() if bound is not None}
    image = {"kind": "threshold", "map": map_of(definition)}
    combine = definition["combine"] or "and"
    if combine == "and" and bounds:
        return {**image, **bounds}
    return _combined([{**image, side: bound} for side, bound in bounds.items()], combine)


def _combined(parts: list[dict[str, Any]], combine: str) -> dict[str, Any]:
    if not parts:
        raise NoCounterpartError("neither labels nor bounds are given.")
    if combine not in ("and", "or"):
        raise NoCounterpartError(f"combine must be 'and' or 'or', not {combine!r}.")
    if len(parts) == 1:
        return parts[0]
    return {"kind": "all" if combine == "and" else "any", "of": parts}


def _brain(definition: Definition) -> dict[str, Any]:
    if definition["median_otsu_kwargs"]:
        raise NoCounterpartError("the brain mask of the DWI does not have parameters here.")
    return {"kind": "brain"}


def _no_regions(_definition: Definition) -> dict[str, Any]:
    raise NoCounterpartError(
        "pyAFQ's bundles and their regions are not available; provide images of the regions, "
        "{kind: roi, files: [...]}."
    )


def _no_template(_definition: Definition) -> dict[str, Any]:
    raise NoCounterpartError(
        "images in template space are not supported; provide an image of each participant."
    )


_BINARY: Mapping[str, Callable[[Definition], dict[str, Any]]] = {
    "FullImage": lambda _definition: {"kind": "full"},
    "B0Image": _brain,
    "LabelledImageFile": _labels,
    "ThresholdedImageFile": _between_bounds,
    "ThresholdedScalarImage": _between_bounds,
    "RoiImage": _no_regions,
    "TemplateImage": _no_template,
}

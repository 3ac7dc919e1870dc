"""Faults of a configuration in words: what is expected where, and the nearest right word."""

from __future__ import annotations

import difflib
import json
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bids_tractography.config import Config
from bids_tractography.config.files import FileConfig
from bids_tractography.config.section import kind_of, members

_MAX_FAULTS, _MAX_KEY, _MAX_MESSAGE, _MAX_VALUE = 100, 200, 500, 60

# What is expected, by the type of pydantic's error; values in braces are its context.
_EXPECTED: Mapping[str, str] = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "a number greater than {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of fewer digits",
    "int_type": "a whole number",
    "less_than": "a number less than {lt:g}",
    "less_than_equal": "a number of at most {le:g}",
    "literal_error": "{expected}",
    "multiple_of": "a multiple of {multiple_of:g}",
    "none_required": "null",
    "path_type": "a path",
    "string_pattern_mismatch": "text that matches {pattern}",
    "string_type": "text",
    "too_long": "fewer items, at most {max_length}",
    "too_short": "more items, at least {min_length}",
}
_MAPPINGS = ("dict_type", "mapping_type", "model_attributes_type", "model_type")
_LISTS = ("list_type", "tuple_type")
_SAID = ("extra_forbidden", "invalid_key", "missing", "union_tag_invalid", "value_error")

# Words of other programs: the kind or value here, and what to write if that is not enough.
_WORDS: Mapping[str, tuple[str, str]] = {
    "probabilistic": ("prob", ""),
    "ifod1": ("prob", "prob, which draws directions as iFOD1 of MRtrix3 does"),
    "ifod2": ("prob", "prob (first order, as iFOD1), or ptt for smooth curves"),
    "tensor_prob": ("prob", "prob with model tensor"),
    "deterministic": ("det", ""),
    "sd_stream": ("det", ""),
    "tensor_det": ("det", "det with model tensor"),
    "fact": ("closest_peak", ""),
    "peaks": ("closest_peak", ""),
    "particle": ("pft", ""),
    "parallel_transport": ("ptt", ""),
    "dti": ("tensor", ""),
    "dki": ("kurtosis", ""),
    "msmt": ("msmt_csd", ""),
    "multishell": ("msmt_csd", ""),
    "ss3t": ("msmt_csd", "{kind: msmt_csd, tissues: wm_csf}"),
    "ss3t_csd": ("msmt_csd", "{kind: msmt_csd, tissues: wm_csf}"),
    "rumba_sd": ("rumba", ""),
    "gmwmi": ("interface", ""),
    "wm_gm_interface": ("interface", ""),
    "gm_wm_interface": ("interface", ""),
    "wm": ("tissue", "{kind: tissue, tissue: wm}"),
    "gm": ("tissue", "{kind: tissue, tissue: gm}"),
    "csf": ("tissue", "{kind: tissue, tissue: csf}"),
    "fa": ("threshold", "{map: fa, THRESHOLD: 0.2}"),
    "md": ("threshold", "{map: md, THRESHOLD: ...}"),
    "gfa": ("threshold", "{map: gfa, THRESHOLD: ...}"),
    "scalar": ("threshold", ""),
    "anisotropic_power": ("threshold", "{map: {path: FILE}, THRESHOLD: ...} with a map of it"),
    "hsvs": ("5tt", ""),
    "5ttgen": ("5tt", ""),
    "aseg": ("dseg", ""),
    "freesurfer": ("dseg", ""),
    "gpu": ("cuda", ""),
    "cuslines": ("cuda", ""),
    "gqi_standard": ("standard", ""),
    "mrtrix": ("tournier07", ""),
    "mrtrix3": ("tournier07", ""),
    "ras": ("scanner", ""),
}


def describe_faults(error: ValidationError, where: str) -> str:
    """Describe all faults of a configuration, one line for each key.

    Parameters
    ----------
    error : ValidationError
        What pydantic found.
    where : str
        Where the configuration is from.
    """
    errors = error.errors(include_url=False)
    faults = _by_key(errors[:_MAX_FAULTS])
    listed = "\n".join(f"  {key}: {text}" for key, text in faults.items())
    more = "\n  (more errors not shown)" if len(errors) > _MAX_FAULTS else ""
    plural = "s" if len(faults) > 1 else ""
    return f"{where} has {len(faults)} error{plural}:\n{listed}{more}\n"


def clipped(text: str, max_length: int = _MAX_MESSAGE) -> str:
    """Return the beginning of a text that may be too long for a message."""
    return text if len(text) <= max_length else f"{text[: max_length - 3]}..."


def _by_key(faults: Iterable[ErrorDetails]) -> dict[str, str]:
    """Describe the fault of each key, merging the alternatives of a union into one message."""
    several: dict[str, list[tuple[ErrorDetails, _Place]]] = {}
    for fault in faults:
        place = _follow(fault["loc"])
        several.setdefault(place.key, []).append((fault, place))
    return {key: _of_key(found) for key, found in several.items()}


def _of_key(found: list[tuple[ErrorDetails, _Place]]) -> str:
    """Describe the faults of one key."""
    said: list[str] = []
    expected: list[str] = []
    known: list[str] = []
    for fault, place in found:
        match fault["type"]:
            case "extra_forbidden":
                said.append(f"unknown key.{_nearest_key(place)}")
            case "union_tag_invalid":
                tag = str(fault["ctx"]["tag"])
                said.append(f"unknown kind '{clipped(tag, _MAX_KEY)}'.{_nearest(tag, place.kinds)}")
            case "invalid_key":
                said.append("keys must be text.")
            case "missing":
                said.append("required, but not given.")
            case "value_error":
                said.append(clipped(str(fault["ctx"]["error"])) + _given(fault["input"]))
            case kind:
                expected.append(_expectation(fault, place))
                known += _names(fault["ctx"]["expected"]) if kind == "literal_error" else []
    if expected:
        value = next(fault["input"] for fault, _ in found if fault["type"] not in _SAID)
        hint = _suggestion(value, known) if isinstance(value, str) else ""
        said.append(f"expected {' or '.join(dict.fromkeys(expected))}{_given(value)}.{hint}")
    return " ".join(dict.fromkeys(said))


def _expectation(fault: ErrorDetails, place: _Place) -> str:
    """Return what a key expects, as the object of a sentence."""
    kind, context = fault["type"], fault.get("ctx", {})
    if kind in _EXPECTED:
        return _EXPECTED[kind].format(**context)
    if kind in _MAPPINGS:
        shorter = place.kinds or (["a path"] if _are_files(place.sections) else [])
        return " or ".join(filter(None, (", ".join(shorter), "a mapping of keys")))
    if kind in _LISTS:
        item = fault["input"]
        return f"a list, e.g. [{item}]" if isinstance(item, str) and item else "a list"
    return "another value"


def _are_files(sections: list[type[BaseModel]]) -> bool:
    return bool(sections) and all(issubclass(section, FileConfig) for section in sections)


def _names(listed: str) -> list[str]:
    """Return the names in ``'a', 'b' or 'c'``."""
    return listed.split("'")[1::2]


def _given(value: Any) -> str:
    if isinstance(value, dict | BaseModel):  # too long to help
        return ""
    return f" (given: {_short(value)})"


def _short(value: Any) -> str:
    try:
        text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return clipped(text, _MAX_VALUE)
    except (TypeError, ValueError):  # not JSON, or an integer of thousands of digits
        return f"a value of type {type(value).__name__}"


def _nearest(name: str, known: list[str]) -> str:
    return _suggestion(name, known) or f" Known: {', '.join(sorted(known))}."


def _suggestion(name: str, known: list[str]) -> str:
    """Suggest what is meant by a word: a word of another program, or the closest one."""
    word = name.lower().replace("-", "_").replace(" ", "_")
    ours, example = _WORDS.get(word, ("", ""))
    if word in known:
        return f" Did you mean '{word}'?"
    if ours in known:
        above = "above" if "tissue" in known else "threshold"
        written = example.replace("THRESHOLD", above)
        return f" Write {written}." if written else f" Did you mean '{ours}'?"
    if "file" in known and (word.endswith((".nii", ".nii.gz")) or "/" in word):
        return f" Write {{kind: file, path: {clipped(name, _MAX_KEY)}}}."
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def _nearest_key(place: _Place) -> str:
    """Suggest a key of the section, or the section that has the key."""
    name = clipped(place.path[-1], _MAX_KEY)
    known = [name for section in place.parents for name in section.model_fields]
    elsewhere = _places().get(name.lower(), [])
    if elsewhere and name.lower() not in known:
        return f" Did you mean '{elsewhere[0]}'?"
    return _nearest(name, known)


def _places() -> dict[str, list[str]]:
    """Return the paths of all keys by their names, the shortest first."""
    places: dict[str, list[str]] = {}
    level: list[tuple[str, type[BaseModel]]] = [("", Config)]
    seen: set[type[BaseModel]] = set()
    while level:
        below: list[tuple[str, type[BaseModel]]] = []
        for before, section in level:
            if section in seen:
                continue
            seen.add(section)
            for name, field in section.model_fields.items():
                places.setdefault(name, []).append(before + name)
                below += [(f"{before}{name}.", one) for one in members(field.annotation)]
        level = below
    return places


@dataclass(frozen=True)
class _Place:
    """Where a fault is.

    Parameters
    ----------
    path : list of str
        Key and the keys above it.
    parents, sections : list
        Sections that the key may be in, and sections that its value may be.
    """

    path: list[str]
    parents: list[type[BaseModel]]
    sections: list[type[BaseModel]]

    @property
    def key(self) -> str:
        """Dotted path."""
        return clipped(".".join(self.path), _MAX_KEY) or "(whole configuration)"

    @property
    def kinds(self) -> list[str]:
        """Kinds of the sections."""
        return [name for section in self.sections if (name := kind_of(section))]


def _follow(location: tuple[int | str, ...]) -> _Place:
    """Walk from the root of the configuration along the location of a fault.

    Pydantic's locations include the kind of a union's member and the names of alternative types,
    which are not keys of the configuration. The kind selects the member here.
    """
    sections: list[type[BaseModel]] = [Config]
    parents = sections
    path: list[str] = []
    is_type = False
    for element in location:
        if isinstance(element, int):  # index in a list
            path.append(str(element))
        elif is_type:
            is_type = False
        elif len(sections) > 1:  # a union: this is the kind
            sections = [section for section in sections if kind_of(section) == element]
        elif sections:
            path.append(str(element))
            parents = sections
            field = sections[0].model_fields.get(str(element))
            sections = list(members(field.annotation)) if field else []
            annotation = field.annotation if field else None
            is_union = get_origin(annotation) in (Union, types.UnionType)
            others = set(get_args(annotation)) - {*sections, type(None)}
            is_type = len(sections) == 1 and is_union and bool(others)
    return _Place(path, parents, sections)

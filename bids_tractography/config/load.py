"""Load the configuration from a file and ``key=value`` overrides, reporting all faults at once."""

from __future__ import annotations

import difflib
import logging
import math
import tomllib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bids_tractography.config import Config
from bids_tractography.config.section import kind_of, members
from bids_tractography.errors import ConfigError
from bids_tractography.machine.files import check_depth, parse_json, printable, read_text
from bids_tractography.pyafq.translate import Translation, is_pyafq, translate

logger = logging.getLogger(__name__)

_CONFIG_BYTES = 1 << 19  # a YAML file of this size takes seconds to parse
_MAX_CHARACTERS = 1 << 22  # of a document with its aliases expanded
_MAX_FAULTS, _MAX_KEY, _MAX_MESSAGE = 100, 200, 500
# Exceptions that parsers raise for malformed or hostile text, in addition to their own.
_TEXT_FAULTS = (
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError),
    yaml.YAMLError,
)


def load_config(path: Path | None = None, overrides: Iterable[str] = ()) -> Config:
    """Read and validate a configuration.

    Parameters
    ----------
    path : Path, optional
        A ``.yaml``, ``.yml``, ``.toml`` or ``.json`` file; the defaults if not given. A
        configuration in pyAFQ's terms is translated, and the log reports how.
    overrides : iterable of str
        ``dotted.key=value``; values are parsed as YAML.

    Returns
    -------
    Config

    Raises
    ------
    ConfigError
        If the configuration is invalid; the message lists all faults with the paths of their keys.
    """
    content = _read_file(path) if path else {}
    if path and is_pyafq(content):
        translation = _translate(path, content)
        for note in translation.notes:
            logger.info("%s, in pyAFQ's terms: %s", path, note)
        content = translation.config
    for override in overrides:
        _apply(content, override)
    return validate_config(content, str(path) if path else "the configuration")


def validate_config(content: Mapping[str, Any], where: str) -> Config:
    """Validate the content of a configuration.

    Parameters
    ----------
    content : mapping
        Sections by name.
    where : str
        Where it is from, for the message.

    Raises
    ------
    ConfigError
        If it is invalid; the message lists all faults with the paths of their keys.
    """
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        errors = error.errors()
        faults = _describe_all(errors[:_MAX_FAULTS])
        listed = "\n".join(f"  {key}: {text}" for key, text in faults.items())
        if len(errors) > _MAX_FAULTS:
            listed += "\n  (more faults not shown)"
        raise ConfigError(
            f"{where} has {len(faults)} fault(s):\n{listed}\n",
            "'bids-tractography config show' prints every key with its default.",
        ) from None


def translate_config(path: Path) -> Translation:
    """Load a configuration in pyAFQ's terms and translate it; see `pyafq.translate`.

    Raises
    ------
    ConfigError
        If the file is not in pyAFQ's terms, or has keys without a counterpart.
    """
    content = _read_file(path)
    if not is_pyafq(content):
        raise ConfigError(
            f"{path} has no pyAFQ keys, or mixes them with keys of this program.",
            "Only files in pyAFQ's terms can be translated.",
        )
    return _translate(path, content)


def _translate(path: Path, content: Mapping[str, Any]) -> Translation:
    try:
        return translate(content)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}", error.remedy) from None


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML loader that rejects repeated keys, which PyYAML would silently overwrite."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        own = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        _refuse_repeats([self.construct_object(key, deep=deep) for key in own])
        return super().construct_mapping(node, deep=deep)


def _refuse_repeats(keys: list[Any]) -> None:
    counts = Counter(key for key in keys if isinstance(key, Hashable))
    repeated = sorted(_clipped(str(key), _MAX_KEY) for key, count in counts.items() if count > 1)
    if repeated:
        raise ValueError(f"duplicate key in one section: {', '.join(repeated)}")


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _refuse_repeats([key for key, _ in pairs])
    return dict(pairs)


def _load_yaml(text: str) -> Any:
    loader = _UniqueKeyLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _written_out(node, {}) > _MAX_CHARACTERS:
            raise ValueError("too much text after expansion of its aliases")
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _written_out(node: yaml.Node, known: dict[int, float]) -> float:
    """Return the number of characters of a node with its aliases expanded."""
    if id(node) not in known:
        known[id(node)] = math.inf  # a node that contains itself would recurse forever
        if isinstance(node, yaml.ScalarNode):
            parts = [float(len(node.value))]
        elif isinstance(node, yaml.MappingNode):
            parts = [_written_out(part, known) for pair in node.value for part in pair]
        else:
            parts = [_written_out(part, known) for part in node.value]
        known[id(node)] = 1 + sum(parts)
    return known[id(node)]


def _load_json(text: str) -> Any:
    return parse_json(text, strict=False, pairs=_unique_pairs)


_READERS: Mapping[str, Callable[[str], Any]] = {
    ".yaml": _load_yaml,
    ".yml": _load_yaml,
    ".toml": tomllib.loads,
    ".json": _load_json,
}


def _read_file(path: Path) -> dict[str, Any]:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(
            f"{printable(path)}: unknown configuration format.",
            f"Use one of the extensions {', '.join(_READERS)}.",
        )
    text = read_text(path, ConfigError, _CONFIG_BYTES)
    try:
        content = reader(text)
        check_depth(content)
    except _TEXT_FAULTS as error:
        kind, reason = path.suffix[1:].upper(), _clipped(str(error), _MAX_MESSAGE)
        raise ConfigError(f"{path} is not valid {kind}: {reason}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: the configuration must be a mapping of sections.")
    return content


def _apply(content: dict[str, Any], override: str) -> None:
    """Set one dotted key in place."""
    key, separator, text = override.partition("=")
    if not separator or not all(key.split(".")):
        raise ConfigError(f"--set {override}: expected KEY=VALUE, e.g. tracking.min_length_mm=30.")
    try:
        value = _load_yaml(text)
        check_depth(value)
    except _TEXT_FAULTS as error:
        shown, reason = _clipped(override, _MAX_KEY), _clipped(str(error), _MAX_MESSAGE)
        raise ConfigError(f"--set {shown}: the value is not valid YAML: {reason}") from None
    *parents, last = key.split(".")
    section = content
    for parent in parents:
        child = section.get(parent)
        if isinstance(child, str):  # a bare kind or path, e.g. ``model: csd``
            child = {"path" if "." in child or "/" in child else "kind": child}
        elif not isinstance(child, dict):
            child = {}
        section[parent] = child
        section = child
    section[last] = value


def _describe_all(faults: list[ErrorDetails]) -> dict[str, str]:
    """Describe the fault of each key, merging the alternatives of a union into one message."""
    texts: dict[str, list[str]] = {}
    given: dict[str, str] = {}
    for fault in faults:
        sections, path = _follow(fault["loc"])
        key = _clipped(".".join(path), _MAX_KEY) or "(whole configuration)"
        texts.setdefault(key, []).append(_describe(fault, sections, path))
        if fault["type"] not in ("missing", "extra_forbidden", "union_tag_invalid"):
            given[key] = f" (given: {_short(fault['input'])})"
    return {
        key: " or ".join(dict.fromkeys(alternatives)) + given.get(key, "")
        for key, alternatives in texts.items()
    }


def _describe(fault: ErrorDetails, sections: list[type[BaseModel]], path: list[str]) -> str:
    """Describe one fault, suggesting the closest valid name if there is one."""
    if fault["type"] == "extra_forbidden":
        known = [name for section in sections for name in section.model_fields]
        return f"unknown key.{_nearest(_clipped(path[-1], _MAX_KEY), known)}"
    if fault["type"] == "union_tag_invalid":
        context = fault["ctx"]
        kinds = [kind.strip("' ") for kind in context["expected_tags"].split(",")]
        tag = _clipped(str(context["tag"]), _MAX_KEY)
        return f"unknown kind '{tag}'.{_nearest(tag, kinds)}"
    return _clipped(fault["msg"].removeprefix("Value error, "), _MAX_MESSAGE)


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print integers of thousands of digits
        return "an integer with too many digits"
    return _clipped(text, 60)


def _clipped(text: str, max_length: int) -> str:
    return text if len(text) <= max_length else f"{text[: max_length - 3]}..."


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else f" Known: {', '.join(sorted(known))}."


def _follow(location: tuple[int | str, ...]) -> tuple[list[type[BaseModel]], list[str]]:
    """Walk from the root of the configuration along the location of a fault.

    Pydantic's locations include the kind of a union's member and the names of alternative types,
    which are not keys of the configuration. The kind selects the member here.
    """
    sections: list[type[BaseModel]] = [Config]
    parents = sections
    path: list[str] = []
    for element in location:
        if isinstance(element, int):  # index in a list
            path.append(str(element))
        elif len(sections) > 1:  # a union: this is the kind
            sections = [section for section in sections if kind_of(section) == element]
        elif sections:
            path.append(str(element))
            parents = sections
            field = sections[0].model_fields.get(str(element))
            sections = list(members(field.annotation)) if field else []
    return (sections if len(sections) > 1 else parents), path

"""Load the configuration from a file and ``key=value`` overrides, reporting all faults at once."""

from __future__ import annotations

import logging
import math
import tomllib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from bids_tractography.config import Config
from bids_tractography.config.faults import clipped, describe_faults
from bids_tractography.errors import ConfigError
from bids_tractography.machine.files import check_depth, parse_json, printable, read_text
from bids_tractography.pyafq.translate import Translation, is_pyafq, translate

logger = logging.getLogger(__name__)

_CONFIG_BYTES = 1 << 19  # a YAML file of this size takes seconds to parse
_MAX_CHARACTERS = 1 << 22  # of a document with its aliases expanded
_MAX_KEY = 200
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
    if isinstance(content.get("$schema"), str):  # which editors read
        content = {key: value for key, value in content.items() if key != "$schema"}
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        raise ConfigError(
            describe_faults(error, where),
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
    repeated = sorted(clipped(str(key), _MAX_KEY) for key, count in counts.items() if count > 1)
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
        kind, reason = path.suffix[1:].upper(), clipped(str(error))
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
        shown, reason = clipped(override, _MAX_KEY), clipped(str(error))
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

"""Make the files that the program itself is the source of; ``--check`` only compares."""

from __future__ import annotations

import ast
import os
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from descriptor import boutiques
from metadata import STAMPED, citation, codemeta, stamped

from bids_tractography.cli.config import config_schema
from bids_tractography.cli.parser import build_parser
from bids_tractography.config import Config
from bids_tractography.pyafq import keys as pyafq
from bids_tractography.pyafq.images import DEFINITIONS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bids_tractography"


def cli_page() -> str:
    """Return the command line's help as a page."""
    os.environ["COLUMNS"] = "96"
    return (
        "# Command line\n\n<!-- made by `make generate` -->\n\n"
        f"```\n{build_parser().format_help()}```\n"
    )


def config_page() -> str:
    """Return every section and key of the configuration as a page of tables."""
    schema = Config.model_json_schema()
    lines = [
        "# Configuration",
        "",
        "<!-- made by `make generate` -->",
        "",
        "YAML, TOML or JSON; every key is optional unless it has no default. Unknown keys are "
        "errors. `bids-tractography config show` prints the effective configuration.",
        "",
        *_section("(top)", schema),
    ]
    for name, section in sorted(schema["$defs"].items()):
        if "properties" in section:
            lines += _section(name.removesuffix("Config"), section)
    return "\n".join(lines).rstrip() + "\n"


def pyafq_page() -> str:
    """Return what becomes of every key of pyAFQ's as a page of tables."""
    lines = [
        "# pyAFQ's names",
        "",
        "<!-- made by `make generate` -->",
        "",
        "A file in pyAFQ's terms (TOML with `[TRACTOGRAPHY_PARAMS]` and its other sections, or the "
        "same keys in YAML or JSON, or `tracking_params` alone) is taken as `--config`, and the "
        "log says how it was read. `bids-tractography config translate FILE` prints it in our "
        "terms. What has no counterpart and could change the tractogram is an error that names "
        "every such key; what could not is a note.",
        "",
        *_pyafq_table("Translated", pyafq.TRANSLATED),
        "An omitted key has pyAFQ's default, not ours, and a note says so. Files with "
        f"{_listed(pyafq.KEYS_FROM_3)}, or with "
        + ", or ".join(f"`{key}` {', '.join(v)}" for key, v in pyafq.VALUES_FROM_3.items())
        + ", are taken to be of pyAFQ 3, others of pyAFQ 1 or 2:",
        "",
        "| key | until 2 | from 3 |",
        "|---|---|---|",
        *(f"| `{key}` | {pyafq.UNTIL_2[key]} | {pyafq.FROM_3[key]} |" for key in pyafq.UNTIL_2),
        "| `seed_mask` | FA > 0.2 | interface of white and grey matter |",
        "| `stop_mask` | FA > 0.2 | white matter > 0.4 (prob, ptt), ACT (det, pft) |",
        "",
        *_pyafq_table("Definitions of images", DEFINITIONS),
        "They are read as text and never run. `ImageFile(...)` as `odf_model` is a precomputed "
        "fODF in image axes.",
        "",
        *_pyafq_table("On the command line here", pyafq.ON_THE_COMMAND_LINE),
        *_pyafq_table("Without effect on the tractogram", pyafq.WITHOUT_EFFECT),
        "## Not about tractography",
        "",
        f"Left out with a note: {_listed(pyafq.UNRELATED)}.",
    ]
    return "\n".join(lines) + "\n"


def _pyafq_table(title: str, table: Mapping[str, str]) -> list[str]:
    rows = [f"| `{key}` | {ours} |" for key, ours in table.items()]
    return [f"## {title}", "", "| pyAFQ | here |", "|---|---|", *rows, ""]


def _listed(keys: Iterable[str]) -> str:
    return ", ".join(f"`{key}`" for key in keys)


def _section(name: str, section: dict[str, Any]) -> list[str]:
    rows = [
        f"| `{key}` | {_type(field)} | {_default(field)} | {_one_line(field.get('description'))} |"
        for key, field in section["properties"].items()
    ]
    return [
        f"## {name}",
        "",
        _one_line(section.get("description")),
        "",
        "| key | type | default | meaning |",
        "|---|---|---|---|",
        *rows,
        "",
    ]


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def _type(field: dict[str, Any]) -> str:
    for key in ("anyOf", "oneOf"):
        if key in field:
            return " or ".join(_type(choice) for choice in field[key])
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2].removesuffix("Config")
        return f"[{name}](#{name.lower()})"
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if field.get("type") == "array":
        items = field.get("items") or {}
        return f"list of {_type(items)}" if items else "list of numbers"
    return str(field.get("type", "any"))


def _default(field: dict[str, Any]) -> str:
    if "default" not in field:
        return ""
    default = field["default"]
    if isinstance(default, dict):
        return f"`{default['kind']}`" if "kind" in default else ""
    return "`null`" if default is None else f"`{default}`"


def contributing_page() -> str:
    """Return CONTRIBUTING.md with a line for every module of the package as it is now."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    before, _, rest = text.partition(_TREE_BEGINS)
    _, _, after = rest.partition(_TREE_ENDS)
    tree = "\n".join(_tree())
    return f"{before}{_TREE_BEGINS}\n\n```\n{tree}\n```\n\n{_TREE_ENDS}{after}"


_TREE_BEGINS, _TREE_ENDS = "<!-- tree: made by `make generate` -->", "<!-- end of tree -->"


def _tree() -> Iterator[str]:
    """Yield a line for every module, in the order in which imports go down."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (layers,) = (
        contract["layers"]
        for contract in settings["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    )
    for number, layer in zip(range(len(layers), 0, -1), layers, strict=True):
        for name in layer.split(" | "):
            folder = PACKAGE / name
            if not folder.is_dir():
                yield f"{number}  {name + '.py':<28}{_summary(folder.with_suffix('.py'))}"
                continue
            yield f"{number}  {name + '/':<28}{_summary(folder / '__init__.py')}"
            for path in sorted(folder.rglob("*.py")):
                inside = path.relative_to(folder).parts
                if inside == ("__init__.py",):
                    continue
                shown = f"{inside[-2]}/" if path.name == "__init__.py" else path.name
                indent = "  " * (len(inside) - (path.name == "__init__.py"))
                yield f"   {indent + shown:<28}{_summary(path)}"


def _summary(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


FILES: Mapping[Path, Callable[[], str]] = {
    ROOT / "CONTRIBUTING.md": contributing_page,
    ROOT / "docs" / "cli.md": cli_page,
    ROOT / "docs" / "config.md": config_page,
    ROOT / "docs" / "pyafq.md": pyafq_page,
    ROOT / "bids_tractography" / "config" / "schema.json": config_schema,
    ROOT / "boutiques.json": boutiques,
    ROOT / "CITATION.cff": citation,
    ROOT / "codemeta.json": codemeta,
    **{ROOT / name: partial(stamped, name) for name in STAMPED},
}


def main(check: bool) -> int:
    """Write the files, or return 1 if one is not current."""
    stale = []
    for path, make in FILES.items():
        text = make()
        if check:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                stale.append(str(path.relative_to(ROOT)))
        else:
            path.write_text(text, encoding="utf-8")
    if stale:
        print(f"not current: {', '.join(stale)}; run 'make generate'")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))

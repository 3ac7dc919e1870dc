"""How every run ended when it was run last, from the logs of all calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bids_tractography.outputs.files import read_json

_STAMP = len("20200101T000000")


@dataclass(frozen=True)
class End:
    """How a run, or a participant as a whole, ended.

    Parameters
    ----------
    kind : {"finished", "failed", "skipped"}
    message : str
        Why, with the remedy; empty if it finished.
    exit_code : int
    started : str
        When the call began, UTC.
    """

    kind: Literal["finished", "failed", "skipped"]
    message: str = ""
    exit_code: int = 0
    started: str = ""


def last_ends(root: Path) -> dict[str, End]:
    """Return how runs and participants ended last, by their names.

    The fault of a participant as a whole is over when a later call finished one of its runs.

    Parameters
    ----------
    root : Path
        The derivative dataset.
    """
    ends: dict[str, End] = {}
    for path in sorted(_logs(root), key=_age):
        content = read_json(path)
        found = dict(_ends_of(content, _when(path.name)))
        finished = {name.partition("_")[0] for name, end in found.items() if end.kind == "finished"}
        for participant in finished & ends.keys() - found.keys():
            if ends[participant].kind != "finished":
                del ends[participant]
        ends |= found
    return dict(sorted(ends.items()))


def _logs(root: Path) -> list[Path]:
    try:
        return [path for path in (root / "logs").glob("*_participant.json") if path.is_file()]
    except OSError:
        return []


def _age(path: Path) -> tuple[str, int, str]:
    """Sort by the time that the name states, and calls of one second by when they ended."""
    return path.name[:_STAMP], path.stat().st_mtime_ns, path.name


def _when(name: str) -> str:
    """Write the time in the name of a log for people."""
    stamp = name[:_STAMP]
    date, _, time = stamp.partition("T")
    if not (date.isdigit() and time.isdigit() and len(date) == 8 and len(time) == 6):
        return ""
    return f"{date[:4]}-{date[4:6]}-{date[6:]} {time[:2]}:{time[2:4]} UTC"


def _ends_of(content: Mapping[str, Any], started: str) -> Iterator[tuple[str, End]]:
    finished, failed, skipped = (content.get(key) for key in ("finished", "failed", "skipped"))
    for name in finished if isinstance(finished, list) else ():
        if isinstance(name, str):
            yield name, End("finished", started=started)
    for name, reason in skipped.items() if isinstance(skipped, dict) else ():
        yield name, End("skipped", str(reason), started=started)
    for name, what in failed.items() if isinstance(failed, dict) else ():
        if isinstance(what, dict):
            code = what.get("exit_code")
            code = code if isinstance(code, int) else 1
            yield name, End("failed", str(what.get("message", "")), code, started)

"""Memory available to this process, which may be less than the machine has."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from bids_tractography.machine.cgroups import control_folders

_MIB = 2**20
_MIB_OF = {"B": 2.0**-20, "K": 2.0**-10, "M": 1.0, "G": 2.0**10, "T": 2.0**20}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(I?B)?")
_LIMITS = ("memory.max", "memory.limit_in_bytes")


def available_memory_mib(environment: Mapping[str, str], root: Path = Path("/")) -> float:
    """Return the memory that this process may use, in MiB.

    It is the minimum of the physical memory, the memory that Slurm grants on this node, and the
    limits of the control groups of the process.

    Parameters
    ----------
    environment : mapping
        Environment variables of the process.
    root : Path
        Folder that contains ``proc`` and ``sys``.
    """
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / _MIB
    return min([physical, *_granted(environment), *_limits(root)])


def parse_memory_mib(text: str, unit: str = "M") -> float:
    """Parse an amount of memory such as ``16G``, ``16GB``, ``16 GiB`` or ``16000``, in MiB.

    Parameters
    ----------
    text : str
    unit : str
        Unit of a number without one: ``M`` or ``G``.

    Raises
    ------
    ValueError
        If it is not an amount of memory.
    """
    match = _AMOUNT.fullmatch(text.strip().upper())
    if match is None:
        raise ValueError(f"{text} is not an amount of memory")
    number, prefix, byte = match.groups()
    return float(number) * _MIB_OF[prefix or ("B" if byte else unit)]


def _granted(environment: Mapping[str, str]) -> Iterator[float]:
    with suppress(ValueError):
        megabytes = float(environment.get("SLURM_MEM_PER_NODE", ""))
        if megabytes > 0:  # 0 stands for all of the node
            yield megabytes


def _limits(root: Path) -> Iterator[float]:
    for folder in control_folders(root, "memory"):
        for name in _LIMITS:
            with suppress(OSError, ValueError):  # missing, "max", or malformed
                yield int((folder / name).read_text(encoding="utf-8")) / _MIB

"""Description of the container image for ``GeneratedBy``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

# Written next to the Python environment when an image is built.
RECORD = "bids-tractography-image.json"


def describe_container(environment: Mapping[str, str], prefix: Path) -> dict[str, str] | None:
    """Describe the container image from its own record and the environment.

    Parameters
    ----------
    environment : mapping
        Environment variables of the process. ``BIDS_TRACTOGRAPHY_DOCKER_TAG`` or
        ``BIDS_TRACTOGRAPHY_SINGULARITY_URL`` may name the image.
    prefix : Path
        Prefix of the Python environment, which contains the record of the image.

    Returns
    -------
    dict of str or None
        ``Type``, ``Tag`` and ``URI`` as in BIDS; ``Version``, ``Revision`` and ``Packages`` from
        the record. None outside an image.
    """
    try:
        record = json.loads((prefix / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        record = {}
    found = {str(key): str(value) for key, value in record.items() if value}
    if "APPTAINER_CONTAINER" in environment or "SINGULARITY_CONTAINER" in environment:
        found = found and found | {"Type": "singularity"}
    tag = environment.get("BIDS_TRACTOGRAPHY_DOCKER_TAG")
    if tag:
        found |= {"Type": "docker", "Tag": tag}
    uri = environment.get("BIDS_TRACTOGRAPHY_SINGULARITY_URL")
    if uri:
        found |= {"Type": "singularity", "URI": uri}
    return found or None

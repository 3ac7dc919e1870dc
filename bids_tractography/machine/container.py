"""The image that the program runs in, for ``GeneratedBy``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

# Written beside the environment when an image is built.
RECORD = "bids-tractography-image.json"


def describe_container(environment: Mapping[str, str], prefix: Path) -> dict[str, str] | None:
    """Describe the image by what it says of itself.

    Parameters
    ----------
    environment : mapping
        The process's environment. Whoever starts an image may name it in
        ``BIDS_TRACTOGRAPHY_DOCKER_TAG`` or ``BIDS_TRACTOGRAPHY_SINGULARITY_URL``.
    prefix : Path
        Of the Python environment; the image's record lies in it.

    Returns
    -------
    dict of str or None
        ``Type``, ``Tag``, ``URI`` as BIDS has them; ``Version``, ``Revision`` and ``Packages``
        of the record. None outside an image.
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

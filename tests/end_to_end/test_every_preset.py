"""Every preset on the phantom."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import opened, run_cli, sidecar, tractograms

from bids_tractography.config.load import load_config
from bids_tractography.config.presets import configuration_path, preset_names
from bids_tractography.phantom import Phantom, connected_bundles, write_phantom


@pytest.fixture(scope="module")
def two_shells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantom with tissue; the DWI of sub-02 has two shells."""
    return write_phantom(tmp_path_factory.mktemp("presets") / "phantom")


@pytest.mark.slow
@pytest.mark.parametrize("name", preset_names())
def test_a_preset_finds_the_bundles_of_the_phantom(
    two_shells: Path, phantom: Phantom, tmp_path: Path, name: str
) -> None:
    only = tmp_path / "filter.json"
    only.write_text(json.dumps({"dwi": {"direction": "AP"}}))
    fewer = ["seeding.rng_seed=1", "seeding.seeds={kind: total, count: 2k}"]
    ended = run_cli(
        *(two_shells, tmp_path / "out", "participant", "--participant-label", "02"),
        *("--derivatives", two_shells / "derivatives" / "tissue", "--bids-filter-file", only),
        *("--config", name),
        overrides=tuple(fewer),
    )
    assert ended.returncode == 0, ended.stderr
    (path,) = tractograms(tmp_path / "out")
    expected = load_config(configuration_path(name), fewer)
    assert sidecar(path)["BidsTractography"]["config"] == expected.model_dump(mode="json")
    with opened(path) as (points, offsets):
        found = connected_bundles(phantom, points, offsets)
    bundles = {bundle.name for bundle in phantom.bundles}
    missed = {bundle for bundle in bundles if found[bundle] < 2}
    # One direction in a voxel does not get through crossings.
    assert missed <= ({"commissural"} if name == "det_dti" else set()), found

"""The doctor tracks the phantom on every engine."""

from __future__ import annotations

import re
from importlib.util import find_spec

import pytest
from conftest import run_cli

from bids_tractography.config.tracking import TrackingConfig
from bids_tractography.tracking import ENGINES


@pytest.mark.slow
def test_the_doctor_tracks_on_every_engine() -> None:
    ended = run_cli("doctor", overrides=())
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = ended.stdout.splitlines()
    for name, kind in ENGINES.items():
        if kind.unavailable(TrackingConfig()):
            continue
        (trial,) = [line for line in lines if line.startswith(f"trial of {name} ")]
        kept = re.search(r"ok +(\d+) streamlines of 500 seeds", trial)
        assert kept, trial
        assert int(kept[1]) > 100
    assert any(line.startswith("trial of") and "2 processes" in line for line in lines)
    trials = [line for line in lines if line.startswith("trial of ray ")]
    assert [" ok " in line for line in trials] == ([True] if find_spec("ray") else [])

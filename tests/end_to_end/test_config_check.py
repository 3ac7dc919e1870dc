"""``config check`` refuses exactly what a run would refuse because of its configuration."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from conftest import run_cli

from bids_tractography.app.request import Request, open_study
from bids_tractography.config.load import load_config
from bids_tractography.errors import ConfigError, DeviceError, NoInputError
from bids_tractography.phantom import write_phantom

CHOICES = {
    "tracking.engine": ("auto", "cpu", "dipy", "cuda"),
    "tracking.algorithm": ("prob", "det", "pft", "{kind: ptt, probe_radius_mm: 1}"),
    "stopping": ("threshold", "act", "{kind: binary, mask: {kind: file, path: a.mif}}"),
    "output": ("{}", "{formats: [trk], dtype: float16}"),
}
COMBINATIONS = [
    tuple(f"{key}={value}" for key, value in zip(CHOICES, values, strict=True))
    for values in itertools.product(*CHOICES.values())
]


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom(tmp_path_factory.mktemp("check") / "phantom")


def is_opened(phantom: Path, output: Path, overrides: tuple[str, ...]) -> bool:
    """Whether a run gets past the checks of its configuration."""
    try:
        config = load_config(None, overrides)
        open_study(Request(phantom, output, output / ".work", config))
    except ConfigError:
        return False
    except (DeviceError, NoInputError):  # of this machine
        return True
    return True


def test_check_passes_what_a_run_accepts_and_nothing_else(phantom: Path, tmp_path: Path) -> None:
    passed = {}
    for overrides in COMBINATIONS:
        ended = run_cli("config", "check", overrides=overrides)
        assert ended.returncode in (0, ConfigError.exit_code), ended.stderr
        passed[overrides] = ended.returncode == 0
        assert passed[overrides] == is_opened(phantom, tmp_path / "out", overrides), overrides
    assert 5 < sum(passed.values()) < len(passed) - 20


def test_an_engine_that_cannot_do_it_is_an_error_of_check() -> None:
    ended = run_cli("config", "check", overrides=("tracking.engine=dipy", "stopping=act"))
    assert ended.returncode == ConfigError.exit_code
    assert "Engines that can: cpu" in ended.stderr


def test_what_another_machine_may_have_is_a_note() -> None:
    override = "seeding.mask={kind: file, path: /absent/a.nii.gz}"
    ended = run_cli("config", "check", overrides=(override,))
    assert ended.returncode == 0
    assert "note: seeding.mask.path" in ended.stdout
    assert "no errors" in ended.stdout


def test_the_wrong_kind_of_file_is_an_error_before_it_is_looked_for() -> None:
    override = "seeding.mask={kind: file, path: /absent/a.mif}"
    ended = run_cli("config", "check", overrides=(override,))
    assert ended.returncode == ConfigError.exit_code
    assert "a.mif is not .nii.gz or .nii by its name" in ended.stderr

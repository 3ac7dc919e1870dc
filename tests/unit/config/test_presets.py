"""Presets by name, and configurations that are written with comments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from bids_tractography.cli.main import main
from bids_tractography.config import Config
from bids_tractography.config.load import load_config
from bids_tractography.config.presets import configuration_path, preset_names
from bids_tractography.config.section import Section
from bids_tractography.errors import ConfigError

# model, seed mask, stopping criterion, algorithm
METHODS = {
    "prob_csd": ("csd", "threshold", "threshold", "prob"),
    "det_csd": ("csd", "threshold", "threshold", "det"),
    "det_dti": ("tensor", "threshold", "threshold", "eudx"),
    "act_msmt": ("msmt_csd", "interface", "act", "prob"),
    "pft": ("csd", "interface", "cmc", "pft"),
    "ptt": ("csd", "threshold", "threshold", "ptt"),
    "pyafq": ("csd", "threshold", "threshold", "prob"),
    "dipy": ("csd", "threshold", "threshold", "det"),
    "mrtrix": ("csd", "threshold", "fod", "prob"),
}


def test_every_preset_is_the_method_of_its_name() -> None:
    found = {}
    for name in preset_names():
        config = load_config(configuration_path(name))
        assert config.seeding.mask is not None
        sections = (config.model, config.seeding.mask, config.stopping, config.tracking.algorithm)
        found[name] = tuple(section.kind for section in sections)
    assert found == METHODS


def test_prob_csd_is_the_defaults() -> None:
    assert load_config(configuration_path("prob_csd")) == Config()


@pytest.mark.parametrize("name", METHODS)
def test_presets_begin_with_what_they_are_for(name: str) -> None:
    assert configuration_path(name).read_text(encoding="utf-8").startswith("# ")


def test_a_name_is_a_preset_whatever_files_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("pft", "pft.yaml"):
        Path(name).write_text("model: gqi")
    assert load_config(configuration_path("pft")).model.kind == "csd"
    assert load_config(configuration_path("pft.yaml")).model.kind == "gqi"
    assert load_config(configuration_path(f"{tmp_path}/pft.yaml")).model.kind == "gqi"
    with pytest.raises(ConfigError, match="unknown configuration format"):
        load_config(configuration_path("./pft"))


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("act_msm", "act_msmt"),
        ("ACT-MSMT", "act_msmt"),
        ("prob-csd", "prob_csd"),
        ("dti", "det_dti"),
    ],
)
def test_an_unknown_name_gets_the_nearest_preset_and_all_of_them(given: str, meant: str) -> None:
    with pytest.raises(ConfigError) as error:
        configuration_path(given)
    assert f"no preset '{given}'. Did you mean '{meant}'?" in str(error.value)
    for name in METHODS:
        assert name in error.value.remedy


def test_overrides_go_over_presets() -> None:
    config = load_config(configuration_path("act_msmt"), ["seeding.seeds.count=10M"])
    assert config.seeding.seeds.model_dump()["count"] == 10_000_000
    assert config.stopping.kind == "act"


# The command


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["config", *words]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", METHODS)
def test_init_reproduces_the_preset_with_comments(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    path = tmp_path / "new" / "mine.yaml"
    assert shown(capsys, "init", name, "--output", str(path)) == f"{path}\n"
    assert load_config(path) == load_config(configuration_path(name))
    text = path.read_text(encoding="utf-8")
    assert shown(capsys, "init", name) == text
    assert max(map(len, text.splitlines()[1:])) <= 100  # after the address of the schema


def test_the_comments_of_init_are_the_descriptions_of_the_fields(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = shown(capsys, "init")
    comments = [line.strip()[2:] for line in text.splitlines() if line.strip().startswith("#")]
    running = " ".join(comments)

    def check(section: Any) -> int:
        count = 0
        for name, field in type(section).model_fields.items():
            if field.description:
                about = " ".join(field.description.replace("``", "`").split("\n\n")[0].split())
                assert about in running, name
                count += 1
            value = getattr(section, name)
            if isinstance(value, Section):
                count += check(value)
        return count

    assert check(Config()) > 40
    assert "Kinds: csd, msmt_csd, tensor" in running


def test_init_never_overwrites(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("model: gqi")
    assert main(["config", "init", "pft", "-o", str(path)]) == 73
    assert "exists already" in capsys.readouterr().err
    assert path.read_text() == "model: gqi"
    assert [path] == list(tmp_path.iterdir())


def test_init_writes_yaml_only(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["config", "init", "-o", str(tmp_path / "mine.toml")]) == 64
    assert not list(tmp_path.iterdir())


def test_changed_prints_only_what_differs(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "show", "prob_csd", "--changed") == ""
    assert shown(capsys, "show", "--changed") == ""
    words = ("show", "pft", "--changed", "--set", "tracking.algorithm.particles=20")
    assert yaml.safe_load(shown(capsys, *words)) == {
        "seeding": {"mask": {"kind": "interface"}, "seeds": {"kind": "total", "count": 1_000_000}},
        "stopping": {"kind": "cmc"},
        "tracking": {"algorithm": {"kind": "pft", "particles": 20}},
    }


@pytest.mark.parametrize(
    "overrides",
    [
        ["seeding.mask={map: fa, above: 0.2, below: 0.7}"],
        ["seeding.mask={map: fa, below: 0.7}"],
        ["seeding.mask={map: md, above: 0.2}"],
        ["stopping={map: md, threshold: 0.2}"],
        ["stopping={threshold: 20, percentile: true}"],
        ["seeding={seeds: {kind: given, path: /a.txt}}"],
        ["output.linearise={}"],
        ["tracking.include=[{kind: not, of: {kind: tissue}}]"],
    ],
)
def test_changed_is_a_configuration_that_is_equal(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, overrides: list[str]
) -> None:
    path = tmp_path / "changed.yaml"
    settings = [word for override in overrides for word in ("--set", override)]
    path.write_text(shown(capsys, "show", "--changed", *settings))
    assert load_config(path) == load_config(None, overrides)
    assert "gradients" not in path.read_text()


def test_check_and_show_take_presets(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no errors" in shown(capsys, "check", "ptt")
    assert yaml.safe_load(shown(capsys, "show", "ptt"))["tracking"]["algorithm"]["kind"] == "ptt"
    assert main(["config", "check", "pt"]) == 78
    assert "Did you mean 'ptt'?" in capsys.readouterr().err

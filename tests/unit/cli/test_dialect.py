"""Every option of fMRIPrep, QSIPrep and QSIRecon works, is accepted, or is answered."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
from conftest import ROOT

from bids_tractography.cli.dialect import DIALECT, TCKGEN, add_dialect, answers
from bids_tractography.cli.main import main
from bids_tractography.cli.parser import PRESETS, build_parser
from bids_tractography.config.load import load_config
from bids_tractography.config.presets import preset_names

PROGRAMS = {"fMRIPrep": "fmriprep", "QSIPrep": "qsiprep", "QSIRecon": "qsirecon"}
HERE = {"--version": (), "--mem": ("16G",), "--mem-mb": ("16000",), "--random-seed": ("7",)}


def listed(program: str) -> list[tuple[str, str]]:
    """Names of all options of a program, each with its number of values."""
    text = (ROOT / "tests/data/dialect" / f"{PROGRAMS[program]}.txt").read_text()
    pairs = []
    for line in text.splitlines():
        values, *names = line.split()
        pairs += [(name, values) for name in names]
    return pairs


def whole_parser() -> argparse.ArgumentParser:
    parser = build_parser()
    add_dialect(parser)
    return parser


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_table_has_every_option_of_a_program_and_no_other(program: str) -> None:
    table = {n for foreign in DIALECT if program in foreign.programs for n in foreign.names}
    assert table == {name.replace("_", "-") for name, _ in listed(program)}


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_option_is_understood_as_the_table_states(program: str) -> None:
    effects = {name: foreign.effect for foreign in DIALECT for name in foreign.names}
    ours = {n for action in build_parser()._actions for n in action.option_strings}
    for name, values in listed(program):
        effect = effects[name.replace("_", "-")]
        assert (effect == "works") == (name.replace("_", "-") in ours), name
        if name == "--version":
            continue
        n_values = {"0": 0, "1": 1, "?": 1}.get(values, 2)
        given = HERE.get(name.replace("_", "-"), ("2",) * n_values)
        words = ["in", "out", "participant", name, *given, "-v"]
        if values == "?":  # such an option may be the last
            words = ["in", "out", "participant", "-v", name]
        options = whole_parser().parse_args(words)
        assert (options.bids_dir, options.verbose >= 1) == (Path("in"), True), name
        replaced, ignored = answers(vars(options).get("foreign") or [])
        said = {"works": ([], []), "ignored": ([], 1), "replaced": (1, [])}[effect]
        assert (len(replaced), len(ignored)) == tuple(n or 0 for n in said), name


def test_every_setting_of_an_answer_is_a_valid_configuration() -> None:
    answered = " ".join(foreign.answer for foreign in DIALECT if foreign.effect == "replaced")
    settings = re.findall(r"--set ([\w.]+)=('[^']*'|[^\s,;.]+)", answered)
    assert len(settings) >= 10
    for key, value in settings:
        millimetres = "0.5" if "step" in key else "30"
        numbers = {"N": "10", "MM": millimetres, "DEG": "30", "FA": "0.1"}
        for name, number in numbers.items():
            value = re.sub(rf"\b{name}\b", number, value.strip("'"))
        load_config(None, [f"{key}={value}"])


def test_every_option_of_ours_that_an_answer_names_exists() -> None:
    ours = {n for action in build_parser()._actions for n in action.option_strings}
    for foreign in DIALECT:
        for name in re.findall(r"(?<![\w-])--[a-z][a-z-]+", foreign.answer):
            assert name in ours, foreign
    assert list(PRESETS) == preset_names()


def test_options_of_other_programs_are_answered_all_at_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["in", "out", "participant", "--recon-spec", "x", "--ignore", "t2w", "-select", "10M"]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 64
    error = capsys.readouterr().err
    assert "--recon-spec: use --config NAME" in error
    assert "--ignore: preprocess with QSIPrep" in error
    assert "-select: use --set seeding.seeds='{kind: select, count: N}'" in error


def test_an_unknown_option_is_answered_with_the_closest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["in", "out", "participant", "--partcipant_label", "01"])
    assert ended.value.code == 64
    assert "Did you mean --participant-label?" in capsys.readouterr().err


PARSED = [action for action in build_parser()._actions if action.dest != "print_completion"]


@pytest.mark.parametrize("action", PARSED, ids=lambda action: action.dest)
def test_every_option_may_be_written_with_underscores(action: argparse.Action) -> None:
    for name in action.option_strings:
        if "-" not in name[2:] or not name.startswith("--"):
            continue
        choice = next(iter(action.choices)) if action.choices else "300"
        values = [] if action.nargs == 0 else [choice]
        parsed = [
            build_parser().parse_args(["in", "out", "participant", spelled, *values])
            for spelled in (name, f"--{name[2:].replace('-', '_')}")
        ]
        assert parsed[0] == parsed[1]
        assert getattr(parsed[0], action.dest) != action.default or choice == action.default


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (["--set", "a=1", "b.c=2", "in", "out", "participant"], ["a=1", "b.c=2"]),
        (["in", "out", "participant", "--set", "a=1", "b={c: 2}", "-v"], ["a=1", "b={c: 2}"]),
        (["in", "--set", "a=1", "out", "participant", "--set=b=2", "c=3"], ["a=1", "b=2", "c=3"]),
        (["--set", "in", "--", "x=1", "out", "participant"], ["in"]),
    ],
)
def test_several_settings_may_follow_set(words: list[str], settings: list[str]) -> None:
    options = build_parser().parse_args(words)
    assert options.set == settings
    assert options.analysis_level == "participant"


def test_values_keep_their_underscores() -> None:
    words = ["my_in", "out", "participant", "--work_dir=a_b", "--set=x_y=_z"]
    options = build_parser().parse_args(words)
    assert (options.bids_dir, options.work_dir) == (Path("my_in"), Path("a_b"))
    assert options.set == ["x_y=_z"]


@pytest.mark.parametrize("text", ["16", "-1", "lots", "0G"])
def test_an_amount_of_memory_that_cannot_be_meant_is_refused(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["in", "out", "participant", f"--mem={text}"])
    assert "--mem" in capsys.readouterr().err


def test_tckgen_has_answers_for_what_people_type_most() -> None:
    names = {name for foreign in DIALECT if TCKGEN in foreign.programs for name in foreign.names}
    assert names >= {"-select", "-seeds", "-nthreads", "-angle", "-cutoff", "-step", "-minlength"}

"""Bars of a terminal: one for all runs, and one for each run at work."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars

from bids_tractography.cli.log import RunBars
from bids_tractography.cli.parser import SHELLS, build_parser
from bids_tractography.pipeline.progress import Progress


def shown(bars: Bars) -> list[str]:
    console = Console(file=io.StringIO(), width=100)
    console.print(bars.get_renderable())
    output: io.StringIO = console.file  # type: ignore[assignment]
    return [" ".join(line.split()) for line in output.getvalue().splitlines()]


def test_bars_come_and_go_with_their_runs() -> None:
    columns = (TextColumn("{task.description}"), BarColumn(4), TextColumn("{task.fields[text]}"))
    bars = Bars(*columns, console=Console(file=io.StringIO()))
    show = RunBars(bars, n_participants=3)
    assert len(shown(bars)) == 1
    show(Progress("sub-01_run-1", stage="fitting"))
    show(Progress("sub-01_run-2", stage="starting"))
    assert shown(bars)[0].endswith("0 of about 4 ended")  # two participants to come
    assert shown(bars)[1].endswith("fitting")
    show(Progress("sub-01_run-1", 50, 100, 40, 1000.0))
    assert shown(bars)[1].endswith("1,000 seeds/s, 40 streamlines, 0:00 left")
    show(Progress("sub-01_run-1", stage=""))
    assert len(shown(bars)) == 2
    assert shown(bars)[0].endswith("1 of about 4 ended")
    for name in ("sub-01_run-2", "sub-02", "sub-03"):
        show(Progress(name, stage="starting"))
        show(Progress(name, stage=""))
    assert len(shown(bars)) == 1
    assert shown(bars)[0].endswith("4 of 4 ended")


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_has_a_script_with_commands_and_options(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(["--print-completion", shell])
    assert not ended.value.code
    script = capsys.readouterr().out
    for word in ("reproduce", "omp-nthreads", "translate"):
        assert word in script


def test_bash_completes_commands_their_options_and_values() -> None:
    script = subprocess.run(
        [sys.executable, "-m", "bids_tractography", "--print-completion", "bash"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    script += """
try() { COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMPREPLY=(); _shtab_bids_tractography
echo "${COMPREPLY[*]}"; }
try bids-tractography co
try bids-tractography config in
try bids-tractography --omp
try bids-tractography in out participant --stop-after m
"""
    ended = subprocess.run(["bash"], input=script, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == ["config convert", "init", "--omp-nthreads", "maps masks"]

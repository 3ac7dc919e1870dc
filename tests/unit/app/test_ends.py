"""How runs and the program end: failures are rows, signals and full disks leave no traceback."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import run_cli
from hypothesis import given
from hypothesis import strategies as st

from bids_tractography.app import local
from bids_tractography.app import run as app_run
from bids_tractography.app.outcome import Failure, Places, attempt
from bids_tractography.cli import levels
from bids_tractography.config import Config
from bids_tractography.errors import GridError
from bids_tractography.inputs import ParticipantFiles


def raising(error: BaseException) -> Callable[..., None]:
    def work(*_args: object, **_kwargs: object) -> None:
        raise error

    return work


def add_participant(dataset: Path, label: str) -> None:
    folder = dataset / f"sub-{label}" / "dwi"
    folder.mkdir(parents=True)
    for path in (dataset / "sub-01" / "dwi").iterdir():
        (folder / path.name.replace("sub-01", f"sub-{label}")).write_bytes(path.read_bytes())


def test_attempt_returns_the_result() -> None:
    assert attempt("sub-01", lambda: 3, Places()) == 3


def test_attempt_keeps_the_code_of_our_errors(tmp_path: Path) -> None:
    failure = attempt("sub-01", raising(GridError("oblique.", "Resample.")), Places())
    assert failure == Failure("oblique. Resample.", 65)
    assert not list(tmp_path.iterdir())


@given(st.sampled_from([KeyError, RecursionError, AssertionError, ZeroDivisionError]), st.text())
def test_attempt_makes_a_defect_one_line_and_keeps_its_traceback(
    tmp_path_factory: pytest.TempPathFactory, kind: type[Exception], text: str
) -> None:
    folder = tmp_path_factory.mktemp("output")
    failure = attempt("sub-01_acq-[x]/y", raising(kind(text)), Places(written=(folder,)))
    assert isinstance(failure, Failure)
    assert failure.exit_code == 70
    (log,) = (folder / "logs").iterdir()
    assert str(log) in failure.message
    assert "report" in failure.message
    assert "\n" not in failure.message
    assert f"{kind.__name__}" in log.read_text()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 73),
        (OSError(errno.EMFILE, "Too many open files"), 75),
        (OSError(errno.ESTALE, "Stale file handle", "/anywhere"), 75),
        (FileNotFoundError(errno.ENOENT, "No such file", "/nowhere/output/sub-01"), 73),
        (FileNotFoundError(errno.ENOENT, "No such file", b"/nowhere/work/sub-01"), 73),
        (PermissionError(errno.EACCES, "Permission denied", "/nowhere/input/x"), 66),
        (FileNotFoundError(errno.ENOENT, "No such file", "/usr/lib/libx.so"), 70),
        (OSError("bare"), 70),
        (MemoryError(), 75),
    ],
)
def test_attempt_tells_faults_of_the_system_from_defects(error: BaseException, code: int) -> None:
    places = Places((Path("/nowhere/input"),), (Path("/nowhere/output"), Path("/nowhere/work")))
    failure = attempt("sub-01", raising(error), places)
    assert isinstance(failure, Failure)
    assert failure.exit_code == code


def test_attempt_of_more_memory_than_the_machine_has_is_not_worth_another_try() -> None:
    failure = attempt("sub-01", lambda: np.empty(2**61, np.uint8), Places())
    assert isinstance(failure, Failure)
    assert failure.exit_code == 70


def test_attempt_lets_a_request_to_end_pass() -> None:
    with pytest.raises(KeyboardInterrupt):
        attempt("sub-01", raising(KeyboardInterrupt()), Places())


def test_a_defect_in_planning_is_the_row_of_its_participant(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_participant(dataset, "02")
    whole = ParticipantFiles.dwi_runs

    def dwi_runs(self: ParticipantFiles, config: Config) -> object:
        if self._subject == "01":
            raise ZeroDivisionError("bug")
        return whole(self, config)

    monkeypatch.setattr(ParticipantFiles, "dwi_runs", dwi_runs)
    ended = run_cli(dataset, tmp_path / "output", "participant")
    assert ended.returncode == 70
    assert "Traceback" not in ended.stderr + ended.stdout
    assert "failed (70)" in ended.stdout
    assert "done" in ended.stdout
    monkeypatch.setattr(ParticipantFiles, "dwi_runs", raising(ZeroDivisionError("bug")))
    assert "Traceback" in run_cli(dataset, tmp_path / "output", "participant", "-v").stderr


def test_a_defect_in_running_is_the_row_of_its_run(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "process_dwi", raising(KeyError("bug")))
    ended = run_cli(dataset, tmp_path / "output", "participant")
    assert ended.returncode == 70
    assert "Traceback" not in ended.stderr + ended.stdout
    (log,) = (tmp_path / "output" / "logs").glob("*_traceback.txt")
    assert "KeyError: 'bug'" in log.read_text()


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGKILL, 75), (signal.SIGTERM, 75), (signal.SIGSEGV, 70), (signal.SIGABRT, 70)],
)
def test_a_process_that_crashes_is_not_worth_another_try(number: int, code: int) -> None:
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=signal.raise_signal, args=(number,))
    process.start()
    failure = local._death(process)
    assert failure.exit_code == code
    assert signal.Signals(number).name in failure.message


def test_a_damaged_index_of_pybids_is_made_again(dataset: Path, tmp_path: Path) -> None:
    words = (dataset, tmp_path / "out", "participant", "--bids-database-dir", tmp_path / "db")
    assert run_cli(*words, "--dry-run").returncode == 0
    for damage in (b"", b"SQLite format 3\0" + bytes(200), b"nonsense" * 1000):
        (file,) = (tmp_path / "db").glob("*/layout_index.sqlite")
        file.write_bytes(damage)
        ended = run_cli(*words, "--dry-run")
        assert ended.returncode == 0, ended.stdout
        assert "sub-01_dwi.nii.gz" in ended.stdout


def test_a_defect_outside_of_any_participant_is_one_line(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(levels, "open_study", raising(IndexError("bug")))
    ended = run_cli(dataset, tmp_path / "output", "participant")
    assert ended.returncode == 70
    assert "Traceback" not in ended.stderr
    assert "report" in ended.stderr


def test_a_record_that_cannot_be_written_does_not_hide_the_table(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(app_run, "_write_log", raising(full))
    ended = run_cli(dataset, tmp_path / "output", "participant")
    assert ended.returncode == 0
    assert "done" in ended.stdout
    assert "No space left" in ended.stderr


@pytest.mark.slow
def test_a_full_standard_error_does_not_hide_the_table(dataset: Path, tmp_path: Path) -> None:
    (dataset / "sub-01" / "dwi" / "sub-01_dwi.bvec").unlink()
    files = (str(dataset), str(tmp_path / "out"))
    command = [sys.executable, "-m", "bids_tractography", *files, "participant"]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, text=True, check=False)
    assert ended.returncode == 66
    assert "failed (66)" in ended.stdout
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 66
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


def test_square_brackets_of_names_are_printed(dataset: Path, tmp_path: Path) -> None:
    folder = dataset / "sub-01" / "dwi"
    for path in folder.iterdir():
        path.rename(path.with_name(path.name.replace("sub-01_", "sub-01_acq-[red]_")))
    (folder / "sub-01_acq-[red]_dwi.bval").write_text("0 1000\n")
    ended = run_cli(dataset, tmp_path / "output", "participant")
    assert ended.returncode == 65
    assert "sub-01_acq-[red]" in ended.stdout
    assert "sub-01_acq-[red]" in ended.stderr


SLOW_IMPORT = """
import sys, time
sys.modules["bids_tractography.cli.main"] = None
import bids_tractography.__main__ as program
import builtins
whole = builtins.__import__
def slow(name, *args, **kwargs):
    if name == "bids_tractography.cli.main":
        print("importing", flush=True)
        time.sleep(30)
    return whole(name, *args, **kwargs)
builtins.__import__ = slow
sys.exit(program.main())
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_imports_ends_without_a_traceback(number: int, code: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_IMPORT], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"importing\n"
        process.send_signal(number)
        _, error = process.communicate(timeout=20)
    assert process.returncode == code
    assert error == b""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("n_procs", [1, 2])
def test_two_signals_in_a_run_end_it_without_a_traceback(
    two_participants: Path, tmp_path: Path, number: int, code: int, n_procs: int
) -> None:
    files = (str(two_participants), str(tmp_path / "out"))
    command = [sys.executable, "-m", "bids_tractography", *files, "participant"]
    settings = ["--set", "seeding.seeds={kind: total, count: 100000000}"]
    with subprocess.Popen(
        [*command, *settings, "--nprocs", str(n_procs), "--omp-nthreads", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        while not (tmp_path / "out" / "sub-01").exists() and process.poll() is None:
            time.sleep(0.01)
        os.killpg(process.pid, number)  # as a terminal does
        time.sleep(0.02)
        process.send_signal(number)
        _, error = process.communicate(timeout=30)
    assert process.returncode == code
    assert b"Traceback" not in error, error.decode()


NOWHERE = """
import os, pwd, sys, tempfile
tempfile._candidate_tempdir_list = lambda: []
os.environ.pop("HOME", None)
def unknown(uid):
    raise KeyError(uid)
pwd.getpwuid = unknown
from bids_tractography.__main__ import main
sys.exit(main())
"""


@pytest.mark.slow
def test_nowhere_to_write_and_no_home_is_no_obstacle(dataset: Path, tmp_path: Path) -> None:
    files = (str(dataset), str(tmp_path / "out"))
    words = [*files, "participant", "--set", "tracking.engine=cpu"]
    command = [sys.executable, "-c", NOWHERE, *words, "--set", "seeding.rng_seed=1"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr

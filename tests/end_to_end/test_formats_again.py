"""Other formats of a finished tractogram are converted from it, and nothing is tracked."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import QUICK, Ended, run_cli, sidecar

from bids_tractography.outputs.run import read_sidecar, why_changed

NAME = "sub-01_tract-wholebrain_track-prob_tractogram"


def asked(dataset: Path, output: Path, formats: str, *more: str) -> Ended:
    settings = (*QUICK, f"output.formats={formats}", *more)
    return run_cli(dataset, output, "participant", overrides=settings)


@pytest.fixture
def output(finished: tuple[Path, Ended], tmp_path: Path) -> Path:
    """A copy of the output with one .trx."""
    return Path(shutil.copytree(finished[0], tmp_path / "output"))


@pytest.fixture(scope="module")
def at_once(scanned_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tractogram, tracked with all formats."""
    output = tmp_path_factory.mktemp("at_once")
    assert asked(scanned_once, output, "[trx,tck,trk]").returncode == 0
    return output / "sub-01" / "dwi"


def check_files(folder: Path, at_once: Path, *extensions: str) -> None:
    """Files and sidecar are as if they had been written when it was tracked."""
    files = {path.suffix[1:] for path in folder.glob(f"{NAME}.*")} - {"json"}
    assert files == set(extensions)
    for extension in extensions:
        name = f"{NAME}.{extension}"
        assert (folder / name).read_bytes() == (at_once / name).read_bytes(), extension
    path = folder / f"{NAME}.json"
    assert why_changed(path, read_sidecar(path), read_files=True) is None
    record = sidecar(path)["BidsTractography"]
    assert set(record["config"]["output"]["formats"]) == set(extensions)
    assert set(record["file_sha256"]) == {f"{NAME}.{extension}" for extension in extensions}
    assert (
        record["content_sha256"]
        == sidecar(at_once / path.name)["BidsTractography"]["content_sha256"]
    )


def test_formats_are_added_without_tracking(
    scanned_once: Path, output: Path, at_once: Path
) -> None:
    folder = output / "sub-01" / "dwi"
    for formats in (("tck",), ("trx", "tck", "trk")):
        ended = asked(scanned_once, output, f"[{','.join(formats)}]")
        assert ended.returncode == 0, ended.stderr
        assert "seeds with cpu" not in ended.stderr
        assert "recomputed" not in ended.stderr
        assert "done" in ended.stdout
        check_files(folder, at_once, *dict.fromkeys(("trx", *formats)))
        again = asked(scanned_once, output, f"[{','.join(formats)}]")
        assert "up to date" in again.stdout
    fewer = asked(scanned_once, output, "[trx]")
    assert "up to date" in fewer.stdout
    check_files(folder, at_once, "trx", "tck", "trk")


def test_tck_becomes_trx(scanned_once: Path, tmp_path: Path, at_once: Path) -> None:
    output = tmp_path / "output"
    assert asked(scanned_once, output, "[tck]").returncode == 0
    ended = asked(scanned_once, output, "[trx]")
    assert "seeds with cpu" not in ended.stderr
    check_files(output / "sub-01" / "dwi", at_once, "trx", "tck")


def test_a_damaged_format_is_converted_again(
    scanned_once: Path, output: Path, at_once: Path
) -> None:
    folder = output / "sub-01" / "dwi"
    assert asked(scanned_once, output, "[trx,tck]").returncode == 0
    (folder / f"{NAME}.trx").write_bytes(b"damaged")
    ended = asked(scanned_once, output, "[trx,tck]")
    assert "seeds with cpu" not in ended.stderr
    check_files(folder, at_once, "trx", "tck")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit_sidecar(path: Path) -> None:
    record = path.with_suffix(".json")
    record.write_text(record.read_text().replace("Whole-brain", "Half-brain"))


@pytest.mark.parametrize("damage", [flip, edit_sidecar])
def test_what_is_not_as_it_was_written_is_tracked_again(
    scanned_once: Path, output: Path, at_once: Path, damage: Callable[[Path], None]
) -> None:
    folder = output / "sub-01" / "dwi"
    damage(folder / f"{NAME}.trx")
    ended = asked(scanned_once, output, "[trx,tck]")
    assert "600 seeds with cpu" in ended.stderr
    check_files(folder, at_once, "trx", "tck")


def test_a_trk_alone_is_not_exact_and_is_tracked_again(
    scanned_once: Path, output: Path, at_once: Path
) -> None:
    for path in (output / "sub-01" / "dwi").glob(f"{NAME}.*"):
        path.unlink()
    assert asked(scanned_once, output, "[trk]").returncode == 0
    ended = asked(scanned_once, output, "[trx]")
    assert "600 seeds with cpu" in ended.stderr

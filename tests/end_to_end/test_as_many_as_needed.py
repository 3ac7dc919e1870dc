"""Streamlines until there are enough, and more of them later."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended, run_cli, sidecar

from bids_tractography.outputs.provenance import RECORD_KEY
from bids_tractography.pipeline import process
from bids_tractography.pipeline.progress import Progress

FAST = ("seeding.rng_seed=11", "tracking.algorithm.step_size_mm=1")
NAME = "sub-01/dwi/sub-01_tract-wholebrain_track-prob_tractogram"


def track(dataset: Path, output: Path, *settings: str, words: tuple[str, ...] = ()) -> Ended:
    ended = run_cli(dataset, output, "participant", *words, overrides=(*FAST, *settings))
    assert ended.returncode == 0, ended.stderr
    return ended


def select(count: int, **more: object) -> str:
    extra = "".join(f", {key}: {value}" for key, value in more.items())
    return f"seeding.seeds={{kind: select, count: {count}{extra}}}"


def digest(output: Path, extension: str = "trx") -> str:
    return hashlib.sha256((output / f"{NAME}.{extension}").read_bytes()).hexdigest()


def record(output: Path, extension: str = "trx") -> dict[str, Any]:
    found: dict[str, Any] = sidecar(output / f"{NAME}.{extension}")[RECORD_KEY]
    return found


@pytest.fixture(scope="module")
def fitted(scanned_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with everything but a tractogram."""
    output = tmp_path_factory.mktemp("fitted") / "output"
    track(scanned_once, output, words=("--stop-after", "masks"))
    return output


@pytest.fixture(scope="module")
def selected(fitted: Path, scanned_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output with 300 streamlines selected."""
    output = Path(shutil.copytree(fitted, tmp_path_factory.mktemp("selected") / "output"))
    track(scanned_once, output, select(300))
    return output


@pytest.fixture
def output(fitted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fitted, tmp_path / "output"))


def test_exactly_as_many_streamlines_are_kept_as_were_to_be_selected(selected: Path) -> None:
    found = record(selected)
    assert found["streamlines_kept"] == 300
    assert found["goal"]["reached"] is True
    assert found["streamlines_generated"] == 300 + sum(found["streamlines_rejected"].values())
    assert found["streamlines_generated"] + found["seeds_without_direction"] == found["seeds"]
    assert not any("select" in warning for warning in found["warnings"])


@pytest.mark.parametrize("batch_size", [7, 64, 1000])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_selection_is_the_same_for_any_batches_and_threads(
    selected: Path, output: Path, scanned_once: Path, batch_size: int, threads: int
) -> None:
    words = ("--omp-nthreads", str(threads))
    track(scanned_once, output, select(300), f"tracking.batch_size={batch_size}", words=words)
    assert digest(output) == digest(selected)


def test_a_selection_is_the_beginning_of_as_many_seeds(
    selected: Path, output: Path, scanned_once: Path
) -> None:
    seeds = record(selected)["seeds"]
    track(scanned_once, output, f"seeding.seeds={{kind: total, count: {seeds}}}")
    assert digest(output) == digest(selected)


@pytest.mark.parametrize(
    "settings",
    [("output.formats=[tck]",), ("output.dtype=float16",), ("output.per_streamline=[seed, ends]",)],
    ids=["tck", "float16", "values"],
)
def test_a_selection_is_extended_to_what_a_larger_one_gives(
    output: Path, fitted: Path, scanned_once: Path, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    extension = "tck" if "tck" in settings[0] else "trx"
    direct = Path(shutil.copytree(fitted, tmp_path / "direct"))
    track(scanned_once, direct, select(450), *settings)
    track(scanned_once, output, select(200), *settings)
    ended = track(scanned_once, output, select(450), *settings, "tracking.batch_size=50")
    assert "is continued after" in ended.stderr
    assert digest(output, extension) == digest(direct, extension)
    one, other = record(output, extension), record(direct, extension)
    for key in ("seeds", "ends", "streamlines_rejected", "content_sha256", "goal"):
        assert one[key] == other[key]


def test_an_extension_of_several_streamlines_a_seed_begins_anew_where_one_was_cut(
    output: Path, fitted: Path, scanned_once: Path, tmp_path: Path
) -> None:
    many = ("tracking.max_directions=3", "tracking.dead_ends=keep")
    direct = Path(shutil.copytree(fitted, tmp_path / "direct"))
    track(scanned_once, direct, select(150), *many)
    for count in range(101, 109):
        track(scanned_once, output, select(count), *many)
        assert record(output)["streamlines_kept"] == count
    track(scanned_once, output, select(150), *many)
    assert digest(output) == digest(direct)


def test_a_damaged_tractogram_is_not_extended(
    selected: Path, scanned_once: Path, tmp_path: Path
) -> None:
    output = Path(shutil.copytree(selected, tmp_path / "output"))
    path = output / f"{NAME}.trx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    direct = tmp_path / "direct"
    ended = track(scanned_once, output, select(400))
    assert "is continued" not in ended.stderr
    track(scanned_once, direct, select(400))
    assert digest(output) == digest(direct)


def test_fewer_streamlines_are_refused(selected: Path, scanned_once: Path) -> None:
    before = digest(selected)
    ended = run_cli(scanned_once, selected, "participant", overrides=(*FAST, select(200)))
    assert ended.returncode == 73
    assert "different seeding.seeds.count" in ended.stderr
    assert digest(selected) == before


def test_a_drawn_seed_is_kept_by_an_extension(
    output: Path, fitted: Path, scanned_once: Path, tmp_path: Path
) -> None:
    drawn = "seeding.rng_seed=null"
    track(scanned_once, output, select(100), drawn)
    seed = record(output)["rng_seed"]
    track(scanned_once, output, select(200), drawn)
    assert record(output)["rng_seed"] == seed
    direct = Path(shutil.copytree(fitted, tmp_path / "direct"))
    track(scanned_once, direct, select(200), f"seeding.rng_seed={seed}")
    assert digest(output) == digest(direct)


def test_an_interrupted_extension_leaves_what_was_there_and_goes_on(
    selected: Path, scanned_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = Path(shutil.copytree(selected, tmp_path / "output"))
    before = digest(output)

    def stop(*figures: Any, **stage: Any) -> Progress:
        if stage:
            return Progress(*figures, **stage)
        raise KeyboardInterrupt

    small = "tracking.batch_size=20"
    with monkeypatch.context() as patched:
        patched.setattr(process, "Progress", stop)
        ended = run_cli(scanned_once, output, "participant", overrides=(*FAST, small, select(400)))
    assert ended.returncode == 130
    assert digest(output) == before
    assert record(output)["streamlines_kept"] == 300
    ended = track(scanned_once, output, small, select(400))
    assert "Resuming after seed" in ended.stderr
    direct = tmp_path / "direct"
    track(scanned_once, direct, select(400))
    assert digest(output) == digest(direct)


def test_too_few_streamlines_end_with_a_warning(output: Path, scanned_once: Path) -> None:
    """One in a thousand seeds gives a streamline, as in a bundle between two small regions."""
    strict = "tracking.min_length_mm=100"
    ended = track(scanned_once, output, select(5000, max_seeds=2000), strict)
    found = record(output)
    assert found["seeds"] == 2000
    assert 0 < found["streamlines_kept"] < 200
    assert found["goal"]["reached"] is False
    assert "2,000 seeds gave" in ended.stderr
    assert any("2,000 seeds gave" in warning for warning in found["warnings"])


def test_tracking_ends_when_the_density_has_converged(
    output: Path, fitted: Path, scanned_once: Path, tmp_path: Path
) -> None:
    wanted = "seeding.seeds={kind: converge, correlation: 0.9}"
    track(scanned_once, output, wanted)
    found = record(output)
    goal = found["goal"]
    assert goal["reached"] is True
    assert goal["curve"][-1]["correlation"] >= 0.9
    assert goal["curve"][-1]["seeds"] == found["seeds"]
    assert goal["curve"][-1]["streamlines"] == found["streamlines_kept"]
    direct = Path(shutil.copytree(fitted, tmp_path / "direct"))
    track(scanned_once, direct, f"seeding.seeds={{kind: total, count: {found['seeds']}}}")
    assert digest(output) == digest(direct)
    bounded = "seeding.seeds={kind: converge, correlation: 0.9999, max_seeds: 12000}"
    ended = track(scanned_once, output, bounded, words=("--name", "strict"))
    assert "less than 0.9999" in ended.stderr

"""Several configurations in one output folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import QUICK, Ended, run_cli, sidecar

from bids_tractography.outputs.provenance import RECORD_KEY

DET = (*QUICK, "tracking.algorithm={kind: det, step_size_mm: 1}")
PREFIX = "sub-01_tract-wholebrain_track"


def files(output: Path) -> dict[str, tuple[str, int]]:
    """Hash and time of every derivative of the participant."""
    found = sorted(path for path in output.glob("sub-01/dwi/*") if path.is_file())
    return {
        path.name: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in found
    }


def assert_true(output: Path) -> None:
    """Every file that a sidecar is about or names is there, with the hash that it had."""
    hashes = {name: content for name, (content, _) in files(output).items()}
    recorded: dict[str, str] = {}
    contents = {p.name: json.loads(p.read_text()) for p in output.glob("sub-01/dwi/*.json")}
    for content in contents.values():
        recorded |= content[RECORD_KEY]["file_sha256"]
    assert {name: hashes[name] for name in recorded} == recorded
    data = {name for name in hashes if not name.endswith(".json")}
    assert data == recorded.keys()
    for content in contents.values():
        for uri in texts(content):
            if uri.startswith("bids::"):
                assert Path(uri).name in recorded, uri
        for uri, content_hash in content[RECORD_KEY]["source_sha256"].items():
            assert hashes[Path(uri).name] == content_hash


def texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for item in items for text in texts(item)]


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    return {name for name in before if before[name] != after.get(name)}


@pytest.fixture
def output(finished: tuple[Path, Ended], tmp_path: Path) -> Path:
    """A folder with a finished run of the configuration `QUICK`, which has no name."""
    return Path(shutil.copytree(finished[0], tmp_path / "output"))


def test_a_named_configuration_shares_what_is_the_same_and_names_the_rest(
    output: Path, scanned_once: Path
) -> None:
    before = files(output)
    run = ("participant", "--name", "det45")
    settings = (*DET, "seeding.mask={map: fa, above: 0.3}")
    assert run_cli(scanned_once, output, *run, overrides=settings).returncode == 0
    assert changed(before, files(output)) == set()
    assert files(output).keys() - before.keys() == {
        f"{PREFIX}-det_desc-det45_tractogram.trx",
        f"{PREFIX}-det_desc-det45_tractogram.json",
        f"{PREFIX}-det_param-tdi_desc-det45_dwimap.nii.gz",
        f"{PREFIX}-det_param-tdi_desc-det45_dwimap.json",
        "sub-01_desc-det45Seed_mask.nii.gz",
        "sub-01_desc-det45Seed_mask.json",
    }
    assert_true(output)
    assert (output / "code" / "config_desc-det45.yaml").is_file()
    assert (output / "logs" / "CITATION_desc-det45.md").is_file()
    again = run_cli(scanned_once, output, *run, overrides=settings)
    assert "nothing to compute" in again.stderr


def test_changing_one_of_three_named_configurations_leaves_the_others_alone(
    scanned_once: Path, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    others = {
        "a": QUICK,
        "b": DET,
        "c": (*QUICK, "model={kind: csd, sh_order: 4}", "seeding.mask={map: gfa, above: 0.1}"),
    }
    for name, settings in others.items():
        run = ("participant", "--name", name)
        assert run_cli(scanned_once, output, *run, overrides=settings).returncode == 0
        assert_true(output)
    before = files(output)
    settings = (*others["c"], "model={kind: csd, sh_order: 2}")
    run = ("participant", "--name", "c")
    refused = run_cli(scanned_once, output, *run, overrides=settings)
    assert refused.returncode == 73
    assert "--name" in refused.stderr
    assert "--overwrite" in refused.stderr
    assert files(output) == before
    assert run_cli(scanned_once, output, *run, "--overwrite", overrides=settings).returncode == 0
    assert {name for name in changed(before, files(output)) if "desc-c" not in name} == set()
    assert f"{PREFIX}-prob_desc-c_tractogram.trx" in changed(before, files(output))
    assert_true(output)


def test_without_a_name_another_configuration_is_refused_and_nothing_changes(
    output: Path, scanned_once: Path
) -> None:
    before = files(output)
    settings = (*QUICK, "tracking.algorithm.max_angle_deg=45")
    refused = run_cli(scanned_once, output, "participant", overrides=settings)
    assert refused.returncode == 73
    assert "different tracking.algorithm.max_angle_deg" in refused.stderr
    assert "--name" in refused.stderr
    assert "--overwrite" in refused.stderr
    assert files(output) == before
    fresh = run_cli(scanned_once, output, "participant", "--fresh", overrides=settings)
    assert fresh.returncode == 73
    assert files(output) == before


def test_a_mask_that_another_tractogram_cites_is_not_replaced(
    output: Path, scanned_once: Path
) -> None:
    before = files(output)
    settings = (*DET, "seeding.mask={map: fa, above: 0.3}")
    refused = run_cli(scanned_once, output, "participant", overrides=settings)
    assert refused.returncode == 73
    assert "desc-seed_mask" in refused.stderr
    assert files(output) == before


def test_overwrite_removes_what_was_made_from_what_it_replaces(
    output: Path, scanned_once: Path
) -> None:
    settings = (*DET, "seeding.mask={map: fa, above: 0.3}")
    ended = run_cli(scanned_once, output, "participant", "--overwrite", overrides=settings)
    assert ended.returncode == 0
    assert f"{PREFIX}-prob_tractogram.trx is removed" in ended.stderr
    assert f"{PREFIX}-det_tractogram.trx" in files(output)
    assert not [name for name in files(output) if "track-prob" in name]
    assert_true(output)


def test_the_pages_of_configurations_are_their_own(output: Path, scanned_once: Path) -> None:
    run = ("participant", "--name", "det45")
    assert run_cli(scanned_once, output, *run, report=True, overrides=DET).returncode == 0
    assert run_cli(scanned_once, output, "participant", report=True).returncode == 0
    named, plain = ((output / f"sub-01{end}.html").read_text() for end in ("_desc-det45", ""))
    assert "deterministic" in named
    assert "deterministic" not in plain
    figures = {path.name for path in (output / "sub-01" / "figures").iterdir()}
    assert {"sub-01_desc-det45Fa_dwi.webp", "sub-01_desc-fa_dwi.webp"} <= figures
    assert run_cli(scanned_once, output, "group", overrides=()).returncode == 0
    header, *rows = (output / "group_tractograms.tsv").read_text().splitlines()
    place = header.split("\t").index("configuration")
    assert sorted(row.split("\t")[place] for row in rows) == ["det45", "n/a"]


@pytest.mark.parametrize(
    "name", ["", "a b", "a_b", "a-b", "../x", "é", "x" * 41], ids=lambda name: repr(name)[:8]
)
def test_names_are_letters_and_digits(scanned_once: Path, tmp_path: Path, name: str) -> None:
    ended = run_cli(scanned_once, tmp_path / "o", "participant", f"--name={name}")
    assert ended.returncode == 78
    assert "output.name" in ended.stderr
    assert not (tmp_path / "o").exists()


def test_another_format_is_written_without_tracking_again(output: Path, scanned_once: Path) -> None:
    before = files(output)
    settings = (*QUICK, "output.formats=[tck]")
    ended = run_cli(scanned_once, output, "participant", overrides=settings)
    assert ended.returncode == 0
    assert "seeds with cpu" not in ended.stderr
    trx, tck = f"{PREFIX}-prob_tractogram.trx", f"{PREFIX}-prob_tractogram.tck"
    assert files(output)[trx][0] == before[trx][0]
    record = sidecar(output / "sub-01" / "dwi" / tck)[RECORD_KEY]
    assert record["file_sha256"].keys() == {trx, tck}
    assert_true(output)


def test_maps_and_masks_alone(scanned_once: Path, tmp_path: Path, finished: Any) -> None:
    output = tmp_path / "output"
    whole = {name: content for name, (content, _) in files(finished[0]).items()}
    made = []
    for last in ("maps", "masks", "tractogram"):
        run = ("participant", "--stop-after", last)
        assert run_cli(scanned_once, output, *run).returncode == 0
        made.append({name for name in files(output) if not name.endswith(".json")})
        assert_true(output)
    assert made[0] < made[1] < made[2]
    assert not any("seed" in name or "track" in name for name in made[0])
    assert not any("track" in name for name in made[1])
    assert {name: files(output)[name][0] for name in made[2]} == {n: whole[n] for n in made[2]}


def test_the_density_map_alone_has_the_record_of_the_streamlines(
    scanned_once: Path, tmp_path: Path, finished: tuple[Path, Ended]
) -> None:
    output = tmp_path / "output"
    settings = (*QUICK, "output.keep=[density]")
    assert run_cli(scanned_once, output, "participant", overrides=settings).returncode == 0
    assert not list(output.glob("**/*_tractogram.*"))
    assert not list(output.glob(".work/*"))
    density = f"{PREFIX}-prob_param-tdi_dwimap.nii.gz"
    whole = finished[0] / "sub-01" / "dwi" / f"{PREFIX}-prob_tractogram.trx"
    expected = sidecar(whole)[RECORD_KEY]
    record = sidecar(output / "sub-01" / "dwi" / density)[RECORD_KEY]
    for key in ("content_sha256", "streamlines_kept", "seeds", "ends", "rng_seed"):
        assert record[key] == expected[key]
    assert files(output)[density][0] == files(finished[0])[density][0]
    assert_true(output)
    assert run_cli(scanned_once, output, "group", overrides=()).returncode == 0
    assert len((output / "group_tractograms.tsv").read_text().splitlines()) == 2
    again = run_cli(scanned_once, output, "participant", overrides=settings, report=True)
    assert "nothing to compute" in again.stderr
    assert (output / "sub-01.html").is_file()
    assert run_cli(scanned_once, output, "participant").returncode == 0  # now the tractogram too
    kept = output / "sub-01" / "dwi" / whole.name
    assert kept.read_bytes() == whole.read_bytes()

"""What an output folder holds is trusted only where it is as it was written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import QUICK, Ended, run_cli, tractograms
from derivatives import FINGERPRINT, outputs_of, written
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bids_tractography.app.group import write_group_table
from bids_tractography.outputs.dataset import write_dataset_files
from bids_tractography.outputs.names import sidecar_path
from bids_tractography.outputs.provenance import RECORD_KEY, hash_of_sidecar
from bids_tractography.outputs.run import read_sidecar, why_changed, why_stale

CHANGED = "its sidecar was modified or damaged"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


def edit(path: Path, change: Callable[[dict[str, Any]], object], *, resign: bool = False) -> None:
    content = json.loads(path.read_text())
    change(content)
    if resign:
        content[RECORD_KEY]["sidecar_sha256"] = hash_of_sidecar(content)
    path.write_text(json.dumps(content))


def changed(path: Path, *, read_files: bool = False) -> str | None:
    return why_changed(path, read_sidecar(path), read_files=read_files)


# The record covers its own text


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(Description="Better."),
        lambda content: content.update(Note=1),
        lambda content: content.pop("Units"),
        lambda content: content[RECORD_KEY].update(details={"order": 8}),
        lambda content: content[RECORD_KEY].update(version="9"),
    ],
)
def test_an_edited_sidecar_is_stale(tmp_path: Path, change: Callable[..., object]) -> None:
    path = written(tmp_path)
    edit(sidecar_path(path), change)
    assert why_stale(path, FINGERPRINT) == CHANGED
    assert changed(path) == "the sidecar was modified or damaged"


def test_a_sidecar_without_its_hash_is_stale(tmp_path: Path) -> None:
    path = written(tmp_path)
    edit(sidecar_path(path), lambda content: content[RECORD_KEY].pop("sidecar_sha256"))
    assert why_stale(path, FINGERPRINT) == "it is incomplete or was not written by this program"


def test_another_layout_of_the_same_json_is_no_change(tmp_path: Path) -> None:
    path = written(tmp_path)
    content = json.loads(sidecar_path(path).read_text())
    sidecar_path(path).write_text(json.dumps(dict(reversed(content.items())), indent=None))
    assert why_stale(path, FINGERPRINT) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 7))
def test_no_flipped_bit_of_a_sidecar_passes(tmp_path: Path, place: int, bit: int) -> None:
    path = written(tmp_path)
    content = bytearray(sidecar_path(path).read_bytes())
    before = json.loads(content)
    content[place % len(content)] ^= 1 << bit
    sidecar_path(path).write_bytes(content)
    try:
        same = json.loads(content.decode("utf-8-sig")) == before
    except ValueError:
        same = False
    assert (why_stale(path, FINGERPRINT) is None) == same  # white space is free


def test_a_changed_file_is_found_by_size_or_content(tmp_path: Path) -> None:
    path = written(tmp_path)
    whole = path.read_bytes()
    assert changed(path, read_files=True) is None
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert changed(path) is None
    assert "was modified" in str(changed(path, read_files=True))
    path.write_bytes(whole[:-1])
    assert "was modified" in str(changed(path))
    path.unlink()
    assert "does not exist" in str(changed(path))


# What lies in the way


def test_pipes_in_place_of_files_are_stale_and_nobody_waits(tmp_path: Path) -> None:
    path = written(tmp_path)
    sidecar_path(path).unlink()
    os.mkfifo(sidecar_path(path))
    assert why_stale(path, FINGERPRINT) == "it is incomplete or was not written by this program"
    path.unlink()
    os.mkfifo(path)
    assert why_stale(path, FINGERPRINT) == "it is not a regular file"
    written(tmp_path)
    assert why_stale(path, FINGERPRINT) is None


@pytest.mark.parametrize(
    "links", [3, "text", [], {"a": 3}, {"a": None}], ids=["3", "text", "list", "int", "null"]
)
def test_odd_links_of_a_description_are_refused(
    scanned_once: Path, tmp_path: Path, links: object
) -> None:
    output = tmp_path / "output"
    write_dataset_files(output, {}, [], None)
    edit(output / "dataset_description.json", lambda content: content.update(DatasetLinks=links))
    ended = run_cli(scanned_once, output, "participant")
    assert ended.returncode == 73
    assert "DatasetLinks" in ended.stderr
    assert "Traceback" not in ended.stderr


def make_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("in the way")


def make_folder(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "thing").touch()


def make_pipe(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)


def make_deep_json(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[" * 100_000)


DESCRIPTION = "dataset_description.json"
SIDECAR = "sub-01/dwi/sub-01_desc-brain_mask.json"


@pytest.mark.parametrize(
    ("where", "make", "code"),
    [
        ("code", make_file, 73),
        ("logs", make_file, 73),
        ("sub-01", make_file, 73),
        ("sub-01/dwi", make_file, 73),
        ("README", make_folder, 73),
        (DESCRIPTION, make_folder, 73),
        (DESCRIPTION, make_pipe, 73),
        (DESCRIPTION, make_deep_json, 73),
        (SIDECAR, make_folder, 73),
        ("sub-01/dwi/sub-01_desc-brain_mask.nii.gz", make_folder, 73),
        (SIDECAR, make_pipe, 0),
        ("sub-01/dwi/sub-01_tract-wholebrain_track-prob_tractogram.json", make_deep_json, 0),
    ],
)
def test_what_lies_in_the_way_is_a_clear_error_or_replaced(
    scanned_once: Path, tmp_path: Path, where: str, make: Callable[[Path], None], code: int
) -> None:
    output = tmp_path / "output"
    make(output / where)
    ended = run_cli(scanned_once, output, "participant")
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    if code:
        assert where.split("/")[-1] in ended.stderr


def test_an_edited_sidecar_is_made_again_to_the_same_bytes(
    finished: tuple[Path, Ended], scanned_once: Path, tmp_path: Path
) -> None:
    output = shutil.copytree(finished[0], tmp_path / "output")
    (path,) = tractograms(output)
    before = path.read_bytes()
    edit(sidecar_path(path), lambda content: content[RECORD_KEY].update(warnings=[]))
    edit(sidecar_path(path), lambda content: content[RECORD_KEY].update(points=1))
    again = run_cli(scanned_once, output, "participant")
    assert again.returncode == 0
    assert CHANGED in again.stderr
    assert path.read_bytes() == before


def test_names_in_an_edited_sidecar_remove_nothing_elsewhere(
    finished: tuple[Path, Ended], scanned_once: Path, tmp_path: Path
) -> None:
    output = shutil.copytree(finished[0], tmp_path / "output")
    (path,) = tractograms(output)
    precious = [output / "sub-01" / "precious.txt", path.with_name("precious.txt")]
    for file in precious:
        file.touch()
    names = {"../precious.txt": "0", "precious.txt": "0", path.name: "0"}
    edit(sidecar_path(path), lambda content: content[RECORD_KEY].update(file_sha256=names))
    assert run_cli(scanned_once, output, "participant").returncode == 0
    assert all(file.exists() for file in precious)


# The group level


@pytest.fixture
def group(finished: tuple[Path, Ended], tmp_path: Path) -> Path:
    """A derivative dataset of two participants; what is done to sub-01 must not touch sub-02."""
    output = Path(shutil.copytree(finished[0], tmp_path / "output"))
    folder = output / "sub-02" / "dwi"
    folder.mkdir(parents=True)
    (path,) = tractograms(output)
    name = path.name.replace("sub-01", "sub-02")
    shutil.copy(path, folder / name)
    shutil.copy(sidecar_path(path), sidecar_path(folder / name))

    def rename(content: dict[str, Any]) -> None:
        for key in ("file_sha256", "file_bytes"):
            content[RECORD_KEY][key] = {name: content[RECORD_KEY][key][path.name]}

    edit(sidecar_path(folder / name), rename, resign=True)
    return output


def rows(output: Path) -> list[str]:
    table = (output / "group_tractograms.tsv").read_text().splitlines()[1:]
    return [row.split("\t")[0] for row in table]


def of(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda content: content[RECORD_KEY].update({name: value})


@pytest.mark.parametrize(
    "change",
    [
        of("length_quantiles_mm", {}),
        of("streamlines_rejected", {"eaten": 3}),
        of("ends", {"nowhere": 3}),
        of("file_sha256", {"../../etc/passwd": "0"}),
        of("file_sha256", {"..": "0"}),
        of("file_sha256", {"": "0"}),
        of("file_sha256", {}),
        of("file_sha256", [3]),
        of("file_bytes", {}),
        of("file_bytes", None),
        of("seconds", {}),
        of("points", "many"),
        of("engine", "\ud800"),
        of("record_version", None),
        of("config", {"model": 3}),
        lambda content: content.update({RECORD_KEY: None}),
        lambda content: content.update({RECORD_KEY: [1]}),
    ],
)
def test_the_group_level_leaves_out_what_it_does_not_understand(
    group: Path, change: Callable[..., object]
) -> None:
    path = sidecar_path(tractograms(group)[0])
    try:
        edit(path, change, resign=True)
    except (AttributeError, TypeError, ValueError):
        edit(path, change)
    ended = run_cli("unused", group, "group", overrides=())
    assert ended.returncode == 0, ended.stderr
    assert "has no row" in ended.stderr
    assert rows(group) == ["sub-02"]


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(st.data())
def test_no_value_of_a_record_stops_the_group_level(group: Path, data: st.DataObject) -> None:
    path = sidecar_path(tractograms(group)[0])
    whole = path.read_bytes()
    key = data.draw(st.sampled_from(sorted(json.loads(whole)[RECORD_KEY])))
    try:
        edit(path, of(key, data.draw(JSON)), resign=True)
        write_group_table(group)
    finally:
        path.write_bytes(whole)
    assert "sub-02" in rows(group)


def test_the_group_level_leaves_out_what_was_changed(group: Path) -> None:
    path = tractograms(group)[0]
    for damage in (
        lambda: edit(sidecar_path(path), of("points", 1)),
        lambda: path.write_bytes(path.read_bytes()[:-1]),
        path.unlink,
        lambda: os.mkfifo(path),
    ):
        sidecar, whole = (
            sidecar_path(path).read_bytes(),
            path.read_bytes() if path.exists() else b"",
        )
        damage()
        ended = run_cli("unused", group, "group", overrides=())
        assert ended.returncode == 0
        assert rows(group) == ["sub-02"]
        sidecar_path(path).write_bytes(sidecar)
        if whole and path.exists():
            path.write_bytes(whole)
    path.unlink()
    sidecar_path(path).unlink()
    os.mkfifo(sidecar_path(path))
    assert run_cli("unused", group, "group", overrides=()).returncode == 0
    assert rows(group) == ["sub-02"]


def test_the_group_level_reads_files_if_it_is_told_to(group: Path) -> None:
    path = tractograms(group)[0]
    content = np.frombuffer(path.read_bytes(), np.uint8).copy()
    content[len(content) // 2] ^= 1
    path.write_bytes(content.tobytes())
    assert run_cli("unused", group, "group", overrides=()).returncode == 0
    assert rows(group) == ["sub-01", "sub-02"]
    assert run_cli("unused", group, "group", "--verify-files", overrides=()).returncode == 0
    assert rows(group) == ["sub-02"]


def test_the_participant_level_refuses_the_option_of_the_group_level(
    scanned_once: Path, tmp_path: Path
) -> None:
    ended = run_cli(scanned_once, tmp_path / "o", "participant", "--verify-files", overrides=QUICK)
    assert ended.returncode == 64


def test_the_sidecar_of_a_sidecar_is_itself(tmp_path: Path) -> None:
    path = outputs_of(tmp_path).path("dwimap", param="fa")
    assert sidecar_path(sidecar_path(path)) == sidecar_path(path)

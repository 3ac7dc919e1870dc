"""Names, URIs, staleness, and writing that leaves nothing half done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from bidsschematools.schema import load_schema
from derivatives import FINGERPRINT, outputs_of, written
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_tractography.errors import BusyError, OutputError
from bids_tractography.outputs.dataset import (
    check_output_folder,
    dataset_files,
    link_name,
    link_target,
    linked_datasets,
    parse_uri,
    write_dataset_files,
)
from bids_tractography.outputs.files import write_atomically, write_json, write_text
from bids_tractography.outputs.locks import exclusive, locked
from bids_tractography.outputs.names import entities_of, file_name, sidecar_path
from bids_tractography.outputs.provenance import RECORD_KEY
from bids_tractography.outputs.run import read_record, why_stale

# Names


def test_entities_are_split_in_order() -> None:
    name = "sub-01_ses-a_dir-AP_run-02_space-T1w_desc-preproc_dwi.nii.gz"
    assert list(entities_of(name).items()) == [
        ("sub", "01"),
        ("ses", "a"),
        ("dir", "AP"),
        ("run", "02"),
        ("space", "T1w"),
        ("desc", "preproc"),
    ]
    assert entities_of("dwi.bval") == {}
    assert entities_of("sub-01_odd_dwi.nii.gz") == {"sub": "01"}


def test_names_are_in_the_order_of_the_specification() -> None:
    in_order = [load_schema().objects.entities[name].name for name in load_schema().rules.entities]
    ours = [key for key in in_order if key in KEYS]
    assert len(ours) >= 20
    name = file_name(dict.fromkeys(reversed(ours), "1"), "dwi", ".nii.gz")
    assert list(entities_of(name)) == ours


def test_entities_of_the_proposals_follow_space_and_desc_is_last() -> None:
    keys = ["desc", "param", "res", "track", "space", "run", "tract", "model", "sub"]
    name = file_name(dict.fromkeys(keys, "x"), "dwimap", ".nii.gz")
    assert name == (
        "sub-x_run-x_space-x_tract-x_track-x_model-x_param-x_res-x_desc-x_dwimap.nii.gz"
    )


def test_unknown_entities_follow_run() -> None:
    name = file_name({"desc": "a", "zzz": "b", "space": "c", "run": "d", "sub": "e"}, "m", ".x")
    assert name == "sub-e_run-d_zzz-b_space-c_desc-a_m.x"


KEYS = (
    *("sub", "ses", "sample", "task", "acq", "ce", "trc", "rec", "dir", "run", "mod", "echo"),
    *("flip", "inv", "mt", "part", "proc", "hemi", "space", "split", "recording", "chunk"),
    *("atlas", "seg", "scale", "res", "den", "label", "desc"),
)
LABELS = st.text("abcXYZ019+", min_size=1, max_size=5)
ENTITIES = st.dictionaries(st.sampled_from([*KEYS, "tract", "track", "model", "param"]), LABELS)


@settings(max_examples=100, deadline=None)
@given(ENTITIES, st.sampled_from(["dwi", "mask", "tractogram"]), st.randoms())
def test_names_and_entities_are_inverse(entities: dict[str, str], suffix: str, random: Any) -> None:
    name = file_name(entities, suffix, ".nii.gz")
    assert entities_of(name) == entities
    assert name.endswith(f"{suffix}.nii.gz")
    shuffled = list(entities.items())
    random.shuffle(shuffled)
    assert file_name(dict(shuffled), suffix, ".nii.gz") == name


def test_derivatives_keep_the_entities_of_their_source(tmp_path: Path) -> None:
    outputs = outputs_of(tmp_path, "sub-01_ses-a_run-1_space-T1w_desc-preproc_dwi.nii.gz")
    folder = tmp_path / "sub-01/ses-a/dwi"
    assert outputs.folder == folder
    assert outputs.name == "sub-01_ses-a_run-1_space-T1w"
    assert outputs.path("mask", desc="brain") == (
        folder / "sub-01_ses-a_run-1_space-T1w_desc-brain_mask.nii.gz"
    )
    assert outputs.path("tractogram", ".trx", tract="wholebrain", track="prob") == (
        folder / "sub-01_ses-a_run-1_space-T1w_tract-wholebrain_track-prob_tractogram.trx"
    )


def test_derivatives_without_session_lie_in_the_folder_of_the_participant(tmp_path: Path) -> None:
    assert outputs_of(tmp_path).path("dwimap", param="fa") == (
        tmp_path / "sub-01/dwi/sub-01_param-fa_dwimap.nii.gz"
    )


@pytest.mark.parametrize(
    ("name", "sidecar"),
    [
        ("sub-01_mask.nii.gz", "sub-01_mask.json"),
        ("sub-01_mask.nii", "sub-01_mask.json"),
        ("sub-01_tractogram.trx", "sub-01_tractogram.json"),
        ("sub-01_tractogram.tck.gz", "sub-01_tractogram.json"),
    ],
)
def test_sidecars_lie_beside_their_file(tmp_path: Path, name: str, sidecar: str) -> None:
    assert sidecar_path(tmp_path / "a.b" / name) == tmp_path / "a.b" / sidecar


# URIs and links


def test_uris_of_own_linked_and_foreign_files(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "raw/derivatives/out"
    outputs = outputs_of(out, raw=raw, qsiprep=raw / "derivatives/qsiprep", rawer=tmp_path / "ra")
    assert outputs.uri(out / "sub-01/dwi/a.trx") == "bids::sub-01/dwi/a.trx"
    assert outputs.uri(raw / "sub-01/dwi/a.nii.gz") == "bids:raw:sub-01/dwi/a.nii.gz"
    nested = raw / "derivatives/qsiprep/sub-01/b.nii.gz"
    assert outputs.uri(nested) == "bids:qsiprep:sub-01/b.nii.gz"
    assert outputs.uri(tmp_path / "seeds 1.txt") == f"file://{tmp_path}/seeds%201.txt"
    assert outputs.uri(tmp_path / "raw2/x") == f"file://{tmp_path}/raw2/x"


def test_links_are_relative_only_upwards(tmp_path: Path) -> None:
    assert link_target(tmp_path / "raw/derivatives/out", tmp_path / "raw") == "../.."
    assert link_target(tmp_path / "out", tmp_path / "raw") == f"file://{tmp_path}/raw"


def test_names_of_links_are_not_taken_twice() -> None:
    taken: dict[str, Path] = {}
    for folder in ("/a/my data (1)", "/b/my-data-1", "/c/my_data_1", "/", "/é"):
        taken[link_name(Path(folder), taken)] = Path(folder)
    assert list(taken) == ["my-data-1", "my-data-1-2", "my-data-1-3", "dataset", "dataset-2"]


def test_the_output_is_a_derivative_dataset_with_links(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "raw/derivatives/out"
    earlier: list[dict[str, Any]] = [{"Name": "qsiprep"}]
    with dataset_files(out):
        write_dataset_files(out, {"raw": raw}, earlier, {"Type": "docker", "Tag": "a:1"})
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert [tool["Name"] for tool in description["GeneratedBy"]] == ["bids_tractography", "qsiprep"]
    assert description["GeneratedBy"][0]["Container"] == {"Type": "docker", "Tag": "a:1"}
    assert description["DatasetLinks"] == {"raw": "../.."}
    assert "*_tractogram.*" in (out / ".bidsignore").read_text().splitlines()


# Staleness


def test_a_map_is_written_with_its_sidecar(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert np.all(nib.load(path).get_fdata() == 1)
    content = json.loads(sidecar_path(path).read_text())
    assert content["Description"] == "A map."
    assert content["Sources"] == ["bids::sub-01/dwi/a.nii.gz"]
    assert content["Units"] == "1"
    assert read_record(path)["fingerprint"] == FINGERPRINT.model_dump()


def test_a_file_made_with_the_same_is_up_to_date(tmp_path: Path) -> None:
    assert why_stale(written(tmp_path), FINGERPRINT) is None


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"inputs": "x"}, "it was computed with different inputs"),
        ({"config": "x"}, "it was computed with a different configuration"),
        ({"software": "x"}, "it was computed with a different software version"),
        (
            {"inputs": "x", "software": "x"},
            "it was computed with different inputs and a different software version",
        ),
    ],
)
def test_what_has_changed_is_told(tmp_path: Path, changed: dict[str, str], reason: str) -> None:
    assert why_stale(written(tmp_path), FINGERPRINT.model_copy(update=changed)) == reason


def test_missing_files_and_missing_sidecars_are_stale(tmp_path: Path) -> None:
    path = written(tmp_path)
    sidecar_path(path).unlink()
    assert why_stale(path, FINGERPRINT) == "it is incomplete or was not written by this program"
    path = written(tmp_path)
    path.unlink()
    assert why_stale(path, FINGERPRINT) == "it does not exist"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"3",
        b"{}",
        b'"text"',
        b"null",
        f'{{"{RECORD_KEY}": null}}'.encode(),
        f'{{"{RECORD_KEY}": "{RECORD_KEY}"}}'.encode(),
        f'{{"{RECORD_KEY}": {{"fingerprint": {{"inputs": "i"}}}}}}'.encode(),
    ],
)
def test_sidecars_that_are_not_ours_are_stale(tmp_path: Path, content: bytes) -> None:
    path = written(tmp_path)
    sidecar_path(path).write_bytes(content)
    assert why_stale(path, FINGERPRINT) == "it is incomplete or was not written by this program"


def test_data_written_again_lose_their_sidecar_first(tmp_path: Path) -> None:
    path = written(tmp_path)

    def fail(_: Path) -> None:
        assert not sidecar_path(path).exists()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        outputs_of(tmp_path).write_data(path, fail)
    assert why_stale(path, FINGERPRINT) == "it is incomplete or was not written by this program"


# Writing


def test_a_failing_writer_leaves_the_target_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("before")

    def fail(temporary: Path) -> None:
        assert temporary.parent == tmp_path
        assert temporary.name.endswith("a.json")
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert path.read_text() == "before"


def test_the_target_appears_whole_and_in_new_folders(tmp_path: Path) -> None:
    path = tmp_path / "new/er/a.txt"

    def writer(temporary: Path) -> None:
        temporary.write_text("after")
        assert not path.exists()

    write_atomically(path, writer)
    assert path.read_text() == "after"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]
    write_text(path, "again ü")
    assert path.read_bytes() == "again ü".encode()


def test_a_full_disk_is_an_output_error(tmp_path: Path) -> None:
    def fill(temporary: Path) -> None:
        temporary.write_text("half")
        with Path("/dev/full").open("wb") as file:
            file.write(b"0" * 10**6)

    with pytest.raises(OutputError, match=r"a\.txt cannot be written \(No space") as error:
        write_atomically(tmp_path / "a.txt", fill)
    assert error.value.exit_code == 73
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_a_folder_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file/a.txt", tmp_path / "file/b/a.txt"):
        with pytest.raises(OutputError) as error:
            write_text(path, "x")
        assert error.value.exit_code == 73
        assert str(path) in str(error.value)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_in_place_of_the_target_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt/b").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"a\.txt"):
        write_text(tmp_path / "a.txt", "x")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_read_only_folder_is_an_output_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match=r"a\.txt"):
        write_text(tmp_path / "a.txt", "x")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@settings(max_examples=15, deadline=None)
@given(JSON)
def test_json_reads_back_as_the_same(
    tmp_path_factory: pytest.TempPathFactory, content: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "content.json"
    write_json(path, content)
    assert json.loads(path.read_text(encoding="utf-8")) == content
    assert path.read_bytes().endswith(b"\n")


def test_values_that_json_lacks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


# One process at a time

HOLD = """
import sys, time
from pathlib import Path
from bids_tractography.outputs.locks import exclusive
with exclusive(Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def held_elsewhere(root: Path, name: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD, str(root), name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def is_free(root: Path, name: str) -> bool:
    try:
        with exclusive(root, name):
            return True
    except BusyError:
        return False


def test_being_kept_out_is_told_as_temporary(tmp_path: Path) -> None:
    with (
        exclusive(tmp_path, "sub-01"),
        pytest.raises(BusyError, match="working on sub-01") as error,
        exclusive(tmp_path, "sub-01"),
    ):
        pass
    assert error.value.exit_code == 75


def test_another_process_is_kept_out_until_it_is_killed(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path, "sub-01") as process:
        assert not is_free(tmp_path, "sub-01")
        assert not is_free(tmp_path, "sub-01"), "being turned away must not free it"
        assert is_free(tmp_path, "sub-02")
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert is_free(tmp_path, "sub-01")


def test_a_run_is_free_again_afterwards_and_no_lock_is_left(tmp_path: Path) -> None:
    with exclusive(tmp_path, "sub-01"):
        assert not is_free(tmp_path, "sub-01")
    assert is_free(tmp_path, "sub-01")
    with pytest.raises(RuntimeError), exclusive(tmp_path, "sub-01"):
        raise RuntimeError
    assert is_free(tmp_path, "sub-01")
    assert list((tmp_path / ".work").iterdir()) == []


def test_a_lock_that_cannot_be_made_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"), exclusive(tmp_path / "file", "sub-01"):
        pass


@pytest.mark.parametrize("target", ["mine", "nowhere"])
def test_a_lock_that_is_a_link_is_refused_and_its_target_stays(tmp_path: Path, target: str) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "a.lock").symlink_to(tmp_path / target)
    with pytest.raises(OutputError, match=r"a\.lock"), locked(tmp_path / "a.lock"):
        pass
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


def test_a_lock_that_is_a_fifo_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.lock")
    with pytest.raises(OutputError, match="not a regular file"), locked(tmp_path / "a.lock"):
        pass


# Where it may be written


def allowed(bids: Path, output: Path, work: Path | None = None) -> bool:
    try:
        check_output_folder(output, bids, work or output / ".work")
    except OutputError:
        return False
    return True


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    """Make a dataset with some folders in it."""
    (tmp_path / "ds/sub-01").mkdir(parents=True)
    (tmp_path / "ds/derivatives/other").mkdir(parents=True)
    return tmp_path / "ds"


def test_places_outside_and_under_derivatives_are_allowed(bids: Path) -> None:
    assert allowed(bids, bids.parent / "out")
    assert allowed(bids, bids.parent / "ds-out")
    assert allowed(bids, bids / "derivatives/bids_tractography")
    assert allowed(bids, bids / "derivatives/bids_tractography/v1")
    assert allowed(bids, bids.parent / "out", bids.parent / "work")


@pytest.mark.parametrize(
    "inside", [".", "sub-01", "out", "derivatives", "sourcedata/out", "derivatives2/out"]
)
def test_places_inside_the_input_are_refused(bids: Path, inside: str) -> None:
    assert not allowed(bids, bids / inside)
    assert not allowed(bids, bids.parent / "out", bids / inside)
    assert sorted(p.name for p in bids.iterdir()) == ["derivatives", "sub-01"]


def test_a_derivative_dataset_as_input_is_protected_too(tmp_path: Path) -> None:
    qsiprep = tmp_path / "ds/derivatives/qsiprep"
    qsiprep.mkdir(parents=True)
    assert not allowed(qsiprep, qsiprep)
    assert not allowed(qsiprep, qsiprep / "out")
    assert allowed(qsiprep, tmp_path / "ds/derivatives/bids_tractography")


def test_places_that_cannot_be_written_are_refused(bids: Path) -> None:
    file = bids.parent / "file"
    file.write_text("mine")
    for place in (file, file / "out"):
        assert not allowed(bids, place)
        assert not allowed(bids, bids.parent / "out", place)
    assert file.read_text() == "mine"


def test_refusals_name_the_folder_and_a_remedy(bids: Path) -> None:
    with pytest.raises(OutputError) as error:
        check_output_folder(bids / "out", bids, bids.parent / "work")
    assert error.value.exit_code == 73
    assert f"the output folder {bids}/out is inside the input" in error.value.message
    assert str(bids / "derivatives/bids_tractography") in error.value.remedy
    with pytest.raises(OutputError, match=f"the work folder {bids}/sub-01"):
        check_output_folder(bids.parent / "out", bids, bids / "sub-01")


def test_nothing_is_left_by_the_check_in_a_folder_that_is_there(bids: Path) -> None:
    output = bids.parent / "out"
    output.mkdir()
    assert allowed(bids, output)
    assert list(output.iterdir()) == []


def test_links_that_many_write_at_once_are_all_kept(tmp_path: Path) -> None:
    def write(number: int) -> None:
        with dataset_files(tmp_path):
            links = {f"d{number}": Path(f"/data/{number}")}
            write_dataset_files(tmp_path, links, [], None)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(write, range(16)))
    description = json.loads((tmp_path / "dataset_description.json").read_text())
    assert set(description["DatasetLinks"]) == {f"d{i}" for i in range(16)}
    assert list((tmp_path / ".work").iterdir()) == []


def test_locks_that_come_and_go_do_not_hinder_each_other(tmp_path: Path) -> None:
    def hold(number: int) -> None:
        with exclusive(tmp_path, f"sub-{number}"):
            pass

    with ThreadPoolExecutor(16) as pool:
        for future in [pool.submit(hold, number) for number in range(800)]:
            future.result()
    assert list((tmp_path / ".work").iterdir()) == []


def test_leftovers_of_another_run_of_the_session_stay(tmp_path: Path) -> None:
    ours, others = outputs_of(tmp_path), outputs_of(tmp_path, "sub-01_dir-AP_dwi.nii.gz")
    ours.folder.mkdir(parents=True)
    for outputs in (ours, others):
        name = outputs.path("dwimap", model="csd", param="fod").name
        (outputs.folder / f".tmp-0.{name}").touch()
    ours.remove_leftovers()
    assert [path.name for path in ours.folder.iterdir()] == [
        ".tmp-0.sub-01_dir-AP_model-csd_param-fod_dwimap.nii.gz"
    ]


def test_leftovers_of_killed_processes_are_removed_whatever_their_names(tmp_path: Path) -> None:
    outputs = outputs_of(tmp_path, "sub-01_acq-[red]_dwi.nii.gz")
    places = [tmp_path, tmp_path / "code", tmp_path / "logs", outputs.folder]
    for folder in places:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".tmp-0.sub-01_acq-[red]_param-fa_dwimap.nii.gz").touch()
        (folder / "kept").touch()
    with dataset_files(tmp_path):
        assert [len(list(folder.glob(".tmp-*"))) for folder in places] == [0, 0, 0, 1]
    outputs.remove_leftovers()
    assert not list(tmp_path.rglob(".tmp-*"))
    assert len(list(tmp_path.rglob("kept"))) == 4


def test_batches_of_other_outputs_datasets_and_runs_lie_in_other_folders() -> None:
    places = {
        outputs_of(Path(root), name).batches(Path("/work"), Path(dataset))
        for root in ("/a", "/b")
        for dataset in ("/x", "/y")
        for name in ("sub-01_dwi.nii.gz", "sub-01_dir-AP_dwi.nii.gz")
    }
    assert len(places) == 8
    assert {place.name.split(".")[0] for place in places} == {"sub-01", "sub-01_dir-AP"}
    assert {(place.parent, place.suffix) for place in places} == {(Path("/work"), ".batches")}


@pytest.mark.parametrize(
    ("uri", "dataset", "path"),
    [
        ("bids:raw:sub-01/dwi/a.nii.gz", "raw", "sub-01/dwi/a.nii.gz"),
        ("bids::sub-01/dwi/a:b.nii.gz", "", "sub-01/dwi/a:b.nii.gz"),
        ("file:///rois/a%20b.nii.gz", "", "/rois/a b.nii.gz"),
    ],
)
def test_parse_uri_splits_dataset_and_path(uri: str, dataset: str, path: str) -> None:
    assert parse_uri(uri) == (dataset, PurePosixPath(path))


@pytest.mark.parametrize(
    "uri",
    [
        "bids:raw:../../etc/passwd",
        "bids:raw:/etc/passwd",
        "bids:raw:a/../../b",
        "bids:raw:",
        "bids:raw",
        "bids:raw:.",
        "bids:raw:a\0b",
        "file:///tmp/%2e%2e/etc/passwd",
        "file://host/etc/passwd",
        "file:etc/passwd",
        "file:///",
        "file://[x/y",
        "http://x/y",
        "",
    ],
)
def test_parse_uri_refuses_what_is_not_a_file_of_a_dataset(uri: str) -> None:
    with pytest.raises(ValueError, match=r"it does not name|not inside|neither|Invalid"):
        parse_uri(uri)


def test_linked_datasets_are_absolute_or_relative_to_the_derivatives(tmp_path: Path) -> None:
    links = {"a": "file:///data/x%20y", "b": "../..", "c": "https://x/y", "d": 3, "e": "file://["}
    (tmp_path / "dataset_description.json").write_text(json.dumps({"DatasetLinks": links}))
    found = linked_datasets(tmp_path)
    assert found == {"": tmp_path, "a": Path("/data/x y"), "b": tmp_path / "../.."}

"""``bids-tractography reproduce`` on the phantom, with everything that users do to files."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from conftest import Ended, run_cli, sidecar, tractograms

from bids_tractography.outputs.provenance import RECORD_KEY, hash_of_sidecar
from bids_tractography.phantom import write_phantom

FEW = ("seeding.seeds={kind: total, count: 150}", "tracking.algorithm.step_size_mm=1")


def the_sidecar(output: Path) -> Path:
    (path,) = output.glob("sub-*/**/dwi/*_tractogram.json")
    return path


def reproduce(*words: object) -> Ended:
    return run_cli("reproduce", *words, overrides=())


def compared(*words: object) -> tuple[int, dict[str, Any]]:
    ended = reproduce(*words, "--json")
    content: dict[str, Any] = json.loads(ended.stdout)
    return ended.returncode, content


@pytest.fixture(scope="module")
def few(scanned_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of a run with a drawn seed, which no test changes."""
    output = tmp_path_factory.mktemp("few") / "output"
    more = ("output.per_streamline=[seed]", "tracking.batch_size=20")
    ended = run_cli(
        scanned_once, output, "participant", "--omp-nthreads", 1, overrides=(*FEW, *more)
    )
    assert ended.returncode == 0, ended.stderr
    return output


@pytest.fixture
def copied(few: Path, scanned_once: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A dataset, and the sidecar of its tractogram, which a test may change.

    The links of the sidecar's dataset are gone.
    """
    dataset = Path(shutil.copytree(scanned_once, tmp_path / "dataset"))
    output = Path(shutil.copytree(few, tmp_path / "output"))
    description = json.loads((output / "dataset_description.json").read_text())
    del description["DatasetLinks"]
    (output / "dataset_description.json").write_text(json.dumps(description))
    return dataset, the_sidecar(output)


def edit(path: Path, change: Callable[[dict[str, Any]], object], *, rehash: bool = True) -> None:
    content = json.loads(path.read_text())
    change(content[RECORD_KEY])
    if rehash:
        content[RECORD_KEY]["sidecar_sha256"] = hash_of_sidecar(content)
    path.write_text(json.dumps(content))


# The same


def test_reproduce_with_other_threads_gives_the_same_bytes(few: Path, tmp_path: Path) -> None:
    path, again = the_sidecar(few), tmp_path / "again"
    ended = reproduce(path, "--omp-nthreads", 2, "--output", again, "--no-report")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-2:] == [
        f"same: {path}: the new file has the same bytes.",
        f"written to {again}",
    ]
    (old,), (new,) = tractograms(few), tractograms(again)
    assert new.read_bytes() == old.read_bytes()
    records = [sidecar(tractogram)[RECORD_KEY] for tractogram in (old, new)]
    assert [record["threads"] for record in records] == [1, 2]
    assert records[0]["inputs"] == records[1]["inputs"]
    refused = reproduce(path, "--output", again)
    assert refused.returncode == 73
    assert "already contains" in refused.stderr


def test_reproduce_leaves_nothing_behind_without_output(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in few.rglob("*")}
    assert reproduce(the_sidecar(few), "-w", tmp_path / "work").returncode == 0
    assert not list(tmp_path.glob("bids-tractography-*"))
    assert not list((tmp_path / "work").iterdir())
    assert {path: path.stat().st_mtime_ns for path in few.rglob("*")} == before


@pytest.fixture(scope="module")
def phantom_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of the phantom, with masks and seeds outside of it."""
    root = tmp_path_factory.mktemp("phantom")
    dataset = write_phantom(root / "dataset")
    mask = dataset / "derivatives/tissue/sub-01/dwi/sub-01_desc-brain_mask.nii.gz"
    (root / "rois").mkdir()
    shutil.copy(mask, root / "rois" / "include.nii.gz")
    image = nib.load(mask)
    some = np.zeros(image.shape, np.uint8)
    some[:4] = 1
    nib.save(nib.Nifti1Image(some, image.affine), root / "rois" / "exclude.nii.gz")
    voxels = np.argwhere(np.asarray(image.dataobj) > 0)[::97][:80]
    np.savetxt(root / "rois" / "seeds.txt", nib.affines.apply_affine(image.affine, voxels))
    return dataset


CONFIGURATIONS = {
    "det, two formats": (
        *FEW,
        "tracking.algorithm.kind=det",
        "output.formats=[trk, tck]",
        "seeding.rng_seed=9007199254740991",
    ),
    "half precision": (*FEW, "output.dtype=float16", "output.per_streamline=[seed, ends]"),
    "linearised": (*FEW, "output.linearise.max_error_mm=0.2"),
    "masks by path": (
        *FEW,
        "tracking.include=[{kind: roi, files: [rois/include.nii.gz]}]",
        "tracking.exclude=[{kind: roi, files: [rois/exclude.nii.gz]}]",
    ),
    "mask by filters": (
        *FEW,
        "seeding.mask={kind: roi, files: [{filters: {suffix: probseg, label: WM}, scope: tissue}]}",
    ),
    "given seeds": (
        "seeding.seeds={kind: given, path: rois/seeds.txt}",
        "tracking.algorithm.step_size_mm=1",
    ),
    "pft": (*FEW, "tracking.algorithm.kind=pft", "stopping=cmc", "seeding.mask=interface"),
    "act of a T1w": (*FEW, "stopping=act", "tissue=t1w"),
    "dipy": (*FEW, "tracking.engine=dipy"),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides", [pytest.param(value, id=key) for key, value in CONFIGURATIONS.items()]
)
def test_reproduce_gives_the_same_bytes_for_every_kind_of_configuration(
    phantom_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    overrides: tuple[str, ...],
) -> None:
    monkeypatch.chdir(phantom_dataset.parent)
    tissue = phantom_dataset / "derivatives" / "tissue"
    words = ("--participant-label", "01", "-d", f"tissue={tissue}")
    ended = run_cli(
        phantom_dataset, tmp_path / "output", "participant", *words, overrides=overrides
    )
    assert ended.returncode == 0, ended.stderr
    monkeypatch.chdir(tmp_path)
    code, content = compared(the_sidecar(tmp_path / "output"))
    assert (code, content["verdict"], content["run"]) == (0, "same", True), content
    results = [row for row in content["compared"] if row["kind"] == "result"]
    recorded = sidecar(the_sidecar(tmp_path / "output"))[RECORD_KEY]
    assert [row["here"] for row in results] == [
        recorded["content_sha256"],
        *recorded["file_sha256"].values(),
    ]


@pytest.mark.slow
def test_reproduce_of_preprocessed_data_uses_the_recorded_frame_and_mask(
    scanned_once: Path, tmp_path: Path
) -> None:
    raw, folder = tmp_path / "raw", tmp_path / "qsiprep" / "sub-01" / "ses-a" / "dwi"
    (raw / "sub-01").mkdir(parents=True)
    folder.mkdir(parents=True)
    for path in (scanned_once / "sub-01" / "dwi").glob("sub-01_dwi.*"):
        name = path.name.replace("sub-01", "sub-01_ses-a_space-T1w_desc-preproc")
        shutil.copy(path, folder / name)
    image = nib.load(next(folder.glob("*.nii.gz")))
    mask = np.asarray(image.dataobj)[..., 0] > 100
    nib.save(
        nib.Nifti1Image(mask.astype(np.uint8), image.affine),
        folder / "sub-01_ses-a_space-T1w_desc-odd_mask.nii.gz",
    )
    for root, more in ((raw, {}), (tmp_path / "qsiprep", {"GeneratedBy": [{"Name": "QSIPrep"}]})):
        description = {"Name": "x", "BIDSVersion": "1.10.0", **more}
        (root / "dataset_description.json").write_text(json.dumps(description))
    filters = tmp_path / "filters.json"
    filters.write_text(json.dumps({"brain_mask": {"desc": "odd"}}))
    output = tmp_path / "output"
    words = ("-d", f"my data={tmp_path / 'qsiprep'}", "--bids-filter-file", filters)
    ended = run_cli(raw, output, "participant", *words, overrides=(*FEW, "gradients.check=off"))
    assert ended.returncode == 0, ended.stderr
    record = sidecar(the_sidecar(output))[RECORD_KEY]
    assert record["gradients"]["frame"] == "image"
    assert "brain_mask" in {file["role"] for file in record["inputs"]}
    # The description that decided the frame is gone, and so are all links.
    (tmp_path / "qsiprep" / "dataset_description.json").unlink()
    alone = Path(shutil.copy(the_sidecar(output), tmp_path))
    code, content = compared(alone, tmp_path / "qsiprep")
    assert (code, content["verdict"]) == (0, "same"), content


def test_reproduce_of_an_imported_tractogram_compares_the_file(
    few: Path, scanned_once: Path, tmp_path: Path
) -> None:
    (source,) = tractograms(few)
    for mode in ("copy", "link"):
        output = tmp_path / mode
        override = f"import_tract={{path: {source}, mode: {mode}}}"
        ended = run_cli(scanned_once, output, "participant", overrides=(override,))
        assert ended.returncode == 0, ended.stderr
        code, content = compared(the_sidecar(output))
        assert (code, content["verdict"]) == (0, "same"), content


# Files that were moved, renamed, changed or removed


@pytest.mark.slow
def test_reproduce_in_a_moved_dataset_finds_the_inputs_by_relative_links(
    dataset: Path, tmp_path: Path
) -> None:
    output = dataset / "derivatives" / "bids_tractography"
    assert run_cli(dataset, output, "participant", overrides=FEW).returncode == 0
    moved = dataset.rename(tmp_path / "moved")
    ended = reproduce(the_sidecar(moved / "derivatives" / "bids_tractography"))
    assert ended.returncode == 0, ended.stderr


def test_reproduce_without_links_needs_the_directory_and_finds_renamed_files(
    copied: tuple[Path, Path],
) -> None:
    dataset, path = copied
    (dataset / "sub-01" / "dwi" / "sub-01_dwi.bvec").rename(dataset / "vectors.bvec")
    missing = reproduce(path)
    assert missing.returncode == 66
    assert missing.stdout.count("recorded SHA-256") == 3
    assert "bids:once0:sub-01/dwi/sub-01_dwi.bvec" in missing.stdout
    code, content = compared(path, dataset)
    assert (code, content["verdict"]) == (0, "same")
    places = {one["role"]: one["path"] for one in content["inputs"]}
    assert places["bvec"] == str(dataset / "vectors.bvec")


@pytest.mark.parametrize("check", [(), ("--check",)])
def test_reproduce_reports_changed_and_missing_inputs_with_their_hashes(
    copied: tuple[Path, Path], check: tuple[str, ...]
) -> None:
    dataset, path = copied
    bval = dataset / "sub-01" / "dwi" / "sub-01_dwi.bval"
    recorded = hashlib.sha256(bval.read_bytes()).hexdigest()
    bval.write_text(bval.read_text().replace("0", "5", 1))
    changed = hashlib.sha256(bval.read_bytes()).hexdigest()
    (dataset / "sub-01" / "dwi" / "sub-01_dwi.bvec").unlink()
    ended = reproduce(path, dataset, *check)
    assert ended.returncode == 66
    assert f"recorded SHA-256 {recorded}" in ended.stdout
    assert f"but {changed} in {bval}" in ended.stdout
    assert "differs: input" in ended.stdout
    code, content = compared(path, dataset, *check)
    assert (code, content["verdict"], content["run"]) == (66, "missing", False)
    first = content["first_difference"]
    assert (first["kind"], first["name"]) == ("input", "bval")
    found = {one["role"]: (one["path"], one["sha256_in_place"]) for one in content["inputs"]}
    assert found["bval"] == (None, changed)
    assert found["bvec"] == (None, None)
    assert found["dwi"] == (str(dataset / "sub-01" / "dwi" / "sub-01_dwi.nii.gz"), None)


# What differs


def test_reproduce_reports_another_version_and_that_the_result_is_the_same(
    copied: tuple[Path, Path],
) -> None:
    dataset, path = copied
    edit(path, lambda record: record.update(version="0.0.9"))
    edit(path, lambda record: record["environment"]["libraries"].update(numpy="1.0"))
    code, content = compared(path, dataset, "--check")
    assert (code, content["verdict"], content["run"]) == (1, "differs", False)
    first = content["first_difference"]
    assert (first["kind"], first["recorded"]) == ("program", "0.0.9")
    ended = reproduce(path, dataset)
    assert ended.returncode == 0
    rows = [line.split() for line in ended.stdout.splitlines()]
    assert ["program", "bids_tractography", "0.0.9"] in [row[:3] for row in rows]
    assert ["library", "numpy", "1.0"] in [row[:3] for row in rows]
    assert ended.stdout.splitlines()[-1].startswith("same:")


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda record: record["config"]["tracking"].pop("dead_ends"), "configuration"),
        (lambda record: record["environment"]["libraries"].update(scipy="1.0"), "library"),
        (lambda record: record.update(engine_version="0.1"), "engine"),
        (lambda record: record["environment"].update(platform="Darwin arm64"), "processor"),
    ],
)
def test_reproduce_check_names_the_first_difference(
    copied: tuple[Path, Path], change: Callable[[dict[str, Any]], object], kind: str
) -> None:
    dataset, path = copied
    assert compared(path, dataset, "--check")[0] == 0
    edit(path, change)
    code, content = compared(path, dataset, "--check")
    assert (code, content["first_difference"]["kind"]) == (1, kind)


def test_reproduce_check_ignores_what_cannot_change_the_result(copied: tuple[Path, Path]) -> None:
    dataset, path = copied
    edit(path, lambda record: record.update(threads=99))
    edit(path, lambda record: record["environment"].update(python="3.99"))
    edit(path, lambda record: record["environment"]["libraries"].update(pybids="0.1"))
    ended = reproduce(path, dataset, "--check")
    assert ended.returncode == 0
    assert "can be reproduced" in ended.stdout
    assert "pybids" in ended.stdout


@pytest.mark.slow
def test_reproduce_names_the_first_streamline_that_differs(copied: tuple[Path, Path]) -> None:
    dataset, path = copied
    seed = json.loads(path.read_text())[RECORD_KEY]["rng_seed"]
    edit(path, lambda record: record.update(rng_seed=(seed + 1) % 2**53))
    ended = reproduce(path, dataset)
    assert ended.returncode == 1
    assert "The first streamline that differs is number 0" in ended.stdout
    path.with_suffix(".trx").write_bytes(b"another file")
    code, content = compared(path, dataset)
    assert (code, content["verdict"], content["streamline"]) == (1, "differs", None)
    path.with_suffix(".trx").unlink()
    ended = reproduce(path, dataset)
    assert ended.returncode == 1
    assert "no streamlines were compared" in ended.stdout


@pytest.mark.slow
def test_reproduce_names_seed_and_batch_of_the_first_streamline_that_is_missing(
    copied: tuple[Path, Path],
) -> None:
    """A record of fewer seeds claims the configuration of more."""
    dataset, path = copied
    record = json.loads(path.read_text())[RECORD_KEY]
    fewer = (
        f"seeding.rng_seed={record['rng_seed']}",
        "seeding.seeds={kind: total, count: 90}",
        *FEW[1:],
        "output.per_streamline=[seed]",
    )
    output = path.parents[2].with_name("fewer")
    ended = run_cli(dataset, output, "participant", overrides=fewer)
    assert ended.returncode == 0, ended.stderr
    (tractogram,) = tractograms(output)
    shutil.copy(tractogram, path.with_suffix(".trx"))
    of_fewer = sidecar(tractogram)[RECORD_KEY]
    same = ("content_sha256", "file_sha256", "file_bytes")
    edit(path, lambda record: record.update({key: of_fewer[key] for key in same}))
    code, content = compared(path, dataset)
    assert (code, content["first_difference"]["kind"]) == (1, "result")
    found = content["streamline"]
    assert (found["number"], found["points"][0]) == (of_fewer["streamlines_kept"], None)
    assert 90 <= found["seed"] < 150
    assert found["batch"] == found["seed"] // 20


# Wrong input


def test_reproduce_refuses_a_sidecar_that_was_modified(copied: tuple[Path, Path]) -> None:
    dataset, path = copied
    edit(path, lambda record: record.update(rng_seed=5), rehash=False)
    ended = reproduce(path, dataset)
    assert ended.returncode == 65
    assert "was modified or damaged" in ended.stderr


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("bids:x:../../secret/a.bval", "not inside a dataset"),
        ("bids:x:/secret/a.bval", "not inside a dataset"),
        ("file:///a/../secret/a.bval", "not inside a dataset"),
        ("https://x/a.bval", "neither a BIDS URI nor a file URI"),
    ],
)
def test_reproduce_refuses_inputs_outside_of_datasets(
    copied: tuple[Path, Path], uri: str, reason: str
) -> None:
    dataset, path = copied
    edit(path, lambda record: record["inputs"][1].update(uri=uri))
    ended = reproduce(path, dataset)
    assert ended.returncode == 65
    assert reason in ended.stderr


@pytest.mark.parametrize(
    ("change", "code", "reason"),
    [
        (lambda record: record.update(inputs=[]), 65, "does not record a DWI"),
        (lambda record: record.update(engine=None), 65, "does not record the engine"),
        (lambda record: record.update(file_sha256={"../a.trx": ""}), 65, "'../a.trx'"),
        (lambda record: record.pop("environment"), 65, "environment: Field required"),
        (lambda record: record["config"].update(speed=9), 78, "speed: unknown key"),
        (lambda record: record.update(rng_seed=-1), 78, "seeding.rng_seed"),
        (lambda record: record["inputs"][0].update(uri="file:///a_dwi.nii.gz"), 65, "not a DWI"),
        (lambda record: record["inputs"].pop(), 66, "has no .bvec"),
    ],
)
def test_reproduce_refuses_records_that_cannot_be_run(
    copied: tuple[Path, Path],
    change: Callable[[dict[str, Any]], object],
    code: int,
    reason: str,
) -> None:
    dataset, path = copied
    edit(path, change)
    ended = reproduce(path, dataset)
    assert (ended.returncode, reason in ended.stderr) == (code, True), ended.stderr


def test_reproduce_refuses_what_is_not_the_sidecar_of_a_tractogram(
    few: Path, tmp_path: Path
) -> None:
    folder = the_sidecar(few).parent
    (tmp_path / "a.json").write_text("{}")
    cases: list[tuple[Path, int, str]] = [
        (folder, 66, "is a directory"),
        (next(folder.glob("*param-fa_dwimap.json")), 65, "describes a map or a mask"),
        (next(folder.glob("*param-fa_dwimap.nii.gz")), 65, "not the sidecar of a tractogram"),
        (tmp_path / "a.json", 65, "does not have a record of bids_tractography"),
        (tmp_path / "absent.json", 66, "does not exist"),
    ]
    for path, code, reason in cases:
        ended = reproduce(path)
        assert (ended.returncode, reason in ended.stderr) == (code, True), ended.stderr


def test_reproduce_writes_neither_into_the_inputs_nor_into_the_recorded_output(
    few: Path, scanned_once: Path, tmp_path: Path
) -> None:
    path = the_sidecar(few)
    cases: list[tuple[tuple[object, ...], int, str]] = [
        (("--output", few), 73, "contains the recorded tractogram"),
        (("--output", scanned_once / "new"), 73, "is inside the input"),
        (("-w", scanned_once / "sub-01"), 73, "is inside the input"),
        (("--check", "--output", tmp_path / "new"), 64, "it writes nothing"),
        ((tmp_path / "absent",), 66, "is not a directory"),
    ]
    for words, code, reason in cases:
        ended = reproduce(path, *words)
        assert (ended.returncode, reason in ended.stderr) == (code, True), ended.stderr
    assert not (tmp_path / "new").exists()

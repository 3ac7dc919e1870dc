"""The command as users run it, on the phantom."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from conftest import (
    DATA,
    QUICK,
    Ended,
    opened,
    run_cli,
    sidecar,
    tractograms,
    write_description,
)

from bids_tractography.outputs.provenance import RECORD_KEY, RECORD_VERSION, TractogramRecord
from bids_tractography.phantom import Phantom, ScanGrid, connected_bundles, write_dwi
from bids_tractography.pipeline import results


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def the_tractogram(output: Path) -> Path:
    (path,) = tractograms(output)
    return path


def test_a_dataset_becomes_a_tractogram_with_maps_masks_and_sidecars(
    finished: tuple[Path, Ended],
) -> None:
    output, ended = finished
    assert ended.returncode == 0, ended.stderr
    written = {path.name for path in (output / "sub-01" / "dwi").iterdir()}
    stems = {
        "sub-01_desc-brain_mask",
        "sub-01_desc-seed_mask",
        "sub-01_desc-stop_mask",
        "sub-01_model-tensor_param-fa_dwimap",
        *(f"sub-01_model-tensor_param-{name}_dwimap" for name in ("md", "ad", "rd")),
        "sub-01_model-csd_param-fod_dwimap",
        "sub-01_tract-wholebrain_track-prob_param-tdi_dwimap",
    }
    expected = {f"{stem}{extension}" for stem in stems for extension in (".nii.gz", ".json")}
    tractogram = "sub-01_tract-wholebrain_track-prob_tractogram"
    assert written == expected | {f"{tractogram}.trx", f"{tractogram}.json"}
    assert not list((output / ".work").iterdir())
    assert {path.name for path in output.iterdir()} == {
        ".bidsignore",
        ".work",
        "README",
        "code",
        "dataset_description.json",
        "logs",
        "sub-01",
    }


def test_the_output_passes_the_bids_validator(finished: tuple[Path, Ended]) -> None:
    validator = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent))
    if validator is None:
        pytest.skip("bids-validator-deno is not installed")
    output, _ = finished
    checked = subprocess.run(
        [validator, "--ignoreWarnings", output], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout


def test_every_bundle_of_the_phantom_is_found(
    finished: tuple[Path, Ended], phantom: Phantom
) -> None:
    output, _ = finished
    with opened(the_tractogram(output)) as (points, offsets):
        found = connected_bundles(phantom, points, offsets)
    assert min(found[bundle.name] for bundle in phantom.bundles) >= 3, found
    assert sum(found[bundle.name] for bundle in phantom.bundles) > 2 * found["invalid"], found


def test_the_sidecar_says_what_became_of_every_seed(finished: tuple[Path, Ended]) -> None:
    output, _ = finished
    path = the_tractogram(output)
    content = sidecar(path)
    record = TractogramRecord.model_validate(content[RECORD_KEY])
    assert record.seeds == 600
    assert record.streamlines_generated == record.streamlines_kept + sum(
        record.streamlines_rejected.values()
    )
    assert sum(record.ends.values()) == 2 * record.streamlines_generated
    with opened(path) as (points, offsets):
        assert content["Count"] == record.streamlines_kept == len(offsets) - 1
        assert record.points == len(points)
        digest = hashlib.sha256(points.astype("<f4").tobytes() + offsets.astype("<u8").tobytes())
        lengths_mm = np.diff(offsets) - 1.0
        assert record.length_quantiles_mm["0"] == lengths_mm.min() >= 20
        assert record.length_quantiles_mm["1"] == lengths_mm.max() <= 250
    assert record.content_sha256 == digest.hexdigest()
    assert record.file_sha256 == {path.name: sha256(path)}
    assert record.rng_seed == 11
    assert record.config.tracking.algorithm.step_size_mm == 1


def test_sources_are_bids_uris_of_files_that_are_there(
    finished: tuple[Path, Ended], scanned_once: Path
) -> None:
    output, _ = finished
    description = json.loads((output / "dataset_description.json").read_text())
    roots = {"": output} | {
        name: Path(uri.removeprefix("file://")) for name, uri in description["DatasetLinks"].items()
    }
    for path in output.glob("sub-01/dwi/*.json"):
        for uri in json.loads(path.read_text())["Sources"]:
            _, name, relative = uri.split(":", 2)
            assert (roots[name] / relative).exists(), uri


def test_record_keys_change_only_with_the_record_version() -> None:
    keys = ",".join(sorted(TractogramRecord.model_fields))
    digests = {
        1: "5a8a27a9aec3",
        2: "2840da0e3ecc",
        3: "23524b6ff474",
        4: "8f6866d25462",
    }  # a new version gets a new line
    assert hashlib.sha256(keys.encode()).hexdigest()[:12] == digests[RECORD_VERSION]


def test_a_second_run_computes_nothing_and_says_so(
    finished: tuple[Path, Ended], scanned_once: Path
) -> None:
    output, _ = finished
    before = {path: path.stat().st_mtime_ns for path in output.glob("sub-*/**/*")}
    again = run_cli(scanned_once, output, "participant")
    assert again.returncode == 0
    assert "nothing to compute" in again.stderr
    assert "up to date" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in output.glob("sub-*/**/*")} == before


def test_another_configuration_is_computed_again_and_the_log_says_why(
    finished: tuple[Path, Ended], scanned_once: Path, tmp_path: Path
) -> None:
    output = shutil.copytree(finished[0], tmp_path / "output")
    fodf = next(output.glob("sub-01/dwi/*fod_dwimap.nii.gz"))
    before = fodf.stat().st_mtime_ns
    changed = (*QUICK, "tracking.min_length_mm=30")
    again = run_cli(scanned_once, output, "participant", "--overwrite", overrides=changed)
    assert again.returncode == 0
    assert "recomputed: it was computed with a different configuration" in again.stderr
    assert fodf.stat().st_mtime_ns == before
    record = sidecar(the_tractogram(output))[RECORD_KEY]
    assert record["length_quantiles_mm"]["0"] >= 30


def test_a_drawn_seed_is_recorded_and_makes_the_same_file(
    scanned_once: Path, tmp_path: Path
) -> None:
    drawn = tuple(override for override in QUICK if "rng_seed" not in override)
    assert run_cli(scanned_once, tmp_path / "a", "participant", overrides=drawn).returncode == 0
    seed = sidecar(the_tractogram(tmp_path / "a"))[RECORD_KEY]["rng_seed"]
    given = (*drawn, f"seeding.rng_seed={seed}")
    assert run_cli(scanned_once, tmp_path / "b", "participant", overrides=given).returncode == 0
    assert sha256(the_tractogram(tmp_path / "a")) == sha256(the_tractogram(tmp_path / "b"))


@pytest.mark.parametrize("batch_size", [7, 1000])
@pytest.mark.parametrize("threads", [1, 2])
def test_threads_and_batches_do_not_change_a_byte(
    finished: tuple[Path, Ended], scanned_once: Path, tmp_path: Path, threads: int, batch_size: int
) -> None:
    ended = run_cli(
        scanned_once,
        tmp_path / "output",
        "participant",
        "--omp-nthreads",
        threads,
        overrides=(*QUICK, f"tracking.batch_size={batch_size}"),
    )
    assert ended.returncode == 0
    assert sha256(the_tractogram(tmp_path / "output")) == sha256(the_tractogram(finished[0]))


def batches_in(output: Path) -> int:
    for ledger in (output / ".work").glob("sub-01.*.batches/ledger.jsonl"):
        with contextlib.suppress(FileNotFoundError):
            return len(ledger.read_bytes().splitlines()) - 1
    return -1


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bytes(
    finished: tuple[Path, Ended], scanned_once: Path, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    quick_batches = (*QUICK, "tracking.batch_size=10")  # 60 of them
    settings = [word for override in quick_batches for word in ("--set", override)]
    files = (str(scanned_once), str(output))
    command = [sys.executable, "-m", "bids_tractography", *files, "participant"]
    ends = []
    for after in np.random.default_rng(5).permutation([0, 13, 27, 44]).cumsum() % 50:
        with subprocess.Popen(
            [*command, *settings], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while batches_in(output) < after and process.poll() is None:
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
            ends.append(process.wait())
    assert ends.count(-signal.SIGKILL) >= 3
    ended = run_cli(scanned_once, output, "participant", overrides=quick_batches)
    assert ended.returncode == 0
    assert "finished batches" in ended.stderr
    assert sha256(the_tractogram(output)) == sha256(the_tractogram(finished[0]))
    assert not list((output / ".work").iterdir())
    assert not list(output.rglob(".*.nii.gz"))


@pytest.mark.parametrize("file", ["points.float32", "lengths.uint32"])
@pytest.mark.parametrize("moment", ["density", "payload"])
def test_batches_damaged_during_assembly_write_nothing_and_the_next_try_succeeds(
    finished: tuple[Path, Ended],
    scanned_once: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    moment: str,
) -> None:
    output = tmp_path / "output"
    function = getattr(results, moment)

    def damage(*arguments: Any, **named: Any) -> Any:
        (path,) = output.rglob(file)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 16
        path.write_bytes(content)
        return function(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(results, moment, damage)
        ended = run_cli(scanned_once, output, "participant")
    assert ended.returncode == 75, ended.stderr
    assert "Rerun the same command" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not tractograms(output)
    assert [path.name for path in (output / ".work").glob("*/*")] == ["head.json"]
    assert not list(output.rglob(".tmp-*"))
    assert run_cli(scanned_once, output, "participant").returncode == 0
    assert sha256(the_tractogram(output)) == sha256(the_tractogram(finished[0]))


ORIENTATIONS = {
    "ras": ScanGrid("RAS", (3.0, 3.0, 3.0)),
    "las": ScanGrid("LAS", (3.0, 3.0, 3.0)),
    "lps": ScanGrid("LPS", (3.0, 3.0, 3.0)),
    "rpi": ScanGrid("RPI", (3.0, 3.0, 3.0)),
    "pir": ScanGrid("PIR", (3.0, 3.0, 3.0)),
    "sla": ScanGrid("SLA", (3.0, 3.0, 3.0)),
    "oblique": ScanGrid("AIL", (3.0, 3.0, 3.0), rotation_deg=(14, -9, 20)),
    "anisotropic": ScanGrid("LAS", (2.5, 2.5, 4.0)),
}


@pytest.fixture(scope="module")
def stored_eight_ways(tmp_path_factory: pytest.TempPathFactory, phantom: Phantom) -> Path:
    """Output for one head stored in eight orientations, each tracked with det and prob."""
    root = tmp_path_factory.mktemp("orientations")
    write_description(root / "dataset", DatasetType="raw")
    for label, grid in ORIENTATIONS.items():
        folder = root / "dataset" / f"sub-{label}" / "dwi"
        folder.mkdir(parents=True)
        write_dwi(folder / f"sub-{label}_dwi", phantom, grid, snr=np.inf)
    for kind in ("prob", "det"):
        overrides = (
            *QUICK,
            "seeding.seeds={kind: total, count: 1500}",
            f"tracking.algorithm.kind={kind}",
        )
        ended = run_cli(root / "dataset", root / kind, "participant", overrides=overrides)
        assert ended.returncode == 0, ended.stderr
    return root


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["prob", "det"])
def test_one_head_in_eight_orientations_has_the_same_bundles(
    stored_eight_ways: Path, phantom: Phantom, kind: str
) -> None:
    names = [bundle.name for bundle in phantom.bundles]
    found = {}
    for path in tractograms(stored_eight_ways / kind):
        with opened(path) as (points, offsets):
            counts = connected_bundles(phantom, points, offsets)
        found[path.parts[-3].removeprefix("sub-")] = np.array([counts[name] for name in names])
    assert set(found) == set(ORIENTATIONS)
    for label in ("las", "lps", "rpi", "pir", "sla"):
        # The same voxels in another order: the very same seeds and streamlines.
        np.testing.assert_allclose(found[label], found["ras"], atol=4, err_msg=label)
    for label in ("oblique", "anisotropic"):  # other voxels and other noise
        assert (found[label] > 0.4 * found["ras"]).all(), (label, found)
        assert (found[label] < 2.5 * found["ras"]).all(), (label, found)


@pytest.mark.slow
def test_stored_orders_of_the_same_voxels_give_the_same_streamlines_in_mm(
    stored_eight_ways: Path,
) -> None:
    paths = {p.parts[-3]: p for p in tractograms(stored_eight_ways / "det")}
    with opened(paths["sub-ras"]) as (expected, expected_offsets):
        lines = {tuple(np.round(expected[a], 1)) for a in expected_offsets[:-1]}
    for label in ("las", "pir", "sla"):
        with opened(paths[f"sub-{label}"]) as (points, offsets):
            same = sum(tuple(np.round(points[a], 1)) in lines for a in offsets[:-1])
            assert same > 0.97 * (len(offsets) - 1), label


@pytest.mark.slow
def test_output_images_lie_on_the_stored_grid_of_the_dwi(stored_eight_ways: Path) -> None:
    for label in ORIENTATIONS:
        source = nib.load(stored_eight_ways / f"dataset/sub-{label}/dwi/sub-{label}_dwi.nii.gz")
        for path in (stored_eight_ways / "prob" / f"sub-{label}" / "dwi").glob("*.nii.gz"):
            image = nib.load(path)
            assert image.shape[:3] == source.shape[:3]
            np.testing.assert_allclose(image.affine, source.affine, atol=1e-5)


def test_four_tilts_of_one_head_agree_in_the_principal_direction(tmp_path: Path) -> None:
    overrides = (
        "tensor.v1=true",
        "seeding.seeds={kind: total, count: 200}",
        "seeding.rng_seed=1",
        "tracking.min_length_mm=5",
    )
    ended = run_cli(
        DATA / "prisma",
        tmp_path / "output",
        "participant",
        "--participant-label",
        "prisma",
        overrides=overrides,
    )
    assert ended.returncode == 0, ended.stderr
    folder = tmp_path / "output" / "sub-prisma" / "dwi"

    def read(tilt: str, param: str) -> nib.Nifti1Image:
        name = f"sub-prisma_acq-{tilt}_model-tensor_param-{param}_dwimap.nii.gz"
        return nib.load(folder / name)

    reference = read("ortho", "v1").get_fdata()
    coherent = read("ortho", "fa").get_fdata() > 0.5
    at_mm = nib.affines.apply_affine(read("ortho", "fa").affine, np.argwhere(coherent))
    for tilt in ("pitch", "roll", "yaw"):
        other = read(tilt, "v1")
        voxels = np.rint(nib.affines.apply_affine(np.linalg.inv(other.affine), at_mm)).astype(int)
        inside = ((voxels >= 0) & (voxels < other.shape[:3])).all(axis=1)
        there = tuple(voxels[inside].T)
        agree = read(tilt, "fa").get_fdata()[there] > 0.5
        cosine = np.abs((reference[coherent][inside] * other.get_fdata()[there]).sum(axis=1))
        angle = np.degrees(np.arccos(np.clip(cosine[agree], 0, 1)))
        # The wrong frame would be off by the tilt (20 degrees or more) or by a mirror.
        assert np.median(angle) < 12, (tilt, np.median(angle))


def damage_gradients(dataset: Path, change: Callable[[Any], Any]) -> None:
    path = dataset / "sub-01" / "dwi" / "sub-01_dwi.bvec"
    np.savetxt(path, change(np.loadtxt(path)), fmt="%.6f")


def damage_image(dataset: Path, change: Callable[[Any], Any]) -> None:
    path = dataset / "sub-01" / "dwi" / "sub-01_dwi.nii.gz"
    image = nib.load(path)
    data = change(image.get_fdata(dtype=np.float32))
    path.unlink()
    nib.save(nib.Nifti1Image(data, image.affine), path)


def with_nan(data: np.ndarray) -> np.ndarray:
    return np.full_like(data, np.nan)


def truncated(dataset: Path) -> None:
    path = dataset / "sub-01" / "dwi" / "sub-01_dwi.nii.gz"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BAD_INPUT: dict[str, tuple[Callable[[Path], object] | None, tuple[str, ...], int, str]] = {
    "no DWI": (lambda d: shutil.rmtree(d / "sub-01" / "dwi"), (), 66, "has no DWI"),
    "no b-vectors": (
        lambda d: (d / "sub-01" / "dwi" / "sub-01_dwi.bvec").unlink(),
        (),
        66,
        "no .bvec file",
    ),
    "b-vectors transposed": (lambda d: damage_gradients(d, np.transpose), (), 65, "transposed"),
    "b-vectors one short": (
        lambda d: damage_gradients(d, lambda v: v[:, :-1]),
        (),
        65,
        "b-vectors, but the image has",
    ),
    "NaN": (lambda d: damage_image(d, with_nan), (), 65, "no finite value"),
    "a 3-D image": (lambda d: damage_image(d, lambda v: v[..., 0]), (), 65, "dimensions"),
    "a truncated image": (truncated, (), 65, "cannot be read"),
    "filters that match nothing": (None, ("--bids-filter-file", "FILTERS"), 18, "match no DWI"),
    "an unknown participant": (None, ("--participant-label", "99"), 18, "Available: 01"),
    "an unknown key": (None, ("--set", "tracking.algorithm.step_size=1"), 78, "step_size_mm"),
    "an empty seed mask": (None, ("--set", "seeding.mask.above=1.5"), 65, "is empty"),
    "no streamline kept": (None, ("--set", "tracking.min_length_mm=249"), 65, "none of"),
    "a mask of another place": (
        None,
        ("--set", "seeding.mask={kind: file, path: MASK}"),
        65,
        "seeding.mask is empty",
    ),
    "an unknown level": (None, ("LEVEL",), 17, "analysis level"),
    "not a dataset": (lambda d: (d / "dataset_description.json").unlink(), (), 16, "BIDS dataset"),
}


@pytest.mark.parametrize("fault", BAD_INPUT)
def test_bad_input_has_its_message_and_code_and_leaves_nothing_half_written(
    dataset: Path, tmp_path: Path, fault: str
) -> None:
    damage, words, code, message = BAD_INPUT[fault]
    if damage:
        damage(dataset)
    (tmp_path / "filters.json").write_text('{"dwi": {"acquisition": "multiband"}}')
    mask = tmp_path / "mask.nii.gz"
    far = np.array([[1.0, 0, 0, 900], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), far), mask)
    named = [
        word.replace("FILTERS", str(tmp_path / "filters.json")).replace("MASK", str(mask))
        for word in words
    ]
    level = "session" if "LEVEL" in words else "participant"
    output = tmp_path / "output"
    ended = run_cli(dataset, output, level, *(w for w in named if w != "LEVEL"))
    assert ended.returncode == code, ended.stderr
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not tractograms(output)
    assert not list(output.rglob(".*.trx")) + list(output.rglob(".*.nii.gz"))
    for image in output.glob("sub-*/**/*.nii.gz"):
        assert sidecar(image)


@pytest.mark.parametrize("where", ["", "sub-01/output", "output"])
def test_an_output_folder_inside_the_input_is_refused(dataset: Path, where: str) -> None:
    before = sorted(dataset.rglob("*"))
    ended = run_cli(dataset, dataset / where, "participant")
    assert ended.returncode == 73
    assert "inside the input" in ended.stderr
    assert sorted(dataset.rglob("*")) == before


def test_an_output_folder_that_cannot_be_written_is_refused(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = run_cli(dataset, tmp_path / "file" / "output", "participant")
    assert ended.returncode == 73
    assert "cannot be written" in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("n_procs", [1, 2])
def test_a_bad_participant_does_not_stop_the_others(
    dataset: Path, finished: tuple[Path, Ended], tmp_path: Path, n_procs: int
) -> None:
    for label in ("02", "03"):
        folder = dataset / f"sub-{label}" / "dwi"
        folder.mkdir(parents=True)
        for path in (dataset / "sub-01" / "dwi").iterdir():
            shutil.copy(path, folder / path.name.replace("sub-01", f"sub-{label}"))
    (dataset / "sub-02" / "dwi" / "sub-02_dwi.bval").write_text("0 1000\n")
    (dataset / "sub-03" / "dwi" / "sub-03_dwi.bvec").unlink()
    (dataset / "sub-04").mkdir()
    output = tmp_path / "output"
    ended = run_cli(dataset, output, "participant", "--nprocs", n_procs, "--omp-nthreads", 1)
    assert ended.returncode == 1  # two faults of different kinds
    assert sha256(the_tractogram(output)) == sha256(the_tractogram(finished[0]))
    assert "sub-02" in ended.stdout
    assert "sub-03" in ended.stdout
    assert "sub-04 has no DWI" in ended.stderr
    (log,) = (output / "logs").glob("*_participant.json")
    content = json.loads(log.read_text())
    assert content["finished"] == ["sub-01"]
    assert {name: f["exit_code"] for name, f in content["failed"].items()} == {
        "sub-02": 65,
        "sub-03": 66,
    }
    assert set(content["skipped"]) == {"sub-04"}


def test_a_dry_run_writes_nothing(scanned_once: Path, tmp_path: Path) -> None:
    ended = run_cli(scanned_once, tmp_path / "output", "participant", "--dry-run")
    assert ended.returncode == 0
    assert "sub-01_dwi.nii.gz" in ended.stdout
    assert "step_size_mm: 1" in ended.stdout
    assert not list(tmp_path.iterdir())


def test_the_group_level_gathers_one_row_a_run(
    finished: tuple[Path, Ended], tmp_path: Path
) -> None:
    output = shutil.copytree(finished[0], tmp_path / "output")
    ended = run_cli("unused", output, "group", overrides=())
    assert ended.returncode == 0
    header, row = (output / "group_tractograms.tsv").read_text().splitlines()
    table = dict(zip(header.split("\t"), row.split("\t"), strict=True))
    record = sidecar(the_tractogram(output))[RECORD_KEY]
    assert table["kept"] == str(record["streamlines_kept"])
    assert table["content_sha256"] == record["content_sha256"]
    described = json.loads((output / "group_tractograms.json").read_text())
    assert set(described) == set(table)
    assert run_cli("unused", tmp_path / "nothing", "group", overrides=()).returncode == 66


def test_files_of_others_in_the_work_folder_stay(scanned_once: Path, tmp_path: Path) -> None:
    work = tmp_path / "scratch"
    (work / "sub-01").mkdir(parents=True)
    (work / "sub-01" / "thesis.txt").write_text("precious")
    ended = run_cli(scanned_once, tmp_path / "output", "participant", "-w", work)
    assert ended.returncode == 0
    assert [path.name for path in work.rglob("*")] == ["sub-01", "thesis.txt"]


def test_a_dataset_of_another_pipeline_is_not_overwritten(
    scanned_once: Path, tmp_path: Path
) -> None:
    output = tmp_path / "qsiprep"
    write_description(output, DatasetType="derivative", GeneratedBy=[{"Name": "QSIPrep"}])
    before = (output / "dataset_description.json").read_bytes()
    ended = run_cli(scanned_once, output, "participant")
    assert ended.returncode == 73
    assert "dataset of another program" in ended.stderr
    assert (output / "dataset_description.json").read_bytes() == before


@pytest.mark.parametrize("what", ["tractogram.trx", "fod_dwimap.nii.gz", "seed_mask.nii.gz"])
def test_a_damaged_output_is_made_again(
    finished: tuple[Path, Ended], scanned_once: Path, tmp_path: Path, what: str
) -> None:
    output = shutil.copytree(finished[0], tmp_path / "output")
    (path,) = output.glob(f"sub-01/dwi/*{what}")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    again = run_cli(scanned_once, output, "participant")
    assert again.returncode == 0, again.stderr
    assert "recomputed: it was modified or damaged" in again.stderr
    assert path.read_bytes() == whole
    assert sha256(the_tractogram(output)) == sha256(the_tractogram(finished[0]))


def test_two_algorithms_share_an_output_folder(
    finished: tuple[Path, Ended], scanned_once: Path, tmp_path: Path
) -> None:
    output = shutil.copytree(finished[0], tmp_path / "output")
    det = (*QUICK, "tracking.algorithm.kind=det")
    assert run_cli(scanned_once, output, "participant", overrides=det).returncode == 0
    assert len(tractograms(output)) == 2
    again = run_cli(scanned_once, output, "participant")
    assert "nothing to compute" in again.stderr


def test_links_of_earlier_calls_stay(
    finished: tuple[Path, Ended], scanned_once: Path, tmp_path: Path
) -> None:
    output = shutil.copytree(finished[0], tmp_path / "output")
    write_description(tmp_path / "extra", DatasetType="derivative")
    extra = ("-d", f"extra={tmp_path / 'extra'}")
    assert run_cli(scanned_once, output, "participant", *extra).returncode == 0
    assert run_cli(scanned_once, output, "participant").returncode == 0
    links = json.loads((output / "dataset_description.json").read_text())["DatasetLinks"]
    assert set(links) == {scanned_once.name, "extra"}


def test_a_run_without_gradients_does_not_stop_the_other_runs(
    dataset: Path, finished: tuple[Path, Ended], tmp_path: Path
) -> None:
    folder = dataset / "sub-01" / "dwi"
    shutil.copy(folder / "sub-01_dwi.nii.gz", folder / "sub-01_dir-PA_dwi.nii.gz")
    shutil.copy(folder / "sub-01_dwi.nii.gz", folder / "sub-01_part-phase_dwi.nii.gz")
    (folder / "sub-01_dwi.bval").rename(folder / "sub-01_dir-AP_dwi.bval")
    (folder / "sub-01_dwi.bvec").rename(folder / "sub-01_dir-AP_dwi.bvec")
    (folder / "sub-01_dwi.nii.gz").rename(folder / "sub-01_dir-AP_dwi.nii.gz")
    ended = run_cli(dataset, tmp_path / "output", "participant")
    assert ended.returncode == 66
    assert "sub-01_dir-PA: sub-01_dir-PA_dwi.nii.gz has no .bval and no .bvec" in ended.stderr
    assert "only magnitude images are tracked" in ended.stderr
    assert not list((tmp_path / "output").glob("sub-01/dwi/*part-phase*"))
    assert sha256(the_tractogram(tmp_path / "output")) == sha256(the_tractogram(finished[0]))


def test_the_group_level_refuses_what_it_would_ignore(
    finished: tuple[Path, Ended], tmp_path: Path
) -> None:
    output = shutil.copytree(finished[0], tmp_path / "output")
    ended = run_cli("unused", output, "group", "--dry-run", overrides=())
    assert ended.returncode == 64
    assert "--dry-run" in ended.stderr
    assert not (output / "group_tractograms.tsv").exists()


def test_the_group_level_leaves_out_tractograms_that_are_gone(
    finished: tuple[Path, Ended], tmp_path: Path
) -> None:
    output = shutil.copytree(finished[0], tmp_path / "output")
    the_tractogram(output).unlink()
    ended = run_cli("unused", output, "group", overrides=())
    assert ended.returncode == 66
    assert "does not exist" in ended.stderr


@pytest.mark.slow
def test_a_request_to_end_is_obeyed_at_once_and_the_run_resumes(
    finished: tuple[Path, Ended], two_participants: Path, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    slow = (*QUICK, "tracking.batch_size=10")
    settings = [word for override in slow for word in ("--set", override)]
    files = (str(two_participants), str(output))
    command = [sys.executable, "-m", "bids_tractography", *files, "participant"]
    with subprocess.Popen(
        [*command, "--nprocs", "2", "--omp-nthreads", "1", *settings],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while batches_in(output) < 5 and process.poll() is None:
            time.sleep(0.001)
        process.terminate()
        assert process.wait(timeout=20) == 143
    deadline = time.monotonic() + 10
    words = (two_participants, output, "participant", "--participant-label", "01")
    while (ended := run_cli(*words, overrides=slow)).returncode == 75:
        assert time.monotonic() < deadline, "a worker still holds the lock"
    assert ended.returncode == 0
    assert sha256(the_tractogram(output)) == sha256(the_tractogram(finished[0]))

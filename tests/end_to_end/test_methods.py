"""Every model, algorithm, tissue source and format through the command line, on the phantom."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import QUICK, opened, run_cli, sidecar, tractograms, write_description
from scipy import ndimage
from scipy.ndimage import map_coordinates

from bids_tractography.cli.main import main
from bids_tractography.outputs.provenance import RECORD_KEY, ImportRecord
from bids_tractography.phantom import (
    TWO_SHELLS,
    Phantom,
    ScanGrid,
    connected_bundles,
    write_dwi,
    write_t1w,
    write_tissue,
)

PROB = "sub-01/dwi/sub-01_tract-wholebrain_track-prob_tractogram"


GRID = ScanGrid("LAS", (3.0, 3.0, 3.0))


@pytest.fixture(scope="module")
def two_shells(tmp_path_factory: pytest.TempPathFactory, phantom: Phantom) -> Path:
    root = tmp_path_factory.mktemp("two_shells")
    write_description(root, DatasetType="raw")
    (root / "sub-01" / "dwi").mkdir(parents=True)
    write_dwi(root / "sub-01" / "dwi" / "sub-01_dwi", phantom, GRID, scheme=TWO_SHELLS)
    return root


@pytest.fixture(scope="module")
def tissue(tmp_path_factory: pytest.TempPathFactory, phantom: Phantom) -> Path:
    """A derivative dataset with the phantom's tissue fractions."""
    root = tmp_path_factory.mktemp("tissue")
    write_description(root, DatasetType="derivative", GeneratedBy=[{"Name": "truth"}])
    (root / "sub-01" / "anat").mkdir(parents=True)
    write_tissue(root / "sub-01" / "anat" / "sub-01", phantom, GRID)
    return root


def tracked(dataset: Path, output: Path, *settings: str, words: tuple[object, ...] = ()) -> Path:
    ended = run_cli(dataset, output, "participant", *words, overrides=(*QUICK, *settings))
    assert ended.returncode == 0, ended.stderr
    (path,) = tractograms(output)
    return path


def valid(phantom: Phantom, path: Path) -> tuple[dict[str, int], int]:
    """Streamlines of each bundle, and of none."""
    with opened(path) as (points, offsets):
        found = connected_bundles(phantom, points, offsets)
    return {bundle.name: found[bundle.name] for bundle in phantom.bundles}, found["invalid"]


MODELS = (
    "csd",
    "tensor",
    "kurtosis",
    pytest.param("msmt_csd", marks=pytest.mark.slow),
    "csa",
    "opdt",
    "gqi",
    "{kind: rumba, iterations: 60}",
)


@pytest.mark.parametrize("model", MODELS)
def test_every_model_finds_the_phantom_s_bundles(
    two_shells: Path, tmp_path: Path, phantom: Phantom, model: str
) -> None:
    path = tracked(two_shells, tmp_path, f"model={model}")
    bundles, _ = valid(phantom, path)
    assert sum(count > 0 for count in bundles.values()) >= 3, bundles
    record = sidecar(path)[RECORD_KEY]
    kind = record["config"]["model"]["kind"]
    fodf = next(tmp_path.rglob(f"*model-{kind.replace('_', '')}_param-fod_dwimap.nii.gz"))
    assert nib.load(fodf).shape[3] in (15, 28, 45)


ALGORITHMS = {
    "prob": ("stopping=act", "seeding.mask=interface"),
    "det": (),
    "pft": ("stopping=cmc", "seeding.mask=interface"),
    "ptt": (),
    "eudx": (),
    "closest_peak": (),
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_finds_the_phantom_s_bundles(
    finished: tuple[Path, object],
    scanned_once: Path,
    tissue: Path,
    tmp_path: Path,
    phantom: Phantom,
    algorithm: str,
) -> None:
    output = tmp_path / "output"
    shutil.copytree(finished[0], output)  # the fit is there
    for path in output.rglob("*_track-prob_*"):
        path.unlink()
    path = tracked(
        scanned_once,
        output,
        f"tracking.algorithm={{kind: {algorithm}, step_size_mm: 1}}",
        *ALGORITHMS[algorithm],
        words=("-d", tissue, "--overwrite"),
    )
    bundles, invalid = valid(phantom, path)
    assert all(bundles.values()), bundles
    assert sum(bundles.values()) > invalid, (bundles, invalid)
    record = sidecar(path)[RECORD_KEY]
    assert record["config"]["tracking"]["algorithm"]["kind"] == algorithm
    assert sum(record["ends"].values()) == 2 * record["streamlines_generated"]


@pytest.mark.slow
def test_tissue_of_a_t1w_image_alone(dataset: Path, tmp_path: Path, phantom: Phantom) -> None:
    (dataset / "sub-01" / "anat").mkdir()
    grid = ScanGrid("PIR", (2.0, 2.0, 2.0))
    write_t1w(dataset / "sub-01" / "anat" / "sub-01_T1w", phantom, grid)
    path = tracked(dataset, tmp_path / "output", "seeding.mask=interface", "stopping=act")
    record = sidecar(next((tmp_path / "output").rglob("*label-WM_probseg.nii.gz")))[RECORD_KEY]
    assert record["details"]["kind"] == "t1w"
    bundles, _ = valid(phantom, path)
    assert sum(count > 0 for count in bundles.values()) >= 4, bundles


def test_noise_in_a_mask_that_is_too_large_is_not_seeded(dataset: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    (masks / "sub-01" / "dwi").mkdir(parents=True)
    write_description(masks, DatasetType="derivative", GeneratedBy=[{"Name": "masks"}])
    image = nib.load(dataset / "sub-01" / "dwi" / "sub-01_dwi.nii.gz")
    everywhere = nib.Nifti1Image(np.ones(image.shape[:3], np.uint8), image.affine)
    nib.save(everywhere, masks / "sub-01" / "dwi" / "sub-01_desc-brain_mask.nii.gz")
    output = tmp_path / "output"
    overrides = (*QUICK, "checks.plausibility=warn")  # which otherwise refuses such a mask
    ended = run_cli(dataset, output, "participant", "--derivatives", masks, overrides=overrides)
    assert ended.returncode == 0, ended.stderr
    seeded = nib.load(next(output.rglob("*desc-seed_mask.nii.gz"))).get_fdata() > 0
    fa = nib.load(next(output.rglob("*param-fa_dwimap.nii.gz"))).get_fdata()
    b0 = image.get_fdata()[..., 0]
    air = ~ndimage.binary_dilation(b0 > 0.1 * b0.max(), iterations=2)
    assert seeded.sum() > 100
    assert air.sum() > 1000
    assert seeded[air].sum() == 0
    assert fa[air].mean() < 0.01


def test_all_formats_hold_the_same_streamlines(
    finished: tuple[Path, object], scanned_once: Path, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    shutil.copytree(finished[0], output)
    ended = run_cli(
        scanned_once,
        output,
        "participant",
        "--overwrite",
        overrides=(*QUICK, "output.formats=[trx, tck, trk]", "output.linearise={}"),
    )
    assert ended.returncode == 0, ended.stderr
    record = sidecar(output / f"{PROB}.trx")[RECORD_KEY]
    assert set(record["file_sha256"]) == {
        f"{Path(PROB).name}.{extension}" for extension in ("trx", "tck", "trk")
    }
    assert 0 < record["linearised"]["share_of_points"] < 1
    assert record["linearised"]["max_error_mm"] <= 0.1
    with opened(output / f"{PROB}.trx") as (points, offsets):
        for extension in ("tck", "trk"):
            other = nib.streamlines.load(output / f"{PROB}.{extension}").streamlines
            np.testing.assert_allclose(other.get_data(), points, atol=1e-4)
            np.testing.assert_array_equal(np.append(other._offsets, len(points)), offsets)
    ended = run_cli(
        scanned_once,
        output,
        "participant",
        "--overwrite",
        overrides=(*QUICK, "output.formats=[trx, tck, trk]", "output.linearise={}"),
    )
    assert "everything is up to date" in ended.stderr


@pytest.fixture
def imported(finished: tuple[Path, object], tmp_path: Path) -> Path:
    """A derivative dataset with a tractogram of the phantom."""
    root = tmp_path / "elsewhere"
    (root / "sub-01" / "dwi").mkdir(parents=True)
    description = {"Name": "x", "BIDSVersion": "1.10.0", "GeneratedBy": [{"Name": "tracker"}]}
    (root / "dataset_description.json").write_text(json.dumps(description))
    shutil.copy(finished[0] / f"{PROB}.trx", root / "sub-01" / "dwi" / "sub-01_tractogram.trx")
    return root


@pytest.mark.parametrize("mode", ["copy", "link"])
def test_a_tractogram_is_brought_in_by_filters(
    imported: Path, scanned_once: Path, tmp_path: Path, mode: str
) -> None:
    output = tmp_path / "output"
    override = f"import_tract={{filters: {{suffix: tractogram}}, scope: lab, mode: {mode}}}"
    words = ("-d", f"lab={imported}")
    ended = run_cli(scanned_once, output, "participant", *words, overrides=(override,))
    assert ended.returncode == 0, ended.stderr
    (path,) = tractograms(output)
    assert path.is_symlink() == (mode == "link")
    source = imported / "sub-01" / "dwi" / "sub-01_tractogram.trx"
    assert path.read_bytes() == source.read_bytes()
    record = ImportRecord.model_validate(sidecar(path)[RECORD_KEY])
    assert record.source_generated_by == [{"Name": "tracker"}]
    assert record.points_inside == 1
    with opened(path) as (points, offsets):
        assert (record.streamlines, record.points) == (len(offsets) - 1, len(points))
    ended = run_cli(scanned_once, output, "participant", *words, overrides=(override,))
    assert "everything is up to date" in ended.stderr
    assert main([str(scanned_once), str(output), "group"]) == 0
    table = (output / "group_tractograms.tsv").read_text().splitlines()
    assert "custom" in table[1]


@pytest.mark.parametrize(
    ("override", "code", "says"),
    [
        ("import_tract={filters: {suffix: tractogram}, scope: laab}", 78, "no dataset named laab"),
        ("import_tract={filters: {suffix: tractogram, desc: x}}", 18, "sub-01_tractogram.trx"),
        ("import_tract=/absent.trx", 66, "/absent.trx does not exist"),
        ("stopping=act", 66, "no probseg, dseg, 5TT"),
        ("seeding.mask={kind: labels, path: LABELS, include: [7]}", 65, "no label 7"),
    ],
)
def test_faults_of_definitions_are_told_before_anything_is_computed(
    imported: Path, dataset: Path, tmp_path: Path, override: str, code: int, says: str
) -> None:
    labels = tmp_path / "labels.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4)), labels)
    words: tuple[str, ...] = ("-d", f"lab={imported}", "--dry-run")
    if code == 65:
        words = words[:2]
    override = override.replace("LABELS", str(labels))
    output = tmp_path / "out"
    ended = run_cli(dataset, output, "participant", *words, overrides=(override,))
    assert ended.returncode == code, ended.stderr
    assert says in ended.stdout + ended.stderr
    assert not list(output.rglob("*.nii.gz"))


def test_formats_that_are_no_longer_asked_for_are_taken_away(
    finished: tuple[Path, object], scanned_once: Path, tmp_path: Path
) -> None:
    """One sidecar is for all formats: none with other streamlines may stay."""
    output = tmp_path / "output"
    for settings in (("output.formats=[trx, tck]",), ("seeding.rng_seed=12",)):
        tracked(scanned_once, output, *settings, words=("--overwrite",))
    assert not list(output.rglob("*_tractogram.tck"))


def test_tissue_labels_are_made_again_when_their_table_changes(
    scanned_once: Path, tmp_path: Path, phantom: Phantom, tissue: Path
) -> None:
    root, output = tmp_path / "labels", tmp_path / "output"
    write_description(root, DatasetType="derivative", GeneratedBy=[{"Name": "truth"}])
    (root / "sub-01" / "anat").mkdir(parents=True)
    parts = [
        nib.load(tissue / "sub-01" / "anat" / f"sub-01_label-{name}_probseg.nii.gz")
        for name in ("WM", "GM", "CSF")
    ]
    fractions = np.stack([part.get_fdata() for part in parts])
    labels = np.where(fractions.sum(axis=0) > 0.5, 11 + fractions.argmax(axis=0), 0)
    image = nib.Nifti1Image(labels.astype(np.int16), parts[0].affine)
    nib.save(image, root / "sub-01" / "anat" / "sub-01_dseg.nii.gz")
    for names in (("WM", "GM"), ("GM", "WM")):
        rows = [f"{11 + n}\t{name}" for n, name in enumerate((*names, "CSF"))]
        table = "\n".join(["index\tname", *rows]) + "\n"
        (root / "sub-01" / "anat" / "sub-01_dseg.tsv").write_text(table)
        ended = run_cli(
            scanned_once,
            output,
            "participant",
            "-d",
            root,
            overrides=(*QUICK, "seeding.mask=tissue"),
        )
        assert ended.returncode == 0, ended.stderr
        assert "everything is up to date" not in ended.stderr


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (("import_tract=a.tck", "output.formats=[tck]"), "output: not accepted"),
        (("tissue=t1w",), "tissue: not used"),
        (("model={kind: msmt_csd, tissues: wm_csf}", "tissue=dwi", "stopping=act"), "grey matter"),
        (("import_tract=a.TCK",), "a.TCK"),
    ],
)
def test_keys_that_would_be_ignored_are_refused(
    scanned_once: Path, tmp_path: Path, settings: tuple[str, ...], says: str
) -> None:
    ended = run_cli(scanned_once, tmp_path / "out", "participant", overrides=settings)
    assert ended.returncode in (66, 78)
    assert says in ended.stderr


def test_a_stop_by_the_fodf_goes_with_tissue_and_ends_lie_in_grey_matter(
    finished: tuple[Path, object], scanned_once: Path, tissue: Path, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    shutil.copytree(finished[0], output)
    for path in output.rglob("*_tractogram.*"):
        path.unlink()
    path = tracked(
        scanned_once, output, "stopping={kind: act, fod_below: 0.1}", "seeding.mask=interface",
        "output.per_streamline=[ends]", words=("-d", tissue, "--overwrite"),
    )  # fmt: skip
    single = sidecar(next(output.rglob("*param-fod_dwimap.nii.gz")))[RECORD_KEY]["details"][
        "single_fibre_peak"
    ]
    assert 0.8 < single < 2
    stop = sidecar(next(output.rglob("*desc-stop_mask.nii.gz")))[RECORD_KEY]["details"]
    assert [part["kind"] for part in stop["of"]] == ["act", "fod"]
    assert stop["of"][1]["amplitude"] == pytest.approx(0.1 * single)
    include = nib.load(next(output.rglob("*desc-pftinclude_probseg.nii.gz")))
    with opened(path) as (points, offsets):
        ends = np.concatenate([points[offsets[:-1]], points[offsets[1:] - 1]])
    voxels = nib.affines.apply_affine(np.linalg.inv(include.affine), ends)
    inside = map_coordinates(include.get_fdata(), voxels.T, order=1, mode="nearest")
    assert len(inside) > 50
    assert np.mean(inside > 0.5) > 0.95

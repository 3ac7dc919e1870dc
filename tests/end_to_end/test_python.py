"""The Python interface gives what the command line gives, and its documentation is true."""

from __future__ import annotations

import doctest
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from conftest import ROOT, run_cli

import bids_tractography as bt
from bids_tractography import api
from bids_tractography.app.outcome import Failure
from bids_tractography.app.request import Request
from bids_tractography.errors import ConfigError, NoInputError, OutputError, UsageError
from bids_tractography.pipeline.process import Done
from bids_tractography.tractogram.summary import content_hash

SETTINGS: dict[str, Any] = {
    "model": {"kind": "tensor"},
    "seeding": {"seeds": {"kind": "total", "count": 300}, "rng_seed": 5},
    "tracking": {"algorithm": {"kind": "prob", "step_size_mm": 1}},
    "checks": {"subject": "phantom"},
}
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bt.write_phantom(tmp_path_factory.mktemp("python") / "phantom")


@pytest.fixture(scope="module")
def dwi(dataset: Path) -> Path:
    return dataset / "sub-01" / "dwi" / "sub-01_dwi.nii.gz"


@pytest.fixture(scope="module")
def tracked(dwi: Path) -> bt.Tractogram:
    return bt.track(dwi, config=SETTINGS)


def command(dataset: Path, output: Path, settings: dict[str, Any]) -> Path:
    """Tractogram that the command line makes of sub-01."""
    config = output.with_suffix(".json")
    config.write_text(json.dumps(settings))
    words = (dataset, output, "participant", "--participant-label", "01", "--config", config)
    ended = run_cli(*words, overrides=())
    assert ended.returncode == 0, ended.stderr
    return next(output.glob("sub-01/dwi/*_tractogram.trx"))


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys, bids_tractography; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    heavy = {"numpy", "nibabel", "pydantic", "numba", "dipy", "scipy", "bids", "argparse"}
    assert not heavy & set(loaded)
    assert [name for name in loaded if name.startswith("bids_tractography")] == [
        "bids_tractography"
    ]


def test_every_public_name_is_there_and_documented_and_has_a_type() -> None:
    stub = (ROOT / "bids_tractography" / "__init__.pyi").read_text(encoding="utf-8")
    assert dir(bt) == sorted(bt.__all__)
    for name in bt.__all__:
        value = getattr(bt, name)
        assert isinstance(value, str) or value.__doc__, name
        assert f"import {name} as {name}" in stub or f"{name}: str" in stub
    with pytest.raises(AttributeError, match="tractography"):
        importlib.import_module("bids_tractography").__getattr__("tractography")


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"output": {"per_streamline": ["ends"], "dtype": "float16"}},
        {"output": {"linearise": {"max_error_mm": 0.2}}},
    ],
)
def test_the_file_has_the_bytes_of_the_command_line(
    dataset: Path, dwi: Path, tmp_path: Path, more: dict[str, Any]
) -> None:
    settings = SETTINGS | more
    expected = command(dataset, tmp_path / "output", settings)
    tractogram = bt.track(dwi, config=settings, n_threads=1)
    saved = tractogram.save(tmp_path / "saved.trx")
    assert saved.read_bytes() == expected.read_bytes()
    assert tractogram.record["content_sha256"] == bt.read_record(expected)["content_sha256"]
    read = bt.read_tractogram(expected)
    assert read.save(tmp_path / "again.trx").read_bytes() == expected.read_bytes()


def test_arrays_give_what_files_give(dwi: Path, tracked: bt.Tractogram) -> None:
    image: Any = nib.load(dwi)
    stem = dwi.with_name("sub-01_dwi")
    given = {
        "affine": image.affine,
        "bvals": np.loadtxt(stem.with_suffix(".bval")),
        "config": SETTINGS,
    }
    bvecs = np.loadtxt(stem.with_suffix(".bvec"))
    for vectors in (bvecs, bvecs.T):
        same = bt.track(np.asarray(image.dataobj), bvecs=vectors, **given)
        np.testing.assert_array_equal(same.points_mm, tracked.points_mm)
        np.testing.assert_array_equal(same.offsets, tracked.offsets)


def test_the_frame_of_gradients_is_found_as_on_the_command_line(dwi: Path, tmp_path: Path) -> None:
    stem = dwi.with_name("sub-01_dwi")
    for extension in (".nii.gz", ".bval", ".bvec"):
        (tmp_path / f"dwi{extension}").symlink_to(stem.with_suffix(extension))
    (tmp_path / "dataset_description.json").write_text(
        json.dumps({"Name": "phantom", "GeneratedBy": [{"Name": "QSIPrep"}]})
    )
    settings = {**SETTINGS, "gradients": {"check": "off"}}
    of_qsiprep = bt.track(tmp_path / "dwi.nii.gz", config=settings)
    assert of_qsiprep.record["gradients"]["frame"] == "image"
    table = np.vstack(
        [np.loadtxt(stem.with_suffix(".bvec")), np.loadtxt(stem.with_suffix(".bval"))]
    )
    np.savetxt(tmp_path / "dwi.b", table.T)
    assert (
        bt.track(tmp_path / "dwi.nii.gz", config=settings).record["gradients"]["frame"] == "scanner"
    )


def test_a_tractogram_describes_its_streamlines(tracked: bt.Tractogram) -> None:
    assert len(tracked) == tracked.counts["streamlines_kept"] > 100
    assert tracked.counts["seeds"] == 300
    assert sum(map(len, tracked)) == tracked.n_points == len(tracked.points_mm)
    np.testing.assert_array_equal(tracked[-1], list(tracked)[-1])
    n_points = np.diff(tracked.offsets)
    np.testing.assert_allclose(tracked.lengths_mm, n_points - 1, rtol=1e-4)  # steps of 1 mm
    seeds = tracked.per_streamline["seed_index"]
    assert (np.diff(seeds) > 0).all()
    assert seeds.max() < 300
    assert tracked.per_streamline["ends"].shape == (len(tracked), 2)
    assert content_hash(tracked) == tracked.record["content_sha256"]
    with pytest.raises(IndexError):
        tracked[len(tracked)]


def test_density_is_the_map_of_the_command_line(
    dataset: Path, tmp_path: Path, tracked: bt.Tractogram
) -> None:
    path = command(dataset, tmp_path / "output", SETTINGS)
    tdi: Any = nib.as_closest_canonical(
        nib.load(next(path.parent.glob("*param-tdi_dwimap.nii.gz")))
    )
    assert tracked.grid is not None
    np.testing.assert_array_equal(np.asarray(tdi.dataobj), tracked.density())
    np.testing.assert_allclose(tdi.affine, tracked.grid.affine)


@pytest.mark.parametrize("extension", ["trx", "tck", "trk"])
def test_what_is_saved_reads_back(tmp_path: Path, tracked: bt.Tractogram, extension: str) -> None:
    path = tracked.save(tmp_path / f"saved.{extension}")
    read = bt.read_tractogram(path)
    np.testing.assert_array_equal(read.offsets, tracked.offsets)
    np.testing.assert_allclose(read.points_mm, tracked.points_mm, atol=1e-4)
    assert read.record == {}
    with pytest.raises(OutputError, match="exists"):
        tracked.save(path)
    tracked.save(path, overwrite=True)


def test_a_tck_has_no_grid_for_density_and_trx(tmp_path: Path, tracked: bt.Tractogram) -> None:
    read = bt.read_tractogram(tracked.save(tmp_path / "a.tck"))
    assert read.grid is None
    np.testing.assert_array_equal(read.density(tracked.grid), tracked.density())
    with pytest.raises(UsageError, match="grid"):
        read.density()
    with pytest.raises(UsageError, match="grid"):
        read.save(tmp_path / "b.trx")
    with pytest.raises(UsageError, match="not a tractogram by its name"):
        read.save(tmp_path / "b.vtk")


def test_masks_tissue_and_fodf_may_be_arrays(dataset: Path, dwi: Path, tmp_path: Path) -> None:
    path = command(dataset, tmp_path / "output", SETTINGS)
    fodf: Any = nib.load(next(path.parent.glob("*param-fod_dwimap.nii.gz")))
    brain: Any = nib.load(next(path.parent.glob("*desc-brain_mask.nii.gz")))
    inside = np.asarray(brain.dataobj) > 0
    half = inside.copy()
    half[half.shape[0] // 2 :] = False
    white = inside * 1.0
    tractogram = bt.track(
        dwi,
        affine=fodf.affine,
        brain_mask=inside,
        seed_mask=half,
        tissue={"wm": white, "gm": 0 * white, "csf": 0 * white},
        fodf=np.asarray(fodf.dataobj),
        config={**SETTINGS, "stopping": "act", "checks": {"plausibility": "off"}},
    )
    config = tractogram.record["config"]
    assert config["model"]["basis"] == "tournier07"
    assert (config["tissue"]["kind"], config["seeding"]["mask"]["kind"]) == ("files", "file")
    assert tractogram.record["seed_voxels"] == half.sum()
    assert tractogram.counts["ends"]["csf"] == 0


def test_run_takes_keywords_or_a_request(dataset: Path, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"participants": ("01",), "report": False}
    outcomes = bt.run(bids_dir=dataset, output_dir=tmp_path / "output", config=SETTINGS, **asked)
    assert list(outcomes) == ["sub-01"]
    assert isinstance(outcomes["sub-01"], Done)
    request = Request(
        dataset, tmp_path / "output", tmp_path / "output/.work", bt.read_config(SETTINGS), **asked
    )
    again = bt.run(request)["sub-01"]
    assert isinstance(again, Done)
    assert again.reused
    with pytest.raises(TypeError, match="n_procs"):
        bt.run(request, n_procs=2)


def test_a_failure_of_a_run_is_a_value(dataset: Path, tmp_path: Path) -> None:
    settings = {**SETTINGS, "tracking": {"min_length_mm": 249.5}}
    outcomes = bt.run(
        bids_dir=dataset,
        output_dir=tmp_path / "output",
        participants=("01",),
        config=settings,
        report=False,
    )
    assert isinstance(outcomes["sub-01"], Failure)


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"config": {"stopping": "ACT"}}, ConfigError, "Did you mean 'act'"),
        ({"config": {"import_tract": "a.tck"}}, ConfigError, "track returns streamlines"),
        ({"config": {"output": {"keep": ["density"]}}}, ConfigError, "track returns streamlines"),
        ({"config": "no_such_preset"}, ConfigError, "no preset"),
        ({"seed_mask": "absent.nii.gz"}, NoInputError, "absent.nii.gz"),
        ({"bvals": "absent.bval"}, NoInputError, "absent.bval"),
        (
            {"config": {"seeding": {"mask": {"kind": "file", "filters": {"desc": "x"}}}}},
            ConfigError,
            "filters require a dataset",
        ),
    ],
)
def test_errors_are_those_of_the_command_line(
    dwi: Path, given: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        bt.track(dwi, **given)


def test_an_array_needs_affine_and_gradients() -> None:
    data = np.ones((3, 3, 3, 2))
    with pytest.raises(UsageError, match="affine is required"):
        bt.track(data)
    with pytest.raises(UsageError, match="bvals are required"):
        bt.track(data, affine=np.eye(4))


@pytest.mark.slow
def test_the_page_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "python.md"
    failed, tried = doctest.testfile(str(page), module_relative=False, optionflags=OPTIONS)
    assert (failed, tried > 15) == (0, True)


@pytest.mark.slow
def test_the_examples_of_the_docstrings_are_true(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("phantom").symlink_to(dataset)
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    tests = {test.name.rpartition(".")[2]: test for test in doctest.DocTestFinder().find(api)}
    for name in ("read_config", "track", "run", "read_tractogram"):  # which reads what run wrote
        assert tests[name].examples
        assert runner.run(tests[name]).failed == 0, name


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "docs").rglob("*.ipynb")), ids=lambda p: p.stem)
def test_notebooks_run(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    assert not any(c.get("outputs") for c in notebook["cells"])
    names: dict[str, Any] = {}
    for cell in cells:
        exec(compile(cell, path.name, "exec"), names)
    assert len(names["anatomical"]) == len(names["tractogram"]) == 1000

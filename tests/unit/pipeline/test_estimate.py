"""The dry run reckons from headers, and finds the faults that headers show."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any
from unittest import mock

import nibabel as nib
import numpy as np
import pytest
from conftest import QUICK, SHARED_DATA, run_cli, sidecar, tractograms
from fields import cube, everywhere
from hypothesis import given
from hypothesis import strategies as st

from bids_tractography.config.load import load_config
from bids_tractography.core.fodf import Fodf
from bids_tractography.outputs.provenance import RECORD_KEY
from bids_tractography.pipeline.estimate import _disk_mib, _Size, _voxels
from bids_tractography.tracking import ENGINES
from bids_tractography.tracking.base import ProblemSize
from bids_tractography.tracking.cpu.layout import make_rows
from bids_tractography.tracking.cpu.sphere import order_sphere


def foreseen(text: str, what: str) -> float:
    match = re.search(rf"^  {what} +about (\d+)", text, re.MULTILINE)
    assert match, text
    return float(match[1])


def test_the_dry_run_foresees_streamlines_and_names_of_files(
    scanned_once: Path, tmp_path: Path
) -> None:
    dry = run_cli(scanned_once, tmp_path / "dry", "participant", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert not (tmp_path / "dry").exists()
    output = tmp_path / "output"
    assert run_cli(scanned_once, output, "participant").returncode == 0
    (path,) = tractograms(output)
    record = sidecar(path)[RECORD_KEY]
    assert foreseen(dry.stdout, "seeds") == record["seeds"] == 600
    assert 0.5 < foreseen(dry.stdout, "streamlines") / record["streamlines_kept"] < 2
    assert f"  model        csd, order {record['model']['sh_order']}\n" in dry.stdout
    as_json = run_cli(scanned_once, tmp_path / "dry", "participant", "--dry-run", "--json")
    (plan,) = json.loads(as_json.stdout)["runs"]
    written = {output / Path(path).relative_to(tmp_path / "dry") for path in plan["writes"]}
    assert written == {
        path for path in (output / "sub-01" / "dwi").iterdir() if path.suffix != ".json"
    }


@pytest.mark.slow
def test_the_dry_run_foresees_a_head_within_a_quarter(tmp_path: Path) -> None:
    head = SHARED_DATA / "icbm"
    if not head.exists():
        pytest.skip("there are no shared data")
    dry = run_cli(head, tmp_path / "dry", "participant", "--dry-run", overrides=())
    output = tmp_path / "output"
    assert run_cli(head, output, "participant", overrides=()).returncode == 0
    (path,) = tractograms(output)
    record = sidecar(path)[RECORD_KEY]
    written = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    batches = record["streamlines_kept"] * 14  # points are moved from there into the file
    for what, taken in {
        "seeds": record["seeds"],
        "streamlines": record["streamlines_kept"],
        "disk": (written + batches) / 2**20,
    }.items():
        assert 0.75 < foreseen(dry.stdout, what) / taken < 1.25, what


@pytest.mark.parametrize(
    ("output", "share"),
    [
        ("{}", 1),
        ("{formats: [tck]}", 1),
        ("{formats: [trk]}", 1),
        ("{dtype: float16}", 0.5),
        ("{formats: [trx, tck]}", 3),
        ("{linearise: {max_error_mm: 0.1}}", 1.4),
    ],
)
def test_points_take_space_once_if_they_can_be_moved(output: str, share: float) -> None:
    points = 10**9
    size = _Size(0, 0, 30, 6, 10**7, 1000, streamlines=10**7, points=points)
    job = mock.Mock(config=load_config(None, [f"output={output}"]), targets={})
    assert _disk_mib(job, size) == pytest.approx(points * 12 / 2**20 * share, rel=0.1)


def test_the_dry_run_reads_no_values_of_the_dwi(dataset: Path, tmp_path: Path) -> None:
    (path,) = dataset.glob("sub-01/dwi/*_dwi.nii.gz")
    header = gzip.decompress(path.read_bytes())[:352]
    path.write_bytes(gzip.compress(header))
    dry = run_cli(dataset, tmp_path / "out", "participant", "--dry-run")
    assert dry.returncode == 0, dry.stdout
    assert "Only headers and text files were read" in dry.stdout


def test_the_dry_run_tells_what_cannot_be_done(dataset: Path, tmp_path: Path) -> None:
    (dataset / "sub-01" / "dwi" / "sub-01_dwi.bval").write_text("0 1000\n")
    dry = run_cli(dataset, tmp_path / "out", "participant", "--dry-run")
    assert dry.returncode == 65
    assert "would fail" in dry.stdout


def test_the_dry_run_compares_the_grid_of_the_mask(dataset: Path, tmp_path: Path) -> None:
    mask = dataset / "sub-01" / "dwi" / "sub-01_desc-brain_mask.nii.gz"
    (path,) = dataset.glob("sub-01/dwi/*_dwi.nii.gz")
    image = nib.load(path)
    for shift_mm, code, says in ((0, 0, str(mask)), (5, 65, "is not on the grid of the DWI")):
        affine = image.affine.copy()
        affine[0, 3] += shift_mm
        nib.save(nib.Nifti1Image(np.ones(image.shape[:3], np.uint8), affine), mask)
        dry = run_cli(dataset, tmp_path / "out", "participant", "--dry-run")
        assert dry.returncode == code, dry.stdout
        assert says in dry.stdout


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("model={kind: msmt_csd, tissues: wm_gm_csf}", "two shells"),
        ("model.shell_s_mm2=7000", "7000"),
    ],
)
def test_the_dry_run_finds_shells_that_do_not_suit(
    scanned_once: Path, tmp_path: Path, setting: str, says: str
) -> None:
    overrides = (*QUICK, setting)
    dry = run_cli(scanned_once, tmp_path / "o", "participant", "--dry-run", overrides=overrides)
    assert dry.returncode == 65, dry.stdout
    assert says in dry.stdout


def test_the_cpu_engine_reckons_the_rows_that_it_makes() -> None:
    grid = cube(12)
    fodf = Fodf(np.array(everywhere(grid, [1, 0, 0]), np.float32), grid)
    rows = make_rows(fodf, order_sphere().axes, 1)
    n_voxels = 12**3
    expected = ENGINES["cpu"].memory_bytes(ProblemSize(n_voxels, n_voxels, 45))
    assert rows.values.nbytes == pytest.approx(expected - 16 * n_voxels, rel=0.01)


MASKS = st.recursive(
    st.sampled_from(
        [
            {"kind": "full"},
            {"kind": "brain"},
            {"kind": "threshold", "above": 0.4},
            {"kind": "threshold", "above": 0.1, "below": 0.3},
            {"kind": "threshold", "above": 30, "percentile": True},
            {"kind": "threshold", "map": "md", "below": 0.001},
            {"kind": "tissue", "tissue": "gm"},
            {"kind": "interface"},
            {"kind": "roi", "files": [{"path": "/r.nii"}]},
        ]
    ),
    lambda inner: (
        st.fixed_dictionaries({"kind": st.just("not"), "of": inner})
        | st.fixed_dictionaries(
            {
                "kind": st.sampled_from(["any", "all"]),
                "of": st.lists(inner, min_size=1, max_size=3),
            }
        )
    ),
    max_leaves=4,
)


@given(MASKS, st.booleans())
def test_any_mask_has_between_none_and_all_of_the_voxels(mask: dict[str, Any], raw: bool) -> None:
    config = load_config(None, [f"seeding.mask={json.dumps(mask)}"])
    assert 0 <= _voxels(config.seeding.mask, 1000, 275, raw) <= 1000


@given(st.floats(0, 0.9), st.floats(0, 0.9), st.booleans())
def test_a_higher_threshold_leaves_fewer_seeds(one: float, other: float, raw: bool) -> None:
    low, high = sorted((one, other))

    def seeds(above: float) -> float:
        config = load_config(None, [f"seeding.mask={{kind: threshold, above: {above:.6f}}}"])
        return _voxels(config.seeding.mask, 10_000, 2750, raw)

    assert seeds(low) >= seeds(high)

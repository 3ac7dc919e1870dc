from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from conftest import DATA, SHARED_DATA
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from bids_tractography.anatomy.brain import brain_mask
from bids_tractography.anatomy.labels import freesurfer_tissue
from bids_tractography.anatomy.masks import interface
from bids_tractography.anatomy.t1w import fractions_of_t1w
from bids_tractography.anatomy.tissue import (
    Tissue,
    displacement_mm,
    include_exclude,
    make_tissue,
)
from bids_tractography.config.model import GradientsConfig, TensorMapsConfig
from bids_tractography.config.tissue import (
    AutoTissueConfig,
    DsegTissueConfig,
    FiveTissueTypesConfig,
    GivenTissueConfig,
    ProbsegTissueConfig,
    T1wTissueConfig,
    TissueConfig,
)
from bids_tractography.core.checks import QUANTITIES
from bids_tractography.core.dwi import Dwi, read_dwi
from bids_tractography.core.gradients import GradientFiles
from bids_tractography.core.images import read_image
from bids_tractography.core.tissue import TISSUES, TissueSource
from bids_tractography.errors import DataError, GridError, NoInputError
from bids_tractography.inputs import TissueFiles
from bids_tractography.inputs.tissue_source import choose_source
from bids_tractography.phantom import Phantom, ScanGrid, write_dwi, write_t1w, write_tissue
from bids_tractography.reconst.tensor import fit_tensor

DWI_GRID = ScanGrid("LAS", (3.0, 3.0, 3.0))
TURN, SHIFT_MM = Rotation.from_euler("xyz", [4, -6, 8], degrees=True).as_matrix(), (5.0, -3.0, 4.0)


def dwi_at(stem: Path) -> Dwi:
    files = GradientFiles(Path(f"{stem}.bval"), Path(f"{stem}.bvec"))
    return read_dwi(Path(f"{stem}.nii.gz"), files, GradientsConfig())


class Head:
    """A phantom's DWI, its truth, and more images of it."""

    def __init__(self, root: Path, phantom: Phantom) -> None:
        self.root = root
        write_dwi(root / "dwi", phantom, DWI_GRID)
        write_tissue(root / "coarse", phantom, DWI_GRID)
        write_tissue(root / "fine", phantom, ScanGrid("PIR", (2.0, 2.0, 2.0)))
        write_t1w(root / "t1w", phantom, ScanGrid("RAS", (2.0, 2.0, 2.0)))
        self.dwi = dwi_at(root / "dwi")
        self.brain = read_image(root / "coarse_desc-brain_mask.nii.gz", ndim=3).data > 0
        self.truth = {t: read_image(p, ndim=3).data for t, p in self.probseg("coarse").items()}

    def probseg(self, name: str) -> dict[str, Path]:
        return {t: self.root / f"{name}_label-{t.upper()}_probseg.nii.gz" for t in TISSUES}

    def save(self, name: str, data: NDArray[Any], like: str = "fine") -> Path:
        affine = nib.load(self.probseg(like)["wm"]).affine
        nib.Nifti1Image(data.astype(np.float32), affine).to_filename(self.root / name)
        return self.root / name

    def load(self, name: str = "fine") -> dict[str, NDArray[np.float64]]:
        return {t: nib.load(p).get_fdata() for t, p in self.probseg(name).items()}

    def make(
        self,
        config: TissueConfig,
        files: TissueFiles = TissueFiles(),  # noqa: B008
        config_files: Mapping[str, Path] | None = None,
        **more: Any,
    ) -> Tissue:
        source = choose_source(
            config, files, config_files or {}, from_model="fractions_from_model" in more
        )
        return make_tissue(config, source, self.dwi, self.brain, **more)

    def agreement(self, tissue: Tissue) -> dict[str, float]:
        return {
            t: np.corrcoef(getattr(tissue, t)[self.brain], self.truth[t][self.brain])[0, 1]
            for t in TISSUES
        }


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory, phantom: Phantom) -> Head:
    return Head(tmp_path_factory.mktemp("head"), phantom)


def test_fractions_on_the_grid_pass_as_they_are(head: Head) -> None:
    tissue = head.make(ProbsegTissueConfig(), TissueFiles(probseg=head.probseg("coarse")))
    for name in TISSUES:
        assert np.array_equal(getattr(tissue, name), head.truth[name])
    assert tissue.source == "probseg"
    assert tissue.record["resampled"] is False
    assert tissue.figures["tissue_in_brain"] > 0.9
    assert tissue.sources == tuple(head.probseg("coarse").values())


def test_finer_fractions_are_averaged(head: Head) -> None:
    tissue = head.make(AutoTissueConfig(), TissueFiles(probseg=head.probseg("fine")))
    for name in TISSUES:
        assert np.abs(getattr(tissue, name) - head.truth[name]).mean() < 0.02
        assert getattr(tissue, name).sum() == pytest.approx(head.truth[name].sum(), rel=0.01)


def test_the_same_head_as_labels_5tt_and_files(head: Head) -> None:
    fine = head.load()
    stack = np.stack([fine["gm"], fine["wm"], fine["csf"]])
    three = np.where(stack.sum(axis=0) > 0.5, stack.argmax(axis=0) + 1, 0)
    numbers = np.array([0, 3, 2, 4])[three]
    numbers[: len(numbers) // 2][numbers[: len(numbers) // 2] == 2] = 41
    bids, aseg = head.save("dseg.nii.gz", three), head.save("aseg.nii.gz", numbers)
    half = fine["gm"] / 2
    five = head.save(
        "5tt.nii.gz", np.stack([half, half, fine["wm"], fine["csf"], 0 * half], axis=3)
    )
    made = {
        "bids": head.make(DsegTissueConfig(), TissueFiles(dseg=bids)),
        "freesurfer": head.make(
            DsegTissueConfig(segmentation=aseg), config_files={"tissue.segmentation": aseg}
        ),
        "5tt": head.make(FiveTissueTypesConfig(), TissueFiles(fivett=five)),
        "files": head.make(
            GivenTissueConfig(**head.probseg("fine")),
            config_files={f"tissue.{t}": p for t, p in head.probseg("fine").items()},
        ),
    }
    for name, tissue in made.items():
        assert min(head.agreement(tissue).values()) > 0.9, name
    for name in ("bids", "freesurfer"):
        assert made[name].record["labels"] == name
    assert np.array_equal(made["bids"].wm, made["freesurfer"].wm)


def test_a_table_beside_a_segmentation_decides(head: Head) -> None:
    fine = head.load()
    stack = np.stack([fine["csf"], fine["gm"], fine["wm"]])
    swapped = np.where(stack.sum(axis=0) > 0.5, stack.argmax(axis=0) + 1, 0)
    path = head.save("tabled.nii.gz", swapped)
    (head.root / "tabled.tsv").write_text("index\tname\n1\tCSF\n2\tGray Matter\n3\tWhite Matter\n")
    tissue = head.make(DsegTissueConfig(), TissueFiles(dseg=path))
    assert min(head.agreement(tissue).values()) > 0.9
    assert tissue.record["labels"] == "table"
    assert tissue.sources == (path, head.root / "tabled.tsv")


@pytest.mark.parametrize(
    ("labels", "tissue"),
    [
        ((2, 41, 7, 46, 16, 28, 60, 77, 85, 251, 255, 3001, 4035, 5001, 13101), "wm"),
        ((3, 42, 8, 47, 10, 11, 12, 13, 17, 18, 26, 49, 54, 58, 1001, 2035, 11101, 12175), "gm"),
        ((4, 5, 14, 15, 24, 31, 43, 44, 63, 72), "csf"),
        ((0, 6, 500, 99999), None),
    ],
)
def test_numbers_of_freesurfer(labels: tuple[int, ...], tissue: str | None) -> None:
    assert {freesurfer_tissue(label) for label in labels} == {tissue}


def test_percentages_other_spaces_and_odd_labels_are_refused(head: Head) -> None:
    fine = head.load()
    percent = {t: head.save(f"percent_{t}.nii.gz", 100 * d) for t, d in fine.items()}
    with pytest.raises(DataError, match="from 0 to 1") as error:
        head.make(ProbsegTissueConfig(), TissueFiles(probseg=percent))
    assert "100" in error.value.remedy
    away = {t: head.save(f"away_{t}.nii.gz", np.roll(d, 26, axis=2)) for t, d in fine.items()}
    figures = head.make(ProbsegTissueConfig(), TissueFiles(probseg=away)).figures
    bound = QUANTITIES["tissue_in_brain"].range_of("adult").possible[0]
    assert figures["tissue_in_brain"] < bound
    odd = head.save("odd.nii.gz", np.where(fine["wm"] > 0.5, 77, 0))
    with pytest.raises(DataError, match="neither FreeSurfer"):
        head.make(DsegTissueConfig(), TissueFiles(dseg=odd))
    with pytest.raises(DataError, match="not labels"):
        head.make(DsegTissueConfig(), TissueFiles(dseg=head.probseg("fine")["wm"]))
    four = head.save("four.nii.gz", np.stack([fine["wm"]] * 4, axis=3))
    with pytest.raises(DataError, match="five"):
        head.make(FiveTissueTypesConfig(), TissueFiles(fivett=four))


def test_sums_over_one_are_divided(head: Head) -> None:
    twice = dict.fromkeys(TISSUES, head.brain.astype(np.float32))
    tissue = head.make(AutoTissueConfig(), fractions_from_model=twice)
    assert tissue.source == "dwi"
    np.testing.assert_allclose(tissue.wm, head.brain / 3, rtol=1e-6)


def test_the_order_of_sources_and_what_is_missing() -> None:
    path = Path("/x.nii.gz")
    everything = TissueFiles(dict.fromkeys(TISSUES, path), path, path, path, path)
    order = []
    for field in ("probseg", "dseg", "fivett", "t1w"):
        order.append(choose_source(AutoTissueConfig(), everything, {}, from_model=True).kind)
        everything = TissueFiles(**{**vars(everything), field: None})
    order.append(choose_source(AutoTissueConfig(), everything, {}, from_model=True).kind)
    assert order == ["probseg", "dseg", "5tt", "t1w", "dwi"]
    with pytest.raises(NoInputError, match="msmt_csd"):
        choose_source(AutoTissueConfig(), everything, {}, from_model=False)
    with pytest.raises(NoInputError, match=r"tissue\.kind dseg.*Available: dwi"):
        choose_source(DsegTissueConfig(), everything, {}, from_model=True)


def test_include_exclude_and_interface() -> None:
    wm, gm, csf = (np.zeros((5, 4, 4), np.float32) for _ in range(3))
    wm[1:3], gm[3], csf[4, :2] = 0.8, 0.7, 1
    wm[3], gm[1, 0, 0] = 0.3, 0.6
    include, exclude = include_exclude(wm, gm, csf)
    assert include[0].all()
    assert include[4, 3, 3] == 1
    assert include[4, 0, 0] == 0
    assert include[1, 0, 0] == np.float32(0.6)
    assert np.array_equal(exclude, csf)
    rim = interface(wm, gm, 0.5)
    expected = np.zeros_like(rim)
    expected[2] = True  # touches the grey layer
    expected[1, 0, 0] = expected[1, 1, 0] = expected[1, 0, 1] = True  # holds some, or touches it
    assert np.array_equal(rim, expected)


def test_a_displaced_t1w_is_brought_back_and_segmented(head: Head, phantom: Phantom) -> None:
    """Known motion, known fractions."""
    image = nib.load(head.root / "t1w.nii.gz")
    motion = np.eye(4)
    motion[:3, :3], motion[:3, 3] = TURN, SHIFT_MM
    path = head.root / "moved.nii.gz"
    nib.Nifti1Image(image.dataobj, motion @ image.affine).to_filename(path)
    tissue = head.make(T1wTissueConfig(), TissueFiles(t1w=path))
    back = np.array(tissue.record["t1w_to_dwi_mm"]) @ motion
    corners = np.array(np.meshgrid([-35, 35], [-45, 45], [-28, 28])).reshape(3, -1).T
    apart = np.linalg.norm(corners @ back[:3, :3].T + back[:3, 3] - corners, axis=1)
    assert apart.max() < 1  # mm
    assert tissue.record["dice"] > 0.85
    found = head.agreement(tissue)
    assert found["wm"] > 0.93
    assert found["gm"] > 0.9
    assert found["csf"] > 0.4  # the thin rim of fluid is outside the brain that is found
    assert tissue.warnings


def test_another_head_is_refused(head: Head) -> None:
    noise = np.random.default_rng(0).random((30, 30, 30)) * 100
    noise[5:12] += 500
    nib.Nifti1Image(noise, np.diag([4.0, 4, 4, 1])).to_filename(head.root / "other.nii.gz")
    with pytest.raises((GridError, DataError), match=r"min_overlap|no brain"):
        head.make(T1wTissueConfig(), TissueFiles(t1w=head.root / "other.nii.gz"))


def test_fractions_of_a_simulated_head() -> None:
    root = DATA / "icbm" / "sub-icbm"
    stem = root / "dwi" / "sub-icbm_space-ACPC_desc-preproc_dwi"
    dwi = dwi_at(stem)
    brain = read_image(root / "dwi" / "sub-icbm_space-ACPC_desc-brain_mask.nii.gz", ndim=3).data > 0
    paths = {
        t: root / "anat" / f"sub-icbm_space-ACPC_label-{t.upper()}_probseg.nii.gz" for t in TISSUES
    }
    tissue = make_tissue(
        AutoTissueConfig(), TissueSource("probseg", tuple(paths.values())), dwi, brain
    )
    assert tissue.figures["tissue_in_brain"] > 0.9
    assert (tissue.wm + tissue.gm + tissue.csf).max() <= 1.001


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED_DATA / "scans").is_dir(), reason="shared/data/scans is not here")
def test_a_real_t1w() -> None:
    root = SHARED_DATA / "scans" / "sub-xa30"
    stem = root / "dwi" / "sub-xa30_dir-AP_dwi"
    dwi = dwi_at(stem)
    source = TissueSource("t1w", (root / "anat" / "sub-xa30_run-1_T1w.nii.gz",))
    brain = brain_mask(dwi, None).data
    tissue = make_tissue(T1wTissueConfig(), source, dwi, brain)
    assert tissue.record["dice"] > 0.85
    litres = {t: float(getattr(tissue, t).sum()) * 27e-6 for t in TISSUES}
    assert 0.4 < litres["wm"] < 0.85
    assert 0.4 < litres["gm"] < 0.9
    assert litres["wm"] + litres["gm"] > 0.9
    # fluid is where the signal is lost
    attenuation = np.log(np.maximum(dwi.mean_b0, 1) / np.maximum(dwi.mean_weighted, 1))
    assert np.corrcoef(tissue.csf[brain], attenuation[brain])[0, 1] > 0.5
    # opposite phase encoding distorts along y alone
    centre = (np.array(tissue.record["t1w_to_dwi_mm"]) @ [0, 0, 20, 1])[:3] - [0, 0, 20]
    assert np.abs(centre[[0, 2]]).max() < 2


def test_a_t1w_with_voxels_of_microns_is_refused(tmp_path: Path) -> None:
    affine = np.diag([2e-3, 2e-3, 2e-3, 1])
    nib.save(nib.Nifti1Image(np.ones((8, 8, 8), np.float32), affine), tmp_path / "T1w.nii")
    with pytest.raises(GridError, match="too small for a head"):
        # The DWI and its mask are not reached.
        fractions_of_t1w((tmp_path / "T1w.nii",), None, None, 0.8)  # type: ignore[arg-type]


@pytest.mark.parametrize("voxels", [(0, 0, 0), (2, 0, 0), (0, -3, 0), (0, 0, 2), (-1, 2, 1)])
def test_the_displacement_of_tissue_is_measured(head: Head, voxels: tuple[int, int, int]) -> None:
    brain, grid = head.brain, head.dwi.grid
    fa = fit_tensor(head.dwi, brain, TensorMapsConfig(), 1).fa
    moved = np.roll(head.truth["wm"], voxels, axis=(0, 1, 2))
    expected = np.linalg.norm(voxels * grid.voxel_size_mm)
    assert displacement_mm(moved, fa, brain, grid) == pytest.approx(expected)

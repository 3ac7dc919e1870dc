"""Tractograms made elsewhere: what is found in good ones, and what is said of bad ones."""

from __future__ import annotations

import gzip
import json
import logging
import os
import shutil
import subprocess
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from conftest import SHARED_DATA
from nibabel.streamlines import Tractogram, TrkFile
from tractograms import oblique_las_grid, random_streamlines, stored

from bids_tractography.core.images import Grid, read_image
from bids_tractography.errors import DataError, GridError, NoInputError, OutputError
from bids_tractography.tractogram.formats.table import READERS, WRITERS
from bids_tractography.tractogram.formats.trx import write_trx
from bids_tractography.tractogram.imported import check_tractogram, copy_or_link
from bids_tractography.tractogram.summary import content_hash, density

PEERS = SHARED_DATA / "peers" / "tractograms"
needs_peers = pytest.mark.skipif(not PEERS.exists(), reason="shared data are not here")
EXTENSIONS = tuple(READERS)


def grid_10() -> Grid:
    return Grid((10, 10, 10), np.eye(4))


def lines_inside(n: int = 50) -> list[Any]:
    rng = np.random.default_rng(3)
    return [
        rng.uniform(3, 6, 3) + np.cumsum(rng.uniform(-0.2, 0.2, (length, 3)), axis=0)
        for length in rng.integers(1, 30, n)
    ]


def made(folder: Path, extension: str, streamlines: list[Any], grid: Grid) -> Path:
    """Write streamlines with our writers, and pack them if that is asked for."""
    name = extension.split(".")[1]
    path = folder / f"a.{name}"
    WRITERS[name](path, stored(folder / f"store{extension}", streamlines), grid)
    if extension.endswith(".gz"):
        packed = folder / f"a{extension}"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        return packed
    return path


def rewritten(path: Path, change: Callable[[dict[str, bytes]], Any], compression: int = 0) -> Path:
    """Change the members of a TRX file."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_counts_lengths_share_and_content_are_those_of_the_streamlines(
    tmp_path: Path, extension: str
) -> None:
    streamlines = lines_inside()
    found = check_tractogram(made(tmp_path, extension, streamlines, grid_10()), grid_10())
    assert (found.extension, found.n_streamlines) == (extension, 50)
    assert found.n_points == sum(map(len, streamlines))
    assert found.share_inside == 1
    assert found.warnings == ()
    steps = [np.linalg.norm(np.diff(line, axis=0), axis=1) for line in streamlines]
    assert found.mean_step_mm == pytest.approx(np.concatenate(steps).mean(), rel=1e-4)
    lengths = [np.linalg.norm(np.diff(line, axis=0), axis=1).sum() for line in streamlines]
    expected = np.quantile(lengths, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1], method="nearest")
    np.testing.assert_allclose(list(found.length_quantiles_mm.values()), expected, atol=2e-3)
    assert (found.header_grid is None) == (".tck" in extension)
    if ".trk" not in extension:  # its points are rounded in other coordinates
        assert found.content_sha256 == content_hash(stored(tmp_path / "s", streamlines))


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_density_and_content_of_a_file_can_be_computed_as_of_a_store(
    tmp_path: Path, extension: str
) -> None:
    streamlines, grid = random_streamlines(100), oblique_las_grid()
    streamlines = [line / 2 for line in streamlines]
    found = check_tractogram(made(tmp_path, extension, streamlines, grid), grid)
    assert content_hash(found) == found.content_sha256
    expected = density(stored(tmp_path / "s", streamlines), grid)
    assert expected.max() > 3
    np.testing.assert_array_equal(density(found, grid), expected)


def test_float16_positions_have_the_content_that_was_recorded_when_they_were_written(
    tmp_path: Path,
) -> None:
    store = stored(tmp_path / "s", lines_inside())
    write_trx(tmp_path / "a.trx", store, grid_10(), "float16")
    found = check_tractogram(tmp_path / "a.trx", grid_10())
    assert found.content_sha256 == content_hash(store, "float16") != content_hash(store)


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.999])
def test_a_file_that_is_cut_off_anywhere_is_refused(
    tmp_path: Path, extension: str, share: float
) -> None:
    path = made(tmp_path, extension, lines_inside(), grid_10())
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(DataError, match="cannot be read"):
        check_tractogram(path, grid_10())


@pytest.mark.parametrize("extension", [".tck", ".trk"])
def test_a_file_that_is_cut_off_after_a_whole_streamline_is_refused(
    tmp_path: Path, extension: str
) -> None:
    path = made(tmp_path, extension, [np.ones((n, 3)) for n in (4, 4, 4)], grid_10())
    begin, each = {".tck": (128, 60), ".trk": (1000, 52)}[extension]
    os.truncate(path, begin + 2 * each)
    with pytest.raises(DataError, match="cannot be read"):
        check_tractogram(path, grid_10())


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"\xff" * 5000])
def test_a_file_that_is_something_else_is_refused(
    tmp_path: Path, extension: str, content: bytes
) -> None:
    path = tmp_path / f"a{extension}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.t.*cannot be read"):
        check_tractogram(path, grid_10())


def test_a_changed_bit_in_the_positions_of_a_trx_is_found(tmp_path: Path) -> None:
    path = made(tmp_path, ".trx", lines_inside(), grid_10())
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="CRC"):
        check_tractogram(path, grid_10())


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_no_streamlines_is_a_fault(tmp_path: Path, extension: str) -> None:
    path = made(tmp_path, extension, [np.ones((1, 3))], grid_10())
    name = extension.split(".")[1]
    empty = {"tck": nib.streamlines.TckFile, "trk": TrkFile}.get(name)
    if empty:
        plain = tmp_path / f"b.{name}"
        header = nib.streamlines.load(tmp_path / f"a.{name}").header if name == "trk" else None
        empty(Tractogram([], affine_to_rasmm=np.eye(4)), header).save(str(plain))
        content = plain.read_bytes()
        path.write_bytes(gzip.compress(content) if extension.endswith(".gz") else content)
    else:
        rewritten(path, lambda members: no_streamlines(members))
    with pytest.raises(DataError, match="no streamlines"):
        check_tractogram(path, grid_10())


def no_streamlines(members: dict[str, bytes]) -> None:
    header = json.loads(members["header.json"])
    members.clear()
    members["header.json"] = json.dumps({**header, "NB_STREAMLINES": 0, "NB_VERTICES": 0}).encode()


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_points_that_are_not_finite_are_refused_and_counted(
    tmp_path: Path, extension: str, bad: float
) -> None:
    streamlines = lines_inside()
    streamlines[7] = np.ones((3, 3))
    streamlines[7][1, 2] = bad  # a whole row of them ends a streamline of a tck
    with np.errstate(invalid="ignore"):
        path = made(tmp_path, extension, streamlines, grid_10())
    with pytest.raises(DataError, match="1 points that are NaN or infinite"):
        check_tractogram(path, grid_10())


@pytest.mark.parametrize("extension", [".trx", ".trk", ".trk.gz"])
@pytest.mark.parametrize(
    "other",
    [
        Grid((10, 10, 11), np.eye(4)),
        Grid((10, 10, 10), np.diag([1.02, 1, 1, 1])),
        Grid((10, 10, 10), np.array([[1.0, 0, 0, 0.5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])),
    ],
    ids=["shape", "size", "origin"],
)
def test_a_header_of_another_grid_is_refused_and_both_are_told(
    tmp_path: Path, extension: str, other: Grid
) -> None:
    path = made(tmp_path, extension, lines_inside(), other)
    with pytest.raises(GridError) as raised:
        check_tractogram(path, grid_10())
    assert other.describe() in str(raised.value)
    assert grid_10().describe() in str(raised.value)
    assert raised.value.remedy


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_the_same_grid_stored_in_another_order_is_the_same(tmp_path: Path, extension: str) -> None:
    flipped = np.diag([-1.0, 1, 1, 1])
    flipped[0, 3] = 9
    path = made(tmp_path, extension, lines_inside(), Grid((10, 10, 10), flipped))
    assert check_tractogram(path, grid_10()).share_inside == 1


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_points_outside_are_told_by_their_share(tmp_path: Path, extension: str) -> None:
    points = np.array([[0, 0, 0], [-0.49, 9.49, 5], [-0.51, 5, 5], [9, 9, 9.4]])
    path = made(tmp_path, extension, list(points[:, None]), grid_10())
    found = check_tractogram(path, grid_10())
    assert found.share_inside == 0.75
    assert len(found.warnings) == 1
    assert "1 of 4 points" in found.warnings[0]
    assert "25.00%" in found.warnings[0]


def test_points_that_are_further_apart_than_voxels_are_warned_of(tmp_path: Path) -> None:
    lines = [np.array([[0, 0, 0], [0, 0, 2.0]])] * 3
    found = check_tractogram(made(tmp_path, ".tck", lines, grid_10()), grid_10())
    assert found.mean_step_mm == 2
    assert "2 mm apart" in found.warnings[0]
    wide = Grid((5, 5, 5), np.diag([3.0, 3.0, 3.0, 1.0]))
    assert check_tractogram(tmp_path / "a.tck", wide).warnings == ()


def test_most_points_outside_is_a_fault_that_tells_the_share(tmp_path: Path) -> None:
    points = np.array([[0, 0, 0], [1, 1, 1], [20, 5, 5], [30, 9, 9], [0, 0, -3]])
    path = made(tmp_path, ".tck", [points], grid_10())
    with pytest.raises(GridError, match=r"only 40\.0%"):
        check_tractogram(path, grid_10())


def test_voxel_coordinates_taken_for_mm_are_refused(tmp_path: Path) -> None:
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = [-120, -160, -120]
    grid = Grid((60, 80, 60), affine)
    voxels = [np.random.default_rng(1).uniform(20, 59, (100, 3))]
    path = made(tmp_path, ".tck", voxels, grid)
    with pytest.raises(GridError, match="scanner coordinates"):
        check_tractogram(path, grid)


@pytest.mark.parametrize("name", ["a.vtk", "a.trx.zip", "a.tck.bz2", "a"])
def test_other_extensions_are_refused_and_ours_are_listed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"\.trx, \.tck, \.tck\.gz, \.trk, \.trk\.gz"):
        check_tractogram(tmp_path / name, grid_10())


def test_files_that_are_not_there_are_told_from_links_to_nowhere(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="does not exist"):
        check_tractogram(tmp_path / "a.trx", grid_10())
    (tmp_path / "b.trx").symlink_to("annex")
    with pytest.raises(NoInputError, match="datalad get"):
        check_tractogram(tmp_path / "b.trx", grid_10())
    (tmp_path / "c.trx").mkdir()
    with pytest.raises(DataError, match="folder"):
        check_tractogram(tmp_path / "c.trx", grid_10())


def test_a_compressed_trx_is_read_as_one_that_is_not(tmp_path: Path) -> None:
    path = made(tmp_path, ".trx", lines_inside(), grid_10())
    plain = check_tractogram(path, grid_10())
    rewritten(path, lambda members: None, zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(path) as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_DEFLATED}
    packed = check_tractogram(path, grid_10())
    assert packed.content_sha256 == plain.content_sha256
    assert packed.length_quantiles_mm == plain.length_quantiles_mm


def narrow_offsets(members: dict[str, bytes]) -> None:
    offsets = np.frombuffer(members.pop("offsets.uint64"), "<u8")
    members["offsets.uint32"] = offsets.astype("<u4").tobytes()


def no_last_offset(members: dict[str, bytes]) -> None:
    members["offsets.uint64"] = members["offsets.uint64"][:-8]


def double_positions(members: dict[str, bytes]) -> None:
    points = np.frombuffer(members.pop("positions.3.float32"), "<f4")
    members["positions.3.float64"] = points.astype("<f8").tobytes()


def more_members(members: dict[str, bytes]) -> None:
    n_points = len(members["positions.3.float32"]) // 12
    members.update(
        {
            "dps/": b"",
            "dps/weight.float32": b"\0" * 4 * 50,
            "dps/colour.3.uint8": b"\0" * 3 * 50,
            "dps/about.json": b"{}",
            "dpv/fa.float16": b"\0" * 2 * n_points,
            "groups/CST_L.uint32": np.array([0, 49], "<u4").tobytes(),
            "dpg/CST_L/mean.float32": b"\0" * 4,
            "README.md": b"hello",
        }
    )


@pytest.mark.parametrize("change", [narrow_offsets, no_last_offset, double_positions, more_members])
def test_other_trx_files_that_the_format_allows_have_the_same_content(
    tmp_path: Path, change: Callable[[dict[str, bytes]], None]
) -> None:
    path = made(tmp_path, ".trx", lines_inside(), grid_10())
    before = check_tractogram(path, grid_10())
    after = check_tractogram(rewritten(path, change), grid_10())
    assert after.content_sha256 == before.content_sha256


def wrong_header(**values: Any) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        header = {**json.loads(members["header.json"]), **values}
        members["header.json"] = json.dumps(header).encode()

    return change


def offsets_of_trx(values: list[int]) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        offsets = np.frombuffer(members["offsets.uint64"], "<u8").copy()
        offsets[: len(values)] = values
        members["offsets.uint64"] = offsets.tobytes()

    return change


WRONG_TRX = {
    "dps too long": (lambda m: m.update({"dps/x.float32": b"\0" * 4 * 51}), "51 rows"),
    "dps too short": (lambda m: m.update({"dps/x.2.uint8": b"\0" * 99}), "49.5 rows"),
    "dpv of streamlines": (lambda m: m.update({"dpv/x.float32": b"\0" * 4 * 50}), "dpv/x"),
    "group beyond the end": (
        lambda m: m.update({"groups/G.uint32": np.array([3, 50], "<u4").tobytes()}),
        "groups/G",
    ),
    "name without a type": (lambda m: m.update({"dps/x": b"\0"}), "not named"),
    "no header": (lambda m: m.pop("header.json"), "header.json"),
    "header that is none": (lambda m: m.update({"header.json": b"[]"}), "header.json"),
    "empty header": (lambda m: m.update({"header.json": b"{}"}), "header.json"),
    "no positions": (lambda m: m.pop("positions.3.float32"), "0 arrays of positions"),
    "no offsets": (lambda m: m.pop("offsets.uint64"), "0 arrays of offsets"),
    "two columns": (
        lambda m: m.update({"positions.2.float32": m.pop("positions.3.float32")}),
        "three coordinates",
    ),
    "one streamline more": (wrong_header(NB_STREAMLINES=52), "offsets"),
    "one point more": (wrong_header(NB_VERTICES=3), "positions"),
    "singular affine": (wrong_header(VOXEL_TO_RASMM=np.zeros((4, 4)).tolist()), "singular"),
    "two dimensions": (wrong_header(DIMENSIONS=[10, 10]), "voxels"),
    "offsets from 1": (offsets_of_trx([1]), "ascend"),
    "offsets down": (offsets_of_trx([0, 9, 3]), "ascend"),
    "offsets beyond": (offsets_of_trx([0, 10**15]), "ascend|points"),
}


@pytest.mark.parametrize(("change", "says"), WRONG_TRX.values(), ids=WRONG_TRX)
def test_trx_files_that_contradict_themselves_are_refused(
    tmp_path: Path, change: Callable[[dict[str, bytes]], Any], says: str
) -> None:
    path = rewritten(made(tmp_path, ".trx", lines_inside(), grid_10()), change)
    with pytest.raises(DataError, match=says):
        check_tractogram(path, grid_10())


def tck(header: str, rows: list[list[float]], dtype: str = "<f4") -> bytes:
    text = f"mrtrix tracks\n{header}file: . 200\nEND\n".encode()
    return text.ljust(200, b"\0") + np.array(rows, dtype).tobytes()


NAN, INF = [np.nan] * 3, [np.inf] * 3
A, B = [1.0, 2, 3], [1.0, 2, 5]


@pytest.mark.parametrize(
    ("content", "lengths_mm"),
    [
        (tck("datatype: Float32LE\n", [A, B, NAN, A, NAN, INF]), [0, 2]),
        (tck("datatype: Float32BE\ncount: 1\n", [A, B, NAN, INF], ">f4"), [2, 2]),
        (tck("datatype: Float32LE\ncount: 2\n", [A, B, NAN, NAN, INF]), [0, 2]),
    ],
    ids=["no count", "big-endian", "streamline without a point"],
)
def test_other_tck_files_that_mrtrix_reads_are_read(
    tmp_path: Path, content: bytes, lengths_mm: list[float]
) -> None:
    (tmp_path / "a.tck").write_bytes(content)
    found = check_tractogram(tmp_path / "a.tck", grid_10())
    assert [found.length_quantiles_mm[q] for q in "01"] == lengths_mm


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (tck("datatype: Float32LE\ncount: 2\n", [A, B, NAN, INF]), "counts 2"),
        (tck("datatype: Float32LE\ncount: 1\n", [A, NAN, B, NAN, INF]), "holds 2"),
        (tck("datatype: Float32LE\n", [A, B, NAN]), "inf inf inf"),
        (tck("datatype: Float32LE\n", [A, B, NAN, A, INF]), "inf inf inf"),
        (tck("datatype: Float64LE\n", [A, B, NAN, INF], "<f8"), "Float64"),
    ],
    ids=["fewer", "more", "no end", "half a streamline", "float64"],
)
def test_tck_files_that_contradict_themselves_are_refused(
    tmp_path: Path, content: bytes, says: str
) -> None:
    (tmp_path / "a.tck").write_bytes(content)
    with pytest.raises(DataError, match=says):
        check_tractogram(tmp_path / "a.tck", grid_10())


def trk(path: Path, lines: list[Any], *, values: bool = False, **header: Any) -> Path:
    """Write a TRK file with nibabel, and change its header."""
    tractogram = Tractogram(lines, affine_to_rasmm=np.eye(4))
    if values:
        tractogram.data_per_point["fa"] = [np.ones((len(line), 2)) for line in lines]
        tractogram.data_per_streamline["weight"] = np.ones((len(lines), 1))
    shape = {"dimensions": (10, 10, 10), "voxel_sizes": (1, 1, 1), "voxel_to_rasmm": np.eye(4)}
    nib.streamlines.save(tractogram, str(path), header={**shape, "voxel_order": "RAS"})
    content = bytearray(path.read_bytes())
    raw = np.frombuffer(content, nib.streamlines.trk.header_2_dtype, 1)
    for key, value in header.items():
        raw[key] = value
    path.write_bytes(content)
    return path


def test_scalars_and_properties_of_a_trk_are_passed_over(tmp_path: Path) -> None:
    lines = lines_inside()
    plain = check_tractogram(trk(tmp_path / "a.trk", lines), grid_10())
    rich = check_tractogram(trk(tmp_path / "b.trk", lines, values=True), grid_10())
    assert rich.path.stat().st_size > plain.path.stat().st_size
    assert rich.content_sha256 == plain.content_sha256


def test_a_trk_without_a_count_is_read_to_its_end(tmp_path: Path) -> None:
    path = trk(tmp_path / "a.trk", lines_inside(), nb_streamlines=0)
    assert check_tractogram(path, grid_10()).n_streamlines == 50


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"nb_streamlines": 51}, "counts 51"),
        ({"nb_streamlines": 49}, "holds 50"),
        ({"voxel_to_rasmm": np.zeros((4, 4))}, "vox_to_ras"),
        ({"hdr_size": 7}, "bytes long"),
        ({"dimensions": (0, 10, 10)}, "voxels"),
    ],
    ids=str,
)
def test_trk_files_that_contradict_themselves_are_refused(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    with pytest.raises(DataError, match=says):
        check_tractogram(trk(tmp_path / "a.trk", lines_inside(), **change), grid_10())


@pytest.mark.parametrize("n", [-1, 2**31 - 1])
def test_a_trk_streamline_of_an_absurd_size_is_refused(tmp_path: Path, n: int) -> None:
    path = trk(tmp_path / "a.trk", [np.ones((2, 3))])
    content = path.read_bytes()
    path.write_bytes(content[:1000] + np.array(n, "<i4").tobytes() + content[1004:])
    with pytest.raises(DataError, match="points"):
        check_tractogram(path, grid_10())


def test_a_trk_without_a_voxel_order_is_in_trackvis_own(tmp_path: Path) -> None:
    lines = lines_inside()
    path = trk(
        tmp_path / "a.trk", [[9, 9, 0] + line * [-1, -1, 1] for line in lines], voxel_order=b""
    )
    ((points, _),) = check_tractogram(path, grid_10()).streamlines()
    np.testing.assert_allclose(points, np.concatenate(lines), atol=1e-5)


def test_a_big_endian_trk_is_read(tmp_path: Path) -> None:
    path = trk(tmp_path / "a.trk", [np.arange(6.0).reshape(2, 3)])
    content = path.read_bytes()
    dtype = nib.streamlines.trk.header_2_dtype
    header = np.frombuffer(content[:1000], dtype).astype(dtype.newbyteorder(">"))
    path.write_bytes(
        header.tobytes() + np.frombuffer(content[1000:], "<i4").astype(">i4").tobytes()
    )
    ((points, lengths),) = check_tractogram(path, grid_10()).streamlines()
    assert lengths.tolist() == [2]
    np.testing.assert_allclose(points.ravel(), np.arange(6), atol=1e-6)


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_memory_is_that_of_a_piece(
    tmp_path: Path, extension: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("base", "formats.trk", "formats.trx"):
        monkeypatch.setattr(f"bids_tractography.tractogram.{module}.PIECE_POINTS", 2000)
    monkeypatch.setattr("bids_tractography.tractogram.formats.tck._READ_ROWS", 2000)
    peaks = []
    for n in (200, 2000):
        lines = [np.full((100, 3), 5.0)] * n
        path = made(tmp_path / str(n), extension, lines, grid_10())
        tracemalloc.start()
        check_tractogram(path, grid_10())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + 8 * 2000


@needs_peers
def test_pyafqs_own_file_is_read_as_trx_python_reads_it() -> None:
    from trx.trx_file_memmap import load

    path = next(PEERS.glob("sub-01*_tractography.trx"))
    grid = read_image(next(PEERS.glob("*_desc-b0_dwi.nii.gz")), ndim=3).grid
    found = check_tractogram(path, grid)
    trx = load(str(path))
    try:
        lengths = np.array(
            [np.linalg.norm(np.diff(s, axis=0), axis=1).sum() for s in trx.streamlines]
        )
        assert (found.n_streamlines, found.n_points) == (508, 141447)
        assert len(lengths) == 508
        assert found.length_quantiles_mm["0.5"] == pytest.approx(np.median(lengths), abs=1)
        assert found.length_quantiles_mm["1"] == pytest.approx(lengths.max(), abs=1e-3)
    finally:
        trx.close()
    assert found.share_inside == 1


@needs_peers
def test_the_peers_broken_file_is_refused_for_what_is_wrong_with_it() -> None:
    affine = np.diag([0.5, 0.5, 0.5, 1])
    affine[:3, 3] = [-78.5, -112.5, -50]
    with pytest.raises(DataError, match=r"DataSetID\.float32 has 460 rows.*459"):
        check_tractogram(PEERS / "broken_dps_size.trx", Grid((314, 378, 272), affine))


@needs_peers
@pytest.mark.parametrize(
    ("name", "n_streamlines", "n_points"),
    [("tract.IFOF_R.trk", 14, 168), ("tract.SLF1_R.tck", 13, 156)],
)
def test_the_peers_trk_and_tck_are_read_as_nibabel_reads_them(
    name: str, n_streamlines: int, n_points: int
) -> None:
    affine = np.eye(4)
    affine[:3, 3] = [-78, -112, -50]
    found = check_tractogram(PEERS / name, Grid((157, 189, 136), affine))
    assert (found.n_streamlines, found.n_points) == (n_streamlines, n_points)
    ((points, lengths),) = found.streamlines()
    theirs = nib.streamlines.load(PEERS / name).streamlines
    assert lengths.tolist() == [len(line) for line in theirs]
    np.testing.assert_allclose(points, np.concatenate(list(theirs)), atol=1e-4)


@pytest.mark.skipif(shutil.which("tckstats") is None, reason="MRtrix3 is not here")
def test_lengths_are_those_of_mrtrix(tmp_path: Path) -> None:
    path = SHARED_DATA / "peers" / "mrtrix_sift_phantom" / "tracks.tck"
    if not path.exists():
        pytest.skip("shared data are not here")
    grid = read_image(path.with_name("mask.nii.gz"), ndim=3).grid
    found = check_tractogram(path, grid)
    command: list[str | Path] = ["tckstats", "-quiet", "-dump", tmp_path / "lengths.txt", path]
    subprocess.run(command, check=True, capture_output=True)
    lengths = np.loadtxt(tmp_path / "lengths.txt")
    assert found.n_streamlines == len(lengths) == 5000
    shares = [float(q) for q in found.length_quantiles_mm]
    expected = np.quantile(lengths, shares, method="nearest")
    np.testing.assert_allclose(list(found.length_quantiles_mm.values()), expected, atol=0.01)


def test_a_copy_is_the_same_bytes_and_leaves_nothing_else(tmp_path: Path) -> None:
    source, target = tmp_path / "a.tck.gz", tmp_path / "out" / "dwi" / "b.tck.gz"
    source.write_bytes(os.urandom(10_000))
    (tmp_path / "annexed.tck.gz").symlink_to(source)
    for _ in range(2):  # the second replaces the first
        copy_or_link(tmp_path / "annexed.tck.gz", target, "copy")
    assert not target.is_symlink()
    assert target.read_bytes() == source.read_bytes()
    assert [path.name for path in target.parent.iterdir()] == ["b.tck.gz"]


def test_a_link_is_relative_and_survives_a_move_of_everything(tmp_path: Path) -> None:
    root = tmp_path / "dataset"
    source, target = (
        root / "derivatives" / "x" / "a.trx",
        root / "derivatives" / "y" / "dwi" / "b.trx",
    )
    source.parent.mkdir(parents=True)
    source.write_bytes(b"content")
    copy_or_link(source, target, "copy")
    for _ in range(2):  # in the place of the copy, then of the link
        copy_or_link(source, target, "link")
    assert target.readlink() == Path("../../x/a.trx")
    assert [path.name for path in target.parent.iterdir()] == ["b.trx"]
    root.rename(tmp_path / "moved")
    assert (tmp_path / "moved" / "derivatives" / "y" / "dwi" / "b.trx").read_bytes() == b"content"


def test_a_link_through_linked_folders_leads_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "short").symlink_to("deep/er")
    (tmp_path / "a.trx").write_bytes(b"content")
    copy_or_link(tmp_path / "a.trx", tmp_path / "short" / "b.trx", "link")
    assert (tmp_path / "short" / "b.trx").read_bytes() == b"content"


def test_a_link_to_another_branch_of_the_file_system_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = Path("/usr/bin/env")
    assert tmp_path.resolve().parts[1] != "usr"
    with caplog.at_level(logging.WARNING):
        copy_or_link(elsewhere, tmp_path / "b.trx", "link")
    assert "copy" in caplog.text
    assert (tmp_path / "b.trx").resolve() == elsewhere.resolve()


@pytest.mark.parametrize("place", ["copy", "link"])
def test_a_tractogram_is_not_brought_onto_itself(tmp_path: Path, place: Any) -> None:
    path = tmp_path / "a.trx"
    path.write_bytes(b"content")
    with pytest.raises(OutputError):
        copy_or_link(path, tmp_path / "." / "a.trx", place)
    assert path.read_bytes() == b"content"


@pytest.mark.parametrize("place", ["copy", "link"])
def test_a_target_that_cannot_be_written_is_told(tmp_path: Path, place: Any) -> None:
    (tmp_path / "a.trx").write_bytes(b"content")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        copy_or_link(tmp_path / "a.trx", tmp_path / "file" / "b.trx", place)

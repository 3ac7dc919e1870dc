"""b-values and b-vectors: FSL's rule against closed forms, shells, and every way to be wrong."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dipy.core.gradients import gradient_table
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bids_tractography.config.model import FrameName, GradientsConfig
from bids_tractography.core.gradients import (
    FSL,
    Frame,
    GradientFiles,
    Gradients,
    choose_frame,
    permutation_matrix,
    permutation_names,
    read_gradients,
)
from bids_tractography.core.images import Grid
from bids_tractography.errors import ConfigError, GradientError, NoInputError

LAS = np.diag([-2.0, 2.0, 2.0, 1.0])
RAS = np.diag([2.0, 2.0, 2.0, 1.0])
FOUR_BVALS = "0 1000 1000 1000\n"
FOUR_BVECS = "0 1 0 0\n0 0 1 0\n0 0 0 1\n"


def fsl_files(folder: Path) -> GradientFiles:
    return GradientFiles(folder / "dwi.bval", folder / "dwi.bvec")


def read(
    folder: Path,
    bvals: str | bytes = FOUR_BVALS,
    bvecs: str | bytes = FOUR_BVECS,
    affine: NDArray[np.float64] = LAS,
    n_volumes: int = 4,
    b0_threshold_s_mm2: float = 50,
    shell_gap_s_mm2: float | str = "auto",
) -> Gradients:
    for name, content in (("dwi.bval", bvals), ("dwi.bvec", bvecs)):
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    config = GradientsConfig(b0_threshold_s_mm2=b0_threshold_s_mm2, shell_gap_s_mm2=shell_gap_s_mm2)
    return read_gradients(fsl_files(folder), Grid((5, 6, 7), affine), n_volumes, config)


def text_of(rows: NDArray[np.floating] | Sequence[Sequence[float]], digits: int = 12) -> str:
    return "\n".join(" ".join(f"{value:.{digits}f}" for value in row) for row in rows) + "\n"


def with_shells(folder: Path, bvals: Sequence[float], **options: Any) -> Gradients:
    vectors = np.tile([[0.0], [0.6], [0.8]], len(bvals))
    return read(folder, text_of([bvals]), text_of(vectors), n_volumes=len(bvals), **options)


def axis_rotation(axis: int, degrees: float) -> NDArray[np.float64]:
    """Rotate about one axis, right-handed, written out by hand."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[first, first], matrix[first, second] = c, -s
    matrix[second, first], matrix[second, second] = s, c
    return matrix


def is_odd(order: Sequence[int]) -> bool:
    return sum(a > b for a, b in itertools.combinations(order, 2)) % 2 == 1


# FSL's rule


@pytest.mark.parametrize(
    ("storage", "signs", "expected"),
    [
        # Image axes as stored; x of the file is negated where the determinant is positive.
        ("LAS", (-1, 1, 1), [[-1, 0, 0], [0, 1, 0], [0, 0, 1]]),
        ("RAS", (1, 1, 1), [[-1, 0, 0], [0, 1, 0], [0, 0, 1]]),
        ("LPS", (-1, -1, 1), [[1, 0, 0], [0, -1, 0], [0, 0, 1]]),
        ("RPS", (1, -1, 1), [[1, 0, 0], [0, -1, 0], [0, 0, 1]]),
        ("LPI", (-1, -1, -1), [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]),
    ],
)
def test_unit_vectors_on_disk_are_these_directions_in_mm(
    tmp_path: Path, storage: str, signs: tuple[int, int, int], expected: list[list[int]]
) -> None:
    affine = np.diag([*(2.0 * np.array(signs)), 1.0])
    gradients = read(tmp_path, affine=affine)
    assert np.array_equal(gradients.directions, [[0, 0, 0], *expected]), storage


def test_axes_stored_in_another_order_are_followed(tmp_path: Path) -> None:
    # First axis of the file runs to anterior, second to superior, third to the right: an even
    # permutation, so the determinant is positive and x is negated.
    affine = np.array([[0, 0, 2.0, 0], [2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 1]])
    gradients = read(tmp_path, affine=affine)
    expected = [[0, 0, 0], [0, -1, 0], [0, 0, 1], [1, 0, 0]]
    assert np.array_equal(gradients.directions, expected)


directions_mm = st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: np.linalg.norm(v) > 0.1)


@settings(max_examples=100, deadline=None)
@given(
    order=st.permutations([0, 1, 2]),
    signs=st.tuples(*[st.sampled_from([-1, 1])] * 3),
    zooms=st.tuples(*[st.floats(0.5, 5)] * 3),
    direction=directions_mm,
    angles=st.tuples(*[st.floats(-60, 60)] * 3),
)
def test_one_direction_in_mm_comes_back_from_every_storage(
    tmp_path_factory: pytest.TempPathFactory,
    order: list[int],
    signs: tuple[int, int, int],
    zooms: tuple[float, float, float],
    direction: tuple[float, float, float],
    angles: tuple[float, float, float],
) -> None:
    unit = np.array(direction) / np.linalg.norm(direction)
    # The head is first stored straight: axis k of the file is axis order[k] of the head.
    on_disk = [signs[k] * unit[order[k]] for k in range(3)]
    determinant_is_positive = is_odd(order) == (signs[0] * signs[1] * signs[2] < 0)
    if determinant_is_positive:
        on_disk[0] = -on_disk[0]
    affine = np.eye(4)
    affine[:3, :3] = 0
    for k in range(3):
        affine[order[k], k] = signs[k] * zooms[k]
    # Then head and gradients are turned together: the file of b-vectors stays as it is.
    turn = axis_rotation(0, angles[0]) @ axis_rotation(1, angles[1]) @ axis_rotation(2, angles[2])
    affine[:3, :3] = turn @ affine[:3, :3]
    affine[:3, 3] = [30, -40, 50]
    bvecs = np.column_stack([np.zeros(3), on_disk])
    folder = tmp_path_factory.getbasetemp()
    gradients = read(folder, "0 1000\n", text_of(bvecs, 15), affine, n_volumes=2)
    assert np.allclose(gradients.directions[1], turn @ unit, atol=1e-9)
    assert np.array_equal(gradients.directions[0], [0, 0, 0])


def test_directions_are_unit_vectors_though_the_file_is_rounded(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    bvecs = np.vstack([np.zeros(3), vectors]).T
    bvals = text_of([[0.0] + [1000.0] * 60], 0)
    gradients = read(tmp_path, bvals, text_of(bvecs, 3), n_volumes=61)
    assert np.allclose(np.linalg.norm(gradients.directions[1:], axis=1), 1, atol=1e-12)
    assert np.allclose(gradients.directions[1:], vectors * [-1, 1, 1], atol=2e-3)


# b=0 and shells


def test_small_b_values_of_scanners_count_as_b0(tmp_path: Path) -> None:
    gradients = with_shells(tmp_path, [0, 1000, 1.25, 5, 50, 51, 1000])
    assert gradients.b0_volumes.tolist() == [0, 2, 3, 4]
    assert [shell.volumes.tolist() for shell in gradients.shells] == [[5], [1, 6]]
    assert gradients.bvals.tolist() == [0, 1000, 1.25, 5, 50, 51, 1000]


def test_the_threshold_of_b0_is_followed(tmp_path: Path) -> None:
    gradients = with_shells(tmp_path, [0, 5, 1000], b0_threshold_s_mm2=0)
    assert gradients.b0_volumes.tolist() == [0]
    assert np.allclose(np.linalg.norm(gradients.directions, axis=1), [0, 1, 1])


def test_shells_of_hcp_are_three(tmp_path: Path) -> None:
    bvals = [5, 990, 1985, 3000, 1000, 2005, 2980, 5, 1010, 1995, 3010, 995]
    shells = with_shells(tmp_path, bvals).shells
    assert [shell.volumes.tolist() for shell in shells] == [
        [1, 4, 8, 11],
        [2, 5, 9],
        [3, 6, 10],
    ]
    assert [shell.b_s_mm2 for shell in shells] == pytest.approx([998.75, 1995, 8990 / 3])


def test_a_ragged_shell_is_one(tmp_path: Path) -> None:
    ragged = [0, *range(900, 1100, 20), 2850, 3120, 2990]
    shells = with_shells(tmp_path, ragged).shells
    assert [len(shell.volumes) for shell in shells] == [10, 3]


def test_a_gap_that_is_given_is_taken_literally(tmp_path: Path) -> None:
    bvals = [0, 1000, 1090, 2800, 3000]
    for gap, expected in (("auto", [2, 2]), (50, [1, 1, 1, 1]), (100, [2, 1, 1]), (2000, [4])):
        shells = with_shells(tmp_path, bvals, shell_gap_s_mm2=gap).shells
        assert [len(shell.volumes) for shell in shells] == expected, gap


def test_near_shells_are_two(tmp_path: Path) -> None:
    shells = with_shells(tmp_path, [0, 700, 1000, 700, 1000]).shells
    assert [shell.b_s_mm2 for shell in shells] == [700, 1000]


@settings(max_examples=40, deadline=None)
@given(st.permutations([0, 5, 300, 305, 1000, 1010, 990, 2000, 2600]))
def test_shells_do_not_depend_on_the_order_of_volumes(
    tmp_path_factory: pytest.TempPathFactory, bvals: list[float]
) -> None:
    gradients = with_shells(tmp_path_factory.getbasetemp(), bvals)
    of_shells = [{bvals[v] for v in shell.volumes} for shell in gradients.shells]
    assert of_shells == [{300, 305}, {1000, 1010, 990}, {2000}, {2600}]
    together = [*gradients.b0_volumes, *(v for shell in gradients.shells for v in shell.volumes)]
    assert sorted(together) == list(range(len(bvals)))


def test_table_is_what_dipy_makes_of_the_same(tmp_path: Path) -> None:
    bvals = "5 1000 2000 1000 0 2000\n"
    bvecs = text_of(
        np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0.6, 0.8], [0, 0, 0], [-0.6, 0, 0.8]]).T
    )
    gradients = read(tmp_path, bvals, bvecs, n_volumes=6)
    volumes = np.array([0, 1, 3, 4])
    table = gradients.table(volumes)
    in_mm = np.array([[0, 0, 0], [-1, 0, 0], [0, 0.6, 0.8], [0, 0, 0]])
    expected = gradient_table(np.array([0.0, 1000, 1000, 0]), bvecs=in_mm, b0_threshold=0)
    assert np.array_equal(table.bvals, expected.bvals)
    assert np.allclose(table.bvecs, expected.bvecs, atol=1e-12)
    assert table.b0s_mask.tolist() == [True, False, False, True]


# What is accepted


def accepted(gradients: Gradients) -> bool:
    return np.array_equal(
        gradients.directions, [[0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, 0, 1]]
    ) and np.array_equal(gradients.bvals, [0, 1000, 1000, 1000])


@pytest.mark.parametrize(
    ("bvals", "bvecs"),
    [
        (FOUR_BVALS.replace("\n", "\r\n"), FOUR_BVECS.replace("\n", "\r\n")),
        ("\ufeff" + FOUR_BVALS, "\ufeff" + FOUR_BVECS),
        ("0\n1000\n1000\n1000\n", FOUR_BVECS),
        ("0\t1000\t1000\t1000", "0\t1\t0\t0\n0\t0\t1\t0\n0\t0\t0\t1"),
        ("  0 1000  1e3 1000.0  \n\n", "\n0 1 0 0 \n\n0 0 1 0\n 0 0 0 1\n\n"),
        (FOUR_BVALS, "nan 1 0 0\nnan 0 1 0\nnan 0 0 1\n"),
        (FOUR_BVALS, "0.5 1 0 0\n0.5 0 1 0\n7 0 0 1\n"),
    ],
    ids=["crlf", "bom", "column", "tabs", "spaces", "nan at b0", "any vector at b0"],
)
def test_harmless_variants_are_accepted(tmp_path: Path, bvals: str, bvecs: str) -> None:
    assert accepted(read(tmp_path, bvals, bvecs))


# What is refused


def refused(folder: Path, **options: Any) -> str:
    with pytest.raises(GradientError) as error:
        read(folder, **options)
    assert error.value.exit_code == 65
    return str(error.value)


@pytest.mark.parametrize("name", ["dwi.bval", "dwi.bvec"])
@pytest.mark.parametrize("how", ["missing", "folder", "dangling link"])
def test_a_file_that_is_not_there_is_no_input(tmp_path: Path, name: str, how: str) -> None:
    read(tmp_path)
    (tmp_path / name).unlink()
    if how == "folder":
        (tmp_path / name).mkdir()
    if how == "dangling link":
        (tmp_path / name).symlink_to("nowhere")
    with pytest.raises(NoInputError) as error:
        read_gradients(fsl_files(tmp_path), Grid((5, 6, 7), LAS), 4, GradientsConfig())
    assert str(tmp_path / name) in str(error.value)
    assert error.value.exit_code == 66


def test_transposed_vectors_are_told(tmp_path: Path) -> None:
    message = refused(tmp_path, bvecs="0 0 0\n1 0 0\n0 1 0\n0 0 1\n")
    assert "transposed" in message
    assert "dwi.bvec" in message


@pytest.mark.parametrize(
    ("bvals", "bvecs", "file", "counts"),
    [
        ("0 1000 1000\n", FOUR_BVECS, "dwi.bval", ("3", "4")),
        ("0 1000 1000 1000 1000\n", FOUR_BVECS, "dwi.bval", ("5", "4")),
        (FOUR_BVALS, "0 1 0\n0 0 1\n0 0 0\n", "dwi.bvec", ("3", "4")),
        (FOUR_BVALS, "0 1 0 0 0\n0 0 1 0 0\n0 0 0 1 1\n", "dwi.bvec", ("5", "4")),
        (FOUR_BVALS, "0 1 0 0\n0 0 1 0\n", "dwi.bvec", ("2 rows", "3")),
    ],
)
def test_counts_that_differ_are_told(
    tmp_path: Path, bvals: str, bvecs: str, file: str, counts: tuple[str, str]
) -> None:
    message = refused(tmp_path, bvals=bvals, bvecs=bvecs)
    assert file in message
    assert all(count in message for count in counts)


@pytest.mark.parametrize(
    "bvecs",
    [
        "0 nan 0 0\n0 0 1 0\n0 0 0 1\n",
        "0 inf 0 0\n0 0 1 0\n0 0 0 1\n",
        "0 0 0 0\n0 0 1 0\n0 0 0 1\n",
        "0 1.05 0 0\n0 0 1 0\n0 0 0 1\n",
        "0 0.9 0 0\n0 0 1 0\n0 0 0 1\n",
        "0 1 0 0\n0 1 1 0\n0 0 0 1\n",
        "0 1000 0 0\n0 0 1 0\n0 0 0 1\n",
    ],
    ids=["nan", "inf", "zero", "long", "short", "two", "scaled"],
)
def test_weighted_volumes_need_unit_vectors(tmp_path: Path, bvecs: str) -> None:
    message = refused(tmp_path, bvecs=bvecs)
    assert "dwi.bvec" in message
    assert "volume 1 has b = 1000" in message


@pytest.mark.parametrize(
    ("bvals", "says"),
    [
        ("1000 1000 1000 1000\n", "no volume has b <= 50"),
        ("60 1000 1000 1000\n", "smallest b-value is 60"),
        ("0 5 0 0\n", "all volumes are b=0"),
        ("0 nan 1000 1000\n", "non-finite"),
        ("0 inf 1000 1000\n", "non-finite"),
        ("0 -1000 1000 1000\n", "negative"),
        ("0 1 1 1\n", "b=0"),
        ("0 99 99 99\n", r"s/mm²"),
    ],
)
def test_b_values_that_are_no_scheme_are_told(tmp_path: Path, bvals: str, says: str) -> None:
    message = refused(tmp_path, bvals=bvals, bvecs="1 1 1 1\n0 0 0 0\n0 0 0 0\n")
    assert "dwi.bval" in message
    assert says in message


@pytest.mark.parametrize("name", ["bvals", "bvecs"])
@pytest.mark.parametrize(
    "content",
    [
        "not numbers\n",
        "0,1000,1000,1000\n",
        "",
        "\n \n",
        b"\x00\xff\xfe\x9d",
        "0 1000\n1000\n",
        "<html>404</html>",
    ],
)
def test_garbage_is_told_with_the_name_of_the_file(
    tmp_path: Path, name: str, content: str | bytes
) -> None:
    message = refused(tmp_path, **{name: content})
    assert f"dwi.{name[:-1]}" in message


def test_b_values_in_several_rows_and_columns_are_refused(tmp_path: Path) -> None:
    assert "dwi.bval" in refused(tmp_path, bvals="0 1000\n1000 1000\n")


# Frames

RNG = np.random.default_rng(3)
VECTORS = RNG.normal(size=(12, 3))
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
BVALS = [0.0] + [1000.0] * 12
GENERATED = ("QSIPrep", "qsiprep", "PennLINC/qsiprep")

affines = st.builds(
    lambda order, signs, zooms, angles: _affine(order, signs, zooms, angles),
    st.permutations([0, 1, 2]),
    st.tuples(*[st.sampled_from([-1, 1])] * 3),
    st.tuples(*[st.floats(0.5, 5)] * 3),
    st.tuples(*[st.floats(-60, 60)] * 3),
)


def _affine(
    order: Sequence[int],
    signs: Sequence[int],
    zooms: Sequence[float],
    angles: Sequence[float],
) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3] = 0
    for k in range(3):
        affine[order[k], k] = signs[k] * zooms[k]
    turn = axis_rotation(0, angles[0]) @ axis_rotation(1, angles[1]) @ axis_rotation(2, angles[2])
    affine[:3, :3] = turn @ affine[:3, :3]
    return affine


def on_disk(kind: FrameName, grid: Grid) -> NDArray[np.float64]:
    """The same directions in mm, as a file of this frame has them: shape (13, 3)."""
    from_mm = np.linalg.inv(Frame(kind, "").axes(grid))
    return np.vstack([np.zeros(3), VECTORS @ from_mm.T])


def write_gradients(
    folder: Path, grid: Grid, bvec_frame: FrameName | None, *, table: bool
) -> GradientFiles:
    bval = bvec = b = None
    if bvec_frame:
        bval, bvec = folder / "dwi.bval", folder / "dwi.bvec"
        bval.write_text(text_of([BVALS], 0))
        bvec.write_text(text_of(on_disk(bvec_frame, grid).T, 7))
    if table:
        b = folder / "dwi.b"
        b.write_text("# exported\n" + text_of(np.c_[on_disk("scanner", grid), BVALS], 8))
    return GradientFiles(bval, bvec, b)


@settings(max_examples=60, deadline=None)
@given(affine=affines, frame=st.sampled_from(["fsl", "image", "scanner"]))
def test_one_scheme_is_read_alike_in_every_frame(
    tmp_path_factory: pytest.TempPathFactory, affine: NDArray[np.float64], frame: FrameName
) -> None:
    grid = Grid((5, 6, 7), affine)
    files = write_gradients(tmp_path_factory.getbasetemp(), grid, frame, table=False)
    config = GradientsConfig(frame=frame)
    chosen = choose_frame(config.frame, files, ())
    found = read_gradients(files, grid, 13, config, chosen)
    assert np.allclose(found.directions[1:], VECTORS, atol=1e-5)
    assert found.record["frame"] == frame
    assert np.allclose(on_disk(frame, grid)[1:] @ found.axes.T, VECTORS)


@settings(max_examples=60, deadline=None)
@given(
    affine=affines,
    frame=st.sampled_from([None, "fsl", "image", "scanner"]),
    generated_by=st.sampled_from([(), ("other",), *((name,) for name in GENERATED)]),
)
def test_a_gradient_table_decides_whatever_lies_next_to_it(
    tmp_path_factory: pytest.TempPathFactory,
    affine: NDArray[np.float64],
    frame: FrameName | None,
    generated_by: tuple[str, ...],
) -> None:
    grid = Grid((5, 6, 7), affine)
    files = write_gradients(tmp_path_factory.getbasetemp(), grid, frame, table=True)
    chosen = choose_frame("auto", files, generated_by)
    found = read_gradients(files, grid, 13, GradientsConfig(), chosen)
    assert chosen.kind == "scanner"
    assert "dwi.b " in chosen.reason
    assert np.allclose(found.directions[1:], VECTORS, atol=1e-5)
    assert found.bvals.tolist() == BVALS
    if frame:
        assert frame in found.record["bvec_agrees_as"]


@pytest.mark.parametrize("name", GENERATED)
def test_datasets_of_qsiprep_have_vectors_along_the_image_axes(tmp_path: Path, name: str) -> None:
    files = GradientFiles(tmp_path / "a.bval", tmp_path / "a.bvec")
    frame = choose_frame("auto", files, ("someone", name))
    assert frame.kind == "image"
    assert name in frame.reason
    assert choose_frame("fsl", files, (name,)).kind == "fsl"
    assert choose_frame("auto", files, ("fMRIPrep",)) == FSL


@settings(max_examples=30, deadline=None)
@given(
    affine=affines,
    roll=st.sampled_from([1, 2]),
    explicit=st.sampled_from(["auto", "fsl", "image", "scanner"]),
)
def test_files_that_agree_in_no_frame_are_refused_unless_the_user_decides(
    tmp_path_factory: pytest.TempPathFactory,
    affine: NDArray[np.float64],
    roll: int,
    explicit: str,
) -> None:
    grid, folder = Grid((5, 6, 7), affine), tmp_path_factory.getbasetemp()
    files = write_gradients(folder, grid, "fsl", table=True)
    other = RNG.normal(size=(3, 13))
    other /= np.linalg.norm(other, axis=0)
    (folder / "dwi.bvec").write_text(text_of(np.roll(other, roll, axis=0), 7))
    config = GradientsConfig(frame=explicit)
    frame = choose_frame(config.frame, files, ())
    if explicit == "auto":
        with pytest.raises(GradientError, match=r"dwi\.b .*dwi\.bvec") as error:
            read_gradients(files, grid, 13, config, frame)
        assert error.value.exit_code == 65
    else:
        found = read_gradients(files, grid, 13, config, frame)
        assert found.record["file"] == "dwi.bvec"


def test_b_values_that_differ_between_the_files_are_refused(tmp_path: Path) -> None:
    grid = Grid((5, 6, 7), LAS)
    files = write_gradients(tmp_path, grid, "fsl", table=True)
    (tmp_path / "dwi.bval").write_text(text_of([[0.0] + [2000.0] * 12], 0))
    with pytest.raises(GradientError, match="different b-values"):
        read_gradients(files, grid, 13, GradientsConfig(), Frame("scanner", ""))


def test_a_table_of_another_number_of_columns_or_rows_is_refused(tmp_path: Path) -> None:
    grid = Grid((5, 6, 7), LAS)
    files = write_gradients(tmp_path, grid, None, table=True)
    with pytest.raises(GradientError, match="13 rows, but the image has 14 volumes"):
        read_gradients(files, grid, 14, GradientsConfig(), Frame("scanner", ""))
    (tmp_path / "dwi.b").write_text(text_of(on_disk("scanner", grid)))
    with pytest.raises(GradientError, match="3 columns"):
        read_gradients(files, grid, 13, GradientsConfig(), Frame("scanner", ""))


def test_a_frame_other_than_that_of_the_only_table_is_a_contradiction(tmp_path: Path) -> None:
    files = GradientFiles(table=tmp_path / "dwi.b")
    assert choose_frame("scanner", files, ()).kind == "scanner"
    with pytest.raises(ConfigError, match=r"gradients\.frame is fsl"):
        choose_frame("fsl", files, ())


def test_gradients_that_are_not_there_are_no_input(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match=r"no \.bvec file"):
        choose_frame("auto", GradientFiles(bval=tmp_path / "a.bval"), ())


@settings(max_examples=50, deadline=None)
@given(order=st.permutations("xyz"), signs=st.tuples(*[st.booleans()] * 3), affine=affines)
def test_a_permutation_takes_components_of_the_file(
    tmp_path_factory: pytest.TempPathFactory,
    order: list[str],
    signs: tuple[bool, bool, bool],
    affine: NDArray[np.float64],
) -> None:
    x, y, z = (f"{'-' * sign}{name}" for name, sign in zip(order, signs, strict=True))
    names = (x, y, z)
    matrix = permutation_matrix(names)
    assert permutation_names(matrix) == names
    grid, folder = Grid((5, 6, 7), affine), tmp_path_factory.getbasetemp()
    files = write_gradients(folder, grid, "fsl", table=False)
    config = GradientsConfig(permute=names)
    found = read_gradients(files, grid, 13, config)
    components = on_disk("fsl", grid).T
    right = np.array(
        [(-1 if n.startswith("-") else 1) * components["xyz".index(n[-1])] for n in names]
    )
    (folder / "dwi.bvec").write_text(text_of(right, 7))
    assert np.allclose(
        found.directions, read_gradients(files, grid, 13, GradientsConfig()).directions, atol=1e-6
    )


@pytest.mark.parametrize(
    ("factor", "largest"), [(1e-3, "1"), (1e-6, "0.001"), (1e6, "1e+09"), (1e3, "1e+06")]
)
def test_b_values_in_other_units_are_refused_with_the_right_one(
    tmp_path: Path, factor: float, largest: str
) -> None:
    bvals = " ".join(f"{value * factor:g}" for value in (0, 1000, 1000, 1000))
    message = refused(tmp_path, bvals=bvals + "\n")
    assert "s/mm²: 1000" in message
    assert f"is {largest}" in message

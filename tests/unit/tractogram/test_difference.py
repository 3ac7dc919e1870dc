"""The first streamline that differs, in files with one known difference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tractograms import oblique_las_grid, random_streamlines, stored

from bids_tractography.config.tracking import OutputConfig
from bids_tractography.tractogram.difference import StreamlineDifference, first_difference
from bids_tractography.tractogram.formats.table import WRITERS, writers

FORMATS = sorted(WRITERS)


def written(folder: Path, streamlines: list[np.ndarray], extension: str) -> Path:
    folder.mkdir()
    path = folder / f"a.{extension}"
    WRITERS[extension](path, stored(folder / "store", streamlines), oblique_las_grid())
    return path


@pytest.mark.parametrize("extension", FORMATS)
def test_first_difference_of_equal_streamlines_is_none(tmp_path: Path, extension: str) -> None:
    streamlines = random_streamlines(50)
    one = written(tmp_path / "one", streamlines, extension)
    assert first_difference(one, written(tmp_path / "other", streamlines, extension)) is None


@pytest.mark.parametrize("extension", FORMATS)
def test_first_difference_names_the_first_of_two_and_its_distance(
    tmp_path: Path, extension: str
) -> None:
    # Steps of 1 mm, so that a point moved by 3 mm away from the line is 3 mm from the others.
    streamlines = [np.stack([np.arange(5.0) + k, np.zeros(5), np.zeros(5)], 1) for k in range(9)]
    moved = [np.array(points) for points in streamlines]
    moved[4][-1, 1] += 3
    moved[7][0] += 1
    found = first_difference(
        written(tmp_path / "one", streamlines, extension),
        written(tmp_path / "other", moved, extension),
    )
    assert found is not None
    assert (found.number, found.points, found.seed) == (4, (5, 5), None)
    assert found.distance_mm == pytest.approx(3, abs=1e-4)


@pytest.mark.parametrize("extension", FORMATS)
def test_first_difference_in_a_file_with_fewer_streamlines_is_the_first_missing_one(
    tmp_path: Path, extension: str
) -> None:
    streamlines = random_streamlines(12)
    one = written(tmp_path / "one", streamlines, extension)
    other = written(tmp_path / "other", streamlines[:10], extension)
    n_points = len(streamlines[10])
    assert first_difference(one, other) == StreamlineDifference(10, (n_points, None), None, None)
    assert first_difference(other, one) == StreamlineDifference(10, (None, n_points), None, None)


def test_first_difference_names_the_seed_that_the_first_file_stores(tmp_path: Path) -> None:
    streamlines = random_streamlines(12)
    paths = []
    for name, changed in (("one", streamlines), ("other", [*streamlines[:5], *streamlines[6:]])):
        store = stored(tmp_path / f"{name}.store", changed)
        output = OutputConfig(per_streamline=("seed",))
        write = writers(output, [store.per_streamline("seed")])["trx"]
        paths.append(tmp_path / f"{name}.trx")
        write(paths[-1], store, oblique_las_grid())
    found = first_difference(*paths)
    assert found is not None
    assert (found.number, found.seed) == (5, 5)

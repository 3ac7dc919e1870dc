"""The doctor reads what the trials wrote with trx-python, the reference library of the format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tractograms import oblique_las_grid, random_streamlines, stored

from bids_tractography.app.doctor import compare_with_trx_python
from bids_tractography.tractogram.formats.trx import write_trx
from bids_tractography.tractogram.summary import content_hash


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, str]:
    store = stored(tmp_path / "store", random_streamlines(50))
    write_trx(tmp_path / "a.trx", store, oblique_las_grid())
    return tmp_path / "a.trx", content_hash(store)


def test_compare_with_trx_python_same_content_has_no_fault(written: tuple[Path, str]) -> None:
    assert compare_with_trx_python(*written) is None


def test_compare_with_trx_python_no_streamlines_has_no_fault(tmp_path: Path) -> None:
    store = stored(tmp_path / "store", [])
    write_trx(tmp_path / "a.trx", store, oblique_las_grid())
    assert compare_with_trx_python(tmp_path / "a.trx", content_hash(store)) is None


def test_compare_with_trx_python_moved_point_is_reported(written: tuple[Path, str]) -> None:
    path, digest = written
    content = bytearray(path.read_bytes())
    start = content.index(b"positions.3.float32") + len("positions.3.float32")
    content[start + 40 : start + 44] = np.float32(1).tobytes()
    path.write_bytes(content)
    assert compare_with_trx_python(path, digest) == (
        "trx-python finds other streamlines in a.trx than were written"
    )


@pytest.mark.parametrize("content", [b"", b"not a zip"])
def test_compare_with_trx_python_unreadable_file_is_reported(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "a.trx").write_bytes(content)
    fault = compare_with_trx_python(tmp_path / "a.trx", "0" * 64)
    assert fault is not None
    assert fault.startswith("trx-python cannot read a.trx: ")

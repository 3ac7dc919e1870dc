"""Damaged files for every reader: samples, mutations, and what reads them."""

from __future__ import annotations

import gzip
import json
import random
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bids_tractography.config.load import load_config, translate_config
from bids_tractography.config.model import GradientsConfig
from bids_tractography.core.gradients import GradientFiles, read_gradients
from bids_tractography.core.images import Grid, header_warnings, read_image
from bids_tractography.core.seeding import read_given_seeds
from bids_tractography.core.tissue import label_table
from bids_tractography.inputs.bidsignore import read_bidsignore
from bids_tractography.inputs.datasets import read_dataset
from bids_tractography.inputs.filters import read_filters
from bids_tractography.outputs.files import read_json
from bids_tractography.reconst.responses import read_responses
from bids_tractography.tractogram.base import Piece
from bids_tractography.tractogram.formats.table import WRITERS
from bids_tractography.tractogram.imported import check_tractogram

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
GRID = Grid((6, 7, 8), AFFINE)

_CONFIG = """\
model: {sh_order: 6, response: {kind: given, eigenvalues_mm2_s: [1.7e-3, 3e-4, 3e-4], s0: 9}}
stopping: {kind: binary, mask: &mask {kind: labels, path: /a/b.nii.gz, include: [1, 2]}}
seeding: {mask: *mask, seeds: {kind: total, count: 1000}, rng_seed: 7}
tracking: {algorithm: prob, min_length_mm: 20, max_length_mm: !!float 250, dead_ends: !!str drop}
"""
_PYAFQ = """\
[TRACTOGRAPHY_PARAMS]
odf_model = "ImageFile('/a/fod.nii.gz')"
n_seeds = 2
step_size = 0.5
seed_mask = "ScalarImage('dti_fa')"
"""


@dataclass(frozen=True)
class Kind:
    """A kind of file: the name it goes by, a sound content, and what reads it."""

    name: str
    content: bytes = field(repr=False)
    read: Callable[[Path], Any] = field(repr=False)


def kinds(folder: Path) -> dict[str, Kind]:
    """Make samples of all kinds of files that are read."""
    folder.mkdir(exist_ok=True)
    return {kind.name: kind for kind in [*_images(folder), *_tractograms(folder), *_texts()]}


def _images(folder: Path) -> list[Kind]:
    rng = np.random.default_rng(0)
    three, four = rng.integers(0, 900, (6, 7, 8)), rng.integers(0, 900, (6, 7, 8, 4))
    scaled = nib.Nifti1Image(four.astype(np.int16), AFFINE)
    scaled.header.set_slope_inter(0.5, 3)
    images: Mapping[str, tuple[Any, int]] = {
        "mask.nii": (nib.Nifti1Image((three > 400).astype(np.uint8), AFFINE), 3),
        "mask.nii.gz": (nib.Nifti1Image((three > 400).astype(np.uint8), AFFINE), 3),
        "dwi.nii": (nib.Nifti1Image(four.astype(np.float32), AFFINE), 4),
        "dwi.nii.gz": (scaled, 4),
        "two.nii.gz": (nib.Nifti2Image(four.astype(np.float64), AFFINE), 4),
    }
    found = []
    for name, (image, ndim) in images.items():
        nib.save(image, folder / name)
        found.append(Kind(name, (folder / name).read_bytes(), _image_reader(ndim)))
    return found


def _image_reader(ndim: int) -> Callable[[Path], Any]:
    def read(path: Path) -> Any:
        header_warnings(path)
        return read_image(path, ndim=ndim).data

    return read


@dataclass(frozen=True)
class _Streamlines:
    points: Any
    counts: Any

    @property
    def n_streamlines(self) -> int:
        return len(self.counts)

    @property
    def n_points(self) -> int:
        return len(self.points)

    def streamlines(self) -> Iterator[Piece]:
        yield self.points, self.counts

    def lengths(self) -> Iterator[Any]:
        yield self.counts


def _tractograms(folder: Path) -> list[Kind]:
    rng = np.random.default_rng(1)
    counts = np.array([5, 1, 12, 30], np.uint32)
    points = rng.uniform(1, 9, (int(counts.sum()), 3)).astype(np.float32)
    tractogram = _Streamlines(points, counts)
    found = []
    for name, write in WRITERS.items():
        path = folder / f"a.{name}"
        write(path, tractogram, GRID)
        content = path.read_bytes()
        found.append(Kind(f"a.{name}", content, lambda p: check_tractogram(p, GRID)))
        if name != "trx":
            packed = gzip.compress(content, mtime=0)
            found.append(Kind(f"a.{name}.gz", packed, lambda p: check_tractogram(p, GRID)))
    return found


def _texts() -> list[Kind]:
    table = b"1 2.5 3\n4 5 6\n7 8 9\n"
    array = np.array([[3.0, 4, 5], [6, 7, 8]])
    npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118)
    header = repr({"descr": "<f8", "fortran_order": False, "shape": array.shape})
    npy += header.ljust(117).encode() + b"\n" + array.tobytes()
    description = {"Name": "n", "BIDSVersion": "1.10.0", "GeneratedBy": [{"Name": "q"}]}
    filters = {"dwi": {"acquisition": "x", "run": [1, None, "*"]}}
    config = {"model": "csd", "tracking": {"min_length_mm": 10, "algorithm": {"kind": "det"}}}
    return [
        Kind("dwi.bval", b"0 1000 1000 1000\n", lambda p: _gradients(bval=p)),
        Kind("dwi.bvec", b"0 1 0 0\n0 0 1 0\n0 0 0 1\n", lambda p: _gradients(bvec=p)),
        Kind("dwi.b", b"0 0 0 0\n1 0 0 1000\n0 1 0 1000\n0 0 1 1000\n", lambda p: _gradients(b=p)),
        Kind("seeds.txt", table, lambda p: read_given_seeds(p, GRID)),
        Kind("seeds.npy", npy, lambda p: read_given_seeds(p, GRID)),
        Kind("response.txt", b"900 -200 50\n400 -100 9\n", _response),
        Kind("config.yaml", _CONFIG.encode(), load_config),
        Kind("config.json", json.dumps(config).encode(), load_config),
        Kind("pyafq.toml", _PYAFQ.encode(), translate_config),
        Kind("filters.json", json.dumps(filters).encode(), read_filters),
        Kind("sidecar.json", json.dumps(description).encode(), read_json),
        Kind("dataset_description.json", json.dumps(description).encode(), _dataset),
        Kind("participants.tsv", b"participant_id\tage\nsub-01\t30\n", _participant),
        Kind(".bidsignore", b"*_xfm.*\n!a\n[b\n", lambda p: read_bidsignore(p.parent)),
        Kind("dseg.tsv", b"index\tname\n1\tgrey matter\n2\twhite matter\n3\tcsf\n", _labels),
    ]


def _gradients(**given: Path) -> Any:
    folder = next(iter(given.values())).parent / "sound"
    folder.mkdir(exist_ok=True)
    (folder / "bval").write_text("0 1000 1000 1000\n")
    (folder / "bvec").write_text("0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    bval, bvec = given.get("bval", folder / "bval"), given.get("bvec", folder / "bvec")
    files = GradientFiles(bval, bvec, given.get("b"))
    return read_gradients(files, GRID, 4, GradientsConfig())


def _response(path: Path) -> Any:
    return read_responses({"wm": path}, 1)


def _dataset(path: Path) -> Any:
    return read_dataset("d", path.parent).generated_by


def _participant(path: Path) -> Any:
    (path.parent / "dataset_description.json").write_text('{"Name": "n", "BIDSVersion": "1"}')
    return read_dataset("d", path.parent).participant("01")


def _labels(path: Path) -> Any:
    return label_table(path.with_name("dseg.nii.gz"))


_EXTREMES = (0, 1, -1, 0x7F, 0x7FFF, -0x8000, 0x7FFFFFFF, -0x80000000)
_REALS = (0.0, -1.0, 1e38, -1e38, 1e-42, float("nan"), float("inf"))
_WORDS = (
    *(b"NaN", b"-Infinity", b"1e400", b"1e-400", b"9" * 5000, b"-1", b'"\\ud800"', b"\xed\xa0\x80"),
    *(b"\0", b"\xff\xfe", b"[" * 3000, b'{"a":' * 3000, b"!!timestamp x", b"!!bool x", b"!!int ''"),
    *(b"!!float ''", b"!!binary x", b"!!python/name:os.system", b"&a [*a]", b"*mask", b"<<: *mask"),
    *(b"0x" + b"f" * 5000, b"null", b"~", b"2001-99-99", b"1:99:99", b"(" * 300, b"true", b"''"),
)


def mutated(content: bytes, draw: random.Random) -> bytes:
    """Damage a content in one of the ways in which files are damaged, or attacked."""
    data = bytearray(content or b"x")
    place = draw.randrange(len(data))
    match draw.randrange(8):
        case 0:
            for _ in range(draw.choice((1, 1, 1, 4))):
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        case 1:
            del data[place:]
        case 2:
            data[place : place + draw.randrange(1, 64)] = draw.randbytes(draw.randrange(64))
        case 3:
            code, value = draw.choice("hi"), draw.choice(_EXTREMES)
            value = max(min(value, 0x7FFF), -0x8000) if code == "h" else value
            data[place : place + struct.calcsize(code)] = struct.pack("<" + code, value)
        case 4:
            data[place : place + 4] = struct.pack("<f", draw.choice(_REALS))
        case 5:
            data[place:place] = draw.choice(_WORDS)
        case 6:
            end = place + draw.randrange(1, 40)
            data[place:end] = draw.choice(_WORDS)
        case _:
            data[place:place] = data[place : place + draw.randrange(1, 400)] * draw.randrange(1, 9)
    return bytes(data)


def damaged(kind: Kind, draw: random.Random) -> bytes:
    """Damage a file; of a compressed one often the content, under a sound checksum."""
    if kind.name.endswith(".gz") and draw.random() < 0.6:
        return gzip.compress(_headers(gzip.decompress(kind.content), draw), 1, mtime=0)
    content = kind.content
    for _ in range(draw.choice((1, 1, 2, 3))):
        content = _headers(content, draw)
    return content


def _headers(content: bytes, draw: random.Random) -> bytes:
    """Damage a content, the first part of it as often as the rest."""
    if draw.random() < 0.5 and len(content) > 1000:
        return mutated(content[:1000], draw) + content[1000:]
    return mutated(content, draw)

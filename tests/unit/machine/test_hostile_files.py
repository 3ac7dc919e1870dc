"""Nothing damaged is trusted: every reader refuses what it cannot read, at once and in little."""

from __future__ import annotations

import gzip
import io
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from hostile import GRID, Kind, damaged, kinds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bids_tractography.config.load import load_config
from bids_tractography.core.images import read_image
from bids_tractography.errors import (
    ChangedError,
    ConfigError,
    DataError,
    NoInputError,
    OutputError,
    TractographyError,
)
from bids_tractography.inputs.bidsignore import read_bidsignore
from bids_tractography.machine.files import check_file, check_unchanged, open_input, unchanged
from bids_tractography.outputs.dataset import write_dataset_files
from bids_tractography.outputs.files import read_json
from bids_tractography.outputs.names import sidecar_path
from bids_tractography.outputs.provenance import Fingerprint, sha256_of_file
from bids_tractography.outputs.run import why_stale
from bids_tractography.tractogram.imported import check_tractogram

NAMES = (
    *("mask.nii", "mask.nii.gz", "dwi.nii", "dwi.nii.gz", "two.nii.gz"),
    *("a.trx", "a.tck", "a.tck.gz", "a.trk", "a.trk.gz"),
    *("dwi.bval", "dwi.bvec", "dwi.b", "seeds.txt", "seeds.npy", "response.txt"),
    *("config.yaml", "config.json", "pyafq.toml", "filters.json", "sidecar.json"),
    *("dataset_description.json", "participants.tsv", ".bidsignore", "dseg.tsv"),
)
LENIENT = {"sidecar.json", "participants.tsv", ".bidsignore", "dseg.tsv"}
"""What may be missing: whatever is wrong with it counts as if it were not there."""


def _exit_code(read: Callable[[], Any]) -> int:
    try:
        read()
    except TractographyError as error:
        return error.exit_code
    return 0


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kind]:
    return kinds(tmp_path_factory.mktemp("samples"))


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    """A reader that waits is interrupted."""

    def stop(*_: Any) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_every_sample_is_read_as_it_is(tmp_path: Path, samples: dict[str, Kind]) -> None:
    assert tuple(samples) == NAMES
    for kind in samples.values():
        path = tmp_path / kind.name
        path.write_bytes(kind.content)
        kind.read(path)
        path.unlink()


@pytest.mark.parametrize("name", NAMES)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 2**32))
def test_damaged_files_are_read_or_refused(
    tmp_path: Path, samples: dict[str, Kind], name: str, seed: int
) -> None:
    path = tmp_path / name
    path.write_bytes(damaged(samples[name], random.Random(seed)))
    assert _exit_code(lambda: samples[name].read(path)) in (0, 16, 64, 65, 66, 78)


@pytest.mark.parametrize("name", ["mask.nii.gz", "a.tck.gz", "a.trk.gz", "a.trx"])
def test_no_flipped_bit_changes_a_value_without_an_error(
    tmp_path: Path, samples: dict[str, Kind], name: str
) -> None:
    def value(path: Path) -> Any:
        found = samples[name].read(path)
        return found.tobytes() if isinstance(found, np.ndarray) else found.content_sha256

    path, content = tmp_path / name, samples[name].content
    path.write_bytes(content)
    sound = value(path)
    bits = range(8 * len(content))
    for bit in bits if name == "mask.nii.gz" else random.Random(1).sample(bits, 300):
        data = bytearray(content)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        found: list[Any] = []
        assert _exit_code(lambda: found.append(value(path))) in (0, 65), bit  # noqa: B023
        assert found in ([], [sound]), bit


def test_all_members_of_a_gzip_file_are_read_and_garbage_after_them_is_refused(
    tmp_path: Path, samples: dict[str, Kind]
) -> None:
    plain = samples["mask.nii"].content
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(plain[:500]) + gzip.compress(plain[500:]) + bytes(512))
    expected = samples["mask.nii"].read
    (tmp_path / "a.nii").write_bytes(plain)
    assert np.array_equal(read_image(path, ndim=3).data, expected(tmp_path / "a.nii"))
    path.write_bytes(gzip.compress(plain) + b"garbage")
    with pytest.raises(DataError, match=r"a\.nii\.gz cannot be read"):
        read_image(path, ndim=3)


def _make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


STRANGE: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "terminal": lambda path: path.symlink_to("/dev/tty"),
    "socket": _make_socket,
    "loop": lambda path: path.symlink_to(path.name),
    "nowhere": lambda path: path.symlink_to(".git/annex/objects/x"),
    "pointer": lambda path: path.write_text("/annex/objects/MD5E-s1--0\n"),
}


@pytest.mark.parametrize("how", STRANGE)
@pytest.mark.parametrize("name", NAMES)
def test_only_regular_files_are_opened(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    samples: dict[str, Kind],
    name: str,
    how: str,
) -> None:
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    path = tmp_path / name
    STRANGE[how](path)
    if name in LENIENT and (name, how) != ("dseg.tsv", "pointer"):
        samples[name].read(path)
    else:
        with pytest.raises(TractographyError) as error:
            samples[name].read(path)
        assert error.value.exit_code in (16, 66)


@pytest.mark.parametrize("name", ["a" * 5000, "a/" * 2500 + "a", "a\0b"])
def test_paths_that_cannot_be_are_no_input(name: str) -> None:
    with pytest.raises(NoInputError) as error:
        check_file(Path("/tmp") / name, "key")
    assert len(str(error.value)) < 1500


# Sizes


BOMB = """
import gzip, json, resource, struct, sys, zipfile
from pathlib import Path
import numpy as np
from hostile import GRID, kinds
from bids_tractography.errors import TractographyError
from bids_tractography.core.images import read_image
from bids_tractography.core.seeding import read_given_seeds
from bids_tractography.tractogram.imported import check_tractogram

folder = Path(sys.argv[1])
samples = kinds(folder / "samples")


def image(name, shape, **fields):
    data = bytearray(samples[name].content)
    if name.endswith(".gz"):
        data = bytearray(gzip.decompress(data))
    data[40:40 + 2 * (1 + len(shape))] = struct.pack(f"<{1 + len(shape)}h", len(shape), *shape)
    return gzip.compress(bytes(data)) if name.endswith(".gz") else bytes(data)


def trx(**changes):
    path = folder / "made.trx"
    with zipfile.ZipFile(folder / "samples" / "a.trx") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = json.loads(members["header.json"]) | changes
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**members, "header.json": json.dumps(header).encode()}.items():
            archive.writestr(name, content)
    return path.read_bytes()


def trx_header():
    path = folder / "made.trx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("header.json", "w", force_zip64=True) as member:
            for _ in range(8):
                member.write(b" " * (1 << 24))
    return path.read_bytes()


def trk():
    data = bytearray(samples["a.trk"].content)
    data[36:38] = data[238:240] = struct.pack("<h", 32767)
    data[1000:1004] = struct.pack("<i", 4_000_000)
    return bytes(data)


def npy():
    header = repr({"descr": "<f8", "fortran_order": False, "shape": (1 << 50, 3)})
    return b"\\x93NUMPY\\x01\\x00" + struct.pack("<H", 118) + header.ljust(117).encode() + b"\\n"


padded = np.zeros((1 << 25), np.uint8).tobytes()
cases = {
    "a.nii": (image("mask.nii", (32767, 32767, 32767)), lambda p: read_image(p, ndim=3)),
    "b.nii": (image("mask.nii", (0, 7, 8)), lambda p: read_image(p, ndim=3)),
    "c.nii": (image("mask.nii", (-6, 7, 8)), lambda p: read_image(p, ndim=3)),
    "a.nii.gz": (image("mask.nii.gz", (32767, 32767, 32767)), lambda p: read_image(p, ndim=3)),
    "b.nii.gz": (
        gzip.compress(gzip.decompress(image("mask.nii.gz", (500, 500, 500))) + padded, 1),
        lambda p: read_image(p, ndim=3),
    ),
    "header.trx": (trx_header(), lambda p: check_tractogram(p, GRID)),
    "many.trx": (trx(NB_STREAMLINES=10**15), lambda p: check_tractogram(p, GRID)),
    "huge.trx": (trx(NB_VERTICES=10**40), lambda p: check_tractogram(p, GRID)),
    "inf.trx": (trx(NB_VERTICES=float("inf")), lambda p: check_tractogram(p, GRID)),
    "a.tck.gz": (
        gzip.compress(b"mrtrix tracks\\n" + b"x: y\\n" * (1 << 22), 1),
        lambda p: check_tractogram(p, GRID),
    ),
    "b.tck.gz": (
        gzip.compress(b"mrtrix tracks\\n" + b" " * (1 << 25), 1),
        lambda p: check_tractogram(p, GRID),
    ),
    "a.trk": (trk(), lambda p: check_tractogram(p, GRID)),
    "a.trk.gz": (gzip.compress(trk()), lambda p: check_tractogram(p, GRID)),
    "a.npy": (npy(), lambda p: read_given_seeds(p, GRID)),
}
del padded
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + (200 << 20),) * 2)
for name, (content, read) in cases.items():
    path = folder / name
    path.write_bytes(content)
    try:
        read(path)
        print(name, "read")
    except TractographyError as error:
        print(name, error.exit_code, name in str(error))
    except BaseException as error:
        print(name, repr(error))
"""


@pytest.mark.slow
def test_sizes_that_a_file_cannot_hold_are_refused_in_little_memory(tmp_path: Path) -> None:
    begin = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    ended = subprocess.run(
        [sys.executable, "-c", BOMB, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), *sys.path])},
    )
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert len(lines) == 14
    assert [line for line in lines if not line.endswith(" 65 True")] == []
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - begin < 40


def test_a_member_of_a_trx_that_its_compressed_size_does_not_allow_is_refused(
    tmp_path: Path, samples: dict[str, Kind]
) -> None:
    with zipfile.ZipFile(io.BytesIO(samples["a.trx"].content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["dpv/x.float32"] = bytes(4 * 10**7)
    with zipfile.ZipFile(tmp_path / "a.trx", "w", zipfile.ZIP_BZIP2) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(DataError, match=r"a\.trx cannot be read: its member dpv/x\.float32"):
        check_tractogram(tmp_path / "a.trx", GRID)


def test_a_changed_bit_in_values_that_are_copied_only_is_found(
    tmp_path: Path, samples: dict[str, Kind]
) -> None:
    with zipfile.ZipFile(io.BytesIO(samples["a.trx"].content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["dps/weight.float32"] = b"WXYZ" * 4
    with zipfile.ZipFile(tmp_path / "a.trx", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    content = (tmp_path / "a.trx").read_bytes()
    check_tractogram(tmp_path / "a.trx", GRID)
    (tmp_path / "a.trx").write_bytes(content.replace(b"WXYZW", b"WXYZV"))
    with pytest.raises(DataError, match="CRC"):
        check_tractogram(tmp_path / "a.trx", GRID)


# Text


def bomb(width: int = 9, depth: int = 9) -> str:
    lines = ["a0: &a0 [" + ", ".join(["lol"] * width) + "]"]
    lines += [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * width) + "]" for n in range(1, depth)]
    return "\n".join(lines)


TEXTS = {
    "bomb.yaml": bomb(),
    "known.yaml": "tracking:\n" + "\n".join(f"  {line}" for line in bomb().splitlines()),
    "merge.yaml": "a0: &a0 {x: 1}\n"
    + "\n".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 12)),
    "long.yaml": f"a: &a {'x' * 90_000}\nmodel: [{', '.join(['*a'] * 900)}]\n",
    "itself.yaml": "model: &a [*a]\n",
    "deep.yaml": "model: " + "[" * 3000,
    "nested.yaml": "model: " + "[" * 200 + "]" * 200,
    "deep.json": '{"model": ' + "[" * 100_000,
    "nested.json": '{"model": ' + "[" * 500 + "]" * 500 + "}",
    "deep.toml": "model = " + "[" * 100_000,
    "dotted.toml": "model" + ".a" * 5000 + " = 1",
    "nots.json": '{"seeding": {"mask": ' + '{"kind": "not", "of": ' * 200 + '"full"' + "}" * 202,
    "timestamp.yaml": "model: !!timestamp x",
    "bool.yaml": "model: !!bool x",
    "int.yaml": "model: !!int ''",
    "float.yaml": "model: !!float x",
    "binary.yaml": "model: !!binary '='",
    "set.yaml": "model: !!set {a, b}",
    "python.yaml": "model: !!python/object/apply:os.system [ls]",
    "digits.yaml": "seeding: {rng_seed: 0x" + "f" * 90_000 + "}",
    "digits.json": '{"seeding": {"rng_seed": ' + "9" * 9000 + "}}",
    "real.yaml": "tracking: {min_length_mm: 1e999}",
    "keys.json": "{" + ", ".join(f'"k{n}": 1' for n in range(20_000)) + "}",
    "key.json": '{"' + "k" * 500_000 + '": 1}',
    "kind.json": '{"model": "' + "k" * 500_000 + '"}',
    "path.json": '{"import_tract": {"path": "' + "k" * 500_000 + '", "filters": {}}}',
    "surrogate.json": '{"model": "\\ud800"}',
    "large.yaml": "#" * (1 << 21),
}


@pytest.mark.parametrize("name", TEXTS)
def test_hostile_configurations_are_faults_with_a_short_message(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(TEXTS[name])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert error.value.exit_code == 78
    assert name in str(error.value)
    assert len(str(error.value)) < 20_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024
    str(error.value).encode(errors="surrogateescape" if name != "surrogate.json" else "replace")


@pytest.mark.parametrize("value", ["!!timestamp x", "!!bool x", "!!int ''", "[" * 3000, "&a [*a]"])
def test_hostile_overrides_are_faults(value: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(None, [f"model={value}"])
    assert len(str(error.value)) < 2000


@pytest.mark.parametrize("value", ["NaN", '"\\ud800"', "[" * 200 + "]" * 200])
@pytest.mark.parametrize("name", ["dataset_description.json", "filters.json"])
def test_json_that_cannot_be_written_again_is_refused(
    tmp_path: Path, samples: dict[str, Kind], name: str, value: str
) -> None:
    content = samples[name].content.decode()
    (tmp_path / name).write_text(content.replace("{", f'{{"x": {value}, ', 1))
    with pytest.raises(TractographyError, match="is not valid JSON") as error:
        samples[name].read(tmp_path / name)
    assert name in str(error.value)


# What was hashed is what is read


def test_a_file_that_is_replaced_after_hashing_is_not_read(tmp_path: Path) -> None:
    path, other = tmp_path / "a.bval", tmp_path / "other"
    path.write_text("0 1")
    other.write_text("0 2")
    with unchanged([path]):
        sha256_of_file(path)
        path.rename(tmp_path / "aside")
        other.rename(path)
        with pytest.raises(ChangedError, match=r"a\.bval was changed") as error, open_input(path):
            pass
        assert error.value.exit_code == 75
        with pytest.raises(ChangedError):
            check_unchanged()
        path.rename(other)
        (tmp_path / "aside").rename(path)
        check_unchanged()
    with open_input(path) as file:  # outside of the block nothing is compared
        assert file.read() == b"0 1"


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.bval"
    path.write_text("0 1")
    with pytest.raises(ChangedError), open_input(path):
        path.write_text("0 1 2")


def test_a_pattern_of_bidsignore_that_cannot_be_compiled_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / ".bidsignore").write_bytes(b"[z-a]\n[\xd0-f]\n*_dwi.json\n")
    assert [p.pattern for p in read_bidsignore(tmp_path).patterns.patterns][-1] == "*_dwi.json"


def test_pipes_in_the_output_are_not_waited_for(tmp_path: Path) -> None:
    image = tmp_path / "sub-01_desc-brain_mask.nii.gz"
    image.touch()
    os.mkfifo(sidecar_path(image))
    fingerprint = Fingerprint(inputs="", config="", software="")
    assert why_stale(image, fingerprint) == "it is incomplete or was not written by this program"
    assert read_json(sidecar_path(image)) == {}
    image.unlink()
    os.mkfifo(image)
    assert why_stale(image, fingerprint)
    os.mkfifo(tmp_path / "dataset_description.json")
    with pytest.raises(OutputError, match="not a regular file"):
        write_dataset_files(tmp_path, {}, [], None)

"""Array jobs, and many processes that write one output folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, tractograms

SCRIPT = ROOT / "docs" / "clusters" / "slurm-array.sh"


def array(dataset: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "BIDS_DIR": str(dataset),
        "OUTPUT_DIR": str(dataset.parent / "out"),
        "TMPDIR": str(dataset.parent),
        **variables,
    }
    return subprocess.run(
        [str(SCRIPT), *words], env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def study(tmp_path: Path) -> Path:
    for label in ("01", "02", "10", "xa30"):
        folder = tmp_path / "study" / f"sub-{label}" / ("ses-1/dwi" if label == "10" else "dwi")
        folder.mkdir(parents=True)
        (folder / f"sub-{label}_dwi.nii.gz").touch()
    (tmp_path / "study" / "sub-03" / "anat").mkdir(parents=True)  # a participant without DWI
    (tmp_path / "study" / "sub-list.txt").touch()
    return tmp_path / "study"


def test_the_array_has_one_task_a_participant(study: Path) -> None:
    assert array(study, "count").stdout == "4\n"
    lines = []
    for task in range(1, 5):
        told = array(study, DRY_RUN="1", SLURM_ARRAY_TASK_ID=str(task), SLURM_CPUS_PER_TASK="8")
        assert told.returncode == 0, told.stderr
        lines.append(told.stdout.split())
    assert [line[line.index("--participant-label") + 1] for line in lines] == [
        "sub-01",
        "sub-02",
        "sub-10",
        "sub-xa30",
    ]
    assert all(line[line.index("--nprocs") + 1] == "8" for line in lines)
    outside = array(study, DRY_RUN="1", SLURM_ARRAY_TASK_ID="5")
    assert outside.returncode == 64
    assert "no participant 5" in outside.stderr


def test_a_task_runs_the_image_on_a_scratch_folder_that_goes_with_it(study: Path) -> None:
    # In place of Apptainer: it notes what it was asked for, and fails when told to.
    programs = study.parent / "bin"
    programs.mkdir()
    (programs / "apptainer").write_text(
        '#!/bin/bash\nprintf \'%s\\n\' "$@" > "$OUTPUT_DIR/asked"\nexit ${FAILS:-0}\n'
    )
    (programs / "apptainer").chmod(0o755)
    variables = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "SLURM_ARRAY_TASK_ID": "2",
        "OPTIONS": "--set seeding.rng_seed=1",
        "BINDS": "/data/qsiprep /data/tracking.yaml",
    }
    for code in (0, 65):
        told = array(study, FAILS=str(code), **variables)
        assert told.returncode == code
        assert not list(study.parent.glob("tractography-*"))
    asked = (study.parent / "out" / "asked").read_text().splitlines()
    (mounts,) = [asked[i + 1] for i, word in enumerate(asked) if word == "-B"]
    assert mounts.startswith(f"{study}:/data:ro,{study.parent}/out:/out,{study.parent}/tractogr")
    assert mounts.endswith(
        ":/work,/data/qsiprep:/data/qsiprep:ro,/data/tracking.yaml:/data/tracking.yaml:ro"
    )
    assert asked[asked.index("/data") :] == [
        *("/data", "/out", "participant", "--participant-label", "sub-02"),
        *("--work-dir", "/work", "--nprocs", "1", "--set", "seeding.rng_seed=1"),
    ]
    assert array(study, "group", **variables).returncode == 0
    asked = (study.parent / "out" / "asked").read_text().splitlines()
    assert asked[asked.index("/data") :] == ["/data", "/out", "group"]


# One process imports the program, and becomes many: what costs most is done once.
FORKS = """
import json, os, sys
from bids_tractography.cli.main import main
children = []
for words in json.load(sys.stdin):
    child = os.fork()
    if child == 0:
        os._exit(main(words))
    children.append(child)
print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(c, 0)[1]) for c in children]))
"""


def at_once(commands: list[list[str]]) -> list[int]:
    """Run commands, each in a process of its own; return their exit codes."""
    told = subprocess.run(
        [sys.executable, "-c", FORKS],
        input=json.dumps(commands),
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return list(json.loads(told.stdout.splitlines()[-1]))


@pytest.mark.slow
def test_twenty_processes_write_one_output_folder_at_once(dataset: Path, tmp_path: Path) -> None:
    labels = [f"{number:02d}" for number in range(1, 21)]
    for label in labels[1:]:
        folder = dataset / f"sub-{label}" / "dwi"
        folder.mkdir(parents=True)
        for path in (dataset / "sub-01" / "dwi").iterdir():
            (folder / path.name.replace("sub-01", f"sub-{label}")).hardlink_to(path)
    output = tmp_path / "output"
    options = (
        *("--omp-nthreads", "1", "--set", "seeding.rng_seed=3", "--set", "model.kind=tensor"),
        *("--set", "seeding.seeds={kind: total, count: 40}", "--set", "tracking.min_length_mm=0"),
        *("--set", "tracking.engine=dipy"),
    )
    participants = [["participant", "--participant-label", label, *options] for label in labels]
    assert at_once([[str(dataset), str(output), *words] for words in participants]) == [0] * 20
    assert len(tractograms(output)) == 20
    # Each makes a table of what is there while the others do the same.
    assert at_once([[str(dataset), str(output), "group"]] * 4) == [0] * 4
    header, *rows = (output / "group_tractograms.tsv").read_text().splitlines()
    assert [row.split("\t")[0] for row in rows] == [f"sub-{label}" for label in labels]
    column = header.split("\t").index("content_sha256")
    assert len({row.split("\t")[column] for row in rows}) == 1  # the same head
    assert not list(output.rglob("*.lock"))
    assert not list(output.rglob(".tmp-*"))
    assert not list((output / ".work").iterdir())
    assert len(list((output / "logs").glob("*_participant.json"))) == 20
    description = json.loads((output / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    validator = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent))
    if validator is None:
        pytest.skip("bids-validator-deno is not installed")
    checked = subprocess.run(
        [validator, "--ignoreWarnings", str(output)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout

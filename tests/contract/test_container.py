"""What an image says of itself, and where that ends up."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from bids_tractography.machine.container import RECORD, describe_container
from bids_tractography.outputs.dataset import write_dataset_files

IMAGE = {
    "Type": "docker",
    "Tag": "bids-tractography:0.1.0",
    "Version": "0.1.0",
    "Revision": "0123abc",
    "Packages": "dipy 1.12.1, numpy 2.4.6",
}


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    (tmp_path / RECORD).write_text(json.dumps(IMAGE))
    return tmp_path


def test_outside_an_image_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert describe_container({}, tmp_path) is None
    assert describe_container({"APPTAINER_CONTAINER": "/images/other.sif"}, tmp_path) is None


def test_an_image_says_what_it_is(prefix: Path) -> None:
    assert describe_container({}, prefix) == IMAGE
    inside = describe_container({"APPTAINER_CONTAINER": "/images/app.sif"}, prefix)
    assert inside == IMAGE | {"Type": "singularity"}


def test_who_starts_an_image_may_name_it(prefix: Path, tmp_path: Path) -> None:
    named = {"BIDS_TRACTOGRAPHY_DOCKER_TAG": "lab/tracto:7"}
    assert describe_container(named, prefix) == IMAGE | {"Tag": "lab/tracto:7"}
    url = {"BIDS_TRACTOGRAPHY_SINGULARITY_URL": "library://lab/tracto:7"}
    described = describe_container(url, tmp_path / "none")
    assert described == {"Type": "singularity", "URI": "library://lab/tracto:7"}


def test_a_dataset_made_in_an_image_is_valid_and_names_it(prefix: Path, tmp_path: Path) -> None:
    root = tmp_path / "output"
    root.mkdir()
    write_dataset_files(root, {"raw": tmp_path}, [], describe_container({}, prefix))
    description = json.loads((root / "dataset_description.json").read_text())
    assert description["GeneratedBy"][0]["Container"] == IMAGE
    validator = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent))
    if validator is None:
        pytest.skip("bids-validator-deno is not installed")
    checked = subprocess.run(
        [validator, "--ignoreWarnings", "--format", "json", root],
        capture_output=True,
        text=True,
        check=False,
    )
    issues = json.loads(checked.stdout)["issues"]["issues"]
    assert not [issue for issue in issues if issue.get("location") == "/dataset_description.json"]


@pytest.mark.slow
def test_a_user_that_the_system_does_not_know_can_run_it_without_a_home() -> None:
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("root and setpriv are needed to be somebody else")
    nobody = ("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", "--inh-caps=-all")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    command = [*nobody, sys.executable, "-B"]
    if subprocess.run([*command, "-c", "import nibabel"], env=environment, check=False).returncode:
        pytest.skip("this installation cannot be read by others")
    told = subprocess.run(
        [*command, "-m", "bids_tractography", "--version"],
        cwd="/",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("bids-tractography ")

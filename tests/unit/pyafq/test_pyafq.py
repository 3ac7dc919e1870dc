"""Configurations in pyAFQ's terms: what each becomes, and what is refused by name."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from bids_tractography.cli.main import main
from bids_tractography.config import Config
from bids_tractography.config.load import load_config
from bids_tractography.errors import ConfigError
from bids_tractography.pyafq.images import DEFINITIONS, PARAMETERS
from bids_tractography.pyafq.translate import is_pyafq, translate


def translated(**tracking: Any) -> dict[str, Any]:
    """The translation of tracking parameters, which has to be valid."""
    config = translate(tracking or {"tracking_params": {}}).config
    Config.model_validate(config)
    return config


def notes(**tracking: Any) -> str:
    return "\n".join(translate(tracking).notes)


def faults(**tracking: Any) -> dict[str, str]:
    with pytest.raises(ConfigError) as error:
        translate(tracking)
    lines = [line.strip() for line in error.value.message.splitlines() if line.startswith("  ")]
    return dict(line.split(": ", 1) for line in lines)


# The whole


EXAMPLE = """
title = "My AFQ analysis"
[BIDS_PARAMS]
bids_path = "/data/ds"
parallel_params = "{'engine': 'serial'}"
participant_labels = ""
[TRACTOGRAPHY_PARAMS]
directions = "det"
max_angle = 40.0
sphere = ""
seed_mask = "ScalarImage('dti_fa')"
seed_threshold = 0.1
n_seeds = 2
random_seeds = false
rng_seed = 7
stop_mask = ""
stop_threshold = 0
step_size = 0.25
min_length = 20
max_length = 200
odf_model = "CSD"
tracker = "local"
[SEGMENTATION_PARAMS]
seg_algo = "AFQ"
[DATA]
sphere = "repulsion100"
b0_threshold = 60
csd_response = "((0.0015, 0.0003, 0.0003), 400.0)"
csd_sh_order = 6
csd_tau = 0.2
[SEGMENTATION]
scalars = "['dti_md', 'dti_fa']"
[TRACTOGRAPHY]
import_tract = ""
"""


def test_a_file_of_pyafq_is_taken_as_a_configuration(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "afq.toml"
    path.write_text(EXAMPLE)
    with caplog.at_level(logging.INFO, "bids_tractography"):
        config = load_config(path, ["tracking.min_length_mm=30"])
    expected = Config.model_validate(
        {
            "gradients": {"b0_threshold_s_mm2": 60},
            "model": {
                "kind": "csd",
                "sh_order": 6,
                "positivity_threshold": 0.2,
                "response": {
                    "kind": "given",
                    "eigenvalues_mm2_s": [0.0015, 0.0003, 0.0003],
                    "s0": 400,
                },
            },
            "seeding": {
                "mask": {"kind": "threshold", "map": "fa", "above": 0.1},
                "seeds": {"kind": "grid", "per_axis": 2},
                "rng_seed": 7,
            },
            "stopping": {"kind": "threshold", "map": "fa", "threshold": 0.2},
            "tracking": {
                "algorithm": {
                    "kind": "det",
                    "step_size_mm": 0.25,
                    "max_angle_deg": 40,
                    "pmf_threshold": 0.1,
                },
                "max_directions": 10,
                "min_length_mm": 30,
                "max_length_mm": 199.75,
            },
            "output": {"formats": ["trk"]},
        }
    )
    assert config == expected
    said = caplog.text
    assert "SEGMENTATION_PARAMS" in said
    assert "bids_path (BIDS_DIR)" in said
    assert "parallel_params (--nprocs)" in said
    assert "participant_labels" not in said


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_sections_arguments_and_bare_parameters_mean_the_same(tmp_path: Path, suffix: str) -> None:
    tracking = {"n_seeds": 5000, "random_seeds": True, "odf_model": "DTI", "seed_mask": None}
    configs = []
    for place, content in enumerate(
        (tracking, {"tracking_params": tracking}, {"TRACTOGRAPHY_PARAMS": tracking})
    ):
        path = tmp_path / f"{place}{suffix}"
        path.write_text(json.dumps(content))  # which is YAML too
        configs.append(load_config(path))
    assert configs[0] == configs[1] == configs[2]
    assert configs[0].model.kind == "tensor"
    assert configs[0].seeding.seeds.model_dump() == {"kind": "total", "count": 5000}


def test_the_defaults_are_those_of_the_generation() -> None:
    first = translated()
    assert first["seeding"] == {
        "mask": {"kind": "threshold", "map": "fa", "above": 0.2},
        "seeds": {"kind": "grid", "per_axis": 1},
    }
    assert first["tracking"]["max_length_mm"] == 249.5
    third = translated(jit_backend="numba")
    assert third["seeding"] == {
        "mask": {"kind": "interface"},
        "seeds": {"kind": "total", "count": 10_000_000},
    }
    white_matter = {"kind": "tissue", "tissue": "wm", "above": 0.4}
    assert third["stopping"] == {"kind": "binary", "mask": white_matter}
    assert third["tracking"]["max_length_mm"] == 499.5
    assert third["tracking"]["dead_ends"] == "keep"
    assert translated(directions="pft")["stopping"] == {"kind": "act"}


def test_our_own_configurations_are_left_alone() -> None:
    assert not is_pyafq({"tracking": {"step_size": 1}})
    assert not is_pyafq({"tracking": {}, "step_size": 1})
    assert not is_pyafq({"import_tract": "x.trk"})
    assert not is_pyafq({})
    assert is_pyafq({"step_size": 1})
    assert is_pyafq({"import_tract": "x.trk", "SEGMENTATION_PARAMS": {}})


# Seeds, lengths, thresholds


def test_lengths_count_points_as_pyafq_does() -> None:
    # 20 / 0.3 is 66.67: at least 66 points, which are 65 steps.
    lengths = translated(step_size=0.3, minlen=20, maxlen=100)["tracking"]
    assert lengths["min_length_mm"] == pytest.approx(65 * 0.3)
    assert lengths["max_length_mm"] == pytest.approx(332 * 0.3)
    assert "points" in notes(minlen=20)


def test_percentages_are_of_the_highest_values() -> None:
    config = translated(
        seed_mask="ScalarImage('dti_fa')",
        seed_threshold=30,
        stop_mask="ImageFile('/wm.nii.gz')",
        stop_threshold=60,
        thresholds_as_percentages=True,
    )
    assert config["seeding"]["mask"] == {
        "kind": "threshold",
        "map": "fa",
        "above": 70,
        "percentile": True,
    }
    assert config["stopping"]["threshold"] == 40
    assert config["stopping"]["percentile"] is True


def test_a_threshold_without_a_mask_is_overruled_as_in_pyafq() -> None:
    assert translated(seed_threshold=0.4)["seeding"]["mask"]["above"] == 0.2
    assert "seed_threshold has no effect" in notes(seed_threshold=0.4)


def test_the_first_scalar_with_fa_in_its_name_is_the_default_map() -> None:
    config = translated(scalars=["dti_md", "dti_fa"])
    assert config["seeding"]["mask"]["map"] == config["stopping"]["map"] == "fa"
    assert translated(scalars=["dti_md"])["stopping"]["map"] == "md"
    assert "dki_fa" in faults(scalars=["dki_fa", "dti_fa"])["seed_mask"]


# Definitions of images


FILE = {"path": "/x.nii.gz"}
BY_FILTERS = {"filters": {"suffix": "seg", "desc": "aseg"}, "scope": "qsiprep"}


@pytest.mark.parametrize(
    ("definition", "mask"),
    [
        ("FullImage()", {"kind": "full"}),
        ("B0Image()", {"kind": "brain"}),
        ("ImageFile('/x.nii.gz')", {"kind": "threshold", "map": FILE, "above": 0}),
        ("afm.ImageFile(path='/x.nii.gz')", {"kind": "threshold", "map": FILE, "above": 0}),
        (
            "ImageFile(suffix='seg', filters={'scope': 'qsiprep', 'desc': 'aseg'})",
            {"kind": "threshold", "map": BY_FILTERS, "above": 0},
        ),
        ("ScalarImage('dti_md')", {"kind": "threshold", "map": "md", "above": 0}),
        ("ScalarImage('wm_gm_interface')", {"kind": "interface"}),
        (
            "LabelledImageFile('/x.nii.gz', None, {}, [2, 41])",
            {"kind": "labels", **FILE, "include": [2, 41]},
        ),
        (
            "LabelledImageFile(suffix='seg', filters={'desc': 'aseg', 'scope': 'qsiprep'}, "
            "exclusive_labels=[0])",
            {"kind": "labels", **BY_FILTERS, "exclude": [0]},
        ),
        (
            "LabelledImageFile('/x.nii.gz', exclusive_labels=[4, 43], combine='and')",
            {"kind": "not", "of": {"kind": "labels", **FILE, "include": [4, 43]}},
        ),
        (
            "LabelledImageFile('/x.nii.gz', inclusive_labels=[2], exclusive_labels=[0])",
            {
                "kind": "any",
                "of": [
                    {"kind": "labels", **FILE, "include": [2]},
                    {"kind": "labels", **FILE, "exclude": [0]},
                ],
            },
        ),
        (
            "ThresholdedScalarImage('dti_fa', lower_bound=0.2, upper_bound=0.9)",
            {"kind": "threshold", "map": "fa", "above": 0.2, "below": 0.9},
        ),
        (
            "ThresholdedImageFile('/x.nii.gz', lower_bound=3, upper_bound=1, combine='or')",
            {
                "kind": "any",
                "of": [
                    {"kind": "threshold", "map": FILE, "above": 3},
                    {"kind": "threshold", "map": FILE, "below": 1},
                ],
            },
        ),
    ],
)
def test_definitions_become_masks(definition: str, mask: dict[str, Any]) -> None:
    assert translated(seed_mask=definition)["seeding"]["mask"] == mask


@pytest.mark.parametrize(
    ("definition", "why"),
    [
        ("RoiImage()", "regions"),
        ("TemplateImage('mni.nii.gz')", "template"),
        ("GQImage()", "GQImage"),
        ("ScalarImage('dki_mk')", "dki_mk"),
        ("ImageFile(sufix='seg')", "arguments path, suffix"),
        ("ImageFile('/x.nii.gz', path='/y.nii.gz')", "arguments"),
        ("FullImage(1)", "arguments (none)"),
        ("ImageFile()", "path or a suffix"),
        ("NoImage()", "NoImage"),
        ("ImageFile(__import__('os').system('touch hacked'))", "system"),
        ("ImageFile(open('x'))", "open"),
        ("ImageFile('/x.nii.gz'", "cannot be parsed"),
        ("LabelledImageFile('/x.nii.gz', exclusive_labels=[1, 2])", "combine='and'"),
        ("LabelledImageFile('/x.nii.gz', inclusive_labels=[1, 2], combine='and')", "combine='or'"),
        ("LabelledImageFile('/x.nii.gz')", "neither"),
        ("ThresholdedImageFile('/x.nii.gz', lower_bound=5, as_percentage=True)", "percent"),
        ("fa", "definition"),
        (3, "definition"),
    ],
)
def test_definitions_without_counterpart_are_named(definition: Any, why: str) -> None:
    assert why in faults(seed_mask=definition)["seed_mask"]


def test_every_definition_that_is_read_is_documented() -> None:
    assert set(DEFINITIONS) == set(PARAMETERS)


# Stopping


FRACTIONS = "ImageFile(suffix='WM'), ImageFile(suffix='GM'), ImageFile(suffix='CSF')"


@pytest.mark.parametrize("rule", ["CMC", "ACT"])
def test_particle_filtering_has_its_rule_and_its_fractions(rule: str) -> None:
    config = translated(tracker="pft", stop_mask=f"PFTImage({FRACTIONS})", stop_threshold=rule)
    assert config["tracking"]["algorithm"]["kind"] == "pft"
    assert config["stopping"] == {"kind": rule.lower()}
    assert config["tissue"] == {
        "kind": "files",
        "wm": {"filters": {"suffix": "WM"}},
        "gm": {"filters": {"suffix": "GM"}},
        "csf": {"filters": {"suffix": "CSF"}},
    }


def test_three_images_of_pyafq_3_are_in_another_order() -> None:
    order = "ImageFile(suffix='CSF'), ImageFile(suffix='GM'), ImageFile(suffix='WM')"
    tissue = translated(pve=f"PVEImages({order})")["tissue"]
    assert tissue["wm"] == {"filters": {"suffix": "WM"}}
    assert tissue["csf"] == {"filters": {"suffix": "CSF"}}


def test_a_rule_in_the_place_of_the_mask_is_understood() -> None:
    assert translated(tracker="pft", stop_mask="ACT")["stopping"] == {"kind": "act"}


@pytest.mark.parametrize(
    "tracking",
    [
        {"tracker": "pft"},
        {"tracker": "pft", "stop_threshold": 0.2},
        {"tracker": "pft", "stop_mask": "ScalarImage('dti_fa')", "stop_threshold": "CMC"},
        {"stop_threshold": "CSF"},
        {"stop_mask": f"PFTImage({FRACTIONS})"},
        {"stop_mask": "PFTImage('a', 'b', 'c')", "stop_threshold": "CMC"},
        {"stop_mask": "RoiImage()"},
    ],
)
def test_stops_without_counterpart_are_named(tracking: dict[str, Any]) -> None:
    assert "stop_mask" in faults(**tracking)


def test_binary_stops() -> None:
    labels = "LabelledImageFile('/x.nii.gz', inclusive_labels=[2])"
    stopping = translated(stop_mask=labels, stop_threshold=0.3)["stopping"]
    mask = {"kind": "labels", "path": "/x.nii.gz", "include": [2]}
    assert stopping == {"kind": "binary", "mask": mask}
    assert "no effect on LabelledImageFile" in notes(stop_mask=labels, stop_threshold=0.3)


# Models


@pytest.mark.parametrize(
    ("given", "model"),
    [
        ({"odf_model": "dti"}, {"kind": "tensor"}),
        ({"odf_model": "DKI"}, {"kind": "kurtosis"}),
        ({"odf_model": "MSMTCSD", "msmt_sh_order": 6}, {"kind": "msmt_csd", "sh_order": 6}),
        ({"odf_model": "GQ", "gq_sampling_length": 1.4}, {"kind": "gqi", "sampling_length": 1.4}),
        ({"odf_model": "OPDT"}, {"kind": "opdt", "sh_order": 8}),
        ({"odf_model": "CSA", "csa_sh_order_max": 6}, {"kind": "csa", "sh_order": 6}),
        (
            {"odf_model": "RUMBA", "rumba_gm_response": "", "rumba_n_iter": 50},
            {
                "kind": "rumba",
                "wm_eigenvalues_mm2_s": [1.7e-3, 2e-4, 2e-4],
                "gm_diffusivity_mm2_s": None,
                "csf_diffusivity_mm2_s": 3e-3,
                "iterations": 50,
            },
        ),
        (
            {"odf_model": "ImageFile(path='/x.nii.gz')"},
            {
                "kind": "precomputed",
                "path": "/x.nii.gz",
                "basis": "descoteaux07_legacy",
                "axes": "image",
            },
        ),
        (
            {"odf_model": "ImageFile('/x.nii.gz')", "basis_type": "tournier07", "legacy": False},
            {"kind": "precomputed", "path": "/x.nii.gz", "basis": "tournier07", "axes": "image"},
        ),
    ],
)
def test_models(given: dict[str, Any], model: dict[str, Any]) -> None:
    assert translated(**given)["model"] == model


def test_keys_of_other_models_are_noted() -> None:
    assert "csd_tau" in notes(odf_model="DTI", csd_tau=0.2)


# Everything else


def test_import() -> None:
    config = translated(import_tract="/x.trk", TRACTOGRAPHY_PARAMS={})
    assert config["import_tract"] == {"path": "/x.trk"}
    config = translated(import_tract="{'suffix': 'tractography', 'scope': 'x'}", rng_seed=0)
    assert config["import_tract"] == {"filters": {"suffix": "tractography"}, "scope": "x"}
    said = notes(import_tract={"suffix": "tractography", "scope": "x"}, rng_seed=0)
    assert "--derivatives x=PATH" in said


def test_all_faults_are_told_at_once() -> None:
    told = faults(
        odf_model="CSD_AODF",
        directions="boot",
        sphere="symmetric362",
        n_seeds=[[0, 0, 0]],
        seed_image="FullImage()",
        stepsize=1,
        max_angle="30",
        random_seeds=1,
        minlen=20,
        min_length=20,
        min_bval=500,
        robust_tensor_fitting=True,
        brain_mask_definition="ImageFile(suffix='mask')",
    )
    assert "CSD is closest" in told["odf_model"]
    assert "boot" in told["directions"]
    assert "repulsion724" in told["sphere"]
    assert "kind: given" in told["n_seeds"]
    assert "'seed_mask'" in told["seed_image"]
    assert "'step_size'" in told["stepsize"]
    assert "'30'" in told["max_angle"]
    assert "true or false" in told["random_seeds"]
    assert "twice" in told["minlen"]
    assert "--bids-filter-file" in told["brain_mask_definition"]
    assert {"min_bval", "robust_tensor_fitting"} <= told.keys()


def test_what_changes_no_result_is_noted() -> None:
    said = notes(chunk_size=1000, num_chunks=4, tractography_ngpus=2, trx=True)
    assert "chunk_size (tracking.batch_size)" in said
    assert "tractography_ngpus (tracking.engine)" in said


# The command


def test_the_command_prints_yaml_that_loads_as_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "afq.toml"
    path.write_text(EXAMPLE)
    assert main(["config", "translate", str(path)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("# ")
    assert not is_pyafq(yaml.safe_load(printed))
    ours = tmp_path / "ours.yaml"
    ours.write_text(printed)
    assert load_config(ours) == load_config(path)


def test_the_command_refuses_what_is_not_pyafq_s(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ours.yaml"
    path.write_text("tracking: {min_length_mm: 30}")
    assert main(["config", "translate", str(path)]) == ConfigError.exit_code
    assert "no pyAFQ keys" in capsys.readouterr().err
    path.write_text("seed_mask: RoiImage()")
    assert main(["config", "translate", str(path)]) == ConfigError.exit_code
    assert "seed_mask" in capsys.readouterr().err
    path.write_text("step_size: 99")
    assert main(["config", "translate", str(path)]) == ConfigError.exit_code
    assert "tracking.algorithm.step_size_mm" in capsys.readouterr().err


def test_the_command_takes_a_file_and_nothing_else() -> None:
    for words in ([], ["config.toml", "--set", "a=1"]):
        with pytest.raises(SystemExit) as ended:
            main(["config", "translate", *words])
        assert ended.value.code == 64

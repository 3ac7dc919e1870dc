"""The configuration: documented defaults, three formats, overrides, and faults told at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from bids_tractography.config import Config
from bids_tractography.config.dump import changes_as_yaml, commented_yaml
from bids_tractography.config.load import load_config
from bids_tractography.config.masks import AllMaskConfig, AnyMaskConfig, NotMaskConfig
from bids_tractography.config.model import CsdModelConfig
from bids_tractography.config.schema import json_schema
from bids_tractography.config.section import Section
from bids_tractography.errors import ConfigError, NoInputError
from bids_tractography.tracking import choose_engine

VALIDATOR = Draft202012Validator(json_schema())


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def from_yaml(folder: Path, text: str, *overrides: str) -> Config:
    return load_config(write(folder / "config.yaml", text), overrides)


def faults(error: pytest.ExceptionInfo[ConfigError]) -> dict[str, str]:
    """What is said of each key."""
    lines = [line.strip() for line in error.value.message.splitlines() if line.startswith("  ")]
    return dict(line.split(": ", 1) for line in lines)


def faults_of(*overrides: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as error:
        load_config(None, overrides)
    return faults(error)


# Defaults


def test_defaults_are_the_documented_ones() -> None:
    config = load_config()
    assert config.model.model_dump() == {
        "kind": "csd",
        "shell_s_mm2": "outermost",
        "sh_order": "auto",
        "response": {"kind": "auto", "voxels": 300, "erode_mm": 7.5},
        "positivity_weight": 1.0,
        "positivity_threshold": 0.1,
    }
    assert config.seeding.model_dump() == {
        "mask": {
            "kind": "threshold",
            "map": "fa",
            "above": 0.2,
            "below": None,
            "percentile": False,
        },
        "seeds": {"kind": "random", "per_voxel": 1},
        "rng_seed": None,
    }
    assert config.stopping.model_dump() == {
        "kind": "threshold",
        "map": "fa",
        "threshold": 0.1,
        "percentile": False,
        "fod_below": 0.25,
    }
    assert load_config(None, ["model=csa"]).stopping.model_dump() == {
        "kind": "threshold",
        "map": "fa",
        "threshold": 0.15,
        "percentile": False,
        "fod_below": None,
    }
    assert config.tracking.algorithm.model_dump() == {
        "kind": "prob",
        "step_size_mm": 0.5,
        "max_angle_deg": 20,
        "pmf_threshold": 0.3,
    }
    assert config.tracking.engine == "auto"
    assert (config.tracking.min_length_mm, config.tracking.max_length_mm) == (20, 250)
    assert config.tracking.batch_size == "auto"
    assert config.output.model_dump() == {
        "name": None,
        "keep": ("tractogram", "density"),
        "formats": ("trx",),
        "dtype": "float32",
        "linearise": None,
        "per_streamline": (),
    }


def test_configuration_is_frozen() -> None:
    config = Config()
    with pytest.raises(ValidationError, match="frozen"):
        config.tracking.min_length_mm = 3  # type: ignore[misc]


# Formats

EQUAL = {
    "config.yaml": """
model: {kind: tensor, sh_order: 6}
seeding:
  seeds: {kind: total, count: 5000}
  mask: {kind: file, filters: {suffix: mask, label: WM}}
tracking:
  algorithm: {kind: det, max_angle_deg: 45.5}
""",
    "config.toml": """
[model]
kind = "tensor"
sh_order = 6
[seeding]
seeds = {kind = "total", count = 5000}
[seeding.mask]
kind = "file"
filters = {suffix = "mask", label = "WM"}
[tracking.algorithm]
kind = "det"
max_angle_deg = 45.5
""",
    "config.json": """
{"model": {"kind": "tensor", "sh_order": 6},
 "seeding": {"seeds": {"kind": "total", "count": 5000},
             "mask": {"kind": "file", "filters": {"suffix": "mask", "label": "WM"}}},
 "tracking": {"algorithm": {"kind": "det", "max_angle_deg": 45.5}}}
""",
}


@pytest.mark.parametrize("name", [*EQUAL, "config.yml", "CONFIG.JSON"])
def test_formats_give_the_same(tmp_path: Path, name: str) -> None:
    text = {**EQUAL, "config.yml": EQUAL["config.yaml"], "CONFIG.JSON": EQUAL["config.json"]}[name]
    config = load_config(write(tmp_path / name, text))
    expected = Config.model_validate(json.loads(EQUAL["config.json"]))
    assert config == expected
    assert config != Config()


@pytest.mark.parametrize("text", ["", "# only a comment\n", "{}", "null"])
def test_an_empty_file_means_defaults(tmp_path: Path, text: str) -> None:
    assert from_yaml(tmp_path, text) == Config()


def test_a_bare_name_is_a_kind(tmp_path: Path) -> None:
    config = from_yaml(tmp_path, "model: tensor\ntracking: {algorithm: det}\n")
    assert (config.model.kind, config.tracking.algorithm.kind) == ("tensor", "det")


def test_a_section_without_kind_has_the_default_kind(tmp_path: Path) -> None:
    config = from_yaml(tmp_path, "tracking: {algorithm: {step_size_mm: 0.25}}\n")
    assert config.tracking.algorithm.kind == "prob"
    assert config.tracking.algorithm.step_size_mm == 0.25


def test_numbers_may_be_in_any_notation_of_yaml(tmp_path: Path) -> None:
    given = "{kind: given, eigenvalues_mm2_s: [1.7e-3, 3e-4, 3.0e-4], s0: 1e3}"
    config = from_yaml(tmp_path, f"model: {{response: {given}}}\n")
    assert config.model.model_dump()["response"] == {
        "kind": "given",
        "eigenvalues_mm2_s": (0.0017, 0.0003, 0.0003),
        "s0": 1000.0,
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.yaml", "model: csd\nmodel: tensor\n"),
        ("config.yaml", "tracking:\n  min_length_mm: 1\n  min_length_mm: 2\n"),
        ("config.json", '{"model": "csd", "model": "tensor"}'),
        ("config.json", '{"tracking": {"min_length_mm": 1, "min_length_mm": 2}}'),
        ("config.toml", 'model = "csd"\nmodel = "tensor"\n'),
    ],
)
def test_repeated_keys_are_refused(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(ConfigError, match="config") as error:
        load_config(write(tmp_path / name, text))
    assert "duplicate" in str(error.value) or "overwrite" in str(error.value)


def test_the_same_key_in_two_sections_is_no_repetition(tmp_path: Path) -> None:
    config = from_yaml(
        tmp_path, "seeding: {mask: {map: md, above: 1}}\nstopping: {map: md, threshold: 1}\n"
    )
    assert config.stopping.model_dump()["map"] == "md"


@pytest.mark.parametrize("override", ["seeding.mask.map=md", "stopping.map=md"])
def test_the_threshold_of_fa_is_no_default_for_other_maps(override: str) -> None:
    with pytest.raises(ConfigError, match=r"(above or below|threshold) is required"):
        load_config(None, [override])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.yaml", "model: [unclosed\n"),
        ("config.yaml", "tracking: {min_length_mm: &a [*a}\n"),
        ("config.yaml", "{[1, 2]: 3}\n"),
        ("config.json", "{'model': 'csd'}"),
        ("config.json", ""),
        ("config.toml", "model = \n"),
    ],
)
def test_malformed_files_are_config_errors_that_name_the_file(
    tmp_path: Path, name: str, text: str
) -> None:
    path = write(tmp_path / name, text)
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words\n", "3\n", "[]\n", "''\n", "false\n"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="mapping"):
        from_yaml(tmp_path, text)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"model: \xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        load_config(path)


@pytest.mark.parametrize("name", EQUAL)
def test_a_byte_order_mark_is_no_fault(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(EQUAL[name], encoding="utf-8-sig")
    assert load_config(path).model.kind == "tensor"


def test_merge_keys_of_yaml_are_no_repetition(tmp_path: Path) -> None:
    text = "seeding: {mask: &wm {map: md, above: 0.3}}\nstopping: {<<: {map: md}, threshold: 0.1}\n"
    config = from_yaml(tmp_path, text)
    assert config.stopping.model_dump() == {
        "kind": "threshold",
        "map": "md",
        "threshold": 0.1,
        "percentile": False,
        "fod_below": None,
    }


def test_a_missing_file_is_no_input(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match=r"absent\.yaml") as error:
        load_config(tmp_path / "absent.yaml")
    assert error.value.exit_code == 66


def test_a_folder_in_place_of_the_file_is_no_input(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").mkdir()
    with pytest.raises(NoInputError, match="not a regular file"):
        load_config(tmp_path / "config.yaml")


def test_an_unknown_format_is_told_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.yaml, \.yml, \.toml, \.json"):
        load_config(write(tmp_path / "config.ini", "[model]"))


# Overrides


def test_overrides_go_over_the_file(tmp_path: Path) -> None:
    text = "tracking: {min_length_mm: 30, algorithm: {kind: det, step_size_mm: 0.2}}\n"
    config = from_yaml(tmp_path, text, "tracking.algorithm.step_size_mm=0.75")
    assert config.tracking.algorithm.model_dump() == {
        "kind": "det",
        "step_size_mm": 0.75,
        "max_angle_deg": 15,
        "pmf_threshold": 0.25,
    }
    assert config.tracking.min_length_mm == 30


def test_a_nested_override_reaches_through_a_bare_kind(tmp_path: Path) -> None:
    config = from_yaml(tmp_path, "model: tensor\n", "model.sh_order=6")
    assert config.model.model_dump() == {"kind": "tensor", "sh_order": 6}
    config = from_yaml(tmp_path, "model: csd\n", "model.response.voxels=50", "model.sh_order=6")
    assert config.model.model_dump()["response"]["voxels"] == 50
    assert isinstance(config.model, CsdModelConfig)
    assert config.model.sh_order == 6


def test_the_last_override_wins() -> None:
    config = load_config(None, ["seeding.rng_seed=1", "seeding.rng_seed=2"])
    assert config.seeding.rng_seed == 2


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seeding.seeds={kind: total, count: 100000}", {"kind": "total", "count": 100000}),
        ("seeding.seeds=grid", {"kind": "grid", "per_axis": 1}),
        ("seeding.seeds.per_voxel=3", {"kind": "random", "per_voxel": 3}),
        (
            "seeding.seeds={kind: given, path: a=b.txt}",
            {"kind": "given", "path": Path("a=b.txt"), "filters": None, "scope": None},
        ),
    ],
)
def test_values_of_overrides_are_yaml(override: str, expected: dict[str, Any]) -> None:
    assert load_config(None, [override]).seeding.seeds.model_dump() == expected


def test_null_override_restores_a_missing_seed(tmp_path: Path) -> None:
    text = "seeding: {rng_seed: 5}\n"
    assert from_yaml(tmp_path, text, "seeding.rng_seed=null").seeding.rng_seed is None


@pytest.mark.parametrize(
    "override", ["tracking.min_length_mm", "=3", "tracking.=3", ".tracking=3", "a..b=3", ""]
)
def test_overrides_without_key_or_value_are_refused(override: str) -> None:
    with pytest.raises(ConfigError, match="KEY=VALUE") as error:
        load_config(None, [override])
    assert error.value.exit_code == 78


@pytest.mark.parametrize("value", ["{a: 1", "{a: 1, a: 2}", "[", "'", "2024-13-45"])
def test_override_values_that_are_no_yaml_are_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=r"--set model="):
        load_config(None, [f"model={value}"])


# Faults


def test_config_errors_exit_with_78() -> None:
    with pytest.raises(ConfigError) as error:
        load_config(None, ["model=none"])
    assert error.value.exit_code == 78
    assert error.value.remedy


def test_all_faults_are_told_at_once_with_their_keys(tmp_path: Path) -> None:
    text = """
model: {kind: csd, sh_order: 7}
seeding: {rng_seed: -1, seeds: {per_voxel: 0}}
tracking: {algorithm: {step_size_mm: -0.5, max_angle_deg: 95}, colour: red}
stoping: {threshold: 0.1}
output: {formats: [vtk]}
"""
    with pytest.raises(ConfigError) as error:
        from_yaml(tmp_path, text)
    assert set(faults(error)) == {
        "model.sh_order",
        "seeding.rng_seed",
        "seeding.seeds.per_voxel",
        "tracking.algorithm.step_size_mm",
        "tracking.algorithm.max_angle_deg",
        "tracking.colour",
        "stoping",
        "output.formats.0",
    }
    assert "config.yaml" in str(error.value)
    assert "config.yaml has 8 errors:" in str(error.value)


@pytest.mark.parametrize(
    "key",
    [
        "model.shell_s_mm2=-1",
        "model.sh_order=5",
        "model.sh_order=18",
        "tracking.batch_size=0",
        "tracking.batch_size=lots",
        "model.shell_s_mm2=innermost",
    ],
)
def test_a_value_of_a_key_with_alternatives_is_one_fault_of_that_key(key: str) -> None:
    assert set(faults_of(key)) == {key.partition("=")[0]}


@pytest.mark.parametrize(
    ("override", "key", "meant"),
    [
        ("trackin.engine=auto", "trackin", "tracking"),
        ("tracking.min_lenght_mm=3", "tracking.min_lenght_mm", "min_length_mm"),
        ("tracking.algorithm.step_size=1", "tracking.algorithm.step_size", "step_size_mm"),
        ("tracking.algorithm.kind=prbo", "tracking.algorithm", "prob"),
        ("tracking.algorithm=dett", "tracking.algorithm", "det"),
        ("seeding.seeds.per_voxl=2", "seeding.seeds.per_voxl", "per_voxel"),
        ("seeding.seeds={kind: total, cuont: 2}", "seeding.seeds.cuont", "count"),
        ("seeding.seeds.kind=radom", "seeding.seeds", "random"),
        ("seeding.mask.abov=0.3", "seeding.mask.abov", "above"),
        ("model.response.voxel=5", "model.response.voxel", "voxels"),
        ("model=cds", "model", "csd"),
        ("stopping={kind: binary, mask: {kind: file, pth: a}}", "stopping.mask.pth", "path"),
        ("gradients.b0_threshold=5", "gradients.b0_threshold", "b0_threshold_s_mm2"),
    ],
)
def test_misspelt_names_get_the_nearest_right_one(override: str, key: str, meant: str) -> None:
    told = faults_of(override)
    assert f"Did you mean '{meant}'?" in told[key]


def test_an_unlike_name_gets_the_list_of_known_ones() -> None:
    assert faults_of("output.zzz=1") == {
        "output.zzz": "unknown key. Known: dtype, formats, keep, linearise, name, per_streamline."
    }


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("seeding.seeds={kind: grid, grid: 3}", "seeding.seeds.grid"),
        ("seeding.mask={kind: file, path: a.nii, file: b.nii}", "seeding.mask.file"),
        ("model={kind: csd, csd: 1}", "model.csd"),
    ],
)
def test_a_key_named_like_its_kind_is_told_as_a_key(override: str, key: str) -> None:
    assert "unknown key" in faults_of(override)[key]


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("seeding.seeds={kind: total, count: 5, per_voxel: 1}", "seeding.seeds.per_voxel"),
        ("seeding.seeds={kind: grid, count: 5}", "seeding.seeds.count"),
        ("model={kind: tensor, response: auto}", "model.response"),
        ("stopping={kind: threshold, mask: {kind: file, path: a}}", "stopping.mask"),
        ("seeding.mask={kind: file, path: a.nii, above: 0.2}", "seeding.mask.above"),
        ("model.response={kind: auto, s0: 3}", "model.response.s0"),
    ],
)
def test_keys_of_one_kind_are_refused_in_another(override: str, key: str) -> None:
    assert faults_of(override)[key].startswith("unknown key.")


def test_a_needed_key_that_is_missing_is_told() -> None:
    assert faults_of("seeding.seeds=total") == {"seeding.seeds.count": "required, but not given."}


@pytest.mark.parametrize("mask", ["{kind: file}", "{kind: file, path: a, filters: {desc: b}}"])
def test_a_mask_file_needs_a_path_or_filters(mask: str) -> None:
    assert "either path or filters" in faults_of(f"seeding.mask={mask}")["seeding.mask"]


def test_empty_filters_are_refused() -> None:
    assert "seeding.mask.filters" in faults_of("seeding.mask={kind: file, filters: {}}")


def test_the_least_length_may_not_exceed_the_largest() -> None:
    told = faults_of("tracking.min_length_mm=100", "tracking.max_length_mm=99.9")
    assert "less than min_length_mm" in told["tracking"]
    load_config(None, ["tracking.min_length_mm=100", "tracking.max_length_mm=100"])


def test_a_streamline_may_be_at_least_one_step_long() -> None:
    told = faults_of(
        "tracking.min_length_mm=0",
        "tracking.max_length_mm=0.9",
        "tracking.algorithm.step_size_mm=1",
    )
    assert "one step" in told["tracking"]


NUMBERS = [
    "gradients.b0_threshold_s_mm2",
    "tensor.max_b_s_mm2",
    "model.positivity_weight",
    "model.shell_s_mm2",
    "model.sh_order",
    "model.response.voxels",
    "seeding.mask.above",
    "seeding.seeds.per_voxel",
    "seeding.rng_seed",
    "stopping.threshold",
    "tracking.algorithm.step_size_mm",
    "tracking.algorithm.max_angle_deg",
    "tracking.max_directions",
    "tracking.min_length_mm",
    "tracking.max_length_mm",
    "tracking.batch_size",
]


@pytest.mark.parametrize("key", NUMBERS)
def test_non_finite_numbers_are_refused(key: str) -> None:
    for value in (".nan", ".inf", "-.inf"):
        assert any(told.startswith(key) for told in faults_of(f"{key}={value}"))


@pytest.mark.parametrize("key", NUMBERS)
def test_yes_and_no_are_no_numbers(key: str) -> None:
    # `rng_seed: false` is meant as "no seed"; taken as a number it would fix the seed to 0.
    for value in ("true", "false", "yes"):
        assert any(told.startswith(key) for told in faults_of(f"{key}={value}"))


@pytest.mark.parametrize("key", NUMBERS)
def test_null_is_a_number_only_for_the_seed(key: str) -> None:
    if key == "seeding.rng_seed":
        assert load_config(None, [f"{key}=null"]).seeding.rng_seed is None
    else:  # one of above and below has to be a number, so that their section has the fault
        section = key.removesuffix(".above")
        assert any(told.startswith(section) for told in faults_of(f"{key}=null"))


@pytest.mark.parametrize("seed", [0, 1, 2**53 - 1])
def test_zero_is_a_seed_like_any_other(seed: int) -> None:
    assert load_config(None, [f"seeding.rng_seed={seed}"]).seeding.rng_seed == seed


@pytest.mark.parametrize("seed", ["-1", "1.5", str(2**53), "now"])
def test_seeds_that_are_not_exact_everywhere_are_refused(seed: str) -> None:
    assert set(faults_of(f"seeding.rng_seed={seed}")) == {"seeding.rng_seed"}


@pytest.mark.parametrize(
    "override",
    [
        "tracking.algorithm.step_size_mm=0",
        "tracking.algorithm.max_angle_deg=0",
        "tracking.algorithm.max_angle_deg=90",
        "tracking.algorithm.pmf_threshold=1",
        "tracking.min_length_mm=-1",
        "tracking.max_directions=0",
        "tracking.engine=gpu",
        "output.dtype=float64",
        "output.formats=[]",
        "model.sh_order=0",
        "model.response={kind: given, eigenvalues_mm2_s: [0.0003, 0.0017, 0.0003], s0: 1}",
        "model.response={kind: given, eigenvalues_mm2_s: [1.7, 0.3, 0.3], s0: 1}",
        "model.response={kind: given, eigenvalues_mm2_s: [0.0017, 0.0003], s0: 1}",
        "model.response={kind: given, eigenvalues_mm2_s: [0.0017, 0.0003, 0.0003], s0: 0}",
    ],
)
def test_values_out_of_bounds_are_refused(override: str) -> None:
    key = override.partition("=")[0]
    assert all(told.startswith(key) for told in faults_of(override))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("tracking: 5\n", "tracking"),
        ("tracking: [1]\n", "tracking"),
        ("model: 5\n", "model"),
        ("model: {kind: 5}\n", "model"),
        ("model: {kind: [csd]}\n", "model"),
        ("seeding: {seeds: [1, 2]}\n", "seeding.seeds"),
        ("model: null\n", "model"),
        ("tracking: {1: 2}\n", "tracking.1"),
        ("1: 2\n", "1"),
    ],
)
def test_sections_of_the_wrong_shape_are_faults_of_their_key(
    tmp_path: Path, text: str, key: str
) -> None:
    with pytest.raises(ConfigError) as error:
        from_yaml(tmp_path, text)
    assert set(faults(error)) == {key}


# Round trip


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False, exclude_min=True, exclude_max=True)


def kind(name: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"kind": st.just(name)}, optional=fields)


EVEN = st.integers(1, 8).map(lambda n: 2 * n)
EIGENVALUES = numbers(1e-4, 9e-3).flatmap(lambda first: st.just([first, first / 2, first / 3]))
WORDS = st.text("abcXYZ019", min_size=1, max_size=6)
FILE = st.one_of(
    st.fixed_dictionaries({"kind": st.just("file"), "path": WORDS}),
    st.fixed_dictionaries(
        {
            "kind": st.just("file"),
            "filters": st.dictionaries(
                WORDS,
                st.none() | WORDS | st.lists(WORDS) | st.integers(-(2**31), 2**31 - 1),
                min_size=1,
                max_size=3,
            ),
        }
    ),
)


def threshold(key: str, values: Any) -> Any:
    """A threshold on FA, which has a default, or on MD, which has none."""
    on_md = {"kind": st.just("threshold"), "map": st.just("md"), key: values}
    return kind("threshold", map=st.just("fa"), **{key: values}) | st.fixed_dictionaries(on_md)


MASKS = FILE | threshold("above", numbers(0, 1))
RESPONSES = st.one_of(
    kind("auto", voxels=st.integers(1, 10**6), erode_mm=numbers(0, 30)),
    st.fixed_dictionaries(
        {
            "kind": st.just("given"),
            "eigenvalues_mm2_s": EIGENVALUES,
            "s0": numbers(0, 1e6),
        }
    ),
)
GIVEN_SEEDS = st.fixed_dictionaries({"kind": st.just("given"), "path": WORDS})
SEEDS = st.one_of(
    kind("grid", per_axis=st.integers(1, 100)),
    kind("random", per_voxel=st.integers(1, 10**6)),
    st.fixed_dictionaries({"kind": st.just("total"), "count": st.integers(1, 10**12)}),
)
RNG_SEEDS = st.none() | st.integers(0, 2**53 - 1)
CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "gradients": st.fixed_dictionaries(
            {"b0_threshold_s_mm2": numbers(0, 1e3), "shell_gap_s_mm2": numbers(0, 1e3)}
        ),
        "tensor": st.fixed_dictionaries({"max_b_s_mm2": numbers(0, 1e4), "v1": st.booleans()}),
        "model": kind("tensor", sh_order=EVEN)
        | kind(
            "csd",
            shell_s_mm2=st.just("outermost") | numbers(0, 1e4),
            sh_order=st.just("auto") | EVEN,
            response=RESPONSES,
            positivity_weight=numbers(0, 1000),
            positivity_threshold=numbers(0, 1),
        ),
        "seeding": st.fixed_dictionaries({"mask": MASKS, "seeds": SEEDS, "rng_seed": RNG_SEEDS})
        | st.fixed_dictionaries({"seeds": GIVEN_SEEDS, "rng_seed": RNG_SEEDS}),
        "stopping": threshold("threshold", numbers(-1, 1))
        | st.fixed_dictionaries({"kind": st.just("binary"), "mask": FILE}),
        "tracking": st.fixed_dictionaries(
            {
                "algorithm": st.sampled_from(["prob", "det"]).flatmap(
                    lambda name: kind(
                        name,
                        step_size_mm=numbers(0.01, 10),
                        max_angle_deg=numbers(0, 90),
                        pmf_threshold=numbers(0, 1),
                    )
                ),
                "min_length_mm": numbers(0, 100),
                "max_length_mm": numbers(100, 10_000),
                "batch_size": st.just("auto") | st.integers(1, 10**7),
            }
        ),
    },
)


@settings(max_examples=60, deadline=None)
@given(content=CONFIGS)
def test_what_is_shown_reads_back_as_the_same(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]
) -> None:
    config = Config.model_validate(content)
    VALIDATOR.validate(content)
    VALIDATOR.validate(config.model_dump(mode="json"))
    for section, keys in content.items():
        for key, value in keys.items():
            if isinstance(value, int | float):
                assert getattr(getattr(config, section), key) == value
    shown = config.model_dump(mode="json")
    folder = tmp_path_factory.getbasetemp()
    as_yaml = write(folder / "shown.yaml", yaml.safe_dump(shown, sort_keys=False))
    as_json = write(folder / "shown.json", json.dumps(shown))
    assert load_config(as_yaml) == config
    assert load_config(as_json) == config
    commented = write(folder / "commented.yaml", commented_yaml(config))
    assert load_config(commented) == config
    changed = write(folder / "changed.yaml", changes_as_yaml(config))
    assert load_config(changed) == config


# Masks, tissue and algorithms


def test_masks_contain_masks_to_any_depth() -> None:
    override = "seeding.mask={kind: not, of: {kind: all, of: [brain, {kind: any, of: [tissue]}]}}"
    mask = load_config(None, [override]).seeding.mask
    assert isinstance(mask, NotMaskConfig)
    assert isinstance(mask.of, AllMaskConfig)
    inner = mask.of.of[1]
    assert isinstance(inner, AnyMaskConfig)
    assert inner.of[0].model_dump() == {"kind": "tissue", "tissue": "wm", "above": 0.5}


@pytest.mark.parametrize(
    ("override", "key", "says"),
    [
        ("seeding.mask={above: 120, percentile: true}", "seeding.mask", "between 0 and 100"),
        ("seeding.mask={above: 0.5, below: 0.4}", "seeding.mask", "above must be less than below"),
        ("seeding.mask={kind: labels, path: a.nii}", "seeding.mask", "labels to include"),
        (
            "seeding.mask={kind: labels, path: a.nii, include: [3], exclude: [3]}",
            "seeding.mask",
            "both included and excluded",
        ),
        ("seeding.mask={kind: roi, files: []}", "seeding.mask.files", "at least one"),
        ("seeding.mask={kind: any, of: [tisue]}", "seeding.mask.of.0", "Did you mean 'tissue'"),
        ("seeding.mask={kind: file}", "seeding.mask", "either path or filters"),
        ("import_tract={path: a.trx, scope: raw}", "import_tract", "scope requires filters"),
        ("tracking.algorithm=pft", "(whole configuration)", "pft needs tissue"),
        (
            "tracking.algorithm={kind: prob, probe_length_mm: 1}",
            "tracking.algorithm.probe_length_mm",
            "unknown key",
        ),
        ("tissue=dwi", "(whole configuration)", "requires model.kind msmt_csd"),
        ("tissue={space: any}", "(whole configuration)", "not used"),
        ("tissue={kind: dseg, space: any, segmentation: a.nii}", "tissue", "files found by name"),
        ("tissue={kind: 5tt, space: any, image: a.nii}", "tissue", "files found by name"),
        ("output={formats: [tck], dtype: float16}", "output", "requires trx only"),
    ],
)
def test_faults_of_definitions_are_told(override: str, key: str, says: str) -> None:
    assert says in faults_of(override)[key]


def test_every_file_is_listed_with_its_key() -> None:
    config = load_config(
        None,
        [
            "seeding.mask={kind: any, of: [{kind: file, path: a.nii}, "
            "{map: {path: b.nii}, above: 1}]}",
            "stopping={kind: binary, mask: {kind: roi, files: [c.nii, d.nii]}}",
            "tracking.exclude=[{kind: labels, path: e.nii, include: [1]}]",
            "model={kind: precomputed, path: f.nii}",
        ],
    )
    assert {key: file.path and file.path.name for key, file in config.files()} == {
        "model": "f.nii",
        "seeding.mask.of.0": "a.nii",
        "seeding.mask.of.1.map": "b.nii",
        "stopping.mask.files.0": "c.nii",
        "stopping.mask.files.1": "d.nii",
        "tracking.exclude.0": "e.nii",
    }


@pytest.mark.parametrize(
    ("override", "needed"),
    [
        ("seeding.mask=brain", False),
        ("seeding.mask={kind: not, of: interface}", True),
        ("stopping=cmc", True),
        ("tracking.include=[tissue]", True),
    ],
)
def test_tissue_is_made_only_where_something_asks_for_it(override: str, needed: bool) -> None:
    assert load_config(None, [override]).needs_tissue is needed


def test_names_of_sections_end_in_config() -> None:
    sections = [Section]
    for section in sections:
        sections += section.__subclasses__()
    others = {section.__name__ for section in sections if not section.__name__.endswith("Config")}
    assert others == {"Section"}


def test_a_model_without_a_response_stops_by_fa_and_refuses_to_stop_by_the_fodf() -> None:
    assert load_config(None, ["model=gqi"]).stopping.fod_share is None
    for model in ("csd", "msmt_csd", "rumba"):
        assert load_config(None, [f"model={model}"]).stopping.fod_share == 0.25
    for stop in ("fod", "{kind: act, fod_below: 0.1}"):
        with pytest.raises(ConfigError, match="a model with a response"):
            load_config(None, ["model=gqi", f"stopping={stop}"])


def test_a_share_of_the_fodf_goes_with_any_stopping_rule() -> None:
    assert load_config(None, ["stopping={kind: fod, below: 0.4}"]).stopping.fod_share == 0.4
    for stop in (
        "{threshold: 0.1, fod_below: 0.3}",
        "{kind: binary, mask: brain, fod_below: 0.3}",
        "{kind: act, fod_below: 0.3}",
        "{kind: cmc, fod_below: 0.3}",
    ):
        stopping = load_config(None, [f"stopping={stop}"]).stopping
        assert stopping.fod_share == 0.3
        assert "above 0.3 of that of a single fibre" in stopping.where


def test_only_the_cpu_engine_combines_the_fodf_with_another_rule() -> None:
    both = ["stopping={kind: binary, mask: brain, fod_below: 0.3}"]
    assert choose_engine(load_config(None, both)).name == "cpu"
    with pytest.raises(ConfigError, match="fod_below"):
        choose_engine(load_config(None, [*both, "tracking.engine=dipy"]))
    assert choose_engine(load_config(None, ["tracking.engine=dipy"])).name == "dipy"

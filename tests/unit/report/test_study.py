from __future__ import annotations

import csv
import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import run_cli
from studies import (
    CONFIG,
    ENVIRONMENT,
    a_picture,
    record_of,
    write_log,
    write_picture,
    write_run,
    write_study,
)

from bids_tractography.app.group import gather, write_group_table
from bids_tractography.config import Config
from bids_tractography.inputs.people import read_people
from bids_tractography.report.columns import FIXED
from bids_tractography.report.drift import drift, flatten
from bids_tractography.report.history import last_ends
from bids_tractography.report.outliers import MIN_RUNS, limits
from bids_tractography.report.strips import strip
from bids_tractography.report.study import COMPARED, study_page
from bids_tractography.report.thumbnails import side_for, small_picture, thumbnail

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


def random() -> np.random.Generator:
    return np.random.default_rng(1)


def table(root: Path) -> list[dict[str, str]]:
    with (root / "group_tractograms.tsv").open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def link(root: Path, **datasets: str) -> None:
    description = {"GeneratedBy": [{"Name": "x"}], "DatasetLinks": datasets}
    (root / "dataset_description.json").write_text(json.dumps(description))


def page_of(root: Path) -> str:
    write_group_table(root)
    return (root / "index.html").read_text()


def data_of(text: str) -> dict[str, Any]:
    found = re.search(r'id="study-meta">(.*?)</script>', text)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


# Outliers


def test_limits_of_known_numbers_are_five_sigmas_from_the_median() -> None:
    compared = limits([96, 97, 98, 99, 101, 102, 103, 104, 900])
    assert compared is not None
    assert compared.median == 101
    assert compared.sigma == pytest.approx(1.4826 * 3)
    assert compared.high == pytest.approx(101 + 5 * 1.4826 * 3)
    assert compared.exclude(900)
    assert not compared.exclude(compared.high)
    assert not compared.exclude(float("nan"))


@pytest.mark.parametrize(
    ("values", "floor", "sigma"),
    [([50.0] * 9, 0.0, 1.0), ([0.0] * 9, 0.005, 0.005), ([-50.0] * 9, 0.0, 1.0)],
)
def test_limits_of_equal_values_have_a_floor(
    values: list[float], floor: float, sigma: float
) -> None:
    compared = limits(values, floor)
    assert compared is not None
    assert compared.sigma == pytest.approx(sigma)


def test_limits_of_few_runs_are_none() -> None:
    values = [1.0] * (MIN_RUNS - 1)
    assert limits([*values, float("nan"), float("inf")]) is None
    assert limits([*values, 1000.0]) is not None


def test_a_fifth_of_bad_runs_does_not_hide_itself() -> None:
    values = [*np.linspace(95, 105, 40), *np.linspace(10, 20, 10)]
    compared = limits(values)
    assert compared is not None
    assert [value for value in values if compared.exclude(value)] == values[40:]


def test_outliers_are_in_the_table_and_on_the_page(tmp_path: Path) -> None:
    def change(number: int, fields: dict[str, Any]) -> None:
        if number == 4:
            fields |= {"streamlines_kept": 200, "peak_memory_mib": 9000.0}

    write_study(tmp_path, 12, change)
    text = page_of(tmp_path)
    outliers = {row["run_name"]: row["outliers"] for row in table(tmp_path)}
    assert outliers.pop("sub-0004") == "kept,yield,peak_memory_mib"
    assert set(outliers.values()) == {"n/a"}
    data = data_of(text)
    marked = {c["name"] for c, o in zip(data["columns"], data["outliers"], strict=True) if o == [3]}
    assert marked == {"kept", "yield", "peak_memory_mib"}
    assert "1 with outliers" in text


# Plots


def test_a_strip_has_a_dot_for_every_run_with_a_value() -> None:
    values = np.array([1.0, np.nan, 2.0, 2.0, 2.0, np.inf, 3.0, 500.0])
    drawn = strip(values, limits([1, 2, 2, 2, 2, 2, 3, 3]), "Title <b>", "mm")
    assert drawn is not None
    assert drawn.runs == (0, 2, 3, 4, 6, 7)
    assert drawn.outliers == (0, 6, 7)
    places = re.findall(r"M([\d.]+) ([\d.]+)h0", drawn.drawn)
    assert len(places) == 6
    assert len(set(places)) == 6  # equal values do not cover each other
    assert "<b>" not in drawn.drawn
    assert strip(np.full(3, np.nan), None, "", "") is None


@pytest.mark.parametrize("values", [[0.0] * 9, [5.0], [1e18, -1e18], [1e-12, 2e-12], [7.0, 7.0]])
def test_a_strip_of_extreme_values_stays_inside(values: list[float]) -> None:
    drawn = strip(np.array(values), limits(values), "Title", "")
    assert drawn is not None
    assert all(0 <= float(x) <= 420 for x, _ in re.findall(r"M([\d.]+) (\S+)h0", drawn.drawn))
    assert "nan" not in drawn.drawn


def test_ticks_of_a_narrow_axis_are_told_apart() -> None:
    drawn = strip(np.array([171.71, 171.84]), None, "Title", "ml")
    assert drawn is not None
    texts = re.findall(r"<text[^>]*>([^<]*)<", drawn.drawn)
    assert len(texts) > 1
    assert len(set(texts)) == len(texts)


# Differences between configurations


def test_drift_groups_runs_by_the_keys_that_differ() -> None:
    settings = {
        "a": {"model.kind": "csd", "x": "1"},
        "b": {"model.kind": "csd", "x": "1"},
        "c": {"model.kind": "tensor", "x": "1", "only": "here"},
    }
    found = drift(settings)
    assert found.keys == ("model.kind", "only")
    assert [variant.runs for variant in found.variants] == [("a", "b"), ("c",)]
    assert found.rows == [
        ("model.kind", [("csd", False), ("tensor", True)]),
        ("only", [("—", False), ("here", True)]),
    ]


def test_drift_of_equal_runs_is_nothing() -> None:
    found = drift({"a": {"x": "1"}, "b": {"x": "1"}})
    assert (found.keys, len(found.variants), found.various) == ((), 1, ())
    assert drift({}).variants == ()


def test_a_key_with_a_value_for_every_run_does_not_split_the_study() -> None:
    found = drift({f"sub-{n}": {"path": f"/{n}", "x": str(n // 15)} for n in range(20)})
    assert found.keys == ("x",)
    assert [len(variant.runs) for variant in found.variants] == [15, 5]
    assert found.various[0][:2] == ("path", 20)


def test_a_configuration_is_flattened_to_dotted_keys() -> None:
    flat = flatten(json.loads(CONFIG.model_dump_json()))
    assert flat["tracking.max_length_mm"] == "250.0"
    assert flatten({"a": {}, "b": {"c": [1, "x"]}}) == {"a": "{}", "b.c": '[1, "x"]'}


def test_runs_with_another_configuration_are_shown(tmp_path: Path) -> None:
    other = Config.model_validate({"tracking": {"max_length_mm": 123}})
    container = {"Type": "docker", "Tag": "tractography:9"}
    environment = ENVIRONMENT.model_copy(update={"container": container})
    for number in range(3):
        write_run(tmp_path, f"sub-{number}", record_of(f"sub-{number}", random()))
    write_run(tmp_path, "sub-9", record_of("sub-9", random(), config=other))
    write_run(tmp_path, "sub-8", record_of("sub-8", random(), environment=environment))
    text = page_of(tmp_path)
    assert "tracking.max_length_mm" in text
    assert "software: container" in text
    assert "tractography:9" in text
    assert data_of(text)["variants"] == [0, 0, 0, 1, 2]


# How runs ended


def failure(message: str, code: int = 65) -> dict[str, Any]:
    return {"message": message, "exit_code": code, "checks": {}}


def test_a_failure_that_finished_since_is_none(tmp_path: Path) -> None:
    write_log(tmp_path, "20260101T000000", failed={"sub-1": failure("a"), "sub-2": failure("b")})
    write_log(tmp_path, "20260102T000000", finished=["sub-1"], skipped={"sub-3": "c"})
    ends = last_ends(tmp_path)
    assert {name: end.kind for name, end in ends.items()} == {
        "sub-1": "finished",
        "sub-2": "failed",
        "sub-3": "skipped",
    }
    assert (ends["sub-2"].message, ends["sub-2"].exit_code) == ("b", 65)
    assert ends["sub-2"].started == "2026-01-01 00:00 UTC"


def test_a_failure_after_a_tractogram_is_reported_beside_it(tmp_path: Path) -> None:
    write_run(tmp_path, "sub-1", record_of("sub-1", random()))
    write_log(tmp_path, "20260103T000000", failed={"sub-1": failure("worse now")})
    write_log(tmp_path, "20260102T000000", finished=["sub-1"])
    text = page_of(tmp_path)
    assert table(tmp_path)[0]["outcome"] == "failed"
    assert "worse now" in text
    assert "1 failed" in text


def test_the_fault_of_a_participant_is_over_when_a_run_of_it_finished(tmp_path: Path) -> None:
    write_log(tmp_path, "20260101T000000", failed={"sub-1": failure("x"), "sub-11": failure("y")})
    write_log(tmp_path, "20260102T000000", finished=["sub-1_dir-AP"])
    assert {name for name, end in last_ends(tmp_path).items() if end.kind == "failed"} == {"sub-11"}


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"failed": 3, "finished": {}, "skipped": []}', '{"failed": {"a": 1}}']
)
def test_logs_that_are_no_logs_are_ignored(tmp_path: Path, content: str) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "x_participant.json").write_text(content)
    (tmp_path / "logs" / "y_participant.json").mkdir()
    assert last_ends(tmp_path) == {}


def test_a_study_where_everything_failed_has_a_page(tmp_path: Path) -> None:
    write_log(tmp_path, "20260101T000000", failed={"sub-1": failure("no such file")})
    ended = run_cli("in", tmp_path, "group", overrides=())
    assert ended.returncode == 66
    assert "no such file" in (tmp_path / "index.html").read_text()
    assert not (tmp_path / "group_tractograms.tsv").exists()


def test_a_changed_tractogram_is_on_the_page_with_the_reason(tmp_path: Path) -> None:
    write_study(tmp_path, 2)
    next(tmp_path.glob("sub-0001/dwi/*.trx")).unlink()
    text = page_of(tmp_path)
    assert len(table(tmp_path)) == 1
    assert "does not exist" in text
    assert "1 changed or damaged" in text


# Columns


def test_the_dictionary_covers_every_column_and_every_column_is_ours(tmp_path: Path) -> None:
    write_study(tmp_path, 3)
    write_group_table(tmp_path)
    described = json.loads((tmp_path / "group_tractograms.json").read_text())
    assert list(described) == list(table(tmp_path)[0])
    assert all(entry["Description"].endswith(".") for entry in described.values())
    assert described["kept"]["LongName"] == "Streamlines"
    assert described["length_median_mm"]["Units"] == "mm"
    assert set(described["gradient_verdict"]["Levels"]) == {"agrees", "undecided", "contradicts"}
    assert set(COMPARED) <= {column.name for column in FIXED} <= set(described)


def test_entities_are_columns(tmp_path: Path) -> None:
    write_run(tmp_path, "sub-1", record_of("sub-1", random()))
    name = "sub-2_ses-a_acq-x_dir-AP_run-02_odd-7_space-T1w"
    write_run(tmp_path, name, record_of(name, random()))
    write_group_table(tmp_path)
    first, second = table(tmp_path)
    keys = ("participant_id", "session_id", "acquisition", "direction", "run", "space")
    assert [first[key] for key in keys] == ["sub-1"] + 5 * ["n/a"]
    assert [second[key] for key in keys] == ["sub-2", "ses-a", "x", "AP", "02", "T1w"]
    assert (second["entity_odd"], second["run_name"]) == ("7", name)


def test_participants_of_the_input_are_columns(tmp_path: Path) -> None:
    write_run(tmp_path, "sub-01", record_of("sub-01", random()))
    write_run(tmp_path, "sub-02", record_of("sub-02", random()))
    source = tmp_path / "in"
    source.mkdir()
    rows = "participant_id\tage\trun\tsex\nsub-02\t33\tfast\tF\n01\tn/a\t\tM\n"
    (source / "participants.tsv").write_text(rows)
    sex = {"Description": "Sex.", "Levels": {"F": "female", "M": {"Description": "male"}}}
    described = {"sex": sex, "age": {"Units": "year"}, "run": 7}
    (source / "participants.json").write_text(json.dumps(described))
    link(tmp_path, study="in")
    write_group_table(tmp_path)
    assert [(row["age"], row["sex"], row["participants_run"]) for row in table(tmp_path)] == [
        ("n/a", "M", "n/a"),
        ("33", "F", "fast"),
    ]
    described = json.loads((tmp_path / "group_tractograms.json").read_text())
    assert described["sex"]["Levels"] == {"F": "female", "M": "male"}
    assert described["age"]["Units"] == "year"
    assert described["participants_run"]["Description"]


def test_the_given_dataset_comes_before_the_linked_ones(tmp_path: Path) -> None:
    write_run(tmp_path, "sub-1", record_of("sub-1", random()))
    for folder, age in (("linked", 1), ("given", 2)):
        (tmp_path / folder).mkdir()
        text = f"participant_id\tage\nsub-1\t{age}\n"
        (tmp_path / folder / "participants.tsv").write_text(text)
    link(tmp_path, study="linked")
    write_group_table(tmp_path, bids_dir=tmp_path / "given")
    assert table(tmp_path)[0]["age"] == "2"
    write_group_table(tmp_path, bids_dir=tmp_path / "absent")
    assert table(tmp_path)[0]["age"] == "1"


@pytest.mark.parametrize("text", [None, "", "age\n3\n", b"\xff\xfe", "participant_id"])
def test_participants_that_cannot_be_read_are_none(tmp_path: Path, text: str | bytes) -> None:
    if text is not None:
        content = text if isinstance(text, bytes) else text.encode()
        (tmp_path / "participants.tsv").write_bytes(content)
    assert not read_people(tmp_path).rows


def test_figures_that_are_none_or_beyond_reason_have_no_value(tmp_path: Path) -> None:
    checks = {
        "brain_volume_ml": {"value": None, "verdict": "usual"},
        "response_ratio": {"value": "7", "verdict": "usual"},
        "fractional_anisotropy": 7,
    }
    record = record_of("sub-1", random(), checks=checks, peak_memory_mib=1e300)
    write_run(tmp_path, "sub-1", record)
    page_of(tmp_path)
    row = table(tmp_path)[0]
    for name in ("brain_volume_ml", "response_ratio", "fractional_anisotropy", "peak_memory_mib"):
        assert row[name] == "n/a"


def test_two_tractograms_of_one_run_are_told_apart(tmp_path: Path) -> None:
    record = record_of("sub-1", random())
    write_run(tmp_path, "sub-1", record)
    write_run(tmp_path, "sub-1", record, "_desc-other")
    names = data_of(page_of(tmp_path))["names"]
    assert names == ["sub-1_desc-other", "sub-1"]
    assert [row["run_name"] for row in table(tmp_path)] == names
    assert [row["configuration"] for row in table(tmp_path)] == ["other", "n/a"]


# The page


def test_hostile_text_is_text(tmp_path: Path) -> None:
    environment = ENVIRONMENT.model_copy(update={"container": {"Tag": HOSTILE}})
    hostile = record_of("sub-1", random(), warnings=[HOSTILE], engine=HOSTILE, version=HOSTILE)
    write_run(tmp_path, "sub-1", hostile.model_copy(update={"environment": environment}))
    write_run(tmp_path, "sub-2", record_of("sub-2", random()))
    write_log(
        tmp_path, "20260101T000000", failed={HOSTILE: failure(HOSTILE)}, skipped={"b": HOSTILE}
    )
    source = tmp_path / HOSTILE.replace("/", "")
    source.mkdir()
    text = f"participant_id\t{HOSTILE}\nsub-1\t{HOSTILE}\n"
    (source / "participants.tsv").write_text(text)
    link(tmp_path, **{HOSTILE: source.name})
    made = page_of(tmp_path)
    assert "<script>alert" not in made
    assert "<img src=x" not in made
    assert made.count("<script") == made.count("</script>") == 2
    assert "&lt;script&gt;alert(1)" in made
    assert HOSTILE in json.dumps(data_of(made), ensure_ascii=False)


def test_nothing_but_the_own_script_may_run_or_load(tmp_path: Path) -> None:
    write_study(tmp_path, 2)
    text = page_of(tmp_path)
    policy = html.unescape(re.findall(r'Content-Security-Policy" content="(.*?)"', text)[0])
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert "unsafe" not in policy
    assert not re.search(r'(?:src|href)="(?:https?:|//)', text)
    assert " style=" not in text


def test_links_are_to_pages_that_exist(tmp_path: Path) -> None:
    write_study(tmp_path, 2)
    (tmp_path / "sub-0002.html").touch()
    assert data_of(page_of(tmp_path))["pages"] == ["", "sub-0002.html"]


def test_pictures_come_from_figures_and_shrink_with_their_number(tmp_path: Path) -> None:
    write_study(tmp_path, 2)
    write_picture(tmp_path, "sub-0001", a_picture(random()))
    text = page_of(tmp_path)
    assert text.count("data:image/webp;base64,") == 1
    assert "no picture" in text
    small = thumbnail(tmp_path / "sub-0001", "sub-0001", 40)
    assert 0 < len(small) < len(thumbnail(tmp_path / "sub-0001", "sub-0001", 160))
    (tmp_path / "sub-0001/figures/sub-0001_desc-thumbnail_dwi.webp").write_bytes(b"RIFF")
    assert thumbnail(tmp_path / "sub-0001", "sub-0001", 40) == ""
    assert [side_for(n) for n in (1, 500, 3000, 10**6)] == [160, 160, 72, 40]


def test_the_picture_that_a_run_keeps_is_small() -> None:
    assert small_picture(np.zeros((520, 300, 3))).startswith(b"RIFF")


def test_two_hundred_runs_are_a_small_page_with_all_of_them(tmp_path: Path) -> None:
    names = write_study(tmp_path, 200, pictures=2)
    text = page_of(tmp_path)
    data = data_of(text)
    assert data["names"] == sorted(names)
    assert all(len(v["codes"] if isinstance(v, dict) else v) == 200 for v in data["values"])
    assert len(text) < 2_500_000
    assert text == study_page(gather(tmp_path))  # the same bytes every time


def test_no_report_writes_the_table_alone(tmp_path: Path) -> None:
    write_study(tmp_path, 2)
    ended = run_cli("in", tmp_path, "group", "--no-report", overrides=())
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "group_tractograms.tsv").exists()
    assert not (tmp_path / "index.html").exists()

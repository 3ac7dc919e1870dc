"""Pages of runs, made through the command line and again from derivatives alone."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import Ended, run_cli, sidecar, tractograms

from bids_tractography.outputs.provenance import RECORD_KEY, hash_of_sidecar
from bids_tractography.report.data import RunFailure
from bids_tractography.report.run import SECTIONS, write_run_report

HOSTILE = """</script></svg><img src=x onerror="alert(1)"><script>alert('2')</script>"""


class Elements(HTMLParser):
    """What a browser would make of a page: its elements, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def reported(scanned_once: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    output = tmp_path_factory.mktemp("reported") / "output"
    return output, run_cli(scanned_once, output, "participant", report=True)


@pytest.fixture
def output(reported: tuple[Path, Ended], tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(reported[0], tmp_path / "output"))


def change_record(output: Path, **values: object) -> None:
    (trx,) = tractograms(output)
    content = sidecar(trx)
    content[RECORD_KEY] |= values
    content[RECORD_KEY]["sidecar_sha256"] = hash_of_sidecar(content)
    trx.with_name(trx.name.split(".")[0] + ".json").write_text(json.dumps(content))


def page_of(output: Path, failure: RunFailure | None = None) -> Elements:
    path = write_run_report(output, "sub-01", failure)
    assert path is not None
    return Elements(path.read_text(encoding="utf-8"))


def test_report_of_a_run_has_every_section_and_its_figures(reported: tuple[Path, Ended]) -> None:
    output, ended = reported
    assert ended.returncode == 0
    assert "WARNING sub-01: report" not in ended.stderr
    page = (output / "sub-01.html").read_text(encoding="utf-8")
    found = {attributes.get("id") for tag, attributes in Elements(page).tags if tag == "section"}
    assert found == {section.name for section in SECTIONS}
    figures = {path.name for path in (output / "sub-01" / "figures").iterdir()}
    assert {"sub-01_desc-viewL_dwi.webp", "sub-01_desc-lengths_dwi.svg"} <= figures
    assert len(page) < 8e6


def test_report_states_the_counts_of_the_record(reported: tuple[Path, Ended]) -> None:
    output, _ = reported
    record = sidecar(tractograms(output)[0])[RECORD_KEY]
    text = Elements((output / "sub-01.html").read_text(encoding="utf-8")).text
    rejected = sum(record["streamlines_rejected"].values())
    kept, generated = record["streamlines_kept"], record["streamlines_generated"]
    assert f"{kept:,} + {rejected:,} = {generated:,} generated" in text
    assert "sidecar unchanged, sizes as recorded" in text
    assert f"seed {record['rng_seed']}" in text


def test_report_names_the_command_that_reproduces_the_run(reported: tuple[Path, Ended]) -> None:
    output, _ = reported
    text = Elements((output / "sub-01.html").read_text(encoding="utf-8")).text
    named = text.partition("bids-tractography reproduce OUTPUT_DIR/")[2].split()[0]
    assert output / named == tractograms(output)[0].with_suffix(".json")


def test_report_loads_nothing_and_runs_no_other_script(reported: tuple[Path, Ended]) -> None:
    page = (reported[0] / "sub-01.html").read_text(encoding="utf-8")
    for tag, attributes in Elements(page).tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        assert "style" not in attributes  # the policy would ignore it
        assert not any(name.startswith("on") for name in attributes)
        source = attributes.get("src") or attributes.get("srcset") or "data:"
        assert source.startswith("data:")
    assert "unsafe" not in page.partition('content="default-src')[2].partition('">')[0]


@pytest.mark.slow
def test_report_made_again_is_the_same_file_on_any_threads(
    reported: tuple[Path, Ended], output: Path
) -> None:
    before = (reported[0] / "sub-01.html").read_bytes()
    (output / "sub-01.html").unlink()
    ended = run_cli("gone", output, "participant", "--reports-only", overrides=(), report=True)
    assert (ended.returncode, ended.stdout) == (0, f"{output / 'sub-01.html'}\n")
    assert (output / "sub-01.html").read_bytes() == before
    write_run_report(output, "sub-01", n_threads=3)
    assert (output / "sub-01.html").read_bytes() == before


def test_report_without_report_is_not_made(finished: tuple[Path, Ended]) -> None:
    assert not list(finished[0].glob("*.html"))
    assert not list(finished[0].glob("sub-01/figures"))


def test_reports_only_without_runs_is_an_error(tmp_path: Path) -> None:
    ended = run_cli("gone", tmp_path, "participant", "--reports-only", overrides=(), report=True)
    assert ended.returncode == 66
    assert "no run to report" in ended.stderr


def test_report_of_a_failed_run_states_error_code_and_what_was_measured(
    dataset: Path, tmp_path: Path
) -> None:
    bvec = dataset / "sub-01" / "dwi" / "sub-01_dwi.bvec"
    rows = bvec.read_text().splitlines()
    bvec.write_text("\n".join([rows[1], rows[0], rows[2]]) + "\n")  # x and y exchanged
    ended = run_cli(dataset, tmp_path / "output", "participant", report=True)
    assert ended.returncode == 65
    path = tmp_path / "output" / "sub-01.html"
    text = Elements(path.read_text(encoding="utf-8")).text
    assert "This run failed." in text
    assert "Error (exit code 65)" in text
    assert "gradients.permute" in text  # the remedy
    assert "Largest b-value" in text
    before = path.read_bytes()
    path.unlink()
    run_cli("gone", tmp_path / "output", "participant", "--reports-only", report=True, overrides=())
    assert path.read_bytes() == before  # from the log


def test_report_of_an_empty_dataset_has_a_page_for_a_failure(tmp_path: Path) -> None:
    failure = RunFailure(f"It failed. {HOSTILE}", 70, (HOSTILE,), {HOSTILE: {"value": 1}})
    page = page_of(tmp_path, failure)
    assert page.text.count(HOSTILE) >= 3
    assert not [tag for tag, attributes in page.tags if tag == "img" or "onerror" in attributes]


@pytest.mark.slow
def test_report_hostile_values_of_the_record_show_as_text(output: Path) -> None:
    change_record(
        output,
        warnings=[HOSTILE],
        engine=HOSTILE,
        engine_differences=[HOSTILE],
        gradients={"frame": HOSTILE, "frame_reason": HOSTILE},
        model={"shell_s_mm2": HOSTILE, HOSTILE: HOSTILE, "response": [HOSTILE]},
        checks={HOSTILE: {"value": HOSTILE, "unit": HOSTILE, "usual": [HOSTILE, HOSTILE]}},
        streamlines_rejected={HOSTILE: 3},
        inputs=[{"role": HOSTILE, "uri": f"bids:{HOSTILE}:x", "sha256": HOSTILE}],
    )
    page = page_of(output)
    assert page.text.count(HOSTILE) >= 8
    kept = [attributes for tag, attributes in page.tags if tag == "img"]
    assert all((attributes["src"] or "").startswith("data:image/webp") for attributes in kept)
    assert not [1 for _, attributes in page.tags if "onerror" in attributes]
    scripts = [attributes for tag, attributes in page.tags if tag == "script"]
    assert len(scripts) == len([a for a in scripts if a.get("id")]) + 2


@pytest.mark.slow
@pytest.mark.parametrize("value", [None, {"a": [1]}, 10**400], ids=["null", "object", "large"])
def test_report_values_of_other_types_give_a_page(output: Path, value: object) -> None:
    change_record(
        output,
        checks={"response_ratio": value, "gradient_table": value, "x": {"usual": [value, 1]}},
        model={"shell_s_mm2": value, "response": value, "responses": value, "sh_order": value},
    )
    assert "Summary" in page_of(output).text


@pytest.mark.parametrize("content", ["", '{"BidsTractography": 3}'])
def test_report_damaged_sidecar_is_said(output: Path, content: str) -> None:
    (trx,) = tractograms(output)
    trx.with_name(trx.name.split(".")[0] + ".json").write_text(content)
    assert "There is no finished tractogram" in page_of(output).text


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["*_tractogram.trx", "*fa_dwimap.nii.gz", "*fod_dwimap.nii.gz"])
def test_report_damaged_file_is_said_and_the_rest_is_shown(output: Path, pattern: str) -> None:
    (path,) = output.glob(f"sub-01/dwi/{pattern}")
    path.write_bytes(path.read_bytes()[:1000])
    page = page_of(output)
    assert re.search("cannot be (read|shown|made)|could not be made|damaged", page.text)
    assert "Methods" in page.text


@pytest.mark.slow
def test_report_counts_that_do_not_add_up_are_pointed_at(output: Path) -> None:
    record = sidecar(tractograms(output)[0])[RECORD_KEY]
    change_record(output, streamlines_generated=record["streamlines_generated"] + 5)
    text = page_of(output).text
    assert "≠" in text
    assert "The record is damaged." in text
    assert "to look at" in text


@pytest.mark.parametrize("count", [10**15, -1])
def test_report_impossible_number_of_streamlines_is_said(output: Path, count: int) -> None:
    change_record(output, streamlines_kept=count)
    assert re.search("cannot hold|cannot be shown", page_of(output).text)


def test_report_does_not_follow_names_out_of_the_dataset(tmp_path: Path) -> None:
    assert write_run_report(tmp_path, "../sub-01", RunFailure("x", 1)) is None
    assert write_run_report(tmp_path, "sub-01/../../x", RunFailure("x", 1)) is None
    assert not list(tmp_path.iterdir())

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy.errors import ConfigError, MeasurementError
from deploy.files import seal
from deploy.report import store
from deploy.types import REPORT_SCHEMA_VERSION, GateReport, LedgerRow, Outcome
from tests.deploy.report import factory, gate_factory

REPORT = factory.report()
GATE = gate_factory.gate_report()
GOLDEN = Path(__file__).parents[2] / "fixtures" / "reports"


@pytest.fixture
def written(tmp_path):
    return store.write(REPORT, tmp_path / "run")


def refused(path) -> str:
    with pytest.raises(ConfigError) as caught:
        store.load(path)
    line = str(caught.value)
    assert "\n" not in line
    assert path.name in line
    return line


def test_a_report_comes_back_as_it_was(written):
    loaded = store.load(written)
    assert loaded.content_sha256
    assert loaded.model_copy(update={"content_sha256": ""}) == REPORT
    assert store.load(written.parent) == loaded


def test_equal_reports_are_equal_files(tmp_path):
    turned = REPORT.model_copy(update={"tools": dict(reversed(REPORT.tools.items()))})
    first = store.write(REPORT, tmp_path / "a").read_bytes()
    second = store.write(turned, tmp_path / "b").read_bytes()
    assert first == second
    assert store.write(store.load(tmp_path / "a"), tmp_path / "c").read_bytes() == first
    assert next(iter(json.loads(first))) == "schema_version"


def test_odd_text_and_numpy_scalars_come_back(tmp_path):
    detail = {"text": "\ud800 \x00 \u202e é", "ratio": np.float32(0.5), "steps": np.int64(3)}
    row = LedgerRow(step="s", detail=detail, parameters=1, program_bytes=1, seconds=1)
    store.write(REPORT.model_copy(update={"ledger": (row,)}), tmp_path)
    loaded = store.load(tmp_path).ledger[0].detail
    assert loaded == {"text": "\ud800 \x00 \u202e é", "ratio": 0.5, "steps": 3}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(share=st.floats(min_value=0, max_value=1, exclude_max=True))
def test_a_cut_off_file_is_refused_at_any_length(written, share):
    whole = written.read_bytes()
    # The last byte is a newline, without which the report is still whole.
    part = whole[: int(share * (len(whole) - 1))]
    cut = written.with_name("cut.json")
    cut.write_bytes(part)
    line = refused(cut)
    assert "cut off" in line or "UTF-8" in line or "valid JSON" in line


def test_a_cut_off_file_says_where_it_ends(written):
    text = written.read_text()
    written.write_text(text[: len(text) // 2])
    assert "report.json:" in refused(written)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"exit_code": 8', '"exit_code": 0'),
        ("4998304", "4998303"),
        ('"tier": "emulator"', '"tier": "device"'),
        ('"content_sha256": "', '"content_sha256": "0'),
        ('"seed": 7,', '"seed": 7, "extra": 1,'),
    ],
)
def test_an_edited_file_is_refused(written, old, new):
    text = written.read_text()
    assert old in text
    written.write_text(text.replace(old, new, 1))
    assert "edited" in refused(written)


def test_a_key_that_stands_twice_is_refused(written):
    written.write_text(written.read_text().replace('"seed": 7,', '"seed": 7, "seed": 7,'))
    assert "'seed' twice" in refused(written)


@pytest.mark.parametrize("version", ["0", '"1"', "null", "true", "1.0", '"\\u001b[2J"'])
def test_another_schema_version_is_refused(written, version):
    text = written.read_text().replace('"schema_version": 2', f'"schema_version": {version}')
    written.write_text(text)
    line = refused(written)
    assert "schema_version" in line
    assert "\x1b" not in line


def test_a_newer_schema_version_is_refused_with_what_to_do(written):
    newer = REPORT_SCHEMA_VERSION + 1
    data = {**json.loads(written.read_text()), "schema_version": newer, "new_key": 1}
    written.write_text(json.dumps(data))
    line = refused(written)
    assert f"schema_version is {newer}, and this pocketship reads 1 to 2" in line
    assert "newer pocketship wrote it: update this one" in line


def test_a_report_of_version_1_still_loads(tmp_path):
    """As the last pocketship of version 1 wrote it: a run of a tiny model, made smaller since."""
    golden = GOLDEN / "version-1.json"
    assert json.loads(golden.read_text())["schema_version"] == 1
    report = store.load(golden)
    assert report.schema_version == REPORT_SCHEMA_VERSION
    assert [(v.outcome, v.subject, v.metric) for v in report.verdicts] == [
        (Outcome.PASS, "fp32.executorch", "parity"),
        (Outcome.PASS, "fp32.executorch", "bytes"),
    ]
    assert {(v.tier, v.base_value, v.paired, v.accepted) for v in report.verdicts} == {
        (None, None, None, "")
    }
    assert len(report.cases[0].measurements) == 5
    # Written again it is a file of today, and it is sealed anew.
    again = store.load(store.write(report, tmp_path))
    seals = {"content_sha256": ""}
    assert again.model_copy(update=seals) == report.model_copy(update=seals)
    assert again.content_sha256 != report.content_sha256


@pytest.mark.parametrize(
    ("old", "new"),
    [('"value": 5904.0', '"value": 5903.0'), ('"schema_version": 1', '"schema_version": 2')],
)
def test_the_seal_of_a_version_1_report_is_checked_as_it_was_made(tmp_path, old, new):
    text = (GOLDEN / "version-1.json").read_text()
    assert old in text
    path = tmp_path / "report.json"
    path.write_text(text.replace(old, new))
    assert "edited" in refused(path)


def test_a_report_whose_artifacts_have_no_macs_yet_still_loads(written):
    """Those of version 2 that were written before manifests had them."""
    data = json.loads(written.read_text())
    for one in data["artifacts"]:
        for key in ("macs", "planned_bytes", "unknown"):
            del one[key]
    data["content_sha256"] = seal(data)
    written.write_text(json.dumps(data))
    for one in store.load(written).artifacts:
        for metric in ("macs", "planned_bytes"):
            assert one.figure(metric) == (None, "its manifest is of before this was noted")


def test_two_reports_in_one_file_are_refused(written):
    written.write_text(written.read_text() * 2)
    assert "two files became one" in refused(written)


def test_a_gates_report_comes_back_as_it_was(tmp_path):
    path = store.write(GATE, tmp_path / "gate")
    assert path.name == store.GATE_FILE_NAME
    loaded = store.load_gate(path)
    assert loaded.model_copy(update={"content_sha256": ""}) == GATE
    assert store.load_gate(path.parent) == loaded
    path.write_text(path.read_text().replace('"exit_code": 8', '"exit_code": 0'))
    with pytest.raises(ConfigError, match=r"edited .*pocketship gate"):
        store.load_gate(path)


def test_a_gates_number_that_json_cannot_hold_names_its_file(tmp_path):
    nan = gate_factory.verdict(value=float("inf"))
    with pytest.raises(MeasurementError, match=r"gate\.json: verdicts\.0\.value is inf"):
        store.write(GATE.model_copy(update={"verdicts": (nan,)}), tmp_path)


def test_a_newer_gate_report_is_refused(tmp_path):
    path = store.write(GATE, tmp_path)
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2', 1))
    with pytest.raises(ConfigError, match=r"reads 1 only.*newer pocketship"):
        store.load_gate(path)


def test_either_kind_is_found_by_folder_and_by_content(tmp_path):
    run, gate = tmp_path / "run", tmp_path / "gate"
    store.write(REPORT, run)
    moved = store.write(GATE, gate).rename(tmp_path / "anything.txt")
    assert store.load_any(run) == store.load(run)
    assert isinstance(store.load_any(moved), GateReport)
    with pytest.raises(ConfigError, match="holds no report"):
        store.load_any(gate)
    store.write(GATE, run)
    with pytest.raises(ConfigError, match=r"holds both report\.json and gate\.json"):
        store.load_any(run)


def test_one_kind_is_not_taken_for_the_other(tmp_path):
    run, gate = store.write(REPORT, tmp_path), store.write(GATE, tmp_path)
    with pytest.raises(ConfigError, match="is a gate report, not a report"):
        store.load(gate)
    with pytest.raises(ConfigError, match="is a report, not a gate report"):
        store.load_gate(run)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b"\xff\xfe{}", b"{" * 100_000, b"[" * 100_000, b'{"a": NaN}', b"<html>"],
)
def test_what_is_no_report_is_refused(tmp_path, content):
    path = tmp_path / "report.json"
    path.write_bytes(content)
    refused(path)


def test_a_report_that_breaks_its_own_rules_is_refused_by_key(written):
    data = json.loads(written.read_text())
    data["cases"][0]["measurements"][0]["samples"] = []
    data["content_sha256"] = seal(data)
    written.write_text(json.dumps(data))
    assert "cases.0.measurements.0" in refused(written)


def test_a_missing_report_is_one_line(tmp_path):
    assert "no such report" in refused(tmp_path / "report.json")


def test_a_number_that_json_cannot_hold_is_named_and_nothing_is_written(tmp_path):
    nan = factory.case(
        factory.artifact("int8"),
        "host",
        factory.measured(factory.Metric.LATENCY_MS, 1.0, float("nan")),
    )
    with pytest.raises(MeasurementError, match=r"cases\.0\.measurements\.0\.samples\.1 is nan"):
        store.write(REPORT.model_copy(update={"cases": (nan,)}), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        store.write(REPORT, tmp_path / "file")


def test_latest_follows_the_newest_run(tmp_path):
    for run in ("one", "two"):
        (tmp_path / run).mkdir()
        link = store.point_latest(tmp_path / run)
        assert link.readlink() == Path(run)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "one", "two"]


def test_latest_replaces_a_link_whose_run_is_gone(tmp_path):
    (tmp_path / "latest").symlink_to("gone")
    (tmp_path / "new").mkdir()
    assert store.point_latest(tmp_path / "new").readlink() == Path("new")


def test_a_folder_called_latest_is_left_alone(tmp_path):
    (tmp_path / "latest").mkdir()
    (tmp_path / "run").mkdir()
    with pytest.raises(ConfigError, match="not a link"):
        store.point_latest(tmp_path / "run")
    assert (tmp_path / "latest").is_dir()
    assert not (tmp_path / "latest").is_symlink()

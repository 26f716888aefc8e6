import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy.errors import ConfigError, MeasurementError
from deploy.report import store
from deploy.types import LedgerRow
from tests.deploy.report import factory

REPORT = factory.report()


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


@pytest.mark.parametrize("version", ["2", '"1"', "null", "true", "1.0", '"\\u001b[2J"'])
def test_another_schema_version_is_refused(written, version):
    text = written.read_text().replace('"schema_version": 1', f'"schema_version": {version}')
    written.write_text(text)
    line = refused(written)
    assert "schema_version" in line
    assert "\x1b" not in line


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
    data["content_sha256"] = store._seal(data)
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

"""`pocketship history` on what a real run wrote, and runs whose history is out of order."""

from __future__ import annotations

import csv
import gc
import io
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import provenance
from deploy.history import address, database, record, table_files
from deploy.types import ARTIFACT_METRICS
from tests.deploy.conftest import Answer, FinishedRun, report_of, write_pipeline
from tests.deploy.history import made_reports as made

Call = Callable[..., Answer]


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(address.VARIABLE, raising=False)


def runs_in(file: Path) -> list[tuple[Any, ...]]:
    with sqlite3.connect(file) as connection:
        return connection.execute("SELECT run_id, branch, commit_id FROM history_run").fetchall()


def exported(call: Call, *words: str | Path) -> list[dict[str, str]]:
    answer = call("history", "export", *words)
    assert answer.code == 0, answer.err
    return list(csv.DictReader(io.StringIO(answer.out)))


# --- what a run leaves ----------------------------------------------------------------------------


def test_a_run_is_in_the_history_with_every_case_and_metric(
    call: Call, finished: FinishedRun
) -> None:
    file = finished.root.parent.parent / "history.sqlite"
    assert f"{finished.root.name} is in the history {file}" in finished.answer.err
    rows = exported(call, "--history", file)
    report = report_of(finished.root)
    wanted = {
        (case["artifact"], str(case["threads"]), one["metric"], one["status"])
        for case in report["cases"]
        for one in case["measurements"]
    } | {
        (of["name"], "0", metric, "unavailable" if value is None else "ok")
        for of in report["artifacts"]
        for metric in ARTIFACT_METRICS
        for value in [of.get(metric, of["placement"].get(metric))]
    }
    assert len(wanted) > 20
    assert {(r["artifact"], r["threads"], r["metric"], r["status"]) for r in rows} == wanted
    assert {row["run_id"] for row in rows} == {report["run_id"]}
    assert {row["os_build"] for row in rows} != {""}
    sizes = {row["artifact"]: row["median"] for row in rows if row["metric"] == "bytes"}
    assert sizes == {of["name"]: str(float(of["bytes"])) for of in report["artifacts"]}


def test_the_page_of_trends_shows_what_the_history_holds(finished: FinishedRun) -> None:
    page = (finished.root / "trends.html").read_text()
    cases = [case for case in report_of(finished.root)["cases"] if case["status"] == "ok"]
    assert cases
    for case in cases:
        assert f"{case['artifact']}, {case['threads']} thread" in page
    for of in report_of(finished.root)["artifacts"]:
        assert f"{of['name']}, the file" in page
    # One run is no line yet.
    assert "a line needs two runs" in page


def test_a_report_again_is_the_same_run(call: Call, finished: FinishedRun, tmp_path: Path) -> None:
    root = finished.copy(tmp_path)
    file = tmp_path / "reports/history.sqlite"
    assert call("report", root).code == 0
    before = runs_in(file)
    assert len(before) == 1
    # Another commit makes another report of the same run.
    assert call("report", root).code == 0
    assert runs_in(file) == before
    again = call("history", "import", root.parent, "--history", file)
    assert "0 added, 0 replaced, 1 there already, 0 left out" in again.out


def test_a_run_that_wants_none_leaves_none(
    call: Call, finished: FinishedRun, tmp_path: Path
) -> None:
    root = finished.copy(tmp_path, history="none")
    answer = call("report", root)
    assert answer.code == 0
    assert "history" not in answer.err
    assert not (tmp_path / "reports/history.sqlite").exists()


def test_a_history_that_cannot_be_written_is_a_warning(
    call: Call, finished: FinishedRun, tmp_path: Path
) -> None:
    root = finished.copy(tmp_path)
    (tmp_path / "reports/history.sqlite").write_text("not a database " * 99)
    answer = call("report", root)
    assert answer.code == 0
    assert "Report:" in answer.out
    (warning,) = (line for line in answer.err.splitlines() if "warning" in line)
    assert "the report is not in the history" in warning
    assert "is damaged, or no SQLite database" in warning
    # The report itself is there, and can be added later.
    (tmp_path / "reports/history.sqlite").unlink()
    assert "1 added" in call("history", "import", root, "--history", tmp_path / "h.sqlite").out


def test_the_variable_names_the_history_of_a_run(
    call: Call, finished: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(address.VARIABLE, str(tmp_path / "mine.sqlite"))
    monkeypatch.setenv("GITHUB_REF", "refs/pull/12/merge")
    assert call("report", finished.copy(tmp_path)).code == 0
    ((_, branch, _),) = runs_in(tmp_path / "mine.sqlite")
    # A pull request's author chose the name of its branch: it is not believed.
    assert branch == "pull/12"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("postgresql://me:secret@db/h", "holds a password; leave it out and set"),
        ("postgresql://db/h?password=secret", "holds a password; leave it out and set"),
        ("mysql://db/h", "no history can be kept in 'mysql'"),
        ("postgresql://db:port/h", "is no URL that can be read"),
        (7, "history: input should be a valid string"),
    ],
)
def test_a_wrong_history_is_told_before_anything_runs(
    call: Call, tmp_path: Path, value: object, text: str
) -> None:
    answer = call("check", write_pipeline(tmp_path, history=value))
    assert answer.code == 2
    assert text in answer.last
    assert "secret" not in answer.err


@pytest.mark.parametrize("text", ["off", "none", "'none'", "no", "false"])
def test_off_is_what_yaml_makes_of_it(call: Call, tmp_path: Path, text: str) -> None:
    from deploy.config import load

    file = write_pipeline(tmp_path)
    file.write_text(file.read_text() + f"history: {text}\n")
    assert load(file).history == "none"
    assert yaml.safe_load(file.read_text())["name"] == "tiny"


def test_branches(tmp_path: Path, finished: FinishedRun) -> None:
    import subprocess

    def git(*words: str) -> None:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    assert provenance.branch_of(tmp_path, {"CI_COMMIT_REF_NAME": "x"}) == ""
    git("init", "-b", "trunk")
    git("commit", "--allow-empty", "-m", "one")
    assert provenance.branch_of(tmp_path, {"CI_COMMIT_REF_NAME": "x"}) == "trunk"
    git("checkout", "--detach")
    assert provenance.branch_of(tmp_path, {}) == ""
    assert provenance.branch_of(tmp_path, {"CI_COMMIT_REF_NAME": "x"}) == "x"
    assert provenance.branch_of(tmp_path, {"GITHUB_REF": "refs/heads/main"}) == ""
    github = {"GITHUB_REF": "refs/heads/main", "GITHUB_REF_NAME": "main"}
    assert provenance.branch_of(tmp_path, github) == "main"


# --- the commands ---------------------------------------------------------------------------------


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """24 runs on main, slower by 20 % from the 13th on, where the command looks by itself."""
    file = tmp_path / "reports/history.sqlite"
    history = database.connect(address.parse(str(file)))
    with history.writing() as connection:
        for number in range(24):
            level = (10.0 if number < 12 else 12.0) + 0.01 * (number % 5)
            report = made.report(number, level, level + 0.5, level - 0.25)
            record.add_within(connection, report, branch="main")
    monkeypatch.chdir(tmp_path)
    return file


def test_list_shows_the_newest_and_says_that_there_are_more(call: Call, filled: Path) -> None:
    answer = call("history", "list", "--metric", "latency_ms", "--limit", "3")
    assert answer.code == 0
    lines = [line for line in answer.out.splitlines() if "latency_ms" in line]
    assert [line.split()[1 if line.startswith("│") else 0] for line in lines] == [
        f"2030-01-01T00:{minute}:00Z" for minute in (23, 22, 21)
    ]
    assert "12.03" in lines[0]
    assert "only the newest 3; --limit shows more" in answer.err
    words = ["history", "list", "--columns", "run_id,p90,reason", "--status", "unavailable"]
    chosen = call(*words, "--limit", "1")
    assert "20300101-000023" in chosen.out
    assert "no rail" in chosen.out
    assert "artifact" not in chosen.out


def test_list_as_json_has_every_column(call: Call, filled: Path) -> None:
    words = ["--since", "2030-01-01T00:20:00Z", "--until", "2030-01-01T00:22", "--json"]
    rows = json.loads(call("history", "list", *words).out)
    assert {row["run_id"][-2:] for row in rows} == {"20", "21"}
    assert set(rows[0]) == set(table_files.COLUMNS)
    assert json.loads(call("history", "list", "--branch", "none", "--json").out) == []
    nothing = call("history", "list", "--branch", "none")
    assert (nothing.code, nothing.out) == (0, "")
    assert "no figure in reports/history.sqlite fits" in nothing.err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--tier", "moon"], "no tier 'moon'. Choose one of: estimate, emulator"),
        (["--status", "good"], "no status 'good'. Choose one of: ok, unavailable"),
        (["--since", "yesterday"], "'yesterday' is no time. Write it as 2026-11-22"),
        (["--columns", "median,colour"], "no column 'colour'. Choose from: created_utc, "),
        (["--history", "elsewhere.sqlite"], "elsewhere.sqlite: there is no history yet."),
        (["--history", "mysql://x/y"], "no history can be kept in 'mysql'"),
    ],
)
def test_wrong_questions_are_one_line(
    call: Call, filled: Path, words: list[str], text: str
) -> None:
    answer = call("history", "list", *words)
    assert answer.code == 2
    assert text in answer.last
    assert not (filled.parent.parent / "elsewhere.sqlite").exists()


def test_show_a_run_by_its_id_or_its_hash(call: Call, filled: Path) -> None:
    shown = call("history", "show", "20300101-000013")
    assert shown.code == 0
    for part in ("lenet 20300101-000013", "PASS int8.executorch@pixel/t1", "12.03", "1,234"):
        assert part in shown.out
    run = json.loads(call("history", "show", "20300101-000013", "--json").out)
    again = call("history", "show", run["content_sha256"][:8], "--json")
    assert json.loads(again.out) == run
    every = ["latency_ms", "energy_mj", *ARTIFACT_METRICS]
    assert [one["metric"] for one in run["figures"]] == every
    assert call("history", "show", "nothing").code == 2


def test_show_asks_which_of_two_runs_of_one_id(call: Call, filled: Path) -> None:
    history = database.connect(address.parse(str(filled)))
    record.add(history, made.report(13, 99.0), branch="feature")
    answer = call("history", "show", "20300101-000013")
    assert answer.code == 2
    assert "several runs are '20300101-000013'" in answer.last
    name = made.report(13, 99.0).content_sha256[:8]
    assert f"{name} (lenet, 2030-01-01T00:13:00Z)" in answer.last
    assert "99.00" in call("history", "show", name).out


def test_csv_and_parquet_hold_the_same(call: Call, filled: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    count = 24 * (2 + len(ARTIFACT_METRICS))
    for name in ("all.csv", "all.parquet"):
        answer = call("history", "export", "-o", tmp_path / name, "--samples")
        assert answer.code == 0
        assert f"{count} figures in {tmp_path / name}" in answer.out
    with (tmp_path / "all.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    rows = parquet.read_table(tmp_path / "all.parquet").to_pylist()
    assert len(rows) == len(lines) == count
    for row, line in zip(rows, lines, strict=True):
        assert list(row) == list(line)
        for name, value in row.items():
            if name == "samples":
                assert [float(one) for one in line[name].split()] == (value or [])
            elif isinstance(value, float):
                assert float(line[name]) == value
            else:
                assert line[name] == ("" if value is None else str(value))
    last = [line for line in lines if line["metric"] == "latency_ms"][-1]
    assert exported(call, "--metric", "latency_ms", "--until", "2030-01-01T00:02")[1] == {
        name: value for name, value in last.items() if name != "samples"
    }


def test_a_formula_in_a_name_is_text_to_a_spreadsheet(call: Call, filled: Path) -> None:
    history = database.connect(address.parse(str(filled)))
    on = made.device(os_build='=HYPERLINK("http://x")')
    record.add(history, made.report(30, on=on))
    rows = exported(call, "--since", "2030-01-01T00:30", "--metric", "latency_ms")
    (found,) = {row["os_build"] for row in rows}
    assert found == '\'=HYPERLINK("http://x")'


def test_export_that_cannot_be_written_or_read(
    call: Call,
    filled: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").touch()
    answer = call("history", "export", "-o", tmp_path / "file/x.csv")
    assert answer.code == 2
    assert "cannot be written" in answer.last
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    answer = call("history", "export", "-o", tmp_path / "x.parquet")
    assert answer.code == 2
    assert "pip install 'pocketship[parquet]'" in answer.last
    gc.collect()
    assert not caplog.records, "a query was left open, and complains when it is collected"
    filled.write_text("x" * 5000)
    answer = call("history", "export", "-o", tmp_path / "x.csv")
    assert answer.code == 2
    assert not (tmp_path / "x.csv").exists()


def test_import_takes_what_is_whole_and_tells_of_the_rest(
    call: Call, finished: FinishedRun, tmp_path: Path
) -> None:
    whole = tmp_path / "old/one/report.json"
    whole.parent.mkdir(parents=True)
    whole.write_bytes((finished.root / "report.json").read_bytes())
    (tmp_path / "old/latest").symlink_to("one")
    broken = tmp_path / "old/two/report.json"
    broken.parent.mkdir()
    broken.write_bytes(whole.read_bytes()[:-500])
    file = tmp_path / "h.sqlite"
    answer = call("history", "import", tmp_path / "old", "--history", file, "--branch", "main")
    assert answer.code == 2
    assert f"1 added, 0 replaced, 0 there already, 1 left out: {file}" in answer.out
    assert f"left out: {broken}" in answer.err
    ((_, branch, _),) = runs_in(file)
    assert branch == "main"
    for nothing in (tmp_path / "nowhere", tmp_path / "old/latest/../../h.sqlite/x"):
        assert call("history", "import", nothing, "--history", file).code == 2


def test_changes_are_advice_with_commits(call: Call, filled: Path) -> None:
    answer = call("history", "changes", "--metric", "latency_ms")
    assert answer.code == 0
    first, last = made.report(12).commit, made.report(11).commit
    assert first is not None
    assert last is not None
    (line,) = (line for line in answer.out.splitlines() if first[:10] in line)
    assert last[:10] in line
    assert "+19" in line or "+20" in line
    assert "1 change points in 1 series on main; 0 of them are too short to have one" in answer.out
    found = json.loads(call("history", "changes", "--json", "--device", "pixel").out)
    assert [change["index"] for change in found[0]["changes"]] == [12]
    few = call("history", "changes", "--since", "2030-01-01T00:18")
    # Those of the file need no length: nothing is tested.
    count = 1 + len(ARTIFACT_METRICS)
    assert f"0 change points in {count} series on main; 1 of them are too short" in few.out
    assert (
        "0 change points in 0 series on other"
        in call("history", "changes", "--branch", "other").out
    )


def test_a_file_that_grew_is_found_at_once(
    call: Call, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run after the change is enough, where a noisy figure needs four."""
    history = database.connect(address.parse(str(filled)))
    grown = made.artifact(content="grown", bytes=1300)
    record.add(history, made.report(24, artifacts=(grown,)), branch="main")
    monkeypatch.setenv("COLUMNS", "200")
    answer = call("history", "changes", "--metric", "bytes")
    (line,) = (line for line in answer.out.splitlines() if "1,300" in line)
    for part in ("int8.executorch", "the file", "host", "1,234", "+5.3%", "exact"):
        assert part in line
    assert str(made.report(24).commit)[:10] in line
    assert "1 change points in 1 series on main; 0 of them" in answer.out
    listed = call("history", "list", "--metric", "bytes", "--limit", "1")
    assert "1,300" in listed.out
    assert "/t0" not in answer.out + listed.out
    one = json.loads(call("history", "list", "--metric", "bytes", "--limit", "1", "--json").out)
    assert (one[0]["device"], one[0]["threads"], one[0]["median"]) == ("", 0, 1300.0)


def test_prune_counts_first_and_leaves_the_reports(call: Call, filled: Path) -> None:
    words = ["history", "prune", "--before", "2030-01-01T00:10"]
    assert "10 runs would be removed" in call(*words, "--dry-run").out
    assert len(runs_in(filled)) == 24
    assert "0 runs were removed" in call(*words, "--branch", "other").out
    assert "10 runs were removed" in call(*words).out
    assert len(runs_in(filled)) == 14
    assert call("history", "prune", "--before", "soon").code == 2

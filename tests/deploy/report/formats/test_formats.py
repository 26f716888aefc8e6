"""The registry, the files in a report's folder, and ``pocketship report FOLDER --format``."""

import subprocess
import sys

import pytest

from deploy.report import formats, gate, store
from deploy.report.formats.comment import marks
from deploy.types import Outcome
from tests.deploy.conftest import environment
from tests.deploy.report import factory, gate_factory

REPORTS = [factory.report(), gate_factory.gate_report()]


@pytest.mark.parametrize("report", REPORTS, ids=["run", "gate"])
def test_every_format_takes_both_kinds_and_gives_the_same_each_time(report):
    for name in formats.FORMATS:
        text = formats.formatted(report, name)
        assert text.endswith("\n"), name
        assert formats.formatted(report, name) == text
        text.encode("utf-8")


@pytest.mark.parametrize("report", REPORTS, ids=["run", "gate"])
def test_the_folder_gets_a_comment_and_junit(report, tmp_path):
    paths = formats.write(report, tmp_path)
    assert [path.name for path in paths] == ["comment.md", "junit.xml"]
    assert marks(paths[0].read_text())
    assert paths[1].read_text() == formats.formatted(report, "junit")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["comment.md", "junit.xml"]


@pytest.mark.parametrize("report", REPORTS, ids=["run", "gate"])
@pytest.mark.parametrize("name", sorted(formats.FORMATS))
def test_the_command_writes_what_it_prints(call, tmp_path, report, name):
    folder = tmp_path / "folder"
    path = store.write(report, folder)
    before = path.read_bytes()
    report = store.load_any(folder)  # With its dictionaries sorted, as they are in the file.
    printed = call("report", folder, "--format", name)
    assert (printed.code, printed.err) == (0, "")
    file = tmp_path / "out" / "file"
    written = call("report", path, "--format", name, "-o", file)
    assert (written.code, written.out, written.err) == (0, "", "")
    assert file.read_text() == printed.out == formats.formatted(report, name)
    assert list(folder.iterdir()) == [path]
    assert path.read_bytes() == before


def test_a_wrong_format_or_folder_is_one_line_and_writes_nothing(call, tmp_path):
    folder, file = tmp_path / "folder", tmp_path / "file"
    path = store.write(REPORTS[0], folder)
    answer = call("report", folder, "--format", "pdf", "-o", file)
    assert answer.code == 2
    assert "no format 'pdf'" in answer.last
    assert "comment, csv, github, junit, markdown, summary" in answer.last
    assert call("report", tmp_path, "--format", "csv", "-o", file).code == 2
    path.write_text(path.read_text()[:-20])
    answer = call("report", folder, "--format", "junit", "-o", file)
    assert answer.code == 2
    assert "cut off" in answer.last
    assert not file.exists()


def test_a_file_that_cannot_be_written_is_one_line(call, tmp_path):
    store.write(REPORTS[0], tmp_path)
    answer = call("report", tmp_path, "--format", "csv", "-o", tmp_path / "report.json" / "x")
    assert answer.code == 2
    assert "cannot be written" in answer.last


def test_options_of_a_format_need_one(call, tmp_path):
    answer = call("report", tmp_path, "-o", "x")
    assert answer.code == 2
    assert "go with --format" in answer.err


@pytest.mark.parametrize("outcome", [Outcome.INVALID, Outcome.INCONCLUSIVE])
def test_what_the_gate_does_not_count_turns_no_format_red(outcome):
    """A secondary metric with too few sessions: as each gate on the emulated phone has one."""
    held = gate_factory.verdict(source=gate.PRIMARY)
    open_ = gate_factory.verdict(outcome, source=gate.SECONDARY, metric="peak_rss_kib")
    found = (open_, held)
    assert gate.decide(found) == (Outcome.PASS, 0)
    report = gate_factory.gate_report(verdicts=found, outcome=Outcome.PASS, exit_code=0)
    assert formats.formatted(report, "github") == ""
    xml = formats.formatted(report, "junit")
    assert 'failures="0" errors="0" skipped="1"' in xml
    text = formats.formatted(report, "comment")
    assert "### What changed" not in text
    assert text.index("<details>") < text.index(f"| {outcome} |") < text.index("</details>")


def test_what_decided_stands_first():
    files = gate_factory.verdict(Outcome.REGRESSED, subject="int8.executorch", metric="bytes")
    decided = gate_factory.verdict(Outcome.REGRESSED, source=gate.PRIMARY)
    report = gate_factory.gate_report(verdicts=(files, decided))
    text = formats.formatted(report, "comment")
    assert text.index("Steady inference") < text.index("| File |")


def test_giving_a_report_needs_none_of_the_runtimes():
    """The workflow that comments for forks installs a few packages only (docs/ci.md)."""
    script = (
        "import sys, deploy.sharing, deploy.cli\n"
        "print({m.partition('.')[0] for m in sys.modules} & "
        "{'torch', 'executorch', 'onnx', 'onnxruntime', 'coremltools', 'yaml', "
        "'sqlalchemy', 'plotly', 'adbutils', 'adb_shell'})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment()
    )
    assert done.stdout == "set()\n", done.stderr

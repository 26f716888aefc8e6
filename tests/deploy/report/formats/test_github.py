import re

import pytest

from deploy.report.formats.github import SUMMARY_MAX_BYTES, summary, workflow_commands
from deploy.types import Outcome
from tests.deploy.report import factory, gate_factory
from tests.deploy.report.formats import hostile

COMMAND = re.compile(r"::(error|warning|notice) title=([^:,]*)::(.*)")


def read(text: str) -> list[tuple[str, str, str]]:
    """As the runner reads it: a command a line, then the escapes undone."""
    found = []
    for line in text.splitlines():
        match = COMMAND.fullmatch(line)
        assert match, line
        kind, title, message = match.groups()
        for escape, character in (("%3A", ":"), ("%2C", ",")):
            title = title.replace(escape, character)
        undone = [
            part.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")
            for part in (title, message)
        ]
        found.append((kind, *undone))
    return found


def test_each_outcome_has_its_kind():
    found = read(workflow_commands(gate_factory.gate_report()))
    assert [(kind, title.split(":")[0]) for kind, title, _ in found] == [
        ("error", "REGRESSED"),
        ("error", "REGRESSED"),
        ("error", "INVALID"),
        ("warning", "INCONCLUSIVE"),
        ("notice", "IMPROVED"),
        ("notice", "PASS"),
    ]
    assert found[0][1:] == (
        "REGRESSED: int8.executorch@emulated-arm64/t1: instructions",
        "84,664,336 → 155,330,255 instructions (+83.5 %, emulator): more than the base; exact",
    )
    assert "accepted: Ada Lovelace" in found[-1][2]


def test_a_check_that_holds_says_nothing():
    assert workflow_commands(gate_factory.gate_report(verdicts=(gate_factory.verdict(),))) == ""


def test_not_more_than_github_shows_and_the_last_counts_the_rest():
    many = tuple(gate_factory.verdict(Outcome.REGRESSED, subject=f"c{i}") for i in range(25))
    few = tuple(gate_factory.verdict(Outcome.INCONCLUSIVE, subject=f"c{i}") for i in range(10))
    found = read(workflow_commands(gate_factory.gate_report(verdicts=many + few)))
    kinds = [kind for kind, _, _ in found]
    assert (kinds.count("error"), kinds.count("warning")) == (10, 10)
    assert found[9][1] == "16 more"
    assert found[8][1].startswith("REGRESSED: c8")


@pytest.mark.parametrize("text", hostile.TEXTS)
def test_no_text_becomes_a_command_or_is_changed_by_the_escapes(text):
    report = hostile.gate_report(text)
    found = read(workflow_commands(report))
    assert len(found) == 9
    seen = " ".join(text.split())
    if seen.isprintable():
        assert all(seen in title for _, title, _ in found)


def test_the_summary_is_the_whole_report_without_pictures_that_are_not_there():
    text = summary(factory.report())
    assert "Artifacts, parity</summary>" in text
    assert "![" not in text
    assert summary(gate_factory.gate_report(), link="https://ci.example/1").count("| PASS |") == 1


def test_a_summary_that_github_would_not_show_is_cut_with_a_word():
    verdicts = tuple(
        gate_factory.verdict(Outcome.REGRESSED, subject=f"c{i}", reason="&" * 290)
        for i in range(1000)
    )
    text = summary(gate_factory.gate_report(verdicts=verdicts))
    assert 0.6 * SUMMARY_MAX_BYTES < len(text.encode()) < SUMMARY_MAX_BYTES
    assert re.search(r"\*\*\d+ more rows\*\* \(\d+ REGRESSED\) are in the full report only", text)

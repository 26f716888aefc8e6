"""``accept``: from a gate's report to the file that lets its regressions pass."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.report import accepted, store
from deploy.types import GateReport, GateRules, Outcome, Side, Verdict
from tests.deploy.conftest import Answer

Call = Callable[..., Answer]
UNTIL = "2031-01-31"
WORDS = ("--reason", "a wider\nhead", "--by", "Ada", "--until", UNTIL)


def verdict(metric: str, base: float, head: float, **changes: Any) -> Verdict:
    values: dict[str, Any] = {
        "outcome": Outcome.REGRESSED,
        "subject": "int8.executorch",
        "metric": metric,
        "value": head,
        "limit": None,
        "source": "gate, exact",
        "base_value": base,
    }
    return Verdict(**(values | changes))


def write(folder: Path, *verdicts: Verdict) -> Path:
    side = Side(label="a", kind="artifacts")
    report = GateReport(
        pocketship_version="0",
        run_id="r",
        created_utc="2026-05-20T12:00:00+00:00",
        seed=0,
        base=side,
        head=side,
        rules=GateRules(),
        device=None,
        verdicts=verdicts,
        outcome=Outcome.REGRESSED,
        exit_code=8,
    )
    folder.mkdir(exist_ok=True)
    store.write(report, folder)
    return folder


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_gates_regressions_are_signed_off_and_pass_then(call: Call, tmp_path: Path) -> None:
    found = (
        verdict("bytes", 1000, 1100),
        verdict("partitions", 1, 2),
        verdict("delegated_share", 1.0, 1.0, outcome=Outcome.PASS),
    )
    gate = write(tmp_path / "gate", *found)
    answer = call("accept", gate, *WORDS, "--since", "2026-05-01")
    assert answer.code == 0, answer.err
    entries = accepted.read(Path(accepted.FILE_NAME))
    assert [(one.metric, one.up_to) for one in entries] == [("bytes", 1.1), ("partitions", 2.0)]
    assert {(one.by, one.reason, str(one.until)) for one in entries} == {
        ("Ada", "a wider head", UNTIL)
    }
    judged, _ = accepted.apply(found, entries, datetime.date(2030, 1, 1))
    assert all(one.outcome is Outcome.PASS for one in judged)
    assert "int8.executorch bytes: up to 1.1 x of base accepted by Ada" in answer.out


def test_a_choice_of_them_goes_behind_what_is_there(call: Call, tmp_path: Path) -> None:
    gate = write(tmp_path / "gate", verdict("bytes", 1000, 1100), verdict("partitions", 1, 2))
    file = tmp_path / "own.yaml"
    assert call("accept", gate, *WORDS, "--file", file, "--metric", "partitions").code == 0
    file.write_text("# ours\n" + file.read_text())
    assert call("accept", gate, *WORDS, "-f", file, "--subject", "int8*").code == 0
    entries = accepted.read(file)
    assert [one.metric for one in entries] == ["partitions", "bytes", "partitions"]
    assert entries[0].since == datetime.datetime.now(datetime.UTC).date()
    assert file.read_text().startswith("# ours\n")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--metric", "load_ms"), "no regression that could be accepted"),
        (("--subject", "fp32*"), "no regression that could be accepted"),
        (("--until", "soon"), "'soon' is no day"),
        (("--until", "2001-01-01"), "before it begins"),
        (("--by", " "), "--by"),
    ],
)
def test_what_cannot_be_accepted_is_one_line(
    call: Call, tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    gate = write(tmp_path / "gate", verdict("bytes", 1000, 1100), verdict("parity", 1, 2))
    answer = call("accept", gate, *WORDS, *words)
    assert answer.code == 2
    assert says in answer.last
    assert not Path(accepted.FILE_NAME).exists()


def test_no_gate_or_an_edited_one_is_refused(call: Call, tmp_path: Path) -> None:
    assert call("accept", tmp_path, *WORDS).code == 2
    gate = write(tmp_path / "gate", verdict("bytes", 1000, 1100))
    path = gate / "gate.json"
    path.write_text(path.read_text().replace("1100", "1001"))
    answer = call("accept", gate, *WORDS)
    assert answer.code == 2
    assert "edited" in answer.last


def test_a_file_that_cannot_be_written_is_said(call: Call, tmp_path: Path) -> None:
    gate = write(tmp_path / "gate", verdict("bytes", 1000, 1100))
    answer = call("accept", gate, *WORDS, "-f", gate / "gate.json" / "file.yaml")
    assert answer.code == 2
    assert "cannot be written" in answer.last

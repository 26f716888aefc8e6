import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.errors import ConfigError
from deploy.report import formats
from deploy.report.formats.comment import MAX_BYTES, comment, document, marks
from deploy.types import Outcome
from tests.deploy.report import factory, gate_factory
from tests.deploy.report.formats import hostile

GATE = gate_factory.gate_report()


def size(text: str) -> int:
    return len(text.encode("utf-8"))


def test_a_gates_comment_says_what_changed_by_how_much_and_where():
    text = comment(GATE, link="https://ci.example/1")
    lines = text.splitlines()
    assert lines[1] == "## REGRESSED: git:main → pipeline.yaml"
    assert "2 got worse" in lines[3]
    rows = [line for line in lines if line.startswith(("| REGRESSED", "| PASS"))]
    assert rows[0] == (
        "| REGRESSED | `int8.executorch@emulated-arm64` | Steady inference | 84,664,336 → "
        "155,330,255 instructions (emulator) | \\+83.5 % | more than the base; exact |"
    )
    assert "10.66 → 11.50 ms (host)" in rows[1]
    assert "accepted: Ada Lovelace" in rows[2]
    assert "up to 1.08 times the base until 2030-06-30, Ada Lovelace: a wider head" in text
    assert "- *emulator*: run on an emulated phone that counts instructions" in text
    assert "[Full report](https://ci.example/1)" in text
    assert size(text) < 4_000


def test_a_runs_comment_has_limits_and_the_main_table():
    text = comment(factory.report())
    assert "| REGRESSED | `int8.onnx@host` | Steady inference | 18.76 ms (host) | 15 |" in text
    assert "### What int8 bought over fp32" in text
    assert "9 checks hold</summary>" in text
    assert "- pixel-8 (device): not_run: no phone" in text
    assert "Full report" not in text


def test_the_mark_stays_the_same_from_run_to_run_and_tells_devices_apart():
    again = gate_factory.gate_report(run_id="20300202-000000", verdicts=(), seed=9)
    assert marks(comment(GATE)) == marks(comment(again))
    assert marks(comment(GATE)) == "<!-- pocketship-comment: gate emulated-arm64 -->"
    assert marks(comment(factory.report())) == "<!-- pocketship-comment: run efficientnet-lite0 -->"
    assert marks(comment(GATE, key="nightly")) == "<!-- pocketship-comment: nightly -->"
    assert marks("hello") == marks("") == marks("<!-- pocketship-comment:  -->x") == ""


@given(key=st.text(min_size=1))
@settings(max_examples=50, deadline=None)
def test_any_key_makes_a_mark_that_ends_where_it_should(key):
    mark = marks(comment(GATE.model_copy(update={"verdicts": ()}), key=key))
    assert re.fullmatch(r"<!-- pocketship-comment: [\w. /-]+ -->", mark)
    assert "--" not in mark[4:-3]


def test_what_is_left_out_is_counted_and_the_limit_is_kept():
    long = "x" * 5_000
    verdicts = [
        gate_factory.verdict(outcome, subject=f"case-{number}-{long}", reason=f"& {long}")
        for number in range(100)
        for outcome in (Outcome.REGRESSED, Outcome.PASS, Outcome.INVALID)
    ]
    text = comment(GATE.model_copy(update={"verdicts": tuple(verdicts)}))
    assert size(text) < MAX_BYTES
    shown = len(re.findall(r"^\| (?:REGRESSED|INVALID) ", text, re.M))
    (left,) = re.findall(r"\*\*(\d+) more rows\*\* \(([^)]*)\) are in the full report only", text)
    assert shown >= 10
    assert shown + int(left[0]) == 200
    assert left[1] == f"{100 - shown} REGRESSED, 100 INVALID"
    assert size(document(GATE.model_copy(update={"verdicts": tuple(verdicts)}), most=1 << 40)) > (
        MAX_BYTES
    )


@given(
    text=st.text(min_size=1, max_size=40),
    times=st.sampled_from([1, 50, 1000]),
    rows=st.sampled_from([0, 1, 20]),
)
@settings(max_examples=12, deadline=None)
def test_no_report_comes_near_githubs_limit(text, times, rows):
    base = hostile.gate_report(text * times)
    many = base.model_copy(
        update={"verdicts": base.verdicts * rows, "accepted": base.accepted * rows}
    )
    made = comment(many)
    assert size(made) < MAX_BYTES
    assert marks(made)


@pytest.mark.parametrize("text", hostile.TEXTS)
def test_no_text_becomes_markup(text):
    made = comment(hostile.gate_report(text))
    assert made.count("<!-- pocketship-comment:") == 1
    assert "<script" not in made
    assert made.count("<details>") == made.count("</details>") <= 1
    # A bracket that would begin or end a link's text is escaped.
    assert not re.search(r"(?<!\\)[\[\]]", made)
    assert not re.search(r"@octocat|[^-]#1 |https://evil", made)
    assert {line.count("|") for line in made.splitlines() if line.startswith("| REG")} <= {6, 7, 8}


@pytest.mark.parametrize(
    "link", ["javascript:alert(1)", "https://x y", "https://x)[", "x", "https://"]
)
def test_a_link_that_would_break_out_is_refused(link):
    with pytest.raises(ConfigError, match="--link"):
        formats.Options(link=link)

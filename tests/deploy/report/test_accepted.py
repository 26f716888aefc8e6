"""Changes that were signed off: what the file may say, and what it does to verdicts."""

from __future__ import annotations

import datetime
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploy.errors import ConfigError
from deploy.report import accepted
from deploy.types import Acceptance, Outcome, Paired, Verdict

TODAY = datetime.date(2026, 5, 20)
DAY = datetime.timedelta(days=1)
CASE = "int8.executorch@pixel-8/t1"

FILE = """\
# Why we do this: docs/why.md
version: 1
accepted:
  # The new head needs a wider layer.
  - subject: int8.executorch@pixel-8/t*
    metric: latency_ms
    up_to: 1.08
    reason: wider head, +2 points of accuracy
    by: Ada
    since: 2026-05-01
    until: 2026-07-31   # the release
# end of file
"""


def entry(**changes: Any) -> Acceptance:
    values: dict[str, Any] = {
        "subject": "int8.executorch@pixel-8/t*",
        "metric": "latency_ms",
        "up_to": 1.08,
        "reason": "wider head",
        "by": "Ada",
        "since": TODAY - DAY,
        "until": TODAY + DAY,
    }
    return Acceptance.model_validate(values | changes)


def noisy(ratio: float, outcome: Outcome = Outcome.REGRESSED, **changes: Any) -> Verdict:
    values: dict[str, Any] = {
        "outcome": outcome,
        "subject": CASE,
        "metric": "latency_ms",
        "value": 10.0 * ratio,
        "limit": None,
        "source": "gate, primary",
        "reason": "slower",
        "base_value": 10.0,
        "paired": Paired(
            ratios=(ratio,) * 6,
            ratio=ratio,
            interval=(ratio * 0.98, ratio * 1.02),
            p_worse=0.01,
            p_better=1.0,
            alpha=0.025,
            margin=0.03,
        ),
    }
    return Verdict(**(values | changes))


def exact(base: float | None, head: float | None, metric: str = "bytes") -> Verdict:
    return Verdict(
        outcome=Outcome.REGRESSED,
        subject="int8.executorch",
        metric=metric,
        value=head,
        limit=None,
        source="gate, exact",
        base_value=base,
    )


# --- apply ----------------------------------------------------------------------------------------


def test_a_change_within_what_was_accepted_passes_and_says_so() -> None:
    (judged,), in_force = accepted.apply([noisy(1.06)], [entry()], TODAY)
    assert judged.outcome is Outcome.PASS
    for word in ("Ada", "wider head", "1.08 x", str(TODAY - DAY), str(TODAY + DAY)):
        assert word in judged.accepted
    assert judged.reason == "slower; accepted: 1.06 x of base"
    assert in_force == (entry(),)


def test_a_change_beyond_it_stays_and_says_both() -> None:
    (judged,), in_force = accepted.apply([noisy(1.12)], [entry()], TODAY)
    assert judged.outcome is Outcome.REGRESSED
    assert judged.accepted == ""
    assert "1.12 x of base" in judged.reason
    assert "Ada accepted 1.08 x" in judged.reason
    assert in_force == ()


@pytest.mark.parametrize(
    ("since", "until", "passes", "says"),
    [
        (0, 0, True, ""),
        (-5, -1, False, "Ada accepted ended on 2026-05-19"),
        (1, 5, False, "Ada accepted begins on 2026-05-21"),
    ],
)
def test_both_days_count_and_no_others(since: int, until: int, passes: bool, says: str) -> None:
    one = entry(since=TODAY + since * DAY, until=TODAY + until * DAY)
    (judged,), in_force = accepted.apply([noisy(1.06)], [one], TODAY)
    assert (judged.outcome is Outcome.PASS) == passes == bool(in_force)
    assert says in judged.reason


def test_an_entry_that_lets_it_pass_counts_whatever_stands_before_it() -> None:
    rows = [entry(until=TODAY - DAY), entry(up_to=1.01), entry(up_to=1.2, by="Bob")]
    (judged,), in_force = accepted.apply([noisy(1.15)], rows, TODAY)
    assert judged.outcome is Outcome.PASS
    assert "Bob" in judged.accepted
    assert in_force == (rows[2],)


@settings(deadline=None)
@given(
    outcome=st.sampled_from([one for one in Outcome if one is not Outcome.REGRESSED]),
    metric=st.sampled_from(["latency_ms", "parity"]),
)
def test_nothing_but_a_regression_is_touched(outcome: Outcome, metric: str) -> None:
    verdict = noisy(1.06, outcome, metric=metric)
    assert accepted.apply([verdict], [entry(metric=metric)], TODAY) == ((verdict,), ())


@pytest.mark.parametrize("metric", accepted.NEVER)
def test_what_is_no_figure_is_never_accepted(metric: str) -> None:
    verdict = noisy(1.06, metric=metric)
    assert accepted.apply([verdict], [entry(metric=metric)], TODAY) == ((verdict,), ())


def test_other_subjects_and_metrics_are_not_meant() -> None:
    verdict = noisy(1.06)
    for other in (entry(subject="fp32*"), entry(metric="load_ms")):
        assert accepted.apply([verdict], [other], TODAY) == ((verdict,), ())


@pytest.mark.parametrize(
    ("base", "head", "up_to", "passes"),
    [
        (1000, 1080, 1.08, True),
        (1000, 1081, 1.08, False),
        # A share that fell: 0.9 of what it was.
        (1.0, 0.9, 0.9, True),
        (1.0, 0.89, 0.9, False),
        (1.0, 0.9, 1.08, False),
        (1000, 1010, 0.9, False),
    ],
)
def test_exact_figures_are_held_to_it_exactly(
    base: float, head: float, up_to: float, passes: bool
) -> None:
    one = entry(subject="*", metric="bytes", up_to=up_to)
    (judged,), _ = accepted.apply([exact(base, head)], [one], TODAY)
    assert (judged.outcome is Outcome.PASS) == passes


@pytest.mark.parametrize(("base", "head"), [(None, 5), (0, 5), (5, None), (5, float("inf"))])
def test_without_a_base_there_is_nothing_to_accept(base: float | None, head: float | None) -> None:
    one = entry(subject="*", metric="bytes")
    (judged,), in_force = accepted.apply([exact(base, head)], [one], TODAY)
    assert judged.outcome is Outcome.REGRESSED
    assert "no comparison with base" in judged.reason
    assert in_force == ()


def test_what_should_be_tidied_up_is_named() -> None:
    verdicts = (noisy(1.06), noisy(1.0, Outcome.PASS, subject="fp32.onnx@host/t1"))
    rows = [
        entry(),
        entry(subject="gone*"),
        entry(until=TODAY - DAY),
        entry(since=TODAY + DAY, until=TODAY + DAY),
        entry(subject="fp32.onnx@*"),
    ]
    judged, _ = accepted.apply(verdicts, rows, TODAY)
    for seen in (verdicts, judged):
        told = accepted.warnings(seen, rows, TODAY)
        assert [line.split(": ", 1)[1].split(";")[0] for line in told] == [
            "matches nothing here",
            "ended on 2026-05-19",
            "begins on 2026-05-21",
            "nothing needs it any more",
        ]


# --- the file -------------------------------------------------------------------------------------


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / accepted.FILE_NAME
    path.write_text(FILE)
    (one,) = accepted.read(path)
    assert (one.by, one.up_to, one.until) == ("Ada", 1.08, datetime.date(2026, 7, 31))
    path.write_text("version: 1\naccepted:\n")
    assert accepted.read(path) == ()


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("up_to: 1.08", "up_to: 0", 7, "accepted[0].up_to: input should be greater than 0 (got 0)"),
        ("up_to: 1.08", "up_to: .inf", 7, ".inf is no finite number"),
        ("up_to: 1.08", "upto: 1.08", 5, "accepted[0].up_to: field required"),
        ("by: Ada", "by: ''", 9, "accepted[0].by: string should have at least 1 character"),
        ("until: 2026-07-31", "until: 2026-04-01", 5, "ends (2026-04-01) before it begins"),
        ("until: 2026-07-31", "until: 2026-02-31", None, "impossible value"),
        ("until: 2026-07-31", "until: soon", 11, "accepted[0].until: "),
        ("metric: latency_ms", "metric: parity", 5, "'parity' is never accepted"),
        ("    by: Ada\n", "    by: Ada\n    by: Bob\n", 10, "'by' appears twice"),
        ("    by: Ada\n", "    by: Ada\n    untill: 2026-07-31\n", 10, "did you mean 'until'?"),
        ("version: 1", "version: 2", 2, "version: input should be 1"),
        ("accepted:", "acepted:", 3, "did you mean 'accepted'?"),
    ],
)
def test_a_wrong_entry_is_one_clear_line(
    tmp_path: Path, old: str, new: str, line: int | None, says: str
) -> None:
    path = tmp_path / accepted.FILE_NAME
    assert old in FILE
    path.write_text(FILE.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        accepted.read(path)
    text = str(caught.value)
    assert says in text
    assert "\n" not in text
    if line is not None:
        assert f"{path}:{line}: " in text


@pytest.mark.parametrize("content", [b"- a\n", b"", b"\xff\xfe", b"version: [1"])
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / accepted.FILE_NAME
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        accepted.read(path)


def test_no_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pocketship accept"):
        accepted.read(tmp_path / "none.yaml")


# --- from verdicts to the file --------------------------------------------------------------------

WHO = {"reason": "wider head", "by": "Ada", "since": TODAY, "until": TODAY + 30 * DAY}


def test_proposals_let_exactly_these_verdicts_pass() -> None:
    verdicts = [
        noisy(1.0612345),
        exact(3000, 3001),
        exact(1.0, 0.987654321, "delegated_share"),
        exact(None, 7.0, "load_ms"),
        noisy(1.5, metric="parity"),
        noisy(1.2, Outcome.INCONCLUSIVE, metric="first_ms"),
    ]
    made, left = accepted.proposals(verdicts, **WHO)  # type: ignore[arg-type]
    assert [one.metric for one in made] == ["latency_ms", "bytes", "delegated_share"]
    # The far end of a noisy figure's interval: measured again the same change comes out elsewhere.
    assert made[0].up_to == 1.083
    assert made[1].up_to == 1.001
    assert made[2].up_to == 0.9876
    assert len(left) == 2
    judged, in_force = accepted.apply(verdicts[:3], made, TODAY)
    assert {one.outcome for one in judged} == {Outcome.PASS}
    assert in_force == made


@pytest.mark.parametrize("base", [354_584.0, 84_664_336.0])
def test_instructions_that_are_counted_again_stay_within_what_was_accepted(base: float) -> None:
    """A small model's count moves by 3 % with a single interrupt."""
    first = exact(base, base * 1.2, "instructions")
    made, _ = accepted.proposals([first], **WHO)  # type: ignore[arg-type]
    slack = max(12_000, 0.001 * base)
    again = exact(base, base * 1.2 + 0.99 * slack, "instructions")
    beyond = exact(base, base * 1.2 + 1.1 * slack, "instructions")
    judged, _ = accepted.apply([again, beyond], made, TODAY)
    assert [one.outcome for one in judged] == [Outcome.PASS, Outcome.REGRESSED]


@settings(deadline=None)
@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6))
def test_what_is_proposed_is_enough_and_hardly_more(base: float, head: float) -> None:
    if base == head:
        return
    verdict = exact(base, head)
    (one,), _ = accepted.proposals([verdict], **WHO)  # type: ignore[arg-type]
    (judged,), _ = accepted.apply([verdict], [one], TODAY)
    assert judged.outcome is Outcome.PASS
    assert one.up_to == pytest.approx(head / base, rel=2e-3)


def test_proposals_can_be_narrowed_and_need_a_reason() -> None:
    verdicts = [noisy(1.06), exact(3000, 3001)]
    made, _ = accepted.proposals(verdicts, subject="int8*@*", **WHO)  # type: ignore[arg-type]
    assert [one.metric for one in made] == ["latency_ms"]
    made, _ = accepted.proposals(verdicts, metric="bytes", **WHO)  # type: ignore[arg-type]
    assert [one.metric for one in made] == ["bytes"]
    with pytest.raises(ConfigError, match="--reason"):
        accepted.proposals(verdicts, **{**WHO, "reason": ""})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="before it begins"):
        accepted.proposals(verdicts, **{**WHO, "until": TODAY - DAY})  # type: ignore[arg-type]


NEW = entry(reason="it's: a 'quoted' #reason\nof two lines", by="Bob 🙂", subject="[x]*", up_to=2.0)


@pytest.mark.parametrize(
    "text",
    [
        FILE,
        FILE.replace("# end of file\n", ""),
        FILE.rstrip("\n"),
        FILE.replace("# end of file\n", "").rstrip("\n"),
        FILE.replace("\n", "\r\n"),
        FILE.replace("by: Ada\n", "by: >\n      Ada\n      Lovelace\n"),
        FILE.replace("version: 1\n", "").replace("# end of file", "version: 1"),
        FILE.replace("\n  ", "\n"),
        "version: 1\naccepted: []  # none\n",
        "version: 1\naccepted:\n# none\n",
        "version: 1\n",
    ],
)
def test_an_entry_is_added_and_every_line_stays(tmp_path: Path, text: str) -> None:
    path = tmp_path / accepted.FILE_NAME
    path.write_bytes(text.encode())
    before = accepted.read(path)
    accepted.extend(path, [NEW])
    assert accepted.read(path) == (*before, NEW)
    after = path.read_bytes().decode()
    rest = iter(after.splitlines())
    assert all(line in rest for line in text.splitlines() if "[]" not in line)  # In this order.
    assert after.count("#") >= text.count("#")
    assert ("\r" in after) == ("\r" in text)
    accepted.extend(path, [entry(by="Carol")])
    assert [one.by for one in accepted.read(path)][-2:] == ["Bob 🙂", "Carol"]


def test_a_new_file_is_made_and_a_wrong_one_left_alone(tmp_path: Path) -> None:
    path = tmp_path / accepted.FILE_NAME
    accepted.extend(path, [NEW, entry()])
    assert accepted.read(path) == (NEW, entry())
    for text in (
        "version: 1\naccepted: [{subject: a, metric: bytes, up_to: 2, reason: r, by: b, "
        "since: 2026-01-01, until: 2026-01-02}]\n",
        "nonsense: 1\n",
    ):
        path.write_text(text)
        with pytest.raises(ConfigError):
            accepted.extend(path, [NEW])
        assert path.read_text() == text


WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@settings(max_examples=25, deadline=None)
@example(subject="*\x85", metric="\u2028", reason="a\r\nb", by="\x0c", up_to=2.0)
@given(subject=WORDS, metric=WORDS, reason=WORDS, by=WORDS, up_to=st.floats(1e-9, 1e9))
def test_whatever_people_write_comes_back(
    subject: str, metric: str, reason: str, by: str, up_to: float
) -> None:
    new = entry(subject=subject, metric=f"m{metric}", reason=reason, by=by, up_to=up_to)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / accepted.FILE_NAME
        path.write_text(FILE)
        before = accepted.read(path)
        accepted.extend(path, [new])
        assert accepted.read(path) == (*before, new)
        assert path.read_text().startswith(FILE.removesuffix("# end of file\n"))


def test_the_example_of_the_page_is_a_file(tmp_path: Path) -> None:
    page = Path(__file__).parents[3] / "docs" / "accepted.md"
    example = page.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    path = tmp_path / accepted.FILE_NAME
    path.write_text(example)
    (one,) = accepted.read(path)
    assert one.up_to == 1.08

import pytest

from deploy.report import gate
from deploy.report.formats.judged import FILES, change, judged, percent
from deploy.types import Outcome, Tier
from tests.deploy.report import factory, gate_factory


def test_verdicts_stand_worst_first_and_where_they_belong():
    shown = judged(gate_factory.gate_report())
    assert [line.verdict.outcome for line in shown.lines] == [
        Outcome.REGRESSED,
        Outcome.REGRESSED,
        Outcome.INVALID,
        Outcome.INCONCLUSIVE,
        Outcome.IMPROVED,
        Outcome.PASS,
    ]
    assert [line.device for line in shown.lines] == [
        *("emulated-arm64", "host", "host", "host", "emulated-arm64"),
        FILES,
    ]


def test_a_verdict_without_a_tier_has_that_of_its_figure():
    """As in reports of version 1."""
    report = factory.report()
    assert all(verdict.tier is None for verdict in report.verdicts)
    tiers = {(o.verdict.subject, o.verdict.metric): o.tier for o in judged(report).lines}
    assert tiers["int8.executorch@emulated-arm64/t1", "instructions"] is Tier.EMULATOR
    assert tiers["int8.ort@emulated-arm64/t1", "case"] is Tier.EMULATOR
    assert tiers["int8.onnx@host/t1", "latency_ms"] is Tier.HOST
    assert tiers["int8.executorch", "bytes"] is Tier.HOST


def test_the_headline_of_a_gate_counts_every_kind():
    assert judged(gate_factory.gate_report()).headline == (
        "REGRESSED: of 6 checks 2 got worse, 1 could not be judged, 1 undecided, 1 got better, "
        "1 without a change that counts; 1 accepted on purpose. Exit code 8."
    )
    open_ = gate_factory.verdict(Outcome.INVALID, source=gate.SECONDARY)
    more = gate_factory.gate_report(verdicts=(*gate_factory.verdicts(), open_))
    assert "1 could not be judged" in judged(more).headline
    assert "1 secondary without a verdict;" in judged(more).headline
    empty = gate_factory.gate_report(verdicts=(), outcome=Outcome.INVALID, exit_code=7)
    assert judged(empty).headline == "INVALID: nothing was compared. Exit code 7."


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (1.0, "±0 %"),
        (1.835, "+83.5 %"),
        (0.887, "−11.3 %"),
        (1 + 1.23e-5, "+0.0012 %"),
        (25.0, "+2,400.0 %"),
        (0.0, "−100.0 %"),
    ],
)
def test_a_change_in_per_cent(ratio, text):
    assert percent(ratio) == text


def test_a_change_says_its_evidence():
    verdict = gate_factory.verdict
    assert change(verdict()) == "equal"
    assert change(verdict(base_value=None)) == ""
    assert change(verdict(value=None)) == ""
    assert change(verdict(base_value=0.0, value=12.0)) == "from 0 by 12"
    assert change(verdict(base_value=100.0, value=101.0)) == "+1.0 %"
    paired = gate_factory.paired(1.08)
    assert change(verdict(paired=paired)) == "+8.0 % [+7.0 %, +9.0 %], 6 pairs"
    stored = gate_factory.paired(1.08, design="stored")
    assert "base measured at another time" in change(verdict(paired=stored))

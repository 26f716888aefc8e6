import math

import pytest

from deploy.errors import ConfigError
from deploy.report.gate import PRIMARY, decide, judge
from deploy.types import GateRules, Metric, Outcome, Placement, Tier
from tests.deploy.report.comparisons import INT8, sessions, side, timed
from tests.deploy.report.factory import artifact, measured

COUNT = 84_590_607


def compare_files(before, after, **rules):
    found = judge(side(before), side(after), (), rules=GateRules(**rules))
    return {v.metric: v for v in found}


def placed(partitions=1, share=64 / 65, reason=""):
    where = Placement(
        backend="XNNPACK", partitions=partitions, delegated_share=share, reason=reason
    )
    return INT8.model_copy(update={"placement": where})


def counted(*values, metric=Metric.INSTRUCTIONS, tier=Tier.EMULATOR):
    return [timed(v, metric=metric, tier=tier) for v in values]


def count(base, head, **rules):
    found = judge(side(), side(), sessions(base, head), rules=GateRules(**rules))
    (verdict,) = (v for v in found if v.source == PRIMARY)
    return verdict


@pytest.mark.parametrize(
    ("growth", "outcome"),
    [(1, Outcome.REGRESSED), (0, Outcome.PASS), (-1, Outcome.IMPROVED)],
)
def test_a_file_may_not_grow_by_a_byte(growth, outcome):
    other = INT8.model_copy(update={"bytes": INT8.bytes + growth})
    verdict = compare_files(INT8, other)["bytes"]
    assert (verdict.outcome, verdict.base_value) == (outcome, INT8.bytes)
    allowed = compare_files(INT8, other, allow={"bytes": 0.01})["bytes"]
    assert (allowed.outcome, "1 % is let pass" in allowed.reason) == (Outcome.PASS, bool(growth))


def test_a_lost_fusion_shows_in_partitions_and_delegated_share():
    found = compare_files(placed(), placed(partitions=2, share=62 / 66))
    assert found["partitions"].outcome is Outcome.REGRESSED
    assert found["delegated_share"].outcome is Outcome.REGRESSED
    back = compare_files(placed(partitions=2, share=62 / 66), placed())
    assert {v.outcome for m, v in back.items() if m != "bytes"} == {Outcome.IMPROVED}
    let = compare_files(placed(share=0.9), placed(share=0.89), allow={"delegated_share": 0.02})
    assert let["delegated_share"].outcome is Outcome.PASS


def test_what_only_one_side_knows_is_invalid_and_what_none_knows_is_left_out():
    blind = placed(None, None, "known on a Mac only")
    found = compare_files(placed(), blind)
    assert found["partitions"].outcome is Outcome.INVALID
    assert "unknown of head: known on a Mac only" in found["partitions"].reason
    assert set(compare_files(blind, blind)) == {"bytes"}


def counted_file(macs=390_000_000, planned=606_176, unknown=()):
    changes = {"macs": macs, "planned_bytes": planned, "unknown": dict(unknown)}
    return INT8.model_copy(update=changes)


@pytest.mark.parametrize(
    ("changes", "metric"),
    [({"macs": 390_000_001}, "macs"), ({"planned": 606_240}, "planned_bytes")],
)
def test_an_extra_convolution_shows_in_macs_and_a_tensor_more_in_planned_memory(changes, metric):
    found = compare_files(counted_file(), counted_file(**changes))
    assert found[metric].outcome is Outcome.REGRESSED
    assert {v.outcome for name, v in found.items() if name != metric} == {Outcome.PASS}
    back = compare_files(counted_file(**changes), counted_file())
    assert back[metric].outcome is Outcome.IMPROVED
    let = compare_files(counted_file(), counted_file(**changes), allow={metric: 0.01})
    assert let[metric].outcome is Outcome.PASS


def test_a_base_of_an_older_pocketship_has_no_macs_and_that_is_said():
    """Such a manifest has neither figure nor reason; every gate against it would fail else."""
    found = compare_files(INT8, counted_file())
    for metric in ("macs", "planned_bytes"):
        verdict = found[metric]
        assert (verdict.outcome, verdict.value) == (Outcome.PASS, None)
        assert verdict.reason == (
            "not compared: unknown of base: its manifest is of before this was noted"
        )
    assert set(compare_files(INT8, INT8)) == {"bytes", "partitions", "delegated_share"}


def test_macs_that_nobody_counts_are_invalid_only_where_they_are_asked_for_by_name():
    custom = counted_file(macs=None, unknown={"macs": "nobody counts my.operator"})
    found = compare_files(counted_file(), custom)["macs"]
    assert (found.outcome, found.reason) == (
        Outcome.PASS,
        "not compared: unknown of head: nobody counts my.operator",
    )
    asked = compare_files(counted_file(), custom, allow={"macs": 0.0})["macs"]
    assert asked.outcome is Outcome.INVALID


def test_artifacts_of_one_side_only_are_said():
    others = [artifact(name) for name in ("a", "b")]
    found = judge(side(INT8, *others), side(INT8), (), rules=GateRules())
    gone = [v for v in found if v.metric == "artifact"]
    assert [(v.subject, v.outcome) for v in gone] == [(a.name, Outcome.INVALID) for a in others]
    found = judge(side(INT8), side(INT8, *others), (), rules=GateRules())
    assert decide(found).outcome is Outcome.PASS
    assert sum("new in head" in v.reason for v in found) == 2


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        (1.0, Outcome.PASS),
        (1.0009, Outcome.PASS),
        (1.0011, Outcome.REGRESSED),
        (0.9989, Outcome.IMPROVED),
    ],
)
def test_instructions_of_the_emulator_are_held_to_a_thousandth(change, outcome):
    verdict = count(counted(COUNT, COUNT + 9_000), counted(COUNT * change, COUNT * change + 9_000))
    assert (verdict.outcome, verdict.metric, verdict.paired) == (outcome, "instructions", None)
    assert (verdict.tier, verdict.base_value) == (Tier.EMULATOR, COUNT + 4_500)


def test_one_session_a_side_is_enough_where_counts_are_exact():
    more = [measured(Metric.PEAK_RSS_KIB, 9_000, tier=Tier.EMULATOR)]
    one = [timed(COUNT, metric=Metric.INSTRUCTIONS, tier=Tier.EMULATOR, more=more)]
    found = judge(side(), side(), sessions(one, one), rules=GateRules())
    assert [(v.metric, v.outcome) for v in found] == [("instructions", Outcome.PASS)]
    found = judge(side(), side(), sessions(one * 6, one * 6), rules=GateRules())
    assert [v.metric for v in found] == ["instructions", "peak_rss_kib"]


def test_counts_that_vary_between_sessions_are_not_exact_unless_they_are_apart():
    base, near = counted(100e6, 101e6), counted(100.5e6, 102e6)
    assert count(base, near).outcome is Outcome.INVALID
    assert "not exact here" in count(base, near).reason
    assert count(base, counted(110e6, 112e6)).outcome is Outcome.REGRESSED
    assert count(base, near, allow={"instructions": 0.05}).outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        (10_400, Outcome.PASS),
        (-10_544, Outcome.PASS),
        (12_001, Outcome.REGRESSED),
        (-12_001, Outcome.IMPROVED),
    ],
)
def test_one_interrupt_more_is_no_change_of_a_small_model(change, outcome):
    verdict = count(counted(2_041_488), counted(2_041_488 + change))
    assert (verdict.outcome, verdict.limit) == (outcome, 2_053_488)
    assert "12,000 instructions are let pass" in verdict.reason


def test_an_inference_that_was_interrupted_does_not_make_the_count():
    """The median would: two of three inferences of head were."""
    case = timed(2_041_488, metric=Metric.INSTRUCTIONS, tier=Tier.EMULATOR)
    row = case.measurement(Metric.INSTRUCTIONS)
    ticked = row.model_copy(update={"samples": (2_062_300.0, 2_041_500.0, 2_062_290.0)})
    verdict = count([case], [case.model_copy(update={"measurements": (ticked,)})])
    assert (verdict.outcome, verdict.value) == (Outcome.PASS, 2_041_500)


def test_instructions_of_a_real_phone_are_noisy():
    values = (100.0, 101.0, 99.0, 100.5, 99.5, 100.0)
    real = counted(*values, tier=Tier.DEVICE)
    verdict = count(real, real, primary=Metric.INSTRUCTIONS)
    assert verdict.paired is not None


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_count_that_is_not_a_number_is_invalid(value):
    assert count(counted(COUNT), counted(value), primary=Metric.INSTRUCTIONS).outcome is (
        Outcome.INVALID
    )


def test_zero_has_no_ratio_and_is_compared_all_the_same():
    assert count(counted(0), counted(0)).outcome is Outcome.PASS
    assert count(counted(0), counted(5e6)).outcome is Outcome.REGRESSED


@pytest.mark.parametrize(
    ("allow", "said"),
    [
        ({"byte": 0.1}, "allows 'byte', which is no metric"),
        ({"latency_ms": 0.1}, "allows 'latency_ms', which is no metric"),
        ({"bytes": -0.1}, "bytes: -0.1 is no share"),
        ({"bytes": math.nan}, "bytes: nan is no share"),
    ],
)
def test_an_allowance_that_would_do_nothing_is_refused(allow, said):
    with pytest.raises(ConfigError, match=said):
        compare_files(INT8, INT8, allow=allow)


def with_more(metric, value):
    more = [measured(metric, value, tier=Tier.EMULATOR)]
    return [timed(COUNT, metric=Metric.INSTRUCTIONS, tier=Tier.EMULATOR, more=more)] * 2


@pytest.mark.parametrize("metric", [Metric.LOAD_INSTRUCTIONS, Metric.OUTPUT_MAX_ABS_DIFF])
def test_what_is_judged_on_request_only(metric):
    both = sessions(with_more(metric, 1e6), with_more(metric, 1.2e6))
    silent = judge(side(), side(), both, rules=GateRules())
    assert [v.metric for v in silent] == ["instructions"]
    asked = judge(side(), side(), both, rules=GateRules(allow={metric: 0.1}))
    assert [(v.metric, v.outcome) for v in asked][1:] == [(metric, Outcome.REGRESSED)]

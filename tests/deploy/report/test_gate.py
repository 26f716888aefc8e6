import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.report import gate
from deploy.report.gate import PRIMARY, SECONDARY, Decision, decide, judge, undecided
from deploy.types import (
    Certificate,
    Format,
    GateRules,
    Metric,
    NoiseFigure,
    Outcome,
    Parity,
    Status,
    Tier,
    Verdict,
)
from tests.deploy.report.comparisons import BASE, HEAD, INT8, broken, sessions, side, timed
from tests.deploy.report.factory import artifact, case, measured, unmeasured

QUIET = (10.0, 10.1, 9.9, 10.05, 9.95, 10.0)
LOUD = (10.0, 13.0, 8.0, 11.0, 9.0, 12.0)


def all_of(base, head, **options):
    options.setdefault("rules", GateRules())
    return judge(side(), side(), sessions(base, head), **options)


def primary(base, head, **options):
    (found,) = (v for v in all_of(base, head, **options) if v.source == PRIMARY)
    return found


def scaled(values, factor):
    return tuple(factor * value for value in values)


def certificate(spread, *, pairs=6, metric=Metric.LATENCY_MS, **changes):
    """A certificate whose A/A log ratios have the standard deviation ``spread``."""
    ratios = (spread, -spread) * 3
    figure = NoiseFigure(metric=metric, pairs=pairs, between_sd=spread, mde=0.07, log_ratios=ratios)
    values = {
        "pocketship_version": "1",
        "created_utc": "2026-01-01T00:00:00Z",
        "profile": "phone",
        "device_sha256": "0" * 64,
        "os_build": None,
        "tier": Tier.DEVICE,
        "format": Format.EXECUTORCH,
        "threads": 1,
        "preset": "quick",
        "artifact": INT8.name,
        "artifact_sha256": INT8.sha256,
        "runtime_version": "1.5.1",
        "figures": (figure,),
    }
    return Certificate(**(values | changes))


@pytest.mark.parametrize(
    ("factor", "outcome"),
    [(1.10, Outcome.REGRESSED), (1.0, Outcome.PASS), (1 / 1.10, Outcome.IMPROVED)],
)
def test_six_quiet_pairs_decide(factor, outcome):
    verdict = primary(QUIET, scaled(QUIET[::-1], factor))
    assert verdict.outcome is outcome
    assert (verdict.metric, verdict.tier) == ("latency_ms", Tier.DEVICE)
    assert verdict.paired.ratio == pytest.approx(factor, rel=0.02)
    assert verdict.limit == pytest.approx(verdict.base_value * 1.03)
    assert "95 % interval" in verdict.reason
    assert "6 pairs" in verdict.reason


def test_a_change_that_is_certain_and_too_small_to_count_is_a_pass_that_says_so():
    verdict = primary(QUIET, scaled(QUIET, 1.02))
    assert (verdict.outcome, verdict.paired.p_worse) == (Outcome.PASS, 1 / 64)
    assert "by less than counts" in verdict.reason


def test_one_pair_against_five_keeps_six_pairs_from_a_regression_but_not_twelve():
    head = scaled(QUIET, 1.10)
    spoiled = (*head[:5], 9.0)
    first = primary(QUIET, spoiled)
    assert first.outcome is Outcome.INCONCLUSIVE
    assert first.paired.p_worse > first.paired.alpha
    second = primary(QUIET * 2, (*spoiled, *head), extended=True)
    assert (second.outcome, second.paired.alpha) == (Outcome.REGRESSED, 0.0125)
    assert "97.5 % interval" in second.reason


def test_pairs_cancel_a_drift_that_is_larger_than_the_change():
    drift = (10.0, 11.0, 12.5, 14.0, 16.0, 18.0)
    assert primary(drift, scaled(drift, 1.001)).outcome is Outcome.PASS
    assert primary(drift, scaled(drift, 1.08)).outcome is Outcome.REGRESSED


def test_a_session_is_its_median_so_an_outlier_among_its_samples_moves_nothing():
    head = [timed(v, v, v, v, 500 * v) for v in QUIET]
    assert primary(QUIET, head).paired.ratios == (1.0,) * 6


def test_one_huge_outlier_session_is_no_regression():
    assert primary(QUIET, (*QUIET[:5], 1e6)).outcome is not Outcome.REGRESSED
    assert primary(QUIET * 2, (*QUIET[:5], 1e6, *QUIET), extended=True).outcome is Outcome.PASS


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(1e-3, 1e3), st.floats(0.5, 2)), min_size=6, max_size=12))
def test_improved_is_the_mirror_of_regressed(pairs):
    base = [b for b, _ in pairs]
    head = [b * factor for b, factor in pairs]
    there, back = primary(base, head), primary(head, base)
    mirror = {Outcome.REGRESSED: Outcome.IMPROVED, Outcome.IMPROVED: Outcome.REGRESSED}
    if Outcome.REGRESSED in (there.outcome, back.outcome):
        assert back.outcome is mirror[there.outcome]
    assert there.paired.p_worse == pytest.approx(back.paired.p_better)
    assert there.paired.ratio == pytest.approx(1 / back.paired.ratio)


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(6)), st.floats(1e-6, 1e6))
def test_neither_the_order_of_the_pairs_nor_the_unit_changes_a_verdict(order, unit):
    head = scaled(LOUD[::-1], 1.1)
    plain = primary(LOUD, head)
    other = primary([unit * LOUD[i] for i in order], [unit * head[i] for i in order])
    assert (plain.outcome, plain.paired.p_worse) == (other.outcome, other.paired.p_worse)
    assert plain.paired.interval == pytest.approx(other.paired.interval)


def test_without_a_certificate_a_loud_device_decides_nothing():
    verdict = primary(LOUD, LOUD[::-1])
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert undecided([verdict])
    assert "no noise certificate" in verdict.reason


def test_a_certificate_widens_what_a_pass_says_and_not_what_a_regression_needs():
    head = (10.3, 9.8, 10.4, 10.2, 9.7, 10.0)
    assert primary(QUIET, head).outcome is Outcome.INCONCLUSIVE
    passed = primary(QUIET, head, certificates=[certificate(0.04)])
    assert passed.outcome is Outcome.PASS
    assert passed.paired.mde == 0.07
    assert "below 7.0 %, the least" in passed.reason
    worse = primary(QUIET, scaled(QUIET, 1.05), certificates=[certificate(0.04)])
    assert worse.outcome is Outcome.REGRESSED


def test_a_certificate_does_not_excuse_what_is_certainly_worse():
    head = (*scaled(QUIET, 1.04)[:5], 10.2)
    verdict = primary(QUIET, head, certificates=[certificate(0.04)])
    assert verdict.paired.p_worse < verdict.paired.alpha
    assert verdict.paired.interval[1] < 1 + verdict.paired.mde
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "worse for certain, but not for certain by 3 %" in verdict.reason


def test_a_certificate_for_another_number_of_pairs_is_reckoned_anew():
    verdict = primary(QUIET, QUIET, certificates=[certificate(0.04, pairs=20)])
    spread = 0.04 * math.sqrt(6 / 5)
    expected = (2.5931 + 1.3634) * spread * math.sqrt(math.pi / 2 / 12)  # Of t with 11 degrees.
    assert verdict.paired.mde == pytest.approx(math.expm1(expected), rel=1e-4)


@pytest.mark.parametrize("spread", [0.0, 1e-5])
def test_a_certificate_without_a_spread_does_not_say_that_nothing_is_too_small_to_see(spread):
    """Log ratios that are all but equal come of a coarse clock: 0.1 % is the least believed."""
    verdict = primary(QUIET, QUIET, certificates=[certificate(spread, pairs=20)])
    expected = (2.5931 + 1.3634) * 0.001 * math.sqrt(math.pi / 2 / 12)
    assert verdict.paired.mde == pytest.approx(math.expm1(expected), rel=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"threads": 2},
        {"profile": "another"},
        {"format": Format.ONNX},
        {"metric": Metric.LOAD_MS},
    ],
)
def test_a_certificate_of_something_else_is_not_used(changes):
    found = judge(
        BASE, HEAD, sessions(QUIET, QUIET), rules=GateRules(),
        certificates=[certificate(0.04, **changes)],
    )  # fmt: skip
    (verdict,) = (v for v in found if v.source == PRIMARY)
    assert verdict.paired.mde is None


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_figure_that_no_ratio_can_be_made_of_costs_its_pair(value):
    head = (*QUIET[:5], value)
    verdict = primary(QUIET, head)
    assert (verdict.outcome, len(verdict.paired.ratios)) == (Outcome.INCONCLUSIVE, 5)
    assert "latency_ms of head of pair 6 is not a positive number" in verdict.reason
    assert undecided([verdict])
    second = primary(QUIET * 2, (*head, *QUIET), extended=True)
    assert (second.outcome, len(second.paired.ratios)) == (Outcome.PASS, 11)
    nothing = primary(QUIET, (value,) * 6)
    assert (nothing.outcome, nothing.paired) == (Outcome.INVALID, None)


def test_constant_figures_pass_and_a_constant_change_regresses():
    assert primary((5.0,) * 6, (5.0,) * 6).outcome is Outcome.PASS
    assert primary((5.0,) * 6, (5.5,) * 6).outcome is Outcome.REGRESSED


def test_sessions_that_the_infrastructure_spoiled_are_never_a_regression():
    head = (*scaled(QUIET[:3], 2.0), broken(), broken(), broken(reason="too hot"))
    first = primary(QUIET, head)
    assert first.outcome is Outcome.INCONCLUSIVE
    assert "head of pair 4 is invalid: device lost and 2 more" in first.reason
    rest = (broken(),) * 6
    last = primary(QUIET * 2, (*head, *rest), extended=True)
    assert last.outcome is Outcome.INVALID
    (none,) = all_of(QUIET, rest)
    assert (none.outcome, none.metric) == (Outcome.INVALID, "case")
    assert "head was not measured: invalid: device lost" in none.reason


def test_a_repeated_session_takes_the_place_of_the_spoiled_one():
    made = list(sessions(QUIET, (*QUIET[:5], broken())))
    again = made[-1].model_copy(update={"order": 99, "case": timed(10.0)})
    again = again.model_copy(update={"side": "head", "pair": 5})
    found = judge(side(), side(), [*made, again], rules=GateRules())
    assert [len(v.paired.ratios) for v in found if v.source == PRIMARY] == [6]


CRASH = broken(Status.FAILED, "exit code 139")


def test_a_head_that_always_crashes_where_base_runs_is_a_regression():
    (verdict,) = all_of(QUIET, (CRASH,) * 5 + (broken(),))
    assert (verdict.outcome, verdict.metric) == (Outcome.REGRESSED, "case")
    assert "head failed in each of its 5 sessions, base ran in 6" in verdict.reason
    assert "exit code 139" in verdict.reason
    (mirror,) = all_of((CRASH,) * 6, QUIET)
    assert mirror.outcome is Outcome.IMPROVED


def test_a_crash_now_and_then_is_invalid_and_a_crash_on_both_sides_is_no_news():
    found = all_of(QUIET * 2, (*QUIET, *QUIET[:5], CRASH), extended=True)
    assert decide(found) == Decision(Outcome.INVALID, 7)
    assert "head in 1 of 12 sessions" in found[0].reason
    assert found[1].outcome is Outcome.PASS
    (both,) = all_of((CRASH,) * 6, (CRASH,) * 6)
    assert both.outcome is Outcome.INVALID
    (once,) = all_of(QUIET[:1], (CRASH,))
    assert once.outcome is Outcome.INVALID


def test_crashes_of_base_alone_cost_their_pairs_and_accuse_nobody():
    found = all_of((*QUIET, *QUIET[:5], CRASH), QUIET * 2, extended=True)
    assert [v.outcome for v in found] == [Outcome.PASS]


def test_figures_of_two_tiers_are_never_compared():
    head = [timed(v, tier=Tier.HOST) for v in QUIET]
    assert primary(QUIET, head).outcome is Outcome.INVALID
    counted = [timed(v, tier=Tier.EMULATOR) for v in QUIET]
    found = all_of(counted, counted, rules=GateRules(primary=Metric.LATENCY_MS))
    assert found[0].outcome is Outcome.INVALID
    assert "emulator's times" in found[0].reason


def noisy_case(latency, load):
    return timed(latency, more=[measured(Metric.LOAD_MS, load, tier=Tier.DEVICE)])


def test_a_secondary_metric_fails_the_gate_by_regressing():
    base = [noisy_case(v, v) for v in QUIET]
    head = [noisy_case(v, 2 * v) for v in QUIET]
    found = all_of(base, head)
    assert [(v.metric, v.source, v.outcome) for v in found] == [
        ("latency_ms", PRIMARY, Outcome.PASS),
        ("load_ms", SECONDARY, Outcome.REGRESSED),
    ]
    assert decide(found) == Decision(Outcome.REGRESSED, 8)


def two_secondaries(values, factor):
    more = [measured(m, 1.0, tier=Tier.DEVICE) for m in (Metric.LOAD_MS, Metric.FIRST_MS)]
    slow = [measured(m.metric, factor, tier=Tier.DEVICE) for m in more]
    return [timed(v, more=more) for v in values], [timed(v, more=slow) for v in values]


def test_holm_keeps_two_secondary_metrics_open_until_there_are_more_pairs():
    found = all_of(*two_secondaries(QUIET, 1.5))
    assert [v.outcome for v in found] == [Outcome.PASS, *[Outcome.INCONCLUSIVE] * 2]
    assert "Holm" in found[1].reason
    assert decide(found) == Decision(Outcome.PASS, 0)
    assert not undecided(found)
    more = all_of(*two_secondaries(QUIET + QUIET[:3], 1.5))
    assert [v.outcome for v in more] == [Outcome.PASS, *[Outcome.REGRESSED] * 2]


def test_a_secondary_metric_that_one_side_lacks_is_said_and_does_not_count():
    head = [timed(v, more=[unmeasured(Metric.LOAD_MS, "no clock", Tier.DEVICE)]) for v in QUIET]
    found = all_of([noisy_case(v, v) for v in QUIET], head)
    assert [v.outcome for v in found] == [Outcome.PASS, Outcome.INVALID]
    assert "no clock" in found[1].reason
    assert decide(found) == Decision(Outcome.PASS, 0)


def test_stored_sessions_are_two_samples_and_weaker():
    head = scaled(QUIET, 1.2)
    verdict = primary(QUIET, head, design="stored")
    assert (verdict.outcome, verdict.paired.design) == (Outcome.REGRESSED, "stored")
    assert "base from history" in verdict.reason
    assert primary(QUIET, QUIET[::-1], design="stored").outcome is Outcome.PASS
    few = primary(QUIET[:1], head[:1], design="stored")
    assert few.outcome is Outcome.INVALID
    assert "too few sessions" in few.reason


def test_what_is_in_one_place_on_one_side_and_in_another_on_the_other_is_one_comparison():
    other = artifact("int8-new")
    made = [
        s.model_copy(update={"case": case(other, "phone", *s.case.measurements)})
        if s.side == "head"
        else s
        for s in sessions(QUIET, QUIET)
    ]
    found = judge(BASE, side(other), made, rules=GateRules())
    assert {v.subject for v in found} == {other.name, f"{other.name}@phone/t1"}
    assert decide(found).outcome is not Outcome.INVALID


def test_nothing_in_common_is_invalid():
    found = judge(side(), side(), (), rules=GateRules())
    assert decide(found) == Decision(Outcome.INVALID, 7)
    assert undecided(found) is False


def test_parity_of_head_is_judged_too():
    row = Parity(artifact=INT8.name, status=Status.FAILED, violated=("sqnr_db 3 < 20",))
    found = judge(BASE, HEAD, (), rules=GateRules(), parity=[row])
    assert decide(found) == Decision(Outcome.REGRESSED, 5)


def test_more_pairs_do_not_undo_a_file_that_is_too_large():
    larger = side(INT8.model_copy(update={"bytes": INT8.bytes + 1}))
    found = judge(BASE, larger, sessions(LOUD, LOUD[::-1]), rules=GateRules())
    assert not undecided(found)


def test_the_numbers_of_a_verdict_can_be_read_by_a_person():
    assert gate.paired.change(1.0) == "0 %"
    assert gate.paired.change(0.9998) == "-0.020 %"
    assert gate.paired.change(1.098) == "+9.8 %"


PARITY = ("parity", Outcome.REGRESSED, 5)
OVER = ("bytes", Outcome.REGRESSED, 8)
BROKEN = ("case", Outcome.INVALID, 7)
UNCLEAR = ("latency_ms", Outcome.INCONCLUSIVE, 9)
BETTER = ("bytes", Outcome.IMPROVED, 0)
FINE = ("bytes", Outcome.PASS, 0)
PRECEDENCE = (PARITY, OVER, BROKEN, UNCLEAR, BETTER, FINE)


@pytest.mark.parametrize(
    "present", [c for n in range(1, 7) for c in itertools.combinations(PRECEDENCE, n)]
)
def test_the_worst_verdict_sets_the_exit_code_in_any_order(present):
    made = [
        Verdict(outcome=o, subject="x", metric=m, value=None, limit=None, source="", reason="r")
        for m, o, _ in present
    ]
    _, outcome, code = present[0]
    assert decide(made) == decide(made[::-1]) == Decision(outcome, code)


def test_what_is_worse_on_purpose_leaves_no_improvement_of_the_whole():
    """Else `--improved-exit-code` and a headline would praise a model that is 64 % more work."""
    made = [
        Verdict(outcome=o, subject="x", metric=m, value=1, limit=1, source="", accepted=who)
        for m, o, who in (("macs", Outcome.PASS, "Ada"), ("bytes", Outcome.IMPROVED, ""))
    ]
    assert decide(made) == decide(made[::-1]) == Decision(Outcome.PASS, 0)
    assert decide(made[1:]) == Decision(Outcome.IMPROVED, 0)
    worse = made[1].model_copy(update={"outcome": Outcome.REGRESSED})
    assert decide([*made, worse]) == Decision(Outcome.REGRESSED, 8)


def test_nothing_judged_is_a_pass():
    assert decide(()) == Decision(Outcome.PASS, 0)

import pytest
from pydantic import ValidationError

from deploy.report.budgets import verdicts
from deploy.report.gate import Decision, decide
from deploy.types import Budget, Format, Metric, Outcome, Parity, Placement, Status, Tier
from tests.deploy.report import factory
from tests.deploy.report.factory import artifact, case, measured, unmeasured

INT8 = artifact("int8")
ON_HOST = case(INT8, "host", measured(Metric.LATENCY_MS, 10.0, 11.0, 50.0))
COUNTED = case(INT8, "phone", measured(Metric.INSTRUCTIONS, 1000, tier=Tier.EMULATOR))


def judge(*budgets, cases=(ON_HOST, COUNTED), parity=(), devices=(), artifacts=(INT8,)):
    return verdicts(
        artifacts=artifacts, parity=parity, devices=devices, cases=cases, budgets=budgets
    )


def budget(subject, metric, limit):
    return Budget(subject=subject, metric=metric, max=limit)


@pytest.mark.parametrize(
    ("limit", "outcome"),
    [(1001, Outcome.PASS), (1000, Outcome.PASS), (999.9, Outcome.REGRESSED)],
)
def test_a_budget_is_an_upper_limit_that_may_be_reached(limit, outcome):
    (verdict,) = judge(budget("int8.executorch@phone/t1", "instructions", limit))
    assert (verdict.outcome, verdict.value, verdict.limit) == (outcome, 1000, limit)
    assert "exact" in verdict.reason


def test_a_noisy_figure_is_judged_by_its_median_and_says_so():
    (verdict,) = judge(budget("int8.executorch@host/t1", "latency_ms", 11.0))
    assert (verdict.outcome, verdict.value) == (Outcome.PASS, 11.0)
    assert "the median of 3 samples" in verdict.reason
    assert "no statistical test" in verdict.reason


def test_instructions_of_a_real_phone_are_not_called_exact():
    real = case(INT8, "phone", measured(Metric.INSTRUCTIONS, 1000, tier=Tier.DEVICE))
    (verdict,) = judge(budget("*", "instructions", 2000), cases=[real])
    assert "no statistical test" in verdict.reason


@pytest.mark.parametrize(
    ("metric", "value"),
    [("bytes", INT8.bytes), ("partitions", 1), ("macs", 387_000_000), ("planned_bytes", 606_176)],
)
def test_a_file_is_held_to_its_budget(metric, value):
    counted = INT8.model_copy(update={"macs": 387_000_000, "planned_bytes": 606_176})
    (verdict,) = judge(budget("int8.*", metric, value - 1), artifacts=[counted])
    assert (verdict.outcome, verdict.subject) == (Outcome.REGRESSED, INT8.name)
    (verdict,) = judge(budget("int8.*", metric, value), artifacts=[counted])
    assert (verdict.outcome, verdict.value, verdict.reason) == (Outcome.PASS, value, "exact")


@pytest.mark.parametrize("metric", ["macs", "planned_bytes"])
def test_a_budget_on_what_an_older_manifest_does_not_say_is_invalid(metric):
    (verdict,) = judge(budget("int8.*", metric, 10**12))
    assert (verdict.outcome, verdict.value) == (Outcome.INVALID, None)
    assert "of before this was noted" in verdict.reason


def test_unknown_partitions_are_invalid_with_the_exporters_reason():
    unknown = artifact(
        "int8", Format.COREML, placement=Placement(backend="Core ML", reason="known on a Mac only")
    )
    (verdict,) = judge(budget("*", "partitions", 1), artifacts=[unknown], cases=[])
    assert (verdict.outcome, verdict.reason) == (Outcome.INVALID, "unknown: known on a Mac only")


@pytest.mark.parametrize(
    ("subject", "metric", "reason"),
    [
        ("int9.executorch", "bytes", "no artifact has this name"),
        ("int8.executorch@nowhere/t1", "latency_ms", "no case of this id was run"),
        ("int8.executorch@host/t1", "energy_mj", "this case has no such figure"),
    ],
)
def test_a_budget_that_finds_no_figure_is_invalid(subject, metric, reason):
    (verdict,) = judge(budget(subject, metric, 1))
    assert (verdict.outcome, verdict.value, verdict.limit) == (Outcome.INVALID, None, 1)
    assert reason in verdict.reason


def test_an_unavailable_figure_is_invalid_with_its_reason():
    blind = case(INT8, "phone", unmeasured(Metric.LATENCY_MS, "the clock counts instructions"))
    (verdict,) = judge(budget("*@phone/*", "latency_ms", 5), cases=[blind])
    assert verdict.outcome is Outcome.INVALID
    assert "the clock counts instructions" in verdict.reason


def test_a_figure_that_is_not_a_number_does_not_pass():
    broken = case(INT8, "host", measured(Metric.LATENCY_MS, float("nan")))
    (verdict,) = judge(budget("*", "latency_ms", 5), cases=[broken])
    assert verdict.outcome is Outcome.INVALID


def test_what_was_foreseen_not_to_run_is_left_out_unless_it_is_named():
    absent = case(INT8, "mac", status=Status.NOT_RUN, reason="no Mac here")
    cases = [ON_HOST, absent]
    assert [v.subject for v in judge(budget("*", "latency_ms", 99), cases=cases)] == [ON_HOST.id]
    (named,) = judge(budget(absent.id, "latency_ms", 99), cases=cases)
    (alone,) = judge(budget("*@mac/*", "latency_ms", 99), cases=cases)
    for verdict in (named, alone):
        assert verdict.outcome is Outcome.INVALID
        assert "no Mac here" in verdict.reason


def test_a_profiles_budgets_hold_for_its_device_only():
    run = factory.devices()[1]
    limited = run.model_copy(
        update={"profile": factory.profile("host", budgets={Metric.LATENCY_MS: 10.0})}
    )
    (verdict,) = judge(devices=[limited])
    assert (verdict.outcome, verdict.subject) == (Outcome.REGRESSED, ON_HOST.id)
    assert verdict.source == "profile host"


def test_a_profiles_budgets_of_files_hold_for_those_that_ran_there():
    profile = factory.profile("host", budgets={"bytes": INT8.bytes - 1, "partitions": 10**6})
    limited = factory.devices()[1].model_copy(update={"profile": profile})
    elsewhere = factory.artifact("fp32", bytes=INT8.bytes * 10)
    skipped = case(elsewhere, "host", status=Status.NOT_RUN, reason="no backend")
    found = judge(devices=[limited], artifacts=(INT8, elsewhere), cases=(ON_HOST, skipped))
    assert {(v.subject, v.metric, v.outcome) for v in found} == {
        (INT8.name, "bytes", Outcome.REGRESSED),
        (INT8.name, "partitions", Outcome.PASS),
    }
    assert {v.source for v in found} == {"profile host"}


@pytest.mark.parametrize("limits", [{"beauty": 1}, {"bytes": -1}, {"latency_ms": float("nan")}])
def test_a_profiles_budget_of_no_metric_or_no_limit_is_refused(limits):
    with pytest.raises(ValidationError):
        factory.profile("host", budgets=limits)


@pytest.mark.parametrize("status", [Status.FAILED, Status.INVALID])
def test_cases_figures_and_devices_that_broke_are_invalid(status):
    broken = case(INT8, "host", status=status, reason="device lost")
    half = case(INT8, "phone", unmeasured(Metric.PEAK_RSS_KIB, "no VmHWM line", status=status))
    gone = factory.devices()[0].model_copy(update={"status": status, "reason": "no boot"})
    found = judge(cases=[broken, half], devices=[gone])
    assert {(v.subject, v.metric) for v in found} == {
        ("emulated-arm64", "device"),
        (broken.id, "case"),
        (half.id, "peak_rss_kib"),
    }
    assert all(v.outcome is Outcome.INVALID and v.reason for v in found)
    assert decide(found) == Decision(Outcome.INVALID, 7)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (Status.OK, Decision(Outcome.PASS, 0)),
        (Status.FAILED, Decision(Outcome.REGRESSED, 5)),
        (Status.INVALID, Decision(Outcome.INVALID, 7)),
        (Status.NOT_RUN, Decision(Outcome.PASS, 0)),
    ],
)
def test_parity_decides(status, expected):
    check = Parity(artifact="int8.onnx", status=status, reason="why", violated=("sqnr_db",))
    found = judge(cases=[], parity=[check])
    assert decide(found) == expected
    assert all("sqnr_db" in v.reason for v in found)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"metric": "latency"}, "no metric 'latency'; choose one of bytes"),
        ({"max": -1}, "greater than or equal to 0"),
        ({"max": float("inf")}, "finite"),
        ({"subject": ""}, "at least 1 character"),
        ({"min": 1}, "Extra inputs"),
    ],
)
def test_a_wrong_budget_is_refused(values, said):
    with pytest.raises(ValidationError, match=said):
        Budget.model_validate({"subject": "*", "metric": "bytes", "max": 1} | values)

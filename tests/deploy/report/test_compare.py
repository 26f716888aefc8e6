import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.report.compare import BYTES, comparisons
from deploy.types import Comparison, DeviceRun, Format, Metric, Status, Tier
from tests.deploy.report import factory
from tests.deploy.report.factory import artifact, case, measured, unmeasured

PTE = Format.EXECUTORCH
FP32, INT8 = artifact("fp32"), artifact("int8")


def rows(cases, metric, artifacts=(FP32, INT8), **options) -> list[Comparison]:
    return [r for r in comparisons(cases, artifacts, "fp32", **options) if r.metric == metric]


def counted(of, value, tier=Tier.EMULATOR, device="phone"):
    return case(of, device, measured(Metric.INSTRUCTIONS, value, tier=tier))


def test_ratio_is_candidate_over_baseline_of_medians():
    (row,) = rows(
        [
            case(FP32, "host", measured(Metric.LATENCY_MS, 9.0, 10.0, 30.0)),
            case(INT8, "host", measured(Metric.LATENCY_MS, 4.0, 100.0, 5.0)),
        ],
        Metric.LATENCY_MS,
    )
    assert (row.baseline_value, row.candidate_value, row.ratio) == (10.0, 5.0, 0.5)
    assert (row.device, row.tier, row.threads, row.reason) == ("host", Tier.HOST, 1, "")


def test_files_are_compared_without_a_device():
    (row,) = rows([], BYTES)
    assert row.device == ""
    assert row.threads == 0
    assert row.tier is Tier.HOST
    assert row.ratio == pytest.approx(INT8.bytes / FP32.bytes)


def test_no_baseline_means_no_comparison():
    assert comparisons([counted(FP32, 2)], [FP32, INT8], None) == ()


def test_a_counting_device_has_instructions_and_a_timing_device_milliseconds():
    report = factory.report()
    metrics = {
        device: {r.metric for r in report.comparisons if r.device == device}
        for device in ("emulated-arm64", "host")
    }
    assert metrics["emulated-arm64"] == {
        "instructions",
        "load_instructions",
        "first_instructions",
        "peak_rss_kib",
    }
    assert metrics["host"] == {"latency_ms", "load_ms", "first_ms", "peak_rss_kib"}


def test_threads_and_formats_are_never_mixed():
    onnx = artifact("int8", Format.ONNX)
    found = rows(
        [
            counted(FP32, 100),
            case(INT8, "phone", measured(Metric.INSTRUCTIONS, 50, tier=Tier.EMULATOR), threads=4),
            counted(onnx, 50),
        ],
        Metric.INSTRUCTIONS,
        (FP32, INT8, onnx),
    )
    assert found
    assert all(row.ratio is None for row in found)


@pytest.mark.parametrize(
    ("cases", "said"),
    [
        ([counted(FP32, 2)], "int8: no case here"),
        ([counted(INT8, 2)], "fp32: no case here"),
        (
            [
                counted(FP32, 2),
                case(INT8, "phone", status=Status.FAILED, reason="the model cannot be loaded"),
            ],
            "int8: failed: the model cannot be loaded",
        ),
        (
            [
                counted(INT8, 2),
                case(
                    FP32,
                    "phone",
                    unmeasured(Metric.INSTRUCTIONS, "no counter", Tier.EMULATOR),
                ),
            ],
            "fp32: instructions unavailable: no counter",
        ),
        ([counted(FP32, 0), counted(INT8, 2)], "instructions of fp32 is 0"),
        ([counted(FP32, float("nan")), counted(INT8, 2)], "fp32: instructions is not a finite"),
        (
            [
                counted(FP32, 2),
                case(
                    INT8,
                    "phone",
                    measured(Metric.INSTRUCTIONS, 1, tier=Tier.EMULATOR),
                    artifact_sha256=factory.digest("another"),
                ),
            ],
            "int8: measured with another file than int8.executorch",
        ),
    ],
)
def test_a_missing_side_is_named_with_its_reason(cases, said):
    (row,) = rows(cases, Metric.INSTRUCTIONS)
    assert row.ratio is None
    assert said in row.reason


def test_one_reason_of_both_sides_is_said_once():
    phone = DeviceRun(profile=factory.profile("phone", Tier.EMULATOR), status=Status.OK)
    cases = [case(a, "phone", status=Status.NOT_RUN, reason="no Mac here") for a in (FP32, INT8)]
    (row,) = rows(cases, Metric.INSTRUCTIONS, devices=[phone])
    assert row.reason == "fp32 and int8: not run: no Mac here"
    assert row.tier is Tier.EMULATOR


def test_a_variant_that_was_not_exported_is_named():
    found = rows([counted(INT8, 2)], BYTES, (INT8,))
    assert [(r.ratio, r.reason) for r in found] == [(None, "fp32: no executorch artifact")]


def test_figures_of_another_tier_are_refused():
    (row,) = rows(
        [counted(FP32, 100, Tier.EMULATOR), counted(INT8, 50, Tier.DEVICE)], Metric.INSTRUCTIONS
    )
    assert row.ratio is None
    assert row.baseline_value is None
    assert row.tier is Tier.DEVICE
    assert "never compared across tiers" in row.reason


figures_of = st.lists(
    st.tuples(
        st.sampled_from(("fp32", "int8", "pruned")),
        st.sampled_from(("a", "b")),
        st.sampled_from((1, 4)),
        st.sampled_from(tuple(Status)),
        st.sampled_from(tuple(Tier)),
        st.floats(min_value=0, allow_infinity=False),
    ),
    max_size=8,
)


@given(figures_of)
def test_every_row_is_of_one_tier_and_has_a_ratio_or_a_reason(drawn):
    files = [artifact(v, f) for v in ("fp32", "int8", "pruned") for f in (PTE, Format.ONNX)]
    cases = [
        case(
            next(f for f in files if f.variant == variant),
            device,
            measured(Metric.LATENCY_MS, value, tier=tier)
            if status is Status.OK
            else unmeasured(Metric.LATENCY_MS, "because", tier, status),
            threads=threads,
        )
        for variant, device, threads, status, tier, value in drawn
    ]
    for row in comparisons(cases, files, "fp32"):
        assert (row.ratio is None) == bool(row.reason)
        for variant, value in (
            (row.baseline, row.baseline_value),
            (row.candidate, row.candidate_value),
        ):
            if value is None or row.metric == BYTES:
                continue
            assert (value, row.tier) in {
                (m.median, m.tier)
                for c in cases
                if (c.device, c.threads) == (row.device, row.threads)
                and c.artifact == f"{variant}.{row.format}"
                for m in c.measurements
            }

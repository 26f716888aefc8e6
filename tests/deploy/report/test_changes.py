"""What compression changed, in sentences."""

from __future__ import annotations

from deploy.report.changes import sentences
from deploy.types import Comparison, Format, Metric, Tier
from tests.deploy.report import factory


def row(ratio: float | None, metric: str = Metric.LATENCY_MS, device: str = "host") -> Comparison:
    return Comparison(
        device=device,
        format=Format.ONNX,
        threads=1,
        metric=metric,
        tier=Tier.HOST,
        baseline="fp32",
        candidate="int8",
        baseline_value=1.0,
        candidate_value=ratio,
        ratio=ratio,
        reason="" if ratio is not None else "not run",
    )


def told(*rows: Comparison) -> str:
    (line,) = sentences(factory.report(comparisons=rows))
    return line


def test_a_report_is_told_in_a_line_a_place() -> None:
    assert sentences(factory.report()) == (
        "int8: files are 72 to 73 % smaller.",
        "int8 on emulated-arm64 (emulator): an inference takes 45 % fewer instructions, "
        "peak memory is 37 to 60 % lower.",
        "int8 on host (host): an inference takes 26 % less time to 24 % more time, "
        "peak memory is 35 to 56 % lower.",
    )


def test_ranges_name_the_smaller_share_first() -> None:
    assert "9.0 to 50 % less time" in told(row(0.5), row(0.91))
    assert "10 to 200 % more time" in told(row(1.1), row(3.0))
    assert "as before to 12 % more time" in told(row(1.0), row(1.12))
    assert "takes as before" not in told(row(0.7))


def test_what_has_no_ratio_is_not_told() -> None:
    assert sentences(factory.report(comparisons=(row(None),))) == ()
    assert told(row(None), row(0.8, Metric.PEAK_RSS_KIB)).endswith("peak memory is 20 % lower.")

"""The runner's result: what is read from it, and every way in which it can be wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.metrics.latency import (
    install_load_measurement,
    latency_measurements,
    load_measurements,
    minute_medians,
    parse_runner_result,
)
from deploy.metrics.memory import memory_measurements, polled_measurements
from deploy.types import Metric, Status, Tier

GOOD: dict[str, Any] = {
    "schema": 1,
    "runner_version": "0.1.0",
    "backend": "executorch",
    "runtime_version": "1.5.1",
    "arch": "aarch64",
    "model_bytes": 1024,
    "threads": 1,
    "cpu_mask": "0xf0",
    "affinity_applied": True,
    "load_ns": 2_500_000,
    "first_ns": 3_000_000,
    "warmup_ns": [1],
    "steady_ns": [84_664_336, 84_680_304],
    "stopped_by": "iterations",
    "baseline_rss_kib": 1000,
    "loaded_rss_kib": 1500,
    "peak_rss_kib": 4000,
    "inputs": [{"name": "x", "dtype": "float32", "shape": [1, 3], "bytes": 12}],
    "outputs": [{"name": "", "dtype": "float32", "shape": [1, 10], "bytes": 40}],
}


def parsed(**changes: Any) -> Any:
    return parse_runner_result(json.dumps({**GOOD, **changes}).encode())


def rows(result: Any, clock: Any) -> dict[Metric, Any]:
    found = latency_measurements(result, tier=Tier.EMULATOR, clock=clock)
    found += load_measurements([result], tier=Tier.EMULATOR, clock=clock)
    return {row.metric: row for row in found}


def test_a_real_clock_gives_milliseconds_and_no_instructions() -> None:
    found = rows(parsed(), "monotonic")
    assert found[Metric.LOAD_MS].samples == (2.5,)
    assert found[Metric.FIRST_MS].samples == (3.0,)
    assert found[Metric.LATENCY_MS].samples == (84.664336, 84.680304)
    assert "0xf0" in found[Metric.LATENCY_MS].source
    assert Metric.INSTRUCTIONS not in found


def test_a_counting_clock_gives_instructions_and_no_milliseconds() -> None:
    found = rows(parsed(affinity_applied=False), "icount")
    assert found[Metric.INSTRUCTIONS].samples == (84_664_336.0, 84_680_304.0)
    assert found[Metric.LOAD_INSTRUCTIONS].samples == (2_500_000.0,)
    assert "-icount shift=0" in found[Metric.INSTRUCTIONS].source
    assert "not pinned" in found[Metric.INSTRUCTIONS].source
    assert found[Metric.LATENCY_MS].status is Status.UNAVAILABLE
    assert found[Metric.LATENCY_MS].samples == ()
    assert "counts instructions" in found[Metric.LATENCY_MS].reason


def test_no_steady_inference_is_unavailable() -> None:
    found = rows(parsed(steady_ns=[], stopped_by="time"), "monotonic")
    assert found[Metric.LATENCY_MS].status is Status.UNAVAILABLE
    assert found[Metric.FIRST_MS].status is Status.OK


@pytest.mark.parametrize(
    ("peak", "baseline", "peak_kib", "delta_kib"),
    [
        (4000, 1000, 4000.0, 3000.0),
        (4000, 0, 4000.0, None),
        (0, 1000, None, None),
        (10, 20, 10.0, None),
    ],
)
def test_memory_that_is_not_known_is_not_zero(
    peak: int, baseline: int, peak_kib: float | None, delta_kib: float | None
) -> None:
    result = parsed(peak_rss_kib=peak, baseline_rss_kib=baseline)
    first, second = memory_measurements(result, tier=Tier.HOST)
    assert (first.metric, second.metric) == (Metric.PEAK_RSS_KIB, Metric.DELTA_RSS_KIB)
    assert first.median == peak_kib
    assert second.median == delta_kib
    for row in (first, second):
        assert (row.status is Status.OK) == (row.median is not None)
        assert row.reason or row.samples


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "JSON"),
        (b"\x00\xff garbage", "JSON"),
        (b"[1, 2]", "object"),
        (json.dumps({**GOOD, "schema": 2}).encode(), "schema"),
        (json.dumps({**GOOD, "extra": 1}).encode(), "extra"),
        (json.dumps({**GOOD, "first_ns": -1}).encode(), "first_ns"),
        (json.dumps({**GOOD, "first_ns": "12"}).encode(), "first_ns"),
        (json.dumps({**GOOD, "first_ns": 1.5}).encode(), "first_ns"),
        (json.dumps({**GOOD, "first_ns": True}).encode(), "first_ns"),
        (json.dumps({**GOOD, "steady_ns": [1, None]}).encode(), "steady_ns.1"),
        (json.dumps({**GOOD, "steady_ns": [10**30]}).encode(), "steady_ns.0"),
        (json.dumps(GOOD).replace("2500000", "NaN").encode(), "load_ns"),
        (json.dumps({**GOOD, "runtime_version": "x" * 10000}).encode(), "runtime_version"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "peak_rss_kib"}).encode(), "peak"),
        (json.dumps(GOOD).encode()[:-20], "JSON"),
        (b"[" * 100_000, "JSON"),
        (b" " * ((64 << 20) + 1), "bytes"),
    ],
)
def test_a_wrong_result_is_one_line(text: bytes, says: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_runner_result(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@given(st.binary(max_size=200) | st.recursive(st.none() | st.integers() | st.text(), st.lists))
def test_any_content_parses_or_is_a_value_error(content: Any) -> None:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    with pytest.raises(ValueError):
        parse_runner_result(text)


def test_each_fresh_process_is_a_sample() -> None:
    results = [parsed(load_ns=ns, first_ns=2 * ns) for ns in (3_000_000, 1_000_000, 2_000_000)]
    load, first = load_measurements(results, tier=Tier.DEVICE, clock="monotonic")
    assert (load.metric, load.samples, load.median) == (Metric.LOAD_MS, (3.0, 1.0, 2.0), 2.0)
    assert (first.metric, first.samples) == (Metric.FIRST_MS, (6.0, 2.0, 4.0))
    assert "3 fresh processes" in load.source
    row = install_load_measurement(results[0], tier=Tier.DEVICE)
    assert (row.metric, row.samples) == (Metric.INSTALL_LOAD_MS, (3.0,))
    assert "after a push" in row.source


SECOND = 10**9


def test_minutes_have_their_own_medians() -> None:
    """Slower from minute to minute; the third one is cut short and does not count."""
    steady = [20 * SECOND] * 3 + [30 * SECOND] * 2 + [SECOND]
    result = parsed(steady_ns=steady, steady_minutes=[3, 2, 1])
    assert minute_medians(result) == {0: 20_000.0, 1: 30_000.0}
    (row,) = latency_measurements(result, tier=Tier.DEVICE, clock="monotonic", per_minute=True)
    assert (row.samples, row.minutes) == ((20_000.0, 30_000.0), (0, 1))
    assert "6 inferences in all" in row.source


@pytest.mark.parametrize(
    ("steady", "minutes", "medians"),
    [
        ([20 * SECOND] * 6, [3, 3], {0: 20_000.0, 1: 20_000.0}),  # the last one is full
        ([SECOND], [1], {0: 1000.0}),  # nothing but a short one
        # One inference beyond a minute: in the second one none began.
        ([150 * SECOND, 60 * SECOND], [1, 0, 1], {0: 150_000.0, 2: 60_000.0}),
        ([], [], {}),
    ],
)
def test_minutes_at_the_edges(
    steady: list[int], minutes: list[int], medians: dict[int, float]
) -> None:
    assert minute_medians(parsed(steady_ns=steady, steady_minutes=minutes)) == medians


def test_minutes_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValueError, match="hold 3 inferences and there are 2"):
        minute_medians(parsed(steady_minutes=[3]))


def polled(**changes: Any) -> Any:
    good = {"interval_ms": 50, "steady_from": 1, "reason": ""}
    lists = {"pss_kib": [10, 30, 40], "private_dirty_kib": [5, 20, 21]}
    return parsed(memory={**good, **lists, **changes})


def test_memory_counts_from_the_warm_up_on() -> None:
    pss, dirty = polled_measurements(polled(), tier=Tier.HOST)
    assert (pss.metric, pss.samples) == (Metric.PSS_KIB, (30.0, 40.0))
    assert (dirty.metric, dirty.samples) == (Metric.PRIVATE_DIRTY_KIB, (20.0, 21.0))
    assert "every 50 ms" in pss.source


@pytest.mark.parametrize(
    ("result", "says"),
    [
        (polled(pss_kib=[1], private_dirty_kib=[1]), "after the warm-up"),
        (polled(pss_kib=[], private_dirty_kib=[], reason="no such file"), "no such file"),
        (polled(pss_kib=[1, 2]), "differ in length"),
        (parsed(), "did not poll"),
    ],
)
def test_memory_that_is_not_there_says_why(result: Any, says: str) -> None:
    for row in polled_measurements(result, tier=Tier.HOST):
        assert row.status is Status.UNAVAILABLE
        assert says in row.reason
        assert row.samples == ()

"""Energy of an inference: exact integrals, honest intervals, a reason for every missing figure."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.android_text import GaugeSample, Rail
from deploy.metrics import energy as e
from deploy.metrics.latency import parse_runner_result
from deploy.types import EnergySource, Status, Tier

DISCHARGING_NEGATIVE = EnergySource(source="current_voltage", current_sign=-1, current_scale_ua=1.0)
WINDOWS = e.Windows((100.0, 165.0), (165.0, 235.0), (235.0, 300.0))
IDLE_MW, RUN_MW = 400.0, 2600.0


def power_at(t: float) -> float:
    return RUN_MW if 165.0 < t < 235.0 else IDLE_MW


def step_curve() -> e.PowerCurve:
    """Idle, run, idle; the readings just beside the edges keep the power's steps sharp."""
    edges = [165.0, 165.0 + 1e-9, 235.0 - 1e-9, 235.0]
    times = sorted({*map(float, range(99, 302)), *edges})
    return e.PowerCurve(tuple(times), tuple(power_at(t) for t in times))


def test_the_integral_is_exact() -> None:
    estimate = e.per_inference(step_curve(), WINDOWS, 1000)
    assert estimate.idle_mw == pytest.approx(IDLE_MW, rel=1e-9)
    assert estimate.run_mw == pytest.approx(RUN_MW, rel=1e-9)
    assert estimate.energy_mj == pytest.approx((RUN_MW - IDLE_MW) * 70 / 1000, rel=1e-9)
    low, high = estimate.interval_mj
    assert low == pytest.approx(high, rel=1e-6), "a constant power has no scatter"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0.1, 4.0), min_size=3, max_size=30),
    st.lists(st.floats(-1e4, 1e4), min_size=31, max_size=31),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_between_is_the_integral_of_the_line_through_the_readings(
    gaps: list[float], powers: list[float], a: float, b: float
) -> None:
    times = np.concatenate([[5.0], 5.0 + np.cumsum(gaps)])
    power = np.array(powers[: len(times)])
    start, end = sorted((5 + a * sum(gaps), 5 + b * sum(gaps)))
    curve = e.PowerCurve(tuple(map(float, times)), tuple(map(float, power)))
    end = min(end, float(times[-1]))
    start = min(start, end)
    # A polygon's area through numpy, on all its corners.
    grid = np.unique(np.concatenate([times[(times > start) & (times < end)], [start, end]]))
    expected = np.trapezoid(np.interp(grid, times, power), grid)
    assert curve.between(start, end) == pytest.approx(expected, abs=1e-6, rel=1e-9)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Independent noise a second: 95 % intervals hold the true value in 90 to 99 % of 300 runs."""
    rng = random.Random(5)
    held = 0
    for _ in range(300):
        times = [float(t) for t in range(99, 302)]
        power = tuple(power_at(t + 0.5) + rng.gauss(0, 150) for t in times)
        # Shifted by half a second, the edges lie between readings; the truth is what the line has.
        curve = e.PowerCurve(tuple(t + 0.5 for t in times), power)
        low, high = e.per_inference(curve, WINDOWS, 70).interval_mj
        held += low <= RUN_MW - IDLE_MW <= high
    assert 0.90 <= held / 300 <= 0.995


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(5, 2.570582), (8, 2.306004), (11, 2.200985), (30, 2.042272)]
)
def test_student_t(freedom: float, quantile: float) -> None:
    assert e.student_t(0.975, freedom) == pytest.approx(quantile, rel=3e-4)


def samples(power_mw: float = 1000.0, volts: float = 4.0, sign: int = -1) -> list[GaugeSample]:
    micro_amperes = round(sign * power_mw / volts * 1000)
    return [
        # A gauge that lives changes in its last digit.
        GaugeSample(float(t), micro_amperes + t % 2, round(volts * 1e6))
        for t in range(300)
    ]


def test_current_times_voltage_has_sign_and_scale_of_the_profile() -> None:
    curve = e.current_voltage_curve(samples(), DISCHARGING_NEGATIVE)
    assert curve.between(10, 20) == pytest.approx(10_000, rel=1e-4)
    in_ma = EnergySource(source="current_voltage", current_sign=1, current_scale_ua=1000.0)
    milli = [GaugeSample(float(t), 250 + t % 2, 4_000_000) for t in range(60)]
    assert e.current_voltage_curve(milli, in_ma).between(10, 20) == pytest.approx(10_020)


def test_charge_counter_in_microampere_hours() -> None:
    # 250 mA at 4 V for 300 s in steps of 1 mAh: 20.8 mAh.
    rows = [
        GaugeSample(float(t), 3_000_000 - 1000 * int(t * 250 / 3600), 4_000_000) for t in range(301)
    ]
    curve = e.charge_counter_curve(rows)
    assert curve.resolution_mj() == pytest.approx(1000 * 3.6 * 4)
    assert curve.between(0, 300) == pytest.approx(20 * 1000 * 3.6 * 4)


def rail(name: str, mw: float, start: int = 0, end: int = 300) -> Rail:
    return Rail(name, "", tuple((s * 1000, round(s * mw * 1000)) for s in range(start, end + 1)))


def test_rails_add_up_or_are_chosen() -> None:
    rails = [rail("CPU", 900.0), rail("DDR", 100.0)]
    assert e.rails_curve(rails).between(10.25, 70.75) == pytest.approx(60.5 * 1000)
    assert e.rails_curve(rails, ["DDR"]).between(10, 20) == pytest.approx(1000)


REFUSED = {
    "sign": (
        lambda: e.current_voltage_curve(samples(), EnergySource(source="current_voltage")),
        "sign and the scale",
    ),
    "charged": (lambda: e.current_voltage_curve(samples(sign=1), DISCHARGING_NEGATIVE), "charged"),
    "frozen": (
        lambda: e.current_voltage_curve(
            [GaugeSample(float(t), -9, 4_000_000) for t in range(50)], DISCHARGING_NEGATIVE
        ),
        "not updated",
    ),
    "nothing": (
        lambda: e.current_voltage_curve([GaugeSample(1.0, None, 4)], DISCHARGING_NEGATIVE),
        "no reading",
    ),
    "counter": (
        lambda: e.charge_counter_curve(
            [GaugeSample(float(t), 3_000_000, 4_000_000) for t in range(300)]
        ),
        "did not move",
    ),
    "no rails": (lambda: e.rails_curve([]), "no power rails"),
    "other rails": (lambda: e.rails_curve([rail("CPU", 1)], ["GPU"]), "no power rail GPU"),
    "still rails": (lambda: e.rails_curve([rail("CPU", 0)]), "moved"),
    "backwards": (lambda: e.rails_curve([Rail("CPU", "", ((0, 5), (1000, 4)))]), "backwards"),
    "gap": (lambda: e.PowerCurve((0.0, 9.0), (1.0, 1.0)).between(1, 8), "9.0 s"),
    "uncovered": (lambda: e.PowerCurve((0.0, 4.0), (1.0, 1.0)).between(1, 5), "cover"),
    "short": (
        lambda: e.per_inference(step_curve(), e.Windows((100, 165), (165, 200), (235, 300)), 9),
        "35.0 s",
    ),
    "none ended": (lambda: e.per_inference(step_curve(), WINDOWS, 0), "no inference"),
    "idle is dearer": (
        lambda: e.per_inference(
            e.rails_curve([rail("CPU", 5)]), e.Windows((1, 70), (70, 140), (140, 210)), 1
        ),
        "not quiet",
    ),
    "few steps": (
        lambda: e.per_inference(
            e.CounterCurve(e.rails_curve([rail("CPU", 1000.0)]).counters, step_mj=8000.0),
            WINDOWS,
            1,
        ),
        "8.8 of its steps",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_every_way_to_know_nothing_has_its_reason(case: str) -> None:
    make, says = REFUSED[case]
    with pytest.raises(e.NoEnergy, match=says):
        make()


def test_load_and_warm_up_count_with_their_time() -> None:
    result = {
        "schema": 1, "runner_version": "1", "backend": "onnxruntime", "runtime_version": "1",
        "arch": "x", "model_bytes": 1, "threads": 1, "cpu_mask": None, "affinity_applied": False,
        "load_ns": 4_000, "first_ns": 3_000, "warmup_ns": [2_000], "steady_ns": [1_000] * 10,
        "stopped_by": "iterations", "baseline_rss_kib": 0, "loaded_rss_kib": 0, "peak_rss_kib": 0,
        "inputs": [], "outputs": [],
    }  # fmt: skip
    assert e.inferences_of(parse_runner_result(json.dumps(result).encode())) == 19
    result |= {"steady_ns": []}
    assert e.inferences_of(parse_runner_result(json.dumps(result).encode())) == 0


def test_the_row_has_the_figure_its_interval_and_how_it_came() -> None:
    estimate = e.per_inference(step_curve(), WINDOWS, 1000)
    row = e.energy_measurement(
        DISCHARGING_NEGATIVE, tier=Tier.DEVICE, estimate=estimate, how="test"
    )
    assert row.status is Status.OK
    assert row.samples == (estimate.energy_mj,)
    assert row.interval == estimate.interval_mj
    assert "Welch" in row.source


def test_no_source_is_unavailable_with_the_profiles_reason() -> None:
    none = EnergySource(source="none", reason="no gauge")
    row = e.energy_measurement(none, tier=Tier.DEVICE)
    assert (row.status, row.reason, row.samples) == (Status.UNAVAILABLE, "no gauge", ())

"""Energy of an inference: ``(E_run − P_idle · t) / N`` from what a phone's gauges recorded.

Pure functions. Where a gauge says nothing usable, :class:`NoEnergy` has the reason; never zero. The
method is in docs/measuring.md.
"""

from __future__ import annotations

import itertools
import math
import statistics
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from deploy.android_text import GaugeSample, Rail
from deploy.metrics.latency import RunnerResult
from deploy.types import EnergySource, Measurement, Metric, Status, Tier

MIN_WINDOW_S = 60.0
BLOCK_S = 10.0
MAX_GAP_S = 5.0
MIN_STEPS = 10
"""A charge counter has to move so many of its own steps in a run: 10 % is its best then."""

CONFIDENCE = 0.95
_MC_PER_UAH = 3.6
_MAX_NAMES = 800
"""Characters of rail names in one line: a phone tells some thirty, of up to 25 characters."""


class NoEnergy(Exception):
    """There is no figure, and the text says why."""


class Curve(Protocol):
    """Energy over time. Times are the device's seconds since boot."""

    def between(self, start_s: float, end_s: float) -> float:
        """Energy in mJ that was used from ``start_s`` to ``end_s``; :class:`NoEnergy` for a gap."""

    def resolution_mj(self) -> float:
        """How far one difference of the gauge can be off because it moves in steps."""


@dataclass(frozen=True)
class PowerCurve:
    """Power in mW at rising times; between two readings it is taken to change evenly."""

    times_s: tuple[float, ...]
    power_mw: tuple[float, ...]

    def between(self, start_s: float, end_s: float) -> float:
        """The exact integral of the broken line through the readings."""
        _covered(self.times_s, start_s, end_s)
        inner = [(t, p) for t, p in zip(self.times_s, self.power_mw, strict=True)]
        inside = [(t, p) for t, p in inner if start_s < t < end_s]
        ends = [(t, _interpolated(self.times_s, self.power_mw, t)) for t in (start_s, end_s)]
        line = [ends[0], *inside, ends[1]]
        return math.fsum(
            (t1 - t0) * (p0 + p1) / 2 for (t0, p0), (t1, p1) in itertools.pairwise(line)
        )

    def resolution_mj(self) -> float:
        """0: the readings' own steps show in their scatter."""
        return 0.0


@dataclass(frozen=True)
class CounterCurve:
    """Counters of energy used since some moment, in mJ; between two readings they rise evenly."""

    counters: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]
    step_mj: float = 0.0

    def between(self, start_s: float, end_s: float) -> float:
        """Sum over the counters of what they rose by."""
        total = []
        for times, values in self.counters:
            _covered(times, start_s, end_s)
            total.append(_interpolated(times, values, end_s))
            total.append(-_interpolated(times, values, start_s))
        return math.fsum(total)

    def resolution_mj(self) -> float:
        """One step of the counter."""
        return self.step_mj


def chosen_rails(rails: Sequence[Rail], wanted: Sequence[str] = ()) -> list[Rail]:
    """Those of ``rails`` that ``wanted`` names, all where it is empty.

    Raises :class:`NoEnergy` where one that is named is not there: a sum without it would be another
    figure. The reason tells the names that there are.
    """
    if not rails:
        raise NoEnergy("the trace has no power rails: this phone does not tell them to perfetto")
    there = {rail.name for rail in rails}
    if missing := sorted(set(wanted) - there):
        raise NoEnergy(
            f"the phone has no power rail {_listed(missing)} (energy.rails of the profile); "
            f"there are: {_listed(sorted(there))}"
        )
    return [rail for rail in rails if not wanted or rail.name in wanted]


def rails_in_words(rails: Sequence[Rail], wanted: Sequence[str] = ()) -> str:
    """Which rails a figure is the sum of, for the measurement's source."""
    chosen = chosen_rails(rails, wanted)
    if not wanted:
        return f"all {len(chosen)} power rails"
    sum_of = "the sum of power rails" if len(chosen) > 1 else "power rail"
    return f"{sum_of} {_listed([rail.name for rail in chosen])}"


def _listed(names: Sequence[str]) -> str:
    text = ", ".join(names)
    return text if len(text) <= _MAX_NAMES else f"{text[:_MAX_NAMES]}... ({len(names)} in all)"


def rails_curve(rails: Sequence[Rail], wanted: Sequence[str] = ()) -> CounterCurve:
    """The sum of power rails (µJ since boot); of ``wanted`` only, where any is named."""
    chosen = chosen_rails(rails, wanted)
    counters = []
    for rail in chosen:
        values = [microjoules / 1000 for _, microjoules in rail.readings]
        if any(b < a for a, b in itertools.pairwise(values)):
            raise NoEnergy(f"the counter of power rail {rail.name} ran backwards")
        counters.append((tuple(ms / 1000 for ms, _ in rail.readings), tuple(values)))
    if all(values[0] == values[-1] for _, values in counters):
        raise NoEnergy("no power rail's counter moved")
    return CounterCurve(tuple(counters))


def current_voltage_curve(samples: Sequence[GaugeSample], energy: EnergySource) -> PowerCurve:
    """Power from samples of ``current_now`` (first) and ``voltage_now`` (second, µV).

    ``energy.current_scale_ua`` times the raw current is µA, ``current_sign`` its sign while the
    battery discharges. A reading without a value is skipped, as a gap if it lasts.
    """
    sign, scale = _sign_and_scale(energy)
    readings = [
        (s.uptime_s, sign * scale * s.first * s.second / 1e9)
        for s in samples
        if s.first is not None and s.second is not None
    ]
    if not readings:
        raise NoEnergy("the gauge gave no reading of current and voltage")
    if len({(s.first, s.second) for s in samples}) == 1 and len(samples) > 1:
        raise NoEnergy("the gauge shows one value all the time: it is not updated")
    if statistics.fmean(power for _, power in readings) < 0:
        raise NoEnergy("the current's sign says that the battery was charged: check current_sign")
    times, power = zip(*readings, strict=True)
    return PowerCurve(times, power)


def charge_counter_curve(samples: Sequence[GaugeSample]) -> CounterCurve:
    """Energy used from samples of ``charge_counter`` (first, µAh left) and ``voltage_now`` (µV)."""
    readings = [
        (s.uptime_s, s.first, s.second)
        for s in samples
        if s.first is not None and s.second is not None
    ]
    if not readings:
        raise NoEnergy("the gauge gave no reading of charge and voltage")
    times, used, steps = [readings[0][0]], [0.0], []
    for (_, q0, v0), (t1, q1, v1) in itertools.pairwise(readings):
        used.append(used[-1] + (q0 - q1) * _MC_PER_UAH * (v0 + v1) / 2 / 1e6)
        times.append(t1)
        if q1 != q0:
            steps.append(abs(q0 - q1))
    if not steps:
        raise NoEnergy("the charge counter did not move: its steps are larger than what was used")
    volts = statistics.fmean(v for _, _, v in readings) / 1e6
    return CounterCurve(((tuple(times), tuple(used)),), min(steps) * _MC_PER_UAH * volts)


@dataclass(frozen=True)
class Windows:
    """(start, end) of the idle windows and of the run, in the device's seconds since boot."""

    idle_before: tuple[float, float]
    run: tuple[float, float]
    idle_after: tuple[float, float]

    @property
    def idle(self) -> tuple[tuple[float, float], ...]:
        """Both idle windows."""
        return (self.idle_before, self.idle_after)


@dataclass(frozen=True)
class Estimate:
    """Energy of one inference with its interval, and the two powers that it comes from."""

    energy_mj: float
    interval_mj: tuple[float, float]
    run_mw: float
    idle_mw: float


def per_inference(curve: Curve, windows: Windows, inferences: float) -> Estimate:
    """``(E_run − P_idle · t_run) / N`` with a 95 % interval.

    The interval is Welch's t interval of the difference of two mean powers: of the run's and of the
    idle windows' blocks of about 10 s (a block's mean is far less dependent on its neighbour than a
    reading is), plus what the steps of the gauge can add. Raises :class:`NoEnergy`.
    """
    for start, end in (*windows.idle, windows.run):
        if end - start < MIN_WINDOW_S:
            raise NoEnergy(
                f"a window has {end - start:.1f} s, less than {MIN_WINDOW_S:g}: too short to tell "
                "the run from the idle phone"
            )
    if inferences <= 0:
        raise NoEnergy("no inference ended")
    idle_s = math.fsum(end - start for start, end in windows.idle)
    run_s = windows.run[1] - windows.run[0]
    idle_mw = math.fsum(curve.between(*window) for window in windows.idle) / idle_s
    run_mj = curve.between(*windows.run)
    step = curve.resolution_mj()
    if step and run_mj < MIN_STEPS * step:
        raise NoEnergy(
            f"the charge counter moved {run_mj / step:.1f} of its steps in the run, fewer than "
            f"{MIN_STEPS}"
        )
    net_mj = run_mj - idle_mw * run_s
    if net_mj <= 0:
        raise NoEnergy(
            f"the run took {run_mj / run_s:.1f} mW and the idle phone {idle_mw:.1f} mW: the idle "
            "phone was not quiet"
        )
    run_blocks = _block_powers(curve, [windows.run])
    idle_blocks = _block_powers(curve, windows.idle)
    half_mw = welch_half_width(run_blocks, idle_blocks)
    half_mj = half_mw * run_s + step * (1 + 2 * run_s / idle_s)
    return Estimate(
        energy_mj=net_mj / inferences,
        interval_mj=((net_mj - half_mj) / inferences, (net_mj + half_mj) / inferences),
        run_mw=run_mj / run_s,
        idle_mw=idle_mw,
    )


def inferences_of(result: RunnerResult) -> float:
    """How many steady inferences fit the time that the runner was busy.

    The load, the first and the warm-up inferences use energy too, at about the same power: they
    count with their time. Without them it is the number of steady inferences.
    """
    if not result.steady_ns:
        return 0.0
    busy_ns = result.load_ns + result.first_ns + sum(result.warmup_ns) + sum(result.steady_ns)
    return busy_ns / statistics.fmean(result.steady_ns) if any(result.steady_ns) else 0.0


def welch_half_width(a: Sequence[float], b: Sequence[float]) -> float:
    """Half the width of Welch's 95 % interval of ``mean(a) - mean(b)``; at least two of each."""
    if min(len(a), len(b)) < 2:
        raise NoEnergy("too few blocks for an interval")
    va, vb = statistics.variance(a) / len(a), statistics.variance(b) / len(b)
    if va + vb == 0:
        return 0.0
    freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    return student_t(0.5 + CONFIDENCE / 2, freedom) * math.sqrt(va + vb)


def student_t(p: float, freedom: float) -> float:
    """Quantile of Student's t (Abramowitz & Stegun 26.7.5), good from 5 degrees of freedom on."""
    z = statistics.NormalDist().inv_cdf(p)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * freedom**4)
    )


def energy_measurement(
    energy: EnergySource,
    *,
    tier: Tier,
    estimate: Estimate | None = None,
    how: str = "",
    reason: str = "",
    status: Status = Status.UNAVAILABLE,
) -> Measurement:
    """The ``energy_mj`` row: the estimate, or ``status`` with the true reason; never zero."""
    if estimate is not None:
        low, high = estimate.interval_mj
        return Measurement(
            metric=Metric.ENERGY_MJ,
            unit="mJ",
            tier=tier,
            source=(
                f"{how}; {estimate.run_mw:.1f} mW running, {estimate.idle_mw:.1f} mW idle; 95 % "
                f"interval {low:.4g} to {high:.4g} mJ (Welch's t over blocks of {BLOCK_S:g} s)"
            ),
            status=Status.OK,
            samples=(estimate.energy_mj,),
            interval=estimate.interval_mj,
        )
    return Measurement(
        metric=Metric.ENERGY_MJ,
        unit="mJ",
        tier=tier,
        source=energy.source,
        status=status,
        reason=reason or energy.reason or "no reason is known",
    )


def _sign_and_scale(energy: EnergySource) -> tuple[int, float]:
    if energy.current_sign is None or energy.current_scale_ua is None:
        raise NoEnergy(
            "the profile does not say the sign and the scale of the current gauge "
            f"(current_sign, current_scale_ua){': ' + energy.reason if energy.reason else ''}"
        )
    return energy.current_sign, energy.current_scale_ua


def declared(energy: EnergySource) -> None:
    """Raise :class:`NoEnergy` where the profile lacks what its source needs."""
    if energy.source == "current_voltage":
        _sign_and_scale(energy)


def _block_powers(curve: Curve, windows: Sequence[tuple[float, float]]) -> list[float]:
    powers = []
    for start, end in windows:
        count = max(2, int((end - start) // BLOCK_S))
        edges = [start + (end - start) * n / count for n in range(count + 1)]
        powers += [curve.between(t0, t1) / (t1 - t0) for t0, t1 in itertools.pairwise(edges)]
    return powers


def _covered(times: Sequence[float], start: float, end: float) -> None:
    if not times or times[0] > start or times[-1] < end:
        raise NoEnergy("the gauge's readings do not cover the whole time")
    first, last = bisect_right(times, start) - 1, bisect_right(times, end)
    seen = times[first : last + 1]
    gap = max((b - a for a, b in itertools.pairwise(seen)), default=0.0)
    if gap > MAX_GAP_S:
        raise NoEnergy(f"the gauge gave no reading for {gap:.1f} s (did the phone sleep?)")


def _interpolated(times: Sequence[float], values: Sequence[float], at: float) -> float:
    right = min(bisect_right(times, at), len(times) - 1)
    left = max(right - 1, 0)
    if times[right] == times[left]:
        return values[left]
    share = (at - times[left]) / (times[right] - times[left])
    return values[left] + share * (values[right] - values[left])

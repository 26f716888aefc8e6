"""The energy pass: a run between two idle windows while a gauge of the phone records."""

from __future__ import annotations

import contextlib
import dataclasses

from deploy.android_text import parse_uptime_s, printable
from deploy.bench.gauges import Recorder, recorder_of
from deploy.bench.passes.base import BEYOND_CAP_S, CaseRun, Gathered
from deploy.bench.waiting import Clock, clock_for
from deploy.errors import DeviceError
from deploy.metrics.energy import (
    MIN_WINDOW_S,
    NoEnergy,
    Windows,
    energy_measurement,
    inferences_of,
    per_inference,
)
from deploy.metrics.latency import RunnerResult
from deploy.types import Measurement, Metric, Status

IDLE_S = MIN_WINDOW_S + 5.0
COUNTER_WINDOW_S = 300.0
"""A charge counter moves in steps of a milliampere-hour or so: it needs longer windows."""

SETTLE_S = 3.0
"""Between the mark of the run's window and the runner: the gauge's readings around the mark are of
the idle phone, so nothing of the run is counted as idle or the other way round."""


class Energy:
    """``energy_mj`` of an inference. Skipped at once where the profile names no source."""

    name = "energy"
    metrics: tuple[Metric, ...] = (Metric.ENERGY_MJ,)

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock

    def wants_cool(self, run: CaseRun) -> bool:
        """A hot phone leaks more and runs at lower clocks; without a gauge nothing is waited for.

        One look at the end covers all three windows: the phone was cool before the first.
        """
        return _foreseen(run) is None

    def measure(self, run: CaseRun) -> Gathered:
        """Idle, run, idle; ``unavailable`` with the reason where the gauge tells nothing usable.

        A preset of less than 60 s is too short for a gauge: ``not_run``.
        """
        energy, tier = run.device.profile.energy, run.info.tier
        if (row := _foreseen(run)) is not None:
            return Gathered((row,))
        recorder = recorder_of(run.device)
        clock = self._clock or clock_for(run.device)
        try:
            recorder.check()
            windows, result = _recorded(run, recorder, clock)
            curve = recorder.stop()
            estimate = per_inference(curve, windows, inferences_of(result))
        except NoEnergy as error:
            return Gathered((energy_measurement(energy, tier=tier, reason=str(error)),))
        finally:
            # Where the device is lost, the recorder ends by itself.
            with contextlib.suppress(DeviceError):
                recorder.clean_up()
        row = energy_measurement(energy, tier=tier, estimate=estimate, how=recorder.how)
        return Gathered((row,))


def _foreseen(run: CaseRun) -> Measurement | None:
    """The row where it is clear without the device that there is no figure."""
    energy, tier = run.device.profile.energy, run.info.tier
    if energy.source == "none":
        return energy_measurement(energy, tier=tier)
    if run.limits.min_seconds < MIN_WINDOW_S:
        reason = (
            f"the preset {run.preset.name!r} runs for less than {MIN_WINDOW_S:g} s, too short "
            "for an energy gauge"
        )
        return energy_measurement(energy, tier=tier, reason=reason, status=Status.NOT_RUN)
    return None


def _recorded(run: CaseRun, recorder: Recorder, clock: Clock) -> tuple[Windows, RunnerResult]:
    limits = run.limits
    idle_s = IDLE_S
    if run.device.profile.energy.source == "charge_counter":
        idle_s = COUNTER_WINDOW_S
        longer = max(limits.min_seconds, COUNTER_WINDOW_S)
        limits = dataclasses.replace(
            limits, min_seconds=longer, max_seconds=max(limits.max_seconds, longer)
        )
    timeout_s = max(run.device.profile.case_timeout_s, limits.max_seconds + BEYOND_CAP_S)
    # What has to be sent is sent, and written back, before the phone is to be idle.
    request = run.request(limits=limits, timeout_s=timeout_s)
    run.device.shell(["sync"])
    recorder.start(2 * idle_s + timeout_s)
    run.progress(
        f"{run.device.serial}: energy: {idle_s:g} s idle, the run, {idle_s:g} s idle again"
    )
    clock.sleep(SETTLE_S)
    marks = [_uptime(run)]
    clock.sleep(idle_s)
    marks.append(_uptime(run))
    clock.sleep(SETTLE_S)
    result, _ = run.run(request)
    clock.sleep(SETTLE_S)
    marks.append(_uptime(run))
    clock.sleep(idle_s)
    marks.append(_uptime(run))
    # The last reading has to lie behind the last mark.
    clock.sleep(SETTLE_S)
    return Windows((marks[0], marks[1]), (marks[1], marks[2]), (marks[2], marks[3])), result


def _uptime(run: CaseRun) -> float:
    answer = run.device.shell(["cat", "/proc/uptime"])
    found = parse_uptime_s(answer.stdout)
    if found is None:
        raise NoEnergy(f"the device's uptime cannot be read: {printable(answer.stdout, 80)}")
    return found

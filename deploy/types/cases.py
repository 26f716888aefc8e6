"""What was measured: one artifact on one device, metric by metric, with every raw sample."""

from __future__ import annotations

import statistics
from itertools import pairwise
from typing import Literal

from pydantic import model_validator

from deploy.types.base import Metric, Model, Status, Tier
from deploy.types.devices import DeviceInfo, DeviceProfile, DeviceState


class OperatorCost(Model):
    """One operator of a model on a device, from a pass of its own (profiling disturbs).

    ``layers`` are the names of the model's layers that it came from, empty where nobody says;
    ``unit`` is ``ms`` or ``instructions``; ``samples`` has one value an inference.
    """

    name: str
    kind: str
    backend: str
    layers: tuple[str, ...] = ()
    unit: Literal["ms", "instructions"]
    samples: tuple[float, ...]


class Measurement(Model):
    """One metric of one case, with every raw sample.

    ``interval`` is (low, high) where the one sample was computed and its ``source`` says from what.
    ``minutes``, where each sample is the median of a minute, says of which: 0 is the first minute
    of steady inference. Empty where samples are single inferences.
    """

    metric: Metric
    unit: str
    tier: Tier
    source: str
    status: Status
    reason: str = ""
    samples: tuple[float, ...] = ()
    interval: tuple[float, float] | None = None
    minutes: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _samples_or_reason(self) -> Measurement:
        if self.status is Status.OK and not self.samples:
            raise ValueError("a measurement that is ok has samples")
        if self.status is not Status.OK and (self.samples or not self.reason):
            raise ValueError("a measurement that is not ok has a reason and no samples")
        if self.interval and (not self.samples or self.interval[0] > self.interval[1]):
            raise ValueError("an interval goes with samples, from low to high")
        ascending = all(a < b for a, b in pairwise((-1, *self.minutes)))
        if self.minutes and (len(self.minutes) != len(self.samples) or not ascending):
            raise ValueError("minutes are one a sample, from 0 on and in their order")
        return self

    @property
    def median(self) -> float | None:
        """Median of the raw samples, None where there are none."""
        return statistics.median(self.samples) if self.samples else None


class Case(Model):
    """One artifact on one device with one thread count.

    ``id`` is ``<artifact name>@<device profile>/t<threads>``. ``status`` is ``ok`` when the runner
    ran to its end, ``failed`` when it did not and the model or runtime is to blame (a crash, a
    load error), ``invalid`` when the infrastructure is (device lost, time-out), ``not_run`` with
    a reason otherwise. ``attempts`` counts how often it was begun; ``before`` and ``after`` frame
    the timed pass; ``operators`` is empty where ``operators_reason`` says why, or nobody asked.
    """

    id: str
    artifact: str
    artifact_sha256: str
    device: str
    threads: int
    status: Status
    reason: str = ""
    runtime_version: str = ""
    measurements: tuple[Measurement, ...] = ()
    wall_seconds: float = 0.0
    attempts: int = 1
    before: DeviceState | None = None
    after: DeviceState | None = None
    operators: tuple[OperatorCost, ...] = ()
    operators_reason: str = ""
    warnings: tuple[str, ...] = ()

    def measurement(self, metric: Metric) -> Measurement | None:
        """The case's measurement of ``metric``, None where it has no such row."""
        return next((m for m in self.measurements if m.metric is metric), None)


class DeviceRun(Model):
    """One section of a report: a device, or why it could not take part."""

    profile: DeviceProfile
    status: Status
    reason: str = ""
    info: DeviceInfo | None = None
    bytes_pushed: int = 0
    bytes_already_there: int = 0
    push_mb_s: float | None = None

"""What a pass gets and gives."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Protocol

from deploy.bench import faults, outputs
from deploy.bench.agent import CaseAgent, RunAnswer, RunRequest
from deploy.bench.backends import backends
from deploy.bench.faults import Fault
from deploy.bench.job import Job
from deploy.bench.runner import Preset, interpret_exit, pinning, plan
from deploy.devices.base import Device
from deploy.files import sha256
from deploy.metrics.latency import RunnerResult, parse_runner_result
from deploy.types import (
    DeviceInfo,
    DeviceState,
    Measurement,
    Metric,
    OperatorCost,
    Progress,
    Status,
    silent,
)

BEYOND_CAP_S = 180.0
"""Wall seconds that a case may take beyond the runner's own time limit: load, first, warm-up."""


class PassFailed(Exception):
    """A pass came to no figures; ``failed`` blames model or runtime, ``invalid`` all around it."""

    def __init__(self, status: Status, reason: str, fault: Fault | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.fault = fault
        self.attempts = 1


@dataclass(frozen=True)
class CaseRun:
    """One case on a prepared device."""

    device: Device
    info: DeviceInfo
    job: Job
    agent: CaseAgent
    preset: Preset
    progress: Progress = silent

    @property
    def limits(self) -> Preset:
        """How much is measured: the preset's limits, or the profile's in their place."""
        return plan(self.preset, self.device.profile.bench)

    def request(self, **changes: Any) -> RunRequest:
        """The run that the preset and the profile ask for; model and inputs are on the device then.

        ``changes`` replace fields of the request. Raises what pushing raises.
        """
        job, profile = self.job, self.device.profile
        limits = self.limits
        timeout_s = profile.case_timeout_s
        if profile.bench is None:
            timeout_s = max(timeout_s, limits.max_seconds + BEYOND_CAP_S)
        wanted = RunRequest(
            artifact=job.artifact,
            backend=backends(profile)[job.artifact.format],
            model=self.agent.push_content(job.path, job.artifact.sha256),
            model_suffix=job.path.suffix,
            inputs=self.agent.push_content(job.inputs, sha256(job.inputs)),
            output_bytes=outputs.expected_bytes(job.artifact.outputs),
            threads=job.threads,
            cpu_mask=pinning(self.info.big_core_mask, job.threads),
            limits=limits,
            timeout_s=timeout_s,
        )
        return dataclasses.replace(wanted, **changes)

    def run(self, request: RunRequest) -> tuple[RunnerResult, RunAnswer]:
        """Run the runner once; its checked result. Raises :class:`PassFailed`, ``DeviceError``."""
        answer = self.agent.run(request)
        status, reason = interpret_exit(answer.exit_code, answer.printed)
        if status is not Status.OK:
            raise PassFailed(status, reason, faults.of_exit(answer.exit_code, answer.printed))
        try:
            result = parse_runner_result(answer.result)
            self._check(result, request.samples)
        except ValueError as error:
            reason = f"the runner's result cannot be used: {error}"
            raise PassFailed(Status.INVALID, reason, Fault.GARBAGE) from None
        return result, answer

    def _check(self, result: RunnerResult, samples: int) -> None:
        """The result is of this case: another model's numbers must not pass for it."""
        job = self.job
        backend = backends(self.device.profile)[job.artifact.format]
        if result.backend != backend:
            raise ValueError(f"it is of backend {result.backend}, not {backend}")
        if result.model_bytes != job.artifact.bytes:
            raise ValueError(
                f"it is of a model of {result.model_bytes} bytes, not {job.artifact.bytes}"
            )
        if result.samples != samples:
            raise ValueError(f"it is of {result.samples} samples, not {samples}")
        if result.threads != job.threads:
            raise ValueError(f"it is of {result.threads} threads, not {job.threads}")
        ran = [tensor.dtype for tensor in result.outputs]
        exported = [spec.dtype for spec in job.artifact.outputs]
        if ran != exported:
            raise ValueError(f"the model's outputs are {ran} there and {exported} in the manifest")


@dataclass(frozen=True)
class Gathered:
    """What a pass found out; ``raw`` is the runner's own JSON, kept as evidence.

    ``before`` and ``after`` are the device's states around it, where somebody looked.
    """

    measurements: tuple[Measurement, ...] = ()
    operators: tuple[OperatorCost, ...] = ()
    operators_reason: str = ""
    runtime: str = ""
    raw: bytes | None = None
    warnings: tuple[str, ...] = ()
    before: DeviceState | None = None
    after: DeviceState | None = None


class Pass(Protocol):
    """One way to look at a case. ``metrics`` are the rows that it owes, found or not."""

    @property
    def name(self) -> str:
        """One word for messages."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Rows that are there with a reason where the pass fails."""

    def wants_cool(self, run: CaseRun) -> bool:
        """Whether heat changes what it finds: it then waits for a cool device, as timing does."""

    def measure(self, run: CaseRun) -> Gathered:
        """Look. Raises :class:`PassFailed`, or ``PocketshipError`` for a lost or late device."""


@dataclass(frozen=True)
class Around:
    """What a pass that adds something to another one has of that one; it measures as it likes."""

    inner: Pass

    @property
    def name(self) -> str:
        """The pass's own."""
        return self.inner.name

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The pass's own."""
        return self.inner.metrics

    def wants_cool(self, run: CaseRun) -> bool:
        """The pass's own."""
        return self.inner.wants_cool(run)

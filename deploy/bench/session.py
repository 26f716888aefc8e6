"""All cases of one device: each exactly once, and no failure of one stops the others."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.bench import outputs
from deploy.bench.agent import Agent, RunAnswer, RunnerBundle, RunRequest
from deploy.bench.runner import BACKENDS, Preset, interpret_exit, pinning, plan
from deploy.devices.base import Device
from deploy.errors import DeviceError, MeasurementError, PocketshipError
from deploy.files import sha256
from deploy.metrics.energy import energy_measurement
from deploy.metrics.latency import RunnerResult, latency_measurements, parse_runner_result
from deploy.metrics.memory import memory_measurements
from deploy.types import (
    Artifact,
    Case,
    DeviceInfo,
    DeviceRun,
    Format,
    Measurement,
    Metric,
    Progress,
    Status,
    silent,
)

Keep = Callable[[Case, bytes | None], None]
"""Told of each case as soon as it ends, with the runner's raw JSON where there is one."""

BEYOND_CAP_S = 180.0
"""Wall seconds that a case may take beyond the runner's own time limit: load, first, warm-up."""

RECONNECT_PAUSE_S = 3.0

_NO_BACKEND = {
    Format.COREML: "Core ML runs on Apple's systems only, neither on Android nor on Linux",
    Format.PACKED: "no runtime loads a packed program; what it holds is measured in other formats",
}


@dataclass(frozen=True)
class Job:
    """One case to run: an artifact with its file, inputs and reference outputs on this machine.

    ``inputs`` is a raw file as the runner takes it (docs/architecture.md). ``reference`` is a raw
    file of outputs, or arrays in the order of the artifact's outputs, or None.
    """

    artifact: Artifact
    path: Path
    inputs: Path
    reference: Path | outputs.Arrays | None = None
    threads: int = 1


def case_id(artifact: str, device: str, threads: int) -> str:
    """``<artifact name>@<device profile>/t<threads>``."""
    return f"{artifact}@{device}/t{threads}"


def run_device(
    device: Device,
    jobs: Sequence[Job],
    bundle: RunnerBundle,
    preset: Preset,
    *,
    progress: Progress = silent,
    keep: Keep = lambda case, raw: None,
) -> tuple[DeviceRun, list[Case]]:
    """Run ``jobs`` in their order on a connected device.

    Nothing that a device or a model does raises: it becomes the status and the reason of a case, or
    of the device. Only what ends the program (Ctrl-C) and errors of ``keep`` pass through.
    """
    session = _Session(device, bundle, preset, progress, keep)
    try:
        info = device.info()
        agent = Agent(device, bundle, progress)
        if any(job.artifact.format in BACKENDS for job in jobs):
            progress(f"{device.serial}: preparing {device.profile.name}")
            agent.prepare()
    except (DeviceError, MeasurementError, OSError) as error:
        reason = f"the device could not be prepared: {error}"
        cases = [session.skip(job, reason) for job in jobs]
        return DeviceRun(profile=device.profile, status=Status.INVALID, reason=reason), cases
    cases = []
    lost = ""
    for number, job in enumerate(jobs, 1):
        progress(f"{device.serial}: case {number}/{len(jobs)} {session.id(job)}")
        cases.append(session.skip(job, lost) if lost else session.run(agent, info, job))
        if not lost and cases[-1].status is Status.INVALID:
            lost = _lost(device, agent)
    traffic = agent.traffic
    run = DeviceRun(
        profile=device.profile,
        status=Status.INVALID if lost else Status.OK,
        reason=lost,
        info=info,
        bytes_pushed=traffic.bytes_pushed,
        bytes_already_there=traffic.bytes_already_there,
        push_mb_s=traffic.mb_s,
    )
    return run, cases


def _lost(device: Device, agent: Agent) -> str:
    """Why the device is lost, or nothing. A call makes a new connection where one is needed."""
    with contextlib.suppress(DeviceError):
        device.shell(["true"])
        agent.clean_up()
        return ""
    # An ADB daemon that restarts needs a moment; a phone that restarts is lost for this run.
    time.sleep(RECONNECT_PAUSE_S)
    try:
        device.shell(["true"])
        agent.clean_up()
    except DeviceError as error:
        return f"the device was lost: {error}"
    return ""


@dataclass(frozen=True)
class _Session:
    device: Device
    bundle: RunnerBundle
    preset: Preset
    progress: Progress
    keep: Keep

    def id(self, job: Job) -> str:
        return case_id(job.artifact.name, self.device.profile.name, job.threads)

    def skip(self, job: Job, reason: str) -> Case:
        """A case that does not run because of its device; formats that never run there say so."""
        if job.artifact.format not in BACKENDS:
            return self._end(job, Status.NOT_RUN, _no_backend(job))
        return self._end(job, Status.INVALID, reason)

    def run(self, agent: Agent, info: DeviceInfo, job: Job) -> Case:
        """Run one case to its end, whatever that is."""
        if job.artifact.format not in BACKENDS:
            return self._end(job, Status.NOT_RUN, _no_backend(job))
        started = time.monotonic()
        try:
            answer = self._answer(agent, info, job)
        except PocketshipError as error:
            wall = time.monotonic() - started
            return self._end(job, Status.INVALID, str(error), wall=wall)
        except (OSError, ValueError) as error:
            # The inputs on this machine: unreadable, or outputs of a dtype that has no size.
            wall = time.monotonic() - started
            return self._end(job, Status.INVALID, f"{job.path.name}: {error}", wall=wall)
        wall = time.monotonic() - started
        status, reason = interpret_exit(answer.exit_code, answer.printed)
        if status is not Status.OK:
            return self._end(job, status, reason, wall=wall)
        try:
            result = parse_runner_result(answer.result)
            _check(result, job)
        except ValueError as error:
            reason = f"the runner's result cannot be used: {error}"
            return self._end(job, Status.INVALID, reason, wall=wall)
        return self._end(
            job,
            Status.OK,
            "",
            wall=wall,
            runtime=result.runtime_version,
            measurements=self._measurements(info, job, result, answer.outputs),
            raw=answer.result,
        )

    def _answer(self, agent: Agent, info: DeviceInfo, job: Job) -> RunAnswer:
        profile = self.device.profile
        limits = plan(self.preset, profile.bench)
        if profile.bench is None:
            timeout_s = max(profile.case_timeout_s, limits.max_seconds + BEYOND_CAP_S)
        else:
            timeout_s = profile.case_timeout_s
        return agent.run(
            RunRequest(
                backend=BACKENDS[job.artifact.format],
                model=agent.push_content(job.path, job.artifact.sha256),
                model_suffix=job.path.suffix,
                inputs=agent.push_content(job.inputs, sha256(job.inputs)),
                output_bytes=outputs.expected_bytes(job.artifact.outputs),
                threads=job.threads,
                cpu_mask=pinning(info.big_core_mask, job.threads),
                limits=limits,
                timeout_s=timeout_s,
            )
        )

    def _measurements(
        self, info: DeviceInfo, job: Job, result: RunnerResult, raw_outputs: bytes
    ) -> tuple[Measurement, ...]:
        return (
            *latency_measurements(result, tier=info.tier, clock=info.clock),
            *memory_measurements(result, tier=info.tier),
            energy_measurement(self.device.profile.energy, tier=info.tier),
            _output_difference(info, job, raw_outputs),
        )

    def _end(
        self,
        job: Job,
        status: Status,
        reason: str,
        *,
        wall: float = 0.0,
        runtime: str = "",
        measurements: tuple[Measurement, ...] = (),
        raw: bytes | None = None,
    ) -> Case:
        case = Case(
            id=self.id(job),
            artifact=job.artifact.name,
            artifact_sha256=job.artifact.sha256,
            device=self.device.profile.name,
            threads=job.threads,
            status=status,
            reason=reason,
            runtime_version=runtime,
            measurements=measurements,
            wall_seconds=wall,
        )
        if status is not Status.OK:
            self.progress(f"{self.device.serial}: {case.id} {status.value}: {reason}")
        self.keep(case, raw)
        return case


def _no_backend(job: Job) -> str:
    fmt = job.artifact.format
    return _NO_BACKEND.get(fmt, f"the native runner has no backend for {fmt.value}")


def _check(result: RunnerResult, job: Job) -> None:
    """The result is of this case: another model's numbers must not pass for it."""
    backend = BACKENDS[job.artifact.format]
    if result.backend != backend:
        raise ValueError(f"it is of backend {result.backend}, not {backend}")
    if result.model_bytes != job.artifact.bytes:
        raise ValueError(
            f"it is of a model of {result.model_bytes} bytes, not {job.artifact.bytes}"
        )
    if result.threads != job.threads:
        raise ValueError(f"it is of {result.threads} threads, not {job.threads}")
    ran = [tensor.dtype for tensor in result.outputs]
    exported = [spec.dtype for spec in job.artifact.outputs]
    if ran != exported:
        raise ValueError(f"the model's outputs are {ran} there and {exported} in the manifest")


def _output_difference(info: DeviceInfo, job: Job, raw: bytes) -> Measurement:
    status, reason = Status.OK, ""
    samples: tuple[float, ...] = ()
    if job.reference is None:
        status, reason = Status.NOT_RUN, "there are no reference outputs to compare with"
    else:
        try:
            samples = (outputs.max_abs_diff(raw, job.artifact.outputs, job.reference),)
        except (OSError, ValueError) as error:
            status, reason = Status.FAILED, str(error)
    return Measurement(
        metric=Metric.OUTPUT_MAX_ABS_DIFF,
        unit="",
        tier=info.tier,
        source="first inference on the device against this machine's outputs",
        status=status,
        reason=reason,
        samples=samples,
    )

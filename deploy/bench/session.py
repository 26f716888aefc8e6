"""All cases of one device: each exactly once, and no failure of one stops the others."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deploy.bench.agent import CaseAgent, RunnerBundle
from deploy.bench.backends import agent_for, refusal
from deploy.bench.job import Job as Job
from deploy.bench.job import case_id as case_id
from deploy.bench.passes.base import CaseRun, Gathered, Pass, PassFailed
from deploy.bench.passes.timing import Timing
from deploy.bench.runner import Preset
from deploy.devices.base import Device
from deploy.errors import DeviceError, MeasurementError, PocketshipError
from deploy.types import (
    Case,
    DeviceInfo,
    DeviceRun,
    Measurement,
    Progress,
    Status,
    silent,
)

Keep = Callable[[Case, bytes | None], None]
"""Told of each case as soon as it ends, with the runner's raw JSON where there is one."""

RECONNECT_PAUSE_S = 3.0

PASSES: tuple[Pass, ...] = (Timing(),)
"""In their order; the first decides what becomes of the case."""


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
        agent = agent_for(device, bundle, progress)
        if not all(refusal(device.profile, job) for job in jobs):
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


def _lost(device: Device, agent: CaseAgent) -> str:
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
        if why := refusal(self.device.profile, job):
            return self._end(job, Status.NOT_RUN, why)
        return self._end(job, Status.INVALID, reason)

    def run(self, agent: CaseAgent, info: DeviceInfo, job: Job) -> Case:
        """Run one case to its end, whatever that is."""
        if why := refusal(self.device.profile, job):
            return self._end(job, Status.NOT_RUN, why)
        started = time.monotonic()
        case = CaseRun(self.device, info, job, agent, self.preset, self.progress)
        first, *others = PASSES
        try:
            gathered = [_measure(first, case)]
        except PassFailed as error:
            wall = time.monotonic() - started
            return self._end(job, error.status, error.reason, wall=wall)
        for other in others:
            try:
                gathered.append(_measure(other, case))
            except PassFailed as error:
                self.progress(f"{self.id(job)}: {other.name}: {error.reason}")
                gathered.append(_owed(other, case, error))
        return self._end(
            job, Status.OK, "", wall=time.monotonic() - started, gathered=tuple(gathered)
        )

    def _end(
        self,
        job: Job,
        status: Status,
        reason: str,
        *,
        wall: float = 0.0,
        gathered: tuple[Gathered, ...] = (),
    ) -> Case:
        case = Case(
            id=self.id(job),
            artifact=job.artifact.name,
            artifact_sha256=job.artifact.sha256,
            device=self.device.profile.name,
            threads=job.threads,
            status=status,
            reason=reason,
            runtime_version=gathered[0].runtime if gathered else "",
            measurements=tuple(row for one in gathered for row in one.measurements),
            operators=tuple(row for one in gathered for row in one.operators),
            operators_reason=" ".join(filter(None, (one.operators_reason for one in gathered))),
            warnings=tuple(word for one in gathered for word in one.warnings),
            wall_seconds=wall,
        )
        if status is not Status.OK:
            self.progress(f"{self.device.serial}: {case.id} {status.value}: {reason}")
        self.keep(case, gathered[0].raw if gathered else None)
        return case


def _measure(one: Pass, case: CaseRun) -> Gathered:
    try:
        return one.measure(case)
    except PocketshipError as error:
        raise PassFailed(Status.INVALID, str(error)) from error
    except (OSError, ValueError) as error:
        # The inputs on this machine: unreadable, or outputs of a dtype that has no size.
        reason = f"{case.job.path.name}: {error}"
        raise PassFailed(Status.INVALID, reason) from error


def _owed(one: Pass, case: CaseRun, error: PassFailed) -> Gathered:
    """The rows of a pass that failed, with the reason."""
    return Gathered(
        measurements=tuple(
            Measurement(
                metric=metric,
                unit="",
                tier=case.info.tier,
                source=one.name,
                status=error.status,
                reason=error.reason,
            )
            for metric in one.metrics
        )
    )

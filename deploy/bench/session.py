"""All cases of one device: each exactly once, and no failure of one stops the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deploy.bench.agent import CaseAgent, RunnerBundle
from deploy.bench.backends import agent_for, refusal
from deploy.bench.conditions import Conditions
from deploy.bench.job import Job as Job
from deploy.bench.job import case_id as case_id
from deploy.bench.passes.base import CaseRun, Gathered, Pass, PassFailed
from deploy.bench.passes.energy import Energy
from deploy.bench.passes.timing import Timing
from deploy.bench.recovery import PATIENT, Patience, Recovery
from deploy.bench.runner import Preset
from deploy.devices.base import Device
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

PASSES: tuple[Pass, ...] = (Timing(), Energy())
"""What is done where nobody asks for more; the first decides what becomes of the case."""


def run_device(
    device: Device,
    jobs: Sequence[Job],
    bundle: RunnerBundle,
    preset: Preset,
    *,
    progress: Progress = silent,
    keep: Keep = lambda case, raw: None,
    passes: Sequence[Pass] = PASSES,
    patience: Patience = PATIENT,
) -> tuple[DeviceRun, list[Case]]:
    """Run ``jobs`` in their order on a connected device, each with all ``passes``.

    Nothing that a device or a model does raises: it becomes the status and the reason of a case, or
    of the device; :mod:`deploy.bench.faults` has the list. Faults of the infrastructure are met
    with further attempts, as ``patience`` allows; ``keep`` hears of a case once, when it has ended.
    Only what ends the program (Ctrl-C) and errors of ``keep`` pass through.
    """
    agent = agent_for(device, bundle, progress)
    session = _Session(device, agent, preset, progress, keep, passes, patience)
    recovery = session.recovery
    try:
        info, _ = recovery.persist("preparing", lambda: session.prepare(jobs))
    except PassFailed as error:
        reason = f"{error.reason} (No case was begun.)"
        cases = [session.skip(job, reason) for job in jobs]
        return DeviceRun(profile=device.profile, status=Status.INVALID, reason=reason), cases
    cases = []
    try:
        for number, job in enumerate(jobs, 1):
            progress(f"{device.serial}: case {number}/{len(jobs)} {session.id(job)}")
            lost = recovery.lost
            cases.append(session.skip(job, lost) if lost else session.run(info, job))
    finally:
        session.let_go()
    traffic = agent.traffic
    run = DeviceRun(
        profile=device.profile,
        status=Status.INVALID if recovery.lost else Status.OK,
        reason=recovery.lost,
        info=info,
        bytes_pushed=traffic.bytes_pushed,
        bytes_already_there=traffic.bytes_already_there,
        push_mb_s=traffic.mb_s,
    )
    return run, cases


@dataclass
class _Session:
    device: Device
    agent: CaseAgent
    preset: Preset
    progress: Progress
    keep: Keep
    passes: Sequence[Pass]
    patience: Patience
    conditions: Conditions | None = None

    def __post_init__(self) -> None:
        self.recovery = Recovery(
            self.device, self.agent, self.patience, self.progress, prepared=self.prepared
        )

    def id(self, job: Job) -> str:
        return case_id(job.artifact.name, self.device.profile.name, job.threads)

    def prepare(self, jobs: Sequence[Job]) -> DeviceInfo:
        """First contact, with the bundle where a job needs one."""
        if all(refusal(self.device.profile, job) for job in jobs):
            return self.device.info()
        self.progress(f"{self.device.serial}: preparing {self.device.profile.name}")
        return self.recovery.prepare()

    def prepared(self, info: DeviceInfo) -> None:
        """After each preparing: a restart ends the modes that were set before it."""
        if self.conditions is None:
            self.conditions = Conditions(self.device, info, progress=self.progress)
        self.conditions.begin()

    def let_go(self) -> None:
        """Leave the device as it was; a lost one is seen to at the next contact."""
        if self.recovery.lost:
            self.agent.give_up()
        elif self.conditions is not None:
            self.conditions.end()

    def skip(self, job: Job, reason: str) -> Case:
        """A case that does not run because of its device; formats that never run there say so."""
        if why := refusal(self.device.profile, job):
            return self._end(job, Status.NOT_RUN, why)
        return self._end(job, Status.INVALID, reason)

    def run(self, info: DeviceInfo, job: Job) -> Case:
        """Run one case to its end, whatever that is."""
        if why := refusal(self.device.profile, job):
            return self._end(job, Status.NOT_RUN, why)
        started = time.monotonic()
        case = CaseRun(self.device, info, job, self.agent, self.preset, self.progress)
        first, *others = self.passes
        try:
            timed, attempts = self._measure(first, case)
        except PassFailed as error:
            wall = time.monotonic() - started
            self.recovery.settle()
            return self._end(job, error.status, error.reason, wall=wall, attempts=error.attempts)
        gathered = [timed]
        for other in others:
            try:
                if self.recovery.lost:
                    raise PassFailed(Status.INVALID, self.recovery.lost)
                gathered.append(self._measure(other, case)[0])
            except PassFailed as error:
                self.progress(f"{self.id(job)}: {other.name}: {error.reason}")
                gathered.append(_owed(other, case, error))
        return self._end(
            job,
            Status.OK,
            "",
            wall=time.monotonic() - started,
            attempts=attempts,
            gathered=tuple(gathered),
        )

    def _measure(self, one: Pass, case: CaseRun) -> tuple[Gathered, int]:
        what = f"{self.id(case.job)}: {one.name}"
        if self.conditions is not None and one.wants_cool(case):
            one = self.conditions.framed(one)
        return self.recovery.persist(what, lambda: one.measure(case))

    def _end(
        self,
        job: Job,
        status: Status,
        reason: str,
        *,
        wall: float = 0.0,
        attempts: int = 1,
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
            # What the device does not tell, it does not tell before each pass.
            warnings=tuple(dict.fromkeys(word for one in gathered for word in one.warnings)),
            wall_seconds=wall,
            before=gathered[0].before if gathered else None,
            after=gathered[0].after if gathered else None,
            attempts=attempts,
        )
        if status is not Status.OK:
            self.progress(f"{self.device.serial}: {case.id} {status.value}: {reason}")
        self.keep(case, gathered[0].raw if gathered else None)
        return case


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
        ),
        # The one pass beside timing that owes no row gives operators.
        operators_reason="" if one.metrics else error.reason,
    )

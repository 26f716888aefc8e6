"""Sessions: two versions on one device in one go, each time in a fresh process, in ABBA order.

A *session* is one case (:mod:`deploy.bench.session` runs it, with its thermal gate, its conditions
and its recovery from faults); a *pair* is one session of *base* and one of *head*, next to each
other in time. Every second pair begins with *head*: what drifts slowly (temperature, background
work) then favours one side as often as the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from deploy.bench.agent import RunnerBundle
from deploy.bench.backends import refusal
from deploy.bench.passes.base import Around, CaseRun, Gathered, Pass
from deploy.bench.passes.timing import Timing
from deploy.bench.recovery import PATIENT, Patience
from deploy.bench.runner import Preset
from deploy.bench.session import Job, run_device
from deploy.devices.base import Device
from deploy.files import sha256
from deploy.types import Case, DeviceRun, Measurement, Metric, Progress, Session, Status, silent

SideName = Literal["base", "head"]
Slot = tuple[int, SideName]
"""A session's place: the number of its pair, and its side."""

PASSES: tuple[Pass, ...] = (Timing(),)
"""Load, first and steady inference and peak memory come from the one process of this pass."""


def slots(pairs: range) -> Iterator[Slot]:
    """Places of the sessions in the order in which they are measured: ABBA by number of pair.

    Pair 0 begins with ``base``, pair 1 with ``head``, also where ``pairs`` begins later: an
    extension goes on in the same pattern.
    """
    for pair in pairs:
        first: tuple[SideName, SideName] = ("base", "head") if pair % 2 == 0 else ("head", "base")
        for side in first:
            yield pair, side


def compared(case: Case) -> Measurement | None:
    """The figure that decides of a session: the count where the device's clock counts instructions.

    Elsewhere the latency; None where the case has neither.
    """
    rows = (case.measurement(metric) for metric in (Metric.INSTRUCTIONS, Metric.LATENCY_MS))
    return next((row for row in rows if row is not None and row.status is Status.OK), None)


def run_sessions(
    device: Device,
    base: Job,
    head: Job,
    *,
    pairs: range,
    runner: RunnerBundle,
    limits: Preset,
    done: Sequence[Session] = (),
    keep: Callable[[Session], None] = lambda session: None,
    progress: Progress = silent,
    passes: Sequence[Pass] = PASSES,
    reached: Callable[[DeviceRun], None] = lambda run: None,
    patience: Patience = PATIENT,
) -> list[Session]:
    """Measure ``pairs`` of base and head; give ``done`` and the new sessions in order of time.

    Both files are on the device before the first session begins. ``keep`` gets each session as soon
    as it ends; ``reached`` gets the device as it answered. Sessions in ``done`` that are of these
    files, this profile and this thread count are not repeated, others of their place replace them;
    so do further attempts at an INVALID one, since it says nothing about the model. Such an attempt
    is made once more at the end where most of the sessions came out well and the device is there;
    its ``keep`` is a second one for the same place, with a later ``order``.

    Nothing that a device or a model does raises: the session's case says what happened, INVALID
    where the infrastructure is to blame and for all that a lost device left undone.
    """
    jobs: dict[SideName, Job] = {"base": base, "head": head}
    found = {
        (one.pair, one.side): one
        for one in sorted(done, key=lambda one: one.order)
        if _is_of(one.case, jobs[one.side], device)
    }
    order = max((one.order for one in done), default=-1) + 1

    def measure(missing: Sequence[Slot]) -> DeviceRun:
        waiting = iter(missing)

        def ended(case: Case, raw: bytes | None) -> None:
            nonlocal order
            pair, side = next(waiting)
            session = Session(pair=pair, order=order, side=side, case=case)
            order += 1
            found[pair, side] = session
            keep(session)
            progress(f"{device.serial}: {_in_words(session)}")

        first, *others = passes
        run, _ = run_device(
            device,
            [jobs[side] for _, side in missing],
            runner,
            limits,
            progress=progress,
            keep=ended,
            passes=(_BothThere(first, (base, head)), *others),
            patience=patience,
        )
        return run

    wanted = list(slots(pairs))
    missing = [slot for slot in wanted if _is_open(found.get(slot))]
    if missing:
        run = measure(missing)
        reached(run)
        spoilt = [slot for slot in missing if _is_open(found.get(slot))]
        if run.status is Status.OK and 0 < 2 * len(spoilt) < len(missing):
            progress(f"{device.serial}: {len(spoilt)} of {len(missing)} sessions once more")
            run = measure(spoilt)
            if run.status is not Status.OK:
                reached(run)
    return sorted(found.values(), key=lambda one: one.order)


def _is_of(case: Case, job: Job, device: Device) -> bool:
    """Whether a case is of this file on such a device: another one's figures must not pass."""
    return (case.artifact_sha256, case.threads, case.device) == (
        job.artifact.sha256,
        job.threads,
        device.profile.name,
    )


def _is_open(session: Session | None) -> bool:
    return session is None or session.case.status is Status.INVALID


def _in_words(session: Session) -> str:
    what = f"pair {session.pair + 1}, {session.side}"
    row = compared(session.case)
    if session.case.status is not Status.OK or row is None or row.median is None:
        return f"{what}: {session.case.status.value}"
    figure = f"{row.median:,.0f}" if row.median >= 1e5 else f"{row.median:.6g}"
    return f"{what}: {figure} {row.unit}".rstrip()


@dataclass(frozen=True)
class _BothThere(Around):
    """The first pass, with the files of both sides on the device before it begins.

    Else the first session of one side would be measured just after its file was sent, and the
    others not; what is there already costs nothing.
    """

    jobs: tuple[Job, ...]

    def measure(self, run: CaseRun) -> Gathered:
        """Send what is missing, then measure. Raises what both do."""
        for job in self.jobs:
            if not refusal(run.device.profile, job):
                run.agent.push_content(job.path, job.artifact.sha256)
                run.agent.push_content(job.inputs, sha256(job.inputs))
        return self.inner.measure(run)

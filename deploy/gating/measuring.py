"""Both sides on one device in one go: connected once, session after session, each kept at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from deploy.bench.backends import refusal
from deploy.bench.job import Job, case_id
from deploy.bench.runner import Preset
from deploy.bench.session import run_device
from deploy.bench.sessions import PASSES, run_sessions
from deploy.config import DeviceConfig
from deploy.connect import connected
from deploy.devices import profiles
from deploy.devices.base import Device
from deploy.errors import DeviceError
from deploy.gating.calibrate import identity
from deploy.gating.meeting import Meeting, head_job, jobs
from deploy.harness import bundle
from deploy.types import Case, DeviceRun, Progress, Session, Status

EXACT_PAIRS = 2
"""Pairs where the device's clock counts instructions, which repeat to 0.02 %.

One pair would decide; the second, in the other order, shows that the counts do repeat. Times are
no figures there, so nothing else could be learnt from more.
"""


@dataclass(frozen=True)
class Contact:
    """A device that answered: its section of the report, what it calls itself, its runtimes.

    ``identity`` is a serial number where the device has one, so it goes into no report;
    ``runtimes`` maps a backend of the runner to its version.
    """

    run: DeviceRun
    identity: str
    runtimes: Mapping[str, str]

    @property
    def counts(self) -> bool:
        """Whether its clock counts instructions."""
        return self.run.info is not None and self.run.info.clock == "icount"


@dataclass
class Measured:
    """What came of it: the device, all sessions in order of time, whether pairs were added."""

    device: DeviceRun
    sessions: list[Session] = field(default_factory=list)
    extended: bool = False

    def of(self, case: str) -> list[Session]:
        """The sessions of one case."""
        return [session for session in self.sessions if session.case.id == case]


@dataclass(frozen=True)
class Plan:
    """What is measured: the artifacts and thread counts, how long, and in how many pairs.

    ``pairs`` None: as many as ``rules_pairs``, :data:`EXACT_PAIRS` where counts are exact.
    ``stored``: base is not measured, because its figures are of another time.
    """

    meeting: Meeting
    threads: tuple[int, ...]
    limits: Preset
    rules_pairs: int
    pairs: int | None = None
    stored: bool = False
    scratch: Path = Path()


def measure(
    wanted: DeviceConfig,
    plan: Plan,
    *,
    done: Sequence[Session],
    keep: Callable[[Session], None],
    met: Callable[[Contact], None],
    more: Callable[[Sequence[Session]], bool],
    progress: Progress,
) -> Measured:
    """Measure every artifact that both sides have; sessions in ``done`` are not repeated.

    ``met`` hears of the device before anything runs, and may raise to refuse it. ``more`` looks at
    the sessions and says whether twice the pairs could decide, which is then measured. A device
    that cannot be had, or is lost, is INVALID with its reason and raises nothing; Ctrl-C passes
    through, and what ``keep`` was given is kept.
    """
    try:
        with connected(wanted, progress) as device:
            measuring = _Measuring(device, plan, list(done), keep, progress)
            met(measuring.contact)
            return measuring.all(more)
    except DeviceError as error:
        progress(f"{wanted.profile}: {error}")
        profile = profiles.load(wanted.profile)
        run = DeviceRun(profile=profile, status=Status.INVALID, reason=str(error))
        return Measured(run, list(done))


class _Measuring:
    def __init__(
        self,
        device: Device,
        plan: Plan,
        done: list[Session],
        keep: Callable[[Session], None],
        progress: Progress,
    ) -> None:
        self._device = device
        self._plan = plan
        self._keep = keep
        self._progress = progress
        self._runner = bundle(device.profile.abi, progress)
        run = DeviceRun(profile=device.profile, status=Status.OK, info=device.info())
        self._found = Measured(run, done)
        self.contact = Contact(run, identity(device), getattr(self._runner, "versions", {}))

    def all(self, more: Callable[[Sequence[Session]], bool]) -> Measured:
        exact = self.contact.counts
        pairs = self._plan.pairs or (EXACT_PAIRS if exact else self._plan.rules_pairs)
        self._progress(
            f"{self._device.serial}: {pairs} "
            + ("sessions of head" if self._plan.stored else "pairs of sessions for each case")
            + (", since this device counts instructions" if exact and not self._plan.pairs else "")
        )
        self._round(range(pairs))
        # What a count leaves open, more counts leave open too.
        if not exact and self._there() and more(self._found.sessions):
            self._progress(f"{self._device.serial}: not decided; {pairs} more")
            self._found.extended = True
            self._round(range(pairs, 2 * pairs))
        return self._found

    def _there(self) -> bool:
        return self._found.device.status is Status.OK

    def _round(self, pairs: range) -> None:
        for name in self._plan.meeting.names:
            for threads in self._plan.threads:
                if not self._there():
                    return
                asked = self._plan.meeting, name, threads, self._plan.scratch
                head = head_job(*asked)
                if why := refusal(self._device.profile, head):
                    self._progress(f"{name}: not measured: {why}")
                elif self._plan.stored:
                    self._head_alone(head, pairs)
                else:
                    self._pairs(*jobs(*asked), pairs)

    def _case(self, job: Job) -> str:
        return case_id(job.artifact.name, self._device.profile.name, job.threads)

    def _pairs(self, base: Job, head: Job, pairs: range) -> None:
        run_sessions(
            self._device,
            base,
            head,
            pairs=pairs,
            runner=self._runner,
            limits=self._plan.limits,
            done=self._found.of(self._case(head)),
            keep=self._ended,
            progress=self._progress,
            reached=self._answered,
        )

    def _head_alone(self, head: Job, pairs: range) -> None:
        there = {
            session.pair
            for session in self._found.of(self._case(head))
            if session.side == "head"
            and session.case.artifact_sha256 == head.artifact.sha256
            and session.case.status is not Status.INVALID
        }
        missing = [pair for pair in pairs if pair not in there]
        waiting = iter(missing)

        def ended(case: Case, raw: bytes | None) -> None:
            self._ended(Session(pair=next(waiting), order=0, side="head", case=case))

        if missing:
            run, _ = run_device(
                self._device,
                [head] * len(missing),
                self._runner,
                self._plan.limits,
                progress=self._progress,
                keep=ended,
                passes=PASSES,
            )
            self._answered(run)

    def _ended(self, session: Session) -> None:
        """Number a session in the time of the whole gate, and keep it."""
        order = 1 + max((one.order for one in self._found.sessions), default=-1)
        session = session.model_copy(update={"order": order})
        self._found.sessions.append(session)
        self._keep(session)

    def _answered(self, run: DeviceRun) -> None:
        before = self._found.device
        self._found.device = run.model_copy(
            update={
                "info": run.info or before.info,
                "bytes_pushed": before.bytes_pushed + run.bytes_pushed,
                "bytes_already_there": before.bytes_already_there + run.bytes_already_there,
                "push_mb_s": run.push_mb_s if run.push_mb_s is not None else before.push_mb_s,
            }
        )


def counted(sessions: Sequence[Session], meeting: Meeting) -> tuple[Session, ...]:
    """The sessions that are of the files compared here, one a place: the latest attempt at it."""
    sides: dict[Literal["base", "head"], set[str]] = {
        "base": {artifact.sha256 for artifact in meeting.base.side.artifacts},
        "head": {artifact.sha256 for artifact in meeting.head.side.artifacts},
    }
    if meeting.base.side.kind == "history":
        # Of the branch's runs each had files of its own.
        sides["base"] = {s.case.artifact_sha256 for s in sessions if s.side == "base"}
    places = {
        (session.case.id, session.pair, session.side): session
        for session in sorted(sessions, key=lambda session: session.order)
        if session.case.artifact in meeting.names
        and session.case.artifact_sha256 in sides[session.side]
    }
    return tuple(sorted(places.values(), key=lambda session: session.order))

"""A base that was measured at another time: weaker evidence, and only where it may be compared.

What drifts between two days (temperature, background work, a new OS build) shows as a difference
of the versions here, which pairs measured in one go cancel. docs/gate.md says when it is enough.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from deploy import provenance
from deploy.bench.job import case_id
from deploy.errors import ConfigError
from deploy.gating.meeting import Meeting
from deploy.gating.sides import Version
from deploy.history.address import Address
from deploy.report import comparable
from deploy.report.budgets import CASE
from deploy.types import Case, DeviceRun, Outcome, Session, Status, Verdict


def sessions(
    meeting: Meeting, profile: str, threads: Sequence[int], across: Collection[str]
) -> list[Session]:
    """Base's earlier cases as sessions of this comparison, one a case, in their order.

    Figures of another device take part where ``across`` has ``device``; they get this device's
    name, under which they are compared. Raises ``ConfigError`` where base has no figure of any
    artifact on the device.
    """
    found: list[Session] = []
    for name in meeting.names:
        for number in threads:
            mine = _of_device(meeting.base, _cases(meeting.base, name, number), profile, across)
            subject = case_id(name, profile, number)
            found += [
                Session(
                    pair=pair,
                    order=len(found) + pair,
                    side="base",
                    case=case.model_copy(update={"id": subject, "device": profile}),
                )
                for pair, case in enumerate(mine)
            ]
    if not found:
        measured = sorted({case.device for case in meeting.base.cases if case.status is Status.OK})
        raise ConfigError(
            f"has no figures of {profile} with these threads"
            + (f"; it has figures of {', '.join(measured)}" if measured else " or any device"),
            where=f"base {meeting.base.side.label}",
            hint="Measure base on this device first, name its files so that both are measured now, "
            "or let other devices pass with --across device.",
        )
    return found


@dataclass(frozen=True)
class Past:
    """A branch's figures in a history: what ``--history`` names, and which branch base is."""

    address: Address
    branch: str

    def sessions(
        self, meeting: Meeting, head: Sequence[Session], device: DeviceRun, across: Collection[str]
    ) -> list[Session]:
        """The branch's newest figures of each of head's cases, a session a run.

        As many as head has sessions. Raises ``ConfigError`` where there is no history, or it cannot
        be read.
        """
        # SQLAlchemy comes with them, and a gate that measures both sides needs none.
        from deploy.history import database, runs

        config = meeting.head.config
        assert config is not None
        found: list[Session] = []
        opened = database.connect(self.address)
        for subject in dict.fromkeys(session.case.id for session in head):
            mine = [s.case for s in head if s.case.id == subject and s.case.status is Status.OK]
            if not mine:
                continue
            rows = runs.base_for(
                opened,
                mine[0],
                device,
                pipeline=config.name,
                branch=self.branch,
                machine=provenance.machine(),
                count=len(mine),
                any_runtime_version="runtime" in across,
            )
            # The oldest first, as they were measured.
            found += [
                Session(
                    pair=pair,
                    order=len(found) + pair,
                    side="base",
                    case=row.case.model_copy(update={"id": subject}),
                )
                for pair, row in enumerate(reversed(rows))
            ]
        return found


def _cases(version: Version, name: str, threads: int) -> list[Case]:
    wanted = {artifact.name: artifact.sha256 for artifact in version.side.artifacts}
    return [
        case
        for case in version.cases
        if case.artifact == name
        and case.threads == threads
        and case.artifact_sha256 == wanted.get(name)
        and case.status is Status.OK
    ]


def _of_device(
    version: Version, cases: Iterable[Case], profile: str, across: Collection[str]
) -> list[Case]:
    by_device: dict[str, list[Case]] = {}
    for case in cases:
        by_device.setdefault(case.device, []).append(case)
    if profile in by_device or "device" not in across:
        return by_device.get(profile, [])
    if len(by_device) > 1:
        raise ConfigError(
            f"was measured on {', '.join(sorted(by_device))}: which one is to be compared?",
            where=f"base {version.side.label}",
            hint="Name one of them with --device.",
        )
    return next(iter(by_device.values()), [])


def refused(
    meeting: Meeting,
    base: Sequence[Session],
    head: Sequence[Session],
    device: DeviceRun,
    across: Collection[str],
) -> tuple[Verdict, ...]:
    """INVALID for each case whose figures must not be compared with base's, with all reasons."""
    earlier = {run.profile.name: run for run in meeting.base.devices}
    found = []
    for case in dict.fromkeys(session.case.id for session in head):
        ours = next(s.case for s in head if s.case.id == case)
        theirs = next((s.case for s in base if s.case.id == case), None)
        if theirs is None:
            continue
        run = earlier.get(_measured_on(meeting.base, theirs))
        why = list(comparable.device_runs(run, device, asked=across)) if run else []
        why += comparable.reasons(
            comparable.circumstances(theirs), comparable.circumstances(ours), asked=across
        )
        texts = dict.fromkeys(reason.text for reason in why)
        if texts:
            kinds = " ".join(f"--across {kind}" for kind in dict.fromkeys(r.kind for r in why))
            found.append(
                Verdict(
                    outcome=Outcome.INVALID,
                    subject=case,
                    metric=CASE,
                    value=None,
                    limit=None,
                    source="gate",
                    tier=device.profile.tier,
                    reason=f"must not be compared: {'; '.join(texts)} ({kinds} lets it pass)",
                )
            )
    return tuple(found)


def _measured_on(version: Version, renamed: Case) -> str:
    """The profile on which a case was measured, whatever it is called here."""
    for case in version.cases:
        if (case.artifact, case.threads) == (renamed.artifact, renamed.threads) and (
            case.measurements == renamed.measurements
        ):
            return case.device
    return renamed.device

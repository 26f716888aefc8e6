"""What is judged of head by itself: its parity, and the budgets that a plain run holds it to."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from deploy.gating.meeting import Meeting
from deploy.gating.sides import Version
from deploy.report import budgets as budgets_
from deploy.report import stats
from deploy.types import (
    ARTIFACT_METRICS,
    Budget,
    Case,
    DeviceRun,
    Measurement,
    Metric,
    Outcome,
    Session,
    Status,
    Verdict,
)


def parity(meeting: Meeting) -> tuple[Verdict, ...]:
    """Head's parity, and base's where it fails: a base that computes something else is no measure.

    That is INVALID and not REGRESSED, because head is not to blame.
    """
    found = []
    for row in meeting.head.parity:
        verdict = budgets_.judge_parity(row) if row.artifact in meeting.names else None
        if verdict is not None:
            found.append(verdict)
    for row in meeting.base.parity:
        if row.artifact in meeting.names and row.status is Status.FAILED:
            reason = f"base computes something else than its program: {row.reason or 'no reason'}"
            found.append(
                Verdict.without_figure(
                    Outcome.INVALID,
                    row.artifact,
                    budgets_.PARITY,
                    reason,
                    source="verify of base",
                )
            )
    return tuple(found)


def stops(verdict: Verdict) -> bool:
    """Whether nothing is to be measured because of it."""
    return verdict.metric == budgets_.PARITY and verdict.outcome is not Outcome.PASS


def budgets(
    head: Version, sessions: Sequence[Session], device: DeviceRun | None
) -> tuple[Verdict, ...]:
    """Head held to its pipeline's budgets and the device profile's; a lost device is INVALID.

    A case's figure is the median of its sessions' medians. Budgets for what is not compared here,
    and for figures that sessions do not have (energy: it has a pass of its own), are left out; a
    plain run judges them.
    """
    cases = _pooled([session.case for session in sessions if session.side == "head"])
    artifacts = head.side.artifacts
    wanted = head.config.budgets if head.config is not None else ()
    return budgets_.verdicts(
        artifacts=artifacts,
        parity=(),
        devices=(_within_reach(device, cases),) if device is not None else (),
        cases=cases,
        budgets=[budget for budget in wanted if _concerns(budget, head, cases)],
    )


def _measured(cases: Sequence[Case]) -> set[str]:
    return {row.metric for case in cases for row in case.measurements}


def _within_reach(device: DeviceRun, cases: Sequence[Case]) -> DeviceRun:
    """The device with those budgets of its profile that sessions have figures for."""
    known = {*ARTIFACT_METRICS, *_measured(cases)}
    kept = {metric: limit for metric, limit in device.profile.budgets.items() if metric in known}
    return device.model_copy(
        update={"profile": device.profile.model_copy(update={"budgets": kept})}
    )


def _concerns(budget: Budget, head: Version, cases: Sequence[Case]) -> bool:
    if budget.metric in ARTIFACT_METRICS:
        names = [artifact.name for artifact in head.side.artifacts]
    elif budget.metric in _measured(cases):
        names = [case.id for case in cases]
    else:
        return False
    return any(name == budget.subject or fnmatchcase(name, budget.subject) for name in names)


def _pooled(cases: Sequence[Case]) -> list[Case]:
    """One case of each id, with a sample for each session that has the figure."""
    good: dict[str, list[Case]] = {}
    for case in cases:
        if case.status is Status.OK:
            good.setdefault(case.id, []).append(case)
    return [
        same[0].model_copy(
            update={"measurements": tuple(m for metric in Metric if (m := _pool(same, metric)))}
        )
        for same in good.values()
    ]


def _pool(cases: Sequence[Case], metric: Metric) -> Measurement | None:
    rows = [row for case in cases if (row := case.measurement(metric)) is not None]
    medians = [
        value
        for row in rows
        if row.status is Status.OK and (value := stats.median(row.samples)) is not None
    ]
    if medians:
        row = next(row for row in rows if row.status is Status.OK)
        return row.model_copy(update={"samples": tuple(medians), "interval": None})
    # Only what was foreseen: a figure that broke is the comparison's to tell.
    return next((row for row in rows if row.status in (Status.UNAVAILABLE, Status.NOT_RUN)), None)

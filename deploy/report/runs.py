"""Does head still run where base does? What failed and spoiled sessions mean for a comparison.

``failed`` is a session whose model or runtime is to blame (a crash, a load error); ``invalid`` one
that the infrastructure spoiled (device lost, time-out, too hot), which is never a regression.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from deploy.report.budgets import CASE
from deploy.types import Outcome, Session, Status, Verdict

ENOUGH = 2
"""One crash is an incident; a crash in every one of at least so many fresh processes is a change,
where the other side ran in at least so many."""


@dataclass(frozen=True)
class _Count:
    good: int
    failed: int
    reason: str


def judge(subject: str, sessions: Sequence[Session], *, source: str) -> Iterator[Verdict]:
    """At most one verdict, none where both sides run.

    REGRESSED: head failed in every session that the infrastructure let end, base in none. That is
    no noise and no infrastructure, so it is a change for the worse without any test. IMPROVED: the
    same with the sides exchanged. INVALID: head failed in some sessions, or both sides did, or a
    side has no session that ended. Failures of base alone, beside sessions that ran, cost pairs.
    """
    base, head = _count(sessions, "base"), _count(sessions, "head")
    if _broke(head, base):
        outcome, reason = Outcome.REGRESSED, _told("head", head, "base", base)
    elif _broke(base, head):
        outcome, reason = Outcome.IMPROVED, _told("base", base, "head", head)
    elif head.failed:
        other = f", base in {base.failed} of {base.failed + base.good}" if base.failed else ""
        outcome = Outcome.INVALID
        reason = (
            f"the model or its runtime failed: head in {head.failed} of "
            f"{head.failed + head.good} sessions{other}; head {head.reason}"
        )
    elif not head.good:
        outcome = Outcome.INVALID
        reason = f"head was not measured: {head.reason or 'it has no session'}"
    elif not base.good:
        outcome = Outcome.INVALID
        reason = f"base was not measured: {base.reason or 'it has no session'}"
    else:
        return
    yield Verdict.without_figure(outcome, subject, CASE, reason, source=source)


def comparable(sessions: Sequence[Session]) -> bool:
    """Whether both sides have a session that ran, so that there are figures to compare."""
    return all(_count(sessions, side).good for side in ("base", "head"))


def _count(sessions: Sequence[Session], side: str) -> _Count:
    mine = [session.case for session in sessions if session.side == side]
    failed = [case for case in mine if case.status is Status.FAILED]
    wrong = failed or [case for case in mine if case.status is not Status.OK]
    return _Count(
        good=sum(case.status is Status.OK for case in mine),
        failed=len(failed),
        reason=f"{wrong[0].status}: {wrong[0].reason or 'no reason given'}" if wrong else "",
    )


def _broke(one: _Count, other: _Count) -> bool:
    return one.failed >= ENOUGH and not one.good and other.good >= ENOUGH and not other.failed


def _told(side: str, count: _Count, other: str, ran: _Count) -> str:
    return (
        f"{side} failed in each of its {count.failed} sessions, {other} ran in {ran.good}; "
        f"{side} {count.reason}"
    )

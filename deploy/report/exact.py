"""Deterministic figures of base and head: compared exactly, no test, no repetition.

What may grow by how much is in :data:`ALLOWED`; ``rules.allow`` says otherwise for a metric, as a
relative change (0.01: 1 %), and adds metrics that are not judged exactly unless somebody asks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from deploy.errors import ConfigError
from deploy.report import stats
from deploy.report.budgets import deterministic
from deploy.report.paired import change
from deploy.types import (
    Artifact,
    GateRules,
    Measurement,
    Metric,
    Outcome,
    Session,
    Side,
    Status,
    Tier,
    Verdict,
)

SOURCE = "gate, exact"
ARTIFACT = "artifact"
DELEGATED_SHARE = "delegated_share"

ALLOWED: dict[str, float] = {
    "bytes": 0.0,
    "partitions": 0.0,
    DELEGATED_SHARE: 0.0,
    "macs": 0.0,
    "planned_bytes": 0.0,
    Metric.INSTRUCTIONS: 0.001,
}
"""Relative growth that is let pass; of ``delegated_share`` (more is better) the relative fall.

0.1 % of instructions is five times what the emulated phone's counts of a large model vary by
(0.02 %); of a small one :data:`JITTER` is more.
"""

JITTER: dict[str, float] = dict.fromkeys(
    (Metric.INSTRUCTIONS, Metric.LOAD_INSTRUCTIONS, Metric.FIRST_INSTRUCTIONS), 12_000.0
)
"""Differences up to this are no change, whatever their share. The guest's timer interrupts an
inference once more or less often, which came to 10,400 instructions between sessions of the same
file. Interrupts only ever add, so a session's figure is the least of its samples: in most
inferences of a model below four million instructions (4 ms of the guest's clock) there is none."""

ON_REQUEST = (
    Metric.LOAD_INSTRUCTIONS,
    Metric.FIRST_INSTRUCTIONS,
    Metric.OUTPUT_MAX_ABS_DIFF,
)
"""Judged only where ``rules.allow`` names them: a load waits for storage in real time, and another
set of weights has another rounding error, which ``verify`` holds to limits of its own."""

_OF_FILES = ("bytes", "partitions", DELEGATED_SHARE, "macs", "planned_bytes")
_MAY_BE_UNKNOWN = ("macs", "planned_bytes")
"""Where one side alone has no such figure, that is said and decides nothing, unless ``rules.allow``
names the metric: a base of an older pocketship has none, and a custom operator's MACs can be
counted by nobody, which must not hold up every later change."""

KNOWN = (*ALLOWED, *ON_REQUEST)
"""Every metric that ``rules.allow`` may name."""


def check(rules: GateRules) -> None:
    """``ConfigError`` where ``rules.allow`` names what is not judged exactly, or no share.

    For callers to do before anything is measured; :func:`deploy.report.gate.judge` does it, too.
    """
    for metric, share in rules.allow.items():
        if metric not in KNOWN:
            raise ConfigError(
                f"allows {metric!r}, which is no metric that is compared exactly",
                where="gate.allow",
                hint=f"Name one of {', '.join(KNOWN)}; noisy metrics are held to 'threshold'.",
            )
        if not (math.isfinite(share) and share >= 0):
            raise ConfigError(
                f"{metric}: {share} is no share",
                where="gate.allow",
                hint="Give what it may grow by: 0.01 is 1 %.",
            )


def is_exact(metric: Metric, tier: Tier, rules: GateRules) -> bool:
    """Whether this metric is judged here: it is deterministic on this tier, and wanted."""
    wanted = metric in ALLOWED or metric in rules.allow
    return wanted and deterministic(metric, tier)


def repeats_within(metric: str, value: float) -> float:
    """By how much a figure of the same file may come out apart: 0 for all that is not counted."""
    jitter = JITTER.get(metric, 0.0)
    return max(jitter, abs(value) * ALLOWED.get(metric, 0.0)) if jitter else 0.0


def files(base: Side, head: Side, rules: GateRules) -> Iterator[Verdict]:
    """Bytes, partitions, delegated share, MACs and planned memory of every artifact of a side.

    Counterparts have the same name; where each side has one artifact left over, those two are.
    """
    ours = {artifact.name: artifact for artifact in head.artifacts}
    theirs = {artifact.name: artifact for artifact in base.artifacts}
    gone = [name for name in theirs if name not in ours]
    new = [name for name in ours if name not in theirs]
    pairs = [(theirs[name], ours[name]) for name in theirs if name in ours]
    if len(gone) == len(new) == 1 and theirs[gone[0]].format is ours[new[0]].format:
        pairs.append((theirs[gone.pop()], ours[new.pop()]))
    for before, after in pairs:
        yield from _file(before, after, rules)
    if not ours or not theirs:
        return  # One side was never exported, or was not looked at: its sessions are all there is.
    for name in gone:
        yield _verdict(Outcome.INVALID, name, ARTIFACT, "base has this artifact and head has not")
    for name in new:
        yield _verdict(Outcome.PASS, name, ARTIFACT, "new in head: nothing to compare it with")


def _file(before: Artifact, after: Artifact, rules: GateRules) -> Iterator[Verdict]:
    name = after.name
    for metric in _OF_FILES:
        was, base_why = before.figure(metric)
        now, head_why = after.figure(metric)
        if was is not None and now is not None:
            yield _compare(name, metric, was, now, rules, tier=Tier.HOST)
        elif was is not None or now is not None:
            reason = (
                f"unknown of base: {base_why}" if was is None else f"unknown of head: {head_why}"
            )
            if metric in _MAY_BE_UNKNOWN and metric not in rules.allow:
                yield _verdict(Outcome.PASS, name, metric, f"not compared: {reason}")
            else:
                yield _verdict(Outcome.INVALID, name, metric, reason)


def figure(
    subject: str,
    metric: Metric,
    sessions: Sequence[Session],
    rules: GateRules,
    *,
    source: str = SOURCE,
) -> Iterator[Verdict]:
    """One deterministic metric of a case: the median over sessions, which are all but equal.

    A session's figure is the median of its samples; of counts it is the least (:data:`JITTER`).

    Where sessions of one file differ by more than what is allowed the figure is not exact after
    all; then the change counts only where the two sides' figures do not overlap, else INVALID.
    """
    sides: dict[str, list[float]] = {"base": [], "head": []}
    tiers, why = set(), {"base": "no session has it", "head": "no session has it"}
    for session in sessions:
        found = session.case.measurement(metric)
        value = _value(found)
        if found is not None and value is not None:
            sides[session.side].append(value)
            tiers.add(found.tier)
        elif found is not None:
            why[session.side] = found.reason or "not a finite number"
    for side, values in sides.items():
        if not values:
            reason = f"no figure of {side}: {why[side]}"
            yield _verdict(Outcome.INVALID, subject, metric, reason, source=source)
            return
    if len(tiers) > 1:
        reason = "base and head are of different tiers: never compared"
        yield _verdict(Outcome.INVALID, subject, metric, reason, source=source)
        return
    base, head = sides["base"], sides["head"]
    tier = tiers.pop()
    verdict = _compare(
        subject, metric, _median(base), _median(head), rules, tier=tier, source=source
    )
    spread = max(max(values) - min(values) for values in (base, head))
    slack = _slack(metric, _median(base), rules)
    apart = min(head) - max(base) > slack or min(base) - max(head) > slack
    if spread > slack and not apart:
        reason = (
            f"differs by {spread:,.6g} between sessions of the same file, more than the "
            f"{slack:,.6g} that a change may be: not exact here"
        )
        verdict = verdict.model_copy(update={"outcome": Outcome.INVALID, "reason": reason})
    yield verdict


def _value(found: Measurement | None) -> float | None:
    """A session's figure; None where there is none, or it is not a number that can be compared."""
    if found is None or found.status is not Status.OK:
        return None
    middle = stats.median(found.samples)
    # The median is None where a sample is no number; then the least of the others says nothing.
    return middle if middle is None or found.metric not in JITTER else min(found.samples)


def _median(values: Sequence[float]) -> float:
    middle = stats.median(values)
    return math.nan if middle is None else middle


def _allowed(metric: str, rules: GateRules) -> float:
    return rules.allow.get(metric, ALLOWED.get(metric, 0.0))


def _slack(metric: str, before: float, rules: GateRules) -> float:
    """By how much a figure may differ from ``before`` without being a change."""
    return max(abs(before) * _allowed(metric, rules), JITTER.get(metric, 0.0))


def _compare(
    subject: str,
    metric: str,
    before: float,
    after: float,
    rules: GateRules,
    *,
    tier: Tier,
    source: str = SOURCE,
) -> Verdict:
    less_is_worse = metric == DELEGATED_SHARE
    slack = _slack(metric, before, rules)
    limit = before - slack if less_is_worse else before + slack
    # 64/65 computed twice is the same number; a limit that was computed may be off in the end.
    rise = (after - before) * (-1 if less_is_worse else 1)
    slack += 1e-12 * abs(limit)
    worse, better = rise > slack, rise < -slack
    outcome = Outcome.REGRESSED if worse else Outcome.IMPROVED if better else Outcome.PASS
    if after == before:
        reason = "the same"
    elif before:
        reason = change(after / before)
    else:
        reason = "base has 0"
    if slack and after != before:
        share = _allowed(metric, rules)
        if abs(before) * share < JITTER.get(metric, 0.0):
            reason += f", {JITTER[metric]:,.0f} {metric} are let pass"
        elif share:
            reason += f", {100 * share:g} % is let pass"
    return Verdict(
        outcome=outcome,
        subject=subject,
        metric=metric,
        value=after,
        limit=limit,
        source=source,
        reason=f"exact: {reason}",
        tier=tier,
        base_value=before,
    )


def _verdict(
    outcome: Outcome, subject: str, metric: str, reason: str, *, source: str = SOURCE
) -> Verdict:
    return Verdict.without_figure(outcome, subject, metric, reason, source=source)

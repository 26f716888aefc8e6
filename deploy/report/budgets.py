"""Budgets: upper limits that one run's own figures are held to, and its parity.

A deterministic figure (bytes, partitions, MACs, planned memory, instructions counted by the
emulator, difference of outputs) is held to its limit exactly; of a noisy one the median is, and the
verdict says so.
Nothing here is a statistical test, and nothing is compared with another run: that is
:mod:`deploy.report.gate`, which also says what the verdicts come to.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from deploy.types import (
    ARTIFACT_METRICS,
    Artifact,
    Budget,
    Case,
    DeviceProfile,
    DeviceRun,
    Measurement,
    Metric,
    Outcome,
    Parity,
    Status,
    Tier,
    Verdict,
)

PARITY = "parity"
CASE = "case"
DEVICE = "device"

SIMULATION = "computed by the Mac: a simulator gates correctness and deterministic figures only"

_COUNTED = frozenset({Metric.INSTRUCTIONS, Metric.LOAD_INSTRUCTIONS, Metric.FIRST_INSTRUCTIONS})
# What was asked for and did not come out; `not_run` and `unavailable` were foreseen and are said.
_BROKEN = frozenset({Status.FAILED, Status.INVALID})


def verdicts(
    *,
    artifacts: Sequence[Artifact],
    parity: Sequence[Parity],
    devices: Sequence[DeviceRun],
    cases: Sequence[Case],
    budgets: Sequence[Budget] = (),
) -> tuple[Verdict, ...]:
    """Judge a run by its parity, its cases, the pipeline's budgets and the device profiles'.

    A budget with a wildcard, and a profile's budget, leaves out cases that were ``not_run``; a
    budget that names its subject does not, and one that finds no figure at all is ``INVALID``. So
    it is with the times and the memory of a simulator, which are its Mac's.
    """
    found: list[Verdict] = [v for check in parity if (v := judge_parity(check))]
    found += [
        _invalid(run.profile.name, DEVICE, f"{run.status}: {run.reason or 'no reason given'}")
        for run in devices
        if run.status in _BROKEN
    ]
    found += [
        _invalid(case.id, CASE, f"{case.status}: {case.reason or 'no reason given'}")
        for case in cases
        if case.status in _BROKEN
    ]
    for budget in budgets:
        found += _judge_budget(budget, artifacts, cases)
    for run in devices:
        found += _judge_profile(run.profile, artifacts, cases)
    judged = {(verdict.subject, verdict.metric) for verdict in found}
    found += [
        _invalid(case.id, str(m.metric), f"{m.status}: {m.reason}")
        for case in cases
        for m in case.measurements
        if m.status in _BROKEN and (case.id, str(m.metric)) not in judged
    ]
    return tuple(found)


def deterministic(metric: str, tier: Tier) -> bool:
    """Whether a metric comes out the same every time, so that its budget needs no statistics."""
    if metric in _COUNTED:
        return tier is Tier.EMULATOR  # A phone's own counters include interrupts and migrations.
    return metric in ARTIFACT_METRICS or metric in (Metric.OUTPUT_MAX_ABS_DIFF, PARITY)


def judge_parity(check: Parity) -> Verdict | None:
    """What one row of ``verify`` means; None where parity was not checked."""
    if check.status is Status.OK:
        outcome = Outcome.PASS
    elif check.status is Status.FAILED:
        outcome = Outcome.REGRESSED
    elif check.status is Status.INVALID:
        outcome = Outcome.INVALID
    else:
        return None
    reason = "; ".join((*check.violated, *((check.reason,) if check.reason else ())))
    reason = reason or ("within all limits" if outcome is Outcome.PASS else "no reason given")
    return Verdict.without_figure(outcome, check.artifact, PARITY, reason, source="verify")


def _judge_budget(
    budget: Budget, artifacts: Sequence[Artifact], cases: Sequence[Case]
) -> Iterator[Verdict]:
    source = "pipeline"
    if budget.metric in ARTIFACT_METRICS:
        chosen = [a for a in artifacts if _matches(a.name, budget.subject)]
        for artifact in chosen:
            yield _judge_artifact(artifact, budget, source)
        if not chosen:
            yield _invalid(budget.subject, budget.metric, "no artifact has this name", budget.max)
        return
    matching = [case for case in cases if _matches(case.id, budget.subject)]
    ran = [
        c
        for c in matching
        if c.id == budget.subject
        or not (c.status is Status.NOT_RUN or says_nothing(c, Metric(budget.metric)))
    ]
    for case in ran:
        yield _judge_case(case, Metric(budget.metric), budget.max, source)
    if not ran:
        reason = "no case of this id was run"
        if matching:
            reason += f" ({matching[0].id}: {matching[0].reason or 'no reason given'})"
        yield _invalid(budget.subject, budget.metric, reason, budget.max)


def _judge_profile(
    profile: DeviceProfile, artifacts: Sequence[Artifact], cases: Sequence[Case]
) -> Iterator[Verdict]:
    """A profile's budgets: for every case of its device, and for the files that run there."""
    source = f"profile {profile.name}"
    mine = [c for c in cases if c.device == profile.name and c.status is not Status.NOT_RUN]
    here = {case.artifact for case in mine}
    for metric, limit in profile.budgets.items():
        if isinstance(metric, Metric):
            for case in mine:
                if not says_nothing(case, metric):
                    yield _judge_case(case, metric, limit, source)
            continue
        budget = Budget(subject="*", metric=metric, max=limit)
        for artifact in artifacts:
            if artifact.name in here:
                yield _judge_artifact(artifact, budget, source)


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or fnmatchcase(name, pattern)


def _judge_artifact(artifact: Artifact, budget: Budget, source: str) -> Verdict:
    value, why = artifact.figure(budget.metric)
    if value is None:
        return _invalid(artifact.name, budget.metric, f"unknown: {why}", budget.max, source)
    return _held(artifact.name, budget.metric, value, budget.max, source=source, how="exact")


def says_nothing(case: Case, metric: Metric) -> bool:
    """Whether the figure is a simulator's and of its Mac: its times and memory are no phone's."""
    found = case.measurement(metric)
    if found is None or found.tier is not Tier.SIMULATOR:
        return False
    of_the_task = metric.value.startswith(Metric.TASK_METRIC.value)
    return not (of_the_task or deterministic(metric, found.tier))


def _judge_case(case: Case, metric: Metric, limit: float, source: str) -> Verdict:
    measurement = case.measurement(metric)
    if case.status is not Status.OK:
        reason = f"the case is {case.status}: {case.reason or 'no reason given'}"
        return _invalid(case.id, metric, reason, limit, source)
    if measurement is None:
        return _invalid(case.id, metric, "this case has no such figure", limit, source)
    if says_nothing(case, metric):
        return _invalid(case.id, metric, SIMULATION, limit, source)
    value = measurement.median
    if value is None:
        reason = f"{measurement.status}: {measurement.reason}"
        return _invalid(case.id, metric, reason, limit, source)
    if math.isnan(value):  # It is over no limit and under none.
        return _invalid(case.id, metric, "the figure is not a number", limit, source)
    return _held(case.id, metric, value, limit, source=source, how=_how(measurement))


def _how(measurement: Measurement) -> str:
    n = len(measurement.samples)
    of = "1 sample" if n == 1 else f"the median of {n} samples"
    if deterministic(measurement.metric, measurement.tier):
        return f"exact ({of})"
    return f"{of}, no statistical test"


def _held(
    subject: str, metric: str, value: float, limit: float, *, source: str, how: str
) -> Verdict:
    within = value <= limit
    return Verdict(
        outcome=Outcome.PASS if within else Outcome.REGRESSED,
        subject=subject,
        metric=metric,
        value=value,
        limit=limit,
        source=source,
        reason=how if within else f"over its limit; {how}",
    )


def _invalid(
    subject: str, metric: str, reason: str, limit: float | None = None, source: str = ""
) -> Verdict:
    source = source or ("bench" if limit is None else "pipeline")
    return Verdict.without_figure(
        Outcome.INVALID, subject, metric, reason, source=source, limit=limit
    )

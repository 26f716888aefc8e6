"""What two runs have in common: their cases in pairs, the ratios that may be made of them, and what
a gate found of the same files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deploy.report import comparable
from deploy.types import (
    Artifact,
    Case,
    DeviceRun,
    GateReport,
    Measurement,
    Metric,
    Paired,
    Report,
)

Judged = Mapping[tuple[str, Metric], Paired]
"""Case id and metric -> how a gate of the same two files decided it."""


@dataclass(frozen=True)
class Pair:
    """A case that both runs have; ``around`` is why none of its figures may be compared."""

    first: Case
    second: Case
    around: tuple[comparable.Reason, ...]

    @property
    def metrics(self) -> list[Metric]:
        """What either of them has a row of, in the order of the first."""
        both = (self.first, self.second)
        return list(dict.fromkeys(m.metric for case in both for m in case.measurements))

    def measured(self, metric: Metric) -> tuple[Measurement, Measurement] | None:
        """Both figures where they may be compared, else None."""
        a, b = self.first.measurement(metric), self.second.measurement(metric)
        if a is None or b is None or self.around or comparable.figures(a, b):
            return None
        return a, b

    def ratio(self, metric: Metric) -> float | None:
        """Second / first of the medians; None where they may not be compared, or the first is 0."""
        found = self.measured(metric)
        if found is None or not found[0].median or found[1].median is None:
            return None
        return found[1].median / found[0].median


def pairs(left: Report, right: Report) -> list[Pair]:
    """The cases that both have, in the order of ``left``."""
    theirs = {case.id: case for case in right.cases}
    places = [{run.profile.name: run for run in report.devices} for report in (left, right)]
    found = []
    for case in left.cases:
        if (other := theirs.get(case.id)) is not None:
            where = [place.get(case.device) for place in places]
            found.append(Pair(case, other, _circumstances(case, other, where)))
    return found


def _circumstances(
    one: Case, other: Case, where: Sequence[DeviceRun | None]
) -> tuple[comparable.Reason, ...]:
    """Why no figure of these two cases may be compared; empty where they may be."""
    found = list(comparable.reasons(*(comparable.circumstances(case) for case in (one, other))))
    base, head = where
    if base is not None and head is not None:
        found += comparable.device_runs(base, head)
    return tuple(dict.fromkeys(found))


def judged(gate: GateReport, left: Report, right: Report) -> Judged:
    """What ``gate`` decided in pairs of the very files of ``left`` (its base) and ``right``.

    Empty where its base or head are other files, or its device is another one than that of the
    runs: then what it found is not about them.
    """
    where = gate.device
    here = [run for report in (left, right) for run in report.devices]
    if where is None or any(
        comparable.device_runs(where, run) for run in here if run.profile.name == where.profile.name
    ):
        return {}
    same = _same(gate.base.artifacts, left.artifacts) & _same(gate.head.artifacts, right.artifacts)
    return {
        (verdict.subject, Metric(verdict.metric)): verdict.paired
        for verdict in gate.verdicts
        if verdict.paired is not None
        and verdict.paired.design == "paired"
        and verdict.metric in set(Metric)
        and verdict.subject.partition("@")[0] in same
    }


def _same(some: Sequence[Artifact], others: Sequence[Artifact]) -> set[str]:
    """Names of the files that are in both with equal content."""
    return {a.name for a in some} & {
        a.name for a in others if any(a.name == b.name and a.sha256 == b.sha256 for b in some)
    }

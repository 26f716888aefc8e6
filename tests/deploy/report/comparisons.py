"""Sessions and sides of a comparison, for tests. The figures are made up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from deploy.types import Case, Measurement, Metric, Session, Side, Status, Tier
from tests.deploy.report.factory import artifact, case, measured

INT8 = artifact("int8")


def side(*artifacts, label="main", kind="artifacts"):
    return Side(label=label, kind=kind, artifacts=artifacts)


BASE, HEAD = side(INT8), side(INT8, label="branch")


def timed(
    *latency: float, tier=Tier.DEVICE, metric=Metric.LATENCY_MS, more: Iterable[Measurement] = ()
) -> Case:
    return case(INT8, "phone", measured(metric, *latency, tier=tier), *more)


def broken(status=Status.INVALID, reason="device lost") -> Case:
    return case(INT8, "phone", status=status, reason=reason)


def sessions(base: Sequence[Case | float], head: Sequence[Case | float]) -> tuple[Session, ...]:
    """ABBA: pair 0 is base, head; pair 1 is head, base; ..."""
    made = []
    for pair, cases in enumerate(zip(base, head, strict=True)):
        sides = [("base", cases[0]), ("head", cases[1])]
        for name, one in sides if pair % 2 == 0 else sides[::-1]:
            of = one if isinstance(one, Case) else timed(one)
            made.append(Session(pair=pair, order=len(made), side=name, case=of))
    return tuple(made)

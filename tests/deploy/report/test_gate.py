import pytest

from deploy.report.gate import PRIMARY, judge
from deploy.types import GateRules, Outcome, Tier
from tests.deploy.report.comparisons import sessions, side

QUIET = (10.0, 10.1, 9.9, 10.05, 9.95, 10.0)


def primary(base, head, **options):
    options.setdefault("rules", GateRules())
    found = judge(side(), side(), sessions(base, head), **options)
    return next(v for v in found if v.source == PRIMARY)


def scaled(values, factor):
    return tuple(factor * value for value in values)


@pytest.mark.parametrize(
    ("factor", "outcome"),
    [(1.10, Outcome.REGRESSED), (1.0, Outcome.PASS), (1 / 1.10, Outcome.IMPROVED)],
)
def test_six_quiet_pairs_decide(factor, outcome):
    verdict = primary(QUIET, scaled(QUIET[::-1], factor))
    assert verdict.outcome is outcome
    assert (verdict.metric, verdict.tier) == ("latency_ms", Tier.DEVICE)
    assert verdict.paired.ratio == pytest.approx(factor, rel=0.02)
    assert verdict.limit == pytest.approx(verdict.base_value * 1.03)

"""A gate's report, for tests. Its figures are made up and stand for nothing."""

from __future__ import annotations

import datetime
from typing import Any

from deploy.types import (
    Acceptance,
    Artifact,
    GateReport,
    GateRules,
    Metric,
    Outcome,
    Paired,
    Session,
    Side,
    Tier,
    Verdict,
)
from tests.deploy.report import factory

PHONE = "emulated-arm64"
CASE = f"int8.executorch@{PHONE}/t1"
ACCEPTED = Acceptance(
    subject="int8.executorch",
    metric="bytes",
    up_to=1.08,
    reason="a wider head, agreed on in the planning of May",
    by="Ada Lovelace",
    since=datetime.date(2030, 1, 1),
    until=datetime.date(2030, 6, 30),
)


def paired(ratio: float = 1.08, **changes: Any) -> Paired:
    values: dict[str, Any] = {
        "ratios": (ratio - 0.01, ratio, ratio + 0.01, ratio, ratio - 0.005, ratio + 0.005),
        "ratio": ratio,
        "interval": (ratio - 0.01, ratio + 0.01),
        "p_worse": 0.0156,
        "p_better": 0.984,
        "alpha": 0.025,
        "margin": 0.03,
    }
    return Paired(**(values | changes))


def verdict(outcome: Outcome = Outcome.PASS, **changes: Any) -> Verdict:
    values: dict[str, Any] = {
        "outcome": outcome,
        "subject": CASE,
        "metric": "instructions",
        "value": 84_664_336.0,
        "base_value": 84_664_336.0,
        "limit": 84_664_336.0,
        "source": "gate",
        "reason": "exact",
        "tier": Tier.EMULATOR,
    }
    return Verdict(**(values | changes))


def verdicts() -> tuple[Verdict, ...]:
    return (
        verdict(
            Outcome.REGRESSED,
            value=155_330_255.0,
            reason="more than the base; exact",
        ),
        verdict(
            Outcome.IMPROVED, metric="load_instructions", value=16_000_000.0,
            base_value=18_034_992.0, limit=18_034_992.0, reason="less than the base; exact",
        ),
        verdict(
            Outcome.PASS, subject="int8.executorch", metric="bytes", value=5_200_000.0,
            base_value=4_998_304.0, limit=4_998_304.0, tier=Tier.HOST,
            accepted="Ada Lovelace, 2030-01-01 to 2030-06-30: a wider head",
        ),
        verdict(
            Outcome.REGRESSED, subject="int8.executorch@host/t1", metric="latency_ms",
            value=11.5, base_value=10.66, limit=None, tier=Tier.HOST, paired=paired(),
            reason="8 % slower, and the whole interval is over 3 %",
        ),
        verdict(
            Outcome.INCONCLUSIVE, subject="int8.executorch@host/t1", metric="load_ms",
            value=6.4, base_value=6.11, limit=None, tier=Tier.HOST,
            paired=paired(1.047, p_worse=0.04), reason="12 pairs do not decide",
        ),
        verdict(
            Outcome.INVALID, subject="int8.ort@host/t1", metric="latency_ms", value=None,
            base_value=None, limit=None, tier=None,
            reason="failed: bench_runner ended with 3: the model cannot be loaded",
        ),
    )  # fmt: skip


def side(label: str, artifact: Artifact, **changes: Any) -> Side:
    values: dict[str, Any] = {
        "label": label,
        "kind": "revision",
        "commit": factory.digest(label)[:40],
        "artifacts": (artifact,),
    }
    return Side(**(values | changes))


def gate_report(**changes: Any) -> GateReport:
    base = factory.artifact("int8", sha256=factory.digest("base"))
    head = factory.artifact("int8", sha256=factory.digest("head"), bytes=5_200_000)
    sessions = tuple(
        Session(
            pair=order // 2,
            order=order,
            side=which,
            case=factory.case(
                base if which == "base" else head,
                PHONE,
                factory.measured(Metric.INSTRUCTIONS, 84e6, 84.1e6, tier=Tier.EMULATOR),
            ),
        )
        for order, which in enumerate(("base", "head", "head", "base"))
    )
    values: dict[str, Any] = {
        "pocketship_version": "0.1.0",
        "run_id": "20300101-130000",
        "created_utc": "2030-01-01T13:00:00Z",
        "seed": 7,
        "base": side("git:main", base),
        "head": side("pipeline.yaml", head, kind="pipeline"),
        "rules": GateRules(),
        "device": factory.devices()[0],
        "sessions": sessions,
        "accepted": (ACCEPTED,),
        "verdicts": verdicts(),
        "outcome": Outcome.REGRESSED,
        "exit_code": 8,
    }
    return GateReport(**(values | changes))

"""Sites with something in every corner. Their figures are made up and stand for nothing."""

from __future__ import annotations

import datetime
import random
from dataclasses import dataclass

from deploy.types import (
    Acceptance,
    Case,
    Certificate,
    Cost,
    DeviceRun,
    DeviceState,
    Format,
    GateReport,
    GateRules,
    LedgerRow,
    Metric,
    NoiseFigure,
    OperatorCost,
    Outcome,
    Paired,
    Report,
    Session,
    Side,
    Tier,
    Verdict,
)
from tests.deploy.report import factory

HOSTILE = (
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    '" onmouseover="document.title=\'owned\'" x="',
    "</style><style>body{display:none}",
    '<a href="https://example.invalid/">link</a>',
    "javascript:document.title='owned'",
    "\u202egnp.exe\u2066 \u2028 \u2029 \x1b[31m",
    "{{7*7}} {% raw %} %{x} $\\alpha$ &lt;b&gt;",
    '"}]; document.title = "owned"; //',
)


def noisy(seed: int, centre: float, count: int, spread: float = 0.02) -> tuple[float, ...]:
    """Samples with a tail to the right, as latencies have."""
    draw = random.Random(seed)
    return tuple(centre * (1 + abs(draw.gauss(0, spread)) ** 1.3) for _ in range(count))


def state(uptime_s: float, celsius: float, boot: str = "a") -> DeviceState:
    return DeviceState(
        uptime_s=uptime_s,
        boot_id=boot,
        battery_percent=80.0,
        battery_c=celsius,
        thermal_status=0,
        temperatures_c={"cpu-big": celsius + 14, "skin": celsius + 2},
    )


def operators(seed: int) -> tuple[OperatorCost, ...]:
    return tuple(
        OperatorCost(
            name=f"Convolution {number}",
            kind="Convolution",
            backend="xnnpack",
            layers=(f"blocks.{number}.conv",),
            unit="ms",
            samples=noisy(seed + number, 1.0 / (number + 1), 5),
        )
        for number in range(14)
    )


def phone() -> DeviceRun:
    host = next(run for run in factory.devices() if run.profile.name == "host")
    profile = factory.profile("test-phone", Tier.DEVICE, description="A phone made of figures")
    assert host.info is not None
    info = host.info.model_copy(update={"profile": "test-phone", "tier": Tier.DEVICE})
    return host.model_copy(update={"profile": profile, "info": info})


def phone_cases() -> tuple[Case, ...]:
    cases = []
    for number, (variant, format_, centre) in enumerate(
        (
            ("fp32", Format.EXECUTORCH, 21.0),
            ("int8", Format.EXECUTORCH, 9.4),
            ("fp32", Format.ONNX, 24.5),
            ("int8", Format.ONNX, 13.0),
        )
    ):
        rows = (
            factory.measured(Metric.LOAD_MS, *noisy(number, centre * 2, 3), tier=Tier.DEVICE),
            factory.measured(Metric.FIRST_MS, *noisy(number, centre * 1.6, 3), tier=Tier.DEVICE),
            factory.measured(Metric.LATENCY_MS, *noisy(number + 50, centre, 800), tier=Tier.DEVICE),
            factory.measured(Metric.PEAK_RSS_KIB, 1000.0 * centre, tier=Tier.DEVICE),
            factory.measured(Metric.ENERGY_MJ, centre * 2.1, tier=Tier.DEVICE).model_copy(
                update={"interval": (centre * 1.9, centre * 2.3)}
            ),
        )
        of = factory.artifact(variant, format_)
        cases.append(
            factory.case(
                of,
                "test-phone",
                *rows,
                before=state(600.0 + 90 * number, 28.0 + number),
                after=state(660.0 + 90 * number, 29.5 + number),
                operators=operators(number),
            )
        )
    return tuple(cases)


def sustained(name: str = "", minutes: int = 12) -> Report:
    """Two cases that slow down while the phone warms up, one from its fourth minute on."""
    cases = []
    for number, (case, slower) in enumerate(zip(phone_cases(), (1.02, 1.35), strict=False)):
        centre = 21.0 if number == 0 else 9.4
        samples = [centre * (slower if minute > 2 else 1.0) for minute in range(minutes)]
        latency = factory.measured(Metric.LATENCY_MS, *samples, tier=Tier.DEVICE)
        start = 600.0 + 900 * number
        cases.append(
            case.model_copy(
                update={
                    "artifact": name or case.artifact,
                    "measurements": (
                        latency.model_copy(update={"minutes": tuple(range(minutes))}),
                    ),
                    "before": state(start, 28.0 + number),
                    "after": state(start + 60 * minutes + 12, 36.5 + number),
                }
            )
        )
    return factory.report(devices=(phone(),), cases=tuple(cases), comparisons=(), verdicts=())


def ledger() -> tuple[LedgerRow, ...]:
    cost = Cost(
        device="test-phone", format="executorch", metric="latency_ms", tier="device", value=21.0
    )
    start = LedgerRow(
        step="uncompressed",
        parameters=4_652_008,
        program_bytes=18_700_120,
        seconds=3.2,
        quality=factory.quality(metric_value=0.78),
        cost=cost,
    )
    pruned = start.model_copy(
        update={
            "step": "prune",
            "program_bytes": 9_300_100,
            "quality": factory.quality(metric_value=0.76),
            "cost": cost.model_copy(update={"value": 12.5}),
        }
    )
    quantized = pruned.model_copy(
        update={
            "step": "quantize",
            "program_bytes": 2_400_000,
            "quality": factory.quality(metric_value=0.75),
            "cost": cost.model_copy(update={"value": 9.4}),
            "warnings": ("top-1 fell by 1.0 points",),
        }
    )
    return start, pruned, quantized


def report(**changes: object) -> Report:
    """The factory's report with a phone that measured everything."""
    made = factory.report()
    values = {
        "ledger": ledger(),
        "devices": (phone(), *made.devices),
        "cases": (*phone_cases(), *made.cases),
    }
    return made.model_copy(update=values | changes)


@dataclass(frozen=True)
class Point:
    created_utc: str
    commit: str
    run_id: str
    median: float
    interval: tuple[float, float] | None
    n: int = 800


@dataclass(frozen=True)
class Change:
    index: int
    commit_before: str
    before: float
    after: float
    p_value: float | None
    with_it: tuple[str, ...] = ()


@dataclass(frozen=True)
class Series:
    points: tuple[Point, ...]
    changes: tuple[Change, ...] = ()
    note: str = ""
    branch: str | None = "main"
    missing: int = 0
    os_build: str = "TP1A.1"
    device: str = "test-phone"
    tier: str = "device"
    runtime: str = "executorch"
    artifact: str = "fp32.executorch"
    threads: int = 1
    metric: str = "latency_ms"


def series() -> tuple[Series, ...]:
    """A step down at the 20th of 30 runs, and a series of one."""
    points = tuple(
        Point(
            created_utc=f"2030-01-{day:02d}T12:00:00Z",
            commit=f"{day:02d}23456789abcdef",
            run_id=f"203001{day:02d}-120000",
            median=value,
            interval=(value - 0.1, value + 0.1),
        )
        for day in range(1, 31)
        for value in [noisy(day, 21.0 if day < 20 else 19.5, 1)[0]]
    )
    change = Change(19, points[18].commit, 21.2, 19.7, 0.002, ("the recipe",))
    lonely = Series(points[:1], note="The OS changed before this run.", os_build="", missing=2)
    return Series(points, (change,)), lonely


def gate(label: str = "main") -> GateReport:
    """Six pairs: head's int8 is 9 % slower, its load time undecided, fp32 as it was."""
    sessions, order = [], 0
    for pair in range(6):
        for side in ("base", "head") if pair % 2 == 0 else ("head", "base"):
            slow = 1.09 if side == "head" else 1.0
            rows = (
                factory.measured(
                    Metric.LATENCY_MS, *noisy(order, 9.4 * slow, 50), tier=Tier.DEVICE
                ),
                factory.measured(Metric.LOAD_MS, *noisy(order + 9, 30.0, 3, 0.2), tier=Tier.DEVICE),
            )
            case = factory.case(
                factory.artifact("int8"),
                "test-phone",
                *rows,
                before=state(600.0 + 40 * order, 28.0 + 0.3 * order),
                after=state(630.0 + 40 * order, 28.3 + 0.3 * order),
            )
            sessions.append(Session(pair=pair, order=order, side=side, case=case))
            order += 1
    ratios = (1.083, 1.091, 1.094, 1.088, 1.097, 1.079)
    worse = Paired(
        ratios=ratios,
        ratio=1.0895,
        interval=(1.081, 1.0955),
        p_worse=0.0156,
        p_better=1.0,
        alpha=0.025,
        margin=0.03,
        mde=0.021,
    )
    unclear = worse.model_copy(
        update={
            "ratios": (0.97, 1.06, 1.01, 0.99, 1.08, 1.02),
            "ratio": 1.015,
            "interval": (0.98, 1.07),
            "p_worse": 0.21,
            "mde": None,
        }
    )
    subject = "int8.executorch@test-phone/t1"
    verdicts = (
        Verdict(
            outcome=Outcome.REGRESSED,
            subject=subject,
            metric="latency_ms",
            value=10.3,
            limit=None,
            source="gate.threshold",
            reason="worse by more than 3.0 %",
            tier=Tier.DEVICE,
            base_value=9.45,
            paired=worse,
        ),
        Verdict(
            outcome=Outcome.INCONCLUSIVE,
            subject=subject,
            metric="load_ms",
            value=30.9,
            limit=None,
            source="gate.threshold",
            reason="the interval reaches over the margin",
            tier=Tier.DEVICE,
            base_value=30.4,
            paired=unclear,
        ),
        Verdict(
            outcome=Outcome.PASS,
            subject="int8.executorch",
            metric="bytes",
            value=5_100_000,
            limit=5_000_000,
            source="gate.allow",
            reason="more than the base, and signed off",
            tier=Tier.HOST,
            base_value=4_998_304,
            accepted="by A. Person until 2030-06-30: a better calibration",
        ),
    )
    certificate = Certificate(
        pocketship_version="0.1.0",
        created_utc="2030-01-01T09:00:00Z",
        profile="test-phone",
        device_sha256=factory.digest("serial"),
        os_build="TP1A.1",
        tier=Tier.DEVICE,
        format=Format.EXECUTORCH,
        threads=1,
        preset="quick",
        artifact="int8.executorch",
        artifact_sha256=factory.digest("int8"),
        runtime_version="1.5.1",
        figures=(
            NoiseFigure(
                metric=Metric.LATENCY_MS, pairs=6, between_sd=0.008, mde=0.021, log_ratios=(0.0,)
            ),
        ),
    )
    accepted = Acceptance(
        subject="int8.executorch",
        metric="bytes",
        up_to=1.05,
        reason="a better calibration",
        by="A. Person",
        since=datetime.date(2030, 1, 1),
        until=datetime.date(2030, 6, 30),
    )
    return GateReport(
        pocketship_version="0.1.0",
        run_id="20300102-120000",
        created_utc="2030-01-02T12:00:00Z",
        seed=0,
        base=Side(label=label, kind="revision", commit="0123456789abcdef"),
        head=Side(label="a slower kernel", kind="revision", commit="fedcba9876543210"),
        rules=GateRules(),
        device=phone(),
        sessions=tuple(sessions),
        certificates=(certificate,),
        accepted=(accepted,),
        verdicts=verdicts,
        outcome=Outcome.REGRESSED,
        exit_code=8,
    )


def hostile_report() -> Report:
    """Every payload as a model's name, a reason, an operator and a fact; the worst as devices."""
    devices, cases, artifacts, rows = [], [], [], []
    for text in (HOSTILE[0], HOSTILE[4]):
        run = phone()
        assert run.info is not None
        info = run.info.model_copy(update={"model": text, "unknown": {"soc": text}})
        profile = run.profile.model_copy(update={"name": text, "description": text})
        devices.append(run.model_copy(update={"profile": profile, "info": info}))
    for number, text in enumerate(HOSTILE):
        device = devices[number % 2].profile.name
        artifacts.append(factory.artifact(text, name=text))
        row = LedgerRow(step=text, parameters=1, program_bytes=9 - number, seconds=1)
        quality = factory.quality(metric=text, metric_value=0.1 * number)
        rows.append(row.model_copy(update={"quality": quality, "warnings": (text,)}))
        found = phone_cases()[0]
        latency = found.measurements[2].model_copy(update={"source": text})
        costs = tuple(
            row.model_copy(update={"name": text, "backend": text, "layers": (text,)})
            for row in found.operators[:2]
        )
        before = state(600.0 + 100 * number, 30.0, boot=text).model_copy(
            update={"temperatures_c": {text: 40.0}}
        )
        cases.append(
            found.model_copy(
                update={
                    "id": f"{text}@{device}/t1",
                    "artifact": text,
                    "device": device,
                    "measurements": (
                        latency,
                        factory.unmeasured(Metric.ENERGY_MJ, text, Tier.DEVICE),
                    ),
                    "operators": costs,
                    "before": before,
                    "after": before.model_copy(update={"uptime_s": 650.0 + 100 * number}),
                    "warnings": (text,),
                }
            )
        )
    verdict = factory.report().verdicts[0]
    return factory.report().model_copy(
        update={
            "pipeline": HOSTILE[0],
            "run_id": HOSTILE[1],
            "commit": HOSTILE[2],
            "machine": dict.fromkeys(HOSTILE, HOSTILE[4]),
            "artifacts": tuple(artifacts),
            "ledger": tuple(rows),
            "devices": tuple(devices),
            "cases": tuple(cases),
            "comparisons": (),
            "parity": (),
            "verdicts": tuple(
                verdict.model_copy(update={"outcome": Outcome.REGRESSED, "reason": text}
                                   | dict.fromkeys(("subject", "metric", "source"), text))
                for text in HOSTILE
            ),
        }
    )  # fmt: skip

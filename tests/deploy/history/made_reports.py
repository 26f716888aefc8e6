"""Small reports for the history; their figures are made up and stand for nothing."""

from __future__ import annotations

import hashlib
from typing import Any

from deploy.types import (
    Artifact,
    Case,
    DeviceInfo,
    DeviceProfile,
    DeviceRun,
    EnergySource,
    Format,
    Measurement,
    Metric,
    Outcome,
    Paired,
    Placement,
    Report,
    Status,
    Tier,
    Verdict,
)

MACHINE = {"system": "Linux 6", "architecture": "x86_64", "cpu": "A processor", "cpu_count": "2"}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def device(
    serial: str = "R58M42", *, os_build: str | None = "build-1", **changes: Any
) -> DeviceRun:
    values: dict[str, Any] = {
        "name": "pixel",
        "description": "a phone",
        "transport": "adb",
        "tier": Tier.DEVICE,
        "abi": "arm64-v8a",
        "work_dir": "/data/local/tmp/x",
        "energy": EnergySource(source="none", reason="not asked"),
    }
    profile = DeviceProfile(**(values | changes))
    info = DeviceInfo(
        serial=serial,
        profile=profile.name,
        tier=profile.tier,
        model="Phone",
        abi="arm64-v8a",
        os_build=os_build,
        clock="icount" if profile.tier is Tier.EMULATOR else "monotonic",
    )
    return DeviceRun(profile=profile, status=Status.OK, info=info)


def artifact(variant: str = "int8", content: str = "", **changes: Any) -> Artifact:
    values: dict[str, Any] = {
        "name": f"{variant}.executorch",
        "variant": variant,
        "format": Format.EXECUTORCH,
        "path": f"{variant}.pte",
        "sha256": digest(variant + content),
        "bytes": 1234,
        "inputs": (),
        "outputs": (),
        "source_sha256": digest(variant),
        "tools": {},
        "recipe": ({"kind": "quantize", "mode": "static"},) if variant == "int8" else (),
        "placement": Placement(backend="XNNPACK", delegated=4, total=5, partitions=1),
        "macs": 5678,
        "planned_bytes": 910,
    }
    return Artifact(**(values | changes))


def latency(*samples: float, tier: Tier = Tier.DEVICE) -> Measurement:
    return Measurement(
        metric=Metric.LATENCY_MS,
        unit="ms",
        tier=tier,
        source="bench_runner",
        status=Status.OK,
        samples=samples,
    )


def no_energy(tier: Tier = Tier.DEVICE) -> Measurement:
    return Measurement(
        metric=Metric.ENERGY_MJ,
        unit="mJ",
        tier=tier,
        source="rails",
        status=Status.UNAVAILABLE,
        reason="no rail",
    )


def case(of: Artifact, on: DeviceRun, *measurements: Measurement, **changes: Any) -> Case:
    values: dict[str, Any] = {
        "id": f"{of.name}@{on.profile.name}/t1",
        "artifact": of.name,
        "artifact_sha256": of.sha256,
        "device": on.profile.name,
        "threads": 1,
        "status": Status.OK,
        "runtime_version": "1.5.1",
        "measurements": measurements,
        "wall_seconds": 2.5,
    }
    return Case(**(values | changes))


def report(number: int = 0, *values: float, on: DeviceRun | None = None, **changes: Any) -> Report:
    """Run ``number``, begun on that minute; ``values`` are the samples of its one latency."""
    where = on or device()
    one = artifact()
    tier = where.profile.tier
    samples = values or (10.0 + number, 10.5 + number, 9.5 + number)
    fields: dict[str, Any] = {
        "pocketship_version": "0.1.0",
        "pipeline": "lenet",
        "run_id": f"20300101-{number:06d}",
        "created_utc": f"2030-01-{1 + number // 1440:02d}T"
        f"{number // 60 % 24:02d}:{number % 60:02d}:00+00:00",
        "commit": digest(f"commit {number}")[:40],
        "seed": 0,
        "baseline_variant": None,
        "machine": MACHINE,
        "tools": {},
        "artifacts": (one,),
        "devices": (where,),
        "cases": (case(one, where, latency(*samples, tier=tier), no_energy(tier)),),
        "verdicts": (verdict(),),
        "outcome": Outcome.PASS,
        "exit_code": 0,
    } | changes
    made = Report(**fields)
    return made.model_copy(update={"content_sha256": digest(repr(made))})


def verdict() -> Verdict:
    paired = Paired(
        ratios=(1.0, 1.01),
        ratio=1.005,
        interval=(0.99, 1.02),
        p_worse=0.4,
        p_better=0.6,
        alpha=0.025,
        margin=0.03,
    )
    return Verdict(
        outcome=Outcome.PASS,
        subject="int8.executorch@pixel/t1",
        metric="latency_ms",
        value=10.0,
        limit=20.0,
        source="paired",
        tier=Tier.DEVICE,
        base_value=9.9,
        paired=paired,
    )

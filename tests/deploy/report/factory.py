"""A report as a real run makes it, for tests. Its figures are made up and stand for nothing."""

from __future__ import annotations

import hashlib
from typing import Any

from deploy.report import compare, gate
from deploy.report.budgets import verdicts as judge_budgets
from deploy.report.pages import run
from deploy.types import (
    Artifact,
    Budget,
    Case,
    Core,
    DeviceInfo,
    DeviceProfile,
    DeviceRun,
    EnergySource,
    Format,
    LedgerRow,
    Measurement,
    Metric,
    Parity,
    Placement,
    Quality,
    Report,
    Status,
    TensorSpec,
    Tier,
)

SUFFIX = {
    Format.EXECUTORCH: "pte",
    Format.ONNX: "onnx",
    Format.ORT: "ort",
    Format.COREML: "mlpackage",
}
BYTES = {
    ("fp32", Format.EXECUTORCH): 18_567_712,
    ("fp32", Format.ONNX): 18_612_034,
    ("fp32", Format.ORT): 18_703_448,
    ("fp32", Format.COREML): 18_590_210,
    ("int8", Format.EXECUTORCH): 4_998_304,
    ("int8", Format.ONNX): 5_102_877,
    ("int8", Format.ORT): 5_240_112,
    ("int8", Format.COREML): 4_960_551,
}
NO_MAC = "Core ML programs run on macOS and iOS only"
NO_ENERGY = "QEMU draws no battery current"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def artifact(variant: str, format_: Format = Format.EXECUTORCH, **changes: Any) -> Artifact:
    known = format_ is not Format.COREML
    values: dict[str, Any] = {
        "name": f"{variant}.{format_}",
        "variant": variant,
        "format": format_,
        "path": f"{variant}.{SUFFIX[format_]}",
        "sha256": digest(f"{variant}.{format_}"),
        "bytes": BYTES.get((variant, format_), 1000),
        "inputs": (TensorSpec(name="x", dtype="float32", shape=(1, 3, 224, 224)),),
        "outputs": (TensorSpec(name="y", dtype="float32", shape=(1, 1000)),),
        "source_sha256": digest(variant),
        "tools": {"torch": "2.13.0", "executorch": "1.5.1"},
        "placement": Placement(
            backend="XNNPACK" if known else "Core ML",
            delegated=64 if known else None,
            total=65 if known else None,
            partitions=1 if known else None,
            delegated_share=64 / 65 if known else None,
            reason="" if known else "Core ML places operators when it loads a model on the device",
        ),
    }
    return Artifact(**(values | changes))


def measured(
    metric: Metric, *samples: float, tier: Tier = Tier.HOST, source: str = "bench_runner"
) -> Measurement:
    return Measurement(
        metric=metric,
        unit="",
        tier=tier,
        source=source,
        status=Status.OK,
        samples=samples,
    )


def unmeasured(
    metric: Metric, reason: str, tier: Tier = Tier.HOST, status: Status = Status.UNAVAILABLE
) -> Measurement:
    return Measurement(
        metric=metric, unit="", tier=tier, source="bench_runner", status=status, reason=reason
    )


def case(of: Artifact, device: str, *measurements: Measurement, **changes: Any) -> Case:
    values: dict[str, Any] = {
        "id": f"{of.name}@{device}/t1",
        "artifact": of.name,
        "artifact_sha256": of.sha256,
        "device": device,
        "threads": 1,
        "status": Status.OK,
        "runtime_version": "1.5.1",
        "measurements": measurements,
        "wall_seconds": 12.5,
    }
    return Case(**(values | changes))


def phone_case(of: Artifact, load: float, first: float, steady: float, peak: float) -> Case:
    tier = Tier.EMULATOR
    return case(
        of,
        "emulated-arm64",
        measured(Metric.LOAD_INSTRUCTIONS, load, tier=tier),
        measured(Metric.FIRST_INSTRUCTIONS, first, tier=tier),
        measured(Metric.INSTRUCTIONS, steady, steady + 104, steady + 16_000, tier=tier),
        unmeasured(Metric.LATENCY_MS, "the clock counts instructions, not time", tier),
        measured(Metric.PEAK_RSS_KIB, peak, tier=tier),
        measured(Metric.DELTA_RSS_KIB, peak - 9_000, tier=tier),
        unmeasured(Metric.ENERGY_MJ, NO_ENERGY, tier),
        measured(Metric.OUTPUT_MAX_ABS_DIFF, 0.0000021, tier=tier),
    )


def host_case(of: Artifact, load: float, first: float, steady: float, peak: float) -> Case:
    return case(
        of,
        "host",
        measured(Metric.LOAD_MS, load),
        measured(Metric.FIRST_MS, first),
        measured(Metric.LATENCY_MS, *(steady + 0.013 * (i % 7) for i in range(50))),
        measured(Metric.PEAK_RSS_KIB, peak),
        unmeasured(Metric.ENERGY_MJ, "no power counter can be read here"),
        measured(Metric.OUTPUT_MAX_ABS_DIFF, 0.0),
    )


def profile(name: str = "host", tier: Tier = Tier.HOST, **changes: Any) -> DeviceProfile:
    values: dict[str, Any] = {
        "name": name,
        "description": "The machine that this run is made on",
        "transport": "host",
        "tier": tier,
        "abi": "x86_64",
        "cores": (Core(name="cpu", count=2),),
        "work_dir": "work",
        "energy": EnergySource(source="none", reason="no power counter can be read here"),
    }
    return DeviceProfile(**(values | changes))


def quality(**changes: Any) -> Quality:
    values: dict[str, Any] = {
        "samples": 50,
        "max_abs_diff": 0.0125,
        "sqnr_db": 14.6,
        "top1_agreement": 0.84,
        "metric": "top1",
        "metric_value": 0.72,
        "metric_reference": 0.78,
    }
    return Quality(**(values | changes))


def devices() -> tuple[DeviceRun, ...]:
    emulated = profile(
        "emulated-arm64",
        Tier.EMULATOR,
        description="Emulated ARM64 phone: one Cortex-A76 core that counts instructions",
        transport="emulator",
        abi="arm64-v8a",
        energy=EnergySource(source="none", reason=NO_ENERGY),
    )
    absent = profile(
        "pixel-8", Tier.DEVICE, description="Google Pixel 8", transport="adb", abi="arm64-v8a"
    )
    return (
        DeviceRun(
            profile=emulated,
            status=Status.OK,
            info=DeviceInfo(
                serial="127.0.0.1:5555",
                profile="emulated-arm64",
                tier=Tier.EMULATOR,
                model="Pocket One",
                abi="arm64-v8a",
                kernel="6.1.0-40-cloud-arm64",
                cpu_count=1,
                memory_total_kib=998_112,
                clock="icount",
                unknown={
                    "soc": "ro.soc.model is empty",
                    "big_core_mask": "no cpufreq here",
                    "profile": "no profile knows this phone",
                },
            ),
            bytes_pushed=104_857_600,
            push_mb_s=12.4,
        ),
        DeviceRun(
            profile=profile(),
            status=Status.OK,
            info=DeviceInfo(
                serial="host",
                profile="host",
                tier=Tier.HOST,
                model="x86-64 machine",
                cpu_count=2,
                memory_total_kib=25_165_824,
            ),
        ),
        DeviceRun(
            profile=absent, status=Status.NOT_RUN, reason="no phone of this kind is attached"
        ),
    )


def cases(files: dict[tuple[str, Format], Artifact]) -> tuple[Case, ...]:
    pte, onnx, ort = Format.EXECUTORCH, Format.ONNX, Format.ORT
    found = [
        phone_case(files["fp32", pte], 51_203_118, 190_400_511, 155_330_255, 61_440),
        phone_case(files["int8", pte], 18_034_992, 99_231_070, 84_664_336, 24_812),
        phone_case(files["fp32", onnx], 412_668_034, 301_227_004, 240_118_902, 92_160),
        phone_case(files["int8", onnx], 298_004_117, 201_668_030, 131_004_518, 58_204),
        phone_case(files["fp32", ort], 214_900_112, 300_998_450, 240_120_338, 84_992),
        case(
            files["int8", ort],
            "emulated-arm64",
            status=Status.FAILED,
            reason="bench_runner ended with 3: the model cannot be loaded",
        ),
        host_case(files["fp32", pte], 14.2, 25.1, 14.41, 66_120),
        host_case(files["int8", pte], 6.11, 15.9, 10.66, 29_004),
        host_case(files["fp32", onnx], 61.8, 22.4, 15.11, 101_220),
        host_case(files["int8", onnx], 70.3, 29.7, 18.72, 66_118),
        host_case(files["fp32", ort], 40.1, 22.0, 15.06, 96_004),
        host_case(files["int8", ort], 44.9, 29.1, 18.66, 61_820),
    ]
    for device in ("emulated-arm64", "host"):
        for variant in ("fp32", "int8"):
            found.append(
                case(
                    files[variant, Format.COREML],
                    device,
                    status=Status.NOT_RUN,
                    reason=NO_MAC,
                )
            )
    return tuple(found)


BUDGETS = (
    Budget(subject="int8.executorch", metric="bytes", max=5_200_000),
    Budget(subject="int8.executorch@emulated-arm64/t1", metric="instructions", max=86_000_000),
    Budget(subject="int8.*@host/t1", metric="latency_ms", max=15),
)


def report(budgets: tuple[Budget, ...] = BUDGETS, **changes: Any) -> Report:
    made = {(v, f): artifact(v, f) for v in ("fp32", "int8") for f in SUFFIX}
    limits = {"min_sqnr_db": 13.0, "min_top1_agreement": 0.8}
    checks = tuple(
        Parity(artifact=a.name, status=Status.NOT_RUN, reason=NO_MAC, limits=limits)
        if a.format is Format.COREML
        else Parity(
            artifact=a.name,
            status=Status.OK,
            limits=limits,
            quality=quality(
                max_abs_diff=0.0 if a.variant == "fp32" else 0.031,
                sqnr_db=None if a.variant == "fp32" else 41.2,
                top1_agreement=1.0,
            ),
        )
        for a in made.values()
    )
    ran = cases(made)
    where = devices()
    verdicts = judge_budgets(
        artifacts=tuple(made.values()), parity=checks, devices=where, cases=ran, budgets=budgets
    )
    decision = gate.decide(verdicts)
    values: dict[str, Any] = {
        "pocketship_version": "0.1.0",
        "pipeline": "efficientnet-lite0",
        "run_id": "20300101-120000",
        "created_utc": "2030-01-01T12:00:00Z",
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "seed": 7,
        "baseline_variant": "fp32",
        "machine": {"cpu": "x86-64", "cores": "2", "system": "Linux"},
        "tools": {"torch": "2.13.0", "executorch": "1.5.1", "onnxruntime": "1.31.1"},
        "ledger": (
            LedgerRow(step="baseline", parameters=4_652_008, program_bytes=18_700_120, seconds=3.2),
            LedgerRow(
                step="quantize_int8",
                detail={"per_channel": True, "calibration_samples": 20},
                parameters=4_652_008,
                program_bytes=19_004_772,
                seconds=41.7,
                quality=quality(),
                notes=("49 convolutions with their ReLU6",),
            ),
        ),
        "artifacts": tuple(made.values()),
        "parity": checks,
        "devices": where,
        "cases": ran,
        "comparisons": compare.comparisons(ran, tuple(made.values()), "fp32", devices=where),
        "verdicts": verdicts,
        "outcome": decision.outcome,
        "exit_code": decision.exit_code,
    }
    return Report(**(values | changes))


def pages_text(of: Report) -> str:
    """Every page of the site of a report, one behind the other."""
    return "\n".join(run.build(of).values())

"""What each compressed variant bought over the baseline: pairs of figures that may be compared.

A pair is the same runtime on the same device with the same threads, and both figures are of the
same tier. Whatever lacks one side stays in the table without a ratio and says which side and why.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from deploy.types import (
    Artifact,
    Case,
    Comparison,
    DeviceRun,
    Format,
    Measurement,
    Metric,
    Status,
    Tier,
)

BYTES = "bytes"
"""Metric of the rows that compare files. They belong to no device: ``device`` is empty, ``threads``
0, and their tier is ``host``, since the file was written and weighed on this machine."""

_COUNTED = (Metric.INSTRUCTIONS, Metric.LOAD_INSTRUCTIONS, Metric.FIRST_INSTRUCTIONS)
_TIMED = (Metric.LATENCY_MS, Metric.LOAD_MS, Metric.FIRST_MS)
_MEMORY = (Metric.PEAK_RSS_KIB,)
_WHERE_MEASURED = (Metric.ENERGY_MJ,)


@dataclass(frozen=True)
class _Side:
    """One half of a pair: a variant's figure with its tier, or why there is none."""

    variant: str
    value: float | None = None
    tier: Tier | None = None
    missing: str = ""


def comparisons(
    cases: Sequence[Case],
    artifacts: Sequence[Artifact],
    baseline_variant: str | None,
    *,
    devices: Sequence[DeviceRun] = (),
) -> tuple[Comparison, ...]:
    """Pair every variant with ``baseline_variant``.

    First the files (:data:`BYTES`), one row a format that either side has; then, for each device,
    thread count and format where either side has a case: steady state, load and first inference
    (in instructions where the device counts them, in milliseconds where it times them, in both
    where it does both), peak RSS, and energy where a case has it.

    ``devices`` gives the tier of rows that have a figure on neither side. Without it, the tier is
    that of the device's other measurements; a device that never measured anything has no rows
    then, because a row without a tier is not allowed.

    Returns an empty tuple where there is no baseline.
    """
    if baseline_variant is None:
        return ()
    files = {(a.variant, a.format): a for a in artifacts}
    variants = tuple(dict.fromkeys(a.variant for a in artifacts))
    formats = tuple(dict.fromkeys(a.format for a in artifacts))
    pairs = [
        (candidate, format_)
        for candidate in variants
        if candidate != baseline_variant
        for format_ in formats
        if (candidate, format_) in files or (baseline_variant, format_) in files
    ]
    rows = [
        _compare_files(files, baseline_variant, candidate, format_) for candidate, format_ in pairs
    ]
    ran: dict[tuple[str, int, str], Case] = {}
    for case in cases:
        ran.setdefault((case.device, case.threads, case.artifact), case)
    tiers = _tiers(cases, devices)
    for device, threads in dict.fromkeys((case.device, case.threads) for case in cases):
        tier = tiers.get(device)
        if tier is None:
            continue
        metrics = _metrics((c for c in cases if c.device == device), tier)
        for candidate, format_ in pairs:
            sides = []
            for variant in (baseline_variant, candidate):
                artifact = files.get((variant, format_))
                case_ = ran.get((device, threads, artifact.name)) if artifact else None
                sides.append((variant, artifact, case_))
            if all(case_ is None for _, _, case_ in sides):
                continue  # Nobody asked for this runtime on this device.
            for metric in metrics:
                base, cand = (_side(v, format_, a, c, metric) for v, a, c in sides)
                rows.append(
                    _pair(
                        base, cand, tier, device=device, format_=format_, threads=threads,
                        metric=str(metric),
                    )
                )  # fmt: skip
    return tuple(rows)


def _compare_files(
    files: Mapping[tuple[str, Format], Artifact], baseline: str, candidate: str, format_: Format
) -> Comparison:
    sides = []
    for variant in (baseline, candidate):
        artifact = files.get((variant, format_))
        sides.append(
            _Side(variant, float(artifact.bytes), Tier.HOST)
            if artifact
            else _Side(variant, missing=f"no {format_} artifact")
        )
    return _pair(
        sides[0], sides[1], Tier.HOST, device="", format_=format_, threads=0, metric=BYTES,
    )  # fmt: skip


def _tiers(cases: Sequence[Case], devices: Sequence[DeviceRun]) -> dict[str, Tier]:
    tiers = {run.profile.name: run.info.tier if run.info else run.profile.tier for run in devices}
    for case in cases:
        for measurement in case.measurements:
            tiers.setdefault(case.device, measurement.tier)
    return tiers


def _metrics(cases: Iterable[Case], tier: Tier) -> tuple[Metric, ...]:
    measured = {m.metric for c in cases for m in c.measurements if m.status is Status.OK}
    counts, times = not measured.isdisjoint(_COUNTED), not measured.isdisjoint(_TIMED)
    if not counts and not times:  # Every case failed: show what would have been measured here.
        counts = tier is Tier.EMULATOR
        times = not counts
    return (
        *(_COUNTED if counts else ()),
        *(_TIMED if times else ()),
        *_MEMORY,
        *(metric for metric in _WHERE_MEASURED if metric in measured),
    )


def _side(
    variant: str, format_: Format, artifact: Artifact | None, case: Case | None, metric: Metric
) -> _Side:
    if artifact is None:
        return _Side(variant, missing=f"no {format_} artifact")
    if case is None:
        return _Side(variant, missing="no case here")
    if case.status is not Status.OK:
        why = case.reason or "no reason given"
        return _Side(variant, missing=f"{_word(case.status)}: {why}")
    if case.artifact_sha256 != artifact.sha256:
        return _Side(variant, missing=f"measured with another file than {artifact.name}")
    measurement = case.measurement(metric)
    if measurement is None:
        return _Side(variant, missing=f"no {metric} here")
    return _measured(variant, metric, measurement)


def _measured(variant: str, metric: Metric, measurement: Measurement) -> _Side:
    median = measurement.median
    if median is None:
        why = f"{metric} {_word(measurement.status)}: {measurement.reason}"
        return _Side(variant, tier=measurement.tier, missing=why)
    if not math.isfinite(median):
        return _Side(variant, tier=measurement.tier, missing=f"{metric} is not a finite number")
    return _Side(variant, median, measurement.tier)


def _word(status: Status) -> str:
    return str(status).replace("_", " ")


def _pair(
    base: _Side,
    cand: _Side,
    device_tier: Tier,
    *,
    device: str,
    format_: Format,
    threads: int,
    metric: str,
) -> Comparison:
    """Join two sides into a row whose figures all have the row's tier."""
    tier = cand.tier or base.tier or device_tier
    reasons = [f"{side.variant}: {side.missing}" for side in (base, cand) if side.missing]
    if base.missing and base.missing == cand.missing:
        reasons = [f"{base.variant} and {cand.variant}: {base.missing}"]
    baseline_value, ratio = base.value, None
    if base.tier and cand.tier and base.tier is not cand.tier:
        reasons.append(
            f"{base.variant} is from tier {base.tier}, {cand.variant} from tier {cand.tier}: "
            "never compared across tiers"
        )
        baseline_value = None
    if baseline_value is not None and cand.value is not None:
        if baseline_value == 0:
            reasons.append(f"{metric} of {base.variant} is 0, so there is no ratio")
        elif math.isfinite(quotient := cand.value / baseline_value):
            ratio = quotient
        else:
            reasons.append(f"{metric} of {base.variant} is too near 0 for a ratio")
    return Comparison(
        device=device,
        format=format_,
        threads=threads,
        metric=metric,
        tier=tier,
        baseline=base.variant,
        candidate=cand.variant,
        baseline_value=baseline_value,
        candidate_value=cand.value,
        ratio=ratio,
        reason="; ".join(reasons),
    )

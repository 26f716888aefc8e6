"""May two figures be compared at all? Reasons why not, all that there are; pure functions.

A figure belongs to where and how it was measured: a number of an emulator says nothing about a
phone's, and a new runtime or OS build moves figures that no change of a model moved
(docs/calibration.md). Whoever compares all the same names the kinds of reasons that are let pass;
that is recorded by the one who asks, not here.

What is not known on both sides is no reason; what is known on one side only is one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from deploy.types import (
    Artifact,
    Case,
    DeviceInfo,
    DeviceRun,
    Measurement,
    Metric,
    Report,
    Status,
    Tier,
)

Kind = Literal[
    "tier", "device", "runtime", "os-build", "threads", "preset", "unit", "artifact", "metric"
]
"""What can differ; ``artifact`` and ``metric`` are never let pass: there is nothing to compare."""

KINDS: tuple[Kind, ...] = get_args(Kind)
ALWAYS: frozenset[Kind] = frozenset({"artifact", "metric"})


class Reason(NamedTuple):
    """One reason: its kind, and one line that names both sides."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class Circumstances:
    """Where and how a figure was measured; None: not known.

    ``device_sha256`` is :func:`device_hash`; ``runtime`` is a format, ``executorch`` or ``onnx``;
    ``artifact`` its name, ``<variant>.<format>``, where only the same name may be compared.
    """

    tier: Tier | None = None
    profile: str | None = None
    device_sha256: str | None = None
    runtime: str | None = None
    runtime_version: str | None = None
    os_build: str | None = None
    threads: int | None = None
    preset: str | None = None
    unit: str | None = None
    artifact: str | None = None


def device_hash(identity: str) -> str:
    """SHA-256 of what a device calls itself, so that its serial number stays private.

    A serial number is short, so whoever has a list of them can find it again: the hash keeps it
    from being read, not from being recognised.
    """
    return hashlib.sha256(f"pocketship device\0{identity}".encode()).hexdigest()


_FIELDS: tuple[tuple[Kind, str, str], ...] = (
    ("tier", "tier", "tier"),
    ("device", "profile", "device profile"),
    ("device", "device_sha256", "device"),
    ("runtime", "runtime", "format"),
    ("runtime", "runtime_version", "runtime version"),
    ("os-build", "os_build", "OS build"),
    ("threads", "threads", "number of threads"),
    ("preset", "preset", "preset"),
    ("unit", "unit", "unit"),
    ("artifact", "artifact", "artifact"),
)


def reasons(
    base: Circumstances, head: Circumstances, *, asked: Collection[str] = ()
) -> tuple[Reason, ...]:
    """Why figures of these circumstances must not be compared; empty where they may be.

    Args:
        base: where and how one was measured.
        head: where and how the other was.
        asked: kinds of reasons that the user lets pass; ``artifact`` never is.
    """
    found = []
    for kind, field, name in _FIELDS:
        one, other = getattr(base, field), getattr(head, field)
        if one == other or _let_pass(kind, asked):
            continue
        told = ("differs",) if field == "device_sha256" and one and other else ()
        shown = told or (f"{_shown(one, field)} of base, {_shown(other, field)} of head",)
        found.append(Reason(kind, f"{name}: {shown[0]}"))
    return tuple(found)


def _let_pass(kind: Kind, asked: Collection[str]) -> bool:
    return kind in asked and kind not in ALWAYS


def _shown(value: object, field: str) -> str:
    if value is None:
        return "not known"
    return str(value)[:12] if field == "device_sha256" else str(value)


def circumstances(
    case: Case,
    *,
    artifact: Artifact | None = None,
    info: DeviceInfo | None = None,
    identity: str | None = None,
    preset: str | None = None,
) -> Circumstances:
    """The circumstances of a case, as far as they are known.

    ``identity`` is what the device calls itself (its serial where nothing better is known); the
    tier is the device's, or that of the case's first figure.
    """
    tier = info.tier if info else next((row.tier for row in case.measurements), None)
    return Circumstances(
        tier=tier,
        profile=case.device,
        device_sha256=device_hash(identity) if identity is not None else None,
        runtime=artifact.format.value if artifact else None,
        runtime_version=case.runtime_version or None,
        os_build=info.os_build if info else None,
        threads=case.threads,
        preset=preset,
    )


def figures(
    base: Measurement, head: Measurement, *, asked: Collection[str] = ()
) -> tuple[Reason, ...]:
    """Why two rows must not be compared: another metric, unit or tier, or one has no figure."""
    if base.metric is not head.metric:
        return (Reason("metric", f"metric: {base.metric} of base, {head.metric} of head"),)
    missing = [
        Reason("metric", f"{row.metric} of {side} is {row.status}: {row.reason}")
        for side, row in (("base", base), ("head", head))
        if row.status is not Status.OK
    ]
    if missing:
        return tuple(missing)
    return reasons(
        Circumstances(tier=base.tier, unit=base.unit),
        Circumstances(tier=head.tier, unit=head.unit),
        asked=asked,
    )


def cases(
    base: Case,
    head: Case,
    metric: Metric,
    *,
    base_at: Circumstances | None = None,
    head_at: Circumstances | None = None,
    asked: Collection[str] = (),
) -> tuple[Reason, ...]:
    """Why ``metric`` of two cases must not be compared, each reason once.

    The circumstances are those that :func:`circumstances` gives, where nobody knows more.
    """
    rows = base.measurement(metric), head.measurement(metric)
    missing = [
        Reason("metric", f"{side} has no {metric}" + (f": {case.reason}" if case.reason else ""))
        for side, case, row in zip(("base", "head"), (base, head), rows, strict=True)
        if row is None
    ]
    around = reasons(base_at or circumstances(base), head_at or circumstances(head), asked=asked)
    one, other = rows
    if one is None or other is None:
        return _once((*missing, *around))
    return _once((*around, *figures(one, other, asked=asked)))


def _once(found: Iterable[Reason]) -> tuple[Reason, ...]:
    return tuple(dict.fromkeys(found))


def device_runs(
    base: DeviceRun, head: DeviceRun, *, asked: Collection[str] = ()
) -> tuple[Reason, ...]:
    """Why figures of two device sections must not be compared: profile, tier, device, OS build.

    A phone that is reached over a network can have another address each time, an emulated one has
    another port, and every machine is called ``host``: there a device counts as the same where
    profile, model and build are.
    """
    return reasons(_of_run(base), _of_run(head), asked=asked)


def _of_run(run: DeviceRun) -> Circumstances:
    info = run.info
    return Circumstances(
        tier=info.tier if info else run.profile.tier,
        profile=run.profile.name,
        device_sha256=device_hash(_name(run, info)) if info else None,
        os_build=info.os_build if info else None,
    )


def _name(run: DeviceRun, info: DeviceInfo) -> str:
    if run.profile.transport in ("adb", "replay") and ":" not in info.serial:
        return info.serial
    return "\0".join((info.model or "", info.manufacturer or "", info.abi or ""))


def reports(base: Report, head: Report, *, asked: Collection[str] = ()) -> tuple[str, ...]:
    """Why two reports must not be compared, one line each; empty where at least one case may be.

    Two reports have something in common where both have a case of one artifact's name on one
    profile with as many threads, or a file of one name. What keeps single devices from being
    compared is said only where it leaves nothing over.
    """
    ids = _common([c.id for c in base.cases], [c.id for c in head.cases])
    if not ids:
        if _common([a.name for a in base.artifacts], [a.name for a in head.artifacts]):
            return ()
        return (
            "the two reports have nothing in common: "
            f"{_listed('base', base)}; {_listed('head', head)}",
        )
    there = {run.profile.name: run for run in base.devices}
    here = {run.profile.name: run for run in head.devices}
    heads = {case.id: case for case in head.cases}
    found: dict[str, None] = {}
    for case in base.cases:
        if case.id not in ids:
            continue
        other = heads[case.id]
        why: list[Reason] = []
        if case.device in there and case.device in here:
            why += device_runs(there[case.device], here[case.device], asked=asked)
        why += reasons(circumstances(case), circumstances(other), asked=asked)
        if not why:
            return ()
        found |= dict.fromkeys(f"{case.id}: {one.text}" for one in _once(why))
    return tuple(found)


def _common(one: Sequence[str], other: Sequence[str]) -> set[str]:
    return set(one) & set(other)


def _listed(side: str, report: Report) -> str:
    names = [case.id for case in report.cases] or [a.name for a in report.artifacts]
    if not names:
        return f"{side} has neither cases nor artifacts"
    return f"{side} has {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"

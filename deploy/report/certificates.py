"""Noise certificates: how much a device's figures vary between sessions of the same file (A/A).

A certificate holds for one device, OS build, format, thread count, preset and runtime version: each
of them moves the noise (docs/calibration.md). What a change must come to, to be told from that
noise, is :func:`deploy.report.paired.detectable`; here it is bounded below.
:mod:`deploy.report.certificate_files` stores certificates and finds them again.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from deploy.errors import MeasurementError
from deploy.report import paired, stats
from deploy.report.comparable import Circumstances, device_hash
from deploy.types import (
    Artifact,
    Case,
    Certificate,
    DeviceInfo,
    GateRules,
    Metric,
    NoiseFigure,
    Session,
    Status,
)

CERTIFIED = (
    Metric.LATENCY_MS,
    Metric.INSTRUCTIONS,
    Metric.LOAD_MS,
    Metric.LOAD_INSTRUCTIONS,
    Metric.FIRST_MS,
    Metric.FIRST_INSTRUCTIONS,
    Metric.PEAK_RSS_KIB,
)
"""What the sessions of a calibration measure; the first one that there is must come out."""

MIN_PAIRS = 6
"""Fewer pairs say next to nothing about a standard deviation: with 3 it may be 6 times as large."""

FLOOR_SD = 0.001
"""The least between-pair standard deviation that is believed, of log ratios: 0.1 %.

Ratios that hardly differ come from a coarse clock or whole memory pages, or from luck; that the
device tells any change from none does not follow. See :func:`notes`.
"""

OLD_DAYS = 90
"""From this age on a certificate is said to be old. It still counts."""


def make(
    sessions: Sequence[Session],
    *,
    artifact: Artifact,
    info: DeviceInfo,
    identity: str,
    preset: str,
    pocketship_version: str,
    pairs: int = GateRules().pairs,
    now: datetime | None = None,
) -> Certificate:
    """The certificate of A/A sessions: both sides are ``artifact``.

    Args:
        sessions: at least :data:`MIN_PAIRS` pairs with a figure on both sides.
        artifact: what was measured.
        info: the device's answer; ``identity`` is what it calls itself, of which a hash is kept.
        identity: as :func:`deploy.report.comparable.device_hash` takes it.
        preset: its name.
        pocketship_version: whose certificate it is.
        pairs: the pairs that a gate begins with; the effect is that of a gate of so many.
        now: when; None: now.

    Raises:
        MeasurementError: too few sessions came out, they are of several files, thread counts or
            runtime versions, or their first metric has no usable figures.
    """
    good = [one for one in sessions if one.case.status is Status.OK]
    _refuse_mixture([one.case for one in good], artifact, info.profile)
    figures = []
    for metric in CERTIFIED:
        found = figure(sessions, metric, pairs=pairs)
        if isinstance(found, NoiseFigure):
            figures.append(found)
        elif not figures and _is_there(good, metric):
            raise _not_certified(found, sessions, info.profile)
    if not figures:
        raise _not_certified("no session has a figure", sessions, info.profile)
    case = good[0].case
    return Certificate(
        pocketship_version=pocketship_version,
        created_utc=(now or datetime.now(UTC)).isoformat(timespec="seconds"),
        profile=info.profile,
        device_sha256=device_hash(identity),
        os_build=info.os_build,
        tier=info.tier,
        format=artifact.format,
        threads=case.threads,
        preset=preset,
        artifact=artifact.name,
        artifact_sha256=artifact.sha256,
        runtime_version=case.runtime_version,
        figures=tuple(figures),
    )


def _refuse_mixture(cases: Iterable[Case], artifact: Artifact, device: str) -> None:
    seen = {(c.artifact_sha256, c.device, c.threads, c.runtime_version) for c in cases}
    alike = len(seen) <= 1 and all(one[:2] == (artifact.sha256, device) for one in seen)
    if not alike:
        raise MeasurementError(
            "the sessions are not all of one file, device, thread count and runtime version",
            where=artifact.name,
            hint="Begin a new calibration.",
        )


def _is_there(good: Sequence[Session], metric: Metric) -> bool:
    rows = (one.case.measurement(metric) for one in good)
    return any(row is not None and row.status is Status.OK for row in rows)


def _not_certified(why: str, sessions: Sequence[Session], device: str) -> MeasurementError:
    broken = next((one.case for one in sessions if one.case.status is not Status.OK), None)
    first = f"; the first session that failed: {broken.reason}" if broken else ""
    return MeasurementError(
        f"no certificate: {why}{first}",
        where=device,
        hint="Mend that, or measure more pairs; see docs/calibration.md.",
    )


def figure(
    sessions: Sequence[Session], metric: Metric, *, pairs: int = GateRules().pairs
) -> NoiseFigure | str:
    """How much ``metric`` varies between sessions, or why that cannot be said.

    ``between_sd`` is the standard deviation (n - 1) of the logarithms of all session medians;
    what the gate sees is the spread of the log ratios inside pairs, so ``mde`` is computed from
    those, with :data:`FLOOR_SD` as the least. Pairs that have no figure on one side are left out; a
    figure that is zero, negative or not a number has no logarithm and is an answer of its own.
    """
    medians: dict[tuple[int, str], float] = {}
    for one in sessions:
        row = one.case.measurement(metric) if one.case.status is Status.OK else None
        if row is None or row.status is not Status.OK:
            continue
        middle = row.median
        if middle is None or not math.isfinite(middle) or middle <= 0:
            return (
                f"{metric} of pair {one.pair + 1}, {one.side}, is {middle}: not a positive number"
            )
        medians[one.pair, one.side] = math.log(middle)
    ratios = [
        medians[pair, "head"] - value
        for (pair, side), value in sorted(medians.items())
        if side == "base" and (pair, "head") in medians
    ]
    if len(ratios) < MIN_PAIRS:
        return f"{metric}: {len(ratios)} whole pairs, and at least {MIN_PAIRS} are needed"
    mde = detectable(ratios, pairs)
    if mde is None:
        return f"{metric} varies too much for any effect to be told from nothing"
    return NoiseFigure(
        metric=metric,
        pairs=pairs,
        between_sd=statistics.stdev(medians.values()),
        mde=mde,
        log_ratios=tuple(ratios),
    )


def detectable(log_ratios: Sequence[float], pairs: int) -> float | None:
    """:func:`deploy.report.paired.detectable`, for a spread of at least :data:`FLOOR_SD`."""
    if believed(log_ratios):
        return paired.detectable(log_ratios, pairs)
    # Two values with exactly that standard deviation: the formula knows the spread alone.
    half = FLOOR_SD / math.sqrt(2)
    return paired.detectable((half, -half), pairs)


def believed(log_ratios: Sequence[float]) -> bool:
    """Whether the ratios spread as much as a device is believed to at the least."""
    spread = stats.standard_deviation(log_ratios)
    return spread is None or spread >= FLOOR_SD


def notes(certificate: Certificate, *, now: datetime | None = None) -> tuple[str, ...]:
    """What whoever relies on a certificate should know of it, one line each."""
    found = []
    for one in certificate.figures:
        if not believed(one.log_ratios):
            found.append(
                f"{one.metric} spread less than {FLOOR_SD:.1%} between pairs (a coarse clock, "
                "whole pages, or counted exactly): the effect is that of "
                f"{FLOOR_SD:.1%}, since none at all is not believed"
            )
        p = stats.sign_flip(one.log_ratios)
        if p is not None and min(p.greater, p.less) < 0.005:
            found.append(
                f"{one.metric} differs between two sides that are the same file (p = "
                f"{2 * min(p.greater, p.less):.2g}): something favours one; look for it first"
            )
    if (age := age_days(certificate, now=now)) is None:
        found.append(f"its date cannot be read: {certificate.created_utc[:40]}")
    elif age < 0:
        found.append("its date lies in the future: a clock is wrong")
    elif age >= OLD_DAYS:
        found.append(f"it is {age:.0f} days old: batteries and storage age; calibrate again")
    return tuple(found)


def spread_interval(log_ratios: Sequence[float], level: float = 0.95) -> stats.Interval | None:
    """Interval of the spread's own estimate as factors, for normal log ratios: 0.71 to 1.70 for 12.

    From the chi-squared distribution of ``(n - 1) s**2 / sigma**2``.
    """
    from scipy import stats as scipy_stats

    n = len(log_ratios) - 1
    if n < 1:
        return None
    low, high = scipy_stats.chi2.ppf([(1 - level) / 2, (1 + level) / 2], n)
    return stats.Interval(math.sqrt(n / high), math.sqrt(n / low))


def age_days(certificate: Certificate, *, now: datetime | None = None) -> float | None:
    """Days since it was made, negative for one from the future; None where its date is none."""
    try:
        made = datetime.fromisoformat(certificate.created_utc)
    except ValueError:
        return None
    if made.tzinfo is None:
        made = made.replace(tzinfo=UTC)
    return ((now or datetime.now(UTC)) - made).total_seconds() / 86400


def place(certificate: Certificate) -> Circumstances:
    """Where and how a certificate's sessions were measured."""
    return Circumstances(
        tier=certificate.tier,
        profile=certificate.profile,
        device_sha256=certificate.device_sha256,
        runtime=certificate.format.value,
        runtime_version=certificate.runtime_version or None,
        os_build=certificate.os_build,
        threads=certificate.threads,
        preset=certificate.preset,
    )


def too_fine(
    certificates: Sequence[Certificate],
    metric: Metric,
    threshold: float,
    pairs: int = GateRules().pairs,
) -> str:
    """Why a gate that was asked for this threshold must refuse; empty where it need not.

    ``certificates`` are those that hold (:func:`find`); where none has the metric nothing is known,
    and nothing refused. ``pairs`` is how many the gate begins with.
    """
    for one in certificates:
        for found in one.figures:
            mde = detectable(found.log_ratios, pairs) or found.mde
            if found.metric is metric and threshold < mde:
                return (
                    f"a change of {threshold:.2%} of {metric} cannot be told from noise here: "
                    f"the minimum detectable effect of this device with {pairs} pairs is "
                    f"{mde:.2%} (certificate of {one.created_utc[:10]})"
                )
    return ""

"""Is head slower than base? Sessions on one device, pair by pair, and what they decide.

A session's figure is the median of its samples; a pair's is the logarithm of head's figure over
base's. Iterations inside a process are not independent, so nothing here looks at them: sessions
are what is counted, flipped and resampled. docs/gate-method.md says why the rule is as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from deploy.report import stats
from deploy.types import Metric, Outcome, Paired, Session, Status, Tier

ALPHA = 0.025
"""One-sided error of a first look; a second look, with more pairs, has half of it."""

POWER = 0.9


@dataclass(frozen=True)
class Series:
    """One metric of one case: ``base[i]`` and ``head[i]`` are of the same pair.

    ``lost`` says of each pair that has no two figures why; ``tiers`` are those of the figures.
    """

    base: tuple[float, ...]
    head: tuple[float, ...]
    lost: tuple[str, ...] = ()
    tiers: frozenset[Tier] = frozenset()


def figure(session: Session, metric: Metric) -> tuple[float | None, str]:
    """A session's median, or None and why there is none that a ratio can be made of."""
    who = f"{session.side} of pair {session.pair + 1}"
    if session.case.status is not Status.OK:
        return None, f"{who} is {session.case.status}: {session.case.reason or 'no reason given'}"
    found = session.case.measurement(metric)
    if found is None:
        return None, f"{who} has no {metric}"
    if found.status is not Status.OK:
        return None, f"{metric} of {who} is {found.status}: {found.reason}"
    value = stats.median(found.samples)
    if value is None or value <= 0:
        return None, f"{metric} of {who} is not a positive number"
    return value, ""


def series(sessions: Sequence[Session], metric: Metric) -> Series:
    """Figures of the pairs that have both; of several sessions of a pair's side the first good."""
    base, head, lost = [], [], []
    tiers: set[Tier] = set()
    for number in sorted({session.pair for session in sessions}):
        values = []
        for side in ("base", "head"):
            value, why = _first(sessions, number, side, metric)
            values.append(value)
            if value is None:
                lost.append(why)
        if values[0] is not None and values[1] is not None:
            base.append(values[0])
            head.append(values[1])
    for session in sessions:
        found = session.case.measurement(metric)
        if found is not None and found.status is Status.OK:
            tiers.add(found.tier)
    return Series(tuple(base), tuple(head), tuple(lost), frozenset(tiers))


def loose(sessions: Sequence[Session], metric: Metric) -> Series:
    """All figures of either side, for sides that were measured at different times."""
    values: dict[str, list[float]] = {"base": [], "head": []}
    lost, tiers = [], set()
    for session in sorted(sessions, key=lambda session: session.order):
        value, why = figure(session, metric)
        found = session.case.measurement(metric)
        if value is None:
            lost.append(why)
        else:
            values[session.side].append(value)
            if found is not None:
                tiers.add(found.tier)
    return Series(tuple(values["base"]), tuple(values["head"]), tuple(lost), frozenset(tiers))


def _first(
    sessions: Sequence[Session], pair: int, side: str, metric: Metric
) -> tuple[float | None, str]:
    mine = [s for s in sessions if s.pair == pair and s.side == side]
    why = f"pair {pair + 1} has no {side}"
    for session in sorted(mine, key=lambda session: session.order):
        value, why = figure(session, metric)
        if value is not None:
            return value, ""
    return None, why


def needed(alpha: float) -> int:
    """Fewest pairs whose sign flips can come below ``alpha`` at all: 6 for 0.025, 7 for 0.0125."""
    return math.floor(-math.log2(alpha)) + 1


def enough(found: Series, alpha: float, *, stored: bool) -> bool:
    """Whether the permutation test of these figures can come below ``alpha`` at all."""
    if not stored:
        return len(found.base) >= needed(alpha)
    both = len(found.base) + len(found.head)
    return min(len(found.base), len(found.head)) > 0 and (
        1 / math.comb(both, len(found.head)) < alpha
    )


def evidence(
    found: Series, *, alpha: float, margin: float, mde: float | None, stored: bool, seed: int
) -> Paired | None:
    """The effect with its interval and p-values; None where there is nothing to compute it from.

    ``stored``: head's sessions against base's as two independent samples, because base was
    measured at another time; a pair's ratio is then head's figure over base's median.
    """
    base, head = [[math.log(v) for v in side] for side in (found.base, found.head)]
    if stored:
        before, after = stats.median(base), stats.median(head)
        if before is None or after is None:
            return None
        logs: list[float] = [value - before for value in head]
        effect: float | None = after - before
        p = stats.two_sample(base, head, seed=seed)
        interval = stats.difference_interval(base, head, alpha, seed=seed)
    else:
        logs = [now - was for was, now in zip(base, head, strict=True)]
        effect, p = stats.median(logs), stats.sign_flip(logs, seed=seed)
        interval = stats.median_interval(logs, alpha)
    if effect is None or p is None or interval is None:
        return None
    return Paired(
        ratios=tuple(map(_exp, logs)),
        ratio=_exp(effect),
        interval=(_exp(interval.low), _exp(interval.high)),
        p_worse=p.greater,
        p_better=p.less,
        alpha=alpha,
        margin=margin,
        mde=mde,
        design="stored" if stored else "paired",
    )


def _exp(value: float) -> float:
    """A ratio of two finite figures; where it is beyond a float's range, the range's end."""
    return math.exp(min(max(value, -700.0), 700.0))


def outcome(found: Paired) -> Outcome:
    """What the evidence says by itself.

    REGRESSED: the test rejects "no worse" and the whole interval lies above the margin. IMPROVED:
    the same with base and head exchanged. PASS: the whole interval lies below the margin; or below
    the minimum detectable effect of a device that cannot tell as little, where the test does not
    say that head is worse at all. Else INCONCLUSIVE.
    """
    low, high = found.interval
    if found.p_worse < found.alpha and low > 1 + found.margin:
        return Outcome.REGRESSED
    if found.p_better < found.alpha and high < 1 / (1 + found.margin):
        return Outcome.IMPROVED
    if high < 1 + found.margin:
        return Outcome.PASS
    if found.p_worse >= found.alpha and high < 1 + tolerance(found.margin, found.mde):
        return Outcome.PASS
    return Outcome.INCONCLUSIVE


def tolerance(margin: float, mde: float | None) -> float:
    """The relative change below which a PASS says that head's lies: the margin, or what is seen."""
    return max(margin, mde or 0.0)


def detectable(log_ratios: Sequence[float], pairs: int) -> float | None:
    """The minimum detectable effect of a gate of ``pairs`` pairs and its one extension.

    ``log_ratios`` are of the A/A pairs of a noise certificate. It is what the extended gate
    (twice the pairs, half the alpha) tells from nothing nine times out of ten.
    """
    return stats.minimum_detectable_effect(
        log_ratios, pairs=2 * pairs, alpha=ALPHA / 2, power=POWER
    )


def in_words(found: Paired) -> str:
    """``+9.8 % (95 % interval +6.1 % to +13.0 %, 6 pairs, p = 0.0156)``."""
    low, high = found.interval
    level = 100 * (1 - 2 * found.alpha)
    count = len(found.ratios)
    of = f"{count} pairs" if found.design == "paired" else f"{count} sessions, base from history"
    p = min(found.p_worse, found.p_better)
    return (
        f"{change(found.ratio)} ({level:g} % interval {change(low)} to {change(high)}, {of}, "
        f"p = {p:.2g})"
    )


def change(ratio: float) -> str:
    """A ratio as a signed relative change: ``+9.8 %``, ``-0.02 %``; ``0 %`` for none."""
    percent = 100 * (ratio - 1)
    if percent == 0:
        return "0 %"
    if abs(percent) >= 1000:
        return f"{percent:+.2g} %"
    return f"{percent:+.{1 if abs(percent) >= 0.1 else 3}f} %"

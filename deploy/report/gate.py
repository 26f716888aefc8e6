"""The gate: is head worse than base, and what do all verdicts come to.

A comparison has these parts; each leaves verdicts, and :func:`decide` makes one outcome of them:

* does head run where base does (:mod:`deploy.report.runs`);
* the primary metric of each case: exactly where it is deterministic, else by the sessions' pairs
  (:mod:`deploy.report.paired`), and only this can be INCONCLUSIVE for the whole;
* secondary metrics, Holm-corrected: they can fail a gate by being REGRESSED, and only so;
* the files and every other deterministic figure, exactly (:mod:`deploy.report.exact`).

Several things can be wrong at once; the exit code is the first of these that holds:

1. ``ParityError`` (5): an artifact computes something else, so its figures mean nothing;
2. ``EXIT_REGRESSED`` (8): a figure is over its limit or worse than base's;
3. ``MeasurementError`` (7): a case or a figure that was asked for is missing;
4. ``EXIT_INCONCLUSIVE`` (9): the figures do not decide;
5. 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from deploy.errors import (
    EXIT_INCONCLUSIVE,
    EXIT_OK,
    EXIT_REGRESSED,
    MeasurementError,
    ParityError,
)
from deploy.report import exact, paired, runs, stats
from deploy.report.budgets import CASE, PARITY, deterministic, judge_parity
from deploy.report.certificates import detectable
from deploy.types import (
    Certificate,
    GateRules,
    Metric,
    Outcome,
    Paired,
    Parity,
    Session,
    Side,
    Status,
    Tier,
    Verdict,
)

PRIMARY = "gate, primary"
SECONDARY = "gate, secondary"
"""Sources of verdicts: which of a case's metrics it is."""

NOTHING_IN_COMMON = "base and head"
"""Subject of the one verdict where nothing can be compared."""

_NO_PHONE = (
    "an {tier}'s times and energy are this machine's: only deterministic figures are gated there"
)


class Decision(NamedTuple):
    """What a whole run comes to."""

    outcome: Outcome
    exit_code: int


def decide(found: Sequence[Verdict]) -> Decision:
    """The outcome and exit code of a run, by the precedence at the top of this module.

    A secondary metric that is missing or undecided is in the report and does not count here. Where
    something worse was accepted on purpose, nothing makes the whole an improvement.
    """
    outcomes = {
        verdict.outcome
        for verdict in found
        if verdict.source != SECONDARY
        or verdict.outcome not in (Outcome.INVALID, Outcome.INCONCLUSIVE)
    }
    if any(v.outcome is Outcome.REGRESSED and v.metric == PARITY for v in found):
        return Decision(Outcome.REGRESSED, ParityError.exit_code)
    for outcome, code in (
        (Outcome.REGRESSED, EXIT_REGRESSED),
        (Outcome.INVALID, MeasurementError.exit_code),
        (Outcome.INCONCLUSIVE, EXIT_INCONCLUSIVE),
        (Outcome.IMPROVED, EXIT_OK),
    ):
        if outcome in outcomes:
            if outcome is Outcome.IMPROVED and any(verdict.accepted for verdict in found):
                break
            return Decision(outcome, code)
    return Decision(Outcome.PASS, EXIT_OK)


def undecided(verdicts: Sequence[Verdict]) -> bool:
    """Whether more pairs could decide a primary metric, so that the gate should be extended.

    Not where a deterministic figure has failed it already: more pairs would not undo that.
    """
    if decide(verdicts).outcome is Outcome.REGRESSED:
        return False
    return any(v.outcome is Outcome.INCONCLUSIVE and v.source == PRIMARY for v in verdicts)


def judge(
    base: Side,
    head: Side,
    sessions: Sequence[Session],
    *,
    rules: GateRules,
    certificates: Sequence[Certificate] = (),
    extended: bool = False,
    design: Literal["paired", "stored"] = "paired",
    parity: Sequence[Parity] = (),
    seed: int = 0,
) -> tuple[Verdict, ...]:
    """Compare head with base: their files, then each case that was measured of both.

    ``sessions`` are all of the comparison, also those that failed: of several cases, each is
    judged by itself. ``certificates`` are those that hold for this device, found by the caller.
    ``extended``: this is the second look, after twice the pairs, at half of alpha. ``parity`` is
    what ``verify`` found of head's files. That two things may be compared at all is the caller's
    to find out (:mod:`deploy.report.comparable`).

    Sessions that the infrastructure spoiled take their pair with them; with too few pairs left a
    metric is INCONCLUSIVE in a first look and INVALID in an extended one, never REGRESSED.

    Raises ``ConfigError`` where ``rules.allow`` is wrong (:func:`deploy.report.exact.check`).
    """
    exact.check(rules)
    look = _Look(base, head, rules, certificates, extended, design == "stored", seed)
    verdicts = [verdict for row in parity if (verdict := judge_parity(row))]
    verdicts += exact.files(base, head, rules)
    cases = _cases(sessions)
    for subject, mine in cases:
        verdicts += _judge_case(look, subject, mine)
    if not verdicts:
        verdicts.append(
            _missing(NOTHING_IN_COMMON, CASE, PRIMARY, "no file and no case is on both sides")
        )
    return tuple(verdicts)


@dataclass(frozen=True)
class _Look:
    """One look at a comparison: everything that its judgements have in common."""

    base: Side
    head: Side
    rules: GateRules
    certificates: Sequence[Certificate]
    extended: bool
    stored: bool
    seed: int

    @property
    def alpha(self) -> float:
        return paired.ALPHA / 2 if self.extended else paired.ALPHA

    def mde(self, sessions: Sequence[Session], metric: Metric) -> float | None:
        """The device's minimum detectable effect, where a certificate speaks of such a case."""
        case = sessions[0].case
        formats = {a.name: a.format for side in (self.base, self.head) for a in side.artifacts}
        for certificate in self.certificates:
            if certificate.threads != case.threads or certificate.profile != case.device:
                continue
            if formats.get(case.artifact, certificate.format) is not certificate.format:
                continue
            for row in certificate.figures:
                if row.metric is metric:
                    if row.pairs == self.rules.pairs:
                        return row.mde
                    return detectable(row.log_ratios, self.rules.pairs)
        return None


def _cases(sessions: Sequence[Session]) -> list[tuple[str, list[Session]]]:
    """Sessions by case. Where each side has one case of its own, the two are counterparts."""
    by_id: dict[str, list[Session]] = {}
    for session in sessions:
        by_id.setdefault(session.case.id, []).append(session)
    alone: dict[str, list[str]] = {"base": [], "head": []}
    for name, rows in by_id.items():
        if len(sides := {row.side for row in rows}) == 1:
            alone[sides.pop()].append(name)
    if len(alone["base"]) == len(alone["head"]) == 1:
        by_id[alone["head"][0]] += by_id.pop(alone["base"][0])
    return list(by_id.items())


def _judge_case(look: _Look, subject: str, sessions: Sequence[Session]) -> Iterator[Verdict]:
    yield from runs.judge(subject, sessions, source=PRIMARY)
    if not runs.comparable(sessions):
        return
    primary = look.rules.primary or _own_primary(sessions)
    tier = _tier(sessions, primary)
    if tier is not None and deterministic(primary, tier):
        yield from exact.figure(subject, primary, sessions, look.rules, source=PRIMARY)
    else:
        yield _judge_primary(look, subject, primary, sessions)
    secondary = []
    # Where counts are exact one pair suffices, and nobody meant it to answer for noisy figures.
    few = len({session.pair for session in sessions}) < paired.needed(paired.ALPHA)
    single = tier is not None and deterministic(primary, tier) and few
    for metric in () if single else dict.fromkeys(look.rules.secondary):
        tier = _tier(sessions, metric)
        if metric is primary or tier is None or exact.is_exact(metric, tier, look.rules):
            continue
        if not _foreign(metric, tier):
            secondary.append(metric)
    yield from _judge_secondary(look, subject, secondary, sessions)
    for metric in Metric:
        tier = _tier(sessions, metric)
        if metric is not primary and tier is not None and exact.is_exact(metric, tier, look.rules):
            yield from exact.figure(subject, metric, sessions, look.rules)


def _own_primary(sessions: Sequence[Session]) -> Metric:
    """``instructions`` where the device counts them exactly, else ``latency_ms``."""
    counted = _tier(sessions, Metric.INSTRUCTIONS) is Tier.EMULATOR
    return Metric.INSTRUCTIONS if counted else Metric.LATENCY_MS


def _tier(sessions: Sequence[Session], metric: Metric) -> Tier | None:
    """The tier of a metric's figures; None where no session has any."""
    for session in sessions:
        found = session.case.measurement(metric)
        if found is not None and found.status is Status.OK:
            return found.tier
    return None


def _foreign(metric: Metric, tier: Tier) -> bool:
    """Whether a figure of this tier says nothing about a phone."""
    if tier is Tier.ESTIMATE:
        return True
    timed = metric.value.endswith("_ms") or metric is Metric.ENERGY_MJ
    return tier is Tier.SIMULATOR or (tier is Tier.EMULATOR and timed)


def _series(look: _Look, sessions: Sequence[Session], metric: Metric) -> paired.Series:
    return (paired.loose if look.stored else paired.series)(sessions, metric)


def _evidence(look: _Look, found: paired.Series, mde: float | None) -> Paired | None:
    return paired.evidence(
        found,
        alpha=look.alpha,
        margin=look.rules.threshold,
        mde=mde,
        stored=look.stored,
        seed=look.seed,
    )


def _judge_primary(
    look: _Look, subject: str, metric: Metric, sessions: Sequence[Session]
) -> Verdict:
    found = _series(look, sessions, metric)
    if len(found.tiers) > 1:
        return _missing(
            subject, metric, PRIMARY, "base and head are of different tiers: never compared"
        )
    tier = next(iter(found.tiers), None)
    if tier is not None and _foreign(metric, tier):
        return _missing(subject, metric, PRIMARY, _NO_PHONE.format(tier=tier))
    lost = _lost(found)
    shown = _evidence(look, found, look.mde(sessions, metric))
    if shown is None:
        return _missing(subject, metric, PRIMARY, lost or "no session has this figure")
    if not paired.enough(found, paired.ALPHA, stored=look.stored):
        short = f"too few sessions that can be compared: {lost or 'more are needed'}"
        if look.extended or look.stored:
            return _missing(subject, metric, PRIMARY, short)
        return _noisy(
            subject, metric, found, shown, Outcome.INCONCLUSIVE, source=PRIMARY, note=short
        )
    return _noisy(subject, metric, found, shown, paired.outcome(shown), source=PRIMARY, note=lost)


def _judge_secondary(
    look: _Look, subject: str, metrics: Sequence[Metric], sessions: Sequence[Session]
) -> Iterator[Verdict]:
    """Each metric as the primary is, but that p must also survive Holm among all of them."""
    shown: list[tuple[Metric, paired.Series, Paired]] = []
    for metric in metrics:
        found = _series(look, sessions, metric)
        evidence = _evidence(look, found, look.mde(sessions, metric))
        if len(found.tiers) > 1:
            yield _missing(subject, metric, SECONDARY, "base and head are of different tiers")
        elif evidence is None or not paired.enough(found, paired.ALPHA, stored=look.stored):
            lost = _lost(found) or "more are needed"
            yield _missing(subject, metric, SECONDARY, f"too few comparable sessions: {lost}")
        else:
            shown.append((metric, found, evidence))
    worse = stats.holm([evidence.p_worse for _, _, evidence in shown], look.alpha)
    better = stats.holm([evidence.p_better for _, _, evidence in shown], look.alpha)
    for (metric, found, evidence), is_worse, is_better in zip(shown, worse, better, strict=True):
        outcome, note = paired.outcome(evidence), _lost(found)
        if (outcome is Outcome.REGRESSED and not is_worse) or (
            outcome is Outcome.IMPROVED and not is_better
        ):
            outcome = Outcome.INCONCLUSIVE
            note = f"not significant among {len(shown)} secondary metrics (Holm)"
        yield _noisy(subject, metric, found, evidence, outcome, source=SECONDARY, note=note)


def _noisy(
    subject: str,
    metric: Metric,
    found: paired.Series,
    shown: Paired,
    outcome: Outcome,
    *,
    source: str,
    note: str,
) -> Verdict:
    base, head = stats.median(found.base), stats.median(found.head)
    reason = paired.in_words(shown)
    if outcome in (Outcome.PASS, Outcome.INCONCLUSIVE):
        reason += _meaning(shown, outcome)
    return Verdict(
        outcome=outcome,
        subject=subject,
        metric=metric,
        value=head,
        limit=None if base is None else base * (1 + shown.margin),
        source=source,
        reason="; ".join((reason, *((note,) if note else ()))),
        tier=next(iter(found.tiers), None),
        base_value=base,
        paired=shown,
    )


def _meaning(shown: Paired, outcome: Outcome) -> str:
    worse = shown.p_worse < shown.alpha
    if outcome is Outcome.PASS:
        if worse:
            return "; worse for certain, by less than counts"
        if shown.interval[1] >= 1 + shown.margin:
            seen = 100 * paired.tolerance(shown.margin, shown.mde)
            return f"; below {seen:.1f} %, the least that this device can tell"
        return ""
    if worse:
        return f"; worse for certain, but not for certain by {100 * shown.margin:g} %"
    if shown.mde is None:
        return "; no noise certificate says what this device can tell"
    return ""


def _lost(found: paired.Series) -> str:
    if not found.lost:
        return ""
    more = f" and {len(found.lost) - 1} more" if len(found.lost) > 1 else ""
    return f"left out: {found.lost[0]}{more}"


def _missing(subject: str, metric: str, source: str, reason: str) -> Verdict:
    return Verdict.without_figure(Outcome.INVALID, subject, metric, reason, source=source)

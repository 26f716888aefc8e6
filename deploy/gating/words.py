"""A gate's result for a terminal: the verdict first, then what changed, by how much, on what."""

from __future__ import annotations

from collections.abc import Sequence

from deploy.report import figures, gate
from deploy.report.certificates import detectable
from deploy.report.tables import plain, why
from deploy.types import Certificate, GateReport, Outcome, Side, Tier, Verdict

_ORDER = (
    Outcome.REGRESSED,
    Outcome.INVALID,
    Outcome.INCONCLUSIVE,
    Outcome.IMPROVED,
    Outcome.PASS,
)
_MEANING = {
    Outcome.PASS: "head is as good as base",
    Outcome.IMPROVED: "head is better than base",
    Outcome.REGRESSED: "head is worse than base",
    Outcome.INCONCLUSIVE: "the figures do not decide",
    Outcome.INVALID: "what was asked could not be measured",
}
_LINES = 20
_PARITY = 5
_TIER = {
    Tier.HOST: "this machine, not a phone",
    Tier.EMULATOR: "an emulated phone: instructions, no times",
    Tier.SIMULATOR: "a simulator: deterministic figures only",
}


def lines(report: GateReport, notes: Sequence[str]) -> tuple[str, ...]:
    """The report in plain text, a line each, ready to print (no markup in it)."""
    told = [headline(report), *(f"  {line}" for line in _circumstances(report))]
    told += [f"  {_noise(one, report.rules.pairs)}" for one in report.certificates]
    shown = sorted(report.verdicts, key=_weight)
    told += [f"  {line}" for line in (sentence(verdict) for verdict in shown[:_LINES])]
    if len(shown) > _LINES:
        told.append(f"  ... and {len(shown) - _LINES} more in gate.json")
    told += [f"  {plain(note)}" for note in notes]
    told += [
        f"  in force: {plain(one.subject)}: {plain(one.metric)} may come to {one.up_to:g}x until "
        f"{one.until} ({plain(one.by)}: {plain(one.reason)})"
        for one in report.accepted
    ]
    return tuple(told)


def _weight(verdict: Verdict) -> tuple[int, bool]:
    return _ORDER.index(verdict.outcome), verdict.source != gate.PRIMARY


def headline(report: GateReport) -> str:
    """Outcome, what it means, what decided, and the exit code: one line."""
    meaning = _MEANING[report.outcome]
    if report.exit_code == _PARITY:
        meaning = "head does not compute what its program computes"
    elif not report.verdicts:
        meaning = "nothing was judged"
    if report.outcome is Outcome.PASS and (agreed := [v for v in report.verdicts if v.accepted]):
        meaning = f"what is worse was accepted on purpose: {_first(agreed)}"
    deciding = [v for v in report.verdicts if v.outcome is report.outcome]
    if report.outcome is not Outcome.PASS and deciding:
        meaning += f": {_first(deciding)}"
    return f"{report.outcome}: {meaning}. Exit code {report.exit_code}."


def _first(verdicts: Sequence[Verdict]) -> str:
    """The first one's subject and metric, and how many more there are."""
    more = f" and {len(verdicts) - 1} more" if len(verdicts) > 1 else ""
    return f"{plain(verdicts[0].subject)}: {plain(verdicts[0].metric)}{more}"


def _circumstances(report: GateReport) -> list[str]:
    sides = f"base {_side(report.base)}; head {_side(report.head)}"
    if report.device is None:
        return [sides, "no device: only what can be seen of the files was compared"]
    name = plain(report.device.profile.name)
    tier = report.device.info.tier if report.device.info else report.device.profile.tier
    pairs = len({session.pair for session in report.sessions})
    stored = any(v.paired and v.paired.design == "stored" for v in report.verdicts)
    how = f"{pairs} pairs of sessions" if pairs != 1 else "1 pair of sessions"
    if report.base.kind == "history" or stored:
        how = "base was measured at another time: weaker evidence than pairs in one go"
    return [sides, f"{name} ({_TIER.get(tier, tier)}); {how}"]


def _noise(certificate: Certificate, pairs: int) -> str:
    """Which certificate holds, and what it says that a gate of so many pairs can tell apart."""
    seen = []
    for one in certificate.figures:
        mde = detectable(one.log_ratios, pairs)
        if mde is not None:
            seen.append(f"{one.metric} {100 * mde:.2g} %")
    of = f"{certificate.format}, {figures.threads(certificate.threads)}"
    return (
        f"noise certificate of {plain(certificate.created_utc[:10])} ({of}): can tell apart "
        f"{', '.join(seen) or 'nothing'}"
    )


def _side(side: Side) -> str:
    commit = (
        f" ({side.commit[:12]}{'+' if side.commit.endswith('+') else ''})" if side.commit else ""
    )
    return f"{plain(side.label)}{commit}"


def sentence(verdict: Verdict) -> str:
    """``REGRESSED  int8.onnx@host/t1: latency_ms: 1.20 → 1.35 ms: +12.1 % (...)``."""
    unit = figures.UNITS.get(verdict.metric, "")
    parts = []
    if verdict.base_value is not None and verdict.value is not None:
        before = figures.figure(verdict.metric, verdict.base_value)
        after = figures.figure(verdict.metric, verdict.value)
        parts.append(f"{before} → {after} {unit}".rstrip())
    elif verdict.value is not None:
        parts.append(f"{figures.figure(verdict.metric, verdict.value)} {unit}".rstrip())
    if verdict.reason:
        parts.append(why(verdict.reason))
    if verdict.accepted:
        parts.append(f"accepted: {plain(verdict.accepted)}")
    said = ": ".join(parts)
    return f"{verdict.outcome.value:<12} {plain(verdict.subject)}: {plain(verdict.metric)}: {said}"

"""Tables of a gate: every verdict with its evidence, every session, what was signed off."""

from __future__ import annotations

from collections.abc import Sequence

from deploy.report import figures
from deploy.report.formats import judged
from deploy.report.formats.judged import Line, percent
from deploy.report.tables import (
    OUTCOME_TONES,
    Cell,
    Column,
    Table,
    missing,
    name,
    nothing,
    pairs,
    plain,
)
from deploy.types import GateReport, Metric, Side, Status, Tier, Verdict


def verdicts(lines: Sequence[Line]) -> Table | None:
    """Every verdict with all of its evidence, worst first."""
    if not lines:
        return None
    return Table(
        caption="Verdicts",
        columns=(
            Column("Subject"),
            Column("Metric"),
            Column("Outcome"),
            Column("Head", number=True),
            Column("Change", number=True),
            Column("Counts from", number=True),
            Column("p", number=True),
            Column("Why"),
        ),
        rows=tuple(_verdict(one) for one in lines),
        notes=(
            "Change: the median over pairs with its interval where sessions were paired, else head "
            "against base. Counts from: the margin of noisy figures, the limit of exact ones. p: "
            "one-sided, of the direction that the change has. The share of the device is the "
            "smallest change that its noise certificate lets it tell.",
        ),
    )


def _verdict(line: Line) -> tuple[Cell, ...]:
    v, tier, paired = line.verdict, line.tier, line.verdict.paired
    change, margin, p = nothing(), nothing(), nothing()
    if paired is not None:
        low, high = (percent(edge) for edge in paired.interval)
        change = Cell(percent(paired.ratio), f"{low} to {high}")
        own = "not certified" if paired.mde is None else f"device {figures.share(paired.mde)}"
        margin = Cell(figures.share(paired.margin), own)
        worse = paired.ratio > 1
        p = Cell(
            figures.significant(paired.p_worse if worse else paired.p_better, 2),
            f"of {figures.limit(paired.alpha)}",
        )
    else:
        if exact := judged.change(v):
            change = Cell(exact)
        if v.limit is not None:
            margin = Cell(figures.limit(v.limit), "limit")
    return (
        name(v.subject),
        Cell(plain(figures.title(v.metric))),
        Cell(str(v.outcome), "accepted" if v.accepted else "", tone=OUTCOME_TONES[v.outcome]),
        nothing() if v.value is None else _head(v, tier),
        change,
        margin,
        p,
        Cell(judged.reason(v), plain(v.source)),
    )


def _head(v: Verdict, tier: Tier) -> Cell:
    before = "" if v.base_value is None else f"base {figures.figure(v.metric, v.base_value)}"
    return Cell(figures.figure(v.metric, v.value or 0.0), before, tier=tier)


def sessions(gate: GateReport) -> Table | None:
    """Every session in the order of time with what it measured, None where none was run."""
    metrics = [
        metric
        for metric in Metric
        if any(
            (found := session.case.measurement(metric)) and found.samples
            for session in gate.sessions
        )
    ]
    if not gate.sessions:
        return None
    rows = []
    for session in sorted(gate.sessions, key=lambda one: one.order):
        cells = []
        for metric in metrics:
            found = session.case.measurement(metric)
            if found is None:
                cells.append(nothing())
            elif found.median is None:
                cells.append(missing(found.status, found.reason))
            else:
                cells.append(Cell(figures.figure(metric, found.median), tier=found.tier))
        good = session.case.status is Status.OK
        rows.append(
            (
                Cell(f"{session.order}", f"pair {session.pair}"),
                Cell(session.side),
                name(session.case.artifact),
                Cell(
                    session.case.status.replace("_", " "),
                    "" if good else plain(session.case.reason),
                    tone="good" if good else "bad",
                ),
                *cells,
            )
        )
    return Table(
        caption="Sessions",
        columns=(
            Column("Session"),
            Column("Side"),
            Column("Artifact"),
            Column("Result"),
            *(Column(figures.title(metric), number=True) for metric in metrics),
        ),
        rows=tuple(rows),
        notes=("Each is a fresh process; each figure the median of its samples.",),
    )


def accepted(gate: GateReport) -> Table | None:
    """The signed-off changes that are in force, None where there is none."""
    if not gate.accepted:
        return None
    return Table(
        caption="Changes that were signed off and are in force",
        columns=(
            Column("Subject"),
            Column("Metric"),
            Column("Up to", number=True),
            Column("By"),
            Column("Until"),
            Column("Why"),
        ),
        rows=tuple(
            (
                name(one.subject),
                Cell(plain(one.metric)),
                Cell(figures.ratio(one.up_to)),
                Cell(plain(one.by)),
                Cell(one.until.isoformat(), f"since {one.since.isoformat()}"),
                Cell(plain(one.reason)),
            )
            for one in gate.accepted
        ),
    )


def certificates(gate: GateReport) -> Table | None:
    """How much each figure varies on the device by itself, None where nobody found out."""
    rows = [(one, figure) for one in gate.certificates for figure in one.figures]
    if not rows:
        return None
    return Table(
        caption="Noise certificates of this device",
        columns=(
            Column("Metric"),
            Column("Made with"),
            Column("Varies between sessions by", number=True),
            Column("Smallest change that can be told", number=True),
            Column("Pairs", number=True),
            Column("Made, UTC"),
        ),
        rows=tuple(
            (
                Cell(plain(figures.title(figure.metric))),
                name(one.artifact, f"{one.format}, preset {plain(one.preset)}"),
                Cell(figures.share(figure.between_sd), tier=one.tier),
                Cell(figures.share(figure.mde), tier=one.tier),
                Cell(figures.count(figure.pairs)),
                Cell(plain(one.created_utc)),
            )
            for one, figure in rows
        ),
    )


def provenance(gate: GateReport) -> Table:
    """The two sides and the rules: what one needs to decide again."""
    rules = gate.rules
    primary = str(rules.primary) if rules.primary else "the device's own"
    rows = [
        *_side("Base", gate.base),
        *_side("Head", gate.head),
        (Cell("Gate"), Cell(plain(gate.run_id))),
        (Cell("Made, UTC"), Cell(plain(gate.created_utc))),
        (Cell("pocketship"), Cell(plain(gate.pocketship_version))),
        (Cell("Seed"), Cell(str(gate.seed))),
        (Cell("Decides"), Cell(primary)),
        (Cell("Counts from"), Cell(figures.share(rules.threshold))),
        (Cell("Pairs asked for"), Cell(str(rules.pairs))),
    ]
    return pairs("How it was decided", rows)


def _side(what: str, side: Side) -> list[tuple[Cell, Cell]]:
    return [
        (Cell(what), name(side.label, side.kind)),
        (
            Cell(f"{what}: commit"),
            name(side.commit) if side.commit else missing("unknown", "it is of no commit"),
        ),
    ]

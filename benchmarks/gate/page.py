"""The page and its last lines: tables of shares, and each target beside the figure reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.gate import contenders, devices, simulated
from benchmarks.gate.simulated import Cell

FALSE_AT_MOST = 0.05
POWER_AT_LEAST = 0.90
LARGE = 0.10
TITLES = {
    0.0: "REGRESSED though nothing changed",
    0.02: "REGRESSED though +2 % is less than counts",
    LARGE: "+10 % found",
}
NAMED = ("independent", "drift", "warming", "autocorrelated")
"""Kinds whose variation is what is said; the others add to it."""


@dataclass(frozen=True)
class Target:
    """One line: what was asked, what was reached, and whether that is it."""

    asked: str
    reached: str
    met: bool

    def line(self) -> str:
        """As the benchmark prints it."""
        return f"{'met   ' if self.met else 'MISSED'}  {self.asked}: {self.reached}"


def percent(share: float) -> str:
    """``3 %``, ``0.15 %``, ``97.3 %``."""
    return f"{100 * share:.4g} %"


def targets(part: dict[str, Any]) -> list[Target]:
    """The simulated devices' targets. A bound of the estimate stands beside it."""
    ours = [cell for cell in simulated.read(part) if cell.contender == contenders.OURS]
    found = []
    for sd in simulated.SDS:
        worst = max(
            (cell for cell in ours if cell.sd == sd and cell.change == 0),
            key=lambda cell: cell.share("REGRESSED"),
        )
        bound = contenders.upper_bound(worst.said.get("REGRESSED", 0), worst.devices)
        found.append(
            Target(
                f"false regressions, A/A, {percent(sd)} variation, at most "
                f"{percent(FALSE_AT_MOST)}",
                f"{percent(worst.share('REGRESSED'))} on the worst of {len(devices.KINDS)} kinds "
                f"of device ({worst.kind}), upper bound {percent(bound)}",
                bound <= FALSE_AT_MOST,
            )
        )
    weakest = min(
        (c for c in ours if c.sd == 0.03 and c.change == LARGE and c.kind in NAMED),
        key=lambda cell: cell.share("REGRESSED"),
    )
    bound = contenders.lower_bound(weakest.said.get("REGRESSED", 0), weakest.devices)
    found.append(
        Target(
            f"power, +10 %, 3 % variation, at least {percent(POWER_AT_LEAST)}",
            f"{percent(weakest.share('REGRESSED'))} on the worst of {', '.join(NAMED)} "
            f"({weakest.kind}), lower bound {percent(bound)}",
            bound >= POWER_AT_LEAST,
        )
    )
    return found


def tables(part: dict[str, Any]) -> list[str]:
    """Markdown of the simulated part."""
    cells = list(simulated.read(part))
    lines = [
        f"{part['devices']:,} devices of each kind, seed {part['seed']}, "
        f"{part['seconds']:.0f} s. Shares of devices in per cent.",
        "",
    ]
    for change, sds in simulated.CHANGES.items():
        for sd in sds:
            rows = [c for c in cells if c.sd == sd and c.change == change]
            title = TITLES[change]
            lines += [f"#### {percent(sd)} between sessions: {title}", "", *_shares(rows), ""]
    lines += ["#### What ours says, and how often six more pairs are needed", ""]
    lines += _words([cell for cell in cells if cell.contender == contenders.OURS])
    lines += ["", "#### Errors of intervals: six pairs, 2.5 % nominal on each side", ""]
    lines += _intervals(part["intervals"])
    lines += ["", "#### Changes as large as the minimum detectable effect", ""]
    return [*lines, *_effects(part["effects"])]


def _shares(rows: Sequence[Cell]) -> list[str]:
    kinds = [kind.name for kind in devices.KINDS]
    lines = _head("rule", kinds)
    for contender in contenders.CONTENDERS:
        mine = {row.kind: row for row in rows if row.contender == contender.name}
        shares = [f"{100 * mine[kind].share('REGRESSED'):.1f}" for kind in kinds]
        lines.append(_row(contender.name, shares))
    return lines


def _words(rows: Sequence[Cell]) -> list[str]:
    words = ("PASS", "IMPROVED", "REGRESSED", "INCONCLUSIVE")
    lines = _head("variation, change, kind", (*words, "extended"))
    for row in sorted(rows, key=lambda row: (row.change, row.sd)):
        shares = [f"{100 * row.share(word):.1f}" for word in words]
        more = f"{100 * (row.extended or 0) / row.devices:.1f}"
        lines.append(
            _row(f"{percent(row.sd)}, +{percent(row.change)}, {row.kind}", [*shares, more])
        )
    return lines


def _intervals(found: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    kinds = list(next(iter(found.values())))
    columns = [f"{kind}: {what}" for kind in kinds for what in ("low end above", "high end below")]
    lines = _head("interval", columns)
    for name, by_kind in found.items():
        shares = [
            f"{100 * by_kind[kind][what]:.1f}" for kind in kinds for what in ("above", "below")
        ]
        lines.append(_row(name, shares))
    return lines


def _effects(found: Sequence[dict[str, float]]) -> list[str]:
    lines = _head("variation", ("effect", "told from nothing"))
    for row in found:
        shares = [percent(row["mde"]), percent(row["told"] / row["devices"])]
        lines.append(_row(percent(row["sd"]), shares))
    return lines


def _head(first: str, columns: Sequence[str]) -> list[str]:
    return [_row(first, columns), _row("---", ["---:"] * len(columns))]


def _row(first: str, others: Sequence[str]) -> str:
    return f"| {' | '.join((first, *others))} |"


def legend() -> list[str]:
    """Who the contenders and the devices are."""
    lines = [f"- **{one.name}**: {one.about}" for one in contenders.CONTENDERS]
    return [*lines, "", *(f"- *{kind.name}*: {kind.about}" for kind in devices.KINDS)]

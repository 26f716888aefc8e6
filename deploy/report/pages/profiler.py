"""Where the time of an inference goes: the dearest operators of each case that has a profile."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from deploy.report import figures
from deploy.report.operators import SHOWN
from deploy.report.pages.plots import Frame, Plot, label, row_height, rows_axis
from deploy.report.tables import case_words
from deploy.types import Case, OperatorCost, Tier

_TITLE = "Cost of each operator"


def plot(cases: Sequence[Case]) -> Plot:
    """One picture a case, chosen above it, or why no case has a profile."""
    profiled = [case for case in cases if any(row.samples for row in case.operators)]
    if not profiled:
        reasons = dict.fromkeys(case.operators_reason for case in cases if case.operators_reason)
        reason = "; ".join(reasons) or "the operators pass was not asked for"
        return Plot(id="operators", title=_TITLE, reason=reason)
    tiers = {case.measurements[0].tier for case in profiled if case.measurements}
    return Plot(
        id="operators",
        title=_TITLE,
        tiers=tuple(tier for tier in Tier if tier in tiers),
        frames=tuple(_frame(case) for case in profiled),
        described=f"The {SHOWN} dearest operators of each of {len(profiled)} cases.",
        see="the tables of operators below",
        notes=(
            "From a pass of its own: profiling costs time, so compare operators with each other "
            "and not with the case's latency.",
        ),
    )


def _frame(case: Case) -> Frame:
    costs = [(statistics.median(row.samples), row) for row in case.operators if row.samples]
    dearest = sorted(costs, key=lambda pair: -pair[0])[:SHOWN]
    total = sum(cost for cost, _ in costs)
    unit = case.operators[0].unit
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": [cost for cost, _ in dearest],
        "y": list(range(len(dearest))),
        "text": [figures.share(cost / total) if total else "" for cost, _ in dearest],
        "textposition": "auto",
        "hovertext": [_hover(row) for _, row in dearest],
        "hoverinfo": "x+text",
        "meta": {"colour": 0},
    }
    layout = {
        "yaxis": rows_axis([label(row.name, 30) for _, row in dearest]),
        "xaxis": {"title": {"text": f"{unit} an inference, median"}},
        "showlegend": False,
    }
    return Frame(case_words(case), (trace,), layout, row_height(len(dearest)))


def _hover(row: OperatorCost) -> str:
    layers = f"; layer {', '.join(row.layers)}" if row.layers else ""
    return label(f"{row.kind} on {row.backend}{layers}", 120)

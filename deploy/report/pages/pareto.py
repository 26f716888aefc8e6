"""Size, accuracy, cost: which variants no other variant beats in all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deploy.report import figures, ledger
from deploy.report.pages.plots import Frame, Plot, label
from deploy.report.tables import RUNTIMES, Cell, Column, Table, name, nothing, plain
from deploy.types import Case, Metric, Report, Tier

_STEADY = (Metric.LATENCY_MS, Metric.INSTRUCTIONS)


@dataclass(frozen=True)
class Option:
    """Something to choose from. ``bytes`` and ``cost`` are better when less, ``metric`` when more.

    ``cost`` is None where nothing was measured; then size and accuracy decide alone.
    """

    name: str
    bytes: float
    metric: float
    cost: float | None = None


@dataclass(frozen=True)
class _Scales:
    """What the options of a plot are measured by; ``cost`` is empty where nothing was measured."""

    metric: str
    cost: str
    device: str
    tier: Tier | None


def front(options: Sequence[Option]) -> tuple[bool, ...]:
    """For each option whether it is on the Pareto front: no other is as good in everything and
    better in something. Options without a cost are beaten in it by none and beat none in it.
    """
    return tuple(not any(_beats(other, one) for other in options) for one in options)


def _beats(other: Option, one: Option) -> bool:
    gains = [one.bytes - other.bytes, other.metric - one.metric]
    if other.cost is not None and one.cost is not None:
        gains.append(one.cost - other.cost)
    elif (other.cost is None) != (one.cost is None):
        return False  # Not comparable: nobody knows whether it is dearer.
    return min(gains) >= 0 and max(gains) > 0


def plots(report: Report) -> tuple[Plot, ...]:
    """One plot of the recipe's steps, and one of the exported files for each device and tier."""
    found = [_steps(report), *_artifacts(report)]
    if told := [plot for plot in found if plot is not None]:
        return tuple(told)
    reason = "fewer than two variants have both a size and a task metric"
    return (Plot(id="pareto", title="Size, accuracy, cost", reason=reason),)


def _steps(report: Report) -> Plot | None:
    options, costs, name_of = [], set(), ""
    for step in ledger.steps(report):
        row = step.row
        if row.quality is None or row.quality.metric == ledger.NO_METRIC:
            continue
        name_of = row.quality.metric
        cost = row.cost
        if cost is not None and cost.value is not None:
            costs.add((cost.device, cost.metric, cost.tier))
        value = cost.value if cost is not None else None
        label_ = step.label if row.kept else f"{step.label} (dropped)"
        options.append(Option(label_, row.program_bytes, row.quality.metric_value, value))
    if len(options) < 2:
        return None
    if len(costs) > 1:  # Costs of two places are not one scale.
        options = [Option(o.name, o.bytes, o.metric) for o in options]
    device, metric, tier = next(iter(costs)) if len(costs) == 1 else ("", "", "")
    known = Tier(tier) if tier in set(Tier) else None
    scales = _Scales(name_of, metric, device, known)
    return _plot("steps", "Steps of the recipe", options, scales)


def _artifacts(report: Report) -> list[Plot]:
    quality = {p.artifact: p.quality for p in report.parity if p.quality is not None}
    places: dict[tuple[str, int, Metric, Tier], list[Case]] = {}
    for case in report.cases:
        found = next(
            (m for metric in _STEADY if (m := case.measurement(metric)) and m.samples), None
        )
        if found:
            key = (case.device, case.threads, found.metric, found.tier)
            places.setdefault(key, []).append(case)
    made = {artifact.name: artifact for artifact in report.artifacts}
    plots_ = []
    for number, ((device, threads, metric, tier), cases) in enumerate(places.items()):
        options, name_of = [], ""
        for case in cases:
            artifact, judged = made.get(case.artifact), quality.get(case.artifact)
            measured = case.measurement(metric)
            if artifact is None or judged is None or measured is None:
                continue
            if judged.metric == ledger.NO_METRIC:
                continue
            name_of = judged.metric
            label_ = f"{artifact.variant}, {RUNTIMES[artifact.format]}"
            options.append(Option(label_, artifact.bytes, judged.metric_value, measured.median))
        if len(options) > 1:
            title = f"Exported files on {plain(device)}, {threads} thread{'s' * (threads != 1)}"
            scales = _Scales(name_of, metric, device, tier)
            plots_.append(_plot(f"files-{number}", title, options, scales))
    return plots_


def _plot(key: str, title: str, options: list[Option], scales: _Scales) -> Plot:
    name_of, cost_metric, tier = scales.metric, scales.cost, scales.tier
    on_front = front(options)
    best = [o for o, good in zip(options, on_front, strict=True) if good]
    return Plot(
        id=f"pareto-{key}",
        title=title,
        tiers=(Tier.HOST,) if tier in (None, Tier.HOST) else (Tier.HOST, tier),
        frames=(Frame("", _traces(options, on_front, cost_metric), _layout(name_of), 380),),
        described=plain(
            f"{len(options)} options by bytes and {name_of}; not beaten in everything: "
            f"{', '.join(o.name for o in best)}."
        ),
        table=_table(options, on_front, scales),
        notes=(
            "Filled: on the Pareto front, no other is at least as good in everything and better "
            "in something.",
            f"The larger the mark, the dearer an inference on {plain(scales.device)} ({tier})."
            if cost_metric and tier
            else "Nothing was measured on a device here, so only size and accuracy are compared.",
            "Bytes and task metric are of the host.",
        ),
    )


def _traces(
    options: Sequence[Option], on_front: Sequence[bool], cost_metric: str
) -> tuple[dict[str, Any], ...]:
    dearest = max((o.cost for o in options if o.cost is not None), default=0) or 1
    traces = []
    for good, words in ((True, "on the front"), (False, "beaten by another")):
        here = [o for o, on in zip(options, on_front, strict=True) if on is good]
        if not here:
            continue
        traces.append(
            {
                "type": "scatter",
                "mode": "markers+text" if good else "markers",
                "x": [o.bytes for o in here],
                "y": [o.metric for o in here],
                "text": [label(o.name, 24) for o in here] if good else [],
                "textposition": "top center",
                "cliponaxis": False,
                "hovertext": [_hover(o, cost_metric) for o in here],
                "hovertemplate": "%{hovertext}<extra></extra>",
                "name": words,
                "marker": {
                    # The area stands for the cost, as areas are what eyes compare.
                    "size": [10 if o.cost is None else 8 + 22 * (o.cost / dearest) ** 0.5
                             for o in here],
                    "symbol": "circle" if good else "circle-open",
                    "opacity": 0.8,
                },
                "meta": {"colour": 0 if good else 1},
            }
        )  # fmt: skip
    return tuple(traces)


def _hover(option: Option, cost_metric: str) -> str:
    cost = ""
    if option.cost is not None:
        unit = figures.UNITS.get(cost_metric, cost_metric)
        cost = f"<br>{figures.figure(cost_metric, option.cost)} {label(unit)}"
    size = figures.count(option.bytes)
    return f"{label(option.name, 60)}<br>{size} bytes<br>{option.metric:.4g}{cost}"


def _layout(name_of: str) -> dict[str, Any]:
    return {
        "xaxis": {"title": {"text": "bytes"}, "zeroline": False, "tickformat": "~s"},
        "yaxis": {"title": {"text": label(name_of)}, "zeroline": False},
        "showlegend": True,
    }


def _table(options: Sequence[Option], on_front: Sequence[bool], scales: _Scales) -> Table:
    cost_metric, device, tier = scales.cost, scales.device, scales.tier
    unit = figures.UNITS.get(cost_metric, cost_metric)
    some = any(option.cost is not None for option in options)
    return Table(
        caption="Size, accuracy, cost",
        columns=(
            Column("Option"),
            Column("Bytes", number=True, tier=Tier.HOST),
            Column(plain(scales.metric), number=True, tier=Tier.HOST),
            *(
                [Column(f"An inference on {plain(device)}, {plain(unit)}", number=True, tier=tier)]
                if some
                else []
            ),
            Column("Pareto front"),
        ),
        rows=tuple(
            (
                name(option.name),
                Cell(figures.count(option.bytes)),
                Cell(figures.significant(option.metric)),
                *(
                    [
                        nothing()
                        if option.cost is None
                        else Cell(figures.figure(cost_metric, option.cost))
                    ]
                    if some
                    else []
                ),
                Cell("on it", tone="good") if good else Cell("beaten"),
            )
            for option, good in zip(options, on_front, strict=True)
        ),
    )

"""Two runs side by side: each figure that both have, and what only one has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deploy.report import comparable, figures
from deploy.report.pages import comparison_plots, paired_cases, site
from deploy.report.pages.paired_cases import Pair
from deploy.report.tables import Cell, Column, Table, Tone, missing, name, nothing, plain, words_of
from deploy.types import GateReport, Measurement, Metric, Report, Tier

FILE = "compare.html"
_HIGHER_IS_BETTER = (Metric.TASK_METRIC,)
_SAME = 0.005
_OPEN_ROWS = 500  # A longer table is folded: laying it out is most of the time that a page takes.


def write(left: Report, right: Report, folder: Path, *, gate: GateReport | None = None) -> Path:
    """Write the comparison's page into ``folder``; return its path."""
    site.write(build(left, right, gate=gate), folder)
    return folder / FILE


def build(left: Report, right: Report, *, gate: GateReport | None = None) -> dict[str, str]:
    """The page by its file name. It shows; it decides nothing: that is the gate's.

    Of a ``gate`` that judged the same files on the same device the intervals are drawn; of another
    one nothing is, and the page says so.
    """
    names = _names(left, right)
    pairs = paired_cases.pairs(left, right)
    judged = paired_cases.judged(gate, left, right) if gate else {}
    files = sorted({a.name for a in left.artifacts} & {a.name for a in right.artifacts})
    told = f"{len(pairs)} cases and {len(files)} files are in both."
    if not pairs and not files:
        told = "The two runs have no case and no file in common: there is nothing to compare."
    page = site.render(
        "compare.html.j2",
        page=FILE,
        title=f"{names[0]} and {names[1]}",
        links=[],
        names=names,
        told=told,
        runs=_runs(left, right),
        gate=_gate(gate, judged) if gate else "",
        ratios=comparison_plots.ratios(pairs, judged, names) if pairs else [],
        samples=comparison_plots.distributions(pairs, names) if pairs else [],
        figures=_figures(pairs, names),
        open_rows=_OPEN_ROWS,
        files=_files(left, right, names),
        only=[
            *(f"only {names[0]}: {text}" for text in _only(left, right)),
            *(f"only {names[1]}: {text}" for text in _only(right, left)),
        ],
    )
    return {FILE: page}


def _gate(gate: GateReport, judged: paired_cases.Judged) -> str:
    what = plain(f"gate {gate.run_id} of {gate.head.label} against {gate.base.label}")
    if judged:
        return f"The {what} judged the same files on the same device: its intervals are drawn."
    return (
        f"Nothing is drawn of the {what}: it judged no figure in pairs of the files of these two "
        "runs, the first as base and the second as head, on the device of the runs."
    )


def _names(left: Report, right: Report) -> tuple[str, str]:
    one, two = (plain(f"{report.pipeline} {report.run_id}") for report in (left, right))
    return (f"{one} (A)", f"{two} (B)") if one == two else (one, two)


def _only(mine: Report, other: Report) -> list[str]:
    theirs = {case.id for case in other.cases} | {artifact.name for artifact in other.artifacts}
    found = [artifact.name for artifact in mine.artifacts if artifact.name not in theirs]
    return [plain(text) for text in (*found, *(c.id for c in mine.cases if c.id not in theirs))]


def _runs(left: Report, right: Report) -> Table:
    def cells(report: Report) -> list[str]:
        return [
            f"{report.outcome}, exit code {report.exit_code}",
            report.created_utc,
            report.commit or "unknown",
            report.pocketship_version,
            ", ".join(f"{key} {value}" for key, value in sorted(report.tools.items())),
        ]

    titles = ("Outcome", "Made, UTC", "Commit", "pocketship", "Tools")
    rows = tuple(
        (Cell(title), Cell(plain(a)), Cell(plain(b)))
        for title, a, b in zip(titles, cells(left), cells(right), strict=True)
    )
    return Table("The two runs", (Column("What"), *map(Column, _names(left, right))), rows)


def _figures(pairs: Sequence[Pair], names: tuple[str, str]) -> Table | None:
    rows = []
    for pair in pairs:
        cases = (pair.first, pair.second)
        metrics = pair.metrics
        if not metrics:
            why = "; ".join(dict.fromkeys(c.reason or "no figure" for c in cases))
            sides = [missing(c.status, c.reason) for c in cases]
            rows.append((name(pair.first.id), Cell("all"), *sides, missing("no ratio", why)))
        for metric in metrics:
            a, b = (case.measurement(metric) for case in cases)
            rows.append(
                (
                    name(pair.first.id),
                    Cell(figures.title(metric)),
                    _side(metric, a),
                    _side(metric, b),
                    _ratio(metric, a, b, pair.around),
                )
            )
    if not rows:
        return None
    return Table(
        caption="Figures",
        columns=(
            Column("Case"),
            Column("Metric"),
            Column(names[0], number=True),
            Column(names[1], number=True),
            Column("Second / first", number=True),
        ),
        rows=tuple(rows),
        notes=(
            "Medians. The two runs were made at different times, so differences of noisy figures "
            "may be noise; `pocketship gate` decides.",
        ),
    )


def _side(metric: Metric, found: Measurement | None) -> Cell:
    if found is None:
        return missing("none", "this run has no such figure")
    if found.median is None:
        return missing(found.status, found.reason)
    spread = f"n = {figures.count(len(found.samples))}"
    return Cell(figures.figure(metric, found.median), spread, tier=found.tier)


def _ratio(
    metric: Metric,
    a: Measurement | None,
    b: Measurement | None,
    around: Sequence[comparable.Reason],
) -> Cell:
    if not (a and a.samples) and not (b and b.samples):
        return nothing()  # The cells before it say why.
    if a is None or b is None or a.median is None or b.median is None:
        return missing("no ratio", "one side has no figure")
    refused = dict.fromkeys((*around, *comparable.figures(a, b)))
    if refused:
        return missing("not compared", "; ".join(reason.text for reason in refused))
    if a.median == 0:
        if b.median == 0:
            return Cell("equal")
        return missing("no ratio", "the first is 0")
    ratio = b.median / a.median
    return Cell(figures.ratio(ratio), tone=_tone(ratio, metric in _HIGHER_IS_BETTER))


def _tone(ratio: float, higher_is_better: bool) -> Tone:
    if abs(ratio - 1) <= _SAME:
        return ""
    return "good" if (ratio > 1) is higher_is_better else "bad"


def _files(left: Report, right: Report, names: tuple[str, str]) -> Table | None:
    theirs = {artifact.name: artifact for artifact in right.artifacts}
    rows = []
    for mine in left.artifacts:
        if (other := theirs.get(mine.name)) is None:
            continue
        ratio = other.bytes / mine.bytes if mine.bytes else None
        same = mine.sha256 == other.sha256
        rows.append(
            (
                name(mine.name, words_of(mine.format)),
                Cell(figures.count(mine.bytes)),
                Cell(figures.count(other.bytes)),
                Cell("same file")
                if same
                else missing("no ratio", "the first is empty")
                if ratio is None
                else Cell(figures.ratio(ratio), tone=_tone(ratio, False)),
            )
        )
    if not rows:
        return None
    return Table(
        caption="Files, bytes",
        columns=(
            Column("Artifact"),
            Column(names[0], number=True, tier=Tier.HOST),
            Column(names[1], number=True, tier=Tier.HOST),
            Column("Second / first", number=True, tier=Tier.HOST),
        ),
        rows=tuple(rows),
    )

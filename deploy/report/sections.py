"""The parts of a report below its verdict, as tables: what was made and checked, and how."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from deploy.report import figures, ledger
from deploy.report.tables import (
    OUTCOME_TONES,
    RUNTIMES,
    Cell,
    Column,
    Table,
    missing,
    name,
    nothing,
    pairs,
    plain,
    status_cell,
)
from deploy.types import (
    Artifact,
    Parity,
    Quality,
    Report,
    TensorSpec,
    Tier,
)

_HOST = Tier.HOST


def _quality_columns() -> tuple[Column, ...]:
    return (
        Column("SQNR, dB", number=True, tier=_HOST),
        Column("Top-1 agreement", number=True, tier=_HOST),
        Column("Task metric", number=True, tier=_HOST),
    )


def _quality_cells(quality: Quality | None) -> tuple[Cell, ...]:
    if quality is None:
        return (nothing(), nothing(), nothing())
    return (
        ledger.sqnr(quality.sqnr_db),
        ledger.agreement(quality.top1_agreement, quality.samples),
        Cell(
            figures.significant(quality.metric_value),
            f"{plain(quality.metric)}; reference {figures.significant(quality.metric_reference)}",
        ),
    )


def artifacts(report: Report) -> Table | None:
    """The exported files, None where there are none."""
    if not report.artifacts:
        return None
    return Table(
        caption="Artifacts",
        columns=(
            Column("Artifact"),
            Column("Bytes", number=True, tier=_HOST),
            Column("SHA-256"),
            Column("Delegated", number=True, tier=_HOST),
            Column("MACs", number=True, tier=_HOST),
            Column("Planned memory, bytes", number=True, tier=_HOST),
            Column("Inputs → outputs"),
            Column("Made with"),
        ),
        rows=tuple(_artifact_row(artifact) for artifact in report.artifacts),
    )


def _artifact_row(artifact: Artifact) -> tuple[Cell, ...]:
    return (
        name(artifact.name, RUNTIMES[artifact.format]),
        Cell(figures.count(artifact.bytes)),
        name(artifact.sha256[:12]),
        _placement(artifact),
        _counted(artifact, "macs"),
        _counted(artifact, "planned_bytes"),
        Cell(_cut(f"{_specs(artifact.inputs)} → {_specs(artifact.outputs)}", 200)),
        Cell(plain(", ".join(f"{k} {v}" for k, v in sorted(artifact.tools.items()))) or "unknown"),
    )


def _placement(artifact: Artifact) -> Cell:
    place = artifact.placement
    if place.delegated_share is None:
        return missing("unknown", place.reason)
    parts = [plain(place.backend)]
    if place.delegated is not None and place.total is not None:
        parts.append(f"{place.delegated} of {place.total} operators")
    if place.partitions is not None:
        parts.append(f"{place.partitions} partition{'' if place.partitions == 1 else 's'}")
    return Cell(figures.share(place.delegated_share), ", ".join(parts))


def _counted(artifact: Artifact, metric: str) -> Cell:
    value, why = artifact.figure(metric)
    return missing("unknown", why) if value is None else Cell(figures.count(value))


def _specs(specs: Iterable[TensorSpec]) -> str:
    return ", ".join(f"{plain(s.dtype)}[{'×'.join(map(str, s.shape))}]" for s in specs) or "none"


def parity(report: Report, artifacts: Collection[str] | None = None) -> Table | None:
    """Each artifact against its program, None where nothing was to be checked.

    ``artifacts`` names those that are shown, None for all.
    """
    checks = [row for row in report.parity if artifacts is None or row.artifact in artifacts]
    if not checks:
        return None
    return Table(
        caption="Parity: each artifact against the program that it was exported from",
        columns=(
            Column("Artifact"),
            Column("Result"),
            Column("Largest difference", number=True, tier=_HOST),
            *_quality_columns(),
            Column("Limits"),
        ),
        rows=tuple(_parity_row(check) for check in checks),
    )


def _parity_row(check: Parity) -> tuple[Cell, ...]:
    limits = ", ".join(f"{k} {figures.limit(v)}" for k, v in sorted(check.limits.items()))
    violated = f"violated: {'; '.join(check.violated)}" if check.violated else ""
    return (
        name(check.artifact),
        status_cell(check.status, "; ".join(part for part in (violated, check.reason) if part)),
        Cell(figures.significant(check.quality.max_abs_diff))
        if check.quality
        else nothing(),  # The result says why.
        *_quality_cells(check.quality),
        Cell(plain(limits) or "none set"),
    )


def verdicts(report: Report) -> Table | None:
    """Every decision with its evidence, None where nothing was judged."""
    if not report.verdicts:
        return None
    tiers = {(c.id, str(m.metric)): m.tier for c in report.cases for m in c.measurements}
    rows = []
    for v in report.verdicts:
        tier = tiers.get((v.subject, v.metric), _HOST)
        unit = figures.UNITS.get(v.metric, "")
        rows.append(
            (
                name(v.subject),
                Cell(str(v.outcome), tone=OUTCOME_TONES[v.outcome]),
                name(v.metric, unit if unit and unit != v.metric else ""),
                nothing()  # The last cell of the row says why.
                if v.value is None
                else Cell(figures.figure(v.metric, v.value), tier=tier),
                nothing() if v.limit is None else Cell(figures.limit(v.limit)),
                Cell(plain(v.source) or "not said"),
                Cell(plain(v.reason) or "no reason given"),
            )
        )
    return Table(
        caption="Checks and budgets",
        columns=(
            Column("Subject"),
            Column("Outcome"),
            Column("Metric"),
            Column("Value", number=True),
            Column("Limit", number=True),
            Column("Set by"),
            Column("Why"),
        ),
        rows=tuple(rows),
    )


def tiers(report: Report) -> tuple[Tier, ...]:
    """The tiers that occur in this report, for the legend; files and parity are of the host."""
    seen = {m.tier for case in report.cases for m in case.measurements}
    seen |= {run.info.tier if run.info else run.profile.tier for run in report.devices}
    if report.artifacts or report.parity or report.ledger:
        seen.add(Tier.HOST)
    return tuple(tier for tier in Tier if tier in seen)


def provenance(report: Report) -> Table:
    """How the run was made: what one needs to make it again."""
    rows: list[tuple[Cell, Cell]] = [
        (Cell("Pipeline"), Cell(plain(report.pipeline))),
        (Cell("Run"), Cell(plain(report.run_id))),
        (Cell("Made, UTC"), Cell(plain(report.created_utc))),
        (Cell("pocketship"), Cell(plain(report.pocketship_version))),
        (
            Cell("Commit"),
            missing("unknown", "the pipeline is not in a Git checkout, or Git did not answer")
            if report.commit is None
            else Cell(plain(report.commit), name=True),
        ),
        (Cell("Seed"), Cell(str(report.seed))),
        (
            Cell("Baseline"),
            missing("none", "the pipeline names no baseline variant")
            if report.baseline_variant is None
            else Cell(plain(report.baseline_variant)),
        ),
    ]
    rows += [(Cell(f"Machine: {plain(k)}"), Cell(plain(v))) for k, v in report.machine.items()]
    rows += [(Cell(plain(k)), Cell(plain(v))) for k, v in sorted(report.tools.items())]
    return pairs("How this run was made", rows)


def unpaired(report: Report) -> str:
    """Why there is no table of what was bought; empty where there is one."""
    if report.comparisons:
        return ""
    if report.baseline_variant is None:
        return "Nothing is compared: the pipeline names no baseline variant."
    return (
        f"Nothing is compared: there is no variant beside the baseline "
        f"{plain(report.baseline_variant)}."
    )


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"

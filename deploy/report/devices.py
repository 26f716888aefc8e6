"""A report's section on one device: what it is, its cases, what was not measured and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deploy.report import conditions, figures, operators
from deploy.report.tables import (
    Cell,
    Column,
    Table,
    case_name,
    missing,
    nothing,
    pairs,
    plain,
    status_cell,
    words_of,
)
from deploy.types import Case, DeviceRun, Measurement, Metric, Report, Status, Tier

_TIMING = (
    Metric.LOAD_INSTRUCTIONS,
    Metric.FIRST_INSTRUCTIONS,
    Metric.INSTRUCTIONS,
    Metric.INSTALL_LOAD_MS,
    Metric.LOAD_MS,
    Metric.FIRST_MS,
    Metric.LATENCY_MS,
)
_RESOURCES = (
    Metric.PEAK_RSS_KIB,
    Metric.DELTA_RSS_KIB,
    Metric.PSS_KIB,
    Metric.PRIVATE_DIRTY_KIB,
    Metric.PHYS_FOOTPRINT_KIB,
    Metric.ENERGY_MJ,
    Metric.OUTPUT_MAX_ABS_DIFF,
)
_TASK = (Metric.TASK_METRIC, Metric.TASK_METRIC_DROP)
_MEDIANS = ("Each figure is the median of its samples.",)
_SAMPLES_SHOWN = 500
_SAMPLES_AT_ALL = 10_000
_OPERATORS = "Cost of each operator"


@dataclass(frozen=True)
class Samples:
    """The raw samples of one metric of one case, in the order in which they came."""

    case: str
    metric: str
    tier: Tier
    source: str
    text: str


@dataclass(frozen=True)
class DeviceSection:
    """Everything about one device. ``absent`` says what was not measured there, and why."""

    name: str
    description: str
    tier: Tier
    status: Status
    reason: str
    facts: Table
    timing: Table | None
    resources: Table | None
    task: Table | None
    surroundings: Table | None
    absent: tuple[str, ...]
    operators: tuple[Table, ...]
    samples: tuple[Samples, ...]

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables of its cases, in the order in which they are read."""
        found = (self.timing, self.resources, self.task, self.surroundings)
        return tuple(table for table in found if table is not None)


def sections(report: Report) -> tuple[DeviceSection, ...]:
    """One section a device, in the report's order."""
    return tuple(
        section(run, [case for case in report.cases if case.device == run.profile.name])
        for run in report.devices
    )


def section(run: DeviceRun, cases: Sequence[Case]) -> DeviceSection:
    """The section of one device on which ``cases`` ran."""
    cases = list(cases)
    tier = run.info.tier if run.info else run.profile.tier
    ran = [case for case in cases if case.status is Status.OK]
    measured = {m.metric for case in ran for m in case.measurements if m.status is Status.OK}
    timing, resources, task = (
        [metric for metric in group if metric in measured] for group in (_TIMING, _RESOURCES, _TASK)
    )
    shown = _samples_shown(cases)
    return DeviceSection(
        name=plain(run.profile.name),
        description=plain(run.profile.description),
        tier=tier,
        status=run.status,
        reason=plain(run.reason) or ("" if run.status is Status.OK else "no reason given"),
        facts=_facts(run),
        timing=_timing(cases, timing) if cases else None,
        resources=_resources(ran, resources) if resources else None,
        task=_task(ran) if task else None,
        surroundings=conditions.table(cases),
        absent=_absent(cases, measured, len(ran)),
        operators=operators.tables(cases),
        samples=tuple(
            _samples(case, m, shown) for case in cases for m in case.measurements if m.samples
        ),
    )


def _timing(cases: list[Case], metrics: list[Metric]) -> Table:
    """Every case, with what became of it."""
    return Table(
        caption="Load and inference",
        columns=(Column("Case"), Column("Result"), *_columns(metrics)),
        rows=tuple(
            (case_name(case), status_cell(case.status, case.reason), *_figures(case, metrics))
            for case in cases
        ),
        notes=_MEDIANS if metrics else (),
    )


def _resources(ran: list[Case], metrics: list[Metric]) -> Table:
    """The cases that ran; the table before it says why the others have no figures."""
    return Table(
        caption="Memory, energy, output",
        columns=(Column("Case"), *_columns(metrics)),
        rows=tuple((case_name(case), *_figures(case, metrics)) for case in ran),
        notes=_MEDIANS,
    )


def _task(ran: list[Case]) -> Table:
    """The task's metric there and here, on the same samples."""
    rows = []
    for case in ran:
        there = case.measurement(Metric.TASK_METRIC)
        source = plain(there.source) if there and there.samples else "–"
        rows.append((case_name(case), *_figures(case, list(_TASK)), Cell(source)))
    return Table(
        caption="Task metric, run on the device",
        columns=(Column("Case"), *_columns(list(_TASK)), Column("What was compared")),
        rows=tuple(rows),
        notes=("Negative: the device is better. A few samples decide little.",),
    )


def _columns(metrics: list[Metric]) -> list[Column]:
    return [Column(figures.title(metric), number=True) for metric in metrics]


def _figures(case: Case, metrics: list[Metric]) -> list[Cell]:
    if case.status is not Status.OK:
        return [nothing() for _ in metrics]  # The row says what became of the case, and why.
    return [_measured(case, metric) for metric in metrics]


def _measured(case: Case, metric: Metric) -> Cell:
    measurement = case.measurement(metric)
    if measurement is None:
        return missing("none", "this case has no such figure")
    if (median := measurement.median) is None:
        return missing(measurement.status, measurement.reason)
    samples = measurement.samples
    spread = f"n = {figures.count(len(samples))}"
    if measurement.interval is not None:
        low, high = (figures.figure(metric, edge) for edge in measurement.interval)
        spread += f", interval {low} to {high}"
    elif len(samples) > 1 and min(samples) != max(samples):
        low, high = (figures.figure(metric, edge) for edge in (min(samples), max(samples)))
        spread += f", {low} to {high}"
    return Cell(figures.figure(metric, median), spread, tier=measurement.tier)


def _absent(cases: list[Case], measured: set[Metric], ran: int) -> tuple[str, ...]:
    """Metrics that no case here has, each with its reason; the tables leave their columns out."""
    found: dict[tuple[str, Status, str], list[str]] = {}
    for case in cases:
        if case.operators_reason:
            what = (_OPERATORS, Status.UNAVAILABLE, case.operators_reason)
            found.setdefault(what, []).append(case.artifact)
        for m in case.measurements:
            if m.metric not in measured and m.status is not Status.OK:
                found.setdefault((m.metric, m.status, m.reason), []).append(case.artifact)
    return tuple(
        f"{figures.title(metric)}: {words_of(status)}: {plain(reason)}"
        + ("" if len(who) >= ran else f" ({plain(', '.join(who))})")
        for (metric, status, reason), who in found.items()
    )


def _samples_shown(cases: list[Case]) -> int:
    """How many samples of each measurement are written out, so that many cases fit into a page."""
    rows = sum(1 for case in cases for m in case.measurements if m.samples)
    return min(_SAMPLES_SHOWN, max(3, _SAMPLES_AT_ALL // max(rows, 1)))


def _samples(case: Case, measurement: Measurement, most: int) -> Samples:
    shown = [_raw(value) for value in measurement.samples[:most]]
    left = len(measurement.samples) - len(shown)
    return Samples(
        case=plain(case.id),
        metric=plain(measurement.metric),
        tier=measurement.tier,
        source=plain(measurement.source),
        text=", ".join(shown) + (f" and {left:,} more in report.json" if left else ""),
    )


def _raw(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def _facts(run: DeviceRun) -> Table:
    info, profile = run.info, run.profile
    rows: list[tuple[Cell, Cell]] = []
    if info is None:
        why = run.reason or "the device was not asked"
        rows.append((Cell("Observed"), missing(run.status, why)))
    else:
        memory = info.memory_total_kib
        observed: dict[str, tuple[str, object]] = {
            "model": ("Model", info.model),
            "manufacturer": ("Manufacturer", info.manufacturer),
            "soc": ("SoC", info.soc),
            "abi": ("ABI", info.abi),
            "os_build": ("OS build", info.os_build),
            "kernel": ("Kernel", info.kernel),
            "cpu_count": ("CPU cores", info.cpu_count),
            "big_core_mask": ("Big cores, mask", info.big_core_mask),
            "memory_total_kib": (
                "Memory, KiB",
                None if memory is None else figures.count(memory),
            ),
        }
        rows += [
            (
                Cell(label),
                missing("unknown", info.unknown.get(key, "the device did not say"))
                if value is None
                else Cell(plain(value)),
            )
            for key, (label, value) in observed.items()
        ]
        clock = (
            "counts instructions (QEMU -icount)" if info.clock == "icount" else "CLOCK_MONOTONIC"
        )
        rows += [(Cell("Clock"), Cell(clock)), (Cell("Serial"), Cell(plain(info.serial)))]
        if doubt := info.unknown.get("profile"):
            rows.append((Cell("Profile"), missing("unknown", doubt)))
    energy = profile.energy
    rows.append(
        (
            Cell("Energy source"),
            missing("none", energy.reason)
            if energy.source == "none"
            else Cell(energy.source.replace("_", " ")),
        )
    )
    rows.append(
        (
            Cell("Sent to it, bytes"),
            Cell(
                figures.count(run.bytes_pushed),
                f"{figures.count(run.bytes_already_there)} were there already",
            ),
        )
    )
    if run.push_mb_s is not None:
        rows.append(
            (Cell("Push, MB/s"), Cell(figures.significant(run.push_mb_s, 3), tier=Tier.HOST))
        )
    if profile.tested_on:
        rows.append((Cell("Profile was tested on"), Cell(plain(profile.tested_on))))
    return pairs("What it is", rows)

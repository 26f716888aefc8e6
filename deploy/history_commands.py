"""What the commands of the history do: a run is added, and people look at what was."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import closing
from itertools import chain, islice
from pathlib import Path

from deploy import provenance, workspace
from deploy.console import Session
from deploy.errors import ConfigError, PocketshipError
from deploy.history import (
    address,
    changes,
    database,
    file_figures,
    query,
    record,
    retention,
    runs,
    table_files,
    trends,
)
from deploy.history.database import Database
from deploy.history.query import Filter, Row
from deploy.report import figures, store
from deploy.report.pages import run as pages
from deploy.types import ARTIFACT_METRICS, Metric, Progress, Report, Status
from deploy.workspace import RunFolder

LIST_COLUMNS = (
    *("created_utc", "commit", "branch", "device", "tier", "artifact", "threads", "metric"),
    *("median", "mad", "n", "unit", "status"),
)
_FOLLOWED: tuple[str, ...] = (
    *(Metric.LATENCY_MS, Metric.INSTRUCTIONS, Metric.PEAK_RSS_KIB, Metric.ENERGY_MJ),
    *ARTIFACT_METRICS,
)
_POINTS_SHOWN = 100  # Of each trend on a report's page; `history changes` looks at more.
_NUMBERS = frozenset({"threads", "n", "median", "mad", "mean", "p90", "min", "max", "low", "high"})
_SHORT = frozenset({"commit", "artifact_sha256", "recipe_sha256", "device_sha256"})


def remember(report: Report, folder: RunFolder, progress: Progress) -> None:
    """Add the report of a run folder to the history that its pipeline names, if any, and show the
    trends that it belongs to on its page.

    Raises:
        ConfigError: the history cannot be written; it is as it was.
    """
    reports = folder.root.parent.parent
    base = Path(folder.asked.working_folder)
    where = address.chosen(folder.config.history, reports, os.environ, base)
    if where is None:
        pages.write_trends(report, folder.root, without_series="the pipeline keeps no history")
        return
    # What was written has the hash by which the same report is known again.
    written = store.load(folder.root)
    branch = provenance.branch(folder)
    history = database.connect(where)
    record.add(history, written, branch=branch, key=folder.asked.key)
    progress(f"{report.run_id} is in the history {where.shown}")
    series = _series_of(report, history, branch)
    none = f"no figure of this run is in the history {where.shown}"
    pages.write_trends(report, folder.root, series=series, without_series=none)


def _series_of(report: Report, history: Database, branch: str) -> list[trends.Series]:
    """The series that go on with this report, of the figures that people follow."""
    mine = {(case.device, case.artifact, case.threads) for case in report.cases}
    mine |= {("", artifact.name, file_figures.THREADS) for artifact in report.artifacts}
    wanted = Filter(pipeline=report.pipeline, branch=branch or None)
    return [
        one
        for metric in _FOLLOWED
        for one in trends.series(
            history, wanted.model_copy(update={"metric": metric}), points=_POINTS_SHOWN
        )
        if (one.device, one.artifact, one.threads) in mine
    ]


def opened(history: str | None) -> Database:
    """The history that ``--history`` names, else the variable, else the one in ``reports``."""
    return database.connect(address.of_option(history))


def show_list(
    history: Database, wanted: Filter, limit: int, columns: str, ui: Session, *, as_json: bool
) -> None:
    """The newest figures that fit, newest first."""
    names = _columns(columns)
    with history.reading() as connection:
        found = query.newest(connection, wanted, limit)
    if as_json:
        ui.say(json.dumps([row.model_dump() for row in found], indent=1, allow_nan=False))
        return
    if not found:
        ui.progress(f"no figure in {history.shown} fits")
        return
    ui.table(
        f"History in {history.shown}, newest first",
        [(name, name in _NUMBERS) for name in names],
        [[_cell(row, name) for name in names] for row in found],
    )
    for reason in sorted({f"{row.metric}: {row.reason}" for row in found if row.reason}):
        ui.say(reason)
    if len(found) == limit:
        ui.progress(f"only the newest {limit}; --limit shows more")


def _columns(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()] or list(LIST_COLUMNS)
    for name in names:
        if name not in table_files.COLUMNS:
            choices = ", ".join(table_files.COLUMNS)
            raise ConfigError(f"no column '{name}'", hint=f"Choose from: {choices}.")
    return names


def _cell(row: Row, name: str) -> str:
    value = getattr(row, name)
    # What is of a file is of no device.
    if value is None or (name in ("device", "threads") and row.threads == file_figures.THREADS):
        return "-"
    if isinstance(value, float):
        return figures.figure(row.metric, value)
    return str(value)[:10] if name in _SHORT else str(value)


def show_run(history: Database, name: str, ui: Session, *, as_json: bool) -> None:
    """One run: what it was made of, and all of its figures and verdicts."""
    run = runs.show(history, name)
    if as_json:
        ui.say(run.model_dump_json(indent=1))
        return
    ui.say(
        f"{run.pipeline} {run.run_id}, begun {run.created_utc}, commit {run.commit or 'unknown'} "
        f"on {run.branch or 'no branch'}: {run.outcome} (exit code {run.exit_code})"
    )
    ui.table(
        "Files",
        [("Artifact", False), ("Bytes", True), ("SHA-256", False)],
        [
            [one["name"], figures.figure("bytes", one["bytes"]), one["sha256"][:10]]
            for one in run.artifacts
        ],
    )
    for case in run.cases:
        if case["status"] != Status.OK.value:
            ui.say(f"{case['name']}: {case['status']}: {case['reason']}")
    names = ("device", "tier", "artifact", "threads", "metric", "median", "mad", "n", "unit")
    ui.table(
        "Figures",
        [(name, name in _NUMBERS) for name in (*names, "status")],
        [[_cell(row, name) for name in (*names, "status")] for row in run.figures],
    )
    for verdict in run.verdicts:
        reason = f" ({verdict['reason']})" if verdict["reason"] else ""
        ui.say(f"{verdict['outcome']} {verdict['subject']} {verdict['metric']}{reason}")


def export(
    history: Database, wanted: Filter, output: Path | None, ui: Session, *, samples: bool
) -> None:
    """All figures that fit, newest first, as CSV, or as Parquet where the file is named so."""
    with (
        history.reading() as connection,
        # Closed before the connection even where writing fails in its middle.
        closing(query.rows(connection, wanted, samples=samples)) as found,
    ):
        # A query that fails shall do so before a file is begun.
        rows = chain(list(islice(found, 1)), found)
        if output is None:
            table_files.write_csv(rows, ui.out, samples=samples)
            return
        write = (
            table_files.write_parquet if output.suffix == ".parquet" else table_files.write_csv_file
        )
        count = write(rows, output, samples=samples)
    ui.say(f"{count} figures in {output}")


def take_in(history: Database, paths: Sequence[Path], branch: str, ui: Session) -> int:
    """Add older reports: files, run folders, or folders in which they are looked for.

    Returns the exit code: that of bad input where at least one report could not be added; the
    others are.
    """
    counts = {"added": 0, "replaced": 0, "unchanged": 0}
    refused = 0
    for file in _reports(paths):
        try:
            report = store.load(file)
        except PocketshipError as error:
            ui.progress(f"left out: {error}")
            refused += 1
            continue
        done = record.add(history, report, branch=branch, key=_key_of(file))
        counts[done] += 1
    ui.say(
        f"{counts['added']} added, {counts['replaced']} replaced, {counts['unchanged']} there "
        f"already, {refused} left out: {history.shown}"
    )
    return ConfigError.exit_code if refused else 0


def _reports(paths: Sequence[Path]) -> list[Path]:
    found: dict[Path, None] = {}
    for path in paths:
        if not path.exists():
            raise ConfigError(
                "there is nothing", where=str(path), hint="Name a report or a folder."
            )
        files = [path] if path.is_file() else sorted(path.rglob(store.FILE_NAME))
        if not files:
            raise ConfigError(f"no {store.FILE_NAME} in it", where=str(path))
        # `latest` is a link to a folder that is there under its own name.
        found |= dict.fromkeys(file.resolve() for file in files)
    return list(found)


def _key_of(report: Path) -> str:
    """The key of the run folder that holds a report; empty for a report by itself."""
    try:
        return workspace.open_run(report.parent).asked.key
    except ConfigError:
        return ""


def show_changes(
    history: Database, wanted: Filter, points: int, seed: int, ui: Session, *, as_json: bool
) -> None:
    """The change points of every series on a branch that has any; advice, no verdict."""
    found = trends.series(history, wanted, points=points, seed=seed)
    if as_json:
        ui.say(json.dumps([one.model_dump(mode="json") for one in found], indent=1))
        return
    rows = [
        [
            *(one.artifact, _place(one), one.tier, one.metric),
            *(change.commit[:10], change.commit_before[:10], change.created_utc),
            *(figures.figure(one.metric, change.before), figures.figure(one.metric, change.after)),
            f"{change.ratio - 1:+.1%}" if change.ratio is not None else "-",
            "exact" if change.p_value is None else f"{change.p_value:.3f}",
            ", ".join(change.with_it) or "-",
        ]
        for one in found
        for change in one.changes
    ]
    titles = [(name, False) for name in ("Artifact", "Device", "Tier", "Metric", "Commit")]
    titles += [("After", False), ("Time", False), ("Before", True), ("Now", True)]
    titles += [("Change", True), ("p", True), ("Changed with it", False)]
    if rows:
        ui.table(f"Change points on {wanted.branch}, advice to look", titles, rows)
    for note in sorted({f"{one.device}: {one.note}" for one in found if one.note}):
        ui.say(note)
    short = sum(
        len(one.points) < 2 * changes.MIN_SIZE + 1 and not file_figures.is_exact(one.metric)
        for one in found
    )
    ui.say(
        f"{len(rows)} change points in {len(found)} series on {wanted.branch}; "
        f"{short} of them are too short to have one"
    )


def _place(one: trends.Series) -> str:
    exact = file_figures.is_exact(one.metric)
    return "the file" if exact else f"{one.device}/t{one.threads}"


def prune(history: Database, before: str, branch: str | None, ui: Session, *, dry: bool) -> None:
    """Remove runs begun before a time, of one branch or of all."""
    count = retention.prune(history, before, branch=branch, dry_run=dry)
    ui.say(f"{count} runs {'would be' if dry else 'were'} removed from {history.shown}")

"""The history: list, show, export, import, change points, prune."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.console import session

if TYPE_CHECKING:
    from deploy.history.query import Filter

commands = typer.Typer(help="What earlier runs measured.", no_args_is_help=True)

HistoryOption = Annotated[
    str | None,
    typer.Option("--history", help="A file, or the URL of a PostgreSQL, with the history."),
]
Pipeline = Annotated[str, typer.Option(help="Only this pipeline; * and ? match.")]
Device = Annotated[str, typer.Option(help="Only this device profile; * and ? match.")]
Runtime = Annotated[str, typer.Option(help="Only this runtime: executorch, onnx, ort, coreml.")]
Artifact = Annotated[str, typer.Option(help="Only this artifact, as int8.onnx; * and ? match.")]
MetricOption = Annotated[str, typer.Option(help="Only this metric, as latency_ms; * and ? match.")]
TierOption = Annotated[str, typer.Option(help="Only this tier: device, emulator, host, ...")]
OsBuild = Annotated[str, typer.Option(help="Only this OS build; * and ? match.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Only this number of threads.")]
Branch = Annotated[str | None, typer.Option(help="Only this branch.")]
Since = Annotated[str, typer.Option(help="Only runs begun then or later: 2026-11-22.")]
Until = Annotated[str, typer.Option(help="Only runs begun before that.")]
StatusOption = Annotated[str, typer.Option(help="Only this status: ok, unavailable, failed, ...")]
Json = Annotated[bool, typer.Option("--json", help="As JSON.")]


def _filter(context: typer.Context) -> Filter:
    """The command's options that are fields of a filter."""
    from deploy.errors import ConfigError
    from deploy.history import identity
    from deploy.history.query import Filter
    from deploy.types import Status, Tier

    given = {name: context.params[name] for name in Filter.model_fields if name in context.params}
    for name, kind in (("tier", Tier), ("status", Status)):
        value = given.get(name)
        if value and value not in set(kind):
            choices = ", ".join(kind)
            raise ConfigError(f"no {name} '{value}'", hint=f"Choose one of: {choices}.")
        given[name] = value or None
    for name in ("since", "until"):
        if value := given.get(name):
            given[name] = identity.sortable(str(value))
    return Filter.model_validate(given)


@commands.command("list")
def list_(
    context: typer.Context,
    *,
    history: HistoryOption = None,
    pipeline: Pipeline = "",
    device: Device = "",
    runtime: Runtime = "",
    artifact: Artifact = "",
    metric: MetricOption = "",
    tier: TierOption = "",
    os_build: OsBuild = "",
    threads: Threads = None,
    branch: Branch = None,
    since: Since = "",
    until: Until = "",
    status: StatusOption = "",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many.")] = 50,
    columns: Annotated[str, typer.Option(help="Names of columns, a comma between.")] = "",
    json: Json = False,
) -> None:
    """List the newest figures that fit, newest first."""
    with session("history list") as ui:
        from deploy import history_commands

        wanted = _filter(context)
        opened = history_commands.opened(history)
        history_commands.show_list(opened, wanted, limit, columns, ui, as_json=json)


@commands.command()
def show(
    run: Annotated[str, typer.Argument(help="A run id, or the beginning of its report's hash.")],
    history: HistoryOption = None,
    json: Json = False,
) -> None:
    """Show one run: its files, figures and verdicts."""
    with session("history show") as ui:
        from deploy import history_commands

        history_commands.show_run(history_commands.opened(history), run, ui, as_json=json)


@commands.command()
def export(
    context: typer.Context,
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .csv or .parquet file; none: print.")
    ] = None,
    history: HistoryOption = None,
    pipeline: Pipeline = "",
    device: Device = "",
    runtime: Runtime = "",
    artifact: Artifact = "",
    metric: MetricOption = "",
    tier: TierOption = "",
    os_build: OsBuild = "",
    threads: Threads = None,
    branch: Branch = None,
    since: Since = "",
    until: Until = "",
    status: StatusOption = "",
    samples: Annotated[bool, typer.Option("--samples", help="With all raw samples.")] = False,
) -> None:
    """Write all figures that fit as CSV or Parquet, newest first."""
    with session("history export") as ui:
        from deploy import history_commands

        wanted = _filter(context)
        opened = history_commands.opened(history)
        history_commands.export(opened, wanted, output, ui, samples=samples)


@commands.command("import")
def import_(
    reports: Annotated[list[Path], typer.Argument(help="report.json files, or folders of them.")],
    history: HistoryOption = None,
    branch: Annotated[str, typer.Option(help="The branch that they were made on.")] = "",
) -> None:
    """Add older reports; those that are there already change nothing."""
    with session("history import") as ui:
        from deploy import history_commands

        ui.exit_code = history_commands.take_in(
            history_commands.opened(history), reports, branch, ui
        )


@commands.command()
def changes(
    context: typer.Context,
    *,
    branch: Annotated[str, typer.Option(help="The branch whose series are looked at.")] = "main",
    history: HistoryOption = None,
    pipeline: Pipeline = "",
    device: Device = "",
    artifact: Artifact = "",
    metric: MetricOption = "",
    tier: TierOption = "",
    since: Since = "",
    points: Annotated[int, typer.Option(min=9, max=500, help="Newest points looked at.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of the permutations.")] = 0,
    json: Json = False,
) -> None:
    """Show where series on a branch changed: advice to look, no verdict."""
    with session("history changes") as ui:
        from deploy import history_commands

        wanted = _filter(context)
        opened = history_commands.opened(history)
        history_commands.show_changes(opened, wanted, points, seed, ui, as_json=json)


@commands.command()
def prune(
    before: Annotated[str, typer.Option(help="Remove runs begun before this: 2026-01-31.")],
    history: HistoryOption = None,
    branch: Branch = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
) -> None:
    """Remove old runs from the history; their reports stay."""
    with session("history prune") as ui:
        from deploy import history_commands

        opened = history_commands.opened(history)
        history_commands.prune(opened, before, branch, ui, dry=dry_run)

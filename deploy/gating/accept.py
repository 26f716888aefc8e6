"""``pocketship accept``: sign off the regressions that a gate found, in a file of their own."""

from __future__ import annotations

import datetime
from pathlib import Path

from deploy.console import Session as Ui
from deploy.errors import ConfigError
from deploy.report import accepted, store


def accept(
    gate: Path,
    file: Path,
    ui: Ui,
    *,
    reason: str,
    by: str,
    until: str,
    since: str | None = None,
    subject: str = "*",
    metric: str | None = None,
) -> None:
    """Add an entry to ``file`` for each REGRESSED verdict of the gate that was chosen.

    Raises ``ConfigError`` where there is none, or the gate's report or the file is wrong.
    """
    # The gate asks for the day in UTC too: what is accepted now must hold now.
    today = datetime.datetime.now(datetime.UTC).date()
    begins = _day(since, "--since") if since else today
    made, left = accepted.proposals(
        store.load_gate(gate).verdicts,
        reason=" ".join(reason.split()),
        by=" ".join(by.split()),
        since=begins,
        until=_day(until, "--until"),
        subject=subject,
        metric=metric,
    )
    for line in left:
        ui.progress(f"left out: {line}")
    if not made:
        raise ConfigError(
            "has no regression that could be accepted" + (" among those chosen" * bool(metric)),
            where=str(gate),
            hint="Only a REGRESSED figure that was compared with a base can be; see its report.",
        )
    accepted.extend(file, made)
    for entry in made:
        ui.say(f"{entry.subject} {entry.metric}: {accepted.in_words(entry)}")
    ui.say(f"{file}: {len(made)} added; commit it, and the gate lets them pass")


def _day(text: str, option: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{text!r} is no day", where=option, hint="Write it as YEAR-MONTH-DAY."
        ) from None

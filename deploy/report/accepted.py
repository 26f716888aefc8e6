"""Changes that somebody signed off: a file in the user's repository, and what it does to verdicts.

An entry lets one metric of a subject come to so many times its base, for a reason, until a day. It
turns a REGRESSED into a PASS that says so, and never touches a verdict that is INVALID or about
parity (docs/accepted.md).
"""

from __future__ import annotations

import datetime
import decimal
import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import yaml
from pydantic import ValidationError, field_validator

from deploy import strict_yaml
from deploy.errors import ConfigError
from deploy.files import write_text
from deploy.report import exact
from deploy.types import Acceptance, Model, Outcome, Verdict

FILE_NAME = "pocketship-accepted.yaml"
NEVER = ("parity", "case", "artifact", "device")
"""Metrics of verdicts that are no change of a figure: nobody can sign them off."""

_HEADER = """\
# Changes of figures that were accepted on purpose; `pocketship gate` reads this file.
# docs/accepted.md says what each key means. Remove an entry once the base has the change.
version: 1
accepted:
"""


class AcceptedFile(Model):
    """A whole file of accepted changes."""

    version: Literal[1]
    accepted: tuple[Acceptance, ...] = ()

    @field_validator("accepted", mode="before")
    @classmethod
    def _none_yet(cls, value: object) -> object:
        return () if value is None else value


def read(path: Path) -> tuple[Acceptance, ...]:
    """The entries of a file, in its order.

    Raises ``ConfigError`` with file, line and key for a file that is missing or wrong.
    """
    return _parse(path)[0]


def _parse(path: Path, text: str | None = None) -> tuple[tuple[Acceptance, ...], yaml.Node]:
    hint = "pocketship accept writes one."
    data, tree = (
        strict_yaml.parse(path, missing=hint)
        if text is None
        else strict_yaml.parse_text(text, path)
    )
    if not isinstance(data, dict):
        raise ConfigError("is not a mapping", where=str(path), hint="See docs/accepted.md.")
    try:
        entries = AcceptedFile.model_validate(data).accepted
    except ValidationError as error:
        raise strict_yaml.explain(error, path, tree, AcceptedFile) from error
    for number, entry in enumerate(entries):
        if entry.metric in NEVER:
            found = _value(tree, "accepted")
            line = found.value[number].start_mark.line + 1 if found is not None else 1
            raise ConfigError(
                f"accepted[{number}].metric: '{entry.metric}' is never accepted",
                where=f"{path}:{line}",
                hint="Mend the model; limits of parity are in 'verify' of the pipeline file.",
            )
    return entries, tree


# --- what it does to verdicts ---------------------------------------------------------------------


def apply(
    verdicts: Sequence[Verdict], acceptances: Sequence[Acceptance], today: datetime.date
) -> tuple[tuple[Verdict, ...], tuple[Acceptance, ...]]:
    """Verdicts with what was signed off, and the entries that let something pass.

    A REGRESSED whose change lies within an entry of today becomes a PASS; ``accepted`` says by
    whom, why and until when. One that goes beyond it, or whose entries are over or yet to come,
    stays and its reason says so. Everything else is left as it is.
    """
    in_force: dict[int, Acceptance] = {}
    judged = []
    for verdict in verdicts:
        found = [(i, entry) for i, entry in enumerate(acceptances) if matches(entry, verdict)]
        if verdict.outcome is not Outcome.REGRESSED or not found:
            judged.append(verdict)
            continue
        current = [(i, entry) for i, entry in found if entry.since <= today <= entry.until]
        change = ratio(verdict)
        letting = [(i, one) for i, one in current if change is not None and _within(change, one)]
        if letting:
            number, entry = letting[0]
            in_force[number] = entry
            judged.append(
                verdict.model_copy(
                    update={
                        "outcome": Outcome.PASS,
                        "accepted": in_words(entry),
                        "reason": _joined(verdict.reason, f"accepted: {_times(change)} of base"),
                    }
                )
            )
        else:
            why = _why_not([entry for _, entry in current or found], change, today)
            judged.append(verdict.model_copy(update={"reason": _joined(verdict.reason, why)}))
    return tuple(judged), tuple(in_force[number] for number in sorted(in_force))


def matches(entry: Acceptance, verdict: Verdict) -> bool:
    """Whether an entry is of a verdict's subject and metric; parity never has one."""
    if verdict.metric != entry.metric or verdict.metric in NEVER:
        return False
    return verdict.subject == entry.subject or fnmatchcase(verdict.subject, entry.subject)


def ratio(verdict: Verdict) -> float | None:
    """Head's figure over base's, as it was judged; None where there is no base to speak of."""
    if verdict.paired is not None:
        return verdict.paired.ratio if math.isfinite(verdict.paired.ratio) else None
    value, base = verdict.value, verdict.base_value
    if value is None or base is None or not base > 0 or not math.isfinite(value):
        return None
    found = value / base
    return found if math.isfinite(found) else None


def _within(change: float, entry: Acceptance) -> bool:
    # What got worse by falling (the share that runs on a delegate) has an `up_to` below 1.
    return change >= entry.up_to if change < 1 else change <= entry.up_to


def _why_not(entries: Sequence[Acceptance], change: float | None, today: datetime.date) -> str:
    if change is None:
        return "not accepted: it is a limit and no comparison with base; change the limit"
    told = []
    for entry in entries:
        if today > entry.until:
            told.append(f"what {entry.by} accepted ended on {entry.until}")
        elif today < entry.since:
            told.append(f"what {entry.by} accepted begins on {entry.since}")
        else:
            told.append(
                f"beyond what was accepted: {_times(change)} of base, and {entry.by} accepted "
                f"{_times(entry.up_to)} until {entry.until}"
            )
    return "; ".join(told)


def in_words(entry: Acceptance) -> str:
    """Who accepted how much, from when to when, and why."""
    return (
        f"up to {_times(entry.up_to)} of base accepted by {entry.by} "
        f"from {entry.since} until {entry.until}: {entry.reason}"
    )


def _times(change: float | None) -> str:
    return "no figure" if change is None else f"{change:.4g} x"


def _joined(*texts: str) -> str:
    return "; ".join(text for text in texts if text)


def warnings(
    verdicts: Sequence[Verdict], acceptances: Sequence[Acceptance], today: datetime.date
) -> tuple[str, ...]:
    """What should be tidied up: entries that match nothing, that are over, or that nothing needs.

    ``verdicts`` are those from before or after :func:`apply`.
    """
    told = []
    for entry in acceptances:
        name = f"accepted change of {entry.metric} of {entry.subject}"
        mine = [verdict for verdict in verdicts if matches(entry, verdict)]
        if not mine:
            told.append(f"{name}: matches nothing here")
        elif today > entry.until:
            told.append(f"{name}: ended on {entry.until}; remove it or accept it anew")
        elif today < entry.since:
            told.append(f"{name}: begins on {entry.since}")
        elif not any(one.accepted or one.outcome is Outcome.REGRESSED for one in mine):
            told.append(f"{name}: nothing needs it any more; remove it")
    return tuple(told)


# --- from a gate's verdicts to the file -----------------------------------------------------------


def proposals(
    verdicts: Sequence[Verdict],
    *,
    reason: str,
    by: str,
    since: datetime.date,
    until: datetime.date,
    subject: str = "*",
    metric: str | None = None,
) -> tuple[tuple[Acceptance, ...], tuple[str, ...]]:
    """Entries that let the REGRESSED verdicts pass, and what cannot be accepted with the reason.

    ``up_to`` is the far end of the interval where the figure is noisy (measuring the same change
    again gives another estimate), else the change itself, of counted instructions with what a count
    varies by (:data:`deploy.report.exact.JITTER`); rounded outwards to four digits.
    ``subject`` (with wildcards) and ``metric`` choose among the verdicts. Raises ``ConfigError``
    for an entry that ends before it begins, or without a reason or a name.
    """
    made, left = [], []
    for verdict in verdicts:
        chosen = verdict.subject == subject or fnmatchcase(verdict.subject, subject)
        if verdict.outcome is not Outcome.REGRESSED or not chosen:
            continue
        if metric is not None and verdict.metric != metric:
            continue
        change = ratio(verdict)
        if verdict.metric in NEVER:
            left.append(f"{verdict.subject} {verdict.metric}: is never accepted")
        elif change is None:
            left.append(f"{verdict.subject} {verdict.metric}: no base to compare with; a limit")
        else:
            made.append(
                _entry(
                    subject=verdict.subject,
                    metric=verdict.metric,
                    up_to=_outwards(verdict, change),
                    reason=reason,
                    by=by,
                    since=since,
                    until=until,
                )
            )
    return tuple(made), tuple(left)


def _entry(**values: object) -> Acceptance:
    try:
        return Acceptance.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        text = first["msg"].removeprefix("Value error, ")
        raise ConfigError(
            text, where=f"--{key}" if key else "--until", hint="See docs/accepted.md."
        ) from error


def _outwards(verdict: Verdict, change: float) -> float:
    low, high = verdict.paired.interval if verdict.paired else (change, change)
    if verdict.paired is None and verdict.base_value:
        # Counted again, the same change may come to a little more.
        high += exact.repeats_within(verdict.metric, verdict.base_value) / verdict.base_value
    falls = change < 1
    far = min(low, change) if falls else max(high, change)
    rounding = decimal.ROUND_FLOOR if falls else decimal.ROUND_CEILING
    # On the digits that are printed: 1.08 stays 1.08, and nothing is rounded inwards.
    return float(decimal.Context(prec=4, rounding=rounding).create_decimal(repr(far)))


def extend(path: Path, entries: Sequence[Acceptance]) -> None:
    """Add entries to a file, or make it; its text stays as it is, comments and all.

    The new entries are put as text behind the last one, and the result is read again before it is
    written: a file in a style where that is not possible (``accepted: [{...}]`` on one line) is
    left alone. Raises ``ConfigError`` there, and for a file that is wrong or cannot be written.
    """
    before: tuple[Acceptance, ...] = ()
    if path.exists():
        before, tree = _parse(path)
        changed = _with(path.read_bytes().decode("utf-8"), tree, entries)
    else:
        changed = _HEADER + "".join(_as_text(entry, 2) for entry in entries)
    try:
        after, _ = _parse(path, changed)
    except ConfigError:
        after = ()
    if after != (*before, *entries):
        raise ConfigError(
            "cannot be extended in the style that it is written in",
            where=str(path),
            hint="Write 'accepted:' as a list with one '- subject: ...' an entry, or add by hand: "
            + "; ".join(f"{one.metric} of {one.subject} up_to {one.up_to:g}" for one in entries),
        )
    try:
        write_text(path, changed)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", where=str(path)) from error


def _with(text: str, tree: yaml.Node, entries: Sequence[Acceptance]) -> str:
    """``text`` with the entries behind its last one."""
    end = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith(("\n", "\r")):
        lines[-1] += end
    at, indent = len(lines), 2
    found = _value(tree, "accepted")
    if found is None:
        lines.append(f"accepted:{end}")
        at += 1
    elif isinstance(found, yaml.SequenceNode) and found.value:
        at, indent = _last_line(found) + 1, found.start_mark.column
    else:
        # `accepted: []` or `accepted:`: the brackets go, what else is on that line stays.
        row, start, stop = found.start_mark.line, found.start_mark.column, found.end_mark.column
        if isinstance(found, yaml.SequenceNode):
            lines[row] = lines[row][:start].rstrip() + lines[row][stop:]
        at = row + 1
    new = "".join(_as_text(entry, indent, end) for entry in entries)
    return "".join(lines[:at]) + new + "".join(lines[at:])


def _value(tree: yaml.Node, name: str) -> yaml.Node | None:
    pairs = tree.value if isinstance(tree, yaml.MappingNode) else []
    return next((value for key, value in pairs if key.value == name), None)


def _last_line(node: yaml.Node) -> int:
    """The line on which the last value below a node ends: comments after it stay behind it."""
    if isinstance(node, yaml.ScalarNode):
        # A block of text ends at the beginning of the line after it.
        return node.end_mark.line - (1 if node.end_mark.column == 0 else 0)
    ends = [node.start_mark.line]
    for child in node.value:
        ends += [_last_line(part) for part in (child if isinstance(child, tuple) else (child,))]
    return max(ends)


def _as_text(entry: Acceptance, indent: int, end: str = "\n") -> str:
    values = entry.model_dump()
    # YAML and Python see line ends in several characters that are none to the other: escape those.
    plain = all(value.isprintable() for value in values.values() if isinstance(value, str))
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=plain, width=10_000)
    first, *others = text.splitlines()
    margin = " " * indent
    return "".join([f"{margin}- {first}{end}", *(f"{margin}  {line}{end}" for line in others)])

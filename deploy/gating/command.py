"""``pocketship gate``: the options are checked before anything takes time; then it compares."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from deploy import config, connect
from deploy import errors as errors_
from deploy.config import DeviceConfig
from deploy.console import Session
from deploy.errors import ConfigError, PocketshipError
from deploy.gating import comparing, folder, sides, words
from deploy.gating.comparing import Comparison, Overrides
from deploy.gating.folder import Wanted
from deploy.gating.meeting import Filter
from deploy.history import address
from deploy.history.address import Address
from deploy.report import comparable
from deploy.types import Format, GateRules, Metric, Outcome
from deploy.workspace import held

Choice = TypeVar("Choice", bound=StrEnum)

_TRANSPORTS = ("tcp", "usb", "adb-server")
_DEFAULT_REPORTS = Path("reports")


@dataclass(frozen=True)
class Options:
    """The command's options as they were given."""

    device: str | None = None
    serial: str | None = None
    transport: str | None = None
    wait_s: float | None = None
    pipeline: Path | None = None
    variants: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    threads: tuple[int, ...] = ()
    pairs: int | None = None
    threshold: float | None = None
    primary: str | None = None
    accepted: Path | None = None
    stored: bool = False
    history: str | None = None
    across: tuple[str, ...] = ()
    reports: Path | None = None
    resume: bool = False
    improved_exit_code: int = 0


def gate(base: str, head: str, ui: Session, options: Options) -> int:
    """Compare ``head`` with ``base``; print the verdict; return the exit code."""
    asked = _asked(base, head, ui, options)
    reports = _reports(asked)
    place = folder.unfinished(reports, asked.wanted) if options.resume else None
    if options.resume:
        ui.progress(f"going on with {place.root}" if place else "no earlier gate: a new one")
    if place is None:
        place = folder.create(reports, asked.wanted)
    with held(place.root):
        ui.log_to(place.root / "log.txt")
        ui.progress(f"gate folder {place.root}")
        ui.resume_hint = f"What is measured is kept; go on with: {_again(asked, options)}"
        answer = comparing.compare(asked, place, ui.progress)
    for line in words.lines(answer.report, answer.notes):
        ui.say(line)
    ui.say(f"Report: {answer.root / 'index.html'}")
    if answer.report.outcome is Outcome.IMPROVED and answer.report.exit_code == 0:
        return options.improved_exit_code
    return answer.report.exit_code


def _asked(base: str, head: str, ui: Session, options: Options) -> Comparison:
    """Everything that can be wrong with the words, before a pipeline takes its minutes."""
    if not 0 <= options.improved_exit_code <= 125 or options.improved_exit_code in _TAKEN:
        raise ConfigError(
            f"--improved-exit-code: {options.improved_exit_code} means something else already",
            hint="Choose 0 or a number from 10 to 125.",
        )
    for kind in options.across:
        if kind not in _ACROSS:
            raise ConfigError(f"--across: no '{kind}'", hint=f"Choose one of {', '.join(_ACROSS)}.")
    overrides = Overrides(
        threshold=options.threshold,
        primary=_choice(Metric, options.primary, "--primary") if options.primary else None,
        pairs=options.pairs,
        accepted=options.accepted,
    )
    overrides.of(GateRules())
    history = _history(options)
    device = _device(options, ui)
    wanted = Wanted(
        base=base,
        head=head,
        working_folder=str(Path.cwd()),
        pipeline=_relative(options.pipeline),
        device=options.device,
        serial=options.serial,
        threads=tuple(dict.fromkeys(options.threads)),
        variants=options.variants,
        formats=tuple(_choice(Format, name, "--format") for name in options.formats),
        stored=options.stored or history is not None,
        history=history.shown if history is not None else None,
    )
    return Comparison(
        wanted=wanted,
        device=device,
        overrides=overrides,
        filter=Filter(wanted.variants, wanted.formats),
        across=options.across,
        reports=options.reports,
        history=history,
    )


def _history(options: Options) -> Address | None:
    if options.history is None:
        return None
    if options.device is None:
        raise ConfigError("--history without --device", hint="Name the device's profile.")
    if other := [kind for kind in options.across if kind != "runtime"]:
        raise ConfigError(
            f"--across {other[0]}: a history is asked for figures of the same {other[0]} only",
            hint="Give a report.json as BASE to compare across it.",
        )
    return address.parse(options.history)


_ACROSS = ("tier", "device", "runtime", "os-build")
_TAKEN = {
    value.exit_code
    for value in vars(errors_).values()
    if isinstance(value, type) and issubclass(value, PocketshipError)
} | {value for name, value in vars(errors_).items() if name.startswith("EXIT_") and value != 0}
assert set(_ACROSS) <= set(comparable.KINDS)


def _choice(kind: type[Choice], text: str, option: str) -> Choice:
    try:
        return kind(text)
    except ValueError:
        known = ", ".join(kind)
        raise ConfigError(f"{option}: no '{text}'", hint=f"Choose one of {known}.") from None


def _relative(pipeline: Path | None) -> str | None:
    if pipeline is None:
        return None
    if pipeline.is_absolute() or ".." in pipeline.parts:
        raise ConfigError(
            "is not inside a repository",
            where=f"--pipeline {pipeline}",
            hint="Give it relative to the repository's top folder.",
        )
    return pipeline.as_posix()


def _device(options: Options, ui: Session) -> DeviceConfig | None:
    if options.device is None:
        for name in ("serial", "transport", "wait_s"):
            if getattr(options, name) is not None:
                option = name.removesuffix("_s")
                raise ConfigError(f"--{option} without --device", hint="Name the device's profile.")
        return None
    if options.transport is not None and options.transport not in _TRANSPORTS:
        raise ConfigError(
            f"no transport '{options.transport}'", hint=f"Choose one of: {', '.join(_TRANSPORTS)}."
        )
    wanted = DeviceConfig.model_validate(
        {
            "profile": options.device,
            "serial": options.serial,
            "transport": options.transport,
            "wait_s": options.wait_s or 0,
        }
    )
    connect.check(wanted)
    return connect.resolved(wanted, ui.progress)


def _reports(asked: Comparison) -> Path:
    """``--reports``; else where head's pipeline file has its reports, else base's; else here."""
    if asked.reports is not None:
        return asked.reports
    for name in (asked.wanted.head, asked.wanted.base):
        if sides.is_pipeline(name, asked.here):
            return config.load(asked.here / Path(name).expanduser()).reports
    return _DEFAULT_REPORTS


def _again(asked: Comparison, options: Options) -> str:
    given = sys.argv[1:]
    if options.history is not None and asked.history is not None:
        # A URL may hold a password, which belongs into no log.
        given = [word.replace(options.history, asked.history.shown) for word in given]
    return shlex.join(["pocketship", *given, *(() if "--resume" in given else ("--resume",))])

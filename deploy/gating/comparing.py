"""The path of a gate, top to bottom: find both sides, meet, measure, judge, decide, write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from deploy import __version__, connect
from deploy.bench.runner import preset
from deploy.config import BenchConfig, DeviceConfig, GateConfig
from deploy.errors import ConfigError
from deploy.gating import calibrate, earlier, folder, limits, measuring, outputs, revisions, sides
from deploy.gating.folder import GateFolder, Wanted
from deploy.gating.measuring import Contact, Measured, Plan
from deploy.gating.meeting import Filter, Meeting, meet
from deploy.gating.noise import Noise, known_noise, refuse_too_fine
from deploy.gating.sides import Version, Wish
from deploy.history.address import Address
from deploy.report import accepted, gate
from deploy.types import (
    Acceptance,
    DeviceRun,
    GateReport,
    GateRules,
    Metric,
    Progress,
    Session,
    Side,
)

Design = Literal["paired", "stored"]
SideName = Literal["base", "head"]
LookBack = Callable[[Sequence[Session], DeviceRun], list[Session]]
"""Base's earlier sessions, for the sessions of head on a device."""

SEED = 0
"""Of the resampling: the same sessions give the same verdict."""


@dataclass(frozen=True)
class Overrides:
    """Options that stand in place of the pipeline's ``gate:`` section; None: as it says."""

    threshold: float | None = None
    primary: Metric | None = None
    pairs: int | None = None
    accepted: Path | None = None

    def of(self, rules: GateRules) -> GateRules:
        """``rules`` with the options in their place; ``ConfigError`` where one is out of range."""
        given = {"threshold": self.threshold, "primary": self.primary, "pairs": self.pairs}
        changes = {key: value for key, value in given.items() if value is not None}
        try:
            return GateRules.model_validate({**rules.model_dump(), **changes})
        except ValidationError as error:
            first = error.errors()[0]
            option = "--" + str(first["loc"][0] if first["loc"] else "threshold")
            raise ConfigError(f"{option}: {first['msg'][:1].lower()}{first['msg'][1:]}") from None


@dataclass(frozen=True)
class Comparison:
    """What is to be compared, and where. ``device`` None: only what needs no device.

    With ``history``, base is the name of a branch whose figures are looked up there.
    """

    wanted: Wanted
    device: DeviceConfig | None
    overrides: Overrides
    filter: Filter
    across: tuple[str, ...] = ()
    reports: Path | None = None
    history: Address | None = None

    @property
    def here(self) -> Path:
        """The folder that the user's relative names begin at."""
        return Path(self.wanted.working_folder)


@dataclass(frozen=True)
class Answer:
    """The gate's report, where it lies, and what a reader should know beside it."""

    report: GateReport
    root: Path
    notes: tuple[str, ...]


def compare(asked: Comparison, place: GateFolder, say: Progress) -> Answer:
    """Everything that is asked, in ``place``, which the caller holds.

    Raises for bad input, and for what making a side raises. What becomes of the device is in the
    report, and so is a parity that fails: nothing is measured then.
    """
    base, place = _found(asked, place, "base", say)
    head, place = _found(asked, place, "head", say)
    if asked.history is not None and head.config is None:
        raise ConfigError(
            "has no pipeline, by whose name a history knows figures",
            where=f"head {asked.wanted.head}",
            hint="Give a pipeline file, a run folder or a git revision as HEAD.",
        )
    meeting = meet(base, head, asked.filter)
    section = head.config.gate if head.config is not None else GateConfig()
    rules = asked.overrides.of(section.rules)
    acceptances = _acceptances(asked, head, section)
    design: Design = "stored" if asked.wanted.stored or not base.files else "paired"

    verdicts = limits.parity(meeting)
    notes = list(meeting.notes())
    measured: Measured | None = None
    noise = Noise()
    before: list[Session] = []
    if asked.device is not None and not any(map(limits.stops, verdicts)):
        threads = asked.wanted.threads or _bench(meeting).threads
        look_back = _look_back(asked, asked.device, meeting, threads, design)
        plan = Plan(
            meeting=meeting,
            threads=threads,
            limits=preset(_bench(meeting).preset, _bench(meeting).minutes),
            rules_pairs=rules.pairs,
            pairs=asked.overrides.pairs,
            stored=design == "stored",
            scratch=place.root,
        )
        measured, noise = _measured(
            asked.device, place, plan, rules=rules, look_back=look_back, say=say
        )
        before = look_back(measured.sessions, measured.device)
        notes += noise.notes
    taken = measuring.counted((*before, *measured.sessions), meeting) if measured else ()
    if measured is not None:
        refused = earlier.refused(meeting, before, taken, measured.device, asked.across)
        verdicts += refused
        apart = {verdict.subject for verdict in refused}
        taken = tuple(session for session in taken if session.case.id not in apart)
    verdicts += gate.judge(
        meeting.base.side,
        meeting.head.side,
        taken,
        rules=rules,
        certificates=noise.certificates,
        extended=measured is not None and measured.extended,
        design=design,
        seed=SEED,
    )
    verdicts += limits.budgets(meeting.head, taken, measured.device if measured else None)
    today = datetime.now(UTC).date()
    notes += accepted.warnings(verdicts, acceptances, today)
    verdicts, in_force = accepted.apply(verdicts, acceptances, today)
    decision = gate.decide(verdicts)
    report = GateReport(
        pocketship_version=__version__,
        run_id=place.asked.run_id,
        created_utc=place.asked.created_utc,
        seed=SEED,
        base=meeting.base.side,
        head=meeting.head.side,
        rules=rules,
        device=measured.device if measured else None,
        sessions=taken,
        certificates=noise.certificates,
        accepted=in_force,
        verdicts=verdicts,
        outcome=decision.outcome,
        exit_code=decision.exit_code,
    )
    outputs.write(report, place.root)
    return Answer(report, place.root, tuple(notes))


def _look_back(
    asked: Comparison,
    device: DeviceConfig,
    meeting: Meeting,
    threads: Sequence[int],
    design: Design,
) -> LookBack:
    """What gives base's earlier sessions; where base is measured now, none."""
    if design == "paired":
        return lambda head, run: []
    if asked.history is not None:
        past = earlier.Past(asked.history, asked.wanted.base)
        return lambda head, run: past.sessions(meeting, head, run, asked.across)
    # Before head is measured: a base without any figure is bad input.
    found = earlier.sessions(meeting, connect.check(device).name, threads, asked.across)
    return lambda head, run: found


def _found(
    asked: Comparison, place: GateFolder, label: SideName, say: Progress
) -> tuple[Version, GateFolder]:
    """One side; where its pipeline was made is written down before that takes its time."""
    if label == "base" and asked.history is not None:
        name = f"{asked.wanted.base} in {asked.history.shown}"
        return Version(Side(label=name, kind="history")), place
    made = place.made(label)

    def begun(run: Path) -> None:
        nonlocal place
        place = place.remember(label, run)

    wish = Wish(
        label=label,
        name=asked.wanted.base if label == "base" else asked.wanted.head,
        here=asked.here,
        pipeline=_pipeline_of_revisions(asked),
        reports=asked.reports,
        earlier=made,
        begun=begun,
    )
    return sides.find(wish, say), place


def _pipeline_of_revisions(asked: Comparison) -> Path | None:
    """``--pipeline``; else the other side's pipeline file, relative to its repository's top."""
    if asked.wanted.pipeline is not None:
        return Path(asked.wanted.pipeline)
    for name in (asked.wanted.head, asked.wanted.base):
        if sides.is_pipeline(name, asked.here):
            path = (asked.here / Path(name).expanduser()).resolve()
            top = revisions.repository_of(asked.here)
            if top is not None and path.is_relative_to(top.resolve()):
                return path.relative_to(top.resolve())
    return None


def _acceptances(asked: Comparison, head: Version, section: GateConfig) -> tuple[Acceptance, ...]:
    """What was signed off: ``--accepted``, else the file that head's pipeline names."""
    if asked.overrides.accepted is not None:
        return accepted.read(asked.here / asked.overrides.accepted)
    if section.accepted is not None and head.home is not None:
        return accepted.read(head.home / section.accepted)
    return ()


def _bench(meeting: Meeting) -> BenchConfig:
    for version in (meeting.head, meeting.base):
        if version.config is not None:
            return version.config.bench
    return BenchConfig()


def _measured(
    device: DeviceConfig,
    place: GateFolder,
    plan: Plan,
    *,
    rules: GateRules,
    look_back: LookBack,
    say: Progress,
) -> tuple[Measured, Noise]:
    """The sessions on the device, twice as many where the first look does not decide."""
    noise = Noise()
    meeting = plan.meeting
    reached: DeviceRun | None = None

    def met(contact: Contact) -> None:
        nonlocal noise, reached
        reached = contact.run
        folder.recognise(place, contact.run)
        noise = known_noise(contact, plan, calibrate.folder())
        refuse_too_fine(noise, contact, rules)

    def more(found: Sequence[Session]) -> bool:
        assert reached is not None
        before = look_back(found, reached)
        first = gate.judge(
            meeting.base.side,
            meeting.head.side,
            measuring.counted((*before, *found), meeting),
            rules=rules,
            certificates=noise.certificates,
            design="stored" if plan.stored else "paired",
            seed=SEED,
        )
        return gate.undecided(first)

    measured = measuring.measure(
        device,
        plan,
        done=folder.sessions(place),
        keep=folder.keeper(place),
        met=met,
        more=more,
        progress=say,
    )
    return measured, noise

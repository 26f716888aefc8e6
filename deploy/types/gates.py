"""A comparison of two versions, *base* and *head*: its rules, its sessions, its result."""

from __future__ import annotations

import datetime
from typing import Literal

from pydantic import Field, model_validator

from deploy.types.artifacts import Artifact
from deploy.types.base import Format, Metric, Model, Tier
from deploy.types.cases import Case, DeviceRun
from deploy.types.verdicts import Outcome, Verdict


class GateRules(Model):
    """What counts as a change. Shares are relative: 0.03 is 3 %.

    ``threshold`` is for noisy metrics. ``allow`` maps a deterministic metric (``bytes``,
    ``partitions``, ``instructions`` ...) to the growth that is let pass; one that is not named may
    not grow beyond what :mod:`deploy.report.gate` says of it. ``primary`` decides; None: the
    device's own (``instructions`` where it counts them, else ``latency_ms``). ``pairs`` of sessions
    are measured, as many again where they do not decide.
    """

    threshold: float = Field(default=0.03, gt=0, lt=1)
    primary: Metric | None = None
    secondary: tuple[Metric, ...] = (
        Metric.LOAD_MS,
        Metric.FIRST_MS,
        Metric.PEAK_RSS_KIB,
        Metric.ENERGY_MJ,
    )
    pairs: int = Field(default=6, ge=6, le=100)
    allow: dict[str, float] = Field(default_factory=dict)


class NoiseFigure(Model):
    """How much one metric varies on a device between sessions of the same file (A/A).

    ``between_sd`` is the standard deviation of the logarithm of session medians; ``mde`` the
    smallest relative change that a gate of ``pairs`` pairs can tell from nothing.
    """

    metric: Metric
    pairs: int
    between_sd: float
    mde: float
    log_ratios: tuple[float, ...]


class Certificate(Model):
    """A noise certificate: an A/A run on one device, as it was then.

    It holds for this device (``device_sha256`` hashes its serial, which stays private), OS build,
    format, thread count and preset, and for no other.
    """

    schema_version: Literal[1] = 1
    pocketship_version: str
    created_utc: str
    profile: str
    device_sha256: str
    os_build: str | None
    tier: Tier
    format: Format
    threads: int
    preset: str
    artifact: str
    artifact_sha256: str
    runtime_version: str
    figures: tuple[NoiseFigure, ...]


class Acceptance(Model):
    """A change that somebody signed off: it may come to ``up_to`` times the base (1.08: 8 % more).

    ``subject`` and wildcards are as in :class:`deploy.types.Budget`. It holds from ``since`` to
    ``until``, both included.
    """

    subject: str = Field(min_length=1)
    metric: str = Field(min_length=1)
    up_to: float = Field(gt=0, allow_inf_nan=False)
    reason: str = Field(min_length=1)
    by: str = Field(min_length=1)
    since: datetime.date
    until: datetime.date

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> Acceptance:
        if self.until < self.since:
            raise ValueError(f"ends ({self.until}) before it begins ({self.since})")
        return self


class Side(Model):
    """One of the two versions: what the user named, and what that came to."""

    label: str
    kind: Literal["pipeline", "run", "artifacts", "revision", "history"]
    commit: str | None = None
    run_id: str | None = None
    artifacts: tuple[Artifact, ...] = ()


class Session(Model):
    """One case in a fresh process. ``order`` counts sessions in time, ``pair`` from 0."""

    pair: int = Field(ge=0)
    order: int = Field(ge=0)
    side: Literal["base", "head"]
    case: Case


class GateReport(Model):
    """The content of ``gate.json``: one comparison on one device, with every session."""

    schema_version: Literal[1] = 1
    pocketship_version: str
    run_id: str
    created_utc: str
    seed: int
    base: Side
    head: Side
    rules: GateRules
    device: DeviceRun | None
    sessions: tuple[Session, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    accepted: tuple[Acceptance, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    outcome: Outcome
    exit_code: int
    content_sha256: str = ""

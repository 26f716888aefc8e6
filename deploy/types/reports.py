"""All of one run, as ``report.json`` holds it."""

from __future__ import annotations

from typing import Literal

from compress.ledger import LedgerRow
from deploy.types.artifacts import Artifact, Parity
from deploy.types.base import Format, Model, Tier
from deploy.types.cases import Case, DeviceRun
from deploy.types.verdicts import Outcome, Verdict

REPORT_SCHEMA_VERSION = 2
"""A verdict of version 1 had no tier, base value, paired evidence or acceptance; it still loads."""


class Comparison(Model):
    """What a variant bought over the baseline: one runtime, one device, one metric.

    ``ratio`` is candidate / baseline of the medians (below 1: smaller or faster).
    """

    device: str
    format: Format
    threads: int
    metric: str
    tier: Tier
    baseline: str
    candidate: str
    baseline_value: float | None
    candidate_value: float | None
    ratio: float | None
    reason: str = ""


class Report(Model):
    """All of one run; the content of ``report.json``.

    ``content_sha256`` covers everything else in the file; :mod:`deploy.report.store` sets it when
    it writes, and refuses a file whose content it does not fit.
    """

    schema_version: Literal[2] = 2
    pocketship_version: str
    pipeline: str
    run_id: str
    created_utc: str
    commit: str | None
    seed: int
    baseline_variant: str | None
    machine: dict[str, str]
    tools: dict[str, str]
    ledger: tuple[LedgerRow, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    parity: tuple[Parity, ...] = ()
    devices: tuple[DeviceRun, ...] = ()
    cases: tuple[Case, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    outcome: Outcome
    exit_code: int
    content_sha256: str = ""

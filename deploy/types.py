"""The nouns of pocketship, as they stand in memory, in manifests and in ``report.json``.

Rules that the types keep, so that no report can break them:

* a number always carries its tier (where it comes from) and its unit (in the metric's name);
* a value that was not measured is ``unavailable`` / ``not_run`` / ``invalid`` / ``failed`` with a
  reason, never 0 and never an empty list without a word;
* what a profile declares and what a device answered are different types.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from compress.ledger import Cost as Cost
from compress.ledger import LedgerRow as LedgerRow
from compress.ledger import Quality as Quality

REPORT_SCHEMA_VERSION = 1

Progress = Callable[[str], None]
"""Receives one short line about what is going on; never called with untrusted markup."""


def silent(_: str) -> None:
    """A :data:`Progress` that says nothing."""


class Model(BaseModel):
    """Base of everything that is written to disk: unknown keys are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Tier(StrEnum):
    """Where a number comes from. Numbers of different tiers are never compared."""

    ESTIMATE = "estimate"
    EMULATOR = "emulator"
    SIMULATOR = "simulator"
    HOST = "host"
    DEVICE = "device"


class Status(StrEnum):
    """What became of a measurement, a parity check or a case."""

    OK = "ok"
    UNAVAILABLE = "unavailable"
    NOT_RUN = "not_run"
    INVALID = "invalid"
    FAILED = "failed"


class Format(StrEnum):
    """File formats that pocketship exports to."""

    EXECUTORCH = "executorch"
    ONNX = "onnx"
    ORT = "ort"
    COREML = "coreml"
    PACKED = "packed"


class Metric(StrEnum):
    """Names of everything that is measured; the suffix is the unit."""

    INSTALL_LOAD_MS = "install_load_ms"
    LOAD_MS = "load_ms"
    FIRST_MS = "first_ms"
    LATENCY_MS = "latency_ms"
    LOAD_INSTRUCTIONS = "load_instructions"
    FIRST_INSTRUCTIONS = "first_instructions"
    INSTRUCTIONS = "instructions"
    PEAK_RSS_KIB = "peak_rss_kib"
    DELTA_RSS_KIB = "delta_rss_kib"
    PSS_KIB = "pss_kib"
    PRIVATE_DIRTY_KIB = "private_dirty_kib"
    PHYS_FOOTPRINT_KIB = "phys_footprint_kib"
    ENERGY_MJ = "energy_mj"
    OUTPUT_MAX_ABS_DIFF = "output_max_abs_diff"
    TASK_METRIC = "task_metric"
    TASK_METRIC_DROP = "task_metric_drop"


class TensorSpec(Model):
    """One input or output of a model. ``shape`` is static; ``dtype`` is a torch name: float32."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class Placement(Model):
    """Which part of the graph runs on which backend.

    ``delegated_share`` is delegated operators / all operators in [0, 1]; None with a reason where
    nobody can say it before the model is on the device.
    """

    backend: str
    delegated: int | None = None
    total: int | None = None
    partitions: int | None = None
    delegated_share: float | None = None
    left: dict[str, int] = Field(default_factory=dict)
    reason: str = ""


class Artifact(Model):
    """An exported model with its provenance; stored beside the file as its manifest.

    ``name`` is ``<variant>.<format>``; ``path`` is relative to the manifest's folder; ``bytes`` and
    ``sha256`` cover a whole folder (``.mlpackage``) as :func:`deploy.files.tree_digest` says.
    """

    name: str
    variant: str
    format: Format
    path: str
    sha256: str
    bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    source_sha256: str
    tools: dict[str, str]
    recipe: tuple[dict[str, Any], ...] = ()
    placement: Placement


class Parity(Model):
    """One artifact against the program that it was exported from."""

    artifact: str
    status: Status
    reason: str = ""
    quality: Quality | None = None
    limits: dict[str, float] = Field(default_factory=dict)
    violated: tuple[str, ...] = ()


class Core(Model):
    """A cluster of equal CPU cores. ``max_mhz`` None: unknown."""

    name: str
    count: int = Field(gt=0)
    max_mhz: int | None = None
    big: bool = False


class EnergySource(Model):
    """How energy can be had on a device; ``source: none`` needs a reason.

    ``current_sign`` is the sign of ``current_now`` while the battery discharges,
    ``current_scale_ua`` how many µA one unit of it is; ``rails`` are the names of the power rails
    to add up, all where none is named.
    """

    source: Literal["power_rails", "current_voltage", "charge_counter", "none"]
    current_sign: Literal[1, -1] | None = None
    current_scale_ua: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    rails: tuple[str, ...] = ()
    reason: str = ""

    @model_validator(mode="after")
    def _reason_where_none(self) -> EnergySource:
        if self.source == "none" and not self.reason:
            raise ValueError("energy source 'none' needs a reason")
        return self


class EmulatorSpec(Model):
    """How the emulated phone of a profile is built and started."""

    cpu: str = "cortex-a76"
    memory_mib: int = Field(gt=0)
    disk_mib: int = Field(gt=0)
    properties: dict[str, str] = Field(default_factory=dict)
    battery: dict[str, str] = Field(default_factory=dict)


class BenchOverride(Model):
    """Iterations that replace the preset's where counts are exact or time is dear."""

    warmup_iterations: int = Field(ge=0)
    iterations: int = Field(gt=0)


class DeviceProfile(Model):
    """What we declare about a device before talking to it (one YAML file each).

    ``match`` maps Android property names to regular expressions that must match whole values; all
    must match. ``timeouts`` are wall seconds on this machine. ``budgets`` are upper limits a
    metric, keyed by metric name.
    """

    name: str
    description: str
    transport: Literal["adb", "emulator", "host", "replay"]
    tier: Tier
    match: dict[str, str] = Field(default_factory=dict)
    abi: str
    soc: str | None = None
    cores: tuple[Core, ...] = ()
    work_dir: str
    energy: EnergySource
    emulator: EmulatorSpec | None = None
    bench: BenchOverride | None = None
    shell_timeout_s: float = 30.0
    case_timeout_s: float = 600.0
    budgets: dict[Metric, float] = Field(default_factory=dict)
    tested_on: str = ""


class DeviceInfo(Model):
    """What a device answered. A None has its reason in ``unknown[field]``."""

    serial: str
    profile: str
    tier: Tier
    model: str | None = None
    manufacturer: str | None = None
    abi: str | None = None
    soc: str | None = None
    os_build: str | None = None
    kernel: str | None = None
    cpu_count: int | None = None
    big_core_mask: str | None = None
    memory_total_kib: int | None = None
    clock: Literal["monotonic", "icount"] = "monotonic"
    properties: dict[str, str] = Field(default_factory=dict)
    unknown: dict[str, str] = Field(default_factory=dict)


class DeviceState(Model):
    """What surrounds a case at one moment. A None has its reason in ``unknown[field]``.

    ``thermal_status`` is Android's, 0 (none) to 6 (shutdown); ``temperatures_c`` maps a sensor's
    name to degrees Celsius; ``time_in_state_ms`` maps a cpufreq policy to {kHz: milliseconds since
    boot} and ``governors`` to the name of its governor; ``uptime_s`` and ``boot_id`` tell a restart
    from a pause.
    """

    uptime_s: float | None = None
    boot_id: str | None = None
    battery_percent: float | None = None
    battery_c: float | None = None
    charging: bool | None = None
    thermal_status: int | None = None
    temperatures_c: dict[str, float] = Field(default_factory=dict)
    time_in_state_ms: dict[str, dict[int, int]] = Field(default_factory=dict)
    governors: dict[str, str] = Field(default_factory=dict)
    unknown: dict[str, str] = Field(default_factory=dict)


class OperatorCost(Model):
    """One operator of a model on a device, from a pass of its own (profiling disturbs).

    ``layers`` are the names of the model's layers that it came from, empty where nobody says;
    ``unit`` is ``ms`` or ``instructions``; ``samples`` has one value an inference.
    """

    name: str
    kind: str
    backend: str
    layers: tuple[str, ...] = ()
    unit: Literal["ms", "instructions"]
    samples: tuple[float, ...]


class Measurement(Model):
    """One metric of one case, with every raw sample.

    ``interval`` is (low, high) where the one sample was computed and its ``source`` says from what.
    """

    metric: Metric
    unit: str
    tier: Tier
    source: str
    status: Status
    reason: str = ""
    samples: tuple[float, ...] = ()
    interval: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _samples_or_reason(self) -> Measurement:
        if self.status is Status.OK and not self.samples:
            raise ValueError("a measurement that is ok has samples")
        if self.status is not Status.OK and (self.samples or not self.reason):
            raise ValueError("a measurement that is not ok has a reason and no samples")
        if self.interval and (not self.samples or self.interval[0] > self.interval[1]):
            raise ValueError("an interval goes with samples, from low to high")
        return self

    @property
    def median(self) -> float | None:
        """Median of the raw samples, None where there are none."""
        return statistics.median(self.samples) if self.samples else None


class Case(Model):
    """One artifact on one device with one thread count.

    ``id`` is ``<artifact name>@<device profile>/t<threads>``. ``status`` is ``ok`` when the runner
    ran to its end, ``failed`` when it did not and the model or runtime is to blame (a crash, a
    load error), ``invalid`` when the infrastructure is (device lost, time-out), ``not_run`` with
    a reason otherwise. ``attempts`` counts how often it was begun; ``before`` and ``after`` frame
    the timed pass; ``operators`` is empty where ``operators_reason`` says why, or nobody asked.
    """

    id: str
    artifact: str
    artifact_sha256: str
    device: str
    threads: int
    status: Status
    reason: str = ""
    runtime_version: str = ""
    measurements: tuple[Measurement, ...] = ()
    wall_seconds: float = 0.0
    attempts: int = 1
    before: DeviceState | None = None
    after: DeviceState | None = None
    operators: tuple[OperatorCost, ...] = ()
    operators_reason: str = ""
    warnings: tuple[str, ...] = ()

    def measurement(self, metric: Metric) -> Measurement | None:
        """The case's measurement of ``metric``, None where it has no such row."""
        return next((m for m in self.measurements if m.metric is metric), None)


class DeviceRun(Model):
    """One section of a report: a device, or why it could not take part."""

    profile: DeviceProfile
    status: Status
    reason: str = ""
    info: DeviceInfo | None = None
    bytes_pushed: int = 0
    bytes_already_there: int = 0
    push_mb_s: float | None = None


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


class Outcome(StrEnum):
    """What the gate says of one thing."""

    PASS = "PASS"
    IMPROVED = "IMPROVED"
    REGRESSED = "REGRESSED"
    INCONCLUSIVE = "INCONCLUSIVE"
    INVALID = "INVALID"


class Verdict(Model):
    """One decision with its evidence: ``subject`` is a case id or an artifact name."""

    outcome: Outcome
    subject: str
    metric: str
    value: float | None
    limit: float | None
    source: str
    reason: str = ""


ARTIFACT_METRICS = ("bytes", "partitions")
"""What a budget can limit of an artifact's file; every other metric is a case's."""


class Budget(Model):
    """An upper limit that the gate holds figures to; a figure equal to ``max`` is within it.

    ``subject`` is an artifact name (for :data:`ARTIFACT_METRICS`) or a case id (for a
    :class:`Metric`); ``*``, ``?`` and ``[...]`` match as in file names. ``max`` is in the metric's
    unit.
    """

    subject: str = Field(min_length=1)
    metric: str = Field(json_schema_extra={"enum": [*ARTIFACT_METRICS, *map(str, Metric)]})
    max: float = Field(ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _known_metric(self) -> Budget:
        known = (*ARTIFACT_METRICS, *(str(metric) for metric in Metric))
        if self.metric not in known:
            raise ValueError(f"no metric {self.metric!r}; choose one of {', '.join(known)}")
        return self


class Report(Model):
    """All of one run; the content of ``report.json``.

    ``content_sha256`` covers everything else in the file; :mod:`deploy.report.store` sets it when
    it writes, and refuses a file whose content it does not fit.
    """

    schema_version: Literal[1] = 1
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

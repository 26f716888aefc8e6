"""What every noun stands on: tiers, statuses, formats, metrics."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

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

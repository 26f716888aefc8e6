"""What each stage leaves in the run folder, written and read back. No stage's work is done here."""

from deploy.stored.compressed import (
    INPUTS,
    NO_METRIC,
    chosen,
    first_outputs,
    kept_steps,
    ledger,
    metric_of,
    outputs,
    quality_in_words,
    raw_inputs,
    require,
    samples,
    task_of,
    tell_ledger,
    write_compressed,
)
from deploy.stored.exported import described, export_requests, write_manifest
from deploy.stored.jobs import bench_jobs
from deploy.stored.measured import (
    cases,
    devices,
    keeper,
    missing_jobs,
    write_absent,
    write_device,
)
from deploy.stored.verified import in_words, parity, parity_failed, require_parity, write_parity

__all__ = [
    "INPUTS",
    "NO_METRIC",
    "bench_jobs",
    "cases",
    "chosen",
    "described",
    "devices",
    "export_requests",
    "first_outputs",
    "in_words",
    "keeper",
    "kept_steps",
    "ledger",
    "metric_of",
    "missing_jobs",
    "outputs",
    "parity",
    "parity_failed",
    "quality_in_words",
    "raw_inputs",
    "require",
    "require_parity",
    "samples",
    "task_of",
    "tell_ledger",
    "write_absent",
    "write_compressed",
    "write_device",
    "write_manifest",
    "write_parity",
]

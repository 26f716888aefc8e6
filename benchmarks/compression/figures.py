"""What is measured of a made variant: bytes, and how right it is where its runtime runs it."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from benchmarks.compression.makers import Made
from compress.errors import ConfigError
from compress.quality import Forward, compare, flat_outputs, run_all, targets_of
from compress.task import Task
from deploy.files import tree_digest
from deploy.types import Format
from deploy.verify.parity import RUNTIMES

RUNS = {"pte": Format.EXECUTORCH, "onnx": Format.ONNX}
"""File kinds that a runtime opens on this machine."""


def measured(made: Made, task: Task) -> dict[str, float]:
    """``<kind>_bytes`` of each file; ``_top1``, ``_agreement`` and ``_sqnr_db`` where it runs.

    Outputs are those of the file's own runtime on all evaluation samples of ``task``; agreement and
    SQNR are against the task's uncompressed model. An SQNR of equal outputs is left out.
    """
    if not isinstance(task.model, nn.Module):
        raise ConfigError("is an exported program, not an nn.Module", where="task.model")
    original = task.model
    reference = run_all(lambda inputs: flat_outputs(original(*inputs)), task.evaluation)
    figures: dict[str, float] = {}
    runs: dict[str, Forward] = {}
    for kind, path in made.files.items():
        figures[f"{kind}_bytes"] = size(path)
        if kind in RUNS:
            runs[kind] = RUNTIMES[RUNS[kind]](path)
    if made.simulated is not None:
        runs["simulated"] = made.simulated
    answers = {kind: run_all(forward, task.evaluation) for kind, forward in runs.items()}
    for kind, outputs in answers.items():
        quality = compare(reference, outputs, task.metric, targets_of(task))
        figures[f"{kind}_top1"] = quality.metric_value
        if quality.top1_agreement is not None:
            figures[f"{kind}_agreement"] = quality.top1_agreement
        if quality.sqnr_db is not None:
            figures[f"{kind}_sqnr_db"] = quality.sqnr_db
    if "onnx" in answers and "pte" in answers:
        # Of one quantized program, so that they differ by the rounding of the kernels only.
        apart = compare(answers["pte"], answers["onnx"], task.metric, targets_of(task))
        figures["onnx_pte_max_abs_diff"] = apart.max_abs_diff
        if apart.sqnr_db is not None:
            figures["onnx_pte_sqnr_db"] = apart.sqnr_db
    return figures


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return tree_digest(path)[1]

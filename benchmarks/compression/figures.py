"""What is measured of a made variant: bytes, and how right it is where its runtime runs it."""

from __future__ import annotations

import math
from pathlib import Path

from torch import nn

from benchmarks.compression.makers import Made
from compress.errors import ConfigError
from compress.quality import Outputs, compare, flat_outputs, run_all, targets_of
from compress.task import Inputs, Task
from deploy.files import tree_digest
from deploy.types import Format
from deploy.verify.parity import RUNTIMES

RUNS = {"pte": Format.EXECUTORCH, "onnx": Format.ONNX}
"""File kinds that a runtime opens on this machine."""


def module_forward(model: nn.Module, inputs: Inputs) -> Outputs:
    """All outputs of a module."""
    return flat_outputs(model(*inputs))


def measured(made: Made, task: Task) -> dict[str, float]:
    """``<kind>_bytes`` of each file; ``_top1``, ``_agreement`` and ``_sqnr_db`` where it runs.

    Outputs are those of the file's own runtime on all evaluation samples of ``task``; agreement and
    SQNR are against the task's uncompressed model. An SQNR of equal outputs is left out.
    """
    if not isinstance(task.model, nn.Module):
        raise ConfigError("is an exported program, not an nn.Module", where="task.model")
    original = task.model
    reference = run_all(lambda inputs: module_forward(original, inputs), task.evaluation)
    figures: dict[str, float] = {}
    runs = {}
    for kind, path in made.files.items():
        figures[f"{kind}_bytes"] = size(path)
        if kind in RUNS:
            runs[kind] = RUNTIMES[RUNS[kind]](path)
    if made.simulated is not None:
        simulated = made.simulated
        runs["simulated"] = lambda inputs: module_forward(simulated, inputs)
    for kind, forward in runs.items():
        outputs = run_all(forward, task.evaluation)
        quality = compare(reference, outputs, task.metric, targets_of(task))
        figures[f"{kind}_top1"] = quality.metric_value
        if quality.top1_agreement is not None:
            figures[f"{kind}_agreement"] = quality.top1_agreement
        if quality.sqnr_db is not None:
            figures[f"{kind}_sqnr_db"] = quality.sqnr_db
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return tree_digest(path)[1]

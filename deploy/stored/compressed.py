"""What compression leaves: programs, reference outputs, samples, the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compress.capture import load_program
from compress.errors import CompressError
from compress.ledger import LedgerRow
from compress.recipe import Compressed
from compress.task import Sample, Task, TaskMetric, check, load_task
from deploy import workspace
from deploy.config import PipelineConfig
from deploy.errors import ConfigError, first_line
from deploy.files import write_bytes
from deploy.types import (
    Progress,
    Quality,
)
from deploy.verify.parity import ParityLimits, violations
from deploy.workspace import RunFolder

INPUTS = "inputs.bin"
_SAMPLES = "samples.pt"
_LEDGER = "ledger.json"


def task_of(folder: RunFolder) -> Task:
    """The task that the pipeline names: its callable's, or a saved program with random data."""
    wanted = folder.config.task
    if wanted.callable is not None:
        return load_task(wanted.callable, wanted.arguments, folder.search())
    assert wanted.program is not None
    places = [place / wanted.program for place in folder.search()]
    path = next((place for place in places if place.is_file()), places[0])
    program = load_program(path)
    if program.example_inputs is None or program.example_inputs[1]:
        raise ConfigError(
            "was saved without positional example inputs",
            where=str(path),
            hint="Use task.callable and give the inputs in a Task.",
        )
    example = tuple(program.example_inputs[0])
    random = torch.Generator().manual_seed(folder.config.seed)
    task = Task(
        model=program,
        example_inputs=example,
        evaluation=[
            Sample(tuple(_random_like(tensor, random) for tensor in example))
            for _ in range(wanted.random_samples)
        ],
        metric=NO_METRIC,
    )
    check(task)
    return task


NO_METRIC = TaskMetric("none", lambda outputs, targets: 0.0)
"""Stands where a bare program has no task to be judged by."""


def _random_like(tensor: Tensor, random: torch.Generator) -> Tensor:
    if tensor.is_floating_point():
        return torch.randn(tensor.shape, generator=random, dtype=tensor.dtype)
    # Indices stay inside what the example shows to be legal.
    high = int(tensor.max()) + 1 if tensor.numel() else 1
    return torch.randint(0, max(high, 1), tensor.shape, generator=random).to(tensor.dtype)


def chosen(made: Compressed, config: PipelineConfig) -> list[tuple[Any, list[Any]]]:
    """Program and outputs of each variant, in the order of ``config.variants``."""
    pairs: list[tuple[Any, list[Any]]] = []
    if config.baseline:
        pairs.append((made.baseline, made.baseline_outputs))
    if config.recipe:
        pairs.append((made.program, made.program_outputs))
    return pairs


def write_compressed(scratch: Path, task: Task, made: Compressed, config: PipelineConfig) -> None:
    """Programs, reference outputs, evaluation samples, the ledger, and the phone's input."""
    for variant, (program, outputs) in zip(config.variants, chosen(made, config), strict=True):
        torch.export.save(program, scratch / f"{variant}.pt2")
        torch.save([list(sample) for sample in outputs], scratch / f"outputs.{variant}.pt")
    samples = [(list(sample.inputs), sample.target) for sample in task.evaluation]
    torch.save(samples, scratch / _SAMPLES)
    write_bytes(scratch / INPUTS, raw_inputs(task))
    rows = list(made.ledger)
    if config.task.program is not None:
        note = f"no data: judged on {len(samples)} random inputs (seed {config.seed})"
        rows = [row.model_copy(update={"notes": (*row.notes, note)}) for row in rows]
    workspace.write_json(scratch / _LEDGER, rows)


def raw_inputs(task: Task) -> bytes:
    """The phone's input as the runner takes it: the first evaluation sample's tensors."""
    return raw_sample(task.evaluation[0])


def raw_sample(sample: Sample) -> bytes:
    """One sample's input tensors as the runner takes them."""
    return b"".join(_raw(tensor) for tensor in sample.inputs)


def _raw(tensor: Tensor) -> bytes:
    try:
        return bytes(tensor.contiguous().numpy().tobytes())
    except TypeError as error:
        raise ConfigError(
            f"no runtime takes inputs of {tensor.dtype}",
            where="task.example_inputs",
            hint="Give float32 inputs and convert inside the model.",
        ) from error


def tell_ledger(folder: RunFolder, progress: Progress) -> None:
    """One progress line for each compression step."""
    for row in ledger(folder)[1:]:
        if row.quality:
            dropped = "" if row.kept else " (dropped)"
            words = quality_in_words(row.quality)
            progress(f"{row.step}{dropped}: {words} against uncompressed")


def require(folder: RunFolder) -> None:
    """Raise ``CompressError`` where the compressed model lost more than the pipeline allows."""
    recipe = folder.config.recipe
    rows = [row for row in ledger(folder) if row.kept]
    if recipe is None or not rows or rows[-1].quality is None:
        return
    limits = ParityLimits.model_validate(recipe.require.model_dump())
    if broken := violations(rows[-1].quality, limits):
        raise CompressError(
            "the recipe lost too much: " + "; ".join(broken.values()),
            where=f"variant '{recipe.name}'",
            hint="Nothing was exported. Change the recipe, or recipe.require if that is enough.",
        )


def kept_steps(folder: RunFolder) -> tuple[dict[str, Any], ...]:
    """The recipe's steps that made the compressed variant: those that ``keep_if`` did not drop."""
    steps = folder.config.recipe.steps if folder.config.recipe else ()
    rows = ledger(folder)[1:]
    return tuple(
        step.model_dump(mode="json") for step, row in zip(steps, rows, strict=True) if row.kept
    )


def ledger(folder: RunFolder) -> tuple[LedgerRow, ...]:
    """What each compression step bought."""
    if not folder.compress.is_dir():
        raise ConfigError(
            "has no compressed model yet",
            where=str(folder.root),
            hint=f"pocketship run {folder.asked.pipeline_file} --resume makes it.",
        )
    return tuple(workspace.read_json(folder.compress / _LEDGER, list[LedgerRow]))


def samples(folder: RunFolder) -> list[Sample]:
    """The evaluation samples that the compressed model was judged on."""
    return [Sample(tuple(inputs), target) for inputs, target in _load(folder.compress / _SAMPLES)]


def outputs(folder: RunFolder, variant: str) -> list[tuple[Tensor, ...]]:
    """The program's outputs on every sample."""
    return [tuple(sample) for sample in _load(folder.compress / f"outputs.{variant}.pt")]


def first_outputs(folder: RunFolder, variant: str) -> list[Any]:
    """The program's outputs on the first sample (the one that phones run) as NumPy arrays."""
    return [tensor.numpy() for tensor in outputs(folder, variant)[0]]


def _load(path: Path) -> Any:
    try:
        return torch.load(path, weights_only=True)
    except Exception as error:
        raise ConfigError(
            f"cannot be read: {first_line(error)}",
            where=str(path),
            hint="Run the compress stage again.",
        ) from error


def metric_of(folder: RunFolder) -> TaskMetric:
    """The task's metric; loads the task, because a metric is code and is never stored."""
    return task_of(folder).metric if folder.config.task.callable else NO_METRIC


def quality_in_words(quality: Quality) -> str:
    """SQNR, agreement and metric in a line."""
    words = ["equal" if quality.sqnr_db is None else f"SQNR {quality.sqnr_db:.1f} dB"]
    if quality.top1_agreement is not None:
        words.append(f"top-1 agreement {quality.top1_agreement:.1%}")
    if quality.metric != NO_METRIC.name:
        words.append(f"{quality.metric} {quality.metric_value:.4g}")
    return ", ".join(words)

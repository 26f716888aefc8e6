"""Judging a model after each step: quality, interval, validation metric, footprint, cost.

Evaluation data only report; what decides (``keep_if``) is judged on validation data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.export import ExportedProgram

from compress import capture, quality
from compress.journal import Run
from compress.judgement.footprint import footprint
from compress.judgement.intervals import interval_of
from compress.ledger import Cost, LedgerRow
from compress.quality import Outputs
from compress.samples import Sample, TensorSamples, batch
from compress.task import Task

Measure = Callable[[ExportedProgram], Cost]
"""Runs a program on the device that the user named; whoever gives it knows device and format."""

VALIDATION_SAMPLES = 2048
"""At most so many validation samples are judged after each step, spread evenly, always the same."""
_BATCH = 256


@dataclass(frozen=True)
class Judged:
    """A model with its ledger row and the outputs that it was judged by.

    ``exact``: the outputs are the program's own, one sample at a time, not the module's in batches.
    """

    program: ExportedProgram
    row: LedgerRow
    outputs: list[Outputs]
    exact: bool


class Judge:
    """Judges every model of one recipe on the same data, against the uncompressed program."""

    def __init__(self, task: Task, baseline: ExportedProgram, run: Run, measure: Measure | None):
        self.task, self.run, self.measure = task, run, measure
        self.reference = quality.run_all(capture.forward_of(baseline), task.evaluation)
        self._validation = spread(task.validation, VALIDATION_SAMPLES)

    def uncompressed(
        self, program: ExportedProgram, module: nn.Module | None, seconds: float
    ) -> Judged:
        """The first row; its outputs are the reference itself."""
        row = self._row("uncompressed", program, module, self.reference, seconds)
        return Judged(program, row, self.reference, True)

    def step(
        self, name: str, program: ExportedProgram, module: nn.Module | None, seconds: float
    ) -> Judged:
        """The row of a model as a step left it.

        ``module`` computes the same as ``program`` with plain weights; it runs in batches, which is
        many times faster. None where only the program is left.
        """
        outputs, exact = self._outputs(program, module, self.task.evaluation)
        row = self._row(name, program, module, outputs, seconds)
        return Judged(program, row, outputs, exact)

    def exactly(self, judged: Judged) -> Judged:
        """The same judged by the program's own outputs: what exports are held to."""
        if judged.exact:
            return judged
        outputs = quality.run_all(capture.forward_of(judged.program), self.task.evaluation)
        row = judged.row.model_copy(update=self._figures(outputs))
        return Judged(judged.program, row, outputs, True)

    def _row(
        self,
        name: str,
        program: ExportedProgram,
        module: nn.Module | None,
        outputs: list[Outputs],
        seconds: float,
    ) -> LedgerRow:
        size = footprint(program)
        row = LedgerRow(
            step=name,
            parameters=size.parameters,
            program_bytes=size.disk_bytes,
            seconds=round(seconds, 3),
            validation=self._validated(program, module),
            footprint=size,
        )
        row = row.model_copy(update=self._figures(outputs))
        # Last, because it may take minutes: a model that fails before is not measured.
        cost = None if self.measure is None else self.measure(program)
        return row.model_copy(update={"cost": cost})

    def _figures(self, outputs: list[Outputs]) -> dict[str, object]:
        metric, targets = self.task.metric, quality.targets_of(self.task)
        first = [sample[0] for sample in outputs]
        return {
            "quality": quality.compare(self.reference, outputs, metric, targets),
            "interval": interval_of(metric, first, targets, seed=self.run.seed),
        }

    def _validated(self, program: ExportedProgram, module: nn.Module | None) -> float | None:
        if not self._validation:
            return None
        outputs, _ = self._outputs(program, module, self._validation)
        targets = [sample.target for sample in self._validation]
        return quality.figure(self.task.metric, [sample[0] for sample in outputs], targets)

    def _outputs(
        self, program: ExportedProgram, module: nn.Module | None, samples: Sequence[Sample]
    ) -> tuple[list[Outputs], bool]:
        # Only training data promise that axis 0 is the batch axis.
        if module is not None and self.task.train:
            joined = in_batches(module, samples)
            if joined is not None:
                return joined, False
        return quality.run_all(capture.forward_of(program), samples), True


def in_batches(module: nn.Module, samples: Sequence[Sample]) -> list[Outputs] | None:
    """Outputs of every sample of a module in evaluation mode; None where it cannot run batches."""
    outputs: list[Outputs] = []
    with torch.no_grad():
        for indices in torch.split(torch.arange(len(samples)), _BATCH):
            rows = [samples[index].inputs[0].shape[0] for index in indices.tolist()]
            try:
                answers = quality.flat_outputs(module(*batch(samples, indices).inputs))
                parts = [torch.split(answer.detach(), rows) for answer in answers]
            except Exception:
                # The program, one sample at a time, then says what is wrong, if anything is.
                return None
            outputs += zip(*parts, strict=True)
    return outputs


def spread(samples: Sequence[Sample], most: int) -> Sequence[Sample]:
    """``most`` samples at even distances (all where there are no more): order may be by class."""
    if len(samples) <= most:
        return samples
    indices = [index * len(samples) // most for index in range(most)]
    if isinstance(samples, TensorSamples):
        chosen = samples.batch(torch.tensor(indices))
        return TensorSamples(chosen.inputs, chosen.target)
    return [samples[index] for index in indices]

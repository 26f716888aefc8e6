"""The one training loop: every step that fits weights uses it.

It shows progress, draws everything random from the run's seed, keeps the best epoch by the
validation metric, stops early, and leaves a checkpoint after each epoch from which an interrupted
recipe goes on to the same result, bit for bit.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.code_print import code_print
from compress.epochs import Epoch as Epoch
from compress.epochs import Hooks, Loop
from compress.epochs import Training as Training
from compress.errors import CompressError, first_line
from compress.journal import Run, finite_weights, key_of
from compress.memory_layout import channels_last, pages_kept
from compress.passes import batch_count, batches
from compress.passes import evaluate as evaluate
from compress.quality import flat_outputs
from compress.samples import Sample, batch
from compress.task import Task

_BatchNorm = nn.modules.batchnorm._BatchNorm

Objective = Callable[[nn.Module, Sample], Tensor]
"""``(model in training mode, batch) -> scalar loss``."""
SetMode = Callable[[nn.Module, bool], object]
"""Switches a model between training (True) and evaluation; exported graphs need their own way."""


_FORM = 2
"""Of checkpoints and of what an epoch does: raised when either changes."""


def set_module_mode(model: nn.Module, training: bool) -> None:
    """:data:`SetMode` of an ordinary module.

    A batch normalisation whose parameters are all frozen stays in evaluation mode: to freeze a
    layer means its statistics too.
    """
    model.train(training)
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if isinstance(module, _BatchNorm) and own and not any(p.requires_grad for p in own):
            module.eval()


@dataclass(frozen=True)
class History:
    """What a training did. ``best`` is the epoch whose weights the model has now.

    With ``keep: last`` that is the last one.
    """

    epochs: tuple[Epoch, ...]
    best: Epoch
    resumed_from: int = 0

    def words(self) -> str:
        """One line for the ledger."""
        again = f", {self.resumed_from} of them from a checkpoint" if self.resumed_from else ""
        return (
            f"trained {len(self.epochs)} epochs{again}; kept epoch {self.best.number} "
            f"(validation {self.best.validation:.4f})"
        )


def fit(
    model: nn.Module,
    task: Task,
    config: Training,
    run: Run,
    *,
    purpose: str,
    objective: Objective | None = None,
    signature: object = None,
    trained: nn.Module | None = None,
    set_mode: SetMode = set_module_mode,
    before_batch: Callable[[int, int], None] | None = None,
    after_batch: Callable[[], None] | None = None,
) -> History:
    """Fit ``model`` in place on ``task.train`` and leave it in evaluation mode.

    Args:
        purpose: tells apart several trainings of one step, such as ``after round 2``.
        objective: the loss of a batch; the task's loss of the first output if None.
        signature: JSON-like description of the objective, and of the two hooks where they matter:
            a checkpoint is used only where it is equal.
        trained: what the optimizer fits and checkpoints hold, when that is more than ``model``
            (such as projections of distillation beside it); must contain ``model``.
        before_batch: called with (batch number from 0, batches in all) before each batch. It may
            change buffers in place and must depend on nothing that ``state_dict`` does not hold.
        after_batch: called after each optimizer step.

    Raises ``CompressError`` where there is no training data, the journal cannot be written, the
    loss fails, and where a loss or a weight stops being finite. Whatever ends a training early
    leaves the model in evaluation mode with the weights of the best epoch so far, or those it had.
    """
    if not task.train or not task.validation:
        missing = "train" if not task.train else "validation"
        raise CompressError(
            f"training needs task.{missing}, which is empty",
            where=purpose,
            hint="Give Task(train=[...], validation=[...]), or leave the fine-tuning out.",
        )
    whole = model if trained is None else trained
    loss_of = task_objective(task) if objective is None else objective
    run.check_writable()
    finite_weights(whole, f"{purpose}, before the first epoch")
    key = "training-" + key_of(
        [_FORM, torch.__version__, run.seed, run.place, purpose, config.model_dump(), signature],
        [run.data_print(task), [p.requires_grad for p in whole.parameters()]],
        [code_print(part) for part in (task.loss, task.augment, task.metric)],
        whole,
    )

    with pages_kept(), channels_last(model, lambda trial: _try(trial, task, set_mode)):
        loop = Loop(
            whole, config, batch_count(len(task.train), config.batch_size), task.metric.gain
        )
        resumed = _resume(loop, run, key)
        try:
            while not loop.finished:
                number = len(loop.epochs) + 1
                where = f"{purpose}, epoch {number}"
                started = time.monotonic()
                # Not the generator's state but its origin is what a resumed run has too.
                torch.manual_seed(run.derived_seed(purpose, "epoch", number))
                set_mode(model, True)
                loss = loop.epoch(
                    batches(task, config.batch_size, run.generator(purpose, "batches", number)),
                    functools.partial(loss_of, model),
                    Hooks(before_batch, after_batch),
                    where,
                    lambda text: run.say(f"{purpose}: {text}"),
                )
                finite_weights(whole, where)
                set_mode(model, False)
                loop.finish_epoch(Epoch(number, loss, evaluate(model, task, task.validation)))
                run.keep(key, loop.saved())
                seconds = time.monotonic() - started
                left = f", about {seconds * (config.epochs - number):.0f} s left"
                run.say(
                    f"{purpose}: epoch {number}/{config.epochs}, loss {loss:.4f}, "
                    f"validation {task.metric.name} {loop.epochs[-1].validation:.4f}, "
                    f"{seconds:.1f} s{'' if loop.finished else left}"
                )
        finally:
            # A half-trained network must not be taken for a trained one, whatever ended the loop.
            loop.restore()
            set_mode(model, False)
    return History(tuple(loop.epochs), loop.kept, resumed)


def _try(model: nn.Module, task: Task, set_mode: SetMode) -> None:
    """Both passes of a training over two samples, without a loss."""
    few = batch(task.train, torch.arange(min(2, len(task.train))))
    set_mode(model, True)
    flat_outputs(model(*few.inputs))[0].sum().backward()  # type: ignore[no-untyped-call]
    set_mode(model, False)
    with torch.no_grad():
        model(*few.inputs)


def _resume(loop: Loop, run: Run, key: str) -> int:
    """Take up a checkpoint; returns its number of epochs, 0 where there is none that fits."""
    saved = run.kept(key)
    if saved is None:
        return 0
    try:
        return loop.load(saved)
    except (LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        loop.restore()
        run.say(f"the checkpoint {key} does not fit ({first_line(error)}); training again")
        return 0


def task_objective(task: Task) -> Objective:
    """The task's own loss of the model's first output."""

    def objective(model: nn.Module, sample: Sample) -> Tensor:
        assert sample.target is not None
        return task.loss(flat_outputs(model(*sample.inputs))[0], sample.target)

    return objective

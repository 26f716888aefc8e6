"""The one training loop: every step that fits weights uses it.

It shows progress, draws everything random from the run's seed, keeps the best epoch by the
validation metric, stops early, and leaves a checkpoint after each epoch from which an interrupted
recipe goes on to the same result, bit for bit.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from compress.errors import CompressError, PocketshipError, first_line
from compress.journal import Run, finite_weights, key_of
from compress.quality import figure, flat_outputs
from compress.samples import Sample, batch
from compress.task import Task

Objective = Callable[[nn.Module, Sample], Tensor]
"""``(model in training mode, batch) -> scalar loss``."""
SetMode = Callable[[nn.Module, bool], object]
"""Switches a model between training (True) and evaluation; exported graphs need their own way."""


def set_module_mode(model: nn.Module, training: bool) -> None:
    """:data:`SetMode` of an ordinary module."""
    model.train(training)


class Training(BaseModel):
    """How weights are fitted. ``batch_size`` counts samples, ``patience`` epochs without a gain."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(default=1, ge=1, le=10_000)
    batch_size: int = Field(default=128, ge=1)
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = Field(default=1e-3, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_epochs: float = Field(default=0.0, ge=0)
    clip_grad_norm: float | None = Field(default=None, gt=0)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    patience: int | None = Field(default=None, ge=1)
    keep: Literal["best", "last"] = "best"


@dataclass(frozen=True)
class Epoch:
    """One finished epoch: mean training loss, validation metric; number counts from 1."""

    number: int
    loss: float
    validation: float


@dataclass(frozen=True)
class History:
    """What a training did. ``best`` is the epoch whose weights the model has now."""

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

    Raises ``CompressError`` where there is no training data, and where a loss or a weight stops
    being finite: the model then has the weights of the best epoch so far.
    """
    if not task.train or not task.validation:
        missing = "train" if not task.train else "validation"
        raise CompressError(
            f"training needs task.{missing}, which is empty",
            where=purpose,
            hint="Give Task(train=[...], validation=[...]), or leave the fine-tuning out.",
        )
    whole = trained or model
    loss_of = objective or task_objective(task)
    key = "training-" + key_of(
        [torch.__version__, run.seed, run.place, purpose, config.model_dump(), signature],
        [run.data_print(task), [p.requires_grad for p in whole.parameters()]],
        whole,
    )
    loop = _Loop(whole, config, -(-len(task.train) // config.batch_size))
    resumed = loop.load(run.kept(key))
    while not loop.finished:
        number = len(loop.epochs) + 1
        started = time.monotonic()
        # Not the generator's state but its origin is what a resumed run has too.
        torch.manual_seed(run.derived_seed(purpose, "epoch", number))
        set_mode(model, True)
        try:
            loss = loop.epoch(
                batches(task, config.batch_size, run.generator(purpose, "batches", number)),
                functools.partial(loss_of, model),
                _Hooks(before_batch, after_batch),
                f"{purpose}, epoch {number}",
            )
            finite_weights(whole, f"{purpose}, epoch {number}")
        except CompressError:
            if loop.best is not None:
                loop.restore()
            set_mode(model, False)
            raise
        set_mode(model, False)
        value = evaluate(model, task, task.validation)
        loop.finish_epoch(Epoch(number, loss, value), task.metric.gain)
        run.keep(key, loop.saved())
        seconds = time.monotonic() - started
        left = "" if loop.finished else f", about {seconds * (config.epochs - number):.0f} s left"
        run.say(
            f"{purpose}: epoch {number}/{config.epochs}, loss {loss:.4f}, "
            f"validation {task.metric.name} {value:.4f}, {seconds:.1f} s{left}"
        )
    loop.restore()
    set_mode(model, False)
    assert loop.best is not None
    return History(tuple(loop.epochs), loop.best, resumed)


def task_objective(task: Task) -> Objective:
    """The task's own loss of the model's first output."""

    def objective(model: nn.Module, sample: Sample) -> Tensor:
        assert sample.target is not None
        return task.loss(flat_outputs(model(*sample.inputs))[0], sample.target)

    return objective


def evaluate(
    model: nn.Module, task: Task, samples: Sequence[Sample], batch_size: int = 512
) -> float:
    """The task's metric of a module (in evaluation mode) on samples, computed in batches."""
    outputs: list[Tensor] = []
    targets: list[Tensor | None] = []
    with torch.no_grad():
        for indices in torch.arange(len(samples)).tensor_split(_cuts(len(samples), batch_size)):
            joined = batch(samples, indices)
            answers = flat_outputs(model(*joined.inputs))[0].float()
            outputs += [answers[row : row + 1] for row in range(len(answers))]
            wanted = joined.target
            targets += [None if wanted is None else wanted[i : i + 1] for i in range(len(answers))]
    return figure(task.metric, outputs, targets)


def _cuts(count: int, size: int) -> list[int]:
    return list(range(size, count, size))


def batches(
    task: Task, batch_size: int, generator: torch.Generator, *, shuffle: bool = True
) -> Iterator[Sample]:
    """Training batches of one pass, augmented.

    A last batch of one sample is left out: batch normalisation cannot train on it.
    """
    count = len(task.train)
    order = torch.randperm(count, generator=generator) if shuffle else torch.arange(count)
    for indices in order.tensor_split(_cuts(count, batch_size)):
        if len(indices) == 1 and count > 1:
            continue
        joined = batch(task.train, indices)
        if task.augment is not None:
            joined = Sample(task.augment(joined.inputs, generator), joined.target)
        yield joined


@dataclass(frozen=True)
class _Hooks:
    before_batch: Callable[[int, int], None] | None
    after_batch: Callable[[], None] | None

    def before(self, step: int, total: int) -> None:
        if self.before_batch is not None:
            self.before_batch(step, total)

    def after(self) -> None:
        if self.after_batch is not None:
            self.after_batch()


class _Loop:
    """The state that a checkpoint holds: weights, optimizer, what the epochs gave."""

    def __init__(self, model: nn.Module, config: Training, steps: int) -> None:
        self.model, self.config, self.steps = model, config, steps
        fitted = [p for p in model.parameters() if p.requires_grad]
        if not fitted:
            raise CompressError(
                "every parameter is frozen", hint="Set requires_grad on what may be trained."
            )
        self.fitted = fitted
        self.optimizer = _optimizer(fitted, config)
        self.scaler = torch.amp.GradScaler("cpu", enabled=config.precision == "fp16")
        self.epochs: list[Epoch] = []
        self.best: Epoch | None = None
        self.best_weights: dict[str, Any] = {}

    @property
    def finished(self) -> bool:
        done, patience = len(self.epochs), self.config.patience
        if done >= self.config.epochs:
            return True
        return bool(patience and self.best and done - self.best.number >= patience)

    def rate(self, step: int) -> float:
        """Learning rate of the step counted over all epochs: linear warm-up, then the schedule."""
        warmup = self.config.warmup_epochs * self.steps
        total = self.config.epochs * self.steps
        if step < warmup:
            return self.config.learning_rate * (step + 1) / (warmup + 1)
        if self.config.schedule == "constant":
            return self.config.learning_rate
        done = (step - warmup) / max(total - warmup, 1)
        return self.config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    def epoch(
        self,
        samples: Iterator[Sample],
        loss_of: Callable[[Sample], Tensor],
        hooks: _Hooks,
        where: str,
    ) -> float:
        """One pass; returns the mean loss of its batches."""
        step, total = self.steps * len(self.epochs), self.steps * self.config.epochs
        losses = []
        for sample in samples:
            hooks.before(step, total)
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate(step)
            self.optimizer.zero_grad(set_to_none=True)
            loss = self._loss(loss_of, sample, where)
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise CompressError(
                    f"the loss is {losses[-1]}",
                    where=f"{where}, batch {len(losses)}",
                    hint="Lower the learning rate or clip gradients; the last good epoch is kept.",
                )
            self._update(loss)
            hooks.after()
            step += 1
        return sum(losses) / len(losses)

    def _loss(self, loss_of: Callable[[Sample], Tensor], sample: Sample, where: str) -> Tensor:
        kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.config.precision)
        try:
            with torch.autocast("cpu", dtype=kind, enabled=kind is not None):
                return loss_of(sample)
        except PocketshipError:
            raise
        except Exception as error:
            raise CompressError(
                f"the loss of a training batch fails: {type(error).__name__}: {first_line(error)}",
                where=where,
            ) from error

    def _update(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        if self.config.clip_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.fitted, self.config.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def finish_epoch(self, epoch: Epoch, gain: Callable[[float, float], float]) -> None:
        self.epochs.append(epoch)
        better = self.best is None or gain(epoch.validation, self.best.validation) > 0
        if better or self.config.keep == "last":
            self.best = epoch
            self.best_weights = {k: _copy(v) for k, v in self.model.state_dict().items()}

    def restore(self) -> None:
        self.model.load_state_dict(self.best_weights)

    def saved(self) -> dict[str, Any]:
        assert self.best is not None
        rows = [[e.number, e.loss, e.validation] for e in self.epochs]
        done = {"epochs": rows, "best": self.best.number, "best_weights": self.best_weights}
        if self.finished:
            return done
        return {
            **done,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load(self, saved: dict[str, Any] | None) -> int:
        """Go on where a checkpoint stands; returns how many epochs it had."""
        if saved is None:
            return 0
        self.epochs = [Epoch(int(n), loss, value) for n, loss, value in saved["epochs"]]
        self.best = self.epochs[saved["best"] - 1]
        self.best_weights = saved["best_weights"]
        if not self.finished:
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.scaler.load_state_dict(saved["scaler"])
        return len(self.epochs)


def _optimizer(fitted: list[nn.Parameter], config: Training) -> torch.optim.Optimizer:
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            fitted,
            lr=rate,
            momentum=config.momentum,
            weight_decay=decay,
            nesterov=config.momentum > 0,
        )
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(fitted, lr=rate, weight_decay=decay)


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value

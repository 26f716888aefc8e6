"""The one training loop: every step that fits weights uses it.

It shows progress, draws everything random from the run's seed, keeps the best epoch by the
validation metric, stops early, and leaves a checkpoint after each epoch from which an interrupted
recipe goes on to the same result, bit for bit.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from compress.code_print import code_print
from compress.errors import CompressError, PocketshipError, first_line
from compress.journal import Run, finite_weights, key_of
from compress.passes import batch_count, batches
from compress.passes import evaluate as evaluate
from compress.quality import flat_outputs
from compress.samples import Sample
from compress.task import Task

_BatchNorm = nn.modules.batchnorm._BatchNorm

Objective = Callable[[nn.Module, Sample], Tensor]
"""``(model in training mode, batch) -> scalar loss``."""
SetMode = Callable[[nn.Module, bool], object]
"""Switches a model between training (True) and evaluation; exported graphs need their own way."""


_FORM = 1
"""Of checkpoints and of what an epoch does: raised when either changes."""

SAY_EVERY_S = 20.0
"""A word within an epoch that lasts longer than this."""


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


class Training(BaseModel):
    """How weights are fitted. ``batch_size`` counts samples, ``patience`` epochs without a gain.

    ``patience`` looks at the best epoch by the validation metric also where the ``last`` is kept.
    """

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
    loop = _Loop(whole, config, batch_count(len(task.train), config.batch_size), task.metric.gain)
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
                _Hooks(before_batch, after_batch),
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


def _resume(loop: _Loop, run: Run, key: str) -> int:
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
    """The state that a checkpoint holds: weights, optimizer, what the epochs gave.

    ``best`` is the first epoch with the best validation metric, ``kept`` the one whose weights
    ``kept_weights`` are: of the start as long as there is none.
    """

    def __init__(
        self, model: nn.Module, config: Training, steps: int, gain: Callable[[float, float], float]
    ) -> None:
        self.model, self.config, self.steps, self.gain = model, config, steps, gain
        fitted = [p for p in model.parameters() if p.requires_grad]
        if not fitted:
            raise CompressError(
                "every parameter is frozen", hint="Set requires_grad on what may be trained."
            )
        self.fitted = fitted
        self.optimizer = _optimizer(fitted, config)
        self.scaler = torch.amp.GradScaler("cpu", enabled=config.precision == "fp16")
        self.epochs: list[Epoch] = []
        self.kept_weights = self._weights()

    @property
    def best(self) -> Epoch:
        """Raises ``IndexError`` before the first epoch has ended."""
        best = self.epochs[0]
        for epoch in self.epochs[1:]:
            if self.gain(epoch.validation, best.validation) > 0:
                best = epoch
        return best

    @property
    def kept(self) -> Epoch:
        """Raises ``IndexError`` before the first epoch has ended."""
        return self.epochs[-1] if self.config.keep == "last" else self.best

    @property
    def finished(self) -> bool:
        done, patience = len(self.epochs), self.config.patience
        if done == 0 or done >= self.config.epochs:
            return done > 0
        return patience is not None and done - self.best.number >= patience

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
        say: Callable[[str], None],
    ) -> float:
        """One pass; returns the mean loss of its batches."""
        step, total = self.steps * len(self.epochs), self.steps * self.config.epochs
        losses: list[float] = []
        said = time.monotonic()
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
            self._update(loss, where)
            hooks.after()
            step += 1
            if time.monotonic() - said > SAY_EVERY_S:
                said = time.monotonic()
                number = f"epoch {len(self.epochs) + 1}/{self.config.epochs}"
                say(f"{number}, batch {len(losses)}/{self.steps}, loss {losses[-1]:.4f}")
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

    def _update(self, loss: Tensor, where: str) -> None:
        try:
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise CompressError(
                f"the loss has no gradient: {first_line(error)}", where=where
            ) from error
        self.scaler.unscale_(self.optimizer)
        if self.config.clip_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.fitted, self.config.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def finish_epoch(self, epoch: Epoch) -> None:
        self.epochs.append(epoch)
        if self.kept is epoch:
            self.kept_weights = self._weights()

    def restore(self) -> None:
        self.model.load_state_dict(self.kept_weights)

    def saved(self) -> dict[str, Any]:
        rows = [[e.number, e.loss, e.validation] for e in self.epochs]
        done = {"epochs": rows, "kept_weights": self.kept_weights}
        if self.finished:
            return done
        return {
            **done,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load(self, saved: dict[str, Any]) -> int:
        """Go on where a checkpoint stands; returns how many epochs it had.

        Raises one of several exceptions where it does not fit; only the model may be changed then.
        """
        epochs = [Epoch(int(n), float(loss), float(value)) for n, loss, value in saved["epochs"]]
        if not epochs or [e.number for e in epochs] != list(range(1, len(epochs) + 1)):
            raise ValueError("its epochs are not 1, 2, ...")
        self._check_form(saved["kept_weights"])
        self.model.load_state_dict(saved["kept_weights"])
        self.epochs = epochs
        try:
            if not self.finished:
                self._check_form(saved["model"])
                self.model.load_state_dict(saved["model"])
                self.optimizer.load_state_dict(saved["optimizer"])
                self.scaler.load_state_dict(saved["scaler"])
        except BaseException:
            self.epochs = []
            self.optimizer = _optimizer(self.fitted, self.config)
            raise
        self.kept_weights = saved["kept_weights"]
        return len(epochs)

    def _check_form(self, weights: dict[str, Any]) -> None:
        """Raise ``ValueError`` for other names, or a parameter of another shape or dtype."""
        if set(weights) != set(self.model.state_dict()):
            raise ValueError("it has other weights")
        # Not buffers: those of observers grow with the first batch, and load_state_dict knows.
        for name, own in self.model.named_parameters(remove_duplicate=False):
            theirs = weights[name]
            if theirs.shape != own.shape or theirs.dtype != own.dtype:
                raise ValueError(f"its '{name}' is {list(theirs.shape)} {theirs.dtype}")

    def _weights(self) -> dict[str, Any]:
        return {name: _copy(value) for name, value in self.model.state_dict().items()}


def _optimizer(fitted: list[nn.Parameter], config: Training) -> torch.optim.Optimizer:
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            fitted,
            lr=rate,
            momentum=config.momentum,
            weight_decay=decay,
            nesterov=config.momentum > 0,
            fused=True,
        )
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(fitted, lr=rate, weight_decay=decay, fused=True)


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value

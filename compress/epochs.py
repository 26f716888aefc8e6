"""The state of a training: what its settings are, what its epochs gave, what a checkpoint holds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from compress.errors import CompressError, PocketshipError, first_line
from compress.samples import Sample

SAY_EVERY_S = 20.0
"""A word within an epoch that lasts longer than this."""


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
class Hooks:
    """What is called around each batch, see :func:`compress.training.fit`."""

    before_batch: Callable[[int, int], None] | None
    after_batch: Callable[[], None] | None

    def before(self, step: int, total: int) -> None:
        """Before batch ``step`` (from 0) of ``total``."""
        if self.before_batch is not None:
            self.before_batch(step, total)

    def after(self) -> None:
        """After the optimizer's step."""
        if self.after_batch is not None:
            self.after_batch()


class Loop:
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
        """Whether all epochs are done, or so many brought no gain that it is over."""
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
        hooks: Hooks,
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
        """Take note of an epoch, and of the weights where it is the one to keep."""
        self.epochs.append(epoch)
        if self.kept is epoch:
            self.kept_weights = self._weights()

    def restore(self) -> None:
        """Give the model the weights that are kept."""
        self.model.load_state_dict(self.kept_weights)

    def saved(self) -> dict[str, Any]:
        """A checkpoint: tensors, numbers and containers of them."""
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

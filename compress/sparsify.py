"""Unstructured pruning: single weights become zero and stay so.

Sources: Han et al., *Learning both Weights and Connections for Efficient Neural Networks* (arXiv
1506.02626) for magnitudes; Molchanov et al. (arXiv 1611.06440, 1906.10771) for first-order Taylor
scores; Zhu & Gupta (arXiv 1710.01878) for the gradual schedule; Guo et al. (arXiv 1608.04493) for
weights that grow back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from compress.constraints import SharedValues
from compress.errors import CompressError
from compress.fine_tune import FineTuning, fine_tune
from compress.pruning import importance
from compress.pruning.importance import Scores
from compress.pruning.sparsity_patterns import cubic_sparsity, largest, n_of_m
from compress.pruning.weights import Weight, overridden, weights_of
from compress.recipe import State, StepConfig, handles

_PATTERN = r"^[1-9][0-9]*:[1-9][0-9]*$"


class Amount(BaseModel):
    """How much stays of a layer; exactly one of the three is given.

    ``keep``: share of the weights. ``threshold``: the least score that stays exceeds it;
    ``threshold_unit`` ``std`` counts it in standard deviations of the weights that are not zero.
    ``pattern``: ``N:M``, at most N of M neighbours along the input axis.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    keep: float | None = Field(default=None, gt=0, lt=1)
    threshold: float | None = Field(default=None, gt=0)
    threshold_unit: Literal["absolute", "std"] = "absolute"
    pattern: str | None = Field(default=None, pattern=_PATTERN)

    @model_validator(mode="after")
    def _one_amount(self) -> Amount:
        given = [v for v in (self.keep, self.threshold, self.pattern) if v is not None]
        if len(given) != 1:
            raise ValueError("exactly one of keep, threshold and pattern must be given")
        if self.pattern is not None:
            n, m = self.n_of_m
            if n >= m:
                raise ValueError(f"pattern '{self.pattern}' prunes nothing: N must be below M")
        return self

    @property
    def n_of_m(self) -> tuple[int, int]:
        """The two numbers of ``pattern``."""
        n, m = re.findall(r"\d+", self.pattern or "")
        return int(n), int(m)


class Prune(Amount, StepConfig):
    """Set the least important weights to zero, at once or gradually while training.

    ``schedule: cubic`` trains ``end_epoch`` epochs (plus ``settle_epochs``) with the settings of
    ``fine_tune`` at a constant rate; sparsity rises from ``start_epoch`` to ``end_epoch``, every
    ``update_every`` batches. Then ``fine_tune`` itself runs at full sparsity.
    """

    kind: Literal["prune"] = "prune"
    method: Literal["magnitude", "taylor"] = "magnitude"
    scope: Literal["layer", "global"] = "layer"
    layers: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    overrides: dict[str, Amount] = Field(default_factory=dict)
    taylor_batches: int = Field(default=16, ge=1)
    taylor_batch_size: int = Field(default=32, ge=2)
    schedule: Literal["one_shot", "cubic"] = "one_shot"
    start_epoch: float = Field(default=0.0, ge=0)
    end_epoch: float = Field(default=4.0, gt=0)
    update_every: int = Field(default=20, ge=1)
    regrow: bool = False
    settle_epochs: float = Field(default=0.0, ge=0)
    fine_tune: FineTuning | None = None

    @model_validator(mode="after")
    def _sound(self) -> Prune:
        gradual = self.schedule == "cubic"
        amounts = (self, *self.overrides.values())
        if gradual and self.fine_tune is None:
            raise ValueError("schedule 'cubic' trains, so it needs fine_tune")
        if gradual and self.start_epoch >= self.end_epoch:
            raise ValueError("end_epoch must be after start_epoch")
        if gradual and any(amount.pattern for amount in amounts):
            raise ValueError("a pattern is pruned at once: schedule must be 'one_shot'")
        if self.regrow and (not gradual or self.method != "magnitude"):
            raise ValueError("regrow needs schedule 'cubic' and method 'magnitude'")
        if self.settle_epochs and not self.regrow:
            raise ValueError("settle_epochs needs regrow: without it nothing changes any more")
        if self.method == "taylor" and any(a.threshold_unit == "std" for a in amounts):
            raise ValueError("standard deviations are of weights, not of Taylor scores")
        return self


@dataclass(frozen=True)
class _Pool:
    """Weights that compete with each other, and how many elements of them stay in the end."""

    weights: tuple[Weight, ...]
    kept: int

    @property
    def total(self) -> int:
        return sum(weight.value.numel() for weight in self.weights)

    def masks(self, scores: Scores, sparsity: float | None = None) -> list[Tensor]:
        """Masks at ``sparsity``, at the pool's own if None; at least one weight stays."""
        kept = self.kept if sparsity is None else round((1 - sparsity) * self.total)
        return largest([scores[w.full_name] for w in self.weights], max(kept, self.kept, 1))


@handles(Prune)
def prune(state: State, config: Prune) -> State:
    """Mask weights of the float model, train where asked."""
    model = state.float_model()
    weights = weights_of(model, config.layers, config.exclude)
    if not weights:
        raise CompressError("no layer is left to prune", where="exclude")
    if config.regrow:
        _refuse_shared(weights)
    own = overridden(model, weights, config.overrides)
    step = _Pruning(state, config, model, weights)
    scores = step.scores("one shot")
    patterned = [w for w in weights if own.get(w.full_name, config).pattern]
    notes = []
    for weight in patterned:
        amount = own.get(weight.full_name, config)
        n, m = amount.n_of_m
        if weight.value.ndim < 2 or weight.value.shape[weight.in_axis] <= n:
            notes.append(f"{weight.full_name}: its input axis is too short for {amount.pattern}")
            continue
        weight.take_mask().mask &= n_of_m(scores[weight.full_name], n, m, weight.in_axis)
    counted = [w for w in weights if w not in patterned]
    pools = _pools(counted, config, own, scores)
    if config.schedule == "cubic":
        notes.append(step.ramp(pools))
    else:
        step.narrow(pools, scores)
    if config.fine_tune is not None:
        history = fine_tune(model, state.task, config.fine_tune, state.run)
        notes.append(history.words())
    return replace(state, notes=(*_summary(weights), *notes))


class _Pruning:
    def __init__(
        self, state: State, config: Prune, model: nn.Module, weights: Sequence[Weight]
    ) -> None:
        self.state, self.config, self.model, self.weights = state, config, model, weights

    def scores(self, when: object) -> Scores:
        if self.config.method == "taylor":
            return importance.taylor(
                self.model,
                self.state.task,
                self.weights,
                self.state.run,
                count=self.config.taylor_batches,
                batch_size=self.config.taylor_batch_size,
                purpose=f"taylor, {when}",
            )
        if self.config.regrow:
            return {w.full_name: w.original.detach().abs() for w in self.weights}
        return importance.magnitude(self.weights)

    def narrow(self, pools: Sequence[_Pool], scores: Scores) -> None:
        """Full sparsity at once."""
        for pool in pools:
            for weight, mask in zip(pool.weights, pool.masks(scores), strict=True):
                weight.take_mask().mask &= mask

    def ramp(self, pools: Sequence[_Pool]) -> str:
        """Train while sparsity rises."""
        config, run = self.config, self.state.run
        assert config.fine_tune is not None
        length = config.end_epoch + config.settle_epochs
        epochs = int(-(-length // 1))
        training = config.fine_tune.model_copy(
            update={"epochs": epochs, "schedule": "constant", "keep": "last", "patience": None}
        )
        found = [weight.take_mask() for weight in self.weights]
        for mask in found:
            mask.regrows = config.regrow

        def before_batch(step: int, batches: int) -> None:
            """Masks come from what the weights are now: a resumed ramp finds the same ones."""
            per_epoch = batches / epochs
            start, end = round(config.start_epoch * per_epoch), round(config.end_epoch * per_epoch)
            last = round(length * per_epoch)
            due = (step - start) % config.update_every == 0 or step in (end, last)
            if due and start <= step <= last:
                scores = self.scores(step)
                for pool in pools:
                    full = 1 - pool.kept / pool.total
                    sparsity = cubic_sparsity(step, start, end, 0.0, full)
                    self._set(pool, pool.masks(scores, sparsity))

        signature = ["ramp", config.model_dump(mode="json"), [pool.kept for pool in pools]]
        history = fine_tune(
            self.model, self.state.task, training, run,
            purpose="ramp", signature=signature, before_batch=before_batch,
        )  # fmt: skip
        scores = self.scores("end of ramp")
        for pool in pools:
            self._set(pool, pool.masks(scores))
        for mask in found:
            mask.regrows = False
        return f"ramp to full sparsity over {config.end_epoch:g} epochs: {history.words()}"

    def _set(self, pool: _Pool, masks: Sequence[Tensor]) -> None:
        for weight, mask in zip(pool.weights, masks, strict=True):
            held = weight.take_mask().mask
            held.copy_(mask if self.config.regrow else held & mask)


def _pools(
    weights: Sequence[Weight], config: Prune, own: dict[str, Amount], scores: Scores
) -> list[_Pool]:
    pools = []
    together = [w for w in weights if w.full_name not in own and config.scope == "global"]
    if together:
        pools.append(_pool(together, config, scores))
    pools += [
        _pool([w], own.get(w.full_name, config), scores) for w in weights if w not in together
    ]
    return pools


def _pool(weights: Sequence[Weight], amount: Amount, scores: Scores) -> _Pool:
    total = sum(weight.value.numel() for weight in weights)
    if amount.keep is not None:
        return _Pool(tuple(weights), max(round(amount.keep * total), 1))
    assert amount.threshold is not None
    limit = amount.threshold
    if amount.threshold_unit == "std":
        values = torch.cat([weight.value.reshape(-1) for weight in weights])
        values = values[values != 0].double()
        limit *= float(values.std(unbiased=False)) if len(values) else 0.0
    kept = sum(int((scores[weight.full_name] > limit).sum()) for weight in weights)
    if kept == 0:
        names = ", ".join(weight.full_name for weight in weights[:3])
        raise CompressError(
            f"the threshold {amount.threshold:g} leaves no weight",
            where=names,
            hint="Lower it, or name the share to keep (keep).",
        )
    return _Pool(tuple(weights), kept)


def _refuse_shared(weights: Sequence[Weight]) -> None:
    for weight in weights:
        if any(isinstance(constraint, SharedValues) for constraint in weight.constrained_by):
            raise CompressError(
                "weights that share values cannot grow back one by one",
                where=weight.full_name,
                hint="Prune before clustering, or leave regrow out.",
            )


def _summary(weights: Sequence[Weight]) -> list[str]:
    counts = [(w.full_name, int((w.value != 0).sum()), w.value.numel()) for w in weights]
    kept, total = sum(c[1] for c in counts), sum(c[2] for c in counts)
    ranked = sorted(counts, key=lambda c: c[1] / c[2])
    shown = counts if len(counts) <= 8 else [ranked[0], ranked[-1]]
    layers = ", ".join(f"{name} {some / size:.1%}" for name, some, size in shown)
    notes = [
        f"{kept} of {total} weights in {len(counts)} layers are not zero ({kept / total:.2%}); "
        + (layers if shown is counts else f"least and most: {layers}"),
        "zeros make a download smaller; the runtimes compute as fast as before",
    ]
    if empty := [name for name, some, _ in counts if some == 0]:
        notes.append(f"no weight is left in {', '.join(empty)}")
    return notes

"""Depth pruning: whole residual blocks are taken out, the least harmful first.

A residual block adds something to its input, and a network of many such blocks still works without
some of them (Veit et al., "Residual Networks Behave Like Ensembles of Relatively Shallow Networks",
arXiv 1605.06431). Unlike narrower layers, fewer layers save time on every runtime.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, fx, nn

from compress import constraints
from compress.capture import capture
from compress.errors import CompressError, PocketshipError, first_line
from compress.fine_tune import FineTuning, fine_tune
from compress.layers import select
from compress.pruning.budget import WORDS, Budget, Measure, measure_of
from compress.quality import figure, flat_outputs, run_example, sqnr_db
from compress.recipe import State, StepConfig, handles
from compress.samples import batch
from compress.task import Inputs, Task

BATCH = 512
# What may stand between the input and the output of a block beside additions.
_PASSING = {
    "alias", "clone", "contiguous", "dropout", "elu", "gelu", "hardswish", "hardtanh", "leaky_relu",
    "mish", "relu", "relu6", "silu", "to", "_to_copy",
}  # fmt: skip


class PruneBlocks(StepConfig):
    """Remove residual blocks until ``blocks`` are gone, the budget is met or quality falls too far.

    ``max_metric_drop`` is in the metric's unit, on the validation data, against the model as it
    enters the step; the removal that would exceed it is taken back.
    """

    kind: Literal["prune_blocks"] = "prune_blocks"
    layers: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    blocks: int | None = Field(default=None, ge=1)
    budget: Budget | None = None
    max_metric_drop: float | None = Field(default=None, ge=0)
    fine_tune: FineTuning | None = None

    @model_validator(mode="after")
    def _ends(self) -> PruneBlocks:
        if self.blocks is None and self.budget is None and self.max_metric_drop is None:
            raise ValueError("give at least one of blocks, budget and max_metric_drop")
        return self


class Skip(nn.Module):
    """In the place of a removed block: returns the first tensor that it is called with."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The block's input; other arguments (masks, rates) are ignored."""
        return _first_tensor(args, kwargs)


@handles(PruneBlocks)
def prune_blocks(state: State, config: PruneBlocks) -> State:
    """Greedy: try each block that is left, remove the least harmful one, fine-tune, again."""
    model, task = state.float_model(), state.task
    if config.max_metric_drop is not None and not task.validation:
        raise CompressError(
            "needs task.validation, which is empty",
            where="max_metric_drop",
            hint="Give Task(validation=[...]), or blocks or a budget instead.",
        )
    judge = _Judge(task)
    candidates = find_blocks(model, task.example_inputs, config.layers, config.exclude)
    if config.blocks is not None and config.budget is None and config.blocks > len(candidates):
        raise CompressError(
            f"{config.blocks} blocks are to be removed, but there are {len(candidates)}",
            where="blocks",
        )
    measure = None if config.budget is None else measure_of(state, config.budget.kind)
    limit = _Limit(config, measure, model)
    start, notes = judge.of(model), [f"blocks found: {', '.join(candidates)}"]
    gone: list[str] = []
    while not limit.met(model, len(gone)):
        tried = _try_each(model, candidates, judge, state)
        if not tried:
            limit.refuse(model, len(gone))
            break
        best = max(tried, key=lambda one: one.score)
        before, model = model, _without(model, best.name)
        if config.fine_tune is not None:
            purpose = f"fine-tuning without {best.name}"
            history = fine_tune(model, task, config.fine_tune, state.run, purpose=purpose)
            notes.append(history.words())
        now = judge.of(model)
        words = f"{best.name}: {judge.words(start)} -> {judge.words(now)}"
        if config.max_metric_drop is not None and start[0] - now[0] > config.max_metric_drop:
            notes.append(f"stopped before {words}: more than {config.max_metric_drop:g} lost")
            model = before
            break
        candidates = [name for name in candidates if name != best.name]
        gone.append(best.name)
        notes.append(f"removed {words}")
    notes.insert(0, f"removed {len(gone)} blocks{limit.words(model)}")
    return replace(state, model=model, notes=tuple(notes))


def find_blocks(
    model: nn.Module, inputs: Inputs, layers: Sequence[str] = ("*",), exclude: Sequence[str] = ()
) -> list[str]:
    """Names of the modules that can be replaced by their input, in the model's order.

    With ``layers`` at its default those are the innermost modules whose output is their input plus
    something (perhaps with an activation behind the sum), seen in the exported graph. With patterns
    they are the outermost modules of a matching name that are called once and return one tensor of
    the shape and type of their first one; whether there is a skip connection is then the user's
    affair. Raises ``CompressError`` for a pattern without a match and where there is no block.
    """
    everything = select(model, layers, exclude, types=(nn.Module,))
    keeping = _shape_preserving(model, inputs)
    matching = [
        name for name in everything if name and any(True for _ in everything[name].parameters())
    ]
    if tuple(layers) == ("*",):
        plain = constraints.materialize(copy.deepcopy(model)).eval()
        residual = _residual(capture(plain, inputs).graph)
        found = [name for name in matching if name in keeping and name in residual]
        found = [a for a in found if not any(b.startswith(f"{a}.") for b in found)]
    else:
        outer = [a for a in matching if not any(a.startswith(f"{b}.") for b in matching)]
        found = [name for name in outer if name in keeping]
    if not found:
        raise CompressError(
            "there is no block that can be removed",
            where="layers",
            hint="A block is called once and returns a tensor of the shape of its first input; "
            "found without a name, its output is that input plus something.",
        )
    return found


@dataclass(frozen=True)
class _Tried:
    name: str
    score: tuple[float, float]


class _Judge:
    """Scores a model, higher is better: by validation data, else by nearness to the first model."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.reference: list[tuple[Tensor, ...]] = []
        if task.validation:
            return
        if not task.calibration:
            raise CompressError(
                "blocks are judged on task.validation or task.calibration, and both are empty",
                hint="Give the task one of them; the evaluation data only report.",
            )
        assert isinstance(task.model, nn.Module)
        original = copy.deepcopy(task.model).eval()
        with torch.no_grad():
            self.reference = [flat_outputs(original(*inputs)) for inputs in task.calibration]

    def of(self, model: nn.Module) -> tuple[float, float]:
        """(metric, minus the mean loss), the metric with its sign turned where lower is better;
        (SQNR in dB, 0) without validation data."""
        with torch.no_grad():
            return self._validated(model) if self.task.validation else (self._sqnr(model), 0.0)

    def words(self, score: tuple[float, float]) -> str:
        """The score as the user knows it."""
        metric = self.task.metric
        if not self.task.validation:
            return f"{score[0]:.2f} dB to the uncompressed model"
        return f"{metric.name} {score[0] if metric.higher_is_better else -score[0]:.4f}"

    def _validated(self, model: nn.Module) -> tuple[float, float]:
        task, loss = self.task, 0.0
        outputs: list[Tensor] = []
        targets: list[Tensor | None] = []
        for start in range(0, len(task.validation), BATCH):
            indices = torch.arange(start, min(start + BATCH, len(task.validation)))
            joined = batch(task.validation, indices)
            answers = flat_outputs(model(*joined.inputs))[0].float()
            assert joined.target is not None
            loss += float(task.loss(answers, joined.target)) * len(indices)
            outputs += [answers[row : row + 1] for row in range(len(indices))]
            targets += [joined.target[row : row + 1] for row in range(len(indices))]
        if not math.isfinite(loss):
            return -math.inf, -math.inf
        value = figure(task.metric, outputs, targets)
        return task.metric.gain(value, 0.0), -loss / len(task.validation)

    def _sqnr(self, model: nn.Module) -> float:
        signal = noise = 0.0
        for inputs, reference in zip(self.task.calibration, self.reference, strict=True):
            for wanted, got in zip(reference, flat_outputs(model(*inputs)), strict=True):
                signal += float(wanted.double().square().sum())
                noise += float((wanted.double() - got.double()).square().sum())
        if not math.isfinite(noise):
            return -math.inf
        ratio = sqnr_db(signal, noise)
        return math.inf if ratio is None else ratio


class _Limit:
    """When the removal ends."""

    def __init__(self, config: PruneBlocks, measure: Measure | None, model: nn.Module) -> None:
        self.config, self.measure = config, measure
        self.whole = 0.0 if measure is None else measure(model)

    def met(self, model: nn.Module, gone: int) -> bool:
        blocks, budget = self.config.blocks, self.config.budget
        if blocks is not None and gone >= blocks:
            return True
        if budget is None or self.measure is None:
            return False
        return self.measure(model) <= budget.share * self.whole

    def refuse(self, model: nn.Module, gone: int) -> None:
        """All blocks are gone: an error where that was not enough."""
        blocks, budget = self.config.blocks, self.config.budget
        if budget is not None and self.measure is not None:
            raise CompressError(
                f"{WORDS[budget.kind]} cannot fall to {budget.share:.1%}: "
                f"{self.measure(model) / self.whole:.1%} are left when {gone} blocks are gone",
                where="budget",
                hint="Allow more, or narrow the layers as well (prune_channels).",
            )
        if blocks is not None:
            raise CompressError(f"only {gone} of {blocks} blocks can be removed", where="blocks")

    def words(self, model: nn.Module) -> str:
        budget = self.config.budget
        if budget is None or self.measure is None:
            return ""
        share = self.measure(model) / self.whole
        return f"; {share:.1%} of the {WORDS[budget.kind]} remain, {budget.share:.1%} were allowed"


def _try_each(
    model: nn.Module, candidates: Sequence[str], judge: _Judge, state: State
) -> list[_Tried]:
    tried = []
    for number, name in enumerate(candidates, start=1):
        shortened = _without(model, name)
        try:
            with torch.no_grad():
                flat_outputs(shortened(*state.task.example_inputs))
            score = judge.of(shortened)
        except PocketshipError:
            raise
        except Exception as error:
            # The model reads something of the block beside its output.
            state.run.say(f"cannot do without {name}: {first_line(error)}")
            continue
        if math.isfinite(score[1]) and score[0] > -math.inf:
            tried.append(_Tried(name, score))
        state.run.say(f"tried block {number}/{len(candidates)}, {name}: {judge.words(score)}")
    return tried


def _without(model: nn.Module, name: str) -> nn.Module:
    shortened = copy.deepcopy(model)
    shortened.set_submodule(name, Skip())
    return shortened


def _first_tensor(args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    return next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))


def _shape_preserving(model: nn.Module, inputs: Inputs) -> set[str]:
    """Modules that are called once and return one tensor like their first tensor argument."""
    fits: dict[str, bool] = {}

    def hook(name: str) -> Callable[..., None]:
        def look(_: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
            given = [v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)]
            alike = (
                bool(given)
                and isinstance(output, Tensor)
                and (output.shape, output.dtype) == (given[0].shape, given[0].dtype)
            )
            fits[name] = alike and name not in fits

        return look

    hooks = [
        module.register_forward_hook(hook(name), with_kwargs=True)
        for name, module in model.named_modules()
    ]
    try:
        run_example(model, inputs)
    finally:
        for handle in hooks:
            handle.remove()
    return {name for name, alike in fits.items() if alike}


def _residual(graph: fx.Graph) -> set[str]:
    """Modules in whose part of the graph the input reaches the output through additions."""
    inside: dict[str, list[fx.Node]] = {}
    for node in graph.nodes:
        for name, _ in node.meta.get("nn_module_stack", {}).values():
            if node.op == "call_function":
                inside.setdefault(name, []).append(node)
    return {name for name, nodes in inside.items() if name and _skips(nodes)}


def _skips(nodes: list[fx.Node]) -> bool:
    within = set(nodes)
    ends = [node for node in nodes if any(user not in within for user in node.users)]
    if len(ends) != 1:
        return False
    # Walk back from the output: which tensors arrive unchanged but for what was added to them?
    stack, seen, added = [(ends[0], False)], set(), False
    while stack:
        node, added = stack.pop()
        if node not in within:
            if added and node.meta["val"].shape == ends[0].meta["val"].shape:
                return True
            continue
        if (node, added) in seen or not isinstance(node.target, torch._ops.OpOverload):
            continue
        seen.add((node, added))
        operator = str(node.target).split(".")[1].rstrip("_")
        if operator == "add":
            stack += [(a, True) for a in node.args[:2] if isinstance(a, fx.Node)]
        elif operator in _PASSING and isinstance(node.args[0], fx.Node):
            stack.append((node.args[0], added))
    return False

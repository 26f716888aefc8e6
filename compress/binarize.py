"""Binary weights: one scale for each output channel, and a sign for each weight.

Source: Rastegari et al., *XNOR-Net* (arXiv 1603.05279), the variant with binary weights only.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from compress.constraints import Binary, Masked, constrain, release
from compress.errors import CompressError
from compress.fine_tune import FineTuning, fine_tune
from compress.pruning.weights import TYPES, Weight, weights_of
from compress.quality import flat_outputs
from compress.recipe import State, StepConfig, handles
from compress.task import Task


class Binarize(StepConfig):
    """Let each weight be plus or minus its output channel's mean magnitude.

    The layers that run first and last on the example inputs stay as they are unless
    ``first_and_last`` is set: they lose most.
    """

    kind: Literal["binarize"] = "binarize"
    first_and_last: bool = False
    layers: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = Field(default=())
    fine_tune: FineTuning | None = None


@handles(Binarize)
def binarize(state: State, config: Binarize) -> State:
    """Constrain the selected weights; zeros that are there stay zero."""
    model = state.float_model()
    weights = weights_of(model, config.layers, config.exclude)
    spared: list[str] = []
    if not config.first_and_last:
        ends = _ends(model, state.task)
        spared = [w.full_name for w in weights if any(m in ends for m, _ in w.holders)]
        weights = [weight for weight in weights if weight.full_name not in spared]
    if not weights:
        raise CompressError(
            "no layer is left to binarize", where="exclude", hint="Set first_and_last: true."
        )
    for weight in weights:
        _constrain(weight)
    total = sum(weight.value.numel() for weight in weights)
    notes = [
        f"{total} weights in {len(weights)} layers are binary",
        "no mobile kernel: ExecuTorch, ONNX Runtime and Core ML compute with them as floats",
    ]
    if spared:
        notes.append(f"not binarized: {', '.join(spared)}")
    if config.fine_tune is not None:
        notes.append(fine_tune(model, state.task, config.fine_tune, state.run).words())
    return replace(state, notes=tuple(notes))


def _constrain(weight: Weight) -> None:
    """Signs in place of shared values; a mask stays and is applied before the signs."""
    if any(not isinstance(constraint, Masked) for constraint in weight.constrained_by):
        zeros = weight.value == 0
        release(weight.holders)
        if bool(zeros.any()):
            constrain(weight.holders, Masked(~zeros))
    constrain(weight.holders, Binary(weight.out_axis))


def _ends(model: nn.Module, task: Task) -> set[nn.Module]:
    """The layers with weights that run first and last."""
    called: list[nn.Module] = []
    hooks = [
        module.register_forward_pre_hook(lambda layer, _: called.append(layer))
        for module in model.modules()
        if isinstance(module, TYPES)
    ]
    try:
        with torch.no_grad():
            flat_outputs(model(*task.example_inputs))
    finally:
        for hook in hooks:
            hook.remove()
    return {called[0], called[-1]} if called else set()

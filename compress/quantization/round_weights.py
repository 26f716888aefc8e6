"""Weights of 8 or 4 bits, rounded by what their layers compute, activations being float."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from compress.quantization.integer_weight import IntegerWeights, spread
from compress.quantization.lockstep import layers_of, walk
from compress.quantization.rounding import Rounder, Rounding, add_biases
from compress.quantization.sqnr_gate import Measured
from compress.quantization.static_int8 import MOST_ROUNDED, affordable
from compress.task import Inputs


class _Steps(nn.Module):
    """What :func:`.lockstep.walk` takes for a weight's observer: scales that are known already."""

    def __init__(self, scales: Tensor, shape: torch.Size, qmax: int) -> None:
        super().__init__()
        self.scales = scales
        self.quant_min, self.quant_max = -qmax, qmax
        self.fixed: Tensor | None = None
        self.each = spread(scales, shape)

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """``(scale, zero point)``, with as many axes as the weight."""
        return self.each, torch.zeros_like(self.each)


def round_weights(
    graph: GraphModule,
    names: Sequence[str],
    weights: IntegerWeights,
    samples: Sequence[Inputs],
    *,
    rounding: Rounding,
    correct_bias: bool,
) -> tuple[dict[str, Tensor], list[str]]:
    """Settle the weights (and biases) of the layers ``names``, in place.

    Layers are gone through in order, each with the inputs that it gets behind those before it.
    Returns each layer's scales, with as many axes as its weight, and notes.
    """
    if correct_bias:
        add_biases(graph)
    known = layers_of(graph)
    steps: dict[str, _Steps] = {}
    for number, name in enumerate(names):
        layer = known[name]
        source: Any = layer.args[1]
        value = graph.get_parameter(str(source.target)).detach()
        steps[name] = _Steps(weights.scales(layer, value), value.shape, weights.qmax)
        graph.add_submodule(f"_steps_{number}", steps[name])
        with graph.graph.inserting_before(layer):
            layer.replace_input_with(source, graph.graph.call_module(f"_steps_{number}", (source,)))
    few = affordable(graph, samples, MOST_ROUNDED)
    rounder = Rounder(graph, rounding, correct_bias)
    measured = Measured(walk(graph, few, rounder))
    for number, name in enumerate(names):
        observer: Any = known[name].args[1]
        assert isinstance(observer, Node)
        known[name].replace_input_with(observer, observer.args[0])  # type: ignore[arg-type]
        graph.graph.erase_node(observer)
        graph.delete_submodule(f"_steps_{number}")
    notes = [f"{rounder.rounded} layers rounded by what they compute on {len(few)} samples"]
    if rounder.corrected:
        notes.append(f"{rounder.corrected} biases corrected")
    return {name: own.scales for name, own in steps.items()}, [*notes, measured.note()]

"""Quantization-aware training: weights are fitted while the network computes as if in int8.

Flow of torchao's PT2E (``prepare_qat_pt2e``), on the scheme of Jacob et al. (arXiv 1712.05877).
Batch norms are folded with their statistics as they are before the training, which Nagel et al.,
"A White Paper on Neural Network Quantization" (arXiv 2106.08295) find as good with scales a channel
as any imitation of a running batch norm; one that no layer takes up keeps its statistics.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from compress import constraints
from compress.errors import CompressError
from compress.fine_tune import FineTuning, fine_tune
from compress.quality import flat_outputs
from compress.quantization.clamp_aware import ClampAwareQuantizer
from compress.quantization.float_graph import float_graph
from compress.quantization.lockstep import layers_of, weight_of
from compress.recipe import State

_DROPOUT = frozenset({torch.ops.aten.dropout.default, torch.ops.aten.dropout_.default})


class Options(Protocol):
    """The keys of the ``quantize`` step that this mode reads."""

    per_channel: bool
    fuse_clamps: bool
    calibration_samples: int | None
    fine_tune: FineTuning | None
    freeze_observers_after: float


def train_quantized(state: State, options: Options) -> tuple[GraphModule, list[str]]:
    """Train, then convert; weights that are zero stay zero.

    Ranges start from calibration data where there are any, follow the training and stand still
    for its last part (``freeze_observers_after`` of all batches) and for every validation.
    """
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer as stock
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_qat_pt2e

    model, settings = state.float_model(), options.fine_tune
    assert settings is not None
    _only_masks(model)
    frozen = {name for name, value in model.named_parameters() if not value.requires_grad}
    graph = float_graph(state, dynamic_batch=True)
    for name, value in graph.named_parameters():
        value.requires_grad_(name not in frozen and value.is_floating_point())
    quantizer: Any = ClampAwareQuantizer() if options.fuse_clamps else stock.XNNPACKQuantizer()
    quantizer.set_global(
        stock.get_symmetric_quantization_config(is_per_channel=options.per_channel, is_qat=True)
    )
    prepared = prepare_qat_pt2e(graph, quantizer)
    ranges = _Ranges(prepared, options.freeze_observers_after)
    samples = list(state.task.calibration)[: options.calibration_samples]
    ranges.start(samples or [state.task.example_inputs])
    zeros = _Zeros(prepared)
    history = fine_tune(
        prepared,
        state.task,
        settings,
        state.run,
        purpose="quantization-aware training",
        signature=["qat", options.per_channel, options.fuse_clamps, options.freeze_observers_after],
        set_mode=ranges.set_mode,
        before_batch=ranges.before_batch,
        after_batch=zeros.restore,
    )
    ranges.observe(False)
    notes = [history.words(), f"ranges frozen after {options.freeze_observers_after:.0%}"]
    if zeros.count:
        notes.append(f"{zeros.count} pruned weights kept at zero")
    return convert_pt2e(prepared), notes


def _only_masks(model: nn.Module) -> None:
    for prefix, module in model.named_modules():
        lists = getattr(module, "parametrizations", {})
        for name in lists:
            for constraint in constraints.constraints_of(module, name):
                if not isinstance(constraint, constraints.Masked):
                    raise CompressError(
                        f"'{prefix}.{name}' is held to {type(constraint).__name__} values, which "
                        "training in int8 would leave",
                        hint="Use mode: static behind such a step.",
                    )


class _Zeros:
    """Weights of layers that are exactly zero before the training."""

    def __init__(self, graph: GraphModule) -> None:
        parameters = dict(graph.named_parameters())
        names = {weight_of(node) for node in layers_of(graph).values()} & parameters.keys()
        self.held: list[tuple[Tensor, Tensor]] = []
        for name in sorted(names):  # type: ignore[type-var]
            value = parameters[name]  # type: ignore[index]
            zero = value.detach() == 0
            if bool(zero.any()):
                self.held.append((value, zero))
        self.count = sum(int(zero.sum()) for _, zero in self.held)

    def restore(self) -> None:
        """Called after each optimizer step; also ends what momentum would bring."""
        with torch.no_grad():
            for value, zero in self.held:
                value.masked_fill_(zero, 0.0)


class _Ranges:
    """The fake quantizers of a prepared module, and when they observe."""

    def __init__(self, graph: GraphModule, freeze_after: float) -> None:
        self.graph, self.freeze_after = graph, freeze_after
        self.quantizers: list[Any] = [
            module for module in graph.modules() if hasattr(module, "fake_quant_enabled")
        ]
        self.dropouts = [node for node in graph.graph.nodes if node.target in _DROPOUT]

    def start(self, samples: list[tuple[Tensor, ...]]) -> None:
        """First ranges, from float activations."""
        self.observe(True)
        for quantizer in self.quantizers:
            quantizer.fake_quant_enabled.fill_(0)
        with torch.no_grad():
            for inputs in samples:
                flat_outputs(self.graph(*inputs))
        for quantizer in self.quantizers:
            quantizer.fake_quant_enabled.fill_(1)
        self.observe(False)

    def observe(self, on: bool) -> None:
        """Let the ranges follow what flows through, or stand still."""
        for quantizer in self.quantizers:
            quantizer.observer_enabled.fill_(int(on))

    def set_mode(self, model: nn.Module, training: bool) -> None:
        """Switch dropout; validation must leave no trace in the ranges.

        torchao's ``move_exported_model_to_train`` and ``_to_eval`` do this by matching exported
        patterns, at a second a call, and would let batch norms that are left follow the batches.
        """
        assert model is self.graph
        self.observe(False)
        for node in self.dropouts:
            node.args = (*node.args[:2], training)
        if self.dropouts:
            self.graph.recompile()

    def before_batch(self, step: int, total: int) -> None:
        """Observe in the first part of the training only."""
        self.observe(step < self.freeze_after * total)

"""Static int8 with repairs: equalize, calibrate, round, measure, and repair what is too far off."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.fx import GraphModule

from compress.errors import CompressError
from compress.journal import Run
from compress.quality import flat_outputs
from compress.quantization import equalize as equalization
from compress.quantization import mixed
from compress.quantization.clamp_aware import ClampAwareQuantizer
from compress.quantization.lockstep import layers_of, walk
from compress.quantization.ranges import ActivationRange, WeightScale, int8_config
from compress.quantization.rounding import Rounder, Rounding, add_biases
from compress.quantization.sqnr_gate import Gate, Measured, chosen, keep_float, words
from compress.task import Inputs

# A walk holds the live values of all samples at once; beyond this it takes every n-th sample.
_WALK_BYTES = 1.0e9
MOST_ROUNDED = 64
# Without rounding a walk only measures, for which few samples do.
_MOST_MEASURED = 8


class Options(Protocol):
    """The keys of the ``quantize`` step that static int8 reads."""

    per_channel: bool
    fuse_clamps: bool
    activation_range: ActivationRange
    percentile: float
    weight_scale: WeightScale
    equalize: equalization.Equalization | None
    rounding: Rounding
    bias_correction: bool
    layers: tuple[str, ...]
    exclude: tuple[str, ...]
    gate: Gate | None
    mixed: mixed.MixedPrecision | None


@dataclass
class _Trial:
    """One way to quantize, and how it went."""

    prepared: GraphModule
    measured: Measured
    kept: list[str]
    by: equalization.Equalization | None
    notes: list[str]


def static_int8(
    graph: GraphModule, samples: Sequence[Inputs], options: Options, run: Run
) -> tuple[GraphModule, list[str]]:
    """A calibrated module, ready for ``convert_pt2e``, and notes on what was done.

    Raises ``CompressError`` with layers and figures where the gate refuses the result.
    """
    _, excluded = chosen(list(layers_of(graph)), options.layers, options.exclude)
    notes = [f"{len(excluded)} layers stay float as asked for"] if excluded else []
    if options.mixed is not None:
        more, said = mixed.choose(
            graph, samples, options.mixed, run, per_channel=options.per_channel, excluded=excluded
        )
        excluded, notes = excluded + more, notes + said
    network = _Network(graph, samples, options, run)
    trial = network.quantize(excluded, options.equalize)
    if options.gate is not None and options.gate.complaint(trial.measured):
        trial = network.repair(options.gate, trial)
    return trial.prepared, [*trial.notes, *notes, trial.measured.note()]


@dataclass
class _Network:
    """What is quantized, once or more often."""

    graph: GraphModule
    samples: Sequence[Inputs]
    options: Options
    run: Run

    def repair(self, gate: Gate, first: _Trial) -> _Trial:
        """Try the gate's repairs one after another; each keeps what the ones before it won."""
        trial = first
        for repair in gate.repairs:
            if repair == "equalize" and trial.by is None:
                self.run.say(f"{gate.complaint(trial.measured)}: equalizing")
                other = self.quantize(
                    trial.kept, "activations" if self.options.per_channel else "weights"
                )
                if other.measured.sqnr_db > trial.measured.sqnr_db:
                    trial = other
            if repair == "keep_float":
                trial = self._keep_worst(gate, trial)
            if not gate.complaint(trial.measured):
                return trial
        worst = first.measured.worst()[:3]
        raise CompressError(
            f"the quantized network is too far from the float one: "
            f"{gate.complaint(trial.measured)}",
            hint=f"The layers whose own quantization costs most: {words(worst)}. Try rounding: "
            f"gptq, exclude: [{', '.join(row.name for row in worst)}], or lower the gate.",
        )

    def _keep_worst(self, gate: Gate, trial: _Trial) -> _Trial:
        """Keep one, then two, then four more of the worst layers in float."""
        already, more = len(trial.kept), 1
        while gate.complaint(trial.measured):
            room = gate.max_float_layers - (len(trial.kept) - already)
            worst = [row.name for row in trial.measured.worst()][: min(more, room)]
            if not worst:
                break
            self.run.say(f"{gate.complaint(trial.measured)}: keeping {', '.join(worst)} in float")
            more *= 2
            trial = self.quantize([*trial.kept, *worst], trial.by)
            names = ", ".join(trial.kept[already:])
            trial.notes.append(f"kept in float so that the gate is met: {names}")
        return trial

    def quantize(self, kept: Sequence[str], by: equalization.Equalization | None) -> _Trial:
        """Calibrate a copy of the network, round its weights, measure it."""
        from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer
        from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e

        options, own = self.options, copy.deepcopy(self.graph)
        notes = [f"calibrated on {len(self.samples)} samples"]
        rounds = options.rounding != "nearest" or options.bias_correction
        if rounds or by is not None:
            add_biases(own)
        if by is not None:
            notes += equalization.equalize(own, self.samples, by)
        quantizer: Any = ClampAwareQuantizer() if options.fuse_clamps else XNNPACKQuantizer()
        quantizer.set_global(
            int8_config(
                options.per_channel,
                options.activation_range,
                options.percentile,
                options.weight_scale,
            )
        )
        prepared = prepare_pt2e(own, quantizer)
        if getattr(quantizer, "fused", 0):
            notes.append(f"{quantizer.fused} clamps (ReLU6) quantized together with their producer")
        if getattr(quantizer, "looked_through", 0):
            notes.append(f"{quantizer.looked_through} ranges chosen by the error behind a curve")
        with torch.no_grad():
            for inputs in self.samples:
                flat_outputs(prepared(*inputs))
        keep_float(prepared, kept)
        few = affordable(prepared, self.samples, MOST_ROUNDED if rounds else _MOST_MEASURED)
        rounder = Rounder(prepared, options.rounding, options.bias_correction)
        done = walk(prepared, few, rounder) if rounds else walk(prepared, few)
        if rounder.rounded:
            notes.append(
                f"{rounder.rounded} layers rounded by what they compute on {len(few)} samples"
            )
        if rounder.corrected:
            notes.append(f"{rounder.corrected} biases corrected")
        return _Trial(prepared, Measured(done), list(kept), by, notes)


def affordable(graph: GraphModule, samples: Sequence[Inputs], most: int) -> list[Inputs]:
    """At most ``most`` samples, fewer where a walk over them would hold more than 1 GB."""
    largest = 1
    for node in graph.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor) and node.op == "call_function":
            largest = max(largest, value.numel() * value.element_size())
    count = max(1, min(len(samples), most, int(_WALK_BYTES / (6 * largest))))
    return [samples[index * len(samples) // count] for index in range(count)]

"""The step ``quantize``: a float model in, one quantized program for all three runtimes out.

Source of the flow: torchao's PT2E quantization (``prepare_pt2e`` / ``convert_pt2e``) with the
XNNPACKQuantizer of ExecuTorch, whose scheme is that of Jacob et al., "Quantization and Training of
Neural Networks for Efficient Integer-Arithmetic-Only Inference" (arXiv 1712.05877).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, model_validator
from torch.fx import GraphModule

from compress.capture import capture, drop_unused
from compress.errors import CompressError, PocketshipError, first_line
from compress.fine_tune import FineTuning
from compress.quantization.float_graph import float_graph, share_equal
from compress.quantization.integer_weight import IntegerWeights, Settle
from compress.quantization.mixed import MixedPrecision
from compress.quantization.sqnr_gate import Gate
from compress.recipe import State, StepConfig, handles
from compress.task import Inputs

Mode = Literal["static", "dynamic", "qat", "weight_only", "fp16"]
_STATIC = ("static",)
_WEIGHTS = ("dynamic", "weight_only")
_PER_MODE: dict[str, tuple[str, ...]] = {
    "fuse_clamps": ("static", "qat"),
    "calibration_samples": ("static", "qat", *_WEIGHTS),
    "activation_range": _STATIC,
    "percentile": _STATIC,
    "weight_scale": ("static", *_WEIGHTS),
    "equalize": _STATIC,
    "rounding": ("static", *_WEIGHTS),
    "bias_correction": ("static", *_WEIGHTS),
    "gate": _STATIC,
    "mixed": _STATIC,
    "per_channel": ("static", "qat", *_WEIGHTS),
    "layers": ("static", *_WEIGHTS),
    "exclude": ("static", *_WEIGHTS),
    "bits": _WEIGHTS,
    "group_size": _WEIGHTS,
    "fine_tune": ("qat",),
    "freeze_observers_after": ("qat",),
    "compute": ("fp16",),
}
"""Keys that mean something in some modes only: given in another, they are an error."""


class Quantize(StepConfig):
    """int8 (or int4, or fp16) for all three runtimes; ``mode`` says what is quantized and how.

    ``static``: weights and activations, ranges from calibration data. ``dynamic``: linear layers,
    activations in ranges of each inference. ``qat``: static, trained with quantization in the loop.
    ``weight_only``: integer weights, float activations. ``fp16``: half precision.

    ``bits`` and ``group_size`` (input channels that share a scale) are those of the weights.

    ``fuse_clamps`` observes the range after a ReLU6 / hardtanh / clamp instead of between the
    convolution and its clamp. Off gives the stock quantizer, which spends most of its 256 steps on
    values that the clamp removes.
    """

    kind: Literal["quantize"] = "quantize"
    mode: Mode = "static"
    per_channel: bool = True
    bits: Literal[4, 8] = 8
    group_size: Literal[32, 64, 128, 256] | None = None
    fuse_clamps: bool = True
    calibration_samples: int | None = Field(default=None, gt=0)
    layers: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    activation_range: Literal["histogram", "min_max", "percentile", "mse"] = "histogram"
    percentile: float = Field(default=99.99, gt=50, le=100)
    weight_scale: Literal["max", "mse"] = "max"
    equalize: Literal["weights", "activations"] | None = None
    rounding: Literal["nearest", "gptq", "adaround"] = "nearest"
    bias_correction: bool = False
    gate: Gate | None = None
    mixed: MixedPrecision | None = None
    fine_tune: FineTuning | None = None
    freeze_observers_after: float = Field(default=0.5, ge=0, le=1)
    compute: Literal["fp32", "fp16"] = "fp16"

    @model_validator(mode="after")
    def _keys_fit_the_mode(self) -> Quantize:
        # By value, not by what was given: a configuration that was saved names every key.
        fields = type(self).model_fields
        changed = {key for key, field in fields.items() if getattr(self, key) != field.default}
        for key, modes in _PER_MODE.items():
            if key in changed and self.mode not in modes:
                usable = " and ".join(modes)
                raise ValueError(f"'{key}' has no meaning in mode '{self.mode}', only in {usable}")
        if self.mode == "qat" and self.fine_tune is None:
            raise ValueError("mode 'qat' needs 'fine_tune': how the weights are trained")
        if "percentile" in changed and self.activation_range != "percentile":
            raise ValueError("'percentile' needs activation_range: percentile")
        if self.group_size is not None and not self.per_channel:
            raise ValueError("'group_size' divides channels: it needs per_channel: true")
        if self.group_size is not None and self.mode == "dynamic" and self.bits == 8:
            raise ValueError(
                "'group_size' in mode 'dynamic' needs bits: 4, as XNNPACK has no other"
            )
        return self


@handles(Quantize)
def quantize(state: State, config: Quantize) -> State:
    """Run the mode; the result is a program that no step after it can train or prune."""
    try:
        made, notes = _MODES[config.mode](state, config)
        drop_unused(made)
        share_equal(made)
    except PocketshipError:
        raise
    except Exception as error:
        raise CompressError(
            f"{config.mode} quantization failed: {type(error).__name__}: {first_line(error)}"
        ) from error
    program = capture(made, state.task.example_inputs, name="the quantized model")
    return replace(state, model=None, program=program, notes=tuple(notes))


def _static(state: State, config: Quantize) -> tuple[GraphModule, list[str]]:
    # Importing torchao and executorch takes seconds: only who quantizes pays for it.
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

    from compress.quantization.static_int8 import static_int8

    samples = _calibration(state, config, "static quantization")
    graph = float_graph(state)
    copied = int(graph.meta["shared_weights"])
    prepared, notes = static_int8(graph, samples, config, state.run)
    if copied:
        notes.append(f"{copied} shared weights and biases quantized for each layer apart")
    return convert_pt2e(prepared), notes


def _dynamic(state: State, config: Quantize) -> tuple[GraphModule, list[str]]:
    from compress.quantization.dynamic import dynamic

    graph = float_graph(state)
    settle = _settle(state, config, graph)
    return dynamic(graph, _weights(config), config.layers, config.exclude, settle)


def _qat(state: State, config: Quantize) -> tuple[GraphModule, list[str]]:
    from compress.quantization.qat import train_quantized

    return train_quantized(state, config)


def _weight_only(state: State, config: Quantize) -> tuple[GraphModule, list[str]]:
    from compress.quantization.weight_only import weight_only

    graph = float_graph(state)
    settle = _settle(state, config, graph)
    return weight_only(graph, _weights(config), config.layers, config.exclude, settle)


def _weights(config: Quantize) -> IntegerWeights:
    return IntegerWeights(config.bits, config.per_channel, config.group_size, config.weight_scale)


def _settle(state: State, config: Quantize, graph: GraphModule) -> Settle | None:
    if config.rounding == "nearest" and not config.bias_correction:
        return None
    from compress.quantization.round_weights import round_weights

    samples = _calibration(state, config, "rounding by what layers compute")
    return lambda names: round_weights(
        graph,
        names,
        _weights(config),
        samples,
        rounding=config.rounding,
        correct_bias=config.bias_correction,
    )


def _calibration(state: State, config: Quantize, who: str) -> list[Inputs]:
    samples = list(state.task.calibration)[: config.calibration_samples]
    if not samples:
        raise CompressError(
            f"{who} needs calibration data",
            hint="Give Task(calibration=[...]) inputs that are not in the evaluation data.",
        )
    return samples


def _fp16(state: State, config: Quantize) -> tuple[GraphModule, list[str]]:
    from compress.quantization.half import half

    return half(float_graph(state), config.compute)


_MODES: dict[str, Callable[[State, Any], tuple[GraphModule, list[str]]]] = {
    "static": _static,
    "dynamic": _dynamic,
    "qat": _qat,
    "weight_only": _weight_only,
    "fp16": _fp16,
}

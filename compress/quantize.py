"""Quantization of an exported program (PT2E) for XNNPACK, ONNX Runtime and Core ML alike.

Source of the flow: torchao's PT2E quantization (``prepare_pt2e`` / ``convert_pt2e``) with the
XNNPACKQuantizer of ExecuTorch, whose scheme is that of Jacob et al., "Quantization and Training of
Neural Networks for Efficient Integer-Arithmetic-Only Inference" (arXiv 1712.05877).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field

from compress.capture import capture, drop_unused
from compress.constraints import materialize
from compress.errors import CompressError, first_line
from compress.quality import flat_outputs
from compress.recipe import State, StepConfig, handles


class Quantize(StepConfig):
    """Static int8: weights symmetric, activations affine with ranges from calibration data.

    ``fuse_clamps`` observes the range after a ReLU6 / hardtanh / clamp instead of between the
    convolution and its clamp. Off gives the stock quantizer, which spends most of its 256 steps on
    values that the clamp removes.
    """

    kind: Literal["quantize"] = "quantize"
    mode: Literal["static"] = "static"
    per_channel: bool = True
    fuse_clamps: bool = True
    calibration_samples: int | None = Field(default=None, gt=0)


@handles(Quantize)
def quantize(state: State, config: Quantize) -> State:
    """Calibrate and convert; the result is a program with quantize/dequantize operators."""
    # Importing torchao and executorch takes seconds: only who quantizes pays for it.
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer as stock
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    from compress.clamp_aware import ClampAwareQuantizer

    task = state.task
    samples = list(task.calibration)[: config.calibration_samples]
    if not samples:
        raise CompressError(
            "static quantization needs calibration data",
            hint="Give Task(calibration=[...]) inputs that are not in the evaluation data.",
        )
    if state.model is not None:
        plain = materialize(state.model)
        graph = capture(plain, task.example_inputs).module(check_guards=False)
    elif state.program is not None:
        graph = state.program.module(check_guards=False)
    quantizer = ClampAwareQuantizer() if config.fuse_clamps else stock.XNNPACKQuantizer()
    quantizer.set_global(stock.get_symmetric_quantization_config(is_per_channel=config.per_channel))
    uses = split_shared_weights(graph)
    try:
        prepared = prepare_pt2e(graph, quantizer)
        with torch.no_grad():
            for inputs in samples:
                flat_outputs(prepared(*inputs))
        converted = convert_pt2e(prepared)
        drop_unused(converted)
        share_equal(converted)
    except CompressError:
        raise
    except Exception as error:
        raise CompressError(f"PT2E failed: {type(error).__name__}: {first_line(error)}") from error
    program = capture(converted, task.example_inputs, name="the quantized model")
    notes = [f"calibrated on {len(samples)} samples"]
    if isinstance(quantizer, ClampAwareQuantizer) and quantizer.fused:
        notes.append(f"{quantizer.fused} clamps (ReLU6) quantized together with their producer")
    if uses:
        notes.append(f"{uses} shared weights and biases quantized for each layer apart")
    return replace(state, model=None, program=program, notes=tuple(notes))


def split_shared_weights(graph: torch.fx.GraphModule) -> int:
    """Copy a weight or bias for each further layer that reads it; returns how many were copied.

    PT2E observes a weight that two layers share at the first one only and leaves the other with a
    float weight between quantized activations, which XNNPACK cannot run. A shared bias XNNPACK
    stores once as int32, in steps of the first layer's input scale, which is wrong for the other.
    """
    aten = torch.ops.aten
    layers = {aten.conv1d.default, aten.conv2d.default, aten.convolution.default}
    layers |= {aten.linear.default, aten.conv_transpose2d.input}
    parameters = dict(graph.named_parameters(remove_duplicate=False))
    readers: dict[int, int] = {}
    copied = 0
    for node in list(graph.graph.nodes):
        if node.op != "get_attr" or node.target not in parameters:
            continue
        value = parameters[node.target]
        for user in list(node.users):
            readers[id(value)] = readers.get(id(value), 0) + 1
            if readers[id(value)] == 1 or user.target not in layers:
                continue
            name = f"_shared_{copied}"
            setattr(graph, name, torch.nn.Parameter(value.detach().clone(), requires_grad=False))
            with graph.graph.inserting_after(node):
                own = graph.graph.get_attr(name)
            own.meta = dict(node.meta)
            user.replace_input_with(node, own)
            copied += 1
    graph.recompile()
    return copied


def share_equal(graph: torch.fx.GraphModule) -> None:
    """Let buffers of equal content be one tensor: a weight that was shared is stored once again."""
    seen: dict[bytes, torch.Tensor] = {}
    for name, tensor in list(graph.named_buffers()):
        key = f"{tensor.dtype}{list(tensor.shape)}".encode() + tensor.numpy().tobytes()
        owner, _, attribute = name.rpartition(".")
        setattr(graph.get_submodule(owner), attribute, seen.setdefault(key, tensor))

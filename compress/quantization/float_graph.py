"""The captured float network that quantization starts from: one weight a layer, no batch norms."""

from __future__ import annotations

import torch
from torch import nn
from torch.fx import GraphModule

from compress.capture import capture
from compress.constraints import materialize
from compress.errors import CompressError
from compress.quantization.lockstep import WEIGHTED
from compress.recipe import State


def float_graph(state: State, *, dynamic_batch: bool = False) -> GraphModule:
    """The model or program of the state as an FX module with its own weights.

    Batch norms behind convolutions and linear layers are folded and shared weights are split.
    Raises ``CompressError`` that names a weight with NaN or infinity, and for a program that is
    quantized already.
    """
    from torchao.quantization.pt2e.utils import _fuse_conv_bn_, _fuse_linear_bn_

    if state.model is not None:
        plain = materialize(state.model)
        _finite(plain)
        program = capture(plain, state.task.example_inputs, dynamic_batch=dynamic_batch)
    else:
        assert state.program is not None
        program = state.program
    graph = program.module(check_guards=False)
    assert isinstance(graph, GraphModule)
    if any("quantized_decomposed" in str(node.target) for node in graph.graph.nodes):
        raise CompressError(
            "the program is quantized already", hint="Leave one of the two quantizations out."
        )
    _finite(graph)
    split_shared_weights(graph)
    _fuse_conv_bn_(graph)
    _fuse_linear_bn_(graph)
    _contiguous(graph)
    return graph


def _finite(model: nn.Module) -> None:
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CompressError(
                f"the weight '{name}' holds NaN or infinity",
                hint="Nothing can be quantized from it; look at the step or training before.",
            )


def _contiguous(graph: GraphModule) -> None:
    """Weights in plain memory order: a permuted one would be stored permuted."""
    for parameter in graph.parameters():
        if not parameter.is_contiguous():
            parameter.data = parameter.data.contiguous()


def split_shared_weights(graph: GraphModule) -> int:
    """Copy a weight or bias for each further layer that reads it; returns how many were copied.

    PT2E observes a weight that two layers share at the first one only and leaves the other with a
    float weight between quantized activations, which XNNPACK cannot run. A shared bias XNNPACK
    stores once as int32, in steps of the first layer's input scale, which is wrong for the other.
    """
    layers = {*WEIGHTED, torch.ops.aten.convolution.default}
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
            own = nn.Parameter(value.detach().clone(), requires_grad=value.requires_grad)
            setattr(graph, name, own)
            with graph.graph.inserting_after(node):
                reader = graph.graph.get_attr(name)
            reader.meta = dict(node.meta)
            user.replace_input_with(node, reader)
            copied += 1
    graph.recompile()
    graph.meta["shared_weights"] = copied
    return copied


def share_equal(graph: GraphModule) -> None:
    """Let buffers of equal content be one tensor: a weight that was shared is stored once again."""
    seen: dict[bytes, torch.Tensor] = {}
    for name, tensor in list(graph.named_buffers()):
        key = f"{tensor.dtype}{list(tensor.shape)}".encode() + tensor.numpy().tobytes()
        owner, _, attribute = name.rpartition(".")
        setattr(graph.get_submodule(owner), attribute, seen.setdefault(key, tensor))

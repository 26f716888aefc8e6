"""Folding batch normalisation into the layer before it: the same function with one layer less.

Every exporter does it too; who shares weights wants it done before, for a scale of its own in each
output channel leaves nothing of a codebook.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node
from torch.nn.modules.batchnorm import _BatchNorm

from compress.capture import capture
from compress.constraints import Masked, materialize, original_of
from compress.errors import CompressError
from compress.pruning.weights import Weight, weights_of
from compress.recipe import State, StepConfig, handles
from compress.task import Inputs

_PRODUCERS = ("aten.conv1d", "aten.conv2d", "aten.conv3d", "aten.conv_transpose", "aten.linear")


class FoldBatchNorm(StepConfig):
    """Fold each batch normalisation whose input nobody else reads into its convolution."""

    kind: Literal["fold_batch_norm"] = "fold_batch_norm"


@handles(FoldBatchNorm)
def fold_batch_norm_step(state: State, config: FoldBatchNorm) -> State:
    """Fold where it can be done; the note says how many are left."""
    model = state.float_model()
    folded = fold_batch_norm(model, state.task.example_inputs)
    left = sum(isinstance(module, _BatchNorm) for module in model.modules())
    note = f"{len(folded)} batch normalisations folded, {left} left"
    return replace(state, notes=(note,))


def fold_batch_norm(model: nn.Module, example_inputs: Inputs) -> list[str]:
    """Fold in place; returns the names of the layers that took up a batch normalisation.

    Left alone are: norms that use the statistics of the batch, layers or norms that run more than
    once or share weights, and layers whose weights share values. Masks hold. Raises
    ``CompressError`` where a layer's own code does not read the bias that it now needs.
    """
    folded = []
    for layer, norm in foldable(model, example_inputs):
        _fold(layer, norm)
        _replace(model, norm, nn.Identity())
        folded.append(layer.layer)
    if folded:
        _refuse_unread(model, example_inputs, folded)
    return folded


def foldable(model: nn.Module, example_inputs: Inputs) -> list[tuple[Weight, _BatchNorm]]:
    """Pairs of a weight and the batch normalisation that scales its output channels."""
    plain = materialize(copy.deepcopy(model)).eval()
    weights = {weight.full_name: weight for weight in weights_of(model)}
    pairs = []
    for weight_name, norm_name in _pairs(capture(plain, example_inputs)):
        weight = weights.get(weight_name)
        norm = model.get_submodule(norm_name)
        if weight is None or len(weight.holders) > 1 or not isinstance(norm, _BatchNorm):
            continue
        if all(isinstance(constraint, Masked) for constraint in weight.constrained_by):
            pairs.append((weight, norm))
    return pairs


def _pairs(program: ExportedProgram) -> Iterator[tuple[str, str]]:
    """Dotted names of a weight and of a norm, each used once, the one feeding only the other."""
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    for node in program.graph.nodes:
        if str(node.target) != "aten.batch_norm.default" or node.args[5]:
            continue
        producer, mean = node.args[0], node.args[3]
        if not isinstance(producer, Node) or not isinstance(mean, Node):
            continue
        if not str(producer.target).startswith(_PRODUCERS) or len(producer.users) > 1:
            continue
        weight = producer.args[1]
        assert isinstance(weight, Node)
        if len(weight.users) > 1 or len(mean.users) > 1 or weight.name not in names:
            continue
        yield names[weight.name], names[mean.name].rpartition(".")[0]


def _fold(weight: Weight, norm: _BatchNorm) -> None:
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    factor = (variance.double() + norm.eps).rsqrt()
    shift = -mean.double() * factor
    if norm.affine:
        factor, shift = factor * norm.weight.double(), shift * norm.weight.double()
        shift = shift + norm.bias.double()
    groups = getattr(weight.module, "groups", 1)
    original = weight.original
    shape = [1] * original.ndim
    shape[weight.out_axis] = -1
    with torch.no_grad():
        if weight.out_axis == 1 and groups > 1:
            # A transposed convolution has its output channels of all groups one behind the other.
            wide = original.double().reshape(groups, -1, *original.shape[1:])
            scale = factor.view(groups, 1, -1, *[1] * (original.ndim - 2))
            original.copy_((wide * scale).reshape(original.shape))
        else:
            original.copy_(original.double() * factor.view(shape))
        _add_bias(weight, factor, shift)


def _add_bias(weight: Weight, factor: Tensor, shift: Tensor) -> None:
    module, dtype = weight.module, weight.original.dtype
    if getattr(module, "bias", None) is None:
        trained = weight.original.requires_grad
        module.bias = nn.Parameter(shift.to(dtype), requires_grad=trained)
    else:
        bias = original_of(module, "bias")
        bias.copy_(bias.double() * factor + shift)


def _refuse_unread(model: nn.Module, example_inputs: Inputs, layers: list[str]) -> None:
    program = capture(materialize(copy.deepcopy(model)).eval(), example_inputs)
    names = program.graph_signature.inputs_to_parameters
    read = {names[node.name] for node in program.graph.nodes if node.users and node.name in names}
    if ignored := [layer for layer in layers if f"{layer}.bias" not in read]:
        raise CompressError(
            "the layer's own forward() ignores a bias, so no batch norm can be folded into it",
            where=", ".join(ignored[:3]),
            hint="Pass self.bias on in its forward(), or leave fold_batch_norm out.",
        )


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in model.modules():
        for name, child in list(parent._modules.items()):
            if child is old:
                parent._modules[name] = new

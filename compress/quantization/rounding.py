"""Rounding of weights that looks at what the rounded layer computes on calibration data.

Rounding each weight to its nearest step is not what changes the layer's output least. Here the
layers are gone through in order, each sees its inputs from the layers that are already quantized,
and

* the weights are first moved to what makes the best of the quantized inputs: a ridge regression of
  the exact outputs on them that is drawn towards the weights as they are (the idea of GPTAQ, Li et
  al., arXiv 2504.02692);
* the steps of a row are chosen one after another, the error of each made up for by the weights
  that are still to be rounded (Optimal Brain Compression, Frantar & Alistarh, arXiv 2208.11580, in
  the order and with the Cholesky factor of GPTQ, Frantar et al., arXiv 2210.17323);
* or each weight is rounded up or down as :mod:`.adaround` finds;
* the bias takes up the difference in the mean of each output channel that remains (empirical bias
  correction, Nagel et al., arXiv 1906.04721).

A weight that is zero stays zero.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.nn import functional

from compress.quantization.adaround import adaround
from compress.quantization.grid import rounded
from compress.quantization.lockstep import CONVOLUTIONS, LINEAR, Layer

Rounding = Literal["nearest", "gptq", "adaround"]
# On two calibration photographs of EfficientNet-Lite0 left out of the fit: 22.6 dB without any
# regression, 23.9 with 1, 25.3 with 8, 25.1 with 40.
RIDGE = 20.0
_BLOCK = 64
# Enough for a covariance of 1000 columns or so; more positions of an image say little more.
_POSITIONS = 32_768


class Rounder:
    """A visitor of :func:`.lockstep.walk` that settles each layer's integers and bias.

    Args:
        rounding: ``nearest`` leaves the weights as they are.
        correct_bias: whether the bias takes up the mean error.
        damping: share of the mean diagonal that is added to it; keeps the inverse finite where
            calibration data do not reach every direction.
        ridge: how strongly the regression is drawn towards the weights as they are, in mean
            diagonals; infinite leaves it out.
    """

    def __init__(
        self,
        graph: GraphModule,
        rounding: Rounding,
        correct_bias: bool,
        *,
        damping: float = 0.01,
        ridge: float = RIDGE,
    ) -> None:
        self.graph, self.rounding, self.correct_bias = graph, rounding, correct_bias
        self.damping, self.ridge = damping, ridge
        self.rounded = self.corrected = 0
        self.parameters = dict(graph.named_parameters(remove_duplicate=False))

    def __call__(self, layer: Layer) -> None:
        """Settle one layer."""
        if layer.node.target not in CONVOLUTIONS | {LINEAR} or layer.weight not in self.parameters:
            return
        weight = self.parameters[layer.weight]
        exact = weight.detach().clone()
        moments = _Moments(layer, exact.shape)
        observer = layer.observer
        if self.rounding != "nearest":
            scale, _ = observer.calculate_qparams()
            columns = moments.weight_rows(exact)
            per_row = moments.weight_rows(_broadcast(scale, exact))
            covariance, cross = moments.covariances()
            if self.rounding == "gptq":
                columns = regressed(columns, covariance, cross, self.ridge)
                settled = gptq(columns, covariance, per_row, observer.quant_max, self.damping)
            else:
                if not self.correct_bias:
                    covariance, cross = moments.with_means(covariance, cross)
                settled = adaround(
                    columns, covariance, cross, per_row, observer.quant_max, damping=self.damping
                )
            weight.data.copy_(moments.as_weight(settled, exact))
            observer.fixed = scale
            self.rounded += 1
        if self.correct_bias and layer.bias in self.parameters:
            scale, _ = observer.calculate_qparams()
            held = rounded(weight.detach(), _broadcast(scale, exact), observer.quant_max)
            lost = moments.mean_output(exact, moments.exact_mean)
            lost = lost - moments.mean_output(held, moments.mean)
            self.parameters[layer.bias].data.add_(lost)
            self.corrected += 1


def _broadcast(scale: Tensor, weight: Tensor) -> Tensor:
    """A scale for each weight; given for all, for each channel (axis 0), or as many as that."""
    if scale.ndim < 2:
        scale = scale.view(-1, *[1] * (weight.ndim - 1))
    return scale.expand_as(weight)


def add_biases(graph: GraphModule) -> int:
    """Give each convolution and linear layer without a bias one of zeros; returns how many."""
    added = 0
    parameters = dict(graph.named_parameters(remove_duplicate=False))
    for node in list(graph.graph.nodes):
        if node.target not in CONVOLUTIONS | {LINEAR}:
            continue
        weight = node.args[1]
        if len(node.args) > 2 and node.args[2] is not None:
            continue
        if weight.op != "get_attr" or weight.target not in parameters or node.kwargs:
            continue
        name = f"_bias_{added}"
        held = parameters[weight.target]
        setattr(graph, name, nn.Parameter(held.new_zeros(len(held)), requires_grad=False))
        with graph.graph.inserting_after(weight):
            bias = graph.graph.get_attr(name)
        if "val" in weight.meta:
            bias.meta["val"] = weight.meta["val"].new_empty(len(held))
        node.args = (*node.args[:2], bias, *node.args[3:])
        added += 1
    graph.recompile()
    return added


def regressed(weight: Tensor, covariance: Tensor, cross: Tensor, ridge: float) -> Tensor:
    """Weights whose outputs on the quantized inputs are nearest to the exact outputs.

    Minimises ``|W x - V q|^2 + ridge * mean diagonal * |W - V|^2`` over V for exact inputs x and
    quantized inputs q; a weight of zero stays zero. Shapes as in :func:`gptq`; ``cross`` is the
    covariance of x with q.
    """
    if ridge == float("inf"):
        return weight
    mean = covariance.double().diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-12)
    pull = torch.eye(weight.shape[2]).double() * (ridge * mean)[:, None, None]
    wanted = weight.double() @ (cross.double() + pull)
    solved = torch.linalg.solve(covariance.double() + pull, wanted.transpose(1, 2))
    return torch.where(weight == 0, weight, solved.transpose(1, 2).to(weight.dtype))


def gptq(
    weight: Tensor, covariance: Tensor, scale: Tensor, qmax: int, damping: float = 0.01
) -> Tensor:
    """Weights on the grid ``scale * integer`` with the least output error, greedily.

    Args:
        weight: [groups, rows, columns]; output = weight @ input for each group.
        covariance: [groups, columns, columns] of the inputs.
        scale: [groups, rows, 1], or with a scale for each column.
        qmax: the largest integer.

    Returns the rounded weights, of the same shape.
    """
    groups, _, count = weight.shape
    keep = weight != 0
    mean = covariance.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-12)
    covariance, mean = covariance.double(), mean.double()
    matrix = covariance + torch.eye(count).double() * (damping * mean)[:, None, None]
    order = matrix.diagonal(dim1=1, dim2=2).argsort(1, descending=True)
    matrix = matrix.gather(1, order[:, :, None].expand(-1, -1, count))
    matrix = matrix.gather(2, order[:, None, :].expand(-1, count, -1))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix))
    upper = torch.linalg.cholesky(inverse, upper=True).float()
    spread = order[:, None, :].expand_as(weight)
    left, keep = weight.gather(2, spread).float().clone(), keep.gather(2, spread)
    scale = scale.expand_as(weight).gather(2, spread)
    result = torch.zeros_like(left)
    for start in range(0, count, _BLOCK):
        end = min(start + _BLOCK, count)
        errors = torch.zeros_like(left[:, :, start:end])
        for column in range(start, end):
            now = left[:, :, column : column + 1]
            step = scale[:, :, column : column + 1]
            chosen = (now / step).round().clamp(-qmax, qmax) * step
            chosen = torch.where(keep[:, :, column : column + 1], chosen, torch.zeros(()))
            result[:, :, column : column + 1] = chosen
            error = (now - chosen) / upper[:, column, column].view(groups, 1, 1)
            left[:, :, column + 1 : end] -= error * upper[:, column : column + 1, column + 1 : end]
            errors[:, :, column - start : column - start + 1] = error
        left[:, :, end:] -= errors @ upper[:, start:end, end:]
    return torch.empty_like(result).scatter_(2, spread, result)


class _Moments:
    """Mean and covariance of a layer's quantized inputs, as the columns that weights multiply."""

    def __init__(self, layer: Layer, shape: torch.Size) -> None:
        self.layer = layer
        self.columns = Columns(layer.node, shape)
        self.groups = self.columns.groups
        self.exact_mean = self._mean(layer.exact)
        self.mean = self._mean(layer.quantized)

    def _mean(self, values: list[Tensor]) -> Tensor:
        """[groups, columns]."""
        return torch.stack([self.columns(value).mean(2) for value in values]).mean(0)

    def covariances(self) -> tuple[Tensor, Tensor]:
        """Of the quantized inputs, and of the exact with the quantized ones.

        Each [groups, columns, columns]. The bias takes up the mean, so only deviations count.
        """
        own, cross = torch.zeros(()), torch.zeros(())
        count = 0
        most = _POSITIONS // len(self.layer.quantized) + 1
        for exact, quantized in zip(self.layer.exact, self.layer.quantized, strict=True):
            columns = self.columns(quantized)
            every = -(-columns.shape[2] // most)
            columns = columns[:, :, ::every] - self.mean[:, :, None]
            before = self.columns(exact)[:, :, ::every] - self.exact_mean[:, :, None]
            own = own + columns @ columns.transpose(1, 2)
            cross = cross + before @ columns.transpose(1, 2)
            count += columns.shape[2]
        return own / count, cross / count

    def with_means(self, covariance: Tensor, cross: Tensor) -> tuple[Tensor, Tensor]:
        """Second moments in place of covariances: no bias takes up the mean."""
        own = self.mean[:, :, None] @ self.mean[:, None, :]
        return covariance + own, cross + self.exact_mean[:, :, None] @ self.mean[:, None, :]

    def weight_rows(self, weight: Tensor) -> Tensor:
        """[groups, outputs of a group, columns]."""
        return weight.reshape(self.groups, weight.shape[0] // self.groups, -1)

    @staticmethod
    def as_weight(rows: Tensor, like: Tensor) -> Tensor:
        """The inverse of :meth:`weight_rows`."""
        return rows.reshape(like.shape)

    def mean_output(self, weight: Tensor, mean: Tensor) -> Tensor:
        """[outputs]: what the weight makes of a mean input."""
        return (self.weight_rows(weight) @ mean[:, :, None]).reshape(-1)


class Columns:
    """The input of a convolution or linear layer as the columns that its weight multiplies.

    Args:
        node: the layer, of ATen's ``conv1d``, ``conv2d`` or ``linear``.
        shape: of its weight.
    """

    def __init__(self, node: Node, shape: torch.Size) -> None:
        self.linear = node.target is LINEAR
        self.kernel = list(shape[2:])
        args: Any = node.args

        def window(place: int, default: int) -> list[int]:
            given = list(args[place]) if len(args) > place else [default]
            return given * len(self.kernel) if len(given) == 1 else given

        self.groups = 1 if self.linear or len(args) <= 6 else int(args[6])
        self.stride, self.padding, self.dilation = window(3, 1), window(4, 0), window(5, 1)

    def __call__(self, value: Tensor) -> Tensor:
        """[groups, columns of the weight, positions]."""
        if self.linear:
            return value.reshape(-1, value.shape[-1]).T[None]
        if {*self.kernel, *self.stride} == {1} and not any(self.padding):
            return value.movedim(1, 0).reshape(self.groups, value.shape[1] // self.groups, -1)
        # unfold knows images only: a line is an image of one row.
        fill = 2 - len(self.kernel)
        value = value[:, :, None] if fill else value
        patches = functional.unfold(
            value,
            (*[1] * fill, *self.kernel),
            (*[1] * fill, *self.dilation),
            (*[0] * fill, *self.padding),
            (*[1] * fill, *self.stride),
        )
        batch, rows, positions = patches.shape
        return patches.movedim(1, 0).reshape(self.groups, rows // self.groups, batch * positions)

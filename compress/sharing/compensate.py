"""Assigning weights to values such that later weights make up for the errors of earlier ones.

A layer's output error is (w - q) H (w - q)^T for each row w of its weight, where H is the second
moment of what the row is multiplied with. Taking the columns in turn, the error of each is spread
over those that are still free (Frantar et al., *GPTQ*, arXiv 2210.17323, there for even grids; any
table of values will do).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compress.pruning.weights import Weight
from compress.quality import flat_outputs
from compress.task import Inputs

_PLACES = 512
"""Places of an image, evenly spread, that moments are taken from."""


def input_moments(
    model: nn.Module, weights: Sequence[Weight], inputs: Sequence[Inputs]
) -> dict[str, Tensor]:
    """Full name of a weight -> H, float64 ``[groups, columns, columns]``, over ``inputs``.

    Of linear layers and two-dimensional convolutions; others have none. Padding that a layer adds
    in its own code is left out.
    """
    moments: dict[str, Tensor] = {}

    def hook(name: str) -> object:
        def add(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
            columns = _columns(layer, given[0].detach())
            found = (columns @ columns.transpose(1, 2)).double()
            moments[name] = moments[name] + found if name in moments else found

        return add

    handles = [
        module.register_forward_pre_hook(hook(weight.full_name))  # type: ignore[arg-type]
        for weight in weights
        for module, _ in weight.holders
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    try:
        with torch.no_grad():
            for one in inputs:
                flat_outputs(model(*one))
    finally:
        for handle in handles:
            handle.remove()
    return moments


def _columns(layer: nn.Module, x: Tensor) -> Tensor:
    """[groups, columns, places]: what the rows of a flattened weight are multiplied with."""
    if isinstance(layer, nn.Linear):
        return x.reshape(-1, x.shape[-1]).T[None]
    assert isinstance(layer, nn.Conv2d)
    x = x if x.ndim == 4 else x[None]
    padding = layer.padding if isinstance(layer.padding, tuple) else 0
    patches = nn.functional.unfold(x, layer.kernel_size, layer.dilation, padding, layer.stride)
    places = patches.shape[-1]
    if places > _PLACES:
        patches = patches[..., torch.linspace(0, places - 1, _PLACES).long()]
    grouped = patches.reshape(len(x), layer.groups, -1, patches.shape[-1])
    return grouped.permute(1, 2, 0, 3).flatten(2)


def assign(
    weight: Tensor, moments: Tensor, tables: Tensor, alive: Tensor, damping: float = 0.01
) -> Tensor:
    """Index in its row's table for each element.

    Args:
        weight: [groups, rows, columns].
        moments: [groups, columns, columns].
        tables: [groups, rows, values], rising; infinity for places that hold no value.
        alive: bool, as ``weight``; what is False is zero, and its index means nothing.
        damping: added to the moments' diagonal, in mean diagonals. Large, errors of columns are
            taken for independent, and each weight gets the value that is nearest to it.
    """
    open_weight = weight.double().clone()
    diagonal = moments.diagonal(dim1=1, dim2=2)
    # Columns whose inputs are largest come first: most is left to make up for them.
    order = diagonal.argsort(dim=1, descending=True, stable=True)
    open_weight = open_weight.gather(2, order[:, None].expand_as(open_weight))
    living = alive.gather(2, order[:, None].expand_as(alive))
    size = moments.shape[-1]
    ordered = moments.gather(1, order[:, :, None].expand_as(moments))
    ordered = ordered.gather(2, order[:, None].expand_as(moments))
    added = damping * diagonal.mean(1).clamp(min=1e-12)
    ordered = ordered + added[:, None, None] * torch.eye(size, dtype=torch.float64)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(ordered))
    factor = torch.linalg.cholesky(inverse, upper=True)
    tables = tables.double()
    middles = (tables[..., 1:] + tables[..., :-1]) / 2
    indices = torch.zeros(weight.shape, dtype=torch.long)
    for column in range(size):
        value = open_weight[..., column]
        index = (value[..., None] > middles).sum(-1)
        chosen = tables.gather(2, index[..., None])[..., 0]
        chosen = torch.where(living[..., column], chosen, 0.0)
        error = (value - chosen) / factor[:, column, column, None]
        open_weight[..., column:] -= error[..., None] * factor[:, None, column, column:]
        indices[..., column] = index
    return torch.zeros_like(indices).scatter_(2, order[:, None].expand_as(indices), indices)
